/* model.c: see model.h.
 *
 * Formula: jobs are runs of tiles_per_job tiles of a tensor; ticket = number of the job; threads take jobs in ascending order.
 * Why this way: see model.h.
 * Corner cases: a tensor without tiles has one job without parts; a plane with fewer tiles than the tensor comes with the tensor's first tiles.
 * Reference: container/writer.h. Worked number: 300 tensors of 1 tile: 300 tickets.
 */
#include "support/support.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/pool.h"
#include "base/size.h"
#include "support/model.h"

struct model *model_make(uint64_t seed)
{
    struct model *model = calloc(1, sizeof *model);
    assert_non_null(model);
    model->seed = seed;
    return model;
}

void model_free(struct model *model)
{
    if (!model) return;
    for (size_t i = 0; i < model->n_tensors; i++) {
        free(model->own[i].plain);
        for (size_t p = 0; p < OUT_PLANES_MAX; p++) free(model->own[i].planes[p]);
    }
    for (size_t i = 0; i < model->n_blobs; i++) free(model->blob_bytes[i]);
    free(model);
}

static void fill(struct model *model, uint8_t *bytes, size_t nbytes)
{
    for (size_t i = 0; i < nbytes; i += 8) {
        uint64_t r = test_random(&model->seed);
        memcpy(bytes + i, &r, nbytes - i < 8 ? nbytes - i : 8);
    }
}

static struct out_tensor *begin(struct model *model, const char *name, const char *dtype, uint32_t rank, const uint64_t *dims)
{
    assert_true(model->n_tensors < MODEL_TENSORS_MAX && rank <= 8);
    struct model_tensor *own = &model->own[model->n_tensors];
    struct out_tensor *tensor = &model->tensors[model->n_tensors];
    snprintf(own->name, sizeof own->name, "%s", name);
    if (rank) memcpy(own->dims, dims, rank * sizeof *dims);
    *tensor = (struct out_tensor){ .name = own->name, .dims = own->dims, .rank = rank, .dtype = dtype, .role = "other" };
    fill(model, model->digests[model->n_tensors].bytes, 16);
    return tensor;
}

static void shape_of(const struct out_tensor *tensor, uint64_t *rows, uint64_t *cols)
{
    *rows = 1;
    *cols = tensor->rank ? tensor->dims[tensor->rank - 1] : 1;
    for (uint32_t i = 0; i + 1 < tensor->rank; i++) *rows *= tensor->dims[i];
}

/* FORMAT.md 2.1: digest of the digests of the tiles' source bytes; kept tiles are contiguous in the source. */
static struct digest128 source_digest(const struct model_tensor *own)
{
    struct plane plane = own->kept.planes[0];
    plane.bits = own->kept.item_nbytes * 8;
    size_t n_tiles = (size_t)plane_tile_count(&plane);
    struct digest128 *tiles = calloc(n_tiles + 1, sizeof *tiles);
    for (size_t i = 0; i < n_tiles; i++) tiles[i] = digest128(own->plain + plane_tile_offset(&plane, i), (size_t)plane_tile_nbytes(&plane, i));
    struct digest128 digest = digest128(tiles, n_tiles * sizeof *tiles);
    free(tiles);
    return digest;
}

void model_add_kept(struct model *model, const char *name, const char *dtype, uint32_t rank, const uint64_t *dims, bool split, bool mapped)
{
    struct out_tensor *tensor = begin(model, name, dtype, rank, dims);
    struct model_tensor *own = &model->own[model->n_tensors++];
    uint64_t rows, cols;
    shape_of(tensor, &rows, &cols);
    kept_planes(dtype_find(dtype, strlen(dtype)), rows, cols, split, &own->kept);
    size_t n_items = (size_t)(own->kept.rows * own->kept.cols);
    own->n_plain = n_items * own->kept.item_nbytes;
    own->plain = malloc(own->n_plain + 1);
    fill(model, own->plain, own->n_plain);
    if (own->kept.kind == KEPT_BF16)
        for (size_t i = 1; i < own->n_plain; i += 2) own->plain[i] = (uint8_t)(0x3C + (own->plain[i] & 0x81)); /* exponents as in real weights */
    tensor->tile_rows = own->kept.tile_rows;
    tensor->tile_cols = own->kept.tile_cols;
    tensor->n_planes = own->kept.n_planes;
    for (uint32_t p = 0; p < tensor->n_planes; p++) {
        tensor->planes[p] = (struct out_plane){ own->kept.planes[p], mapped };
        own->n_planes_bytes[p] = (size_t)plane_nbytes(&own->kept.planes[p]);
        own->planes[p] = malloc(own->n_planes_bytes[p] + 1);
    }
    kept_split(own->kept.kind, own->kept.item_nbytes, own->plain, n_items, own->planes);
    model->digests[model->n_tensors - 1] = source_digest(own);
}

