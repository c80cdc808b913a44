/* forward_layer.c: see forward_layer.h.
 *
 * Drawing: read x (and the sum) -> pieces: heads of attention, then experts or channels, each adds to the sum -> where a half of the layer ends the
 * sum joins x -> write x (and the sum, where the pass ends between).
 * Why this way: see forward_layer.h. What a piece needs from before (h, the choice of experts) is made again in a later pass: it is cheap.
 * Corner cases: see forward_layer.h.
 * Reference: forward_layer.h. Worked number: router scores 1, 3, 2, two chosen, normalised: experts 1 and 2 with 0.731, 0.269.
 */
#include "smoothquant/forward_layer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"

/* ---- memory of a worker ------------------------------------------------------------------------------------------------------------ */

struct room {
    uint64_t rows, wide, values, scores, gathered, router, keys, head, used; /* floats of the buffers */
};

static struct room room_of(const struct forward_shared *s, size_t max_kv_heads)
{
    const struct arch_model *m = s->model;
    const uint64_t kv = (uint64_t)max_kv_heads * m->head_dim, q = kv * (m->n_heads / m->n_kv_heads);
    struct room room = { .rows = (uint64_t)s->max_rows * m->hidden };
    uint64_t experts = 1;
    for (size_t l = 0; l < m->n_layers; l++) experts = size_max(experts, m->layers[l].n_experts);
    room.wide = s->max_rows * size_max(size_max(q, s->mlp_block), m->hidden);
    room.values = s->max_rows * size_max(kv, s->mlp_block);
    room.scores = size_max(ATTENTION_BLOCK * (uint64_t)s->max_keys, experts);
    room.gathered = experts > 1 ? room.rows : 0;
    room.router = experts > 1 ? s->max_rows * experts : 0;
    room.keys = s->caches ? (uint64_t)s->max_keys * m->n_kv_heads * m->head_dim : 0;
    room.head = s->caches ? s->max_rows * HEAD_PANEL : 0;
    room.used = s->max_rows * size_max(1, m->n_experts_used);
    return room;
}

static uint64_t total(const struct room *r)
{
    return 3 * r->rows + 2 * r->wide + 2 * r->values + r->scores + r->gathered + r->router + 2 * r->keys + r->head + 2 * r->used + r->rows +
           GEMM_SCRATCH;
}

uint64_t desk_floats(const struct forward_shared *shared, size_t max_kv_heads)
{
    const struct room room = room_of(shared, max_kv_heads);
    return total(&room);
}

enum status desk_open(const struct forward_shared *shared, size_t max_kv_heads, struct desk *desk, struct err *err)
{
    const struct room room = room_of(shared, max_kv_heads);
    float *at = malloc((size_t)total(&room) * sizeof *at);
    *desk = (struct desk){ .memory = at };
    if (!at) return err_set(err, ERR_MEMORY, "out of memory for the activations of %zu tokens", shared->max_rows);
    desk->chosen = malloc((size_t)room.used * sizeof *desk->chosen);
    desk->rows = malloc(shared->max_rows * sizeof *desk->rows);
    if (!desk->chosen || !desk->rows) {
        desk_close(desk);
        return err_set(err, ERR_MEMORY, "out of memory");
    }
    float **const buffers[] = { &desk->x,        &desk->sum,    &desk->h,    &desk->a,      &desk->d,    &desk->b,      &desk->c,   &desk->scores,
                                &desk->gathered, &desk->router, &desk->keys, &desk->values, &desk->head, &desk->shares, &desk->gemm };
    const uint64_t sizes[] = { room.rows,     room.rows,   room.rows, room.wide, room.wide, room.values, room.values, room.scores,
                               room.gathered, room.router, room.keys, room.keys, room.head, room.used,   GEMM_SCRATCH };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        *buffers[i] = at;
        at += sizes[i];
    }
    return OK;
}

void desk_close(struct desk *desk)
{
    free(desk->memory);
    free(desk->chosen);
    free(desk->rows);
    *desk = (struct desk){ 0 };
}

/* ---- a unit on its way through a pass ---------------------------------------------------------------------------------------------- */

enum ready { READY_NONE, READY_ATTN, READY_FFN };

struct run {
    const struct forward_shared *s;
    const struct loaded_layer *loaded;
    const struct forward_unit *unit;
    size_t unit_number;
    unsigned worker;
    struct desk *desk;
    enum ready ready; /* what h holds */
    bool is_routed; /* chosen and shares are there */
    struct err *err;
};

