/* test_safetensors_write.c: files and folders in the Hugging Face layout: bytes, exact sizes, splitting, the index last, and what is refused.
 *
 * Why this way: one file is compared byte by byte, the others are read with our own strict reader.
 * Corner cases: no tensors, no weights, odd sizes, names to be escaped, blobs in the way, a split that a single file cannot do.
 * Reference: safetensors README. Worked number: see test_bytes.
 */
#include "support/support.h"

#include <sys/stat.h>

#include "container/container.h"
#include "support/model.h"

static struct err err;

static void test_bytes(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct model *model = model_make(1);
    model_add_kept(model, "a", "U8", 1, (const uint64_t[]){ 3 }, false, true);
    model_add_kept(model, "b", "BF16", 2, (const uint64_t[]){ 1, 2 }, false, true);
    memcpy(model->own[0].planes[0], "xyz", 3);
    memcpy(model->own[1].planes[0], "1234", 4);
    struct writer_options options = model_options(temp_path(dir, "m.safetensors"), COMPRESS_NONE);
    struct writer_size size;
    assert_ok(model_write(&safetensors_writer_ops, model, &options, &size, &err));
    static const char json[] = "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
                               "\"b\":{\"dtype\":\"BF16\",\"shape\":[1,2],\"data_offsets\":[3,7]}}    ";
    size_t nbytes, n_json = sizeof json - 1;
    assert_int_equal(n_json % 8, 0);
    char *file = read_file(options.path, &nbytes);
    assert_int_equal(nbytes, 8 + n_json + 7);
    assert_int_equal(size.nbytes, nbytes);
    assert_true((uint8_t)file[0] == n_json && memcmp(file + 1, "\0\0\0\0\0\0", 7) == 0);
    assert_memory_equal(file + 8, json, n_json);
    assert_memory_equal(file + 8 + n_json, "xyz1234", 7);
    free(file);
    model_free(model);
    temp_dir_remove(dir);
}

static void check_read(const struct model *model, const char *path)
{
    struct container *container;
    assert_ok(container_open(&io_system, path, &container, &err));
    assert_int_equal(container->n_tensors, model->n_tensors);
    for (size_t i = 0; i < model->n_tensors; i++) {
        size_t index = container_find(container, model->tensors[i].name), nbytes = model->own[i].n_plain;
        assert_true(index != SIZE_MAX);
        const struct tensor *tensor = &container->tensors[index];
        assert_string_equal(tensor->dtype->name, model->tensors[i].dtype);
        assert_int_equal(tensor->nbytes, nbytes);
        assert_int_equal(tensor->rank, model->tensors[i].rank);
        for (uint32_t d = 0; d < tensor->rank; d++) assert_int_equal(tensor->dims[d], model->tensors[i].dims[d]);
        uint8_t *bytes = malloc(nbytes + 1);
        assert_ok(container_read(container, index, 0, nbytes, bytes, &err));
        assert_memory_equal(bytes, model->own[i].plain, nbytes);
        free(bytes);
    }
    container_close(container);
}

static struct model *all_dtypes(void)
{
    static const uint64_t dims[][4] = { { 0 }, { 8 }, { 24, 16 }, { 0, 4 }, { 2, 3, 4, 5 }, { 1, 300000 } };
    static const uint32_t ranks[] = { 0, 1, 2, 2, 4, 2 };
    struct model *model = model_make(31);
    char name[64];
    for (size_t d = 0; d < dtype_count(); d++)
        for (size_t s = 0; s < 6; s++) {
            uint64_t n = 1;
            for (uint32_t r = 0; r < ranks[s]; r++) n *= dims[s][r];
            if (n * dtype_at(d)->bits % 8) continue;
            snprintf(name, sizeof name, "%s \"%zu\" \xC3\xA4", dtype_at(d)->name, s);
            model_add_kept(model, name, dtype_at(d)->name, ranks[s], dims[s], false, true);
        }
    return model;
}

