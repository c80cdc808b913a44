/* cmd_verify.c: the command verify: reads every byte of a container and compares it with its checksum.
 *
 * Drawing: open (header, trailer, index) -> every chunk of every plane and blob -> the padding between them.
 * Why this way: the first damage in file order is named: file, tensor, plane, tile.
 * Corner cases: exit code 3 for damage of any kind in a file that is a container, also when the index itself is damaged; 1 when it is no container
 * or cannot be read. GGUF has no checksums: its structure, its padding and that all weights are finite are checked.
 * Reference: FORMAT.md 5. Example: llmq verify x.llmq.
 */
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "container/gguf.h"
#include "container/llmq_read.h"
#include "converter/app.h"
#include "converter/jobs.h"
#include "converter/print.h"
#include "converter/progress.h"
#include "converter/scan.h"

enum { BLOB_PIECE = 1 << 18 };

struct verification {
    struct container *container;
    struct progress *progress;
};

/* All tiles of all planes of a tensor, numbered one plane behind the other. */
static uint64_t chunk_count(void *context, size_t index)
{
    const struct verification *v = context;
    const struct llmq_entry *entry = llmq_entry_of(v->container, index);
    uint64_t total = 0;
    for (uint32_t k = 0; k < entry->n_planes; k++) total += plane_tile_count(&entry->planes[k].plane);
    return total;
}

static enum status check_job(void *context, unsigned worker, const struct job *job, struct err *err)
{
    struct verification *v = context;
    const struct llmq_entry *entry = llmq_entry_of(v->container, job->tensor);
    uint64_t tile = job->first_tile;
    uint32_t plane = 0;
    (void)worker;
    while (tile >= plane_tile_count(&entry->planes[plane].plane)) tile -= plane_tile_count(&entry->planes[plane++].plane);
    enum status status = llmq_check_chunk(v->container, job->tensor, plane, tile, err);
    if (!status) progress_add(v->progress, plane_tile_nbytes(&entry->planes[plane].plane, tile));
    return status;
}

static enum status check_blobs(struct container *container, struct err *err)
{
    uint8_t *buf = malloc(BLOB_PIECE);
    enum status status = buf ? OK : err_set(err, ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < container->n_blobs && !status; i++)
        for (uint64_t at = 0; at < container->blobs[i].nbytes && !status; at += BLOB_PIECE) {
            uint64_t left = container->blobs[i].nbytes - at;
            status = container_read_blob(container, i, at, (size_t)(left < BLOB_PIECE ? left : BLOB_PIECE), buf, err);
        }
    free(buf);
    return status;
}

static enum status verify_opened(struct app *app, struct container *container, struct err *err)
{
    struct verification v = { .container = container };
    uint64_t total = 0, asked = settings_number(&app->settings, SET_THREADS);
    for (size_t i = 0; i < container->n_files; i++) total += container->files[i].nbytes;
    unsigned workers = asked ? (unsigned)asked : pool_cpu_count();
    v.progress = progress_open(app, "verify", total);
    struct job_list list = { container->n_tensors, chunk_count, 1, workers > 4 ? 4 : workers, app->stop, check_job, NULL, &v, NULL };
    enum status status = jobs_run(&list, err);
    if (!status) status = check_blobs(container, err);
    for (size_t i = 0; i < container->n_files && !status; i++) status = llmq_check_padding(container, i, err);
    if (!status) status = container_check_unchanged(container, err);
    progress_close(v.progress);
    return status;
}

/* ---- GGUF ----------------------------------------------------------------------------------------------------------------------- */

/* GGUF has no checksums: its header was checked when it was opened; what is left are padding and numbers. */
static enum status verify_gguf(struct app *app, struct container *container, struct err *err)
{
    const uint64_t asked = settings_number(&app->settings, SET_THREADS);
    const unsigned workers = asked ? (unsigned)asked : pool_cpu_count();
    struct scan *scans = calloc(container->n_tensors + 1, sizeof *scans);
    enum status status = scans ? gguf_check_padding(container, err) : err_set(err, ERR_MEMORY, "out of memory");
    if (!status) status = scan_model(app, container, NULL, workers > 4 ? 4 : workers, scans, err);
    for (size_t i = 0; i < container->n_tensors && !status; i++) {
        char name[200];
        if (scans[i].n_nan + scans[i].n_inf == 0) continue;
        err_name(container->tensors[i].name, strlen(container->tensors[i].name), name, sizeof name);
        status = err_set(err, ERR_DATA, "tensor '%s' has %llu NaN and %llu Inf, the first at row %llu, column %llu", name,
                         (unsigned long long)scans[i].n_nan, (unsigned long long)scans[i].n_inf, (unsigned long long)scans[i].bad_row,
                         (unsigned long long)scans[i].bad_col);
    }
    if (!status) status = container_check_unchanged(container, err);
    free(scans);
    return status;
}

