/* test_residual.c: planes in memory, in files with and without a name; full disks, short files, files that are something else. */
#include "smoothquant/residual.h"
#include "support/support.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"

static const struct residual_shape shape = { 3, 4, 5 };

static void use(struct residual *residual)
{
    struct err err;
    float row[10], back[10];
    for (size_t p = 0; p < 3; p++)
        for (size_t r = 0; r < 4; r++) {
            for (size_t j = 0; j < 5; j++) row[j] = (float)(100 * p + 10 * r + j);
            assert_ok(residual_write(residual, p, r, 1, row, &err));
        }
    for (size_t p = 0; p < 3; p++) {
        assert_ok(residual_read(residual, p, 1, 2, back, &err));
        for (size_t i = 0; i < 10; i++) assert_true(back[i] == (float)(100 * p + 10 * (1 + i / 5) + i % 5));
    }
}

static size_t files_in(const char *dir)
{
    char command[300], line[16] = "";
    snprintf(command, sizeof command, "ls %s | wc -l", dir);
    FILE *pipe = popen(command, "r");
    assert_non_null(fgets(line, sizeof line, pipe));
    pclose(pipe);
    return (size_t)strtoul(line, NULL, 10);
}

static void test_kinds(void **state)
{
    (void)state;
    struct err err;
    struct residual *residual;
    char *dir = temp_dir();
    assert_ok(residual_open_memory(&shape, &residual, &err));
    use(residual);
    residual_close(residual, true);
    assert_ok(residual_open_unnamed(&io_system, dir, &shape, &residual, &err));
    assert_int_equal(files_in(dir), 0);
    use(residual);
    residual_close(residual, true);
    assert_ok(residual_open_file(&io_system, temp_path(dir, "a"), false, &shape, &residual, &err));
    use(residual);
    residual_close(residual, false);
    assert_true(file_exists(temp_path(dir, "a")));
    float row[5];
    assert_ok(residual_open_file(&io_system, temp_path(dir, "a"), true, &shape, &residual, &err));
    assert_ok(residual_read(residual, 2, 3, 1, row, &err));
    assert_true(row[4] == 234.0f);
    residual_close(residual, true);
    assert_false(file_exists(temp_path(dir, "a")));
    residual_close(NULL, true);
    temp_dir_remove(dir);
}

static void test_refusals(void **state)
{
    (void)state;
    struct err err;
    struct residual *residual;
    char *dir = temp_dir();
    float row[5];
    const struct residual_shape huge = { 3, UINT64_MAX / 4, 5 };
    assert_refused(residual_open_memory(&huge, &residual, &err), ERR_UNSUPPORTED, "too many");
    assert_null(residual);
    assert_refused(residual_open_unnamed(&io_system, temp_path(dir, "nowhere"), &shape, &residual, &err), ERR_IO, "nowhere");
    assert_refused(residual_open_file(&io_system, temp_path(dir, "missing"), true, &shape, &residual, &err), ERR_IO, "missing");
    write_file(temp_path(dir, "long"), "x", 1);
    assert_int_equal(truncate(temp_path(dir, "long"), 1000), 0);
    assert_refused(residual_open_file(&io_system, temp_path(dir, "long"), true, &shape, &residual, &err), ERR_DATA, "1000 bytes");
    write_file(temp_path(dir, "short"), "x", 1);
    assert_ok(residual_open_file(&io_system, temp_path(dir, "short"), true, &shape, &residual, &err));
    assert_refused(residual_read(residual, 0, 0, 1, row, &err), ERR_DATA, "ends at byte");
    residual_close(residual, true);
    assert_int_equal(symlink("/dev/null", temp_path(dir, "link")), 0);
    assert_refused(residual_open_file(&io_system, temp_path(dir, "link"), false, &shape, &residual, &err), ERR_IO, "link");
    temp_dir_remove(dir);
}

static ssize_t no_space(int fd, const void *buf, size_t nbytes, off_t offset)
{
    (void)fd, (void)buf, (void)nbytes, (void)offset;
    errno = ENOSPC;
    return -1;
}

static ssize_t one_byte(int fd, const void *buf, size_t nbytes, off_t offset)
{
    return pwrite(fd, buf, nbytes < 3 ? nbytes : 3, offset);
}

static void test_disk(void **state)
{
    (void)state;
    struct err err;
    struct residual *residual;
    char *dir = temp_dir();
    const float row[5] = { 0 };
    struct io_calls calls = io_system;
    calls.pwrite = no_space;
    assert_ok(residual_open_file(&calls, temp_path(dir, "full"), false, &shape, &residual, &err));
    assert_refused(residual_write(residual, 0, 0, 1, row, &err), ERR_IO, "full");
    residual_close(residual, true);
    calls.pwrite = one_byte;
    assert_ok(residual_open_unnamed(&calls, dir, &shape, &residual, &err));
    use(residual);
    residual_close(residual, true);
    temp_dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_kinds), cmocka_unit_test(test_refusals), cmocka_unit_test(test_disk) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
