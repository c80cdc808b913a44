/* gguf.c: GGUF files as a container; see gguf.h.
 *
 * Drawing: open one file, or all parts of a set -> move their tensors into one list -> gguf_data.c: what each is coded as -> gguf_blob.c: the keys.
 * Why this way: all parts are opened and checked before the first is listed, so that a set with one bad part is no model.
 * Corner cases: split.count 0 or 1 is a single file (a merge leaves 0). Of a split set are refused, each with its own sentence: a name that does
 * not say its part, or another than the keys say; missing parts (counted); parts of another count or order; a tensor total that is not
 * split.tensors.count; a tensor in two parts; a name that says one of several in a file whose keys do not. Keys but split.* in later parts are not
 * used, which is a note. A block type that llmq cannot decode is listed and refused when its weights are read.
 * Reference: see gguf.h. Example: m-00002-of-00003.gguf opens m-00001-of-00003.gguf to m-00003-of-00003.gguf.
 */
#include "container/gguf.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "container/gguf_self.h"
#include "container/shown.h"

#define PARTS_MAX 65535 /* split.count is a u16 */
#define PART_SUFFIX_NBYTES 20 /* "-00001-of-00003.gguf" */

bool gguf_is(const struct container *container)
{
    return container->ops == &gguf_container_ops;
}

const struct gguf_header *gguf_header_of(const struct container *container, size_t part)
{
    return &gguf_self(container)->headers[part];
}

const struct gguf_entry *gguf_entry_of(const struct container *container, size_t index)
{
    return gguf_self(container)->entries[index];
}

static enum status no_memory(const char *path, struct err *err)
{
    return err_set(err, ERR_MEMORY, "cannot open '%s': out of memory", shown_path(path).text);
}

/* ---- keys ------------------------------------------------------------------------------------------------------------------------- */

/* What reads the keys of one part. */
struct part {
    const struct file *file;
    const struct gguf_header *header;
};

static struct part part_of(const struct container *container, size_t number)
{
    return (struct part){ &container->files[number], gguf_header_of(container, number) };
}

static uint64_t load_le(const uint8_t *bytes, size_t n)
{
    uint64_t value = 0;
    for (size_t i = n; i > 0; i--) value = value << 8 | bytes[i - 1];
    return value;
}

static bool is_integer(uint32_t type)
{
    return type <= GGUF_I32 || type == GGUF_U64 || type == GGUF_I64;
}

static bool is_signed(uint32_t type)
{
    return type == GGUF_I8 || type == GGUF_I16 || type == GGUF_I32 || type == GGUF_I64;
}

/* The value of an integer key whose type and span the parser has checked. */
static enum status read_integer(const struct part *part, const struct gguf_key *key, uint32_t *out, struct err *err)
{
    uint8_t bytes[8];
    const bool is_array = key->type == GGUF_ARRAY && key->count > 0 && is_integer(key->array_type);
    const uint32_t type = is_array ? key->array_type : key->type;
    if (!is_integer(type)) return err_set(err, ERR_DATA, "its type is %s, not an integer", gguf_value_name(key->type));
    const uint64_t first = key->value_offset + (is_array ? 12 : 0); /* behind type and count of the items */
    size_t n = (size_t)((key->offset + key->nbytes - first) / (is_array ? key->count : 1)); /* 1, 2, 4 or 8 */
    enum status status = file_read(part->file, bytes, n, first, err);
    if (status != OK) return status;
    uint64_t value = load_le(bytes, n);
    if (is_signed(type) && bytes[n - 1] & 0x80) return err_set(err, ERR_DATA, "it is negative");
    if (value > UINT32_MAX) return err_set(err, ERR_DATA, "%llu is over 2^32-1", (unsigned long long)value);
    *out = (uint32_t)value;
    return OK;
}

static enum status get_u32(const struct part *part, const char *name, uint32_t *out, bool *found, struct err *err)
{
    const struct gguf_key *key = gguf_find_key(part->header, name);
    *found = key != NULL;
    enum status status = key ? read_integer(part, key, out, err) : OK;
    return status == OK ? OK : err_wrap(err, status, "key '%s' of '%s'", shown_str(name).text, shown_path(part->file->path).text);
}

