/* plan.c: builds the plan.
 *
 * Drawing: open -> refuse what is already quantised -> (scan, for --nonfinite keep) -> decide every tensor -> planes -> (--imatrix) -> sizes -> memory.
 * Formula of memory: program + observed scales + workers * (source tiles + plane tiles + scratch + writer's own + stack), tiles a job the largest power of two that
 * fits, at most 16.
 * Why this way: see plan.h.
 * Corner cases: no tensor quantised is an error; the output's name is made from the input's; a folder's config.json is read for signs of
 * quantisation.
 * Reference: plan.h. Worked number: 32M, 2 threads, BF16 -> mxfp4: 8 tiles a job.
 */
#define _XOPEN_SOURCE 700 /* realpath */
#include "converter/plan.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/pool.h"
#include "base/size.h"
#include "container/gguf.h"
#include "container/prequant.h"
#include "container/shown.h"
#include "converter/fused.h"
#include "converter/group_observe.h"
#include "converter/importance.h"
#include "converter/scan.h"
#include "converter/smooth.h"
#include "converter/tile_read.h"
#include "converter/version.h"
#include "layout/facts.h"
#include "number/choose.h"

enum {
    PROGRAM_NBYTES = 9 << 19, /* 4.5M: the program and its libraries, resident */
    THREAD_NBYTES = 1 << 16, /* stack and allocator of a thread, resident */
    RESULT_NBYTES = sizeof(struct measure) + sizeof(struct digest128) + sizeof(struct group_scale *), /* the pipeline's, of a tensor */
    NAME_NBYTES = 64, /* of a tensor in the table of names, and what an allocation costs */
    OPEN_GROUP_NBYTES = 2 * CANDIDATES_MAX * sizeof(double), /* of a group that is searched, a thread's and its share of the sum */
    TILES_PER_JOB_MAX = 16
};

/* ---- opening -------------------------------------------------------------------------------------------------------------------- */

static enum status check_prequantised(struct plan *plan, struct err *err)
{
    struct container *container = plan->container;
    char *text = NULL;
    size_t nbytes = 0;
    enum status status = OK;
    for (size_t i = 0; i < container->n_blobs && !status; i++) {
        if (strcmp(container->blobs[i].name, "config.json") != 0 || container->blobs[i].nbytes > 16u << 20) continue;
        nbytes = (size_t)container->blobs[i].nbytes;
        text = malloc(nbytes + 1);
        if (!text) return err_set(err, ERR_MEMORY, "out of memory");
        status = container_read_blob(container, i, 0, nbytes, text, err);
        text[nbytes] = '\0';
    }
    if (!status) status = prequant_check(container, text, nbytes, err);
    free(text);
    return status;
}

static enum status read_blob(void *context, size_t index, uint64_t offset, size_t nbytes, void *buf, struct err *err)
{
    return container_read_blob(context, index, offset, nbytes, buf, err);
}

static enum status open_model(struct app *app, const char *path, struct plan *plan, struct err *err)
{
    enum status status = container_open(app->io, path, &plan->container, err);
    if (status) return status;
    struct container *container = plan->container;
    for (size_t i = 0; i < container->n_notes; i++) app_note(app, "%s", container->notes[i]);
    plan->n_tensors = container->n_tensors;
    plan->entries = calloc(plan->n_tensors + 1, sizeof *plan->entries);
    plan->outs = calloc(plan->n_tensors + 1, sizeof *plan->outs);
    plan->facts = calloc(format_count() + 1, sizeof *plan->facts);
    plan->blobs = calloc(container->n_blobs + 1, sizeof *plan->blobs);
    if (!plan->entries || !plan->outs || !plan->facts || !plan->blobs)
        return err_set(err, ERR_MEMORY, "out of memory for %zu tensors", plan->n_tensors);
    for (size_t i = 0; i < container->n_blobs; i++)
        plan->blobs[i] = (struct out_blob){ container->blobs[i].name, container->blobs[i].nbytes, read_blob, container, i };
    plan->n_blobs = container->n_blobs;
    for (size_t i = 0; i < plan->n_tensors; i++) plan->entries[i].tensor = i;
    return OK;
}

static void read_settings(struct app *app, struct plan *plan)
{
    const struct settings *settings = &app->settings;
    static const struct {
        const char *name;
        enum compress_mode mode;
    } modes[] = { { "none", COMPRESS_NONE }, { "default", COMPRESS_DEFAULT }, { "max", COMPRESS_MAX } };
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
        if (settings_is(settings, SET_COMPRESS, modes[i].name)) plan->options.compress = modes[i].mode;
    if (plan->writer->blocks) plan->options.compress = COMPRESS_NONE;
    plan->options.file_type = settings_given(settings, SET_FILE_TYPE) ? (uint32_t)settings_number(settings, SET_FILE_TYPE) : UINT32_MAX;
    plan->nonfinite = settings_is(settings, SET_NONFINITE, "zero")    ? NONFINITE_ZERO
                      : settings_is(settings, SET_NONFINITE, "clamp") ? NONFINITE_CLAMP
                                                                      : NONFINITE_ERROR;
    plan->measure = settings_is(settings, SET_MEASURE, "on");
    plan->options.split_nbytes = settings_number(settings, SET_SPLIT_SIZE);
    plan->options.align = (uint32_t)settings_number(settings, SET_ALIGN);
    plan->options.writer_name = "llmq " LLMQ_VERSION_TEXT;
    plan->options.metadata_json = plan->container->metadata_json;
    uint64_t threads = settings_number(settings, SET_THREADS);
    plan->n_threads_asked = threads ? (unsigned)threads : pool_cpu_count();
    plan->max_ram = settings_number(settings, SET_MAX_RAM);
}

