/* cmd_inspect.c: the command inspect: what a model or container holds; with --scan also what is in the weights.
 *
 * Drawing: summary; --tensors: a line a tensor; --scan: NaN, Inf, zeros and ranges a tensor.
 * Why this way: headers only, unless --scan asks for the data.
 * Corner cases: --scan of a model with NaN or Inf reports them and is no failure; roles come from roles.yaml, for containers from the file.
 * Reference: scan.h. Example: llmq inspect model.safetensors --scan.
 */
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "container/gguf.h"
#include "container/llmq_read.h"
#include "converter/app.h"
#include "converter/plane_hash.h"
#include "converter/print.h"
#include "converter/progress.h"
#include "converter/roles.h"
#include "converter/scan.h"

struct inspection {
    struct app *app;
    struct container *container;
    struct roles *roles; /* NULL for containers that know the roles */
    struct scan *scans; /* NULL without --scan */
    struct digest128 *hashes; /* NULL without --hashes */
};

static const char *role_of(const struct inspection *in, size_t i)
{
    return in->roles ? roles_of(in->roles, in->container->tensors[i].name)->name : llmq_entry_of(in->container, i)->role;
}

static const char *format_of(const struct tensor *tensor)
{
    return tensor->format ? tensor->format : tensor->dtype->name;
}

/* ---- text ----------------------------------------------------------------------------------------------------------------------- */

static void text_tensor(const struct inspection *in, size_t i)
{
    const struct tensor *tensor = &in->container->tensors[i];
    char name[49], dims[64], bytes[24];
    printf("  %-48s %-9s %-18s %-11s %9s", show_name(tensor->name, name, 48), role_of(in, i), show_dims(tensor, dims, sizeof dims), format_of(tensor),
           show_bytes(tensor->stored_nbytes, bytes));
    if (in->scans && in->scans[i].n_weights) {
        const struct scan *scan = &in->scans[i];
        printf("  %12.5g .. %-12.5g zeros %llu NaN %llu Inf %llu", (double)scan->min, (double)scan->max, (unsigned long long)scan->n_zero,
               (unsigned long long)scan->n_nan, (unsigned long long)scan->n_inf);
        if (scan->n_nan + scan->n_inf)
            printf("  first at row %llu, column %llu", (unsigned long long)scan->bad_row, (unsigned long long)scan->bad_col);
    }
    printf("\n");
}

/* The value of a short string key, or NULL; the caller frees it. */
static char *gguf_text(const struct container *container, const char *key)
{
    char *text = NULL;
    size_t nbytes = 0;
    return gguf_get_string(container, key, 256, &text, &nbytes, NULL) == OK ? text : NULL;
}

static void text_gguf(const struct container *container)
{
    const struct gguf_header *header = gguf_header_of(container, 0);
    char *architecture = gguf_text(container, "general.architecture"), *name = gguf_text(container, "general.name"), shown[97];
    printf("GGUF version %u, %zu keys, alignment %u, architecture %s", header->version, header->n_keys, header->alignment,
           architecture ? show_name(architecture, shown, 48) : "unknown");
    printf(name ? ", name %s\n" : "\n", name ? show_name(name, shown, 96) : "");
    free(architecture);
    free(name);
}

static void text_summary(const struct inspection *in)
{
    const struct container *container = in->container;
    uint64_t weights = 0, nbytes = 0, bad = 0, file_nbytes = 0;
    char a[24], b[24];
    for (size_t i = 0; i < container->n_tensors; i++) {
        weights += container->tensors[i].n_weights;
        nbytes += container->tensors[i].stored_nbytes;
        bad += in->scans && in->scans[i].n_nan + in->scans[i].n_inf > 0;
    }
    for (size_t i = 0; i < container->n_files; i++) file_nbytes += container->files[i].nbytes;
    printf("%s: %s, %zu tensors, %llu weights, %s of tensors in %zu file%s of %s\n", container->path, container->ops->name, container->n_tensors,
           (unsigned long long)weights, show_bytes(nbytes, a), container->n_files, container->n_files == 1 ? "" : "s", show_bytes(file_nbytes, b));
    if (llmq_is(container)) printf("written by %s\n", llmq_writer_of(container));
    if (gguf_is(container)) text_gguf(container);
    for (size_t i = 0; i < container->n_blobs; i++)
        printf("%s%s (%s)%s", i ? ", " : "with ", container->blobs[i].name, show_bytes(container->blobs[i].nbytes, a),
               i + 1 == container->n_blobs ? "\n" : "");
    if (in->scans) printf("%llu tensor%s with NaN or Inf\n", (unsigned long long)bad, bad == 1 ? "" : "s");
}

