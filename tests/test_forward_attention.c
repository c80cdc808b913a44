/* test_forward_attention.c: causal attention against sums in binary64: windows, shared keys, caches, softcap, sinks, linear biases, blocks. */
#include "smoothquant/forward_attention.h"
#include "support/support.h"

#include <math.h>

static float *draw(size_t n, uint64_t *seed)
{
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = (float)((double)(test_random(seed) >> 11) * 0x1p-52 - 1.0);
    return x;
}

static void check(struct attention a, size_t n_queries, size_t n_keys)
{
    uint64_t seed = 3 + n_queries + 100 * n_keys + a.window;
    const struct gemm gemm = gemm_select("portable");
    const size_t wide = a.n_heads * a.head_dim, kv = a.n_kv_heads * a.head_dim, before = n_keys - n_queries;
    float *q = draw(n_queries * wide, &seed), *k = draw(n_keys * kv, &seed), *v = draw(n_keys * kv, &seed),
          *out = malloc(n_queries * wide * sizeof *out);
    float *scores = malloc(ATTENTION_BLOCK * n_keys * sizeof *scores), *scratch = malloc(GEMM_SCRATCH * sizeof *scratch);
    double *p = malloc(n_keys * sizeof *p);
    a.gemm = &gemm;
    attend(&a, q, wide, n_queries, k, v, kv, n_keys, out, wide, scores, scratch);
    for (size_t i = 0; i < n_queries; i++)
        for (size_t h = 0; h < a.n_heads; h++) {
            const size_t at = before + i, g = h / (a.n_heads / a.n_kv_heads), first = a.window && at + 1 > a.window ? at + 1 - a.window : 0;
            double most = a.sinks ? (double)a.sinks[h] : -1e30, sum;
            for (size_t j = first; j <= at; j++) {
                p[j] = 0.0;
                for (size_t d = 0; d < a.head_dim; d++) p[j] += (double)q[i * wide + h * a.head_dim + d] * (double)k[j * kv + g * a.head_dim + d];
                p[j] *= (double)a.scale;
                if (a.softcap > 0.0f) p[j] = (double)a.softcap * tanh(p[j] / (double)a.softcap);
                if (a.slopes) p[j] -= (double)a.slopes[h] * (double)(at - j);
                most = fmax(most, p[j]);
            }
            sum = a.sinks ? exp((double)a.sinks[h] - most) : 0.0;
            for (size_t j = first; j <= at; j++) sum += exp(p[j] - most);
            for (size_t d = 0; d < a.head_dim; d++) {
                double wanted = 0.0;
                for (size_t j = first; j <= at; j++) wanted += exp(p[j] - most) / sum * (double)v[j * kv + g * a.head_dim + d];
                if (fabs(wanted - (double)out[i * wide + h * a.head_dim + d]) > 3e-6)
                    fail_msg("query %zu, head %zu, dim %zu: %g, wanted %g", i, h, d, (double)out[i * wide + h * a.head_dim + d], wanted);
            }
        }
    free(q), free(k), free(v), free(out), free(scores), free(scratch), free(p);
}

static void test_attention(void **state)
{
    (void)state;
    const float sinks[] = { 0.5f, -1, 2, 0, 1, 1 }, slopes[] = { 0.5f, 0.25f, 0.125f, 0.06f, 0.03f, 0.01f };
    const struct attention plain = { .n_heads = 6, .n_kv_heads = 2, .head_dim = 4, .scale = 0.7f };
    struct attention a = plain;
    check(a, 1, 1);
    check(a, 5, 5);
    check(a, 300, 300); /* three blocks */
    check(a, 1, 200); /* a new token over a cache */
    check(a, 7, 140);
    for (size_t window = 1; window < 300; window = window * 3 + 1) {
        a.window = window;
        check(a, 290, 290);
        check(a, 1, 50);
    }
    a = plain;
    a.softcap = 1.5f;
    check(a, 20, 20);
    a.sinks = sinks;
    check(a, 20, 20);
    a = plain;
    a.slopes = slopes;
    check(a, 140, 140);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_attention) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
