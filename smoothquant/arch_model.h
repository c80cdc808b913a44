/* arch_model.h: a model as the forward pass sees it: sizes, small enumerations, and where every weight lies.
 *
 *   x = embed(token) (+ position)                                per layer:
 *   a = post(o(attend(rope(q(h)), rope(k(h)), v(h))))             h = attn_norm(x)
 *   x = x + a                                                     (parallel: x = x + a + m, m from the same x)
 *   m = post(down(act(gate(h)) * up(h)))                          h = ffn_norm(x)      experts: sum over the chosen of p_e m_e
 *   x = x + m                                                     logits = head(output_norm(x))
 *
 * Why this way: everything that differs between architectures is a row of the map's section `forward`, read once; the pass branches on facts and
 * knows no model.
 * Corner cases: a norm without tensors is left out; a head without tensor is the token embedding; a dense layer is a layer of one expert without router; a
 * weight that is missing or has another shape than the facts say is refused by name.
 * Reference: configs/arch/README.md (section forward). Worked number: stories260K: 5 layers, hidden 64, 8 heads on 4, 172 channels, 512 tokens.
 */
#ifndef LLMQ_SMOOTHQUANT_ARCH_MODEL_H
#define LLMQ_SMOOTHQUANT_ARCH_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "container/container.h"
#include "smoothquant/forward_ops.h"
#include "smoothquant/forward_rope.h"
#include "smoothquant/forward_weights.h"

struct arch;

struct model_linear {
    struct weight_part weight, bias;
};

struct model_norm {
    struct weight_part gain, bias; /* neither there: no norm, unless always (a LayerNorm without parameters) */
    bool always, plus_one;
};

/* An MLP: of a dense layer, or an expert. gate is not there in one without gate. */
struct model_mlp {
    struct model_linear gate, up, down;
    uint64_t n; /* channels between up and down */
};

enum model_position { POSITION_ROPE, POSITION_LEARNED, POSITION_ALIBI, POSITION_NONE, POSITION_COUNT };
enum model_qk_norm { QK_NORM_NONE, QK_NORM_HEAD, QK_NORM_ALL, QK_NORM_COUNT }; /* of each head, or of all heads at once */
enum model_router { ROUTER_SOFTMAX, ROUTER_SOFTMAX_CHOSEN, ROUTER_SIGMOID, ROUTER_COUNT };

struct model_layer {
    struct model_norm attn_norm, post_attn_norm, ffn_norm, post_ffn_norm, q_norm, k_norm;
    struct model_linear q, k, v, o;
    struct weight_part sinks;
    struct model_linear router; /* not there: dense */
    struct weight_part router_bias; /* added to the scores for the choice alone */
    struct model_mlp *experts; /* owned; one in a dense layer */
    size_t n_experts;
    bool has_shared;
    struct model_mlp shared; /* runs for every token */
    struct model_linear shared_gate; /* its factor is sigmoid of this one output; not there: 1 */
    size_t window; /* keys a query sees; 0: all */
    unsigned rope; /* number of the rope, ropes[] */
    bool no_rope;
};

enum { MODEL_ROPES_MAX = 2 };

struct arch_model {
    size_t n_layers, hidden, vocab, n_heads, n_kv_heads, head_dim, n_experts_used;
    enum norm_kind norm;
    float norm_eps;
    bool parallel, gated, norm_topk;
    enum model_position position;
    enum model_qk_norm qk_norm;
    enum model_router router;
    enum activation act;
    uint64_t position_offset; /* first row of the learned positions */
    float embed_scale, residual_scale, logits_scale, attn_scale; /* factors */
    float attn_softcap, logits_softcap, glu_limit, clip_qkv, router_scale; /* 0: none (router_scale 1) */
    struct rope ropes[MODEL_ROPES_MAX];
    float *rope_factors[MODEL_ROPES_MAX][2]; /* owned: short, long */
    size_t n_ropes;
    uint64_t max_positions; /* of learned positions; else 0 */
    struct weight_part token_embd, position_embd; /* [vocab, hidden], [positions, hidden] */
    struct model_norm embd_norm, output_norm;
    struct model_linear head;
    bool is_tied; /* the head is the token embedding */
    struct model_layer *layers; /* owned */
};

/* Reads the section `forward` of the map and the facts of the model, finds and checks every weight. ERR_UNSUPPORTED when the map has no such section,
 * or says that the pass does not know this model; ERR_DATA naming a weight that is missing or has the wrong shape. The container must outlive it. */
enum status arch_model_open(const struct arch *arch, struct container *container, struct arch_model **out, struct err *err);
void arch_model_close(struct arch_model *model); /* NULL allowed */

/* Rotary tables and such are for windows of at most so many tokens: learned positions end somewhere. 0: any length. */
uint64_t arch_model_positions(const struct arch_model *model);

#endif
