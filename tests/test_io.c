/* test_io.c: input files, paths, the output protocol, and every file call failing in turn.
 *
 * Why this way: a table of calls that counts, fails, shortens or interrupts the n-th call of one kind stands in for the disk; what it lets
 * through goes to the real file system.
 * Corner cases: a failing close still closes, as in the kernel; tests about permissions are left out for root.
 * Reference: io.h.
 */
#include "support/support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"

/* ---- calls that fail ------------------------------------------------------------------------------------------------------------ */

enum call {
    CALL_OPEN,
    CALL_CLOSE,
    CALL_PREAD,
    CALL_PWRITE,
    CALL_FSTAT,
    CALL_FSYNC,
    CALL_FCHMOD,
    CALL_FLOCK,
    CALL_LINK,
    CALL_RENAME,
    CALL_UNLINK,
    CALL_MKDIR,
    CALL_RMDIR,
    CALL_STATVFS,
    CALL_STAT,
    CALL_LSTAT,
    N_CALLS
};

static const char *const call_names[N_CALLS] = { "open", "close",  "pread",  "pwrite", "fstat", "fsync",   "fchmod", "flock",
                                                 "link", "rename", "unlink", "mkdir",  "rmdir", "statvfs", "stat",   "lstat" };

static struct {
    enum call call;
    unsigned nth; /* 1 is the first; 0: none fails */
    bool onward;
    int number;
    uint64_t shorten; /* state of the random lengths; 0: whole transfers */
    bool interrupt; /* with shorten: EINTR now and then */
    unsigned n[N_CALLS];
} fault;

static bool hit(enum call call)
{
    unsigned n = ++fault.n[call];
    if (!fault.nth || call != fault.call || (fault.onward ? n < fault.nth : n != fault.nth)) return false;
    errno = fault.number;
    return true;
}

/* The length of a transfer; 0 stands for an interruption. */
static size_t transfer(size_t nbytes)
{
    if (!fault.shorten || nbytes == 0) return nbytes;
    uint64_t r = test_random(&fault.shorten);
    if (fault.interrupt && r % 3 == 0) return 0;
    return 1 + (size_t)((r >> 8) % nbytes);
}

static int fail_open(const char *path, int flags, mode_t mode)
{
    return hit(CALL_OPEN) ? -1 : io_system.open(path, flags, mode);
}
static int fail_fstat(int fd, struct stat *st)
{
    return hit(CALL_FSTAT) ? -1 : fstat(fd, st);
}
static int fail_fsync(int fd)
{
    return hit(CALL_FSYNC) ? -1 : fsync(fd);
}
static int fail_fchmod(int fd, mode_t mode)
{
    return hit(CALL_FCHMOD) ? -1 : fchmod(fd, mode);
}
static int fail_flock(int fd, int operation)
{
    return hit(CALL_FLOCK) ? -1 : flock(fd, operation);
}
static int fail_link(const char *from, const char *to)
{
    return hit(CALL_LINK) ? -1 : link(from, to);
}
static int fail_rename(const char *from, const char *to)
{
    return hit(CALL_RENAME) ? -1 : rename(from, to);
}
static int fail_unlink(const char *path)
{
    return hit(CALL_UNLINK) ? -1 : unlink(path);
}
static int fail_mkdir(const char *path, mode_t mode)
{
    return hit(CALL_MKDIR) ? -1 : mkdir(path, mode);
}
static int fail_rmdir(const char *path)
{
    return hit(CALL_RMDIR) ? -1 : rmdir(path);
}
static int fail_statvfs(const char *path, struct statvfs *out)
{
    return hit(CALL_STATVFS) ? -1 : statvfs(path, out);
}
static int fail_stat(const char *path, struct stat *st)
{
    return hit(CALL_STAT) ? -1 : stat(path, st);
}
static int fail_lstat(const char *path, struct stat *st)
{
    return hit(CALL_LSTAT) ? -1 : lstat(path, st);
}

static int fail_close(int fd)
{
    close(fd);
    return hit(CALL_CLOSE) ? -1 : 0;
}

static ssize_t fail_pread(int fd, void *buf, size_t nbytes, off_t offset)
{
    if (hit(CALL_PREAD)) return fault.number ? -1 : 0;
    size_t n = transfer(nbytes);
    if (nbytes && n == 0) errno = EINTR;
    return nbytes && n == 0 ? -1 : pread(fd, buf, n, offset);
}

static ssize_t fail_pwrite(int fd, const void *buf, size_t nbytes, off_t offset)
{
    if (hit(CALL_PWRITE)) return fault.number ? -1 : 0;
    size_t n = transfer(nbytes);
    if (nbytes && n == 0) errno = EINTR;
    return nbytes && n == 0 ? -1 : pwrite(fd, buf, n, offset);
}

static const struct io_calls failing = {
    .open = fail_open,
    .close = fail_close,
    .pread = fail_pread,
    .pwrite = fail_pwrite,
    .fstat = fail_fstat,
    .fsync = fail_fsync,
    .fchmod = fail_fchmod,
    .flock = fail_flock,
    .link = fail_link,
    .rename = fail_rename,
    .unlink = fail_unlink,
    .mkdir = fail_mkdir,
    .rmdir = fail_rmdir,
    .statvfs = fail_statvfs,
    .stat = fail_stat,
    .lstat = fail_lstat,
};

static void fail_nth(enum call call, unsigned nth, bool onward, int number)
{
    memset(&fault, 0, sizeof fault);
    fault.call = call;
    fault.nth = nth;
    fault.onward = onward;
    fault.number = number;
}

