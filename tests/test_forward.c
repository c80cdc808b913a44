/* test_forward.c: parts of weights, plans of layers, and the pass itself on the bundled model: causality, memory, threads, weights from elsewhere, stopping. */
#include "smoothquant/forward.h"
#include "smoothquant/forward_plan.h"
#include "smoothquant/forward_sample.h"
#include "support/live.h"
#include "support/support.h"

#include <math.h>

/* ---- parts -------------------------------------------------------------------------------------------------------------------------- */

enum { ROWS = 12, COLS = 10 };

/* Weight (row, col) of every tensor is 100 row + col. */
static enum status read_numbers(void *context, size_t tensor, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols, float *out,
                                struct err *err)
{
    (void)context, (void)tensor;
    if (row + n_rows > ROWS || col + n_cols > COLS) return err_set(err, ERR_DATA, "outside");
    for (uint64_t r = 0; r < n_rows; r++)
        for (uint64_t c = 0; c < n_cols; c++) out[r * n_cols + c] = (float)(100 * (row + r) + col + c);
    return OK;
}

static void test_parts(void **state)
{
    (void)state;
    static const struct {
        struct weight_part part;
        uint64_t out, n_out, in, n_in;
    } cases[] = {
        { { .run = 12, .step = 12, .n_out = 12, .n_in = 10 }, 0, 12, 0, 10 },
        { { .run = 12, .step = 12, .n_out = 12, .n_in = 10 }, 3, 4, 2, 5 },
        { { .base = 4, .first = 1, .run = 2, .step = 3, .n_out = 4, .n_in = 10 }, 0, 4, 0, 10 }, /* rows 5 6 8 9 */
        { { .base = 4, .first = 1, .run = 2, .step = 3, .n_out = 4, .n_in = 10 }, 1, 2, 3, 7 },
        { { .transposed = true, .first = 1, .run = 1, .step = 2, .n_out = 4, .n_in = 12 }, 0, 4, 0, 12 }, /* columns 1 3 5 7 */
        { { .transposed = true, .first = 1, .run = 1, .step = 2, .n_out = 4, .n_in = 12 }, 1, 3, 2, 9 },
        { { .transposed = true, .base = 6, .first = 3, .run = 7, .step = 7, .n_out = 7, .n_in = 6 }, 2, 5, 1, 4 },
        { { .is_vector = true, .base = 2, .first = 1, .run = 2, .step = 4, .n_out = 4, .n_in = 1 }, 0, 4, 0, 1 }, /* columns 1 2 5 6 */
        { { .is_vector = true, .base = 2, .first = 1, .run = 2, .step = 4, .n_out = 4, .n_in = 1 }, 1, 3, 0, 1 },
    };
    const struct weight_source source = { read_numbers, NULL };
    struct err err;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct weight_part *p = &cases[i].part;
        float found[ROWS * ROWS];
        assert_ok(weight_load(&source, p, cases[i].out, cases[i].n_out, cases[i].in, cases[i].n_in, found, &err));
        for (uint64_t o = 0; o < cases[i].n_out; o++)
            for (uint64_t c = 0; c < cases[i].n_in; c++) {
                const uint64_t j = cases[i].out + o, place = p->first + j / p->run * p->step + j % p->run, in = cases[i].in + c;
                const uint64_t row = p->is_vector    ? p->base
                                     : p->transposed ? p->base + in
                                                     : p->base + place,
                               col = p->is_vector || p->transposed ? place : in;
                if (found[o * cases[i].n_in + c] != (float)(100 * row + col))
                    fail_msg("case %zu, output %d, input %d: %g", i, (int)o, (int)c, (double)found[o * cases[i].n_in + c]);
            }
    }
}

/* ---- plans -------------------------------------------------------------------------------------------------------------------------- */

static void test_plans(void **state)
{
    (void)state;
    struct err err;
    struct model_mlp mlps[3] = { { .n = 1000 }, { .n = 1000 }, { .n = 1000 } };
    struct model_layer layer = { .experts = mlps, .n_experts = 2, .has_shared = true, .shared = { .n = 700 } };
    struct arch_model model = { .n_layers = 1, .hidden = 64, .n_heads = 8, .n_kv_heads = 4, .head_dim = 16, .gated = true, .layers = &layer };
    const uint64_t limits[] = { UINT64_MAX / 8, 200000, 100000, 60000 };
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        struct layer_plan plan;
        uint64_t need;
        size_t heads = 0, channels[3] = { 0 }, at = 0;
        assert_ok(layer_plan_make(&model, 0, limits[i], false, &plan, &need, &err));
        for (size_t k = 0; k < plan.n_pieces; k++) {
            const struct piece *p = &plan.pieces[k];
            assert_true(p->n > 0 && p->n_weights <= limits[i]);
            if (p->kind == PIECE_ATTENTION) {
                assert_int_equal(p->first, heads);
                heads += p->n;
                assert_int_equal(p->is_last, heads == 4);
            } else {
                assert_int_equal(p->first, channels[p->expert]);
                assert_true(p->first % 256 == 0);
                channels[p->expert] += p->n;
                assert_int_equal(p->is_last, p->expert == 2 && channels[2] == 700);
            }
        }
        assert_true(heads == 4 && channels[0] == 1000 && channels[1] == 1000 && channels[2] == 700);
        for (size_t k = 0; k < plan.n_passes; k++) {
            assert_int_equal(plan.passes[k].first, at);
            assert_true(plan.passes[k].n_weights <= limits[i]);
            at += plan.passes[k].n;
        }
        assert_int_equal(at, plan.n_pieces);
        assert_true(i > 0 || plan.n_passes == 1);
        layer_plan_free(&plan);
    }
    struct layer_plan plan;
    uint64_t need;
    assert_int_equal(layer_plan_make(&model, 0, 1000, false, &plan, &need, &err), ERR_MEMORY);
    assert_true(need > 1000 && need < 60000);
    assert_int_equal(layer_plan_make(&model, 0, 100000, true, &plan, &need, &err), ERR_MEMORY); /* whole MLPs do not fit */
}

