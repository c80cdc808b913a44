/* test_llmq_write.c: bytes and sizes of .llmq files: exact plans, fixed offsets, the same bytes for any number of workers, splitting, and what the
 * writer refuses.
 *
 * Why this way: bytes are compared with what FORMAT.md says at fixed offsets and with themselves across workers; reading back is test_llmq_read.c.
 * Corner cases: no tensors, tensors without weights, a tensor larger than the split size, a chunk never put, put twice, of a wrong size, more tiles
 * than planned.
 * Reference: FORMAT.md. Worked number: see test_header.
 */
#include "support/support.h"

#include "base/digest.h"
#include "base/pool.h"
#include "container/container.h"
#include "container/llmq_file.h"
#include "support/model.h"

static struct err err;

static const uint64_t no_dims[1] = { 0 };

/* A bit of everything: kept and quantised, tiny and crossing tiles, empty, all widths. */
static struct model *everything(bool mapped)
{
    struct model *model = model_make(7);
    char name[32];
    model_add_kept(model, "scalar", "F32", 0, no_dims, true, mapped);
    model_add_kept(model, "norm", "BF16", 1, (const uint64_t[]){ 172 }, true, mapped);
    model_add_kept(model, "none", "F16", 2, (const uint64_t[]){ 0, 5 }, true, mapped);
    model_add_kept(model, "embed", "BF16", 2, (const uint64_t[]){ 3100, 172 }, true, mapped);
    model_add_kept(model, "head", "F16", 2, (const uint64_t[]){ 1600, 400 }, true, mapped);
    model_add_kept(model, "nibbles", "F4", 1, (const uint64_t[]){ 600 }, true, mapped);
    for (uint32_t bits = 1; bits <= 16; bits++) {
        snprintf(name, sizeof name, "q%u", bits);
        model_add_quantised(model, name, 2, (const uint64_t[]){ 40, 173 }, bits, 32, bits % 2, true);
    }
    model_add_quantised(model, "long", 2, (const uint64_t[]){ 3, 300001 }, 4, 32, false, mapped);
    model_add_quantised(model, "channel", 2, (const uint64_t[]){ 3, 300001 }, 4, 0, true, mapped);
    model_add_quantised(model, "whole", 3, (const uint64_t[]){ 2, 900, 400 }, 8, UINT64_MAX, false, true);
    model_add_blob(model, "config.json", 700, true);
    model_add_blob(model, "empty.json", 0, true);
    model_add_blob(model, "tokenizer.json", 600000, true);
    model_add_blob(model, "noise.bin", 300000, false);
    return model;
}

static void test_exact_size(void **state)
{
    (void)state;
    char *dir = temp_dir();
    static const uint32_t aligns[] = { 0, 64, 65536 };
    for (size_t a = 0; a < 3; a++)
        for (int mode = COMPRESS_NONE; mode <= COMPRESS_MAX; mode++) {
            struct model *model = everything(mode == COMPRESS_NONE);
            struct writer_options options = model_options(temp_path(dir, "m.llmq"), (enum compress_mode)mode);
            struct writer_size size;
            options.align = aligns[a];
            assert_ok(model_write(&llmq_writer_ops, model, &options, &size, &err));
            size_t nbytes;
            free(read_file(options.path, &nbytes));
            assert_int_equal(size.n_files, 1);
            assert_true(size.exact == (mode == COMPRESS_NONE));
            assert_true(mode == COMPRESS_NONE ? nbytes == size.nbytes : nbytes < size.nbytes);
            assert_true(mode == COMPRESS_NONE ? size.worker_nbytes == 0 : size.worker_nbytes > 2 * 262144);
            model_free(model);
        }
    temp_dir_remove(dir);
}

static uint64_t load64(const char *bytes)
{
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--) value = value << 8 | (uint8_t)bytes[i];
    return value;
}

