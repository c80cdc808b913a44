/* io_out.c: the output side: files that become visible together and whole, or not at all; see io.h.
 *
 *   add    : refuse what is in the way -> create NAME.partial (exclusive, 0600) -> flock -> does the name still mean this file?
 *   commit : every file fchmod, fsync -> every file link + unlink (force: rename) -> every directory fsync
 *
 * Why this way: a partial file left by a killed run is removed under its lock and made anew, never written into: it may have a second name
 * (killed between link and unlink), another owner or a wider mode. The name is compared with the open file again before it is published,
 * because someone may have removed it by hand and started a second run. link does not overwrite; where the file system has no links, the
 * name is looked at once more and then renamed. Directories are opened when the file is added, so that they fail before the work and not after.
 * Corner cases: fchmod is allowed to be impossible (EPERM, ENOTSUP, ENOSYS: FAT), fsync of a directory too (EINVAL, ENOTSUP). A failed write spoils
 * the set for good. Errors of close after a good fsync mean nothing. The umask is read from /proc; only without it umask() is
 * asked, which is a moment of wrong umask for other threads.
 * Reference: POSIX.1-2008 rename, link, fsync; reliability notes 4.1. Worked number: umask 022 gives mode 0666 & ~022 = 0644.
 */
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "base/io_call.h"
#include "base/size.h"

#define CREATE_TRIES 16

struct outfile {
    struct file partial; /* NAME.partial, open for reading and writing; at_open is as it was created */
    char *path; /* NAME */
    bool has_partial; /* the name NAME.partial is ours to remove */
    atomic_bool failed;
};

struct input {
    struct stat st;
    char *path;
};

/* A directory whose entries the commit makes durable. */
struct folder {
    struct stat st;
    int fd;
    char *path;
};

struct outset {
    const struct io_calls *io;
    bool force;
    bool committed;
    mode_t mode; /* of finished files */
    struct input *inputs;
    size_t n_inputs;
    struct outfile **files;
    size_t n_files;
    struct folder *folders;
    size_t n_folders;
    char **made_dirs;
    size_t n_made_dirs;
};

static enum status short_of_memory(const char *path, struct err *err)
{
    return err_set(err, ERR_MEMORY, "cannot prepare '%s': out of memory", io_name(path).text);
}

/* Makes room for one more item in the list of n items of item_nbytes. */
static bool grow(void **list, size_t n, size_t item_nbytes)
{
    void *grown = realloc(*list, (n + 1) * item_nbytes);
    if (grown) *list = grown;
    return grown != NULL;
}

/* ---- the set -------------------------------------------------------------------------------------------------------------------- */

/* The mode mask of this process from /proc/self/status ("Umask:\t0022"); false where there is none. */
static bool read_umask(const struct io_calls *io, mode_t *mask)
{
    char text[513];
    size_t used = 0;
    ssize_t got;
    int fd;
    IO_RETRY(fd, io->open("/proc/self/status", O_RDONLY | O_CLOEXEC, 0));
    if (fd < 0) return false;
    do {
        IO_RETRY(got, io->pread(fd, text + used, sizeof text - 1 - used, (off_t)used));
        if (got > 0) used += (size_t)got;
    } while (got > 0 && used < sizeof text - 1);
    io->close(fd);
    text[used] = '\0';
    const char *found = strstr(text, "\nUmask:\t");
    if (!found) return false;
    *mask = (mode_t)strtoul(found + 8, NULL, 8) & 0777;
    return true;
}

enum status outset_open(const struct io_calls *io, bool force, struct outset **out, struct err *err)
{
    *out = NULL;
    struct outset *set = calloc(1, sizeof *set);
    if (!set) return err_set(err, ERR_MEMORY, "cannot prepare the output: out of memory");
    mode_t mask;
    if (!read_umask(io, &mask)) {
        mask = umask(077);
        umask(mask);
    }
    set->io = io;
    set->force = force;
    set->mode = 0666 & ~mask;
    *out = set;
    return OK;
}

enum status outset_add_input(struct outset *set, const struct file *input, struct err *err)
{
    void *list = set->inputs;
    char *path = strdup(input->path);
    if (!path || !grow(&list, set->n_inputs, sizeof *set->inputs)) {
        free(path);
        return short_of_memory(input->path, err);
    }
    set->inputs = list;
    set->inputs[set->n_inputs++] = (struct input){ .st = input->at_open, .path = path };
    return OK;
}

