/* sweep_run.h: the state of a sweep, shared by its parts: what is read (streams), what it goes through (lanes), what comes of it (cells).
 *
 *   lanes[v].cells[t]   variant v, tensor t: how it is coded, and its results        streams[s]   a tensor under one cut into tiles
 *
 * Why this way: a cell is small, so that thousands of tensors by dozens of variants fit; what a plan says of a tensor beyond it is forgotten.
 * Corner cases: a tensor has one stream, and further ones where variants cut its long rows differently; the source itself counts as one more lane, whose
 * tiles are those of a kept tensor.
 * Reference: sweep.h. Worked number: 20 variants by 300 tensors: 6000 cells of 176 bytes.
 */
#ifndef LLMQ_CONVERTER_SWEEP_RUN_H
#define LLMQ_CONVERTER_SWEEP_RUN_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/digest.h"
#include "base/pool.h"
#include "container/container.h"
#include "converter/app.h"
#include "converter/plan.h"
#include "converter/progress.h"
#include "converter/sweep.h"
#include "layout/codec.h"
#include "number/choose.h"
#include "smoothquant/fold.h"

/* What is summed of one tensor, or of one of its tiles. */
struct sweep_sums {
    struct measure measure;
    double sum_wxx, sum_wdd;
    uint64_t n_clipped;
};

/* A tensor in a lane. */
struct sweep_cell {
    const struct quant *quant; /* NULL: kept, or moved as it is */
    const char *format; /* name to show; static */
    uint64_t plane_nbytes;
    size_t fused_next; /* ring of tensors that share scales of matrices */
    uint32_t stream;
    bool spans, heeds;
    const struct fold *fold; /* what migration multiplies it by; NULL: nothing */
    const struct importance *importance; /* of its inputs as the lane has them; n_mat 0: none */
    struct sweep_sums sums;
    struct digest128 digest;
};

/* Codes that end a format's range, and half the last step there, in units of the scale. */
struct sweep_ends {
    bool known;
    uint16_t high, low;
    float high_half, low_half;
};

/* A quant that some cell has, and what was worked out of it. */
struct sweep_quant {
    struct quant quant;
    struct sweep_ends ends;
    struct sweep_quant *next;
};

/* The factors of all tensors, of one lane or of several that came to the same. */
struct sweep_migration {
    struct folds folds;
    struct importance *importances; /* a tensor each, of inputs that are divided by its factors; NULL: there are no statistics. Owned */
    struct sweep_migration *next;
};

/* What an eval text said of a lane. */
struct sweep_judged {
    bool done;
    double perplexity, kl, reference;
};

struct sweep_lane {
    size_t variant;
    struct sweep_cell *cells; /* one a tensor */
    struct sweep_migration *migration; /* NULL: none; not owned */
    struct sweep_quant *quants;
    struct group_scale **given; /* per tensor, while it is worked on: scales of groups over several tiles */
    float **tensor_scales;
    uint64_t file_nbytes;
    struct digest_stream *stream;
    struct sweep_judged judged;
    atomic_bool failed; /* set in ticket order, read at any time */
    char failure[256];
};

struct sweep_item {
    char *name; /* in the table's texts */
    const char *role;
    uint32_t layer;
    bool wanted; /* has rows */
    bool observed; /* scales of matrices of some wanted tensor depend on it */
    bool carried; /* quantised in the source, and in some lane it stays so */
    bool done; /* of an earlier run */
    struct shape shape;
    uint32_t first_stream, n_streams, source_stream;
    struct importance importance; /* n_mat 0: none */
    struct digest128 source_digest;
};

struct sweep_stream {
    size_t item;
    struct plane geometry; /* bits of what tile_read delivers */
    uint64_t n_tiles; /* that are read */
    bool coded; /* some lane quantises it */
};

struct sweep_part {
    struct sweep_sums sums;
    struct digest128 digest;
    struct codec_fault fault;
    bool infinite; /* the fault: a kept number becomes too large for its type when it is migrated */
};