static void test_single(void **state)
{
    (void)state;
    char *dir = temp_dir();
    const char *path = temp_path(dir, "m.safetensors");
    for (unsigned workers = 1; workers < 8; workers += 3) {
        struct model *model = all_dtypes();
        struct writer_options options = model_options(path, COMPRESS_NONE);
        struct writer_size size;
        size_t nbytes;
        options.n_workers = workers;
        options.tiles_per_job = workers;
        options.metadata_json = "{\"k\":\"v \\u00e4\",\"format\":\"tf\"}";
        assert_ok(model_write(&safetensors_writer_ops, model, &options, &size, &err));
        free(read_file(path, &nbytes));
        assert_true(size.exact && size.nbytes == nbytes && size.n_files == 1);
        check_read(model, path);
        struct container *container;
        assert_ok(container_open(&io_system, path, &container, &err));
        assert_non_null(strstr(container->metadata_json, "\"tf\""));
        assert_null(strstr(container->metadata_json, "\"pt\""));
        container_close(container);
        model_free(model);
    }
    temp_dir_remove(dir);
}

static uint64_t nbytes_of(const char *dir, const char *name)
{
    struct stat st;
    if (stat(temp_path(dir, name), &st) != 0) fail_msg("%s is missing", name);
    return (uint64_t)st.st_size;
}

static void test_folder(void **state)
{
    (void)state;
    char *dir = temp_dir(), out[512];
    snprintf(out, sizeof out, "%s/out/", dir);
    struct model *model = all_dtypes();
    model_add_blob(model, "tokenizer.json", 300000, true);
    model_add_blob(model, "config.json", 2, true);
    memcpy(model->blob_bytes[1], "{}", 2);
    struct writer_options options = model_options(out, COMPRESS_NONE);
    struct writer_size size;
    assert_ok(model_write(&safetensors_writer_ops, model, &options, &size, &err));
    assert_int_equal(size.n_files, 3);
    assert_false(file_exists(temp_path(out, "model.safetensors.index.json")));
    check_read(model, temp_path(out, "model.safetensors"));
    check_read(model, out);
    size_t nbytes;
    char *blob = read_file(temp_path(out, "tokenizer.json"), &nbytes);
    assert_int_equal(nbytes, 300000);
    assert_memory_equal(blob, model->blob_bytes[0], nbytes);
    free(blob);
    assert_int_equal(size.nbytes, nbytes_of(out, "model.safetensors") + 300000 + 2);
    model_free(model);
    temp_dir_remove(dir);
}

static void test_split(void **state)
{
    (void)state;
    char *dir = temp_dir(), out[512], name[64];
    snprintf(out, sizeof out, "%s/out", dir);
    assert_int_equal(mkdir(out, 0777), 0); /* a folder that is there already, without '/' */
    struct model *model = all_dtypes();
    model_add_blob(model, "config.json", 2, true);
    memcpy(model->blob_bytes[0], "{}", 2);
    struct writer_options options = model_options(out, COMPRESS_NONE);
    struct writer_size size;
    options.split_nbytes = 3000000;
    options.n_workers = 2;
    assert_ok(model_write(&safetensors_writer_ops, model, &options, &size, &err));
    uint32_t n_shards = size.n_files - 2;
    assert_true(n_shards > 3);
    uint64_t total = 2 + nbytes_of(out, "model.safetensors.index.json");
    for (uint32_t i = 1; i <= n_shards; i++) {
        snprintf(name, sizeof name, "model-%05u-of-%05u.safetensors", i, n_shards);
        uint64_t nbytes = nbytes_of(out, name);
        assert_true(nbytes <= 3000000);
        total += nbytes;
    }
    assert_int_equal(total, size.nbytes);
    check_read(model, out);
    check_read(model, temp_path(out, "model.safetensors.index.json"));
    size_t nbytes;
    char *index = read_file(temp_path(out, "model.safetensors.index.json"), &nbytes);
    static const char head[] = "{\n  \"metadata\": {\n    \"total_size\": ";
    assert_memory_equal(index, head, sizeof head - 1);
    snprintf(name, sizeof name, "\n    \"F32 \\\"0\\\" \xC3\xA4\": \"model-00001-of-%05u.safetensors\",\n", n_shards);
    assert_non_null(strstr(index, name));
    free(index);
    model_free(model);
    temp_dir_remove(dir);
}

