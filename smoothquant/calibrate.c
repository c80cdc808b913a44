/* calibrate.c: see calibrate.h.
 *
 * Drawing: worker: window -> sums of each input it meets, in its own memory -> its turn -> added to the set; the next window.
 * Why this way: the sums of one window are made by one thread in the order of its tokens, and windows are added in order, so the sums are those of one
 * thread. Gram matrices are added at once, each in its own turn: they are too large to wait.
 * Corner cases: see calibrate.h. A run that is taken up again has read its sums back in binary32, as they will be written anyway.
 * Reference: calibrate.h. Worked number: 32 windows of 512, the first token of each left out: 16352 tokens.
 */
#include "smoothquant/calibrate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "base/size.h"
#include "number/half.h"
#include "smoothquant/stats_kind.h"

enum { GRAM_ROWS = 64 };

#define PAIR_LAYER "resume_layer"
#define PAIR_KEY "resume_key"

/* A distinct input of the layer that is running. */
struct slot {
    size_t entry;
    uint64_t mat, n; /* channels */
    uint64_t at; /* of its sums in a worker's memory, in channels */
    bool is_expert;
    struct turn gram_turn;
};

/* What one worker has seen of one window. */
struct partial {
    double *sum2, *sum, *sumabs; /* [channels of all slots] */
    float *least, *most;
    uint64_t *counts; /* [slots] */
    bool *touched, *gram_done;
    uint64_t *hist; /* [slots][STATS_HIST_BINS], or NULL */
    float *gram, *scratch; /* [GRAM_ROWS][widest input], GEMM_SCRATCH; or NULL */
};

struct calibration {
    const struct calibrate_options *options;
    const struct windows *windows;
    struct stats_set *set;
    struct slot *slots;
    size_t n_slots, slots_capacity;
    struct slot *by_kind[INPUT_KIND_COUNT]; /* of the first expert, for those of experts */
    struct partial *partials;
    unsigned n_partials;
    uint64_t channels_capacity, widest;
    struct turn turn;
    uint64_t ticket; /* of the first window of this pass */
    uint64_t *eligible; /* tokens of the windows before each, without those left out */
    uint64_t n_eligible;
    char *activations;
    size_t first_layer;
    bool has_state; /* a layer was finished and written down */
};

uint64_t calibrate_tokens(const struct windows *windows, size_t skip_first)
{
    uint64_t n = 0;
    for (size_t w = 0; w < windows->n; w++) n += windows->units[w].n_rows > skip_first ? windows->units[w].n_rows - skip_first : 0;
    return n;
}

/* ---- entries of a layer ------------------------------------------------------------------------------------------------------------ */

struct consumers {
    const struct weight_part *parts[16];
    size_t n;
};

static void add_consumer(struct consumers *c, const struct weight_part *part)
{
    if (!weight_there(part)) return;
    for (size_t i = 0; i < c->n; i++)
        if (c->parts[i]->tensor == part->tensor) return;
    c->parts[c->n++] = part;
}

static enum status add_names(struct calibration *c, const struct consumers *consumers, uint64_t n_mat, uint64_t n, size_t *entry, struct err *err)
{
    const struct tensor *tensors = c->options->container->tensors;
    enum status status = stats_add(c->set, tensors[consumers->parts[0]->tensor].name, n_mat, n, entry, err);
    for (size_t i = 1; i < consumers->n && status == OK; i++)
        status = stats_add_alias(c->set, tensors[consumers->parts[i]->tensor].name, *entry, err);
    if (status != OK) return status;
    struct stats_entry *e = &c->set->entries[*entry];
    static const enum stats_field fields[] = { STATS_SUM2, STATS_SUM, STATS_SUMABS, STATS_ABSMAX, STATS_MIN, STATS_MAX };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0] && status == OK; i++) status = stats_make_field(c->set, e, fields[i], err);
    if (status == OK) status = stats_make_counts(c->set, e, err);
    if (status == OK && c->options->hist) status = stats_make_hist(c->set, e, err);
    if (status == OK && c->options->gram) status = stats_make_gram(c->set, e, err);
    for (uint64_t j = 0; status == OK && j < n_mat * n; j++) {
        e->values[STATS_MIN][j] = HUGE_VAL;
        e->values[STATS_MAX][j] = -HUGE_VAL;
    }
    return status;
}