/* Random fields; unused bits at the end of each row of each tile are 0. */
static void fill_plane(struct model *model, struct model_tensor *own, uint32_t index, const struct plane *plane, bool compressible)
{
    own->n_planes_bytes[index] = (size_t)plane_nbytes(plane);
    uint8_t *bytes = own->planes[index] = malloc(own->n_planes_bytes[index] + 1);
    fill(model, bytes, own->n_planes_bytes[index]);
    if (compressible)
        for (size_t i = 0; i < own->n_planes_bytes[index]; i++) bytes[i] = (uint8_t)((bytes[i] & 0x11) | 0x40);
    uint64_t row_nbytes = plane_row_nbytes(plane), tail = plane->cols * plane->bits % 8;
    for (uint64_t r = 0; tail && r < plane->rows; r++) bytes[(r + 1) * row_nbytes - 1] &= (uint8_t)((1u << tail) - 1);
}

void model_add_quantised(struct model *model, const char *name, uint32_t rank, const uint64_t *dims, uint32_t bits, uint64_t group, bool zeros,
                         bool mapped)
{
    struct out_tensor *tensor = begin(model, name, "BF16", rank, dims);
    struct model_tensor *own = &model->own[model->n_tensors++];
    static char facts[17][2][200], names[17][2][16];
    uint64_t rows, cols, tile_rows, tile_cols;
    bool sized = group != 0 && group != UINT64_MAX;
    shape_of(tensor, &rows, &cols);
    tile_shape(rows, cols, sized ? group : 1, &tile_rows, &tile_cols);
    snprintf(names[bits][zeros], sizeof names[0][0], "%s%u", zeros ? "uint" : "int", bits);
    snprintf(facts[bits][zeros], sizeof facts[0][0],
             "{\"family\":\"affine\",\"element\":\"%s\",\"bits\":%u,\"signed\":%s,\"fraction_bits\":0,\"special\":\"none\",\"zero_point\":%s}",
             names[bits][zeros], bits, zeros ? "false" : "true", zeros ? "true" : "false");
    if (sized) snprintf(own->group, sizeof own->group, "%u", (unsigned)group);
    else snprintf(own->group, sizeof own->group, group ? "\"tensor\"" : "\"channel\"");
    tensor->format = names[bits][zeros];
    tensor->format_facts = facts[bits][zeros];
    tensor->group = own->group;
    tensor->scale_rule = "absmax";
    tensor->rounding = "nearest-even";
    tensor->scale = "bf16";
    tensor->tile_rows = tile_rows;
    tensor->tile_cols = tile_cols;
    tensor->n_planes = zeros ? 3 : 2;
    struct plane codes = { "codes", bits, rows, cols, tile_rows, tile_cols };
    struct plane scales = { "scales", 16, rows, sized ? size_ceil_div(cols, group) : 1, tile_rows, sized ? size_ceil_div(tile_cols, group) : 1 };
    if (group == UINT64_MAX) scales.rows = 1;
    if (!sized && cols > tile_cols) scales.tile_rows = scales.rows;
    struct plane zero = scales;
    zero.name = "zeros";
    zero.bits = bits;
    const struct plane planes[3] = { codes, scales, zero };
    for (uint32_t p = 0; p < tensor->n_planes; p++) {
        tensor->planes[p] = (struct out_plane){ planes[p], mapped };
        fill_plane(model, own, p, &planes[p], p == 1);
    }
}

