/* gguf_write.c: gguf_writer_ops, a GGUF file or the parts of a split one.
 *
 *   open: "GGUF" | 3 | n infos | n keys | keys: copied, changed, added | infos | padding         put: tiles to their places         finish: the last padding
 *
 * Why this way: the header is written when the file is opened, so the data is one pass; keys go from the blob to the file in pieces and are never
 * held.
 * Corner cases: padding between tensors is never written and reads as zeros; that of the last tensor is written, so that the file has its length.
 * Reference: gguf_layout.h. Example: out.gguf split in two: out-00001-of-00002.gguf and out-00002-of-00002.gguf.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "base/size.h"
#include "container/gguf.h"
#include "container/gguf_layout.h"
#include "container/shown.h"

#define EXTENSION ".gguf"
#define PIECE_NBYTES ((size_t)64 * 1024)
#define ENTRY_NBYTES_MAX 256u /* of an info or a key of ours */

struct writer {
    struct gguf_layout layout;
    const struct out_tensor *tensors;
    struct writer_options options;
    struct outfile **files; /* one a part */
    uint64_t *written; /* bytes of each info so far; changes only while a ticket has its turn */
    struct turn turn;
};

/* ---- plan ------------------------------------------------------------------------------------------------------------------------- */

static enum status measure(const struct gguf_layout *layout, struct writer_size *size, struct err *err)
{
    *size = (struct writer_size){ .exact = true, .n_files = (uint32_t)layout->n_parts };
    for (size_t i = 0; i < layout->n_parts; i++)
        if (!size_add(size->nbytes, gguf_part_nbytes(layout, i), &size->nbytes) || size->nbytes > INT64_MAX)
            return err_set(err, ERR_UNSUPPORTED, "the output is too large");
    size->index_nbytes = layout->n_infos * (sizeof *layout->infos + GGUF_NAME_MAX) + layout->n_tensors * 3 * sizeof(uint64_t) +
                         layout->header.n_keys * (sizeof(struct gguf_key) + GGUF_NAME_MAX) + 2 * PIECE_NBYTES;
    return OK;
}

static enum status gguf_plan(struct out_tensor *tensors, size_t n_tensors, const struct out_blob *blobs, size_t n_blobs,
                             const struct writer_options *options, struct writer_size *size, struct err *err)
{
    struct gguf_layout layout;
    enum status status = gguf_lay_out(tensors, n_tensors, blobs, n_blobs, options, &layout, err);
    if (status != OK) return status;
    for (size_t i = 0; i < n_tensors; i++) tensors[i].shard = layout.infos[layout.info_of[i]].part;
    status = measure(&layout, size, err);
    gguf_layout_free(&layout);
    return status;
}

/* ---- header ----------------------------------------------------------------------------------------------------------------------- */

/* Bytes on their way to the head of a file. */
struct pen {
    struct outfile *file;
    uint64_t at;
    uint8_t *piece; /* PIECE_NBYTES */
    size_t n;
};

static enum status flush(struct pen *pen, struct err *err)
{
    enum status status = pen->n ? outfile_write(pen->file, pen->piece, pen->n, pen->at, err) : OK;
    pen->at += pen->n;
    pen->n = 0;
    return status;
}

static enum status make_room(struct pen *pen, struct err *err)
{
    return pen->n + ENTRY_NBYTES_MAX > PIECE_NBYTES ? flush(pen, err) : OK;
}

static void put_le(struct pen *pen, uint64_t value, size_t n)
{
    for (size_t i = 0; i < n; i++) pen->piece[pen->n++] = (uint8_t)(value >> (8 * i));
}

static void put_string(struct pen *pen, const char *text)
{
    const size_t n = strlen(text);
    put_le(pen, n, 8);
    memcpy(pen->piece + pen->n, text, n);
    pen->n += n;
}

static enum status put_own_key(struct pen *pen, const struct gguf_own_key *key, struct err *err)
{
    enum status status = make_room(pen, err);
    if (status != OK) return status;
    put_string(pen, key->name);
    put_le(pen, key->type, 4);
    if (key->text) put_string(pen, key->text);
    else put_le(pen, key->value, key->type == GGUF_U16 ? 2 : 4);
    return OK;
}

static enum status copy_key(struct pen *pen, const struct out_blob *blob, const struct gguf_key *key, struct err *err)
{
    enum status status = OK;
    for (uint64_t done = 0; done < key->nbytes && status == OK;) {
        if (pen->n == PIECE_NBYTES) status = flush(pen, err);
        const size_t n = (size_t)size_min(key->nbytes - done, PIECE_NBYTES - pen->n);
        if (status == OK) status = blob->read(blob->context, blob->index, key->offset + done, n, pen->piece + pen->n, err);
        pen->n += n;
        done += n;
    }
    return status;
}