static void add_slot(struct calibration *c, enum input_kind kind, size_t entry, uint64_t mat, uint64_t n, bool is_expert)
{
    struct slot *slot = &c->slots[c->n_slots];
    *slot = (struct slot){ .entry = entry, .mat = mat, .n = n, .is_expert = is_expert };
    slot->at = c->n_slots ? c->slots[c->n_slots - 1].at + c->slots[c->n_slots - 1].n : 0;
    turn_init(&slot->gram_turn);
    if (!c->by_kind[kind]) c->by_kind[kind] = slot;
    c->n_slots++;
}

static enum status add_input(struct calibration *c, enum input_kind kind, const struct consumers *consumers, uint64_t n, struct err *err)
{
    size_t entry;
    if (consumers->n == 0) return OK;
    enum status status = add_names(c, consumers, 1, n, &entry, err);
    const uint64_t n_sample = size_min(c->options->n_sample, c->n_eligible);
    if (status == OK && n_sample) status = stats_make_sample(c->set, &c->set->entries[entry], n_sample, err);
    if (status == OK) add_slot(c, kind, entry, 0, n, false);
    return status;
}

/* The weight that gives the input of an expert, or of its down projection, its name. */
static const struct weight_part *first_part(const struct model_mlp *mlp, bool is_down)
{
    return is_down ? &mlp->down.weight : weight_there(&mlp->gate.weight) ? &mlp->gate.weight : &mlp->up.weight;
}

/* Inputs of experts: one entry for each, or one with as many matrices for a stack. */
static enum status add_experts(struct calibration *c, const struct model_layer *layer, bool is_down, struct err *err)
{
    const struct model_mlp *experts = layer->experts;
    const size_t n_experts = layer->n_experts;
    const bool stacked = n_experts > 1 && first_part(&experts[0], is_down)->tensor == first_part(&experts[1], is_down)->tensor;
    size_t entry = 0;
    enum status status = OK;
    for (size_t e = 0; e < n_experts && status == OK; e++) {
        struct consumers consumers = { .n = 0 };
        const uint64_t n = first_part(&experts[e], is_down)->n_in;
        add_consumer(&consumers, first_part(&experts[e], is_down));
        if (!is_down) add_consumer(&consumers, &experts[e].up.weight);
        if (!stacked || e == 0) status = add_names(c, &consumers, stacked ? n_experts : 1, n, &entry, err);
        if (status == OK) add_slot(c, is_down ? INPUT_EXPERT_DOWN : INPUT_EXPERT, entry, stacked ? e : 0, n, true);
    }
    return status;
}

/* What reads the norm before an MLP: its own matrices, or the router and the shared expert. */
static void add_mlp_consumers(struct consumers *in, const struct model_layer *layer)
{
    if (!weight_there(&layer->router.weight)) {
        add_consumer(in, &layer->experts[0].gate.weight);
        add_consumer(in, &layer->experts[0].up.weight);
        return;
    }
    add_consumer(in, &layer->router.weight);
    if (!layer->has_shared) return;
    add_consumer(in, &layer->shared.gate.weight);
    add_consumer(in, &layer->shared.up.weight);
    add_consumer(in, &layer->shared_gate.weight);
}

static bool has_norm(const struct model_norm *norm)
{
    return weight_there(&norm->gain) || weight_there(&norm->bias) || norm->always;
}

static enum status add_layer(struct calibration *c, const struct model_layer *layer, struct err *err)
{
    const struct arch_model *m = c->options->model;
    const bool one_input = m->parallel && !has_norm(&layer->ffn_norm), dense = !weight_there(&layer->router.weight);
    struct consumers attn = { .n = 0 }, out = { .n = 0 }, ffn = { .n = 0 }, down = { .n = 0 };
    add_consumer(&attn, &layer->q.weight);
    add_consumer(&attn, &layer->k.weight);
    add_consumer(&attn, &layer->v.weight);
    add_consumer(&out, &layer->o.weight);
    add_mlp_consumers(one_input ? &attn : &ffn, layer);
    enum status status = add_input(c, INPUT_ATTN, &attn, m->hidden, err);
    if (status == OK) status = add_input(c, INPUT_ATTN_OUT, &out, (uint64_t)m->n_heads * m->head_dim, err);
    if (status == OK) status = add_input(c, INPUT_FFN, &ffn, m->hidden, err);
    if (status == OK && dense) {
        add_consumer(&down, &layer->experts[0].down.weight);
        return add_input(c, INPUT_DOWN, &down, layer->experts[0].n, err);
    }
    if (status == OK) status = add_experts(c, layer, false, err);
    if (status == OK) status = add_experts(c, layer, true, err);
    if (status == OK && layer->has_shared) {
        add_consumer(&down, &layer->shared.down.weight);
        status = add_input(c, INPUT_SHARED_DOWN, &down, layer->shared.n, err);
    }
    return status;
}

