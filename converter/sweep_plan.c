/* sweep_plan.c: what a sweep will do: for every variant the plan that convert would make, kept as one small cell a tensor.
 *
 * Drawing: variant -> settings -> recipe, plan_convert -> cells, size of the file -> plan_close;   then the importance of all tensors, once
 * Why this way: nothing is decided here that convert decides; a plan is ten times larger than its cells, so only one stands at a time.
 * Corner cases: a variant without migration is planned without any option of it; options of a search go to the variants that search. A recipe may not
 * migrate by itself, for its variants would not say so. What a plan refuses as usage (a rule that needs shorter groups, a forbidden fallback) is a reason to skip the variant, unless all are
 * refused; notes are printed once, not for every variant.
 * Reference: sweep_run.h. Worked number: a model of 300 tensors, 20 variants: 20 plans one after the other, 300 streams.
 */
#include <stdlib.h>
#include <string.h>

#include "base/glob.h"
#include "base/size.h"
#include "converter/recipe.h"
#include "converter/smooth.h"
#include "converter/statistics.h"
#include "converter/sweep_run.h"
#include "converter/table_head.h"
#include "converter/tile_read.h"

/* ---- settings of one variant ------------------------------------------------------------------------------------------------------ */

struct saved {
    const char *values[SET_COUNT];
    bool from_recipe[SET_COUNT];
};

static void save(const struct settings *settings, struct saved *saved)
{
    memcpy(saved->values, settings->values, sizeof saved->values);
    memcpy(saved->from_recipe, settings->from_recipe, sizeof saved->from_recipe);
}

static void restore(struct settings *settings, const struct saved *saved)
{
    memcpy(settings->values, saved->values, sizeof saved->values);
    memcpy(settings->from_recipe, saved->from_recipe, sizeof saved->from_recipe);
}

/* Strength as --alpha takes it; what it does not heed is not given, as convert would refuse it. */
static void set_migration(struct settings *settings, const struct sweep_variant *variant)
{
    if (!settings_given(settings, SET_SMOOTH)) return;
    for (int id = SET_SMOOTH; id <= SET_SMOOTH_MAP; id++)
        if (!sweep_heeds(variant, (enum setting_id)id)) settings->values[id] = NULL;
    if (variant->alpha_text && strcmp(variant->alpha_text, "default") != 0) settings->values[SET_ALPHA] = variant->alpha_text;
}

/* Only what convert would be given; the rest of the words are in the format's text. */
static void set_variant(struct settings *settings, const struct sweep_variant *variant, bool quiet)
{
    const bool blocks = strstr(variant->settings, "--group-size ") == NULL;
    settings->values[SET_FORMAT] = variant->format;
    settings->values[SET_GROUP_SIZE] = blocks ? NULL : variant->group_size;
    settings->values[SET_SCALE_RULE] = strcmp(variant->scale_rule, "default") == 0 ? NULL : variant->scale_rule;
    set_migration(settings, variant);
    settings->values[SET_COMPRESS] = "none";
    settings->values[SET_OUT] = "sweep.llmq"; /* never written */
    if (quiet) settings->values[SET_QUIET] = "true";
}

/* ---- texts ------------------------------------------------------------------------------------------------------------------------ */

/* The role of an earlier tensor, where it has the same. */
static const char *role_text(struct sweep *sweep, size_t before, const char *role)
{
    for (size_t i = before; i-- > 0;)
        if (strcmp(sweep->items[i].role, role) == 0) return sweep->items[i].role;
    return table_text(sweep->table, role);
}

/* ---- items ------------------------------------------------------------------------------------------------------------------------ */

static enum status select_items(struct sweep *sweep, struct err *err)
{
    const char *text = sweep->spec->tensors;
    struct pattern *pattern = NULL;
    const bool by_role = text && strncmp(text, "role:", 5) == 0;
    size_t n = 0;
    enum status status = text && !by_role ? pattern_open(text, &pattern, err) : OK;
    for (size_t i = 0; i < sweep->n_items && !status; i++) {
        struct sweep_item *item = &sweep->items[i];
        item->wanted = !text || (by_role ? strcmp(item->role, text + 5) == 0 : pattern_match(pattern, item->name));
        n += item->wanted;
    }
    pattern_close(pattern);
    return status || n ? status : err_set(err, ERR_USAGE, "--tensors '%s' selects no tensor", text ? text : "");
}