/* ---- output name ---------------------------------------------------------------------------------------------------------------- */

/* The model's own name: the folder of a directory or index, the file without its ending. Caller frees; NULL when out of memory. */
static char *model_name(const char *in)
{
    char *real = realpath(in, NULL), *name = NULL;
    if (!real) return NULL;
    const char *base = path_base(real);
    size_t n = strlen(base);
    if (n > 11 && strcmp(base + n - 11, ".index.json") == 0) {
        char *dir = path_dir(real);
        name = dir ? strdup(path_base(dir)) : NULL;
        free(dir);
    } else if (path_is_dir(in)) {
        name = strdup(base);
    } else {
        const char *given = path_base(in); /* a link keeps the name the user sees */
        const char *dot = strrchr(given, '.');
        name = strndup(given, dot && dot != given ? (size_t)(dot - given) : strlen(given));
    }
    free(real);
    return name;
}

static enum status default_out_path(struct app *app, const struct recipe *recipe, struct plan *plan, struct err *err)
{
    if (settings_given(&app->settings, SET_OUT)) {
        plan->out_path = strdup(settings_text(&app->settings, SET_OUT));
    } else {
        char *name = model_name(settings_text(&app->settings, SET_IN)), *recipe_name = NULL;
        const char *format = recipe->has_default ? recipe->preset.format->name : "mixed";
        if (!recipe->has_default && settings_given(&app->settings, SET_RECIPE)) {
            recipe_name = model_name(settings_text(&app->settings, SET_RECIPE));
            if (recipe_name) format = recipe_name;
        }
        size_t nbytes = name ? strlen(name) + strlen(format) + 16 : 0;
        plan->out_path = name ? malloc(nbytes) : NULL;
        if (plan->out_path) snprintf(plan->out_path, nbytes, "%s.%s.llmq", name, format);
        free(recipe_name);
        free(name);
    }
    if (!plan->out_path) return err_set(err, ERR_MEMORY, "out of memory");
    plan->options.path = plan->out_path;
    return OK;
}

/* The writer that the output's name asks for; a name with no ending of ours is llmq's own. */
static const struct writer_ops *convert_writer(const char *out)
{
    const struct writer_ops *writer = writer_of_path(out);
    return writer && writer->quantised ? writer : &llmq_writer_ops;
}

/* ---- tensors -------------------------------------------------------------------------------------------------------------------- */

static const char *facts_of(struct plan *plan, const struct format *format)
{
    size_t row = 0;
    while (format_at(row) != format) row++;
    if (!plan->facts[row]) {
        struct text text = text_make(4096);
        facts_write(format, &text);
        plan->facts[row] = text.failed ? NULL : strdup(text.data);
        text_free(&text);
    }
    return plan->facts[row];
}

static void out_common(struct plan *plan, size_t i, struct out_tensor *out)
{
    const struct tensor *tensor = plan_tensor(plan, i);
    *out = (struct out_tensor){ .name = tensor->name, .dims = tensor->dims, .rank = tensor->rank, .dtype = tensor->dtype->name };
    plan->entries[i].shape = tensor_shape(tensor);
    out->role = plan->entries[i].verdict.role ? plan->entries[i].verdict.role->name : "other";
}

static void plan_keep(struct plan *plan, size_t i)
{
    struct plan_entry *entry = &plan->entries[i];
    const struct tensor *tensor = plan_tensor(plan, i);
    struct out_tensor *out = &plan->outs[i];
    bool split = plan->writer->digests && plan->options.compress != COMPRESS_NONE;
    kept_planes(tensor->dtype, tensor_rows(tensor), tensor_cols(tensor), split, &entry->kept);
    entry->fate = FATE_KEEP;
    entry->source =
        (struct plane){ "data", entry->kept.item_nbytes * 8, entry->kept.rows, entry->kept.cols, entry->kept.tile_rows, entry->kept.tile_cols };
    out->tile_rows = entry->kept.tile_rows;
    out->tile_cols = entry->kept.tile_cols;
    out->n_planes = entry->kept.n_planes;
    for (uint32_t k = 0; k < out->n_planes; k++)
        out->planes[k] = (struct out_plane){ entry->kept.planes[k], !plan->writer->digests || compress_maps(plan->options.compress, false, k) };
}

