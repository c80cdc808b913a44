/* llmq_index.c: see llmq_index.h.
 *
 * Formula: rows = product of all dims but the last, cols = the last; groups a row = ceil(cols / group); the scales of a tile [r, c] are a tile [r,
 * ceil(c / group)], or all scales are one tile.
 * Why this way: the text is walked member by member, so that only one tensor's tree exists at a time; a bit for every chunk proves that each
 * belongs to one plane or blob, sorting their spans proves that they do not overlap. All linear but the sort, which sees one span a raw plane.
 * Corner cases: every number is compared before it is used in a product; dims are bounded by the product of the non-zero ones; planes that a known
 * family does not have are refused.
 * Reference: FORMAT.md. Worked number: a tensor [512, 172], group 32, int4 bf16: codes [512, 172] of 4 bits, scales [512, 6] of 16 bits.
 */
#include "container/llmq_index.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/size.h"
#include "container/shown.h"
#include "layout/facts.h"
#include "layout/layout.h"
#include "number/scale.h"

#define DEPTH_MAX 16
#define ITEM_VALUES_MAX 4096 /* JSON values below one tensor, format or blob */
#define FORMATS_MAX 256
#define BLOCK_NBYTES 65536
#define BLOB_NBYTES_MAX (UINT64_C(1) << 53)

/* ---- memory --------------------------------------------------------------------------------------------------------------------- */

struct llmq_block {
    struct llmq_block *next;
    size_t used, nbytes;
    max_align_t bytes[];
};