static void print_text(const struct inspection *in)
{
    text_summary(in);
    bool all = settings_flag(&in->app->settings, SET_TENSORS) || in->scans;
    for (size_t i = 0; all && i < in->container->n_tensors; i++) text_tensor(in, i);
}

/* ---- JSON ----------------------------------------------------------------------------------------------------------------------- */

static void json_scan(const struct scan *scan)
{
    printf(",\"nan\":%llu,\"inf\":%llu,\"zeros\":%llu,\"min\":", (unsigned long long)scan->n_nan, (unsigned long long)scan->n_inf,
           (unsigned long long)scan->n_zero);
    print_json_number(stdout, (double)scan->min);
    printf(",\"max\":");
    print_json_number(stdout, (double)scan->max);
    printf(",\"mean_abs\":");
    uint64_t finite = scan->n_weights - scan->n_nan - scan->n_inf;
    print_json_number(stdout, finite ? scan->sum_abs / (double)finite : 0.0);
    if (scan->n_nan + scan->n_inf) printf(",\"first_nonfinite\":[%llu,%llu]", (unsigned long long)scan->bad_row, (unsigned long long)scan->bad_col);
}

static void json_quantised(const struct llmq_entry *entry)
{
    char group[16];
    char digest[DIGEST128_HEX];
    digest128_hex(&entry->source_digest, digest);
    printf(",\"source_digest\":\"%s\"", digest);
    if (entry->format) printf(",\"scale_rule\":\"%s\",\"rounding\":\"%s\",\"scale\":\"%s\"", entry->scale_rule, entry->rounding, entry->scale);
    if (entry->format && entry->decodable) printf(",\"group\":%s", quant_group_json(&entry->quant, group));
    if (entry->quant.sub_block) printf(",\"sub_block\":%u,\"shift_bits\":%u", entry->quant.sub_block, entry->quant.shift_bits);
    printf(",\"planes\":[");
    for (uint32_t k = 0; k < entry->n_planes; k++)
        printf("%s{\"name\":\"%s\",\"bits\":%u,\"rows\":%llu,\"cols\":%llu,\"nbytes\":%llu,\"offset\":%llu}", k ? "," : "",
               entry->planes[k].plane.name, entry->planes[k].plane.bits, (unsigned long long)entry->planes[k].plane.rows,
               (unsigned long long)entry->planes[k].plane.cols, (unsigned long long)plane_nbytes(&entry->planes[k].plane),
               (unsigned long long)entry->planes[k].offset);
    printf("]");
}

static void json_tensor(const struct inspection *in, size_t i)
{
    const struct tensor *tensor = &in->container->tensors[i];
    printf("%s\n{\"name\":", i ? "," : "");
    print_json_string(stdout, tensor->name);
    printf(",\"role\":");
    print_json_string(stdout, role_of(in, i));
    printf(",\"shape\":");
    print_json_dims(stdout, tensor);
    printf(",\"dtype\":\"%s\",\"format\":", tensor->dtype->name);
    print_json_string(stdout, tensor->format);
    printf(",\"nbytes\":%llu", (unsigned long long)tensor->stored_nbytes);
    if (llmq_is(in->container)) json_quantised(llmq_entry_of(in->container, i));
    if (in->scans && in->scans[i].n_weights) json_scan(&in->scans[i]);
    if (in->hashes) {
        char hash[DIGEST128_HEX];
        digest128_hex(&in->hashes[i], hash);
        printf(",\"hash\":\"%s\"", hash);
    }
    printf("}");
}

