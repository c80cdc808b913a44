/* gguf_header.c: the strict parser of the head of a GGUF file; see gguf_header.h.
 *
 * Formula: nbytes = product(dims) / block * block_nbytes; offset[0] = 0, offset[i+1] = align(offset[i] + nbytes[i]); the file ends at data +
 * offset[n], or at the end of the last tensor's bytes.
 * Why this way: one bounded cursor takes every byte; a length, count or product is compared with the bytes that are left before it is used, in
 * words of checked arithmetic (base/size.h), so none of the published holes of GGUF readers has a place. Arrays in arrays are a stack of counts, no
 * recursion.
 * Corner cases: refused: version 0, 1, over 3, the other byte order (each with its sentence); names and keys that are empty, double, no UTF-8, over
 * 64 and 65,535 bytes, or hold a NUL (tensors: any control character); strings that are no UTF-8 or over 64 MiB; bool values but 0 and 1; unknown
 * types; arrays over depth 4; an alignment that is no u32, no power of two or over 65,536; over 4 dims; dims over 2^63-1; wrapped products, also
 * beside a zero dim; rows that are no multiple of the block; gaps, overlaps, another order; data that is missing; bytes behind the data; a header
 * over 256 MiB, keys or tensors over 2^20. Accepted: no tensors, no keys, zero dims, rank 0, NUL in string values, empty arrays, a last tensor
 * without its padding (is_unpadded).
 * Reference: see gguf_header.h. Worked number: Q4_0 of dims 64 x 3 (innermost first) has 2 blocks a row, 3 * 2 * 18 = 108 bytes; with alignment 32
 * the next offset is 128.
 */
#include "container/gguf_header.h"

#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "base/utf8.h"
#include "container/shown.h"

#define WINDOW_NBYTES ((size_t)64 * 1024)
#define MEMORY_BLOCK_NBYTES ((size_t)64 * 1024)
#define KEY_NBYTES_MIN 14u /* length, one byte, type, one byte */
#define TENSOR_NBYTES_MIN 25u /* length, one byte, n_dims, type, offset */
#define ARRAY_NBYTES_MIN 12u /* type, count */
#define STRING_NBYTES_MIN 8u /* length */
#define KEY_TEXT_MAX ((uint64_t)64 << 20) /* bytes of all keys' names */

/* ---- types ------------------------------------------------------------------------------------------------------------------------ */

static const struct gguf_type types[] = {
    { 0, "F32", 1, 4, "F32", true },        { 1, "F16", 1, 2, "F16", true },         { 2, "Q4_0", 32, 18, NULL, true },
    { 3, "Q4_1", 32, 20, NULL, true },      { 6, "Q5_0", 32, 22, NULL, true },       { 7, "Q5_1", 32, 24, NULL, true },
    { 8, "Q8_0", 32, 34, NULL, true },      { 9, "Q8_1", 32, 36, NULL, false },      { 10, "Q2_K", 256, 84, NULL, true },
    { 11, "Q3_K", 256, 110, NULL, true },   { 12, "Q4_K", 256, 144, NULL, true },    { 13, "Q5_K", 256, 176, NULL, true },
    { 14, "Q6_K", 256, 210, NULL, true },   { 15, "Q8_K", 256, 292, NULL, false },   { 16, "IQ2_XXS", 256, 66, NULL, false },
    { 17, "IQ2_XS", 256, 74, NULL, false }, { 18, "IQ3_XXS", 256, 98, NULL, false }, { 19, "IQ1_S", 256, 50, NULL, false },
    { 20, "IQ4_NL", 32, 18, NULL, true },   { 21, "IQ3_S", 256, 110, NULL, false },  { 22, "IQ2_S", 256, 82, NULL, false },
    { 23, "IQ4_XS", 256, 136, NULL, true }, { 24, "I8", 1, 1, "I8", true },          { 25, "I16", 1, 2, "I16", true },
    { 26, "I32", 1, 4, "I32", true },       { 27, "I64", 1, 8, "I64", true },        { 28, "F64", 1, 8, "F64", true },
    { 29, "IQ1_M", 256, 56, NULL, false },  { 30, "BF16", 1, 2, "BF16", true },      { 34, "TQ1_0", 256, 54, NULL, true },
    { 35, "TQ2_0", 256, 66, NULL, true },   { 39, "MXFP4", 32, 17, NULL, true },     { 40, "NVFP4", 64, 36, NULL, true },
    { 41, "Q1_0", 128, 18, NULL, true },    { 42, "Q2_0", 64, 18, NULL, true },
};

