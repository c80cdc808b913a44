/* smooth_check.c: see smooth_check.h.
 *
 * Drawing: weight source of the file -> factors -> (kept: rounding to the stored type) -> (stored factors: taken back) -> forward_logits, twice.
 * Why this way: see smooth_check.h. The ids need no text: any tokens show whether two functions are the same.
 * Corner cases: a number that is not finite on either side counts as different.
 * Reference: smooth_check.h. Worked number: see there.
 */
#include "converter/smooth_check.h"

#include <math.h>
#include <stdlib.h>

#include "base/size.h"
#include "converter/live_model.h"
#include "converter/tile_read.h"
#include "smoothquant/forward.h"

enum { PIECE = 4096 };

struct migrated_source {
    struct weight_source source;
    const struct plan *plan;
};

/* What a kept tensor becomes when it is written. */
static void round_kept(const struct dtype *dtype, float *x, uint64_t n)
{
    uint8_t bytes[PIECE * sizeof(double)];
    for (uint64_t at = 0; at < n; at += PIECE) {
        const size_t count = (size_t)size_min(PIECE, n - at);
        dtype->narrow(x + at, count, bytes);
        dtype->widen(bytes, count, x + at);
    }
}

static enum status read_migrated(void *context, size_t tensor, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols, float *out,
                                 struct err *err)
{
    const struct migrated_source *migrated = context;
    const struct plan_entry *entry = &migrated->plan->entries[tensor];
    enum status status = migrated->source.read(migrated->source.context, tensor, row, n_rows, col, n_cols, out, err);
    if (status || !entry->fold) return status;
    fold_apply(entry->fold, &(struct tile){ row, n_rows, col, n_cols }, out);
    if (entry->fate == FATE_KEEP) round_kept(tile_read_dtype(plan_tensor(migrated->plan, tensor)), out, n_rows * n_cols);
    const uint64_t matrix_rows = shape_matrix_rows(&entry->shape);
    for (uint64_t r = 0; entry->input_scale && r < n_rows; r++)
        for (uint64_t c = 0; c < n_cols; c++) out[r * n_cols + c] *= entry->input_scale[(row + r) / matrix_rows * entry->shape.cols + col + c];
    return OK;
}

/* KL divergence of two rows of logits, p from a, q from b. */
static double divergence(const float *a, const float *b, size_t n)
{
    double most_a = (double)a[0], most_b = (double)b[0], sum_a = 0.0, sum_b = 0.0, kl = 0.0;
    for (size_t v = 1; v < n; v++) {
        most_a = fmax(most_a, (double)a[v]);
        most_b = fmax(most_b, (double)b[v]);
    }
    for (size_t v = 0; v < n; v++) {
        sum_a += exp((double)a[v] - most_a);
        sum_b += exp((double)b[v] - most_b);
    }
    for (size_t v = 0; v < n; v++) {
        const double log_p = (double)a[v] - most_a - log(sum_a), log_q = (double)b[v] - most_b - log(sum_b);
        kl += exp(log_p) * (log_p - log_q);
    }
    return fmax(kl, 0.0);
}

static void compare_logits(const float *a, const float *b, size_t n_tokens, size_t vocab, struct smooth_checked *checked)
{
    checked->equal = true;
    for (size_t i = 0; i < n_tokens * vocab; i++) {
        const double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= 1e-4 + 1e-5 * fabs((double)a[i]))) checked->equal = false;
        if (!(d <= checked->largest)) checked->largest = d;
    }
    for (size_t t = 0; t < n_tokens; t++) checked->kl += divergence(a + t * vocab, b + t * vocab, vocab) / (double)n_tokens;
}

/* The same ids every time. */
static void draw_ids(int32_t *ids, size_t n, size_t vocab)
{
    uint64_t state = UINT64_C(0x9e3779b97f4a7c15);
    for (size_t i = 0; i < n; i++) {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        ids[i] = (int32_t)((state * UINT64_C(0x2545f4914f6cdd1d) >> 33) % vocab);
    }
}

static enum status run_both(struct app *app, struct plan *plan, const struct live_model *live, size_t n, int32_t *ids, float *logits, struct err *err)
{
    const size_t vocab = live->model->vocab;
    struct forward_options options = { .io = app->io,
                                       .model = live->model,
                                       .source = weight_source_container(live->container),
                                       .gemm = live_gemm(app),
                                       .n_workers = 1,
                                       .max_ram = live_max_ram(app),
                                       .reserved = 2 * n * vocab * sizeof *logits,
                                       .stop = app->stop,
                                       .spill_dir = live_spill_dir() };
    struct migrated_source migrated = { options.source, plan };
    draw_ids(ids, n, vocab);
    enum status status = forward_logits(&options, ids, n, logits, err);
    options.source = (struct weight_source){ read_migrated, &migrated };
    if (!status) status = forward_logits(&options, ids, n, logits + n * vocab, err);
    if (!status) compare_logits(logits, logits + n * vocab, n, vocab, &plan->smoothing->check);
    return status;
}

static enum status judge(const struct smooth_checked *checked, struct err *err)
{
    if (checked->equal || checked->kl < 1e-4) return OK;
    return err_set(err, ERR_MISMATCH, "migration changes the model: logits of %llu tokens differ by up to %.3g, KL divergence %.3g",
                   (unsigned long long)checked->n_tokens, checked->largest, checked->kl);
}

enum status smooth_check(struct app *app, struct plan *plan, struct err *err)
{
    const size_t n = (size_t)settings_number(&app->settings, SET_SMOOTH_CHECK);
    struct live_model live = { 0 };
    if (!plan->smoothing || !settings_given(&app->settings, SET_SMOOTH_CHECK)) return OK;
    enum status status = live_model_open(app, settings_text(&app->settings, SET_IN), &live, err);
    int32_t *ids = status ? NULL : malloc(n * sizeof *ids);
    float *logits = status ? NULL : malloc(2 * n * live.model->vocab * sizeof *logits);
    if (!status && (!ids || !logits)) status = err_set(err, ERR_MEMORY, "out of memory for the logits of %zu tokens", n);
    plan->smoothing->check.n_tokens = n;
    if (!status) status = run_both(app, plan, &live, n, ids, logits, err);
    if (status) status = err_wrap(err, status, "--smooth-check");
    free(logits);
    free(ids);
    live_model_close(&live);
    return status ? status : judge(&plan->smoothing->check, err);
}
