/* forward_load.h: the weights of a pass in memory: matrices of its pieces, and the vectors and the router that every pass of a layer needs.
 *
 *   pass --tasks (some rows of one matrix each)--> workers --weight_load--> one block of memory
 *
 * Why this way: reading, decoding and turning is shared over the workers; the block is reused from pass to pass.
 * Corner cases: the first error in the order of tasks is the one reported; a norm or bias that the model lacks is NULL.
 * Reference: forward_plan.h. Worked number: 512 x 1024 floats a task.
 */
#ifndef LLMQ_SMOOTHQUANT_FORWARD_LOAD_H
#define LLMQ_SMOOTHQUANT_FORWARD_LOAD_H

#include "smoothquant/forward_plan.h"

/* Matrices are [n_out][n_in], rows n_in apart. */
struct loaded_piece {
    struct piece piece;
    const float *q, *k, *v, *q_bias, *k_bias, *v_bias; /* of its heads */
    const float *o; /* [hidden][query heads * head_dim] of its heads */
    const float *gate, *up, *gate_bias, *up_bias; /* of its channels */
    const float *down; /* [hidden][channels] */
    const float *o_bias, *down_bias; /* with the first piece alone, else NULL */
};

struct loaded_layer {
    size_t layer;
    const struct model_layer *facts;
    struct norm attn_norm, post_attn_norm, ffn_norm, post_ffn_norm, q_norm, k_norm;
    const float *sinks, *router, *router_bias, *router_choice, *shared_gate, *shared_gate_bias;
    struct loaded_piece *pieces; /* of the pass; owned */
    size_t n_pieces, pieces_capacity;
    float *memory; /* owned */
    uint64_t capacity, used; /* floats */
};

/* Floats of a layer besides its pieces, at most. */
uint64_t layer_vectors(const struct arch_model *model, size_t layer);

enum status layer_load(const struct arch_model *model, const struct weight_source *source, size_t layer, const struct layer_plan *plan, size_t pass,
                       unsigned n_workers, struct loaded_layer **loaded, struct err *err);
void layer_unload(struct loaded_layer *loaded); /* NULL allowed */

/* A norm over n channels of vectors that are loaded into `to` (2 n floats), for those outside of layers. */
enum status norm_load(const struct arch_model *model, const struct weight_source *source, const struct model_norm *norm, size_t n, float *to,
                      struct norm *out, struct err *err);

/* Parts of matrices loaded on n_workers threads: rows [first, first + n) of part into to. */
enum status rows_load(const struct weight_source *source, const struct weight_part *part, uint64_t first, uint64_t n, unsigned n_workers, float *to,
                      struct err *err);

#endif
