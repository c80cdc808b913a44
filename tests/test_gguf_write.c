/* test_gguf_write.c: bytes and sizes of GGUF files: exact plans, a file by hand, keys, parts, the same bytes for any number of workers, what the writer
 * refuses, writes that fail.
 *
 * Why this way: bytes are compared with a file put together here, and with what the reader of containers finds again; jobs and threads are those of
 * support/model.c.
 * Corner cases: no tensors, no weights, keys longer than a piece, keys changed where they stand, tensors larger than the split size, a weight with its
 * scales, missing tiles, names, dims and dtypes that GGUF has not.
 * Reference: gguf_header.h, gguf_layout.h. Worked number: see test_by_hand.
 */
#include "support/support.h"

#include "base/pool.h"
#include "base/size.h"
#include "container/gguf.h"
#include "container/gguf_layout.h"
#include "support/model.h"

static struct err err;

/* ---- keys ----------------------------------------------------------------------------------------------------------------------- */

struct keys {
    uint8_t *bytes;
    size_t n;
    uint64_t count;
};

static void put(struct keys *keys, const void *bytes, size_t n)
{
    keys->bytes = realloc(keys->bytes, keys->n + n + 1);
    assert_non_null(keys->bytes);
    memcpy(keys->bytes + keys->n, bytes, n);
    keys->n += n;
}

static void put_le(struct keys *keys, uint64_t value, size_t n)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < n; i++) bytes[i] = (uint8_t)(value >> (8 * i));
    put(keys, bytes, n);
}

static void put_name(struct keys *keys, const char *name)
{
    put_le(keys, strlen(name), 8);
    put(keys, name, strlen(name));
}

static void add_u32(struct keys *keys, const char *name, uint32_t value)
{
    put_name(keys, name);
    put_le(keys, GGUF_U32, 4);
    put_le(keys, value, 4);
    keys->count++;
}

static void add_string(struct keys *keys, const char *name, size_t n)
{
    put_name(keys, name);
    put_le(keys, GGUF_STRING, 4);
    put_le(keys, n, 8);
    for (size_t i = 0; i < n; i++) put_le(keys, 'a' + i % 26, 1);
    keys->count++;
}

/* Gives the model its blob of keys, and frees them. */
static void give_keys(struct model *model, struct keys *keys)
{
    struct keys blob = { 0 };
    put(&blob, "GGUF", 4);
    put_le(&blob, 3, 4);
    put_le(&blob, 0, 8);
    put_le(&blob, keys->count, 8);
    if (keys->n) put(&blob, keys->bytes, keys->n);
    model_add_blob(model, GGUF_BLOB_NAME, blob.n, false);
    memcpy(model->blob_bytes[model->n_blobs - 1], blob.bytes, blob.n);
    free(blob.bytes);
    free(keys->bytes);
    *keys = (struct keys){ 0 };
}

static struct model *everything(uint32_t alignment)
{
    struct model *model = model_make(7);
    struct keys keys = { 0 };
    add_string(&keys, "general.architecture", 5);
    if (alignment != 32) add_u32(&keys, "general.alignment", alignment);
    add_u32(&keys, "general.file_type", 1);
    add_string(&keys, "long", 200000);
    add_u32(&keys, "last", 7);
    give_keys(model, &keys);
    model_add_kept(model, "scalar", "F32", 0, &(const uint64_t){ 0 }, false, true);
    model_add_kept(model, "norm", "F32", 1, (const uint64_t[]){ 171 }, false, true);
    model_add_kept(model, "none", "F16", 2, (const uint64_t[]){ 0, 5 }, false, true);
    model_add_kept(model, "embed", "BF16", 2, (const uint64_t[]){ 3100, 173 }, false, true);
    model_add_kept(model, "ids", "I32", 4, (const uint64_t[]){ 2, 3, 1, 7 }, false, true);
    for (size_t i = 0; i < ggml_type_count(); i++)
        model_add_blocks(model, ggml_type_at(i)->name, 2, (const uint64_t[]){ 33, 512 }, ggml_type_at(i), false);
    model_add_blocks(model, "long.weight", 2, (const uint64_t[]){ 3, 262144 + 4096 }, &ggml_q4_k, false);
    model_add_blocks(model, "tall.weight", 2, (const uint64_t[]){ 2500, 512 }, &ggml_q6_k, false);
    model_add_blocks(model, "experts.weight", 3, (const uint64_t[]){ 5, 300, 640 }, &ggml_nvfp4, true);
    model_add_blocks(model, "one.weight", 2, (const uint64_t[]){ 3, 64 }, &ggml_nvfp4, true);
    return model;
}

