/* test_container.c: recognising files, the dispatchers, names, notes, and what is no model.
 *
 * Formula: a foreign file is its first bytes; every row of foreign.c must be met by one.
 * Why this way: the containers themselves have tests of their own; here stand what is shared and what is refused before any of them.
 * Corner cases: FIFO, folder, socket and devices must be refused without waiting; a struct container made by hand tests the dispatchers without a
 * file.
 * Reference: container.h; the project's reliability notes 5.1 row 10.
 */
#include "support/support.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "container/container.h"
#include "container/foreign.h"
#include "container/name_table.h"
#include "container/safetensors.h"

static char *dir;

static int make_dir(void **state)
{
    (void)state;
    dir = temp_dir();
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    temp_dir_remove(dir);
    return 0;
}

/* ---- the table of containers ------------------------------------------------------------------------------------------------------ */

static void the_table_is_complete(void **state)
{
    (void)state;
    static const char *const names[] = { "folder", "llmq", "gguf", "safetensors" };
    assert_int_equal(container_ops_count(), 4);
    for (size_t i = 0; i < container_ops_count(); i++) {
        const struct container_ops *ops = container_ops_at(i);
        assert_string_equal(ops->name, names[i]);
        assert_non_null(ops->description);
        assert_non_null(ops->probe);
    }
}

static void exactly_one_container_wants_a_file(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        bool is_dir;
        const char *head;
        size_t n_head;
        const char *wanted; /* NULL: none */
    } cases[] = {
        { "dir", true, "", 0, "folder" },
        { "dir.safetensors", true, "", 0, "folder" },
        { "d/model.safetensors.index.json", false, "{\"a\":1}xx", 9, "folder" },
        { "x.safetensors", false, "", 0, "safetensors" },
        { "x.safetensors", false, "GGUFxxxxx", 9, "safetensors" },
        { "x", false, "\x10\0\0\0\0\0\0\0{", 9, "safetensors" },
        { "x", false, "\x10\0\0\0\0\0\0\0 ", 9, "safetensors" },
        { "x.bin", false, "\x80\x02\0\0\0\0\0\0{", 9, "safetensors" },
        { "x", false, "\x10\0\0\0\0\0\0\0x", 9, NULL },
        { "x", false, "\x10\0\0\0\0\0\0\0", 8, NULL },
        { "x", false, "\x10\0\0\0\0\0\0\1{", 9, NULL },
        { ".safetensors", false, "", 0, NULL },
        { ".index.json", false, "", 0, NULL },
        { "x.gguf", false, "GGUF\3\0\0\0\0", 9, "gguf" },
        { "x", false, "GGUF", 4, "gguf" },
        { "x.gguf", false, "GGU", 3, NULL },
        { "x.gguf", true, "GGUF", 4, "folder" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *found = NULL;
        for (size_t c = 0; c < container_ops_count(); c++) {
            const struct container_ops *ops = container_ops_at(c);
            if (!ops->probe(cases[i].path, cases[i].is_dir, (const uint8_t *)cases[i].head, cases[i].n_head)) continue;
            if (found) fail_msg("case %zu: %s and %s", i, found, ops->name);
            found = ops->name;
        }
        if (!found != !cases[i].wanted || (found && strcmp(found, cases[i].wanted) != 0)) fail_msg("case %zu: %s", i, found ? found : "none");
    }
}