/* Worked by hand: one kept tensor of 3 bytes at offset 64, index right behind it. */
static void test_header(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct model *model = model_make(1);
    model_add_kept(model, "a", "U8", 1, (const uint64_t[]){ 3 }, false, true);
    memcpy(model->own[0].planes[0], "xyz", 3);
    memset(model->digests[0].bytes, 0xAB, 16);
    struct writer_options options = model_options(temp_path(dir, "m.llmq"), COMPRESS_NONE);
    assert_ok(model_write(&llmq_writer_ops, model, &options, NULL, &err));
    size_t nbytes;
    char *file = read_file(options.path, &nbytes);
    static const char header[56] = "\x89LMQ\r\n\x1a\n\1\0\0\0\x40\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\1\0\0\0";
    assert_memory_equal(file, header, 56);
    assert_true(load64(file + 56) == digest64(file, 56));
    assert_memory_equal(file + 64, "xyz", 3);
    static const char text[] =
        "{\"writer\":\"llmq test\",\"metadata\":{},\n\"formats\":{},\n\"blobs\":{},\n\"tensors\":{\n"
        "\"a\":{\"shape\":[3],\"role\":\"other\",\"dtype\":\"U8\",\"source_digest\":\"abababababababababababababababab\",\"tile\":[87381,3],"
        "\"planes\":[{\"name\":\"data\",\"bits\":8,\"shape\":[1,3],\"tile\":[87381,3],\"offset\":64,\"chunks\":[0,1]}]}}}\n";
    const char *trailer = file + nbytes - 96;
    assert_true(load64(trailer) == 67);
    uint64_t stored = load64(trailer + 8);
    assert_int_equal(stored, strlen(text));
    assert_true(load64(trailer + 16) == stored && load64(trailer + 24) == 1);
    assert_int_equal(nbytes, 67 + stored + 24 + 96);
    assert_memory_equal(file + 67, text, stored);
    const char *table = file + 67 + stored;
    assert_true(load64(table) == 64 && load64(table + 8) == 3 && load64(table + 16) == digest64("xyz", 3));
    struct digest128 digest = digest128(file + 67, (size_t)stored + 24), set = digest128(digest.bytes, 16);
    assert_memory_equal(trailer + 32, digest.bytes, 16);
    assert_memory_equal(trailer + 48, set.bytes, 16);
    assert_true(load64(trailer + 64) == nbytes && load64(trailer + 72) == load64(file + 56) && load64(trailer + 80) == digest64(trailer, 80));
    assert_memory_equal(trailer + 88, "\n\x1a\n\rQML\x89", 8);
    free(file);
    model_free(model);
    temp_dir_remove(dir);
}

/* ---- the example of FORMAT.md --------------------------------------------------------------------------------------------------- */

/* w = [1, -2, 0.5, 6] as mxfp4 with scale 2^0, n = two BF16 ones. */
static struct model *example(void)
{
    static const char facts[] =
        "{\"family\":\"mx\",\"element\":\"e2m1\",\"bits\":4,\"exponent_bits\":2,\"mantissa_bits\":1,\"bias\":1,\"special\":\"none\"}";
    static const uint8_t source[8] = { 0x80, 0x3F, 0x00, 0xC0, 0x00, 0x3F, 0xC0, 0x40 };
    struct model *model = model_make(1);
    model_add_quantised(model, "w", 2, (const uint64_t[]){ 1, 4 }, 4, 32, false, true);
    model_add_kept(model, "n", "BF16", 1, (const uint64_t[]){ 2 }, false, true);
    struct out_tensor *w = &model->tensors[0];
    w->role = "down";
    w->format = "mxfp4";
    w->format_facts = facts;
    w->scale_rule = "floor";
    w->scale = "e8m0";
    w->planes[1].plane.bits = 8;
    model->tensors[1].role = "norm";
    memcpy(model->own[0].planes[0], "\xC2\x71", 2);
    memcpy(model->own[0].planes[1], "\x7F", 1);
    memcpy(model->own[1].planes[0], "\x80\x3F\x80\x3F", 4);
    struct digest128 tile = digest128(source, sizeof source);
    model->digests[0] = digest128(&tile, sizeof tile);
    tile = digest128("\x80\x3F\x80\x3F", 4);
    model->digests[1] = digest128(&tile, sizeof tile);
    return model;
}

/* Bytes of the page's dump: lines of an 8-digit offset and hex bytes, and the index text in a block of its own. */
static size_t read_dump(const char *page, uint8_t *out, size_t capacity)
{
    size_t end = 0;
    const char *text = strstr(page, "```json\n"), *text_end = text ? strstr(text, "\n```\n") : NULL;
    assert_non_null(text_end);
    for (const char *line = page; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        char *at;
        if (strspn(line, "0123456789abcdef") != 8 || line[8] != ' ') continue;
        size_t offset = strtoul(line, &at, 16);
        for (at += strspn(at, " "); strspn(at, "0123456789abcdef") == 2; at += strspn(at, " ")) {
            assert_true(offset < capacity);
            out[offset++] = (uint8_t)strtoul(at, &at, 16);
        }
        if (offset > end) end = offset;
    }
    size_t index_offset = (size_t)load64((const char *)out + end - 96);
    memcpy(out + index_offset, text + 8, (size_t)(text_end + 1 - text - 8));
    return end;
}

