/* replay.c: runs a fuzz target over the files of its corpus, without a fuzzer: the seeds and every past finding are part of the normal tests.
 *
 *   replay_json tests/fuzz/corpus/json      each file of the folder once
 *
 * Why this way: a finding that is not replayed comes back.
 * Corner cases: a folder that does not exist has no seeds; an unreadable file is a failure.
 * Reference: libFuzzer's StandaloneFuzzTargetMain. Example: "3 inputs".
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = malloc(1 << 20);
    int status = 1;
    if (f && data) {
        size_t n = fread(data, 1, 1 << 20, f);
        uint8_t *exact = malloc(n + !n); /* so that a sanitizer sees an over-read */
        for (size_t i = 0; exact && i < n; i++) exact[i] = data[i];
        if (exact) status = LLVMFuzzerTestOneInput(exact, n);
        free(exact);
    }
    if (f) fclose(f);
    free(data);
    return status;
}

int main(int argc, char **argv)
{
    unsigned count = 0, failed = 0;
    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        for (struct dirent *entry = dir ? readdir(dir) : NULL; entry; entry = readdir(dir)) {
            char path[4096];
            if (entry->d_name[0] == '.') continue;
            snprintf(path, sizeof path, "%s/%s", argv[i], entry->d_name);
            failed += replay_file(path) != 0;
            count++;
        }
        if (dir) closedir(dir);
    }
    printf("%u inputs, %u failed\n", count, failed);
    return failed != 0;
}