static enum status make_items(struct sweep *sweep, const struct plan *plan, struct err *err)
{
    sweep->n_items = plan->n_tensors;
    sweep->items = calloc(sweep->n_items + 1, sizeof *sweep->items);
    if (!sweep->items) return err_set(err, ERR_MEMORY, "out of memory for %zu tensors", sweep->n_items);
    for (size_t i = 0; i < sweep->n_items; i++) {
        struct sweep_item *item = &sweep->items[i];
        item->name = table_text(sweep->table, plan_tensor(plan, i)->name);
        item->role = role_text(sweep, i, plan->outs[i].role);
        if (!item->name || !item->role) return err_set(err, ERR_MEMORY, "out of memory for %zu tensors", sweep->n_items);
        item->layer = table_layer(item->name);
        item->shape = plan->entries[i].shape;
        item->source_digest = digest128("", 0);
    }
    return select_items(sweep, err);
}

/* ---- cells ------------------------------------------------------------------------------------------------------------------------ */

/* The lane's own copy of the quant. */
static const struct quant *keep_quant(struct sweep_lane *lane, const struct quant *quant, struct err *err)
{
    for (struct sweep_quant *at = lane->quants; at; at = at->next)
        if (quant_same(&at->quant, quant)) return &at->quant;
    struct sweep_quant *kept = malloc(sizeof *kept);
    if (!kept) {
        err_set(err, ERR_MEMORY, "out of memory");
        return NULL;
    }
    *kept = (struct sweep_quant){ *quant, sweep_ends_of(quant), lane->quants };
    lane->quants = kept;
    return &kept->quant;
}

static uint64_t planes_nbytes(const struct out_tensor *out)
{
    uint64_t total = 0;
    for (uint32_t k = 0; k < out->n_planes; k++) total += plane_nbytes(&out->planes[k].plane);
    return total;
}

static enum status make_cell(struct sweep_lane *lane, const struct plan *plan, size_t i, struct err *err)
{
    const struct plan_entry *entry = &plan->entries[i];
    const struct out_tensor *out = &plan->outs[i];
    struct sweep_cell *cell = &lane->cells[i];
    *cell = (struct sweep_cell){ .format = out->format ? out->format : "keep", .plane_nbytes = planes_nbytes(out), .fused_next = i };
    cell->digest = digest128("", 0);
    if (lane->migration) cell->fold = lane->migration->folds.of[entry->tensor];
    if (entry->fate != FATE_QUANTISE) return OK;
    cell->quant = keep_quant(lane, &entry->verdict.quant, err);
    if (!cell->quant) return err->code;
    cell->fused_next = entry->fused_next;
    cell->spans = entry->spans;
    cell->heeds = codec_heeds_importance(cell->quant);
    return OK;
}

/* ---- streams ---------------------------------------------------------------------------------------------------------------------- */

static bool same_geometry(const struct plane *a, const struct plane *b)
{
    return a->bits == b->bits && a->rows == b->rows && a->cols == b->cols && a->tile_rows == b->tile_rows && a->tile_cols == b->tile_cols;
}

/* The item's stream with this cut; streams of an item stand side by side, so all of its must be asked for one after the other. */
static enum status stream_of(struct sweep *sweep, size_t i, const struct plane *geometry, uint32_t *number, struct err *err)
{
    struct sweep_item *item = &sweep->items[i];
    for (*number = item->first_stream; *number < item->first_stream + item->n_streams; ++*number)
        if (same_geometry(&sweep->streams[*number].geometry, geometry)) return OK;
    if (sweep->n_streams == sweep->streams_capacity) {
        const size_t capacity = sweep->streams_capacity * 2 + 64;
        struct sweep_stream *bigger = realloc(sweep->streams, capacity * sizeof *bigger);
        if (!bigger) return err_set(err, ERR_MEMORY, "out of memory");
        sweep->streams = bigger;
        sweep->streams_capacity = capacity;
    }
    if (!item->n_streams++) item->first_stream = (uint32_t)sweep->n_streams;
    *number = (uint32_t)sweep->n_streams;
    sweep->streams[sweep->n_streams++] = (struct sweep_stream){ .item = i, .geometry = *geometry };
    return OK;
}

