/* eval.c: see eval.h.
 *
 * Formula, over the panels of the vocabulary: m' = max(m, max_v l_v);  s' = s e^(m - m') + sum_v e^(l_v - m');  with a reference a and judged b also
 * t' = t e^(m - m') + sum_v e^(a_v - m') (a_v - b_v), and KL = t / s_a - (m_a + ln s_a) + (m_b + ln s_b).
 * Why this way: see eval.h. Exponentials in binary32, their sums in binary64; the sums over tokens are made in their order at the end.
 * Corner cases: a logit that is not finite makes its token's nll NaN, which is an error that names the token.
 * Reference: eval.h. Worked number: logits 0, ln 3: ln sum = ln 4, nll of the second 0.287682.
 */
#include "smoothquant/eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"

/* What is known of the predictions of one token's logits by one model. */
struct score {
    double sum; /* of exp(l - most) */
    float most, target;
    uint32_t best; /* entry of most */
};

struct eval {
    struct eval_options options;
    const struct token_docs *docs;
    struct windows windows;
    struct forward *reference; /* finished; NULL: none */
    struct forward_options reference_options;
    size_t reference_vocab;
};

struct judging {
    const struct eval_options *options;
    const struct windows *windows;
    struct score *scores[2]; /* of all tokens; judged, reference */
    double *cross; /* sum of exp(a - most) (a - b) */
    size_t n_models;
};

static double sum_exp(const float *x, size_t n, float most, float *exps)
{
    double lanes[8] = { 0 }, sum = 0.0;
    for (size_t i = 0; i < n; i++) exps[i] = exp_f32(x[i] - most);
    for (size_t i = 0; i < n; i++) lanes[i % 8] += (double)exps[i];
    for (size_t l = 0; l < 8; l++) sum += lanes[l];
    return sum;
}

/* Takes one panel of one row in; exps gets exp(l - most). Returns what older sums must be multiplied with. */
static double take_row(struct score *score, const float *x, size_t first, size_t n, size_t target, float *exps)
{
    const float before = score->most;
    for (size_t i = 0; i < n; i++)
        if (x[i] > score->most) {
            score->most = x[i];
            score->best = (uint32_t)(first + i);
        }
    const double factor = score->sum > 0.0 ? exp((double)before - (double)score->most) : 1.0;
    score->sum = score->sum * factor + sum_exp(x, n, score->most, exps);
    if (target >= first && target < first + n) score->target = x[target - first];
    return factor;
}

static enum status see(void *context, unsigned worker, size_t unit, size_t first, size_t n, const float *const *logits, struct err *err)
{
    struct judging *j = context;
    const struct forward_unit *u = &j->windows->units[unit];
    float exps[HEAD_PANEL];
    (void)worker;
    if (j->options->logits) {
        enum status status = j->options->logits(j->options->logits_context, u->first_row, u->n_rows, first, n, logits[0], err);
        if (status != OK) return status;
    }
    for (size_t t = 0; t + 1 < u->n_rows; t++) {
        const uint64_t row = u->first_row + t;
        const size_t target = (size_t)u->ids[t + 1];
        const float *b = logits[0] + t * n;
        take_row(&j->scores[0][row], b, first, n, target, exps);
        if (j->n_models < 2) continue;
        const float *a = logits[1] + t * n;
        const double factor = take_row(&j->scores[1][row], a, first, n, target, exps);
        double lanes[8] = { 0 }, sum = 0.0;
        for (size_t i = 0; i < n; i++) lanes[i % 8] += (double)exps[i] * ((double)a[i] - (double)b[i]);
        for (size_t l = 0; l < 8; l++) sum += lanes[l];
        j->cross[row] = j->cross[row] * factor + sum;
    }
    return OK;
}

