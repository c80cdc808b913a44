/* code_counts.h: how often each code and each size of scale was met, and the histogram made of it.
 *
 *   codes by value: -8 -7 .. 7        scales: bins of a quarter of a power of two
 *
 * Why this way: a sweep counts what it makes, a conversion what it wrote; both become the same histogram. Counts are integers, so the order in which
 * they come does not matter.
 * Corner cases: codes that stand for no number (NaN) are left out of the histogram; elements of more than 8 bits have 256 bins; a scale of 0 has no
 * logarithm and is counted apart; empty bins at the ends are cut.
 * Reference: sweep_table.h. Worked number: scale 0.3: log2 is -1.74, bin [2^-1.75, 2^-1.5).
 */
#ifndef LLMQ_CONVERTER_CODE_COUNTS_H
#define LLMQ_CONVERTER_CODE_COUNTS_H

#include "container/container.h"
#include "converter/sweep_table.h"
#include "number/format.h"

enum { COUNTS_PER_OCTAVE = 4, COUNTS_LOWEST = -160, COUNTS_HIGHEST = 130, COUNTS_SCALE_BINS = (COUNTS_HIGHEST - COUNTS_LOWEST) * COUNTS_PER_OCTAVE };

struct code_counts {
    const struct elem *elem;
    uint64_t *codes; /* 1 << elem->bits; NULL: not open */
    uint64_t scales[COUNTS_SCALE_BINS], n_scales, n_zero;
};

/* True for tensors whose codes can be counted: their format has codes of its own. */
bool code_counts_apply(const struct quant *quant);

enum status code_counts_open(const struct elem *elem, struct code_counts *counts, struct err *err);
void code_counts_close(struct code_counts *counts); /* zeroed ones are fine */

void code_counts_add(struct code_counts *counts, const uint16_t *codes, size_t n);
void code_counts_add_scales(struct code_counts *counts, const struct group_scale *scales, size_t n);

/* Counts all that stands in the planes of tensor number index, to which code_counts_apply. */
enum status code_counts_read(struct container *container, size_t index, struct code_counts *counts, struct err *err);

/* Fills all of *out but variant; the lists are the caller's, also after an error. */
enum status code_counts_fill(const struct code_counts *counts, struct sweep_histogram *out, struct err *err);

#endif
