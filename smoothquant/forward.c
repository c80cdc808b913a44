/* forward.c: see forward.h.
 *
 * Formula: bytes = reserved + spill (in memory when it is below max_ram / 8) + workers * (desk + reserved_worker) + weights of a pass + its vectors.
 * Why this way: as many workers as asked for, as long as a third of the memory (or a whole layer) is left for weights; then fewer.
 * Corner cases: see forward.h.
 * Reference: forward.h. Worked number: hidden 4096, windows of 512, 32 heads of 128, blocks of 4096 channels: a desk of 70 MB.
 */
#include "smoothquant/forward.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "base/size.h"

enum { MLP_BLOCK = 4096, BASE_NBYTES = 6 << 20 };

struct forward {
    const struct forward_options *options;
    const struct arch_model *model;
    const struct windows *windows;
    struct forward_shared shared, quiet; /* quiet: without observer, with the weights of the stream */
    float *slopes;
    struct residual *residual;
    struct loaded_layer *loaded;
    struct desk *desks;
    unsigned n_workers, n_desks;
    uint64_t max_weights; /* floats of a pass */
    size_t max_kv_heads;
    uint64_t hidden_plane; /* where the result is */
    uint64_t kept; /* bytes of the spill, where it is in memory */
    struct norm norm; /* of the embeddings, then of the output */
    float *norm_values;
};

/* ---- units ------------------------------------------------------------------------------------------------------------------------- */

struct unit_list {
    size_t n, next, failed;
    const volatile sig_atomic_t *stop;
    unit_work *work;
    void (*on_failure)(void *context);
    void *context;
    pthread_mutex_t mutex;
    struct err err;
};

static void unit_failed(struct unit_list *list, size_t unit, const struct err *err)
{
    pthread_mutex_lock(&list->mutex);
    /* those that only stopped because another one failed have nothing to say */
    const bool better = err->code != ERR_CANCELLED && list->err.code == ERR_CANCELLED,
               worse = err->code == ERR_CANCELLED && list->err.code != ERR_CANCELLED;
    if (list->failed == SIZE_MAX || better || (unit < list->failed && !worse)) {
        list->failed = unit;
        list->err = *err;
    }
    pthread_mutex_unlock(&list->mutex);
    if (list->on_failure) list->on_failure(list->context);
}

static void work_units(void *context, unsigned worker)
{
    struct unit_list *list = context;
    for (;;) {
        struct err err = { OK, "" };
        pthread_mutex_lock(&list->mutex);
        const size_t unit = list->failed == SIZE_MAX ? list->next++ : list->n;
        pthread_mutex_unlock(&list->mutex);
        if (unit >= list->n) return;
        enum status status = list->stop && *list->stop ? err_set(&err, ERR_CANCELLED, "stopped") : list->work(list->context, worker, unit, &err);
        if (status != OK) unit_failed(list, unit, &err);
    }
}

enum status units_run(size_t n, unsigned n_workers, const volatile sig_atomic_t *stop, unit_work *work, void (*failed)(void *context), void *context,
                      struct err *err)
{
    struct unit_list list = { .n = n, .failed = SIZE_MAX, .stop = stop, .work = work, .on_failure = failed, .context = context };
    pthread_mutex_init(&list.mutex, NULL);
    if (n_workers > n) n_workers = (unsigned)n;
    if (n > 0) pool_run(n_workers ? n_workers : 1, work_units, &list);
    pthread_mutex_destroy(&list.mutex);
    if (list.failed == SIZE_MAX) return OK;
    if (err) *err = list.err;
    return list.err.code;
}