void model_add_blocks(struct model *model, const char *name, uint32_t rank, const uint64_t *dims, const struct ggml_type *type, bool scales)
{
    struct out_tensor *tensor = begin(model, name, "F32", rank, dims);
    struct model_tensor *own = &model->own[model->n_tensors++];
    uint64_t rows, cols, n_matrices = 1;
    shape_of(tensor, &rows, &cols);
    assert_true(cols % type->elements == 0);
    for (uint32_t i = 0; i + 2 < rank; i++) n_matrices *= dims[i];
    tile_shape(rows, cols, type->elements, &tensor->tile_rows, &tensor->tile_cols);
    tensor->format = type->format;
    tensor->block = type;
    tensor->n_planes = scales ? 2 : 1;
    const struct plane planes[2] = {
        { "blocks", 8 * type->bytes, rows, cols / type->elements, tensor->tile_rows, size_max(1, tensor->tile_cols / type->elements) },
        { "tensor_scale", 32, 1, n_matrices, 1, size_max(1, n_matrices) },
    };
    for (uint32_t p = 0; p < tensor->n_planes; p++) {
        tensor->planes[p] = (struct out_plane){ planes[p], true };
        fill_plane(model, own, p, &planes[p], false);
    }
}

static enum status give_blob(void *context, size_t index, uint64_t offset, size_t nbytes, void *buf, struct err *err)
{
    const struct model *model = context;
    (void)err;
    memcpy(buf, model->blob_bytes[index] + offset, nbytes);
    return OK;
}

void model_add_blob(struct model *model, const char *name, size_t nbytes, bool text)
{
    size_t index = model->n_blobs++;
    assert_true(index < MODEL_BLOBS_MAX);
    model->blobs[index] = (struct out_blob){ .name = name, .nbytes = nbytes, .read = give_blob, .context = model, .index = index };
    model->blob_bytes[index] = malloc(nbytes + 1);
    fill(model, model->blob_bytes[index], nbytes);
    for (size_t i = 0; text && i < nbytes; i++) model->blob_bytes[index][i] = (uint8_t)("{}\":, ab"[model->blob_bytes[index][i] & 7]);
}

struct writer_options model_options(const char *path, enum compress_mode compress)
{
    return (struct writer_options){ .path = path, .compress = compress, .writer_name = "llmq test", .n_workers = 1, .tiles_per_job = 2 };
}

/* ---- running the jobs ----------------------------------------------------------------------------------------------------------- */

struct run {
    const struct writer_ops *ops;
    struct writer *writer;
    const struct model *model;
    const struct writer_options *options;
    size_t *first_ticket; /* of each tensor; n_tensors + 1 */
    uint64_t n_folded, last_folded; /* by in_order */
    atomic_uint_least64_t next;
    atomic_int status;
    struct err err;
    atomic_flag err_taken;
};

static uint64_t most_tiles(const struct out_tensor *tensor)
{
    uint64_t most = 0;
    for (uint32_t p = 0; p < tensor->n_planes; p++) most = size_max(most, plane_tile_count(&tensor->planes[p].plane));
    return most;
}

struct fold {
    struct run *run;
    uint64_t ticket;
};

static void in_order(void *context)
{
    struct fold *fold = context;
    if (fold->run->n_folded == fold->ticket) fold->run->n_folded++;
}

