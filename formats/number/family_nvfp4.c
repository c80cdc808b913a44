/* family_nvfp4.c: NVFP4: 4-bit floats with an E4M3 scale for each group; the scale of the matrix, where there is one, has been divided out before.
 *
 * Formula: c6, c4 = the bytes of E4M3(clamp(amax / 6 or 4, 2^-9, 448)), code = encode(fl(x / s)), weight = value(code) * s. Rules:
 *   absmax c6      search c6, c6 + 1, c6 - 1, c6 + 2, c6 - 2, c4, c4 + 1, c4 - 1 by least squared error, ties in this order
 * Why this way: neighbours of a byte are the neighbouring scales. Under c4 the largest weight takes the code 4, and those of the middle find a better
 * grid.
 * Corner cases: the scale of a matrix is at least 2^-126, and 1 for one of zeros; bytes stay within 1 .. 126; a zero group has byte 1 and codes of
 * zero; without a scale of the matrix weights over 2688 are refused; errors are measured in units of 2^ilog2(amax). Rule reference is ggml's: its
 * encoder of bytes, its ties, no -0; byte 0 then stands for a scale of 0.
 * Reference: NUMERICS_BLOCK.md 6; layouts.md 1.5. Worked number: amax 0.453125 of a matrix without scale: 0.0755 -> byte 0x1A = 0.078125.
 */
#include <math.h>

#include "number/half.h"
#include "number/kernel.h"

static const struct {
    float divisor; /* of amax */
    int32_t step; /* from its byte on */
} candidates[] = { { 6, 0 }, { 6, 1 }, { 6, -1 }, { 6, 2 }, { 6, -2 }, { 4, 0 }, { 4, 1 }, { 4, -1 } };

enum { LOWEST = 1, HIGHEST = 126 };

static uint32_t nvfp4_candidates(const struct quant *quant)
{
    return quant->rule == RULE_SEARCH ? sizeof candidates / sizeof candidates[0] : 1;
}

/* E4M3 of a byte below 0x7F. */
static float value_of(int32_t byte)
{
    return byte < 8 ? (float)byte * 0x1p-9f : f32_from_bits(((uint32_t)byte << 20) + ((127u - 7u) << 23));
}

/* The byte of E4M3(clamp(amax / divisor, 2^-9, 448)). */
static int32_t byte_of(float amax, float divisor)
{
    return (int32_t)scale_store(SCALE_E4M3, fminf(fmaxf(amax / divisor, 0x1p-9f), 448.0f));
}

static struct group_scale scale_of(int32_t byte)
{
    return (struct group_scale){ .bits = (uint32_t)byte, .value = value_of(byte) };
}

/* Without a scale of the matrix there is no byte for weights this large. */
static bool is_too_large(const struct quant *quant, struct range range)
{
    return !quant->tensor_scale && range_amax(range) / 6.0f > 448.0f;
}

static bool nvfp4_candidate(const struct quant *quant, struct range range, uint32_t number, struct group_scale *scale)
{
    const int32_t byte = byte_of(range_amax(range), candidates[number].divisor) + candidates[number].step;
    if (byte < LOWEST || byte > HIGHEST || is_too_large(quant, range)) return false;
    *scale = scale_of(byte);
    return true;
}

static float unit_of(struct range range)
{
    float amax = range_amax(range);
    int32_t p = amax == 0.0f ? 0 : exact_ilog2(amax);
    return exact_exp2(p < -126 ? 126 : p > 126 ? -126 : -p);
}

static void nvfp4_error(const struct quant *quant, const struct kernels *kernels, struct range range, const struct group_scale *scale,
                        struct error_sum *sum)
{
    sum->unit = unit_of(range);
    kernels->error(quant->elem, quant->rounding, scale, sum);
}

/* All candidates of a group at once, group after group. */
static size_t nvfp4_search(const struct quant *quant, const struct kernels *kernels, const struct range *ranges, const float *x, size_t n,
                           size_t group, struct group_scale *scales)
{
    enum { CANDIDATES = sizeof candidates / sizeof candidates[0] };
    if (quant->rule != RULE_SEARCH || quant->rounding != ROUND_NEAREST_EVEN || group % 16 != 0) return 0;
    const size_t count = n / group < SEARCH_GROUPS ? n / group : SEARCH_GROUPS;
    for (size_t g = 0; g < count; g++, x += group) {
        if (is_too_large(quant, ranges[g])) return g;
        const int32_t sixth = byte_of(range_amax(ranges[g]), 6.0f), fourth = byte_of(range_amax(ranges[g]), 4.0f);
        int32_t bytes[CANDIDATES];
        float values[CANDIDATES], sums[CANDIDATES];
        size_t n_found = 0, best = 0;
        for (size_t k = 0; k < CANDIDATES; k++) {
            bytes[n_found] = (candidates[k].divisor == 6.0f ? sixth : fourth) + candidates[k].step;
            values[n_found] = value_of(bytes[n_found]);
            n_found += bytes[n_found] >= LOWEST && bytes[n_found] <= HIGHEST;
        }
        kernels->errors(quant->elem, x, group, values, n_found, unit_of(ranges[g]), sums);
        for (size_t k = 1; k < n_found; k++) best = sums[k] < sums[best] ? k : best;
        scales[g] = scale_of(bytes[best]);
    }
    return count;
}

/* amax / (6 * 448): the block with the largest weight then has the largest byte. Rounded down where 6 * 448 * g would overflow. */
static float nvfp4_tensor_scale(struct range range)
{
    const float amax = range_amax(range), g = amax / 2688.0f;
    if (amax == 0.0f) return 1.0f;
    if (g < 0x1p-126f) return 0x1p-126f;
    return isinf(g * 2688.0f) ? f32_from_bits(f32_bits(g) - 1) : g;
}

extern const struct family family_nvfp4;
const struct family family_nvfp4 = { .name = "nvfp4",
                                     .candidate = nvfp4_candidate,
                                     .candidates = nvfp4_candidates,
                                     .error = nvfp4_error,
                                     .search = nvfp4_search,
                                     .tensor_scale = nvfp4_tensor_scale };
