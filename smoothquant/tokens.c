/* tokens.c: documents of token ids from files of ids and from texts; see tokens.h.
 *
 * Formula: a file of ids is a stream of digits, blanks and line feeds; a line feed ends a document if it has ids.
 * Why this way: files are read in pieces of 1 MiB through one small machine, so that a file of gigabytes needs the memory of its ids and no more.
 * Corner cases: "-1", "+1", "0x1", "1.0" and "1,2" are errors with their line and column; leading zeros are not; a last line needs no line feed. A .npy file
 * must be as long as its shape says. A text file is one document even where its lines are stories: what separates them is part of a text, as it is for
 * llama.cpp; who wants documents gives .jsonl or .json. Documents of a text without a byte are dropped.
 * Reference: see tokens.h. Worked number: "7 x": line 1, column 3.
 */
#include "smoothquant/tokens.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/size.h"
#include "container/shown.h"
#include "smoothquant/tokenizer_items.h"

#define PIECE_NBYTES ((size_t)1 << 20)
#define DOCS_MAX ((uint64_t)1 << 28)

void tokens_free(struct token_docs *docs)
{
    if (!docs) return;
    free(docs->ids);
    free(docs->starts);
    free(docs->nbytes);
    *docs = (struct token_docs){ 0 };
}

/* ---- growing ---------------------------------------------------------------------------------------------------------------------- */

struct building {
    struct token_docs docs;
    uint64_t n_ids, ids_capacity, docs_capacity;
    struct err *err;
};

static enum status no_memory(struct building *b)
{
    return err_set(b->err, ERR_MEMORY, "out of memory for %llu tokens", (unsigned long long)b->n_ids);
}

static enum status make_ids(struct building *b, uint64_t n)
{
    if (b->n_ids + n > TOKENS_MAX) return err_set(b->err, ERR_UNSUPPORTED, "more than %llu tokens", (unsigned long long)TOKENS_MAX);
    if (b->n_ids + n <= b->ids_capacity) return OK;
    const uint64_t capacity = size_max(size_max(b->ids_capacity * 2, 1024), b->n_ids + n);
    int32_t *ids = realloc(b->docs.ids, (size_t)capacity * sizeof *ids);
    if (!ids) return no_memory(b);
    b->docs.ids = ids;
    b->ids_capacity = capacity;
    return OK;
}

static enum status add_id(struct building *b, int32_t id)
{
    enum status status = b->n_ids == b->ids_capacity || b->n_ids >= TOKENS_MAX ? make_ids(b, 1) : OK;
    if (status == OK) b->docs.ids[b->n_ids++] = id;
    return status;
}

/* Ends the document of all ids that no document has yet; without any there is none. */
static enum status end_document(struct building *b, uint64_t nbytes)
{
    struct token_docs *docs = &b->docs;
    if (b->n_ids == (docs->n_docs ? docs->starts[docs->n_docs] : 0)) return OK;
    if (docs->n_docs >= DOCS_MAX) return err_set(b->err, ERR_UNSUPPORTED, "more than %llu documents", (unsigned long long)DOCS_MAX);
    if (docs->n_docs + 1 >= b->docs_capacity) {
        const uint64_t capacity = size_max(b->docs_capacity * 2, 64);
        uint64_t *starts = realloc(docs->starts, (size_t)capacity * sizeof *starts);
        if (starts) docs->starts = starts;
        uint64_t *sizes = realloc(docs->nbytes, (size_t)capacity * sizeof *sizes);
        if (sizes) docs->nbytes = sizes;
        if (!starts || !sizes) return no_memory(b);
        b->docs_capacity = capacity;
    }
    docs->starts[0] = 0;
    docs->nbytes[docs->n_docs++] = nbytes;
    docs->starts[docs->n_docs] = b->n_ids;
    return OK;
}

/* Hands over what was built, or frees it. */
static enum status finish(struct building *b, enum status status, const char *path, const char *what, struct token_docs *out)
{
    if (status == OK && b->docs.n_docs == 0) status = err_set(b->err, ERR_DATA, "'%s' has no %s", shown_path(path).text, what);
    if (status == OK) *out = b->docs;
    else tokens_free(&b->docs);
    return status;
}

/* ---- ids as text ------------------------------------------------------------------------------------------------------------------ */