/* The cut of the tensor as a quant has it, or as it is kept. */
static struct plane geometry_of(const struct tensor *tensor, const struct shape *shape, const struct quant *quant)
{
    struct plane geometry = { "data", tile_read_dtype(tensor)->bits, shape->rows, shape->cols, 0, 0 };
    if (quant) {
        codec_tile_shape(quant, shape, &geometry.tile_rows, &geometry.tile_cols);
        return geometry;
    }
    struct kept kept;
    kept_planes(tensor->dtype, tensor_rows(tensor), tensor_cols(tensor), false, &kept);
    return (struct plane){ "data", kept.item_nbytes * 8, kept.rows, kept.cols, kept.tile_rows, kept.tile_cols };
}

static uint64_t count_tiles(const struct sweep *sweep, const struct plane *geometry)
{
    const uint64_t n = plane_tile_count(geometry);
    const uint64_t most = (uint64_t)((double)n * sweep->spec->sample + 0.999999);
    return n < 1 ? 0 : most < 1 ? 1 : most < n ? most : n;
}

uint64_t sweep_tile(const struct sweep *sweep, const struct sweep_stream *stream, uint64_t k)
{
    const uint64_t n = plane_tile_count(&stream->geometry), m = stream->n_tiles;
    (void)sweep;
    return m == n ? k : (uint64_t)(((double)k + 0.5) * (double)n / (double)m);
}

bool sweep_whole(const struct sweep *sweep, const struct sweep_stream *stream)
{
    (void)sweep;
    return stream->n_tiles == plane_tile_count(&stream->geometry);
}

static void stream_coded(struct sweep *sweep, struct sweep_stream *stream)
{
    const struct plane *geometry = &stream->geometry;
    stream->coded = true;
    if (!plane_tile_count(geometry)) return;
    const struct tile tile = plane_tile(geometry, 0);
    sweep->tile_weights = size_max(sweep->tile_weights, tile.n_rows * tile.n_cols);
}

/* Streams of one tensor, for itself and for all lanes. */
static enum status make_streams(struct sweep *sweep, size_t i, struct err *err)
{
    struct sweep_item *item = &sweep->items[i];
    const struct tensor *tensor = &sweep->container->tensors[i];
    struct plane geometry = geometry_of(tensor, &item->shape, NULL);
    enum status status = OK;
    item->source_stream = UINT32_MAX;
    const bool needed = item->wanted || item->observed;
    if (item->wanted && !tensor->quantised && sweep->spec->sample >= 1.0) status = stream_of(sweep, i, &geometry, &item->source_stream, err);
    for (size_t v = 0; v < sweep->n_lanes && !status && needed; v++) {
        struct sweep_cell *cell = &sweep->lanes[v].cells[i];
        item->carried |= tensor->quantised && !cell->quant;
        if (!cell->quant) continue;
        geometry = geometry_of(tensor, &item->shape, cell->quant);
        status = stream_of(sweep, i, &geometry, &cell->stream, err);
        if (!status) stream_coded(sweep, &sweep->streams[cell->stream]);
    }
    for (uint32_t s = item->first_stream; s < item->first_stream + item->n_streams && !status; s++) {
        struct sweep_stream *stream = &sweep->streams[s];
        stream->n_tiles = count_tiles(sweep, &stream->geometry);
        if (plane_tile_count(&stream->geometry))
            sweep->source_tile_nbytes = size_max(sweep->source_tile_nbytes, plane_tile_nbytes(&stream->geometry, 0));
    }
    return status;
}

/* Tensors that share scales with a wanted one, in some lane. */
static void mark_observed(struct sweep *sweep)
{
    for (size_t v = 0; v < sweep->n_lanes; v++)
        for (size_t i = 0; i < sweep->n_items; i++) {
            const struct sweep_cell *cells = sweep->lanes[v].cells;
            if (!sweep->items[i].wanted) continue;
            for (size_t k = cells[i].fused_next; k != i; k = cells[k].fused_next) sweep->items[k].observed = true;
        }
}

/* ---- lanes ------------------------------------------------------------------------------------------------------------------------ */

