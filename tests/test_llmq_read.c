/* test_llmq_read.c: what was written comes back bit by bit, and nothing else is ever accepted: flipped, cut, appended, re-signed lies, bombs, wrong
 * shards.
 *
 * Why this way: damage is made on real files; lies are signed with right checksums, so that the structural checks are what refuses them.
 * Corner cases: every bit of a small file; every length; every message that a user should be able to tell apart.
 * Reference: FORMAT.md 5; reliability notes 3.3, 5.3. Worked number: a tensor kept as F16 0x3C01: planes high 3C, low 01, read back 01 3C.
 */
#include "support/support.h"

#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

#include "base/pool.h"
#include "base/digest.h"
#include "container/llmq_file.h"
#include "container/llmq_read.h"
#include "layout/pack.h"
#include "number/half.h"
#include "support/model.h"

static struct err err;

static const uint64_t no_dims[1] = { 0 };

/* ---- reading everything --------------------------------------------------------------------------------------------------------- */

/* What `llmq verify` does: every chunk, every blob, every padding byte. */
static enum status verify_open(struct container *container, struct err *e)
{
    enum status status = OK;
    for (size_t i = 0; status == OK && i < container->n_tensors; i++) {
        const struct llmq_entry *entry = llmq_entry_of(container, i);
        for (uint32_t p = 0; status == OK && p < entry->n_planes; p++)
            for (uint64_t t = 0; status == OK && t < plane_tile_count(&entry->planes[p].plane); t++) status = llmq_check_chunk(container, i, p, t, e);
    }
    for (size_t i = 0; status == OK && i < container->n_blobs; i++) {
        char *bytes = malloc((size_t)container->blobs[i].nbytes + 1);
        status = container_read_blob(container, i, 0, (size_t)container->blobs[i].nbytes, bytes, e);
        free(bytes);
    }
    for (size_t i = 0; status == OK && i < container->n_files; i++) status = llmq_check_padding(container, i, e);
    return status;
}

static enum status verify(const char *path, struct err *e)
{
    struct container *container = NULL;
    enum status status = container_open(&io_system, path, &container, e);
    if (status == OK) status = verify_open(container, e);
    container_close(container);
    return status;
}

static void check_kept(struct container *container, size_t index, const struct model_tensor *own, uint64_t *seed)
{
    const struct tensor *tensor = &container->tensors[index];
    assert_null(tensor->quantised);
    assert_int_equal(tensor->nbytes, own->n_plain);
    uint8_t *bytes = malloc(own->n_plain + 1);
    assert_ok(container_read(container, index, 0, own->n_plain, bytes, &err));
    assert_memory_equal(bytes, own->plain, own->n_plain);
    for (int i = 0; own->n_plain && i < 8; i++) {
        size_t from = (size_t)(test_random(seed) % own->n_plain), n = (size_t)(test_random(seed) % (own->n_plain - from) + 1);
        memset(bytes, 0xEE, own->n_plain + 1);
        assert_ok(container_read(container, index, from, n, bytes, &err));
        assert_memory_equal(bytes, own->plain + from, n);
        assert_int_equal(bytes[n], 0xEE);
    }
    free(bytes);
}

/* (code - zero) * scale of one weight, straight from the planes' bytes. */
static float weight_of(const struct out_tensor *tensor, const struct model_tensor *own, uint64_t row, uint64_t col)
{
    const struct plane *codes = &tensor->planes[0].plane, *scales = &tensor->planes[1].plane;
    uint32_t bits = codes->bits;
    uint64_t tile = row / codes->tile_rows * ((codes->cols + codes->tile_cols - 1) / codes->tile_cols) + col / codes->tile_cols;
    struct tile at = plane_tile(codes, tile);
    uint64_t row_bytes = (at.n_cols * bits + 7) / 8;
    uint16_t code, zero = 0, scale;
    unpack_bits(own->planes[0] + plane_tile_offset(codes, tile) + (row - at.row) * row_bytes, col - at.col, 1, bits, &code);
    uint64_t srow = scales->rows == 1 ? 0 : row, group = scales->cols == 1 ? 0 : col / (uint64_t)strtoull(tensor->group, NULL, 10);
    memcpy(&scale, own->planes[1] + (srow * scales->cols + group) * 2, 2);
    int32_t value = code;
    if (tensor->n_planes == 3) {
        const struct plane *zeros = &tensor->planes[2].plane;
        unpack_bits(own->planes[2] + srow * plane_row_nbytes(zeros), group, 1, bits, &zero);
        value -= zero;
    } else if (code >> (bits - 1)) {
        value -= 1 << bits;
    }
    return (float)value * bf16_to_f32(scale);
}

static void check_rect(struct container *container, size_t index, const struct out_tensor *tensor, const struct model_tensor *own, uint64_t row,
                       uint64_t n_rows, uint64_t col, uint64_t n_cols)
{
    size_t n = (size_t)(n_rows * n_cols);
    float *out = malloc((n + 1) * sizeof *out);
    out[n] = 4711.0f;
    assert_ok(container_read_f32(container, index, row, n_rows, col, n_cols, out, &err));
    for (uint64_t r = 0; r < n_rows; r++)
        for (uint64_t c = 0; c < n_cols; c++) {
            float wanted = weight_of(tensor, own, row + r, col + c);
            if (f32_bits(out[r * n_cols + c]) != f32_bits(wanted))
                fail_msg("%s (%llu, %llu): %a, wanted %a", tensor->name, (unsigned long long)(row + r), (unsigned long long)(col + c),
                         (double)out[r * n_cols + c], (double)wanted);
        }
    assert_true(out[n] == 4711.0f);
    free(out);
}

static void check_quantised(struct container *container, size_t index, const struct out_tensor *tensor, const struct model_tensor *own,
                            uint64_t *seed)
{
    const struct plane *codes = &tensor->planes[0].plane;
    assert_non_null(container->tensors[index].quantised);
    assert_true(llmq_entry_of(container, index)->decodable);
    for (uint32_t p = 0; p < tensor->n_planes; p++)
        for (uint64_t t = 0; t < plane_tile_count(&tensor->planes[p].plane); t++) {
            size_t nbytes = (size_t)plane_tile_nbytes(&tensor->planes[p].plane, t);
            uint8_t *bytes = malloc(nbytes);
            assert_ok(llmq_read_tile(container, index, p, t, bytes, &err));
            assert_memory_equal(bytes, own->planes[p] + plane_tile_offset(&tensor->planes[p].plane, t), nbytes);
            free(bytes);
        }
    for (int i = 0; i < 6; i++) {
        uint64_t row = test_random(seed) % codes->rows, col = test_random(seed) % codes->cols;
        uint64_t n_rows = 1 + test_random(seed) % (codes->rows - row), n_cols = 1 + test_random(seed) % (codes->cols - col);
        check_rect(container, index, tensor, own, row, n_rows < 20 ? n_rows : 20, col, n_cols);
    }
    check_rect(container, index, tensor, own, codes->rows - 1, 1, 0, codes->cols);
}