struct scanning {
    struct building *b;
    const char *path;
    uint32_t vocab;
    uint64_t line, column; /* of the byte that is read, from 1 on */
    uint64_t value, value_column;
    bool in_number;
};

static enum status refuse(const struct scanning *s, uint64_t column, const char *what)
{
    return err_set(s->b->err, ERR_DATA, "'%s', line %llu, column %llu: %s", shown_path(s->path).text, (unsigned long long)s->line,
                   (unsigned long long)column, what);
}

static enum status check_id(const struct scanning *s)
{
    if (s->value > INT32_MAX) return refuse(s, s->value_column, "a token id is below 2^31");
    if (s->vocab == 0 || s->value < s->vocab) return OK;
    return err_set(s->b->err, ERR_DATA, "'%s', line %llu, column %llu: token %llu is not below the vocabulary's %u", shown_path(s->path).text,
                   (unsigned long long)s->line, (unsigned long long)s->value_column, (unsigned long long)s->value, (unsigned)s->vocab);
}

static enum status end_number(struct scanning *s)
{
    if (!s->in_number) return OK;
    s->in_number = false;
    enum status status = check_id(s);
    return status == OK ? add_id(s->b, (int32_t)s->value) : status;
}

static enum status take_digit(struct scanning *s, char c)
{
    if (!s->in_number) s->value = 0, s->value_column = s->column;
    s->in_number = true;
    if (s->value <= INT32_MAX) s->value = s->value * 10 + (uint64_t)(c - '0'); /* else it is refused at its end */
    return OK;
}

static enum status take_byte(struct scanning *s, char c)
{
    if (c >= '0' && c <= '9') return take_digit(s, c);
    if (c != ' ' && c != '\t' && c != '\r' && c != '\n') return refuse(s, s->column, "ids are decimal digits divided by blanks");
    enum status status = end_number(s);
    if (status == OK && c == '\n') status = end_document(s->b, 0);
    return status;
}

static enum status scan_piece(struct scanning *s, const char *bytes, size_t n)
{
    enum status status = OK;
    for (size_t i = 0; i < n && status == OK; i++) {
        s->column++;
        status = take_byte(s, bytes[i]);
        if (bytes[i] == '\n') s->line++, s->column = 0;
    }
    return status;
}

static enum status read_text_ids(const struct file *file, uint32_t vocab, char *piece, struct building *b)
{
    struct scanning s = { .b = b, .path = file->path, .vocab = vocab, .line = 1 };
    enum status status = OK;
    for (uint64_t at = 0; at < file->nbytes && status == OK; at += PIECE_NBYTES) {
        const size_t n = (size_t)size_min(PIECE_NBYTES, file->nbytes - at);
        status = file_read(file, piece, n, at, b->err);
        if (status == OK) status = scan_piece(&s, piece, n);
    }
    if (status == OK) status = end_number(&s);
    return status == OK ? end_document(b, 0) : status;
}

/* ---- .npy ------------------------------------------------------------------------------------------------------------------------- */

#define NPY_MAGIC "\x93NUMPY"
#define NPY_MAGIC_NBYTES 6u
#define NPY_HEADER_MAX 65536u

/* The dictionary of an .npy file: {'descr': '<i4', 'fortran_order': False, 'shape': (3, 4), } */
struct npy {
    const char *at, *end;
    char descr[16];
    bool is_fortran, has_descr, has_order, has_shape;
    uint64_t dims[2];
    unsigned n_dims;
};

static void skip_blanks(struct npy *npy)
{
    while (npy->at < npy->end && (*npy->at == ' ' || *npy->at == '\n' || *npy->at == '\t')) npy->at++;
}

static bool take(struct npy *npy, const char *what)
{
    const size_t n = strlen(what);
    skip_blanks(npy);
    if ((size_t)(npy->end - npy->at) < n || memcmp(npy->at, what, n) != 0) return false;
    npy->at += n;
    return true;
}

static bool take_string(struct npy *npy, char *out, size_t capacity)
{
    skip_blanks(npy);
    if (npy->at == npy->end || (*npy->at != '\'' && *npy->at != '"')) return false;
    const char quote = *npy->at++;
    size_t n = 0;
    for (; npy->at < npy->end && *npy->at != quote; npy->at++) {
        if (n + 1 >= capacity) return false;
        out[n++] = *npy->at;
    }
    out[n] = '\0';
    return take(npy, (char[]){ quote, '\0' });
}