/* ---- the pass ----------------------------------------------------------------------------------------------------------------------- */

enum { N = 40, VOCAB = 258 };

static void logits_of(const struct live *live, const int32_t *ids, size_t n, float *out)
{
    struct err err;
    assert_ok(forward_logits(&live->options, ids, n, out, &err));
}

static double largest_difference(const float *a, const float *b, size_t n)
{
    double most = 0.0;
    for (size_t i = 0; i < n; i++) most = fmax(most, fabs((double)a[i] - (double)b[i]));
    return most;
}

static void test_causal(void **state)
{
    (void)state;
    struct live live;
    int32_t ids[N];
    static float all[N * VOCAB], some[N * VOCAB];
    live_open(&live, NULL);
    live_ids(ids, N, VOCAB);
    logits_of(&live, ids, N, all);
    logits_of(&live, ids, 17, some);
    assert_true(largest_difference(all, some, 17 * VOCAB) < 1e-4);
    ids[30] = (ids[30] + 1) % VOCAB;
    logits_of(&live, ids, N, some);
    assert_true(largest_difference(all, some, 30 * VOCAB) < 1e-4 && largest_difference(all + 30 * VOCAB, some + 30 * VOCAB, VOCAB) > 0.1);
    live_close(&live);
}

/* Layers that are loaded in pieces, and every product of matrices, give the same logits but for the last bits. */
static void test_memory_and_gemm(void **state)
{
    (void)state;
    struct live live;
    struct gemm gemm;
    struct err err;
    int32_t ids[N];
    static float all[N * VOCAB], some[N * VOCAB];
    live_open(&live, NULL);
    live_ids(ids, N, VOCAB);
    logits_of(&live, ids, N, all);
    for (uint64_t ram = 10u << 20; ram < 20000000; ram += 1500000) {
        live.options.max_ram = ram;
        logits_of(&live, ids, N, some);
        assert_true(largest_difference(all, some, N * VOCAB) < 1e-4);
    }
    live.options.max_ram = 7u << 20;
    assert_refused(forward_logits(&live.options, ids, N, some, &err), ERR_MEMORY, "--max-ram");
    live.options.max_ram = 64u << 20;
    for (size_t i = 0; gemm_at(i, &gemm); i++) {
        live.options.gemm = gemm;
        logits_of(&live, ids, N, some);
        assert_true(largest_difference(all, some, N * VOCAB) < 1e-4);
    }
    live_close(&live);
}

struct doubling {
    struct weight_source under;
    size_t tensor;
};

static enum status read_doubled(void *context, size_t tensor, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols, float *out,
                                struct err *err)
{
    const struct doubling *d = context;
    enum status status = d->under.read(d->under.context, tensor, row, n_rows, col, n_cols, out, err);
    for (uint64_t i = 0; i < n_rows * n_cols && status == OK && tensor == d->tensor; i++) out[i] *= 2.0f;
    return status;
}

static enum status fail_late(void *context, size_t tensor, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols, float *out, struct err *err)
{
    const struct doubling *d = context;
    if (tensor == d->tensor) return err_set(err, ERR_IO, "the disk is gone");
    return d->under.read(d->under.context, tensor, row, n_rows, col, n_cols, out, err);
}

/* Weights come from where the caller says: doubled head rows, doubled logits; an error on the way is the pass's. */
static void test_source(void **state)
{
    (void)state;
    struct live live;
    struct err err;
    int32_t ids[N];
    static float all[N * VOCAB], some[N * VOCAB];
    live_open(&live, NULL);
    live_ids(ids, N, VOCAB);
    logits_of(&live, ids, N, all);
    struct doubling doubling = { live.options.source, live.model->output_norm.gain.tensor };
    live.options.source = (struct weight_source){ read_doubled, &doubling };
    logits_of(&live, ids, N, some);
    for (size_t i = 0; i < N * VOCAB; i++) all[i] *= 2.0f;
    assert_true(largest_difference(all, some, N * VOCAB) == 0.0);
    doubling.tensor = live.model->layers[2].experts[0].down.weight.tensor;
    live.options.source.read = fail_late;
    assert_refused(forward_logits(&live.options, ids, N, some, &err), ERR_IO, "the disk is gone");
    live_close(&live);
}

