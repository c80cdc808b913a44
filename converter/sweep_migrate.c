/* sweep_migrate.c: migration in a sweep: factors, which lanes that came to the same share, and what is multiplied by them.
 *
 *   plan of a variant -> folds -> same as an earlier lane's? shared : kept       tile --copy, multiply--> what the lane codes
 *
 * Formula of memory: 4 bytes a factor, and 4 a channel of importance where there are statistics for it, once for each set of factors that differs.
 * Why this way: a fixed strength gives most formats the same factors, so that formats by strengths cost strengths; the tile that is read serves all
 * lanes and must stay as it is, so a lane multiplies a copy.
 * Corner cases: a kept tensor that is multiplied is rounded to its type, and its hash is of what comes of it; one that becomes infinite there fails its
 * lane; a set of factors is the same only to the last bit.
 * Reference: smoothquant/fold.h, pipeline.c (the same for one conversion). Worked number: 4 formats by 2 strengths of SmoothQuant: 2 sets.
 */
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "converter/smooth.h"
#include "converter/sweep_run.h"
#include "converter/tile_read.h"

enum { PIECE = 1024 }; /* numbers that are narrowed at a time */

/* ---- sets of factors ------------------------------------------------------------------------------------------------------------------ */

static bool same_factors(const float *a, const float *b, uint64_t n)
{
    if (!a || !b) return a == b;
    return memcmp(a, b, (size_t)n * sizeof *a) == 0;
}

static bool same_fold(const struct fold *a, const struct fold *b)
{
    if (!a || !b) return a == b;
    return a->n_rows == b->n_rows && a->n_cols == b->n_cols && a->n_mats == b->n_mats && a->n_sets == b->n_sets && a->plus_one == b->plus_one &&
           same_factors(a->rows, b->rows, a->n_rows) && same_factors(a->cols, b->cols, a->n_sets * a->n_cols);
}

static bool same_folds(const struct folds *a, const struct folds *b)
{
    bool same = a->n == b->n;
    for (size_t i = 0; i < a->n && same; i++) same = same_fold(a->of[i], b->of[i]);
    return same;
}

enum status sweep_migration_take(struct sweep *sweep, struct plan *plan, struct sweep_migration **out, struct err *err)
{
    *out = NULL;
    if (!plan->smoothing) return OK;
    for (struct sweep_migration *at = sweep->migrations; at && !*out; at = at->next)
        if (same_folds(&at->folds, &plan->smoothing->folds)) *out = at;
    if (*out) return OK;
    struct sweep_migration *made = calloc(1, sizeof *made);
    if (!made) return err_set(err, ERR_MEMORY, "out of memory for the factors of a variant");
    made->folds = plan->smoothing->folds;
    plan->smoothing->folds = (struct folds){ 0 };
    made->next = sweep->migrations;
    sweep->migrations = *out = made;
    return OK;
}

void sweep_migrations_free(struct sweep *sweep)
{
    for (struct sweep_migration *at = sweep->migrations, *next; at; at = next) {
        next = at->next;
        for (size_t i = 0; at->importances && i < at->folds.n; i++) importance_free(&at->importances[i]);
        free(at->importances);
        folds_free(&at->folds);
        free(at);
    }
}

uint64_t sweep_migrations_nbytes(const struct sweep *sweep)
{
    uint64_t total = 0;
    for (const struct sweep_migration *at = sweep->migrations; at; at = at->next) {
        total += at->folds.nbytes;
        for (size_t i = 0; at->importances && i < at->folds.n; i++)
            total += at->importances[i].n_mat * (at->importances[i].n_in * sizeof(float) + sizeof *at->importances[i].rows);
    }
    return total;
}

/* Room for a tile of any stream, since ranges of matrices are taken in whichever cut comes first. */
uint64_t sweep_migrated_nbytes(const struct sweep *sweep)
{
    return sweep->migrations ? size_max(sweep->migrated_tile_nbytes, sizeof(float) * sweep->tile_weights) : 0;
}

/* ---- what is multiplied ----------------------------------------------------------------------------------------------------------------- */

const float *sweep_migrate(const struct fold *fold, const struct tile *place, const float *x, const struct sweep_worker *worker)
{
    if (!fold) return x;
    memcpy(worker->migrated, x, (size_t)(place->n_rows * place->n_cols) * sizeof *x);
    fold_apply(fold, place, worker->migrated);
    return worker->migrated;
}

bool sweep_migrate_kept(const struct sweep *sweep, size_t item, const struct fold *fold, const struct tile *place, struct sweep_worker *worker,
                        struct digest128 *digest)
{
    const struct dtype *dtype = sweep->container->tensors[item].dtype;
    const struct kernels *kernels = sweep->app->kernels;
    const size_t n = (size_t)(place->n_rows * place->n_cols);
    uint8_t bytes[PIECE * sizeof(double)];
    float *x = worker->migrated;
    dtype->widen(worker->source, n, x);
    const bool finite = kernels->all_finite(x, n);
    fold_apply(fold, place, x);
    digest_reset(worker->stream);
    for (size_t at = 0; at < n; at += PIECE) {
        const size_t count = (size_t)size_min(PIECE, n - at);
        dtype->narrow(x + at, count, bytes);
        dtype->widen(bytes, count, x + at);
        digest_add(worker->stream, bytes, count * dtype->bits / 8);
    }
    *digest = digest_value(worker->stream);
    return !finite || kernels->all_finite(x, n);
}

void sweep_migrate_rounded(const struct dtype *dtype, float *x, uint64_t n)
{
    uint8_t bytes[PIECE * sizeof(double)];
    for (uint64_t at = 0; at < n; at += PIECE) {
        const size_t count = (size_t)size_min(PIECE, n - at);
        dtype->narrow(x + at, count, bytes);
        dtype->widen(bytes, count, x + at);
    }
}
