/* forward_sample.c: see forward_sample.h.
 *
 * Drawing, one position: ids[t] -> embeddings -> layer by layer, keys and values join the cache -> norm -> panels of the head -> ids[t + 1]
 * Formula: 64 random bits of a place = mix(mix(mix(seed + document) + position) + entry), mix the finaliser of SplitMix64.
 * Why this way: see forward_sample.h. Documents are worked on in units of 8, whatever the number of threads.
 * Corner cases: see forward_sample.h.
 * Reference: Steele et al., Fast Splittable Pseudorandom Number Generators (2014). Worked number: u = 2^-53 (k + 1/2), never 0 or 1.
 */
#include "smoothquant/forward_sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"

enum { UNIT_DOCUMENTS = 8, BASE_NBYTES = 6 << 20 };

struct best {
    double value;
    int32_t entry;
};

struct sampling {
    const struct sample_options *options;
    const struct arch_model *model;
    struct forward_shared shared;
    float *slopes;
    struct forward_unit *units;
    size_t n_units;
    struct kv_cache cache;
    struct residual *residual; /* [documents][hidden] */
    struct layer_plan *plans; /* of all layers */
    struct loaded_layer **kept; /* of all layers; NULL: loaded anew */
    struct loaded_layer *loaded;
    float *head; /* [panel or vocab][hidden], then biases */
    bool head_kept;
    struct desk *desks;
    unsigned n_desks;
    struct norm embd_norm, output_norm;
    float *norm_values; /* of both, 4 hidden */
    struct best *best; /* of all documents */
    int32_t *ids;
    size_t position;
    uint64_t from, to; /* planes */
    size_t first; /* entry of the panel */
    size_t n; /* entries */
};