/* ---- what is no model ------------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *what;
    const char *head;
    size_t n;
    enum status status;
    const char *part;
} foreigners[] = {
    { "empty", "", 0, ERR_DATA, "is empty" },
    { "one byte", "x", 1, ERR_DATA, "is shorter than 8 bytes" },
    { "seven bytes", "{      ", 7, ERR_DATA, "is shorter than 8 bytes" },
    { "LFS pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", 64, ERR_DATA,
      "is a git-LFS pointer, not the file itself; run git lfs pull" },
    { "web page", "<!DOCTYPE html>\n<html>", 22, ERR_DATA, "is a web page" },
    { "web page in small letters", "\n\n  <!doctype html>", 19, ERR_DATA, "is a web page" },
    { "web page without doctype", "<HTML><body>", 12, ERR_DATA, "is a web page" },
    { "web page with a BOM", "\xef\xbb\xbf<html></html>", 16, ERR_DATA, "is a web page" },
    { "XML error of a store", "<?xml version=\"1.0\"?><Error>", 28, ERR_DATA, "is a web page" },
    { "GGUF, big-endian", "GGUF\0\0\0\3\0\0\0\0", 12, ERR_UNSUPPORTED, "it is a big-endian GGUF file" },
    { "old GGML", "lmgg\0\0\0\0\0\0", 10, ERR_UNSUPPORTED, "GGML file of before GGUF" },
    { "old GGJT", "tjgg\3\0\0\0\0\0", 10, ERR_UNSUPPORTED, "GGML file of before GGUF" },
    { "PyTorch zip", "PK\3\4\0\0\x08\x08\0\0", 10, ERR_UNSUPPORTED, "PyTorch (zip)" },
    { "zip whose bytes are a possible length", "PK\3\4\0\0\0\0\0\0", 10, ERR_UNSUPPORTED, "PyTorch (zip)" },
    { "PyTorch pickle", "\x80\x02\x8a\nl\xfc\x9c\x46\xf9 ", 10, ERR_UNSUPPORTED, "PyTorch (pickle)" },
    { "HDF5", "\x89HDF\r\n\x1a\n\0", 9, ERR_UNSUPPORTED, "HDF5" },
    { "NumPy", "\x93NUMPY\1\0v\0", 10, ERR_UNSUPPORTED, "NumPy" },
    { "gzip", "\x1f\x8b\x08\0\0\0\0\0\0\3", 10, ERR_UNSUPPORTED, "gzip" },
    { "xz",
      "\xfd"
      "7zXZ\0\0\4\xe6\xd6",
      10, ERR_UNSUPPORTED, "xz" },
    { "zstd", "\x28\xb5\x2f\xfd\4\0\0\0\0\0", 10, ERR_UNSUPPORTED, "zstd" },
    { "JSON", "{\"hidden_size\": 64}", 19, ERR_UNSUPPORTED, "is a JSON text, not weights" },
    { "JSON behind blanks", "\n  {\"error\": 1}", 15, ERR_UNSUPPORTED, "is a JSON text, not weights" },
    { "plain text", "hello, I am no model", 20, ERR_UNSUPPORTED, "no model file that llmq knows" },
    { "zeros", "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16, ERR_UNSUPPORTED, "no model file that llmq knows" },
    { "ELF",
      "\x7f"
      "ELF\2\1\1\0\0\0\0",
      11, ERR_UNSUPPORTED, "no model file that llmq knows" },
};

static void foreign_files_are_named(void **state)
{
    (void)state;
    const char *path = temp_path(dir, "model");
    for (size_t i = 0; i < sizeof foreigners / sizeof foreigners[0]; i++) {
        struct container *container = NULL;
        struct err err = { .code = OK };
        write_file(path, foreigners[i].head, foreigners[i].n);
        enum status status = container_open(&io_system, path, &container, &err);
        if (status != foreigners[i].status || !strstr(err.text, foreigners[i].part) || !strstr(err.text, "/model'"))
            fail_msg("%s: status %d, %s", foreigners[i].what, (int)status, err.text);
        assert_null(container);
    }
    for (size_t r = 0; r < foreign_count(); r++) {
        bool met = false;
        for (size_t i = 0; i < sizeof foreigners / sizeof foreigners[0] && !met; i++) {
            const struct foreign *found = foreign_find((const uint8_t *)foreigners[i].head, foreigners[i].n);
            met = found && strcmp(found->sentence, foreign_at(r)->sentence) == 0;
        }
        if (!met) fail_msg("no file here is a %s", foreign_at(r)->name);
    }
}

static void a_possible_safetensors_is_never_foreign(void **state)
{
    (void)state;
    for (unsigned b0 = 0; b0 < 256; b0++)
        for (unsigned b1 = 0; b1 < 256; b1++) {
            const uint8_t head[9] = { (uint8_t)b0, (uint8_t)b1, 0, 0, 0, 0, 0, 0, '{' };
            assert_null(foreign_find(head, sizeof head));
        }
}

static void special_files_are_refused_at_once(void **state)
{
    (void)state;
    struct container *container = NULL;
    struct err err;
    struct timespec begin, end;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
    const char *fifo = temp_path(dir, "fifo.safetensors"), *socket_path = temp_path(dir, "socket");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_refused(container_open(&io_system, fifo, &container, &err), ERR_UNSUPPORTED, "FIFO");
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (strlen(socket_path) < sizeof address.sun_path) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        memcpy(address.sun_path, socket_path, strlen(socket_path));
        if (bind(fd, (const struct sockaddr *)&address, sizeof address) == 0)
            assert_refused(container_open(&io_system, socket_path, &container, &err), ERR_UNSUPPORTED, "socket");
        close(fd);
    }
    assert_refused(container_open(&io_system, "/dev/zero", &container, &err), ERR_UNSUPPORTED, "device");
    assert_refused(container_open(&io_system, "/dev/null", &container, &err), ERR_UNSUPPORTED, "device");
    assert_refused(container_open(&io_system, temp_path(dir, "missing"), &container, &err), ERR_IO, "No such file or directory");
    assert_refused(container_open(&io_system, "", &container, &err), ERR_IO, "cannot open ''");
    assert_refused(container_open(&io_system, temp_path(dir, "missing/x.safetensors"), &container, &err), ERR_IO, "cannot open");
    assert_null(container);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
    assert_true(end.tv_sec - begin.tv_sec < 3);
}

/* ---- dispatchers, on a container made by hand ------------------------------------------------------------------------------------- */

