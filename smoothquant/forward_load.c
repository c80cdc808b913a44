/* forward_load.c: see forward_load.h.
 *
 * Drawing: memory = [ norms, sinks, router | q k v o of piece 0 | gate up down of piece 1 | ... ], handed out from the front.
 * Why this way: see forward_load.h.
 * Corner cases: see forward_load.h.
 * Reference: forward_load.h. Worked number: stories260K, a layer: 45440 weights, 128 of them norms.
 */
#include "smoothquant/forward_load.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/pool.h"
#include "base/size.h"

enum { TASK_WEIGHTS = 512 * 1024 };

struct task {
    const struct weight_part *part;
    uint64_t out, n_out, in, n_in;
    float *to;
};

struct task_list {
    const struct weight_source *source;
    struct task *tasks;
    size_t n, capacity, next, failed; /* failed: the lowest task that did */
    bool out_of_memory;
    pthread_mutex_t mutex;
    struct err err;
};

static void add_task(struct task_list *list, struct task task)
{
    const uint64_t step = size_max(1, TASK_WEIGHTS / size_max(1, task.n_in));
    for (uint64_t done = 0; done < task.n_out; done += step) {
        if (list->n == list->capacity) {
            const size_t capacity = list->capacity ? 2 * list->capacity : 64;
            struct task *bigger = realloc(list->tasks, capacity * sizeof *bigger);
            if (!bigger) {
                list->out_of_memory = true;
                return;
            }
            list->tasks = bigger;
            list->capacity = capacity;
        }
        list->tasks[list->n++] =
            (struct task){ task.part, task.out + done, size_min(step, task.n_out - done), task.in, task.n_in, task.to + done * task.n_in };
    }
}

static void work(void *context, unsigned worker)
{
    (void)worker;
    struct task_list *list = context;
    for (;;) {
        pthread_mutex_lock(&list->mutex);
        const size_t i = list->failed == SIZE_MAX ? list->next++ : list->n;
        pthread_mutex_unlock(&list->mutex);
        if (i >= list->n) return;
        const struct task *t = &list->tasks[i];
        struct err err = { OK, "" };
        if (weight_load(list->source, t->part, t->out, t->n_out, t->in, t->n_in, t->to, &err) == OK) continue;
        pthread_mutex_lock(&list->mutex);
        if (i < list->failed) {
            list->failed = i;
            list->err = err;
        }
        pthread_mutex_unlock(&list->mutex);
    }
}

/* Does all tasks and frees the list. */
static enum status do_tasks(struct task_list *list, unsigned n_workers, struct err *err)
{
    enum status status = OK;
    if (list->out_of_memory) status = err_set(err, ERR_MEMORY, "out of memory");
    if (status == OK && list->n) {
        pthread_mutex_init(&list->mutex, NULL);
        list->failed = SIZE_MAX;
        pool_run(n_workers < list->n ? n_workers : (unsigned)list->n, work, list);
        pthread_mutex_destroy(&list->mutex);
        if (list->failed != SIZE_MAX) {
            *err = list->err;
            status = err->code;
        }
    }
    free(list->tasks);
    return status;
}

enum status rows_load(const struct weight_source *source, const struct weight_part *part, uint64_t first, uint64_t n, unsigned n_workers, float *to,
                      struct err *err)
{
    struct task_list list = { .source = source };
    add_task(&list, (struct task){ part, first, n, 0, part->n_in, to });
    return do_tasks(&list, n_workers, err);
}

/* ---- vectors ---------------------------------------------------------------------------------------------------------------------- */

static float *take(struct loaded_layer *loaded, uint64_t n)
{
    float *at = loaded->memory + loaded->used;
    loaded->used += n;
    assert(loaded->used <= loaded->capacity);
    return at;
}

/* All values of a vector; NULL when the model has none. */
static const float *take_vector(struct loaded_layer *loaded, struct task_list *list, const struct weight_part *part)
{
    if (!weight_there(part)) return NULL;
    float *to = take(loaded, part->n_out);
    add_task(list, (struct task){ part, 0, part->n_out, 0, 1, to });
    return to;
}

static struct norm norm_of(const struct arch_model *model, const struct model_norm *norm, size_t n)
{
    const bool there = weight_there(&norm->gain) || weight_there(&norm->bias) || norm->always;
    return (struct norm){ .kind = there ? model->norm : NORM_NONE, .eps = model->norm_eps, .plus_one = norm->plus_one, .n = n };
}