static void model_end(struct model *model, char *dir)
{
    model_free(model);
    temp_dir_remove(dir);
}

/* ---- whole files ---------------------------------------------------------------------------------------------------------------- */

/* Two tensors, one key copied, one changed where it stands, one added: put together from the specification. */
static void test_by_hand(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct model *model = model_make(1);
    struct keys keys = { 0 }, want = { 0 };
    add_u32(&keys, "general.file_type", 99);
    add_string(&keys, "x", 3);
    give_keys(model, &keys);
    model_add_blocks(model, "a.weight", 2, (const uint64_t[]){ 3, 64 }, &ggml_q4_0, false);
    model_add_kept(model, "b", "F32", 1, (const uint64_t[]){ 2 }, false, true);
    struct writer_options options = model_options(temp_path(dir, "m.gguf"), COMPRESS_NONE);
    struct writer_size size;
    options.file_type = UINT32_MAX;
    assert_ok(model_write(&gguf_writer_ops, model, &options, &size, &err));

    put(&want, "GGUF\3\0\0\0\2\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0", 24);
    add_u32(&want, "general.file_type", 2);
    add_string(&want, "x", 3);
    add_u32(&want, "general.quantization_version", 2);
    put_name(&want, "a.weight");
    put_le(&want, 2, 4);
    put_le(&want, 64, 8);
    put_le(&want, 3, 8);
    put_le(&want, 2, 4);
    put_le(&want, 0, 8);
    put_name(&want, "b");
    put_le(&want, 1, 4);
    put_le(&want, 2, 8);
    put_le(&want, 0, 4);
    put_le(&want, 128, 8); /* 3 * 2 blocks of 18 bytes are 108 */
    while (want.n % 32) put_le(&want, 0, 1);
    put(&want, model->own[0].planes[0], 108);
    for (int i = 108; i < 128; i++) put_le(&want, 0, 1);
    put(&want, model->own[1].planes[0], 8);
    for (int i = 8; i < 32; i++) put_le(&want, 0, 1);
    size_t nbytes;
    char *file = read_file(options.path, &nbytes);
    assert_int_equal(nbytes, want.n);
    assert_memory_equal(file, want.bytes, want.n);
    assert_true(size.exact && size.nbytes == nbytes && size.n_files == 1);
    free(file);
    free(want.bytes);
    model_end(model, dir);
}

/* What was put, read back by the container's reader. */
static void check_contents(const struct model *model, const char *path)
{
    struct container *container;
    assert_ok(container_open(&io_system, path, &container, &err));
    assert_int_equal(container->n_tensors, model->n_tensors);
    for (size_t i = 0; i < model->n_tensors; i++) {
        const struct out_tensor *out = &model->tensors[i];
        const struct tensor *tensor = &container->tensors[i];
        assert_string_equal(tensor->name, out->name);
        assert_int_equal(tensor->rank, out->rank);
        if (out->rank) assert_memory_equal(tensor->dims, out->dims, out->rank * sizeof *out->dims);
        for (uint32_t k = 0; k < out->n_planes; k++) {
            const size_t n = (size_t)plane_nbytes(&out->planes[k].plane);
            uint8_t *bytes = malloc(n + 1);
            if (tensor->quantised) assert_ok(container_read_plane(container, i, k, 0, n, bytes, &err));
            else assert_ok(container_read(container, i, 0, n, bytes, &err));
            assert_memory_equal(bytes, model->own[i].planes[k], n);
            free(bytes);
        }
    }
    assert_ok(gguf_check_padding(container, &err));
    container_close(container);
}