/* What the writer is told of a tensor coded so, and its planes. */
static enum status plan_planes(struct plan *plan, size_t i, const struct quant *quant, struct err *err)
{
    struct plan_entry *entry = &plan->entries[i];
    struct out_tensor *out = &plan->outs[i];
    struct plane planes[CODEC_PLANES_MAX];
    out->n_planes = codec_planes(quant, &entry->shape, planes);
    for (uint32_t k = 0; k < out->n_planes; k++) {
        out->planes[k] = (struct out_plane){ planes[k], compress_maps(plan->options.compress, true, k) };
        entry->whole[k] = codec_is_whole(quant, &entry->shape, &planes[k]);
    }
    codec_tile_shape(quant, &entry->shape, &out->tile_rows, &out->tile_cols);
    out->format = quant->format->name;
    out->block = quant->format->block;
    out->format_facts = facts_of(plan, quant->format);
    out->group = quant_group_json(quant, entry->group);
    out->sub_block = quant->sub_block;
    out->scale_rule = quant->rule == RULE_COUNT ? NULL : scale_rule_name(quant->rule);
    out->percentile = entry->fate == FATE_QUANTISE ? quant_percentile_text(quant, entry->percentile) : NULL;
    out->rounding = rounding_name(quant->rounding);
    out->scale = scale_type_name(quant->scale);
    return out->format_facts ? OK : err_set(err, ERR_MEMORY, "out of memory");
}

static enum status refuse_unknown(const struct plan *plan, size_t i, struct err *err)
{
    const struct tensor *tensor = plan_tensor(plan, i);
    char name[200];
    err_name(tensor->name, strlen(tensor->name), name, sizeof name);
    return err_set(err, ERR_UNSUPPORTED, "tensor '%s' has type %s, which llmq cannot decode", name, tensor->format ? tensor->format : "?");
}

/* Whether the writer can hold tensors coded so. */
static enum status check_blocks(const struct quant *quant, const struct shape *shape, struct err *err)
{
    if (quant->blocks && codec_spans(quant, shape->rows, shape->cols))
        return err_set(err, ERR_USAGE, "GGUF cannot hold format %s with groups this long", quant->format->name);
    return quant->blocks ? layout_check_blocks(quant, err) : OK;
}

/* Codes that go as they are from the layout of the source to that of the output. */
static enum status plan_carry(struct plan *plan, size_t i, struct err *err)
{
    struct plan_entry *entry = &plan->entries[i];
    const struct tensor *tensor = plan_tensor(plan, i);
    struct quant *quant = &entry->verdict.quant;
    char name[200];
    err_name(tensor->name, strlen(tensor->name), name, sizeof name);
    if (!tensor->quant) return refuse_unknown(plan, i, err);
    *quant = *tensor->quant;
    quant->format = format_find(tensor->quant->format->name);
    quant->elem = quant->format ? quant->format->elem : NULL;
    if (!quant->format || !facts_same(quant->format, tensor->quant->format))
        return err_set(err, ERR_UNSUPPORTED, "tensor '%s' has format %s, which is none of llmq's own", name, tensor->format);
    quant->blocks = plan->writer->blocks || quant->format->family->blocks;
    if (quant->input_scale && plan->writer->blocks)
        return err_set(err, ERR_UNSUPPORTED,
                       "tensor '%s' has scales for its inputs, which GGUF cannot hold; another --format with --allow-requantize "
                       "quantises it again without",
                       name);
    enum status status = check_blocks(quant, &entry->shape, err);
    if (status) return err_wrap(err, status, "tensor '%s' (another --format with --allow-requantize would quantise it again)", name);
    if (!quant_fits(quant, tensor_cols(tensor)))
        return err_set(
            err, ERR_UNSUPPORTED,
            "tensor '%s': rows of %llu weights are no multiple of the %u of a block of %s; --rule '%s=f16' --allow-requantize stores them so", name,
            (unsigned long long)tensor_cols(tensor), quant->format->block->elements, quant->format->block->name, name);
    entry->fate = FATE_CARRY;
    entry->n_from = codec_planes(tensor->quant, &entry->shape, entry->from);
    entry->source = (struct plane){ "data", 0, entry->shape.rows, entry->shape.cols, 0, 0 };
    codec_tile_shape(quant, &entry->shape, &entry->source.tile_rows, &entry->source.tile_cols);
    plan->n_carried++;
    plan->n_carried_groups +=
        quant_groups_per_row(quant, entry->shape.cols) * quant_scale_rows(quant, entry->shape.rows, shape_matrix_rows(&entry->shape));
    plan->scratch_weights = (size_t)size_max(plan->scratch_weights, codec_scratch_weights(quant, entry->shape.rows, entry->shape.cols));
    return plan_planes(plan, i, quant, err);
}

/* Bytes that the pipeline holds while it finds the scales of groups over several tiles: ranges and scales of one tensor, scales of some others. */
static uint64_t observed_nbytes(const struct plan_entry *entry)
{
    const struct quant *quant = &entry->verdict.quant;
    const uint64_t n_rows = quant_scale_rows(quant, entry->shape.rows, shape_matrix_rows(&entry->shape));
    return n_rows * quant_groups_per_row(quant, entry->shape.cols) * (sizeof(struct range) + sizeof(struct group_scale)) + PLAN_HELD_NBYTES +
           (choose_observer(quant->rule) ? CHOOSE_NBYTES : 0);
}