static unsigned n_open_files(void)
{
    unsigned n = 0;
    DIR *list = opendir("/proc/self/fd");
    if (!list) return 0;
    while (readdir(list)) n++;
    closedir(list);
    return n;
}

static void assert_content(const char *path, const char *wanted)
{
    char *text = read_file(path, NULL);
    assert_string_equal(text, wanted);
    free(text);
}

static unsigned mode_of(const char *path)
{
    struct stat st;
    assert_int_equal(lstat(path, &st), 0);
    return st.st_mode & 07777u;
}

/* ---- input ---------------------------------------------------------------------------------------------------------------------- */

static void make_socket(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    close(fd);
}

static void test_open_refuses(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct err err;
    struct file file;
    const char *fifo = temp_path(dir, "fifo"), *sock = temp_path(dir, "sock"), *loop = temp_path(dir, "loop");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    make_socket(sock);
    assert_int_equal(symlink("loop", loop), 0);
    double start = (double)time(NULL);
    assert_refused(file_open(&io_system, fifo, &file, &err), ERR_UNSUPPORTED, "fifo': it is a FIFO, not a regular file");
    assert_refused(file_open(&io_system, sock, &file, &err), ERR_UNSUPPORTED, "sock': it is a socket");
    assert_refused(file_open(&io_system, loop, &file, &err), ERR_IO, "loop': Too many levels of symbolic links");
    assert_refused(file_open(&io_system, dir, &file, &err), ERR_UNSUPPORTED, "it is a directory");
    assert_refused(file_open(&io_system, "/dev/zero", &file, &err), ERR_UNSUPPORTED, "cannot open '/dev/zero': it is a device");
    assert_refused(file_open(&io_system, "/nowhere/x\ny", &file, &err), ERR_IO, "cannot open '/nowhere/x\\x0ay': No such file or directory");
    assert_refused(file_open(&io_system, "", &file, &err), ERR_IO, "cannot open '': No such file");
    assert_int_equal(file.fd, -1);
    file_close(&file);
    file_close(NULL);
    file = (struct file){ .fd = 0 };
    file_close(&file);
    assert_true((double)time(NULL) - start < 2);
    write_file(temp_path(dir, "x"), "x", 1);
    assert_refused(file_open(&io_system, temp_path(dir, "x/y"), &file, &err), ERR_IO, "Not a directory");
    if (geteuid() != 0) {
        chmod(temp_path(dir, "x"), 0);
        assert_refused(file_open(&io_system, temp_path(dir, "x"), &file, &err), ERR_IO, "Permission denied");
    }
    temp_dir_remove(dir);
}

static void test_read(void **state)
{
    (void)state;
    char *dir = temp_dir(), buf[64];
    struct err err;
    struct file file;
    const char *path = temp_path(dir, "f");
    write_file(path, "0123456789abcdefghij0123456789ABCDEFGHIJ0123456789", 50);
    assert_int_equal(symlink("f", temp_path(dir, "link")), 0);
    assert_ok(file_open(&io_system, temp_path(dir, "link"), &file, &err));
    assert_int_equal(file.nbytes, 50);
    assert_ok(file_read(&file, buf, 10, 20, &err));
    assert_memory_equal(buf, "0123456789", 10);
    assert_ok(file_read(&file, buf, 0, 50, &err));
    assert_ok(file_read(&file, buf, 0, 99, &err));
    assert_ok(file_read(&file, buf, 50, 0, &err));
    assert_refused(file_read(&file, buf, 20, 40, &err), ERR_DATA, "link' ends at byte 50, wanted bytes 40 to 60");
    assert_refused(file_read(&file, buf, 1, 50, &err), ERR_DATA, "ends at byte 50, wanted bytes 50 to 51");
    assert_refused(file_read(&file, buf, 1, 1000, &err), ERR_DATA, "ends at byte 50, wanted bytes 1000 to 1001");
    assert_refused(file_read(&file, buf, 10, INT64_MAX - 5, &err), ERR_DATA, "ends at byte 50");
    assert_refused(file_read(&file, buf, 1, UINT64_MAX, &err), ERR_DATA, "ends at byte 50");
    assert_ok(file_check_unchanged(&file, &err));
    assert_int_equal(truncate(path, 30), 0);
    assert_refused(file_read(&file, buf, 20, 20, &err), ERR_DATA, "ends at byte 30");
    assert_refused(file_check_unchanged(&file, &err), ERR_DATA, "link' changed while it was read");
    file_close(&file);
    file_close(&file);
    temp_dir_remove(dir);
}

static void test_changes_are_seen(void **state)
{
    (void)state;
    char *dir = temp_dir();
    const char *path = temp_path(dir, "f"), *other = temp_path(dir, "g");
    for (int kind = 0; kind < 4; kind++) {
        struct err err;
        struct file file;
        write_file(path, "hello", 5);
        assert_ok(file_open(&io_system, path, &file, &err));
        assert_ok(file_check_unchanged(&file, &err));
        nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
        struct timespec times[2] = { file.at_open.st_mtim, file.at_open.st_mtim };
        if (kind == 0) write_file(path, "HELLO", 5);
        if (kind == 1) write_file(path, "hello!", 6);
        if (kind == 2) { /* same size, time put back */
            write_file(path, "HELLO", 5);
            assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
        }
        if (kind == 3) { /* another file under the name: the old one is still complete, but its link count changed */
            write_file(other, "other", 5);
            assert_int_equal(rename(other, path), 0);
        }
        assert_refused(file_check_unchanged(&file, &err), ERR_DATA, "changed while it was read");
        file_close(&file);
    }
    temp_dir_remove(dir);
}