static void test_exact_size(void **state)
{
    (void)state;
    static const uint32_t alignments[] = { 8, 32, 64, 4096, 65536 };
    for (size_t a = 0; a < sizeof alignments / sizeof alignments[0]; a++) {
        char *dir = temp_dir();
        struct model *model = everything(alignments[a]);
        struct writer_options options = model_options(temp_path(dir, "m.gguf"), COMPRESS_NONE);
        struct writer_size size;
        size_t nbytes;
        options.file_type = UINT32_MAX;
        options.n_workers = 3;
        assert_ok(model_write(&gguf_writer_ops, model, &options, &size, &err));
        free(read_file(options.path, &nbytes));
        assert_true(size.exact && size.nbytes == nbytes && size.n_files == 1);
        assert_int_equal(nbytes % alignments[a], 0);
        check_contents(model, options.path);
        model_end(model, dir);
    }
}

static void test_same_bytes(void **state)
{
    (void)state;
    static const unsigned workers[] = { 1, 2, 7, 7 };
    static const uint32_t tiles[] = { 1, 2, 3, 1 };
    char *dir = temp_dir(), *first = NULL;
    size_t n_first = 0, nbytes;
    for (size_t i = 0; i < 4; i++) {
        struct model *model = everything(32);
        struct writer_options options = model_options(temp_path(dir, "m.gguf"), COMPRESS_NONE);
        options.n_workers = workers[i];
        options.tiles_per_job = tiles[i];
        assert_ok(model_write(&gguf_writer_ops, model, &options, NULL, &err));
        char *file = read_file(options.path, &nbytes);
        model_free(model);
        if (!first) {
            first = file;
            n_first = nbytes;
            continue;
        }
        assert_int_equal(nbytes, n_first);
        assert_memory_equal(file, first, nbytes);
        free(file);
    }
    free(first);
    temp_dir_remove(dir);
}

static void test_split(void **state)
{
    (void)state;
    static const uint64_t splits[] = { 1, 250000, 900000, 3000000, UINT64_C(1) << 40 };
    for (size_t s = 0; s < sizeof splits / sizeof splits[0]; s++) {
        char *dir = temp_dir(), name[64];
        struct model *model = everything(64);
        struct writer_options options = model_options(temp_path(dir, "s.gguf"), COMPRESS_NONE);
        struct writer_size size;
        uint64_t total = 0;
        options.file_type = 15;
        options.split_nbytes = splits[s];
        options.n_workers = 3;
        assert_ok(model_write(&gguf_writer_ops, model, &options, &size, &err));
        for (uint32_t i = 0; i < size.n_files; i++) {
            size_t nbytes, n_own = 0;
            snprintf(name, sizeof name, size.n_files > 1 ? "s-%05u-of-%05u.gguf" : "s.gguf", i + 1, size.n_files);
            free(read_file(temp_path(dir, name), &nbytes));
            total += nbytes;
            for (size_t k = 0; k < model->n_tensors; k++) n_own += model->tensors[k].shard == i;
            assert_true(n_own == 1 || (n_own > 1 && nbytes <= splits[s]));
        }
        if (total != size.nbytes)
            fail_msg("split %llu: %llu bytes, planned %llu", (unsigned long long)splits[s], (unsigned long long)total,
                     (unsigned long long)size.nbytes);
        assert_int_equal(size.n_files == 1, s == 4);
        assert_int_equal(size.n_files == model->n_tensors, s == 0);
        snprintf(name, sizeof name, size.n_files > 1 ? "s-00001-of-%05u.gguf" : "s.gguf", size.n_files);
        check_contents(model, temp_path(dir, name));
        model_end(model, dir);
    }
}