enum status gguf_get_u32(const struct container *container, const char *name, uint32_t *out, bool *found, struct err *err)
{
    struct part part = part_of(container, 0);
    return get_u32(&part, name, out, found, err);
}

static enum status read_string(const struct part *part, const struct gguf_key *key, uint64_t max_nbytes, char **out, size_t *nbytes, struct err *err)
{
    if (key->type != GGUF_STRING) return err_set(err, ERR_DATA, "its type is %s, not string", gguf_value_name(key->type));
    uint64_t n = key->offset + key->nbytes - key->value_offset - 8; /* its length field said so, and is at most GGUF_STRING_MAX */
    if (n > max_nbytes)
        return err_set(err, ERR_UNSUPPORTED, "it has %llu bytes, more than the limit of %llu", (unsigned long long)n, (unsigned long long)max_nbytes);
    char *text = malloc((size_t)n + 1);
    if (!text) return err_set(err, ERR_MEMORY, "out of memory for its %llu bytes", (unsigned long long)n);
    enum status status = file_read(part->file, text, (size_t)n, key->value_offset + 8, err);
    if (status != OK) {
        free(text);
        return status;
    }
    text[n] = '\0';
    *out = text;
    *nbytes = (size_t)n;
    return OK;
}

enum status gguf_get_string(const struct container *container, const char *name, uint64_t max_nbytes, char **out, size_t *nbytes, struct err *err)
{
    struct part part = part_of(container, 0);
    const struct gguf_key *key = gguf_find_key(part.header, name);
    *out = NULL;
    *nbytes = 0;
    enum status status = key ? read_string(&part, key, max_nbytes, out, nbytes, err) : OK;
    return status == OK ? OK : err_wrap(err, status, "key '%s' of '%s'", shown_str(name).text, shown_path(part.file->path).text);
}

enum status gguf_read_kv(const struct container *container, uint64_t offset, size_t nbytes, void *buf, struct err *err)
{
    const struct gguf_header *header = gguf_header_of(container, 0);
    if (offset > header->kv_nbytes || nbytes > header->kv_nbytes - offset)
        return err_set(err, ERR_USAGE, "offset %llu + size %zu exceeds the %llu bytes of keys", (unsigned long long)offset, nbytes,
                       (unsigned long long)header->kv_nbytes);
    return file_read(&container->files[0], buf, nbytes, GGUF_KV_OFFSET + offset, err);
}

/* ---- names of parts --------------------------------------------------------------------------------------------------------------- */

/* "-NNNNN-of-NNNNN.gguf" at the end of a name: part from 1 on, count at least 1, n_prefix bytes before it. */
struct part_name {
    size_t n_prefix;
    uint32_t part, count;
};

static bool five_digits(const char *text, uint32_t *out)
{
    *out = 0;
    for (size_t i = 0; i < 5; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        *out = *out * 10 + (uint32_t)(text[i] - '0');
    }
    return true;
}

static bool parse_part_name(const char *path, struct part_name *name)
{
    size_t n = strlen(path_base(path));
    if (n <= PART_SUFFIX_NBYTES) return false;
    name->n_prefix = strlen(path) - PART_SUFFIX_NBYTES;
    const char *end = path + name->n_prefix;
    if (end[0] != '-' || memcmp(end + 6, "-of-", 4) != 0 || strcmp(end + 15, ".gguf") != 0) return false;
    return five_digits(end + 1, &name->part) && five_digits(end + 10, &name->count) && name->part >= 1 && name->part <= name->count;
}

/* Path of part number part (from 1 on) of the set; the caller frees it. NULL when out of memory. */
static char *make_part_path(const char *path, const struct part_name *name, uint32_t part)
{
    char *out = strdup(path); /* of the same length */
    if (!out) return NULL;
    char digits[16];
    snprintf(digits, sizeof digits, "%05" PRIu32, part); /* part is at most 99999 */
    memcpy(out + name->n_prefix + 1, digits, 5);
    return out;
}

