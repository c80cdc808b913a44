/* smooth_cache.c: see smooth_cache.h.
 *
 * Drawing: /proc/self/cgroup "0::/a/b" -> /sys/fs/cgroup/a/b, /a, / : memory.max, memory.current        "4:memory:/a" -> /sys/fs/cgroup/memory/a ..
 * Why this way: a limit may be set at any level above, so all are asked; those that the container does not show cannot be opened and are passed over.
 * Corner cases: see smooth_cache.h; files are read up to 16 KiB, longer paths than 1024 bytes are not followed.
 * Reference: see smooth_cache.h. Worked number: "MemAvailable:    8388608 kB": 8 GiB.
 */
#include "smoothquant/smooth_cache.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"

#define TEXT_MAX 16384
#define PATH_NBYTES 1024
#define FOLDER_NBYTES 1664 /* root, mount point, path */
#define FILE_NBYTES 1792

/* What a cgroup of either version calls its files. */
struct cgroup_names {
    const char *controllers; /* of its line in /proc/self/cgroup */
    const char *folder, *limit, *usage, *inactive;
};

static const struct cgroup_names versions[] = {
    { "", "/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file" },
    { "memory", "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file" },
};

/* Text of a small file; false when it cannot be read. */
static bool read_text(const struct io_calls *io, const char *path, char text[TEXT_MAX])
{
    const int fd = io->open(path, O_RDONLY | O_CLOEXEC, 0);
    size_t n = 0;
    ssize_t got = 1;
    if (fd < 0) return false;
    while (n < TEXT_MAX - 1 && (got = io->pread(fd, text + n, TEXT_MAX - 1 - n, (off_t)n)) > 0) n += (size_t)got;
    io->close(fd);
    text[n] = '\0';
    return got >= 0 && n > 0;
}

/* Decimal digits at text; false when there are none, or they do not fit. */
static bool read_number(const char *text, uint64_t *out)
{
    uint64_t value = 0;
    if (*text < '0' || *text > '9') return false;
    for (; *text >= '0' && *text <= '9'; text++)
        if (!size_mul(value, 10, &value) || !size_add(value, (uint64_t)(*text - '0'), &value)) return false;
    *out = value;
    return true;
}

/* The number behind a key at the start of a line. */
static bool find_number(const char *text, const char *key, uint64_t *out)
{
    const size_t n = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (strncmp(line, key, n) == 0) return read_number(line + n + strspn(line + n, ": \t"), out);
    return false;
}

static bool read_file_number(const struct io_calls *io, const char *folder, const char *name, char text[TEXT_MAX], uint64_t *out)
{
    char path[FILE_NBYTES];
    snprintf(path, sizeof path, "%.1663s/%.64s", folder, name);
    return read_text(io, path, text) && read_number(text, out);
}

/* Room in one cgroup; UINT64_MAX when it sets no limit. */
static uint64_t room_of_cgroup(const struct io_calls *io, const struct cgroup_names *names, const char *folder, char text[TEXT_MAX])
{
    char path[FILE_NBYTES];
    uint64_t limit, usage, inactive = 0;
    if (!read_file_number(io, folder, names->limit, text, &limit)) return UINT64_MAX;
    if (!read_file_number(io, folder, names->usage, text, &usage)) return UINT64_MAX;
    snprintf(path, sizeof path, "%.1663s/memory.stat", folder);
    if (read_text(io, path, text) && !find_number(text, names->inactive, &inactive)) inactive = 0;
    usage -= size_min(usage, inactive);
    return limit > usage ? limit - usage : 0;
}

/* Room in the cgroup at `at` of one version's tree, and in all above it. */
static uint64_t room_of_path(const struct io_calls *io, const char *root, const struct cgroup_names *names, char *at, char text[TEXT_MAX])
{
    char folder[FOLDER_NBYTES];
    uint64_t room = UINT64_MAX;
    for (;;) {
        snprintf(folder, sizeof folder, "%.512s%.64s%.1023s", root, names->folder, at);
        room = size_min(room, room_of_cgroup(io, names, folder, text));
        char *slash = strrchr(at, '/');
        if (!slash) return room;
        *slash = '\0';
    }
}

/* Copies the path of the line that names these controllers: "4:cpu,memory:/a" or "0::/a". */
static bool find_path(const char *text, const char *controllers, char out[PATH_NBYTES])
{
    for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        const size_t n = strcspn(line, "\n");
        const char *list = memchr(line, ':', n), *path = list ? memchr(list + 1, ':', n - (size_t)(list + 1 - line)) : NULL;
        if (!path) continue;
        const size_t n_list = (size_t)(path - list - 1), n_path = n - (size_t)(path + 1 - line), n_wanted = strlen(controllers);
        bool found = n_list == 0 && n_wanted == 0;
        for (const char *one = list + 1; n_wanted && one < path && !found; one += strcspn(one, ",:") + 1)
            found = strncmp(one, controllers, n_wanted) == 0 && (one[n_wanted] == ',' || one[n_wanted] == ':');
        if (!found || n_path >= PATH_NBYTES) continue;
        memcpy(out, path + 1, n_path);
        out[n_path] = '\0';
        return true;
    }
    return false;
}

static uint64_t room_of_cgroups(const struct io_calls *io, const char *root, char *text)
{
    char path[FILE_NBYTES], lines[TEXT_MAX], at[PATH_NBYTES];
    uint64_t room = UINT64_MAX;
    snprintf(path, sizeof path, "%.512s/proc/self/cgroup", root);
    if (!read_text(io, path, lines)) return room;
    for (size_t v = 0; v < sizeof versions / sizeof *versions; v++)
        if (find_path(lines, versions[v].controllers, at)) room = size_min(room, room_of_path(io, root, &versions[v], at, text));
    return room;
}

uint64_t smooth_cache_room(const struct io_calls *io, const char *root, uint64_t max_ram)
{
    char path[FILE_NBYTES], text[TEXT_MAX];
    uint64_t room = max_ram ? max_ram : UINT64_MAX, available;
    snprintf(path, sizeof path, "%.512s/proc/meminfo", root);
    if (read_text(io, path, text) && find_number(text, "MemAvailable:", &available) && size_mul(available, 1024, &available))
        room = size_min(room, available);
    return size_min(room, room_of_cgroups(io, root, text));
}

bool smooth_cache_fits(uint64_t nbytes, uint64_t max_ram)
{
    return nbytes <= smooth_cache_room(&io_system, "", max_ram);
}
