/* ggml_mse.c: see ggml_mse.h.
 *
 *   encode everything as ggml does -> for each block: its error E, a block by search, its error E' -> keep the new one where E' < E
 *
 * Why this way: ggml's encoder sees the whole run at once, as it must where the mean of a row counts; the comparison is in binary64 on decoded
 * bytes, so neither the order of a search nor its rounding can let a worse block through.
 * Corner cases: an error of NaN or Inf (a scale that ggml overflowed) loses to any finite one; equal errors keep ggml's bytes. Search weights are
 * scaled by a power of two to at most 2 and are at least 2^-60, so that no sum of a search is zero or overflows.
 * Reference: NUMERICS_GGML.md 1. Worked number: weights {3e12, 0, 1}: scaled by 2^-41: 1.364, 2^-60, 2^-41.
 */
#include "number/ggml_mse.h"

#include <string.h>

#include "number/elem.h"
#include "number/ggml_bits.h"

#define SUM_LANES 16u
#define LEAST_WEIGHT 0x1p-60f

static double tree(double *lanes)
{
    for (size_t width = SUM_LANES / 2; width > 0; width /= 2)
        for (size_t j = 0; j < width; j++) lanes[j] += lanes[j + width];
    return lanes[0];
}

double mse_of_block(const struct ggml_type *type, const float *x, const float *weight, const uint8_t *block)
{
    float y[MSE_BLOCK_MAX];
    double lanes[SUM_LANES] = { 0 };
    type->decode(block, 1, y);
    for (size_t i = 0; i < type->elements; i++) {
        const double difference = (double)x[i] - (double)y[i];
        lanes[i % SUM_LANES] += difference * difference * (weight ? (double)weight[i] : 1.0);
    }
    return tree(lanes);
}

/* Importance as a search wants it: scaled exactly, never zero. */
static void search_weights(const float *weight, size_t n, float *w)
{
    const int32_t exponent = exact_ilog2(largest_magnitude(weight, n));
    const float factor = exact_exp2(-clamp_int(exponent, -126, 126));
    for (size_t i = 0; i < n; i++) {
        const float scaled = weight[i] * factor;
        w[i] = scaled > LEAST_WEIGHT ? scaled : LEAST_WEIGHT;
    }
}

static void improve_block(const struct ggml_type *type, mse_block_search *search, const float *x, const float *weight, uint8_t *block)
{
    float w[MSE_BLOCK_MAX];
    uint8_t found[MSE_BYTES_MAX];
    const double error = mse_of_block(type, x, weight, block);
    if (error == 0.0) return;
    if (weight) search_weights(weight, type->elements, w);
    else
        for (size_t i = 0; i < type->elements; i++) w[i] = 1.0f;
    if (!search(x, w, found)) return;
    const double improved = mse_of_block(type, x, weight, found);
    if (improved < error || error != error) memcpy(block, found, type->bytes);
}

void mse_improve(const struct ggml_type *type, mse_block_search *search, float smallest, float largest, const float *x, const float *weight,
                 size_t n_blocks, uint8_t *blocks)
{
    type->encode(x, weight, n_blocks, blocks);
    for (size_t b = 0; b < n_blocks; b++) {
        const float *from = x + b * type->elements;
        const float amax = largest_magnitude(from, type->elements);
        if (amax < smallest || amax > largest) continue;
        improve_block(type, search, from, weight ? weight + b * type->elements : NULL, blocks + b * type->bytes);
    }
}