static enum status make_lane(struct sweep *sweep, size_t variant, struct plan *plan, struct err *err)
{
    enum status status = sweep->items ? OK : make_items(sweep, plan, err);
    struct sweep_lane *lane = &sweep->lanes[sweep->n_lanes];
    if (status) return status;
    sweep->n_lanes++;
    lane->variant = variant;
    lane->file_nbytes = plan->size.nbytes;
    lane->cells = calloc(sweep->n_items + 1, sizeof *lane->cells);
    lane->given = calloc(sweep->n_items + 1, sizeof *lane->given);
    lane->tensor_scales = calloc(sweep->n_items + 1, sizeof *lane->tensor_scales);
    lane->stream = digest_open();
    if (!lane->cells || !lane->given || !lane->tensor_scales || !lane->stream) return err_set(err, ERR_MEMORY, "out of memory for a variant");
    status = sweep_migration_take(sweep, plan, &lane->migration, err);
    for (size_t i = 0; i < sweep->n_items && !status; i++) status = make_cell(lane, plan, i, err);
    sweep->migrated_tile_nbytes = size_max(sweep->migrated_tile_nbytes, plan->migrated_tile_nbytes);
    sweep->scan_nbytes += plan->scan_nbytes;
    sweep->nonfinite = plan->nonfinite;
    sweep->planes_tile_nbytes = size_max(sweep->planes_tile_nbytes, plan->planes_tile_nbytes);
    sweep->scratch_weights = (size_t)size_max(sweep->scratch_weights, plan->scratch_weights);
    return status;
}

/* What a recipe may not say, since rows would not tell; recipe_open has set it. */
static enum status check_recipe(struct settings *settings, const struct saved *saved, struct err *err)
{
    if (saved->values[SET_SMOOTH] && settings->from_recipe[SET_SMOOTH]) settings->values[SET_SMOOTH] = NULL; /* of the variant without */
    else if (settings->from_recipe[SET_SMOOTH]) return err_set(err, ERR_USAGE, "the recipe migrates; a sweep needs --smooth for that, and --alphas");
    if (settings_given(settings, SET_SMOOTH_RECIPE) || settings_flag(settings, SET_SMOOTH_RUNTIME) || !settings_is(settings, SET_FOLDING, "on"))
        return err_set(err, ERR_USAGE,
                       "a sweep folds all factors and makes its own, so the recipe may not set smooth-recipe, smooth-runtime or folding");
    return OK;
}

static enum status plan_variant(struct sweep *sweep, size_t variant, const struct saved *saved, struct err *err)
{
    struct recipe recipe = { 0 };
    struct plan plan = { 0 };
    struct err why = { OK, "" };
    enum status status = recipe_open(sweep->app, &recipe, &why);
    if (!status) status = check_recipe(&sweep->app->settings, saved, &why);
    if (!status) status = plan_convert(sweep->app, &recipe, &plan, &why);
    if (!status) status = make_lane(sweep, variant, &plan, &why);
    plan_close(&plan);
    recipe_close(&recipe);
    if (status == ERR_USAGE) return sweep_skip(&sweep->table->variants[variant], why.text, err);
    if (status) *err = why;
    return status;
}

static enum status plan_variants(struct sweep *sweep, struct err *err)
{
    struct sweep_table *table = sweep->table;
    struct saved saved;
    size_t n_asked = 0, first = SIZE_MAX;
    enum status status = OK;
    sweep->lanes = calloc(table->n_variants + 1, sizeof *sweep->lanes);
    if (!sweep->lanes) return err_set(err, ERR_MEMORY, "out of memory");
    save(&sweep->app->settings, &saved);
    for (size_t v = 0; v < table->n_variants && !status; v++) {
        if (table->variants[v].skipped) continue;
        if (n_asked++ == 0) first = v;
        set_variant(&sweep->app->settings, &table->variants[v], true);
        status = plan_variant(sweep, v, &saved, err);
        restore(&sweep->app->settings, &saved);
    }
    if (!status && !sweep->n_lanes) status = err_set(err, ERR_USAGE, "%s", table->variants[first].skipped);
    return status;
}

/* ---- importance ------------------------------------------------------------------------------------------------------------------- */

