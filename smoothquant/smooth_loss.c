/* smooth_loss.c: see smooth_loss.h.
 *
 * Drawing: rows r .. r+7 -> panel -> sums with H or with tokens
 * Why this way: see smooth_loss.h and smooth_panel.h.
 * Corner cases: see smooth_loss.h.
 * Reference: see smooth_loss.h. Worked number: see there.
 */
#include "smoothquant/smooth_loss.h"

#include <math.h>
#include <stdlib.h>

#include "smoothquant/qdq8.h"

/* ---- candidates ----------------------------------------------------------------------------------------------------------------- */

static bool make_room(struct smooth_view *view, const struct smooth_problem *problem, const struct smooth_settings *settings)
{
    const size_t n = (size_t)problem->channels.n + 1;
    if (!view->s) view->s = malloc(n * sizeof *view->s);
    if (!view->inverse) view->inverse = malloc(n * sizeof *view->inverse);
    if (!view->energy) view->energy = malloc(n * sizeof *view->energy);
    if (!view->importance) view->importance = malloc(n * sizeof *view->importance);
    if (!view->acts && settings->loss == SMOOTH_LOSS_W8A8) view->acts = malloc((size_t)problem->n_sample * n * sizeof *view->acts);
    return view->s && view->inverse && view->energy && view->importance && (view->acts || settings->loss != SMOOTH_LOSS_W8A8);
}

/* Range of the smoothed activations, from the channels' ranges. */
static struct qdq_params act_params(const struct smooth_problem *problem, const float *s, const float *acts)
{
    float low = HUGE_VALF, high = -HUGE_VALF;
    const uint64_t n = problem->channels.n;
    const bool given = problem->act_min && problem->act_max;
    for (uint64_t j = 0; given && j < n; j++) {
        low = fminf(low, problem->act_min[j] * (1.0f / s[j]));
        high = fmaxf(high, problem->act_max[j] * (1.0f / s[j]));
    }
    for (uint64_t i = 0; !given && i < problem->n_sample * n; i++) {
        low = fminf(low, acts[i]);
        high = fmaxf(high, acts[i]);
    }
    return qdq_act_params(low, high, 8);
}

static void quantise_acts(struct smooth_view *view, const struct smooth_problem *problem)
{
    const uint64_t n = problem->channels.n;
    for (uint64_t t = 0; t < problem->n_sample; t++)
        for (uint64_t j = 0; j < n; j++) view->acts[t * n + j] = problem->sample[t * n + j] * (1.0f / view->s[j]);
    const struct qdq_params params = act_params(problem, view->s, view->acts);
    qdq_apply(&params, view->acts, problem->n_sample * n, view->acts);
}

bool smooth_view_set(struct smooth_view *view, const struct smooth_problem *problem, const struct smooth_settings *settings, const float *s)
{
    const uint64_t n = problem->channels.n;
    if (!make_room(view, problem, settings)) return false;
    view->norm = false;
    for (uint64_t j = 0; j < n; j++) {
        view->s[j] = s ? s[j] : 1.0f;
        view->inverse[j] = 1.0 / (double)view->s[j];
        view->energy[j] = problem->ex2 ? problem->ex2[j] / ((double)view->s[j] * (double)view->s[j]) : 0.0;
    }
    view->has_importance = settings->importance && smooth_importance(problem->ex2, view->s, n, view->importance);
    if (settings->loss == SMOOTH_LOSS_W8A8 && n && problem->n_sample) quantise_acts(view, problem);
    return true;
}

void smooth_view_close(struct smooth_view *view)
{
    free(view->s);
    free(view->inverse);
    free(view->energy);
    free(view->importance);
    free(view->acts);
    *view = (struct smooth_view){ 0 };
}

bool smooth_bench_open(struct smooth_bench *bench, uint64_t n, uint64_t n_sample)
{
    const size_t n_panel = (size_t)n * SMOOTH_PANEL + 1, n_sums = (size_t)n_sample + SMOOTH_VECTORS;
    *bench = (struct smooth_bench){ .n = n,
                                    .add = smooth_panel_best(),
                                    .panel = malloc(n_panel * sizeof *bench->panel),
                                    .other = malloc(n_panel * sizeof *bench->other),
                                    .rows = malloc(n_panel * sizeof *bench->rows),
                                    .sums = malloc(n_sums * sizeof *bench->sums),
                                    .coded = malloc(n_sums * sizeof *bench->coded) };
    return bench->panel && bench->other && bench->rows && bench->sums && bench->coded;
}

void smooth_bench_close(struct smooth_bench *bench)
{
    free(bench->panel);
    free(bench->other);
    free(bench->rows);
    free(bench->sums);
    free(bench->coded);
    *bench = (struct smooth_bench){ 0 };
}

/* ---- diag ----------------------------------------------------------------------------------------------------------------------- */

