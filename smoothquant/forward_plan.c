/* forward_plan.c: see forward_plan.h.
 *
 * Formula: a key head takes hidden * head_dim * (2 share + 2) weights (q and o of its `share` query heads, k, v); a channel 3 hidden, or 2 without gate.
 * Why this way: pieces as large as fit, of equal size, so that the products stay wide; channels in multiples of 256, the blocks of every format.
 * Corner cases: see forward_plan.h.
 * Reference: forward_plan.h. Worked number: 11008 channels in pieces of at most 6000: two of 5632 and 5376.
 */
#include "smoothquant/forward_plan.h"

#include <stdlib.h>

#include "base/size.h"

enum { CHANNELS_UNIT = 256 };

const struct model_mlp *piece_mlp(const struct model_layer *layer, const struct piece *piece)
{
    return piece->expert < layer->n_experts ? &layer->experts[piece->expert] : &layer->shared;
}

/* Pieces of n things of `each` weights, in multiples of unit, at most max weights each. */
static uint64_t piece_length(uint64_t n, uint64_t each, uint64_t unit, uint64_t max, bool whole)
{
    if (n * each <= max || whole) return n;
    const uint64_t most = max / each / unit * unit;
    if (most == 0) return size_min(unit, n);
    const uint64_t n_pieces = size_ceil_div(n, most);
    return size_ceil_div(size_ceil_div(n, n_pieces), unit) * unit;
}

static enum status add_pieces(struct layer_plan *plan, struct piece like, uint64_t n, uint64_t each, uint64_t fixed, uint64_t unit, uint64_t max,
                              bool whole, struct err *err)
{
    const uint64_t length = piece_length(n, each, unit, max - size_min(max, fixed), whole);
    for (uint64_t first = 0; first < n; first += length) {
        struct piece *bigger = realloc(plan->pieces, (plan->n_pieces + 1) * sizeof *bigger);
        if (!bigger) return err_set(err, ERR_MEMORY, "out of memory");
        plan->pieces = bigger;
        like.first = (size_t)first;
        like.n = (size_t)size_min(length, n - first);
        like.n_weights = like.n * each + fixed;
        plan->pieces[plan->n_pieces++] = like;
    }
    plan->pieces[plan->n_pieces - 1].is_last = true;
    return OK;
}

static enum status cut(const struct arch_model *model, const struct model_layer *layer, uint64_t max, bool whole, struct layer_plan *plan,
                       struct err *err)
{
    const uint64_t share = model->n_heads / model->n_kv_heads, d = model->head_dim;
    const uint64_t head = model->hidden * d * (2 * share + 2) + d * (share + 2),
                   channel = model->hidden * (model->gated ? 3 : 2) + (model->gated ? 2 : 1);
    const size_t n_mlps = layer->n_experts + layer->has_shared;
    enum status status = add_pieces(plan, (struct piece){ .kind = PIECE_ATTENTION }, model->n_kv_heads, head, model->hidden, 1, max,
                                    whole || model->qk_norm == QK_NORM_ALL, err);
    for (size_t e = 0; e < n_mlps && status == OK; e++) {
        const struct model_mlp *mlp = e < layer->n_experts ? &layer->experts[e] : &layer->shared;
        status = add_pieces(plan, (struct piece){ .kind = PIECE_MLP, .expert = e }, mlp->n, channel, model->hidden, CHANNELS_UNIT, max, whole, err);
        if (status == OK) plan->pieces[plan->n_pieces - 1].is_last = e + 1 == n_mlps;
    }
    return status;
}

static enum status group(struct layer_plan *plan, uint64_t max, struct err *err)
{
    plan->passes = calloc(plan->n_pieces + 1, sizeof *plan->passes);
    if (!plan->passes) return err_set(err, ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < plan->n_pieces; i++) {
        const struct piece *piece = &plan->pieces[i];
        struct pass *pass = plan->n_passes ? &plan->passes[plan->n_passes - 1] : NULL;
        if (!pass || pass->n_weights + piece->n_weights > max) {
            pass = &plan->passes[plan->n_passes++];
            pass->first = i;
        }
        pass->n++;
        pass->n_weights += piece->n_weights;
        plan->n_weights = size_max(plan->n_weights, pass->n_weights);
        if (piece->kind == PIECE_ATTENTION) plan->max_kv_heads = (size_t)size_max(plan->max_kv_heads, piece->n);
    }
    return OK;
}

enum status layer_plan_make(const struct arch_model *model, size_t layer, uint64_t max_weights, bool whole, struct layer_plan *plan, uint64_t *need,
                            struct err *err)
{
    *plan = (struct layer_plan){ 0 };
    *need = 0;
    enum status status = cut(model, &model->layers[layer], max_weights, whole, plan, err);
    for (size_t i = 0; status == OK && i < plan->n_pieces; i++) *need = size_max(*need, plan->pieces[i].n_weights);
    if (status == OK && *need > max_weights) status = err_set(err, ERR_MEMORY, "layer %zu does not fit", layer);
    if (status == OK) status = group(plan, max_weights, err);
    if (status != OK) layer_plan_free(plan);
    return status;
}

void layer_plan_free(struct layer_plan *plan)
{
    free(plan->pieces);
    free(plan->passes);
    *plan = (struct layer_plan){ 0 };
}