/* Everything in the model is in the file at path, and sound. */
static void check_model(const struct model *model, const char *path)
{
    struct container *container;
    uint64_t seed = 11;
    assert_ok(container_open(&io_system, path, &container, &err));
    assert_true(llmq_is(container));
    assert_int_equal(container->n_tensors, model->n_tensors);
    assert_int_equal(container->n_blobs, model->n_blobs);
    for (size_t i = 0; i < model->n_tensors; i++) {
        const struct tensor *tensor = &container->tensors[i];
        const struct out_tensor *out = &model->tensors[i];
        const struct llmq_entry *entry = llmq_entry_of(container, i);
        assert_string_equal(tensor->name, out->name);
        assert_string_equal(tensor->dtype->name, out->dtype);
        assert_string_equal(entry->role, out->role);
        assert_int_equal(tensor->rank, out->rank);
        assert_int_equal(tensor->file, out->shard);
        for (uint32_t d = 0; d < out->rank; d++) assert_int_equal(tensor->dims[d], out->dims[d]);
        assert_memory_equal(entry->source_digest.bytes, model->digests[i].bytes, 16);
        if (out->format) check_quantised(container, i, out, &model->own[i], &seed);
        else check_kept(container, i, &model->own[i], &seed);
        assert_int_equal(container_find(container, out->name), i);
    }
    for (size_t i = 0; i < model->n_blobs; i++) {
        size_t nbytes = (size_t)model->blobs[i].nbytes;
        uint8_t *bytes = malloc(nbytes + 1);
        assert_string_equal(container->blobs[i].name, model->blobs[i].name);
        assert_ok(container_read_blob(container, i, 0, nbytes, bytes, &err));
        assert_memory_equal(bytes, model->blob_bytes[i], nbytes);
        if (nbytes > 300000) {
            assert_ok(container_read_blob(container, i, 262000, 1000, bytes, &err));
            assert_memory_equal(bytes, model->blob_bytes[i] + 262000, 1000);
        }
        free(bytes);
    }
    assert_ok(container_check_unchanged(container, &err));
    assert_ok(verify_open(container, &err));
    container_close(container);
}

static void write_model(struct model *model, const char *path, enum compress_mode mode)
{
    struct writer_options options = model_options(path, mode);
    options.n_workers = 2;
    options.tiles_per_job = 3;
    assert_ok(model_write(&llmq_writer_ops, model, &options, NULL, &err));
}

/* ---- round trips ---------------------------------------------------------------------------------------------------------------- */

static void test_kept_dtypes(void **state)
{
    (void)state;
    static const uint64_t dims[][5] = { { 0 },         { 1 },       { 8 },          { 172 },           { 0 },
                                        { 4, 6 },      { 0, 8 },    { 8, 0 },       { 3000, 200 },     { 1, 300000 },
                                        { 2, 262152 }, { 2, 3, 4 }, { 2, 1, 4, 3 }, { 2, 2, 2, 2, 2 }, { 2, 0, 2, 2, 2 } };
    static const uint32_t ranks[] = { 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 4, 5, 5 };
    char *dir = temp_dir(), name[64];
    const char *path = temp_path(dir, "m.llmq");
    for (int mode = COMPRESS_NONE; mode <= COMPRESS_DEFAULT; mode++) {
        struct model *model = model_make(21);
        for (size_t d = 0; d < dtype_count(); d++)
            for (size_t s = 0; s < sizeof ranks / sizeof *ranks; s++) {
                uint64_t n = 1;
                for (uint32_t r = 0; r < ranks[s]; r++) n *= dims[s][r];
                if (n * dtype_at(d)->bits % 8 || (n > 500000 && dtype_at(d)->bits > 32)) continue;
                snprintf(name, sizeof name, "%s.%zu", dtype_at(d)->name, s);
                model_add_kept(model, name, dtype_at(d)->name, ranks[s], dims[s], mode != COMPRESS_NONE, s % 4 == 3);
            }
        write_model(model, path, (enum compress_mode)mode);
        check_model(model, path);
        model_free(model);
    }
    temp_dir_remove(dir);
}

static void test_planes(void **state)
{
    (void)state;
    static const uint64_t groups[] = { 32, 5, 0, UINT64_MAX, 1, 4096 };
    char *dir = temp_dir(), name[64];
    const char *path = temp_path(dir, "m.llmq");
    for (int mode = COMPRESS_NONE; mode <= COMPRESS_DEFAULT; mode++) {
        struct model *model = model_make(22);
        for (uint32_t bits = 1; bits <= 16; bits++)
            for (size_t g = 0; g < sizeof groups / sizeof *groups; g++)
                for (int zeros = 0; zeros < 2; zeros++) {
                    snprintf(name, sizeof name, "b%u.g%zu.z%d", bits, g, zeros);
                    model_add_quantised(model, name, 2, (const uint64_t[]){ 21, 173 }, bits, groups[g], zeros, bits % 2);
                    if (bits % 5 != 4) continue;
                    strcat(name, ".tall");
                    model_add_quantised(model, name, 3, (const uint64_t[]){ 2, 1000, 301 }, bits, groups[g], zeros, bits % 2);
                    strcat(name, ".long");
                    model_add_quantised(model, name, 2, (const uint64_t[]){ 3, 300001 }, bits, groups[g], zeros, bits % 2);
                }
        model_add_quantised(model, "one", 1, (const uint64_t[]){ 77 }, 4, 32, true, false);
        write_model(model, path, (enum compress_mode)mode);
        check_model(model, path);
        model_free(model);
    }
    temp_dir_remove(dir);
}

static void test_split_planes(void **state)
{
    (void)state;
    char *dir = temp_dir();
    const char *path = temp_path(dir, "m.llmq");
    struct model *model = model_make(1);
    model_add_kept(model, "h", "F16", 1, (const uint64_t[]){ 1 }, true, false);
    memcpy(model->own[0].plain, "\x01\x3C", 2);
    model->own[0].planes[0][0] = 0x3C;
    model->own[0].planes[1][0] = 0x01;
    write_model(model, path, COMPRESS_MAX);
    check_model(model, path);
    model_free(model);
    temp_dir_remove(dir);
}

static void test_metadata(void **state)
{
    (void)state;
    static const char *const texts[] = { NULL, "{}", "{\"format\":\"pt\",\"b\":\"\\u00e9\"}" };
    char *dir = temp_dir();
    const char *path = temp_path(dir, "m.llmq");
    for (size_t i = 0; i < 3; i++) {
        struct model *model = model_make(1);
        model_add_kept(model, "a \"b\" \xC3\xA9", "U8", 1, (const uint64_t[]){ 3 }, false, true);
        struct writer_options options = model_options(path, COMPRESS_NONE);
        options.metadata_json = texts[i];
        assert_ok(model_write(&llmq_writer_ops, model, &options, NULL, &err));
        check_model(model, path);
        struct container *container;
        assert_ok(container_open(&io_system, path, &container, &err));
        if (i == 2) assert_string_equal(container->metadata_json, texts[i]);
        else assert_null(container->metadata_json);
        assert_string_equal(llmq_writer_of(container), "llmq test");
        container_close(container);
        model_free(model);
    }
    temp_dir_remove(dir);
}

/* ---- damage --------------------------------------------------------------------------------------------------------------------- */

static struct model *small_model(bool mapped)
{
    struct model *model = model_make(9);
    model_add_kept(model, "norm", "BF16", 1, (const uint64_t[]){ 24 }, true, mapped);
    model_add_kept(model, "bias", "F32", 1, (const uint64_t[]){ 3 }, true, mapped);
    model_add_quantised(model, "down", 2, (const uint64_t[]){ 3, 40 }, 4, 32, true, mapped);
    model_add_kept(model, "long", "U8", 1, (const uint64_t[]){ 300 }, true, mapped);
    memset(model->own[3].planes[0], 'a', 300);
    memset(model->own[3].plain, 'a', 300);
    model_add_blob(model, "config.json", 50, true);
    return model;
}