static const uint64_t dims[] = { 2, 3, 4 };
static enum status fake_status;
static unsigned n_closed;

static enum status fake_read(struct container *container, size_t index, uint64_t offset, size_t nbytes, void *buf, struct err *err)
{
    (void)container;
    memset(buf, (int)(index + offset), nbytes);
    return fake_status == OK ? OK : err_set(err, fake_status, "the disk is on fire");
}

static enum status fake_read_f32(struct container *container, size_t index, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n_cols, float *out,
                                 struct err *err)
{
    (void)container, (void)index, (void)err;
    for (uint64_t i = 0; i < n_rows * n_cols; i++) out[i] = (float)(100 * row + col);
    return OK;
}

static enum status fake_check(struct container *container, struct err *err)
{
    (void)container;
    return err_set(err, ERR_DATA, "checked");
}

static void fake_close(struct container *container)
{
    n_closed++;
    container_release(container);
    free(container);
}

static const struct container_ops fake_ops = {
    .name = "fake",
    .read = fake_read,
    .read_f32 = fake_read_f32,
    .read_blob = fake_read,
    .check_unchanged = fake_check,
    .close = fake_close,
};

/* Tensors "p" (plain U8) and "q" (quantised), both 2 x 3 x 4; one blob. */
static struct container *make_fake(void)
{
    struct container *container = calloc(1, sizeof *container);
    struct tensor plain = { .name = "p", .dtype = dtype_find("U8", 2), .dims = dims, .rank = 3, .n_weights = 24, .nbytes = 24 };
    struct tensor quantised = plain;
    quantised.name = "q";
    quantised.quantised = container;
    container->ops = &fake_ops;
    container->path = strdup("d/fake");
    container->tensors = calloc(2, sizeof plain);
    container->tensors[0] = plain;
    container->tensors[1] = quantised;
    container->n_tensors = 2;
    container->blobs = calloc(1, sizeof *container->blobs);
    container->blobs[0] = (struct blob){ .name = strdup("config.json"), .nbytes = 10 };
    container->n_blobs = 1;
    fake_status = OK;
    return container;
}

