/* fuzz_tokenizer.c: libFuzzer target of tokenizers: tokenizer.json and the keys of GGUF files, and texts through what opens.
 *
 * Formula: the input is a file, then, behind the first NUL of a file that does not begin with "GGUF", a text.
 * Why this way: what opens is checked by other means: ids are below the vocabulary, a second run with its cache of words gives the same, and so does
 * encoding without cutting long words.
 * Corner cases: the input is copied to blocks of their exact sizes, so that a sanitizer sees any read beyond them.
 * Reference: libFuzzer, LLVMFuzzerTestOneInput. Run: fuzz_tokenizer -max_len=20000 CORPUS.
 */
#include <stdlib.h>
#include <string.h>

#include "smoothquant/tokenizer_self.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

static void require(bool holds)
{
    if (!holds) abort();
}

static char *copy_of(const void *data, size_t n)
{
    char *copy = malloc(n + !n);
    require(copy != NULL);
    if (n) memcpy(copy, data, n);
    return copy;
}

static void check_ids(const struct tokenizer *tokenizer, const int32_t *ids, size_t n_ids)
{
    for (size_t i = 0; i < n_ids; i++) {
        char piece[16];
        require(ids[i] >= 0 && (uint32_t)ids[i] < tokenizer_vocab(tokenizer));
        tokenizer_piece(tokenizer, ids[i], piece, sizeof piece);
    }
}

static void encode(struct tokenizer *tokenizer, const char *given, size_t n)
{
    char *text = copy_of(given, n);
    struct tokenizer_run *run = tokenizer_run_open(tokenizer);
    struct err err = { .code = OK };
    int32_t *ids = NULL;
    const int32_t *again = NULL;
    size_t n_ids = 0, n_again = 0;
    require(run != NULL);
    const enum status status = tokenizer_encode(tokenizer, text, n, true, &ids, &n_ids, &err);
    require((status == OK) == (err.text[0] == '\0') && (status == OK) == (ids != NULL));
    for (int i = 0; i < 2; i++) {
        require(tokenizer_run_encode(run, text, n, true, &again, &n_again, &err) == status && n_again == n_ids);
        if (n_ids) require(memcmp(ids, again, n_ids * sizeof *ids) == 0);
    }
    check_ids(tokenizer, ids, n_ids);
    uint64_t *joints = tokenizer->bpe.joints;
    tokenizer->bpe.joints = NULL;
    tokenizer_run_close(run);
    run = tokenizer_run_open(tokenizer);
    require(run != NULL);
    require(tokenizer_run_encode(run, text, n, true, &again, &n_again, &err) == status && n_again == n_ids);
    if (n_ids) require(memcmp(ids, again, n_ids * sizeof *ids) == 0);
    tokenizer->bpe.joints = joints;
    tokenizer_run_close(run);
    free(ids);
    free(text);
}

static void check(struct tokenizer *tokenizer, const char *text, size_t n)
{
    static const char some[] = "Hello the  w\xc3\xb6rld's 123\n\n \xe6\x97\xa5\xe6\x9c\xac e\xcc\x81<s> \xf0\x9f\x98\x80 ab abc";
    require(tokenizer_vocab(tokenizer) > 0 && tokenizer_vocab(tokenizer) <= TOKENIZER_IDS_MAX);
    require(tokenizer_bos(tokenizer) < (int32_t)tokenizer_vocab(tokenizer));
    encode(tokenizer, some, sizeof some - 1);
    encode(tokenizer, text, n);
    tokenizer_close(tokenizer);
}

static void run_gguf(const uint8_t *data, size_t nbytes)
{
    char *copy = copy_of(data, nbytes);
    struct gguf_source source = { .read = gguf_read_memory, .context = copy, .nbytes = nbytes };
    struct gguf_header header = { 0 };
    struct tokenizer *tokenizer = NULL;
    struct err err = { .code = OK };
    if (gguf_header_parse(&source, &header, &err) == OK) {
        err.text[0] = '\0';
        const enum status status = tokenizer_open_gguf(&header, &source, &tokenizer, &err);
        require((status == OK) == (tokenizer != NULL) && (status == OK) == (err.text[0] == '\0'));
        if (status == OK) check(tokenizer, "a b  ab", 7);
        gguf_header_free(&header);
    }
    free(copy);
}

static void run_json(const uint8_t *data, size_t nbytes)
{
    const uint8_t *end = memchr(data, 0, nbytes);
    const size_t n = end ? (size_t)(end - data) : nbytes, n_text = end ? nbytes - n - 1 : 0;
    char *copy = copy_of(data, n);
    static const char config[] = "{\"bos_token\":\"<s>\"}";
    struct tokenizer_files files = { .tokenizer = { copy, n }, .tokenizer_config = { config, sizeof config - 1 } };
    struct tokenizer *tokenizer = NULL;
    struct err err = { .code = OK };
    const enum status status = tokenizer_open_json(&files, &tokenizer, &err);
    require((status == OK) == (tokenizer != NULL) && (status == OK) == (err.text[0] == '\0'));
    if (status == OK) check(tokenizer, end ? (const char *)end + 1 : "", n_text);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    if (nbytes >= 4 && memcmp(data, "GGUF", 4) == 0) run_gguf(data, nbytes);
    else if (nbytes > 0) run_json(data, nbytes);
    return 0;
}