enum status windows_make(const int32_t *ids, const uint64_t *starts, size_t n_docs, size_t seq, size_t min_rows, size_t max_windows,
                         struct windows *out, struct err *err)
{
    size_t capacity = 0;
    *out = (struct windows){ 0 };
    for (size_t d = 0; d < n_docs; d++)
        for (uint64_t at = starts[d]; at < starts[d + 1]; at += seq) {
            const size_t n = (size_t)size_min(seq, starts[d + 1] - at);
            if (n < min_rows || (max_windows && out->n >= max_windows)) continue;
            if (out->n == capacity) {
                capacity = capacity ? 2 * capacity : 64;
                struct forward_unit *bigger = realloc(out->units, capacity * sizeof *bigger);
                if (!bigger) {
                    windows_free(out);
                    return err_set(err, ERR_MEMORY, "out of memory");
                }
                out->units = bigger;
            }
            out->units[out->n++] = (struct forward_unit){ .first_row = out->n_rows, .n_rows = n, .ids = ids + at, .length = n };
            out->n_rows += n;
            out->max_rows = (size_t)size_max(out->max_rows, n);
        }
    return OK;
}

void windows_free(struct windows *windows)
{
    free(windows->units);
    *windows = (struct windows){ 0 };
}

/* ---- what is shared ---------------------------------------------------------------------------------------------------------------- */

/* ALiBi: 2^(-8 i / n) for a power of two n of heads; else those of the power below it, then every other one of the power above. */
static float *slopes_make(size_t n_heads)
{
    float *slopes = malloc(n_heads * sizeof *slopes);
    size_t power = 1;
    while (power * 2 <= n_heads) power *= 2;
    for (size_t h = 0; slopes && h < n_heads; h++)
        slopes[h] =
            h < power ? (float)exp2(-8.0 * (double)(h + 1) / (double)power) : (float)exp2(-4.0 * (double)(2 * (h - power) + 1) / (double)power);
    return slopes;
}

/* Table number i for short sequences, and the one for longer ones where there are such. */
static enum status make_ropes(const struct rope *rope, size_t max_keys, struct forward_shared *shared, size_t i, struct err *err)
{
    const size_t from = rope_long_from(rope);
    if (from < shared->long_from) shared->long_from = from;
    enum status status = rope_table_make(rope, (size_t)size_min(max_keys, from), 1, &shared->ropes[i], err);
    if (status == OK && max_keys > from && rope->scaling == ROPE_DYNAMIC)
        return err_set(err, ERR_UNSUPPORTED, "sequences longer than %zu tokens change the dynamic rotary scaling of this model", from);
    if (status == OK && max_keys > shared->long_from) status = rope_table_make(rope, max_keys, max_keys, &shared->long_ropes[i], err);
    return status;
}

enum status forward_shared_open(const struct forward_options *options, size_t max_rows, size_t max_keys, bool caches, struct forward_shared *shared,
                                float **slopes, struct err *err)
{
    const struct arch_model *model = options->model;
    size_t widest = 1;
    enum status status = OK;
    *slopes = NULL;
    for (size_t l = 0; l < model->n_layers; l++) {
        for (size_t e = 0; e < model->layers[l].n_experts; e++) widest = (size_t)size_max(widest, model->layers[l].experts[e].n);
        if (model->layers[l].has_shared) widest = (size_t)size_max(widest, model->layers[l].shared.n);
    }
    *shared = (struct forward_shared){ .model = model,
                                       .source = options->source,
                                       .gemm = options->gemm,
                                       .observer = options->observer,
                                       .max_rows = max_rows,
                                       .max_keys = max_keys,
                                       .long_from = SIZE_MAX,
                                       .caches = caches };
    shared->mlp_block = options->whole ? widest : (size_t)size_min(widest, MLP_BLOCK);
    for (size_t i = 0; i < model->n_ropes && status == OK && model->position == POSITION_ROPE; i++)
        status = make_ropes(&model->ropes[i], max_keys, shared, i, err);
    if (status == OK && model->position == POSITION_ALIBI) {
        shared->slopes = *slopes = slopes_make(model->n_heads);
        if (!*slopes) status = err_set(err, ERR_MEMORY, "out of memory");
    }
    if (status != OK) forward_shared_close(shared, *slopes);
    return status;
}