static void drop_slots(struct calibration *c)
{
    for (size_t i = 0; i < c->n_slots; i++) turn_destroy(&c->slots[i].gram_turn);
    c->n_slots = 0;
    memset(c->by_kind, 0, sizeof c->by_kind);
}

/* All channels that one layer's inputs have, its slots, and the widest of all. */
static void measure_layer(const struct arch_model *m, const struct model_layer *layer, uint64_t *channels, uint64_t *slots, uint64_t *widest)
{
    const uint64_t heads = (uint64_t)m->n_heads * m->head_dim;
    *channels = 2 * (uint64_t)m->hidden + heads;
    *slots = 4;
    *widest = size_max(m->hidden, heads);
    const bool dense = !weight_there(&layer->router.weight);
    for (size_t e = 0; e < layer->n_experts; e++) {
        *channels += layer->experts[e].n + (dense ? 0 : m->hidden);
        *slots += 2;
        *widest = size_max(*widest, layer->experts[e].n);
    }
    if (layer->has_shared) {
        *channels += layer->shared.n;
        *slots += 1;
        *widest = size_max(*widest, layer->shared.n);
    }
}

/* ---- watching ---------------------------------------------------------------------------------------------------------------------- */

static void begin_slot(struct calibration *c, struct partial *p, size_t s)
{
    const struct slot *slot = &c->slots[s];
    p->touched[s] = true;
    p->counts[s] = 0;
    for (uint64_t j = slot->at; j < slot->at + slot->n; j++) {
        p->sum2[j] = p->sum[j] = p->sumabs[j] = 0.0;
        p->least[j] = HUGE_VALF;
        p->most[j] = -HUGE_VALF;
    }
    if (p->hist) memset(p->hist + s * STATS_HIST_BINS, 0, STATS_HIST_BINS * sizeof *p->hist);
}

static void add_row(struct partial *p, uint64_t at, const float *x, size_t n)
{
    double *restrict sum2 = p->sum2 + at, *restrict sum = p->sum + at, *restrict sumabs = p->sumabs + at;
    float *restrict least = p->least + at, *restrict most = p->most + at;
    for (size_t j = 0; j < n; j++) {
        const double v = (double)x[j];
        sum2[j] += v * v;
        sum[j] += v;
        sumabs[j] += fabs(v);
    }
    for (size_t j = 0; j < n; j++) {
        least[j] = x[j] < least[j] ? x[j] : least[j];
        most[j] = x[j] > most[j] ? x[j] : most[j];
    }
}

static void add_hist(struct partial *p, size_t s, const float *x, size_t n)
{
    uint64_t *bins = p->hist + s * STATS_HIST_BINS;
    for (size_t j = 0; j < n; j++) bins[(f32_bits(x[j]) & 0x7FFFFFFFu) >> 20]++;
}

/* Token number of sample i of n among all: evenly spaced, each in the middle of its share. */
static uint64_t sample_place(uint64_t i, uint64_t n, uint64_t n_tokens)
{
    return (uint64_t)(((double)i + 0.5) * (double)n_tokens / (double)n);
}

/* Rows of the window that are sampled, to their places. */
static void keep_samples(struct calibration *c, const struct slot *slot, size_t unit, const struct forward_input *input, size_t first)
{
    struct stats_entry *e = &c->set->entries[slot->entry];
    const uint64_t before = c->eligible[unit], n = input->n_rows - first;
    if (!e->sample || slot->is_expert) return;
    uint64_t i = (uint64_t)((double)before * (double)e->n_sample / (double)c->n_eligible);
    i = i > 1 ? i - 2 : 0;
    for (; i < e->n_sample && sample_place(i, e->n_sample, c->n_eligible) < before + n; i++) {
        const uint64_t place = sample_place(i, e->n_sample, c->n_eligible);
        if (place < before) continue;
        const float *x = input->x + (first + place - before) * input->stride;
        for (size_t j = 0; j < input->n_channels; j++) e->sample[i * e->n_in + input->first_channel + j] = f32_to_bf16(x[j]);
    }
}

