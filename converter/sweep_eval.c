/* sweep_eval.c: perplexity and KL divergence of every variant of a sweep: the forward pass over weights that are coded and decoded as they are asked for.
 *
 *   forward pass --rows of a tensor--> tiles that hold them --read, code, decode--> slots --> rows
 *
 * Why this way: no variant is ever whole, neither in memory nor on disk; a tile is coded as in the sweep, so what is judged are the weights whose hash is
 * in the row. The reference, the model as it was read, runs once.
 * Corner cases: scales of matrices, and of groups over several tiles, are observed for one variant at a time, over all tiles even under --sample; tensors
 * that --tensors left out are as they were read, but for migration; a slot that someone copies from is not taken by another; there are more slots than threads.
 * Reference: smoothquant/eval.h. Worked number: none needed.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "converter/live_model.h"
#include "converter/sweep_run.h"
#include "smoothquant/eval.h"

/* A decoded tile. */
struct slot {
    struct sweep_worker worker;
    float *weights;
    size_t tensor; /* SIZE_MAX: nothing */
    uint64_t tile, used; /* used: when it was last asked for */
    bool busy; /* being made */
    unsigned n_users;
};

struct judging {
    struct sweep *sweep;
    size_t lane;
    struct weight_source plain;
    struct slot *slots;
    size_t n_slots;
    uint64_t clock;
    pthread_mutex_t lock;
    pthread_cond_t changed;
};

/* ---- slots ----------------------------------------------------------------------------------------------------------------------------- */

/* The slot with the tile, or one that may be taken for it; NULL: wait. */
static struct slot *find_slot(const struct judging *judging, size_t tensor, uint64_t tile)
{
    struct slot *oldest = NULL;
    for (size_t i = 0; i < judging->n_slots; i++) {
        struct slot *slot = &judging->slots[i];
        if (slot->tensor == tensor && slot->tile == tile) return slot->busy ? NULL : slot;
        if (!slot->busy && slot->n_users == 0 && (!oldest || slot->used < oldest->used)) oldest = slot;
    }
    return oldest;
}

static enum status make_tile(struct judging *judging, struct slot *slot, struct err *err)
{
    struct sweep *sweep = judging->sweep;
    const struct sweep_stream *stream = &sweep->streams[sweep->lanes[judging->lane].cells[slot->tensor].stream];
    slot->worker.decoded = slot->weights;
    return sweep_decode_tile(sweep, judging->lane, stream, slot->tile, &slot->worker, err);
}

static enum status take_slot(struct judging *judging, size_t tensor, uint64_t tile, struct slot **out, struct err *err)
{
    struct slot *slot;
    enum status status = OK;
    pthread_mutex_lock(&judging->lock);
    while (!(slot = find_slot(judging, tensor, tile))) pthread_cond_wait(&judging->changed, &judging->lock);
    slot->used = ++judging->clock;
    if (slot->tensor != tensor || slot->tile != tile) {
        slot->tensor = tensor;
        slot->tile = tile;
        slot->busy = true;
        pthread_mutex_unlock(&judging->lock);
        status = make_tile(judging, slot, err);
        pthread_mutex_lock(&judging->lock);
        slot->busy = false;
        if (status) slot->tensor = SIZE_MAX;
    }
    if (!status) slot->n_users++;
    pthread_cond_broadcast(&judging->changed);
    pthread_mutex_unlock(&judging->lock);
    *out = slot;
    return status;
}

static void give_slot(struct judging *judging, struct slot *slot)
{
    pthread_mutex_lock(&judging->lock);
    slot->n_users--;
    pthread_cond_broadcast(&judging->changed);
    pthread_mutex_unlock(&judging->lock);
}

/* ---- the source of weights -------------------------------------------------------------------------------------------------------------- */

/* What is asked for: n_rows x n_cols weights from (row, col) on, rows of out n_cols apart. */
struct wanted {
    uint64_t row, n_rows, col, n_cols;
    float *out;
};

static enum status copy_tile(struct judging *judging, size_t tensor, uint64_t index, const struct tile *tile, const struct wanted *wanted,
                             struct err *err)
{
    const uint64_t row = size_max(wanted->row, tile->row), end_row = size_min(wanted->row + wanted->n_rows, tile->row + tile->n_rows);
    const uint64_t col = size_max(wanted->col, tile->col), end_col = size_min(wanted->col + wanted->n_cols, tile->col + tile->n_cols);
    struct slot *slot;
    enum status status = take_slot(judging, tensor, index, &slot, err);
    if (status) return status;
    for (uint64_t r = row; r < end_row; r++)
        memcpy(wanted->out + (r - wanted->row) * wanted->n_cols + (col - wanted->col),
               slot->weights + (r - tile->row) * tile->n_cols + (col - tile->col), (size_t)(end_col - col) * sizeof(float));
    give_slot(judging, slot);
    return OK;
}