void forward_shared_close(struct forward_shared *shared, float *slopes)
{
    for (size_t i = 0; i < MODEL_ROPES_MAX; i++) {
        rope_table_free(&shared->ropes[i]);
        rope_table_free(&shared->long_ropes[i]);
    }
    free(slopes);
    shared->slopes = NULL;
}

/* ---- memory ------------------------------------------------------------------------------------------------------------------------ */

/* Plans all layers for max floats of weights; the largest pass with vectors, and key heads of a piece. */
static enum status plan_all(const struct arch_model *model, uint64_t max, bool whole, uint64_t *largest, uint64_t *need, size_t *max_kv_heads,
                            struct err *err)
{
    enum status status = OK;
    *largest = *need = *max_kv_heads = 0;
    for (size_t l = 0; l < model->n_layers && status == OK; l++) {
        struct layer_plan plan;
        uint64_t least;
        const uint64_t vectors = layer_vectors(model, l);
        status = layer_plan_make(model, l, max - size_min(max, vectors), whole, &plan, &least, err);
        *need = size_max(*need, least + vectors);
        if (status != OK) break;
        *largest = size_max(*largest, plan.n_weights + vectors);
        *max_kv_heads = (size_t)size_max(*max_kv_heads, plan.max_kv_heads);
        layer_plan_free(&plan);
    }
    return status;
}

/* Chooses workers and the floats of a pass. */
static enum status share_memory(struct forward *f, uint64_t spill_nbytes, struct err *err)
{
    const struct forward_options *o = f->options;
    const uint64_t third = o->max_ram / 3 / sizeof(float), fixed = BASE_NBYTES + o->reserved + spill_nbytes;
    const uint64_t head = (uint64_t)HEAD_PANEL * (f->model->hidden + 2 * f->windows->max_rows);
    uint64_t need = 0, whole_layer, least = 0, worker = 0;
    size_t heads;
    enum status status = plan_all(f->model, UINT64_MAX / 8, o->whole, &whole_layer, &need, &heads, err);
    for (unsigned n = (unsigned)size_max(1, size_min(o->n_workers, f->windows->n)); status == OK && n >= 1; n--) {
        worker = desk_floats(&f->shared, f->model->n_kv_heads) * sizeof(float) + o->reserved_worker;
        const uint64_t used = fixed + n * worker;
        const uint64_t left = o->max_ram > used ? (o->max_ram - used) / sizeof(float) : 0;
        struct err why;
        if ((left >= size_min(third, whole_layer) || n == 1) && left >= head &&
            plan_all(f->model, left, o->whole, &f->max_weights, &least, &f->max_kv_heads, &why) == OK) {
            f->n_workers = n;
            f->max_weights = left;
            return OK;
        }
    }
    if (status != OK) return status;
    /* what would do: one worker, the largest piece that cannot be cut */
    plan_all(f->model, 0, o->whole, &f->max_weights, &need, &heads, NULL);
    return err_set(err, ERR_MEMORY, "windows of %zu tokens of this model need --max-ram %lluM", f->windows->max_rows,
                   (unsigned long long)((fixed + worker + sizeof(float) * size_max(need, head)) >> 20) + 1);
}

static enum status open_spill(struct forward *f, bool in_memory, struct err *err)
{
    const struct forward_options *o = f->options;
    const struct residual_shape shape = { o->stream ? PLANE_COUNT : PLANE_ASIDE, f->windows->n_rows, f->model->hidden };
    if (o->spill) return residual_open_file(o->io, o->spill, o->first_layer > 0, &shape, &f->residual, err);
    if (in_memory) return residual_open_memory(&shape, &f->residual, err);
    return residual_open_unnamed(o->io, o->spill_dir, &shape, &f->residual, err);
}

static enum status open_desks(struct forward *f, struct err *err)
{
    enum status status = OK;
    f->desks = calloc(f->n_workers, sizeof *f->desks);
    if (!f->desks) return err_set(err, ERR_MEMORY, "out of memory");
    for (; f->n_desks < f->n_workers && status == OK; f->n_desks++) status = desk_open(&f->shared, f->max_kv_heads, &f->desks[f->n_desks], err);
    return status;
}