/* ---- the command ---------------------------------------------------------------------------------------------------------------- */

static void print_result(const struct app *app, const struct container *container)
{
    uint64_t total = 0, chunks = 0;
    char shown[24];
    for (size_t i = 0; i < container->n_files; i++) {
        total += container->files[i].nbytes;
        if (llmq_is(container)) chunks += llmq_shard_of(container, i)->trailer.n_chunks;
    }
    if (settings_flag(&app->settings, SET_JSON)) {
        printf("{\"path\":");
        print_json_string(stdout, container->path);
        printf(",\"ok\":true,\"files\":%zu,\"tensors\":%zu,\"chunks\":%llu,\"nbytes\":%llu}\n", container->n_files, container->n_tensors,
               (unsigned long long)chunks, (unsigned long long)total);
    } else if (!settings_flag(&app->settings, SET_QUIET) && !llmq_is(container)) {
        printf("%s: sound: %zu tensors, all weights finite, %s in %zu file%s; GGUF has no checksums\n", container->path, container->n_tensors,
               show_bytes(total, shown), container->n_files, container->n_files == 1 ? "" : "s");
    } else if (!settings_flag(&app->settings, SET_QUIET)) {
        printf("%s: sound: %zu tensors, %llu chunks, %s in %zu file%s\n", container->path, container->n_tensors, (unsigned long long)chunks,
               show_bytes(total, shown), container->n_files, container->n_files == 1 ? "" : "s");
    }
}

/* Whether what could not be opened is a damaged container, not some other file. */
static bool begins_as_container(const struct app *app, const char *path)
{
    struct file file;
    uint8_t head[64];
    bool is_container = false;
    if (file_open(app->io, path, &file, NULL) == OK) {
        size_t n_head = file.nbytes < sizeof head ? (size_t)file.nbytes : sizeof head;
        is_container = file_read(&file, head, n_head, 0, NULL) == OK &&
                       (llmq_container_ops.probe(path, false, head, n_head) || gguf_container_ops.probe(path, false, head, n_head));
    }
    file_close(&file);
    return is_container;
}

static void print_failure(const char *path, const struct err *err)
{
    printf("{\"path\":");
    print_json_string(stdout, path);
    printf(",\"ok\":false,\"error\":");
    print_json_string(stdout, err->text);
    printf("}\n");
}

/* Opens and checks; ERR_MISMATCH for every kind of damage. */
static enum status verify_path(struct app *app, const char *path, struct err *err)
{
    struct container *container = NULL;
    enum status status = container_open(app->io, path, &container, err);
    if (status) return status == ERR_DATA && begins_as_container(app, path) ? (err->code = ERR_MISMATCH) : status;
    if (gguf_is(container)) status = verify_gguf(app, container, err);
    else if (!llmq_is(container))
        status = err_set(err, ERR_UNSUPPORTED, "'%s' is neither a .llmq container nor GGUF: nothing in it can be checked", container->path);
    else status = verify_opened(app, container, err);
    if (!status) print_result(app, container);
    container_close(container);
    return status == ERR_DATA ? (err->code = ERR_MISMATCH) : status;
}

enum status cmd_verify(struct app *app, struct err *err)
{
    if (app->settings.n_arguments != 1) return err_set(err, ERR_USAGE, app->settings.n_arguments ? "one file at a time" : "which file?");
    enum status status = verify_path(app, app->settings.arguments[0], err);
    if (status == ERR_MISMATCH && settings_flag(&app->settings, SET_JSON)) print_failure(app->settings.arguments[0], err);
    return status;
}
