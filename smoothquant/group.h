/* group.h: what one migration touches: the tensors that produce a set of channels, those that consume them, and where in each the channels lie.
 *
 *   producers (norm gain, up rows, v rows) /= s_j  ->  channel j  ->  consumers' input columns *= s_j
 *   place of channel j on an axis = first + (j / run) * step + j % run        (a row of matrix m: m * rows of a matrix + that)
 *
 * Why this way: four numbers describe contiguous parts (v as the last rows of qkv), parts interleaved by head (BLOOM: first 2 hd, run hd, step 3 hd)
 * or by row (gate and up of gpt-oss: first 1, run 1, step 2), and stacks of experts; nothing outside the architecture maps knows more.
 * Corner cases: channels are numbered as the consumers see them; where several of them have one producer channel (query heads that share a value
 * head, all heads behind one norm) `share` says which; a transposed weight [in, out] is consumed along its rows; producers include biases.
 * Reference: the project's smoothquant notes 3a. Worked number: 8 query heads on 4 value heads of 8: 64 channels, channel 8 * 3 + 5 has producer
 * channel 8 * 1 + 5.
 */
#ifndef LLMQ_SMOOTHQUANT_GROUP_H
#define LLMQ_SMOOTHQUANT_GROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum smooth_kind {
    SMOOTH_N, /* norm gain (and bias) -> linears behind it */
    SMOOTH_N1, /* the same, the gain stored as w of (1 + w) */
    SMOOTH_U, /* the linear half of a gated MLP -> down */
    SMOOTH_R, /* fc1 -> ReLU -> fc2 */
    SMOOTH_V, /* values -> output projection, one value head a query head */
    SMOOTH_VG, /* the same, query heads sharing value heads */
    SMOOTH_M, /* low-rank norms of latent attention, and its values */
    SMOOTH_G, /* gated norm of the heads -> output projection */
    SMOOTH_KIND_COUNT
};

/* One tensor's part in a group. */
struct smooth_side {
    size_t tensor; /* index in the container */
    bool along_rows; /* the channels lie along the rows of a matrix; else along its columns (the last dim) */
    uint64_t first, run, step; /* run >= 1; step >= run */
    uint64_t mat, n_mats; /* matrices of a stack that take part; 0, 1 for a plain matrix or vector */
    bool plus_one; /* producer: the stored number is gain - 1 */
    bool root; /* producer before a squared ReLU: divided by sqrt(s) */
    bool is_bias; /* producer: a bias vector */
};

struct smooth_group {
    enum smooth_kind kind;
    char *id; /* name of the producer without .weight, "[e]" behind it for one expert of a stack; owned */
    uint32_t layer; /* UINT32_MAX: none */
    uint64_t n; /* channels as the consumers see them */
    uint64_t share_heads, share_run; /* channel h * run + d has producer channel (h / share_heads) * run + d; share_heads 1: the same number */
    struct smooth_side *producers; /* the first is the one that gives the group its id; owned */
    size_t n_producers;
    struct smooth_side *consumers; /* owned */
    size_t n_consumers;
    bool on_request; /* left alone unless a search asks for it: norms before all experts */
};

/* A group that the map has and the model does not allow, or a linear input that nothing can fold into. */
struct smooth_refusal {
    char *id; /* owned */
    char *why; /* one sentence; owned */
};

struct smooth_groups {
    struct smooth_group *groups; /* owned */
    size_t n_groups;
    struct smooth_refusal *refusals; /* owned */
    size_t n_refusals;
};

/* Producer channels of a group: n where every channel has its own. */
static inline uint64_t smooth_group_producers(const struct smooth_group *group)
{
    return group->n / group->share_heads;
}

/* Producer channel of channel j. */
static inline uint64_t smooth_group_producer(const struct smooth_group *group, uint64_t j)
{
    return j / group->share_run / group->share_heads * group->share_run + j % group->share_run;
}

/* The first of the channels that producer channel p makes. */
static inline uint64_t smooth_group_first(const struct smooth_group *group, uint64_t p)
{
    return p / group->share_run * group->share_heads * group->share_run + p % group->share_run;
}

/* Place of a channel along the axis of a side. */
static inline uint64_t smooth_side_place(const struct smooth_side *side, uint64_t j)
{
    return side->first + j / side->run * side->step + j % side->run;
}

void smooth_groups_free(struct smooth_groups *groups);

#endif
