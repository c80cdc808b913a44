/* cmd_dequantize.c: the commands dequantize and extract: tensors and files back out of a container.
 *
 * Drawing: plan_dequantize (cast quantised tensors, keep the others) -> pipeline -> safetensors file or model folder.
 * Why this way: the same pipeline as convert, with another writer.
 * Corner cases: --out that ends in .safetensors is a single file, anything else a model folder with its small files; extract writes tensors into
 * one safetensors file and stored files under their own names; a name that is neither is an error.
 * Reference: FORMAT.md. Example: llmq dequantize --in x.llmq --out y.safetensors --dtype f32.
 */
#include <stdlib.h>
#include <string.h>

#include "base/glob.h"
#include "container/llmq_read.h"
#include "converter/app.h"
#include "converter/pipeline.h"
#include "converter/print.h"
#include "converter/progress.h"

/* --dtype: NULL for "source". */
static const struct dtype *wanted_dtype(const struct app *app)
{
    static const struct {
        const char *setting, *dtype;
    } names[] = { { "f32", "F32" }, { "bf16", "BF16" }, { "f16", "F16" } };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (settings_is(&app->settings, SET_DTYPE, names[i].setting)) return dtype_find(names[i].dtype, strlen(names[i].dtype));
    return NULL;
}

static void print_done(const struct app *app, const char *out, size_t n_tensors, const struct result *result)
{
    char shown[24];
    if (settings_flag(&app->settings, SET_JSON)) {
        printf("{\"out\":");
        print_json_string(stdout, out);
        printf(",\"tensors\":%zu,\"written_nbytes\":%llu,\"seconds\":%.3f}\n", n_tensors, (unsigned long long)result->out_nbytes, result->seconds);
    } else if (!settings_flag(&app->settings, SET_QUIET)) {
        printf("%s: %zu tensors, %s in %.2f s\n", out, n_tensors, show_bytes(result->out_nbytes, shown), result->seconds);
    }
}

enum status cmd_dequantize(struct app *app, struct err *err)
{
    struct plan plan = { 0 };
    struct result result = { 0 };
    if (app->settings.n_arguments) return err_set(err, ERR_USAGE, "unexpected argument '%s'", app->settings.arguments[0]);
    if (!settings_given(&app->settings, SET_IN)) return err_set(err, ERR_USAGE, "--in is missing: the container to read");
    if (!settings_given(&app->settings, SET_OUT)) return err_set(err, ERR_USAGE, "--out is missing: a .safetensors file or a folder");
    enum status status =
        plan_dequantize(app, settings_text(&app->settings, SET_IN), settings_text(&app->settings, SET_OUT), wanted_dtype(app), NULL, &plan, err);
    if (!status) status = pipeline_execute(app, &plan, &result, err);
    if (!status) print_done(app, plan.out_path, plan.n_tensors, &result);
    result_free(&result);
    plan_close(&plan);
    return status;
}

/* ---- extract -------------------------------------------------------------------------------------------------------------------- */

struct extraction {
    struct app *app;
    struct container *container;
    bool *tensors; /* wanted, one a tensor */
    bool *blobs;
    size_t n_tensors, n_blobs; /* wanted */
};

static enum status select_name(struct extraction *ex, const char *name, struct err *err)
{
    struct pattern *pattern;
    size_t found = 0;
    enum status status = pattern_open(name, &pattern, err);
    if (status) return status;
    for (size_t i = 0; i < ex->container->n_tensors; i++)
        if (pattern_match(pattern, ex->container->tensors[i].name)) {
            ex->n_tensors += !ex->tensors[i];
            ex->tensors[i] = true;
            found++;
        }
    for (size_t i = 0; i < ex->container->n_blobs; i++)
        if (pattern_match(pattern, ex->container->blobs[i].name)) {
            ex->n_blobs += !ex->blobs[i];
            ex->blobs[i] = true;
            found++;
        }
    pattern_close(pattern);
    return found ? OK : err_set(err, ERR_USAGE, "'%s' is no tensor and no file of '%s'", name, ex->container->path);
}

/* Copies bytes from read (of size nbytes) to a new file of the set. */
static enum status copy_blob(struct extraction *ex, size_t index, struct outset *set, const char *path, struct err *err)
{
    struct outfile *file;
    uint8_t *buf = malloc(1 << 18);
    enum status status = buf ? outset_add(set, path, &file, err) : err_set(err, ERR_MEMORY, "out of memory");
    for (uint64_t at = 0; at < ex->container->blobs[index].nbytes && !status; at += 1 << 18) {
        uint64_t left = ex->container->blobs[index].nbytes - at;
        size_t n = (size_t)(left < 1 << 18 ? left : 1 << 18);
        status = container_read_blob(ex->container, index, at, n, buf, err);
        if (!status) status = outfile_write(file, buf, n, at, err);
    }
    free(buf);
    return status;
}