static enum status check_positions(const struct forward *f, struct err *err)
{
    const uint64_t most = arch_model_positions(f->model);
    if (most == 0 || f->windows->max_rows <= most) return OK;
    return err_set(err, ERR_USAGE, "windows of %zu tokens are longer than the %llu positions of this model", f->windows->max_rows,
                   (unsigned long long)most);
}

enum status forward_open(const struct forward_options *options, const struct windows *windows, struct forward **out, struct err *err)
{
    struct forward *f = calloc(1, sizeof *f);
    *out = NULL;
    if (!f) return err_set(err, ERR_MEMORY, "out of memory");
    f->options = options;
    f->model = options->model;
    f->windows = windows;
    uint64_t spill = PLANE_ASIDE * windows->n_rows * f->model->hidden * sizeof(float);
    const bool in_memory = !options->spill && spill <= options->max_ram / 8;
    enum status status = check_positions(f, err);
    if (status == OK) status = forward_shared_open(options, windows->max_rows, windows->max_rows, false, &f->shared, &f->slopes, err);
    f->quiet = f->shared;
    f->quiet.observer = NULL;
    if (options->stream) f->quiet.source = *options->stream;
    if (status == OK) status = share_memory(f, in_memory ? spill : 0, err);
    if (status == OK) status = open_spill(f, in_memory, err);
    f->kept = in_memory ? spill : 0;
    if (status == OK) status = open_desks(f, err);
    f->norm_values = status == OK ? malloc(2 * f->model->hidden * sizeof *f->norm_values) : NULL;
    if (status == OK && !f->norm_values) status = err_set(err, ERR_MEMORY, "out of memory");
    if (status == OK) *out = f;
    else forward_close(f, options->first_layer == 0);
    return status;
}

uint64_t forward_kept(const struct forward *forward)
{
    return forward->kept;
}

static void close_desks(struct forward *f)
{
    for (unsigned w = 0; w < f->n_desks; w++) desk_close(&f->desks[w]);
    free(f->desks);
    f->desks = NULL;
    f->n_desks = 0;
}

void forward_close(struct forward *forward, bool remove)
{
    if (!forward) return;
    close_desks(forward);
    layer_unload(forward->loaded);
    residual_close(forward->residual, remove);
    forward_shared_close(&forward->shared, forward->slopes);
    free(forward->norm_values);
    free(forward);
}

/* ---- embeddings -------------------------------------------------------------------------------------------------------------------- */

/* A token and its place. */
struct token_place {
    int32_t id;
    uint32_t at;
};

static int by_id(const void *a, const void *b)
{
    const struct token_place *x = a, *y = b;
    return x->id != y->id ? (x->id > y->id) - (x->id < y->id) : (x->at > y->at) - (x->at < y->at);
}

/* Rows of the embedding in ascending order, each once: compressed tiles are then opened as rarely as can be. */
static enum status embed_tokens(const struct forward_shared *shared, const int32_t *ids, size_t n, float *out, struct err *err)
{
    const struct arch_model *m = shared->model;
    struct token_place *order = malloc((n + 1) * sizeof *order);
    enum status status = order ? OK : err_set(err, ERR_MEMORY, "out of memory");
    for (size_t t = 0; t < n && order; t++) order[t] = (struct token_place){ ids[t], (uint32_t)t };
    if (order) qsort(order, n, sizeof *order, by_id);
    for (size_t i = 0; i < n && status == OK; i++) {
        float *x = out + order[i].at * m->hidden;
        if (i > 0 && order[i - 1].id == order[i].id) {
            memcpy(x, out + order[i - 1].at * m->hidden, m->hidden * sizeof *x);
            continue;
        }
        status = weight_load(&shared->source, &m->token_embd, (uint64_t)order[i].id, 1, 0, m->hidden, x, err);
        for (size_t j = 0; j < m->hidden && status == OK; j++) x[j] *= m->embed_scale;
    }
    free(order);
    return status;
}