/* ---- opening one file ------------------------------------------------------------------------------------------------------------- */

static enum status read_file(void *context, void *buf, size_t nbytes, uint64_t offset, struct err *err)
{
    return file_read(context, buf, nbytes, offset, err);
}

static enum status open_file(const struct io_calls *io, const char *path, struct file *file, struct gguf_header *header, struct err *err)
{
    enum status status = file_open(io, path, file, err);
    if (status != OK) return status;
    struct gguf_source source = { .read = read_file, .context = file, .nbytes = file->nbytes };
    status = gguf_header_parse(&source, header, err);
    if (status == OK) return OK;
    file_close(file);
    return err_wrap(err, status, "cannot read '%s'", shown_path(path).text);
}

/* Appends the tensors of part number part to the container's. */
static enum status move_tensors(struct gguf *self, size_t part, struct err *err)
{
    struct container *base = &self->base;
    struct gguf_header *header = &self->headers[part];
    const size_t n = base->n_tensors + header->n_tensors;
    struct tensor *tensors = realloc(base->tensors, (n + 1) * sizeof *tensors);
    if (tensors) base->tensors = tensors;
    const struct gguf_entry **entries = realloc(self->entries, (n + 1) * sizeof *entries);
    if (entries) self->entries = entries;
    if (!tensors || !entries) return no_memory(base->path, err);
    for (size_t i = 0; i < header->n_tensors; i++) {
        header->tensors[i].file = (uint32_t)part;
        entries[base->n_tensors] = &header->entries[i];
        tensors[base->n_tensors++] = header->tensors[i];
    }
    free(header->tensors);
    header->tensors = NULL;
    return OK;
}

static enum status make_room(struct gguf *self, size_t n_parts, struct err *err)
{
    self->base.files = calloc(n_parts, sizeof *self->base.files);
    self->headers = calloc(n_parts, sizeof *self->headers);
    return self->base.files && self->headers ? OK : no_memory(self->base.path, err);
}

static enum status add_part(const struct io_calls *io, struct gguf *self, const char *path, struct err *err)
{
    size_t number = self->base.n_files;
    enum status status = open_file(io, path, &self->base.files[number], &self->headers[number], err);
    if (status == OK) self->base.n_files++;
    return status;
}

/* ---- split sets ------------------------------------------------------------------------------------------------------------------- */

/* What the keys of a part say of its set. */
struct split {
    uint32_t no, count, n_tensors;
    bool has_no, has_count, has_n_tensors;
};

static enum status read_split(const struct part *part, struct split *split, struct err *err)
{
    *split = (struct split){ 0 };
    enum status status = get_u32(part, "split.count", &split->count, &split->has_count, err);
    if (status == OK) status = get_u32(part, "split.no", &split->no, &split->has_no, err);
    if (status == OK) status = get_u32(part, "split.tensors.count", &split->n_tensors, &split->has_n_tensors, err);
    return status;
}

/* Compares the keys of the file at path with its name. */
static enum status check_split(const char *path, const struct split *split, const struct part_name *name, bool is_named, struct err *err)
{
    if (split->count <= 1) {
        if (!is_named || name->count == 1) return OK;
        return err_set(err, ERR_DATA, "its name says part %" PRIu32 " of %" PRIu32 ", but its key split.count does not", name->part, name->count);
    }
    if (split->count > PARTS_MAX)
        return err_set(err, ERR_UNSUPPORTED, "split.count is %" PRIu32 ", more than the limit of %d", split->count, PARTS_MAX);
    if (!split->has_no || split->no >= split->count)
        return err_set(err, ERR_DATA, "its key split.no is %s", split->has_no ? "not below split.count" : "missing");
    if (!is_named)
        return err_set(err, ERR_DATA,
                       "it is part %" PRIu32 " of %" PRIu32 " of a split model, but '%s' does not end in -%05" PRIu32 "-of-%05" PRIu32 ".gguf",
                       split->no + 1, split->count, shown_str(path_base(path)).text, split->no + 1, split->count);
    if (name->part == split->no + 1 && name->count == split->count) return OK;
    return err_set(err, ERR_DATA, "its name says part %" PRIu32 " of %" PRIu32 ", its keys say part %" PRIu32 " of %" PRIu32, name->part, name->count,
                   split->no + 1, split->count);
}

