/* foreign.c: the table of files that are no model; see foreign.h.
 *
 * Formula: a row matches when its test says so, or, without a test, when the file begins with its magic bytes. First match wins.
 * Why this way: most kinds are a magic number, so a new one is a row.
 * Corner cases: a page may begin with blanks or a byte order mark; a pickle begins with 80 and its protocol, 02 to 05.
 * Reference: see foreign.h. Worked number: a zip begins with 50 4b 03 04.
 */
#include "container/foreign.h"

#include <stdbool.h>
#include <string.h>

#include "container/safetensors_header.h"
#include "container/shown.h"

struct row {
    struct foreign foreign;
    const char *magic; /* NULL: test decides */
    bool (*test)(const uint8_t *head, size_t n_head);
};

static size_t skip_blanks(const uint8_t *head, size_t n_head)
{
    size_t at = n_head >= 3 && memcmp(head, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    while (at < n_head && (head[at] == ' ' || head[at] == '\n' || head[at] == '\r' || head[at] == '\t')) at++;
    return at;
}

/* Compares without regard to the case of ASCII letters; word is in lower case. */
static bool begins_with_word(const uint8_t *text, size_t n, const char *word)
{
    size_t length = strlen(word);
    if (n < length) return false;
    for (size_t i = 0; i < length; i++) {
        uint8_t c = text[i] >= 'A' && text[i] <= 'Z' ? (uint8_t)(text[i] + 32) : text[i];
        if (c != (uint8_t)word[i]) return false;
    }
    return true;
}

static bool is_empty(const uint8_t *head, size_t n_head)
{
    (void)head;
    return n_head == 0;
}

static bool is_short(const uint8_t *head, size_t n_head)
{
    (void)head;
    return n_head < SAFETENSORS_LENGTH_NBYTES;
}

static bool is_page(const uint8_t *head, size_t n_head)
{
    size_t at = skip_blanks(head, n_head);
    return begins_with_word(head + at, n_head - at, "<!doctype") || begins_with_word(head + at, n_head - at, "<html") ||
           begins_with_word(head + at, n_head - at, "<?xml");
}

static bool is_json(const uint8_t *head, size_t n_head)
{
    size_t at = skip_blanks(head, n_head);
    return at < n_head && head[at] == '{';
}

static bool is_pickle(const uint8_t *head, size_t n_head)
{
    return n_head >= 2 && head[0] == 0x80 && head[1] >= 2 && head[1] <= 5;
}

static const struct row rows[] = {
    { { "empty file", ERR_DATA, "is empty" }, NULL, is_empty },
    { { "short file", ERR_DATA, "is shorter than 8 bytes: truncated, or no model" }, NULL, is_short },
    { { "git-LFS pointer", ERR_DATA, "is a git-LFS pointer, not the file itself; run git lfs pull" }, "version https://git-lfs", NULL },
    { { "web page", ERR_DATA, "is a web page (HTML or XML), not a model; the download went wrong" }, NULL, is_page },
    { { "GGUF", ERR_UNSUPPORTED, "is a GGUF file under the name of another kind; rename it to *.gguf" }, "GGUF", NULL },
    { { "GGML", ERR_UNSUPPORTED, "is a GGML file of before GGUF; it is not supported" }, "lmgg", NULL },
    { { "GGML", ERR_UNSUPPORTED, "is a GGML file of before GGUF; it is not supported" }, "tjgg", NULL },
    { { "PyTorch zip", ERR_UNSUPPORTED, "is a PyTorch (zip) file or another zip; llmq reads no pickles, convert it to safetensors first" },
      "PK\x03\x04",
      NULL },
    { { "PyTorch pickle", ERR_UNSUPPORTED, "is a PyTorch (pickle) file; llmq reads no pickles, convert it to safetensors first" }, NULL, is_pickle },
    { { "HDF5", ERR_UNSUPPORTED, "is an HDF5 file; convert it to safetensors first" }, "\x89HDF", NULL },
    { { "NumPy", ERR_UNSUPPORTED, "is a NumPy file; convert it to safetensors first" }, "\x93NUMPY", NULL },
    { { "gzip", ERR_UNSUPPORTED, "is compressed (gzip); unpack it first" }, "\x1f\x8b", NULL },
    { { "xz", ERR_UNSUPPORTED, "is compressed (xz); unpack it first" },
      "\xfd"
      "7zXZ",
      NULL },
    { { "zstd", ERR_UNSUPPORTED, "is compressed (zstd); unpack it first" }, "\x28\xb5\x2f\xfd", NULL },
    { { "JSON", ERR_UNSUPPORTED, "is a JSON text, not weights; give the model folder, its *.index.json or a *.safetensors" }, NULL, is_json },
};

size_t foreign_count(void)
{
    return sizeof rows / sizeof rows[0];
}

const struct foreign *foreign_at(size_t index)
{
    return &rows[index].foreign;
}

const struct foreign *foreign_find(const uint8_t *head, size_t n_head)
{
    if (safetensors_header_plausible(head, n_head)) return NULL;
    for (size_t i = 0; i < foreign_count(); i++) {
        size_t n_magic = rows[i].magic ? strlen(rows[i].magic) : 0;
        if (rows[i].test ? rows[i].test(head, n_head) : n_head >= n_magic && memcmp(head, rows[i].magic, n_magic) == 0) return &rows[i].foreign;
    }
    return NULL;
}

enum status foreign_check(const struct file *file, struct err *err)
{
    uint8_t head[FOREIGN_HEAD_NBYTES];
    size_t n_head = file->nbytes < sizeof head ? (size_t)file->nbytes : sizeof head;
    enum status status = file_read(file, head, n_head, 0, err);
    if (status != OK) return status;
    const struct foreign *foreign = foreign_find(head, n_head);
    return foreign ? err_set(err, foreign->status, "'%s' %s", shown_path(file->path).text, foreign->sentence) : OK;
}