static void json_gguf(const struct container *container)
{
    const struct gguf_header *header = gguf_header_of(container, 0);
    char *architecture = gguf_text(container, "general.architecture"), *name = gguf_text(container, "general.name");
    printf("],\"gguf\":{\"version\":%u,\"alignment\":%u,\"keys\":%zu,\"architecture\":", header->version, header->alignment, header->n_keys);
    print_json_string(stdout, architecture);
    printf(",\"name\":");
    print_json_string(stdout, name);
    printf("}");
    free(architecture);
    free(name);
}

/* Of all tensors, as the total of a sweep has it: over their hashes in order. */
static void json_hash(const struct inspection *in)
{
    const struct digest128 digest = digest128(in->hashes, in->container->n_tensors * sizeof *in->hashes);
    char hash[DIGEST128_HEX];
    digest128_hex(&digest, hash);
    printf(",\"hash\":\"%s\"", hash);
}

static void print_json(const struct inspection *in)
{
    const struct container *container = in->container;
    printf("{\"path\":");
    print_json_string(stdout, container->path);
    printf(",\"container\":\"%s\",\"files\":%zu,\"metadata\":%s,\"blobs\":[", container->ops->name, container->n_files,
           container->metadata_json ? container->metadata_json : "{}");
    for (size_t i = 0; i < container->n_blobs; i++) {
        printf("%s{\"name\":", i ? "," : "");
        print_json_string(stdout, container->blobs[i].name);
        printf(",\"nbytes\":%llu}", (unsigned long long)container->blobs[i].nbytes);
    }
    if (gguf_is(container)) json_gguf(container);
    else putchar(']');
    if (in->hashes) json_hash(in);
    printf(",\"n_tensors\":%zu,\"tensors\":[", container->n_tensors);
    for (size_t i = 0; i < container->n_tensors; i++) json_tensor(in, i);
    printf("\n]}\n");
}

/* ---- the command ---------------------------------------------------------------------------------------------------------------- */

static enum status run_scan(struct inspection *in, struct err *err)
{
    uint64_t asked = settings_number(&in->app->settings, SET_THREADS);
    uint64_t per_worker = (uint64_t)TILE_WEIGHTS * 8, budget = settings_number(&in->app->settings, SET_MAX_RAM) - (4u << 20);
    uint64_t workers = asked ? asked : pool_cpu_count();
    if (workers > budget / per_worker) workers = budget / per_worker;
    in->scans = calloc(in->container->n_tensors + 1, sizeof *in->scans);
    if (!in->scans) return err_set(err, ERR_MEMORY, "out of memory");
    return scan_model(in->app, in->container, NULL, (unsigned)workers, in->scans, err);
}

static enum status run_hashes(struct inspection *in, struct err *err)
{
    enum status status = OK;
    in->hashes = calloc(in->container->n_tensors + 1, sizeof *in->hashes);
    if (!in->hashes) return err_set(err, ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < in->container->n_tensors && !status; i++) status = plane_hash(in->container, i, &in->hashes[i], err);
    return status;
}

static enum status inspect_opened(struct inspection *in, struct err *err)
{
    enum status status = OK;
    char *path = NULL;
    for (size_t i = 0; i < in->container->n_notes; i++) app_note(in->app, "%s", in->container->notes[i]);
    if (!llmq_is(in->container)) status = app_config_path(in->app, "roles.yaml", &path, err);
    if (!status && path) status = roles_open(in->app->io, path, &in->roles, err);
    free(path);
    if (!status && settings_flag(&in->app->settings, SET_SCAN)) status = run_scan(in, err);
    if (!status && settings_flag(&in->app->settings, SET_HASHES)) status = run_hashes(in, err);
    if (status) return status;
    if (settings_flag(&in->app->settings, SET_JSON)) print_json(in);
    else print_text(in);
    return OK;
}

enum status cmd_inspect(struct app *app, struct err *err)
{
    struct inspection in = { .app = app };
    if (app->settings.n_arguments != 1) return err_set(err, ERR_USAGE, app->settings.n_arguments ? "one model at a time" : "which model?");
    enum status status = container_open(app->io, app->settings.arguments[0], &in.container, err);
    if (status) return status;
    status = inspect_opened(&in, err);
    free(in.scans);
    free(in.hashes);
    roles_close(in.roles);
    container_close(in.container);
    return status;
}
