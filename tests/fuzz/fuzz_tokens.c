/* fuzz_tokens.c: libFuzzer target of files of ids and of texts.
 *
 * Formula: the first byte says what the rest is: i a file of ids (text or .npy), t a text, l a .jsonl, j a .json.
 * Why this way: the readers take a path, so the file calls are those of a file in memory; what is accepted is checked: bounds rise, ids are in range.
 * Corner cases: the input is copied to a block of its exact size, so that a sanitizer sees any read beyond it.
 * Reference: libFuzzer, LLVMFuzzerTestOneInput. Run: fuzz_tokens -max_len=4096 CORPUS.
 */
#define _XOPEN_SOURCE 700 /* S_IFREG */

#include <stdlib.h>
#include <string.h>

#include "smoothquant/tokens.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

static void require(bool holds)
{
    if (!holds) abort();
}

static const uint8_t *file_bytes;
static size_t file_nbytes;

static int open_memory(const char *path, int flags, mode_t mode)
{
    (void)path;
    (void)flags;
    (void)mode;
    return 3;
}

static int close_memory(int fd)
{
    (void)fd;
    return 0;
}

static ssize_t read_memory(int fd, void *buf, size_t nbytes, off_t offset)
{
    (void)fd;
    const size_t at = (size_t)offset < file_nbytes ? (size_t)offset : file_nbytes;
    const size_t n = nbytes < file_nbytes - at ? nbytes : file_nbytes - at;
    if (n) memcpy(buf, file_bytes + at, n);
    return (ssize_t)n;
}

static int stat_memory(int fd, struct stat *st)
{
    (void)fd;
    memset(st, 0, sizeof *st);
    st->st_mode = S_IFREG;
    st->st_size = (off_t)file_nbytes;
    return 0;
}

static int stat_path(const char *path, struct stat *st)
{
    (void)path;
    return stat_memory(3, st);
}

static const struct io_calls memory_calls = {
    .open = open_memory, .close = close_memory, .pread = read_memory, .fstat = stat_memory, .stat = stat_path, .lstat = stat_path
};

static struct tokenizer *open_bytes(void)
{
    static const char json[] = "{\"model\":{\"type\":\"BPE\",\"unk_token\":\"u\",\"vocab\":{\"u\":0,\"a\":1,\"b\":2,\"ab\":3},\"merges\":[\"a b\"]}}";
    struct tokenizer_files files = { .tokenizer = { json, sizeof json - 1 } };
    struct tokenizer *tokenizer = NULL;
    struct err err;
    require(tokenizer_open_json(&files, &tokenizer, &err) == OK);
    return tokenizer;
}

static void check(struct token_docs *docs, uint32_t vocab)
{
    require(docs->n_docs > 0 && docs->starts[0] == 0);
    for (size_t i = 0; i < docs->n_docs; i++) require(docs->starts[i + 1] > docs->starts[i]);
    for (uint64_t i = 0; i < docs->starts[docs->n_docs]; i++) require(docs->ids[i] >= 0 && (uint32_t)docs->ids[i] < vocab);
    tokens_free(docs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static const struct {
        uint8_t kind;
        const char *path;
    } texts[] = { { 't', "f.txt" }, { 'l', "f.jsonl" }, { 'j', "f.json" } };
    struct token_docs docs;
    struct err err = { .code = OK };
    if (nbytes == 0) return 0;
    uint8_t *copy = malloc(nbytes);
    require(copy != NULL);
    memcpy(copy, data + 1, nbytes - 1);
    file_bytes = copy;
    file_nbytes = nbytes - 1;
    if (data[0] == 'i' && tokens_read_ids(&memory_calls, "f", 1000, &docs, &err) == OK) check(&docs, 1000);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (texts[i].kind != data[0]) continue;
        struct tokenizer *tokenizer = open_bytes();
        if (tokens_read_text(&memory_calls, texts[i].path, tokenizer, &docs, &err) == OK) check(&docs, 4);
        tokenizer_close(tokenizer);
    }
    require(strchr(err.text, '\n') == NULL);
    free(copy);
    return 0;
}
