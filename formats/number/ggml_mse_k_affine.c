/* ggml_mse_k_affine.c: least square error for 256 weights with integer scales and minima: Q2_K, Q4_K, Q5_K.
 *
 *   y = (d * scale) * q - dmin * minimum
 *   each group: its line by search -> several d, dmin -> each group: the best of 32 pairs (scale, minimum) around its line, by the error as stored
 *   -> d, dmin anew by least squares through all codes -> again, while it helps
 *
 * Why this way: integers of 4 or 6 bits are the coarse part of these types; a pair is judged by the error of its own nearest codes, which finds the
 * one under which the codes happen to fit.
 * Corner cases: a scale or minimum that cannot be below 0 is 0; d or dmin of 0 have integers 0.
 * Reference: NUMERICS_GGML.md 4. Worked number: Q4_K, largest scale 2.0 of a group: d = 2/63, 2/60, 2/57, 2/54.
 */
#include "number/ggml_bits.h"
#include "number/ggml_mse.h"
#include "number/ggml_mse_search.h"
#include "number/ggml_pack.h"

#define SUPER 256u
#define GROUPS_MAX 16u
#define STARTS_MAX 4u
#define SMALLEST 0x1p-25f
#define LARGEST 65504.0f

/* How the types differ. */
struct affine_type {
    size_t group; /* elements */
    int32_t top; /* largest integer */
    struct mse_line_codes line;
    size_t starts; /* integers of the largest scale and of the largest minimum that are tried first */
    struct {
        float scale, minimum;
    } start[STARTS_MAX];
    int32_t per_scale; /* minima tried with a scale */
    int rounds;
};

static const struct affine_type q2 = { 16, 15, { 3.0f, -1.0f, 0.1f, 3, true }, 3, { { 15, 15 }, { 14, 15 }, { 13, 14 } }, 8, 2 };
static const struct affine_type q4 = { 32, 63, { 15.0f, -1.5f, 0.2f, 3, true }, 4, { { 63, 63 }, { 60, 63 }, { 57, 63 }, { 54, 63 } }, 8, 4 };
static const struct affine_type q5 = { 32, 63, { 31.0f, -1.5f, 0.2f, 3, true }, 4, { { 63, 63 }, { 60, 63 }, { 57, 63 }, { 54, 63 } }, 8, 4 };

struct affine_work {
    const struct affine_type *type;
    const float *x, *w;
    struct mse_line lines[GROUPS_MAX];
};

/* What would be stored. */
struct affine_choice {
    float d, minimum_d, error;
    uint8_t scales[GROUPS_MAX], minima[GROUPS_MAX];
};

static size_t groups_of(const struct affine_type *type)
{
    return SUPER / type->group;
}

static struct mse_group group_at(const struct affine_work *work, size_t g)
{
    const size_t n = work->type->group;
    return (struct mse_group){ work->x + n * g, work->w + n * g, n };
}

static float f16_round(float value)
{
    return f16_to_f32(f32_to_f16(value));
}

/* The best pair of integers of a group under d and dmin; returns its error. */
static float choose_pair(const struct affine_work *work, size_t g, struct affine_choice *choice)
{
    const struct affine_type *type = work->type;
    const struct mse_group group = group_at(work, g);
    const struct mse_line *line = &work->lines[g];
    const float inverse_d = inverse(choice->d), inverse_minimum = inverse(choice->minimum_d);
    const int32_t per = type->per_scale, first = nearest_int(line->s * inverse_d) - (int32_t)MSE_LANES / per / 2;
    float s[MSE_LANES], m[MSE_LANES], errors[MSE_LANES];
    uint8_t scales[MSE_LANES], minima[MSE_LANES];
    for (int32_t k = 0; k < (int32_t)MSE_LANES; k++) {
        const int32_t scale = clamp_int(first + k / per, 0, type->top);
        const float step = choice->d * (float)scale;
        const float centre = (line->mean * (step - line->s) - line->m) * inverse_minimum;
        const int32_t minimum = clamp_int(nearest_int(centre) + k % per - per / 2, 0, type->top);
        scales[k] = (uint8_t)scale;
        minima[k] = (uint8_t)minimum;
        s[k] = step;
        m[k] = -(choice->minimum_d * (float)minimum);
    }
    mse_line_errors(&group, type->line.top, s, m, errors);
    const size_t best = mse_least(errors);
    choice->scales[g] = scales[best];
    choice->minima[g] = minima[best];
    return errors[best];
}

/* Integers for d and dmin; takes over in best if their error is less. */
static bool try_units(const struct affine_work *work, float d, float minimum_d, struct affine_choice *best)
{
    struct affine_choice choice = { .d = f16_round(d), .minimum_d = f16_round(minimum_d) };
    for (size_t g = 0; g < groups_of(work->type); g++) choice.error += choose_pair(work, g, &choice);
    if (!(choice.error < best->error)) return false;
    *best = choice;
    return true;
}

static void codes_of(const struct affine_work *work, const struct affine_choice *choice, uint8_t *codes)
{
    for (size_t g = 0; g < groups_of(work->type); g++) {
        const struct mse_group group = group_at(work, g);
        mse_line_nearest(&group, work->type->line.top, choice->d * (float)choice->scales[g], -(choice->minimum_d * (float)choice->minima[g]),
                         codes + group.n * g);
    }
}