static void test_example(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct model *model = example();
    struct writer_options options = model_options(temp_path(dir, "m.llmq"), COMPRESS_NONE);
    size_t nbytes, n_page;
    options.writer_name = "llmq 0.1.0";
    assert_ok(model_write(&llmq_writer_ops, model, &options, NULL, &err));
    char *file = read_file(options.path, &nbytes), *page = read_file(tests_path("../formats/FORMAT.md"), &n_page);
    const char *section = strstr(page, "\n## 7.");
    assert_non_null(section);
    uint8_t *wanted = calloc(1, 65536);
    assert_int_equal(read_dump(section, wanted, 65536), nbytes);
    assert_memory_equal(file, wanted, nbytes);
    struct container *container;
    float weights[4];
    static const float decoded[4] = { 1.0f, -2.0f, 0.5f, 6.0f };
    assert_ok(container_open(&io_system, options.path, &container, &err));
    assert_ok(container_read_f32(container, 0, 0, 1, 0, 4, weights, &err));
    assert_memory_equal(weights, decoded, sizeof decoded);
    container_close(container);
    free(wanted);
    free(page);
    free(file);
    model_free(model);
    temp_dir_remove(dir);
}

static void test_same_bytes(void **state)
{
    (void)state;
    static const unsigned workers[] = { 1, 2, 7, 7 };
    static const uint32_t tiles[] = { 1, 2, 3, 1 };
    char *dir = temp_dir();
    for (int mode = COMPRESS_NONE; mode <= COMPRESS_MAX; mode++) {
        char *first = NULL;
        size_t n_first = 0, nbytes;
        for (size_t i = 0; i < 4; i++) {
            struct model *model = everything(false);
            struct writer_options options = model_options(temp_path(dir, "m.llmq"), (enum compress_mode)mode);
            options.n_workers = workers[i];
            options.tiles_per_job = tiles[i];
            assert_ok(model_write(&llmq_writer_ops, model, &options, NULL, &err));
            char *file = read_file(options.path, &nbytes);
            model_free(model);
            if (i == 0) {
                first = file;
                n_first = nbytes;
                continue;
            }
            assert_int_equal(nbytes, n_first);
            assert_memory_equal(file, first, nbytes);
            free(file);
        }
        free(first);
    }
    temp_dir_remove(dir);
}

static void test_split(void **state)
{
    (void)state;
    char *dir = temp_dir(), name[64];
    for (int mode = COMPRESS_NONE; mode <= COMPRESS_DEFAULT; mode++) {
        struct model *model = model_make(3);
        struct writer_size size;
        size_t nbytes;
        uint64_t total = 0;
        for (int i = 0; i < 40; i++) {
            snprintf(name, sizeof name, "t%d", i);
            model_add_kept(model, name, "BF16", 2, (const uint64_t[]){ i == 20 ? 300 : 20, 100 }, mode, !mode);
            if (i % 3 == 0) model_add_quantised(model, strcat(name, "q"), 2, (const uint64_t[]){ 20, 100 }, i % 2 ? 4 : 8, 32, false, true);
        }
        model_add_blob(model, "config.json", 5000, true);
        struct writer_options options = model_options(temp_path(dir, "s.llmq"), (enum compress_mode)mode);
        options.split_nbytes = 30000;
        options.align = 64;
        options.n_workers = 2;
        options.metadata_json = "{\"format\":\"pt\"}";
        assert_ok(model_write(&llmq_writer_ops, model, &options, &size, &err));
        assert_true(size.n_files > 5 && !file_exists(temp_path(dir, "s.llmq")));
        for (uint32_t i = 0; i < size.n_files; i++) {
            snprintf(name, sizeof name, "s-%05u-of-%05u.llmq", i + 1, size.n_files);
            free(read_file(temp_path(dir, name), &nbytes));
            bool has_large = model->tensors[27].shard == i; /* t20, larger than a shard */
            assert_true(has_large ? nbytes > 30000 || mode : nbytes <= 30000);
            total += nbytes;
        }
        assert_true(mode ? total < size.nbytes : total == size.nbytes);
        for (size_t i = 0; i < model->n_tensors; i++)
            if (i != 27) assert_true(model->tensors[i].shard != model->tensors[27].shard);
        model_free(model);
    }
    temp_dir_remove(dir);
}

