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

/* exp to 2 units in the last place, tanh and the logistic function from it. */
static inline float exp_f32(float x)
{
    const float bounded = x > -104.0f ? (x < 89.0f ? x : 89.0f) : -104.0f;
    const float shifted = bounded * 0x1.715476p0f + 0x1.8p23f; /* rounds to the nearest integer, and leaves it in the low bits */
    const float whole = shifted - 0x1.8p23f;
    const float f = (bounded - whole * 0x1.62e4p-1f) - whole * 0x1.7f7d1cp-20f; /* ln 2 in two parts */
    float p = 1.9875691500e-4f; /* minimax of (e^f - 1 - f) / f^2 */
    p = p * f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    p = p * f * f + f + 1.0f;
    /* 2^whole in two factors, so that results below 2^-126 and of 2^128 come out right */
    const int32_t n = (int32_t)whole, half = n / 2;
    const uint32_t a = (uint32_t)(half + 127) << 23, b = (uint32_t)(n - half + 127) << 23;
    float fa, fb;
    memcpy(&fa, &a, sizeof fa);
    memcpy(&fb, &b, sizeof fb);
    const float y = p * fa * fb;
    return x != x ? x : y;
}

static inline float sigmoid_f32(float x)
{
    return 1.0f / (1.0f + exp_f32(-x));
}

static inline float tanh_f32(float x)
{
    const float size = x < 0 ? -x : x;
    if (size < 0.04f) return x * (1.0f - x * x * (1.0f / 3.0f - x * x * (2.0f / 15.0f)));
    const float t = exp_f32(-2.0f * size), y = (1.0f - t) / (1.0f + t);
    return x < 0 ? -y : y;
}

#endif
