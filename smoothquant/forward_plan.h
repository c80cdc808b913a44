/* forward_plan.h: how a layer is cut so that its weights fit in memory: pieces, and passes of pieces that are loaded together.
 *
 *   layer    [ attention, key heads 0-3 | 4-7 ]  [ expert 0 | expert 1 | ... | shared ]      pieces
 *   passes   [ 0-3 | 4-7 | expert 0 ]  [ expert 1 ... ]  ...      each pass: load its weights, all units go through
 *
 * Why this way: every cut is exact: heads are independent up to the output projection, channels of an MLP up to down; both only add to the sum
 * that joins the residual stream. So any layer runs in any memory that holds one piece, and its weights are read once.
 * Corner cases: a layer that fits is one pass; norms over all heads at once, and Gram matrices, want pieces uncut; experts are added in ascending
 * order whatever the passes are.
 * Reference: the project's smoothquant notes 4b. Worked number: Llama-2-7B, 202 M weights a layer: one pass in 810 MB, two in 410 MB.
 */
#ifndef LLMQ_SMOOTHQUANT_FORWARD_PLAN_H
#define LLMQ_SMOOTHQUANT_FORWARD_PLAN_H

#include "smoothquant/arch_model.h"

enum piece_kind { PIECE_ATTENTION, PIECE_MLP };

struct piece {
    enum piece_kind kind;
    size_t expert; /* MLP: number of the expert, n_experts for the shared one */
    size_t first, n; /* key heads, or channels */
    bool is_last; /* of its kind in this layer */
    uint64_t n_weights; /* floats, biases included */
};

struct pass {
    size_t first, n; /* pieces */
    uint64_t n_weights;
};

struct layer_plan {
    struct piece *pieces; /* owned */
    size_t n_pieces;
    struct pass *passes; /* owned */
    size_t n_passes;
    uint64_t n_weights; /* of the largest pass */
    size_t max_kv_heads; /* of a piece */
};

/* The MLP a piece belongs to. */
const struct model_mlp *piece_mlp(const struct model_layer *layer, const struct piece *piece);

/* Plans layer number `layer` for passes of at most max_weights floats. whole: no expert and no attention may be cut. ERR_MEMORY when a piece alone is
 * larger: *need gets what it takes. */
enum status layer_plan_make(const struct arch_model *model, size_t layer, uint64_t max_weights, bool whole, struct layer_plan *plan, uint64_t *need,
                            struct err *err);
void layer_plan_free(struct layer_plan *plan);

#endif