static enum status stopped(struct err *err)
{
    return err_set(err, ERR_CANCELLED, "stopped");
}

/* Adds X^T X to the Gram matrix, when it is this window's turn. */
static enum status add_gram(struct calibration *c, struct partial *p, size_t s, size_t unit, const float *x, size_t n_rows, size_t stride,
                            struct err *err)
{
    struct slot *slot = &c->slots[s];
    struct stats_entry *e = &c->set->entries[slot->entry];
    const uint64_t n = slot->n;
    float *gram = e->gram + slot->mat * (n * (n + 1) / 2);
    if (!turn_wait(&slot->gram_turn, c->ticket + unit)) return stopped(err);
    for (uint64_t i = 0; i < n && n_rows; i += GRAM_ROWS) {
        const size_t rows = (size_t)size_min(GRAM_ROWS, n - i), width = (size_t)(n - i);
        gemm_multiply(&c->options->gemm, rows, width, n_rows, (struct gemm_matrix){ x + i, stride, true },
                      (struct gemm_matrix){ x + i, stride, false }, false, p->gram, width, p->scratch);
        for (size_t r = 0; r < rows; r++) {
            float *to = gram + (i + r) * n - (i + r) * (i + r + 1) / 2 + (i + r); /* element (i + r, i + r) */
            for (size_t j = r; j < width; j++) to[j - r] += p->gram[r * width + j];
        }
    }
    turn_done(&slot->gram_turn, c->ticket + unit);
    p->gram_done[s] = true;
    return OK;
}

static enum status see(void *context, unsigned worker, size_t unit, const struct forward_input *input, struct err *err)
{
    struct calibration *c = context;
    struct partial *p = &c->partials[worker];
    struct slot *slot = c->by_kind[input->kind];
    size_t first = 0;
    if (!slot) return OK;
    if (slot->is_expert) slot += input->expert;
    const size_t s = (size_t)(slot - c->slots);
    while (first < input->n_rows && (input->rows ? input->rows[first] : first) < c->options->skip_first) first++;
    if (!p->touched[s]) begin_slot(c, p, s);
    /* channels in pieces: the tokens count once */
    if (input->first_channel == 0) p->counts[s] += input->n_rows - first;
    for (size_t r = first; r < input->n_rows; r++) {
        const float *x = input->x + r * input->stride;
        add_row(p, slot->at + input->first_channel, x, input->n_channels);
        if (p->hist) add_hist(p, s, x, input->n_channels);
    }
    keep_samples(c, slot, unit, input, first);
    return p->gram ? add_gram(c, p, s, unit, input->x + first * input->stride, input->n_rows - first, input->stride, err) : OK;
}

static void merge_slot(struct calibration *c, struct partial *p, size_t s)
{
    const struct slot *slot = &c->slots[s];
    struct stats_entry *e = &c->set->entries[slot->entry];
    const uint64_t at = slot->mat * e->n_in;
    e->counts[slot->mat] += p->counts[s];
    for (uint64_t j = 0; j < slot->n; j++) {
        const double least = (double)p->least[slot->at + j], most = (double)p->most[slot->at + j];
        e->values[STATS_SUM2][at + j] += p->sum2[slot->at + j];
        e->values[STATS_SUM][at + j] += p->sum[slot->at + j];
        e->values[STATS_SUMABS][at + j] += p->sumabs[slot->at + j];
        if (least < e->values[STATS_MIN][at + j]) e->values[STATS_MIN][at + j] = least;
        if (most > e->values[STATS_MAX][at + j]) e->values[STATS_MAX][at + j] = most;
    }
    for (size_t b = 0; p->hist && b < STATS_HIST_BINS; b++) e->hist[b] += p->hist[s * STATS_HIST_BINS + b];
    p->touched[s] = false;
}