static enum status refuse_input(const struct outset *set, const char *path, const struct stat *st, struct err *err)
{
    for (size_t i = 0; i < set->n_inputs; i++)
        if (io_same_file(st, &set->inputs[i].st))
            return err_set(err, ERR_USAGE, "output '%s' is the same file as input '%s'", io_name(path).text, io_name(set->inputs[i].path).text);
    return OK;
}

/* ---- directories ---------------------------------------------------------------------------------------------------------------- */

/* Keeps the directory dir open until the commit; dir is given away. */
static enum status keep_folder(struct outset *set, char *dir, struct err *err)
{
    void *list = set->folders;
    struct folder folder = { .fd = -1, .path = dir };
    int result;
    if (!grow(&list, set->n_folders, sizeof *set->folders)) {
        short_of_memory(dir, err);
        free(dir);
        return ERR_MEMORY;
    }
    set->folders = list;
    IO_RETRY(folder.fd, set->io->open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
    result = folder.fd;
    if (result >= 0) IO_RETRY(result, set->io->fstat(folder.fd, &folder.st));
    enum status status = result < 0 ? err_set_errno(err, errno, "cannot open the directory '%s'", io_name(dir).text) : OK;
    bool known = false;
    for (size_t i = 0; status == OK && i < set->n_folders; i++) known |= io_same_file(&set->folders[i].st, &folder.st);
    if (status == OK && !known) {
        set->folders[set->n_folders++] = folder;
        return OK;
    }
    if (folder.fd >= 0) set->io->close(folder.fd);
    free(dir);
    return status;
}

/* Keeps the directory in which path stands; slashes at the end of path do not count. */
static enum status keep_parent(struct outset *set, const char *path, struct err *err)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    char *bare = strndup(path, n);
    char *dir = bare ? path_dir(bare) : NULL;
    free(bare);
    return dir ? keep_folder(set, dir, err) : short_of_memory(path, err);
}

enum status outset_make_dir(struct outset *set, const char *path, struct err *err)
{
    void *list = set->made_dirs;
    char *copy = strdup(path);
    if (!copy || !grow(&list, set->n_made_dirs, sizeof *set->made_dirs)) {
        free(copy);
        return short_of_memory(path, err);
    }
    set->made_dirs = list;
    struct stat st;
    int made, looked;
    IO_RETRY(made, set->io->mkdir(path, 0777));
    int number = errno;
    if (made == 0) {
        set->made_dirs[set->n_made_dirs++] = copy;
        return keep_parent(set, path, err);
    }
    free(copy);
    if (number != EEXIST) return err_set_errno(err, number, "cannot make the directory '%s'", io_name(path).text);
    IO_RETRY(looked, set->io->stat(path, &st));
    if (looked < 0) return err_set_errno(err, errno, "cannot use '%s' as a directory", io_name(path).text);
    if (S_ISDIR(st.st_mode)) return OK;
    return err_set(err, ERR_EXISTS, "cannot make the directory '%s': it is %s", io_name(path).text, io_kind(st.st_mode));
}

enum status outset_check_space(const struct outset *set, const char *path, uint64_t nbytes, struct err *err)
{
    char *dir = path_dir(path);
    if (!dir) return short_of_memory(path, err);
    struct statvfs fs;
    int result;
    IO_RETRY(result, set->io->statvfs(dir, &fs));
    int number = errno;
    free(dir);
    if (result < 0) return err_set_errno(err, number, "cannot write '%s' into its folder", io_name(path).text);
    uint64_t needed = UINT64_MAX, available = UINT64_MAX;
    size_add(nbytes, size_ceil_div(nbytes, 100) * 3, &needed);
    size_mul(fs.f_bavail, fs.f_frsize ? fs.f_frsize : fs.f_bsize, &available);
    if (needed <= available) return OK;
    return err_set(err, ERR_IO, "'%s' needs %llu bytes (3 %% of them to spare), its file system has %llu free", io_name(path).text,
                   (unsigned long long)needed, (unsigned long long)available);
}

/* ---- adding a file -------------------------------------------------------------------------------------------------------------- */