static void poke(int fd, size_t at, uint8_t byte)
{
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
}

/* All eight bits of every byte, one at a time. */
static void flip_all(const char *path, enum compress_mode mode)
{
    struct model *model = small_model(mode == COMPRESS_NONE);
    size_t nbytes, n_flips = 0;
    write_model(model, path, mode);
    model_free(model);
    assert_ok(verify(path, &err));
    char *file = read_file(path, &nbytes);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    for (size_t at = 0; at < nbytes; at++) {
        for (int bit = 0; bit < 8; bit++, n_flips++) {
            poke(fd, at, (uint8_t)(file[at] ^ (1 << bit)));
            if (verify(path, &err) == OK) fail_msg("mode %d: bit %d of byte %zu of %zu flipped and accepted", (int)mode, bit, at, nbytes);
        }
        poke(fd, at, (uint8_t)file[at]);
    }
    close(fd);
    assert_ok(verify(path, &err));
    print_message("%zu flips of %zu bytes refused\n", n_flips, nbytes);
    free(file);
}

static void test_flips(void **state)
{
    (void)state;
    char *dir = temp_dir();
    const char *path = temp_path(dir, "m.llmq");
    flip_all(path, COMPRESS_NONE);
    flip_all(path, COMPRESS_DEFAULT);
    temp_dir_remove(dir);
}

static void test_cuts(void **state)
{
    (void)state;
    char *dir = temp_dir();
    const char *path = temp_path(dir, "m.llmq"), *cut = temp_path(dir, "cut.llmq");
    struct model *model = small_model(false);
    size_t nbytes;
    write_model(model, path, COMPRESS_DEFAULT);
    model_free(model);
    char *file = read_file(path, &nbytes);
    write_file(cut, file, nbytes);
    assert_ok(verify(cut, &err));
    for (size_t n = nbytes; n-- > 0;) {
        assert_int_equal(truncate(cut, (off_t)n), 0);
        if (n < 8) assert_int_not_equal(verify(cut, &err), OK);
        else assert_refused(verify(cut, &err), ERR_DATA, "cut.llmq': it is truncated");
    }
    char *longer = calloc(1, nbytes + 5000);
    memcpy(longer, file, nbytes);
    for (size_t n = 1; n < 5000; n = n < 200 ? n + 1 : n * 2) {
        char wanted[64];
        snprintf(wanted, sizeof wanted, "%zu bytes were appended", n);
        memset(longer + nbytes, 0, n);
        write_file(cut, longer, nbytes + n);
        assert_refused(verify(cut, &err), ERR_DATA, wanted);
        memset(longer + nbytes, 0x5A, n);
        write_file(cut, longer, nbytes + n);
        assert_refused(verify(cut, &err), ERR_DATA, wanted);
        memcpy(longer + nbytes, file, n < nbytes ? n : nbytes);
        write_file(cut, longer, nbytes + n);
        assert_refused(verify(cut, &err), ERR_DATA, "appended");
    }
    free(longer);
    free(file);
    temp_dir_remove(dir);
}

/* ---- signed lies ---------------------------------------------------------------------------------------------------------------- */

/* A file in parts, to be changed and signed again. */
struct image {
    uint8_t *payload; /* bytes from 0 to the index; the header is made anew */
    size_t n_payload;
    char *text;
    size_t n_text;
    uint8_t *stored; /* the index as stored when it is not the text */
    size_t n_stored;
    uint8_t *table;
    uint64_t n_chunks;
    struct llmq_header header;
    int64_t add_raw, add_file, add_offset; /* lies of the trailer */
};

static struct image image_load(const char *path)
{
    struct image image = { 0 };
    struct llmq_trailer trailer;
    uint64_t checksum;
    size_t nbytes;
    uint8_t *file = (uint8_t *)read_file(path, &nbytes);
    assert_ok(llmq_header_load(file, &image.header, &checksum, &err));
    assert_ok(llmq_trailer_load(file + nbytes - LLMQ_TRAILER_NBYTES, nbytes, checksum, &trailer, &err));
    image.n_payload = (size_t)trailer.index_offset;
    image.payload = malloc(image.n_payload + (1u << 20));
    memcpy(image.payload, file, image.n_payload);
    image.n_text = (size_t)trailer.index_raw;
    image.text = calloc(1, image.n_text + 65536);
    if (trailer.index_raw == trailer.index_stored) memcpy(image.text, file + image.n_payload, image.n_text);
    else assert_int_equal(ZSTD_decompress(image.text, image.n_text, file + image.n_payload, (size_t)trailer.index_stored), image.n_text);
    image.n_chunks = trailer.n_chunks;
    image.table = malloc((size_t)(image.n_chunks + 64) * LLMQ_CHUNK_NBYTES);
    memcpy(image.table, file + trailer.index_offset + trailer.index_stored, (size_t)image.n_chunks * LLMQ_CHUNK_NBYTES);
    free(file);
    return image;
}

static void image_free(struct image *image)
{
    free(image->payload);
    free(image->text);
    free(image->stored);
    free(image->table);
}

/* Signs everything and writes it. */
static void image_write(struct image *image, const char *path)
{
    const void *stored = image->stored ? (const void *)image->stored : image->text;
    size_t n_stored = image->stored ? image->n_stored : image->n_text, n_table = (size_t)image->n_chunks * LLMQ_CHUNK_NBYTES;
    size_t nbytes = image->n_payload + n_stored + n_table + LLMQ_TRAILER_NBYTES;
    uint8_t *file = malloc(nbytes), *end = file + nbytes - LLMQ_TRAILER_NBYTES;
    memcpy(file, image->payload, image->n_payload);
    memcpy(file + image->n_payload, stored, n_stored);
    memcpy(file + image->n_payload + n_stored, image->table, n_table);
    struct llmq_trailer trailer = { .index_offset = image->n_payload + (uint64_t)image->add_offset,
                                    .index_stored = n_stored,
                                    .index_raw = image->n_text + (uint64_t)image->add_raw,
                                    .n_chunks = image->n_chunks,
                                    .file_nbytes = nbytes + (uint64_t)image->add_file };
    trailer.header_checksum = llmq_header_store(&image->header, file);
    trailer.index_digest = digest128(file + image->n_payload, n_stored + n_table);
    trailer.set_digest = digest128(trailer.index_digest.bytes, 16);
    llmq_trailer_store(&trailer, end);
    write_file(path, file, nbytes);
    free(file);
}

/* Replaces the first occurrence of from behind the first occurrence of after. */
static void image_edit(struct image *image, const char *after, const char *from, const char *to)
{
    char *start = strstr(image->text, after), *at = start ? strstr(start, from) : NULL;
    if (!at) fail_msg("no '%s' behind '%s'", from, after);
    size_t n_from = strlen(from), n_to = strlen(to), rest = image->n_text - (size_t)(at - image->text) - n_from;
    memmove(at + n_to, at + n_from, rest + 1);
    memcpy(at, to, n_to);
    image->n_text = image->n_text + n_to - n_from;
}