static void put_job(struct run *run, unsigned worker, size_t index, uint64_t ticket)
{
    const struct out_tensor *tensor = &run->model->tensors[index];
    const struct model_tensor *own = &run->model->own[index];
    struct part parts[64];
    size_t n_parts = 0;
    uint64_t first = (ticket - run->first_ticket[index]) * run->options->tiles_per_job;
    for (uint64_t t = first; t < first + run->options->tiles_per_job; t++)
        for (uint32_t p = 0; p < tensor->n_planes; p++) {
            const struct plane *plane = &tensor->planes[p].plane;
            if (t >= plane_tile_count(plane)) continue;
            parts[n_parts++] = (struct part){ p, t, own->planes[p] + plane_tile_offset(plane, t), (size_t)plane_tile_nbytes(plane, t) };
        }
    struct fold fold = { run, ticket };
    struct err err = { OK, "" };
    enum status status = run->ops->put(run->writer, worker, ticket, index, parts, n_parts, in_order, &fold, &err);
    if (status == OK) return;
    int fine = OK;
    if (status == ERR_CANCELLED) {
        atomic_compare_exchange_strong(&run->status, &fine, (int)status); /* the cause is another worker's */
    } else if (!atomic_flag_test_and_set(&run->err_taken)) {
        run->err = err;
        atomic_store(&run->status, (int)status);
    }
}

static void work(void *context, unsigned worker)
{
    struct run *run = context;
    uint64_t seed = worker + 1;
    while (atomic_load(&run->status) == OK) {
        uint64_t ticket = atomic_fetch_add(&run->next, 1);
        size_t index = 0;
        while (index < run->model->n_tensors && run->first_ticket[index + 1] <= ticket) index++;
        if (index == run->model->n_tensors) return;
        for (uint64_t i = test_random(&seed) % 4; i > 0; i--) sched_yield();
        put_job(run, worker, index, ticket);
    }
}

static enum status run_jobs(struct run *run, struct err *err)
{
    const struct model *model = run->model;
    run->first_ticket = calloc(model->n_tensors + 1, sizeof *run->first_ticket);
    for (size_t i = 0; i < model->n_tensors; i++)
        run->first_ticket[i + 1] = run->first_ticket[i] + size_max(1, size_ceil_div(most_tiles(&model->tensors[i]), run->options->tiles_per_job));
    pool_run(run->options->n_workers, work, run);
    enum status status = (enum status)atomic_load(&run->status);
    if (status == OK) assert_int_equal(run->n_folded, run->first_ticket[model->n_tensors]);
    else *err = run->err;
    free(run->first_ticket);
    return status;
}

enum status model_write(const struct writer_ops *ops, struct model *model, const struct writer_options *options, struct writer_size *size,
                        struct err *err)
{
    struct writer_size own_size;
    struct outset *set = NULL;
    struct run run = { .ops = ops, .model = model, .options = options, .err_taken = ATOMIC_FLAG_INIT };
    enum status status = ops->plan(model->tensors, model->n_tensors, model->blobs, model->n_blobs, options, size ? size : &own_size, err);
    if (status == OK) status = outset_open(model->io ? model->io : &io_system, true, &set, err);
    if (status == OK) status = ops->open(set, model->tensors, model->n_tensors, model->blobs, model->n_blobs, options, &run.writer, err);
    if (status == OK) status = run_jobs(&run, err);
    if (status == OK) status = ops->finish(run.writer, model->digests, err);
    ops->close(run.writer);
    if (status == OK) status = outset_commit(set, err);
    outset_close(set);
    return status;
}

/* ---- a disk that fills up --------------------------------------------------------------------------------------------------------- */

static atomic_long writes_left;

static ssize_t failing_pwrite(int fd, const void *buf, size_t nbytes, off_t offset)
{
    if (atomic_fetch_sub(&writes_left, 1) > 0) return io_system.pwrite(fd, buf, nbytes, offset);
    errno = ENOSPC;
    return -1;
}

void model_check_failing_writes(const struct writer_ops *ops, struct model *model, const struct writer_options *options, const char *first)
{
    struct io_calls io = io_system;
    struct err err;
    char partial[4096];
    snprintf(partial, sizeof partial, "%s.partial", first);
    io.pwrite = failing_pwrite;
    model->io = &io;
    for (long k = 0;; k += k < 12 ? 1 : 5) {
        atomic_store(&writes_left, k);
        enum status status = model_write(ops, model, options, NULL, &err);
        if (status == OK) break;
        assert_int_equal(status, ERR_IO);
        assert_non_null(strstr(err.text, "No space left"));
        assert_false(file_exists(first) || file_exists(partial));
    }
    assert_true(atomic_load(&writes_left) >= 0);
    model->io = NULL;
}
