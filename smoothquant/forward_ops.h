/* forward_ops.h: what stands between the products of matrices of a forward pass: norms, activations, softmax, in binary32 with sums in binary64.
 *
 *   RMS norm    y_j = x_j / sqrt(mean_j x_j^2 + eps) * (g_j, or 1 + g_j)
 *   LayerNorm   y_j = (x_j - m) / sqrt(mean_j (x_j - m)^2 + eps) * g_j + b_j
 *   softmax     p_j = exp(x_j - max x) / sum exp(x_i - max x)         softcap  c tanh(x / c)
 *
 * Why this way: our own exp, so that loops become vector code and the same numbers come out with every C library; erf comes from libm.
 * Corner cases: a softmax of scores that are all -Inf gives zeros; exp below -103.9 is 0, above 88.7 Inf; n_rows or n of 0 do nothing. NaN goes through.
 * Reference: Zhang and Sennrich, arXiv 1910.07467 (RMS norm); Ba et al., arXiv 1607.06450; Hendrycks and Gimpel, arXiv 1606.08415 (GELU); Cephes expf.
 * Worked number: RMS norm of 3, 4 with gain 1, eps 0: 3 / sqrt(12.5) = 0.848528, 1.131371.
 */
#ifndef LLMQ_SMOOTHQUANT_FORWARD_OPS_H
#define LLMQ_SMOOTHQUANT_FORWARD_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum norm_kind { NORM_NONE, NORM_RMS, NORM_LAYER, NORM_KIND_COUNT };

/* A norm over n channels. gain NULL: 1; bias NULL: 0. */
struct norm {
    enum norm_kind kind;
    float eps;
    bool plus_one; /* the gain is 1 + gain[j] */
    size_t n;
    const float *gain, *bias;
};

/* Norms n_rows rows of norm->n channels, rows `stride` apart; in and out may be the same. NORM_NONE copies. */
void norm_rows(const struct norm *norm, const float *in, size_t in_stride, size_t n_rows, float *out, size_t out_stride);

enum activation { ACT_SILU, ACT_GELU_TANH, ACT_GELU, ACT_RELU, ACT_RELU2, ACT_QUICK_GELU, ACT_COUNT };

/* The activation with this name in a config.json ("silu", "swish", "gelu_new", ...); ACT_COUNT for none. */
enum activation activation_find(const char *name);

/* x_i = act(x_i). */
void activate(enum activation kind, float *x, size_t n);

/* x_i = act(x_i) * up_i. */
void activate_gated(enum activation kind, float *x, const float *up, size_t n);

/* The sequence of gpt-oss: gate = min(gate, limit), up clamped to +-limit, gate * sigmoid(1.702 gate) * (up + 1). */
void activate_clamped(float *gate, const float *up, size_t n, float limit);

/* x_i = c tanh(x_i / c). */
void softcap(float *x, size_t n, float c);

/* Softmax of n scores in place. sink: a further score of the sum that takes part and is not stored; NULL for none. */
void softmax(float *x, size_t n, const float *sink);

/* Row r of x += bias. */
void add_bias(float *x, size_t n_rows, size_t n, size_t stride, const float *bias);

static inline uint32_t bits_f32(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float of_bits_f32(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* a where the mask is all ones, b where it is 0. */
static inline float pick_f32(uint32_t mask, float a, float b)
{
    return of_bits_f32((bits_f32(a) & mask) | (bits_f32(b) & ~mask));
}

/* exp to 2 units in the last place, tanh and the logistic function from it. Comparisons are those of integers: a compiler then makes vector code of a
 * loop without being told that comparing floats has no side effects. */
static inline float exp_f32(float x)
{
    const uint32_t bits = bits_f32(x), size = bits & 0x7FFFFFFFu, bound = 0x42D00000u; /* 104 */
    const float bounded = of_bits_f32((size < bound ? size : bound) | (bits & 0x80000000u));
    const float whole = bounded * 0x1.715476p0f + 0x1.8p23f - 0x1.8p23f; /* rounded to the nearest integer */
    const float f = (bounded - whole * 0x1.62e4p-1f) - whole * 0x1.7f7d1cp-20f; /* ln 2 in two parts */
    float p = 1.9875691500e-4f; /* minimax of (e^f - 1 - f) / f^2 */
    p = p * f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    p = p * f * f + f + 1.0f;
    /* 2^whole in two factors, so that results below 2^-126 and of 2^128 come out right */
    const int32_t n = (int32_t)whole, half = n >> 1;
    const float y = p * of_bits_f32((uint32_t)(half + 127) << 23) * of_bits_f32((uint32_t)(n - half + 127) << 23);
    return of_bits_f32(bits_f32(y) | (size > 0x7F800000u ? 0x7FC00000u : 0u));
}

static inline float sigmoid_f32(float x)
{
    return 1.0f / (1.0f + exp_f32(-x));
}

static inline float tanh_f32(float x)
{
    const uint32_t sign = bits_f32(x) & 0x80000000u, size_bits = bits_f32(x) & 0x7FFFFFFFu;
    const float size = of_bits_f32(size_bits), t = exp_f32(-2.0f * size), far = (1.0f - t) / (1.0f + t);
    const float near = size * (1.0f - size * size * (0x1.555556p-2f - size * size * 0x1.111112p-3f));
    return of_bits_f32(bits_f32(pick_f32(size_bits < 0x3D23D70Au ? UINT32_MAX : 0u, near, far)) | sign); /* 0.04 */
}

#endif