/* A window has left a pass: what was seen of it joins the set, in the order of windows. */
static enum status unit_done(void *context, unsigned worker, size_t unit, struct err *err)
{
    struct calibration *c = context;
    struct partial *p = &c->partials[worker];
    const uint64_t ticket = c->ticket + unit;
    for (size_t s = 0; p->gram && s < c->n_slots; s++) {
        if (!p->gram_done[s]) {
            if (!turn_wait(&c->slots[s].gram_turn, ticket)) return stopped(err);
            turn_done(&c->slots[s].gram_turn, ticket);
        }
        p->gram_done[s] = false;
    }
    if (!turn_wait(&c->turn, ticket)) return stopped(err);
    for (size_t s = 0; s < c->n_slots; s++)
        if (p->touched[s]) merge_slot(c, p, s);
    if (unit + 1 == c->windows->n) c->ticket += c->windows->n; /* the others wait for the next pass */
    turn_done(&c->turn, ticket);
    return OK;
}

static void failed(void *context)
{
    struct calibration *c = context;
    turn_abort(&c->turn);
    for (size_t s = 0; s < c->n_slots; s++) turn_abort(&c->slots[s].gram_turn);
}

static void add_progress(void *context, uint64_t n)
{
    const struct calibrate_options *o = ((struct calibration *)context)->options;
    if (o->progress) o->progress(o->context, n);
}

/* ---- layers ------------------------------------------------------------------------------------------------------------------------ */

static void restart_turns(struct calibration *c)
{
    turn_destroy(&c->turn);
    turn_init(&c->turn);
    c->ticket = 0;
}

static enum status layer_begins(void *context, size_t layer, struct err *err)
{
    struct calibration *c = context;
    drop_slots(c);
    restart_turns(c);
    return add_layer(c, &c->options->model->layers[layer], err);
}

/* Largest magnitudes; channels nobody saw become 0. Then a check: a model whose activations overflow ends here. */
static enum status settle(struct calibration *c, struct err *err)
{
    enum status status = OK;
    for (size_t s = 0; s < c->n_slots && status == OK; s++) {
        const struct slot *slot = &c->slots[s];
        struct stats_entry *e = &c->set->entries[slot->entry];
        const uint64_t at = slot->mat * e->n_in;
        for (uint64_t j = at; j < at + slot->n; j++) {
            double *least = &e->values[STATS_MIN][j], *most = &e->values[STATS_MAX][j];
            if (*least > *most) *least = *most = 0.0;
            e->values[STATS_ABSMAX][j] = fmax(fabs(*least), fabs(*most));
        }
        if (slot->mat + 1 == e->n_mat) status = stats_check(e, err);
    }
    return status;
}

static enum status save_state(struct calibration *c, size_t layer, struct err *err)
{
    const struct calibrate_options *o = c->options;
    struct stats_left left = { 0 };
    char number[24];
    if (!o->state) return OK;
    snprintf(number, sizeof number, "%zu", layer + 1);
    enum status status = stats_add_pair(c->set, PAIR_LAYER, number, err);
    if (status == OK) status = stats_add_pair(c->set, PAIR_KEY, o->key, err);
    if (status == OK) status = stats_save(o->io, c->set, o->state, true, NULL, 0, &left, NULL, err);
    stats_drop_pair(c->set, PAIR_LAYER);
    stats_drop_pair(c->set, PAIR_KEY);
    c->has_state |= status == OK;
    return status;
}

static enum status layer_done(void *context, size_t layer, struct err *err)
{
    struct calibration *c = context;
    enum status status = settle(c, err);
    return status == OK ? save_state(c, layer, err) : status;
}

/* The last norm's output, where the head has its own weights. */
static enum status watch_head(struct calibration *c, struct err *err)
{
    const struct arch_model *m = c->options->model;
    struct consumers head = { .n = 0 };
    drop_slots(c);
    restart_turns(c);
    if (m->is_tied) return OK;
    add_consumer(&head, &m->head.weight);
    return add_input(c, INPUT_HEAD, &head, m->hidden, err);
}

/* ---- the run ----------------------------------------------------------------------------------------------------------------------- */

/* Bytes of one worker's sums, and of the whole set. */
static uint64_t worker_nbytes(const struct calibrate_options *o, uint64_t channels, uint64_t slots, uint64_t widest)
{
    uint64_t n = channels * (3 * sizeof(double) + 2 * sizeof(float)) + slots * (sizeof(uint64_t) + 2);
    if (o->hist) n += slots * STATS_HIST_BINS * sizeof(uint64_t);
    if (o->gram) n += (GRAM_ROWS * widest + GEMM_SCRATCH) * sizeof(float);
    return n;
}

