/* test_eval.c: perplexity, KL divergence and agreement against sums in binary64 over whole rows of logits; stories260K; refusals. */
#include "smoothquant/eval.h"
#include "support/live.h"
#include "support/support.h"

#include <math.h>

enum { VOCAB = 258 };

static const uint64_t starts[] = { 0, 30, 31, 50 };

static struct eval_options options_of(const struct live *live)
{
    return (
        struct eval_options){ .io = &io_system, .gemm = live->options.gemm, .n_workers = 3, .max_ram = 64u << 20, .spill_dir = "/tmp", .seq = 12 };
}

/* Weights of one matrix made coarser. */
struct coarse {
    struct weight_source under;
    size_t tensor;
};

static enum status read_coarse(void *context, size_t tensor, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols, float *out,
                               struct err *err)
{
    const struct coarse *c = context;
    enum status status = c->under.read(c->under.context, tensor, row, n_rows, col, n_cols, out, err);
    for (uint64_t i = 0; i < n_rows * n_cols && status == OK && tensor == c->tensor; i++) out[i] = rintf(out[i] * 8.0f) / 8.0f;
    return status;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double log_sum(const float *x)
{
    double most = -1e30, sum = 0.0;
    for (size_t v = 0; v < VOCAB; v++) most = fmax(most, (double)x[v]);
    for (size_t v = 0; v < VOCAB; v++) sum += exp((double)x[v] - most);
    return most + log(sum);
}

static size_t best(const float *x)
{
    size_t at = 0;
    for (size_t v = 1; v < VOCAB; v++)
        if (x[v] > x[at]) at = v;
    return at;
}

static void test_numbers(void **state)
{
    (void)state;
    struct live live;
    struct err err;
    int32_t ids[50];
    uint64_t nbytes[] = { 29, 1, 18 };
    static float a[12 * VOCAB], b[12 * VOCAB];
    double nll = 0.0, reference = 0.0, kls[64], kl = 0.0;
    size_t n = 0, same = 0;
    live_open(&live, NULL);
    live_ids(ids, 50, VOCAB);
    struct coarse coarse = { live.options.source, live.model->layers[1].experts[0].down.weight.tensor };
    struct forward_options other = live.options;
    other.source = (struct weight_source){ read_coarse, &coarse };
    for (size_t d = 0; d < 3; d++)
        for (uint64_t at = starts[d]; at < starts[d + 1]; at += 12) {
            const size_t rows = starts[d + 1] - at < 12 ? starts[d + 1] - at : 12;
            assert_ok(forward_logits(&live.options, ids + at, rows, a, &err));
            assert_ok(forward_logits(&other, ids + at, rows, b, &err));
            for (size_t t = 0; t + 1 < rows; t++) {
                const float *x = a + t * VOCAB, *y = b + t * VOCAB;
                const size_t target = (size_t)ids[at + t + 1];
                nll += log_sum(y) - (double)y[target];
                reference += log_sum(x) - (double)x[target];
                kls[n] = 0.0;
                for (size_t v = 0; v < VOCAB; v++) kls[n] += exp((double)x[v] - log_sum(x)) * ((double)x[v] - log_sum(x) - (double)y[v] + log_sum(y));
                kl += kls[n++];
                same += best(x) == best(y);
            }
        }
    qsort(kls, n, sizeof *kls, by_value);

    const struct token_docs docs = { ids, (uint64_t *)(uintptr_t)starts, 3, nbytes };
    struct eval_options options = options_of(&live);
    options.n_lead = 1;
    const struct eval_model model = { live.model, other.source }, original = { live.model, live.options.source };
    struct eval *eval;
    struct eval_result r, first = { 0 };
    for (unsigned workers = 1; workers < 6; workers++) {
        options.n_workers = workers;
        assert_ok(eval_open(&options, &docs, &original, &eval, &err));
        assert_int_equal(eval_tokens(eval), 49); /* the window of one token is left out */
        assert_ok(eval_judge(eval, &model, &r, &err));
        assert_true(r.n_tokens == n && n == 44);
        assert_true(fabs(log(r.perplexity) - nll / (double)n) < 1e-5 && fabs(log(r.reference_perplexity) - reference / (double)n) < 1e-5);
        assert_true(fabs(r.kl_mean - kl / (double)n) < 1e-5 && fabs(r.kl_max - kls[n - 1]) < 1e-4 && fabs(r.kl_p99 - kls[43]) < 1e-4 && kl > 0.01);
        assert_true(fabs(r.top1 - (double)same / (double)n) < 1e-12 && same < n);
        assert_true(fabs(r.bits_per_byte - nll / (double)n / log(2.0) * 47.0 / 48.0) < 1e-4);
        if (workers == 1) first = r;
        assert_memory_equal(&r, &first, sizeof r);
        /* a second set of weights against the same reference: itself */
        assert_ok(eval_judge(eval, &original, &r, &err));
        assert_true(r.kl_mean == 0.0 && r.kl_p99 == 0.0 && r.top1 == 1.0 && r.perplexity == r.reference_perplexity);
        eval_close(eval);
    }
    nbytes[0] = nbytes[1] = nbytes[2] = 0;
    assert_ok(eval_open(&options, &docs, NULL, &eval, &err));
    assert_ok(eval_judge(eval, &original, &r, &err));
    assert_true(isnan(r.bits_per_byte) && isnan(r.kl_mean) && isnan(r.top1) && isnan(r.reference_perplexity));
    eval_close(eval);
    live_close(&live);
}

static void test_refusals(void **state)
{
    (void)state;
    struct live live;
    struct err err;
    struct eval *eval;
    struct eval_result r;
    int32_t ids[50] = { 0 };
    uint64_t lonely[] = { 0, 1, 2 };
    live_open(&live, NULL);
    const struct eval_options options = options_of(&live);
    const struct eval_model model = { live.model, live.options.source };
    const struct token_docs none = { ids, lonely, 2, NULL }, docs = { ids, (uint64_t *)(uintptr_t)starts, 3, NULL };
    assert_refused(eval_open(&options, &none, NULL, &eval, &err), ERR_DATA, "two tokens");
    ids[20] = 258;
    assert_refused(eval_open(&options, &docs, &model, &eval, &err), ERR_DATA, "token 20 has id 258");
    ids[20] = 0;
    assert_ok(eval_open(&options, &docs, &model, &eval, &err));
    struct arch_model smaller = *live.model;
    smaller.vocab = 257;
    assert_refused(eval_judge(eval, &(struct eval_model){ &smaller, live.options.source }, &r, &err), ERR_USAGE, "257 and 258");
    eval_close(eval);
    eval_close(NULL);
    live_close(&live);
}

/* The trained model on its stories: the number of another program. */
static void test_stories(void **state)
{
    (void)state;
    const char *models[] = { "llm/stories260K-hf-f32", "llm/stories260K/stories260K.gguf" };
    struct err err;
    for (size_t i = 0; i < 2; i++) {
        const char *path = shared_data(models[i]);
        if (!path) skip();
        char *copy = strdup(path);
        struct live live;
        struct token_docs docs;
        struct eval *eval;
        struct eval_result r;
        live_open(&live, copy);
        assert_ok(tokens_read_ids(&io_system, shared_data("text/stories260K_ids.txt"), (uint32_t)live.model->vocab, &docs, &err));
        struct eval_options options = options_of(&live);
        options.seq = 512;
        assert_ok(eval_open(&options, &docs, NULL, &eval, &err));
        assert_ok(eval_judge(eval, &(struct eval_model){ live.model, live.options.source }, &r, &err));
        assert_int_equal(r.n_tokens, 20034);
        if (fabs(r.perplexity - 4.3594) > 5e-5) fail_msg("perplexity %.6f", r.perplexity);
        eval_close(eval);
        tokens_free(&docs);
        live_close(&live);
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_numbers), cmocka_unit_test(test_refusals), cmocka_unit_test(test_stories) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
