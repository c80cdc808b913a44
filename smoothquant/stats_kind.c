/* stats_kind.c: the table of kinds, and what they share: sources, outputs, opening and saving; see stats_kind.h.
 *
 * Drawing: path -> file -> source -> first probe that says yes -> read -> stats_check of every entry.
 * Why this way: kinds with a magic stand first, the legacy imatrix last.
 * Corner cases: files that are often given by mistake (a git-LFS pointer, a web page, an empty file) get their own sentence; a set without entries
 * is refused.
 * Reference: see stats_kind.h. Worked number: a source of 50 bytes, 20 wanted at 40: refused before the read.
 */
#include "smoothquant/stats_kind.h"

#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "container/foreign.h"
#include "container/shown.h"

static const struct stats_kind *const kinds[] = {
    &stats_kind_imatrix_gguf,
    &stats_kind_pt,
    &stats_kind_safetensors,
    &stats_kind_imatrix_dat,
};

size_t stats_kind_count(void)
{
    return sizeof kinds / sizeof kinds[0];
}

const struct stats_kind *stats_kind_at(size_t index)
{
    return kinds[index];
}

const struct stats_kind *stats_kind_of_path(const char *path)
{
    size_t n = strlen(path);
    for (size_t i = 0; i < stats_kind_count(); i++) {
        size_t n_ending = kinds[i]->extension ? strlen(kinds[i]->extension) : 0;
        if (n_ending && n > n_ending && strcmp(path + n - n_ending, kinds[i]->extension) == 0) return kinds[i];
    }
    return NULL;
}

/* ---- sources ---------------------------------------------------------------------------------------------------------------------- */

static enum status read_file_bytes(void *context, void *buf, size_t nbytes, uint64_t offset, struct err *err)
{
    return file_read(context, buf, nbytes, offset, err);
}

static enum status read_memory_bytes(void *context, void *buf, size_t nbytes, uint64_t offset, struct err *err)
{
    (void)err;
    if (nbytes) memcpy(buf, (const uint8_t *)context + offset, nbytes);
    return OK;
}

/* The context of a source is not const, since others may count their reads; these two do not write to it. */
static void *unconst(const void *pointer)
{
    void *out;
    memcpy(&out, &pointer, sizeof out);
    return out;
}

struct stats_source stats_source_file(const struct file *file)
{
    return (struct stats_source){ .read = read_file_bytes, .context = unconst(file), .nbytes = file->nbytes };
}

struct stats_source stats_source_memory(const uint8_t *bytes, size_t n)
{
    return (struct stats_source){ .read = read_memory_bytes, .context = unconst(bytes), .nbytes = n };
}

enum status stats_source_read(const struct stats_source *source, void *buf, size_t nbytes, uint64_t offset, const char *what, struct err *err)
{
    if (offset > source->nbytes || nbytes > source->nbytes - offset)
        return err_set(err, ERR_DATA, "%s: %zu bytes at %llu are wanted, the file ends at byte %llu", what, nbytes, (unsigned long long)offset,
                       (unsigned long long)source->nbytes);
    return source->read(source->context, buf, nbytes, offset, err);
}

/* ---- outputs ---------------------------------------------------------------------------------------------------------------------- */

static void flush(struct stats_out *out)
{
    if (out->status == OK && out->n > 0) out->status = outfile_write(out->file, out->buffer, out->n, out->at - out->n, out->err);
    out->n = 0;
}

void stats_put(struct stats_out *out, const void *bytes, size_t n)
{
    const uint8_t *from = bytes;
    while (n > 0) {
        size_t room = sizeof out->buffer - out->n, part = n < room ? n : room;
        memcpy(out->buffer + out->n, from, part);
        out->n += part;
        out->at += part;
        from += part;
        n -= part;
        if (out->n == sizeof out->buffer) flush(out);
    }
}

void stats_put_u32(struct stats_out *out, uint32_t value)
{
    uint8_t bytes[4];
    for (unsigned i = 0; i < 4; i++) bytes[i] = (uint8_t)(value >> (8 * i) & 0xff);
    stats_put(out, bytes, sizeof bytes);
}

void stats_put_u64(struct stats_out *out, uint64_t value)
{
    stats_put_u32(out, (uint32_t)(value & 0xffffffffu));
    stats_put_u32(out, (uint32_t)(value >> 32));
}

void stats_put_f32(struct stats_out *out, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    stats_put_u32(out, bits);
}

void stats_put_zeros(struct stats_out *out, size_t n)
{
    static const uint8_t zero = 0;
    for (; n > 0; n--) stats_put(out, &zero, 1);
}

/* ---- reading ---------------------------------------------------------------------------------------------------------------------- */

