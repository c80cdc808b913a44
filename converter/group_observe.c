/* group_observe.c: see group_observe.h.
 *
 * Drawing: see group_observe.h.
 * Why this way: see group_observe.h.
 * Corner cases: faults in weights have been found by the pass over ranges, so that spans and errors meet none.
 * Reference: group_observe.h. Worked number: see there.
 */
#include "converter/group_observe.h"

#include "base/size.h"

size_t group_open_count(const struct quant *quant, const struct plane *geometry)
{
    if (choose_reads(quant->rule) || quant->format->family->candidates(quant) == 1 || !plane_tile_count(geometry)) return 0;
    const struct tile tile = plane_tile(geometry, 0);
    return quant->group_kind == GROUP_SQUARE ? (size_t)((tile.n_rows > 1 ? 2 : 1) * quant_groups_per_row(quant, tile.n_cols)) : 1;
}

size_t group_errors(const struct observed_tile *observed, const struct range *ranges, struct group_scale *given, struct error_total *parts)
{
    const struct quant *quant = observed->quant;
    struct codec_piece piece = { 0 };
    size_t n = 0;
    while (codec_next_piece(quant, observed->shape, observed->place, &piece)) {
        const struct codec_tile part = codec_part(observed->tile, &piece.at);
        parts[n].group = piece.group;
        codec_observe_errors(quant, observed->kernels, &part, observed->scratch, ranges[piece.group], parts[n].sums);
        if (piece.complete) quant_choose(quant, ranges[piece.group], parts[n].sums, &given[piece.group]);
        else n++;
    }
    return n;
}

void group_errors_add(const struct quant *quant, const struct range *ranges, const struct error_total *parts, size_t n, struct error_total *totals,
                      size_t n_totals, struct group_scale *given)
{
    for (size_t k = 0; k < n; k++) {
        struct error_total *total = &totals[parts[k].group % n_totals];
        if (total->group != parts[k].group) *total = (struct error_total){ .group = parts[k].group };
        for (uint32_t c = 0; c < CANDIDATES_MAX; c++) total->sums[c] += parts[k].sums[c];
        quant_choose(quant, ranges[total->group], total->sums, &given[total->group]);
    }
}

/* Where spans go. */
struct span_target {
    struct choose_stream *stream;
    struct learn_part *part;
};

static void take_span(void *context, const float *x, const float *weight, size_t n)
{
    const struct span_target *target = context;
    if (target->part) choose_stream_observe(target->stream, x, weight, n, target->part);
    else choose_stream_span(target->stream, x, n);
}

void group_weights(const struct observed_tile *observed, struct choose_stream *stream, struct learn_part *part)
{
    struct span_target target = { stream, part };
    struct codec_fault unused;
    codec_observe_spans(observed->kernels, observed->tile, observed->scratch, take_span, &target, &unused);
}

bool matrix_next_piece(const struct shape *shape, const struct tile *place, struct codec_piece *piece)
{
    const uint64_t step = shape_matrix_rows(shape), row = piece->at.row + piece->at.n_rows;
    if (row >= place->n_rows) return false;
    const uint64_t left = step - (place->row + row) % step;
    piece->at = (struct tile){ .row = row, .n_rows = size_min(left, place->n_rows - row), .n_cols = place->n_cols };
    piece->group = (place->row + row) / step;
    return true;
}
