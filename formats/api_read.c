/* api_read.c: the models of llmq.h: what is in them, and their weights, bytes, planes and small files.
 *
 *   rows of a kept tensor: bytes of a tile at a time -> widen -> out;   of a quantised one: container_read_f32
 *   rows of a plane:       the tiles that hold them, each checked, cut at both ends
 *
 * Why this way: a thin view of struct container; kept tensors are read by whole tiles so that no compressed tile is decoded twice in a call.
 * Corner cases: containers other than llmq have one plane "data", raw at its place in the file; elements of fewer than 8 bits count as one row of
 * bytes there; a tensor without weights reads as nothing; a NULL buffer is allowed when nothing is read.
 * Reference: llmq.h, FORMAT.md 3. Worked number: rows 3 .. 4 of a plane with 86 bytes a row are bytes 258 .. 429.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "base/size.h"
#include "container/llmq_read.h"
#include "container/shown.h"
#include "layout/kept.h"

/* ---- opening -------------------------------------------------------------------------------------------------------------------- */

enum llmq_status llmq_model_open(const char *path, struct llmq_model **out, struct llmq_error *error)
{
    struct err *err = api_err(error);
    if (!out) return api_null("model", error);
    *out = NULL;
    if (!path) return api_null("path", error);
    struct llmq_model *model = malloc(sizeof *model);
    if (!model) return api_status(err_set(err, ERR_MEMORY, "out of memory"));
    enum status status = container_open(&io_system, path, &model->container, err);
    if (status == OK) *out = model;
    else free(model);
    return api_status(status);
}

void llmq_model_close(struct llmq_model *model)
{
    if (!model) return;
    container_close(model->container);
    free(model);
}

enum llmq_status llmq_model_check_unchanged(struct llmq_model *model, struct llmq_error *error)
{
    return model ? api_status(container_check_unchanged(model->container, api_err(error))) : api_null("model", error);
}

const char *llmq_model_metadata(const struct llmq_model *model)
{
    return model ? model->container->metadata_json : NULL;
}

const char *llmq_model_note(const struct llmq_model *model, size_t index)
{
    return model && index < model->container->n_notes ? model->container->notes[index] : NULL;
}

/* ---- what there is -------------------------------------------------------------------------------------------------------------- */

static enum llmq_status check_tensor(const struct llmq_model *model, size_t index, struct llmq_error *error)
{
    if (!model) return api_null("model", error);
    return index < model->container->n_tensors ? LLMQ_OK : api_index("tensor", index, model->container->n_tensors, error);
}

/* The stored description, NULL where the container is not llmq's own. */
static const struct llmq_entry *entry_of(const struct llmq_model *model, size_t index)
{
    return llmq_is(model->container) ? llmq_entry_of(model->container, index) : NULL;
}

/* Plane number plane of a tensor; the names belong to the container or are static. *count is how many there are. */
static struct plane plane_of(const struct llmq_model *model, size_t index, uint32_t plane, uint32_t *count)
{
    const struct llmq_entry *entry = entry_of(model, index);
    const struct tensor *tensor = &model->container->tensors[index];
    struct kept kept;
    if (entry) {
        *count = entry->n_planes;
        return plane < *count ? entry->planes[plane].plane : (struct plane){ 0 };
    }
    kept_planes(tensor->dtype, tensor_rows(tensor), tensor_cols(tensor), false, &kept);
    *count = kept.n_planes;
    return plane < *count ? kept.planes[plane] : (struct plane){ 0 };
}

static uint32_t group_of(const struct llmq_entry *entry)
{
    static const uint32_t whole[] = { [GROUP_CHANNEL] = LLMQ_GROUP_CHANNEL, [GROUP_TENSOR] = LLMQ_GROUP_TENSOR, [GROUP_SQUARE] = LLMQ_GROUP_SQUARE };
    if (!entry->decodable) return 0;
    return entry->quant.group_kind == GROUP_SIZE ? entry->quant.group : whole[entry->quant.group_kind];
}

size_t llmq_model_tensor_count(const struct llmq_model *model)
{
    return model ? model->container->n_tensors : 0;
}

enum llmq_status llmq_model_tensor(const struct llmq_model *model, size_t index, struct llmq_tensor_info *info, struct llmq_error *error)
{
    enum llmq_status status = check_tensor(model, index, error);
    if (status != LLMQ_OK) return status;
    if (!info) return api_null("tensor", error);
    const struct tensor *tensor = &model->container->tensors[index];
    const struct llmq_entry *entry = entry_of(model, index);
    *info = (struct llmq_tensor_info){ .name = tensor->name,
                                       .dtype = tensor->dtype->name,
                                       .role = "other",
                                       .dims = tensor->dims,
                                       .rank = tensor->rank,
                                       .rows = tensor_rows(tensor),
                                       .cols = tensor_cols(tensor) };
    plane_of(model, index, 0, &info->n_planes);
    if (entry && entry->role && *entry->role) info->role = entry->role;
    if (!tensor->quantised) info->nbytes = tensor->nbytes;
    else if (entry) {
        info->format = entry->format;
        info->group = group_of(entry);
        info->scale = entry->scale;
        info->scale_rule = entry->scale_rule;
        info->rounding = entry->rounding;
    }
    return LLMQ_OK;
}