static void test_stop(void **state)
{
    (void)state;
    struct live live;
    struct err err;
    int32_t ids[N];
    static float some[N * VOCAB];
    volatile sig_atomic_t stop = 15;
    live_open(&live, NULL);
    live_ids(ids, N, VOCAB);
    live.options.stop = &stop;
    assert_refused(forward_logits(&live.options, ids, N, some, &err), ERR_CANCELLED, "stopped");
    live_close(&live);
}

static void test_windows(void **state)
{
    (void)state;
    struct err err;
    struct windows w;
    const int32_t ids[20] = { 0 };
    const uint64_t starts[] = { 0, 7, 8, 8, 20 };
    assert_ok(windows_make(ids, starts, 4, 5, 1, 0, &w, &err));
    const size_t rows[] = { 5, 2, 1, 5, 5, 2 };
    assert_int_equal(w.n, 6);
    for (size_t i = 0; i < 6; i++) assert_int_equal(w.units[i].n_rows, rows[i]);
    assert_true(w.n_rows == 20 && w.max_rows == 5 && w.units[3].ids == ids + 8 && w.units[5].first_row == 18);
    windows_free(&w);
    assert_ok(windows_make(ids, starts, 4, 5, 2, 3, &w, &err));
    assert_true(w.n == 3 && w.units[2].ids == ids + 8 && w.n_rows == 12);
    windows_free(&w);
    assert_ok(windows_make(ids, starts, 0, 5, 1, 0, &w, &err));
    assert_int_equal(w.n, 0);
    windows_free(&w);
}

/* What the model wrote over its cache is what a whole pass would have drawn: the largest of logits and noise at every place. */
static void test_sample(void **state)
{
    (void)state;
    enum { DOCUMENTS = 10, LENGTH = 24 };
    struct live live;
    struct err err;
    static int32_t ids[DOCUMENTS * LENGTH], again[DOCUMENTS * LENGTH];
    static float logits[LENGTH * VOCAB];
    live_open(&live, NULL);
    struct sample_options options = { .io = &io_system,
                                      .model = live.model,
                                      .source = live.options.source,
                                      .gemm = live.options.gemm,
                                      .n_workers = 2,
                                      .max_ram = 64u << 20,
                                      .spill_dir = "/tmp",
                                      .seed = 11,
                                      .first = 256,
                                      .n_documents = DOCUMENTS,
                                      .length = LENGTH };
    assert_ok(sample_run(&options, ids, &err));
    for (size_t d = 0; d < DOCUMENTS; d++) {
        logits_of(&live, ids + d * LENGTH, LENGTH, logits);
        assert_int_equal(ids[d * LENGTH], 256);
        for (size_t t = 0; t + 1 < LENGTH; t++) {
            double best = -HUGE_VAL;
            int32_t entry = -1;
            for (size_t v = 0; v < VOCAB; v++) {
                const double value = (double)logits[t * VOCAB + v] + sample_noise(11, d, t, v);
                if (value > best) {
                    best = value;
                    entry = (int32_t)v;
                }
            }
            assert_int_equal(ids[d * LENGTH + t + 1], entry);
        }
    }
    options.n_workers = 1;
    options.max_ram = 11u << 20; /* layers are loaded for every position */
    assert_ok(sample_run(&options, again, &err));
    assert_memory_equal(ids, again, sizeof ids);
    options.max_ram = 8u << 20;
    assert_refused(sample_run(&options, again, &err), ERR_MEMORY, "--max-ram");
    options.max_ram = 64u << 20;
    options.first = -1;
    options.seed = 12;
    assert_ok(sample_run(&options, again, &err));
    assert_memory_not_equal(ids, again, sizeof ids);
    live_close(&live);
}

/* Mean and spread of the noise: Euler's constant 0.5772, variance pi^2 / 6 = 1.645. */
static void test_noise(void **state)
{
    (void)state;
    double sum = 0.0, squares = 0.0;
    for (uint64_t i = 0; i < 100000; i++) {
        const double g = sample_noise(1, i % 7, i / 1000, i);
        sum += g;
        squares += g * g;
    }
    assert_true(fabs(sum / 1e5 - 0.5772) < 0.02 && fabs(squares / 1e5 - 1.645 - 0.3332) < 0.05);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_parts),           cmocka_unit_test(test_plans),  cmocka_unit_test(test_causal),
                                        cmocka_unit_test(test_memory_and_gemm), cmocka_unit_test(test_source), cmocka_unit_test(test_stop),
                                        cmocka_unit_test(test_windows),         cmocka_unit_test(test_sample), cmocka_unit_test(test_noise) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