/* Weights that are not coded, as the variant's file would have them. */
static enum status read_plain(const struct judging *judging, size_t tensor, const struct tile *place, float *out, struct err *err)
{
    const struct sweep_cell *cell = &judging->sweep->lanes[judging->lane].cells[tensor];
    const enum status status = judging->plain.read(judging->plain.context, tensor, place->row, place->n_rows, place->col, place->n_cols, out, err);
    if (status || !cell->fold) return status;
    fold_apply(cell->fold, place, out);
    if (!cell->quant) sweep_migrate_rounded(judging->sweep->container->tensors[tensor].dtype, out, place->n_rows * place->n_cols);
    return OK;
}

static enum status read_variant(void *context, size_t tensor, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols, float *out,
                                struct err *err)
{
    struct judging *judging = context;
    const struct sweep *sweep = judging->sweep;
    const struct sweep_cell *cell = &sweep->lanes[judging->lane].cells[tensor];
    if (!cell->quant || !sweep->items[tensor].wanted)
        return read_plain(judging, tensor, &(struct tile){ .row = row, .n_rows = n_rows, .col = col, .n_cols = n_cols }, out, err);
    const struct plane *geometry = &sweep->streams[cell->stream].geometry;
    const struct wanted wanted = { row, n_rows, col, n_cols, out };
    const uint64_t per_row = size_ceil_div(geometry->cols, geometry->tile_cols);
    enum status status = OK;
    for (uint64_t r = row / geometry->tile_rows; r * geometry->tile_rows < row + n_rows && !status; r++)
        for (uint64_t c = col / geometry->tile_cols; c * geometry->tile_cols < col + n_cols && !status; c++) {
            const struct tile tile = plane_tile(geometry, r * per_row + c);
            status = copy_tile(judging, tensor, r * per_row + c, &tile, &wanted, err);
        }
    return status;
}

/* ---- one variant ------------------------------------------------------------------------------------------------------------------------- */

static enum status open_slots(struct judging *judging, unsigned n_workers, struct err *err)
{
    struct sweep *sweep = judging->sweep;
    judging->n_slots = n_workers + 1u;
    judging->slots = calloc(judging->n_slots, sizeof *judging->slots);
    enum status status = judging->slots ? OK : err_set(err, ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < judging->n_slots && !status; i++) {
        struct slot *slot = &judging->slots[i];
        slot->tensor = SIZE_MAX;
        status = sweep_worker_make(sweep, &slot->worker, err);
        slot->weights = malloc((size_t)sweep->tile_weights * sizeof *slot->weights + 1);
        if (!status && !slot->weights) status = err_set(err, ERR_MEMORY, "out of memory");
    }
    return status;
}

static void close_slots(struct judging *judging)
{
    for (size_t i = 0; judging->slots && i < judging->n_slots; i++) {
        sweep_worker_free(&judging->slots[i].worker);
        free(judging->slots[i].weights);
    }
    free(judging->slots);
    judging->slots = NULL;
}

static enum status judge_lane(struct judging *judging, struct eval *eval, const struct live_model *live, struct err *err)
{
    struct sweep *sweep = judging->sweep;
    const struct eval_model model = { live->model, { read_variant, judging } };
    struct eval_result result;
    for (size_t i = 0; i < judging->n_slots; i++) judging->slots[i].tensor = SIZE_MAX;
    sweep->only = judging->lane;
    enum status status = sweep_observe_all(sweep, err);
    if (!status) status = eval_judge(eval, &model, &result, err);
    for (size_t i = 0; i < sweep->n_items; i++) sweep_release(sweep, i);
    sweep->only = SIZE_MAX;
    if (status) return status;
    sweep->lanes[judging->lane].judged =
        (struct sweep_judged){ .done = true, .perplexity = result.perplexity, .kl = result.kl_mean, .reference = result.reference_perplexity };
    return sweep_state_put_judged(sweep, judging->lane, err);
}

/* ---- all variants ------------------------------------------------------------------------------------------------------------------------ */

static void add_progress(void *context, uint64_t n)
{
    progress_add(context, n);
}

static size_t count_open(const struct sweep *sweep)
{
    size_t n = 0;
    for (size_t v = 0; v < sweep->n_lanes; v++) n += !sweep->lanes[v].failed && !sweep->lanes[v].judged.done;
    return n;
}

