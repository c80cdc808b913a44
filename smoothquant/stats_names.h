/* stats_names.h: gives the entries of a set the names they have in GGUF files, single experts stacked, for tools that know only those.
 *
 *   model.layers.0.mlp.experts.{0,1,2}.down_proj.weight  ->  blk.0.ffn_down_exps.weight of 3 matrices
 *
 * Why this way: an imatrix under other names is silently useless to llama.cpp.
 * Corner cases: names that fit no pattern stay and are counted; an expert number without an entry is a matrix of count 0; experts of different numbers
 * of channels are refused; what the experts of a stack do not all have, and histograms, Gram matrices and samples of experts, are dropped and counted;
 * two entries of one GGUF name are refused; expert numbers go to 4095.
 * Reference: name_map.h. Worked number: experts 0 and 2 of 64 channels make a stack of 3 x 64 with counts c0, 0, c2.
 */
#ifndef LLMQ_SMOOTHQUANT_STATS_NAMES_H
#define LLMQ_SMOOTHQUANT_STATS_NAMES_H

#include "base/err.h"
#include "smoothquant/name_map.h"
#include "smoothquant/stats.h"

struct stats_renamed {
    uint64_t n_renamed; /* entries and aliases whose name changed */
    uint64_t n_unmatched; /* entries that keep a name the map does not know */
    uint64_t n_fields; /* dropped: not all experts of a stack had them */
};

/* Makes a new set from set, whose values are moved: set is only good for stats_close then, also after an error. */
enum status stats_to_gguf_names(struct stats_set *set, const struct name_map *map, struct stats_set **out, struct stats_renamed *renamed,
                                struct err *err);

#endif