static uint64_t set_nbytes(const struct calibrate_options *o, uint64_t channels, uint64_t slots, uint64_t gram)
{
    uint64_t n = channels * 6 * sizeof(double) + slots * sizeof(uint64_t) + channels * o->n_sample * sizeof(uint16_t);
    if (o->hist) n += slots * STATS_HIST_BINS * sizeof(uint64_t);
    return n + (o->gram ? gram * sizeof(float) : 0);
}

static enum status open_partials(struct calibration *c, uint64_t slots, struct err *err)
{
    const struct calibrate_options *o = c->options;
    bool fine = true;
    c->partials = calloc(o->n_workers, sizeof *c->partials);
    if (!c->partials) return err_set(err, ERR_MEMORY, "out of memory");
    for (c->n_partials = 0; c->n_partials < o->n_workers; c->n_partials++) {
        struct partial *p = &c->partials[c->n_partials];
        const size_t n = (size_t)c->channels_capacity;
        double *sums = malloc(3 * n * sizeof *sums);
        float *ends = malloc(2 * n * sizeof *ends);
        *p = (struct partial){ .sum2 = sums, .least = ends };
        if (sums) {
            p->sum = sums + n;
            p->sumabs = sums + 2 * n;
        }
        if (ends) p->most = ends + n;
        p->counts = calloc((size_t)slots, sizeof *p->counts);
        p->touched = calloc((size_t)slots, sizeof *p->touched);
        p->gram_done = calloc((size_t)slots, sizeof *p->gram_done);
        if (o->hist) p->hist = malloc((size_t)slots * STATS_HIST_BINS * sizeof *p->hist);
        if (o->gram) p->gram = malloc(GRAM_ROWS * (size_t)c->widest * sizeof *p->gram);
        if (o->gram) p->scratch = malloc(GEMM_SCRATCH * sizeof *p->scratch);
        fine &= sums && ends && p->counts && p->touched && p->gram_done && (!o->hist || p->hist) && (!o->gram || (p->gram && p->scratch));
    }
    return fine ? OK : err_set(err, ERR_MEMORY, "out of memory");
}

static void close_all(struct calibration *c)
{
    drop_slots(c);
    for (unsigned w = 0; w < c->n_partials; w++) {
        struct partial *p = &c->partials[w];
        void *const all[] = { p->sum2, p->least, p->counts, p->touched, p->gram_done, p->hist, p->gram, p->scratch };
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
    }
    turn_destroy(&c->turn);
    free(c->partials);
    free(c->slots);
    free(c->eligible);
    free(c->activations);
}

/* The statistics of an earlier run, and the layer to go on with. */
static enum status read_state(struct calibration *c, struct err *err)
{
    const struct calibrate_options *o = c->options;
    struct stats_set *set = NULL;
    enum status status = stats_open(o->io, o->state, 0, &set, NULL, err);
    if (status != OK) return status;
    const char *layer = stats_pair(set, PAIR_LAYER), *key = stats_pair(set, PAIR_KEY);
    char *end = NULL;
    const unsigned long number = layer ? strtoul(layer, &end, 10) : 0;
    if (!key || !layer || *end || number < 1 || number > o->model->n_layers || strcmp(key, o->key) != 0) {
        stats_close(set);
        return err_set(err, ERR_MISMATCH, "'%s' belongs to a run with another model, other tokens or other options", o->state);
    }
    c->first_layer = number;
    c->has_state = true;
    stats_drop_pair(set, PAIR_LAYER);
    stats_drop_pair(set, PAIR_KEY);
    stats_close(c->set);
    c->set = set;
    return OK;
}

