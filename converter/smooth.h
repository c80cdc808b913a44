/* smooth.h: the migration of a run: which groups there are, what each got, and the factors of every tensor.
 *
 *   architecture map -> groups;  statistics + weights -> factors of a group;  factors -> what each tensor is multiplied by, before anything is written
 *
 * Why this way: all factors are made from the weights as they are, before the run, so that norms, shards and threads may come in any order; what
 * `plan` shows is what `convert` does.
 * Corner cases: a group that may not be migrated is left with its reason; a model whose architecture has no map is refused, unless factors are only
 * stored; nothing migrated at all is an error, since it was asked for.
 * Reference: design.md 2; the project's smoothquant notes 6a. Example: llmq plan --in model --format int4 --smooth stats.safetensors lists the groups.
 */
#ifndef LLMQ_CONVERTER_SMOOTH_H
#define LLMQ_CONVERTER_SMOOTH_H

#include "converter/app.h"
#include "converter/plan.h"
#include "converter/smooth_options.h"
#include "smoothquant/qdq8.h"

enum smooth_fate {
    SMOOTH_LEFT, /* not migrated: why says it */
    SMOOTH_FOLDED, /* into the layer before */
    SMOOTH_STORED /* factors stand beside the weights, for run time */
};

/* What became of one group. */
struct smooth_outcome {
    struct smooth_group *group;
    enum smooth_fate fate;
    char why[240];
    bool searched, given; /* alpha was searched; the factors were given (an AWQ cache, a recipe) */
    bool identity; /* all factors are 1 */
    enum smooth_family family;
    double alpha; /* NAN: none */
    double loss, identity_loss; /* NAN: not known */
    uint64_t n_clipped, n_dead;
    double deviation; /* largest relative change of the function by rounding, of a channel */
    float *s; /* [n] factors as chosen; NULL when left, and once the plan is made, as those below. Owned */
    float *consumers; /* [n] what input columns are multiplied by */
    bool has_act; /* ranges of the input were known: its 8-bit parameters after migration */
    struct qdq_linear act;
    float *producers, *others; /* [producer channels]: see fold.h; NULL when nothing is folded */
};

/* What --smooth-check found. */
struct smooth_checked {
    uint64_t n_tokens; /* 0: not checked */
    double largest, kl; /* difference of a logit; mean divergence, nats */
    bool equal; /* within the reference's tolerance */
};

struct smoothing {
    struct smooth_checked check;
    struct smooth_options options;
    char *arch; /* name of the map; NULL: none. Owned */
    struct smooth_groups groups; /* of the map */
    struct smooth_groups stored; /* of single tensors, for run time */
    bool *transposed; /* a tensor each: its inputs lie along its rows; NULL: the model has no map. Owned */
    struct smooth_outcome *outcomes; /* of groups, then of stored; owned */
    size_t n_outcomes, n_folded, n_stored;
    struct folds folds;
    float **input_scales; /* a tensor each, or NULL; owned */
    uint64_t n_tensors;
    uint64_t statistics_nbytes; /* memory of the statistics, while they were there */
    char stat[32]; /* the statistic, as text */
    char *recipe_json; /* what --smooth-recipe-out writes, and its factors as a safetensors file; NULL: not wanted. Owned */
    uint8_t *recipe_scales;
    size_t recipe_json_nbytes, recipe_scales_nbytes;
    char *inc_json; /* what --smooth-inc-json writes; owned */
    size_t inc_json_nbytes;
};

/* Decides the migration of a plan whose fates are decided; sets plan->smoothing, and fold and input_scale of its entries. Does nothing when no setting
 * asks for it. */
enum status plan_smooth(struct app *app, struct plan *plan, struct err *err);
void smoothing_free(struct smoothing *smoothing); /* NULL allowed */

/* False, with the outcome left and the reason in it, when a tensor of the group cannot be multiplied, or no factors can stand beside it. */
bool smooth_check_sides(const struct plan *plan, struct smooth_outcome *outcome);

/* Adds the files that --smooth-recipe-out and --smooth-inc-json ask for to a set that is committed with the output. */
enum status smooth_write_files(const struct plan *plan, struct outset *set, struct err *err);

#endif
