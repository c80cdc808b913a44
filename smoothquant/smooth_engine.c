/* smooth_engine.c: see smooth_engine.h.
 *
 * Drawing: W --* s--> V --smooth_target_run--> Y --smooth_loss_rows--> slot
 * Why this way: see smooth_engine.h; targets are opened once for each format and worker, however many experts have it.
 * Corner cases: see smooth_engine.h; the scale of a matrix is made from the maxima of its columns, whose largest product with s is the largest smoothed
 * weight exactly, as rounding keeps order.
 * Reference: see smooth_engine.h. Worked number: 256 experts of one format: one target a worker.
 */
#include "smoothquant/smooth_engine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "base/size.h"

#define BLOCK_WEIGHTS 65536u

/* Rows of one member that a job looks at. */
struct engine_block {
    size_t member;
    uint64_t row, n_rows;
};

/* What a worker has. */
struct engine_desk {
    struct smooth_bench bench;
    float *v, *y;
    struct smooth_target **targets; /* [n_members]; those of members with the same format are the same */
};

static bool counts(const struct smooth_member *member)
{
    return member->quant != NULL;
}

static bool same_quant(const struct quant *a, const struct quant *b)
{
    return a == b ||
           (a->format == b->format && a->elem == b->elem && a->group_kind == b->group_kind && a->group == b->group && a->sub_block == b->sub_block &&
            a->shift_bits == b->shift_bits && a->int_max == b->int_max && a->scale == b->scale && a->rule == b->rule &&
            a->percentile == b->percentile && a->rounding == b->rounding && a->tensor_scale == b->tensor_scale && a->blocks == b->blocks);
}

static uint64_t block_rows(const struct smooth_member *member, uint64_t n)
{
    const uint64_t together = smooth_target_rows(member->quant);
    if (together == 0) return size_max(member->n_rows, 1);
    if (together > 1) return together;
    return size_max(BLOCK_WEIGHTS / size_max(n, 1) / SMOOTH_PANEL * SMOOTH_PANEL, SMOOTH_PANEL);
}

static bool cut_blocks(struct engine *engine)
{
    const struct smooth_problem *problem = engine->problem;
    size_t n_blocks = 0;
    for (size_t m = 0; m < problem->n_members; m++)
        if (counts(&problem->members[m]))
            n_blocks += (size_t)size_ceil_div(problem->members[m].n_rows, block_rows(&problem->members[m], problem->channels.n));
    engine->blocks = calloc(n_blocks + 1, sizeof *engine->blocks);
    if (!engine->blocks) return false;
    for (size_t m = 0; m < problem->n_members; m++) {
        const struct smooth_member *member = &problem->members[m];
        if (!counts(member)) continue;
        const uint64_t rows = block_rows(member, problem->channels.n);
        for (uint64_t r = 0; r < member->n_rows; r += rows) {
            engine->blocks[engine->n_blocks] = (struct engine_block){ m, r, size_min(rows, member->n_rows - r) };
            engine->max_rows = size_max(engine->max_rows, engine->blocks[engine->n_blocks++].n_rows);
        }
    }
    return true;
}

static bool find_same(struct engine *engine)
{
    const struct smooth_problem *problem = engine->problem;
    engine->same = calloc(problem->n_members + 1, sizeof *engine->same);
    if (!engine->same) return false;
    for (size_t m = 0; m < problem->n_members; m++)
        while (counts(&problem->members[m]) && engine->same[m] < m &&
               !(counts(&problem->members[engine->same[m]]) && same_quant(problem->members[engine->same[m]].quant, problem->members[m].quant)))
            engine->same[m]++;
    return true;
}

/* Column maxima of members whose matrices have a scale and which did not bring them. */
static bool find_own_wmax(struct engine *engine)
{
    const struct smooth_problem *problem = engine->problem;
    const size_t n = (size_t)problem->channels.n;
    bool needed = false;
    for (size_t m = 0; m < problem->n_members; m++)
        needed = needed || (counts(&problem->members[m]) && problem->members[m].quant->tensor_scale && !problem->members[m].wmax);
    if (!needed) return true;
    engine->own_wmax = calloc(problem->n_members * n + 1, sizeof *engine->own_wmax);
    for (size_t m = 0; m < problem->n_members && engine->own_wmax; m++)
        if (counts(&problem->members[m])) smooth_wmax_add(problem->members[m].w, problem->members[m].n_rows, n, engine->own_wmax + m * n);
    return engine->own_wmax != NULL;
}