/* out[n_rows][n_out] (+)= in W^T (+ bias) */
static void linear(const struct run *r, const float *in, size_t n_rows, size_t in_stride, size_t n_in, const float *weight, const float *bias,
                   size_t n_out, bool add, float *out, size_t out_stride)
{
    gemm_multiply(&r->s->gemm, n_rows, n_out, n_in, (struct gemm_matrix){ in, in_stride, false }, (struct gemm_matrix){ weight, n_in, true }, add,
                  out, out_stride, r->desk->gemm);
    add_bias(out, n_rows, n_out, out_stride, bias);
}

static enum status show(const struct run *r, enum input_kind kind, size_t expert, size_t first, size_t n, const float *x, size_t n_rows,
                        size_t stride, const uint32_t *rows)
{
    const struct forward_observer *observer = r->s->observer;
    if (!observer || n_rows == 0) return OK;
    const struct forward_input input = { kind, r->loaded->layer, expert, first, n, n_rows, stride, x, rows };
    return observer->see(observer->context, r->worker, r->unit_number, &input, r->err);
}

static void make_h(struct run *r, enum ready wanted)
{
    const size_t hidden = r->s->model->hidden;
    const struct loaded_layer *l = r->loaded;
    /* one norm for both halves: the map has no second one */
    if (wanted == READY_FFN && r->s->model->parallel && l->ffn_norm.kind == NORM_NONE) wanted = READY_ATTN;
    if (r->ready == wanted) return;
    norm_rows(wanted == READY_ATTN ? &l->attn_norm : &l->ffn_norm, r->desk->x, hidden, r->unit->n_rows, r->desk->h, hidden);
    r->ready = wanted;
}

/* x += factor * post(sum); sum = 0 */
static void join(struct run *r, const struct norm *post)
{
    const size_t n = r->unit->n_rows * r->s->model->hidden;
    const float factor = r->s->model->residual_scale;
    float *x = r->desk->x, *sum = r->desk->sum;
    if (post->kind != NORM_NONE) norm_rows(post, sum, post->n, r->unit->n_rows, sum, post->n);
    for (size_t i = 0; i < n; i++) x[i] += factor * sum[i];
    memset(sum, 0, n * sizeof *sum);
    r->ready = READY_NONE;
    r->is_routed = false;
}

/* ---- attention --------------------------------------------------------------------------------------------------------------------- */

static void clip(float *x, size_t n, float limit)
{
    for (size_t i = 0; i < n && limit > 0.0f; i++) x[i] = x[i] > limit ? limit : x[i] < -limit ? -limit : x[i];
}

/* Norms of queries or keys: of every head, or of all. */
static void norm_heads(const struct arch_model *m, const struct norm *norm, float *x, size_t n_rows, size_t n_heads)
{
    if (norm->kind == NORM_NONE) return;
    const size_t wide = n_heads * m->head_dim;
    if (m->qk_norm == QK_NORM_ALL) norm_rows(norm, x, wide, n_rows, x, wide);
    else norm_rows(norm, x, m->head_dim, n_rows * n_heads, x, m->head_dim);
}

static void turn(const struct run *r, float *x, size_t n_heads)
{
    const struct arch_model *m = r->s->model;
    const struct model_layer *facts = r->loaded->facts;
    if (m->position != POSITION_ROPE || facts->no_rope) return;
    const struct rope_table *table = r->unit->length > r->s->long_from ? &r->s->long_ropes[facts->rope] : &r->s->ropes[facts->rope];
    for (size_t t = 0; t < r->unit->n_rows; t++)
        rope_turn(table, r->unit->position + (r->unit->cache ? 0 : t), x + t * n_heads * m->head_dim, n_heads, m->head_dim);
}

/* One new token of each sequence, over the keys and values before it. The piece has all heads. */
static enum status attend_cached(const struct run *r, const struct attention *attention, const float *q, const float *k, const float *v, float *out)
{
    const struct forward_unit *unit = r->unit;
    struct kv_cache *cache = unit->cache;
    const size_t kv = attention->n_kv_heads * attention->head_dim, wide = attention->n_heads * attention->head_dim, pos = unit->position;
    enum status status = OK;
    for (size_t t = 0; t < unit->n_rows && status == OK; t++) {
        const uint64_t row = (unit->first_row + t) * cache->n_positions, plane = 2 * r->loaded->layer;
        status = residual_write(cache->store, plane, row + pos, 1, k + t * kv, r->err);
        if (status == OK) status = residual_write(cache->store, plane + 1, row + pos, 1, v + t * kv, r->err);
        if (status == OK) status = residual_read(cache->store, plane, row, pos + 1, r->desk->keys, r->err);
        if (status == OK) status = residual_read(cache->store, plane + 1, row, pos + 1, r->desk->values, r->err);
        if (status == OK)
            attend(attention, q + t * wide, wide, 1, r->desk->keys, r->desk->values, kv, pos + 1, out + t * wide, wide, r->desk->scores,
                   r->desk->gemm);
    }
    return status;
}

