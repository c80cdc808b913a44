/* observe.h: range observers: from weights, read in slices, to the range that is worth coding.
 *
 *   init -> { span span span .. } -> next -> { span span .. } -> finish -> one (min, max) a slot      slot = the tensor, a channel or a group
 *
 *       observe_init(&observe, observer, &params, &grid, memory, &err);
 *       do
 *           while (slice) observe_span(&observe, first, x, n);
 *       while (observe_next(&observe));
 *       observe_finish(&observe, ranges);
 *
 * Why this way: an observer is a row of functions over one slot of fixed size; the grid sends every weight to its slot, so each observer works per
 * tensor, channel and group, and nobody who asks for a range needs to know which one it is.
 * Corner cases: the cut into slices never changes a result; slices of one reading come in rising order (3SD adds up in that order; the others take
 * any); NaN and Inf are dropped; a slot that saw nothing gives (+Inf, -Inf), of which qparams_of makes scale 1, zero point 0.
 * Reference: NUMERICS_OBSERVERS.md. Answers to quark.torch's observers: forward = observe_span, reset_min_max_vals = observe_reset, calculate_qparams
 * = observe_finish, then qparams_of.
 */
#ifndef LLMQ_NUMBER_OBSERVE_H
#define LLMQ_NUMBER_OBSERVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "number/format.h"
#include "number/histogram.h"
#include "number/qparams.h"

/* What was found out about one slot: not yet with 0 included; min > max when there was nothing. */
struct observed {
    float min, max;
};

struct range observed_range(struct observed observed); /* with 0 included; 0 .. 0 when there was nothing */

/* What a user may set; a row heeds those in its `uses`, and ignores the others. */
struct observe_params {
    bool symmetric; /* bins of |x|, else of x */
    uint32_t bins; /* 1 .. BINS_MAX; kl-j: the most it may use */
    double percentile; /* 0 .. 100 */
    uint32_t start_bin, stride; /* mse-hist: the first bin whose centre is tried (the last bin at most), and the step >= 1 */
    uint32_t bits; /* kl-j: of a code, 2 .. 16 */
    uint32_t upsample_rate; /* histogram-pro: accepted and without effect, as bins are never merged here */
    struct qparams_rule quantiser; /* mse-hist: what errors are measured with; histogram-pro: reduce_range */
};

enum observe_use {
    USE_SYMMETRIC = 1,
    USE_BINS = 2,
    USE_PERCENTILE = 4,
    USE_START_BIN = 8,
    USE_STRIDE = 16,
    USE_BITS = 32,
    USE_UPSAMPLE_RATE = 64,
    USE_REDUCE_RANGE = 128,
    USE_QUANTISER = 256
};

enum granularity { PER_TENSOR = 1, PER_CHANNEL = 2, PER_GROUP = 4 };

#define OBSERVER_ANSWERS 3

/* A row. Functions allocate nothing and touch nothing but the slot. */
struct observer {
    const char *name; /* as a scale rule: "mse-hist" */
    const char *answers[OBSERVER_ANSWERS]; /* the reference's classes, NULL where there are fewer */
    const char *summary; /* one line */
    uint32_t passes; /* readings of the data: 0, 1 or 2 */
    uint32_t granularities; /* mask: those of the reference; ours takes all */
    uint32_t uses; /* mask over enum observe_use */
    struct observe_params defaults;
    size_t (*size)(const struct observe_params *params); /* bytes of a slot, a multiple of 8 */
    void (*begin)(void *slot, const struct observe_params *params, uint32_t pass);
    void (*add)(void *slot, const float *x, size_t n); /* any n, in order */
    struct observed (*finish)(void *slot, const struct observe_params *params); /* may be called again */
};

size_t observer_count(void);
const struct observer *observer_at(size_t index);
const struct observer *observer_find(const char *name); /* by its name or that of a class it answers; NULL when unknown */

/* ERR_USAGE, naming the parameter, when one that the observer heeds is out of range. */
enum status observe_check(const struct observer *observer, const struct observe_params *params, struct err *err);