static enum status open_desk(struct engine *engine, struct engine_desk *desk, struct err *err)
{
    const struct smooth_problem *problem = engine->problem;
    const size_t n = (size_t)problem->channels.n, n_weights = (size_t)engine->max_rows * n + 1;
    desk->v = malloc(n_weights * sizeof *desk->v);
    desk->y = malloc(n_weights * sizeof *desk->y);
    desk->targets = calloc(problem->n_members + 1, sizeof *desk->targets);
    if (!desk->v || !desk->y || !desk->targets || !smooth_bench_open(&desk->bench, n, problem->n_sample))
        return err_set(err, ERR_MEMORY, "out of memory for a search of %zu channels", n);
    enum status status = OK;
    for (size_t m = 0; m < problem->n_members && status == OK && engine->settings->loss != SMOOTH_LOSS_W8A8; m++)
        if (counts(&problem->members[m]) && engine->same[m] == m)
            status = smooth_target_open(problem->members[m].quant, engine->max_rows, n, &desk->targets[m], err);
    return status;
}

void engine_close(struct engine *engine)
{
    for (unsigned w = 0; engine->desks && w < engine->n_workers; w++) {
        struct engine_desk *desk = &engine->desks[w];
        for (size_t m = 0; desk->targets && m < engine->problem->n_members; m++) smooth_target_close(desk->targets[m]);
        free(desk->targets);
        free(desk->v);
        free(desk->y);
        smooth_bench_close(&desk->bench);
    }
    for (size_t i = 0; engine->views && i < ENGINE_BATCH; i++) smooth_view_close(&engine->views[i]);
    free(engine->desks);
    free(engine->views);
    free(engine->blocks);
    free(engine->same);
    free(engine->own_wmax);
    free(engine->amax);
    free(engine->slots);
    free(engine->output_max);
}

/* Of w8a8 each candidate has its own activations. */
static size_t batch_of(const struct smooth_settings *settings)
{
    return settings->loss == SMOOTH_LOSS_W8A8 ? 1 : ENGINE_BATCH;
}

bool engine_is_full(const struct engine *engine)
{
    return engine->n_views == batch_of(engine->settings);
}

static enum status check(const struct smooth_problem *problem, const struct smooth_settings *settings, struct err *err)
{
    const struct smooth_channels *channels = &problem->channels;
    const enum smooth_loss loss = settings->loss;
    if (channels->n && (!channels->x || !channels->w)) return err_set(err, ERR_USAGE, "a group without statistics of its activations or its weights");
    if (loss == SMOOTH_LOSS_DIAG && !problem->ex2) return err_set(err, ERR_USAGE, "loss diag needs mean squares of the activations (in_sum2)");
    if (settings->importance && !problem->ex2) return err_set(err, ERR_USAGE, "importance needs mean squares of the activations (in_sum2)");
    if (loss == SMOOTH_LOSS_GRAM && !problem->gram) return err_set(err, ERR_USAGE, "loss gram needs a Gram matrix (in_gram)");
    if ((loss == SMOOTH_LOSS_SAMPLE || loss == SMOOTH_LOSS_W8A8) && !(problem->sample && problem->n_sample))
        return err_set(err, ERR_USAGE, "loss %s needs a sample of the activations (in_sample)", smooth_loss_name(loss));
    return OK;
}

static bool make_arrays(struct engine *engine, unsigned n_workers)
{
    const size_t n_members = engine->problem->n_members, n_jobs = engine->n_blocks * batch_of(engine->settings);
    engine->n_workers = (unsigned)size_max(1, size_min(n_workers, n_jobs));
    engine->desks = calloc(engine->n_workers, sizeof *engine->desks);
    engine->views = calloc(ENGINE_BATCH, sizeof *engine->views);
    engine->amax = calloc(ENGINE_BATCH * n_members + 1, sizeof *engine->amax);
    engine->slots = calloc(ENGINE_BATCH * engine->n_blocks + 1, sizeof *engine->slots);
    engine->output_max = calloc(n_members + 1, sizeof *engine->output_max);
    return engine->desks && engine->views && engine->amax && engine->slots && engine->output_max;
}

/* ---- jobs ----------------------------------------------------------------------------------------------------------------------- */

static void smooth_rows(const float *w, const float *s, uint64_t n_rows, uint64_t n, float *v)
{
    for (uint64_t r = 0; r < n_rows; r++, w += n, v += n)
        for (uint64_t j = 0; j < n; j++) v[j] = w[j] * s[j];
}