static enum status run_attention(struct run *r, const struct loaded_piece *piece)
{
    const struct arch_model *m = r->s->model;
    const struct loaded_layer *l = r->loaded;
    struct desk *desk = r->desk;
    const size_t rows = r->unit->n_rows, share = m->n_heads / m->n_kv_heads, n_kv = piece->piece.n, n_q = n_kv * share, kv = n_kv * m->head_dim;
    const size_t wide = n_q * m->head_dim, first_q = piece->piece.first * share;
    enum status status = OK;
    make_h(r, READY_ATTN);
    if (piece->piece.first == 0) status = show(r, INPUT_ATTN, 0, 0, m->hidden, desk->h, rows, m->hidden, NULL);
    if (status != OK) return status;
    linear(r, desk->h, rows, m->hidden, m->hidden, piece->q, piece->q_bias, wide, false, desk->a, wide);
    linear(r, desk->h, rows, m->hidden, m->hidden, piece->k, piece->k_bias, kv, false, desk->b, kv);
    linear(r, desk->h, rows, m->hidden, m->hidden, piece->v, piece->v_bias, kv, false, desk->c, kv);
    norm_heads(m, &l->q_norm, desk->a, rows, n_q);
    norm_heads(m, &l->k_norm, desk->b, rows, n_kv);
    clip(desk->a, rows * wide, m->clip_qkv);
    clip(desk->b, rows * kv, m->clip_qkv);
    clip(desk->c, rows * kv, m->clip_qkv);
    turn(r, desk->a, n_q);
    turn(r, desk->b, n_kv);
    const struct attention attention = { &r->s->gemm,
                                         n_q,
                                         n_kv,
                                         m->head_dim,
                                         m->attn_scale,
                                         m->attn_softcap,
                                         l->facts->window,
                                         l->sinks ? l->sinks + first_q : NULL,
                                         r->s->slopes ? r->s->slopes + first_q : NULL };
    if (r->unit->cache) status = attend_cached(r, &attention, desk->a, desk->b, desk->c, desk->d);
    else attend(&attention, desk->a, wide, rows, desk->b, desk->c, kv, rows, desk->d, wide, desk->scores, desk->gemm);
    if (status == OK) status = show(r, INPUT_ATTN_OUT, 0, first_q * m->head_dim, wide, desk->d, rows, wide, NULL);
    if (status != OK) return status;
    linear(r, desk->d, rows, wide, wide, piece->o, piece->o_bias, m->hidden, true, desk->sum, m->hidden);
    if (piece->piece.is_last && !m->parallel) join(r, &l->post_attn_norm);
    return OK;
}

/* ---- experts ----------------------------------------------------------------------------------------------------------------------- */

/* The n_used largest of scores[n], lower numbers first among equals, in falling order. */
static void choose(const float *scores, size_t n, size_t n_used, uint32_t *chosen)
{
    for (size_t u = 0; u < n_used; u++) {
        size_t best = SIZE_MAX;
        for (size_t e = 0; e < n; e++) {
            bool taken = false;
            for (size_t w = 0; w < u; w++) taken |= chosen[w] == e;
            if (!taken && (best == SIZE_MAX || scores[e] > scores[best])) best = e;
        }
        chosen[u] = (uint32_t)best;
    }
}

/* Shares of the chosen experts of one token; scores become probabilities. */
static void share_out(const struct run *r, float *scores, float *scratch, uint32_t *chosen, float *shares)
{
    const struct arch_model *m = r->s->model;
    const size_t n = r->loaded->facts->n_experts, n_used = m->n_experts_used;
    if (m->router == ROUTER_SOFTMAX) softmax(scores, n, NULL);
    for (size_t e = 0; e < n && m->router == ROUTER_SIGMOID; e++) scores[e] = sigmoid_f32(scores[e]);
    for (size_t e = 0; e < n; e++) scratch[e] = scores[e] + (r->loaded->router_choice ? r->loaded->router_choice[e] : 0.0f);
    choose(scratch, n, n_used, chosen);
    for (size_t u = 0; u < n_used; u++) shares[u] = scores[chosen[u]];
    if (m->router == ROUTER_SOFTMAX_CHOSEN) softmax(shares, n_used, NULL);
    double sum = 0.0;
    for (size_t u = 0; u < n_used; u++) sum += (double)shares[u];
    const float factor = (float)((m->norm_topk && sum > 0.0 ? 1.0 / sum : 1.0) * (double)m->router_scale);
    for (size_t u = 0; u < n_used; u++) shares[u] *= factor;
}

