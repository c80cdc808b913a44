/* family_prime.c: block floating point whose sub-blocks carry a small shift each (MX9, MX6, MX4 of Darvish Rouhani et al. 2023).
 *
 *   | E | s0 s1 .. | q0 | q1 | ... |       weight = q * 2^(E - s - 127 - m + 1)       s = min(E - largest exponent field of the sub-block, 2^d - 1)
 *
 * Why this way: a sub-block is a group whose exponent byte is E - s, so codes and errors come from the kernels of all formats; here is only the
 * choice of E and s.
 * Corner cases: subnormal weights count as 0, in groups of normal ones too; E - s is never below 0; a sub-block of any length is worked off in
 * pieces; without sub-blocks (shifts of 0 bits) the group is the only one.
 * Reference: NUMERICS_BLOCK.md 2. Worked number: mx4, 3 .1 .75 -.6 in sub-blocks of 2: E = 128, shifts 0 1, codes 3 0 2 -1.
 */
#include <math.h>
#include <string.h>

#include "number/chunk.h"
#include "number/half.h"
#include "number/kernel.h"

enum { PIECE = 256, LAST_BYTE = 254 };

/* A group being coded. */
struct job {
    const struct quant *quant;
    const struct kernels *kernels;
    const float *x, *weight;
    size_t n, sub; /* weights of the group and of its sub-blocks */
    int32_t floor; /* E of rule floor */
};

/* The largest exponent field; 0 for zeros and subnormals. */
static int32_t largest_field(const float *x, size_t n)
{
    uint32_t most = 0;
    for (size_t i = 0; i < n; i++) {
        const uint32_t size = f32_bits(x[i]) & 0x7FFFFFFFu;
        most = size > most ? size : most;
    }
    return (int32_t)(most >> 23);
}

static const float *flushed(const float *x, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) out[i] = f32_bits(x[i]) & 0x7F800000u ? x[i] : 0.0f;
    return out;
}

/* Weights of the sub-block that begins at i, and of the piece: whole sub-blocks, or part of one. */
static size_t left_in_sub(const struct job *job, size_t i)
{
    const size_t left = job->sub - i % job->sub;
    return left < job->n - i ? left : job->n - i;
}

static size_t piece_at(const struct job *job, size_t i)
{
    const size_t whole = PIECE / job->sub * job->sub, left = whole ? job->n - i : left_in_sub(job, i), most = whole ? whole : PIECE;
    return left < most ? left : most;
}

static struct group_scale scale_of(int32_t byte, int32_t shift)
{
    return (struct group_scale){ .bits = (uint32_t)byte, .value = exact_exp2(byte - shift - 127), .shift = (uint32_t)shift };
}

/* Adds the error of n weights from number i on, all of one sub-block, to the sum. */
static void add_error(const struct job *job, size_t i, size_t n, const struct group_scale *scale, struct error_sum *sum)
{
    float x[PIECE];
    for (size_t done = 0, count; done < n; done += count, sum->first += (uint32_t)count) {
        count = n - done < PIECE ? n - done : PIECE;
        sum->x = flushed(job->x + i + done, count, x);
        sum->weight = job->weight ? job->weight + i + done : NULL;
        sum->n = count;
        job->kernels->error(job->quant->elem, job->quant->rounding, scale, sum);
    }
}

static struct error_sum new_sum(const struct job *job)
{
    return (struct error_sum){ .unit = exact_exp2(127 - job->floor), .limit = HUGE_VALF }; /* lanes are 0 */
}

static int32_t shift_of(const struct job *job, int32_t byte, size_t i, size_t n)
{
    const int32_t most = (1 << (job->quant->sub_block ? job->quant->shift_bits : 0)) - 1, shift = byte - largest_field(job->x + i, n);
    return shift < 0 ? 0 : shift > most ? most : shift;
}

/* Scales under a byte by the shifts of rule floor. */
static void floor_scales(const struct job *job, int32_t byte, struct group_scale *scales)
{
    for (size_t i = 0, n; i < job->n; i += n) {
        n = left_in_sub(job, i);
        *scales++ = scale_of(byte, shift_of(job, byte, i, n));
    }
}

/* Of the scale and that of one shift less the one of less error, for a sub-block of any length. */
static void search_long(const struct job *job, int32_t byte, size_t i, size_t n, struct group_scale *scale, struct error_sum *total)
{
    if (scale->shift > 0) {
        const struct group_scale less = scale_of(byte, (int32_t)scale->shift - 1);
        struct error_sum first = new_sum(job), second = new_sum(job);
        add_error(job, i, n, scale, &first);
        add_error(job, i, n, &less, &second);
        if (second.total < first.total) *scale = less;
    }
    add_error(job, i, n, scale, total);
}