static void test_refused(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct model *model = model_make(1);
    model_add_kept(model, "a", "U8", 1, (const uint64_t[]){ 300 }, false, true);
    model_add_kept(model, "b", "U8", 1, (const uint64_t[]){ 300 }, false, true);
    model_add_quantised(model, "q", 2, (const uint64_t[]){ 2, 32 }, 4, 32, false, true);
    model_add_blob(model, "config.json", 2, true);
    struct writer_options options = model_options(temp_path(dir, "m.safetensors"), COMPRESS_NONE);
    struct writer_size size;
    struct out_tensor *tensors = model->tensors;
    assert_refused(safetensors_writer_ops.plan(tensors, 3, NULL, 0, &options, &size, &err), ERR_UNSUPPORTED,
                   "tensor 'q': safetensors files hold plain");
    assert_refused(safetensors_writer_ops.plan(tensors, 2, model->blobs, 1, &options, &size, &err), ERR_USAGE, "no place for 'config.json'");
    options.split_nbytes = 500;
    assert_refused(safetensors_writer_ops.plan(tensors, 2, NULL, 0, &options, &size, &err), ERR_USAGE, "cannot be split");
    options.split_nbytes = 0;
    options.metadata_json = "{\"a\":1}";
    assert_refused(safetensors_writer_ops.plan(tensors, 2, NULL, 0, &options, &size, &err), ERR_DATA, "metadata 'a'");
    options.metadata_json = NULL;
    tensors[0].dtype = "U16";
    assert_refused(safetensors_writer_ops.plan(tensors, 2, NULL, 0, &options, &size, &err), ERR_USAGE, "do not go with 300 bytes");
    tensors[0].dtype = "U7";
    assert_refused(safetensors_writer_ops.plan(tensors, 2, NULL, 0, &options, &size, &err), ERR_USAGE, "dtype 'U7'");
    tensors[0].dtype = "U8";
    char out[512];
    snprintf(out, sizeof out, "%s/out/", dir);
    options.path = out;
    static const char *const names[] = { "model.safetensors", "model.safetensors.index.json", "model-00001-of-00002.safetensors", "../x", "" };
    for (size_t i = 0; i < 5; i++) {
        model->blobs[0].name = names[i];
        assert_int_equal(safetensors_writer_ops.plan(tensors, 2, model->blobs, 1, &options, &size, &err), ERR_DATA);
    }
    /* a part that is not of this tensor; a tensor not written */
    struct outset *set;
    struct writer *writer;
    assert_ok(outset_open(&io_system, false, &set, &err));
    assert_ok(safetensors_writer_ops.open(set, tensors, 2, NULL, 0, &options, &writer, &err));
    struct part part = { 0, 0, model->own[0].planes[0], 300 };
    assert_ok(safetensors_writer_ops.put(writer, 0, 0, 0, &part, 1, NULL, NULL, &err));
    assert_refused(safetensors_writer_ops.finish(writer, model->digests, &err), ERR_USAGE, "0 of 300 bytes of tensor 'b'");
    part.nbytes = 299;
    assert_refused(safetensors_writer_ops.put(writer, 0, 1, 1, &part, 1, NULL, NULL, &err), ERR_USAGE, "cannot write tensor 'b'");
    part.nbytes = 300;
    assert_refused(safetensors_writer_ops.put(writer, 0, 1, 1, &part, 1, NULL, NULL, &err), ERR_CANCELLED, "stopped");
    safetensors_writer_ops.abort(writer);
    safetensors_writer_ops.close(writer);
    outset_close(set);
    assert_false(file_exists(out));
    model_free(model);
    temp_dir_remove(dir);
}

static void test_nothing(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct model *model = model_make(1);
    struct writer_options options = model_options(temp_path(dir, "m.safetensors"), COMPRESS_NONE);
    assert_ok(model_write(&safetensors_writer_ops, model, &options, NULL, &err));
    check_read(model, options.path);
    model_free(model);
    temp_dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes), cmocka_unit_test(test_single),  cmocka_unit_test(test_folder),
        cmocka_unit_test(test_split), cmocka_unit_test(test_refused), cmocka_unit_test(test_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