enum status forward_embed(const struct forward_shared *shared, const struct norm *norm, const int32_t *ids, size_t n, size_t position, bool together,
                          float *out, struct err *err)
{
    const struct arch_model *m = shared->model;
    enum status status = embed_tokens(shared, ids, n, out, err);
    if (m->position == POSITION_LEARNED && status == OK) {
        float *row = malloc(m->hidden * sizeof *row);
        if (!row) return err_set(err, ERR_MEMORY, "out of memory");
        for (size_t t = 0; t < n && status == OK; t++) {
            status = weight_load(&shared->source, &m->position_embd, m->position_offset + position + (together ? 0 : t), 1, 0, m->hidden, row, err);
            for (size_t j = 0; j < m->hidden; j++) out[t * m->hidden + j] += row[j];
        }
        free(row);
    }
    if (status == OK && norm->kind != NORM_NONE) norm_rows(norm, out, m->hidden, n, out, m->hidden);
    return status;
}

static enum status embed_unit(void *context, unsigned worker, size_t unit, struct err *err)
{
    struct forward *f = context;
    const struct forward_unit *u = &f->windows->units[unit];
    float *x = f->desks[worker].x;
    enum status status = forward_embed(&f->shared, &f->norm, u->ids, u->n_rows, u->position, false, x, err);
    return status == OK ? residual_write(f->residual, PLANE_EVEN, u->first_row, u->n_rows, x, err) : status;
}

/* ---- layers ------------------------------------------------------------------------------------------------------------------------ */

struct pass_run {
    struct forward *f;
    const struct forward_shared *shared;
    uint64_t from, to;
    bool counts; /* its tokens are progress */
};

static enum status pass_unit(void *context, unsigned worker, size_t unit, struct err *err)
{
    struct pass_run *run = context;
    struct forward *f = run->f;
    const struct forward_unit *u = &f->windows->units[unit];
    enum status status = layer_run(run->shared, f->loaded, u, unit, worker, f->residual, run->from, run->to, &f->desks[worker], err);
    if (status == OK && run->shared->observer && f->options->unit_done) status = f->options->unit_done(f->options->context, worker, unit, err);
    if (status == OK && run->counts && f->options->progress) f->options->progress(f->options->context, u->n_rows);
    return status;
}

static void pass_failed(void *context)
{
    const struct forward_options *o = ((struct pass_run *)context)->f->options;
    if (o->failed) o->failed(o->context);
}

/* All units through layer l; the result goes to plane `to`. */
static enum status run_layer(struct forward *f, const struct forward_shared *shared, size_t l, uint64_t from, uint64_t to, bool counts,
                             struct err *err)
{
    struct layer_plan plan;
    uint64_t need;
    enum status status = layer_plan_make(f->model, l, f->max_weights - layer_vectors(f->model, l), f->options->whole, &plan, &need, err);
    for (size_t p = 0; p < plan.n_passes && status == OK; p++) {
        struct pass_run run = { f, shared, p ? to : from, to, counts && p + 1 == plan.n_passes };
        status = layer_load(f->model, &shared->source, l, &plan, p, f->n_workers, &f->loaded, err);
        if (status == OK) status = units_run(f->windows->n, f->n_workers, f->options->stop, pass_unit, pass_failed, &run, err);
    }
    layer_plan_free(&plan);
    return status;
}