static void ranges_are_checked_before_the_container_sees_them(void **state)
{
    (void)state;
    struct container *fake = make_fake();
    struct err err;
    uint8_t buf[24];
    assert_ok(container_read(fake, 0, 4, 20, buf, &err));
    assert_int_equal(buf[0], 4);
    assert_ok(container_read(fake, 0, 24, 0, NULL, &err));
    assert_refused(container_read(fake, 0, 5, 20, buf, &err), ERR_USAGE, "cannot read tensor 'p' of 'fake': offset 5 + size 20 exceeds its 24 bytes");
    assert_refused(container_read(fake, 0, UINT64_MAX, 2, buf, &err), ERR_USAGE, "exceeds");
    assert_refused(container_read(fake, 0, 0, SIZE_MAX, buf, &err), ERR_USAGE, "exceeds");
    assert_refused(container_read(fake, 2, 0, 1, buf, &err), ERR_USAGE, "no tensor number 2, only 2");
    assert_refused(container_read(fake, 1, 0, 1, buf, &err), ERR_USAGE, "tensor 'q' of 'fake': it is quantised");
    assert_refused(container_read_blob(fake, 0, 5, 6, buf, &err), ERR_USAGE,
                   "cannot read 'config.json' of 'd/fake': offset 5 + size 6 exceeds its 10 bytes");
    assert_refused(container_read_blob(fake, 1, 0, 0, buf, &err), ERR_USAGE, "no small file number 1, only 1");
    assert_ok(container_read_blob(fake, 0, 5, 5, buf, &err));
    assert_refused(container_check_unchanged(fake, &err), ERR_DATA, "checked");
    container_close(fake);
}

static void decoded_ranges_are_checked(void **state)
{
    (void)state;
    struct container *fake = make_fake();
    struct err err;
    float out[24];
    assert_ok(container_read_f32(fake, 1, 2, 4, 1, 3, out, &err));
    assert_true(out[11] == 201.0f);
    assert_ok(container_read_f32(fake, 1, 6, 0, 0, 4, NULL, &err));
    assert_refused(container_read_f32(fake, 1, 3, 4, 0, 4, out, &err), ERR_USAGE, "offset 3 + size 4 exceeds its 6");
    assert_refused(container_read_f32(fake, 1, 0, 6, 1, 4, out, &err), ERR_USAGE, "offset 1 + size 4 exceeds its 4");
    assert_refused(container_read_f32(fake, 0, 0, 1, 0, 1, out, &err), ERR_USAGE, "tensor 'p' of 'fake': it is stored plainly");
    assert_refused(container_read_f32(fake, 9, 0, 1, 0, 1, out, &err), ERR_USAGE, "no tensor number 9");
    container_close(fake);
}

static void failures_name_tensor_and_file(void **state)
{
    (void)state;
    struct container *fake = make_fake();
    struct err err;
    uint8_t buf[24];
    fake_status = ERR_IO;
    assert_refused(container_read(fake, 0, 0, 24, buf, &err), ERR_IO, "cannot read tensor 'p' of 'fake': the disk is on fire");
    assert_refused(container_read_blob(fake, 0, 0, 10, buf, &err), ERR_IO, "cannot read 'config.json' of 'd/fake': the disk is on fire");
    assert_int_equal(container_read(fake, 0, 0, 24, buf, NULL), ERR_IO);
    container_close(fake);
}

static void names_are_found(void **state)
{
    (void)state;
    struct container *fake = make_fake();
    struct err err;
    assert_int_equal(container_find(fake, "p"), SIZE_MAX); /* not indexed yet */
    assert_ok(container_index_names(fake, &err));
    assert_ok(container_index_names(fake, &err));
    assert_int_equal(container_find(fake, "p"), 0);
    assert_int_equal(container_find(fake, "q"), 1);
    assert_int_equal(container_find(fake, "r"), SIZE_MAX);
    assert_int_equal(container_find(fake, ""), SIZE_MAX);
    unsigned before = n_closed;
    container_close(fake);
    container_close(NULL);
    assert_int_equal(n_closed, before + 1);
    fake = make_fake();
    fake->tensors[1].name = "p";
    assert_refused(container_index_names(fake, &err), ERR_DATA, "tensor 'p' is there twice: in 'fake' and in 'fake'");
    container_close(fake);
}

static void notes_are_kept_and_bounded(void **state)
{
    (void)state;
    struct container *fake = make_fake();
    char *long_text = calloc(1, 5001);
    memset(long_text, 'x', 5000);
    container_note(fake, "ignored %d files", 3);
    container_note(fake, "%s", long_text);
    assert_string_equal(fake->notes[0], "ignored 3 files");
    assert_true(strlen(fake->notes[1]) < 5000);
    for (int i = 0; i < 3000; i++) container_note(fake, "%d", i);
    assert_int_equal(fake->n_notes, 1000);
    container_close(fake);
    free(long_text);
}