/* Rules that read the weights of a group need it in memory, unless there is but one group. */
static enum status check_spans(struct plan *plan, size_t i, struct err *err)
{
    const struct quant *quant = &plan->entries[i].verdict.quant;
    const struct tensor *tensor = plan_tensor(plan, i);
    char name[200], group[16];
    if (!plan->entries[i].spans || !choose_reads(quant->rule) || quant->group_kind == GROUP_TENSOR) return OK;
    return err_set(err, ERR_USAGE, "tensor '%s': scale rule %s needs groups of at most %u weights, and those of group size %s are longer here",
                   err_name(tensor->name, strlen(tensor->name), name, sizeof name), scale_rule_name(quant->rule), TILE_WEIGHTS,
                   quant_group_json(quant, group));
}

static enum status plan_quantise(struct plan *plan, size_t i, struct err *err)
{
    struct plan_entry *entry = &plan->entries[i];
    const struct tensor *tensor = plan_tensor(plan, i);
    const struct quant *quant = &entry->verdict.quant;
    const struct family *family = quant->format->family;
    entry->fate = FATE_QUANTISE;
    entry->spans = codec_spans(quant, entry->shape.rows, entry->shape.cols);
    entry->source = (struct plane){ "data", tile_read_dtype(tensor)->bits, entry->shape.rows, entry->shape.cols, 0, 0 };
    codec_tile_shape(quant, &entry->shape, &entry->source.tile_rows, &entry->source.tile_cols);
    enum status status = check_spans(plan, i, err);
    if (status) return status;
    if (choose_observer(quant->rule)) plan->slot_nbytes = CHOOSE_NBYTES;
    if (entry->spans) plan->n_open_groups = (size_t)size_max(plan->n_open_groups, group_open_count(quant, &entry->source));
    if (entry->spans) plan->observed_nbytes = size_max(plan->observed_nbytes, observed_nbytes(entry));
    entry->n_reads = 1u + quant->tensor_scale;
    if (entry->spans) entry->n_reads += choose_reads(quant->rule) ? choose_passes(quant->rule) : family->candidates(quant) > 1 ? 2u : 1u;
    plan->scratch_weights = (size_t)size_max(plan->scratch_weights, codec_scratch_weights(quant, entry->shape.rows, entry->shape.cols));
    return plan_planes(plan, i, quant, err);
}

enum status plan_set_migration(struct plan *plan, size_t index, const struct fold *fold, const float *input_scale, struct err *err)
{
    struct plan_entry *entry = &plan->entries[index];
    entry->fold = fold;
    entry->input_scale = input_scale;
    entry->n_input_sets = entry->shape.n_matrices;
    if (fold && plan_tile_count(plan, index)) {
        const struct tile tile = plane_tile(&entry->source, 0);
        plan->migrated_tile_nbytes = (size_t)size_max(plan->migrated_tile_nbytes, tile.n_rows * tile.n_cols * sizeof(float));
    }
    if (!input_scale) return OK;
    entry->verdict.quant.input_scale = true;
    return plan_planes(plan, index, &entry->verdict.quant, err);
}

static void plan_cast(struct plan *plan, size_t i, const struct dtype *dtype)
{
    struct plan_entry *entry = &plan->entries[i];
    const struct tensor *tensor = plan_tensor(plan, i);
    struct out_tensor *out = &plan->outs[i];
    struct plane plane = { "data", dtype->bits, tensor_rows(tensor), tensor_cols(tensor), 0, 0 };
    tile_shape(plane.rows, plane.cols, 1, &plane.tile_rows, &plane.tile_cols);
    entry->fate = FATE_CAST;
    entry->cast = dtype;
    entry->source = plane;
    entry->source.bits = 32;
    out->dtype = dtype->name;
    out->tile_rows = plane.tile_rows;
    out->tile_cols = plane.tile_cols;
    out->n_planes = 1;
    out->planes[0] = (struct out_plane){ plane, true };
}

/* Bytes of one reading. */
static uint64_t source_nbytes(const struct plan_entry *entry)
{
    uint64_t nbytes = plane_nbytes(&entry->source);
    for (uint32_t k = 0; k < entry->n_from; k++) nbytes += plane_nbytes(&entry->from[k]);
    return nbytes;
}

uint64_t plan_tile_nbytes(const struct plan *plan, size_t index, uint64_t tile)
{
    const struct plan_entry *entry = &plan->entries[index];
    uint64_t nbytes = entry->n_from ? 0 : plane_tile_nbytes(&entry->source, tile);
    for (uint32_t k = 0; k < entry->n_from; k++) nbytes += plan_from(plan, index, k, tile).nbytes;
    return nbytes;
}