enum status forward_run(struct forward *f, struct err *err)
{
    const struct forward_options *o = f->options;
    enum status status = OK;
    if (o->first_layer == 0) {
        status = norm_load(f->model, &o->source, &f->model->embd_norm, f->model->hidden, f->norm_values, &f->norm, err);
        if (status == OK) status = units_run(f->windows->n, f->n_workers, o->stop, embed_unit, NULL, f, err);
    }
    for (size_t l = o->first_layer; l < f->model->n_layers && status == OK; l++) {
        const uint64_t from = l % 2 ? PLANE_ODD : PLANE_EVEN, to = l % 2 ? PLANE_EVEN : PLANE_ODD;
        if (o->layer_begins) status = o->layer_begins(o->context, l, err);
        if (status == OK) status = run_layer(f, &f->shared, l, from, o->stream ? PLANE_ASIDE : to, !o->stream, err);
        if (status == OK && o->stream) status = run_layer(f, &f->quiet, l, from, to, true, err);
        if (status == OK && o->layer_done) status = o->layer_done(o->context, l, err);
    }
    f->hidden_plane = f->model->n_layers % 2 ? PLANE_ODD : PLANE_EVEN;
    layer_unload(f->loaded);
    f->loaded = NULL;
    return status;
}

/* ---- the head ---------------------------------------------------------------------------------------------------------------------- */

static enum status finish_unit(void *context, unsigned worker, size_t unit, struct err *err)
{
    struct forward *f = context;
    const struct forward_options *o = f->options;
    const struct forward_unit *u = &f->windows->units[unit];
    float *x = f->desks[worker].x;
    enum status status = residual_read(f->residual, f->hidden_plane, u->first_row, u->n_rows, x, err);
    if (status != OK) return status;
    norm_rows(&f->norm, x, f->model->hidden, u->n_rows, x, f->model->hidden);
    const struct forward_input input = { INPUT_HEAD, f->model->n_layers, 0, 0, f->model->hidden, u->n_rows, f->model->hidden, x, NULL };
    if (o->observer) status = o->observer->see(o->observer->context, worker, unit, &input, err);
    if (status == OK && o->observer && o->unit_done) status = o->unit_done(o->context, worker, unit, err);
    return status == OK ? residual_write(f->residual, PLANE_SUM, u->first_row, u->n_rows, x, err) : status;
}

static void finish_failed(void *context)
{
    const struct forward_options *o = ((struct forward *)context)->options;
    if (o->failed) o->failed(o->context);
}

enum status forward_finish(struct forward *f, struct err *err)
{
    enum status status = norm_load(f->model, &f->options->source, &f->model->output_norm, f->model->hidden, f->norm_values, &f->norm, err);
    if (status == OK) status = units_run(f->windows->n, f->n_workers, f->options->stop, finish_unit, finish_failed, f, err);
    close_desks(f);
    return status;
}

struct head {
    struct forward *const *forwards;
    size_t n_forwards, first, n;
    float *panels[2], *biases[2]; /* rows of the heads */
    float **desks; /* of each worker: hidden rows, logits of each model, scratch */
    head_see *see;
    void *context;
};

static enum status head_unit(void *context, unsigned worker, size_t unit, struct err *err)
{
    struct head *head = context;
    const float *logits[2] = { NULL, NULL };
    float *at = head->desks[worker];
    enum status status = OK;
    for (size_t i = 0; i < head->n_forwards && status == OK; i++) {
        const struct forward *f = head->forwards[i];
        const struct arch_model *m = f->model;
        const struct forward_unit *u = &f->windows->units[unit];
        float *x = at, *out = x + f->windows->max_rows * m->hidden, *scratch = out + f->windows->max_rows * HEAD_PANEL;
        at = scratch + GEMM_SCRATCH;
        status = residual_read(f->residual, PLANE_SUM, u->first_row, u->n_rows, x, err);
        if (status != OK) return status;
        gemm_multiply(&f->options->gemm, u->n_rows, head->n, m->hidden, (struct gemm_matrix){ x, m->hidden, false },
                      (struct gemm_matrix){ head->panels[i], m->hidden, true }, false, out, head->n, scratch);
        add_bias(out, u->n_rows, head->n, head->n, head->biases[i]);
        for (size_t k = 0; k < u->n_rows * head->n && m->logits_scale != 1.0f; k++) out[k] *= m->logits_scale;
        if (m->logits_softcap > 0.0f) softcap(out, u->n_rows * head->n, m->logits_softcap);
        logits[i] = out;
    }
    return head->see(head->context, worker, unit, head->first, head->n, logits, err);
}

