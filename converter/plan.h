/* plan.h: everything a run will do, decided before it begins: the fate of every tensor, every byte of output, the reads, memory and threads.
 *
 *   container + rules -> plan_entry per tensor (keep | carry | quantise | cast) -> planes -> writer_plan (offsets, sizes) -> memory: threads and tiles a job
 *
 * Why this way: `plan` prints this struct, `convert` executes it; there is no second opinion.
 * Corner cases: a budget too small for the threads asked lowers the threads, and the plan says so; too small for one is an error that says how much
 * is needed; a tensor with 0 weights has no reads; a tensor whose group spans tiles is observed first (one read for the range, one more for a
 * search).
 * Reference: design.md 1, 2.
 */
#ifndef LLMQ_CONVERTER_PLAN_H
#define LLMQ_CONVERTER_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "container/container.h"
#include "container/writer.h"
#include "converter/app.h"
#include "converter/recipe.h"
#include "layout/codec.h"
#include "layout/kept.h"
#include "smoothquant/fold.h"
#include "smoothquant/stats_lookup.h"

enum fate {
    FATE_KEEP, /* plain bytes as they are */
    FATE_CARRY, /* codes and scales as they are, perhaps in another layout */
    FATE_QUANTISE,
    FATE_CAST /* decode */
};

struct plan_entry {
    size_t tensor; /* index in the container */
    enum fate fate;
    struct verdict verdict; /* role, rule, quant; of a carried tensor quant is how it is and stays coded */
    const struct format *fallback_from; /* the format asked for, where rows are no multiple of its block; else NULL */
    struct shape shape;
    bool whole[OUT_PLANES_MAX]; /* planes that are written once, not tile by tile */
    struct plane from[CODEC_PLANES_MAX]; /* FATE_CARRY: planes of the source */
    uint32_t n_from;
    struct kept kept; /* FATE_KEEP */
    const struct dtype *cast; /* FATE_CAST */
    bool spans; /* the scales of its groups are observed in earlier passes */
    uint32_t n_scans; /* reads that were made for the plan itself (--nonfinite keep) */
    uint32_t n_reads; /* in all, n_scans included */
    struct plane source; /* geometry of what is read: bits of the source dtype, tiles as the output's; of carried ones in weights, bits 0 */
    char group[16], percentile[24]; /* JSON text; a number */
    size_t fused_next; /* of a quantised tensor: the next entry in the ring of those that share the scales of matrices with it; itself when alone */
    const struct fold *fold; /* what migration multiplies it by; NULL: nothing */
    const float *input_scale; /* where quant.input_scale is set: factors of its input channels, n_input_sets rows of them (1, or one a matrix) */
    uint64_t n_input_sets;
    struct importance importance; /* weights of its columns; no rows: none, or none that could change a byte */
};

struct smoothing;
struct budget_report;

#define PLAN_HELD_NBYTES (1u << 17) /* of observed scales that wait for their tensors to be encoded */

/* What --imatrix brought. */
struct weighing {
    const char *path; /* NULL: the option is not given */
    uint64_t n_tensors, n_of; /* quantised tensors with statistics, and all of them */
    uint64_t n_heeding; /* those of n_tensors that search by error */
    uint64_t n_experts_without;
    uint64_t nbytes; /* of the weights, which stay */
    char name[200]; /* what the output records where anything heeds it: path without folders, odd bytes as \xNN */
    char *metadata_json; /* the source's metadata and that name; owned */
};

struct plan {
    struct container *container;
    const struct writer_ops *writer;
    struct plan_entry *entries; /* one a tensor that is written, in the container's order */
    struct out_tensor *outs; /* the same */
    char **facts; /* format facts, one a format used; owned */
    size_t n_facts;
    size_t n_tensors;
    struct out_blob *blobs;
    size_t n_blobs;
    struct writer_options options;
    struct writer_size size;
    char *out_path;
    enum nonfinite nonfinite;
    struct weighing weighing;
    struct smoothing *smoothing; /* what --smooth decided (smooth.h); NULL: nothing is migrated */
    uint64_t smoothing_nbytes; /* of the factors, and of the recipe that is to be written, which stay */
    uint64_t planning_nbytes; /* most that was held while the plan was made and is freed before the run: statistics, factors of groups */
    size_t migrated_tile_nbytes; /* largest tile of a migrated tensor in f32 */
    const struct budget_report *budget; /* what --target-bpw or --target-size came to (budget.h); NULL: not asked; not owned */
    bool measure;
    unsigned n_threads_asked, n_workers;
    uint64_t max_ram, ram_nbytes; /* budget; what the plan needs, without the index */
    uint64_t index_nbytes; /* memory for what is held of every tensor, beside the budget */
    size_t scratch_weights; /* of one worker */
    size_t slot_nbytes; /* of one worker: for scale rules that observe the weights of a group */
    uint64_t observed_nbytes; /* held while scales of groups over several tiles are found and wait to be used */
    size_t n_open_groups; /* groups that one tile may end in the middle of, where they are searched */
    uint64_t source_tile_nbytes, planes_tile_nbytes; /* largest of one tile */
    /* totals */
    uint64_t n_fused_sets, n_fused; /* sets of tensors that share scales of matrices, and tensors in them */
    uint64_t n_carried, n_carried_groups, n_fallbacks, n_already; /* already: plain tensors that have the type asked for */
    uint64_t n_weights, n_quantised_weights, n_quantised, source_nbytes, quantised_source_nbytes, plane_nbytes, read_nbytes, scan_nbytes;
    uint64_t quantised_plane_nbytes;
};

/* The plan of convert (and plan): opens the model, applies the recipe. */
enum status plan_convert(struct app *app, struct recipe *recipe, struct plan *plan, struct err *err);

/* The plan of smooth: migrated weights in the types they have; the recipe says what they will be quantised to. */
enum status plan_smooth_only(struct app *app, struct recipe *recipe, struct plan *plan, struct err *err);

/* The plan of dequantize: every quantised tensor is cast to dtype (NULL: the one it had), all others are kept; the output is safetensors. wanted:
 * flags by tensor, for extract: one file, no small files; NULL for all. */
enum status plan_dequantize(struct app *app, const char *in_path, const char *out_path, const struct dtype *dtype, const bool *wanted,
                            struct plan *plan, struct err *err);

void plan_close(struct plan *plan);

/* What migration does to entry index: factors (NULL: none), and a plane of input scales, n_matrices x cols (NULL: none). */
enum status plan_set_migration(struct plan *plan, size_t index, const struct fold *fold, const float *input_scale, struct err *err);

/* The source tensor of entry index, and its tiles. */
const struct tensor *plan_tensor(const struct plan *plan, size_t index);
uint64_t plan_tile_count(const struct plan *plan, size_t index);

/* Of a carried tensor: the bytes of plane number k of its source that belong to a tile; planes of the whole tensor belong to its first one. */
struct span {
    uint64_t offset, nbytes;
};
struct span plan_from(const struct plan *plan, size_t index, uint32_t k, uint64_t tile);

/* Bytes read for one tile of entry index. */
uint64_t plan_tile_nbytes(const struct plan *plan, size_t index, uint64_t tile);

/* False when its tiles are written as they are read, so that no worker needs room for packed planes. */
bool plan_packs(const struct plan *plan, size_t index);

#endif
