/* group_observe.h: groups that reach over several tiles: what a tile tells of their scales, and how tiles add up.
 *
 *   tile -> pieces, one a group -> errors of all candidates under the group's range;  complete: chosen;  else added to those of the tiles before it
 *   tile -> spans of weights -> an observer (in order), or the part of a learner (in any order, added in order)
 *
 * Why this way: a conversion observes one tensor for one format, a sweep for many at once; what they do with a tile is the same.
 * Corner cases: groups that lie side by side take turns on a ring of totals; the choice is made anew with each part, so it stands once the last has come.
 * Reference: number/choose.h, layout/codec.h. Worked number: squares of 128 over 512 columns: 4 open groups, 8 where a tile begins and ends inside of one.
 */
#ifndef LLMQ_CONVERTER_GROUP_OBSERVE_H
#define LLMQ_CONVERTER_GROUP_OBSERVE_H

#include "layout/codec.h"
#include "number/choose.h"

/* Errors of the candidates of a group, those of its tiles so far added in binary64. */
struct error_total {
    uint64_t group;
    double sums[CANDIDATES_MAX];
};

/* A tile that is looked at for the scales of its groups. */
struct observed_tile {
    const struct quant *quant;
    const struct kernels *kernels;
    const struct shape *shape; /* of the tensor */
    const struct tile *place; /* of the tile in it */
    const struct codec_tile *tile;
    const struct codec_scratch *scratch;
};

/* Groups of a spanning tensor, cut so, that one tile may end in the middle of, where scales are searched; else 0. */
size_t group_open_count(const struct quant *quant, const struct plane *geometry);

/* Chooses scales of groups that the tile holds whole; the errors of the others go to parts (group_open_count of them), returned is how many. ranges and
 * given have all groups of the tensor. */
size_t group_errors(const struct observed_tile *observed, const struct range *ranges, struct group_scale *given, struct error_total *parts);

/* Adds parts in tile order. totals: n_totals of them, groups in a row, their group UINT64_MAX before the first. */
void group_errors_add(const struct quant *quant, const struct range *ranges, const struct error_total *parts, size_t n, struct error_total *totals,
                      size_t n_totals, struct group_scale *given);

/* The weights of the tile for the stream of a rule that reads them: a learner's go to part; NULL: to the observer, in tile order. */
void group_weights(const struct observed_tile *observed, struct choose_stream *stream, struct learn_part *part);

/* The next piece of a tile that lies in one matrix of the tensor, after *piece (all zero: the first); false at the end. piece->group is the matrix. */
bool matrix_next_piece(const struct shape *shape, const struct tile *place, struct codec_piece *piece);

#endif