/* A tile of the tensor is whole fields of each plane of its source, whatever tiles that plane has itself. */
struct span plan_from(const struct plan *plan, size_t index, uint32_t k, uint64_t tile)
{
    const struct plan_entry *entry = &plan->entries[index];
    const struct plane *plane = &entry->from[k];
    const struct tile weights = plane_tile(&entry->source, tile);
    struct tile fields;
    if (codec_fields(plan_tensor(plan, index)->quant, &entry->shape, plane, &weights, &fields))
        return (struct span){ fields.row * plane_row_nbytes(plane) + fields.col * plane->bits / 8,
                              size_ceil_div(fields.n_cols * plane->bits, 8) * fields.n_rows };
    return (struct span){ 0, tile == 0 ? plane_nbytes(plane) : 0 };
}

static void add_totals(struct plan *plan, size_t i)
{
    struct plan_entry *entry = &plan->entries[i];
    const struct tensor *tensor = plan_tensor(plan, i);
    const struct out_tensor *out = &plan->outs[i];
    uint64_t tile = plan_tile_count(plan, i) ? plan_tile_nbytes(plan, i, 0) : 0, whole = source_nbytes(entry), planes_tile = 0, planes = 0;
    for (uint32_t k = 0; k < out->n_planes; k++) {
        planes += plane_nbytes(&out->planes[k].plane);
        /* the scales of a spanning tensor are one tile, held whole */
        if (plan_packs(plan, i) && plane_tile_count(&out->planes[k].plane)) planes_tile += plane_tile_nbytes(&out->planes[k].plane, 0);
    }
    if (whole == 0) entry->n_reads = 0;
    else entry->n_reads = (entry->n_reads ? entry->n_reads : 1) + entry->n_scans;
    plan->source_tile_nbytes = size_max(plan->source_tile_nbytes, tile);
    plan->planes_tile_nbytes = size_max(plan->planes_tile_nbytes, planes_tile);
    plan->n_weights += tensor->n_weights;
    plan->source_nbytes += tensor->nbytes;
    plan->plane_nbytes += planes;
    plan->read_nbytes += entry->n_reads * whole;
    plan->scan_nbytes += entry->n_scans * whole;
    plan->n_fallbacks += entry->fallback_from != NULL;
    if (entry->fate != FATE_QUANTISE) return;
    plan->n_quantised++;
    plan->n_quantised_weights += tensor->n_weights;
    plan->quantised_source_nbytes += tensor->nbytes;
    plan->quantised_plane_nbytes += planes;
}

const struct tensor *plan_tensor(const struct plan *plan, size_t index)
{
    return &plan->container->tensors[plan->entries[index].tensor];
}

bool plan_packs(const struct plan *plan, size_t index)
{
    return plan->entries[index].fate != FATE_KEEP || plan->entries[index].kept.kind != KEPT_DATA;
}

uint64_t plan_tile_count(const struct plan *plan, size_t index)
{
    return plane_tile_count(&plan->entries[index].source);
}

/* ---- fates ---------------------------------------------------------------------------------------------------------------------- */

static bool same_coding(const struct quant *a, const struct quant *b)
{
    return strcmp(a->format->name, b->format->name) == 0 && facts_same(a->format, b->format) && a->group_kind == b->group_kind &&
           a->group == b->group && a->scale == b->scale && a->sub_block == b->sub_block && a->shift_bits == b->shift_bits &&
           a->tensor_scale == b->tensor_scale && a->input_scale == b->input_scale;
}

/* Sets quant to its fallback as long as rows of cols weights do not fit. */
static enum status fall_back(const struct app *app, const struct recipe *recipe, struct plan *plan, size_t i, struct err *err)
{
    struct plan_entry *entry = &plan->entries[i];
    struct quant *quant = &entry->verdict.quant;
    const struct tensor *tensor = plan_tensor(plan, i);
    const struct format *wanted = quant->format;
    enum status status = OK;
    size_t n_steps = 0;
    quant->blocks |= plan->writer->blocks;
    status = check_blocks(quant, &entry->shape, err);
    while (!status && !quant_fits(quant, tensor_cols(tensor))) {
        entry->fallback_from = wanted;
        if (n_steps++ == format_count())
            status = err_set(err, ERR_USAGE, "the recipe's fallbacks lead from format %s back to it", quant->format->name);
        if (!status && settings_flag(&app->settings, SET_NO_FALLBACK))
            status =
                err_set(err, ERR_USAGE, "rows of %llu weights are no multiple of the %u of a block of %s, and --no-fallback forbids another format",
                        (unsigned long long)tensor_cols(tensor), quant->format->block->elements, quant->format->name);
        if (!status) status = recipe_fall_back(recipe, quant, err);
        quant->blocks |= plan->writer->blocks;
        if (!status) status = check_blocks(quant, &entry->shape, err);
    }
    char name[200];
    return status ? err_wrap(err, status, "tensor '%s'", err_name(tensor->name, strlen(tensor->name), name, sizeof name)) : OK;
}