/* Where a weight belongs, by its row-major index in a tensor [outer, length, middle, last], the axis being `length`. */
struct observe_grid {
    enum granularity granularity;
    uint64_t outer, length, middle, last;
    uint64_t group; /* PER_GROUP: weights along the axis; the last group of a run may be shorter */
    uint64_t slots; /* 1, length, or runs * groups of a run */
};

/* The grid of a tensor of the given shape, axis in -rank .. rank - 1. PER_CHANNEL: slot = index along the axis. PER_GROUP: group >= 1, or -1 for
 * whole runs; slots in the order of the tensor with axis and last axis swapped. ERR_USAGE for an axis or group that does not exist, ERR_DATA when
 * the number of weights overflows. */
enum status observe_grid_of(const uint64_t *shape, uint32_t rank, int32_t axis, enum granularity granularity, int64_t group,
                            struct observe_grid *grid, struct err *err);

/* An observation under way. The memory is the caller's, and must live as long. */
struct observe {
    const struct observer *observer;
    struct observe_params params;
    struct observe_grid grid;
    unsigned char *slots;
    size_t slot_size;
    uint32_t pass;
};

/* Bytes for all slots; false on overflow. */
bool observe_size(const struct observer *observer, const struct observe_params *params, const struct observe_grid *grid, size_t *nbytes);

/* params NULL: the row's defaults. grid NULL: one slot for all. memory: observe_size bytes, aligned for uint64_t (NULL when that is 0). */
enum status observe_init(struct observe *observe, const struct observer *observer, const struct observe_params *params,
                         const struct observe_grid *grid, void *memory, struct err *err);

/* n weights from the row-major index first on (of no meaning when there is one slot). */
void observe_span(struct observe *observe, uint64_t first, const float *x, size_t n);

/* Ends a reading: true when the observer wants another one. */
bool observe_next(struct observe *observe);

/* One result a slot; after the last reading. */
void observe_finish(const struct observe *observe, struct observed *observed);

/* Forgets everything: ready for the first reading again. */
void observe_reset(struct observe *observe);

/* The histogram of a slot, for the observers that keep one, else NULL. */
const struct histogram *observe_histogram(const struct observe *observe, uint64_t slot);

/* All readings over one group of n weights in memory: its clip range, 0 included. params are checked ones; memory as for one slot. */
struct range observe_range(const struct observer *observer, const struct observe_params *params, const float *x, size_t n, void *memory);

/* ---- scales of blocks, from the range of a block (rows block-mx and block-bfp) ---------------------------------------------------- */

/* PerBlockMXObserver: the E8M0 scale by rule floor, even, ceil or rceil (search: floor); a block of zeros has byte 0. false when no MX format has
 * that element. */
bool observe_mx_scale(const struct elem *elem, enum scale_rule rule, struct range range, struct group_scale *scale);

/* PerBlockMXObserver for mx6 and mx9: the exponent field of amax, 0 .. 254, and 2^(field - 127). */
struct group_scale observe_prime_exponent(struct range range);

/* PerBlockBFPObserver (bfp16): bits = shared exponent + 127, value = the step 2^(exponent - 6) (2^(exponent - 5) after a bump). */
struct group_scale observe_bfp_scale(struct range range);

/* l = log2 t of TQT's threshold, rounded to f32; t > 0. */
float observe_log_threshold(float threshold);

/* ---- for the rows ----------------------------------------------------------------------------------------------------------------- */

/* log2 in binary64 by a fixed series, the same on every machine; a > 0, normal. */
double observe_log2(double a);

/* Slots that are a histogram of params->bins bins. */
size_t observe_binned_size(const struct observe_params *params);
void observe_binned_begin(void *slot, const struct observe_params *params, uint32_t pass);
void observe_binned_add(void *slot, const float *x, size_t n);

/* Its ends as a result: what there is to return when lo = hi, or when nothing was seen. */
struct observed observe_binned_ends(const struct histogram *histogram);

extern const struct observer observer_placeholder, observer_minmax, observer_block_mx, observer_block_bfp;
extern const struct observer observer_histogram, observer_percentile, observer_mse, observer_pro;
extern const struct observer observer_3sd, observer_kl_j;

#endif