size_t gguf_type_count(void)
{
    return sizeof types / sizeof types[0];
}

const struct gguf_type *gguf_type_at(size_t index)
{
    return &types[index];
}

const struct gguf_type *gguf_type_find(uint32_t id)
{
    for (size_t i = 0; i < gguf_type_count(); i++)
        if (types[i].id == id) return &types[i];
    return NULL;
}

/* By enum gguf_value: name, and bytes of one value, the fewest where they vary. */
static const struct {
    const char *name;
    uint32_t nbytes;
} values[GGUF_VALUE_COUNT] = {
    { "u8", 1 },
    { "i8", 1 },
    { "u16", 2 },
    { "i16", 2 },
    { "u32", 4 },
    { "i32", 4 },
    { "f32", 4 },
    { "bool", 1 },
    { "string", STRING_NBYTES_MIN },
    { "array", ARRAY_NBYTES_MIN },
    { "u64", 8 },
    { "i64", 8 },
    { "f64", 8 },
};

const char *gguf_value_name(uint32_t type)
{
    return type < GGUF_VALUE_COUNT ? values[type].name : "?";
}

/* ---- the cursor ------------------------------------------------------------------------------------------------------------------- */

/* The one way to the bytes: at never passes end. */
struct cursor {
    const struct gguf_source *source;
    uint64_t at;
    uint64_t end; /* of the file, or GGUF_HEADER_MAX */
    uint8_t *window; /* WINDOW_NBYTES */
    uint64_t window_at; /* place in the file of what the window holds */
    size_t n_window;
};

static uint64_t rest_of(const struct cursor *cursor)
{
    return cursor->end - cursor->at;
}

/* The sentence for nbytes that are not there. */
static enum status refuse_short(const struct cursor *cursor, const char *what, uint64_t nbytes, struct err *err)
{
    if (cursor->end < cursor->source->nbytes)
        return err_set(err, ERR_UNSUPPORTED, "the header is over the limit of %llu bytes (%llu bytes of %s at %llu)",
                       (unsigned long long)GGUF_HEADER_MAX, (unsigned long long)nbytes, what, (unsigned long long)cursor->at);
    return err_set(err, ERR_DATA, "the file ends at byte %llu, inside %s: %llu bytes wanted at %llu", (unsigned long long)cursor->end, what,
                   (unsigned long long)nbytes, (unsigned long long)cursor->at);
}

/* Sets *bytes to the next bytes: wanted of them, or as many as a window holds. They stay valid until the next call. */
static enum status look(struct cursor *cursor, uint64_t wanted, const char *what, const uint8_t **bytes, size_t *n, struct err *err)
{
    if (wanted > rest_of(cursor)) return refuse_short(cursor, what, wanted, err);
    size_t most = (size_t)size_min(wanted, WINDOW_NBYTES);
    bool there = cursor->at >= cursor->window_at && cursor->at - cursor->window_at <= cursor->n_window &&
                 most <= cursor->n_window - (size_t)(cursor->at - cursor->window_at);
    if (!there) {
        cursor->n_window = 0;
        size_t room = (size_t)size_min(rest_of(cursor), WINDOW_NBYTES);
        enum status status = cursor->source->read(cursor->source->context, cursor->window, room, cursor->at, err);
        if (status != OK) return status;
        cursor->window_at = cursor->at;
        cursor->n_window = room;
    }
    *bytes = cursor->window + (size_t)(cursor->at - cursor->window_at);
    *n = most;
    return OK;
}

/* Passes nbytes that a check has found to be there. */
static void pass(struct cursor *cursor, uint64_t nbytes)
{
    cursor->at += nbytes;
}

static enum status take_unsigned(struct cursor *cursor, unsigned nbytes, const char *what, uint64_t *out, struct err *err)
{
    const uint8_t *bytes = NULL;
    size_t n = 0;
    enum status status = look(cursor, nbytes, what, &bytes, &n, err);
    if (status != OK) return status;
    *out = 0;
    for (unsigned i = 0; i < nbytes; i++) *out |= (uint64_t)bytes[i] << (8 * i);
    pass(cursor, nbytes);
    return OK;
}

