/* io.c: the table of real calls, the input side, and paths; see io.h.
 *
 * Formula: a read of nbytes at offset is pread of at most 1 GiB at a time until all is there.
 * Why this way: inputs are opened with O_NONBLOCK, so that a FIFO without a writer is opened, seen by fstat and refused; on regular files it
 * changes nothing.
 * Corner cases: offset + nbytes beyond 2^63-1 is refused before any call; a socket cannot be opened at all (ENXIO) and is named after a stat;
 * "a/b/" has the directory part "a/b" and an empty last component; "/x" has "/".
 * Reference: see io.h. Worked number: 20 bytes at offset 40 of a file of 50 bytes: "ends at byte 50, wanted bytes 40 to 60".
 */
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/io_call.h"
#include "base/size.h"

static int system_open(const char *path, int flags, mode_t mode)
{
    return open(path, flags, mode);
}

const struct io_calls io_system = {
    .open = system_open,
    .close = close,
    .pread = pread,
    .pwrite = pwrite,
    .fstat = fstat,
    .fsync = fsync,
    .fchmod = fchmod,
    .flock = flock,
    .link = link,
    .rename = rename,
    .unlink = unlink,
    .mkdir = mkdir,
    .rmdir = rmdir,
    .statvfs = statvfs,
    .stat = stat,
    .lstat = lstat,
};

/* ---- input files ---------------------------------------------------------------------------------------------------------------- */

static enum status refuse_kind(const char *path, mode_t mode, struct err *err)
{
    return err_set(err, ERR_UNSUPPORTED, "cannot open '%s': it is %s, not a regular file", io_name(path).text, io_kind(mode));
}

static enum status open_failed(const struct io_calls *io, const char *path, struct err *err)
{
    int number = errno;
    struct stat st;
    int result;
    if (number == ENXIO) {
        IO_RETRY(result, io->stat(path, &st));
        if (result == 0 && !S_ISREG(st.st_mode)) return refuse_kind(path, st.st_mode, err);
    }
    return err_set_errno(err, number, "cannot open '%s'", io_name(path).text);
}

/* Looks at the open file and remembers it. */
static enum status take_identity(struct file *file, const char *path, struct err *err)
{
    int result;
    IO_RETRY(result, file->io->fstat(file->fd, &file->at_open));
    if (result < 0) return err_set_errno(err, errno, "cannot open '%s'", io_name(path).text);
    if (!S_ISREG(file->at_open.st_mode)) return refuse_kind(path, file->at_open.st_mode, err);
    file->nbytes = (uint64_t)file->at_open.st_size;
    file->path = strdup(path);
    if (!file->path) return err_set(err, ERR_MEMORY, "cannot open '%s': out of memory", io_name(path).text);
    return OK;
}

enum status file_open(const struct io_calls *io, const char *path, struct file *file, struct err *err)
{
    *file = (struct file){ .io = io, .fd = -1 };
    IO_RETRY(file->fd, io->open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0));
    if (file->fd < 0) return open_failed(io, path, err);
    enum status status = take_identity(file, path, err);
    if (status != OK) file_close(file);
    return status;
}

/* The sentence for a file that ended at or before the byte where the read stopped. */
static enum status ended_early(const struct file *file, size_t nbytes, uint64_t offset, uint64_t stopped, struct err *err)
{
    struct stat st;
    int result;
    IO_RETRY(result, file->io->fstat(file->fd, &st));
    uint64_t end = result == 0 ? size_min((uint64_t)st.st_size, stopped) : stopped;
    return err_set(err, ERR_DATA, "'%s' ends at byte %llu, wanted bytes %llu to %llu", io_name(file->path).text, (unsigned long long)end,
                   (unsigned long long)offset, (unsigned long long)(offset + nbytes));
}