#define LEVELS_5 "\"00000000\",\"00000000\",\"00000000\",\"00000000\",\"00000000\""
#define LEVELS_15 LEVELS_5 "," LEVELS_5 "," LEVELS_5

/* A plane of zeros made one of shifts, as bfp-prime has them: three edits make a good beginning, the fourth lies. */
static void test_lying_shifts(void **state)
{
    (void)state;
    static const struct {
        const char *to, *part;
    } cases[] = {
        { "\"group\":32", "sub_block" },
        { "\"group\":32,\"sub_block\":0", "sub_block is 0" },
        { "\"group\":32,\"sub_block\":40000", "sub_block is 40000" },
        { "\"group\":32,\"sub_block\":16", "shifts of 4 bits for sub-blocks of 16" },
        { "\"group\":\"channel\",\"sub_block\":16", "shifts of 4 bits" },
    };
    char *dir = temp_dir();
    const char *path = temp_path(dir, "m.llmq"), *lie = temp_path(dir, "lie.llmq");
    struct model *model = small_model(true);
    write_model(model, path, COMPRESS_NONE);
    model_free(model);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct image image = image_load(path);
        image_edit(&image, "formats", "\"family\":\"affine\"", "\"family\":\"bfp-prime\"");
        image_edit(&image, "formats", "\"zero_point\":true", "\"zero_point\":false");
        image_edit(&image, "down", "\"name\":\"zeros\"", "\"name\":\"shifts\"");
        image_edit(&image, "down", "\"group\":32", cases[i].to);
        image_write(&image, lie);
        image_free(&image);
        err.text[0] = '\0';
        if (verify(lie, &err) == OK) fail_msg("case %zu (%s) accepted", i, cases[i].to);
        if (!strstr(err.text, cases[i].part)) fail_msg("case %zu (%s): '%s' lacks '%s'", i, cases[i].to, err.text, cases[i].part);
    }
    temp_dir_remove(dir);
}

static void test_lying_index(void **state)
{
    (void)state;
    static const struct {
        const char *after, *from, *to, *part;
    } cases[] = {
        { "down", "[3,40]", "[4503599627370496,4503599627370496]", "overflows" },
        { "down", "[3,40]", "[3,40,4611686018427387904]", "2^53-1" },
        { "down", "[3,40]", "[4,40]", "plane 'codes' is" },
        { "down", "[3,40]", "[3,41]", "plane 'codes' is" },
        { "down", "[3,40]", "[0,40]", "no weights" },
        { "down", "[3,40]", "[3,-40]", "byte" },
        { "down", "[3,40]", "[3,4e1]", "byte" },
        { "down", "[3,40]", "[3,40.0]", "byte" },
        { "down", "[3,40]", "3", "shape is not an array" },
        { "down", "[3,40]", "[3,\"40\"]", "not a number" },
        { "down", "\"BF16\"", "\"BF17\"", "dtype 'BF17' is unknown" },
        { "norm", "\"BF16\"", "\"F32\"", "planes" },
        { "bias", "\"F32\"", "\"BF16\"", "plane 'data' is" },
        { "bias", "\"F32\"", "5", "dtype is not a string" },
        { "down", "\"source_digest\":\"", "\"source_digest\":\"X", "32 hexadecimal" },
        { "down", "\"source_digest\":", "\"source_digesd\":", "source_digest is missing" },
        { "down", "\"tile\":[6553,40]", "\"tile\":[6552,40]", "tiles of 6553" },
        { "down", "\"tile\":[6553,40]", "\"tile\":[0,40]", "tile is empty" },
        { "down", "\"tile\":[6553,40]", "\"tile\":[1]", "array of two" },
        { "down", "\"format\":\"uint4\"", "\"format\":\"uint5\"", "not described" },
        { "formats", "\"bits\":4", "\"bits\":5", "plane 'codes' is" },
        { "formats", "\"bits\":4", "\"bits\":17", "bits is 17" },
        { "formats", "\"zero_point\":true", "\"zero_point\":false", "3 planes, wanted 2" },
        { "formats", "\"fraction_bits\":0", "\"fraction_bits\":1", "no such element" },
        { "formats", "\"signed\":false,", "", "signed is missing" },
        { "formats", "\"special\":\"none\"", "\"special\":\"odd\"", "special is 'odd'" },
        { "formats", "\"signed\":false", "\"exponent_bits\":2,\"mantissa_bits\":1,\"bias\":1", "no such element" },
        { "formats", "\"signed\":false", "\"exponent_bits\":2,\"mantissa_bits\":2,\"bias\":1", "float element" },
        { "formats", "\"uint4\":{", "\"uint4\":{},\"uint4\":{", "uint4" },
        { "down", "\"group\":32", "\"group\":19", "plane 'scales' is" },
        { "down", "\"group\":32", "\"group\":0", "group is 0" },
        { "down", "\"group\":32", "\"group\":40000", "group is 40000" },
        { "down", "\"group\":32", "\"group\":\"row\"", "group is 'row'" },
        { "down", "\"group\":32", "\"group\":\"tensor\"", "plane 'scales' is" },
        { "down", "\"group\":32", "\"group\":\"128x128\"", "plane 'scales' is" },
        { "formats", "\"family\":\"affine\"", "\"family\":\"codebook\"", "levels are not 16" },
        { "formats", "\"family\":\"affine\"", "\"family\":\"codebook\",\"levels\":[\"3f800000\"]", "levels are not 16" },
        { "formats", "\"family\":\"affine\"", "\"family\":\"codebook\",\"levels\":[" LEVELS_15 ",\"7f800000\"]", "levels are not 16 finite" },
        { "formats", "\"family\":\"affine\"", "\"family\":\"codebook\",\"levels\":[" LEVELS_15 ",\"3F800000\"]", "levels are not 16 finite" },
        { "formats", "\"family\":\"affine\"", "\"family\":\"codebook\",\"levels\":[" LEVELS_15 ",1]", "levels are not 16 finite" },
        { "formats", "\"family\":\"affine\"", "\"family\":\"codebook\",\"levels\":[" LEVELS_15 ",\"00000000\",\"00000000\"]", "levels are not 16" },
        { "formats", "\"family\":\"affine\"", "\"family\":\"codebook\",\"levels\":[" LEVELS_15 ",\"00000000\"]", "no such element or zero point" },
        { "formats", "\"family\":\"affine\"", "\"family\":\"bfp-prime\"", "no such element or zero point" },
        { "down", "\"axis\":1", "\"axis\":0", "not along the last" },
        { "down", "\"scale\":\"bf16\"", "\"scale\":\"f32\"", "plane 'scales' is" },
        { "down", "\"name\":\"codes\"", "\"name\":\"scales\"", "not 'codes'" },
        { "down", "\"name\":\"codes\",\"bits\":4", "\"name\":\"codes\",\"bits\":8", "stored bytes" },
        { "down", "\"name\":\"codes\",\"bits\":4", "\"name\":\"codes\",\"bits\":0", "bits is 0" },
        { "down", "\"name\":\"zeros\",\"bits\":4", "\"name\":\"zeros\",\"bits\":3", "plane 'zeros' is" },
        { "down", "\"chunks\":[4,1]", "\"chunks\":[4,2]", "wanted 1" },
        { "down", "\"chunks\":[4,1]", "\"chunks\":[8,1]", "exceed the 8" },
        { "down", "\"chunks\":[4,1]", "\"chunks\":[9007199254740991,1]", "exceed the 8" },
        { "down", "\"chunks\":[4,1]", "\"chunks\":[2,1]", "belongs to something else" },
        { "down", "\"offset\":256", "\"offset\":257", "multiple of 64" },
        { "down", "\"offset\":256", "\"offset\":192", "offset says" },
        { "down", "\"offset\":256", "\"offset\":9007199254740991", "offset is" },
        { "down", "\"offset\":256", "\"offset\":0", "offset is" },
        { "tensors", "\"bias\":", "\"norm\":", "norm" },
        { "tensors", "\"bias\":", "\"\":", "0 bytes" },
        { "tensors", "\"bias\":", "\"a\\nb\":", "control" },
        { "tensors", "\"bias\":{", "\"bias\":[{", "byte" },
        { "tensors", "\"bias\":", "\"bias\":5,\"b2\":", "not an object" },
        { "blobs", "\"tensors\"", "\"tensor\"", "no member 'tensors'" },
        { "blobs", "\"config.json\"", "\"../config.json\"", "plain file name" },
        { "blobs", "\"config.json\"", "\"..\"", "plain file name" },
        { "blobs", "\"config.json\"", "\"\"", "plain file name" },
        { "blobs", "\"bytes\":50", "\"bytes\":51", "stored bytes for 51" },
        { "blobs", "\"bytes\":50", "\"bytes\":9007199254740991", "wanted 3" },
        { "blobs", "\"bytes\":50", "\"bytes\":0", "wanted 0" },
        { "blobs", "\"tile\":262144", "\"tile\":0", "tile is 0" },
        { "blobs", "\"tile\":262144", "\"tile\":16777217", "tile is 16777217" },
        { "blobs", "\"tile\":262144", "\"tile\":25", "wanted 2" },
        { "metadata", "{}", "{\"a\":1}", "not a string" },
        { "metadata", "{}", "[]", "byte" },
        { "writer", "\"llmq test\"", "7", "writer is not a string" },
        { "writer", "\"llmq test\"", "[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]", "byte" },
        { "writer", "{", "[{", "byte" },
        { "long", "\"shape\":[300]",
          "\"shape\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,"
          "1,300]",
          "65 dims" },
        { "long", "\"shape\":[300]", "\"shape\":[299]", "plane 'data' is" },
        { "long", "\"planes\":[", "\"planes\":[],\"p\":[", "0 planes" },
        { "long", "\"planes\":[{", "\"planes\":[{\"name\":\"a\",\"bits\":8,\"shape\":[0,0],\"tile\":[1,1],\"chunks\":[7,0]},{",
          "2 planes, wanted 1" },
        { "long", "\"planes\":[{",
          "\"planes\":[{\"name\":\"a\",\"bits\":64,\"shape\":[4611686018427387,4611686018427387],\"tile\":[1,1],\"chunks\":[0,0]},{", "overflows" },
        { "long", "\"planes\":[{", "\"planes\":[{\"name\":\"a\",\"bits\":8,\"shape\":[4096,8192],\"tile\":[4096,8192],\"chunks\":[0,0]},{",
          "larger than" },
    };
    char *dir = temp_dir();
    const char *path = temp_path(dir, "m.llmq"), *lie = temp_path(dir, "lie.llmq");
    struct model *model = small_model(true);
    write_model(model, path, COMPRESS_NONE);
    model_free(model);
    struct image same = image_load(path);
    image_write(&same, lie);
    assert_ok(verify(lie, &err));
    image_free(&same);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct image image = image_load(path);
        image_edit(&image, cases[i].after, cases[i].from, cases[i].to);
        image_write(&image, lie);
        image_free(&image);
        err.text[0] = '\0';
        if (verify(lie, &err) == OK) fail_msg("case %zu (%s -> %s) accepted", i, cases[i].from, cases[i].to);
        if (!strstr(err.text, cases[i].part) || !strstr(err.text, "cannot open"))
            fail_msg("case %zu (%s -> %s): '%s' lacks '%s'", i, cases[i].from, cases[i].to, err.text, cases[i].part);
    }
    print_message("%zu lies refused\n", sizeof cases / sizeof *cases);
    temp_dir_remove(dir);
}