static enum status load_panel(struct head *head, unsigned n_workers, struct err *err)
{
    enum status status = OK;
    for (size_t i = 0; i < head->n_forwards && status == OK; i++) {
        const struct forward *f = head->forwards[i];
        const struct model_linear *linear = &f->model->head;
        status = rows_load(&f->options->source, &linear->weight, head->first, head->n, n_workers, head->panels[i], err);
        float *bias = head->panels[i] + HEAD_PANEL * f->model->hidden;
        head->biases[i] = weight_there(&linear->bias) ? bias : NULL;
        if (status == OK && head->biases[i]) status = weight_load(&f->options->source, &linear->bias, head->first, head->n, 0, 1, bias, err);
    }
    return status;
}

static enum status head_panels(struct head *head, unsigned n_workers, struct err *err)
{
    const struct forward *f = head->forwards[0];
    enum status status = OK;
    for (head->first = 0; head->first < f->model->vocab && status == OK; head->first += HEAD_PANEL) {
        head->n = (size_t)size_min(HEAD_PANEL, f->model->vocab - head->first);
        status = load_panel(head, n_workers, err);
        if (status == OK) status = units_run(f->windows->n, n_workers, f->options->stop, head_unit, NULL, head, err);
    }
    return status;
}

enum status head_run(struct forward *const *forwards, size_t n_forwards, head_see *see, void *context, struct err *err)
{
    struct head head = { .forwards = forwards, .n_forwards = n_forwards, .see = see, .context = context };
    unsigned n_workers = forwards[0]->n_workers;
    size_t floats = 0;
    bool fine = true;
    for (size_t i = 0; i < n_forwards; i++) {
        const struct forward *f = forwards[i];
        floats += f->windows->max_rows * (f->model->hidden + HEAD_PANEL) + GEMM_SCRATCH;
        head.panels[i] = malloc(HEAD_PANEL * (f->model->hidden + 1) * sizeof(float));
        fine &= head.panels[i] != NULL;
        if (f->n_workers < n_workers) n_workers = f->n_workers;
    }
    head.desks = calloc(n_workers, sizeof *head.desks);
    for (unsigned w = 0; w < n_workers && head.desks; w++) {
        head.desks[w] = malloc(floats * sizeof(float));
        fine &= head.desks[w] != NULL;
    }
    enum status status = fine && head.desks ? head_panels(&head, n_workers, err) : err_set(err, ERR_MEMORY, "out of memory");
    for (unsigned w = 0; w < n_workers && head.desks; w++) free(head.desks[w]);
    free(head.desks);
    for (size_t i = 0; i < n_forwards; i++) free(head.panels[i]);
    return status;
}

/* ---- logits in memory -------------------------------------------------------------------------------------------------------------- */

struct logits_copy {
    float *to;
    size_t vocab, n_rows;
};

static enum status copy_logits(void *context, unsigned worker, size_t unit, size_t first, size_t n, const float *const *logits, struct err *err)
{
    (void)worker, (void)unit, (void)err;
    const struct logits_copy *copy = context;
    for (size_t t = 0; t < copy->n_rows; t++) memcpy(copy->to + t * copy->vocab + first, logits[0] + t * n, n * sizeof(float));
    return OK;
}

enum status forward_logits(const struct forward_options *options, const int32_t *ids, size_t n, float *logits, struct err *err)
{
    struct forward_unit unit = { .n_rows = n, .ids = ids, .length = n };
    const struct windows windows = { &unit, 1, n, n };
    struct logits_copy copy = { logits, options->model->vocab, n };
    struct forward *f;
    enum status status = forward_open(options, &windows, &f, err);
    if (status == OK) status = forward_run(f, err);
    if (status == OK) status = forward_finish(f, err);
    if (status == OK) status = head_run(&f, 1, copy_logits, &copy, err);
    forward_close(f, true);
    return status;
}