static uint64_t mix(uint64_t x)
{
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

double sample_noise(uint64_t seed, uint64_t document, uint64_t position, uint64_t entry)
{
    const uint64_t bits = mix(mix(mix(seed + document) + position) + entry);
    return -log(-log(((double)(bits >> 11) + 0.5) * 0x1p-53));
}

/* ---- one position ------------------------------------------------------------------------------------------------------------------ */

static enum status embed(void *context, unsigned worker, size_t unit, struct err *err)
{
    struct sampling *s = context;
    const struct forward_unit *u = &s->units[unit];
    int32_t tokens[UNIT_DOCUMENTS];
    for (size_t d = 0; d < u->n_rows; d++) tokens[d] = s->ids[(u->first_row + d) * s->options->length + s->position];
    float *x = s->desks[worker].x;
    enum status status = forward_embed(&s->shared, &s->embd_norm, tokens, u->n_rows, s->position, true, x, err);
    return status == OK ? residual_write(s->residual, s->from, u->first_row, u->n_rows, x, err) : status;
}

struct pass_run {
    struct sampling *s;
    const struct loaded_layer *loaded;
    uint64_t from;
};

static enum status pass(void *context, unsigned worker, size_t unit, struct err *err)
{
    const struct pass_run *run = context;
    struct sampling *s = run->s;
    s->units[unit].position = s->position;
    return layer_run(&s->shared, run->loaded, &s->units[unit], unit, worker, s->residual, run->from, s->to, &s->desks[worker], err);
}

static enum status run_layer(struct sampling *s, size_t layer, struct err *err)
{
    const struct sample_options *o = s->options;
    enum status status = OK;
    for (size_t p = 0; p < s->plans[layer].n_passes && status == OK; p++) {
        struct loaded_layer **loaded = s->kept ? &s->kept[layer] : &s->loaded;
        if (!s->kept || !*loaded) status = layer_load(s->model, &o->source, layer, &s->plans[layer], p, o->n_workers, loaded, err);
        struct pass_run run = { s, *loaded, p ? s->to : s->from };
        if (status == OK) status = units_run(s->n_units, s->n_desks, o->stop, pass, NULL, &run, err);
    }
    const uint64_t swapped = s->from;
    s->from = s->to;
    s->to = swapped;
    return status;
}

static enum status finish(void *context, unsigned worker, size_t unit, struct err *err)
{
    struct sampling *s = context;
    const struct forward_unit *u = &s->units[unit];
    float *x = s->desks[worker].x;
    enum status status = residual_read(s->residual, s->from, u->first_row, u->n_rows, x, err);
    if (status != OK) return status;
    norm_rows(&s->output_norm, x, s->model->hidden, u->n_rows, x, s->model->hidden);
    return residual_write(s->residual, PLANE_SUM, u->first_row, u->n_rows, x, err);
}

/* Logits of a panel, and the best entries so far. */
static enum status judge(void *context, unsigned worker, size_t unit, struct err *err)
{
    struct sampling *s = context;
    const struct arch_model *m = s->model;
    const struct forward_unit *u = &s->units[unit];
    struct desk *desk = &s->desks[worker];
    enum status status = residual_read(s->residual, PLANE_SUM, u->first_row, u->n_rows, desk->x, err);
    if (status != OK) return status;
    const float *rows = s->head + (s->head_kept ? s->first * m->hidden : 0), *bias = s->head + (s->head_kept ? m->vocab : HEAD_PANEL) * m->hidden;
    float *logits = desk->head;
    gemm_multiply(&s->options->gemm, u->n_rows, s->n, m->hidden, (struct gemm_matrix){ desk->x, m->hidden, false },
                  (struct gemm_matrix){ rows, m->hidden, true }, false, logits, s->n, desk->gemm);
    if (weight_there(&m->head.bias)) add_bias(logits, u->n_rows, s->n, s->n, bias + (s->head_kept ? s->first : 0));
    for (size_t i = 0; i < u->n_rows * s->n && m->logits_scale != 1.0f; i++) logits[i] *= m->logits_scale;
    if (m->logits_softcap > 0.0f) softcap(logits, u->n_rows * s->n, m->logits_softcap);
    for (size_t d = 0; d < u->n_rows; d++) {
        struct best *best = &s->best[u->first_row + d];
        for (size_t v = 0; v < s->n; v++) {
            const double value = (double)logits[d * s->n + v] + sample_noise(s->options->seed, u->first_row + d, s->position, s->first + v);
            if (value > best->value) *best = (struct best){ value, (int32_t)(s->first + v) };
        }
    }
    return OK;
}

static enum status load_head(struct sampling *s, size_t first, size_t n, struct err *err)
{
    const struct model_linear *linear = &s->model->head;
    enum status status = rows_load(&s->options->source, &linear->weight, first, n, s->options->n_workers, s->head, err);
    float *bias = s->head + (s->head_kept ? s->model->vocab : HEAD_PANEL) * s->model->hidden;
    return status == OK && weight_there(&linear->bias) ? weight_load(&s->options->source, &linear->bias, first, n, 0, 1, bias, err) : status;
}

static enum status choose_tokens(struct sampling *s, struct err *err)
{
    enum status status = OK;
    for (size_t d = 0; d < s->options->n_documents; d++) s->best[d] = (struct best){ -HUGE_VAL, 0 };
    for (s->first = 0; s->first < s->model->vocab && status == OK; s->first += HEAD_PANEL) {
        s->n = (size_t)size_min(HEAD_PANEL, s->model->vocab - s->first);
        if (!s->head_kept) status = load_head(s, s->first, s->n, err);
        if (status == OK) status = units_run(s->n_units, s->n_desks, s->options->stop, judge, NULL, s, err);
    }
    for (size_t d = 0; d < s->options->n_documents && status == OK; d++) {
        if (!(s->best[d].value > -HUGE_VAL)) return err_set(err, ERR_DATA, "the model's predictions are not finite");
        s->ids[d * s->options->length + s->position + 1] = s->best[d].entry;
    }
    return status;
}

static enum status step(struct sampling *s, struct err *err)
{
    s->from = PLANE_EVEN;
    s->to = PLANE_ODD;
    enum status status = units_run(s->n_units, s->n_desks, s->options->stop, embed, NULL, s, err);
    for (size_t l = 0; l < s->model->n_layers && status == OK; l++) status = run_layer(s, l, err);
    if (status == OK) status = units_run(s->n_units, s->n_desks, s->options->stop, finish, NULL, s, err);
    if (status == OK) status = choose_tokens(s, err);
    if (status == OK && s->options->progress) s->options->progress(s->options->context, s->options->n_documents);
    return status;
}

/* ---- memory ------------------------------------------------------------------------------------------------------------------------ */

static enum status open_units(struct sampling *s, struct err *err)
{
    const struct sample_options *o = s->options;
    s->n_units = (size_t)size_ceil_div(o->n_documents, UNIT_DOCUMENTS);
    s->units = calloc(s->n_units, sizeof *s->units);
    s->best = calloc(o->n_documents, sizeof *s->best);
    s->norm_values = malloc(4 * s->model->hidden * sizeof *s->norm_values);
    if (!s->units || !s->best || !s->norm_values) return err_set(err, ERR_MEMORY, "out of memory");
    for (size_t u = 0; u < s->n_units; u++)
        s->units[u] = (struct forward_unit){ .first_row = u * UNIT_DOCUMENTS,
                                             .n_rows = (size_t)size_min(UNIT_DOCUMENTS, o->n_documents - u * UNIT_DOCUMENTS),
                                             .cache = &s->cache,
                                             .length = o->length };
    return OK;
}

/* Keys and values: in memory when they take less than a quarter of it. */
static enum status open_cache(struct sampling *s, uint64_t *used, struct err *err)
{
    const struct sample_options *o = s->options;
    const struct residual_shape cache = { 2 * s->model->n_layers, o->n_documents * o->length, s->model->n_kv_heads * s->model->head_dim };
    const struct residual_shape stream = { PLANE_ASIDE, o->n_documents, s->model->hidden };
    const uint64_t nbytes = cache.n_planes * cache.n_rows * cache.n_cols * sizeof(float);
    const bool in_memory = nbytes <= o->max_ram / 4;
    s->cache.n_positions = o->length;
    enum status status =
        in_memory ? residual_open_memory(&cache, &s->cache.store, err) : residual_open_unnamed(o->io, o->spill_dir, &cache, &s->cache.store, err);
    if (status == OK) status = residual_open_memory(&stream, &s->residual, err);
    *used += (in_memory ? nbytes : 0) + stream.n_planes * stream.n_rows * stream.n_cols * sizeof(float);
    return status;
}

static enum status open_desks(struct sampling *s, uint64_t *used, struct err *err)
{
    const unsigned n = (unsigned)size_max(1, size_min(s->options->n_workers, s->n_units));
    enum status status = OK;
    s->desks = calloc(n, sizeof *s->desks);
    if (!s->desks) return err_set(err, ERR_MEMORY, "out of memory");
    for (; s->n_desks < n && status == OK; s->n_desks++) status = desk_open(&s->shared, s->model->n_kv_heads, &s->desks[s->n_desks], err);
    *used += n * desk_floats(&s->shared, s->model->n_kv_heads) * sizeof(float);
    return status;
}

/* Whole layers and head when they fit, else passes and panels. Attention over a cache is never cut. */
static enum status plan(struct sampling *s, uint64_t used, struct err *err)
{
    const struct arch_model *m = s->model;
    const uint64_t left = s->options->max_ram > used ? (s->options->max_ram - used) / sizeof(float) : 0, head = (uint64_t)m->vocab * (m->hidden + 1);
    uint64_t all = head, need;
    enum status status = OK;
    s->plans = calloc(m->n_layers, sizeof *s->plans);
    if (!s->plans) return err_set(err, ERR_MEMORY, "out of memory");
    for (size_t l = 0; l < m->n_layers && status == OK; l++) {
        status = layer_plan_make(m, l, UINT64_MAX / 8, false, &s->plans[l], &need, err);
        all += s->plans[l].n_weights + layer_vectors(m, l);
    }
    s->head_kept = all <= left;
    if (s->head_kept) s->kept = calloc(m->n_layers, sizeof(struct loaded_layer *));
    const uint64_t panel = HEAD_PANEL * ((uint64_t)m->hidden + 1), pass_max = left > panel ? left - panel : 0;
    for (size_t l = 0; l < m->n_layers && status == OK && !s->head_kept; l++) {
        const uint64_t vectors = layer_vectors(m, l);
        layer_plan_free(&s->plans[l]);
        status = layer_plan_make(m, l, pass_max - size_min(pass_max, vectors), false, &s->plans[l], &need, err);
        if (status == OK && s->plans[l].max_kv_heads != m->n_kv_heads) {
            status = ERR_MEMORY;
            need = (uint64_t)m->n_kv_heads * m->head_dim * m->hidden * (2 * (m->n_heads / m->n_kv_heads) + 2);
        }
    }
    if (status == ERR_MEMORY)
        return err_set(err, ERR_MEMORY, "%zu documents of %zu tokens of this model need --max-ram %lluM", s->options->n_documents, s->options->length,
                       (unsigned long long)((used + (panel + need + layer_vectors(m, 0)) * sizeof(float)) >> 20) + 1);
    s->head = status == OK ? malloc((size_t)(s->head_kept ? head : panel) * sizeof *s->head) : NULL;
    if (status == OK && (!s->head || (s->head_kept && !s->kept))) status = err_set(err, ERR_MEMORY, "out of memory");
    return status == OK && s->head_kept ? load_head(s, 0, m->vocab, err) : status;
}

static enum status open_all(struct sampling *s, struct err *err)
{
    const struct sample_options *o = s->options;
    const struct forward_options like = { .model = o->model, .source = o->source, .gemm = o->gemm };
    const uint64_t most = arch_model_positions(o->model);
    uint64_t used = BASE_NBYTES;
    if (most && o->length > most) return err_set(err, ERR_USAGE, "the model has %llu positions, fewer than %zu", (unsigned long long)most, o->length);
    enum status status = open_units(s, err);
    if (status == OK) status = forward_shared_open(&like, UNIT_DOCUMENTS, o->length, true, &s->shared, &s->slopes, err);
    if (status == OK) status = open_cache(s, &used, err);
    if (status == OK) status = open_desks(s, &used, err);
    if (status == OK) status = norm_load(o->model, &o->source, &o->model->embd_norm, o->model->hidden, s->norm_values, &s->embd_norm, err);
    if (status == OK)
        status =
            norm_load(o->model, &o->source, &o->model->output_norm, o->model->hidden, s->norm_values + 2 * o->model->hidden, &s->output_norm, err);
    return status == OK ? plan(s, used, err) : status;
}

static void close_all(struct sampling *s)
{
    for (size_t l = 0; l < s->model->n_layers; l++) {
        if (s->kept) layer_unload(s->kept[l]);
        if (s->plans) layer_plan_free(&s->plans[l]);
    }
    for (unsigned w = 0; w < s->n_desks; w++) desk_close(&s->desks[w]);
    layer_unload(s->loaded);
    residual_close(s->cache.store, true);
    residual_close(s->residual, true);
    forward_shared_close(&s->shared, s->slopes);
    void *const all[] = { s->kept, s->plans, s->head, s->desks, s->units, s->best, s->norm_values };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
}

enum status sample_run(const struct sample_options *options, int32_t *ids, struct err *err)
{
    struct sampling s = { .options = options, .model = options->model, .ids = ids };
    enum status status = open_all(&s, err);
    for (size_t d = 0; d < options->n_documents && status == OK; d++)
        ids[d * options->length] = options->first >= 0 ? options->first : (int32_t)(mix(mix(options->seed ^ 0x5EED) + d) % options->model->vocab);
    for (s.position = 0; s.position + 1 < options->length && status == OK; s.position++) status = step(&s, err);
    close_all(&s);
    return status;
}