static enum status check_none_missing(const struct io_calls *io, const char *path, const struct part_name *name, struct err *err)
{
    uint32_t n_missing = 0, first = 0;
    for (uint32_t i = 1; i <= name->count; i++) {
        struct stat st;
        char *part = make_part_path(path, name, i);
        if (!part) return no_memory(path, err);
        bool missing = io->stat(part, &st) != 0 && errno == ENOENT;
        free(part);
        if (missing && n_missing++ == 0) first = i;
    }
    if (n_missing == 0) return OK;
    char *part = make_part_path(path, name, first);
    if (!part) return no_memory(path, err);
    err_set(err, ERR_DATA, "cannot open '%s': %" PRIu32 " of its %" PRIu32 " parts are missing, the first is '%s'", shown_path(path).text, n_missing,
            name->count, shown_str(path_base(part)).text);
    free(part);
    return ERR_DATA;
}

static void note_keys(struct container *base, size_t part)
{
    const struct gguf_header *header = gguf_header_of(base, part);
    size_t n_others = 0;
    for (size_t i = 0; i < header->n_keys; i++)
        n_others += strncmp(header->keys[i].name, "split.", 6) != 0 && strcmp(header->keys[i].name, "general.alignment") != 0;
    if (n_others > 0)
        container_note(base, "ignored %zu keys of '%s': those of the first part count", n_others, shown_path(path_base(base->files[part].path)).text);
}

/* The part that has been added last, against its name, its place and the first part. */
static enum status check_part(struct gguf *self, const struct part_name *set, uint32_t *n_claimed, struct err *err)
{
    size_t number = self->base.n_files - 1;
    const char *path = self->base.files[number].path;
    struct part part = part_of(&self->base, number);
    struct part_name name = { .n_prefix = set->n_prefix, .part = (uint32_t)number + 1, .count = set->count };
    struct split split;
    enum status status = read_split(&part, &split, err);
    if (status != OK) return status;
    status = check_split(path, &split, &name, true, err);
    if (status == OK && split.has_n_tensors) {
        if (*n_claimed != UINT32_MAX && *n_claimed != split.n_tensors)
            status = err_set(err, ERR_DATA, "its key split.tensors.count differs from the first part's");
        *n_claimed = split.n_tensors;
    }
    if (status != OK) return err_wrap(err, status, "cannot read '%s'", shown_path(path).text);
    if (number > 0) note_keys(&self->base, number);
    return OK;
}

static enum status open_set(const struct io_calls *io, struct gguf *self, const struct part_name *name, struct err *err)
{
    const char *path = self->base.path;
    uint32_t n_claimed = UINT32_MAX;
    enum status status = check_none_missing(io, path, name, err);
    if (status == OK) status = make_room(self, name->count, err);
    for (uint32_t i = 1; i <= name->count && status == OK; i++) {
        char *part = make_part_path(path, name, i);
        status = part ? add_part(io, self, part, err) : no_memory(path, err);
        free(part);
        if (status == OK) status = check_part(self, name, &n_claimed, err);
        if (status == OK) status = move_tensors(self, i - 1, err);
    }
    if (status != OK || n_claimed == UINT32_MAX || n_claimed == self->base.n_tensors) return status;
    return err_set(err, ERR_DATA, "cannot open '%s': split.tensors.count is %" PRIu32 ", its parts have %zu tensors", shown_path(path).text,
                   n_claimed, self->base.n_tensors);
}

/* ---- the container ---------------------------------------------------------------------------------------------------------------- */

