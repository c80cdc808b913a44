/* forward_ops.c: see forward_ops.h.
 *
 * Formula: silu(x) = x / (1 + e^-x); gelu(x) = x/2 (1 + erf(x / sqrt 2)); its tanh form x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
 * Why this way: see forward_ops.h. Sums go over 8 lanes of binary64 that are added in order, whatever the processor.
 * Corner cases: see forward_ops.h.
 * Reference: forward_ops.h. Worked number: silu(1) = 0.731059, gelu(1) = 0.841345, its tanh form 0.841192.
 */
#include "smoothquant/forward_ops.h"

#include <math.h>

struct ops {
    void (*norm_rows)(const struct norm *norm, const float *in, size_t in_stride, size_t n_rows, float *out, size_t out_stride);
    void (*softmax)(float *x, size_t n, const float *sink);
    void (*softcap)(float *x, size_t n, float c);
    void (*all[ACT_COUNT])(float *x, size_t n);
    void (*gated[ACT_COUNT])(float *x, const float *up, size_t n);
};

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

/* ---- levels of processors ------------------------------------------------------------------------------------------------------------ */

#define OPS(name) name##_portable
#define OPS_TARGET
#include "smoothquant/forward_ops_body.h"
#undef OPS
#undef OPS_TARGET

#if defined(__x86_64__) && defined(__GNUC__)
#define OPS(name) name##_avx2
#define OPS_TARGET __attribute__((target("avx2")))
#include "smoothquant/forward_ops_body.h"
#undef OPS
#undef OPS_TARGET

#define OPS(name) name##_avx512
#if defined(__clang__)
#define OPS_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#else
#define OPS_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")))
#endif
#include "smoothquant/forward_ops_body.h"
#undef OPS
#undef OPS_TARGET
#endif

static const struct ops *ops(void)
{
#if defined(__x86_64__) && defined(__GNUC__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return &ops_avx512;
    if (__builtin_cpu_supports("avx2")) return &ops_avx2;
#endif
    return &ops_portable;
}

/* ---- what callers see ---------------------------------------------------------------------------------------------------------------- */

void norm_rows(const struct norm *norm, const float *in, size_t in_stride, size_t n_rows, float *out, size_t out_stride)
{
    ops()->norm_rows(norm, in, in_stride, n_rows, out, out_stride);
}

void activate(enum activation kind, float *x, size_t n)
{
    ops()->all[kind](x, n);
}

void activate_gated(enum activation kind, float *x, const float *up, size_t n)
{
    ops()->gated[kind](x, up, n);
}

void softmax(float *x, size_t n, const float *sink)
{
    ops()->softmax(x, n, sink);
}

void softcap(float *x, size_t n, float c)
{
    ops()->softcap(x, n, c);
}

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

void activate_clamped(float *gate, const float *up, size_t n, float limit)
{
    for (size_t i = 0; i < n; i++) {
        const float g = gate[i] > limit ? limit : gate[i], u = up[i] > limit ? limit : up[i] < -limit ? -limit : up[i];
        gate[i] = quick_gelu(g) * (u + 1.0f);
    }
}

void add_bias(float *x, size_t n_rows, size_t n, size_t stride, const float *bias)
{
    for (size_t r = 0; r < n_rows && bias; r++, x += stride)
        for (size_t j = 0; j < n; j++) x[j] += bias[j];
}