static struct norm take_norm(struct loaded_layer *loaded, struct task_list *list, const struct arch_model *model, const struct model_norm *norm,
                             size_t n)
{
    struct norm out = norm_of(model, norm, n);
    out.gain = take_vector(loaded, list, &norm->gain);
    out.bias = take_vector(loaded, list, &norm->bias);
    return out;
}

enum status norm_load(const struct arch_model *model, const struct weight_source *source, const struct model_norm *norm, size_t n, float *to,
                      struct norm *out, struct err *err)
{
    *out = norm_of(model, norm, n);
    enum status status = OK;
    if (weight_there(&norm->gain)) {
        out->gain = to;
        status = weight_load(source, &norm->gain, 0, n, 0, 1, to, err);
    }
    if (status == OK && weight_there(&norm->bias)) {
        out->bias = to + n;
        status = weight_load(source, &norm->bias, 0, n, 0, 1, to + n, err);
    }
    return status;
}

uint64_t layer_vectors(const struct arch_model *model, size_t layer)
{
    const struct model_layer *facts = &model->layers[layer];
    const uint64_t heads = (uint64_t)model->n_heads * model->head_dim;
    return 8 * (uint64_t)model->hidden + 4 * heads + model->n_heads +
           (weight_there(&facts->router.weight) ? facts->n_experts * (model->hidden + 2) : 0) + model->hidden + 1;
}

/* ---- pieces ----------------------------------------------------------------------------------------------------------------------- */

static const float *take_rows(struct loaded_layer *loaded, struct task_list *list, const struct weight_part *part, uint64_t first, uint64_t n)
{
    float *to = take(loaded, n * part->n_in);
    add_task(list, (struct task){ part, first, n, 0, part->n_in, to });
    return to;
}

static const float *take_columns(struct loaded_layer *loaded, struct task_list *list, const struct weight_part *part, uint64_t first, uint64_t n)
{
    float *to = take(loaded, part->n_out * n);
    add_task(list, (struct task){ part, 0, part->n_out, first, n, to });
    return to;
}

static const float *take_bias(struct loaded_layer *loaded, struct task_list *list, const struct weight_part *part, uint64_t first, uint64_t n)
{
    if (!weight_there(part)) return NULL;
    float *to = take(loaded, n);
    add_task(list, (struct task){ part, first, n, 0, 1, to });
    return to;
}

static void take_attention(struct loaded_layer *loaded, struct task_list *list, const struct arch_model *model, struct loaded_piece *piece)
{
    const struct model_layer *facts = loaded->facts;
    const uint64_t d = model->head_dim, share = model->n_heads / model->n_kv_heads, first = piece->piece.first * d, n = piece->piece.n * d;
    piece->q = take_rows(loaded, list, &facts->q.weight, first * share, n * share);
    piece->k = take_rows(loaded, list, &facts->k.weight, first, n);
    piece->v = take_rows(loaded, list, &facts->v.weight, first, n);
    piece->q_bias = take_bias(loaded, list, &facts->q.bias, first * share, n * share);
    piece->k_bias = take_bias(loaded, list, &facts->k.bias, first, n);
    piece->v_bias = take_bias(loaded, list, &facts->v.bias, first, n);
    piece->o = take_columns(loaded, list, &facts->o.weight, first * share, n * share);
    if (first == 0) piece->o_bias = take_bias(loaded, list, &facts->o.bias, 0, model->hidden);
}

static void take_mlp(struct loaded_layer *loaded, struct task_list *list, const struct arch_model *model, struct loaded_piece *piece)
{
    const struct model_mlp *mlp = piece_mlp(loaded->facts, &piece->piece);
    const uint64_t first = piece->piece.first, n = piece->piece.n;
    if (model->gated) {
        piece->gate = take_rows(loaded, list, &mlp->gate.weight, first, n);
        piece->gate_bias = take_bias(loaded, list, &mlp->gate.bias, first, n);
    }
    piece->up = take_rows(loaded, list, &mlp->up.weight, first, n);
    piece->up_bias = take_bias(loaded, list, &mlp->up.bias, first, n);
    piece->down = take_columns(loaded, list, &mlp->down.weight, first, n);
    if (first == 0) piece->down_bias = take_bias(loaded, list, &mlp->down.bias, 0, model->hidden);
}