/* A name that says something else than GGUF belongs to another container, whose reader then names the mistake. */
static bool probe(const char *path, bool is_dir, const uint8_t *head, size_t n_head)
{
    static const char other[] = ".safetensors";
    size_t n = strlen(path);
    if (is_dir || n_head < GGUF_MAGIC_NBYTES || memcmp(head, GGUF_MAGIC, GGUF_MAGIC_NBYTES) != 0) return false;
    return n < sizeof other || strcmp(path + n - (sizeof other - 1), other) != 0;
}

static void close_container(struct container *container)
{
    struct gguf *self = (struct gguf *)container;
    for (size_t i = 0; self->headers && i < container->n_files; i++) gguf_header_free(&self->headers[i]);
    container_release(container);
    free(self->headers);
    free(self->entries);
    free(self->scales);
    free(self->spans);
    free(self);
}

static void note_header(struct container *base, size_t part)
{
    const struct gguf_header *header = gguf_header_of(base, part);
    const char *path = base->files[part].path;
    if (header->alignment < 8) container_note(base, "the alignment of '%s' is %" PRIu32 ", below 8", shown_path(path).text, header->alignment);
    if (header->is_unpadded && header->n_tensors > 0) container_note(base, "'%s' lacks the padding at its end", shown_path(path).text);
}

/* Opens path alone; *is_part says that its set has to be opened instead. */
static enum status open_single(const struct io_calls *io, struct gguf *self, struct part_name *name, bool *is_part, struct err *err)
{
    const char *path = self->base.path;
    bool is_named = parse_part_name(path, name);
    struct split split;
    enum status status = make_room(self, 1, err);
    if (status == OK) status = add_part(io, self, path, err);
    if (status != OK) return status;
    struct part part = part_of(&self->base, 0);
    status = read_split(&part, &split, err);
    if (status != OK) return status;
    status = check_split(path, &split, name, is_named, err);
    *is_part = status == OK && split.count > 1;
    if (status != OK) return err_wrap(err, status, "cannot read '%s'", shown_path(path).text);
    return *is_part ? OK : move_tensors(self, 0, err);
}

static void forget_single(struct gguf *self)
{
    gguf_header_free(&self->headers[0]);
    file_close(&self->base.files[0]);
    free(self->headers);
    free(self->base.files);
    self->headers = NULL;
    self->base.files = NULL;
    self->base.n_files = 0;
}

static enum status open_all(const struct io_calls *io, struct gguf *self, struct err *err)
{
    struct part_name name = { 0 };
    bool is_part = false;
    enum status status = open_single(io, self, &name, &is_part, err);
    if (status == OK && is_part) {
        forget_single(self);
        status = open_set(io, self, &name, err);
    }
    if (status != OK) return status;
    status = gguf_find_quants(self, err);
    if (status == OK) status = gguf_make_blob(self, err);
    if (status != OK) return err_wrap(err, status, "cannot open '%s'", shown_path(self->base.path).text);
    for (size_t i = 0; i < self->base.n_files; i++) note_header(&self->base, i);
    if (self->base.n_tensors == 0) container_note(&self->base, "'%s' has no tensors", shown_path(self->base.path).text);
    return OK;
}

static enum status open_container(const struct io_calls *io, const char *path, struct container **container, struct err *err)
{
    struct gguf *self = calloc(1, sizeof *self);
    if (!self) return no_memory(path, err);
    self->base.ops = &gguf_container_ops;
    self->base.path = strdup(path);
    enum status status = self->base.path ? open_all(io, self, err) : no_memory(path, err);
    if (status == OK) *container = &self->base;
    else close_container(&self->base);
    return status;
}

const struct container_ops gguf_container_ops = {
    .name = "gguf",
    .description = "GGUF file, or the parts NAME-00001-of-0000N.gguf of one",
    .probe = probe,
    .open = open_container,
    .read = gguf_read_plain,
    .read_f32 = gguf_read_f32,
    .read_plane = gguf_read_plane,
    .read_blob = gguf_read_blob,
    .check_unchanged = container_files_unchanged,
    .close = close_container,
};