/* True for a plain tensor whose dtype is the format asked for. */
static bool is_already(const struct tensor *tensor, const struct quant *quant)
{
    return !tensor->quantised && quant->format->family->blocks && quant->format->block->elements == 1 &&
           strcmp(tensor->dtype->name, quant->format->block->name) == 0;
}

static enum status refuse_requantise(const struct plan *plan, size_t i, struct err *err)
{
    const struct tensor *tensor = plan_tensor(plan, i);
    char name[200];
    return err_set(err, ERR_UNSUPPORTED, "tensor '%s' of '%s' is already quantised (%s); --allow-requantize quantises it again, to %s",
                   err_name(tensor->name, strlen(tensor->name), name, sizeof name), plan->container->path, tensor->format,
                   plan->entries[i].verdict.quant.format->name);
}

/* Decides between keep, carry and quantise. */
static enum status plan_fate(const struct app *app, const struct recipe *recipe, struct plan *plan, size_t i, struct err *err)
{
    struct plan_entry *entry = &plan->entries[i];
    struct verdict *verdict = &entry->verdict;
    const struct tensor *tensor = plan_tensor(plan, i);
    enum status status = verdict->keep ? OK : fall_back(app, recipe, plan, i, err);
    if (status) return status;
    if (!verdict->keep && is_already(tensor, &verdict->quant)) {
        verdict->keep = true;
        verdict->reason = "has that type already";
        plan->n_already++;
    }
    if (verdict->keep && tensor->quantised && tensor->n_weights) return plan_carry(plan, i, err);
    if (verdict->keep) {
        plan_keep(plan, i);
        return OK;
    }
    if (tensor->quant && same_coding(tensor->quant, &verdict->quant)) {
        verdict->reason = "has that format already";
        return plan_carry(plan, i, err);
    }
    if (tensor->quantised && !tensor->quant) return refuse_unknown(plan, i, err);
    if (tensor->quantised && !settings_flag(&app->settings, SET_ALLOW_REQUANTIZE)) return refuse_requantise(plan, i, err);
    return plan_quantise(plan, i, err);
}

/* ---- --nonfinite keep ----------------------------------------------------------------------------------------------------------- */

static enum status keep_nonfinite(struct app *app, struct plan *plan, struct err *err)
{
    bool *wanted = calloc(plan->n_tensors + 1, sizeof *wanted);
    struct scan *scans = calloc(plan->n_tensors + 1, sizeof *scans);
    enum status status = wanted && scans ? OK : err_set(err, ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < plan->n_tensors && !status; i++) {
        wanted[i] = !plan->entries[i].verdict.keep;
        plan->entries[i].n_scans = wanted[i];
    }
    if (!status) status = scan_model(app, plan->container, wanted, plan->n_threads_asked > 2 ? 2 : plan->n_threads_asked, scans, err);
    for (size_t i = 0; i < plan->n_tensors && !status; i++)
        if (wanted[i] && scans[i].n_nan + scans[i].n_inf) {
            plan->entries[i].verdict.keep = true;
            plan->entries[i].verdict.reason = "has NaN or Inf (--nonfinite keep)";
        }
    free(scans);
    free(wanted);
    return status;
}

/* ---- sizes and memory ------------------------------------------------------------------------------------------------------------- */

static enum status size_with(struct plan *plan, unsigned n_workers, uint32_t tiles_per_job, struct err *err)
{
    plan->n_workers = plan->options.n_workers = n_workers;
    plan->options.tiles_per_job = tiles_per_job;
    enum status status = plan->writer->plan(plan->outs, plan->n_tensors, plan->blobs, plan->n_blobs, &plan->options, &plan->size, err);
    if (status) return status;
    uint64_t worker = tiles_per_job * (plan->source_tile_nbytes + plan->planes_tile_nbytes) + plan->scratch_weights * 10 +
                      plan->n_open_groups * OPEN_GROUP_NBYTES + plan->slot_nbytes + plan->migrated_tile_nbytes + plan->size.worker_nbytes +
                      THREAD_NBYTES;
    plan->ram_nbytes = PROGRAM_NBYTES + plan->observed_nbytes + n_workers * worker;
    return OK;
}

static enum status fit_memory(struct plan *plan, struct err *err)
{
    uint32_t tiles = TILES_PER_JOB_MAX;
    unsigned workers = plan->n_threads_asked;
    for (;;) {
        enum status status = size_with(plan, workers, tiles, err);
        if (status || plan->ram_nbytes <= plan->max_ram) return status;
        if (tiles > 1) tiles /= 2;
        else if (workers > 1) workers--;
        else break;
    }
    return err_set(err, ERR_MEMORY, "--max-ram %lluM is too small: one thread needs %lluM for this model", (unsigned long long)(plan->max_ram >> 20),
                   (unsigned long long)((plan->ram_nbytes + (1 << 20) - 1) >> 20));
}