static void take_vectors(struct loaded_layer *loaded, struct task_list *list, const struct arch_model *model)
{
    const struct model_layer *facts = loaded->facts;
    const size_t d = model->head_dim;
    const bool all = model->qk_norm == QK_NORM_ALL;
    loaded->attn_norm = take_norm(loaded, list, model, &facts->attn_norm, model->hidden);
    loaded->post_attn_norm = take_norm(loaded, list, model, &facts->post_attn_norm, model->hidden);
    loaded->ffn_norm = take_norm(loaded, list, model, &facts->ffn_norm, model->hidden);
    loaded->post_ffn_norm = take_norm(loaded, list, model, &facts->post_ffn_norm, model->hidden);
    loaded->q_norm = take_norm(loaded, list, model, &facts->q_norm, all ? model->n_heads * d : d);
    loaded->k_norm = take_norm(loaded, list, model, &facts->k_norm, all ? model->n_kv_heads * d : d);
    loaded->sinks = take_vector(loaded, list, &facts->sinks);
    loaded->router = loaded->router_bias = loaded->router_choice = loaded->shared_gate = loaded->shared_gate_bias = NULL;
    if (weight_there(&facts->router.weight)) {
        loaded->router = take_rows(loaded, list, &facts->router.weight, 0, facts->n_experts);
        loaded->router_bias = take_vector(loaded, list, &facts->router.bias);
        loaded->router_choice = take_vector(loaded, list, &facts->router_bias);
    }
    if (facts->has_shared && weight_there(&facts->shared_gate.weight)) {
        loaded->shared_gate = take_rows(loaded, list, &facts->shared_gate.weight, 0, 1);
        loaded->shared_gate_bias = take_vector(loaded, list, &facts->shared_gate.bias);
    }
}

/* Room for the pass, in *loaded. */
static enum status make_room(const struct arch_model *model, size_t layer, const struct layer_plan *plan, size_t pass, struct loaded_layer **out,
                             struct err *err)
{
    const uint64_t need = plan->passes[pass].n_weights + layer_vectors(model, layer);
    struct loaded_layer *loaded = *out ? *out : calloc(1, sizeof *loaded);
    if (!loaded) return err_set(err, ERR_MEMORY, "out of memory");
    *out = loaded;
    if (loaded->pieces_capacity < plan->passes[pass].n) {
        free(loaded->pieces);
        loaded->pieces_capacity = 0;
        loaded->pieces = calloc(plan->passes[pass].n, sizeof *loaded->pieces);
        if (!loaded->pieces) return err_set(err, ERR_MEMORY, "out of memory");
        loaded->pieces_capacity = plan->passes[pass].n;
    }
    if (loaded->capacity < need) {
        free(loaded->memory);
        loaded->capacity = 0;
        loaded->memory = malloc((size_t)need * sizeof *loaded->memory);
        if (!loaded->memory) return err_set(err, ERR_MEMORY, "out of memory for %llu weights of a layer", (unsigned long long)need);
        loaded->capacity = need;
    }
    return OK;
}

enum status layer_load(const struct arch_model *model, const struct weight_source *source, size_t layer, const struct layer_plan *plan, size_t pass,
                       unsigned n_workers, struct loaded_layer **out, struct err *err)
{
    struct task_list list = { .source = source };
    enum status status = make_room(model, layer, plan, pass, out, err);
    if (status != OK) return status;
    struct loaded_layer *loaded = *out;
    loaded->layer = layer;
    loaded->facts = &model->layers[layer];
    loaded->used = 0;
    loaded->n_pieces = plan->passes[pass].n;
    take_vectors(loaded, &list, model);
    for (size_t i = 0; i < loaded->n_pieces; i++) {
        struct loaded_piece *piece = &loaded->pieces[i];
        *piece = (struct loaded_piece){ .piece = plan->pieces[plan->passes[pass].first + i] };
        if (piece->piece.kind == PIECE_ATTENTION) take_attention(loaded, &list, model, piece);
        else take_mlp(loaded, &list, model, piece);
    }
    return do_tasks(&list, n_workers, err);
}

void layer_unload(struct loaded_layer *loaded)
{
    if (!loaded) return;
    free(loaded->pieces);
    free(loaded->memory);
    free(loaded);
}
