/* safetensors.c: a single safetensors file as a container; see safetensors.h.
 *
 * Formula: a tensor's bytes in the file: 8 + N + data_offsets[0] up to 8 + N + data_offsets[1].
 * Why this way: N is compared with what the file has behind its first 8 bytes, before memory for it is taken; nothing is ever added to it first.
 * Corner cases: N = 0, N over 100,000,000 and N past the end are three sentences; a file without tensors and a header that begins with a blank are
 * notes. A single file brings no small files (config.json, ...) along: only a folder or an index does.
 * Reference: see safetensors.h. Worked number: a file of 108 bytes with N = 96 has 4 bytes of data, which begin at byte 104.
 */
#include "container/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "container/foreign.h"
#include "container/shown.h"

struct safetensors {
    struct container base;
    struct safetensors_header header; /* keeps names and dims; its table has moved to base */
};

/* ---- one file --------------------------------------------------------------------------------------------------------------------- */

static enum status read_length(const struct file *file, uint64_t *nbytes, struct err *err)
{
    uint8_t head[SAFETENSORS_LENGTH_NBYTES];
    enum status status = file_read(file, head, sizeof head, 0, err);
    if (status != OK) return status;
    *nbytes = safetensors_header_nbytes(head);
    uint64_t room = file->nbytes - sizeof head; /* foreign_check has refused files below 8 bytes */
    if (*nbytes == 0) return err_set(err, ERR_DATA, "its length is 0");
    if (*nbytes > SAFETENSORS_HEADER_MAX)
        return err_set(err, ERR_DATA, "its length %llu is over the limit of %u: damaged, or no safetensors file", (unsigned long long)*nbytes,
                       SAFETENSORS_HEADER_MAX);
    if (*nbytes > room)
        return err_set(err, ERR_DATA, "its length %llu exceeds the %llu bytes that follow: the file is truncated", (unsigned long long)*nbytes,
                       (unsigned long long)room);
    return OK;
}

static enum status read_header(const struct file *file, struct safetensors_header *header, struct err *err)
{
    uint64_t nbytes = 0;
    enum status status = read_length(file, &nbytes, err);
    if (status != OK) return status;
    char *text = malloc((size_t)nbytes);
    if (!text) return err_set(err, ERR_MEMORY, "out of memory for its %llu bytes", (unsigned long long)nbytes);
    status = file_read(file, text, (size_t)nbytes, SAFETENSORS_LENGTH_NBYTES, err);
    uint64_t data = SAFETENSORS_LENGTH_NBYTES + nbytes;
    if (status == OK) status = safetensors_header_parse(text, (size_t)nbytes, file->nbytes - data, header, err);
    free(text);
    if (status != OK) return status;
    for (size_t i = 0; i < header->n_tensors; i++) header->tensors[i].offset += data;
    return OK;
}

enum status safetensors_open_file(const struct io_calls *io, const char *path, struct file *file, struct safetensors_header *header, struct err *err)
{
    *header = (struct safetensors_header){ 0 };
    enum status status = file_open(io, path, file, err);
    if (status != OK) return status;
    status = foreign_check(file, err);
    if (status == OK) {
        status = read_header(file, header, err);
        if (status != OK) status = err_wrap(err, status, "cannot read '%s': header", shown_path(path).text);
    }
    if (status != OK) file_close(file);
    return status;
}

enum status safetensors_read(struct container *container, size_t index, uint64_t offset, size_t nbytes, void *buf, struct err *err)
{
    const struct tensor *tensor = &container->tensors[index];
    return file_read(&container->files[tensor->file], buf, nbytes, tensor->offset + offset, err);
}

/* ---- the container ---------------------------------------------------------------------------------------------------------------- */

static bool probe(const char *path, bool is_dir, const uint8_t *head, size_t n_head)
{
    static const char extension[] = ".safetensors";
    size_t n = strlen(path);
    if (is_dir) return false;
    if (n >= sizeof extension && strcmp(path + n - (sizeof extension - 1), extension) == 0) return true;
    return safetensors_header_plausible(head, n_head);
}

static void close_container(struct container *container)
{
    struct safetensors *self = (struct safetensors *)container;
    container_release(container);
    safetensors_header_free(&self->header);
    free(self);
}

/* Moves what the header has found to the shared part. */
static void move_header(struct safetensors *self)
{
    struct container *base = &self->base;
    base->tensors = self->header.tensors;
    base->n_tensors = self->header.n_tensors;
    base->metadata_json = self->header.metadata_json;
    self->header.tensors = NULL;
    self->header.metadata_json = NULL;
    if (base->n_tensors == 0) container_note(base, "'%s' has no tensors", shown_path(base->path).text);
    if (self->header.begins_with_blank) container_note(base, "the header of '%s' begins with a blank", shown_path(base->path).text);
}

static enum status open_container(const struct io_calls *io, const char *path, struct container **container, struct err *err)
{
    struct safetensors *self = calloc(1, sizeof *self);
    if (!self) return err_set(err, ERR_MEMORY, "cannot open '%s': out of memory", shown_path(path).text);
    self->base.ops = &safetensors_container_ops;
    self->base.path = strdup(path);
    self->base.files = calloc(1, sizeof *self->base.files);
    enum status status;
    if (!self->base.path || !self->base.files) status = err_set(err, ERR_MEMORY, "cannot open '%s': out of memory", shown_path(path).text);
    else status = safetensors_open_file(io, path, &self->base.files[0], &self->header, err);
    if (status != OK) {
        close_container(&self->base);
        return status;
    }
    self->base.n_files = 1;
    move_header(self);
    *container = &self->base;
    return OK;
}

const struct container_ops safetensors_container_ops = {
    .name = "safetensors",
    .description = "one safetensors file",
    .probe = probe,
    .open = open_container,
    .read = safetensors_read,
    .check_unchanged = container_files_unchanged,
    .close = close_container,
};