static enum status take_u32(struct cursor *cursor, const char *what, uint32_t *out, struct err *err)
{
    uint64_t value = 0;
    enum status status = take_unsigned(cursor, 4, what, &value, err);
    *out = (uint32_t)value;
    return status;
}

static enum status take_u64(struct cursor *cursor, const char *what, uint64_t *out, struct err *err)
{
    return take_unsigned(cursor, 8, what, out, err);
}

/* A value type. */
static enum status take_type(struct cursor *cursor, const char *what, uint32_t *type, struct err *err)
{
    enum status status = take_u32(cursor, what, type, err);
    if (status == OK && *type >= GGUF_VALUE_COUNT) return err_set(err, ERR_UNSUPPORTED, "%s is %u, which is unknown", what, *type);
    return status;
}

/* ---- memory of names -------------------------------------------------------------------------------------------------------------- */

struct gguf_memory {
    struct gguf_memory *next;
    size_t n_used;
    size_t capacity;
    char bytes[];
};

/* Room for nbytes, freed with the header. NULL when out of memory. */
static char *take_memory(struct gguf_memory **memory, size_t nbytes)
{
    struct gguf_memory *block = *memory;
    if (!block || block->capacity - block->n_used < nbytes) {
        size_t capacity = nbytes > MEMORY_BLOCK_NBYTES ? nbytes : MEMORY_BLOCK_NBYTES; /* nbytes is at most GGUF_KEY_MAX + 1 */
        block = malloc(sizeof *block + capacity);
        if (!block) return NULL;
        *block = (struct gguf_memory){ .next = *memory, .capacity = capacity };
        *memory = block;
    }
    char *place = block->bytes + block->n_used;
    block->n_used += nbytes;
    return place;
}

/* ---- parsing ---------------------------------------------------------------------------------------------------------------------- */

struct parse {
    struct cursor cursor;
    struct gguf_header *header;
    uint64_t n_keys, n_tensors; /* as the file claims */
    size_t keys_capacity, tensors_capacity;
    struct name_table tensor_names;
    uint64_t key_text; /* bytes of names so far */
    uint64_t end; /* of the tensors so far, from the start of the data, padded */
    uint64_t bare_end; /* the same without the last padding */
};

static enum status no_memory(const char *what, struct err *err)
{
    return err_set(err, ERR_MEMORY, "out of memory for its %s", what);
}

/* The array with room for one item more than n, or NULL (and the array as it was) when out of memory. */
static void *grow(void *array, size_t n, size_t *capacity, size_t item_nbytes)
{
    if (n < *capacity) return array;
    size_t wanted = *capacity ? *capacity * 2 : 64; /* at most twice GGUF_ENTRIES_MAX */
    void *grown = realloc(array, wanted * item_nbytes);
    if (grown) *capacity = wanted;
    return grown;
}

/* Reads a name of n bytes (max at most); refuses what is no UTF-8 and bytes below lowest. */
static enum status take_name(struct parse *parse, uint64_t max, unsigned char lowest, const char *what, const char **name, uint32_t *n_name,
                             struct err *err)
{
    uint64_t nbytes = 0;
    const uint8_t *bytes = NULL;
    size_t n = 0;
    enum status status = take_u64(&parse->cursor, what, &nbytes, err);
    if (status != OK) return status;
    if (nbytes == 0) return err_set(err, ERR_DATA, "%s is empty", what);
    if (nbytes > rest_of(&parse->cursor)) return refuse_short(&parse->cursor, what, nbytes, err);
    if (nbytes > max)
        return err_set(err, ERR_DATA, "%s has %llu bytes, more than the limit of %llu", what, (unsigned long long)nbytes, (unsigned long long)max);
    status = look(&parse->cursor, nbytes, what, &bytes, &n, err); /* max is below the window's size */
    if (status != OK) return status;
    for (size_t i = 0, length = 0; i < n; i += length) {
        length = utf8_length((const char *)bytes + i, n - i);
        if (length == 0) return err_set(err, ERR_DATA, "%s '%s' is not UTF-8", what, shown((const char *)bytes, n).text);
        if (bytes[i] < lowest || (lowest > 1 && bytes[i] == 0x7f))
            return err_set(err, ERR_DATA, "%s '%s' has a control character", what, shown((const char *)bytes, n).text);
    }
    char *copy = take_memory(&parse->header->memory, n + 1);
    if (!copy) return no_memory("names", err);
    memcpy(copy, bytes, n);
    copy[n] = '\0';
    *name = copy;
    *n_name = (uint32_t)n;
    pass(&parse->cursor, n);
    return OK;
}

