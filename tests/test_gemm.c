/* test_gemm.c: every implementation of the product of matrices against sums in double, in all cases of transposition, at edges, adding or not. */
#include "smoothquant/gemm.h"
#include "support/support.h"

#include <math.h>

static float *random_floats(size_t n, uint64_t *seed)
{
    float *x = malloc((n ? n : 1) * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = (float)((double)(test_random(seed) >> 11) * 0x1p-53 - 0.5);
    return x;
}

static double element(struct gemm_matrix x, size_t i, size_t j)
{
    return (double)(x.transposed ? x.data[j * x.stride + i] : x.data[i * x.stride + j]);
}

static void check(const struct gemm *gemm, size_t m, size_t n, size_t k, bool ta, bool tb, bool add)
{
    uint64_t seed = 77 + m * 131 + n * 17 + k;
    struct gemm_matrix a = { NULL, (ta ? m : k) + 3, ta }, b = { NULL, (tb ? k : n) + 2, tb };
    const size_t c_stride = n + 5;
    float *pa = random_floats((ta ? k : m) * a.stride, &seed), *pb = random_floats((tb ? n : k) * b.stride, &seed);
    float *c = random_floats(m * c_stride, &seed), *before = malloc((m * c_stride + 1) * sizeof *before),
          *scratch = malloc(GEMM_SCRATCH * sizeof *scratch);
    a.data = pa;
    b.data = pb;
    memcpy(before, c, m * c_stride * sizeof *c);
    gemm_multiply(gemm, m, n, k, a, b, add, c, c_stride, scratch);
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < c_stride; j++) {
            double sum = j < n && add ? (double)before[i * c_stride + j] : 0.0;
            for (size_t t = 0; j < n && t < k; t++) sum += element(a, i, t) * element(b, t, j);
            if (j >= n) assert_true(c[i * c_stride + j] == before[i * c_stride + j]);
            else if (fabs((double)c[i * c_stride + j] - sum) > 1e-5 * (1.0 + sqrt((double)k)))
                fail_msg("%s %zu x %zu x %zu, transposed %d %d, add %d: (%zu, %zu) is %g, wanted %g", gemm->name, m, n, k, ta, tb, add, i, j,
                         (double)c[i * c_stride + j], sum);
        }
    free(pa);
    free(pb);
    free(c);
    free(before);
    free(scratch);
}

static void test_all(void **state)
{
    (void)state;
    static const size_t shapes[][3] = { { 1, 1, 1 },     { 1, 1, 2 },     { 3, 5, 7 },  { 12, 32, 256 }, { 13, 33, 257 }, { 1, 1100, 64 },
                                        { 500, 3, 300 }, { 17, 1030, 9 }, { 6, 16, 0 }, { 0, 4, 4 },     { 4, 0, 4 },     { 64, 64, 64 } };
    struct gemm gemm;
    assert_true(gemm_at(0, &gemm));
    assert_string_equal(gemm.name, "portable");
    assert_string_equal(gemm_select("portable").name, "portable");
    assert_string_equal(gemm_select("nothing").name, gemm_select(NULL).name);
    for (size_t g = 0; gemm_at(g, &gemm); g++) {
        printf("%s\n", gemm.name);
        assert_string_equal(gemm_select(gemm.name).name, gemm.name);
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
            for (unsigned bits = 0; bits < 8; bits++) check(&gemm, shapes[s][0], shapes[s][1], shapes[s][2], bits & 1, bits & 2, bits & 4);
    }
}

/* The worked number of gemm.h. */
static void test_worked(void **state)
{
    (void)state;
    static float scratch[GEMM_SCRATCH];
    const float a[] = { 1, 2 }, b[] = { 3, 4 };
    float c = 0;
    struct gemm gemm;
    for (size_t g = 0; gemm_at(g, &gemm); g++) {
        gemm_multiply(&gemm, 1, 1, 2, (struct gemm_matrix){ a, 2, false }, (struct gemm_matrix){ b, 2, true }, false, &c, 1, scratch);
        assert_true(c == 11.0f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_all), cmocka_unit_test(test_worked) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