static void *take(struct llmq_index *index, size_t nbytes)
{
    nbytes = (nbytes + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
    struct llmq_block *block = index->blocks;
    if (!block || block->nbytes - block->used < nbytes) {
        size_t room = nbytes > BLOCK_NBYTES ? nbytes : BLOCK_NBYTES;
        block = malloc(sizeof *block + room);
        if (!block) return NULL;
        *block = (struct llmq_block){ .next = index->blocks, .nbytes = room };
        index->blocks = block;
    }
    void *memory = (char *)block->bytes + block->used;
    block->used += nbytes;
    memset(memory, 0, nbytes);
    return memory;
}

static enum status out_of_memory(struct err *err)
{
    return err_set(err, ERR_MEMORY, "out of memory for the index");
}

static enum status keep_bytes(struct llmq_index *index, const char *bytes, size_t nbytes, const char **out, struct err *err)
{
    char *copy = take(index, nbytes + 1);
    if (!copy) return out_of_memory(err);
    memcpy(copy, bytes, nbytes);
    *out = copy;
    return OK;
}

static enum status copy_text(const char *text, size_t nbytes, char **out, struct err *err)
{
    *out = malloc(nbytes + 1);
    if (!*out) return out_of_memory(err);
    memcpy(*out, text, nbytes);
    (*out)[nbytes] = '\0';
    return OK;
}

void llmq_index_free(struct llmq_index *index)
{
    for (struct llmq_block *block = index->blocks, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    for (size_t i = 0; index->blobs && i < index->n_blobs; i++) free(index->blobs[i].name);
    free(index->blobs);
    free(index->blob_places);
    free(index->tensors);
    free(index->entries);
    free(index->metadata);
    free(index->writer);
    *index = (struct llmq_index){ 0 };
}

/* ---- reading one shard ---------------------------------------------------------------------------------------------------------- */

struct stored_format {
    const char *name, *family;
    struct facts facts;
    bool decodable;
};

struct parse {
    struct llmq_index *index;
    const struct llmq_shard *shard;
    uint8_t *taken; /* a bit for every chunk */
    uint64_t n_taken;
    struct stored_format *formats[FORMATS_MAX];
    size_t n_formats;
};

static const struct json_limits item_limits = { .max_depth = DEPTH_MAX, .max_values = ITEM_VALUES_MAX, .plain_integers = true };

/* A string that may be absent (""), copied. */
static enum status get_name(struct llmq_index *index, const cJSON *object, const char *name, const char **out, struct err *err)
{
    const cJSON *item = json_get(object, name);
    *out = "";
    if (!item) return OK;
    const char *value;
    enum status status = json_string(item, name, &value, err);
    return status == OK ? keep_bytes(index, value, strlen(value), out, err) : status;
}

/* ---- chunks --------------------------------------------------------------------------------------------------------------------- */

/* Chunks first .. first + count - 1 get their owner. */
static enum status take_chunks(struct parse *parse, const cJSON *owner, uint64_t wanted, uint64_t *first, struct err *err)
{
    uint64_t count = 0, n_chunks = parse->shard->trailer.n_chunks;
    enum status status = json_pair(owner, "chunks", first, &count, err);
    if (status != OK) return status;
    if (count != wanted) return err_set(err, ERR_DATA, "it has %" PRIu64 " chunks, wanted %" PRIu64, count, wanted);
    if (*first > n_chunks || count > n_chunks - *first)
        return err_set(err, ERR_DATA, "chunks %" PRIu64 " + %" PRIu64 " exceed the %" PRIu64 " of the file", *first, count, n_chunks);
    for (uint64_t i = *first; i < *first + count; i++) {
        uint8_t bit = (uint8_t)(1u << (i & 7));
        if (parse->taken[i >> 3] & bit) return err_set(err, ERR_DATA, "chunk %" PRIu64 " belongs to something else already", i);
        parse->taken[i >> 3] |= bit;
    }
    parse->n_taken += count;
    return OK;
}

/* The chunk must hold nbytes when decoded, and lie in the file. */
static enum status check_chunk(const struct llmq_shard *shard, uint64_t number, uint64_t nbytes, struct llmq_chunk *chunk, struct err *err)
{
    *chunk = llmq_chunk_load(shard->table + number * LLMQ_CHUNK_NBYTES);
    if (chunk->codec != LLMQ_RAW && chunk->codec != LLMQ_ZSTD)
        return err_set(err, ERR_DATA, "chunk %" PRIu64 " has the unknown codec %" PRIu32, number, chunk->codec);
    if (chunk->codec == LLMQ_RAW ? chunk->stored != nbytes : chunk->stored >= nbytes || chunk->stored == 0)
        return err_set(err, ERR_DATA, "chunk %" PRIu64 " has %" PRIu32 " stored bytes for %" PRIu64, number, chunk->stored, nbytes);
    if (chunk->codec == LLMQ_ZSTD && !(shard->header.required & LLMQ_REQUIRED_ZSTD))
        return err_set(err, ERR_DATA, "chunk %" PRIu64 " is compressed, the header says none is", number);
    uint64_t end = shard->trailer.index_offset;
    if (chunk->offset < LLMQ_HEADER_NBYTES || chunk->offset > end || chunk->stored > end - chunk->offset)
        return err_set(err, ERR_DATA, "chunk %" PRIu64 ": offset %" PRIu64 " + size %" PRIu32 " exceeds the %" PRIu64 " bytes before the index",
                       number, chunk->offset, chunk->stored, end);
    return OK;
}

static enum status check_plane_chunks(const struct llmq_shard *shard, const struct llmq_plane *stored, struct err *err)
{
    uint64_t count = plane_tile_count(&stored->plane), nbytes = plane_nbytes(&stored->plane);
    uint32_t align = nbytes >= shard->header.align ? shard->header.align : LLMQ_ALIGN_SMALL;
    if (stored->offset & (align - 1)) return err_set(err, ERR_DATA, "its offset %" PRIu64 " is not a multiple of %" PRIu32, stored->offset, align);
    for (uint64_t i = 0; i < count; i++) {
        struct llmq_chunk chunk;
        enum status status = check_chunk(shard, stored->first + i, plane_tile_nbytes(&stored->plane, i), &chunk, err);
        if (status != OK) return status;
        if (stored->offset && (chunk.codec != LLMQ_RAW || chunk.offset != stored->offset + plane_tile_offset(&stored->plane, i)))
            return err_set(err, ERR_DATA, "chunk %" PRIu64 " does not lie where the plane's offset says", stored->first + i);
    }
    return OK;
}

/* ---- formats -------------------------------------------------------------------------------------------------------------------- */

static enum status read_facts(struct parse *parse, const cJSON *facts, struct stored_format *stored, struct err *err)
{
    if (!cJSON_IsObject(facts)) return err_set(err, ERR_DATA, "it is not an object");
    enum status status = get_name(parse->index, facts, "family", &stored->family, err);
    if (status == OK) status = get_name(parse->index, facts, "element", &stored->facts.elem.name, err);
    const struct family *family = status == OK ? family_find(stored->family) : NULL;
    if (!family) return status;
    status = facts_read(facts, family, &stored->facts, err);
    stored->facts.format.name = stored->name;
    stored->decodable = status == OK && (stored->facts.format.block || !family->blocks);
    return status;
}

static enum status add_format(void *context, const char *key, size_t key_nbytes, const char *value, size_t value_nbytes, struct err *err)
{
    struct parse *parse = context;
    if (parse->n_formats == FORMATS_MAX) return err_set(err, ERR_UNSUPPORTED, "there are more than %d formats", FORMATS_MAX);
    struct stored_format *stored = take(parse->index, sizeof *stored);
    if (!stored) return out_of_memory(err);
    cJSON *facts;
    enum status status = keep_bytes(parse->index, key, key_nbytes, &stored->name, err);
    if (status == OK) status = json_parse_checked(value, value_nbytes, &facts, err);
    if (status != OK) return status;
    status = read_facts(parse, facts, stored, err);
    cJSON_Delete(facts);
    if (status != OK) return err_wrap(err, status, "format '%s'", shown(key, key_nbytes).text);
    parse->formats[parse->n_formats++] = stored;
    return OK;
}

static const struct stored_format *find_format(const struct parse *parse, const char *name)
{
    for (size_t i = 0; i < parse->n_formats; i++)
        if (strcmp(parse->formats[i]->name, name) == 0) return parse->formats[i];
    return NULL;
}

/* ---- blobs ---------------------------------------------------------------------------------------------------------------------- */

static enum status read_blob(struct parse *parse, const cJSON *item, uint64_t *nbytes, struct llmq_blob *place, struct err *err)
{
    if (!cJSON_IsObject(item)) return err_set(err, ERR_DATA, "it is not an object");
    enum status status = json_u64_in(item, "bytes", 0, BLOB_NBYTES_MAX, nbytes, err);
    if (status == OK) status = json_u64_in(item, "tile", 1, TILE_NBYTES_MAX, &place->tile, err);
    if (status == OK) status = take_chunks(parse, item, size_ceil_div(*nbytes, place->tile), &place->first, err);
    for (uint64_t at = 0, i = place->first; status == OK && at < *nbytes; at += place->tile, i++) {
        struct llmq_chunk chunk;
        status = check_chunk(parse->shard, i, size_min(place->tile, *nbytes - at), &chunk, err);
    }
    return status;
}

/* Room for one more; the arrays double whenever n_blobs is 0 or a power of two. */
static enum status grow_blobs(struct llmq_index *index, struct err *err)
{
    size_t n = index->n_blobs, capacity = n ? 2 * n : 1;
    if (n & (n - 1)) return OK;
    struct blob *blobs = realloc(index->blobs, capacity * sizeof *blobs);
    if (blobs) index->blobs = blobs;
    struct llmq_blob *places = realloc(index->blob_places, capacity * sizeof *places);
    if (places) index->blob_places = places;
    return blobs && places ? OK : out_of_memory(err);
}

static enum status add_blob(void *context, const char *key, size_t key_nbytes, const char *value, size_t value_nbytes, struct err *err)
{
    struct parse *parse = context;
    struct llmq_index *index = parse->index;
    uint64_t nbytes = 0;
    struct llmq_blob place = { 0 };
    if (parse->shard->header.shard_index != 0) return err_set(err, ERR_DATA, "there are files of the model folder in a shard that is not the first");
    if (!path_is_plain_name(key, key_nbytes)) return err_set(err, ERR_DATA, "'%s' is no plain file name", shown(key, key_nbytes).text);
    cJSON *item;
    enum status status = json_parse_checked(value, value_nbytes, &item, err);
    if (status != OK) return status;
    status = read_blob(parse, item, &nbytes, &place, err);
    cJSON_Delete(item);
    if (status != OK) return err_wrap(err, status, "file '%s'", shown(key, key_nbytes).text);
    char *name = NULL;
    status = grow_blobs(index, err);
    if (status == OK) status = copy_text(key, key_nbytes, &name, err);
    if (status != OK) return status;
    index->blobs[index->n_blobs] = (struct blob){ .name = name, .nbytes = nbytes };
    index->blob_places[index->n_blobs++] = place;
    return OK;
}

/* ---- tensors -------------------------------------------------------------------------------------------------------------------- */

static enum status read_shape(struct llmq_index *index, const cJSON *item, struct tensor *tensor, struct llmq_entry *entry, struct err *err)
{
    const cJSON *shape = json_get(item, "shape");
    if (!shape || !cJSON_IsArray(shape)) return err_set(err, ERR_DATA, "shape is not an array");
    for (const cJSON *dim = shape->child; dim; dim = dim->next) tensor->rank++;
    if (tensor->rank > TENSOR_RANK_MAX) return err_set(err, ERR_UNSUPPORTED, "it has %u dims, more than %d", tensor->rank, TENSOR_RANK_MAX);
    uint64_t *dims = take(index, tensor->rank * sizeof *dims + 1);
    if (!dims) return out_of_memory(err);
    tensor->dims = dims;
    uint64_t nonzero = 1;
    bool is_empty = false;
    for (const cJSON *dim = shape->child; dim; dim = dim->next, dims++) {
        enum status status = json_u64(dim, "a dim", dims, err);
        if (status != OK) return status;
        is_empty |= *dims == 0;
        if (*dims && (!size_mul(nonzero, *dims, &nonzero) || nonzero > INT64_MAX / 8))
            return err_set(err, ERR_DATA, "the product of its dims overflows");
    }
    tensor->n_weights = is_empty ? 0 : nonzero;
    entry->cols = tensor_cols(tensor);
    entry->rows = tensor_rows(tensor);
    return OK;
}

static enum status read_dtype(const cJSON *item, struct tensor *tensor, struct err *err)
{
    const char *name;
    enum status status = json_string(json_get(item, "dtype"), "dtype", &name, err);
    if (status != OK) return status;
    tensor->dtype = dtype_find(name, strlen(name));
    if (!tensor->dtype) return err_set(err, ERR_UNSUPPORTED, "its dtype '%s' is unknown", shown_str(name).text);
    uint64_t bits;
    if (!size_mul(tensor->n_weights, tensor->dtype->bits, &bits) || bits % 8)
        return err_set(err, ERR_DATA, "its size in bytes overflows or is no whole number");
    tensor->nbytes = bits / 8;
    return OK;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static enum status read_digest(const cJSON *item, struct digest128 *digest, struct err *err)
{
    const char *hex;
    enum status status = json_string(json_get(item, "source_digest"), "source_digest", &hex, err);
    if (status != OK) return status;
    bool good = strlen(hex) == 32;
    for (size_t i = 0; good && i < 16; i++) {
        int high = hex_digit(hex[2 * i]), low = hex_digit(hex[2 * i + 1]);
        good = high >= 0 && low >= 0;
        digest->bytes[i] = (uint8_t)(high * 16 + low);
    }
    return good ? OK : err_set(err, ERR_DATA, "source_digest is not 32 hexadecimal digits");
}

static enum status read_plane(struct parse *parse, const cJSON *item, struct llmq_plane *stored, struct err *err)
{
    struct plane *plane = &stored->plane;
    const char *name;
    enum status status = json_string(json_get(item, "name"), "name of a plane", &name, err);
    if (status == OK) status = keep_bytes(parse->index, name, strlen(name), &plane->name, err);
    if (status == OK) status = json_u32_in(item, "bits", 1, PLANE_BITS_MAX, &plane->bits, err);
    if (status == OK) status = json_pair(item, "shape", &plane->rows, &plane->cols, err);
    if (status == OK) status = json_pair(item, "tile", &plane->tile_rows, &plane->tile_cols, err);
    if (status == OK) status = plane_check(plane, err);
    if (status == OK && json_get(item, "offset")) {
        status = json_u64_in(item, "offset", LLMQ_HEADER_NBYTES, parse->shard->trailer.index_offset, &stored->offset, err);
        if (status == OK && plane_nbytes(plane) == 0) status = err_set(err, ERR_DATA, "it has an offset, but no bytes");
    }
    if (status == OK) status = take_chunks(parse, item, plane_tile_count(plane), &stored->first, err);
    return status == OK ? check_plane_chunks(parse->shard, stored, err) : status;
}

static enum status read_planes(struct parse *parse, const cJSON *item, struct llmq_entry *entry, struct err *err)
{
    const cJSON *list = json_get(item, "planes");
    if (!list || !cJSON_IsArray(list)) return err_set(err, ERR_DATA, "planes is not an array");
    for (const cJSON *plane = list->child; plane; plane = plane->next) entry->n_planes++;
    if (entry->n_planes == 0 || entry->n_planes > LLMQ_PLANES_MAX) return err_set(err, ERR_DATA, "it has %u planes", entry->n_planes);
    struct llmq_plane *planes = take(parse->index, entry->n_planes * sizeof *planes);
    if (!planes) return out_of_memory(err);
    entry->planes = planes;
    for (const cJSON *plane = list->child; plane; plane = plane->next, planes++) {
        enum status status = read_plane(parse, plane, planes, err);
        if (status == OK) continue;
        const char *name = planes->plane.name ? planes->plane.name : "";
        return err_wrap(err, status, "plane '%s'", shown_str(name).text);
    }
    return OK;
}

static bool has_name(const struct llmq_entry *entry, uint32_t index, const char *name)
{
    return index < entry->n_planes && strcmp(entry->planes[index].plane.name, name) == 0;
}

/* ERR_DATA unless the plane is bits x rows x cols. */
static enum status expect_plane(const struct llmq_entry *entry, uint32_t index, const char *name, uint32_t bits, uint64_t rows, uint64_t cols,
                                struct err *err)
{
    if (!has_name(entry, index, name)) return err_set(err, ERR_DATA, "plane %u is not '%s'", index, name);
    const struct plane *plane = &entry->planes[index].plane;
    if (plane->bits == bits && plane->rows == rows && plane->cols == cols) return OK;
    return err_set(err, ERR_DATA, "plane '%s' is %" PRIu64 " x %" PRIu64 " fields of %u bits, wanted %" PRIu64 " x %" PRIu64 " of %u", name,
                   plane->rows, plane->cols, plane->bits, rows, cols, bits);
}

static enum status expect_tile(const struct llmq_entry *entry, uint32_t index, uint64_t rows, uint64_t cols, struct err *err)
{
    const struct plane *plane = &entry->planes[index].plane;
    if (plane->tile_rows == rows && plane->tile_cols == cols) return OK;
    return err_set(err, ERR_DATA, "plane '%s' has tiles of %" PRIu64 " x %" PRIu64 ", wanted %" PRIu64 " x %" PRIu64, plane->name, plane->tile_rows,
                   plane->tile_cols, rows, cols);
}

static enum status check_kept(const struct tensor *tensor, struct llmq_entry *entry, struct err *err)
{
    struct kept kept;
    kept_planes(tensor->dtype, entry->rows, entry->cols, entry->n_planes > 1, &kept);
    if (kept.n_planes != entry->n_planes) return err_set(err, ERR_DATA, "it has %u planes, wanted %u", entry->n_planes, kept.n_planes);
    entry->rows = kept.rows;
    entry->cols = kept.cols;
    entry->kept = kept.kind;
    entry->item_nbytes = kept.item_nbytes;
    for (uint32_t i = 0; i < kept.n_planes; i++) {
        enum status status = expect_plane(entry, i, kept.planes[i].name, kept.planes[i].bits, kept.rows, kept.cols, err);
        if (status == OK) status = expect_tile(entry, i, entry->tile_rows, entry->tile_cols, err);
        if (status != OK) return status;
    }
    return OK;
}

static enum status read_group(const cJSON *item, struct quant *quant, struct err *err)
{
    const cJSON *group = json_get(item, "group");
    if (!group || !cJSON_IsString(group)) return json_u32_in(item, "group", 1, GROUP_MAX, &quant->group, err);
    quant->group_kind = group_kind_find(group->valuestring);
    quant->group = quant->group_kind == GROUP_SQUARE ? SQUARE_SIDE : 0;
    return quant->group_kind != GROUP_SIZE ? OK : err_set(err, ERR_DATA, "group is '%s'", shown_str(group->valuestring).text);
}

/* Planes of scales, zeros, shifts or blocks: a matrix of fields, one for `width` weights of a row (0: for all). Tiles go with those of the codes, or
 * there is a single one, as squares must have it. */
static enum status check_group_plane(const struct tensor *tensor, const struct llmq_entry *entry, uint32_t index, const char *name, uint32_t bits,
                                     uint32_t width, struct err *err)
{
    const struct quant *quant = &entry->quant;
    const struct shape shape = tensor_shape(tensor);
    const uint64_t rows = quant_scale_rows(quant, entry->rows, shape_matrix_rows(&shape)), cols = width ? size_ceil_div(entry->cols, width) : 1;
    const bool single = quant->group_kind != GROUP_SIZE, must = quant->group_kind == GROUP_SQUARE, long_rows = entry->tile_cols < entry->cols;
    enum status status = expect_plane(entry, index, name, bits, rows, cols, err);
    if (status != OK) return status;
    if (long_rows && width && entry->tile_cols % quant->group != 0) return err_set(err, ERR_DATA, "its groups reach over the ends of tiles");
    if (plane_tile_count(&entry->planes[index].plane) == 1 && (single || !long_rows)) return OK;
    if (must) return err_set(err, ERR_DATA, "plane '%s' has more than one tile", name);
    if (long_rows && !width) return err_set(err, ERR_DATA, "its groups reach over the ends of tiles");
    return expect_tile(entry, index, entry->tile_rows, width ? size_ceil_div(entry->tile_cols, width) : 1, err);
}

static enum status expect_count(const struct llmq_entry *entry, uint32_t wanted, struct err *err)
{
    if (entry->n_planes == wanted) return OK;
    return err_set(err, ERR_DATA, "it has %u planes, wanted %u", entry->n_planes, wanted);
}

/* One plane with a field a block; a row is whole blocks. */
static enum status check_blocks(const struct tensor *tensor, const struct llmq_entry *entry, struct err *err)
{
    const struct ggml_type *type = entry->quant.format->block;
    if (entry->quant.group_kind != GROUP_SIZE || entry->quant.group != type->elements || entry->cols % type->elements != 0)
        return err_set(err, ERR_DATA, "its rows of %" PRIu64 " weights are not made of blocks of %u", entry->cols, type->elements);
    enum status status = expect_count(entry, 1u + entry->quant.input_scale, err);
    return status == OK ? check_group_plane(tensor, entry, 0, "blocks", 8 * type->bytes, type->elements, err) : status;
}

/* Shifts are there when a third plane has their name; their sub-blocks divide the group. */
static enum status read_shifts(const cJSON *item, struct llmq_entry *entry, struct err *err)
{
    struct quant *quant = &entry->quant;
    if (!quant->format->family->encode || !has_name(entry, 2, PLANE_SHIFTS)) return OK;
    quant->shift_bits = entry->planes[2].plane.bits;
    enum status status = json_u32_in(item, "sub_block", 1, GROUP_MAX, &quant->sub_block, err);
    if (status != OK) return status;
    if (quant->shift_bits > SHIFT_BITS_MAX || quant->group_kind != GROUP_SIZE || quant->group % quant->sub_block)
        return err_set(err, ERR_DATA, "it has shifts of %u bits for sub-blocks of %u in groups of %u", quant->shift_bits, quant->sub_block,
                       quant->group);
    return OK;
}

static enum status check_codes(const struct tensor *tensor, const struct llmq_entry *entry, uint32_t n_planes, struct err *err)
{
    const struct quant *quant = &entry->quant;
    const uint32_t side_bits = quant_side_bits(quant);
    enum status status = expect_count(entry, n_planes + (side_bits ? 3 : 2), err);
    if (status == OK) status = expect_plane(entry, 0, "codes", quant->elem->bits, entry->rows, entry->cols, err);
    if (status == OK) status = expect_tile(entry, 0, entry->tile_rows, entry->tile_cols, err);
    if (status == OK) status = check_group_plane(tensor, entry, 1, "scales", scale_type_bits(quant->scale), quant->group, err);
    if (status != OK || !side_bits) return status;
    if (quant->sub_block) return check_group_plane(tensor, entry, 2, PLANE_SHIFTS, side_bits, quant->sub_block, err);
    return check_group_plane(tensor, entry, 2, PLANE_ZEROS, side_bits, quant->group, err);
}

/* Index of the plane that stands before the last n, which need not exist. */
static uint32_t behind(const struct llmq_entry *entry, uint32_t n)
{
    return entry->n_planes - 1 - n;
}

/* A plane of binary32 of the tensor as a whole, in one tile. */
static enum status expect_single(const struct llmq_entry *entry, uint32_t index, const char *name, uint64_t rows, uint64_t cols, struct err *err)
{
    enum status status = expect_plane(entry, index, name, 32, rows, cols, err);
    if (status != OK || plane_tile_count(&entry->planes[index].plane) == 1) return status;
    return err_set(err, ERR_DATA, "plane '%s' has more than one tile", name);
}

static enum status check_tensor_scale(const struct tensor *tensor, const struct llmq_entry *entry, struct err *err)
{
    return expect_single(entry, behind(entry, entry->quant.input_scale), PLANE_TENSOR_SCALE, 1, tensor_shape(tensor).n_matrices, err);
}

static enum status check_quantised(const cJSON *item, const struct tensor *tensor, struct llmq_entry *entry, struct err *err)
{
    struct quant *quant = &entry->quant;
    if (tensor->n_weights == 0) return err_set(err, ERR_DATA, "it is quantised, but has no weights");
    quant->blocks = quant->format->family->blocks;
    quant->input_scale = has_name(entry, behind(entry, 0), PLANE_INPUT_SCALE);
    enum status status =
        quant->input_scale ? expect_single(entry, behind(entry, 0), PLANE_INPUT_SCALE, tensor_shape(tensor).n_matrices, entry->cols, err) : OK;
    if (status != OK) return status;
    if (quant->blocks) return check_blocks(tensor, entry, err);
    quant->tensor_scale = has_name(entry, behind(entry, quant->input_scale), PLANE_TENSOR_SCALE);
    status = quant->tensor_scale ? check_tensor_scale(tensor, entry, err) : OK;
    if (status == OK) status = read_shifts(item, entry, err);
    return status == OK ? check_codes(tensor, entry, (uint32_t)quant->tensor_scale + quant->input_scale, err) : status;
}

static enum status read_quantised(struct parse *parse, const cJSON *item, struct tensor *tensor, struct llmq_entry *entry, struct err *err)
{
    struct quant *quant = &entry->quant;
    const struct stored_format *format = find_format(parse, entry->format);
    if (!format) return err_set(err, ERR_DATA, "its format '%s' is not described", shown_str(entry->format).text);
    entry->format = format->name;
    entry->family = format->family;
    enum status status = get_name(parse->index, item, "scale", &entry->scale, err);
    if (status == OK) status = get_name(parse->index, item, "scale_rule", &entry->scale_rule, err);
    if (status == OK) status = get_name(parse->index, item, "rounding", &entry->rounding, err);
    if (status == OK) status = get_name(parse->index, item, "percentile", &entry->percentile, err);
    if (status != OK || !format->decodable) return status;
    uint64_t axis = 0;
    status = read_group(item, quant, err);
    if (status == OK) status = json_u64_in(item, "axis", 0, TENSOR_RANK_MAX, &axis, err);
    if (status != OK) return status;
    if (axis != (tensor->rank ? tensor->rank - 1 : 0))
        return err_set(err, ERR_UNSUPPORTED, "its groups run along dim %" PRIu64 ", not along the last", axis);
    quant->format = &format->facts.format;
    quant->elem = quant->format->elem;
    quant->scale = scale_type_find(entry->scale);
    quant->rule = scale_rule_find(entry->scale_rule);
    quant->rounding = rounding_find(entry->rounding);
    if (entry->percentile[0] && !quant_read_percentile(entry->percentile, &quant->percentile))
        return err_set(err, ERR_DATA, "its percentile '%s' is not a number from 0 to 100", shown_str(entry->percentile).text);
    if (quant->scale == SCALE_TYPE_COUNT || (quant->scale == SCALE_NONE) != quant->format->family->blocks) return OK;
    entry->decodable = true;
    tensor->quant = quant;
    return check_quantised(item, tensor, entry, err);
}

static enum status read_tensor(struct parse *parse, const cJSON *item, struct tensor *tensor, struct llmq_entry *entry, struct err *err)
{
    struct llmq_index *index = parse->index;
    if (!cJSON_IsObject(item)) return err_set(err, ERR_DATA, "it is not an object");
    enum status status = read_shape(index, item, tensor, entry, err);
    if (status == OK) status = read_dtype(item, tensor, err);
    if (status == OK) status = get_name(index, item, "role", &entry->role, err);
    if (status == OK) status = read_digest(item, &entry->source_digest, err);
    if (status == OK) status = json_pair(item, "tile", &entry->tile_rows, &entry->tile_cols, err);
    if (status == OK && (entry->tile_rows == 0 || entry->tile_cols == 0)) status = err_set(err, ERR_DATA, "its tile is empty");
    if (status == OK) status = read_planes(parse, item, entry, err);
    if (status != OK) return status;
    tensor->file = entry->shard = parse->shard->header.shard_index;
    tensor->offset = entry->planes[0].offset;
    for (uint32_t p = 0; p < entry->n_planes; p++) tensor->stored_nbytes += plane_nbytes(&entry->planes[p].plane);
    entry->scale = entry->scale_rule = entry->rounding = entry->percentile = "";
    if (!json_get(item, "format")) return check_kept(tensor, entry, err);
    tensor->quantised = entry;
    status = json_string(json_get(item, "format"), "format", &entry->format, err);
    if (status == OK) status = read_quantised(parse, item, tensor, entry, err);
    tensor->format = entry->format;
    return status;
}

static enum status grow_tensors(struct llmq_index *index, struct err *err)
{
    if (index->n_tensors < index->tensors_capacity) return OK;
    size_t capacity = index->tensors_capacity ? 2 * index->tensors_capacity : 64;
    struct tensor *tensors = realloc(index->tensors, capacity * sizeof *tensors);
    if (tensors) index->tensors = tensors;
    const struct llmq_entry **entries = realloc(index->entries, capacity * sizeof *entries);
    if (entries) index->entries = entries;
    if (!tensors || !entries) return out_of_memory(err);
    index->tensors_capacity = capacity;
    return OK;
}

static enum status check_name(const char *name, size_t nbytes, struct err *err)
{
    if (nbytes == 0 || nbytes > TENSOR_NAME_MAX) return err_set(err, ERR_DATA, "a tensor's name has %zu bytes", nbytes);
    for (size_t i = 0; i < nbytes; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7F)
            return err_set(err, ERR_DATA, "the name of tensor '%s' has control characters", shown(name, nbytes).text);
    return OK;
}

static enum status add_tensor(void *context, const char *key, size_t key_nbytes, const char *value, size_t value_nbytes, struct err *err)
{
    struct parse *parse = context;
    struct llmq_index *index = parse->index;
    struct tensor tensor = { 0 };
    enum status status = check_name(key, key_nbytes, err);
    if (status == OK) status = grow_tensors(index, err);
    if (status == OK) status = keep_bytes(index, key, key_nbytes, &tensor.name, err);
    if (status != OK) return status;
    struct llmq_entry *entry = take(index, sizeof *entry);
    if (!entry) return out_of_memory(err);
    cJSON *item;
    status = json_parse_checked(value, value_nbytes, &item, err);
    if (status == OK) {
        status = read_tensor(parse, item, &tensor, entry, err);
        cJSON_Delete(item);
    }
    if (status != OK) return err_wrap(err, status, "tensor '%s'", shown(key, key_nbytes).text);
    index->tensors[index->n_tensors] = tensor;
    index->entries[index->n_tensors++] = entry;
    return OK;
}

/* ---- the whole text ------------------------------------------------------------------------------------------------------------- */

enum { WRITER, METADATA, FORMATS, BLOBS, TENSORS, MEMBERS };

struct member {
    const char *text; /* inside the index text; NULL: absent */
    size_t nbytes;
};

static enum status find_member(void *context, const char *key, size_t key_nbytes, const char *value, size_t value_nbytes, struct err *err)
{
    (void)err;
    static const char *const names[MEMBERS] = { "writer", "metadata", "formats", "blobs", "tensors" };
    struct member *members = context;
    for (size_t i = 0; i < MEMBERS; i++)
        if (strlen(names[i]) == key_nbytes && memcmp(names[i], key, key_nbytes) == 0) members[i] = (struct member){ value, value_nbytes };
    return OK;
}

static enum status check_metadata(void *context, const char *key, size_t key_nbytes, const char *value, size_t value_nbytes, struct err *err)
{
    size_t *count = context;
    (*count)++;
    if (value_nbytes && value[0] == '"') return OK;
    return err_set(err, ERR_DATA, "metadata '%s' is not a string", shown(key, key_nbytes).text);
}

static enum status read_metadata(struct llmq_index *index, const struct member *member, struct err *err)
{
    size_t count = 0;
    enum status status = json_walk_object(member->text, member->nbytes, &item_limits, check_metadata, &count, err);
    return status == OK && count ? copy_text(member->text, member->nbytes, &index->metadata, err) : status;
}

static enum status read_writer(struct llmq_index *index, const struct member *member, struct err *err)
{
    cJSON *item;
    const char *value;
    enum status status = json_parse(member->text, member->nbytes, &item_limits, &item, err);
    if (status != OK) return status;
    status = json_string(item, "writer", &value, err);
    if (status == OK) status = copy_text(value, strlen(value), &index->writer, err);
    cJSON_Delete(item);
    return status;
}

static enum status walk(struct parse *parse, const struct member *member, json_member_fn *fn, const char *what, struct err *err)
{
    if (!member->text) return OK;
    enum status status = json_walk_object(member->text, member->nbytes, &item_limits, fn, parse, err);
    return status == OK ? OK : err_wrap(err, status, "%s", what);
}

static enum status read_members(struct parse *parse, const struct member members[MEMBERS], struct err *err)
{
    bool is_first = parse->shard->header.shard_index == 0;
    enum status status = OK;
    if (!members[TENSORS].text) return err_set(err, ERR_DATA, "there is no member 'tensors'");
    if (is_first && members[METADATA].text) status = read_metadata(parse->index, &members[METADATA], err);
    if (status == OK && is_first && members[WRITER].text) status = read_writer(parse->index, &members[WRITER], err);
    if (status == OK) status = walk(parse, &members[FORMATS], add_format, "formats", err);
    if (status == OK) status = walk(parse, &members[BLOBS], add_blob, "blobs", err);
    if (status == OK) status = walk(parse, &members[TENSORS], add_tensor, "tensors", err);
    if (status == OK && parse->n_taken != parse->shard->trailer.n_chunks)
        status = err_set(err, ERR_DATA, "%" PRIu64 " chunks belong to nothing", parse->shard->trailer.n_chunks - parse->n_taken);
    return status;
}

enum status llmq_index_add(struct llmq_index *index, const struct llmq_shard *shard, const char *text, size_t nbytes, struct err *err)
{
    const struct json_limits whole = { .max_depth = DEPTH_MAX, .max_values = UINT64_MAX, .plain_integers = true };
    struct member members[MEMBERS] = { { 0 } };
    struct parse parse = { .index = index, .shard = shard, .taken = calloc((size_t)(shard->trailer.n_chunks / 8 + 1), 1) };
    struct llmq_span *spans = NULL;
    size_t n_spans;
    enum status status = parse.taken ? OK : out_of_memory(err);
    if (status == OK) status = json_walk_object(text, nbytes, &whole, find_member, members, err);
    if (status == OK) status = read_members(&parse, members, err);
    if (status == OK) status = llmq_spans(shard, &spans, &n_spans, err);
    free(spans);
    free(parse.taken);
    return status == OK ? OK : err_wrap(err, status, "bad index");
}

/* ---- spans ---------------------------------------------------------------------------------------------------------------------- */

static int compare_spans(const void *a, const void *b)
{
    const struct llmq_span *x = a, *y = b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Fills spans (NULL: only counts) with the runs of chunks that lie one behind the other in table order. */
static size_t collect_spans(const struct llmq_shard *shard, struct llmq_span *spans)
{
    size_t n = 0;
    uint64_t end = 0;
    for (uint64_t i = 0; i < shard->trailer.n_chunks; i++) {
        struct llmq_chunk chunk = llmq_chunk_load(shard->table + i * LLMQ_CHUNK_NBYTES);
        if (n && chunk.offset == end) {
            if (spans) spans[n - 1].nbytes += chunk.stored;
        } else {
            if (spans) spans[n] = (struct llmq_span){ chunk.offset, chunk.stored };
            n++;
        }
        end = chunk.offset + chunk.stored;
    }
    return n;
}

enum status llmq_spans(const struct llmq_shard *shard, struct llmq_span **spans, size_t *n_spans, struct err *err)
{
    *n_spans = collect_spans(shard, NULL);
    *spans = malloc((*n_spans + 1) * sizeof **spans);
    if (!*spans) return out_of_memory(err);
    collect_spans(shard, *spans);
    bool sorted = true;
    for (size_t i = 1; i < *n_spans; i++) sorted &= (*spans)[i].offset >= (*spans)[i - 1].offset;
    if (!sorted) qsort(*spans, *n_spans, sizeof **spans, compare_spans);
    for (size_t i = 1; i < *n_spans; i++)
        if ((*spans)[i].offset - (*spans)[i - 1].offset < (*spans)[i - 1].nbytes) {
            uint64_t at = (*spans)[i].offset;
            free(*spans);
            *spans = NULL;
            return err_set(err, ERR_DATA, "chunks overlap at offset %" PRIu64, at);
        }
    return OK;
}