struct sweep_worker {
    uint8_t *source, *planes;
    float *x, *y;
    float *migrated; /* the tile as the lane that is worked on has it */
    float *decoded; /* where decoded weights of a tile go, rows n_cols apart; NULL: nowhere */
    struct codec_scratch scratch;
    struct sweep_part *parts; /* one a lane */
    struct digest128 source_digest;
    struct digest_stream *stream;
    struct error_total *errors; /* of the watches, one behind the other */
    struct learn_part *learnt;
    size_t *n_errors;
};

struct live_model;
struct token_docs;

struct sweep {
    struct app *app;
    const struct sweep_spec *spec;
    struct sweep_table *table;
    struct container *container;
    struct roles *roles;
    struct sweep_item *items;
    size_t n_items;
    struct sweep_stream *streams;
    size_t n_streams, streams_capacity;
    struct sweep_lane *lanes;
    size_t n_lanes;
    enum nonfinite nonfinite;
    uint64_t max_ram;
    unsigned n_workers;
    struct sweep_worker *workers;
    struct sweep_migration *migrations; /* all that differ */
    uint64_t migrated_tile_nbytes; /* largest tile of a migrated tensor in f32 */
    uint64_t scan_nbytes; /* read while the variants were planned */
    /* largest of any stream and lane */
    uint64_t source_tile_nbytes, planes_tile_nbytes, tile_weights, unit_nbytes;
    size_t scratch_weights;
    struct digest_stream *source_stream;
    struct turn turn;
    struct progress *progress;
    atomic_uint_fast64_t read_nbytes;
    bool *batch; /* streams that are worked on */
    struct sweep_watching *watching;
    struct sweep_state *state;
    size_t only; /* the one lane that is observed; SIZE_MAX: all */
    struct live_model *live; /* the model as one that runs, and the documents; NULL without an eval text */
    struct token_docs *docs;
    size_t n_lead;
    struct sweep_counts *counts; /* histograms that are being made, one a lane; else NULL */
    size_t counted; /* their tensor */
};

/* ---- sweep_variants.c: the variants of table, those that make no sense with the reason ---- */
enum status sweep_variants_make(struct app *app, const struct sweep_spec *spec, struct sweep_table *table, struct err *err);
bool sweep_heeds(const struct sweep_variant *variant,
                 enum setting_id id); /* false for options of migration, or of its search, that it has no use for */

/* ---- sweep_plan.c: items, streams, lanes and cells from the plan of each variant; the memory ---- */
enum status sweep_plan(struct sweep *sweep, struct err *err);
void sweep_plan_free(struct sweep *sweep);

/* Number of the k-th tile of a stream that is read. */
uint64_t sweep_tile(const struct sweep *sweep, const struct sweep_stream *stream, uint64_t k);
bool sweep_whole(const struct sweep *sweep, const struct sweep_stream *stream); /* nothing is left out */
enum status sweep_skip(struct sweep_variant *variant, const char *reason, struct err *err);

/* ---- sweep_migrate.c: factors of lanes, and what is multiplied by them ---- */
/* Takes the factors from the plan, unless some lane has the same; *out NULL: the plan migrates nothing. */
enum status sweep_migration_take(struct sweep *sweep, struct plan *plan, struct sweep_migration **out, struct err *err);
void sweep_migrations_free(struct sweep *sweep);
uint64_t sweep_migrations_nbytes(const struct sweep *sweep); /* memory of all factors and of their importance */
uint64_t sweep_migrated_nbytes(const struct sweep *sweep); /* of a worker's tile */
/* The tile x of place as a lane with this fold sees it: x itself without one, else a copy in worker->migrated. */
const float *sweep_migrate(const struct fold *fold, const struct tile *place, const float *x, const struct sweep_worker *worker);
/* Digest of the tile of a kept tensor, which stands in worker->source, as it is written; false: a finite number becomes infinite. */
bool sweep_migrate_kept(const struct sweep *sweep, size_t item, const struct fold *fold, const struct tile *place, struct sweep_worker *worker,
                        struct digest128 *digest);
