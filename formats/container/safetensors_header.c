/* safetensors_header.c: the strict parser of a safetensors header; see safetensors_header.h.
 *
 * Formula: nbytes = product(shape) * bits / 8 = data_offsets[1] - data_offsets[0]; tensors sorted by (begin, end) tile the data:
 *   begin[0] = 0, begin[i] = end[i-1], end[last] = data_nbytes
 * Why this way: json_walk_object checks every byte and hands over one member at a time, whose tree then is the only one in memory; json_u64 refuses
 * every number that a double does not hold exactly.
 * Corner cases: refused: duplicate names (after unescaping) and fields, unknown and missing fields, an array in place of an object, names that are
 * empty or have control characters, null metadata, holes, overlaps, data without a tensor; the product runs over the dims that are not zero, so [0,
 * 2^63, 2] and [2^63, 2, 0] are refused alike; numbers over 2^53-1; more than 2^20 tensors; an entry over 64 KiB. Accepted: scalars, zero dims,
 * blanks around the text, {}.
 * Reference: see safetensors_header.h. Worked number: F4 with shape [3] has 12 bits, no whole number of bytes, and is refused; [4] has 2 bytes.
 */
#include "container/safetensors_header.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/size.h"
#include "container/shown.h"

#define MEMORY_BLOCK_NBYTES ((size_t)64 * 1024)
#define METADATA_KEY "__metadata__"
#define TENSORS_MAX (1u << 20) /* no real file has a tenth of it */
#define ENTRY_NBYTES_MAX 65536 /* bounds the tree of one entry */

static const struct json_limits limits = { .max_depth = 4, .max_values = (uint64_t)1 << 20, .plain_integers = true };

/* ---- memory of names and dims ----------------------------------------------------------------------------------------------------- */

struct memory_block {
    struct memory_block *next;
    size_t n_used;
    size_t capacity;
    uint64_t bytes[]; /* aligned for dims */
};

/* Room for nbytes, aligned to 8, freed with the header. NULL when out of memory. */
static void *take_memory(struct memory_block **memory, size_t nbytes)
{
    size_t wanted = (nbytes + 7) & ~(size_t)7; /* nbytes is at most TENSOR_NAME_MAX + 1 */
    struct memory_block *block = *memory;
    if (!block || block->capacity - block->n_used < wanted) {
        size_t capacity = wanted > MEMORY_BLOCK_NBYTES ? wanted : MEMORY_BLOCK_NBYTES;
        block = malloc(sizeof *block + capacity);
        if (!block) return NULL;
        *block = (struct memory_block){ .next = *memory, .capacity = capacity };
        *memory = block;
    }
    void *place = (char *)block->bytes + block->n_used;
    block->n_used += wanted;
    return place;
}

/* ---- one entry -------------------------------------------------------------------------------------------------------------------- */