static double log_sum(const struct score *score)
{
    return (double)score->most + log(score->sum);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The value of which 99 % are not above. */
static double percentile99(double *values, size_t n)
{
    qsort(values, n, sizeof *values, by_value);
    return values[(size_t)ceil(0.99 * (double)n) - 1];
}

/* Tokens of texts, without what stands in front of them, and their bytes; 0 bytes when not all are known. */
static void count_text(const struct eval *eval, uint64_t *n_tokens, uint64_t *nbytes)
{
    *n_tokens = *nbytes = 0;
    for (size_t d = 0; d < eval->docs->n_docs; d++) {
        const uint64_t n = eval->docs->starts[d + 1] - eval->docs->starts[d];
        *n_tokens += n > eval->options.n_lead ? n - eval->options.n_lead : 0;
        *nbytes += eval->docs->nbytes ? eval->docs->nbytes[d] : 0;
    }
}

static enum status sum_up(const struct eval *eval, struct judging *j, struct eval_result *out, struct err *err)
{
    double nll[2] = { 0, 0 }, kl_sum = 0.0, kl_max = 0.0;
    uint64_t n = 0, same = 0, text_tokens, nbytes;
    double *kls = j->cross; /* packed to the front as they are finished: token n is never behind its row */
    for (size_t w = 0; w < j->windows->n; w++)
        for (size_t t = 0; t + 1 < j->windows->units[w].n_rows; t++) {
            const uint64_t row = j->windows->units[w].first_row + t;
            for (size_t m = 0; m < j->n_models; m++) nll[m] += log_sum(&j->scores[m][row]) - (double)j->scores[m][row].target;
            if (!isfinite(nll[0]) || (j->n_models > 1 && !isfinite(nll[1])))
                return err_set(err, ERR_DATA, "window %zu, token %zu: the model's predictions are not finite", w, t);
            if (j->n_models > 1) {
                const struct score *b = &j->scores[0][row], *a = &j->scores[1][row];
                double kl = j->cross[row] / a->sum - log_sum(a) + log_sum(b);
                kl = kl > 0.0 ? kl : 0.0;
                kl_sum += kl;
                kl_max = kl > kl_max ? kl : kl_max;
                same += a->best == b->best;
                kls[n] = kl;
            }
            n++;
        }
    count_text(eval, &text_tokens, &nbytes);
    *out = (struct eval_result){ .n_tokens = n, .n_windows = j->windows->n, .perplexity = exp(nll[0] / (double)n) };
    out->bits_per_byte = nbytes ? nll[0] / (double)n * (double)text_tokens / (double)nbytes / log(2.0) : (double)NAN;
    out->reference_perplexity = out->kl_mean = out->kl_p99 = out->kl_max = out->top1 = (double)NAN;
    if (j->n_models < 2) return OK;
    out->reference_perplexity = exp(nll[1] / (double)n);
    out->kl_mean = kl_sum / (double)n;
    out->kl_max = kl_max;
    out->top1 = (double)same / (double)n;
    out->kl_p99 = percentile99(kls, (size_t)n);
    return OK;
}

/* ---- passes ------------------------------------------------------------------------------------------------------------------------ */

/* Memory of the scores, which stay while passes run. */
static uint64_t reserved(const struct eval *eval, bool against)
{
    const uint64_t kept = eval->reference ? forward_kept(eval->reference) : 0; /* the reference waits, finished */
    return kept + eval->windows.n_rows * (2 * sizeof(int32_t) + (against ? 2 : 1) * sizeof(struct score) + (against ? sizeof(double) : 0));
}

static struct forward_options options_of(const struct eval *eval, const struct eval_model *model, bool against)
{
    const struct eval_options *o = &eval->options;
    return (struct forward_options){ .io = o->io,
                                     .model = model->model,
                                     .source = model->source,
                                     .gemm = o->gemm,
                                     .n_workers = o->n_workers,
                                     .max_ram = o->max_ram,
                                     .reserved = reserved(eval, against),
                                     .stop = o->stop,
                                     .spill_dir = o->spill_dir,
                                     .progress = o->progress,
                                     .context = o->context };
}

static enum status run(const struct forward_options *options, const struct windows *windows, struct forward **out, struct err *err)
{
    enum status status = forward_open(options, windows, out, err);
    if (status == OK) status = forward_run(*out, err);
    return status == OK ? forward_finish(*out, err) : status;
}

static enum status check_ids(const struct eval *eval, size_t vocab, struct err *err)
{
    for (uint64_t i = 0; i < eval->docs->starts[eval->docs->n_docs]; i++)
        if (eval->docs->ids[i] < 0 || (size_t)eval->docs->ids[i] >= vocab)
            return err_set(err, ERR_DATA, "token %llu has id %d, the model's vocabulary has %zu entries", (unsigned long long)i,
                           (int)eval->docs->ids[i], vocab);
    return OK;
}

enum status eval_open(const struct eval_options *options, const struct token_docs *docs, const struct eval_model *reference, struct eval **out,
                      struct err *err)
{
    struct eval *eval = calloc(1, sizeof *eval);
    *out = NULL;
    if (!eval) return err_set(err, ERR_MEMORY, "out of memory");
    eval->options = *options;
    eval->docs = docs;
    enum status status = windows_make(docs->ids, docs->starts, docs->n_docs, options->seq, 2, 0, &eval->windows, err);
    if (status == OK && eval->windows.n == 0) status = err_set(err, ERR_DATA, "there is nothing to judge by: no document has two tokens");
    if (status == OK && reference) status = check_ids(eval, reference->model->vocab, err);
    if (status == OK && reference) {
        eval->reference_options = options_of(eval, reference, true);
        eval->reference_vocab = reference->model->vocab;
        status = run(&eval->reference_options, &eval->windows, &eval->reference, err);
    }
    if (status == OK) *out = eval;
    else eval_close(eval);
    return status;
}

enum status eval_judge(struct eval *eval, const struct eval_model *model, struct eval_result *result, struct err *err)
{
    struct judging j = { .options = &eval->options, .windows = &eval->windows, .n_models = eval->reference ? 2 : 1 };
    const struct forward_options options = options_of(eval, model, eval->reference != NULL);
    struct forward *forward = NULL;
    if (eval->reference && eval->reference_vocab != model->model->vocab)
        return err_set(err, ERR_USAGE, "the vocabularies have %zu and %zu entries: the models cannot be compared", model->model->vocab,
                       eval->reference_vocab);
    enum status status = check_ids(eval, model->model->vocab, err);
    if (status == OK) status = run(&options, &eval->windows, &forward, err);
    for (size_t m = 0; m < j.n_models && status == OK; m++) {
        j.scores[m] = calloc((size_t)eval->windows.n_rows, sizeof *j.scores[m]);
        if (!j.scores[m]) status = err_set(err, ERR_MEMORY, "out of memory");
        for (uint64_t i = 0; status == OK && i < eval->windows.n_rows; i++) j.scores[m][i].most = -HUGE_VALF;
    }
    if (status == OK && eval->reference) {
        j.cross = calloc((size_t)eval->windows.n_rows, sizeof *j.cross);
        if (!j.cross) status = err_set(err, ERR_MEMORY, "out of memory");
    }
    struct forward *const forwards[] = { forward, eval->reference };
    if (status == OK) status = head_run(forwards, j.n_models, see, &j, err);
    if (status == OK) status = sum_up(eval, &j, result, err);
    forward_close(forward, true);
    free(j.scores[0]);
    free(j.scores[1]);
    free(j.cross);
    return status;
}

uint64_t eval_tokens(const struct eval *eval)
{
    return eval->windows.n_rows;
}

void eval_close(struct eval *eval)
{
    if (!eval) return;
    forward_close(eval->reference, true);
    windows_free(&eval->windows);
    free(eval);
}