/* The keys of the source in their order, ours in the place of those of the same name; the others of ours behind them. */
static enum status put_keys(struct pen *pen, const struct gguf_layout *layout, size_t part, struct err *err)
{
    struct gguf_own_key own[GGUF_OWN_KEYS_MAX];
    const size_t n_own = gguf_own_keys(layout, part, own);
    bool done[GGUF_OWN_KEYS_MAX] = { false };
    enum status status = OK;
    for (size_t i = 0; i < layout->header.n_keys && status == OK; i++) {
        const struct gguf_key *key = &layout->header.keys[i];
        size_t k = 0;
        while (k < n_own && strcmp(own[k].name, key->name) != 0) k++;
        if (k < n_own) {
            status = put_own_key(pen, &own[k], err);
            done[k] = true;
        } else if (gguf_copies_key(key, part)) {
            status = copy_key(pen, layout->blob, key, err);
        }
    }
    for (size_t k = 0; k < n_own && status == OK; k++)
        if (!done[k]) status = put_own_key(pen, &own[k], err);
    return status;
}

static enum status put_info(struct pen *pen, const struct gguf_info *info, struct err *err)
{
    enum status status = make_room(pen, err);
    if (status != OK) return status;
    put_string(pen, info->name);
    put_le(pen, info->rank, 4);
    for (uint32_t d = info->rank; d > 0; d--) put_le(pen, info->dims[d - 1], 8);
    put_le(pen, info->type, 4);
    put_le(pen, info->offset, 8);
    return OK;
}

static enum status write_header(const struct writer *writer, size_t number, uint8_t *piece, struct err *err)
{
    const struct gguf_layout *layout = &writer->layout;
    const struct gguf_part *part = &layout->parts[number];
    struct pen pen = { .file = writer->files[number], .piece = piece };
    memcpy(pen.piece, GGUF_MAGIC, GGUF_MAGIC_NBYTES);
    pen.n = GGUF_MAGIC_NBYTES;
    put_le(&pen, 3, 4);
    put_le(&pen, part->n_infos, 8);
    put_le(&pen, part->n_keys, 8);
    enum status status = put_keys(&pen, layout, number, err);
    for (size_t i = part->first_info; i < part->first_info + part->n_infos && status == OK; i++) status = put_info(&pen, &layout->infos[i], err);
    if (status == OK) status = flush(&pen, err);
    const uint64_t padding = gguf_data_offset(layout, number) - pen.at;
    memset(piece, 0, (size_t)size_min(padding, PIECE_NBYTES));
    return status == OK && padding ? outfile_write(pen.file, piece, (size_t)padding, pen.at, err) : status; /* below GGUF_ALIGNMENT_MAX */
}

/* ---- open ------------------------------------------------------------------------------------------------------------------------- */

/* "DIR/x-00002-of-00003.gguf" of "DIR/x.gguf"; the caller frees it. NULL when out of memory. */
static char *part_path(const char *path, size_t part, size_t n_parts)
{
    size_t n = strlen(path), n_ending = strlen(EXTENSION), n_out = n + 64;
    char *out = malloc(n_out);
    if (!out || n_parts == 1) return out ? memcpy(out, path, n + 1) : NULL;
    if (n > n_ending && strcmp(path + n - n_ending, EXTENSION) == 0) n -= n_ending;
    snprintf(out, n_out, "%.*s-%05zu-of-%05zu" EXTENSION, (int)n, path, part + 1, n_parts);
    return out;
}

static enum status start(struct writer *writer, struct outset *set, struct err *err)
{
    const struct gguf_layout *layout = &writer->layout;
    struct writer_size size;
    uint8_t *piece = malloc(PIECE_NBYTES);
    writer->files = calloc(layout->n_parts, sizeof(struct outfile *));
    writer->written = calloc(layout->n_infos + 1, sizeof *writer->written);
    enum status status = piece && writer->files && writer->written ? OK : err_set(err, ERR_MEMORY, "out of memory for %zu tensors", layout->n_infos);
    if (status == OK) status = measure(layout, &size, err);
    if (status == OK) status = outset_check_space(set, writer->options.path, size.nbytes, err);
    for (size_t i = 0; i < layout->n_parts && status == OK; i++) {
        char *path = part_path(writer->options.path, i, layout->n_parts);
        status = path ? outset_add(set, path, &writer->files[i], err) : err_set(err, ERR_MEMORY, "out of memory for a path");
        free(path);
        if (status == OK) status = write_header(writer, i, piece, err);
    }
    free(piece);
    return status;
}

static void gguf_close(struct writer *writer)
{
    if (!writer) return;
    free(writer->files);
    free(writer->written);
    gguf_layout_free(&writer->layout);
    turn_destroy(&writer->turn);
    free(writer);
}