/* Refuses what stands under the final name and may not be replaced. */
static enum status check_in_the_way(const struct outset *set, const char *path, struct err *err)
{
    struct stat st;
    int result;
    IO_RETRY(result, set->io->lstat(path, &st));
    if (result < 0 && errno == ENOENT) return OK;
    if (result == 0 && S_ISLNK(st.st_mode)) {
        IO_RETRY(result, set->io->stat(path, &st));
        if (result < 0) return err_set(err, ERR_EXISTS, "'%s' exists and is a symbolic link that leads nowhere", io_name(path).text);
    }
    if (result < 0) return err_set_errno(err, errno, "cannot look at '%s'", io_name(path).text);
    enum status status = refuse_input(set, path, &st, err);
    if (status != OK) return status;
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_EXISTS, "'%s' exists and is %s, which is never replaced", io_name(path).text, io_kind(st.st_mode));
    if (!set->force) return err_set(err, ERR_EXISTS, "'%s' exists; use --force to replace it", io_name(path).text);
    return OK;
}

/* Locks the open file fd called path and tells whether that name still means it. *ours: we hold the lock. */
static enum status lock(const struct outset *set, int fd, const char *path, struct stat *st, bool *ours, bool *same, struct err *err)
{
    struct stat named;
    int result;
    *ours = *same = false;
    IO_RETRY(result, set->io->flock(fd, LOCK_EX | LOCK_NB));
    if (result < 0 && errno == EWOULDBLOCK) return err_set(err, ERR_EXISTS, "'%s' is in use by another run", io_name(path).text);
    *ours = true;
    if (result < 0) return err_set_errno(err, errno, "cannot lock '%s'", io_name(path).text);
    IO_RETRY(result, set->io->fstat(fd, st));
    if (result == 0) IO_RETRY(result, set->io->lstat(path, &named));
    if (result < 0 && errno != ENOENT) return err_set_errno(err, errno, "cannot look at '%s'", io_name(path).text);
    *same = result == 0 && io_same_file(st, &named);
    return OK;
}

static enum status unlink_name(const struct outset *set, const char *path, struct err *err)
{
    int result;
    IO_RETRY(result, set->io->unlink(path));
    if (result == 0 || errno == ENOENT) return OK;
    return err_set_errno(err, errno, "cannot remove '%s'", io_name(path).text);
}

static enum status refuse_twice(const struct outset *set, const struct stat *st, struct err *err)
{
    for (size_t i = 0; i < set->n_files; i++)
        if (io_same_file(st, &set->files[i]->partial.at_open))
            return err_set(err, ERR_USAGE, "output '%s' is given twice", io_name(set->files[i]->path).text);
    return OK;
}

/* Removes the partial file at path, left by a run that is gone. */
static enum status remove_stale(const struct outset *set, const char *path, struct err *err)
{
    struct stat st;
    int result, fd;
    IO_RETRY(result, set->io->lstat(path, &st));
    if (result < 0 && errno == ENOENT) return OK;
    if (result < 0) return err_set_errno(err, errno, "cannot look at '%s'", io_name(path).text);
    if (!S_ISREG(st.st_mode)) return err_set(err, ERR_EXISTS, "'%s' is in the way: it is %s", io_name(path).text, io_kind(st.st_mode));
    enum status status = refuse_input(set, path, &st, err);
    if (status == OK) status = refuse_twice(set, &st, err);
    if (status != OK) return status;
    IO_RETRY(fd, set->io->open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0));
    if (fd < 0 && errno == ENOENT) return OK;
    if (fd < 0) return err_set_errno(err, errno, "cannot open '%s'", io_name(path).text);
    bool ours, same;
    status = lock(set, fd, path, &st, &ours, &same, err);
    if (status == OK && same) status = unlink_name(set, path, err);
    set->io->close(fd);
    return status;
}

