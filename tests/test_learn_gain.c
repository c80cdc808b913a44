/* test_learn_gain.c: what the learned scales gain over absmax, in dB of signal to error, with scales stored as BF16.
 *
 * Formula: gain = 10 log10(sum of absmax losses / sum of learned losses); Gaussian (Box-Muller), Laplace, Student t with 5 degrees of freedom, all of size
 * 0.02, and the linear weights of tests/data/tiny-llama.
 * Why this way: the figures of NUMERICS_LEARNED.md 9 are held here as lower bounds; a change that costs quality fails.
 * Corner cases: TQT is compared with float absmax too, which it need not beat: its scales are powers of two.
 * Reference: NUMERICS_LEARNED.md 9.
 */
#include "support/support.h"

#include <math.h>
#include <time.h>

#include "base/io.h"
#include "container/container.h"
#include "layout/dtype.h"
#include "number/kernel.h"
#include "number/learn.h"

enum { N = 1 << 16, GROUP = 128 };

static double uniform(uint64_t *seed)
{
    return ((double)(test_random(seed) >> 11) + 0.5) * 0x1p-53;
}

static double gauss(uint64_t *seed)
{
    const double radius = sqrt(-2.0 * log(uniform(seed)));
    return radius * cos(6.283185307179586 * uniform(seed));
}

static double laplace(uint64_t *seed)
{
    const double size = -log(uniform(seed));
    return uniform(seed) < 0.5 ? -size : size;
}

static double student(uint64_t *seed)
{
    double chi = 0;
    for (int k = 0; k < 5; k++) {
        const double g = gauss(seed);
        chi += g * g;
    }
    return gauss(seed) / sqrt(chi / 5);
}

struct gain {
    double signal, absmax, learned, seconds;
    size_t n;
};

static void add(struct gain *gain, enum learn_rule rule, const float *x, size_t n, int32_t code_min, int32_t code_max)
{
    struct learn_params params = learn_defaults(rule), reference = learn_defaults(LEARN_LSQ);
    params.kernels = reference.kernels = kernels_select(NULL);
    params.stored = reference.stored = SCALE_BF16;
    reference.method = LEARN_SEARCH;
    const clock_t start = clock();
    for (size_t i = 0; i < n; i += GROUP) {
        struct learned learned;
        learn_group(rule, &params, x + i, NULL, n - i < GROUP ? n - i : GROUP, code_min, code_max, &learned);
        gain->learned += learned.loss;
        if (rule != LEARN_TQT) gain->absmax += learned.start_loss;
    }
    gain->seconds += (double)(clock() - start) / CLOCKS_PER_SEC;
    for (size_t i = 0; rule == LEARN_TQT && i < n; i += GROUP) {
        struct learned learned;
        learn_group(LEARN_LSQ, &reference, x + i, NULL, n - i < GROUP ? n - i : GROUP, code_min, code_max, &learned);
        gain->absmax += learned.start_loss;
    }
    for (size_t i = 0; i < n; i++) gain->signal += (double)x[i] * (double)x[i];
    gain->n += n;
}

static double report(const char *name, enum learn_rule rule, int bits, const struct gain *gain)
{
    const double db = 10 * log10(gain->absmax / gain->learned);
    print_message("%-10s int%d g128 %-4s absmax %6.3f dB, learned %6.3f dB, gain %6.3f dB, %5.1f M weights/s\n", name, bits, learn_rule_name(rule),
                  10 * log10(gain->signal / gain->absmax), 10 * log10(gain->signal / gain->learned), db, (double)gain->n / gain->seconds * 1e-6);
    return db;
}

/* Bounds: a little under what is measured. */
static const struct {
    const char *name;
    double (*draw)(uint64_t *seed);
    double least[LEARN_RULE_COUNT][2]; /* int4, int8 */
} shapes[] = {
    { "gauss", gauss, { { -0.5, -2.5 }, { 0.79, 0.38 }, { 0.72, 0.30 } } },
    { "laplace", laplace, { { -0.6, -3.0 }, { 0.78, 0.33 }, { 0.72, 0.26 } } },
    { "t5", student, { { -0.5, -3.2 }, { 0.76, 0.30 }, { 0.72, 0.24 } } },
};

static void test_distributions(void **state)
{
    (void)state;
    float *x = calloc(N, sizeof *x);
    assert_non_null(x);
    for (size_t k = 0; k < sizeof shapes / sizeof shapes[0]; k++) {
        uint64_t seed = 1;
        for (size_t i = 0; i < N; i++) x[i] = (float)(0.02 * shapes[k].draw(&seed));
        for (int rule = 0; rule < LEARN_RULE_COUNT; rule++)
            for (int wide = 0; wide < 2; wide++) {
                struct gain gain = { 0 };
                const int32_t half = wide ? 128 : 8;
                add(&gain, (enum learn_rule)rule, x, N, -half, half - 1);
                if (report(shapes[k].name, (enum learn_rule)rule, wide ? 8 : 4, &gain) < shapes[k].least[rule][wide])
                    fail_msg("that is below %.2f dB", shapes[k].least[rule][wide]);
            }
    }
    free(x);
}

/* All matrices of the model, row by row. */
static void add_model(struct gain *gain, enum learn_rule rule, struct container *container, int32_t code_min, int32_t code_max)
{
    struct err err;
    for (size_t t = 0; t < container->n_tensors; t++) {
        const struct tensor *tensor = &container->tensors[t];
        if (tensor->rank != 2 || !tensor->dtype->widen) continue;
        uint8_t *stored = calloc(1, (size_t)tensor->nbytes);
        float *x = calloc((size_t)tensor->n_weights, sizeof *x);
        assert_non_null(stored);
        assert_non_null(x);
        assert_ok(container_read(container, t, 0, (size_t)tensor->nbytes, stored, &err));
        tensor->dtype->widen(stored, (size_t)tensor->n_weights, x);
        const size_t cols = (size_t)tensor_cols(tensor);
        for (size_t i = 0; i < tensor->n_weights; i += cols) add(gain, rule, x + i, cols, code_min, code_max);
        free(stored);
        free(x);
    }
}

static void test_model(void **state)
{
    (void)state;
    static const double least[LEARN_RULE_COUNT][2] = { { -0.5, -3.7 }, { 0.7, 0.33 }, { 0.65, 0.26 } };
    struct container *container;
    struct err err;
    assert_ok(container_open(&io_system, tests_path("data/tiny-llama"), &container, &err));
    for (int rule = 0; rule < LEARN_RULE_COUNT; rule++)
        for (int wide = 0; wide < 2; wide++) {
            struct gain gain = { 0 };
            const int32_t half = wide ? 128 : 8;
            add_model(&gain, (enum learn_rule)rule, container, -half, half - 1);
            const double db = report("tiny-llama", (enum learn_rule)rule, wide ? 8 : 4, &gain);
            if (db < least[rule][wide]) fail_msg("that is below %.2f dB", least[rule][wide]);
        }
    container_close(container);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_distributions), cmocka_unit_test(test_model) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