static enum status gguf_open(struct outset *set, struct out_tensor *tensors, size_t n_tensors, const struct out_blob *blobs, size_t n_blobs,
                             const struct writer_options *options, struct writer **out, struct err *err)
{
    *out = NULL;
    struct writer *writer = calloc(1, sizeof *writer);
    if (!writer) return err_set(err, ERR_MEMORY, "out of memory for the writer");
    turn_init(&writer->turn);
    writer->options = *options;
    writer->tensors = tensors;
    enum status status = gguf_lay_out(tensors, n_tensors, blobs, n_blobs, options, &writer->layout, err);
    if (status == OK) status = start(writer, set, err);
    if (status != OK) {
        gguf_close(writer);
        return status;
    }
    *out = writer;
    return OK;
}

/* ---- put, finish ------------------------------------------------------------------------------------------------------------------ */

static enum status put_part(struct writer *writer, size_t index, const struct part *part, struct err *err)
{
    const struct gguf_layout *layout = &writer->layout;
    if (index >= layout->n_tensors || part->plane >= writer->tensors[index].n_planes) return err_set(err, ERR_USAGE, "there is no such plane");
    const struct plane *plane = &writer->tensors[index].planes[part->plane].plane;
    const struct gguf_info *info = &layout->infos[layout->info_of[index] + part->plane];
    if (part->tile >= plane_tile_count(plane) || part->nbytes != plane_tile_nbytes(plane, part->tile))
        return err_set(err, ERR_USAGE, "tile %" PRIu64 " with %zu bytes is not of this tensor", part->tile, part->nbytes);
    return outfile_write(writer->files[info->part], part->bytes, part->nbytes,
                         gguf_data_offset(layout, info->part) + info->offset + plane_tile_offset(plane, part->tile), err);
}

static enum status gguf_put(struct writer *writer, unsigned worker, uint64_t ticket, size_t tensor, const struct part *parts, size_t n_parts,
                            void (*in_order)(void *context), void *context, struct err *err)
{
    (void)worker;
    enum status status = OK;
    for (size_t i = 0; i < n_parts && status == OK; i++) status = put_part(writer, tensor, &parts[i], err);
    if (status != OK && tensor < writer->layout.n_tensors)
        err_wrap(err, status, "cannot write tensor '%s'", shown_str(writer->tensors[tensor].name).text);
    if (status == OK && !turn_wait(&writer->turn, ticket)) status = err_set(err, ERR_CANCELLED, "stopped");
    if (status != OK) {
        turn_abort(&writer->turn);
        return status;
    }
    for (size_t i = 0; i < n_parts; i++) writer->written[writer->layout.info_of[tensor] + parts[i].plane] += parts[i].nbytes;
    if (in_order) in_order(context);
    turn_done(&writer->turn, ticket);
    return OK;
}

static void gguf_abort(struct writer *writer)
{
    turn_abort(&writer->turn);
}

/* Zeros from the end of the part's last weights to the end of its data; tensors without weights may follow those. */
static enum status pad_part(const struct writer *writer, size_t number, struct err *err)
{
    static const uint8_t zeros[1024];
    const struct gguf_layout *layout = &writer->layout;
    const struct gguf_part *part = &layout->parts[number];
    const uint64_t begin = gguf_data_offset(layout, number);
    uint64_t end = 0;
    enum status status = OK;
    for (size_t i = part->first_info; i < part->first_info + part->n_infos; i++)
        if (layout->infos[i].nbytes) end = layout->infos[i].offset + layout->infos[i].nbytes;
    for (uint64_t at = end; at < part->data_nbytes && status == OK; at += sizeof zeros)
        status = outfile_write(writer->files[number], zeros, (size_t)size_min(sizeof zeros, part->data_nbytes - at), begin + at, err);
    return status;
}

static enum status gguf_finish(struct writer *writer, const struct digest128 *source_digests, struct err *err)
{
    const struct gguf_layout *layout = &writer->layout;
    (void)source_digests;
    for (size_t i = 0; i < layout->n_infos; i++)
        if (writer->written[i] != layout->infos[i].nbytes)
            return err_set(err, ERR_USAGE, "%" PRIu64 " of %" PRIu64 " bytes of tensor '%s' were written", writer->written[i],
                           layout->infos[i].nbytes, shown_str(layout->infos[i].name).text);
    enum status status = OK;
    for (size_t i = 0; i < layout->n_parts && status == OK; i++) status = pad_part(writer, i, err);
    return status;
}

const struct writer_ops gguf_writer_ops = { .name = "gguf",
                                            .extension = EXTENSION,
                                            .quantised = true,
                                            .blocks = true,
                                            .blob = GGUF_BLOB_NAME,
                                            .plan = gguf_plan,
                                            .open = gguf_open,
                                            .put = gguf_put,
                                            .abort = gguf_abort,
                                            .finish = gguf_finish,
                                            .close = gguf_close };