/* What is held for every tensor, outside of the budget: names and shapes of the input, the plan, results, and the writer's part. */
static uint64_t index_memory(const struct plan *plan)
{
    const struct container *container = plan->container;
    uint64_t total = plan->size.index_nbytes + plan->n_tensors * (sizeof *plan->entries + sizeof *plan->outs + RESULT_NBYTES);
    for (size_t i = 0; i < container->n_tensors; i++)
        total += sizeof *container->tensors + NAME_NBYTES + strlen(container->tensors[i].name) +
                 container->tensors[i].rank * sizeof *container->tensors[i].dims;
    const uint64_t planning = plan->planning_nbytes; /* held while there are no workers yet */
    return total + plan->weighing.nbytes + plan->smoothing_nbytes + (planning > plan->ram_nbytes ? planning - plan->ram_nbytes : 0);
}

static enum status finish_plan(struct plan *plan, struct err *err)
{
    for (size_t i = 0; i < plan->n_tensors; i++) add_totals(plan, i);
    plan->options.keep_keys = gguf_is(plan->container) && plan->n_quantised + plan->n_already == 0 && plan->options.file_type == UINT32_MAX;
    enum status status = fit_memory(plan, err);
    plan->index_nbytes = index_memory(plan);
    return status;
}

/* ---- the two plans -------------------------------------------------------------------------------------------------------------- */

static enum status decide_all(struct app *app, struct recipe *recipe, struct plan *plan, struct err *err)
{
    struct model_facts facts = { 0 };
    enum status status = model_facts_make(plan->container, recipe->roles, &facts, err);
    for (size_t i = 0; i < plan->n_tensors && !status; i++)
        status = recipe_decide(recipe, &facts, plan_tensor(plan, i), &plan->entries[i].verdict, err);
    model_facts_free(&facts);
    if (!status) status = recipe_check_rules(recipe, err);
    if (!status && settings_is(&app->settings, SET_NONFINITE, "keep")) status = keep_nonfinite(app, plan, err);
    for (size_t i = 0; i < plan->n_tensors && !status; i++) {
        out_common(plan, i, &plan->outs[i]);
        status = plan_fate(app, recipe, plan, i, err);
    }
    return status;
}

/* A run without a word about formats moves a model to another container; one with a word must find something to do. */
static enum status check_effect(const struct recipe *recipe, const struct plan *plan, struct err *err)
{
    const bool says = recipe->has_default || recipe->n_rules > 0;
    if (plan->n_quantised || plan->n_carried || plan->n_already) return OK;
    if (plan->writer->blocks && (!says || plan->n_tensors == 0)) return OK; /* GGUF to GGUF, to join or to split it; or keys alone */
    if (!says) return err_set(err, ERR_USAGE, "nothing says what to quantise to: give --format, --rule or --recipe");
    return err_set(err, ERR_USAGE,
                   "'%s': no tensor would be quantised (%zu tensors; llmq inspect --tensors shows their roles, --rule selects by name)",
                   plan->container->path, plan->n_tensors);
}

enum status plan_convert(struct app *app, struct recipe *recipe, struct plan *plan, struct err *err)
{
    *plan = (struct plan){ .writer = &llmq_writer_ops };
    if (!settings_given(&app->settings, SET_IN)) return err_set(err, ERR_USAGE, "--in is missing: the model to read");
    if (app->settings.n_arguments) return err_set(err, ERR_USAGE, "unexpected argument '%s'", app->settings.arguments[0]);
    if (settings_given(&app->settings, SET_OUT)) plan->writer = convert_writer(settings_text(&app->settings, SET_OUT));
    enum status status = open_model(app, settings_text(&app->settings, SET_IN), plan, err);
    if (!status) read_settings(app, plan);
    if (!status) status = check_prequantised(plan, err);
    if (!status) status = default_out_path(app, recipe, plan, err);
    if (!status) status = decide_all(app, recipe, plan, err);
    if (!status) status = plan_fuse(app, plan, err);
    if (!status) status = plan_smooth(app, plan, err);
    if (!status) status = plan_weigh(app, plan, err);
    if (!status) status = finish_plan(plan, err);
    return status ? status : check_effect(recipe, plan, err);
}

/* Entries of wanted tensors only. */
static void leave_out(struct plan *plan, const bool *wanted)
{
    size_t n = 0;
    for (size_t i = 0; i < plan->n_tensors; i++)
        if (wanted[i]) plan->entries[n++].tensor = i;
    plan->n_tensors = n;
}

/* A name that ends in .safetensors is one file, everything else a folder, which the writer knows by its '/' at the end. */
static enum status safetensors_out_path(struct app *app, const char *out_path, bool extract, struct plan *plan, struct err *err)
{
    size_t n = strlen(out_path);
    bool one_file = extract || (n > 12 && strcmp(out_path + n - 12, ".safetensors") == 0);
    plan->out_path = malloc(n + 2);
    if (!plan->out_path) return err_set(err, ERR_MEMORY, "out of memory");
    snprintf(plan->out_path, n + 2, "%s%s", out_path, one_file || out_path[n - 1] == '/' ? "" : "/");
    plan->options.path = plan->out_path;
    if (!one_file) return OK;
    if (plan->n_blobs && !extract)
        app_note(app, "%zu stored file%s ('%s'%s) not written; an output folder would get them", plan->n_blobs, plan->n_blobs == 1 ? "" : "s",
                 shown_str(plan->blobs[0].name).text, plan->n_blobs == 1 ? "" : ", ...");
    plan->n_blobs = 0;
    return OK;
}