static void test_tolerated(void **state)
{
    (void)state;
    static const struct {
        const char *after, *from, *to;
        bool decodable;
    } cases[] = {
        { "formats", "\"affine\"", "\"cubic\"", false },
        { "down", "\"scale\":\"bf16\"", "\"scale\":\"bf17\"", false },
        { "down", "\"scale_rule\":\"absmax\"", "\"scale_rule\":\"dream\"", true },
        { "down", "\"rounding\":\"nearest-even\",", "", true },
        { "down", "\"shape\"", "\"future\":{\"a\":[1,2,{}]},\"shape\"", true },
        { "{", "\"writer\"", "\"more\":[null,true,1],\"writer\"", true },
        { "formats", "\"element\":\"uint4\"", "\"element\":\"mine\"", true },
    };
    char *dir = temp_dir();
    const char *path = temp_path(dir, "m.llmq"), *lie = temp_path(dir, "lie.llmq");
    struct model *model = small_model(true);
    write_model(model, path, COMPRESS_NONE);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct image image = image_load(path);
        image_edit(&image, cases[i].after, cases[i].from, cases[i].to);
        image_write(&image, lie);
        image_free(&image);
        struct container *container;
        float out[40];
        assert_ok(container_open(&io_system, lie, &container, &err));
        assert_ok(verify_open(container, &err));
        assert_true(llmq_entry_of(container, 2)->decodable == cases[i].decodable);
        if (cases[i].decodable) assert_ok(container_read_f32(container, 2, 1, 1, 0, 40, out, &err));
        else assert_refused(container_read_f32(container, 2, 1, 1, 0, 40, out, &err), ERR_UNSUPPORTED, "cannot decode format 'uint4'");
        container_close(container);
    }
    /* another name for a known family: all members that name it */
    struct image image = image_load(path);
    image_edit(&image, "formats", "\"uint4\":{", "\"mine4\":{");
    image_edit(&image, "down", "\"uint4\"", "\"mine4\"");
    image_write(&image, lie);
    image_free(&image);
    struct container *container;
    uint64_t seed = 3;
    assert_ok(container_open(&io_system, lie, &container, &err));
    assert_string_equal(llmq_entry_of(container, 2)->format, "mine4");
    check_quantised(container, 2, &model->tensors[2], &model->own[2], &seed);
    container_close(container);
    model_free(model);
    temp_dir_remove(dir);
}

static void set_chunk(struct image *image, uint64_t number, struct llmq_chunk chunk)
{
    llmq_chunk_store(&chunk, image->table + number * LLMQ_CHUNK_NBYTES);
}

static struct llmq_chunk get_chunk(const struct image *image, uint64_t number)
{
    return llmq_chunk_load(image->table + number * LLMQ_CHUNK_NBYTES);
}