/* Sum of the terms of a sub-block. */
static float sum_of(const float *terms, size_t n)
{
    float lanes[CHUNK] = { 0 };
    for (size_t i = 0; i < n; i++) lanes[i % CHUNK] += terms[i];
    return chunk_sum(lanes);
}

/* Error terms of n weights from number i on, sub-blocks under scales with `less` subtracted from their shifts where these are not 0. */
static void terms_of(const struct job *job, size_t i, size_t n, const struct group_scale *scales, uint32_t less, float *terms)
{
    float x[PIECE], values[PIECE];
    for (size_t k = 0; k < n; k++) {
        const struct group_scale *scale = &scales[k / job->sub];
        values[k] = scale->shift >= less ? scale->value * (float)(1u << less) : scale->value;
    }
    job->kernels->terms(job->quant->elem, job->quant->rounding, values, new_sum(job).unit, n, flushed(job->x + i, n, x), terms);
    for (size_t k = 0; job->weight && k < n; k++) terms[k] *= job->weight[i + k];
}

/* The same for all sub-blocks of n weights at once, n at most PIECE. */
static void search_short(const struct job *job, int32_t byte, size_t i, size_t n, struct group_scale *scales, struct error_sum *total)
{
    float terms[PIECE], less_terms[PIECE];
    terms_of(job, i, n, scales, 0, terms);
    terms_of(job, i, n, scales, 1, less_terms);
    for (size_t k = 0, count; k < n; k += count, scales++) {
        count = n - k < job->sub ? n - k : job->sub;
        if (scales->shift == 0 || !(sum_of(less_terms + k, count) < sum_of(terms + k, count))) continue;
        *scales = scale_of(byte, (int32_t)scales->shift - 1);
        memcpy(terms + k, less_terms + k, count * sizeof *terms);
    }
    for (size_t k = 0; k < n; k++) total->lanes[(i + k) % CHUNK] += terms[k];
}

/* Scales under a byte, each shift the better of the one of rule floor and one less; returns the error of the group. */
static float search_scales(const struct job *job, int32_t byte, struct group_scale *scales)
{
    struct error_sum total = new_sum(job);
    floor_scales(job, byte, scales);
    for (size_t i = 0, n; i < job->n; i += n) {
        if (job->sub > PIECE) {
            n = left_in_sub(job, i);
            search_long(job, byte, i, n, &scales[i / job->sub], &total);
        } else {
            n = piece_at(job, i);
            search_short(job, byte, i, n, &scales[i / job->sub], &total);
        }
    }
    return chunk_sum(total.lanes);
}

/* Of the bytes floor, floor + 1, floor - 1 the one of least error. */
static void search(const struct job *job, struct group_scale *scales)
{
    static const int32_t steps[] = { 0, 1, -1 };
    struct group_scale tried[SUB_BLOCKS_MAX];
    float least = HUGE_VALF;
    for (size_t k = 0; k < sizeof steps / sizeof steps[0]; k++) {
        const int32_t byte = job->floor + steps[k];
        if (byte < 0 || byte > LAST_BYTE) continue;
        const float error = search_scales(job, byte, tried);
        if (k > 0 && !(error < least)) continue;
        least = error;
        memcpy(scales, tried, (job->n + job->sub - 1) / job->sub * sizeof *scales);
    }
}

static void prime_encode(const struct quant *quant, const struct kernels *kernels, const float *x, const float *weight, size_t n,
                         struct group_scale *scales, uint16_t *codes, float *y)
{
    const struct job job = { quant, kernels, x, weight, n, quant->sub_block ? quant->sub_block : n, largest_field(x, n) };
    float piece[PIECE];
    if (quant->rule == RULE_SEARCH) search(&job, scales);
    else floor_scales(&job, job.floor, scales);
    for (size_t i = 0, count; i < n; i += count) {
        count = piece_at(&job, i);
        const struct groups groups = { count, job.sub < count ? job.sub : count, scales + i / job.sub };
        kernels->encode(quant->elem, quant->rounding, &groups, flushed(x + i, count, piece), codes + i, y ? y + i : NULL);
    }
}

static uint32_t prime_candidates(const struct quant *quant)
{
    (void)quant;
    return 1;
}

extern const struct family family_prime;
const struct family family_prime = { .name = "bfp-prime", .candidates = prime_candidates, .encode = prime_encode };
