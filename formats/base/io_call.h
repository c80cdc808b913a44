/* io_call.h: what io.c and io_out.c share: retrying interrupted calls, and names of files in messages. Not for other files.
 *
 *   IO_RETRY(fd, io->open(path, flags, 0)) repeats the call while it fails with EINTR, 10000 times at most.
 *
 * Why this way: a bound, because a call that is interrupted for ever is a failure to report and not a hang.
 * Corner cases: close is never retried (Linux has released the descriptor even when close says EINTR). fsync is retried after EINTR only, which
 * says that it did not finish; any other failure of fsync is final.
 * Reference: POSIX.1-2008 2.3 (EINTR); the Linux manual page of close.
 */
#ifndef LLMQ_BASE_IO_CALL_H
#define LLMQ_BASE_IO_CALL_H

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/io.h"

#define IO_RETRY_MAX 10000
#define IO_RETRY(result, call)                                                                                                                       \
    do {                                                                                                                                             \
        unsigned io_retries = 0;                                                                                                                     \
        do (result) = (call);                                                                                                                        \
        while ((result) < 0 && errno == EINTR && ++io_retries < IO_RETRY_MAX);                                                                       \
    } while (0)

#define IO_TRANSFER_MAX ((size_t)1 << 30) /* bytes of one pread or pwrite; the kernels' own limits are just below 2^31 */
#define IO_NAME_MAX 512

/* The name of a file as it stands in a message. */
struct io_name {
    char text[IO_NAME_MAX];
};

static inline struct io_name io_name(const char *path)
{
    struct io_name name;
    err_name(path, strlen(path), name.text, sizeof name.text);
    return name;
}

static inline const char *io_kind(mode_t mode)
{
    if (S_ISREG(mode)) return "a regular file";
    if (S_ISDIR(mode)) return "a directory";
    if (S_ISFIFO(mode)) return "a FIFO";
    if (S_ISSOCK(mode)) return "a socket";
    if (S_ISLNK(mode)) return "a symbolic link";
    return "a device";
}

static inline bool io_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

#endif