/* The chunks of "long" (300 bytes 'a', zstd) changed in the table. */
static void test_lying_table(void **state)
{
    (void)state;
    char *dir = temp_dir();
    const char *path = temp_path(dir, "m.llmq"), *lie = temp_path(dir, "lie.llmq");
    struct model *model = small_model(false);
    write_model(model, path, COMPRESS_DEFAULT);
    model_free(model);
    struct image image = image_load(path);
    uint64_t last = image.n_chunks - 1;
    struct llmq_chunk good = get_chunk(&image, last), bad, other = get_chunk(&image, 1);
    assert_int_equal(good.codec, LLMQ_ZSTD);
    assert_true(good.stored < 300);
#define REFUSED(what, status, part)                                                                                                                  \
    do {                                                                                                                                             \
        bad = good;                                                                                                                                  \
        what;                                                                                                                                        \
        set_chunk(&image, last, bad);                                                                                                                \
        image_write(&image, lie);                                                                                                                    \
        assert_refused(verify(lie, &err), status, part);                                                                                             \
        set_chunk(&image, last, good);                                                                                                               \
    } while (0)
    REFUSED(bad.codec = 2, ERR_DATA, "unknown codec 2");
    REFUSED(bad.codec = LLMQ_RAW, ERR_DATA, "stored bytes for 300");
    REFUSED(bad.stored = 0, ERR_DATA, "0 stored bytes");
    REFUSED(bad.stored = 300, ERR_DATA, "stored bytes for 300");
    REFUSED(bad.stored = UINT32_MAX, ERR_DATA, "stored bytes for 300");
    REFUSED(bad.offset = 63, ERR_DATA, "exceeds");
    REFUSED(bad.offset++, ERR_DATA, "exceeds");
    REFUSED(bad.offset = UINT64_MAX, ERR_DATA, "exceeds");
    REFUSED(bad.offset = UINT64_MAX - bad.stored + 1, ERR_DATA, "exceeds");
    REFUSED(bad.offset--, ERR_DATA, "overlap");
    REFUSED(bad.offset = other.offset, ERR_DATA, "overlap");
    REFUSED(bad.stored--, ERR_MISMATCH, "tensor 'long' of 'lie.llmq': plane 'data', tile 0: it is damaged");
    REFUSED(bad.checksum ^= 1, ERR_MISMATCH, "tensor 'long' of 'lie.llmq': plane 'data', tile 0: it is damaged");
    /* a chunk more than anybody has; a gap that is not zero */
    image.n_chunks++;
    set_chunk(&image, last + 1, good);
    image_write(&image, lie);
    assert_refused(verify(lie, &err), ERR_DATA, "1 chunks belong to nothing");
    image.n_chunks--;
    image.payload[image.n_payload++] = 0;
    image_write(&image, lie);
    assert_ok(verify(lie, &err));
    image.payload[image.n_payload - 1] = 1;
    image_write(&image, lie);
    assert_refused(verify(lie, &err), ERR_DATA, "belongs to nothing and is not zero");
    /* the feature bit */
    image.header.required = 0;
    image_write(&image, lie);
    assert_refused(verify(lie, &err), ERR_DATA, "is compressed, the header says none is");
    image_free(&image);
    temp_dir_remove(dir);
}

static void test_lying_ends(void **state)
{
    (void)state;
    char *dir = temp_dir();
    const char *path = temp_path(dir, "m.llmq"), *lie = temp_path(dir, "lie.llmq");
    struct model *model = small_model(false);
    write_model(model, path, COMPRESS_DEFAULT);
    model_free(model);
    struct image image = image_load(path);
#define LIE(set, unset, status, part)                                                                                                                \
    do {                                                                                                                                             \
        set;                                                                                                                                         \
        image_write(&image, lie);                                                                                                                    \
        assert_refused(verify(lie, &err), status, part);                                                                                             \
        unset;                                                                                                                                       \
    } while (0)
    LIE(image.header.required = 3, image.header.required = 1, ERR_UNSUPPORTED, "features this program does not know (bits 0x2)");
    LIE(image.header.required = UINT64_C(1) << 63, image.header.required = 1, ERR_UNSUPPORTED, "bits 0x8000000000000000");
    LIE(image.header.align = 96, image.header.align = 4096, ERR_DATA, "alignment 96");
    LIE(image.header.align = 32, image.header.align = 4096, ERR_DATA, "alignment 32");
    LIE(image.header.align = 0, image.header.align = 4096, ERR_DATA, "alignment 0");
    LIE(image.header.align = 1u << 22, image.header.align = 4096, ERR_DATA, "alignment 4194304");
    LIE(image.header.shard_count = 0, image.header.shard_count = 1, ERR_DATA, "shard index 0 of 0");
    LIE(image.header.shard_index = 1, image.header.shard_index = 0, ERR_DATA, "shard index 1 of 1");
    LIE(image.header.shard_count = 100000, image.header.shard_count = 1, ERR_DATA, "shard index 0 of 100000");
    LIE(image.header.shard_count = 99999, image.header.shard_count = 1, ERR_DATA, "its name does not end with");
    LIE(image.add_file = 1, image.add_file = 0, ERR_DATA, "its trailer says");
    LIE(image.add_file = -1, image.add_file = 0, ERR_DATA, "its trailer says");
    LIE(image.add_offset = 1, image.add_offset = 0, ERR_DATA, "contradicts itself");
    LIE(image.add_offset = INT64_MIN, image.add_offset = 0, ERR_DATA, "contradicts itself");
    LIE(image.add_offset = -(int64_t)image.n_payload, image.add_offset = 0, ERR_DATA, "contradicts itself");
    LIE(image.add_raw = -1, image.add_raw = 0, ERR_DATA, "claims an index");
    LIE(image.add_raw = INT64_MIN, image.add_raw = 0, ERR_DATA, "claims an index");
    LIE(image.add_raw = (int64_t)LLMQ_INDEX_MAX, image.add_raw = 0, ERR_DATA, "claims an index");
    image_free(&image);
    size_t nbytes;
    char *file = read_file(path, &nbytes);
    file[8] = 2;
    write_file(lie, file, nbytes);
    assert_refused(verify(lie, &err), ERR_MISMATCH, "header is damaged");
    uint64_t checksum = digest64(file, 56);
    char signature[8];
    memcpy(signature, file + 56, 8);
    memcpy(file + 56, &checksum, 8); /* as a future version would sign it */
    write_file(lie, file, nbytes);
    assert_refused(verify(lie, &err), ERR_UNSUPPORTED, "version 2 of the llmq format");
    memcpy(file + 56, signature, 8);
    file[8] = 1;
    file[0] = 'X';
    write_file(lie, file, nbytes);
    assert_refused(llmq_container_ops.open(&io_system, lie, &(struct container *){ NULL }, &err), ERR_DATA, "not an llmq file");
    write_file(lie, "", 0);
    assert_refused(llmq_container_ops.open(&io_system, lie, &(struct container *){ NULL }, &err), ERR_DATA, "not an llmq file");
    free(file);
    temp_dir_remove(dir);
}

/* ---- zstd bombs ----------------------------------------------------------------------------------------------------------------- */

/* frame becomes the last chunk of the file (that of "long", 300 bytes). */
static void check_bomb(const char *path, const char *lie, const void *frame, size_t nbytes, const char *part)
{
    struct image image = image_load(path);
    struct llmq_chunk chunk = get_chunk(&image, image.n_chunks - 1);
    memcpy(image.payload + chunk.offset, frame, nbytes);
    image.n_payload = (size_t)chunk.offset + nbytes;
    chunk.stored = (uint32_t)nbytes;
    chunk.checksum = digest64(frame, nbytes);
    set_chunk(&image, image.n_chunks - 1, chunk);
    image_write(&image, lie);
    if (part) assert_refused(verify(lie, &err), ERR_DATA, part);
    else assert_ok(verify(lie, &err));
    image_free(&image);
}