enum status file_read(const struct file *file, void *buf, size_t nbytes, uint64_t offset, struct err *err)
{
    if (offset > INT64_MAX || nbytes > INT64_MAX - offset)
        return err_set(err, ERR_DATA, "'%s' ends at byte %llu, wanted %zu bytes at %llu", io_name(file->path).text, (unsigned long long)file->nbytes,
                       nbytes, (unsigned long long)offset);
    char *out = buf;
    size_t done = 0;
    while (done < nbytes) {
        size_t wanted = (size_t)size_min(nbytes - done, IO_TRANSFER_MAX);
        ssize_t got;
        IO_RETRY(got, file->io->pread(file->fd, out + done, wanted, (off_t)(offset + done)));
        if (got < 0)
            return err_set_errno(err, errno, "cannot read %zu bytes at %llu of '%s'", nbytes, (unsigned long long)offset, io_name(file->path).text);
        if (got == 0) return ended_early(file, nbytes, offset, offset + done, err);
        done += (size_t)got;
    }
    return OK;
}

static bool same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

enum status file_check_unchanged(const struct file *file, struct err *err)
{
    struct stat now;
    int result;
    IO_RETRY(result, file->io->fstat(file->fd, &now));
    if (result < 0) return err_set_errno(err, errno, "cannot look at '%s' again", io_name(file->path).text);
    const struct stat *then = &file->at_open;
    if (io_same_file(&now, then) && now.st_size == then->st_size && same_time(now.st_mtim, then->st_mtim) && same_time(now.st_ctim, then->st_ctim))
        return OK;
    return err_set(err, ERR_DATA, "'%s' changed while it was read", io_name(file->path).text);
}

void file_close(struct file *file)
{
    if (!file || !file->io) return;
    if (file->fd >= 0) file->io->close(file->fd);
    free(file->path);
    *file = (struct file){ .fd = -1 };
}

static enum status slurp_open(const struct file *file, uint64_t max_nbytes, char **buf, struct err *err)
{
    if (file->nbytes > max_nbytes || file->nbytes >= SIZE_MAX)
        return err_set(err, ERR_DATA, "'%s' is %llu bytes, more than the limit of %llu", io_name(file->path).text, (unsigned long long)file->nbytes,
                       (unsigned long long)max_nbytes);
    size_t n = (size_t)file->nbytes;
    char *bytes = malloc(n + 1);
    if (!bytes) return err_set(err, ERR_MEMORY, "out of memory for the %zu bytes of '%s'", n, io_name(file->path).text);
    enum status status = file_read(file, bytes, n, 0, err);
    if (status == OK) status = file_check_unchanged(file, err);
    if (status != OK) {
        free(bytes);
        return status;
    }
    bytes[n] = '\0';
    *buf = bytes;
    return OK;
}

enum status file_slurp(const struct io_calls *io, const char *path, uint64_t max_nbytes, char **buf, size_t *nbytes, struct err *err)
{
    struct file file;
    *buf = NULL;
    *nbytes = 0;
    enum status status = file_open(io, path, &file, err);
    if (status != OK) return status;
    status = slurp_open(&file, max_nbytes, buf, err);
    if (status == OK) *nbytes = (size_t)file.nbytes;
    file_close(&file);
    return status;
}

/* ---- paths ---------------------------------------------------------------------------------------------------------------------- */

bool path_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool path_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

char *path_join(const char *dir, const char *name)
{
    size_t n_dir = strlen(dir);
    bool bare = n_dir == 0 || strcmp(dir, ".") == 0;
    bool slash = !bare && dir[n_dir - 1] != '/';
    size_t size = n_dir + strlen(name) + 2;
    char *path = malloc(size);
    if (path) snprintf(path, size, "%s%s%s", bare ? "" : dir, slash ? "/" : "", name);
    return path;
}

const char *path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

char *path_dir(const char *path)
{
    size_t n = (size_t)(path_base(path) - path);
    if (n == 0) return strdup(".");
    while (n > 1 && path[n - 1] == '/') n--;
    return strndup(path, n);
}

bool path_is_plain_name(const char *name, size_t nbytes)
{
    if (nbytes == 0 || nbytes > 255) return false;
    if (name[0] == '.' && (nbytes == 1 || (nbytes == 2 && name[1] == '.'))) return false;
    for (size_t i = 0; i < nbytes; i++) {
        unsigned char c = (unsigned char)name[i];
        if (c < 0x20 || c == 0x7f || c == '/' || c == '\\') return false;
    }
    return true;
}
