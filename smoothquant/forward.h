/* forward.h: a model's forward pass over many windows of tokens, layer by layer, in bounded memory.
 *
 *   windows of ids -> embeddings -> spill -> layer 0: load weights, all windows -> spill -> layer 1 ... -> norm -> head, a panel of the vocabulary at a time
 *
 * Why this way: weights are read once whatever the number of windows, and neither the model nor all activations nor the logits are ever in memory whole.
 * Corner cases: a window is worked on by one thread, and what is summed over windows is summed in their order: the results are the same for any number
 * of threads on one processor; where a layer is cut into passes depends on max_ram, and the last bits of the sums with it. Stopping between two windows
 * gives ERR_CANCELLED; a layer is finished when all windows have left it.
 * Reference: the project's smoothquant notes 4b. Worked number: 32 windows of 512 tokens of a 7B model: 268 MB of spill a plane, 810 MB of weights a layer.
 */
#ifndef LLMQ_SMOOTHQUANT_FORWARD_H
#define LLMQ_SMOOTHQUANT_FORWARD_H

#include <signal.h>

#include "base/io.h"
#include "smoothquant/forward_layer.h"

/* Windows of tokens; ids stay with the caller. */
struct windows {
    struct forward_unit *units; /* owned */
    size_t n;
    size_t max_rows; /* of one */
    uint64_t n_rows; /* of all */
};

struct forward_options {
    const struct io_calls *io;
    const struct arch_model *model;
    struct weight_source source;
    const struct weight_source *stream; /* weights behind which the stream goes on, observed or not; NULL: those of source */
    struct gemm gemm;
    unsigned n_workers;
    uint64_t max_ram; /* bytes for all that this pass allocates */
    uint64_t reserved; /* of max_ram, for others: statistics, ids */
    uint64_t reserved_worker; /* the same for each worker */
    bool whole; /* no attention and no MLP may be cut, in memory or in blocks */
    const volatile sig_atomic_t *stop; /* may be NULL */
    const struct forward_observer *observer; /* may be NULL */
    const char *spill; /* path of the spill, kept when a run breaks off; NULL: an unnamed one in spill_dir, or memory when it is small */
    const char *spill_dir;
    size_t first_layer; /* above 0: spill is there and holds the input of that layer */
    void (*progress)(void *context, uint64_t n_tokens); /* tokens that went through a layer; may be NULL */
    enum status (*layer_begins)(void *context, size_t layer, struct err *err); /* may be NULL */
    enum status (*layer_done)(void *context, size_t layer, struct err *err); /* may be NULL */
    enum status (*unit_done)(void *context, unsigned worker, size_t unit,
                             struct err *err); /* after each pass of a unit that is observed; may be NULL */
    void (*failed)(void *context); /* wakes those who wait for each other; may be NULL */
    void *context;
};

struct forward;

/* Checks that it fits in max_ram (ERR_MEMORY says what would), makes the spill. options and windows must outlive it; ids are below the vocabulary. */
enum status forward_open(const struct forward_options *options, const struct windows *windows, struct forward **out, struct err *err);

/* Embeddings and all layers from first_layer on. */
enum status forward_run(struct forward *forward, struct err *err);

/* Output norm of all tokens; shows INPUT_HEAD to the observer. */
enum status forward_finish(struct forward *forward, struct err *err);

/* Bytes of memory that it holds on to when it is finished. */
uint64_t forward_kept(const struct forward *forward);

/* remove: of a named spill. NULL allowed. */
void forward_close(struct forward *forward, bool remove);

/* ---- the head --------------------------------------------------------------------------------------------------------------------- */

/* Logits of vocabulary entries [first, first + n) for all tokens of a window: logits[m][row][n] of model m. */
typedef enum status head_see(void *context, unsigned worker, size_t unit, size_t first, size_t n, const float *const *logits, struct err *err);

/* Goes over the vocabulary panel by panel for one or two passes that are finished, over the same windows; n_forwards 1 or 2. Panels come one after
 * the other, the windows of a panel at the same time. The logits are scaled and capped as the model says. */
enum status head_run(struct forward *const *forwards, size_t n_forwards, head_see *see, void *context, struct err *err);

/* ---- helpers ---------------------------------------------------------------------------------------------------------------------- */

/* Windows of at most seq tokens that do not cross documents: document i is ids[starts[i] .. starts[i + 1] - 1]; those of fewer than min_rows tokens are
 * left out, and all after the first max_windows (0: all). */
enum status windows_make(const int32_t *ids, const uint64_t *starts, size_t n_docs, size_t seq, size_t min_rows, size_t max_windows,
                         struct windows *out, struct err *err);
void windows_free(struct windows *windows);

/* Work on units 0 .. n - 1, taken in ascending order by n_workers threads; the error of the lowest unit that failed. */
typedef enum status unit_work(void *context, unsigned worker, size_t unit, struct err *err);
enum status units_run(size_t n, unsigned n_workers, const volatile sig_atomic_t *stop, unit_work *work, void (*failed)(void *context), void *context,
                      struct err *err);

/* Logits of n tokens of one sequence, [n][vocab], all in memory: for comparing two sets of weights. */
enum status forward_logits(const struct forward_options *options, const int32_t *ids, size_t n, float *logits, struct err *err);

/* Tables that all layers share: rotary positions for windows of max_rows, slopes of ALiBi (owned by *slopes). */
enum status forward_shared_open(const struct forward_options *options, size_t max_rows, size_t max_keys, bool caches, struct forward_shared *shared,
                                float **slopes, struct err *err);
void forward_shared_close(struct forward_shared *shared, float *slopes);

/* Embeddings of n tokens at their positions (position of the first; the same for all when together) into out [n][hidden]. */
enum status forward_embed(const struct forward_shared *shared, const struct norm *norm, const int32_t *ids, size_t n, size_t position, bool together,
                          float *out, struct err *err);

#endif