static size_t pack(const void *bytes, size_t nbytes, uint8_t *out, size_t capacity, bool with_size, bool with_checksum)
{
    ZSTD_CCtx *context = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, with_size);
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, with_checksum);
    size_t n = ZSTD_compress2(context, out, capacity, bytes, nbytes);
    ZSTD_freeCCtx(context);
    assert_false(ZSTD_isError(n));
    return n;
}

static void test_bombs(void **state)
{
    (void)state;
    char *dir = temp_dir();
    const char *path = temp_path(dir, "m.llmq"), *lie = temp_path(dir, "lie.llmq");
    struct model *model = small_model(false);
    write_model(model, path, COMPRESS_DEFAULT);
    model_free(model);
    char bytes[1024];
    uint8_t frame[512];
    memset(bytes, 'a', sizeof bytes);
    size_t n = pack(bytes, 300, frame, sizeof frame, true, false), second;
    check_bomb(path, lie, frame, n, NULL);
    n = pack(bytes, 300, frame, sizeof frame, true, true);
    check_bomb(path, lie, frame, n, NULL); /* a frame with a checksum of its own is still a frame */
    n = pack(bytes, 300, frame, sizeof frame, false, false);
    check_bomb(path, lie, frame, n, "does not say its size");
    n = pack(bytes, 299, frame, sizeof frame, true, false);
    check_bomb(path, lie, frame, n, "claims to be 299 bytes");
    n = pack(bytes, 301, frame, sizeof frame, true, false);
    check_bomb(path, lie, frame, n, "claims to be 301 bytes");
    n = pack(bytes, 300, frame, sizeof frame, true, false);
    second = pack(bytes, 10, frame + n, sizeof frame - n, true, false);
    check_bomb(path, lie, frame, n + second, "behind its zstd frame");
    memcpy(frame + n, "\x50\x2A\x4D\x18\x04\0\0\0abcd", 12);
    check_bomb(path, lie, frame, n + 12, "behind its zstd frame");
    frame[n] = 0;
    check_bomb(path, lie, frame, n + 1, "behind its zstd frame");
    memcpy(frame, "\x50\x2A\x4D\x18\x04\0\0\0abcd", 12);
    check_bomb(path, lie, frame, 12, "is not a zstd frame");
    check_bomb(path, lie, "abcdefgh", 8, "is not a zstd frame");
    check_bomb(path, lie, "\x28\xB5\x2F\xFD", 4, "is not a zstd frame");
    check_bomb(path, lie, "\x28\xB5\x2F\xFD\xA0\x00\x00\x00\x40\x00", 10, "claims to be 1073741824 bytes"); /* 1 GiB, single segment */
    check_bomb(path, lie, "\x28\xB5\x2F\xFD\x40\x80\x2C\x00\x01\x00\x00", 11, "window over"); /* window 2^26 */
    check_bomb(path, lie, "\x28\xB5\x2F\xFD\x61\x01\x2C\x00\x01\x00\x00", 11, "dictionary");
    check_bomb(path, lie, "\x28\xB5\x2F\xFD\x70\x2C\x00\x01\x00\x00", 10, "reserved bits");
    check_bomb(path, lie, "\x28\xB5\x2F\xFD\x60\x2C\x00\x01\x00\x00", 10, "cannot be decompressed"); /* an empty block and the claim of 300 bytes */
    for (size_t cut = 0; cut < 30; cut++) {
        n = pack(bytes, 300, frame, sizeof frame, true, false);
        if (cut > 0 && cut < n) check_bomb(path, lie, frame, n - cut, "");
    }
    /* the index as a bomb: 1 GiB claimed, and a frame that lies about it */
    struct image image = image_load(path);
    image.stored = malloc(1u << 20);
    char *blanks = calloc(1, 1u << 20);
    image.n_stored = pack(blanks, 1u << 20, image.stored, 1u << 20, true, false);
    image.add_raw = (1 << 20) - (int64_t)image.n_text;
    image_write(&image, lie);
    assert_refused(verify(lie, &err), ERR_DATA, "claims an index of 1048576 bytes");
    memset(image.stored + image.n_stored, 0, 1000);
    image.n_stored += 1000;
    image_write(&image, lie);
    assert_refused(verify(lie, &err), ERR_DATA, "its index: has 1000 bytes behind its zstd frame");
    image.add_raw++;
    image_write(&image, lie);
    assert_refused(verify(lie, &err), ERR_DATA, "claims to be 1048576 bytes in its zstd header, not 1048577");
    free(blanks);
    image_free(&image);
    temp_dir_remove(dir);
}

/* ---- shards --------------------------------------------------------------------------------------------------------------------- */

static struct model *sharded_model(uint64_t seed)
{
    struct model *model = model_make(seed);
    char name[32];
    for (int i = 0; i < 6; i++) {
        snprintf(name, sizeof name, "t%d", i);
        model_add_kept(model, name, "U8", 1, (const uint64_t[]){ 5000 }, false, true);
    }
    model_add_quantised(model, "q", 2, (const uint64_t[]){ 100, 64 }, 4, 32, false, true);
    model_add_blob(model, "config.json", 100, true);
    return model;
}

static void write_shards(struct model *model, const char *path)
{
    struct writer_options options = model_options(path, COMPRESS_DEFAULT);
    struct writer_size size;
    options.split_nbytes = 13000;
    options.align = 64;
    options.metadata_json = "{\"a\":\"b\"}";
    assert_ok(model_write(&llmq_writer_ops, model, &options, &size, &err));
    assert_int_equal(size.n_files, 4);
}

static void copy(const char *from, const char *to)
{
    size_t nbytes;
    char *bytes = read_file(from, &nbytes);
    write_file(to, bytes, nbytes);
    free(bytes);
}

static void test_shards(void **state)
{
    (void)state;
    char *dir = temp_dir(), paths[4][512], others[4][512], saved[512];
    struct model *model = sharded_model(1), *other = sharded_model(2);
    write_shards(model, temp_path(dir, "s.llmq"));
    write_shards(other, temp_path(dir, "o.llmq"));
    snprintf(saved, sizeof saved, "%s", temp_path(dir, "saved"));
    for (int i = 0; i < 4; i++) {
        char name[64];
        snprintf(name, sizeof name, "s-%05d-of-00004.llmq", i + 1);
        snprintf(paths[i], sizeof paths[i], "%s", temp_path(dir, name));
        snprintf(name, sizeof name, "o-%05d-of-00004.llmq", i + 1);
        snprintf(others[i], sizeof others[i], "%s", temp_path(dir, name));
    }
    for (int i = 0; i < 4; i++) check_model(model, paths[i]);
    for (int i = 0; i < 4; i++) {
        copy(paths[i], saved);
        unlink(paths[i]);
        char wanted[64];
        snprintf(wanted, sizeof wanted, "shard %d of 4 is missing", i + 1);
        assert_refused(verify(paths[(i + 1) % 4], &err), ERR_IO, wanted);
        copy(others[i], paths[i]);
        assert_refused(verify(paths[0], &err), ERR_MISMATCH, "comes from another run");
        copy(paths[(i + 1) % 4], paths[i]);
        assert_refused(verify(paths[(i + 2) % 4], &err), ERR_DATA, "it is shard");
        assert_refused(verify(paths[i], &err), ERR_DATA, "but its name does not end with");
        copy(saved, paths[i]);
    }
    for (int i = 0; i < 4; i++) check_model(model, paths[i]);
    copy(paths[1], temp_path(dir, "renamed.llmq"));
    assert_refused(verify(temp_path(dir, "renamed.llmq"), &err), ERR_DATA,
                   "it is shard 2 of 4, but its name does not end with '-00002-of-00004.llmq'");
    /* all trailers agree on a set digest that is not that of the indexes */
    for (int i = 0; i < 4; i++) {
        size_t nbytes;
        char *bytes = read_file(paths[i], &nbytes);
        bytes[nbytes - 96 + 48] = 7;
        uint64_t checksum = digest64(bytes + nbytes - 96, 80);
        memcpy(bytes + nbytes - 16, &checksum, 8);
        write_file(paths[i], bytes, nbytes);
        free(bytes);
    }
    assert_refused(verify(paths[0], &err), ERR_MISMATCH, "do not come from one run");
    model_free(model);
    model_free(other);
    temp_dir_remove(dir);
}