/* No part with several tensors is larger than asked, whatever the keys that say how the model is split. */
static void test_split_sizes(void **state)
{
    (void)state;
    for (uint64_t split = 500; split < 1300; split += 9) {
        char *dir = temp_dir(), name[64];
        struct model *model = model_make(3);
        struct keys keys = { 0 };
        struct writer_options options = model_options(temp_path(dir, "s.gguf"), COMPRESS_NONE);
        struct writer_size size;
        add_string(&keys, "general.name", 40);
        give_keys(model, &keys);
        for (int i = 0; i < 12; i++) {
            snprintf(name, sizeof name, "t%d", i);
            model_add_kept(model, name, "F32", 1, (const uint64_t[]){ i % 3 ? 20 : 0 }, false, true);
        }
        options.split_nbytes = split;
        assert_ok(model_write(&gguf_writer_ops, model, &options, &size, &err));
        uint64_t total = 0;
        for (uint32_t i = 0; i < size.n_files; i++) {
            size_t nbytes, n_own = 0;
            snprintf(name, sizeof name, size.n_files > 1 ? "s-%05u-of-%05u.gguf" : "s.gguf", i + 1, size.n_files);
            free(read_file(temp_path(dir, name), &nbytes));
            total += nbytes;
            for (size_t k = 0; k < model->n_tensors; k++) n_own += model->tensors[k].shard == i;
            if (n_own > 1 && nbytes > split) fail_msg("split %u: part %u of %zu tensors has %zu bytes", (unsigned)split, i, n_own, nbytes);
        }
        assert_true(total == size.nbytes);
        model_end(model, dir);
    }
}

/* The padding of the last tensor that has weights is written, also when tensors without weights follow it. */
static void test_empty_last(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct model *model = model_make(3);
    struct keys keys = { 0 };
    struct writer_options options = model_options(temp_path(dir, "m.gguf"), COMPRESS_NONE);
    struct writer_size size;
    size_t nbytes;
    give_keys(model, &keys);
    model_add_kept(model, "a", "F32", 1, (const uint64_t[]){ 3 }, false, true);
    model_add_kept(model, "b", "F32", 2, (const uint64_t[]){ 0, 4 }, false, true);
    model_add_kept(model, "c", "F32", 1, (const uint64_t[]){ 0 }, false, true);
    assert_ok(model_write(&gguf_writer_ops, model, &options, &size, &err));
    char *file = read_file(options.path, &nbytes);
    assert_int_equal(nbytes, size.nbytes);
    assert_int_equal(nbytes % 32, 0);
    for (size_t i = nbytes - 20; i < nbytes; i++) assert_int_equal(file[i], 0);
    free(file);
    model_end(model, dir);
}

