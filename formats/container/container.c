/* container.c: the table of containers, and what is the same for all of them; see container.h.
 *
 * Formula: the first row whose probe says yes opens the path; head = the first 256 bytes of a file.
 * Why this way: ranges are checked here once, so an implementation may trust index, offset and nbytes; context is put in front of a sentence here,
 * so an implementation writes only the cause.
 * Corner cases: a path that no row wants gets the sentence of foreign.h when it is one of the usual mistakes; reading nothing is allowed; a read of a
 * quantised tensor's plain bytes, and the reverse, is ERR_USAGE; notes beyond 1000 are dropped.
 * Reference: see container.h. Worked number: dims [2, 3, 4] are 6 rows of 4 columns.
 */
#include "container/container.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "container/foreign.h"
#include "container/gguf.h"
#include "container/hfdir.h"
#include "container/llmq_read.h"
#include "container/name_table.h"
#include "container/safetensors.h"
#include "container/shown.h"

#define NOTES_MAX 1000
#define NOTE_NBYTES_MAX 2048

static const struct container_ops *const rows[] = { &hfdir_container_ops, &llmq_container_ops, &gguf_container_ops, &safetensors_container_ops };

size_t container_ops_count(void)
{
    return sizeof rows / sizeof rows[0];
}

const struct container_ops *container_ops_at(size_t index)
{
    return rows[index];
}

/* ---- opening ---------------------------------------------------------------------------------------------------------------------- */

static enum status read_head(const struct io_calls *io, const char *path, uint8_t head[FOREIGN_HEAD_NBYTES], size_t *n_head, struct err *err)
{
    struct file file;
    enum status status = file_open(io, path, &file, err);
    if (status != OK) return status;
    *n_head = file.nbytes < FOREIGN_HEAD_NBYTES ? (size_t)file.nbytes : FOREIGN_HEAD_NBYTES;
    status = file_read(&file, head, *n_head, 0, err);
    file_close(&file);
    return status;
}

static const struct container_ops *find_row(const char *path, bool is_dir, const uint8_t *head, size_t n_head)
{
    for (size_t i = 0; i < container_ops_count(); i++)
        if (rows[i]->probe(path, is_dir, head, n_head)) return rows[i];
    return NULL;
}

static enum status refuse_foreign(const char *path, const uint8_t *head, size_t n_head, struct err *err)
{
    const struct foreign *foreign = foreign_find(head, n_head);
    if (foreign) return err_set(err, foreign->status, "'%s' %s", shown_path(path).text, foreign->sentence);
    return err_set(err, ERR_UNSUPPORTED, "'%s' is no model file that llmq knows (it reads safetensors, GGUF, llmq and model folders)",
                   shown_path(path).text);
}

enum status container_open(const struct io_calls *io, const char *path, struct container **container, struct err *err)
{
    uint8_t head[FOREIGN_HEAD_NBYTES];
    size_t n_head = 0;
    *container = NULL;
    bool is_dir = path_is_dir(path);
    enum status status = is_dir ? OK : read_head(io, path, head, &n_head, err);
    if (status != OK) return status;
    const struct container_ops *ops = find_row(path, is_dir, head, n_head);
    if (!ops) return refuse_foreign(path, head, n_head, err);
    status = ops->open(io, path, container, err);
    if (status != OK) {
        *container = NULL;
        return status;
    }
    status = container_index_names(*container, err);
    if (status != OK) {
        container_close(*container);
        *container = NULL;
    }
    return status;
}

void container_close(struct container *container)
{
    if (!container) return;
    name_table_free(container->names);
    free(container->names);
    container->names = NULL;
    container->ops->close(container);
}

/* ---- reading ---------------------------------------------------------------------------------------------------------------------- */

static struct shown_path file_name(const struct container *container, const struct tensor *tensor)
{
    const char *path = tensor->file < container->n_files ? container->files[tensor->file].path : container->path;
    return shown_path(path_base(path));
}

static enum status check_index(size_t index, size_t count, const char *what, struct err *err)
{
    if (index < count) return OK;
    return err_set(err, ERR_USAGE, "there is no %s number %zu, only %zu", what, index, count);
}

static enum status check_range(uint64_t offset, uint64_t nbytes, uint64_t size, struct err *err)
{
    if (offset <= size && nbytes <= size - offset) return OK;
    return err_set(err, ERR_USAGE, "offset %llu + size %llu exceeds its %llu bytes", (unsigned long long)offset, (unsigned long long)nbytes,
                   (unsigned long long)size);
}

/* Puts tensor and file in front of a failure. */
static enum status name_tensor(const struct container *container, size_t index, enum status status, struct err *err)
{
    if (status == OK) return OK;
    const struct tensor *tensor = &container->tensors[index];
    return err_wrap(err, status, "cannot read tensor '%s' of '%s'", shown_str(tensor->name).text, file_name(container, tensor).text);
}

enum status container_read(struct container *container, size_t index, uint64_t offset, size_t nbytes, void *buf, struct err *err)
{
    enum status status = check_index(index, container->n_tensors, "tensor", err);
    if (status != OK) return status;
    if (container->tensors[index].quantised) status = err_set(err, ERR_USAGE, "it is quantised, not stored plainly");
    if (status == OK) status = check_range(offset, nbytes, container->tensors[index].nbytes, err);
    if (status == OK && nbytes > 0) status = container->ops->read(container, index, offset, nbytes, buf, err);
    return name_tensor(container, index, status, err);
}