static double diag_row(const float *v, const float *y, const double *energy, uint64_t n)
{
    double lanes[8] = { 0 };
    uint64_t j = 0;
    for (; j + 8 <= n; j += 8)
        for (size_t l = 0; l < 8; l++) {
            const double d = (double)(y[j + l] - v[j + l]);
            lanes[l] += d * d * energy[j + l];
        }
    for (size_t l = 0; j < n; j++, l++) {
        const double d = (double)(y[j] - v[j]);
        lanes[l] += d * d * energy[j];
    }
    for (size_t half = 4; half > 0; half /= 2)
        for (size_t l = 0; l < half; l++) lanes[l] += lanes[l + half];
    return lanes[0];
}

/* ---- gram, sample --------------------------------------------------------------------------------------------------------------- */

static void gram_panel(const struct smooth_bench *bench, const struct smooth_problem *problem, double rows[SMOOTH_PANEL])
{
    smooth_panel_quadratic(bench->add, bench->panel, problem->gram, bench->n, rows);
    for (size_t r = 0; r < SMOOTH_PANEL; r++) rows[r] *= problem->gram_factor;
}

static void sample_panel(const struct smooth_bench *bench, const struct smooth_problem *problem, double rows[SMOOTH_PANEL])
{
    smooth_panel_times(bench->add, bench->panel, problem->sample, problem->n_sample, bench->n, bench->sums);
    for (uint64_t t = 0; t < problem->n_sample; t++)
        for (size_t r = 0; r < SMOOTH_PANEL; r++) rows[r] += bench->sums[t][r] * bench->sums[t][r];
    for (size_t r = 0; r < SMOOTH_PANEL; r++) rows[r] /= (double)problem->n_sample;
}

double smooth_loss_rows(struct smooth_bench *bench, const struct smooth_problem *problem, enum smooth_loss loss, const struct smooth_view *view,
                        const float *v, const float *y, uint64_t n_rows)
{
    const uint64_t n = bench->n;
    double sum = 0.0;
    for (uint64_t r = 0; loss == SMOOTH_LOSS_DIAG && r < n_rows; r++) sum += diag_row(v + r * n, y + r * n, view->energy, n);
    for (uint64_t r = 0; loss != SMOOTH_LOSS_DIAG && r < n_rows; r += SMOOTH_PANEL) {
        double rows[SMOOTH_PANEL] = { 0 };
        const uint64_t count = n_rows - r < SMOOTH_PANEL ? n_rows - r : SMOOTH_PANEL;
        smooth_panel_load(bench->panel, v + r * n, y + r * n, view->inverse, count, n);
        (loss == SMOOTH_LOSS_GRAM ? gram_panel : sample_panel)(bench, problem, rows);
        for (size_t k = 0; k < count; k++) sum += rows[k];
    }
    return sum;
}

/* ---- w8a8 ----------------------------------------------------------------------------------------------------------------------- */

double smooth_output_max(struct smooth_bench *bench, const struct smooth_problem *problem, const float *w, uint64_t n_rows)
{
    const uint64_t n = bench->n;
    double most = 0.0;
    for (uint64_t r = 0; r < n_rows; r += SMOOTH_PANEL) {
        smooth_panel_load(bench->panel, NULL, w + r * n, NULL, n_rows - r, n);
        smooth_panel_times(bench->add, bench->panel, problem->sample, problem->n_sample, n, bench->sums);
        for (uint64_t t = 0; t < problem->n_sample; t++)
            for (size_t k = 0; k < SMOOTH_PANEL; k++) most = fmax(most, fabs(bench->sums[t][k]));
    }
    return most;
}

double smooth_loss_w8a8(struct smooth_bench *bench, const struct smooth_problem *problem, const struct smooth_view *view, const float *w,
                        const float *v, uint64_t n_rows, double output_max, double power)
{
    const uint64_t n = bench->n;
    double sum = 0.0;
    for (uint64_t r = 0; r < n_rows; r += SMOOTH_PANEL) {
        const uint64_t count = n_rows - r < SMOOTH_PANEL ? n_rows - r : SMOOTH_PANEL;
        double rows[SMOOTH_PANEL] = { 0 };
        qdq_weight_linear(v + r * n, count, n, 8, QDQ_SYM, bench->rows, NULL);
        smooth_panel_load(bench->panel, NULL, w + r * n, NULL, count, n);
        smooth_panel_load(bench->other, NULL, bench->rows, NULL, count, n);
        smooth_panel_times(bench->add, bench->panel, problem->sample, problem->n_sample, n, bench->sums);
        smooth_panel_times(bench->add, bench->other, view->acts, problem->n_sample, n, bench->coded);
        for (uint64_t t = 0; t < problem->n_sample; t++)
            for (size_t k = 0; k < SMOOTH_PANEL; k++) {
                const double d = fabs(bench->sums[t][k] / output_max - bench->coded[t][k] / output_max);
                rows[k] += power == 0.5 ? sqrt(d) : d * d;
            }
        for (size_t k = 0; k < count; k++) sum += rows[k];
    }
    return sum;
}
