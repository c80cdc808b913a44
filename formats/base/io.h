/* io.h: every file call of llmq: reading inputs, and writing outputs that appear whole or not at all.
 *
 *   input : open (regular files only) -> pread at offsets -> file_check_unchanged
 *   output: NAME.partial (0600, locked) -> pwrite -> fsync -> rename to NAME -> fsync of the directory
 *
 * Why this way: inputs are never mapped (a file that shrinks is a SIGBUS, a short pread is a sentence). The kernel calls stand in one table,
 * struct io_calls, so that a test can make any of them fail. stdio loses write errors, so none is used for data.
 * Corner cases: EINTR and short transfers are retried; a FIFO, directory, socket or device is refused without blocking; after a failed fsync
 * nothing is retried and the output is discarded; a stale NAME.partial that nobody holds locked is replaced, one that is locked means "in use"; an
 * existing NAME needs force (a link to a regular file is then itself replaced, its target stays; one to nothing is refused); NAME that is the same
 * file as an input is refused.
 * Reference: the project's reliability notes 4 (write protocol); SQLite's VFS for the table of calls.
 */
#ifndef LLMQ_BASE_IO_H
#define LLMQ_BASE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

#include "base/err.h"

/* The kernel calls, with the signatures and errno conventions of the C library. */
struct io_calls {
    int (*open)(const char *path, int flags, mode_t mode);
    int (*close)(int fd);
    ssize_t (*pread)(int fd, void *buf, size_t nbytes, off_t offset);
    ssize_t (*pwrite)(int fd, const void *buf, size_t nbytes, off_t offset);
    int (*fstat)(int fd, struct stat *st);
    int (*fsync)(int fd);
    int (*fchmod)(int fd, mode_t mode);
    int (*flock)(int fd, int operation);
    int (*link)(const char *from, const char *to);
    int (*rename)(const char *from, const char *to);
    int (*unlink)(const char *path);
    int (*mkdir)(const char *path, mode_t mode);
    int (*rmdir)(const char *path);
    int (*statvfs)(const char *path, struct statvfs *out);
    int (*stat)(const char *path, struct stat *st);
    int (*lstat)(const char *path, struct stat *st);
};

/* The real calls of the C library. Constant, shared by all threads. */
extern const struct io_calls io_system;

/* ---- input files ---------------------------------------------------------------------------------------------------------------- */

/* An open input file. Filled by file_open; file_read may be called from several threads at once. */
struct file {
    const struct io_calls *io;
    int fd; /* -1 when closed */
    char *path; /* owned */
    uint64_t nbytes;
    struct stat at_open; /* device, inode, size and times when it was opened */
};

/* Opens path for reading; it must be a regular file (links are followed), else ERR_UNSUPPORTED naming what it is. On failure *file is closed and
 * safe to file_close. */
enum status file_open(const struct io_calls *io, const char *path, struct file *file, struct err *err);

/* Reads exactly nbytes at offset into buf. ERR_DATA if the file ends before ("ends at byte N, wanted ..."), ERR_IO on an error. */
enum status file_read(const struct file *file, void *buf, size_t nbytes, uint64_t offset, struct err *err);

/* ERR_DATA "changed while it was read" when size, mtime, ctime or inode differ from those at file_open. */
enum status file_check_unchanged(const struct file *file, struct err *err);

/* Closes; safe on a zeroed or closed struct and on NULL. */
void file_close(struct file *file);

/* Reads a whole small file into a new buffer, with one NUL byte after the content that *nbytes does not count. Refuses files over max_nbytes
 * ("is N bytes, more than the limit of M"). The caller frees *buf. */
enum status file_slurp(const struct io_calls *io, const char *path, uint64_t max_nbytes, char **buf, size_t *nbytes, struct err *err);

/* True when path exists and is a directory (false for everything else, also errors). */
bool path_is_dir(const char *path);

/* True when path names something, be it a link to nothing. */
bool path_exists(const char *path);

/* Joins dir and name into a new string ("dir/name"; name alone when dir is "" or "."); NULL when out of memory. */
char *path_join(const char *dir, const char *name);

/* New string: the directory part of path ("." when there is none), or the last component without it; NULL when out of memory. */
char *path_dir(const char *path);
const char *path_base(const char *path);

/* True for a name that is safe as a plain file name inside a directory: not empty, not "." or "..", no '/', '\\', NUL or control character,
 * at most 255 bytes. */
bool path_is_plain_name(const char *name, size_t nbytes);

/* ---- output files --------------------------------------------------------------------------------------------------------------- */

/* A set of output files that become visible together, the last one added last. Not thread-safe, except outfile_write. */
struct outset;

/* One file of the set. */
struct outfile;

/* force: existing files may be replaced at commit. */
enum status outset_open(const struct io_calls *io, bool force, struct outset **set, struct err *err);

/* Remembers an input: outset_add refuses a path that is the same file (device and inode). */
enum status outset_add_input(struct outset *set, const struct file *input, struct err *err);

/* Makes the directory path if it is missing (its parent must exist); it is removed again if the set is discarded and it is empty. */
enum status outset_make_dir(struct outset *set, const char *path, struct err *err);

/* Creates path.partial. ERR_EXISTS when path exists and force is off ("exists; use --force to replace it"), or when it is no regular file;
 * ERR_USAGE when path is one of the inputs; ERR_EXISTS "in use by another run" when another process holds path.partial. The set owns *file. After
 * an outfile_write that failed the set can no longer be committed. */
enum status outset_add(struct outset *set, const char *path, struct outfile **file, struct err *err);

/* ERR_IO naming needed and available bytes when the file system of path's directory has less than nbytes + 3 % free for this user. */
enum status outset_check_space(const struct outset *set, const char *path, uint64_t nbytes, struct err *err);

/* Writes exactly nbytes at offset; may be called from several threads for ranges that do not overlap. */
enum status outfile_write(struct outfile *file, const void *buf, size_t nbytes, uint64_t offset, struct err *err);

/* Reads back what was written (for verification). */
enum status outfile_read(struct outfile *file, void *buf, size_t nbytes, uint64_t offset, struct err *err);

/* Bytes of all files of the set as they are now (0 for NULL). */
uint64_t outset_nbytes(const struct outset *set);

/* fsync of every file, mode 0666 minus umask, rename into place in the order added (link + unlink when force is off, so that a file that appeared
 * meanwhile is not lost), fsync of the directories. On any failure what was not yet renamed is removed and the sentence says which file. */
enum status outset_commit(struct outset *set, struct err *err);

/* Removes the partial files of a set that was not committed, and frees it. NULL is allowed. Call always. */
void outset_close(struct outset *set);

#endif
