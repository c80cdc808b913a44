/* forward_ops.c: see forward_ops.h.
 *
 * Formula: silu(x) = x / (1 + e^-x); gelu(x) = x/2 (1 + erf(x / sqrt 2)); its tanh form x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
 * Why this way: see forward_ops.h. Sums go over 8 lanes of binary64 that are added in order, whatever the processor.
 * Corner cases: see forward_ops.h.
 * Reference: forward_ops.h. Worked number: silu(1) = 0.731059, gelu(1) = 0.841345, its tanh form 0.841192.
 */
#include "smoothquant/forward_ops.h"

#include <math.h>

/* Sum of (x - shift)^power, power 1 or 2. */
static double sum_of(const float *x, size_t n, double shift, bool squares)
{
    double lanes[8] = { 0 }, sum = 0.0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (size_t l = 0; l < 8; l++) {
            const double d = (double)x[i + l] - shift;
            lanes[l] += squares ? d * d : d;
        }
    for (size_t l = 0; i < n; i++, l++) {
        const double d = (double)x[i] - shift;
        lanes[l] += squares ? d * d : d;
    }
    for (size_t l = 0; l < 8; l++) sum += lanes[l];
    return sum;
}

void norm_rows(const struct norm *norm, const float *in, size_t in_stride, size_t n_rows, float *out, size_t out_stride)
{
    const size_t n = norm->n;
    for (size_t r = 0; r < n_rows; r++, in += in_stride, out += out_stride) {
        if (norm->kind == NORM_NONE) {
            if (in != out) memcpy(out, in, n * sizeof *out);
            continue;
        }
        const double mean = norm->kind == NORM_LAYER ? sum_of(in, n, 0.0, false) / (double)n : 0.0;
        const double variance = sum_of(in, n, mean, true) / (double)n;
        const float factor = (float)(1.0 / sqrt(variance + (double)norm->eps)), m = (float)mean, one = norm->plus_one ? 1.0f : 0.0f;
        for (size_t j = 0; j < n; j++) {
            const float y = (in[j] - m) * factor;
            out[j] = (norm->gain ? y * (norm->gain[j] + one) : y) + (norm->bias ? norm->bias[j] : 0.0f);
        }
    }
}

static inline float silu(float x)
{
    return x * sigmoid_f32(x);
}

static inline float gelu_tanh(float x)
{
    return 0.5f * x * (1.0f + tanh_f32(0.7978845608f * (x + 0.044715f * x * x * x)));
}

static inline float gelu(float x)
{
    return 0.5f * x * (1.0f + erff(x * 0.7071067812f));
}

static inline float relu(float x)
{
    return of_bits_f32(bits_f32(x) & ((bits_f32(x) >> 31) - 1u)); /* a negative NaN becomes 0 */
}

static inline float relu2(float x)
{
    return relu(x) * relu(x);
}

static inline float quick_gelu(float x)
{
    return x * sigmoid_f32(1.702f * x);
}

/* A loop for each activation, so that the compiler sees one function in it. */
#define LOOPS(name)                                                                                                                                  \
    static void name##_all(float *x, size_t n)                                                                                                       \
    {                                                                                                                                                \
        for (size_t i = 0; i < n; i++) x[i] = name(x[i]);                                                                                            \
    }                                                                                                                                                \
    static void name##_gated(float *x, const float *up, size_t n)                                                                                    \
    {                                                                                                                                                \
        for (size_t i = 0; i < n; i++) x[i] = name(x[i]) * up[i];                                                                                    \
    }

LOOPS(silu)
LOOPS(gelu_tanh)
LOOPS(gelu)
LOOPS(relu)
LOOPS(relu2)
LOOPS(quick_gelu)

static const struct activation_row {
    void (*all)(float *x, size_t n);
    void (*gated)(float *x, const float *up, size_t n);
} activations[ACT_COUNT] = {
    [ACT_SILU] = { silu_all, silu_gated },    [ACT_GELU_TANH] = { gelu_tanh_all, gelu_tanh_gated },
    [ACT_GELU] = { gelu_all, gelu_gated },    [ACT_RELU] = { relu_all, relu_gated },
    [ACT_RELU2] = { relu2_all, relu2_gated }, [ACT_QUICK_GELU] = { quick_gelu_all, quick_gelu_gated },
};

enum activation activation_find(const char *name)
{
    static const struct {
        const char *name;
        enum activation kind;
    } names[] = {
        { "silu", ACT_SILU },           { "swish", ACT_SILU },
        { "gelu_new", ACT_GELU_TANH },  { "gelu_pytorch_tanh", ACT_GELU_TANH },
        { "gelu_tanh", ACT_GELU_TANH }, { "gelu_fast", ACT_GELU_TANH },
        { "gelu", ACT_GELU },           { "relu", ACT_RELU },
        { "relu2", ACT_RELU2 },         { "quick_gelu", ACT_QUICK_GELU },
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i].name, name) == 0) return names[i].kind;
    return ACT_COUNT;
}

void activate(enum activation kind, float *x, size_t n)
{
    activations[kind].all(x, n);
}

void activate_gated(enum activation kind, float *x, const float *up, size_t n)
{
    activations[kind].gated(x, up, n);
}

void activate_clamped(float *gate, const float *up, size_t n, float limit)
{
    for (size_t i = 0; i < n; i++) {
        const float g = gate[i] > limit ? limit : gate[i], u = up[i] > limit ? limit : up[i] < -limit ? -limit : up[i];
        gate[i] = quick_gelu(g) * (u + 1.0f);
    }
}

void softcap(float *x, size_t n, float c)
{
    const float inverse = 1.0f / c;
    for (size_t i = 0; i < n; i++) x[i] = c * tanh_f32(x[i] * inverse);
}

/* Floats as integers of the same order; NaN above or below all. */
static inline int32_t order_of(float x)
{
    const int32_t bits = (int32_t)bits_f32(x);
    return bits ^ ((bits >> 31) & INT32_MAX);
}

static float largest(const float *x, size_t n, float at_least)
{
    int32_t most = order_of(at_least);
    for (size_t i = 0; i < n; i++) most = order_of(x[i]) > most ? order_of(x[i]) : most;
    return of_bits_f32((uint32_t)(most ^ ((most >> 31) & INT32_MAX)));
}

void softmax(float *x, size_t n, const float *sink)
{
    const float most = largest(x, n, sink ? *sink : -HUGE_VALF);
    if (!(most > -HUGE_VALF)) {
        if (most == -HUGE_VALF) memset(x, 0, n * sizeof *x);
        return;
    }
    for (size_t i = 0; i < n; i++) x[i] = exp_f32(x[i] - most);
    const double sum = sum_of(x, n, 0.0, false) + (sink ? (double)exp_f32(*sink - most) : 0.0);
    const float factor = (float)(1.0 / sum);
    for (size_t i = 0; i < n; i++) x[i] *= factor;
}

void add_bias(float *x, size_t n_rows, size_t n, size_t stride, const float *bias)
{
    for (size_t r = 0; r < n_rows && bias; r++, x += stride)
        for (size_t j = 0; j < n; j++) x[j] += bias[j];
}