static enum status prepare(struct calibration *c, uint64_t *set_size, uint64_t *worker_size, struct err *err)
{
    const struct calibrate_options *o = c->options;
    const struct arch_model *m = o->model;
    uint64_t all = 0, all_slots = 1, gram = 0, most_slots = 1;
    c->channels_capacity = m->hidden;
    for (size_t l = 0; l < m->n_layers; l++) {
        const struct model_layer *layer = &m->layers[l];
        uint64_t channels, slots, widest;
        measure_layer(m, layer, &channels, &slots, &widest);
        c->channels_capacity = size_max(c->channels_capacity, channels);
        c->widest = size_max(c->widest, widest);
        most_slots = size_max(most_slots, slots);
        all += channels;
        all_slots += slots;
        const uint64_t h = m->hidden, q = (uint64_t)m->n_heads * m->head_dim;
        gram += h * (h + 1) + q * (q + 1) / 2;
        for (size_t e = 0; e < layer->n_experts; e++)
            gram += layer->experts[e].n * (layer->experts[e].n + 1) / 2 + (layer->n_experts > 1 ? h * (h + 1) / 2 : 0);
    }
    all += m->hidden;
    *set_size = set_nbytes(o, all, all_slots, gram);
    *worker_size = worker_nbytes(o, c->channels_capacity, most_slots, c->widest);
    if (*set_size > o->max_ram / 2)
        return err_set(err, ERR_MEMORY, "the statistics of this model take %lluM: --max-ram %lluM, or collect less",
                       (unsigned long long)(*set_size >> 20), (unsigned long long)(2 * *set_size >> 20) + 1);
    c->slots_capacity = (size_t)most_slots;
    c->slots = calloc(c->slots_capacity, sizeof *c->slots);
    c->eligible = calloc(c->windows->n + 1, sizeof *c->eligible);
    if (!c->slots || !c->eligible) return err_set(err, ERR_MEMORY, "out of memory");
    for (size_t w = 0; w < c->windows->n; w++) {
        const size_t rows = c->windows->units[w].n_rows;
        c->eligible[w + 1] = c->eligible[w] + (rows > o->skip_first ? rows - o->skip_first : 0);
    }
    c->n_eligible = c->eligible[c->windows->n];
    if (c->n_eligible == 0) return err_set(err, ERR_USAGE, "no token is left: all windows have at most %zu", o->skip_first);
    return open_partials(c, most_slots, err);
}

static enum status run(struct calibration *c, uint64_t set_size, uint64_t worker_size, struct err *err)
{
    const struct calibrate_options *o = c->options;
    const struct forward_observer observer = { see, c };
    const struct forward_options options = { .io = o->io,
                                             .model = o->model,
                                             .source = o->source,
                                             .stream = o->stream,
                                             .gemm = o->gemm,
                                             .n_workers = o->n_workers,
                                             .max_ram = o->max_ram,
                                             .reserved = set_size,
                                             .reserved_worker = worker_size,
                                             .whole = o->gram,
                                             .stop = o->stop,
                                             .observer = &observer,
                                             .spill = c->activations,
                                             .spill_dir = o->spill_dir,
                                             .first_layer = c->first_layer,
                                             .progress = add_progress,
                                             .layer_begins = layer_begins,
                                             .layer_done = layer_done,
                                             .unit_done = unit_done,
                                             .failed = failed,
                                             .context = c };
    struct forward *forward = NULL;
    enum status status = forward_open(&options, c->windows, &forward, err);
    if (status == OK) status = forward_run(forward, err);
    if (status == OK) status = watch_head(c, err);
    if (status == OK) status = forward_finish(forward, err);
    if (status == OK) status = settle(c, err);
    forward_close(forward, status == OK || !c->has_state);
    return status;
}

enum status calibrate_run(const struct calibrate_options *options, const struct windows *windows, struct stats_set **out, size_t *first_layer,
                          struct err *err)
{
    struct calibration c = { .options = options, .windows = windows };
    uint64_t set_size, worker_size;
    *out = NULL;
    turn_init(&c.turn);
    enum status status = prepare(&c, &set_size, &worker_size, err);
    if (status == OK && options->state) {
        const size_t n = strlen(options->state) + sizeof ".activations";
        c.activations = malloc(n);
        if (c.activations) snprintf(c.activations, n, "%s.activations", options->state);
        else status = err_set(err, ERR_MEMORY, "out of memory");
    }
    if (status == OK) c.set = stats_new(0);
    if (status == OK && !c.set) status = err_set(err, ERR_MEMORY, "out of memory");
    if (status == OK && options->state && options->resume && path_exists(options->state)) status = read_state(&c, err);
    else if (status == OK && options->state) options->io->unlink(options->state);
    if (first_layer) *first_layer = c.first_layer;
    if (status == OK) status = run(&c, set_size, worker_size, err);
    if (status == OK) {
        c.set->chunk_size = windows->max_rows;
        c.set->chunk_count = windows->n;
        *out = c.set;
        if (options->state) options->io->unlink(options->state);
    } else stats_close(c.set);
    close_all(&c);
    return status;
}