static void rows_and_columns(void **state)
{
    (void)state;
    static const uint64_t with_zero[] = { 5, 0, 7 }, flat[] = { 9 };
    struct tensor t = { .dims = dims, .rank = 3 };
    assert_int_equal(tensor_rows(&t), 6);
    assert_int_equal(tensor_cols(&t), 4);
    t = (struct tensor){ .dims = NULL, .rank = 0 };
    assert_int_equal(tensor_rows(&t), 1);
    assert_int_equal(tensor_cols(&t), 1);
    t = (struct tensor){ .dims = flat, .rank = 1 };
    assert_int_equal(tensor_rows(&t), 1);
    assert_int_equal(tensor_cols(&t), 9);
    t = (struct tensor){ .dims = with_zero, .rank = 3 };
    assert_int_equal(tensor_rows(&t), 0);
    assert_int_equal(tensor_cols(&t), 7);
}

/* ---- the name table --------------------------------------------------------------------------------------------------------------- */

static void the_name_table_holds_many(void **state)
{
    (void)state;
    enum { N = 300000 };
    struct name_table table = { 0 };
    struct err err;
    char *text = malloc((size_t)N * 16);
    size_t index = 0;
    assert_int_equal(name_table_find(&table, "x"), SIZE_MAX);
    for (size_t i = 0; i < N; i++) {
        snprintf(text + i * 16, 16, "n%zu", i);
        assert_ok(name_table_add(&table, text + i * 16, &index, &err));
        assert_int_equal(index, i);
    }
    for (size_t i = 0; i < N; i += 7) {
        assert_ok(name_table_add(&table, text + i * 16, &index, &err));
        assert_int_equal(index, i);
        assert_int_equal(name_table_find(&table, text + i * 16), i);
    }
    assert_int_equal(table.n_names, N);
    assert_int_equal(name_table_find(&table, "n300000"), SIZE_MAX);
    print_message("%.2f probes a call\n", (double)table.n_probes / (double)table.n_calls);
    assert_true(table.n_probes < 3 * table.n_calls);
    name_table_free(&table);
    name_table_free(&table);
    name_table_free(NULL);
    free(text);
}

/* Names whose hashes share the low bits are found by trying; a table of them must be refused, not slow. */
static void names_made_to_collide_are_refused(void **state)
{
    (void)state;
    struct name_table table = { 0 };
    struct err err;
    enum { N = 2000, LOW = 0xfff };
    char *text = malloc((size_t)N * 16);
    size_t n = 0, index = 0;
    enum status status = OK;
    struct name_table probe = { 0 }; /* one name a time, to see its hash */
    for (unsigned long i = 0; n < N && status == OK; i++) {
        char *name = text + n * 16;
        snprintf(name, 16, "%lx", i);
        assert_ok(name_table_add(&probe, name, &index, &err));
        uint32_t hash = 0;
        for (size_t s = 0; s < probe.n_slots; s++)
            if (probe.slots[s].number) hash = probe.slots[s].hash;
        memset(probe.slots, 0, probe.n_slots * sizeof *probe.slots);
        probe.n_names = 0;
        if ((hash & LOW) != 0) continue;
        status = name_table_add(&table, name, &index, &err);
        n++;
    }
    assert_int_equal(status, ERR_DATA);
    assert_non_null(strstr(err.text, "made to collide"));
    name_table_free(&table);
    name_table_free(&probe);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_is_complete),
        cmocka_unit_test(exactly_one_container_wants_a_file),
        cmocka_unit_test(foreign_files_are_named),
        cmocka_unit_test(a_possible_safetensors_is_never_foreign),
        cmocka_unit_test(special_files_are_refused_at_once),
        cmocka_unit_test(ranges_are_checked_before_the_container_sees_them),
        cmocka_unit_test(decoded_ranges_are_checked),
        cmocka_unit_test(failures_name_tensor_and_file),
        cmocka_unit_test(names_are_found),
        cmocka_unit_test(notes_are_kept_and_bounded),
        cmocka_unit_test(rows_and_columns),
        cmocka_unit_test(the_name_table_holds_many),
        cmocka_unit_test(names_made_to_collide_are_refused),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