static bool take_dim(struct npy *npy)
{
    uint64_t value = 0;
    skip_blanks(npy);
    const char *start = npy->at;
    for (; npy->at < npy->end && *npy->at >= '0' && *npy->at <= '9'; npy->at++) {
        if (value > UINT64_MAX / 16) return false;
        value = value * 10 + (uint64_t)(*npy->at - '0');
    }
    if (npy->at == start) return false;
    if (npy->n_dims < 2) npy->dims[npy->n_dims] = value;
    npy->n_dims++;
    return true;
}

static bool take_shape(struct npy *npy)
{
    if (!take(npy, "(")) return false;
    while (!take(npy, ")")) {
        if (!take_dim(npy)) return false;
        if (!take(npy, ",")) return take(npy, ")");
    }
    return true;
}

static bool take_entry(struct npy *npy)
{
    char key[32];
    if (!take_string(npy, key, sizeof key) || !take(npy, ":")) return false;
    if (strcmp(key, "descr") == 0 && !npy->has_descr) return npy->has_descr = true, take_string(npy, npy->descr, sizeof npy->descr);
    if (strcmp(key, "shape") == 0 && !npy->has_shape) return npy->has_shape = true, take_shape(npy);
    if (strcmp(key, "fortran_order") != 0 || npy->has_order) return false;
    npy->has_order = true;
    npy->is_fortran = take(npy, "True");
    return npy->is_fortran || take(npy, "False");
}

static bool parse_npy(struct npy *npy)
{
    if (!take(npy, "{")) return false;
    while (!take(npy, "}")) {
        if (!take_entry(npy)) return false;
        if (!take(npy, ",") && !take(npy, "}")) return false;
        if (npy->at[-1] == '}') break;
    }
    skip_blanks(npy);
    return npy->at == npy->end && npy->has_descr && npy->has_order && npy->has_shape;
}

/* Types of ids. */
static const struct npy_type {
    const char *descr;
    unsigned nbytes;
    bool is_signed;
} npy_types[] = { { "<i4", 4, true }, { "<i8", 8, true }, { "<u2", 2, false }, { "<u4", 4, false } };

static const struct npy_type *find_type(const char *descr)
{
    for (size_t i = 0; i < sizeof npy_types / sizeof npy_types[0]; i++)
        if (strcmp(npy_types[i].descr, descr) == 0) return &npy_types[i];
    return NULL;
}

static uint64_t little(const uint8_t *bytes, unsigned n)
{
    uint64_t value = 0;
    for (unsigned i = n; i > 0; i--) value = value << 8 | bytes[i - 1];
    return value;
}

/* The header's dictionary into npy and the place of the data; text is room for it. */
static enum status read_npy_header(const struct file *file, char *text, struct npy *npy, uint64_t *data, struct building *b)
{
    uint8_t head[12] = { 0 };
    enum status status = file_read(file, head, (size_t)size_min(sizeof head, file->nbytes), 0, b->err);
    if (status != OK) return status;
    const unsigned n_length = head[6] == 1 ? 2 : 4;
    if (head[6] < 1 || head[6] > 3) return err_set(b->err, ERR_UNSUPPORTED, "its .npy version is %u.%u", head[6], head[7]);
    const uint64_t n = little(head + 8, n_length);
    *data = 8 + n_length + n;
    if (n > NPY_HEADER_MAX || *data > file->nbytes)
        return err_set(b->err, ERR_DATA, "its .npy header of %llu bytes is too long", (unsigned long long)n);
    status = file_read(file, text, (size_t)n, 8 + n_length, b->err);
    if (status != OK) return status;
    *npy = (struct npy){ .at = text, .end = text + n };
    return parse_npy(npy) ? OK : err_set(b->err, ERR_DATA, "its .npy header is malformed");
}