static enum status route(struct run *r)
{
    const struct arch_model *m = r->s->model;
    const size_t n = r->loaded->facts->n_experts, rows = r->unit->n_rows;
    if (r->is_routed) return OK;
    linear(r, r->desk->h, rows, m->hidden, m->hidden, r->loaded->router, r->loaded->router_bias, n, false, r->desk->router, n);
    for (size_t t = 0; t < rows; t++)
        share_out(r, r->desk->router + t * n, r->desk->scores, r->desk->chosen + t * m->n_experts_used, r->desk->shares + t * m->n_experts_used);
    r->is_routed = true;
    return OK;
}

/* Rows that chose the expert, gathered; their shares go to factors. */
static size_t gather(const struct run *r, size_t expert, float *factors)
{
    const struct arch_model *m = r->s->model;
    size_t n = 0;
    for (size_t t = 0; t < r->unit->n_rows; t++)
        for (size_t u = 0; u < m->n_experts_used; u++) {
            if (r->desk->chosen[t * m->n_experts_used + u] != expert) continue;
            memcpy(r->desk->gathered + n * m->hidden, r->desk->h + t * m->hidden, m->hidden * sizeof(float));
            factors[n] = r->desk->shares[t * m->n_experts_used + u];
            r->desk->rows[n++] = (uint32_t)t;
        }
    return n;
}

struct mlp_kind {
    size_t expert;
    enum input_kind in, down; /* in: INPUT_KIND_COUNT when it is shown elsewhere */
    const uint32_t *rows;
};

/* out[n_rows][hidden] += the piece's part of the MLP of in. */
static enum status run_channels(const struct run *r, const struct loaded_piece *piece, const struct mlp_kind *kind, const float *in, size_t n_rows,
                                float *out)
{
    const struct arch_model *m = r->s->model;
    const size_t n = piece->piece.n;
    struct desk *desk = r->desk;
    enum status status = OK;
    if (kind->in != INPUT_KIND_COUNT && piece->piece.first == 0)
        status = show(r, kind->in, kind->expert, 0, m->hidden, in, n_rows, m->hidden, kind->rows);
    for (size_t c = 0; c < n && status == OK; c += r->s->mlp_block) {
        const size_t now = n - c < r->s->mlp_block ? n - c : r->s->mlp_block;
        float *x = desk->a;
        linear(r, in, n_rows, m->hidden, m->hidden, piece->up + c * m->hidden, piece->up_bias ? piece->up_bias + c : NULL, now, false,
               m->gated ? desk->b : desk->a, now);
        if (m->gated) {
            linear(r, in, n_rows, m->hidden, m->hidden, piece->gate + c * m->hidden, piece->gate_bias ? piece->gate_bias + c : NULL, now, false, x,
                   now);
            if (m->glu_limit > 0.0f) activate_clamped(x, desk->b, n_rows * now, m->glu_limit);
            else activate_gated(m->act, x, desk->b, n_rows * now);
        } else activate(m->act, x, n_rows * now);
        status = show(r, kind->down, kind->expert, piece->piece.first + c, now, x, n_rows, now, kind->rows);
        if (status == OK)
            gemm_multiply(&r->s->gemm, n_rows, m->hidden, now, (struct gemm_matrix){ x, now, false },
                          (struct gemm_matrix){ piece->down + c, n, true }, true, out, m->hidden, desk->gemm);
    }
    add_bias(out, n_rows, m->hidden, m->hidden, piece->down_bias);
    return status;
}

static void scatter(const struct run *r, const float *from, const uint32_t *rows, const float *factors, size_t n)
{
    const size_t hidden = r->s->model->hidden;
    for (size_t i = 0; i < n; i++) {
        float *to = r->desk->sum + (rows ? rows[i] : i) * hidden;
        for (size_t j = 0; j < hidden; j++) to[j] += factors[i] * from[i * hidden + j];
    }
}