static void test_slurp(void **state)
{
    (void)state;
    char *dir = temp_dir(), *buf;
    size_t nbytes;
    struct err err;
    const char *path = temp_path(dir, "f");
    write_file(path, "a\0b", 3);
    assert_ok(file_slurp(&io_system, path, 3, &buf, &nbytes, &err));
    assert_int_equal(nbytes, 3);
    assert_memory_equal(buf, "a\0b\0", 4);
    free(buf);
    assert_refused(file_slurp(&io_system, path, 2, &buf, &nbytes, &err), ERR_DATA, "f' is 3 bytes, more than the limit of 2");
    assert_null(buf);
    write_file(path, "", 0);
    assert_ok(file_slurp(&io_system, path, 0, &buf, &nbytes, &err));
    assert_string_equal(buf, "");
    free(buf);
    assert_refused(file_slurp(&io_system, dir, 100, &buf, &nbytes, &err), ERR_UNSUPPORTED, "a directory");
    temp_dir_remove(dir);
}

/* 1000 reads with random short transfers and interruptions give the same bytes. */
static void test_short_reads(void **state)
{
    (void)state;
    char *dir = temp_dir(), *content = malloc(5000);
    const char *path = temp_path(dir, "f");
    uint64_t random = 1;
    for (size_t i = 0; i < 5000; i++) content[i] = (char)test_random(&random);
    write_file(path, content, 5000);
    for (unsigned run = 1; run <= 1000; run++) {
        struct err err;
        char *buf;
        size_t nbytes;
        fail_nth(CALL_OPEN, 0, false, 0);
        fault.shorten = run;
        fault.interrupt = run % 2;
        assert_ok(file_slurp(&failing, path, 5000, &buf, &nbytes, &err));
        assert_int_equal(nbytes, 5000);
        assert_memory_equal(buf, content, 5000);
        free(buf);
    }
    free(content);
    temp_dir_remove(dir);
}

static void test_input_faults(void **state)
{
    (void)state;
    static const int numbers[] = { EIO, EINTR, EACCES };
    char *dir = temp_dir(), *buf;
    size_t nbytes;
    struct err err;
    const char *path = temp_path(dir, "f");
    write_file(path, "hello", 5);
    unsigned n_files = n_open_files(), n_runs = 0;
    for (int call = 0; call < N_CALLS; call++)
        for (unsigned nth = 1; nth <= 3; nth++)
            for (unsigned kind = 0; kind < 6; kind++) {
                fail_nth((enum call)call, nth, kind % 2, numbers[kind / 2]);
                enum status status = file_slurp(&failing, path, 100, &buf, &nbytes, &err);
                n_runs++;
                bool failed = fault.n[call] >= nth && call != CALL_CLOSE && !(fault.number == EINTR && !fault.onward);
                if ((status != OK) != failed) fail_msg("%s %u kind %u: status %d", call_names[call], nth, kind, (int)status);
                if (status == OK) assert_string_equal(buf, "hello");
                else assert_non_null(strstr(err.text, path));
                free(buf);
                assert_int_equal(n_open_files(), n_files);
            }
    fail_nth(CALL_PREAD, 1, false, 0);
    assert_refused(file_slurp(&failing, path, 100, &buf, &nbytes, &err), ERR_DATA, "ends at byte 0, wanted bytes 0 to 5");
    printf("%u runs of reading with a fault\n", n_runs);
    temp_dir_remove(dir);
}

/* ---- paths ---------------------------------------------------------------------------------------------------------------------- */

static void test_paths(void **state)
{
    (void)state;
    static const struct {
        const char *path, *dir, *base;
    } parts[] = { { "x", ".", "x" },       { "a/x", "a", "x" }, { "/x", "/", "x" }, { "//x", "/", "x" }, { "a//x", "a", "x" },
                  { "a/b/x", "a/b", "x" }, { "a/", "a", "" },   { "", ".", "" },    { "/", "/", "" },    { "../x", "..", "x" } };
    static const struct {
        const char *dir, *name, *path;
    } joins[] = { { "a", "x", "a/x" }, { "a/", "x", "a/x" },  { "", "x", "x" },       { ".", "x", "x" },
                  { "/", "x", "/x" },  { "..", "x", "../x" }, { "./a", "x", "./a/x" } };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        char *dir = path_dir(parts[i].path);
        assert_string_equal(dir, parts[i].dir);
        assert_string_equal(path_base(parts[i].path), parts[i].base);
        free(dir);
    }
    for (size_t i = 0; i < sizeof joins / sizeof joins[0]; i++) {
        char *path = path_join(joins[i].dir, joins[i].name);
        assert_string_equal(path, joins[i].path);
        free(path);
    }
    assert_true(path_is_dir("/"));
    assert_false(path_is_dir("/dev/null"));
    assert_false(path_is_dir("/nowhere"));
}