static bool is_coded(const struct sweep *sweep, size_t i)
{
    for (size_t v = 0; v < sweep->n_lanes; v++)
        if (sweep->lanes[v].cells[i].quant) return true;
    return false;
}

static enum status weigh_item(const struct sweep *sweep, struct stats_lookup *lookup, size_t i, const struct fold *fold, struct importance *out,
                              struct err *err)
{
    const struct sweep_item *item = &sweep->items[i];
    const enum status status = stats_importance_migrated(lookup, item->name, item->shape.n_matrices, item->shape.cols, fold ? fold->cols : NULL,
                                                         fold ? fold->n_sets : 0, out, err);
    if (!status && out->n_without == out->n_mat) importance_free(out);
    return status;
}

static enum status open_importances(struct sweep *sweep, struct err *err)
{
    for (struct sweep_migration *at = sweep->migrations; at; at = at->next) {
        at->importances = calloc(at->folds.n + 1, sizeof *at->importances);
        if (!at->importances) return err_set(err, ERR_MEMORY, "out of memory");
    }
    return OK;
}

static enum status weigh(struct sweep *sweep, struct stats_lookup *lookup, struct err *err)
{
    enum status status = OK;
    for (size_t i = 0; i < sweep->n_items && !status; i++) {
        const struct sweep_item *item = &sweep->items[i];
        if (!(item->wanted || item->observed) || !is_coded(sweep, i)) continue;
        status = weigh_item(sweep, lookup, i, NULL, &sweep->items[i].importance, err);
        for (struct sweep_migration *at = sweep->migrations; at && !status; at = at->next)
            if (at->folds.of[i] && at->folds.of[i]->cols) status = weigh_item(sweep, lookup, i, at->folds.of[i], &at->importances[i], err);
    }
    return status;
}

static enum status make_importance(struct sweep *sweep, struct err *err)
{
    struct statistics statistics;
    const struct settings *settings = &sweep->app->settings;
    if (!settings_given(settings, SET_IMATRIX)) return OK;
    enum status status = statistics_open(sweep->app, settings_text(settings, SET_IMATRIX), &statistics, err);
    if (!status) status = open_importances(sweep, err);
    if (!status) status = weigh(sweep, statistics.lookup, err);
    statistics_close(&statistics);
    sweep->table->weighted = true;
    return status;
}

/* Every cell's importance: that of its inputs as they are, or as its lane's factors leave them. */
static void point_importance(struct sweep *sweep)
{
    for (size_t v = 0; v < sweep->n_lanes; v++)
        for (size_t i = 0; i < sweep->n_items; i++) {
            struct sweep_cell *cell = &sweep->lanes[v].cells[i];
            const bool divided = cell->fold && cell->fold->cols && sweep->lanes[v].migration->importances;
            cell->importance = divided ? &sweep->lanes[v].migration->importances[i] : &sweep->items[i].importance;
        }
}

/* ---- all of it -------------------------------------------------------------------------------------------------------------------- */

enum status sweep_plan(struct sweep *sweep, struct err *err)
{
    enum status status = plan_variants(sweep, err);
    if (status) return status;
    mark_observed(sweep);
    for (size_t i = 0; i < sweep->n_items && !status; i++) status = make_streams(sweep, i, err);
    if (!status) status = make_importance(sweep, err);
    point_importance(sweep);
    return status;
}

static void free_lane(const struct sweep *sweep, struct sweep_lane *lane)
{
    for (size_t i = 0; i < sweep->n_items; i++) {
        if (lane->given) free(lane->given[i]);
        if (lane->tensor_scales) free(lane->tensor_scales[i]);
    }
    for (struct sweep_quant *at = lane->quants, *next; at; at = next) {
        next = at->next;
        free(at);
    }
    free(lane->cells);
    free(lane->given);
    free(lane->tensor_scales);
    digest_close(lane->stream);
}

void sweep_plan_free(struct sweep *sweep)
{
    for (size_t v = 0; v < sweep->n_lanes; v++) free_lane(sweep, &sweep->lanes[v]);
    for (size_t i = 0; i < sweep->n_items; i++) importance_free(&sweep->items[i].importance);
    sweep_migrations_free(sweep);
    free(sweep->lanes);
    free(sweep->items);
    free(sweep->streams);
}