static enum status judge_all(struct judging *judging, const struct live_model *live, const struct token_docs *docs, size_t n_lead, struct err *err)
{
    struct sweep *sweep = judging->sweep;
    struct app *app = sweep->app;
    const size_t n_open = count_open(sweep);
    const uint64_t slots_nbytes = (live_workers(app) + 1u) * (sweep_worker_nbytes(sweep) + 4 * sweep->tile_weights) + sweep_migrations_nbytes(sweep);
    const uint64_t ram = live_max_ram(app);
    struct progress *progress =
        progress_open_count(app, "eval", docs->starts[docs->n_docs] * live->model->n_layers * (n_open + 1), live->model->n_layers, "tokens");
    const struct eval_options options = { .io = app->io,
                                          .gemm = live_gemm(app),
                                          .n_workers = live_workers(app),
                                          .max_ram = ram > slots_nbytes ? ram - slots_nbytes : 0,
                                          .stop = app->stop,
                                          .spill_dir = live_spill_dir(),
                                          .seq = (size_t)settings_number(&app->settings, SET_SEQ),
                                          .n_lead = n_lead,
                                          .progress = add_progress,
                                          .context = progress };
    const struct eval_model reference = { live->model, judging->plain };
    struct eval *eval = NULL;
    enum status status = open_slots(judging, options.n_workers, err);
    if (!status) status = eval_open(&options, docs, &reference, &eval, err);
    for (judging->lane = 0; judging->lane < sweep->n_lanes && !status; judging->lane++)
        if (!sweep->lanes[judging->lane].failed && !sweep->lanes[judging->lane].judged.done) status = judge_lane(judging, eval, live, err);
    eval_close(eval);
    close_slots(judging);
    progress_close(progress);
    return status;
}

/* The documents, as eval reads them. */
static enum status read_tokens(struct sweep *sweep, struct token_docs *docs, size_t *n_lead, struct err *err)
{
    struct settings *settings = &sweep->app->settings;
    settings->values[SET_TEXT] = sweep->spec->eval_text;
    settings->values[SET_TOKENS] = sweep->spec->eval_tokens;
    enum status status = live_model_tokens(sweep->app, sweep->live, docs, n_lead, err);
    settings->values[SET_TEXT] = settings->values[SET_TOKENS] = NULL;
    return status;
}

bool sweep_evaluates(const struct sweep_spec *spec)
{
    return spec->eval_text || spec->eval_tokens;
}

enum status sweep_eval_open(struct sweep *sweep, struct err *err)
{
    if (!sweep_evaluates(sweep->spec)) return OK;
    if (sweep->spec->eval_text && sweep->spec->eval_tokens) return err_set(err, ERR_USAGE, "either --eval-text or --eval-tokens");
    sweep->live = calloc(1, sizeof *sweep->live);
    if (!sweep->live) return err_set(err, ERR_MEMORY, "out of memory");
    enum status status = live_model_open(sweep->app, sweep->container->path, sweep->live, err);
    sweep->docs = calloc(1, sizeof *sweep->docs);
    if (!status && !sweep->docs) status = err_set(err, ERR_MEMORY, "out of memory");
    return status ? status : read_tokens(sweep, sweep->docs, &sweep->n_lead, err);
}

void sweep_eval_close(struct sweep *sweep)
{
    if (sweep->docs) tokens_free(sweep->docs);
    if (sweep->live) live_model_close(sweep->live);
    free(sweep->docs);
    free(sweep->live);
}

static enum status fill_table(struct sweep *sweep, struct err *err)
{
    struct sweep_table *table = sweep->table;
    free(table->reference_name);
    table->reference_name = strdup(sweep->spec->eval_text ? sweep->spec->eval_text : sweep->spec->eval_tokens);
    for (size_t v = 0; v < sweep->n_lanes; v++) {
        const struct sweep_lane *lane = &sweep->lanes[v];
        const struct sweep_variant *variant = &table->variants[lane->variant];
        if (!lane->judged.done || !variant->n_rows) continue;
        struct sweep_row *total = &table->rows[variant->first_row + variant->n_rows - 1];
        total->perplexity = lane->judged.perplexity;
        total->kl = lane->judged.kl;
        table->reference_perplexity = lane->judged.reference;
    }
    return table->reference_name ? OK : err_set(err, ERR_MEMORY, "out of memory");
}

enum status sweep_eval(struct sweep *sweep, struct err *err)
{
    struct judging judging = { .sweep = sweep, .plain = weight_source_container(sweep->container) };
    if (!sweep_evaluates(sweep->spec)) return OK;
    for (size_t s = 0; s < sweep->n_streams; s++) sweep->streams[s].n_tiles = plane_tile_count(&sweep->streams[s].geometry);
    pthread_mutex_init(&judging.lock, NULL);
    pthread_cond_init(&judging.changed, NULL);
    enum status status = count_open(sweep) ? judge_all(&judging, sweep->live, sweep->docs, sweep->n_lead, err) : OK;
    pthread_cond_destroy(&judging.changed);
    pthread_mutex_destroy(&judging.lock);
    return status ? status : fill_table(sweep, err);
}
