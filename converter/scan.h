/* scan.h: what is in the weights before hours of work: NaN, Inf, zeros, ranges, tensor by tensor.
 *
 * Why this way: one reading of the file at full speed answers `inspect --scan`, `--nonfinite keep` and the count in the error message about a NaN.
 * Corner cases: tensors that are not floats are not scanned; row and column of the first NaN or Inf are those of the 2-D view (last dim = columns).
 * Reference: NUMERICS.md 6.
 */
#ifndef LLMQ_CONVERTER_SCAN_H
#define LLMQ_CONVERTER_SCAN_H

#include "container/container.h"
#include "converter/app.h"
#include "converter/progress.h"

struct scan {
    uint64_t n_weights, n_nan, n_inf, n_zero;
    uint64_t bad_row, bad_col; /* of the first NaN or Inf, when there is one */
    float min, max; /* over the finite weights; 0 when there are none */
    double sum_abs; /* over the finite weights */
};

/* Scans one tensor on the calling thread, with its own small buffer. */
enum status scan_tensor(struct container *container, size_t index, const struct kernels *kernels, struct scan *scan, struct err *err);

/* Scans every float tensor for which wanted (one flag a tensor, NULL: all) is set, on n_workers threads; scans has one entry a tensor. */
enum status scan_model(const struct app *app, struct container *container, const bool *wanted, unsigned n_workers, struct scan *scans,
                       struct err *err);

#endif
