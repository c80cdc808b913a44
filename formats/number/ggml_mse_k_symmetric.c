/* ggml_mse_k_symmetric.c: least square error for 256 weights with integer scales: Q3_K, Q6_K, IQ4_XS.
 *
 *   y = (d * scale) * q, q a whole number or a level of IQ4
 *   each group: its best scale of either sign by search -> several d -> each group: the best of 32 integers around the two, by the error as stored
 *   -> d anew by least squares through all codes -> again, while it helps
 *
 * Why this way: codes are not symmetric, so the sign of a scale matters and both are tried; an integer is judged by the error of its own nearest
 * codes.
 * Corner cases: integers are bounded by their bits; a group of zeros has the scale nearest to 0.
 * Reference: NUMERICS_GGML.md 5. Worked number: Q3_K, the largest scale of a group -0.5: d = 0.5/32 and its integer -32.
 */
#include "number/ggml_bits.h"
#include "number/ggml_mse.h"
#include "number/ggml_mse_search.h"
#include "number/ggml_pack.h"

#define SUPER 256u
#define GROUPS_MAX 16u
#define STARTS_MAX 8u
#define SMALLEST 0x1p-25f
#define LARGEST 65504.0f

/* How the types differ. */
struct symmetric_type {
    size_t group; /* elements */
    int32_t low, high; /* integers */
    struct mse_scale_codes codes;
    size_t starts; /* integers of the largest scale that are tried first */
    float start[STARTS_MAX];
    int rounds;
};

static const struct symmetric_type q3 = { 16, -32, 31, { -4.0f, 3.0f, false, 2.5f, 0.1f, 1 }, 6, { -32, -31, -30, -29, -28, -27 }, 4 };
static const struct symmetric_type q6 = { 16, -128, 127, { -32.0f, 31.0f, false, 21.0f, 0.45f, 1 }, 6, { -128, -124, -120, -116, -112, -108 }, 4 };
static const struct symmetric_type iq4 = { 32, -32, 31, { 0.0f, 0.0f, true, 90.0f, 4.0f, 1 }, 3, { -32, -31, -30 }, 2 };

struct symmetric_work {
    const struct symmetric_type *type;
    const float *x, *w;
    float scales[2][GROUPS_MAX]; /* positive, negative */
    bool negative[GROUPS_MAX]; /* the better one */
};

/* What would be stored. */
struct symmetric_choice {
    float d, error;
    int32_t scales[GROUPS_MAX];
};

static size_t groups_of(const struct symmetric_type *type)
{
    return SUPER / type->group;
}

static struct mse_group group_at(const struct symmetric_work *work, size_t g)
{
    const size_t n = work->type->group;
    return (struct mse_group){ work->x + n * g, work->w + n * g, n };
}

/* Integers to try: 16 around the scale of either sign; for levels, which are slower the further the lanes are apart, 16 around the better one alone,
 * twice, and not beyond 0. */
static void integers_around(const struct symmetric_work *work, size_t g, float d, int32_t *integers)
{
    const struct symmetric_type *type = work->type;
    const float inverse_d = inverse(d);
    const bool one_sign = type->codes.levels;
    const int32_t count = (int32_t)MSE_LANES, span = count / 2;
    for (int32_t k = 0; k < count; k++) {
        const bool negative = one_sign ? work->negative[g] : k >= span;
        const float centre = work->scales[negative][g] * inverse_d;
        const int32_t low = one_sign && centre >= 0.0f ? 0 : type->low, high = one_sign && centre < 0.0f ? 0 : type->high;
        integers[k] = clamp_int(nearest_int(centre) + k % span - span / 2, low, high);
    }
}

/* The best integer of a group under d; returns its error. */
static float choose_integer(const struct symmetric_work *work, size_t g, struct symmetric_choice *choice)
{
    const struct mse_group group = group_at(work, g);
    int32_t integers[MSE_LANES];
    float scales[MSE_LANES], errors[MSE_LANES];
    integers_around(work, g, choice->d, integers);
    for (size_t k = 0; k < MSE_LANES; k++) scales[k] = choice->d * (float)integers[k];
    mse_scale_errors(&group, &work->type->codes, scales, errors);
    const size_t best = mse_least(errors);
    choice->scales[g] = integers[best];
    return errors[best];
}

/* Integers for d; takes over in best if their error is less. */
static bool try_unit(const struct symmetric_work *work, float d, struct symmetric_choice *best)
{
    struct symmetric_choice choice = { .d = f16_to_f32(f32_to_f16(d)) };
    if (is_overflow(choice.d)) return false;
    for (size_t g = 0; g < groups_of(work->type); g++) choice.error += choose_integer(work, g, &choice);
    if (!(choice.error < best->error)) return false;
    *best = choice;
    return true;
}

static void codes_of(const struct symmetric_work *work, const struct symmetric_choice *choice, uint8_t *codes)
{
    for (size_t g = 0; g < groups_of(work->type); g++) {
        const struct mse_group group = group_at(work, g);
        mse_scale_nearest(&group, &work->type->codes, choice->d * (float)choice->scales[g], codes + group.n * g);
    }
}