static void test_nothing(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct model *model = model_make(3);
    struct keys keys = { 0 };
    struct writer_options options = model_options(temp_path(dir, "m.gguf"), COMPRESS_NONE);
    struct writer_size size;
    size_t nbytes;
    give_keys(model, &keys);
    options.file_type = UINT32_MAX;
    options.keep_keys = true;
    assert_ok(model_write(&gguf_writer_ops, model, &options, &size, &err));
    char *file = read_file(options.path, &nbytes);
    assert_int_equal(nbytes, 32);
    assert_memory_equal(file, "GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 32);
    assert_true(size.nbytes == 32);
    free(file);
    model_end(model, dir);
}

/* ---- refusals ------------------------------------------------------------------------------------------------------------------- */

static enum status plan_one(struct model *model, struct writer_size *size)
{
    struct writer_options options = model_options("/nonexistent/m.gguf", COMPRESS_NONE);
    return gguf_writer_ops.plan(model->tensors, model->n_tensors, model->blobs, model->n_blobs, &options, size, &err);
}

static void test_bad_plans(void **state)
{
    (void)state;
    static const char *const dtypes[] = { "BOOL", "U8", "U16", "U32", "U64", "F8_E4M3", "F8_E5M2", "F8_E8M0", "C64" };
    static const uint64_t dims[5] = { 2, 3, 4, 5, 64 };
    struct writer_size size;
    struct keys keys = { 0 };
    struct model *model = model_make(3);
    model_add_kept(model, "a", "F32", 1, dims, false, true);
    assert_refused(plan_one(model, &size), ERR_USAGE, "no GGUF keys");
    model_add_blob(model, "config.json", 50, true);
    assert_refused(plan_one(model, &size), ERR_USAGE, "no GGUF keys");
    give_keys(model, &keys);
    assert_ok(plan_one(model, &size));
    memcpy(model->blob_bytes[1], "GGUG", 4);
    assert_refused(plan_one(model, &size), ERR_DATA, "'metadata.gguf'");
    memcpy(model->blob_bytes[1], "GGUF", 4);
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        model->tensors[0].dtype = dtypes[i];
        assert_refused(plan_one(model, &size), ERR_UNSUPPORTED, "cannot store tensor 'a': GGUF has no type for dtype");
    }
    model_free(model);

    static const struct {
        const char *name;
        uint32_t rank;
        bool scales;
        const char *sentence; /* NULL: fine */
    } cases[] = {
        { "123456789012345678901234567890123456789012345678901234567890123", 2, false, NULL },
        { "1234567890123456789012345678901234567890123456789012345678901234", 2, false, "at most 63 bytes" },
        { "12345678901234567890123456789012345678901234567890123456.weight", 2, true, NULL },
        { "five", 5, false, "at most 4 dims, not 5" },
        { "four", 4, false, NULL },
        { "a.weights", 2, true, "ends in .weight" },
        { ".weight", 2, true, "ends in .weight" },
        { "a.weight", 2, true, NULL },
        { "b.weight", 2, true, "two tensors 'b.scale'" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        model = model_make(3);
        give_keys(model, &keys);
        model_add_kept(model, "b.scale", "F32", 1, (const uint64_t[]){ 1 }, false, true);
        model_add_blocks(model, "x", cases[i].rank, dims + 5 - cases[i].rank, &ggml_nvfp4, cases[i].scales);
        model->tensors[1].name = cases[i].name;
        if (cases[i].sentence) assert_refused(plan_one(model, &size), ERR_UNSUPPORTED, cases[i].sentence);
        else assert_ok(plan_one(model, &size));
        model_free(model);
    }
}

struct session {
    char *dir;
    struct model *model;
    struct outset *set;
    struct writer *writer;
    struct writer_options options;
};

static struct session session_open(void)
{
    struct session s = { .dir = temp_dir(), .model = model_make(5) };
    struct keys keys = { 0 };
    give_keys(s.model, &keys);
    model_add_blocks(s.model, "a.weight", 2, (const uint64_t[]){ 1100, 512 }, &ggml_nvfp4, true); /* three tiles */
    s.options = model_options(temp_path(s.dir, "m.gguf"), COMPRESS_NONE);
    s.options.tiles_per_job = 1;
    s.options.n_workers = 3;
    assert_ok(outset_open(&io_system, false, &s.set, &err));
    assert_ok(gguf_writer_ops.open(s.set, s.model->tensors, 1, s.model->blobs, 1, &s.options, &s.writer, &err));
    return s;
}

static struct part part_of(const struct session *s, uint32_t k, uint64_t tile)
{
    const struct plane *plane = &s->model->tensors[0].planes[k].plane;
    return (struct part){ k, tile, s->model->own[0].planes[k] + plane_tile_offset(plane, tile), (size_t)plane_tile_nbytes(plane, tile) };
}

static void session_close(struct session *s)
{
    gguf_writer_ops.close(s->writer);
    outset_close(s->set);
    assert_false(file_exists(temp_path(s->dir, "m.gguf")));
    assert_false(file_exists(temp_path(s->dir, "m.gguf.partial")));
    model_free(s->model);
    temp_dir_remove(s->dir);
}

static void test_bad_puts(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++) {
        struct session s = session_open();
        struct part part = part_of(&s, 0, 0);
        if (k == 0) part.nbytes--;
        if (k == 1) part.tile = 3;
        if (k == 2) part.plane = 2;
        assert_refused(gguf_writer_ops.put(s.writer, 0, 0, k == 3 ? 1 : 0, &part, 1, NULL, NULL, &err), ERR_USAGE,
                       k < 2 ? "is not of this tensor" : "no such plane");
        part = part_of(&s, 0, 0);
        assert_refused(gguf_writer_ops.put(s.writer, 0, 1, 0, &part, 1, NULL, NULL, &err), ERR_CANCELLED, "stopped");
        session_close(&s);
    }
}

