/* support.c: see support.h.
 *
 * Formula: xorshift64*: x ^= x >> 12; x ^= x << 25; x ^= x >> 27; result x * 2685821657736338717.
 * Why this way: see support.h.
 * Corner cases: a state of 0 is replaced by 1.
 * Reference: Vigna, "An experimental exploration of Marsaglia's xorshift generators". Worked number: state 1 gives 5180492295206395165 first.
 */
#define _XOPEN_SOURCE 700
#include "support/support.h"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

static char buffers[4][4096];
static unsigned next_buffer;

static char *static_path(const char *dir, const char *name)
{
    char *out = buffers[next_buffer++ % 4];
    snprintf(out, sizeof buffers[0], "%s/%s", dir, name);
    return out;
}

char *temp_dir(void)
{
    const char *base = getenv("TMPDIR");
    char name[4096];
    snprintf(name, sizeof name, "%s/llmq-test-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(name)) fail_msg("cannot make a temporary directory %s", name);
    return strdup(name);
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st, (void)kind, (void)ftw;
    return remove(path);
}

void temp_dir_remove(char *dir)
{
    if (!dir) return;
    nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(dir);
}

const char *temp_path(const char *dir, const char *name)
{
    return static_path(dir, name);
}

void write_file(const char *path, const void *bytes, size_t nbytes)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, nbytes, f) != nbytes || fclose(f) != 0) fail_msg("cannot write %s", path);
}

char *read_file(const char *path, size_t *nbytes)
{
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("cannot open %s", path);
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    char *out = malloc((size_t)size + 1);
    if (!out || fread(out, 1, (size_t)size, f) != (size_t)size) fail_msg("cannot read %s", path);
    fclose(f);
    out[size] = '\0';
    if (nbytes) *nbytes = (size_t)size;
    return out;
}

bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

const char *tests_path(const char *name)
{
    return static_path(LLMQ_TESTS_DIR, name);
}

const char *shared_data(const char *name)
{
    const char *path = static_path(LLMQ_SHARED_DATA, name);
    if (file_exists(path)) return path;
    printf("note: %s is not there; this part of the test is skipped\n", name);
    return NULL;
}

uint64_t test_random(uint64_t *state)
{
    uint64_t x = *state ? *state : 1;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 2685821657736338717u;
}