static void test_nothing(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct model *model = model_make(3);
    struct writer_options options = model_options(temp_path(dir, "m.llmq"), COMPRESS_DEFAULT);
    struct writer_size size;
    assert_ok(model_write(&llmq_writer_ops, model, &options, &size, &err));
    assert_int_equal(size.n_files, 1);
    model_free(model);
    temp_dir_remove(dir);
}

static void test_bad_plans(void **state)
{
    (void)state;
    struct model *model = model_make(3);
    struct writer_options options = model_options("/nonexistent/m.llmq", COMPRESS_NONE);
    struct writer_size size;
    model_add_kept(model, "a", "U8", 1, (const uint64_t[]){ 3 }, false, true);
    struct out_tensor *tensor = &model->tensors[0];
    options.align = 63;
    assert_refused(llmq_writer_ops.plan(tensor, 1, NULL, 0, &options, &size, &err), ERR_USAGE, "alignment 63");
    options.align = 4u << 20;
    assert_refused(llmq_writer_ops.plan(tensor, 1, NULL, 0, &options, &size, &err), ERR_USAGE, "alignment");
    options.align = 0;
    options.tiles_per_job = 0;
    assert_refused(llmq_writer_ops.plan(tensor, 1, NULL, 0, &options, &size, &err), ERR_USAGE, "one tile");
    options.tiles_per_job = 1;
    tensor->planes[0].plane.bits = 4097;
    assert_refused(llmq_writer_ops.plan(tensor, 1, NULL, 0, &options, &size, &err), ERR_DATA, "cannot store tensor 'a': plane 'data'");
    tensor->planes[0].plane.bits = 8;
    model->own[0].dims[0] = UINT64_C(1) << 53;
    assert_refused(llmq_writer_ops.plan(tensor, 1, NULL, 0, &options, &size, &err), ERR_UNSUPPORTED, "2^53");
    model->own[0].dims[0] = 3;
    tensor->planes[0].plane.rows = UINT64_C(1) << 43;
    assert_refused(llmq_writer_ops.plan(tensor, 1, NULL, 0, &options, &size, &err), ERR_UNSUPPORTED, "2^24 tiles");
    tensor->planes[0].plane.rows = 1;
    tensor->name = "";
    assert_refused(llmq_writer_ops.plan(tensor, 1, NULL, 0, &options, &size, &err), ERR_UNSUPPORTED, "0 bytes");
    tensor->name = "a";
    struct outset *set;
    struct writer *writer;
    assert_ok(outset_open(&io_system, false, &set, &err));
    assert_refused(llmq_writer_ops.open(set, tensor, 1, NULL, 0, &options, &writer, &err), ERR_IO, "/nonexistent");
    assert_null(writer);
    llmq_writer_ops.close(NULL);
    outset_close(set);
    model_free(model);
}

struct session {
    char *dir;
    struct model *model;
    struct outset *set;
    struct writer *writer;
    struct writer_options options;
};

static struct session session_open(enum compress_mode mode)
{
    struct session s = { .dir = temp_dir(), .model = model_make(5) };
    model_add_kept(s.model, "a", "BF16", 2, (const uint64_t[]){ 4000, 172 }, false, false);
    s.options = model_options(temp_path(s.dir, "m.llmq"), mode);
    s.options.tiles_per_job = 1;
    assert_ok(outset_open(&io_system, false, &s.set, &err));
    assert_ok(llmq_writer_ops.open(s.set, s.model->tensors, 1, NULL, 0, &s.options, &s.writer, &err));
    return s;
}

static struct part part_of(const struct session *s, uint64_t tile)
{
    const struct plane *plane = &s->model->tensors[0].planes[0].plane;
    return (struct part){ 0, tile, s->model->own[0].planes[0] + plane_tile_offset(plane, tile), (size_t)plane_tile_nbytes(plane, tile) };
}