/* ---- smooth ----------------------------------------------------------------------------------------------------------------------- */

/* The writer of a folder is that of safetensors. */
static const struct writer_ops *smooth_writer(const char *out)
{
    const struct writer_ops *writer = writer_of_path(out);
    return writer ? writer : &safetensors_writer_ops;
}

/* Every tensor stays what it is; its verdict says what it will become. */
static enum status keep_tensor(struct app *app, struct recipe *recipe, const struct model_facts *facts, struct plan *plan, size_t i, struct err *err)
{
    struct verdict *verdict = &plan->entries[i].verdict;
    const struct tensor *tensor = plan_tensor(plan, i);
    enum status status = recipe_decide(recipe, facts, tensor, verdict, err);
    out_common(plan, i, &plan->outs[i]);
    if (!status && !verdict->keep && !quant_fits(&verdict->quant, tensor_cols(tensor))) status = fall_back(app, recipe, plan, i, err);
    if (status) return status;
    if (!tensor->quantised) plan_keep(plan, i);
    else if (plan->writer->quantised) return plan_carry(plan, i, err);
    else return err_set(err, ERR_UNSUPPORTED, "'%s' is quantised already: llmq dequantize comes first", plan->container->path);
    return OK;
}

static enum status keep_all(struct app *app, struct recipe *recipe, struct plan *plan, struct err *err)
{
    struct model_facts facts = { 0 };
    enum status status = model_facts_make(plan->container, recipe->roles, &facts, err);
    for (size_t i = 0; i < plan->n_tensors && !status; i++) status = keep_tensor(app, recipe, &facts, plan, i, err);
    model_facts_free(&facts);
    return status ? status : recipe_check_rules(recipe, err);
}

static enum status open_smooth(struct app *app, struct plan *plan, struct err *err)
{
    const char *in = settings_text(&app->settings, SET_IN), *out = settings_text(&app->settings, SET_OUT);
    if (!in) return err_set(err, ERR_USAGE, "--in is missing: the model to read");
    if (!out) return err_set(err, ERR_USAGE, "--out is missing: a folder, or a .safetensors or .gguf file");
    if (app->settings.n_arguments) return err_set(err, ERR_USAGE, "unexpected argument '%s'", app->settings.arguments[0]);
    plan->writer = smooth_writer(out);
    enum status status = open_model(app, in, plan, err);
    if (status) return status;
    read_settings(app, plan);
    plan->options.compress = COMPRESS_NONE;
    plan->measure = false;
    if (plan->writer == &safetensors_writer_ops) return safetensors_out_path(app, out, false, plan, err);
    plan->options.path = plan->out_path = strdup(out);
    return plan->out_path ? OK : err_set(err, ERR_MEMORY, "out of memory");
}

enum status plan_smooth_only(struct app *app, struct recipe *recipe, struct plan *plan, struct err *err)
{
    *plan = (struct plan){ 0 };
    enum status status = open_smooth(app, plan, err);
    if (!status) status = keep_all(app, recipe, plan, err);
    if (!status) status = plan_smooth(app, plan, err);
    if (!status && !plan->smoothing) status = err_set(err, ERR_USAGE, "nothing says how to migrate: give --smooth, --smooth-recipe or --inverse");
    return status ? status : finish_plan(plan, err);
}

enum status plan_dequantize(struct app *app, const char *in_path, const char *out_path, const struct dtype *dtype, const bool *wanted,
                            struct plan *plan, struct err *err)
{
    *plan = (struct plan){ .writer = &safetensors_writer_ops };
    enum status status = open_model(app, in_path, plan, err);
    if (status) return status;
    read_settings(app, plan);
    plan->options.compress = COMPRESS_NONE;
    status = safetensors_out_path(app, out_path, wanted != NULL, plan, err);
    if (status) return status;
    if (wanted) leave_out(plan, wanted);
    for (size_t i = 0; i < plan->n_tensors; i++) {
        const struct tensor *tensor = plan_tensor(plan, i);
        out_common(plan, i, &plan->outs[i]);
        if (!tensor->quantised) plan_keep(plan, i);
        else plan_cast(plan, i, dtype ? dtype : tensor->dtype->narrow ? tensor->dtype : dtype_find("F32", 3));
    }
    return finish_plan(plan, err);
}

void plan_close(struct plan *plan)
{
    for (size_t i = 0; plan->facts && i < format_count(); i++) free(plan->facts[i]);
    free(plan->facts);
    for (size_t i = 0; plan->entries && i < plan->n_tensors; i++) importance_free(&plan->entries[i].importance);
    smoothing_free(plan->smoothing);
    free(plan->weighing.metadata_json);
    free(plan->blobs);
    free(plan->outs);
    free(plan->entries);
    free(plan->out_path);
    container_close(plan->container);
    *plan = (struct plan){ 0 };
}