static enum status run_expert(struct run *r, const struct loaded_piece *piece)
{
    const size_t hidden = r->s->model->hidden;
    const struct mlp_kind kind = { piece->piece.expert, INPUT_EXPERT, INPUT_EXPERT_DOWN, r->desk->rows };
    float *factors = r->desk->c;
    enum status status = route(r);
    const size_t n = gather(r, piece->piece.expert, factors);
    memset(r->desk->d, 0, n * hidden * sizeof(float));
    if (status == OK) status = run_channels(r, piece, &kind, r->desk->gathered, n, r->desk->d);
    if (status == OK) scatter(r, r->desk->d, r->desk->rows, factors, n);
    return status;
}

/* The expert of all tokens; its input is that of the router. */
static enum status run_shared(struct run *r, const struct loaded_piece *piece)
{
    const struct arch_model *m = r->s->model;
    const size_t rows = r->unit->n_rows;
    const struct mlp_kind kind = { 0, INPUT_KIND_COUNT, INPUT_SHARED_DOWN, NULL };
    float *factors = r->desk->c;
    if (!r->loaded->shared_gate) return run_channels(r, piece, &kind, r->desk->h, rows, r->desk->sum);
    linear(r, r->desk->h, rows, m->hidden, m->hidden, r->loaded->shared_gate, r->loaded->shared_gate_bias, 1, false, factors, 1);
    for (size_t t = 0; t < rows; t++) factors[t] = sigmoid_f32(factors[t]);
    memset(r->desk->d, 0, rows * m->hidden * sizeof(float));
    enum status status = run_channels(r, piece, &kind, r->desk->h, rows, r->desk->d);
    if (status == OK) scatter(r, r->desk->d, NULL, factors, rows);
    return status;
}

static enum status run_mlp(struct run *r, const struct loaded_piece *piece)
{
    const struct arch_model *m = r->s->model;
    const struct model_layer *facts = r->loaded->facts;
    const bool is_dense = !r->loaded->router;
    enum status status = OK;
    make_h(r, READY_FFN);
    if (piece->piece.expert == 0 && piece->piece.first == 0)
        status = show(r, INPUT_FFN, 0, 0, m->hidden, r->desk->h, r->unit->n_rows, m->hidden, NULL);
    const struct mlp_kind dense = { 0, INPUT_KIND_COUNT, INPUT_DOWN, NULL };
    if (status == OK && is_dense) status = run_channels(r, piece, &dense, r->desk->h, r->unit->n_rows, r->desk->sum);
    else if (status == OK && piece->piece.expert < facts->n_experts) status = run_expert(r, piece);
    else if (status == OK) status = run_shared(r, piece);
    if (status == OK && piece->piece.is_last) join(r, &r->loaded->post_ffn_norm);
    return status;
}

/* ---- a pass ------------------------------------------------------------------------------------------------------------------------ */

enum status layer_run(const struct forward_shared *shared, const struct loaded_layer *loaded, const struct forward_unit *unit, size_t unit_number,
                      unsigned worker, struct residual *residual, uint64_t from, uint64_t to, struct desk *desk, struct err *err)
{
    struct run run = { .s = shared, .loaded = loaded, .unit = unit, .unit_number = unit_number, .worker = worker, .desk = desk, .err = err };
    const struct piece *first = &loaded->pieces[0].piece, *last = &loaded->pieces[loaded->n_pieces - 1].piece;
    const bool parallel = shared->model->parallel;
    /* the sum is empty where a half of the layer begins */
    const bool goes_on = first->kind == PIECE_ATTENTION ? first->first > 0 : first->first > 0 || first->expert > 0 || parallel;
    const bool stays = !(last->is_last && (last->kind == PIECE_MLP || !parallel));
    enum status status = residual_read(residual, from, unit->first_row, unit->n_rows, desk->x, err);
    if (status == OK && goes_on) status = residual_read(residual, PLANE_SUM, unit->first_row, unit->n_rows, desk->sum, err);
    else memset(desk->sum, 0, unit->n_rows * shared->model->hidden * sizeof *desk->sum);
    for (size_t i = 0; i < loaded->n_pieces && status == OK; i++) {
        const struct loaded_piece *piece = &loaded->pieces[i];
        status = piece->piece.kind == PIECE_ATTENTION ? run_attention(&run, piece) : run_mlp(&run, piece);
    }
    if (status == OK) status = residual_write(residual, to, unit->first_row, unit->n_rows, desk->x, err);
    if (status == OK && stays) status = residual_write(residual, PLANE_SUM, unit->first_row, unit->n_rows, desk->sum, err);
    return status;
}