enum llmq_status llmq_model_find(const struct llmq_model *model, const char *name, size_t *index, struct llmq_error *error)
{
    if (!model) return api_null("model", error);
    if (!name || !index) return api_null(name ? "index" : "name", error);
    size_t found = container_find(model->container, name);
    if (found == SIZE_MAX)
        return api_status(
            err_set(api_err(error), ERR_USAGE, "'%s' has no tensor '%s'", shown_path(model->container->path).text, shown_str(name).text));
    *index = found;
    return LLMQ_OK;
}

enum llmq_status llmq_model_plane(const struct llmq_model *model, size_t index, uint32_t plane, struct llmq_plane_info *info,
                                  struct llmq_error *error)
{
    enum llmq_status status = check_tensor(model, index, error);
    if (status != LLMQ_OK) return status;
    if (!info) return api_null("info", error);
    uint32_t count;
    const struct plane shape = plane_of(model, index, plane, &count);
    if (plane >= count) return api_index("plane", plane, count, error);
    const struct container *container = model->container;
    const struct tensor *tensor = &container->tensors[index];
    const struct llmq_entry *entry = entry_of(model, index);
    *info = (struct llmq_plane_info){ .name = shape.name,
                                      .bits = shape.bits,
                                      .rows = shape.rows,
                                      .cols = shape.cols,
                                      .row_nbytes = plane_row_nbytes(&shape),
                                      .nbytes = plane_nbytes(&shape),
                                      .file = container->files[tensor->file].path };
    if (info->nbytes) info->offset = entry ? entry->planes[plane].offset : tensor->offset;
    return LLMQ_OK;
}

size_t llmq_model_blob_count(const struct llmq_model *model)
{
    return model ? model->container->n_blobs : 0;
}

enum llmq_status llmq_model_blob(const struct llmq_model *model, size_t index, struct llmq_blob_info *info, struct llmq_error *error)
{
    if (!model) return api_null("model", error);
    if (!info) return api_null("blob", error);
    if (index >= model->container->n_blobs) return api_index("small file", index, model->container->n_blobs, error);
    *info = (struct llmq_blob_info){ .name = model->container->blobs[index].name, .nbytes = model->container->blobs[index].nbytes };
    return LLMQ_OK;
}

/* ---- weights -------------------------------------------------------------------------------------------------------------------- */

/* Weights from number at on to the end of their tile. */
static uint64_t left_in_tile(uint64_t at, uint64_t cols, uint64_t tile_rows, uint64_t tile_cols, uint64_t rows)
{
    if (tile_cols >= cols) {
        uint64_t tile = size_min(tile_rows, rows) * cols;
        return tile - at % tile;
    }
    uint64_t col = at % cols;
    return size_min(tile_cols - col % tile_cols, cols - col);
}

static enum status read_kept(const struct llmq_model *model, size_t index, uint64_t first, uint64_t n, float *out, struct err *err)
{
    struct container *container = model->container;
    const struct tensor *tensor = &container->tensors[index];
    const struct llmq_entry *entry = entry_of(model, index);
    const uint64_t rows = tensor_rows(tensor), cols = tensor_cols(tensor), elem_nbytes = tensor->dtype->bits / 8;
    uint64_t tile_rows, tile_cols, largest;
    tile_shape(rows, cols, 1, &tile_rows, &tile_cols);
    if (entry) {
        tile_rows = entry->tile_rows;
        tile_cols = entry->tile_cols;
    }
    largest = size_min(n, size_min(tile_rows, rows) * size_min(tile_cols, cols));
    uint8_t *stored = malloc((size_t)(largest * elem_nbytes));
    if (!stored) return err_set(err, ERR_MEMORY, "out of memory for %" PRIu64 " bytes", largest * elem_nbytes);
    enum status status = OK;
    for (uint64_t done = 0; done < n && status == OK;) {
        size_t count = (size_t)size_min(n - done, left_in_tile(first + done, cols, tile_rows, tile_cols, rows));
        status = container_read(container, index, (first + done) * elem_nbytes, (size_t)(count * elem_nbytes), stored, err);
        if (status == OK) tensor->dtype->widen(stored, count, out + done);
        done += count;
    }
    free(stored);
    return status;
}

