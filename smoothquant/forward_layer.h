/* forward_layer.h: one layer over one unit of tokens: its weights in memory, and what is done with them.
 *
 *   unit     tokens of one sequence (attention among themselves), or one new token of each of several sequences (attention over a cache)
 *   desk     the buffers of one worker;  layer_load(pass) -> layer_run(unit) for all units -> the next pass
 *
 * Why this way: a unit is worked on by one thread from the beginning to the end of a pass, so no number depends on how many threads there are.
 * Corner cases: between two passes of a layer the residual stream and the sum that will join it wait in planes of the spill; an expert that no token of
 * the unit chose does nothing; equal router scores choose the lower expert.
 * Reference: arch_model.h for the formulas; Shazeer et al., arXiv 1701.06538 (experts). Worked number: see forward_plan.h.
 */
#ifndef LLMQ_SMOOTHQUANT_FORWARD_LAYER_H
#define LLMQ_SMOOTHQUANT_FORWARD_LAYER_H

#include "smoothquant/forward_attention.h"
#include "smoothquant/forward_load.h"
#include "smoothquant/residual.h"

#define HEAD_PANEL ((size_t)1024) /* rows of the vocabulary at once, whatever the memory */

/* Which linear layers' input it is. */
enum input_kind {
    INPUT_ATTN,
    INPUT_ATTN_OUT,
    INPUT_FFN,
    INPUT_DOWN,
    INPUT_EXPERT,
    INPUT_EXPERT_DOWN,
    INPUT_SHARED_DOWN,
    INPUT_HEAD,
    INPUT_KIND_COUNT
};

struct forward_input {
    enum input_kind kind;
    size_t layer, expert; /* expert: of INPUT_EXPERT and INPUT_EXPERT_DOWN */
    size_t first_channel, n_channels; /* those that are seen now, of all that this input has */
    size_t n_rows, stride;
    const float *x;
    const uint32_t *rows; /* rows[r]: row of the unit that x's row r belongs to; NULL: r */
};

/* Sees every distinct input of a layer's linears; calls for one unit come from one worker, in the order of the pass. */
struct forward_observer {
    enum status (*see)(void *context, unsigned worker, size_t unit, const struct forward_input *input, struct err *err);
    void *context;
};

/* Keys and values of earlier positions, for units of one new token a sequence. Planes 2 l and 2 l + 1 of the store are keys and values of layer l; a row is
 * a position of a sequence: sequence * n_positions + position. */
struct kv_cache {
    struct residual *store;
    size_t n_positions;
};

struct forward_unit {
    uint64_t first_row; /* in the planes of the spill: the number of its first token among all */
    size_t n_rows;
    const int32_t *ids; /* NULL in units over a cache, whose tokens are given one by one */
    size_t position; /* of the first row; of all rows over a cache */
    size_t length; /* of the whole sequence: some scalings of rotary positions depend on it */
    struct kv_cache *cache; /* NULL: the unit is a whole sequence */
};

/* Planes of the spill. */
enum { PLANE_EVEN, PLANE_ODD, PLANE_SUM, PLANE_ASIDE, PLANE_COUNT };

/* What all layers share. */
struct forward_shared {
    const struct arch_model *model;
    struct weight_source source;
    struct gemm gemm;
    struct rope_table ropes[MODEL_ROPES_MAX], long_ropes[MODEL_ROPES_MAX]; /* for sequences of up to long_from tokens, and for longer ones */
    size_t long_from;
    const float *slopes; /* ALiBi: one a head; else NULL */
    const struct forward_observer *observer; /* NULL: none */
    size_t mlp_block; /* channels of an MLP at once */
    size_t max_rows; /* of a unit */
    size_t max_keys; /* a query sees */
    bool caches; /* units are over a cache */
};

/* Memory of one worker. */
struct desk {
    float *memory; /* owned, all of it */
    float *x, *sum, *h; /* [max_rows][hidden] */
    float *a, *b, *c, *d; /* room of attention, or of an MLP */
    float *scores, *gathered, *gemm;
    float *keys, *values; /* of one sequence, where units are over a cache */
    float *head; /* [max_rows][HEAD_PANEL], there too */
    float *router; /* [max_rows][experts] */
    uint32_t *chosen, *rows; /* [max_rows][experts used]; rows of one expert */
    float *shares; /* of the chosen, like them */
};

/* Floats a desk takes. max_kv_heads: of a piece. */
uint64_t desk_floats(const struct forward_shared *shared, size_t max_kv_heads);
enum status desk_open(const struct forward_shared *shared, size_t max_kv_heads, struct desk *desk, struct err *err);
void desk_close(struct desk *desk);

/* Sends a unit through the loaded pass: reads plane `from` of the residual (and the sum, in later passes), writes plane `to`, and the sum where the layer
 * goes on. */
enum status layer_run(const struct forward_shared *shared, const struct loaded_layer *loaded, const struct forward_unit *unit, size_t unit_number,
                      unsigned worker, struct residual *residual, uint64_t from, uint64_t to, struct desk *desk, struct err *err);

#endif