/* ---- values ----------------------------------------------------------------------------------------------------------------------- */

/* Length of the prefix of the n bytes that is well-formed UTF-8. */
static size_t utf8_prefix(const uint8_t *bytes, size_t n)
{
    size_t at = 0;
    while (at < n) {
        uint64_t eight;
        if (n - at >= 8) {
            memcpy(&eight, bytes + at, 8);
            if ((eight & 0x8080808080808080u) == 0) {
                at += 8;
                continue;
            }
        }
        size_t length = utf8_length((const char *)bytes + at, n - at);
        if (length == 0) break;
        at += length;
    }
    return at;
}

/* A string value, a window at a time; a sequence that a window's end cuts is looked at again in the next. */
static enum status check_string(struct cursor *cursor, struct err *err)
{
    uint64_t left = 0;
    enum status status = take_u64(cursor, "a string's length", &left, err);
    if (status != OK) return status;
    if (left > rest_of(cursor)) return refuse_short(cursor, "a string", left, err);
    if (left > GGUF_STRING_MAX)
        return err_set(err, ERR_UNSUPPORTED, "a string of %llu bytes is over the limit of %llu", (unsigned long long)left,
                       (unsigned long long)GGUF_STRING_MAX);
    while (left > 0) {
        const uint8_t *bytes = NULL;
        size_t n = 0;
        status = look(cursor, left, "a string", &bytes, &n, err);
        if (status != OK) return status;
        size_t good = utf8_prefix(bytes, n);
        if (good < n && (n == left || n - good >= 4))
            return err_set(err, ERR_DATA, "a string is not UTF-8 (at byte %llu of the file)", (unsigned long long)(cursor->at + good));
        pass(cursor, good);
        left -= good;
    }
    return OK;
}

static enum status check_bools(struct cursor *cursor, uint64_t count, struct err *err)
{
    while (count > 0) {
        const uint8_t *bytes = NULL;
        size_t n = 0;
        enum status status = look(cursor, count, "a bool", &bytes, &n, err);
        if (status != OK) return status;
        for (size_t i = 0; i < n; i++)
            if (bytes[i] > 1) return err_set(err, ERR_DATA, "a bool is %u, neither 0 nor 1", bytes[i]);
        pass(cursor, n);
        count -= n;
    }
    return OK;
}

/* count values of a type that is no array. */
static enum status check_plain(struct cursor *cursor, uint32_t type, uint64_t count, struct err *err)
{
    uint64_t nbytes = 0;
    bool fits = size_mul(count, values[type].nbytes, &nbytes);
    if (!fits || nbytes > rest_of(cursor)) {
        if (count == 1) return refuse_short(cursor, "a value", nbytes, err);
        if (fits && nbytes <= cursor->source->nbytes - cursor->at) return refuse_short(cursor, "an array", nbytes, err); /* over GGUF_HEADER_MAX */
        return err_set(err, ERR_DATA, "an array claims %llu items of type %s, more than the %llu bytes that follow can hold",
                       (unsigned long long)count, values[type].name, (unsigned long long)rest_of(cursor));
    }
    if (type == GGUF_BOOL) return check_bools(cursor, count, err);
    if (type != GGUF_STRING) pass(cursor, nbytes);
    enum status status = OK;
    for (; type == GGUF_STRING && count > 0 && status == OK; count--) status = check_string(cursor, err);
    return status;
}

