/* forward_ops_body.h: the loops of forward_ops.h, compiled once for each level of processor. Included by forward_ops.c alone, with OPS(name) and OPS_TARGET.
 *
 * Formula: see forward_ops.c.
 * Why this way: the same C for all levels, without contraction, gives the same bits; only the width of the vectors differs.
 * Corner cases: see forward_ops.h.
 * Reference: number/kernel_body.h does the same. Worked number: none needed.
 */

/* Sum of (x - shift)^power, power 1 or 2. */
static OPS_TARGET double OPS(sum_of)(const float *x, size_t n, double shift, bool squares)
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

static OPS_TARGET void OPS(norm_rows)(const struct norm *norm, const float *in, size_t in_stride, size_t n_rows, float *out, size_t out_stride)
{
    const size_t n = norm->n;
    for (size_t r = 0; r < n_rows; r++, in += in_stride, out += out_stride) {
        if (norm->kind == NORM_NONE) {
            if (in != out) memcpy(out, in, n * sizeof *out);
            continue;
        }
        const double mean = norm->kind == NORM_LAYER ? OPS(sum_of)(in, n, 0.0, false) / (double)n : 0.0;
        const double variance = OPS(sum_of)(in, n, mean, true) / (double)n;
        const float factor = (float)(1.0 / sqrt(variance + (double)norm->eps)), m = (float)mean, one = norm->plus_one ? 1.0f : 0.0f;
        for (size_t j = 0; j < n; j++) {
            const float y = (in[j] - m) * factor;
            out[j] = (norm->gain ? y * (norm->gain[j] + one) : y) + (norm->bias ? norm->bias[j] : 0.0f);
        }
    }
}

/* A loop for each activation, so that the compiler sees one function in it. */
#define LOOPS(name)                                                                                                                                  \
    static OPS_TARGET void OPS(name##_all)(float *x, size_t n)                                                                                       \
    {                                                                                                                                                \
        for (size_t i = 0; i < n; i++) x[i] = name(x[i]);                                                                                            \
    }                                                                                                                                                \
    static OPS_TARGET void OPS(name##_gated)(float *x, const float *up, size_t n)                                                                    \
    {                                                                                                                                                \
        for (size_t i = 0; i < n; i++) x[i] = name(x[i]) * up[i];                                                                                    \
    }

LOOPS(silu)
LOOPS(gelu_tanh)
LOOPS(gelu)
LOOPS(relu)
LOOPS(relu2)
LOOPS(quick_gelu)

static OPS_TARGET void OPS(softcap)(float *x, size_t n, float c)
{
    const float inverse = 1.0f / c;
    for (size_t i = 0; i < n; i++) x[i] = c * tanh_f32(x[i] * inverse);
}

/* Floats as integers of the same order; NaN above or below all. */
static inline OPS_TARGET int32_t OPS(order_of)(float x)
{
    const int32_t bits = (int32_t)bits_f32(x);
    return bits ^ ((bits >> 31) & INT32_MAX);
}

static OPS_TARGET float OPS(largest)(const float *x, size_t n, float at_least)
{
    int32_t most = OPS(order_of)(at_least);
    for (size_t i = 0; i < n; i++) most = OPS(order_of)(x[i]) > most ? OPS(order_of)(x[i]) : most;
    return of_bits_f32((uint32_t)(most ^ ((most >> 31) & INT32_MAX)));
}

static OPS_TARGET void OPS(softmax)(float *x, size_t n, const float *sink)
{
    const float most = OPS(largest)(x, n, sink ? *sink : -HUGE_VALF);
    if (!(most > -HUGE_VALF)) {
        if (most == -HUGE_VALF) memset(x, 0, n * sizeof *x);
        return;
    }
    for (size_t i = 0; i < n; i++) x[i] = exp_f32(x[i] - most);
    const double sum = OPS(sum_of)(x, n, 0.0, false) + (sink ? (double)exp_f32(*sink - most) : 0.0);
    const float factor = (float)(1.0 / sum);
    for (size_t i = 0; i < n; i++) x[i] *= factor;
}

static const struct ops OPS(ops) = {
    .norm_rows = OPS(norm_rows),
    .softmax = OPS(softmax),
    .softcap = OPS(softcap),
    .all = { [ACT_SILU] = OPS(silu_all),
             [ACT_GELU_TANH] = OPS(gelu_tanh_all),
             [ACT_GELU] = OPS(gelu_all),
             [ACT_RELU] = OPS(relu_all),
             [ACT_RELU2] = OPS(relu2_all),
             [ACT_QUICK_GELU] = OPS(quick_gelu_all) },
    .gated = { [ACT_SILU] = OPS(silu_gated),
               [ACT_GELU_TANH] = OPS(gelu_tanh_gated),
               [ACT_GELU] = OPS(gelu_gated),
               [ACT_RELU] = OPS(relu_gated),
               [ACT_RELU2] = OPS(relu2_gated),
               [ACT_QUICK_GELU] = OPS(quick_gelu_gated) },
};

#undef LOOPS