static enum status check_rows(const struct llmq_model *model, size_t index, uint64_t first_row, uint64_t n_rows, uint64_t rows, struct err *err)
{
    if (first_row <= rows && n_rows <= rows - first_row) return OK;
    return err_set(err, ERR_USAGE, "cannot read tensor '%s': first row %" PRIu64 " + %" PRIu64 " rows exceed its %" PRIu64,
                   shown_str(model->container->tensors[index].name).text, first_row, n_rows, rows);
}

enum llmq_status llmq_read_rows(struct llmq_model *model, size_t index, uint64_t first_row, uint64_t n_rows, float *out, struct llmq_error *error)
{
    struct err *err = api_err(error);
    enum llmq_status found = check_tensor(model, index, error);
    if (found != LLMQ_OK) return found;
    const struct tensor *tensor = &model->container->tensors[index];
    enum status status = check_rows(model, index, first_row, n_rows, tensor_rows(tensor), err);
    if (status != OK) return api_status(status);
    const uint64_t cols = tensor_cols(tensor);
    if (!tensor->quantised && !tensor->dtype->widen)
        return api_status(err_set(err, ERR_UNSUPPORTED, "cannot read tensor '%s': dtype %s has no numbers that llmq can decode",
                                  shown_str(tensor->name).text, tensor->dtype->name));
    if (tensor->n_weights == 0 || n_rows == 0) return LLMQ_OK;
    if (!out) return api_null("out", error);
    if (tensor->quantised) return api_status(container_read_f32(model->container, index, first_row, n_rows, 0, cols, out, err));
    return api_status(read_kept(model, index, first_row * cols, n_rows * cols, out, err));
}

enum llmq_status llmq_read_bytes(struct llmq_model *model, size_t index, uint64_t offset, size_t nbytes, void *out, struct llmq_error *error)
{
    enum llmq_status found = check_tensor(model, index, error);
    if (found != LLMQ_OK) return found;
    if (!out && nbytes) return api_null("out", error);
    return api_status(container_read(model->container, index, offset, nbytes, out, api_err(error)));
}

/* ---- planes --------------------------------------------------------------------------------------------------------------------- */

/* Bytes at .. end - 1 of a plane of an llmq container. */
static enum status read_tiles(const struct llmq_model *model, size_t index, uint32_t number, const struct plane *plane, uint64_t at, uint64_t end,
                              uint8_t *out, struct err *err)
{
    uint64_t per_row = size_ceil_div(plane->cols, plane->tile_cols), first_row = at / plane_row_nbytes(plane);
    uint8_t *whole = NULL;
    enum status status = OK;
    for (uint64_t tile = first_row / plane->tile_rows * per_row; at < end && status == OK; tile++) {
        uint64_t begin = plane_tile_offset(plane, tile), nbytes = plane_tile_nbytes(plane, tile), stop = size_min(end, begin + nbytes);
        bool direct = begin == at && stop == begin + nbytes;
        if (!direct && !whole) whole = malloc((size_t)plane_tile_nbytes(plane, 0));
        if (!direct && !whole) return err_set(err, ERR_MEMORY, "out of memory for a tile");
        status = llmq_read_tile(model->container, index, number, tile, direct ? out : whole, err);
        if (status == OK && !direct) memcpy(out, whole + (at - begin), (size_t)(stop - at));
        out += stop - at;
        at = stop;
    }
    free(whole);
    return status;
}

enum llmq_status llmq_read_plane(struct llmq_model *model, size_t index, uint32_t number, uint64_t first_row, uint64_t n_rows, void *out,
                                 struct llmq_error *error)
{
    struct err *err = api_err(error);
    enum llmq_status found = check_tensor(model, index, error);
    if (found != LLMQ_OK) return found;
    uint32_t count;
    const struct plane plane = plane_of(model, index, number, &count);
    if (number >= count) return api_index("plane", number, count, error);
    enum status status = check_rows(model, index, first_row, n_rows, plane.rows, err);
    if (status != OK) return api_status(err_wrap(err, status, "plane '%s'", shown_str(plane.name).text));
    uint64_t row_nbytes = plane_row_nbytes(&plane), at = first_row * row_nbytes, nbytes = n_rows * row_nbytes;
    if (nbytes == 0) return LLMQ_OK;
    if (!out) return api_null("out", error);
    if (llmq_is(model->container)) return api_status(read_tiles(model, index, number, &plane, at, at + nbytes, out, err));
    return api_status(container_read(model->container, index, at, (size_t)nbytes, out, err));
}

/* ---- small files ---------------------------------------------------------------------------------------------------------------- */

enum llmq_status llmq_read_blob(struct llmq_model *model, size_t index, uint64_t offset, size_t nbytes, void *out, struct llmq_error *error)
{
    if (!model) return api_null("model", error);
    if (!out && nbytes) return api_null("out", error);
    return api_status(container_read_blob(model->container, index, offset, nbytes, out, api_err(error)));
}