static enum status find_kind(const struct stats_source *source, const struct stats_kind **kind, struct err *err)
{
    uint8_t head[STATS_HEAD_NBYTES > FOREIGN_HEAD_NBYTES ? STATS_HEAD_NBYTES : FOREIGN_HEAD_NBYTES];
    size_t n = (size_t)size_min(source->nbytes, sizeof head);
    enum status status = stats_source_read(source, head, n, 0, "its first bytes", err);
    if (status != OK) return status;
    for (size_t i = 0; i < stats_kind_count(); i++)
        if (kinds[i]->probe(source, head, n)) {
            *kind = kinds[i];
            return OK;
        }
    const struct foreign *foreign = foreign_find(head, n);
    if (foreign) return err_set(err, foreign->status, "it %s", foreign->sentence);
    return err_set(err, ERR_UNSUPPORTED, "it is no file of statistics that llmq knows (safetensors, imatrix .gguf or .dat, torch .pt)");
}

enum status stats_read(const struct stats_source *source, uint64_t max_nbytes, struct stats_set **out, const struct stats_kind **kind,
                       struct err *err)
{
    const struct stats_kind *found = NULL;
    struct stats_set *set = stats_new(max_nbytes);
    enum status status = set ? find_kind(source, &found, err) : err_set(err, ERR_MEMORY, "out of memory for statistics");
    if (status == OK) {
        status = found->read(source, set, err);
        if (status != OK) status = err_wrap(err, status, "%s", found->name);
    }
    for (size_t i = 0; status == OK && i < set->n_entries; i++) status = stats_check(&set->entries[i], err);
    if (status == OK && set->n_entries == 0) status = err_set(err, ERR_DATA, "%s: it has no entries", found->name);
    if (status != OK) {
        stats_close(set);
        return status;
    }
    *out = set;
    if (kind) *kind = found;
    return OK;
}

enum status stats_open(const struct io_calls *io, const char *path, uint64_t max_nbytes, struct stats_set **set, const struct stats_kind **kind,
                       struct err *err)
{
    struct file file;
    enum status status = file_open(io, path, &file, err);
    if (status != OK) return status;
    struct stats_source source = stats_source_file(&file);
    status = stats_read(&source, max_nbytes, set, kind, err);
    if (status != OK) status = err_wrap(err, status, "cannot read statistics from '%s'", shown_path(path).text);
    else if ((status = file_check_unchanged(&file, err)) != OK) {
        stats_close(*set);
        *set = NULL;
    }
    file_close(&file);
    return status;
}

/* ---- saving ----------------------------------------------------------------------------------------------------------------------- */

static enum status save_into(const struct stats_set *set, const struct stats_kind *kind, struct outfile *file, struct stats_left *left,
                             struct err *err)
{
    struct stats_out *out = calloc(1, sizeof *out);
    if (!out) return err_set(err, ERR_MEMORY, "out of memory");
    out->file = file;
    out->err = err;
    enum status status = kind->write(set, out, left, err);
    flush(out);
    if (status == OK) status = out->status;
    free(out);
    return status;
}

static enum status add_inputs(const struct io_calls *io, struct outset *outset, const char *const *inputs, size_t n_inputs, struct err *err)
{
    enum status status = OK;
    for (size_t i = 0; i < n_inputs && status == OK; i++) {
        struct file file;
        status = file_open(io, inputs[i], &file, err);
        if (status == OK) status = outset_add_input(outset, &file, err);
        file_close(&file);
    }
    return status;
}

enum status stats_save(const struct io_calls *io, const struct stats_set *set, const char *path, bool force, const char *const *inputs,
                       size_t n_inputs, struct stats_left *left, uint64_t *nbytes, struct err *err)
{
    const struct stats_kind *kind = stats_kind_of_path(path);
    struct outset *outset = NULL;
    struct outfile *file = NULL;
    *left = (struct stats_left){ 0 };
    if (!kind) return err_set(err, ERR_USAGE, "'%s' ends in none of .safetensors, .gguf, .dat", shown_path(path).text);
    enum status status = outset_open(io, force, &outset, err);
    if (status != OK) return status;
    status = add_inputs(io, outset, inputs, n_inputs, err);
    if (status == OK) status = outset_add(outset, path, &file, err);
    if (status == OK) {
        status = save_into(set, kind, file, left, err);
        if (status != OK) status = err_wrap(err, status, "cannot write statistics to '%s'", shown_path(path).text);
    }
    if (nbytes) *nbytes = outset_nbytes(outset);
    if (status == OK) status = outset_commit(outset, err);
    outset_close(outset);
    return status;
}
