/* stats_tensors.h: statistics that lie in a file as named tensors, <weight tensor name>.<field>, as in safetensors and GGUF.
 *
 *   blk.0.attn_q.weight.in_sum2 F32 [1, 64]    blk.0.attn_q.weight.counts F32 [1, 1]    ->  entry blk.0.attn_q.weight, 1 x 64
 *
 * Why this way: both containers have a checked table of struct tensor; what the tensors mean is one piece of code.
 * Corner cases: rank 1 is one matrix; one count stands for all matrices; in_sum2 may be called sums; tensors with another ending are passed over
 * and noted; a count that is no whole number is refused; an entry's fields must agree in shape; an entry of counts alone is refused.
 * Reference: STATS.md; llama.cpp imatrix (in_sum2, counts), ik_llama.cpp (sums). Worked number: counts [8, 1] beside in_sum2 [8, 64]: 8 experts.
 */
#ifndef LLMQ_SMOOTHQUANT_STATS_TENSORS_H
#define LLMQ_SMOOTHQUANT_STATS_TENSORS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "container/container.h"
#include "smoothquant/stats_kind.h"

#define STATS_COUNTS_NAME "counts"
#define STATS_HIST_NAME "in_hist"
#define STATS_GRAM_NAME "in_gram"
#define STATS_SAMPLE_NAME "in_sample"

/* True when the name ends in a field after a dot. */
bool stats_tensor_is_field(const char *name);

/* Adds the entries of the n tensors, whose offsets count from the start of the source, to set, in the order of their first tensors. */
enum status stats_tensors_load(const struct stats_source *source, const struct tensor *tensors, size_t n, struct stats_set *set, struct err *err);

#endif