/* The fields of one tensor's entry as they are found. */
struct entry {
    const struct dtype *dtype;
    uint64_t dims[TENSOR_RANK_MAX];
    size_t rank;
    uint64_t span[2];
    unsigned seen; /* bit i: fields[i] was there */
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* Reads an array of at most max integers; what is the field's name. */
static enum status read_integers(const cJSON *array, const char *what, size_t max, uint64_t *out, size_t *count, struct err *err)
{
    size_t n = 0;
    if (!cJSON_IsArray(array)) return err_set(err, ERR_DATA, "%s is not an array", what);
    for (const cJSON *item = array->child; item; item = item->next) {
        if (n == max) return err_set(err, ERR_UNSUPPORTED, "%s has more than %zu items", what, max);
        enum status status = json_u64(item, what, &out[n++], err);
        if (status != OK) return status;
    }
    *count = n;
    return OK;
}

static enum status take_dtype(struct entry *entry, const cJSON *value, struct err *err)
{
    const char *name;
    enum status status = json_string(value, "dtype", &name, err);
    if (status != OK) return status;
    entry->dtype = dtype_find(name, strlen(name));
    return entry->dtype ? OK : err_set(err, ERR_UNSUPPORTED, "unsupported dtype '%s'", shown_str(name).text);
}

static enum status take_shape(struct entry *entry, const cJSON *value, struct err *err)
{
    return read_integers(value, "shape", TENSOR_RANK_MAX, entry->dims, &entry->rank, err);
}

static enum status take_offsets(struct entry *entry, const cJSON *value, struct err *err)
{
    size_t count = 0;
    enum status status = read_integers(value, "data_offsets", 2, entry->span, &count, err);
    if (status == ERR_UNSUPPORTED || (status == OK && count != 2)) return err_set(err, ERR_DATA, "data_offsets is not two integers");
    if (status == OK && entry->span[1] < entry->span[0]) return err_set(err, ERR_DATA, "data_offsets ends before it begins");
    return status;
}

static const struct field {
    const char *name;
    enum status (*take)(struct entry *entry, const cJSON *value, struct err *err);
} fields[] = {
    { "dtype", take_dtype },
    { "shape", take_shape },
    { "data_offsets", take_offsets },
};

#define N_FIELDS (sizeof fields / sizeof fields[0])

static enum status take_field(struct entry *entry, const cJSON *value, struct err *err)
{
    for (size_t i = 0; i < N_FIELDS; i++) {
        if (strcmp(fields[i].name, value->string) != 0) continue;
        entry->seen |= 1u << i;
        return fields[i].take(entry, value, err);
    }
    return err_set(err, ERR_DATA, "unknown field '%s'", shown_str(value->string).text);
}

static enum status check_complete(const struct entry *entry, struct err *err)
{
    for (size_t i = 0; i < N_FIELDS; i++)
        if (!(entry->seen & 1u << i)) return err_set(err, ERR_DATA, "%s is missing", fields[i].name);
    return OK;
}

/* Sets n_weights and nbytes of the tensor from the entry, and compares with its span. */
static enum status check_size(const struct entry *entry, struct tensor *tensor, struct err *err)
{
    uint64_t product = 1, bits = 0;
    bool has_zero = false;
    for (size_t i = 0; i < entry->rank; i++) {
        if (entry->dims[i] == 0) has_zero = true;
        else if (!size_mul(product, entry->dims[i], &product)) return err_set(err, ERR_DATA, "the product of the shape overflows");
    }
    if (!size_mul(product, entry->dtype->bits, &bits)) return err_set(err, ERR_DATA, "the size of the shape overflows");
    if (has_zero) product = bits = 0;
    if (bits % 8 != 0) return err_set(err, ERR_DATA, "%llu bits are no whole number of bytes", (unsigned long long)bits);
    tensor->n_weights = product;
    tensor->nbytes = tensor->stored_nbytes = bits / 8;
    uint64_t span = entry->span[1] - entry->span[0];
    if (span == tensor->nbytes) return OK;
    return err_set(err, ERR_DATA, "dtype and shape need %llu bytes, data_offsets has %llu", (unsigned long long)tensor->nbytes,
                   (unsigned long long)span);
}

static enum status check_name(const char *name, size_t nbytes, struct err *err)
{
    if (nbytes == 0) return err_set(err, ERR_DATA, "a tensor has an empty name");
    if (nbytes > TENSOR_NAME_MAX)
        return err_set(err, ERR_UNSUPPORTED, "tensor '%.40s...' has a name of %zu bytes, more than the limit of %d", shown(name, 40).text, nbytes,
                       TENSOR_NAME_MAX);
    for (size_t i = 0; i < nbytes; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return err_set(err, ERR_DATA, "tensor '%s' has a control character in its name", shown(name, nbytes).text);
    return OK;
}

/* ---- the members of the header ---------------------------------------------------------------------------------------------------- */

struct parse {
    struct safetensors_header *header;
    size_t capacity; /* of header->tensors */
};

/* The next free tensor of the table, or NULL. */
static struct tensor *new_tensor(struct parse *parse)
{
    struct safetensors_header *header = parse->header;
    if (header->n_tensors == parse->capacity) {
        size_t capacity = parse->capacity ? parse->capacity * 2 : 64;
        struct tensor *grown = realloc(header->tensors, capacity * sizeof *grown);
        if (!grown) return NULL;
        header->tensors = grown;
        parse->capacity = capacity;
    }
    return &header->tensors[header->n_tensors];
}

/* One entry's tree at a time; its text has been checked with the whole header. */
static enum status read_entry(const char *value, size_t nbytes, struct entry *entry, struct tensor *tensor, struct err *err)
{
    cJSON *tree = NULL;
    if (value[0] != '{') return err_set(err, ERR_DATA, "its entry is not an object");
    if (nbytes > ENTRY_NBYTES_MAX)
        return err_set(err, ERR_UNSUPPORTED, "its entry has %zu bytes, more than the limit of %d", nbytes, ENTRY_NBYTES_MAX);
    enum status status = json_parse_checked(value, nbytes, &tree, err);
    for (const cJSON *field = tree ? tree->child : NULL; field && status == OK; field = field->next) status = take_field(entry, field, err);
    cJSON_Delete(tree);
    if (status == OK) status = check_complete(entry, err);
    if (status == OK) status = check_size(entry, tensor, err);
    return status;
}

static enum status take_tensor(struct parse *parse, const char *name, size_t n_name, const char *value, size_t nbytes, struct err *err)
{
    struct entry entry = { .seen = 0 };
    if (parse->header->n_tensors == TENSORS_MAX) return err_set(err, ERR_UNSUPPORTED, "there are more than %u tensors", TENSORS_MAX);
    struct tensor *tensor = new_tensor(parse);
    if (!tensor) return err_set(err, ERR_MEMORY, "out of memory for %zu tensors", parse->header->n_tensors + 1);
    *tensor = (struct tensor){ 0 };
    enum status status = check_name(name, n_name, err);
    if (status != OK) return status;
    status = read_entry(value, nbytes, &entry, tensor, err);
    if (status != OK) return err_wrap(err, status, "tensor '%s'", shown(name, n_name).text);
    uint64_t *dims = take_memory(&parse->header->memory, entry.rank * sizeof *dims);
    char *copy = take_memory(&parse->header->memory, n_name + 1);
    if (!dims || !copy) return err_set(err, ERR_MEMORY, "out of memory for %zu tensors", parse->header->n_tensors + 1);
    memcpy(dims, entry.dims, entry.rank * sizeof *dims);
    memcpy(copy, name, n_name + 1);
    tensor->name = copy;
    tensor->dims = dims;
    tensor->rank = (uint32_t)entry.rank;
    tensor->dtype = entry.dtype;
    tensor->offset = entry.span[0];
    parse->header->n_tensors++;
    return OK;
}

/* True for a checked JSON value that is an object whose values are all strings: outside strings it has one brace and neither brackets nor words nor
 * digits. */
static bool is_string_map(const char *text, size_t nbytes)
{
    if (text[0] != '{') return false;
    for (size_t i = 1; i < nbytes; i++) {
        if (text[i] == '"') {
            for (i++; text[i] != '"'; i++)
                if (text[i] == '\\') i++;
        } else if (!is_blank(text[i]) && text[i] != ':' && text[i] != ',' && text[i] != '}') {
            return false;
        }
    }
    return true;
}

static enum status take_metadata(struct safetensors_header *header, const char *value, size_t nbytes, struct err *err)
{
    if (!is_string_map(value, nbytes)) return err_set(err, ERR_DATA, "%s is not an object of strings", METADATA_KEY);
    header->metadata_json = malloc(nbytes + 1);
    if (!header->metadata_json) return err_set(err, ERR_MEMORY, "out of memory for %zu bytes of metadata", nbytes);
    memcpy(header->metadata_json, value, nbytes);
    header->metadata_json[nbytes] = '\0';
    header->metadata_nbytes = nbytes;
    return OK;
}

static enum status take_member(void *context, const char *key, size_t n_key, const char *value, size_t nbytes, struct err *err)
{
    struct parse *parse = context;
    if (strcmp(key, METADATA_KEY) == 0) return take_metadata(parse->header, value, nbytes, err);
    return take_tensor(parse, key, n_key, value, nbytes, err);
}

/* ---- the data as a whole ---------------------------------------------------------------------------------------------------------- */

/* By begin, then end (an empty tensor stands before the one that begins at the same byte), then name. */
static int compare_storage(const void *a, const void *b)
{
    const struct tensor *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    if (x->nbytes != y->nbytes) return x->nbytes < y->nbytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* The sentence for tensor number i of the sorted table, which does not begin at end, where the ones before it end. */
static enum status refuse_span(const struct safetensors_header *header, size_t i, uint64_t end, struct err *err)
{
    const struct tensor *tensor = &header->tensors[i];
    unsigned long long begin = (unsigned long long)tensor->offset;
    struct shown name = shown_str(tensor->name);
    if (tensor->offset > end)
        return err_set(err, ERR_DATA, "tensor '%s' begins at byte %llu of the data: bytes %llu to %llu belong to no tensor", name.text, begin,
                       (unsigned long long)end, begin);
    return err_set(err, ERR_DATA, "tensor '%s' begins at byte %llu of the data, inside tensor '%s'", name.text, begin,
                   shown_str(header->tensors[i - 1].name).text);
}

/* Sorts the tensors and checks that they cover the data without a hole or an overlap. */
static enum status check_tiling(struct safetensors_header *header, uint64_t data_nbytes, struct err *err)
{
    uint64_t end = 0;
    if (header->n_tensors > 1) qsort(header->tensors, header->n_tensors, sizeof *header->tensors, compare_storage);
    for (size_t i = 0; i < header->n_tensors; i++) {
        const struct tensor *tensor = &header->tensors[i];
        if (tensor->offset != end) return refuse_span(header, i, end, err);
        end = tensor->offset + tensor->nbytes; /* the span's own end, a number of the text: no overflow */
    }
    if (end > data_nbytes)
        return err_set(err, ERR_DATA, "the tensors need %llu bytes of data, the file has %llu: it is truncated", (unsigned long long)end,
                       (unsigned long long)data_nbytes);
    if (end < data_nbytes)
        return err_set(err, ERR_DATA, "%llu bytes at the end of the file belong to no tensor", (unsigned long long)(data_nbytes - end));
    return OK;
}

/* ---- public ----------------------------------------------------------------------------------------------------------------------- */

uint64_t safetensors_header_nbytes(const uint8_t head[SAFETENSORS_LENGTH_NBYTES])
{
    uint64_t nbytes = 0;
    for (unsigned i = 0; i < SAFETENSORS_LENGTH_NBYTES; i++) nbytes |= (uint64_t)head[i] << (8 * i);
    return nbytes;
}

bool safetensors_header_plausible(const uint8_t *head, size_t n_head)
{
    if (n_head <= SAFETENSORS_LENGTH_NBYTES || safetensors_header_nbytes(head) > SAFETENSORS_HEADER_MAX) return false;
    char first = (char)head[SAFETENSORS_LENGTH_NBYTES];
    return first == '{' || is_blank(first);
}

static void shrink_tensors(struct safetensors_header *header)
{
    struct tensor *shrunk = header->n_tensors ? realloc(header->tensors, header->n_tensors * sizeof *shrunk) : NULL;
    if (shrunk) header->tensors = shrunk;
}

enum status safetensors_header_parse(const char *text, size_t nbytes, uint64_t data_nbytes, struct safetensors_header *header, struct err *err)
{
    *header = (struct safetensors_header){ 0 };
    struct parse parse = { .header = header };
    if (nbytes > SAFETENSORS_HEADER_MAX) return err_set(err, ERR_DATA, "it has %zu bytes, more than the limit of %u", nbytes, SAFETENSORS_HEADER_MAX);
    header->begins_with_blank = nbytes > 0 && is_blank(text[0]);
    enum status status = json_walk_object(text, nbytes, &limits, take_member, &parse, err);
    if (status == OK) shrink_tensors(header);
    if (status == OK) status = check_tiling(header, data_nbytes, err);
    if (status != OK) safetensors_header_free(header);
    return status;
}

void safetensors_header_free(struct safetensors_header *header)
{
    if (!header) return;
    while (header->memory) {
        struct memory_block *next = header->memory->next;
        free(header->memory);
        header->memory = next;
    }
    free(header->tensors);
    free(header->metadata_json);
    *header = (struct safetensors_header){ 0 };
}