static enum status check_npy(const struct file *file, const struct npy *npy, uint64_t data, const struct npy_type **type, struct building *b)
{
    uint64_t n = 0, nbytes = 0;
    *type = find_type(npy->descr);
    if (!*type) return err_set(b->err, ERR_UNSUPPORTED, "its numbers are '%s'; ids are <i4 or <i8, or <u2 or <u4", shown_str(npy->descr).text);
    if (npy->n_dims != 1 && npy->n_dims != 2) return err_set(b->err, ERR_UNSUPPORTED, "it has %u axes, not 1 or 2", npy->n_dims);
    if (npy->is_fortran && npy->n_dims == 2) return err_set(b->err, ERR_UNSUPPORTED, "its rows are in Fortran's order");
    if (!size_mul(npy->dims[0], npy->n_dims == 2 ? npy->dims[1] : 1, &n) || !size_mul(n, (*type)->nbytes, &nbytes) || nbytes != file->nbytes - data)
        return err_set(b->err, ERR_DATA, "its .npy shape does not fit its %llu bytes of data", (unsigned long long)(file->nbytes - data));
    return OK;
}

static enum status add_npy_id(const uint8_t *bytes, const struct npy_type *type, uint64_t index, uint32_t vocab, struct building *b)
{
    const uint64_t value = little(bytes, type->nbytes);
    const bool is_negative = type->is_signed && bytes[type->nbytes - 1] & 0x80;
    if (is_negative || value > INT32_MAX || (vocab && value >= vocab))
        return err_set(b->err, ERR_DATA, "its number %llu is %s", (unsigned long long)index,
                       is_negative         ? "negative"
                       : value > INT32_MAX ? "not below 2^31"
                                           : "not below the size of the vocabulary");
    return add_id(b, (int32_t)value);
}

static enum status read_npy(const struct file *file, uint32_t vocab, char *piece, struct building *b)
{
    struct npy npy;
    const struct npy_type *type = NULL;
    uint64_t data = 0, index = 0;
    enum status status = read_npy_header(file, piece, &npy, &data, b);
    if (status == OK) status = check_npy(file, &npy, data, &type, b);
    if (status != OK) return status;
    const uint64_t row = npy.n_dims == 2 ? npy.dims[1] : npy.dims[0];
    for (uint64_t at = data; at < file->nbytes && status == OK; at += PIECE_NBYTES) { /* a multiple of every type's size */
        const size_t n = (size_t)size_min(PIECE_NBYTES, file->nbytes - at);
        status = file_read(file, piece, n, at, b->err);
        for (size_t i = 0; i < n && status == OK; i += type->nbytes) {
            status = add_npy_id((const uint8_t *)piece + i, type, index++, vocab, b);
            if (status == OK && index % row == 0) status = end_document(b, 0);
        }
    }
    return status;
}

static enum status read_ids(const struct file *file, uint32_t vocab, struct building *b)
{
    char magic[NPY_MAGIC_NBYTES] = { 0 };
    if (file->nbytes > TOKENS_FILE_MAX)
        return err_set(b->err, ERR_UNSUPPORTED, "'%s' has %llu bytes, more than the limit of %llu", shown_path(file->path).text,
                       (unsigned long long)file->nbytes, (unsigned long long)TOKENS_FILE_MAX);
    enum status status = file_read(file, magic, (size_t)size_min(sizeof magic, file->nbytes), 0, b->err);
    if (status != OK) return status;
    char *piece = malloc(PIECE_NBYTES);
    if (!piece) return no_memory(b);
    if (memcmp(magic, NPY_MAGIC, sizeof magic) != 0) {
        status = read_text_ids(file, vocab, piece, b);
    } else {
        status = read_npy(file, vocab, piece, b);
        if (status != OK) err_wrap(b->err, status, "'%s'", shown_path(file->path).text);
    }
    free(piece);
    return status;
}

enum status tokens_read_ids(const struct io_calls *io, const char *path, uint32_t vocab, struct token_docs *out, struct err *err)
{
    struct building b = { .err = err };
    struct file file;
    *out = (struct token_docs){ 0 };
    enum status status = file_open(io, path, &file, err);
    if (status == OK) status = read_ids(&file, vocab, &b);
    if (status == OK) status = file_check_unchanged(&file, err);
    file_close(&file);
    return finish(&b, status, path, "token ids", out);
}

/* ---- texts ------------------------------------------------------------------------------------------------------------------------ */

struct reading {
    struct building b;
    struct tokenizer_run *run;
};