/* d of least squares for integers and codes: x = d u, u = scale * q. */
static bool fit_unit(const struct symmetric_work *work, const struct symmetric_choice *choice, float *d)
{
    uint8_t codes[SUPER];
    double uu = 0.0, ux = 0.0;
    codes_of(work, choice, codes);
    for (size_t i = 0; i < SUPER; i++) {
        const double u = (double)((float)choice->scales[i / work->type->group] * mse_scale_value(&work->type->codes, codes[i]));
        uu += (double)work->w[i] * u * u;
        ux += (double)work->w[i] * u * (double)work->x[i];
    }
    if (!(uu > 0.0)) return false;
    *d = (float)(ux / uu);
    return true;
}

/* Scales of both signs for each group; returns the largest of the better ones, with its sign. */
static float search_groups(struct symmetric_work *work)
{
    float better[GROUPS_MAX];
    for (size_t g = 0; g < groups_of(work->type); g++) {
        const struct mse_group group = group_at(work, g);
        float losses[2];
        for (int negative = 0; negative < 2; negative++)
            work->scales[negative][g] = mse_search_scale(&group, &work->type->codes, negative, &losses[negative]);
        work->negative[g] = losses[1] < losses[0];
        better[g] = work->scales[work->negative[g]][g];
    }
    return peak_of(better, groups_of(work->type));
}

/* Everything but the packing; false when there is nothing to choose. */
static bool choose(struct symmetric_work *work, struct symmetric_choice *best, uint8_t *codes)
{
    const struct symmetric_type *type = work->type;
    const float peak = search_groups(work);
    best->error = INFINITY;
    for (size_t k = 0; k < type->starts; k++) try_unit(work, peak / type->start[k], best);
    if (!(best->error < INFINITY)) return false;
    for (int round = 0; round < type->rounds; round++) {
        float fit;
        if (!fit_unit(work, best, &fit) || !try_unit(work, fit, best)) break;
    }
    codes_of(work, best, codes);
    return true;
}

/* ---- types ---------------------------------------------------------------------------------------------------------------------- */

static bool search_q3_k(const float *x, const float *w, uint8_t *block)
{
    struct symmetric_work work = { .type = &q3, .x = x, .w = w };
    struct symmetric_choice choice;
    uint8_t codes[SUPER], scales[16];
    if (!choose(&work, &choice, codes)) return false;
    for (size_t g = 0; g < 16; g++) scales[g] = (uint8_t)(choice.scales[g] + 32);
    pack_block_bits(codes, 2, block);
    pack_crumbs(codes, block + 32);
    pack_crumbs(codes + 128, block + 64);
    pack_block_sixteen(scales, block + 96);
    store_f16(block + 108, choice.d);
    return true;
}

static bool search_q6_k(const float *x, const float *w, uint8_t *block)
{
    struct symmetric_work work = { .type = &q6, .x = x, .w = w };
    struct symmetric_choice choice;
    uint8_t codes[SUPER], high[SUPER];
    if (!choose(&work, &choice, codes)) return false;
    for (size_t i = 0; i < SUPER; i++) high[i] = codes[i] >> 4;
    for (size_t i = 0; i < SUPER; i++) codes[i] &= 15;
    for (size_t half = 0; half < 2; half++) {
        pack_nibbles(codes + 128 * half, 64, block + 64 * half);
        pack_crumbs(high + 128 * half, block + 128 + 32 * half);
    }
    for (size_t g = 0; g < 16; g++) block[192 + g] = (uint8_t)choice.scales[g];
    store_f16(block + 208, choice.d);
    return true;
}

static bool search_iq4_xs(const float *x, const float *w, uint8_t *block)
{
    struct symmetric_work work = { .type = &iq4, .x = x, .w = w };
    struct symmetric_choice choice;
    uint8_t codes[SUPER];
    uint32_t high = 0;
    if (!choose(&work, &choice, codes)) return false;
    store_f16(block, choice.d);
    memset(block + 4, 0, 4);
    for (size_t g = 0; g < 8; g++) {
        const uint32_t scale = (uint32_t)(choice.scales[g] + 32);
        block[4 + g / 2] = (uint8_t)(block[4 + g / 2] | (scale & 15) << (4 * (g % 2)));
        high |= scale >> 4 << (2 * g);
        pack_nibbles(codes + 32 * g, 16, block + 8 + 16 * g);
    }
    store_u16(block + 2, high);
    return true;
}

void ggml_mse_q3_k(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    mse_improve(&ggml_q3_k, search_q3_k, SMALLEST, LARGEST, x, weight, n_blocks, blocks);
}

void ggml_mse_q6_k(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    mse_improve(&ggml_q6_k, search_q6_k, SMALLEST, LARGEST, x, weight, n_blocks, blocks);
}

void ggml_mse_iq4_xs(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    mse_improve(&ggml_iq4_xs, search_iq4_xs, SMALLEST, LARGEST, x, weight, n_blocks, blocks);
}