/* One attempt to make and lock the partial file; *fd stays -1 when another run was faster and it should be tried again. */
static enum status try_create(const struct outset *set, const char *path, int *out, struct stat *st, struct err *err)
{
    int fd;
    *out = -1;
    IO_RETRY(fd, set->io->open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (fd < 0 && errno == EEXIST) return remove_stale(set, path, err);
    if (fd < 0) return err_set_errno(err, errno, "cannot create '%s'", io_name(path).text);
    bool ours, same;
    enum status status = lock(set, fd, path, st, &ours, &same, err);
    if (status == OK && same) {
        *out = fd;
        return OK;
    }
    if (status != OK && ours) unlink_name(set, path, NULL);
    set->io->close(fd);
    return status;
}

static enum status create_partial(struct outset *set, struct outfile *file, struct err *err)
{
    struct file *partial = &file->partial;
    for (int i = 0; i < CREATE_TRIES && partial->fd < 0; i++) {
        enum status status = try_create(set, partial->path, &partial->fd, &partial->at_open, err);
        if (status != OK) return status;
    }
    file->has_partial = partial->fd >= 0;
    if (!file->has_partial) return err_set(err, ERR_EXISTS, "'%s' is in use by another run", io_name(partial->path).text);
    return OK;
}

static void outfile_free(struct outfile *file)
{
    if (!file) return;
    file_close(&file->partial);
    free(file->path);
    free(file);
}

static struct outfile *outfile_make(const struct io_calls *io, const char *path)
{
    struct outfile *file = calloc(1, sizeof *file);
    if (!file) return NULL;
    size_t size = strlen(path) + sizeof ".partial";
    file->path = strdup(path);
    file->partial = (struct file){ .io = io, .fd = -1, .path = malloc(size) };
    if (!file->path || !file->partial.path) {
        outfile_free(file);
        return NULL;
    }
    snprintf(file->partial.path, size, "%s.partial", path);
    return file;
}

enum status outset_add(struct outset *set, const char *path, struct outfile **out, struct err *err)
{
    *out = NULL;
    const char *base = path_base(path);
    if (*base == '\0' || strcmp(base, ".") == 0 || strcmp(base, "..") == 0)
        return err_set(err, ERR_USAGE, "output '%s' is not the name of a file", io_name(path).text);
    enum status status = check_in_the_way(set, path, err);
    if (status == OK) status = keep_parent(set, path, err);
    if (status != OK) return status;
    void *list = set->files;
    struct outfile *file = grow(&list, set->n_files, sizeof *set->files) ? outfile_make(set->io, path) : NULL;
    set->files = list;
    if (!file) return short_of_memory(path, err);
    status = create_partial(set, file, err);
    if (status != OK) {
        outfile_free(file);
        return status;
    }
    set->files[set->n_files++] = file;
    *out = file;
    return OK;
}

/* ---- writing -------------------------------------------------------------------------------------------------------------------- */

static enum status write_failed(struct outfile *file, int number, size_t nbytes, uint64_t offset, struct err *err)
{
    atomic_store(&file->failed, true);
    return err_set_errno(err, number, "cannot write %zu bytes at %llu of '%s'", nbytes, (unsigned long long)offset, io_name(file->partial.path).text);
}

enum status outfile_write(struct outfile *file, const void *buf, size_t nbytes, uint64_t offset, struct err *err)
{
    if (offset > INT64_MAX || nbytes > INT64_MAX - offset) return write_failed(file, EFBIG, nbytes, offset, err);
    const char *bytes = buf;
    size_t done = 0;
    while (done < nbytes) {
        size_t wanted = (size_t)size_min(nbytes - done, IO_TRANSFER_MAX);
        ssize_t put;
        IO_RETRY(put, file->partial.io->pwrite(file->partial.fd, bytes + done, wanted, (off_t)(offset + done)));
        if (put <= 0) return write_failed(file, put < 0 ? errno : ENOSPC, nbytes, offset, err);
        done += (size_t)put;
    }
    return OK;
}

enum status outfile_read(struct outfile *file, void *buf, size_t nbytes, uint64_t offset, struct err *err)
{
    return file_read(&file->partial, buf, nbytes, offset, err);
}

/* ---- commit and discard --------------------------------------------------------------------------------------------------------- */

static enum status make_durable(const struct outset *set, const struct outfile *file, struct err *err)
{
    const char *path = file->partial.path;
    int result;
    if (atomic_load(&file->failed)) return err_set(err, ERR_IO, "cannot finish '%s': a write to it failed", io_name(file->path).text);
    IO_RETRY(result, set->io->fchmod(file->partial.fd, set->mode));
    if (result < 0 && errno != EPERM && errno != ENOTSUP && errno != ENOSYS)
        return err_set_errno(err, errno, "cannot set the mode of '%s'", io_name(path).text);
    IO_RETRY(result, set->io->fsync(file->partial.fd));
    if (result < 0) return err_set_errno(err, errno, "cannot write '%s' to the disk", io_name(path).text);
    return OK;
}

/* ERR_EXISTS when the name of the partial file has come to mean another file. */
static enum status check_still_ours(const struct outset *set, const struct outfile *file, struct err *err)
{
    const char *path = file->partial.path;
    struct stat st;
    int result;
    IO_RETRY(result, set->io->lstat(path, &st));
    if (result < 0) return err_set_errno(err, errno, "cannot finish '%s'", io_name(path).text);
    if (io_same_file(&st, &file->partial.at_open)) return OK;
    return err_set(err, ERR_EXISTS, "cannot finish '%s': it was replaced by another file", io_name(path).text);
}

static enum status publish_by_rename(const struct outset *set, struct outfile *file, struct err *err)
{
    int result;
    IO_RETRY(result, set->io->rename(file->partial.path, file->path));
    if (result < 0) return err_set_errno(err, errno, "cannot rename '%s' to '%s'", io_name(file->partial.path).text, io_name(file->path).text);
    file->has_partial = false;
    return OK;
}

static enum status publish_by_link(const struct outset *set, struct outfile *file, struct err *err)
{
    int result;
    IO_RETRY(result, set->io->link(file->partial.path, file->path));
    int number = errno;
    if (result == 0) {
        enum status status = unlink_name(set, file->partial.path, err);
        if (status != OK) return err_wrap(err, status, "'%s' is complete", io_name(file->path).text);
        file->has_partial = false;
        return OK;
    }
    if (number == EPERM || number == EOPNOTSUPP || number == ENOSYS || number == EMLINK) {
        enum status status = check_in_the_way(set, file->path, err);
        return status == OK ? publish_by_rename(set, file, err) : status;
    }
    if (number == EEXIST) {
        enum status status = check_in_the_way(set, file->path, err);
        return status != OK ? status : err_set(err, ERR_EXISTS, "'%s' exists", io_name(file->path).text);
    }
    return err_set_errno(err, number, "cannot link '%s' to '%s'", io_name(file->partial.path).text, io_name(file->path).text);
}

static enum status publish(const struct outset *set, struct outfile *file, struct err *err)
{
    enum status status = check_still_ours(set, file, err);
    if (status != OK) return status;
    return set->force ? publish_by_rename(set, file, err) : publish_by_link(set, file, err);
}

static enum status sync_folder(const struct outset *set, const struct folder *folder, struct err *err)
{
    int result;
    IO_RETRY(result, set->io->fsync(folder->fd));
    if (result == 0 || errno == EINVAL || errno == ENOTSUP) return OK;
    return err_set_errno(err, errno, "cannot write the directory '%s' to the disk", io_name(folder->path).text);
}

/* Removes the partial files that are left, and the directories made for them when they are empty. */
static void discard(struct outset *set)
{
    for (size_t i = 0; i < set->n_files; i++) {
        struct outfile *file = set->files[i];
        struct stat st;
        int result;
        if (!file->has_partial) continue;
        IO_RETRY(result, set->io->lstat(file->partial.path, &st));
        if (result == 0 && !io_same_file(&st, &file->partial.at_open)) continue;
        file->has_partial = unlink_name(set, file->partial.path, NULL) != OK;
    }
    for (size_t i = set->n_made_dirs; i > 0; i--) {
        int result;
        IO_RETRY(result, set->io->rmdir(set->made_dirs[i - 1]));
        (void)result;
    }
}

enum status outset_commit(struct outset *set, struct err *err)
{
    enum status status = OK;
    for (size_t i = 0; status == OK && i < set->n_files; i++) status = make_durable(set, set->files[i], err);
    for (size_t i = 0; status == OK && i < set->n_files; i++) status = publish(set, set->files[i], err);
    for (size_t i = 0; status == OK && i < set->n_folders; i++) status = sync_folder(set, &set->folders[i], err);
    set->committed = status == OK;
    if (!set->committed) discard(set);
    return status;
}

void outset_close(struct outset *set)
{
    if (!set) return;
    if (!set->committed) discard(set);
    for (size_t i = 0; i < set->n_files; i++) outfile_free(set->files[i]);
    for (size_t i = 0; i < set->n_folders; i++) {
        set->io->close(set->folders[i].fd);
        free(set->folders[i].path);
    }
    for (size_t i = 0; i < set->n_inputs; i++) free(set->inputs[i].path);
    for (size_t i = 0; i < set->n_made_dirs; i++) free(set->made_dirs[i]);
    free(set->files);
    free(set->folders);
    free(set->inputs);
    free(set->made_dirs);
    free(set);
}

uint64_t outset_nbytes(const struct outset *set)
{
    uint64_t total = 0;
    struct stat st;
    for (size_t i = 0; set && i < set->n_files; i++)
        if (set->io->fstat(set->files[i]->partial.fd, &st) == 0) total += (uint64_t)st.st_size;
    return total;
}