static enum status add_text(struct reading *r, const char *text, size_t n)
{
    const int32_t *ids = NULL;
    size_t n_ids = 0;
    if (n == 0) return OK;
    enum status status = tokenizer_run_encode(r->run, text, n, true, &ids, &n_ids, r->b.err);
    if (status == OK) status = make_ids(&r->b, n_ids);
    if (status != OK) return status;
    if (n_ids) memcpy(r->b.docs.ids + r->b.n_ids, ids, n_ids * sizeof *ids);
    r->b.n_ids += n_ids;
    return end_document(&r->b, n);
}

static const struct json_limits item_limits = { .max_depth = 64, .max_values = 1u << 20 };

/* A string, or an object with a string "text". */
static enum status add_item(struct reading *r, const char *item, size_t n)
{
    cJSON *tree = NULL;
    enum status status = json_parse(item, n, &item_limits, &tree, r->b.err);
    if (status != OK) return status;
    const cJSON *text = cJSON_IsObject(tree) ? json_get(tree, "text") : tree;
    if (text && cJSON_IsString(text)) status = add_text(r, text->valuestring, strlen(text->valuestring));
    else status = err_set(r->b.err, ERR_DATA, "neither a string nor an object with a \"text\"");
    cJSON_Delete(tree);
    return status;
}

static enum status read_whole(struct reading *r, const char *text, size_t n)
{
    return add_text(r, text, n);
}

static enum status read_lines(struct reading *r, const char *text, size_t n)
{
    enum status status = OK;
    unsigned long long line = 0;
    for (size_t at = 0; at < n && status == OK;) {
        const char *end = memchr(text + at, '\n', n - at);
        const size_t n_line = end ? (size_t)(end - text) - at : n - at;
        size_t n_blank = 0;
        line++;
        while (n_blank < n_line && strchr(" \t\r", text[at + n_blank]) && text[at + n_blank]) n_blank++;
        if (n_blank < n_line) status = add_item(r, text + at, n_line);
        if (status != OK) err_wrap(r->b.err, status, "line %llu", line);
        at += n_line + 1;
    }
    return status;
}

static enum status read_array(struct reading *r, const char *text, size_t n)
{
    static const struct json_limits limits = { .max_depth = 64, .max_values = UINT64_C(1) << 28 };
    struct items items;
    const char *item;
    size_t n_item, blanks = 0;
    enum status status = json_check(text, n, &limits, r->b.err);
    while (blanks < n && strchr(" \t\r\n", text[blanks]) && text[blanks]) blanks++;
    if (status == OK && !items_open(&items, text + blanks, n - blanks)) status = err_set(r->b.err, ERR_DATA, "it is not an array of texts");
    for (unsigned long long i = 0; status == OK && items_next(&items, &item, &n_item); i++) {
        status = add_item(r, item, n_item);
        if (status != OK) err_wrap(r->b.err, status, "item %llu", i);
    }
    return status;
}

/* How a text is divided, by the end of its name. */
static const struct division {
    const char *end;
    enum status (*read)(struct reading *r, const char *text, size_t n);
} divisions[] = { { ".jsonl", read_lines }, { ".ndjson", read_lines }, { ".json", read_array }, { "", read_whole } };

static enum status divide(struct reading *r, const char *path, const char *text, size_t n)
{
    const size_t n_path = strlen(path);
    for (size_t i = 0;; i++) {
        const size_t n_end = strlen(divisions[i].end);
        if (n_end <= n_path && strcmp(path + n_path - n_end, divisions[i].end) == 0) return divisions[i].read(r, text, n);
    }
}

enum status tokens_read_text(const struct io_calls *io, const char *path, const struct tokenizer *tokenizer, struct token_docs *out, struct err *err)
{
    struct reading r = { .b = { .err = err }, .run = tokenizer_run_open(tokenizer) };
    char *text = NULL;
    size_t n = 0;
    *out = (struct token_docs){ 0 };
    enum status status = r.run ? file_slurp(io, path, TOKENS_TEXT_MAX, &text, &n, err) : no_memory(&r.b);
    if (status == OK) {
        status = divide(&r, path, text, n);
        if (status != OK) err_wrap(err, status, "'%s'", shown_path(path).text);
    }
    free(text);
    tokenizer_run_close(r.run);
    return finish(&r.b, status, path, "text", out);
}