static void test_plain_names(void **state)
{
    (void)state;
    static const char *const good[] = { "a", "model-00001-of-00002.safetensors", "...", "..a", ".a", "a b", "\xc3\xa9", "a:b", "~", "-" };
    static const char *const bad[] = {
        "", ".", "..", "/", "a/b", "/a", "a/", "../x", "a\\b", "\\", "a\nb", "\x01", "\x7f", "a\x1f", "/proc/self/fd/0", "https://x"
    };
    char name[257];
    memset(name, 'a', sizeof name);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) assert_true(path_is_plain_name(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_false(path_is_plain_name(bad[i], strlen(bad[i])));
    assert_false(path_is_plain_name("a\0b", 3));
    assert_true(path_is_plain_name(name, 255));
    assert_false(path_is_plain_name(name, 256));
}

/* ---- output --------------------------------------------------------------------------------------------------------------------- */

/* Opens a set, adds path, writes text and commits; returns the first failure. */
static enum status write_output(const struct io_calls *io, bool force, const char *path, const char *text, struct err *err)
{
    struct outset *set;
    struct outfile *file;
    enum status status = outset_open(io, force, &set, err);
    if (status == OK) status = outset_add(set, path, &file, err);
    if (status == OK) status = outfile_write(file, text, strlen(text), 0, err);
    if (status == OK) status = outset_commit(set, err);
    outset_close(set);
    return status;
}

static void test_output(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct err err;
    const char *path = temp_path(dir, "out"), *partial = temp_path(dir, "out.partial");
    assert_ok(write_output(&io_system, false, path, "one", &err));
    assert_content(path, "one");
    assert_false(file_exists(partial));
    assert_refused(write_output(&io_system, false, path, "two", &err), ERR_EXISTS, "out' exists; use --force to replace it");
    assert_content(path, "one");
    assert_ok(write_output(&io_system, true, path, "two", &err));
    assert_content(path, "two");
    outset_close(NULL);
    temp_dir_remove(dir);
}

static void test_appears_at_commit(void **state)
{
    (void)state;
    char *dir = temp_dir(), buf[8];
    struct err err;
    struct outset *set;
    struct outfile *file;
    const char *path = temp_path(dir, "out"), *partial = temp_path(dir, "out.partial");
    write_file(path, "old", 3);
    for (int commit = 0; commit < 2; commit++) {
        assert_ok(outset_open(&io_system, true, &set, &err));
        assert_ok(outset_add(set, path, &file, &err));
        assert_int_equal(mode_of(partial), 0600);
        assert_ok(outfile_write(file, "world", 5, 3, &err));
        assert_ok(outfile_write(file, "new", 3, 0, &err));
        assert_ok(outfile_read(file, buf, 8, 0, &err));
        assert_memory_equal(buf, "newworld", 8);
        assert_refused(outfile_read(file, buf, 8, 1, &err), ERR_DATA, "out.partial' ends at byte 8, wanted bytes 1 to 9");
        assert_content(path, "old");
        if (commit) assert_ok(outset_commit(set, &err));
        outset_close(set);
        assert_false(file_exists(partial));
        assert_content(path, commit ? "newworld" : "old");
    }
    temp_dir_remove(dir);
}

static void test_output_in_the_way(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct err err;
    assert_int_equal(mkdir(temp_path(dir, "d"), 0755), 0);
    assert_int_equal(mkfifo(temp_path(dir, "fifo"), 0600), 0);
    make_socket(temp_path(dir, "sock"));
    assert_int_equal(symlink("nothing", temp_path(dir, "dangling")), 0);
    assert_int_equal(symlink("d", temp_path(dir, "todir")), 0);
    for (int force = 0; force < 2; force++) {
        assert_refused(write_output(&io_system, force, temp_path(dir, "d"), "x", &err), ERR_EXISTS, "d' exists and is a directory");
        assert_refused(write_output(&io_system, force, temp_path(dir, "fifo"), "x", &err), ERR_EXISTS, "fifo' exists and is a FIFO");
        assert_refused(write_output(&io_system, force, temp_path(dir, "sock"), "x", &err), ERR_EXISTS, "sock' exists and is a socket");
        assert_refused(write_output(&io_system, force, temp_path(dir, "todir"), "x", &err), ERR_EXISTS, "todir' exists and is a directory");
        assert_refused(write_output(&io_system, force, temp_path(dir, "dangling"), "x", &err), ERR_EXISTS, "leads nowhere");
        assert_refused(write_output(&io_system, force, "/dev/null", "x", &err), ERR_EXISTS, "'/dev/null' exists and is a device");
        assert_refused(write_output(&io_system, force, temp_path(dir, "d/"), "x", &err), ERR_USAGE, "is not the name of a file");
        assert_refused(write_output(&io_system, force, temp_path(dir, "d/.."), "x", &err), ERR_USAGE, "is not the name of a file");
        assert_refused(write_output(&io_system, force, "", "x", &err), ERR_USAGE, "is not the name of a file");
        assert_refused(write_output(&io_system, force, temp_path(dir, "none/x"), "x", &err), ERR_IO, "No such file or directory");
        assert_refused(write_output(&io_system, force, temp_path(dir, "fifo/x"), "x", &err), ERR_IO, "Not a directory");
    }
    write_file(temp_path(dir, "target"), "target", 6);
    assert_int_equal(symlink("target", temp_path(dir, "link")), 0);
    assert_refused(write_output(&io_system, false, temp_path(dir, "link"), "x", &err), ERR_EXISTS, "use --force");
    assert_ok(write_output(&io_system, true, temp_path(dir, "link"), "new", &err));
    assert_content(temp_path(dir, "link"), "new");
    assert_content(temp_path(dir, "target"), "target");
    temp_dir_remove(dir);
}

static void test_output_is_input(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct err err;
    struct file input;
    struct outset *set;
    struct outfile *file;
    char in[4096];
    snprintf(in, sizeof in, "%s/in", dir);
    static const char *const names[] = { "in", "./in", "soft", "hard", "sub/../in", "p" };
    mkdir(temp_path(dir, "sub"), 0755);
    write_file(in, "input", 5);
    assert_int_equal(symlink("in", temp_path(dir, "soft")), 0);
    assert_int_equal(link(in, temp_path(dir, "hard")), 0);
    assert_int_equal(link(in, temp_path(dir, "p.partial")), 0);
    assert_ok(file_open(&io_system, in, &input, &err));
    for (size_t i = 0; i < 2 * (sizeof names / sizeof names[0]); i++) {
        assert_ok(outset_open(&io_system, i % 2, &set, &err));
        assert_ok(outset_add_input(set, &input, &err));
        assert_refused(outset_add(set, temp_path(dir, names[i / 2]), &file, &err), ERR_USAGE, "is the same file as input");
        outset_close(set);
        assert_content(in, "input");
    }
    assert_ok(file_check_unchanged(&input, &err));
    file_close(&input);
    temp_dir_remove(dir);
}

static void test_stale_partial(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct err err;
    const char *path = temp_path(dir, "out"), *partial = temp_path(dir, "out.partial"), *precious = temp_path(dir, "precious");
    write_file(partial, "a long stale content", 20);
    chmod(partial, 0666);
    assert_ok(write_output(&io_system, false, path, "new", &err));
    assert_content(path, "new");
    write_file(precious, "precious", 8); /* killed between link and unlink: the partial file is a second name of a finished one */
    assert_int_equal(link(precious, partial), 0);
    assert_ok(write_output(&io_system, true, path, "newer", &err));
    assert_content(path, "newer");
    assert_content(precious, "precious");
    assert_int_equal(symlink("precious", partial), 0);
    assert_refused(write_output(&io_system, true, path, "x", &err), ERR_EXISTS, "out.partial' is in the way: it is a symbolic link");
    assert_content(precious, "precious");
    unlink(partial);
    assert_int_equal(mkfifo(partial, 0600), 0);
    assert_refused(write_output(&io_system, true, path, "x", &err), ERR_EXISTS, "out.partial' is in the way: it is a FIFO");
    unlink(partial);
    assert_int_equal(mkdir(partial, 0700), 0);
    assert_refused(write_output(&io_system, true, path, "x", &err), ERR_EXISTS, "out.partial' is in the way: it is a directory");
    assert_content(path, "newer");
    temp_dir_remove(dir);
}

static void test_in_use(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct err err;
    struct outset *first, *second;
    struct outfile *file, *other;
    const char *path = temp_path(dir, "out");
    assert_ok(outset_open(&io_system, false, &first, &err));
    assert_ok(outset_add(first, path, &file, &err));
    assert_ok(outfile_write(file, "first", 5, 0, &err));
    pid_t child = fork();
    if (child == 0) {
        enum status status = write_output(&io_system, true, path, "second", &err);
        _exit(status == ERR_EXISTS && strstr(err.text, "out.partial' is in use by another run") ? 0 : 1);
    }
    int code;
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_int_equal(code, 0);
    assert_refused(outset_add(first, path, &other, &err), ERR_USAGE, "out' is given twice");
    assert_ok(outset_open(&io_system, false, &second, &err));
    assert_refused(outset_add(second, path, &other, &err), ERR_EXISTS, "in use");
    outset_close(second);
    assert_ok(outset_commit(first, &err));
    outset_close(first);
    assert_content(path, "first");
    temp_dir_remove(dir);
}

/* Many processes at once: without force one wins, with force the last one; the file is always one whole text. */
static void test_races(void **state)
{
    (void)state;
    char *dir = temp_dir(), path[4096];
    snprintf(path, sizeof path, "%s/out", dir);
    for (unsigned round = 0; round < 100; round++) {
        bool force = round % 2;
        pid_t children[4];
        unsigned n_won = 0;
        for (int i = 0; i < 4; i++) {
            children[i] = fork();
            if (children[i] != 0) continue;
            struct err err = { .code = OK };
            char text[2001];
            memset(text, 'a' + i, 2000);
            text[2000] = '\0';
            enum status status = write_output(&io_system, force, path, text, &err);
            _exit(status == OK ? 0 : status == ERR_EXISTS ? 1 : 2);
        }
        for (int i = 0; i < 4; i++) {
            int code;
            assert_int_equal(waitpid(children[i], &code, 0), children[i]);
            assert_true(WIFEXITED(code) && WEXITSTATUS(code) < 2);
            n_won += WEXITSTATUS(code) == 0;
        }
        char *text = read_file(path, NULL);
        assert_int_equal(strlen(text), 2000);
        assert_int_equal(strspn(text, (char[]){ text[0], '\0' }), 2000);
        free(text);
        if (force) assert_true(n_won >= 1);
        else assert_int_equal(n_won, 1);
        assert_false(file_exists(temp_path(dir, "out.partial")));
        unlink(path);
    }
    temp_dir_remove(dir);
}

static void test_modes(void **state)
{
    (void)state;
    static const mode_t masks[] = { 0, 022, 027, 077, 002, 007, 0177, 0777 };
    char *dir = temp_dir();
    const char *path = temp_path(dir, "out");
    for (size_t i = 0; i < 2 * (sizeof masks / sizeof masks[0]); i++) {
        struct err err;
        mode_t old = umask(masks[i / 2]);
        fail_nth(CALL_OPEN, i % 2, false, ENOENT); /* every second time without /proc */
        enum status status = write_output(&failing, true, path, "x", &err);
        mode_t now = umask(old);
        assert_ok(status);
        assert_int_equal(now, masks[i / 2]);
        assert_int_equal(mode_of(path), 0666 & ~masks[i / 2]);
    }
    temp_dir_remove(dir);
}

static void test_directories(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct err err;
    struct outset *set;
    struct outfile *file;
    for (int commit = 0; commit < 2; commit++) {
        assert_ok(outset_open(&io_system, false, &set, &err));
        assert_ok(outset_make_dir(set, temp_path(dir, "new/"), &err));
        assert_ok(outset_make_dir(set, temp_path(dir, "new/sub"), &err));
        assert_ok(outset_make_dir(set, temp_path(dir, "new"), &err));
        assert_ok(outset_add(set, temp_path(dir, "new/sub/out"), &file, &err));
        if (commit) assert_ok(outset_commit(set, &err));
        outset_close(set);
        assert_int_equal(path_is_dir(temp_path(dir, "new")), commit);
        assert_int_equal(file_exists(temp_path(dir, "new/sub/out")), commit);
    }
    assert_ok(outset_open(&io_system, false, &set, &err));
    assert_ok(outset_make_dir(set, temp_path(dir, "new"), &err));
    assert_refused(outset_make_dir(set, temp_path(dir, "new/sub/out"), &err), ERR_EXISTS, "it is a regular file");
    assert_refused(outset_make_dir(set, temp_path(dir, "none/sub"), &err), ERR_IO, "No such file");
    outset_close(set);
    assert_true(file_exists(temp_path(dir, "new/sub/out")));
    assert_ok(outset_open(&io_system, false, &set, &err));
    assert_ok(outset_make_dir(set, temp_path(dir, "kept"), &err));
    write_file(temp_path(dir, "kept/foreign"), "x", 1);
    outset_close(set);
    assert_true(file_exists(temp_path(dir, "kept/foreign")));
    temp_dir_remove(dir);
}

static void test_space(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct err err;
    struct outset *set;
    const char *path = temp_path(dir, "out");
    struct statvfs fs;
    assert_int_equal(statvfs(dir, &fs), 0);
    assert_ok(outset_open(&failing, false, &set, &err));
    assert_ok(outset_check_space(set, path, 0, &err));
    assert_ok(outset_check_space(set, path, 4096, &err));
    assert_refused(outset_check_space(set, path, UINT64_MAX, &err), ERR_IO, "out' needs 18446744073709551615 bytes");
    assert_refused(outset_check_space(set, path, (uint64_t)fs.f_blocks * fs.f_frsize + 1, &err), ERR_IO, "free");
    assert_refused(outset_check_space(set, temp_path(dir, "none/x"), 1, &err), ERR_IO, "No such file");
    outset_close(set);
    temp_dir_remove(dir);
}

static void test_appeared_meanwhile(void **state)
{
    (void)state;
    static const int numbers[] = { 0, EPERM, EOPNOTSUPP }; /* of link: 0 is a file system with links */
    char *dir = temp_dir();
    const char *path = temp_path(dir, "out"), *partial = temp_path(dir, "out.partial");
    for (size_t i = 0; i < 6; i++) {
        struct err err;
        struct outset *set;
        struct outfile *file;
        bool appears = i % 2;
        fail_nth(CALL_LINK, numbers[i / 2] != 0, true, numbers[i / 2]);
        assert_ok(outset_open(&failing, false, &set, &err));
        assert_ok(outset_add(set, path, &file, &err));
        assert_ok(outfile_write(file, "ours", 4, 0, &err));
        if (appears) {
            write_file(path, "theirs", 6);
            assert_refused(outset_commit(set, &err), ERR_EXISTS, "out' exists; use --force");
        } else assert_ok(outset_commit(set, &err));
        outset_close(set);
        assert_content(path, appears ? "theirs" : "ours");
        assert_false(file_exists(partial));
        unlink(path);
    }
    temp_dir_remove(dir);
}

/* Someone removes the partial file by hand and starts another run: ours must not publish or remove the other's file. */
static void test_replaced_partial(void **state)
{
    (void)state;
    char *dir = temp_dir();
    const char *path = temp_path(dir, "out"), *partial = temp_path(dir, "out.partial");
    for (int force = 0; force < 2; force++) {
        struct err err;
        struct outset *set;
        struct outfile *file;
        assert_ok(outset_open(&io_system, force, &set, &err));
        assert_ok(outset_add(set, path, &file, &err));
        unlink(partial);
        assert_ok(outfile_write(file, "ours", 4, 0, &err));
        if (force) assert_refused(outset_commit(set, &err), ERR_IO, "cannot finish");
        write_file(partial, "theirs", 6);
        if (!force) assert_refused(outset_commit(set, &err), ERR_EXISTS, "was replaced by another file");
        outset_close(set);
        assert_false(file_exists(path));
        if (!force) assert_content(partial, "theirs");
        unlink(partial);
    }
    temp_dir_remove(dir);
}

static void test_failed_write_spoils(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct err err;
    struct outset *set;
    struct outfile *file;
    const char *path = temp_path(dir, "out");
    fail_nth(CALL_PWRITE, 1, false, ENOSPC);
    assert_ok(outset_open(&failing, false, &set, &err));
    assert_ok(outset_add(set, path, &file, &err));
    assert_refused(outfile_write(file, "x", 1, 0, &err), ERR_IO, "out.partial': No space left on device");
    assert_ok(outfile_write(file, "y", 1, 1, &err));
    assert_refused(outset_commit(set, &err), ERR_IO, "a write to it failed");
    outset_close(set);
    assert_false(file_exists(path));
    fail_nth(CALL_PWRITE, 1, false, 0);
    assert_refused(write_output(&failing, false, path, "x", &err), ERR_IO, "No space left on device");
    assert_ok(outset_open(&io_system, false, &set, &err));
    assert_ok(outset_add(set, path, &file, &err));
    assert_refused(outfile_write(file, "x", 1, UINT64_MAX, &err), ERR_IO, "File too large");
    assert_refused(outfile_write(file, "xy", 2, INT64_MAX - 1, &err), ERR_IO, "File too large");
    outset_close(set);
    temp_dir_remove(dir);
}

static void test_size_limit(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct err err = { .code = OK };
    const char *path = temp_path(dir, "out");
    struct rlimit old, small;
    char text[5001];
    memset(text, 'x', 5000);
    text[5000] = '\0';
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = (struct rlimit){ .rlim_cur = 3000, .rlim_max = old.rlim_max };
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    enum status status = write_output(&io_system, false, path, text, &err);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_DFL);
    assert_int_equal(status, ERR_IO);
    assert_non_null(strstr(err.text, "out.partial': File too large"));
    assert_false(file_exists(path));
    assert_false(file_exists(temp_path(dir, "out.partial")));
    temp_dir_remove(dir);
}