/* The same tensor in two shards that are signed together: the container's table of names refuses it. */
static void test_twice(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct model *model = sharded_model(1);
    model->tensors[4].name = "t0";
    write_shards(model, temp_path(dir, "s.llmq"));
    assert_refused(verify(temp_path(dir, "s-00001-of-00004.llmq"), &err), ERR_DATA, "tensor 't0' is there twice");
    model_free(model);
    temp_dir_remove(dir);
}

/* ---- many ----------------------------------------------------------------------------------------------------------------------- */

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static double open_many(const char *path, size_t n)
{
    struct out_tensor *tensors = calloc(n, sizeof *tensors);
    struct digest128 *digests = calloc(n, sizeof *digests);
    char(*names)[64] = calloc(n, sizeof *names);
    static const uint64_t dims[2] = { 2, 64 };
    static const uint8_t bytes[64];
    for (size_t i = 0; i < n; i++) {
        snprintf(names[i], sizeof names[i], "model.layers.%zu.mlp.down_proj.weight", i);
        tensors[i] = (struct out_tensor){ .name = names[i],
                                          .dims = dims,
                                          .rank = 2,
                                          .dtype = "BF16",
                                          .role = "down",
                                          .tile_rows = 4096,
                                          .tile_cols = 64,
                                          .format = "int4",
                                          .format_facts = "{\"family\":\"affine\",\"element\":\"int4\",\"bits\":4,\"signed\":true}",
                                          .group = "32",
                                          .scale_rule = "absmax",
                                          .rounding = "nearest-even",
                                          .scale = "bf16",
                                          .n_planes = 2,
                                          .planes = { { { "codes", 4, 2, 64, 4096, 64 }, true }, { { "scales", 16, 2, 2, 4096, 2 }, true } } };
    }
    struct writer_options options = model_options(path, COMPRESS_DEFAULT);
    struct outset *set;
    struct writer *writer;
    assert_ok(outset_open(&io_system, true, &set, &err));
    assert_ok(llmq_writer_ops.open(set, tensors, n, NULL, 0, &options, &writer, &err));
    for (size_t i = 0; i < n; i++) {
        const struct part parts[2] = { { 0, 0, bytes, 64 }, { 1, 0, bytes, 8 } };
        assert_ok(llmq_writer_ops.put(writer, 0, i, i, parts, 2, NULL, NULL, &err));
    }
    assert_ok(llmq_writer_ops.finish(writer, digests, &err));
    llmq_writer_ops.close(writer);
    assert_ok(outset_commit(set, &err));
    outset_close(set);
    struct container *container;
    double start = seconds();
    assert_ok(container_open(&io_system, path, &container, &err));
    double took = seconds() - start;
    assert_int_equal(container->n_tensors, n);
    container_close(container);
    free(names);
    free(digests);
    free(tensors);
    return took;
}

static void test_many(void **state)
{
    (void)state;
    char *dir = temp_dir();
    const char *path = temp_path(dir, "m.llmq");
    double few = open_many(path, 20000), many = open_many(path, 100000);
    print_message("open: 20000 tensors %.3f s, 100000 tensors %.3f s\n", few, many);
    assert_true(many < 10 * few + 0.5);
    temp_dir_remove(dir);
}

/* ---- threads -------------------------------------------------------------------------------------------------------------------- */

static void read_all(void *context, unsigned worker)
{
    struct container *container = context;
    struct err own;
    for (size_t i = 0; i < container->n_tensors; i++) {
        size_t index = (i + worker * 3) % container->n_tensors, nbytes = (size_t)container->tensors[index].nbytes;
        if (container->tensors[index].quantised) {
            float out[40];
            assert_int_equal(container_read_f32(container, index, 1, 1, 0, 40, out, &own), OK);
            continue;
        }
        uint8_t *bytes = malloc(nbytes + 1);
        assert_int_equal(container_read(container, index, 0, nbytes, bytes, &own), OK);
        free(bytes);
    }
}

static void test_threads(void **state)
{
    (void)state;
    char *dir = temp_dir();
    const char *path = temp_path(dir, "m.llmq");
    struct model *model = small_model(false);
    model_add_kept(model, "embed", "BF16", 2, (const uint64_t[]){ 3100, 172 }, true, false);
    write_model(model, path, COMPRESS_DEFAULT);
    struct container *container;
    assert_ok(container_open(&io_system, path, &container, &err));
    pool_run(4, read_all, container);
    container_close(container);
    model_free(model);
    temp_dir_remove(dir);
}

static long reads_left;

static ssize_t failing_pread(int fd, void *buf, size_t nbytes, off_t offset)
{
    if (reads_left-- != 0) return io_system.pread(fd, buf, nbytes, offset);
    errno = EIO;
    return -1;
}

/* Every read fails once: ERR_IO with a sentence, and no container. */
static void test_failing_reads(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct io_calls io = io_system;
    io.pread = failing_pread;
    struct model *model = sharded_model(1);
    write_shards(model, temp_path(dir, "s.llmq"));
    long k = 0;
    for (;; k++) {
        struct container *container = NULL;
        reads_left = k;
        enum status status = container_open(&io, temp_path(dir, "s-00002-of-00004.llmq"), &container, &err);
        if (status != OK) assert_null(container);
        else status = verify_open(container, &err);
        container_close(container);
        if (status == OK) break;
        assert_int_equal(status, ERR_IO);
        assert_non_null(strstr(err.text, "Input/output error"));
    }
    assert_true(k > 20);
    model_free(model);
    temp_dir_remove(dir);
}

int main(void)
{
    (void)no_dims;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kept_dtypes), cmocka_unit_test(test_planes),        cmocka_unit_test(test_split_planes),
        cmocka_unit_test(test_metadata),    cmocka_unit_test(test_flips),         cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_lying_index), cmocka_unit_test(test_lying_shifts),  cmocka_unit_test(test_tolerated),
        cmocka_unit_test(test_lying_table), cmocka_unit_test(test_lying_ends),    cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_shards),      cmocka_unit_test(test_twice),         cmocka_unit_test(test_many),
        cmocka_unit_test(test_threads),     cmocka_unit_test(test_failing_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