static void session_close(struct session *s)
{
    llmq_writer_ops.close(s->writer);
    outset_close(s->set);
    assert_false(file_exists(temp_path(s->dir, "m.llmq")));
    assert_false(file_exists(temp_path(s->dir, "m.llmq.partial")));
    model_free(s->model);
    temp_dir_remove(s->dir);
}

static void test_bad_puts(void **state)
{
    (void)state;
    for (int mode = COMPRESS_NONE; mode <= COMPRESS_DEFAULT; mode++) {
        struct session s = session_open((enum compress_mode)mode);
        struct part part = part_of(&s, 0);
        part.nbytes--;
        assert_refused(llmq_writer_ops.put(s.writer, 0, 0, 0, &part, 1, NULL, NULL, &err), ERR_USAGE, "cannot write tensor 'a': tile 0 has");
        session_close(&s);

        s = session_open((enum compress_mode)mode);
        part = part_of(&s, 0);
        part.tile = 3;
        assert_refused(llmq_writer_ops.put(s.writer, 0, 0, 0, &part, 1, NULL, NULL, &err), ERR_USAGE, "no tile 3");
        session_close(&s);

        s = session_open((enum compress_mode)mode);
        part = part_of(&s, 0);
        assert_ok(llmq_writer_ops.put(s.writer, 0, 0, 0, &part, 1, NULL, NULL, &err));
        assert_refused(llmq_writer_ops.put(s.writer, 0, 1, 0, &part, 1, NULL, NULL, &err), ERR_USAGE, "put twice");
        assert_refused(llmq_writer_ops.put(s.writer, 0, 1, 0, NULL, 0, NULL, NULL, &err), ERR_CANCELLED, "stopped");
        session_close(&s);

        s = session_open((enum compress_mode)mode);
        part = part_of(&s, 0);
        assert_ok(llmq_writer_ops.put(s.writer, 0, 0, 0, &part, 1, NULL, NULL, &err));
        assert_refused(llmq_writer_ops.finish(s.writer, s.model->digests, &err), ERR_USAGE, "tile 1 of plane 'data' of tensor 'a' was never written");
        session_close(&s);

        s = session_open((enum compress_mode)mode);
        part = part_of(&s, 0);
        assert_refused(llmq_writer_ops.put(s.writer, 1, 0, 0, &part, 1, NULL, NULL, &err), ERR_USAGE, "no such worker");
        session_close(&s);
    }
    struct session s = session_open(COMPRESS_DEFAULT);
    const struct part parts[3] = { part_of(&s, 0), part_of(&s, 1), part_of(&s, 2) };
    assert_refused(llmq_writer_ops.put(s.writer, 0, 0, 0, parts, 3, NULL, NULL, &err), ERR_USAGE, "more tiles than planned");
    session_close(&s);
}

static void wait_or_abort(void *context, unsigned worker)
{
    struct session *s = context;
    struct err own;
    struct part part = part_of(s, worker);
    if (worker == 0) llmq_writer_ops.abort(s->writer);
    else assert_int_equal(llmq_writer_ops.put(s->writer, worker, worker, 0, &part, 1, NULL, NULL, &own), ERR_CANCELLED);
}

static void test_abort(void **state)
{
    (void)state;
    struct session s = session_open(COMPRESS_DEFAULT);
    llmq_writer_ops.close(s.writer);
    outset_close(s.set);
    s.options.n_workers = 3;
    assert_ok(outset_open(&io_system, false, &s.set, &err));
    assert_ok(llmq_writer_ops.open(s.set, s.model->tensors, 1, NULL, 0, &s.options, &s.writer, &err));
    pool_run(3, wait_or_abort, &s);
    session_close(&s);
}

static void test_failing_writes(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct model *model = everything(false);
    struct writer_options options = model_options(temp_path(dir, "m.llmq"), COMPRESS_DEFAULT);
    options.n_workers = 3;
    options.split_nbytes = 2000000;
    model_check_failing_writes(&llmq_writer_ops, model, &options, temp_path(dir, "m-00001-of-00003.llmq"));
    model_free(model);
    temp_dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact_size), cmocka_unit_test(test_header),         cmocka_unit_test(test_same_bytes), cmocka_unit_test(test_split),
        cmocka_unit_test(test_example),    cmocka_unit_test(test_nothing),        cmocka_unit_test(test_bad_plans),  cmocka_unit_test(test_bad_puts),
        cmocka_unit_test(test_abort),      cmocka_unit_test(test_failing_writes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
