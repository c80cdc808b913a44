/* test_smooth_cache.c: what may be kept in memory, under made-up /proc and cgroup trees.
 *
 * Drawing: files under a temporary root -> smooth_cache_room.
 * Why this way: the machine's own limits are nobody's to set.
 * Corner cases: no files at all, "max", usage above the limit, limits above the process's own group, cgroup v1, broken text.
 * Reference: smooth_cache.h. Worked number: 8 GiB available, limit 2 GiB, usage 1.5 GiB: 512 MiB.
 */
#include "support/support.h"

#include <sys/stat.h>

#include "smoothquant/smooth_cache.h"

#define GIB ((uint64_t)1 << 30)

static char *root;

static void put(const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s%s", root, name);
    for (char *at = path + strlen(root) + 1; (at = strchr(at, '/')); *at++ = '/') {
        *at = '\0';
        mkdir(path, 0700);
    }
    write_file(path, text, strlen(text));
}

static uint64_t room(uint64_t max_ram)
{
    return smooth_cache_room(&io_system, root, max_ram);
}

static void test_room(void **state)
{
    (void)state;
    root = temp_dir();
    assert_true(room(0) == UINT64_MAX && room(5) == 5);
    put("/proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\nMemAvailable:    8388608 kB\n");
    assert_true(room(0) == 8 * GIB && room(GIB) == GIB && room(9 * GIB) == 8 * GIB);
    put("/proc/self/cgroup", "0::/a/b\n");
    assert_true(room(0) == 8 * GIB);
    put("/sys/fs/cgroup/a/b/memory.max", "max\n");
    put("/sys/fs/cgroup/a/b/memory.current", "1\n");
    assert_true(room(0) == 8 * GIB);
    put("/sys/fs/cgroup/a/memory.max", "2147483648\n");
    put("/sys/fs/cgroup/a/memory.current", "1610612736\n");
    assert_true(room(0) == GIB / 2);
    put("/sys/fs/cgroup/a/memory.stat", "anon 5\ninactive_file 268435456\nactive_file 7\n");
    assert_true(room(0) == GIB / 2 + GIB / 4);
    put("/sys/fs/cgroup/memory.max", "1000\n"); /* a container's own root */
    put("/sys/fs/cgroup/memory.current", "2000\n");
    assert_true(room(0) == 0);
    put("/sys/fs/cgroup/memory.max", "99999999999999999999999\n");
    assert_true(room(0) == GIB / 2 + GIB / 4);
    temp_dir_remove(root);
}

static void test_old_cgroups(void **state)
{
    (void)state;
    root = temp_dir();
    put("/proc/self/cgroup", "12:memory_other:/x\n5:cpu,memory:/job\n1:name=systemd:/y\nbroken\n0::/\n");
    put("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "1000000\n");
    put("/sys/fs/cgroup/memory/job/memory.usage_in_bytes", "400000\n");
    put("/sys/fs/cgroup/memory/job/memory.stat", "inactive_file 1\ntotal_inactive_file 100000\n");
    assert_true(room(0) == 700000);
    put("/proc/meminfo", "MemAvailable: none\n");
    assert_true(room(0) == 700000);
    put("/sys/fs/cgroup/memory/job/memory.usage_in_bytes", "\n");
    assert_true(room(0) == UINT64_MAX);
    temp_dir_remove(root);
}

static void test_here(void **state)
{
    (void)state;
    assert_true(smooth_cache_fits(1, 0));
    assert_true(smooth_cache_fits(5, 5));
    assert_false(smooth_cache_fits(6, 5));
    assert_false(smooth_cache_fits((uint64_t)1 << 62, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_old_cgroups),
        cmocka_unit_test(test_here),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