/* d and dmin of least squares for integers and codes: x = d u - dmin v, u = scale * q, v = minimum. */
static bool fit_units(const struct affine_work *work, const struct affine_choice *choice, float *d, float *minimum_d)
{
    uint8_t codes[SUPER];
    double uu = 0.0, uv = 0.0, vv = 0.0, ux = 0.0, vx = 0.0;
    codes_of(work, choice, codes);
    for (size_t g = 0; g < groups_of(work->type); g++) {
        const struct mse_group group = group_at(work, g);
        double q = 0.0, qq = 0.0, qx = 0.0, sum_w = 0.0, sum_x = 0.0;
        for (size_t i = 0; i < group.n; i++) {
            const double w = (double)group.w[i], wx = w * (double)group.x[i], code = (double)codes[group.n * g + i];
            sum_w += w;
            sum_x += wx;
            q += w * code;
            qq += w * code * code;
            qx += wx * code;
        }
        const double scale = (double)choice->scales[g], minimum = (double)choice->minima[g];
        uu += scale * scale * qq;
        uv += scale * minimum * q;
        vv += minimum * minimum * sum_w;
        ux += scale * qx;
        vx += minimum * sum_x;
    }
    const double determinant = uu * vv - uv * uv;
    if (!(determinant > 0x1p-30 * uu * vv)) return false;
    *d = (float)((ux * vv - uv * vx) / determinant);
    *minimum_d = (float)((uv * ux - uu * vx) / determinant);
    return *d >= 0.0f && *minimum_d >= 0.0f;
}

/* Everything but the packing; false when there is nothing to choose. */
static bool choose(struct affine_work *work, struct affine_choice *best, uint8_t *codes)
{
    const struct affine_type *type = work->type;
    float largest_s = 0.0f, largest_m = 0.0f;
    best->error = INFINITY;
    for (size_t g = 0; g < groups_of(type); g++) {
        const struct mse_group group = group_at(work, g);
        mse_search_line(&group, &type->line, &work->lines[g]);
        largest_s = work->lines[g].s > largest_s ? work->lines[g].s : largest_s;
        largest_m = -work->lines[g].m > largest_m ? -work->lines[g].m : largest_m;
    }
    for (size_t k = 0; k < type->starts; k++) try_units(work, largest_s / type->start[k].scale, largest_m / type->start[k].minimum, best);
    if (!(best->error < INFINITY)) return false;
    for (int round = 0; round < type->rounds; round++) {
        float fit_d, fit_minimum;
        if (!fit_units(work, best, &fit_d, &fit_minimum) || !try_units(work, fit_d, fit_minimum, best)) break;
    }
    codes_of(work, best, codes);
    return true;
}

/* ---- types ---------------------------------------------------------------------------------------------------------------------- */

static bool search_q2_k(const float *x, const float *w, uint8_t *block)
{
    struct affine_work work = { .type = &q2, .x = x, .w = w };
    struct affine_choice choice;
    uint8_t codes[SUPER];
    if (!choose(&work, &choice, codes)) return false;
    for (size_t g = 0; g < 16; g++) block[g] = (uint8_t)(choice.scales[g] | choice.minima[g] << 4);
    pack_crumbs(codes, block + 16);
    pack_crumbs(codes + 128, block + 48);
    store_f16(block + 80, choice.d);
    store_f16(block + 82, choice.minimum_d);
    return true;
}

/* The first 16 bytes of Q4_K and Q5_K. */
static void pack_head(const struct affine_choice *choice, uint8_t *block)
{
    store_f16(block, choice->d);
    store_f16(block + 2, choice->minimum_d);
    pack_block_sixes(choice->scales, choice->minima, block + 4);
}

static bool search_q4_k(const float *x, const float *w, uint8_t *block)
{
    struct affine_work work = { .type = &q4, .x = x, .w = w };
    struct affine_choice choice;
    uint8_t codes[SUPER];
    if (!choose(&work, &choice, codes)) return false;
    pack_head(&choice, block);
    for (size_t c = 0; c < 4; c++) pack_nibbles(codes + 64 * c, 32, block + 16 + 32 * c);
    return true;
}

static bool search_q5_k(const float *x, const float *w, uint8_t *block)
{
    struct affine_work work = { .type = &q5, .x = x, .w = w };
    struct affine_choice choice;
    uint8_t codes[SUPER];
    if (!choose(&work, &choice, codes)) return false;
    pack_head(&choice, block);
    pack_block_bits(codes, 4, block + 16);
    for (size_t c = 0; c < 4; c++) pack_nibbles(codes + 64 * c, 32, block + 48 + 32 * c);
    return true;
}

void ggml_mse_q2_k(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    mse_improve(&ggml_q2_k, search_q2_k, SMALLEST, LARGEST, x, weight, n_blocks, blocks);
}

void ggml_mse_q4_k(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    mse_improve(&ggml_q4_k, search_q4_k, SMALLEST, LARGEST, x, weight, n_blocks, blocks);
}

void ggml_mse_q5_k(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks)
{
    mse_improve(&ggml_q5_k, search_q5_k, SMALLEST, LARGEST, x, weight, n_blocks, blocks);
}