/* n numbers as a dtype that can narrow holds them. */
void sweep_migrate_rounded(const struct dtype *dtype, float *x, uint64_t n);

/* ---- sweep_observe.c: scales of groups over several tiles, and of matrices ---- */
/* Observes the tensors of a unit (tensor first and all that share scales with it in some lane) for all lanes. */
enum status sweep_observe(struct sweep *sweep, const size_t *items, size_t n, struct err *err);
/* Readings it makes of a stream of a tensor (UINT32_MAX: of any), at most. */
uint64_t sweep_observe_reads(const struct sweep *sweep, size_t item, uint32_t stream);
uint64_t sweep_held_nbytes(const struct sweep *sweep, size_t item); /* memory of what it leaves behind */
void sweep_release(struct sweep *sweep, size_t item);

/* ---- sweep_encode.c: all lanes over the streams of sweep->batch ---- */
enum status sweep_encode(struct sweep *sweep, struct err *err);
/* Reads, codes and decodes a tile of one lane into worker->decoded. */
enum status sweep_decode_tile(struct sweep *sweep, size_t lane, const struct sweep_stream *stream, uint64_t tile, struct sweep_worker *worker,
                              struct err *err);
struct sweep_ends sweep_ends_of(const struct quant *quant);

/* Reads a tile and makes it f32: *x is the worker's source or x. source NULL-able size of what was read. */
enum status sweep_read(struct sweep *sweep, const struct sweep_stream *stream, uint64_t tile, struct sweep_worker *worker, const float **x,
                       struct err *err);
struct codec_tile sweep_codec_tile(const struct sweep *sweep, const struct sweep_cell *cell, size_t item, const struct tile *place, const float *x);
enum status sweep_nonfinite(struct sweep *sweep, size_t item, struct err *err);

/* ---- sweep.c: one tensor once more, for all lanes; all scales of the lane sweep->only; buffers ---- */
enum status sweep_read_again(struct sweep *sweep, size_t item, struct err *err);
enum status sweep_observe_all(struct sweep *sweep, struct err *err);
enum status sweep_worker_make(const struct sweep *sweep, struct sweep_worker *worker, struct err *err);
void sweep_worker_free(struct sweep_worker *worker);
uint64_t sweep_worker_nbytes(const struct sweep *sweep);

/* ---- sweep_rows.c: rows of tensors, roles and totals from the cells ---- */
enum status sweep_rows_make(struct sweep *sweep, struct err *err);

/* ---- sweep_histogram.c ---- */
struct sweep_counts;
/* Its tensor: that of --histogram, which must be there, or once there are rows the one with most of the error; SIZE_MAX: nothing is quantised. */
enum status sweep_histogram_tensor(const struct sweep *sweep, size_t *chosen, struct err *err);
enum status sweep_histograms_make(struct sweep *sweep, struct err *err);
/* A row piece of the tensor that is counted: codes and scales (n_scales of them) of lane number lane. */
void sweep_count(struct sweep *sweep, size_t lane, const uint16_t *codes, size_t n, const struct group_scale *scales, size_t n_scales);

/* ---- sweep_state.c: finished tensors on disk ---- */
enum status sweep_state_open(struct sweep *sweep, struct err *err); /* marks items done and fills their cells */
enum status sweep_state_put(struct sweep *sweep, size_t item, struct err *err);
enum status sweep_state_put_judged(struct sweep *sweep, size_t lane, struct err *err);
void sweep_state_close(struct sweep *sweep);

/* ---- sweep_eval.c: perplexity of every lane ---- */
bool sweep_evaluates(const struct sweep_spec *spec);
enum status sweep_eval_open(struct sweep *sweep, struct err *err); /* before the work: finds out what cannot run */
enum status sweep_eval(struct sweep *sweep, struct err *err); /* after the rows */
void sweep_eval_close(struct sweep *sweep);

#endif