/* ---- threads -------------------------------------------------------------------------------------------------------------------- */

struct lane {
    struct outfile *file;
    unsigned index;
    enum status status;
};

static void *write_lane(void *context)
{
    struct lane *lane = context;
    for (unsigned i = 0; i < 200 && lane->status == OK; i++) {
        char block[100];
        memset(block, 'a' + (int)(i % 26), sizeof block);
        lane->status = outfile_write(lane->file, block, sizeof block, ((uint64_t)i * 4 + lane->index) * sizeof block, NULL);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct err err;
    struct outset *set;
    struct outfile *file;
    pthread_t threads[4];
    struct lane lanes[4];
    const char *path = temp_path(dir, "out");
    assert_ok(outset_open(&io_system, false, &set, &err));
    assert_ok(outset_add(set, path, &file, &err));
    for (unsigned i = 0; i < 4; i++) {
        lanes[i] = (struct lane){ .file = file, .index = i, .status = OK };
        assert_int_equal(pthread_create(&threads[i], NULL, write_lane, &lanes[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(lanes[i].status, OK);
    }
    assert_ok(outset_commit(set, &err));
    outset_close(set);
    size_t nbytes;
    char *text = read_file(path, &nbytes);
    assert_int_equal(nbytes, 80000);
    for (size_t i = 0; i < nbytes; i++) assert_int_equal(text[i], 'a' + (int)(i / 400 % 26));
    free(text);
    temp_dir_remove(dir);
}

/* ---- fault table of the output -------------------------------------------------------------------------------------------------- */

#define PIECE 1000
#define N_PIECES 5

static char new_text[2][PIECE * N_PIECES + 1];

/* Two files in a directory (made when fresh), space, pieces out of order, read back, commit. */
static enum status scenario_steps(struct outset *set, const char *dir, bool fresh, struct err *err)
{
    struct outfile *file;
    char back[PIECE];
    enum status status = fresh ? outset_make_dir(set, dir, err) : OK;
    for (int f = 0; f < 2 && status == OK; f++) {
        const char *path = temp_path(dir, f ? "b" : "a");
        status = outset_add(set, path, &file, err);
        if (status == OK) status = outset_check_space(set, path, sizeof new_text[f], err);
        for (size_t i = N_PIECES; i > 0 && status == OK; i--)
            status = outfile_write(file, new_text[f] + (i - 1) * PIECE, PIECE, (i - 1) * PIECE, err);
        if (status == OK) status = outfile_read(file, back, PIECE, PIECE, err);
        if (status == OK) assert_memory_equal(back, new_text[f] + PIECE, PIECE);
    }
    return status == OK ? outset_commit(set, err) : status;
}

static unsigned n_at_start[N_CALLS]; /* calls of outset_open, which may fail without harm: it has another way */

static enum status run_scenario(const char *dir, bool fresh, struct err *err)
{
    struct outset *set;
    enum status status = outset_open(&failing, !fresh, &set, err);
    memcpy(n_at_start, fault.n, sizeof n_at_start);
    if (status == OK) status = scenario_steps(set, dir, fresh, err);
    outset_close(set);
    return status;
}

static void prepare(const char *dir, bool fresh)
{
    static const char *const names[] = { "a", "b", "a.partial", "b.partial" };
    for (size_t i = 0; i < 4; i++) unlink(temp_path(dir, names[i]));
    rmdir(dir);
    if (fresh) return;
    mkdir(dir, 0755);
    write_file(temp_path(dir, "a"), "old", 3);
    write_file(temp_path(dir, "b"), "old", 3);
    write_file(temp_path(dir, "b.partial"), "stale", 5);
}

/* What a file is after the run: "old", absent, or complete. */
static bool is_new(const char *dir, const char *name, bool fresh)
{
    const char *path = temp_path(dir, name);
    if (!file_exists(path)) {
        if (!fresh) fail_msg("%s is gone", path);
        return false;
    }
    char *text = read_file(path, NULL);
    bool is_old = strcmp(text, "old") == 0;
    if (is_old && fresh) fail_msg("%s is old", path);
    if (!is_old) assert_string_equal(text, new_text[name[0] - 'a']);
    free(text);
    return !is_old;
}

static void assert_clean(const char *dir, bool fresh, enum status status, const struct err *err, unsigned n_published)
{
    bool a = is_new(dir, "a", fresh), b = is_new(dir, "b", fresh);
    bool strays = file_exists(temp_path(dir, "a.partial")) || (file_exists(temp_path(dir, "b.partial")) && (status == OK || fresh));
    if (strays && fault.call != CALL_UNLINK) fail_msg("%s %u: a partial file is left", call_names[fault.call], fault.nth);
    if (status == OK) assert_true(a && b);
    else {
        char *parent = path_dir(dir);
        if (!strstr(err->text, parent)) fail_msg("%s %u: '%s' names no file", call_names[fault.call], fault.nth, err->text);
        free(parent);
        assert_null(strchr(err->text, '\n'));
        assert_false(b && !a);
        if (n_published == 0) assert_false(a);
        if (fresh && !a && fault.call != CALL_RMDIR && fault.call != CALL_UNLINK) assert_false(path_is_dir(dir));
    }
}

static bool must_fail(int call, unsigned nth)
{
    if (call == CALL_CLOSE || call == CALL_RMDIR) return false;
    if (fault.n[call] < nth) return false;
    return nth > n_at_start[call] || (fault.onward && fault.n[call] > n_at_start[call]);
}

static void test_output_faults(void **state)
{
    (void)state;
    static const int numbers[] = { EIO, ENOSPC, EDQUOT, EACCES, EINTR };
    char *base = temp_dir(), dir[4096];
    snprintf(dir, sizeof dir, "%s/o", base);
    for (size_t i = 0; i < PIECE * N_PIECES; i++) new_text[0][i] = (char)('0' + i % 10), new_text[1][i] = (char)('A' + i % 26);
    unsigned n_runs = 0, n_failed = 0, n_files = n_open_files();
    for (int fresh = 0; fresh < 2; fresh++)
        for (int call = 0; call < N_CALLS; call++) {
            struct err err = { .code = OK };
            prepare(dir, fresh);
            fail_nth((enum call)call, 0, false, 0);
            assert_ok(run_scenario(dir, fresh, &err));
            unsigned n_calls = fault.n[call];
            for (unsigned nth = 1; nth <= n_calls; nth++)
                for (unsigned kind = 0; kind < 2 * sizeof numbers / sizeof numbers[0]; kind++) {
                    prepare(dir, fresh);
                    fail_nth((enum call)call, nth, kind % 2, numbers[kind / 2]);
                    err = (struct err){ .code = OK };
                    enum status status = run_scenario(dir, fresh, &err);
                    bool failed = must_fail(call, nth) && !(fault.number == EINTR && !fault.onward);
                    if (failed != (status != OK))
                        fail_msg("%s %u of %u, %s, fresh %d, onward %d: status %d '%s'", call_names[call], nth, n_calls, strerror(fault.number),
                                 fresh, fault.onward, (int)status, err.text);
                    assert_clean(dir, fresh, status, &err, fault.n[CALL_LINK] + fault.n[CALL_RENAME]);
                    assert_int_equal(n_open_files(), n_files);
                    n_runs++;
                    n_failed += failed;
                }
        }
    printf("%u runs of writing with a fault, %u of them failed cleanly\n", n_runs, n_failed);
    temp_dir_remove(base);
}

static void test_output_short_transfers(void **state)
{
    (void)state;
    char *base = temp_dir(), dir[4096];
    snprintf(dir, sizeof dir, "%s/o", base);
    for (unsigned run = 1; run <= 500; run++) {
        struct err err;
        prepare(dir, run % 4 < 2);
        fail_nth(CALL_OPEN, 0, false, 0);
        fault.shorten = run;
        fault.interrupt = run % 2;
        assert_ok(run_scenario(dir, run % 4 < 2, &err));
        assert_clean(dir, run % 4 < 2, OK, &err, 2);
    }
    temp_dir_remove(base);
}

/* A file system without modes or without fsync of directories is no failure. */
static void test_poor_file_systems(void **state)
{
    (void)state;
    static const struct {
        enum call call;
        unsigned nth;
        int number;
    } cases[] = { { CALL_FCHMOD, 1, EPERM },  { CALL_FCHMOD, 1, ENOTSUP }, { CALL_FSYNC, 2, EINVAL },
                  { CALL_FSYNC, 2, ENOTSUP }, { CALL_LINK, 1, EPERM },     { CALL_LINK, 1, ENOSYS } };
    char *dir = temp_dir();
    struct err err;
    const char *path = temp_path(dir, "out");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        unlink(path);
        fail_nth(cases[i].call, cases[i].nth, true, cases[i].number);
        assert_ok(write_output(&failing, false, path, "x", &err));
        assert_content(path, "x");
    }
    unlink(path);
    fail_nth(CALL_FSYNC, 1, false, EINVAL);
    assert_refused(write_output(&failing, false, path, "x", &err), ERR_IO, "out.partial' to the disk: Invalid argument");
    fail_nth(CALL_FLOCK, 1, false, EWOULDBLOCK);
    assert_refused(write_output(&failing, false, path, "x", &err), ERR_EXISTS, "in use by another run");
    temp_dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_refuses),
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_changes_are_seen),
        cmocka_unit_test(test_slurp),
        cmocka_unit_test(test_short_reads),
        cmocka_unit_test(test_input_faults),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_plain_names),
        cmocka_unit_test(test_output),
        cmocka_unit_test(test_appears_at_commit),
        cmocka_unit_test(test_output_in_the_way),
        cmocka_unit_test(test_output_is_input),
        cmocka_unit_test(test_stale_partial),
        cmocka_unit_test(test_in_use),
        cmocka_unit_test(test_races),
        cmocka_unit_test(test_modes),
        cmocka_unit_test(test_directories),
        cmocka_unit_test(test_space),
        cmocka_unit_test(test_appeared_meanwhile),
        cmocka_unit_test(test_replaced_partial),
        cmocka_unit_test(test_failed_write_spoils),
        cmocka_unit_test(test_size_limit),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_output_faults),
        cmocka_unit_test(test_output_short_transfers),
        cmocka_unit_test(test_poor_file_systems),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