static double judge_block(struct engine *engine, struct engine_desk *desk, size_t view, const struct engine_block *block)
{
    const struct smooth_problem *problem = engine->problem;
    const struct smooth_member *member = &problem->members[block->member];
    const uint64_t n = problem->channels.n;
    const float *w = member->w + block->row * n;
    const struct smooth_view *seen = &engine->views[view];
    if (engine->settings->loss == SMOOTH_LOSS_W8A8) {
        if (engine->measuring) return smooth_output_max(&desk->bench, problem, w, block->n_rows);
        smooth_rows(w, seen->s, block->n_rows, n, desk->v);
        return smooth_loss_w8a8(&desk->bench, problem, seen, w, desk->v, block->n_rows, engine->output_max[block->member], engine->settings->power);
    }
    if (seen->norm) {
        memset(desk->v, 0, (size_t)(block->n_rows * n) * sizeof *desk->v);
        return smooth_loss_rows(&desk->bench, problem, engine->settings->loss, seen, desk->v, w, block->n_rows);
    }
    smooth_rows(w, seen->s, block->n_rows, n, desk->v);
    if (!smooth_target_run(desk->targets[engine->same[block->member]], desk->v, block->n_rows, seen->has_importance ? seen->importance : NULL,
                           engine->amax[view * problem->n_members + block->member], desk->y))
        return HUGE_VAL;
    return smooth_loss_rows(&desk->bench, problem, engine->settings->loss, seen, desk->v, desk->y, block->n_rows);
}

static void work(void *context, unsigned worker)
{
    struct engine *engine = context;
    const size_t n_jobs = engine->n_views * engine->n_blocks;
    for (size_t job = atomic_fetch_add(&engine->next, 1); job < n_jobs; job = atomic_fetch_add(&engine->next, 1))
        engine->slots[job] = judge_block(engine, &engine->desks[worker], job / engine->n_blocks, &engine->blocks[job % engine->n_blocks]);
}

static void run_jobs(struct engine *engine)
{
    atomic_store(&engine->next, 0);
    if (engine->n_blocks && engine->n_views) pool_run(engine->n_workers, work, engine);
}

/* The largest output of every member, for w8a8. */
static void find_output_max(struct engine *engine)
{
    engine->measuring = true;
    engine->n_views = 1;
    run_jobs(engine);
    for (size_t b = 0; b < engine->n_blocks; b++) {
        double *most = &engine->output_max[engine->blocks[b].member];
        *most = fmax(*most, engine->slots[b]);
    }
    for (size_t m = 0; m < engine->problem->n_members; m++) engine->output_max[m] = fmax(engine->output_max[m], 1e-5);
    engine->measuring = false;
    engine->n_views = 0;
}

enum status engine_open(const struct smooth_problem *problem, const struct smooth_settings *settings, unsigned n_workers, struct engine *engine,
                        struct err *err)
{
    *engine = (struct engine){ .problem = problem, .settings = settings };
    enum status status = check(problem, settings, err);
    if (status != OK) return status;
    if (!cut_blocks(engine) || !find_same(engine) || !find_own_wmax(engine) || !make_arrays(engine, n_workers))
        return err_set(err, ERR_MEMORY, "out of memory for a search");
    for (unsigned w = 0; w < engine->n_workers && status == OK; w++) status = open_desk(engine, &engine->desks[w], err);
    if (status == OK && settings->loss == SMOOTH_LOSS_W8A8) find_output_max(engine);
    return status;
}

/* The largest smoothed weight of a member's whole matrix; below 0 where no format asks for it. */
static float amax_of(const struct engine *engine, size_t m, const float *s)
{
    const struct smooth_member *member = &engine->problem->members[m];
    const uint64_t n = engine->problem->channels.n;
    const float *wmax = member->wmax ? member->wmax : engine->own_wmax ? engine->own_wmax + m * n : NULL;
    float most = 0.0f;
    if (!counts(member) || !member->quant->tensor_scale || !wmax) return -1.0f;
    for (uint64_t j = 0; j < n; j++) most = fmaxf(most, wmax[j] * s[j]);
    return most;
}

enum status engine_add(struct engine *engine, const float *s, bool norm, struct err *err)
{
    const struct smooth_problem *problem = engine->problem;
    struct smooth_view *view = &engine->views[engine->n_views];
    if (!smooth_view_set(view, problem, engine->settings, s)) return err_set(err, ERR_MEMORY, "out of memory for a candidate");
    view->norm = norm;
    for (size_t m = 0; m < problem->n_members; m++) engine->amax[engine->n_views * problem->n_members + m] = amax_of(engine, m, view->s);
    engine->n_views++;
    return OK;
}

void engine_flush(struct engine *engine, double *losses, size_t stride)
{
    const struct smooth_problem *problem = engine->problem;
    run_jobs(engine);
    for (size_t i = 0; i < engine->n_views; i++) {
        for (size_t m = 0; m < problem->n_members; m++) losses[m * stride + i] = 0.0;
        for (size_t b = 0; b < engine->n_blocks; b++) losses[engine->blocks[b].member * stride + i] += engine->slots[i * engine->n_blocks + b];
        for (size_t m = 0; m < problem->n_members; m++)
            if (problem->members[m].weight > 0.0) losses[m * stride + i] *= problem->members[m].weight;
    }
    engine->n_views = 0;
}
