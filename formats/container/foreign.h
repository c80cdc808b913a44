/* foreign.h: files that are no model llmq reads but are often given as one, each with the sentence that helps.
 *
 *   "version https://git-lfs.github.com/spec/v1\n..."  ->  "is a git-LFS pointer, not the file itself; run git lfs pull"
 *
 * Why this way: the first bytes tell; without this they are read as a header length and the message is a riddle. One row a kind.
 * Corner cases: a file that could begin a safetensors file is never foreign (640 as a header length has the bytes of a pickle); below 8 bytes
 * nothing can be a model.
 * Reference: git-lfs specification; magic numbers of file(1).
 */
#ifndef LLMQ_CONTAINER_FOREIGN_H
#define LLMQ_CONTAINER_FOREIGN_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/io.h"

#define FOREIGN_HEAD_NBYTES 256 /* that many first bytes of a file are enough */

struct foreign {
    const char *name; /* "git-LFS pointer" */
    enum status status;
    const char *sentence; /* goes behind the file's name: "is ..." */
};

/* The row that describes a file with these first bytes (fewer than FOREIGN_HEAD_NBYTES when the file ends there), or NULL. */
const struct foreign *foreign_find(const uint8_t *head, size_t n_head);

/* The error of an open file that foreign_find recognises: "'PATH' is ..."; OK when it does not. */
enum status foreign_check(const struct file *file, struct err *err);

/* Iteration over all rows. */
size_t foreign_count(void);
const struct foreign *foreign_at(size_t index);

#endif