static enum status copy_plane(struct extraction *ex, size_t index, uint32_t k, struct outset *set, const char *path, struct err *err)
{
    const struct llmq_entry *entry = llmq_entry_of(ex->container, index);
    const struct plane *plane = &entry->planes[k].plane;
    struct outfile *file;
    enum status status = outset_add(set, path, &file, err);
    for (uint64_t t = 0; t < plane_tile_count(plane) && !status; t++) {
        size_t n = (size_t)plane_tile_nbytes(plane, t);
        uint8_t *buf = malloc(n + 1);
        status = buf ? llmq_read_tile(ex->container, index, k, t, buf, err) : err_set(err, ERR_MEMORY, "out of memory");
        if (!status) status = outfile_write(file, buf, n, plane_tile_offset(plane, t), err);
        free(buf);
    }
    return status;
}

/* Path of NAME.PLANE in dir; '/' in a tensor's name becomes '_', so that a name never leaves the folder. */
static char *plane_path(const char *dir, const char *tensor, const char *plane)
{
    size_t n = strlen(tensor) + strlen(plane) + 2;
    char *name = malloc(n), *path = NULL;
    if (name) {
        snprintf(name, n, "%s.%s", tensor, plane);
        for (char *p = name; *p; p++)
            if (*p == '/' || *p == '\\') *p = '_';
        path = path_join(dir, name);
    }
    free(name);
    return path;
}

/* Stored files, and with --raw the planes of tensors, into the folder dir. */
static enum status extract_files(struct extraction *ex, const char *dir, bool raw, uint64_t *nbytes, struct err *err)
{
    struct outset *set = NULL;
    struct container *container = ex->container;
    enum status status = outset_open(ex->app->io, settings_flag(&ex->app->settings, SET_FORCE), &set, err);
    for (size_t i = 0; i < container->n_files && !status; i++) status = outset_add_input(set, &container->files[i], err);
    if (!status) status = outset_make_dir(set, dir, err);
    for (size_t i = 0; i < container->n_blobs && !status; i++) {
        char *path = ex->blobs[i] ? path_join(dir, container->blobs[i].name) : NULL;
        if (ex->blobs[i]) status = path ? copy_blob(ex, i, set, path, err) : err_set(err, ERR_MEMORY, "out of memory");
        free(path);
    }
    for (size_t i = 0; raw && i < container->n_tensors && !status; i++)
        for (uint32_t k = 0; ex->tensors[i] && k < llmq_entry_of(container, i)->n_planes && !status; k++) {
            char *path = plane_path(dir, container->tensors[i].name, llmq_entry_of(container, i)->planes[k].plane.name);
            status = path ? copy_plane(ex, i, k, set, path, err) : err_set(err, ERR_MEMORY, "out of memory");
            free(path);
        }
    *nbytes = outset_nbytes(set);
    if (!status) status = outset_commit(set, err);
    outset_close(set);
    return status;
}

static enum status extract_tensors(struct extraction *ex, const char *out, struct result *result, struct err *err)
{
    struct plan plan = { 0 };
    enum status status = plan_dequantize(ex->app, ex->container->path, out, wanted_dtype(ex->app), ex->tensors, &plan, err);
    if (!status) status = pipeline_execute(ex->app, &plan, result, err);
    plan_close(&plan);
    return status;
}

static enum status extract_selected(struct extraction *ex, struct err *err)
{
    const struct settings *settings = &ex->app->settings;
    bool raw = settings_flag(settings, SET_RAW), given = settings_given(settings, SET_OUT);
    const char *out = given ? settings_text(settings, SET_OUT) : NULL;
    struct result result = { 0 };
    uint64_t nbytes = 0;
    enum status status = OK;
    if (ex->n_blobs && ex->n_tensors && !raw)
        return err_set(err, ERR_USAGE, "tensors go into one safetensors file, stored files into a folder: extract them one after the other");
    if (ex->n_blobs || raw) {
        status = extract_files(ex, out ? out : ".", raw, &nbytes, err);
        if (!status) print_done(ex->app, out ? out : ".", raw ? ex->n_tensors : 0, &(struct result){ .out_nbytes = nbytes });
    }
    if (!status && ex->n_tensors && !raw) {
        status = extract_tensors(ex, out ? out : "extract.safetensors", &result, err);
        if (!status) print_done(ex->app, out ? out : "extract.safetensors", ex->n_tensors, &result);
    }
    result_free(&result);
    return status;
}

enum status cmd_extract(struct app *app, struct err *err)
{
    struct extraction ex = { .app = app };
    if (app->settings.n_arguments < 2) return err_set(err, ERR_USAGE, "which file, and which names?");
    enum status status = container_open(app->io, app->settings.arguments[0], &ex.container, err);
    if (status) return status;
    if (!llmq_is(ex.container)) status = err_set(err, ERR_UNSUPPORTED, "'%s' is no .llmq container", ex.container->path);
    ex.tensors = calloc(ex.container->n_tensors + 1, sizeof *ex.tensors);
    ex.blobs = calloc(ex.container->n_blobs + 1, sizeof *ex.blobs);
    if (!status && (!ex.tensors || !ex.blobs)) status = err_set(err, ERR_MEMORY, "out of memory");
    for (size_t i = 1; i < app->settings.n_arguments && !status; i++) status = select_name(&ex, app->settings.arguments[i], err);
    if (!status) status = extract_selected(&ex, err);
    free(ex.tensors);
    free(ex.blobs);
    container_close(ex.container);
    return status;
}