static void test_missing(void **state)
{
    (void)state;
    for (int missing = 0; missing < 4; missing++) { /* tile 0, 1, 2, the scale */
        struct session s = session_open();
        uint64_t ticket = 0;
        for (int k = 0; k < 4; k++) {
            struct part part = k < 3 ? part_of(&s, 0, (uint64_t)k) : part_of(&s, 1, 0);
            if (k != missing) assert_ok(gguf_writer_ops.put(s.writer, 0, ticket++, 0, &part, 1, NULL, NULL, &err));
        }
        assert_refused(gguf_writer_ops.finish(s.writer, s.model->digests, &err), ERR_USAGE,
                       missing < 3 ? "of tensor 'a.weight'" : "of tensor 'a.scale'");
        session_close(&s);
    }
}

static void wait_or_abort(void *context, unsigned worker)
{
    struct session *s = context;
    struct err own;
    struct part part = part_of(s, 0, worker);
    if (worker == 0) gguf_writer_ops.abort(s->writer);
    else assert_int_equal(gguf_writer_ops.put(s->writer, worker, worker, 0, &part, 1, NULL, NULL, &own), ERR_CANCELLED);
}

static void test_abort(void **state)
{
    (void)state;
    struct session s = session_open();
    pool_run(3, wait_or_abort, &s);
    session_close(&s);
    gguf_writer_ops.close(NULL);
}

/* ---- failing calls -------------------------------------------------------------------------------------------------------------- */

static enum status fail_blob(void *context, size_t index, uint64_t offset, size_t nbytes, void *buf, struct err *error)
{
    const struct model *model = context;
    if (offset + nbytes > 100000) return err_set(error, ERR_IO, "cannot read the keys");
    memcpy(buf, model->blob_bytes[index] + offset, nbytes);
    return OK;
}

static void test_keys_that_cannot_be_read(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct model *model = everything(32);
    struct writer_options options = model_options(temp_path(dir, "m.gguf"), COMPRESS_NONE);
    model->blobs[0].read = fail_blob;
    assert_refused(model_write(&gguf_writer_ops, model, &options, NULL, &err), ERR_IO, "cannot read the keys");
    assert_false(file_exists(options.path) || file_exists(temp_path(dir, "m.gguf.partial")));
    model_end(model, dir);
}

static void test_failing_writes(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct model *model = everything(32);
    struct writer_options options = model_options(temp_path(dir, "m.gguf"), COMPRESS_NONE);
    options.n_workers = 3;
    options.split_nbytes = 1000000;
    model_check_failing_writes(&gguf_writer_ops, model, &options, temp_path(dir, "m-00001-of-00003.gguf"));
    model_end(model, dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),        cmocka_unit_test(test_exact_size),  cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_split),          cmocka_unit_test(test_split_sizes), cmocka_unit_test(test_empty_last),
        cmocka_unit_test(test_nothing),        cmocka_unit_test(test_bad_plans),   cmocka_unit_test(test_bad_puts),
        cmocka_unit_test(test_missing),        cmocka_unit_test(test_abort),       cmocka_unit_test(test_keys_that_cannot_be_read),
        cmocka_unit_test(test_failing_writes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
