/* spanning.c: see spanning.h.
 *
 * Why this way: see spanning.h.
 * Corner cases: see spanning.h.
 * Reference: NUMERICS.md 5. Worked number: see spanning.h.
 */
#include "support/spanning.h"

#include <stdlib.h>

#include "support/support.h"

struct group_scale *spanning_scales(const struct quant *quant, const struct shape *shape, const struct plane *planes, const struct kernels *kernels,
                                    const struct codec_scratch *scratch, spanning_tile *tile_at, const void *tensor)
{
    const size_t n = (size_t)(planes[1].rows * planes[1].cols);
    struct range *ranges = calloc(n, sizeof *ranges);
    double(*errors)[CANDIDATES_MAX] = calloc(n, sizeof *errors), part_errors[CANDIDATES_MAX];
    struct group_scale *scales = calloc(n, sizeof *scales);
    assert_true(ranges && errors && scales);
    for (int pass = 0; pass < 2; pass++)
        for (uint64_t i = 0; i < plane_tile_count(&planes[0]); i++) {
            const struct codec_tile tile = tile_at(tensor, i);
            const struct tile place = plane_tile(&planes[0], i);
            struct codec_piece piece = { 0 };
            while (codec_next_piece(quant, shape, &place, &piece)) {
                const struct codec_tile part = codec_part(&tile, &piece.at);
                struct codec_fault fault;
                struct range range;
                const size_t g = (size_t)piece.group;
                if (pass == 0) {
                    assert_true(codec_observe_range(kernels, &part, scratch, &range, &fault));
                    range_add(&ranges[g], range);
                    continue;
                }
                codec_observe_errors(quant, kernels, &part, scratch, ranges[g], part_errors);
                for (size_t k = 0; k < CANDIDATES_MAX; k++) errors[g][k] += part_errors[k];
                assert_true(quant_choose(quant, ranges[g], errors[g], &scales[g]));
            }
        }
    free(ranges);
    free(errors);
    return scales;
}