/* The type and count at the head of an array. */
static enum status take_array_head(struct cursor *cursor, uint32_t *type, uint64_t *count, struct err *err)
{
    enum status status = take_type(cursor, "an array's type", type, err);
    if (status == OK) status = take_u64(cursor, "an array's count", count, err);
    if (status == OK && *type == GGUF_ARRAY && *count > rest_of(cursor) / ARRAY_NBYTES_MIN)
        return err_set(err, ERR_DATA, "an array claims %llu arrays, more than the %llu bytes that follow can hold", (unsigned long long)*count,
                       (unsigned long long)rest_of(cursor));
    return status;
}

/* An array, whose head goes to *type and *count. left[d]: arrays still to come at depth d. */
static enum status check_array(struct cursor *cursor, uint32_t *type, uint64_t *count, struct err *err)
{
    uint64_t left[GGUF_DEPTH_MAX] = { 0 };
    size_t depth = 0; /* of open arrays of arrays */
    enum status status = take_array_head(cursor, type, count, err);
    uint32_t inner_type = *type;
    uint64_t inner_count = *count;
    while (status == OK) {
        if (inner_type == GGUF_ARRAY) {
            if (depth + 1 == GGUF_DEPTH_MAX) return err_set(err, ERR_UNSUPPORTED, "arrays are nested deeper than %u", GGUF_DEPTH_MAX);
            left[depth++] = inner_count;
        } else {
            status = check_plain(cursor, inner_type, inner_count, err);
        }
        while (depth > 0 && left[depth - 1] == 0) depth--;
        if (depth == 0 || status != OK) return status;
        left[depth - 1]--;
        status = take_array_head(cursor, &inner_type, &inner_count, err);
    }
    return status;
}

/* ---- keys ------------------------------------------------------------------------------------------------------------------------- */

