/* residual.c: see residual.h.
 *
 * Formula: byte of a row = (plane * n_rows + row) * n_cols * 4.
 * Why this way: see residual.h. The kernel calls go through struct io_calls, as everywhere, so that tests can make them fail.
 * Corner cases: short transfers go on where they stopped; a read beyond the end says so; floats are stored as the machine has them, for the file never
 * leaves it.
 * Reference: residual.h. Worked number: plane 1, row 2 of 3 rows of 4 floats begins at byte 80.
 */
#include "smoothquant/residual.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io_call.h"
#include "base/size.h"

struct residual {
    struct residual_shape shape;
    float *memory; /* NULL: in the file */
    const struct io_calls *io;
    int fd;
    char *path; /* for messages; named: of a file to remove */
    bool named;
};

static enum status make(const struct residual_shape *shape, uint64_t *nbytes, struct residual **out, struct err *err)
{
    uint64_t n;
    bool fits = size_mul(shape->n_planes, shape->n_rows, &n) && size_mul(n, shape->n_cols, &n) && size_mul(n, sizeof(float), nbytes) &&
                *nbytes < INT64_MAX / 2;
    if (!fits) return err_set(err, ERR_UNSUPPORTED, "the activations of %llu tokens are too many", (unsigned long long)shape->n_rows);
    struct residual *residual = calloc(1, sizeof *residual);
    if (!residual) return err_set(err, ERR_MEMORY, "out of memory");
    residual->shape = *shape;
    residual->fd = -1;
    *out = residual;
    return OK;
}

enum status residual_open_memory(const struct residual_shape *shape, struct residual **out, struct err *err)
{
    uint64_t nbytes = 0;
    *out = NULL;
    enum status status = make(shape, &nbytes, out, err);
    if (status != OK) return status;
    (*out)->memory = calloc(1, (size_t)(nbytes ? nbytes : 1));
    if ((*out)->memory) return OK;
    residual_close(*out, true);
    *out = NULL;
    return err_set(err, ERR_MEMORY, "out of memory for the activations, %llu bytes", (unsigned long long)nbytes);
}

static enum status open_path(const struct io_calls *io, const char *path, int flags, struct residual *residual, struct err *err)
{
    residual->io = io;
    residual->path = strdup(path);
    if (!residual->path) return err_set(err, ERR_MEMORY, "out of memory");
    IO_RETRY(residual->fd, io->open(path, flags | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (residual->fd < 0) return err_set_errno(err, errno, "cannot open '%s'", io_name(path).text);
    return OK;
}

enum status residual_open_unnamed(const struct io_calls *io, const char *dir, const struct residual_shape *shape, struct residual **out,
                                  struct err *err)
{
    uint64_t nbytes = 0;
    char name[64];
    *out = NULL;
    enum status status = make(shape, &nbytes, out, err);
    for (unsigned attempt = 0; status == OK && attempt < 100; attempt++) {
        snprintf(name, sizeof name, "llmq-activations-%ld-%u.tmp", (long)getpid(), attempt);
        char *path = path_join(dir, name);
        if (!path) status = err_set(err, ERR_MEMORY, "out of memory");
        else {
            free((*out)->path);
            status = open_path(io, path, O_CREAT | O_EXCL, *out, err);
            if (status == OK) io->unlink(path);
        }
        const bool taken = status == ERR_IO && errno == EEXIST;
        free(path);
        if (!taken) break;
        status = OK;
    }
    if (status == OK && (*out)->fd < 0) status = err_set(err, ERR_IO, "cannot make a temporary file in '%s'", io_name(dir).text);
    if (status == OK) return OK;
    residual_close(*out, false);
    *out = NULL;
    return status;
}

enum status residual_open_file(const struct io_calls *io, const char *path, bool keep, const struct residual_shape *shape, struct residual **out,
                               struct err *err)
{
    uint64_t nbytes = 0;
    struct stat st;
    *out = NULL;
    enum status status = make(shape, &nbytes, out, err);
    if (status == OK) status = open_path(io, path, keep ? 0 : O_CREAT | O_TRUNC, *out, err);
    if (status == OK && io->fstat((*out)->fd, &st) != 0) status = err_set_errno(err, errno, "cannot examine '%s'", io_name(path).text);
    if (status == OK && !S_ISREG(st.st_mode)) status = err_set(err, ERR_UNSUPPORTED, "'%s' is %s", io_name(path).text, io_kind(st.st_mode));
    if (status == OK && keep && (uint64_t)st.st_size > nbytes)
        status = err_set(err, ERR_DATA, "'%s' has %lld bytes, more than this run's %llu", io_name(path).text, (long long)st.st_size,
                         (unsigned long long)nbytes);
    if (status == OK) {
        (*out)->named = true;
        return OK;
    }
    residual_close(*out, false);
    *out = NULL;
    return status;
}

static uint64_t place_of(const struct residual *residual, uint64_t plane, uint64_t row)
{
    return (plane * residual->shape.n_rows + row) * residual->shape.n_cols;
}

enum status residual_read(const struct residual *residual, uint64_t plane, uint64_t row, uint64_t n_rows, float *out, struct err *err)
{
    uint64_t at = place_of(residual, plane, row), left = n_rows * residual->shape.n_cols * sizeof *out;
    if (residual->memory) {
        memcpy(out, residual->memory + at, (size_t)left);
        return OK;
    }
    at *= sizeof *out;
    for (uint8_t *to = (uint8_t *)out; left > 0;) {
        ssize_t n;
        const size_t want = left < IO_TRANSFER_MAX ? (size_t)left : IO_TRANSFER_MAX;
        IO_RETRY(n, residual->io->pread(residual->fd, to, want, (off_t)at));
        if (n < 0) return err_set_errno(err, errno, "cannot read '%s'", io_name(residual->path).text);
        if (n == 0) return err_set(err, ERR_DATA, "'%s' ends at byte %llu", io_name(residual->path).text, (unsigned long long)at);
        to += n;
        at += (uint64_t)n;
        left -= (uint64_t)n;
    }
    return OK;
}

enum status residual_write(struct residual *residual, uint64_t plane, uint64_t row, uint64_t n_rows, const float *in, struct err *err)
{
    uint64_t at = place_of(residual, plane, row), left = n_rows * residual->shape.n_cols * sizeof *in;
    if (residual->memory) {
        memcpy(residual->memory + at, in, (size_t)left);
        return OK;
    }
    at *= sizeof *in;
    for (const uint8_t *from = (const uint8_t *)in; left > 0;) {
        ssize_t n;
        const size_t want = left < IO_TRANSFER_MAX ? (size_t)left : IO_TRANSFER_MAX;
        IO_RETRY(n, residual->io->pwrite(residual->fd, from, want, (off_t)at));
        if (n <= 0) return err_set_errno(err, n < 0 ? errno : ENOSPC, "cannot write '%s'", io_name(residual->path).text);
        from += n;
        at += (uint64_t)n;
        left -= (uint64_t)n;
    }
    return OK;
}

void residual_close(struct residual *residual, bool remove)
{
    if (!residual) return;
    if (residual->fd >= 0) residual->io->close(residual->fd);
    if (residual->named && remove) residual->io->unlink(residual->path);
    free(residual->path);
    free(residual->memory);
    free(residual);
}