enum status container_read_f32(struct container *container, size_t index, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols, float *out,
                               struct err *err)
{
    enum status status = check_index(index, container->n_tensors, "tensor", err);
    if (status != OK) return status;
    const struct tensor *tensor = &container->tensors[index];
    if (!tensor->quantised || !container->ops->read_f32) status = err_set(err, ERR_USAGE, "it is stored plainly, not quantised");
    if (status == OK) status = check_range(row, n_rows, tensor_rows(tensor), err);
    if (status == OK) status = check_range(col, n_cols, tensor_cols(tensor), err);
    if (status == OK && n_rows > 0 && n_cols > 0) status = container->ops->read_f32(container, index, row, n_rows, col, n_cols, out, err);
    return name_tensor(container, index, status, err);
}

enum status container_read_plane(struct container *container, size_t index, uint32_t plane, uint64_t offset, size_t nbytes, void *buf,
                                 struct err *err)
{
    enum status status = check_index(index, container->n_tensors, "tensor", err);
    if (status != OK) return status;
    const struct tensor *tensor = &container->tensors[index];
    if (!tensor->quant || !container->ops->read_plane) return err_set(err, ERR_USAGE, "tensor '%s' has no planes", shown_str(tensor->name).text);
    struct plane planes[CODEC_PLANES_MAX];
    const struct shape shape = tensor_shape(tensor);
    status = check_index(plane, codec_planes(tensor->quant, &shape, planes), "plane", err);
    if (status == OK) status = check_range(offset, nbytes, plane_nbytes(&planes[plane]), err);
    if (status == OK && nbytes > 0) status = container->ops->read_plane(container, index, plane, offset, nbytes, buf, err);
    return name_tensor(container, index, status, err);
}

enum status container_read_blob(struct container *container, size_t index, uint64_t offset, size_t nbytes, void *buf, struct err *err)
{
    enum status status = check_index(index, container->n_blobs, "small file", err);
    if (status != OK) return status;
    const struct blob *blob = &container->blobs[index];
    status = check_range(offset, nbytes, blob->nbytes, err);
    if (status == OK && nbytes > 0) status = container->ops->read_blob(container, index, offset, nbytes, buf, err);
    if (status == OK) return OK;
    return err_wrap(err, status, "cannot read '%s' of '%s'", shown_str(blob->name).text, shown_path(container->path).text);
}

enum status container_check_unchanged(struct container *container, struct err *err)
{
    return container->ops->check_unchanged(container, err);
}

size_t container_find(const struct container *container, const char *name)
{
    return container->names ? name_table_find(container->names, name) : SIZE_MAX;
}

/* ---- shapes ----------------------------------------------------------------------------------------------------------------------- */

uint64_t tensor_cols(const struct tensor *tensor)
{
    return tensor->rank == 0 ? 1 : tensor->dims[tensor->rank - 1];
}

uint64_t tensor_rows(const struct tensor *tensor)
{
    uint64_t rows_of = 1;
    for (uint32_t i = 0; i + 1 < tensor->rank; i++) rows_of *= tensor->dims[i]; /* the product of the non-zero dims was checked when it was listed */
    return rows_of;
}

struct shape tensor_shape(const struct tensor *tensor)
{
    struct shape shape = { tensor_rows(tensor), tensor_cols(tensor), 1 };
    for (uint32_t i = 0; i + 2 < tensor->rank; i++) shape.n_matrices *= tensor->dims[i];
    return shape;
}

/* ---- for implementations ---------------------------------------------------------------------------------------------------------- */

void container_note(struct container *container, const char *format, ...)
{
    if (container->n_notes >= NOTES_MAX) return;
    char text[NOTE_NBYTES_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    char *copy = strdup(text);
    char **grown = copy ? realloc(container->notes, (container->n_notes + 1) * sizeof *grown) : NULL;
    if (!grown) {
        free(copy);
        return;
    }
    container->notes = grown;
    container->notes[container->n_notes++] = copy;
}

static enum status refuse_twice(const struct container *container, size_t first, size_t second, struct err *err)
{
    const struct tensor *a = &container->tensors[first], *b = &container->tensors[second];
    return err_set(err, ERR_DATA, "tensor '%s' is there twice: in '%s' and in '%s'", shown_str(a->name).text, file_name(container, a).text,
                   file_name(container, b).text);
}

static enum status add_names(const struct container *container, struct name_table *names, struct err *err)
{
    for (size_t i = 0; i < container->n_tensors; i++) {
        size_t index = 0;
        enum status status = name_table_add(names, container->tensors[i].name, &index, err);
        if (status != OK) return err_wrap(err, status, "cannot open '%s'", shown_path(container->path).text);
        if (index != i) return refuse_twice(container, index, i, err);
    }
    return OK;
}

enum status container_index_names(struct container *container, struct err *err)
{
    if (container->names) return OK;
    struct name_table *names = calloc(1, sizeof *names);
    if (!names) return err_set(err, ERR_MEMORY, "cannot open '%s': out of memory", shown_path(container->path).text);
    enum status status = add_names(container, names, err);
    if (status == OK) {
        container->names = names;
        return OK;
    }
    name_table_free(names);
    free(names);
    return status;
}

enum status container_files_unchanged(struct container *container, struct err *err)
{
    for (size_t i = 0; i < container->n_files; i++) {
        enum status status = file_check_unchanged(&container->files[i], err);
        if (status != OK) return status;
    }
    return OK;
}

void container_release(struct container *container)
{
    name_table_free(container->names);
    free(container->names);
    for (size_t i = 0; i < container->n_files; i++) file_close(&container->files[i]);
    for (size_t i = 0; i < container->n_blobs; i++) free(container->blobs[i].name);
    for (size_t i = 0; i < container->n_notes; i++) free(container->notes[i]);
    free(container->files);
    free(container->blobs);
    free(container->notes);
    free(container->tensors);
    free(container->metadata_json);
    free(container->path);
    container->names = NULL;
}
