/* stats_kind.h: the kinds of files that hold statistics, one row each: how it is recognised, read and written.
 *
 *   bytes --probe--> kind --read--> struct stats_set --write--> bytes        safetensors | imatrix-gguf | imatrix-dat | torch-pt
 *
 * Why this way: a kind is one file of code and one row of the table. Readers take a source of bytes and no file, so that a test and a fuzzer reach
 * every check from memory.
 * Corner cases: a file is known by its content, never by its ending; endings only choose the kind of an output. What a kind cannot hold is left out
 * and counted; a set of which nothing can be held is refused.
 * Reference: STATS.md. Worked number: a legacy imatrix has no magic, so its probe comes last: 154 entries, a first name of 20 printable bytes.
 */
#ifndef LLMQ_SMOOTHQUANT_STATS_KIND_H
#define LLMQ_SMOOTHQUANT_STATS_KIND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/io.h"
#include "smoothquant/stats.h"

#define STATS_HEAD_NBYTES 256u /* first bytes of a file that a probe is shown, fewer when it ends there */

/* Bytes [0, nbytes) that can be read anywhere. */
struct stats_source {
    enum status (*read)(void *context, void *buf, size_t nbytes, uint64_t offset, struct err *err);
    void *context;
    uint64_t nbytes;
};

/* A source over an open file, and over n bytes of memory. */
struct stats_source stats_source_file(const struct file *file);
struct stats_source stats_source_memory(const uint8_t *bytes, size_t n);

/* Reads with the bounds checked: ERR_DATA naming what when [offset, offset + nbytes) is not there. */
enum status stats_source_read(const struct stats_source *source, void *buf, size_t nbytes, uint64_t offset, const char *what, struct err *err);

/* What a kind of file could not hold. */
struct stats_left {
    uint64_t n_entries; /* entries of which nothing was written */
    uint64_t n_fields; /* fields, histograms, Gram matrices, samples of the others */
    uint64_t n_pairs; /* facts of the whole, aliases */
};

/* An output that is written from the first byte to the last; errors are sticky. */
struct stats_out {
    struct outfile *file;
    struct err *err;
    enum status status;
    uint64_t at; /* bytes put so far, those in the buffer too */
    size_t n;
    uint8_t buffer[65536];
};

void stats_put(struct stats_out *out, const void *bytes, size_t n);
void stats_put_u32(struct stats_out *out, uint32_t value);
void stats_put_u64(struct stats_out *out, uint64_t value);
void stats_put_f32(struct stats_out *out, float value);
void stats_put_zeros(struct stats_out *out, size_t n);

struct stats_kind {
    const char *name; /* "imatrix-gguf" */
    const char *extension; /* ".gguf"; NULL: is not written */
    const char *description; /* one line for --help and STATS.md */
    bool (*probe)(const struct stats_source *source, const uint8_t *head, size_t n_head);
    enum status (*read)(const struct stats_source *source, struct stats_set *set, struct err *err);
    enum status (*write)(const struct stats_set *set, struct stats_out *out, struct stats_left *left, struct err *err); /* NULL: is only read */
};

extern const struct stats_kind stats_kind_safetensors; /* stats_safetensors.c */
extern const struct stats_kind stats_kind_imatrix_gguf; /* stats_imatrix_gguf.c */
extern const struct stats_kind stats_kind_imatrix_dat; /* stats_imatrix_dat.c */
extern const struct stats_kind stats_kind_pt; /* stats_pt.c */

size_t stats_kind_count(void);
const struct stats_kind *stats_kind_at(size_t index);

/* The kind that is written with this path's ending, or NULL. */
const struct stats_kind *stats_kind_of_path(const char *path);

/* Reads source into a new set of at most max_nbytes of values (0: the default), every value checked. *kind may be NULL. The sentence does not name
 * the file. */
enum status stats_read(const struct stats_source *source, uint64_t max_nbytes, struct stats_set **set, const struct stats_kind **kind,
                       struct err *err);

/* The same for the file at path: the sentence names it; a file that changed meanwhile is refused. */
enum status stats_open(const struct io_calls *io, const char *path, uint64_t max_nbytes, struct stats_set **set, const struct stats_kind **kind,
                       struct err *err);

/* Writes set as the kind of path's ending, whole or not at all. inputs: n paths that the output must not be. force: may replace. *nbytes may be
 * NULL. ERR_USAGE for an ending that is none, ERR_UNSUPPORTED when nothing of the set can be held. */
enum status stats_save(const struct io_calls *io, const struct stats_set *set, const char *path, bool force, const char *const *inputs,
                       size_t n_inputs, struct stats_left *left, uint64_t *nbytes, struct err *err);

#endif