static bool is_power_of_two(uint64_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

/* The value of general.alignment. */
static enum status take_alignment(struct parse *parse, const struct gguf_key *key, struct err *err)
{
    uint32_t value = 0;
    if (key->type != GGUF_U32) return err_set(err, ERR_DATA, "its type is %s, not u32", gguf_value_name(key->type));
    enum status status = take_u32(&parse->cursor, "its value", &value, err);
    if (status != OK) return status;
    if (!is_power_of_two(value)) return err_set(err, ERR_DATA, "%u is no power of two", value);
    if (value > GGUF_ALIGNMENT_MAX) return err_set(err, ERR_UNSUPPORTED, "%u is over the limit of %u", value, GGUF_ALIGNMENT_MAX);
    parse->header->alignment = value;
    return OK;
}

static enum status take_value(struct parse *parse, struct gguf_key *key, struct err *err)
{
    enum status status = take_type(&parse->cursor, "its type", &key->type, err);
    key->value_offset = parse->cursor.at;
    if (status != OK) return status;
    if (strcmp(key->name, "general.alignment") == 0) return take_alignment(parse, key, err);
    if (key->type == GGUF_ARRAY) return check_array(&parse->cursor, &key->array_type, &key->count, err);
    return check_plain(&parse->cursor, key->type, 1, err);
}

static enum status take_key(struct parse *parse, struct err *err)
{
    struct gguf_header *header = parse->header;
    struct gguf_key *keys = grow(header->keys, header->n_keys, &parse->keys_capacity, sizeof *keys);
    if (!keys) return no_memory("keys", err);
    header->keys = keys;
    struct gguf_key *key = &keys[header->n_keys];
    *key = (struct gguf_key){ .offset = parse->cursor.at };
    enum status status = take_name(parse, GGUF_KEY_MAX, 1, "its name", &key->name, &key->n_name, err);
    if (status != OK) return err_wrap(err, status, "key number %zu", header->n_keys);
    parse->key_text += key->n_name;
    if (parse->key_text > KEY_TEXT_MAX)
        return err_set(err, ERR_UNSUPPORTED, "the names of the keys have more than %llu bytes", (unsigned long long)KEY_TEXT_MAX);
    size_t index = 0;
    status = name_table_add(&header->key_names, key->name, &index, err);
    if (status == OK && index != header->n_keys) return err_set(err, ERR_DATA, "key '%s' is there twice", shown(key->name, key->n_name).text);
    if (status == OK) status = take_value(parse, key, err);
    key->nbytes = parse->cursor.at - key->offset;
    if (status != OK) return err_wrap(err, status, "key '%s'", shown(key->name, key->n_name).text);
    header->n_keys++;
    return OK;
}

/* ---- tensors ---------------------------------------------------------------------------------------------------------------------- */

/* Reads the dims and turns them round. */
static enum status take_dims(struct parse *parse, struct tensor *tensor, struct gguf_entry *entry, struct err *err)
{
    enum status status = take_u32(&parse->cursor, "its number of dims", &tensor->rank, err);
    if (status != OK) return status;
    if (tensor->rank > GGUF_DIMS_MAX) return err_set(err, ERR_UNSUPPORTED, "it has %u dims, more than %u", tensor->rank, GGUF_DIMS_MAX);
    for (uint32_t d = tensor->rank; d > 0 && status == OK; d--) {
        uint64_t *dim = &entry->dims[d - 1];
        status = take_u64(&parse->cursor, "its dims", dim, err);
        if (status == OK && *dim > INT64_MAX) return err_set(err, ERR_DATA, "dim %llu is negative or over 2^63-1", (unsigned long long)*dim);
    }
    return status;
}

static enum status take_tensor_type(struct parse *parse, struct tensor *tensor, struct gguf_entry *entry, struct err *err)
{
    uint32_t id = 0;
    enum status status = take_u32(&parse->cursor, "its type", &id, err);
    if (status != OK) return status;
    entry->type = gguf_type_find(id);
    if (!entry->type) return err_set(err, ERR_UNSUPPORTED, "unsupported type %u", id);
    const char *dtype = entry->type->dtype ? entry->type->dtype : "F32";
    tensor->dtype = dtype_find(dtype, strlen(dtype));
    return OK;
}

/* Sets n_weights and the two sizes. The products run over the dims that are not zero, so that each reader's own products cannot overflow. */
static enum status check_size(struct tensor *tensor, struct gguf_entry *entry, struct err *err)
{
    const struct gguf_type *type = entry->type;
    uint64_t row = tensor->rank ? entry->dims[tensor->rank - 1] : 1, product = 1, plain = 0;
    bool has_zero = false;
    for (uint32_t d = 0; d < tensor->rank; d++) {
        if (entry->dims[d] == 0) has_zero = true;
        else if (!size_mul(product, entry->dims[d], &product) || product > INT64_MAX)
            return err_set(err, ERR_DATA, "the product of its dims overflows");
    }
    if (row % type->block != 0)
        return err_set(err, ERR_DATA, "its rows of %llu weights are no multiple of the block of %s, %u", (unsigned long long)row, type->name,
                       type->block);
    if (!size_mul(product / type->block, type->block_nbytes, &entry->nbytes) || !size_mul(product, tensor->dtype->bits / 8, &plain))
        return err_set(err, ERR_DATA, "its size overflows");
    if (has_zero) product = plain = entry->nbytes = 0;
    tensor->n_weights = product;
    tensor->nbytes = plain;
    return OK;
}

/* Compares the offset with the running sum, and adds to it. */
static enum status check_offset(struct parse *parse, const struct gguf_entry *entry, uint64_t offset, struct err *err)
{
    uint64_t file_nbytes = parse->cursor.source->nbytes, end = 0;
    if (offset != parse->end)
        return err_set(err, ERR_DATA, "its offset is %llu, the tensors before it end at %llu: a gap, an overlap or another order",
                       (unsigned long long)offset, (unsigned long long)parse->end);
    if (!size_add(offset, entry->nbytes, &end) || end > file_nbytes)
        return err_set(err, ERR_DATA, "offset %llu + size %llu exceeds the file's %llu bytes: it is truncated", (unsigned long long)offset,
                       (unsigned long long)entry->nbytes, (unsigned long long)file_nbytes);
    parse->bare_end = end;
    if (!size_align(end, parse->header->alignment, &parse->end)) return err_set(err, ERR_DATA, "its end overflows");
    return OK;
}

static enum status take_info(struct parse *parse, struct tensor *tensor, struct gguf_entry *entry, struct err *err)
{
    enum status status = take_dims(parse, tensor, entry, err);
    if (status == OK) status = take_tensor_type(parse, tensor, entry, err);
    if (status == OK) status = take_u64(&parse->cursor, "its offset", &tensor->offset, err);
    if (status == OK) status = check_size(tensor, entry, err);
    return status == OK ? check_offset(parse, entry, tensor->offset, err) : status;
}

/* Room for one tensor more in both tables. */
static bool grow_tensors(struct parse *parse)
{
    struct gguf_header *header = parse->header;
    size_t capacity = parse->tensors_capacity;
    struct tensor *tensors = grow(header->tensors, header->n_tensors, &capacity, sizeof *tensors);
    if (tensors) header->tensors = tensors;
    struct gguf_entry *entries = tensors ? grow(header->entries, header->n_tensors, &parse->tensors_capacity, sizeof *entries) : NULL;
    if (entries) header->entries = entries;
    return entries != NULL;
}

static enum status take_tensor(struct parse *parse, struct err *err)
{
    struct gguf_header *header = parse->header;
    if (!grow_tensors(parse)) return no_memory("tensors", err);
    struct tensor *tensor = &header->tensors[header->n_tensors];
    struct gguf_entry *entry = &header->entries[header->n_tensors];
    *tensor = (struct tensor){ 0 };
    *entry = (struct gguf_entry){ 0 };
    uint32_t n_name = 0;
    enum status status = take_name(parse, GGUF_NAME_MAX, 0x20, "its name", &tensor->name, &n_name, err);
    if (status != OK) return err_wrap(err, status, "tensor number %zu", header->n_tensors);
    size_t index = 0;
    status = name_table_add(&parse->tensor_names, tensor->name, &index, err);
    if (status == OK && index != header->n_tensors) status = err_set(err, ERR_DATA, "it is there twice");
    if (status == OK) status = take_info(parse, tensor, entry, err);
    if (status != OK) return err_wrap(err, status, "tensor '%s'", shown(tensor->name, n_name).text);
    header->n_tensors++;
    return OK;
}

/* ---- the whole -------------------------------------------------------------------------------------------------------------------- */

static enum status check_version(uint32_t version, struct err *err)
{
    if (version == 2 || version == 3) return OK;
    if (version == 0) return err_set(err, ERR_DATA, "its version is 0: damaged, or no GGUF file");
    if (version == 1)
        return err_set(err, ERR_UNSUPPORTED, "it is GGUF version 1, which is not supported; convert the model again with a current tool");
    if ((version & 0xffff) == 0) return err_set(err, ERR_UNSUPPORTED, "it is a big-endian GGUF file; llmq reads little-endian ones only");
    return err_set(err, ERR_UNSUPPORTED, "it is GGUF version %u, newer than 3, the last that llmq reads", version);
}

/* A claimed number of keys or tensors against the bytes that are left and the cap. */
static enum status check_count(const struct cursor *cursor, uint64_t count, uint64_t entry_nbytes, const char *what, struct err *err)
{
    if (count > rest_of(cursor) / entry_nbytes)
        return err_set(err, ERR_DATA, "it claims %llu %s, more than the %llu bytes that follow can hold", (unsigned long long)count, what,
                       (unsigned long long)rest_of(cursor));
    if (count > GGUF_ENTRIES_MAX)
        return err_set(err, ERR_UNSUPPORTED, "it has %llu %s, more than the limit of %u", (unsigned long long)count, what, GGUF_ENTRIES_MAX);
    return OK;
}

static enum status take_head(struct parse *parse, struct err *err)
{
    struct cursor *cursor = &parse->cursor;
    const uint8_t *magic = NULL;
    size_t n = 0;
    enum status status = look(cursor, GGUF_MAGIC_NBYTES, "the magic", &magic, &n, err);
    if (status != OK) return status;
    if (memcmp(magic, GGUF_MAGIC, GGUF_MAGIC_NBYTES) != 0) return err_set(err, ERR_DATA, "it does not begin with the magic bytes GGUF");
    pass(cursor, GGUF_MAGIC_NBYTES);
    status = take_u32(cursor, "the version", &parse->header->version, err);
    if (status == OK) status = check_version(parse->header->version, err);
    if (status == OK) status = take_u64(cursor, "the number of tensors", &parse->n_tensors, err);
    if (status == OK) status = take_u64(cursor, "the number of keys", &parse->n_keys, err);
    if (status == OK) status = check_count(cursor, parse->n_tensors, TENSOR_NBYTES_MIN, "tensors", err);
    if (status == OK) status = check_count(cursor, parse->n_keys, KEY_NBYTES_MIN, "keys", err);
    return status;
}

/* Compares the end of the file with the end of the last tensor. */
static enum status check_data(struct parse *parse, struct err *err)
{
    struct gguf_header *header = parse->header;
    uint64_t nbytes = parse->cursor.source->nbytes, bare = parse->cursor.at, end = 0;
    header->infos_end = bare;
    if (!size_align(bare, header->alignment, &header->data_offset)) return err_set(err, ERR_DATA, "the header's end overflows");
    end = header->data_offset;
    if (header->n_tensors > 0 && (!size_add(header->data_offset, parse->bare_end, &bare) || !size_add(header->data_offset, parse->end, &end)))
        return err_set(err, ERR_DATA, "the data's end overflows");
    header->is_unpadded = nbytes != end;
    if (nbytes == end || nbytes == bare) return OK;
    if (nbytes < bare)
        return err_set(err, ERR_DATA, "its tensors end at byte %llu, the file at byte %llu: it is truncated", (unsigned long long)bare,
                       (unsigned long long)nbytes);
    if (nbytes < end)
        return err_set(err, ERR_DATA, "the file ends at byte %llu, inside the padding that ends at byte %llu: it is truncated",
                       (unsigned long long)nbytes, (unsigned long long)end);
    return err_set(err, ERR_DATA, "%llu bytes follow the last tensor, which ends at byte %llu", (unsigned long long)(nbytes - end),
                   (unsigned long long)end);
}

/* Sets what could not be set while the tables were growing. */
static void settle(struct gguf_header *header)
{
    for (size_t i = 0; i < header->n_tensors; i++) {
        struct tensor *tensor = &header->tensors[i];
        tensor->offset += header->data_offset;
        tensor->dims = header->entries[i].dims;
        tensor->stored_nbytes = header->entries[i].nbytes;
        if (header->entries[i].type->dtype) continue;
        tensor->quantised = &header->entries[i];
        tensor->format = header->entries[i].type->name;
    }
}

static enum status parse_all(struct parse *parse, struct err *err)
{
    enum status status = take_head(parse, err);
    while (status == OK && parse->header->n_keys < parse->n_keys) status = take_key(parse, err);
    if (status != OK) return status;
    parse->header->kv_nbytes = parse->cursor.at - GGUF_KV_OFFSET;
    while (status == OK && parse->header->n_tensors < parse->n_tensors) status = take_tensor(parse, err);
    if (status == OK) status = check_data(parse, err);
    if (status == OK) settle(parse->header);
    return status;
}

enum status gguf_header_parse(const struct gguf_source *source, struct gguf_header *header, struct err *err)
{
    *header = (struct gguf_header){ .alignment = GGUF_ALIGNMENT_DEFAULT };
    struct parse parse = { .header = header, .cursor = { .source = source, .end = size_min(source->nbytes, GGUF_HEADER_MAX) } };
    parse.cursor.window = malloc(WINDOW_NBYTES);
    if (!parse.cursor.window) return err_set(err, ERR_MEMORY, "out of memory for %zu bytes of header", WINDOW_NBYTES);
    enum status status = parse_all(&parse, err);
    name_table_free(&parse.tensor_names);
    free(parse.cursor.window);
    if (status != OK) gguf_header_free(header);
    return status;
}

void gguf_header_free(struct gguf_header *header)
{
    if (!header) return;
    while (header->memory) {
        struct gguf_memory *next = header->memory->next;
        free(header->memory);
        header->memory = next;
    }
    name_table_free(&header->key_names);
    free(header->keys);
    free(header->tensors);
    free(header->entries);
    *header = (struct gguf_header){ 0 };
}

enum status gguf_read_memory(void *context, void *buf, size_t nbytes, uint64_t offset, struct err *err)
{
    (void)err;
    memcpy(buf, (const uint8_t *)context + offset, nbytes);
    return OK;
}

const struct gguf_key *gguf_find_key(const struct gguf_header *header, const char *name)
{
    size_t index = name_table_find(&header->key_names, name);
    return index == SIZE_MAX ? NULL : &header->keys[index];
}
