/* test_gguf.c: the strict GGUF reader against crafted, cut, changed, huge, split and real files.
 *
 * Formula: a crafted file is a script of tokens, one token a piece of the file (see build): "H3,1,0 Ta:0:4:0 P32 z16 P32" is version 3, one tensor,
 * no keys; tensor a of type 0 (F32), dims 4, offset 0; padding; 16 bytes of data; padding.
 * Why this way: the verdicts are a table, one row a file; a row has a part of the sentence that must be there, so that a file is refused for its
 * own reason. What is accepted in a sweep is walked again by a parser of the test's own, which shares no code with the reader.
 * Corner cases: times are five times the goal, so that a busy machine passes. Every row is read from memory and from a file, with one verdict.
 * Reference: the project's reliability notes 2 and 5.1 rows 2 to 5, 7, 8, appendix B; llama.cpp tests/test-gguf.cpp for the kinds of bad files.
 */
#include "support/support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "base/size.h"
#include "base/utf8.h"
#include "container/container.h"
#include "container/gguf.h"

static char *dir;

static int make_dir(void **state)
{
    (void)state;
    dir = temp_dir();
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    temp_dir_remove(dir);
    return 0;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* not the time that others take */
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- building files --------------------------------------------------------------------------------------------------------------- */

struct bytes {
    uint8_t *data;
    size_t n;
    size_t capacity;
};

static void add(struct bytes *b, const void *data, size_t n)
{
    if (b->n + n > b->capacity) {
        b->capacity = (b->n + n) * 2;
        b->data = realloc(b->data, b->capacity);
        assert_non_null(b->data);
    }
    if (n > 0) memcpy(b->data + b->n, data, n);
    b->n += n;
}

static void add_fill(struct bytes *b, uint8_t c, uint64_t n)
{
    for (; n > 0; n--) add(b, &c, 1);
}

static void add_uint(struct bytes *b, uint64_t v, unsigned nbytes)
{
    for (unsigned i = 0; i < nbytes; i++) {
        uint8_t c = (uint8_t)(v >> (8 * i) & 0xff);
        add(b, &c, 1);
    }
}

/* The text up to end with %XX as bytes. */
static void add_text(struct bytes *b, const char *text, const char *end)
{
    for (; text < end; text++) {
        unsigned c = (unsigned char)*text;
        if (c == '%') {
            assert_int_equal(sscanf(text + 1, "%2x", &c), 1);
            text += 2;
        }
        uint8_t byte = (uint8_t)c;
        add(b, &byte, 1);
    }
}

static void add_string(struct bytes *b, const char *text, const char *end)
{
    struct bytes raw = { 0 };
    add_text(&raw, text, end);
    add_uint(b, raw.n, 8);
    add(b, raw.data, raw.n);
    free(raw.data);
}

/* Numbers separated by commas; returns how many. */
static size_t numbers(const char *text, const char *end, uint64_t out[8])
{
    size_t n = 0;
    while (text < end && n < 8) {
        char *next;
        out[n++] = strtoull(text, &next, 0);
        text = next + 1;
    }
    return n;
}

/* NAME:TYPE:DIMS:OFFSET, dims innermost first. */
static void add_tensor(struct bytes *b, const char *text, const char *end)
{
    uint64_t v[8];
    const char *type = memchr(text, ':', (size_t)(end - text)), *dims, *offset;
    assert_non_null(type);
    dims = memchr(type + 1, ':', (size_t)(end - type - 1));
    assert_non_null(dims);
    offset = memchr(dims + 1, ':', (size_t)(end - dims - 1));
    assert_non_null(offset);
    add_string(b, text, type);
    size_t n = numbers(dims + 1, offset, v);
    add_uint(b, n, 4);
    for (size_t i = 0; i < n; i++) add_uint(b, v[i], 8);
    add_uint(b, strtoull(type + 1, NULL, 0), 4);
    add_uint(b, strtoull(offset + 1, NULL, 0), 8);
}

/* Tokens, separated by blanks:
 *   HV,T,K     magic, version V, T tensors, K keys          Kname  a key's name       Tn:type:dims:offset  a tensor info
 *   bN hN wN qN  N as 1, 2, 4, 8 bytes                      sTEXT  a string           rTEXT  bytes
 *   LN         a string of N letters                        zN     N zero bytes       PN     zeros up to a multiple of N */
static struct bytes build(const char *script)
{
    struct bytes b = { 0 };
    while (*script) {
        const char *text = script + 1, *end = script + strcspn(script, " ");
        uint64_t v[8] = { 0 };
        switch (*script) {
        case ' ':
            end = text;
            break;
        case 'H':
            assert_int_equal(numbers(text, end, v), 3);
            add(&b, "GGUF", 4);
            add_uint(&b, v[0], 4);
            add_uint(&b, v[1], 8);
            add_uint(&b, v[2], 8);
            break;
        case 'K':
        case 's':
            add_string(&b, text, end);
            break;
        case 'r':
            add_text(&b, text, end);
            break;
        case 'T':
            add_tensor(&b, text, end);
            break;
        case 'b':
            add_uint(&b, strtoull(text, NULL, 0), 1);
            break;
        case 'h':
            add_uint(&b, strtoull(text, NULL, 0), 2);
            break;
        case 'w':
            add_uint(&b, strtoull(text, NULL, 0), 4);
            break;
        case 'q':
            add_uint(&b, strtoull(text, NULL, 0), 8);
            break;
        case 'L':
            add_uint(&b, strtoull(text, NULL, 0), 8);
            add_fill(&b, 'a', strtoull(text, NULL, 0));
            break;
        case 'z':
            add_fill(&b, 0, strtoull(text, NULL, 0));
            break;
        case 'P':
            while (b.n % strtoull(text, NULL, 0)) add_fill(&b, 0, 1);
            break;
        default:
            fail_msg("script: '%s'", script);
        }
        script = end;
    }
    return b;
}

/* ---- opening -------------------------------------------------------------------------------------------------------------------- */

static enum status parse_bytes(const uint8_t *data, size_t n, struct gguf_header *header, struct err *err)
{
    uint8_t *exact = malloc(n ? n : 1); /* so that a sanitizer sees an over-read */
    assert_non_null(exact);
    if (n > 0) memcpy(exact, data, n);
    struct gguf_source source = { .read = gguf_read_memory, .context = exact, .nbytes = n };
    memset(err, 0, sizeof *err);
    enum status status = gguf_header_parse(&source, header, err);
    free(exact);
    return status;
}

static enum status open_path(const struct io_calls *io, const char *path, struct container **container, struct err *err)
{
    memset(err, 0, sizeof *err);
    *container = NULL;
    enum status status = gguf_container_ops.open(io, path, container, err);
    if (status == OK) status = container_index_names(*container, err);
    if (status != OK) container_close(*container);
    if (status != OK) *container = NULL;
    return status;
}

static void check_message(const char *what, const struct err *err, const char *part)
{
    if (!strstr(err->text, part)) fail_msg("%s: message '%s' lacks '%s'", what, err->text, part);
    for (const char *c = err->text; *c; c++)
        if ((unsigned char)*c < 0x20) fail_msg("%s: message of more than one line", what);
}

/* Fails unless memory and file have the verdict wanted. */
static void expect(const char *what, const struct bytes *b, enum status wanted, const char *part)
{
    struct gguf_header header;
    struct container *container;
    struct err err;
    enum status status = parse_bytes(b->data, b->n, &header, &err);
    if (status != wanted) fail_msg("%s: status %d instead of %d: %s", what, (int)status, (int)wanted, err.text);
    if (status != OK) check_message(what, &err, part);
    if (status != OK) assert_null(header.tensors);
    gguf_header_free(&header);
    const char *path = temp_path(dir, "x.gguf");
    write_file(path, b->data, b->n);
    status = open_path(&io_system, path, &container, &err);
    if (status != wanted) fail_msg("%s: status of the file %d instead of %d: %s", what, (int)status, (int)wanted, err.text);
    if (status != OK) check_message(what, &err, part);
    if (status != OK) check_message(what, &err, "x.gguf");
    container_close(container);
}

/* ---- the independent walk of an accepted file ------------------------------------------------------------------------------------- */

struct walk {
    const uint8_t *data;
    size_t n, at;
};

static uint64_t walk_uint(struct walk *w, unsigned nbytes)
{
    uint64_t v = 0;
    assert_true(nbytes <= w->n - w->at);
    for (unsigned i = 0; i < nbytes; i++) v |= (uint64_t)w->data[w->at + i] << (8 * i);
    w->at += nbytes;
    return v;
}

static void walk_string(struct walk *w)
{
    uint64_t length = walk_uint(w, 8);
    assert_true(length <= w->n - w->at);
    for (size_t i = 0; i < length;) {
        size_t step = utf8_length((const char *)w->data + w->at + i, (size_t)length - i);
        assert_true(step > 0);
        i += step;
    }
    w->at += (size_t)length;
}

static void walk_value(struct walk *w, uint64_t type, unsigned depth)
{
    static const unsigned sizes[] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    assert_true(type < 13 && depth <= 4);
    if (type == 8) {
        walk_string(w);
    } else if (type == 9) {
        uint64_t inner = walk_uint(w, 4), count = walk_uint(w, 8);
        assert_true(inner < 13);
        for (uint64_t i = 0; i < count; i++) walk_value(w, inner, depth + 1);
    } else {
        uint64_t v = walk_uint(w, sizes[type]);
        assert_true(type != 7 || v <= 1);
    }
}

static const struct {
    uint32_t id, block, nbytes;
} sizes_by_id[] = { { 0, 1, 4 },      { 1, 1, 2 },     { 2, 32, 18 },    { 3, 32, 20 },    { 6, 32, 22 },    { 7, 32, 24 },    { 8, 32, 34 },
                    { 9, 32, 36 },    { 10, 256, 84 }, { 11, 256, 110 }, { 12, 256, 144 }, { 13, 256, 176 }, { 14, 256, 210 }, { 15, 256, 292 },
                    { 16, 256, 66 },  { 17, 256, 74 }, { 18, 256, 98 },  { 19, 256, 50 },  { 20, 32, 18 },   { 21, 256, 110 }, { 22, 256, 82 },
                    { 23, 256, 136 }, { 24, 1, 1 },    { 25, 1, 2 },     { 26, 1, 4 },     { 27, 1, 8 },     { 28, 1, 8 },     { 29, 256, 56 },
                    { 30, 1, 2 },     { 34, 256, 54 }, { 35, 256, 66 },  { 39, 32, 17 },   { 40, 64, 36 },   { 41, 128, 18 },  { 42, 64, 18 } };

#define N_SIZES (sizeof sizes_by_id / sizeof sizes_by_id[0])

static void walk_tensor(struct walk *w, const struct gguf_header *header, size_t index, double *end)
{
    const struct tensor *tensor = &header->tensors[index];
    const struct gguf_entry *entry = &header->entries[index];
    size_t at = w->at + 8;
    walk_string(w);
    assert_true(w->at - at == strlen(tensor->name) && w->at - at <= 64 && w->at > at && memcmp(tensor->name, w->data + at, w->at - at) == 0);
    uint64_t rank = walk_uint(w, 4);
    double weights = 1.0, row = 1.0;
    assert_true(rank == tensor->rank && rank <= 4);
    for (uint64_t d = 0; d < rank; d++) {
        uint64_t dim = walk_uint(w, 8);
        assert_true(tensor->dims[rank - 1 - d] == dim);
        if (d == 0) row = (double)dim;
        weights *= (double)dim;
    }
    uint64_t id = walk_uint(w, 4), offset = walk_uint(w, 8);
    size_t k = 0;
    while (k < N_SIZES && sizes_by_id[k].id != id) k++;
    assert_true(k < N_SIZES);
    assert_true(weights == (double)tensor->n_weights);
    assert_true(row / sizes_by_id[k].block * sizes_by_id[k].block == row);
    assert_true(weights / sizes_by_id[k].block * sizes_by_id[k].nbytes == (double)entry->nbytes);
    assert_true(entry->type->id == id && (tensor->quantised != NULL) == (sizes_by_id[k].block > 1));
    double aligned = *end;
    assert_true((double)offset == aligned && offset + header->data_offset == tensor->offset);
    assert_true((double)tensor->offset + (double)entry->nbytes <= (double)w->n);
    *end = aligned + (double)entry->nbytes;
    while (*end / header->alignment != (double)(uint64_t)(*end / header->alignment)) *end += 1.0;
}

/* Walks the file and compares it with what the reader has found. */
static void check_accepted(const uint8_t *data, size_t n, const struct gguf_header *header)
{
    struct walk w = { data, n, 0 };
    assert_memory_equal(data, "GGUF", 4);
    w.at = 4;
    uint64_t version = walk_uint(&w, 4), n_tensors = walk_uint(&w, 8), n_keys = walk_uint(&w, 8);
    assert_true(version == header->version && (version == 2 || version == 3));
    assert_true(n_keys == header->n_keys && n_tensors == header->n_tensors);
    for (size_t i = 0; i < n_keys; i++) {
        const struct gguf_key *key = &header->keys[i];
        size_t begin = w.at;
        walk_string(&w);
        assert_true(key->offset == begin && key->n_name == w.at - begin - 8 && memcmp(key->name, data + begin + 8, key->n_name) == 0 &&
                    key->n_name > 0);
        uint64_t type = walk_uint(&w, 4);
        assert_true(type == key->type && key->value_offset == w.at);
        walk_value(&w, type, 0);
        assert_true(key->nbytes == w.at - begin);
        for (size_t j = 0; j < i; j++) assert_true(strcmp(header->keys[j].name, key->name) != 0);
    }
    assert_true(w.at == 24 + header->kv_nbytes);
    double end = 0.0;
    for (size_t i = 0; i < n_tensors; i++) {
        walk_tensor(&w, header, i, &end);
        for (size_t j = 0; j < i; j++) assert_true(strcmp(header->tensors[j].name, header->tensors[i].name) != 0);
    }
    assert_true(header->data_offset % header->alignment == 0 && header->data_offset >= w.at && header->data_offset - w.at < header->alignment);
    if (header->is_unpadded) assert_true((double)n < (double)header->data_offset + end);
    else assert_true((double)n == (double)header->data_offset + end);
}

/* Parses changed bytes; whatever the verdict, it must hold. True when accepted. */
static bool try_bytes(const uint8_t *data, size_t n)
{
    struct gguf_header header;
    struct err err;
    enum status status = parse_bytes(data, n, &header, &err);
    assert_true((status == OK) == (err.text[0] == '\0'));
    assert_true(status == OK || status == ERR_DATA || status == ERR_UNSUPPORTED);
    if (status == OK) check_accepted(data, n, &header);
    gguf_header_free(&header);
    return status == OK;
}

/* ---- crafted files ---------------------------------------------------------------------------------------------------------------- */

#define DATA "P32 z16 P32" /* of one F32 tensor with 4 weights */
#define ONE "H3,1,0 "
#define KEY "H3,0,1 Kk "
#define ARR "H3,0,1 Kk w9 "
#define ALIGN "H3,0,1 Kgeneral.alignment "
#define TENSOR_A "Ta:0:4:0 "

static const struct {
    const char *what;
    const char *script;
    enum status status;
    const char *part;
} cases[] = {
    /* head */
    { "empty file", "", ERR_DATA, "the file ends at byte 0, inside the magic" },
    { "three bytes", "rGGU", ERR_DATA, "inside the magic" },
    { "magic only", "rGGUF", ERR_DATA, "inside the version" },
    { "bad magic", "rGGUX w3 q0 q0", ERR_DATA, "magic bytes" },
    { "magic the other way", "rFUGG w3 q0 q0", ERR_DATA, "magic bytes" },
    { "cut in the version", "rGGUF%03%00%00", ERR_DATA, "inside the version" },
    { "cut behind the version", "rGGUF w3", ERR_DATA, "inside the number of tensors" },
    { "cut in the counts", "rGGUF w3 q0 w0", ERR_DATA, "inside the number of keys" },
    { "version 0", "H0,0,0", ERR_DATA, "version is 0" },
    { "version 1", "rGGUF w1 w0 w0 q0", ERR_UNSUPPORTED, "version 1" },
    { "version 2", "H2,0,0", OK, NULL },
    { "version 3", "H3,0,0", OK, NULL },
    { "version 4", "H4,0,0", ERR_UNSUPPORTED, "version 4, newer than 3" },
    { "version 2^32-1", "H0xffffffff,0,0", ERR_UNSUPPORTED, "newer than 3" },
    { "version 3, big-endian", "H0x03000000,0,0", ERR_UNSUPPORTED, "big-endian" },
    { "version 2, big-endian", "H0x02000000,0,0", ERR_UNSUPPORTED, "big-endian" },
    { "version 65536", "H0x10000,0,0", ERR_UNSUPPORTED, "big-endian" },
    { "-1 tensors", "H3,-1,0", ERR_DATA, "claims 18446744073709551615 tensors" },
    { "-1 keys", "H3,0,-1", ERR_DATA, "claims 18446744073709551615 keys" },
    { "2^40 tensors", "H3,0x10000000000,0 z4096", ERR_DATA, "claims 1099511627776 tensors" },
    { "2^40 keys", "H3,0,0x10000000000 z4096", ERR_DATA, "claims 1099511627776 keys" },
    { "2^63 tensors", "H3,0x8000000000000000,0 z64", ERR_DATA, "tensors, more than" },
    { "tensors whose table wraps", "H3,0x1000000000000001,0 z64", ERR_DATA, "tensors, more than" },
    { "keys whose table wraps", "H3,0,0x0aaaaaaaaaaaaaab z64", ERR_DATA, "keys, more than" },
    { "1 tensor, no bytes", "H3,1,0", ERR_DATA, "claims 1 tensors" },
    { "1 key, no bytes", "H3,0,1", ERR_DATA, "claims 1 keys" },
    { "2 keys, bytes of 1", "H3,0,2 Kk w0 b1", ERR_DATA, "claims 2 keys" },
    { "1 key too few", "H3,0,0 Kk w0 b1", ERR_DATA, "bytes follow the last tensor" },
    { "1 key too many", "H3,0,2 Kk w8 Laaaa", ERR_DATA, "claims" },
    { "no tensors, padded", "H3,0,0 P32", OK, NULL },
    { "no tensors, padding cut", "H3,0,0 z7", ERR_DATA, "inside the padding" },
    { "no tensors, 1 byte behind", "H3,0,0 P32 b0", ERR_DATA, "1 bytes follow" },
    { "no tensors, 1 key", "H3,0,1 Kgeneral.architecture w8 sllama", OK, NULL },
    /* keys */
    { "key size -1", "H3,0,1 q-1 z64", ERR_DATA, "inside its name" },
    { "key size 2^63", "H3,0,1 q0x8000000000000000 z64", ERR_DATA, "inside its name" },
    { "key size 2^48-1", "H3,0,1 q0xffffffffffff z64", ERR_DATA, "inside its name" },
    { "key size one over the rest", "H3,0,1 q12 raaaabbbbccc", ERR_DATA, "inside its name" },
    { "empty key", "H3,0,1 q0 w0 b0 z8", ERR_DATA, "its name is empty" },
    { "key of 65535 bytes", "H3,0,1 L65535 w0 b1", OK, NULL },
    { "key of 65536 bytes", "H3,0,1 L65536 w0 b1", ERR_DATA, "65536 bytes, more than the limit of 65535" },
    { "key of 70000 bytes", "H3,0,1 L70000 w0 b1", ERR_DATA, "70000 bytes, more than the limit of 65535" },
    { "key with NUL", "H3,0,1 Ka%00b w0 b1", ERR_DATA, "control character" },
    { "key of one NUL", "H3,0,1 K%00 w0 b1", ERR_DATA, "control character" },
    { "key with a bad byte", "H3,0,1 Ka%ff w0 b1", ERR_DATA, "not UTF-8" },
    { "key with a cut sequence", "H3,0,1 Ka%e2%82 w0 b1", ERR_DATA, "not UTF-8" },
    { "key with an overlong sequence", "H3,0,1 Ka%c0%80 w0 b1", ERR_DATA, "not UTF-8" },
    { "key with a surrogate", "H3,0,1 Ka%ed%a0%80 w0 b1", ERR_DATA, "not UTF-8" },
    { "key in capitals", "H3,0,1 KGENERAL.X w0 b1", OK, NULL },
    { "key with letters beyond ASCII", "H3,0,1 K%c3%bc.x w0 b1", OK, NULL },
    { "key twice", "H3,0,2 Kk w0 b1 Kk w0 b1", ERR_DATA, "key 'k' is there twice" },
    { "key twice, one between", "H3,0,3 Kk w0 b1 Kl w4 w7 Kk w8 sx", ERR_DATA, "key 'k' is there twice" },
    { "keys that differ in case", "H3,0,2 Kk w0 b1 KK w0 b1", OK, NULL },
    { "type 13", KEY "w13 q0", ERR_UNSUPPORTED, "its type is 13, which is unknown" },
    { "type 2^32-1", KEY "w0xffffffff q0", ERR_UNSUPPORTED, "its type is 4294967295" },
    { "type 2^31", KEY "w0x80000000 q0", ERR_UNSUPPORTED, "which is unknown" },
    { "type cut", "H3,0,1 Kkey h4 z1", ERR_DATA, "inside its type" },
    { "u8", KEY "w0 b255", OK, NULL },
    { "i8", KEY "w1 b255", OK, NULL },
    { "u16", KEY "w2 h65535", OK, NULL },
    { "i16", KEY "w3 h65535", OK, NULL },
    { "u32", KEY "w4 w-1", OK, NULL },
    { "i32", KEY "w5 w-1", OK, NULL },
    { "f32", KEY "w6 w0x7fc00000", OK, NULL },
    { "u64", KEY "w10 q-1", OK, NULL },
    { "i64", KEY "w11 q-1", OK, NULL },
    { "f64", KEY "w12 q-1", OK, NULL },
    { "u16 cut", KEY "w2 b1", ERR_DATA, "inside a value: 2 bytes wanted" },
    { "u32 cut", KEY "w4 h1 b0", ERR_DATA, "inside a value: 4 bytes wanted" },
    { "f64 cut", KEY "w12 w1 h1 b0", ERR_DATA, "inside a value: 8 bytes wanted" },
    { "bool 0", KEY "w7 b0", OK, NULL },
    { "bool 1", KEY "w7 b1", OK, NULL },
    { "bool 2", KEY "w7 b2", ERR_DATA, "a bool is 2" },
    { "bool 255", KEY "w7 b255", ERR_DATA, "a bool is 255" },
    { "string", KEY "w8 sabc", OK, NULL },
    { "empty string", KEY "w8 s", OK, NULL },
    { "string with NUL", KEY "w8 sa%00b", OK, NULL },
    { "string beyond ASCII", KEY "w8 s%e2%82%ac%f0%9f%98%80", OK, NULL },
    { "string with a bad byte", KEY "w8 sabc%80def", ERR_DATA, "a string is not UTF-8 (at byte 48 of the file)" },
    { "string with a cut sequence", KEY "w8 sabc%f0%9f%98", ERR_DATA, "not UTF-8" },
    { "string with a surrogate", KEY "w8 s%ed%bf%bf", ERR_DATA, "not UTF-8" },
    { "string size -1", KEY "w8 q-1 rabcd", ERR_DATA, "inside a string" },
    { "string size 2^63", KEY "w8 q0x8000000000000000 rabcd", ERR_DATA, "inside a string" },
    { "string size 2^31", KEY "w8 q0x80000000 rabcd", ERR_DATA, "inside a string" },
    { "string one over the rest", KEY "w8 q5 rabcd", ERR_DATA, "inside a string: 5 bytes wanted" },
    { "string length cut", KEY "w8 w5", ERR_DATA, "inside a value" },
    /* arrays */
    { "array of u8", ARR "w0 q3 b1 b2 b3", OK, NULL },
    { "array of f64", ARR "w12 q2 q1 q2", OK, NULL },
    { "empty array of u8", ARR "w0 q0", OK, NULL },
    { "empty array of strings", ARR "w8 q0", OK, NULL },
    { "empty array of arrays", ARR "w9 q0", OK, NULL },
    { "array of strings", ARR "w8 q3 sa s sccc", OK, NULL },
    { "array of bools", ARR "w7 q4 b0 b1 b1 b0", OK, NULL },
    { "array of type 13", ARR "w13 q0", ERR_UNSUPPORTED, "an array's type is 13" },
    { "array of type 2^32-1", ARR "w-1 q0", ERR_UNSUPPORTED, "an array's type is 4294967295" },
    { "array head cut", ARR "w0 w3", ERR_DATA, "inside an array's count" },
    { "array type cut", "H3,0,1 Kkey w9 h0", ERR_DATA, "inside an array's type" },
    { "array count -1", ARR "w0 q-1 z64", ERR_DATA, "claims 18446744073709551615 items of type u8" },
    { "array count 2^32-1", ARR "w8 q0xffffffff z64", ERR_DATA, "claims 4294967295 items of type string" },
    { "array one over the rest", ARR "w0 q4 b1 b2 b3", ERR_DATA, "claims 4 items" },
    { "array whose size wraps to 0 (u16)", ARR "w2 q0x8000000000000000 z64", ERR_DATA, "items of type u16" },
    { "array whose size wraps to 0 (u32)", ARR "w4 q0x4000000000000000 z64", ERR_DATA, "items of type u32" },
    { "array whose size wraps to 8 (u64)", ARR "w10 q0x2000000000000001 z64", ERR_DATA, "items of type u64" },
    { "strings whose size wraps", ARR "w8 q0x2000000000000000 z64", ERR_DATA, "items of type string" },
    { "strings whose table wraps", ARR "w8 q0x1000000000000001 z64", ERR_DATA, "items of type string" },
    { "bools whose count is 2^63", ARR "w7 q0x8000000000000000 z64", ERR_DATA, "items of type bool" },
    { "array of bools with 2", ARR "w7 q4 b0 b1 b2 b0", ERR_DATA, "a bool is 2" },
    { "array of strings, one bad", ARR "w8 q3 sa s%ff sc", ERR_DATA, "not UTF-8" },
    { "array of strings, one too many", ARR "w8 q3 saaaaaaaa sb", ERR_DATA, "inside a string's length" },
    { "array of strings, length -1", ARR "w8 q2 sa q-1 z32", ERR_DATA, "inside a string" },
    { "array of strings, length 2^63", ARR "w8 q2 sa q0x8000000000000000 z32", ERR_DATA, "inside a string" },
    { "arrays, depth 2", ARR "w9 q2 w0 q1 b1 w8 q1 sx", OK, NULL },
    { "arrays, depth 3", ARR "w9 q1 w9 q2 w0 q0 w4 q1 w9", OK, NULL },
    { "arrays, depth 4", ARR "w9 q2 w9 q1 w9 q1 w0 q2 b1 b2 w9 q1 w9 q0", OK, NULL },
    { "arrays, depth 4, of several sizes", ARR "w9 q2 w9 q2 w9 q1 w0 q2 b1 b2 w1 q0 w7 q1 b1", OK, NULL },
    { "arrays, depth 5", ARR "w9 q1 w9 q1 w9 q1 w9 q1 w0 q1 b1", ERR_UNSUPPORTED, "deeper than 4" },
    { "arrays of arrays, count -1", ARR "w9 q-1 z64", ERR_DATA, "arrays, more than the 64 bytes" },
    { "arrays of arrays, count 2^61", ARR "w9 q0x2000000000000000 z64", ERR_DATA, "arrays, more than" },
    { "inner array, count -1", ARR "w9 q1 w9 q-1 z64", ERR_DATA, "arrays, more than" },
    { "inner array, one over the rest", ARR "w9 q1 w0 q2 b1", ERR_DATA, "claims 2 items" },
    { "inner array, bad bool", ARR "w9 q2 w0 q0 w7 q1 b7", ERR_DATA, "a bool is 7" },
    { "inner array, bad type", ARR "w9 q1 w77 q0", ERR_UNSUPPORTED, "an array's type is 77" },
    { "inner array missing", ARR "w9 q2 w0 q12 z12", ERR_DATA, "inside an array's type" },
    /* alignment */
    { "alignment 1", ALIGN "w4 w1", OK, NULL },
    { "alignment 2", ALIGN "w4 w2 P2", OK, NULL },
    { "alignment 4", ALIGN "w4 w4 P4", OK, NULL },
    { "alignment 64", ALIGN "w4 w64 P64", OK, NULL },
    { "alignment 65536", ALIGN "w4 w65536 P65536", OK, NULL },
    { "alignment 131072", ALIGN "w4 w131072 P131072", ERR_UNSUPPORTED, "131072 is over the limit of 65536" },
    { "alignment 2^31", ALIGN "w4 w0x80000000 z64", ERR_UNSUPPORTED, "over the limit" },
    { "alignment 2^32-1", ALIGN "w4 w-1 z64", ERR_DATA, "no power of two" },
    { "alignment 0", ALIGN "w4 w0 z64", ERR_DATA, "0 is no power of two" },
    { "alignment 13", ALIGN "w4 w13 z64", ERR_DATA, "13 is no power of two" },
    { "alignment 24", ALIGN "w4 w24 z64", ERR_DATA, "24 is no power of two" },
    { "alignment u64", ALIGN "w10 q32 P32", ERR_DATA, "its type is u64, not u32" },
    { "alignment i32", ALIGN "w5 w32 P32", ERR_DATA, "its type is i32, not u32" },
    { "alignment u16", ALIGN "w2 h32 P32", ERR_DATA, "its type is u16, not u32" },
    { "alignment string", ALIGN "w8 s32 P32", ERR_DATA, "its type is string, not u32" },
    { "alignment array", ALIGN "w9 w4 q1 w32", ERR_DATA, "its type is array, not u32" },
    { "alignment f32", ALIGN "w6 w0x42000000", ERR_DATA, "its type is f32, not u32" },
    { "alignment cut", ALIGN "w4 h32", ERR_DATA, "inside its value" },
    { "alignment twice", "H3,0,2 Kgeneral.alignment w4 w32 Kgeneral.alignment w4 w32", ERR_DATA, "is there twice" },
    { "alignment 1 with tensors", "H3,2,1 Kgeneral.alignment w4 w1 Ta:24:3:0 Tb:24:2:3 z5", OK, NULL },
    { "alignment 64 declared, 32 used", "H3,2,1 Kgeneral.alignment w4 w64 " TENSOR_A "Tb:0:4:32 P64 z64", ERR_DATA, "its offset is 32" },
    { "alignment 32 declared, 64 used", "H3,2,1 Kgeneral.alignment w4 w32 " TENSOR_A "Tb:0:4:64 P64 z128", ERR_DATA, "its offset is 64" },
    { "alignment 64 declared, data at 32", "H3,1,1 Kgeneral.alignment w4 w64 Tabcdefgh:0:4:0 P32 z32", ERR_DATA, "truncated" },
    /* tensors */
    { "tensor", ONE TENSOR_A DATA, OK, NULL },
    { "version 2 with a tensor", "H2,1,0 " TENSOR_A DATA, OK, NULL },
    { "name of 63 bytes", ONE "L63 w1 q4 w0 q0 " DATA, OK, NULL },
    { "name of 64 bytes", ONE "L64 w1 q4 w0 q0 " DATA, OK, NULL },
    { "name of 65 bytes", ONE "L65 w1 q4 w0 q0 " DATA, ERR_DATA, "65 bytes, more than the limit of 64" },
    { "empty name", ONE "q0 w1 q4 w0 q0 " DATA, ERR_DATA, "its name is empty" },
    { "name with NUL", ONE "Ta%00b:0:4:0 " DATA, ERR_DATA, "control character" },
    { "name with a line end", ONE "Ta%0ab:0:4:0 " DATA, ERR_DATA, "control character" },
    { "name with DEL", ONE "Ta%7f:0:4:0 " DATA, ERR_DATA, "control character" },
    { "name that is no UTF-8", ONE "Ta%c3:0:4:0 " DATA, ERR_DATA, "not UTF-8" },
    { "name size -1", ONE "q-1 z64", ERR_DATA, "inside its name" },
    { "name size 2^62", ONE "q0x4000000000000000 z64", ERR_DATA, "inside its name" },
    { "name twice", "H3,2,0 " TENSOR_A "Ta:0:4:32 P32 z64", ERR_DATA, "it is there twice" },
    { "names equal up to a NUL", "H3,2,0 " TENSOR_A "Ta%00:0:4:32 P32 z64", ERR_DATA, "control character" },
    { "no dims", ONE "Ta:0::0 P32 z4 P32", OK, NULL },
    { "4 dims", ONE "Ta:0:2,1,2,1:0 " DATA, OK, NULL },
    { "5 dims", ONE "Ta:0:1,1,1,1,4:0 " DATA, ERR_UNSUPPORTED, "it has 5 dims" },
    { "2^32-1 dims", ONE "Ka w-1 q4 w0 q0 " DATA, ERR_UNSUPPORTED, "it has 4294967295 dims" },
    { "dims cut", ONE "Kabcdefgh w4 q1 h1 z3", ERR_DATA, "inside its dims" },
    { "type cut", ONE "Kabcdefghijk w1 q1 h0", ERR_DATA, "inside its type" },
    { "offset cut", ONE "Kabcdefghijk w1 q1 w0 w0", ERR_DATA, "inside its offset" },
    { "dim -1", ONE "Ta:0:-1:0 " DATA, ERR_DATA, "is negative or over 2^63-1" },
    { "dim 2^63", ONE "Ta:0:4,0x8000000000000000:0 " DATA, ERR_DATA, "is negative or over 2^63-1" },
    { "zero first dim", ONE "Ta:0:0:0 P32", OK, NULL },
    { "zero first dim, head not padded", ONE "Ta:0:0:0", ERR_DATA, "truncated" },
    { "zero first dim of two", ONE "Ta:0:0,4:0 P32", OK, NULL },
    { "zero last dim", ONE "Ta:0:4,0:0 P32", OK, NULL },
    { "zero dims in the middle", "H3,3,0 " TENSOR_A "Tz:2:0,5,6,7:32 Tb:0:4:32 P32 z64", OK, NULL },
    { "2^32 x 2^32", ONE "Ta:0:0x100000000,0x100000000:0 " DATA, ERR_DATA, "product of its dims overflows" },
    { "2^33 x 2^33", ONE "Ta:0:0x200000000,0x200000000:0 " DATA, ERR_DATA, "product of its dims overflows" },
    { "(2^63-1) x 2", ONE "Ta:0:0x7fffffffffffffff,2:0 " DATA, ERR_DATA, "product of its dims overflows" },
    { "2^33 x 2^31 x 2", ONE "Ta:0:0x200000000,0x80000000,2:0 " DATA, ERR_DATA, "product of its dims overflows" },
    { "2^32 x 2^31", ONE "Ta:24:0x100000000,0x80000000:0 " DATA, ERR_DATA, "product of its dims overflows" },
    { "product that wraps to 4", ONE "Ta:24:0x4000000000000001,4:0 " DATA, ERR_DATA, "product of its dims overflows" },
    { "four dims of 2^40", ONE "Ta:0:0x10000000000,0x10000000000,0x10000000000,0x10000000000:0 " DATA, ERR_DATA, "product of its dims overflows" },
    { "2^63 x 2 x 0", ONE "Ta:0:0x7fffffffffffffff,2,0:0 P32", ERR_DATA, "product of its dims overflows" },
    { "0 x 2^62 x 4", ONE "Ta:0:0,0x4000000000000000,4:0 P32", ERR_DATA, "product of its dims overflows" },
    { "F32 whose size wraps to 0", ONE "Ta:0:0x4000000000000000:0 " DATA, ERR_DATA, "its size overflows" },
    { "F64 whose size wraps", ONE "Ta:28:0x2000000000000001:0 " DATA, ERR_DATA, "its size overflows" },
    { "Q8_0 whose size wraps", ONE "Ta:8:0x7fffffffffffffe0:0 " DATA, ERR_DATA, "its size overflows" },
    { "Q8_K whose size wraps", ONE "Ta:15:0x7fffffffffffff00:0 " DATA, ERR_DATA, "its size overflows" },
    { "2^64-16 bytes, whose padding wraps", ONE "Ta:0:0x3ffffffffffffffc:0 " DATA, ERR_DATA, "exceeds the file's" },
    { "2^64-4 bytes, whose padding wraps", ONE "Ta:0:0x3fffffffffffffff:0 " DATA, ERR_DATA, "exceeds the file's" },
    { "I8 of 2^63-1 bytes", ONE "Ta:24:0x7fffffffffffffff:0 " DATA, ERR_DATA, "exceeds the file's" },
    { "two of 2^63-64 bytes", "H3,2,0 Ta:24:0x7fffffffffffffc0:0 Tb:24:0x7fffffffffffffc0:0x7fffffffffffffc0 " DATA, ERR_DATA, "exceeds the file's" },
    { "a small one, then 2^64-16", "H3,2,0 " TENSOR_A "Tb:0:0x3ffffffffffffffc:32 P32 z64", ERR_DATA,
      "offset 32 + size 18446744073709551600 exceeds" },
    { "2^60 bytes", ONE "Ta:24:0x1000000000000000:0 " DATA, ERR_DATA, "exceeds the file's" },
    { "100 GiB", ONE "Ta:0:1024,26214400:0 " DATA, ERR_DATA, "exceeds the file's" },
    { "type 4 (removed)", ONE "Ta:4:32:0 P32 z32", ERR_UNSUPPORTED, "unsupported type 4" },
    { "type 5 (removed)", ONE "Ta:5:32:0 P32 z32", ERR_UNSUPPORTED, "unsupported type 5" },
    { "type 31 (removed)", ONE "Ta:31:32:0 P32 z32", ERR_UNSUPPORTED, "unsupported type 31" },
    { "type 33 (removed)", ONE "Ta:33:32:0 P32 z32", ERR_UNSUPPORTED, "unsupported type 33" },
    { "type 36 (removed)", ONE "Ta:36:32:0 P32 z32", ERR_UNSUPPORTED, "unsupported type 36" },
    { "type 38 (removed)", ONE "Ta:38:32:0 P32 z32", ERR_UNSUPPORTED, "unsupported type 38" },
    { "type 43", ONE "Ta:43:32:0 P32 z32", ERR_UNSUPPORTED, "unsupported type 43" },
    { "type 255", ONE "Ta:255:32:0 P32 z32", ERR_UNSUPPORTED, "unsupported type 255" },
    { "type 2^32-1", ONE "Ta:-1:32:0 P32 z32", ERR_UNSUPPORTED, "unsupported type 4294967295" },
    { "Q4_0, a row of 31", ONE "Ta:2:31,32:0 P32 z576", ERR_DATA, "no multiple of the block of Q4_0, 32" },
    { "Q4_0, a row of 16 by 2", ONE "Ta:2:16,2:0 P32 z18 P32", ERR_DATA, "its rows of 16 weights" },
    { "Q4_K, a row of 128", ONE "Ta:12:128:0 P32 z144 P32", ERR_DATA, "no multiple of the block of Q4_K, 256" },
    { "Q8_0 without dims", ONE "Ta:8::0 P32 z34 P32", ERR_DATA, "no multiple of the block" },
    { "Q4_0, a row of 0", ONE "Ta:2:0,3:0 P32", OK, NULL },
    { "Q4_0", ONE "Ta:2:64,3:0 P32 z108 P32", OK, NULL },
    { "Q4_0, one byte short", ONE "Ta:2:64,3:0 P32 z107", ERR_DATA, "truncated" },
    { "I2_S of another program", ONE "Ta:36:128:0 P32 z32", ERR_UNSUPPORTED, "unsupported type 36" },
    /* offsets */
    { "offset -1", ONE "Ta:0:4:-1 " DATA, ERR_DATA, "its offset is 18446744073709551615" },
    { "offset 1", ONE "Ta:0:4:1 " DATA, ERR_DATA, "its offset is 1" },
    { "offset 32 of the first", ONE "Ta:0:4:32 P32 z64", ERR_DATA, "its offset is 32, the tensors before it end at 0" },
    { "offset 2^63", ONE "Ta:0:4:0x8000000000000000 " DATA, ERR_DATA, "its offset is" },
    { "two tensors", "H3,2,0 " TENSOR_A "Tb:0:4:32 P32 z64", OK, NULL },
    { "offset without padding", "H3,2,0 " TENSOR_A "Tb:0:4:16 P32 z32", ERR_DATA, "its offset is 16, the tensors before it end at 32" },
    { "a gap", "H3,2,0 " TENSOR_A "Tb:0:4:64 P32 z96", ERR_DATA, "a gap" },
    { "an overlap", "H3,2,0 " TENSOR_A "Tb:0:4:0 P32 z32", ERR_DATA, "an overlap" },
    { "another order", "H3,2,0 Ta:0:4:32 Tb:0:4:0 P32 z64", ERR_DATA, "another order" },
    { "last offset before the first", "H3,3,0 " TENSOR_A "Tb:0:4:32 Tc:0:4:32 P32 z96", ERR_DATA, "tensor 'c'" },
    { "empty tensor behind an unpadded end", "H3,2,0 " TENSOR_A "Tb:0:0:32 P32 z16", ERR_DATA, "truncated" },
    /* data */
    { "no data", ONE TENSOR_A, ERR_DATA, "truncated" },
    { "no data, header padded", ONE TENSOR_A "P32", ERR_DATA, "truncated" },
    { "one byte missing", ONE TENSOR_A "P32 z15", ERR_DATA, "truncated" },
    { "last padding missing", ONE TENSOR_A "P32 z16", OK, NULL },
    { "last padding cut", ONE TENSOR_A "P32 z31", ERR_DATA, "inside the padding" },
    { "middle padding missing", "H3,2,0 " TENSOR_A "Tb:0:4:32 P32 z32", ERR_DATA, "truncated" },
    { "one byte behind", ONE TENSOR_A DATA " b0", ERR_DATA, "1 bytes follow the last tensor" },
    { "32 bytes behind", ONE TENSOR_A DATA " z32", ERR_DATA, "32 bytes follow the last tensor" },
    { "a zip behind", ONE TENSOR_A DATA " rPK%03%04", ERR_DATA, "4 bytes follow" },
    { "one tensor too few", "H3,1,0 " TENSOR_A "Tb:0:4:32 P32 z64", ERR_DATA, "follow the last tensor" },
    { "one tensor too many", "H3,2,0 Tabcdefghijklmnopqrstuvwxyz:0:4:0 " DATA, ERR_DATA, "its name is empty" },
    { "keys and tensors", "H3,2,2 Kgeneral.architecture w8 sllama Kgeneral.alignment w4 w64 " TENSOR_A "Tb:1:2,2:64 P64 z64 z8 P64", OK, NULL },
};

static void crafted_files_get_their_verdict(void **state)
{
    (void)state;
    size_t n_bad = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bytes b = build(cases[i].script);
        struct gguf_header header;
        struct err err;
        expect(cases[i].what, &b, cases[i].status, cases[i].part);
        n_bad += cases[i].status != OK;
        if (cases[i].status == OK) {
            assert_int_equal(parse_bytes(b.data, b.n, &header, &err), OK);
            check_accepted(b.data, b.n, &header);
            gguf_header_free(&header);
        }
        free(b.data);
    }
    printf("%zu crafted files, %zu of them bad\n", sizeof cases / sizeof cases[0], n_bad);
    assert_true(n_bad >= 150);
}

static void every_type_has_its_size(void **state)
{
    (void)state;
    assert_int_equal(gguf_type_count(), N_SIZES);
    for (size_t i = 0; i < N_SIZES; i++) {
        const struct gguf_type *type = gguf_type_find(sizes_by_id[i].id);
        char script[128];
        assert_non_null(type);
        assert_int_equal(type->block, sizes_by_id[i].block);
        assert_int_equal(type->block_nbytes, sizes_by_id[i].nbytes);
        snprintf(script, sizeof script, "H3,1,0 Ta:%u:%u,3:0 P32 z%u P32", type->id, 2 * type->block, 6 * type->block_nbytes);
        struct bytes b = build(script);
        expect(type->name, &b, OK, "");
        struct bytes head = build("H3,1,0 Ta:0:1,1:0 P32");
        b.n = head.n + 6 * type->block_nbytes - 1;
        free(head.data);
        expect(type->name, &b, ERR_DATA, "truncated");
        free(b.data);
    }
}

/* Sequences across the ends of the reader's windows, good and bad. */
static void strings_over_windows(void **state)
{
    (void)state;
    for (size_t shift = 65520; shift < 65545; shift++)
        for (unsigned bad = 0; bad < 2; bad++) {
            struct bytes b = build("H3,0,2 Kk w8");
            add_uint(&b, shift + 8, 8);
            add_fill(&b, 'a', shift);
            add(&b, bad ? "\xf0\x9f\x98\x80\xf0\x9f\x98\x20" : "\xf0\x9f\x98\x80\xe2\x82\xac!", 8);
            struct bytes tail = build("Kl w9 w8 q2 s%c3%bc sx");
            add(&b, tail.data, tail.n);
            free(tail.data);
            expect("a string over a window's end", &b, bad ? ERR_DATA : OK, "not UTF-8");
            free(b.data);
        }
}

/* ---- cuts and sweeps -------------------------------------------------------------------------------------------------------------- */

static const char *const seeds[] = {
    "H3,3,14 Kgeneral.architecture w8 sllama Ku8 w0 b7 Ki8 w1 b250 Ku16 w2 h9 Ki16 w3 h9 Ki32 w5 w9 Kf32 w6 w0x3f800000 Kt w7 b1 Kx w9 w8 q3 sab s "
    "s%e2%82%ac "
    "Knest w9 w9 q2 w9 q1 w0 q2 b1 b2 w7 q2 b0 b1 Ku64 w10 q1 Ki64 w11 q-1 Kf64 w12 q0 Kgeneral.alignment w4 w32 "
    "Ttoken_embd.weight:1:8,4:0 Tblk.0.q:2:64,3:64 Tn:0:5:192 P32 z64 z108 P32 z20 P32",
    "H2,2,1 Kgeneral.alignment w4 w8 Ta:24:3,1,2,1:0 Tb:30::8 P8 z6 P8 z2 P8",
    "H3,0,3 Kgeneral.architecture w8 sllama Ktokenizer.ggml.tokens w9 w8 q4 sa sb sc sd Ktokenizer.ggml.scores w9 w6 q4 w0 w0 w0 w0",
    "H3,4,0 Ta:0:0:0 Tb:12:256:0 Tc:8:32,2:160 Td:26:1:256 P32 z144 P32 z68 P32 z4 P32",
};

#define N_SEEDS (sizeof seeds / sizeof seeds[0])

/* A value of a random type, arrays to depth. */
static void add_random_value(struct bytes *b, uint64_t *random, uint64_t type, unsigned depth)
{
    static const unsigned sizes[] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    if (type == 8) {
        uint64_t n = test_random(random) % 20;
        add_uint(b, n, 8);
        for (; n > 0; n--) add_uint(b, 1 + test_random(random) % 127, 1);
    } else if (type == 9) {
        uint64_t inner = test_random(random) % 13, n = test_random(random) % 6;
        if (inner == 9 && depth == 4) inner = 8;
        add_uint(b, inner, 4);
        add_uint(b, n, 8);
        for (; n > 0; n--) add_random_value(b, random, inner, depth + 1);
    } else {
        add_uint(b, type == 7 ? test_random(random) % 2 : test_random(random), sizes[type]);
    }
}

/* A sound file of random keys and tensors. */
static struct bytes random_file(uint64_t seed, unsigned n_keys, unsigned n_tensors)
{
    struct bytes b = { 0 };
    uint64_t random = seed * 2654435761u + 1, offset = 0;
    uint64_t alignment = (uint64_t)1 << test_random(&random) % 9;
    char text[128];
    add(&b, "GGUF", 4);
    add_uint(&b, 2 + seed % 2, 4);
    add_uint(&b, n_tensors, 8);
    add_uint(&b, n_keys + 1, 8);
    for (unsigned i = 0; i < n_keys; i++) {
        uint64_t type = test_random(&random) % 13;
        snprintf(text, sizeof text, "some.key_%u", i);
        add_string(&b, text, text + strlen(text));
        add_uint(&b, type, 4);
        add_random_value(&b, &random, type, 1);
    }
    snprintf(text, sizeof text, "general.alignment");
    add_string(&b, text, text + strlen(text));
    add_uint(&b, 4, 4);
    add_uint(&b, alignment, 4);
    for (unsigned i = 0; i < n_tensors; i++) {
        const struct gguf_type *type = gguf_type_at(test_random(&random) % gguf_type_count());
        uint64_t blocks = test_random(&random) % 3, rows = test_random(&random) % 4;
        snprintf(text, sizeof text, "blk.%u.t:%u:%u,%u:%llu", i, type->id, (unsigned)blocks * type->block, (unsigned)rows,
                 (unsigned long long)offset);
        add_tensor(&b, text, text + strlen(text));
        offset = (offset + blocks * rows * type->block_nbytes + alignment - 1) / alignment * alignment;
    }
    while (b.n % alignment) add_fill(&b, 0, 1);
    add_fill(&b, 7, offset);
    return b;
}

/* Cuts the file everywhere; only the end of the last tensor may pass. */
static void cut_everywhere(struct bytes b, size_t *n_cuts, size_t *n_accepted)
{
    struct gguf_header header;
    struct err err;
    if (parse_bytes(b.data, b.n, &header, &err) != OK) fail_msg("%s", err.text);
    check_accepted(b.data, b.n, &header);
    const struct tensor *last = header.n_tensors ? &header.tensors[header.n_tensors - 1] : NULL;
    size_t bare = last ? (size_t)(last->offset + header.entries[header.n_tensors - 1].nbytes) : 24 + (size_t)header.kv_nbytes;
    gguf_header_free(&header);
    for (size_t n = 0; n < b.n; n++) {
        bool accepted = try_bytes(b.data, n);
        if (accepted != (n == bare)) fail_msg("cut to %zu of %zu: %s", n, b.n, accepted ? "accepted" : "refused");
        *n_accepted += accepted;
    }
    *n_cuts += b.n;
    free(b.data);
}

static void every_cut_is_refused(void **state)
{
    (void)state;
    size_t n_cuts = 0, n_accepted = 0;
    for (size_t i = 0; i < N_SEEDS; i++) cut_everywhere(build(seeds[i]), &n_cuts, &n_accepted);
    for (uint64_t i = 0; i < 20; i++) cut_everywhere(random_file(i, 20, 6), &n_cuts, &n_accepted);
    printf("%zu cuts of %zu files, %zu at the end of the last tensor, before its padding\n", n_cuts, N_SEEDS + 20, n_accepted);
}

static void random_files_are_read_as_written(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 200; i++) {
        struct bytes b = random_file(i, i % 2 ? 256 : 100, i % 2 ? 256 : 0);
        struct gguf_header header;
        struct err err;
        if (parse_bytes(b.data, b.n, &header, &err) != OK) fail_msg("file %u: %s", (unsigned)i, err.text);
        check_accepted(b.data, b.n, &header);
        gguf_header_free(&header);
        free(b.data);
    }
}

static void every_byte_of_the_header_swept(void **state)
{
    (void)state;
    size_t n_tried = 0, n_accepted = 0;
    for (size_t i = 0; i < N_SEEDS; i++) {
        struct bytes b = build(seeds[i]);
        for (size_t at = 0; at < b.n; at++) {
            uint8_t kept = b.data[at];
            for (unsigned v = 0; v < 256; v++, n_tried++) {
                b.data[at] = (uint8_t)v;
                n_accepted += try_bytes(b.data, b.n);
            }
            b.data[at] = kept;
        }
        free(b.data);
    }
    printf("%zu inputs, %zu accepted and walked again\n", n_tried, n_accepted);
}

static void numbers_at_their_boundaries(void **state)
{
    (void)state;
    size_t n_tried = 0;
    for (size_t i = 0; i < N_SEEDS; i++) {
        struct bytes b = build(seeds[i]);
        const uint64_t values[] = { 0,
                                    1,
                                    2,
                                    127,
                                    128,
                                    255,
                                    256,
                                    0x7fff,
                                    0x8000,
                                    0xffff,
                                    0x7fffffff,
                                    0x80000000,
                                    0xffffffff,
                                    0x100000000,
                                    0x1fffffffffffff,
                                    0x20000000000000,
                                    INT64_MAX - 1,
                                    INT64_MAX,
                                    (uint64_t)INT64_MAX + 1,
                                    UINT64_MAX - 31,
                                    UINT64_MAX - 1,
                                    UINT64_MAX,
                                    b.n - 1,
                                    b.n,
                                    b.n + 1,
                                    UINT64_MAX / 4 + 1 };
        for (size_t at = 0; at < b.n; at++)
            for (unsigned width = 1; width <= 8; width *= 2)
                for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
                    uint8_t kept[8];
                    if (at + width > b.n || (width < 8 && values[v] >> (8 * width))) continue;
                    memcpy(kept, b.data + at, width);
                    for (unsigned k = 0; k < width; k++) b.data[at + k] = (uint8_t)(values[v] >> (8 * k));
                    try_bytes(b.data, b.n);
                    memcpy(b.data + at, kept, width);
                    n_tried++;
                }
        free(b.data);
    }
    printf("%zu inputs\n", n_tried);
}

static void random_changes(void **state)
{
    (void)state;
    uint64_t random = 11;
    size_t n_accepted = 0;
    for (size_t i = 0; i < 400000; i++) {
        static struct bytes b;
        if (i % 100000 == 0) {
            free(b.data);
            b = build(seeds[i / 100000 % N_SEEDS]);
        }
        uint8_t kept[8];
        size_t places[8], n = 1 + test_random(&random) % 8;
        for (size_t k = 0; k < n; k++) {
            places[k] = test_random(&random) % b.n;
            kept[k] = b.data[places[k]];
            b.data[places[k]] =
                test_random(&random) % 2 ? (uint8_t)(test_random(&random) & 255) : (uint8_t)(b.data[places[k]] ^ (1u << test_random(&random) % 8));
        }
        n_accepted += try_bytes(b.data, b.n);
        for (size_t k = n; k > 0; k--) b.data[places[k - 1]] = kept[k - 1];
        if (i == 399999) free(b.data);
    }
    printf("400000 inputs, %zu accepted and walked again\n", n_accepted);
}

/* ---- big and hostile -------------------------------------------------------------------------------------------------------------- */

static void many_keys_and_tensors_open_quickly(void **state)
{
    (void)state;
    const unsigned n = 100000;
    struct bytes b = { 0 };
    char text[64];
    add(&b, "GGUF", 4);
    add_uint(&b, 3, 4);
    add_uint(&b, n, 8);
    add_uint(&b, n, 8);
    for (unsigned i = 0; i < n; i++) {
        snprintf(text, sizeof text, "llama.key.number.%u", i);
        add_string(&b, text, text + strlen(text));
        add_uint(&b, 4, 4);
        add_uint(&b, i, 4);
    }
    for (unsigned i = 0; i < n; i++) {
        snprintf(text, sizeof text, "blk.%u.weight:0:2,2:%u", i, 32 * i);
        add_tensor(&b, text, text + strlen(text));
    }
    while (b.n % 32) add_fill(&b, 0, 1);
    add_fill(&b, 0, 32 * n);
    const char *path = temp_path(dir, "x.gguf");
    write_file(path, b.data, b.n);
    free(b.data);
    struct container *container;
    struct err err;
    double begin = seconds();
    assert_ok(open_path(&io_system, path, &container, &err));
    double taken = seconds() - begin;
    printf("%u keys and %u tensors: %.3f s\n", n, n, taken);
    assert_true(taken < 5.0);
    uint32_t value = 0;
    bool found = false;
    assert_ok(gguf_get_u32(container, "llama.key.number.77777", &value, &found, &err));
    assert_true(found && value == 77777);
    assert_int_equal(container_find(container, "blk.99999.weight"), 99999);
    container_close(container);
    remove(path);
}

static void a_vocabulary_is_not_kept(void **state)
{
    (void)state;
    const unsigned n = 300000;
    struct bytes b = build("H3,0,2 Ktokenizer.ggml.tokens w9 w8");
    char text[64];
    add_uint(&b, n, 8);
    for (unsigned i = 0; i < n; i++) {
        snprintf(text, sizeof text, "\xc4\xa0token%u", i);
        add_uint(&b, strlen(text), 8);
        add(&b, text, strlen(text));
    }
    struct bytes tail = build("Kgeneral.name w8 sx");
    add(&b, tail.data, tail.n);
    free(tail.data);
    struct gguf_header header;
    struct err err;
    double begin = seconds();
    assert_int_equal(parse_bytes(b.data, b.n, &header, &err), OK);
    double taken = seconds() - begin;
    printf("%u tokens, %zu bytes: %.3f s\n", n, b.n, taken);
    assert_true(taken < 2.0);
    assert_int_equal(header.keys[0].count, n);
    assert_int_equal(header.keys[0].array_type, GGUF_STRING);
    assert_int_equal(header.keys[0].nbytes + header.keys[1].nbytes, header.kv_nbytes);
    gguf_header_free(&header);
    free(b.data);
}

/* A script, then a sparse file of nbytes. */
static void expect_sparse(const char *script, uint64_t nbytes, enum status wanted, const char *part)
{
    struct bytes b = build(script);
    const char *path = temp_path(dir, "sparse.gguf");
    write_file(path, b.data, b.n);
    free(b.data);
    if (truncate(path, (off_t)nbytes) != 0) {
        print_message("no sparse files here\n");
        return;
    }
    struct container *container;
    struct err err;
    double begin = seconds();
    enum status status = open_path(&io_system, path, &container, &err);
    double taken = seconds() - begin;
    if (status != wanted || (wanted != OK && !strstr(err.text, part))) fail_msg("%s: %d, %s", script, (int)status, err.text);
    if (taken > 0.2) printf("%s: %.2f s\n", script, taken);
    if (taken > 10.0) fail_msg("%s: %.1f s", script, taken);
    container_close(container);
    remove(path);
}

static void hostile_claims_end_quickly(void **state)
{
    (void)state;
    const uint64_t tib = (uint64_t)1 << 40;
    expect_sparse("H3,0x7fffffff,0", tib, ERR_DATA, "more than the");
    expect_sparse("H3,0x200000,0", tib, ERR_UNSUPPORTED, "more than the limit of 1048576");
    expect_sparse("H3,0,0x200000", tib, ERR_UNSUPPORTED, "more than the limit of 1048576");
    expect_sparse("H3,0x100000,0x100000", tib, ERR_DATA, "its name is empty");
    expect_sparse(ARR "w8 q0x1000000", tib, ERR_DATA, "follow the last tensor");
    expect_sparse(ARR "w7 q0x8000000", tib, ERR_DATA, "follow the last tensor");
    expect_sparse(ARR "w0 q0x8000000000", tib, ERR_UNSUPPORTED, "the header is over the limit of 268435456 bytes");
    expect_sparse(ARR "w0 q0x18000000000", tib, ERR_DATA, "more than the");
    expect_sparse(ARR "w9 q0x1000000", tib, ERR_DATA, "follow the last tensor");
    expect_sparse(KEY "w8 q67108864", 67108864 + 45, OK, "");
    expect_sparse(KEY "w8 q67108865", 67108865 + 45, ERR_UNSUPPORTED, "a string of 67108865 bytes is over the limit");
    expect_sparse("H3,0,2 Ka w9 w0 q0xffffe00 Kb w9 w0 q0xffff00", tib, ERR_DATA, "its name is empty");
    expect_sparse("H3,1,0 Ta:24:0x10000000000:0 P32", tib + 64, OK, "");
    expect_sparse("H3,1,0 Ta:24:0x10000000001:0 P32", tib + 64, ERR_DATA, "truncated");
}

/* ---- keys and tensors as the container shows them ---------------------------------------------------------------------------------- */

static void keys_are_found_and_read(void **state)
{
    (void)state;
    struct bytes b = build(
        "H3,0,9 Kgeneral.architecture w8 sllama Ka w2 h515 Kb w10 q77 Kc w5 w-1 Kd w10 q0x100000000 Ke w6 w0 Kf w8 sa%00b Kg w9 w4 q1 w5 Kh w1 b5");
    const char *path = temp_path(dir, "x.gguf");
    write_file(path, b.data, b.n);
    struct container *container;
    struct err err;
    uint32_t value = 99;
    bool found = true;
    char *text = NULL;
    size_t n = 0;
    assert_ok(open_path(&io_system, path, &container, &err));
    assert_true(gguf_is(container));
    const struct gguf_header *header = gguf_header_of(container, 0);
    assert_ok(gguf_get_u32(container, "a", &value, &found, &err));
    assert_true(found && value == 515);
    assert_ok(gguf_get_u32(container, "b", &value, &found, &err));
    assert_true(found && value == 77);
    assert_ok(gguf_get_u32(container, "h", &value, &found, &err));
    assert_true(found && value == 5);
    assert_ok(gguf_get_u32(container, "missing", &value, &found, &err));
    assert_true(!found && value == 5);
    assert_refused(gguf_get_u32(container, "c", &value, &found, &err), ERR_DATA, "negative");
    assert_refused(gguf_get_u32(container, "d", &value, &found, &err), ERR_DATA, "over 2^32-1");
    assert_refused(gguf_get_u32(container, "e", &value, &found, &err), ERR_DATA, "its type is f32");
    assert_ok(gguf_get_u32(container, "g", &value, &found, &err)); /* of an array the first */
    assert_true(found && value == 5);
    assert_ok(gguf_get_string(container, "general.architecture", 64, &text, &n, &err));
    assert_string_equal(text, "llama");
    free(text);
    assert_ok(gguf_get_string(container, "f", 64, &text, &n, &err));
    assert_int_equal(n, 3);
    assert_memory_equal(text, "a\0b", 4);
    free(text);
    assert_ok(gguf_get_string(container, "missing", 64, &text, &n, &err));
    assert_null(text);
    assert_refused(gguf_get_string(container, "a", 64, &text, &n, &err), ERR_DATA, "its type is u16");
    assert_refused(gguf_get_string(container, "general.architecture", 4, &text, &n, &err), ERR_UNSUPPORTED, "more than the limit of 4");
    const struct gguf_key *key = gguf_find_key(header, "g");
    assert_non_null(key);
    assert_true(key->type == GGUF_ARRAY && key->array_type == GGUF_U32 && key->count == 1 && key->nbytes == 8 + 1 + 4 + 4 + 8 + 4);
    uint8_t *raw = malloc((size_t)header->kv_nbytes);
    assert_non_null(raw);
    assert_ok(gguf_read_kv(container, 0, (size_t)header->kv_nbytes, raw, &err));
    assert_memory_equal(raw, b.data + 24, (size_t)header->kv_nbytes);
    assert_refused(gguf_read_kv(container, 1, (size_t)header->kv_nbytes, raw, &err), ERR_USAGE, "exceeds");
    free(raw);
    container_close(container);
    free(b.data);
}

static void tensors_are_shown_outermost_first(void **state)
{
    (void)state;
    struct bytes b = build("H3,3,1 Kgeneral.alignment w4 w4 Ta:1:2,3,5,7:0 Tq:8:32,2:420 Ts:27::488 P4");
    for (unsigned i = 0; i < 210; i++) add_uint(&b, i, 2);
    for (unsigned block = 0; block < 2; block++) {
        add_uint(&b, block ? 0x4000 : 0x3c00, 2); /* scales 2 and 1 */
        for (unsigned i = 0; i < 32; i++) add_uint(&b, i - 16, 1);
    }
    add_uint(&b, 123456789, 8);
    const char *path = temp_path(dir, "x.gguf");
    write_file(path, b.data, b.n);
    free(b.data);
    struct container *container;
    struct err err;
    assert_ok(open_path(&io_system, path, &container, &err));
    assert_int_equal(container->n_notes, 1); /* alignment below 8 */
    assert_non_null(strstr(container->notes[0], "alignment"));
    const struct tensor *a = &container->tensors[0], *q = &container->tensors[1], *s = &container->tensors[2];
    const uint64_t wanted[] = { 7, 5, 3, 2 };
    assert_memory_equal(a->dims, wanted, sizeof wanted);
    assert_true(tensor_rows(a) == 105 && tensor_cols(a) == 2 && a->n_weights == 210 && a->nbytes == 420 && !a->quantised);
    assert_string_equal(a->dtype->name, "F16");
    uint8_t two[2];
    assert_ok(container_read(container, 0, 418, 2, two, &err));
    assert_true(two[0] == 209 && two[1] == 0);
    uint64_t scalar = 0;
    assert_true(s->rank == 0 && s->n_weights == 1);
    assert_ok(container_read(container, 2, 0, 8, &scalar, &err));
    assert_true(scalar == 123456789);
    assert_true(q->quantised == gguf_entry_of(container, 1) && gguf_entry_of(container, 1)->nbytes == 68 && q->nbytes == 256);
    assert_string_equal(gguf_entry_of(container, 1)->type->name, "Q8_0");
    assert_string_equal(q->dtype->name, "F32");
    assert_refused(container_read(container, 1, 0, 1, two, &err), ERR_USAGE, "quantised");
    float whole[64], part[20];
    enum status status = container_read_f32(container, 1, 0, 2, 0, 32, whole, &err);
    if (status == ERR_UNSUPPORTED) assert_non_null(strstr(err.text, "Q8_0"));
    else assert_int_equal(status, OK);
    for (unsigned i = 0; i < 64 && status == OK; i++) assert_true(whole[i] == ((float)(i % 32) - 16.0f) * (i < 32 ? 1.0f : 2.0f));
    if (status == OK) {
        assert_ok(container_read_f32(container, 1, 0, 2, 7, 10, part, &err));
        for (unsigned i = 0; i < 20; i++) assert_true(part[i] == whole[i / 10 * 32 + 7 + i % 10]);
    }
    container_close(container);
}

/* Every decodable type in random pieces against the whole, over the ends of the reader's own pieces. */
static void pieces_equal_the_whole(void **state)
{
    (void)state;
    uint64_t random = 5;
    for (size_t t = 0; t < gguf_type_count(); t++) {
        const struct gguf_type *type = gguf_type_at(t);
        size_t cols = (size_t)type->block * 9, rows = 100000 / cols + 2, n = rows * cols;
        char script[128];
        struct container *container;
        struct err err;
        if (type->dtype) continue;
        snprintf(script, sizeof script, "H3,1,0 Ta:%u:%zu,%zu:0 P32", type->id, cols, rows);
        struct bytes b = build(script);
        for (size_t i = 0; i < n / type->block * type->block_nbytes; i++) add_uint(&b, test_random(&random) & 0xff, 1);
        while (b.n % 32) add_fill(&b, 0, 1);
        const char *path = temp_path(dir, "x.gguf");
        write_file(path, b.data, b.n);
        free(b.data);
        float *whole = malloc(n * sizeof *whole), *part = malloc(n * sizeof *part);
        assert_true(whole && part);
        assert_ok(open_path(&io_system, path, &container, &err));
        enum status status = container_read_f32(container, 0, 0, rows, 0, cols, whole, &err);
        if (status != OK) assert_true(status == ERR_UNSUPPORTED && strstr(err.text, type->name));
        if (status == OK) assert_true(type->decodable);
        for (unsigned i = 0; i < 50 && status == OK; i++) {
            size_t row = test_random(&random) % rows, col = test_random(&random) % cols;
            size_t n_rows = 1 + test_random(&random) % (rows - row), n_cols = 1 + test_random(&random) % (cols - col);
            if (i % 5 == 0) col = 0, n_cols = cols;
            assert_ok(container_read_f32(container, 0, row, n_rows, col, n_cols, part, &err));
            for (size_t r = 0; r < n_rows; r++) assert_memory_equal(part + r * n_cols, whole + (row + r) * cols + col, n_cols * sizeof *part);
        }
        container_close(container);
        free(whole);
        free(part);
    }
}

/* ---- split files ------------------------------------------------------------------------------------------------------------------ */

#define PART_KEYS(no, count, total) "Ksplit.no w2 h" #no " Ksplit.count w2 h" #count " Ksplit.tensors.count w5 w" #total " "
#define PART_1 "H3,1,4 Kgeneral.architecture w8 sllama " PART_KEYS(0, 3, 4) "Ta:0:4:0 " DATA
#define PART_2 "H3,2,3 " PART_KEYS(1, 3, 4) "Tb:0:4:0 Tc:0:4:32 P32 z64"
#define PART_3 "H3,1,3 " PART_KEYS(2, 3, 4) "Td:0:4:0 " DATA

/* files: NAME=SCRIPT; the set is opened through each name that is there when ok, else through the first. */
static const struct {
    const char *what;
    const char *names[4];
    const char *scripts[4];
    enum status status;
    const char *part; /* for OK: of a note, or NULL for no note */
} sets[] = {
    { "three parts", { "m-00001-of-00003", "m-00002-of-00003", "m-00003-of-00003" }, { PART_1, PART_2, PART_3 }, OK, NULL },
    { "a stray file beside",
      { "m-00001-of-00003", "m-00002-of-00003", "m-00003-of-00003", "m-00004-of-00003" },
      { PART_1, PART_2, PART_3, PART_3 },
      ERR_DATA,
      "" },
    { "second missing",
      { "m-00001-of-00003", "m-00003-of-00003" },
      { PART_1, PART_3 },
      ERR_DATA,
      "1 of its 3 parts are missing, the first is 'm-00002-of-00003.gguf'" },
    { "first missing", { "m-00003-of-00003" }, { PART_3 }, ERR_DATA, "2 of its 3 parts are missing, the first is 'm-00001-of-00003.gguf'" },
    { "swapped",
      { "m-00001-of-00003", "m-00003-of-00003", "m-00002-of-00003" },
      { PART_1, PART_2, PART_3 },
      ERR_DATA,
      "its name says part 2 of 3, its keys say part 3 of 3" },
    { "first twice",
      { "m-00001-of-00003", "m-00002-of-00003", "m-00003-of-00003" },
      { PART_1, PART_1, PART_3 },
      ERR_DATA,
      "its keys say part 1 of 3" },
    { "no number in the name", { "m" }, { PART_1 }, ERR_DATA, "does not end in -00001-of-00003.gguf" },
    { "another number in the name", { "m-00002-of-00003" }, { PART_1 }, ERR_DATA, "its name says part 2 of 3, its keys say part 1 of 3" },
    { "another count in the name",
      { "m-00001-of-00002", "m-00002-of-00002" },
      { PART_1, PART_2 },
      ERR_DATA,
      "its name says part 1 of 2, its keys say part 1 of 3" },
    { "part 0", { "m-00000-of-00003" }, { PART_1 }, ERR_DATA, "does not end in" },
    { "part 4 of 3", { "m-00004-of-00003" }, { PART_1 }, ERR_DATA, "does not end in" },
    { "letters in the number", { "m-0000a-of-00003" }, { PART_1 }, ERR_DATA, "does not end in" },
    { "no prefix", { "-00001-of-00003" }, { PART_1 }, ERR_DATA, "does not end in" },
    { "split.no missing", { "m-00001-of-00003" }, { "H3,0,1 Ksplit.count w2 h3" }, ERR_DATA, "split.no is missing" },
    { "split.no over the count", { "m-00001-of-00003" }, { "H3,0,2 Ksplit.count w2 h3 Ksplit.no w2 h3" }, ERR_DATA, "split.no is not below" },
    { "split.count a string", { "m-00001-of-00003" }, { "H3,0,2 Ksplit.count w8 s3 Ksplit.no w2 h0" }, ERR_DATA, "its type is string" },
    { "split.no negative", { "m-00001-of-00003" }, { "H3,0,2 Ksplit.count w2 h3 Ksplit.no w5 w-1" }, ERR_DATA, "it is negative" },
    { "split.count 2^32-1",
      { "m-00001-of-00003" },
      { "H3,0,2 Ksplit.count w4 w-1 Ksplit.no w2 h0" },
      ERR_UNSUPPORTED,
      "more than the limit of 65535" },
    { "a name of three, no keys", { "m-00001-of-00003" }, { "H3,1,0 Ta:0:4:0 " DATA }, ERR_DATA, "its key split.count does not" },
    { "a name of one, no keys", { "m-00001-of-00001" }, { "H3,1,0 Ta:0:4:0 " DATA }, OK, NULL },
    { "one part", { "m-00001-of-00001" }, { "H3,1,3 " PART_KEYS(0, 1, 1) "Ta:0:4:0 " DATA }, OK, NULL },
    { "merged, count 0", { "m" }, { "H3,1,1 Ksplit.count w2 h0 Ta:0:4:0 " DATA }, OK, NULL },
    { "second without keys",
      { "m-00001-of-00002", "m-00002-of-00002" },
      { "H3,1,3 " PART_KEYS(0, 2, 2) "Ta:0:4:0 " DATA, "H3,1,0 Tb:0:4:0 " DATA },
      ERR_DATA,
      "split.count does not" },
    { "second of another count",
      { "m-00001-of-00002", "m-00002-of-00002" },
      { "H3,1,3 " PART_KEYS(0, 2, 2) "Ta:0:4:0 " DATA, "H3,1,3 " PART_KEYS(1, 3, 2) "Tb:0:4:0 " DATA },
      ERR_DATA,
      "its keys say part 2 of 3" },
    { "tensor in two parts",
      { "m-00001-of-00002", "m-00002-of-00002" },
      { "H3,1,3 " PART_KEYS(0, 2, 2) "Ta:0:4:0 " DATA, "H3,1,3 " PART_KEYS(1, 2, 2) "Ta:0:4:0 " DATA },
      ERR_DATA,
      "tensor 'a' is there twice" },
    { "a tensor too few",
      { "m-00001-of-00002", "m-00002-of-00002" },
      { "H3,1,3 " PART_KEYS(0, 2, 3) "Ta:0:4:0 " DATA, "H3,1,3 " PART_KEYS(1, 2, 3) "Tb:0:4:0 " DATA },
      ERR_DATA,
      "split.tensors.count is 3, its parts have 2" },
    { "tensor counts that differ",
      { "m-00001-of-00002", "m-00002-of-00002" },
      { "H3,1,3 " PART_KEYS(0, 2, 2) "Ta:0:4:0 " DATA, "H3,1,3 " PART_KEYS(1, 2, 3) "Tb:0:4:0 " DATA },
      ERR_DATA,
      "differs from the first part's" },
    { "no total",
      { "m-00001-of-00002", "m-00002-of-00002" },
      { "H3,1,2 Ksplit.no w2 h0 Ksplit.count w2 h2 Ta:0:4:0 " DATA, "H3,1,2 Ksplit.no w2 h1 Ksplit.count w2 h2 Tb:0:4:0 " DATA },
      OK,
      NULL },
    { "keys in the second part",
      { "m-00001-of-00002", "m-00002-of-00002" },
      { "H3,1,3 " PART_KEYS(0, 2, 2) "Ta:0:4:0 " DATA, "H3,1,4 Kx w0 b1 " PART_KEYS(1, 2, 2) "Tb:0:4:0 " DATA },
      OK,
      "ignored 1 keys" },
    { "alignments that differ",
      { "m-00001-of-00002", "m-00002-of-00002" },
      { "H3,1,4 Kgeneral.alignment w4 w64 " PART_KEYS(0, 2, 2) "Ta:0:4:0 P64 z16 P64", "H3,1,3 " PART_KEYS(1, 2, 2) "Tb:0:4:0 " DATA },
      OK,
      NULL },
    { "second cut",
      { "m-00001-of-00002", "m-00002-of-00002" },
      { "H3,1,3 " PART_KEYS(0, 2, 2) "Ta:0:4:0 " DATA, "H3,1,3 " PART_KEYS(1, 2, 2) "Tb:0:4:0 P32 z15" },
      ERR_DATA,
      "m-00002-of-00002.gguf" },
    { "second is another file",
      { "m-00001-of-00002", "m-00002-of-00002" },
      { "H3,1,3 " PART_KEYS(0, 2, 2) "Ta:0:4:0 " DATA, "r{}" },
      ERR_DATA,
      "inside the magic" },
    { "first part empty",
      { "m-00001-of-00002", "m-00002-of-00002" },
      { "H3,0,3 " PART_KEYS(0, 2, 1), "H3,1,3 " PART_KEYS(1, 2, 1) "Tb:0:4:0 " DATA },
      OK,
      NULL },
};

static void check_set(size_t i, const char *path)
{
    struct container *container;
    struct err err;
    enum status status = open_path(&io_system, path, &container, &err);
    if (status != sets[i].status) fail_msg("%s: %s: %d, %s", sets[i].what, path, (int)status, err.text);
    if (status != OK) check_message(sets[i].what, &err, sets[i].part);
    if (status != OK) return;
    if (!sets[i].part != (container->n_notes == 0)) fail_msg("%s: %zu notes", sets[i].what, container->n_notes);
    if (sets[i].part && !strstr(container->notes[0], sets[i].part)) fail_msg("%s: %s", sets[i].what, container->notes[0]);
    for (size_t t = 0; t < container->n_tensors; t++) {
        uint8_t buf[16];
        assert_int_equal(container->tensors[t].name[0], 'a' + (int)t + (int)(container->tensors[0].name[0] - 'a'));
        assert_ok(container_read(container, t, 0, 16, buf, &err));
        assert_int_equal(gguf_entry_of(container, t)->nbytes, 16);
        assert_ptr_equal(gguf_entry_of(container, t)->dims, container->tensors[t].dims);
    }
    assert_ok(container_check_unchanged(container, &err));
    container_close(container);
}

static void split_files_are_one_model(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        char paths[4][64];
        size_t n = 0;
        char *folder = temp_dir();
        char name[64];
        for (; n < 4 && sets[i].names[n]; n++) {
            snprintf(name, sizeof name, "%s.gguf", sets[i].names[n]);
            struct bytes b = build(sets[i].scripts[n]);
            write_file(temp_path(folder, name), b.data, b.n);
            free(b.data);
            snprintf(paths[n], sizeof paths[n], "%s", name);
        }
        if (sets[i].status == OK)
            for (size_t k = 0; k < n; k++) check_set(i, temp_path(folder, paths[k]));
        else check_set(i, temp_path(folder, paths[sets[i].part[0] ? 0 : n - 1]));
        temp_dir_remove(folder);
    }
    printf("%zu split sets\n", sizeof sets / sizeof sets[0]);
}

/* ---- faults ----------------------------------------------------------------------------------------------------------------------- */

static size_t n_calls, fail_at; /* pread number fail_at fails; 0: none */

static ssize_t failing_pread(int fd, void *buf, size_t nbytes, off_t offset)
{
    if (++n_calls == fail_at) {
        errno = EIO;
        return -1;
    }
    return pread(fd, buf, nbytes < 7 ? nbytes : 7, offset); /* short transfers */
}

static void failing_reads_are_reported(void **state)
{
    (void)state;
    struct io_calls io = io_system;
    struct bytes b = build(seeds[0]);
    const char *path = temp_path(dir, "x.gguf");
    write_file(path, b.data, b.n);
    free(b.data);
    io.pread = failing_pread;
    enum status status = ERR_IO;
    for (fail_at = 1; status != OK && fail_at < 1000; fail_at++) {
        struct container *container;
        struct err err;
        n_calls = 0;
        status = open_path(&io, path, &container, &err);
        assert_true(status == OK || status == ERR_IO);
        if (status != OK) assert_non_null(strstr(err.text, "x.gguf"));
        container_close(container);
    }
    assert_int_equal(status, OK);
    assert_true(fail_at > 10);
}

/* ---- real files ------------------------------------------------------------------------------------------------------------------- */

static void real_files_open(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        size_t n_keys, n_tensors;
        enum status status;
        const char *part;
    } files[] = {
        { "gguf/llama-2-tiny-random.gguf", 0, 0, OK, NULL },
        { "gguf/taesd-decoder.gguf", 0, 0, OK, NULL },
        { "llm/stories260K/stories260K.gguf", 0, 0, OK, NULL },
        { "gguf/vocab/vocab-bpe-gpt4o.gguf", 0, 0, OK, NULL },
        { "gguf/vocab/vocab-bpe-llama3.gguf", 0, 0, OK, NULL },
        { "gguf/vocab/vocab-bpe-qwen2.gguf", 0, 0, OK, NULL },
        { "gguf/vocab/vocab-bpe-qwen35.gguf", 0, 0, OK, NULL },
        { "gguf/vocab/vocab-bpe-smollm.gguf", 0, 0, OK, NULL },
        { "gguf/vocab/vocab-bpe-spm-gemma4.gguf", 0, 0, OK, NULL },
        { "gguf/vocab/vocab-spm-zeroscores.gguf", 0, 0, OK, NULL },
        { "gguf/vocab/vocab-spm.gguf", 0, 0, OK, NULL },
        { "malformed/gguf_gridcore_fuzz/valid-small.gguf", 9, 0, OK, NULL },
        { "malformed/gguf_gridcore_fuzz/v3-empty.bin", 0, 0, OK, NULL },
        { "malformed/gguf_gridcore_fuzz/bad-version.bin", 0, 0, ERR_UNSUPPORTED, "version 1" },
        { "malformed/gguf_gridcore_fuzz/hdr-suppress-eos.gguf", 0, 0, ERR_DATA, "truncated" },
        { "malformed/gguf_gridcore_fuzz/hdr-wrap-first-offset.gguf", 0, 0, ERR_DATA, "offset" },
        { "malformed/gguf_gridcore_fuzz/hdr-zero-first-dim.gguf", 0, 0, ERR_DATA, "" },
        { "malformed/gguf_gridcore_fuzz/huge-counts.bin", 0, 0, ERR_DATA, "claims 18446744073709551615 tensors" },
        { "malformed/gguf_gridcore_fuzz/kv-arr-huge-n.bin", 0, 0, ERR_DATA, "claims" },
        { "malformed/gguf_gridcore_fuzz/kv-huge-strlen.bin", 0, 0, ERR_DATA, "" },
        { "malformed/gguf_gridcore_fuzz/magic-only.bin", 0, 0, ERR_DATA, "inside the version" },
        { "malformed/gguf_gridcore_fuzz/tensor-huge-dims.bin", 0, 0, ERR_DATA, "overflows" },
        { "malformed/gguf_gridcore_fuzz/trunc-magic.bin", 0, 0, ERR_DATA, "inside the magic" },
        { "malformed/natural/lfs_pointer.gguf", 0, 0, ERR_DATA, "magic bytes" },
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        const char *path = shared_data(files[i].path);
        struct container *container;
        struct err err;
        if (!path) continue;
        enum status status = open_path(&io_system, path, &container, &err);
        if (status != files[i].status) fail_msg("%s: status %d, %s", path, (int)status, err.text);
        if (status != OK) check_message(path, &err, files[i].part);
        if (status != OK) continue;
        size_t n_keys = gguf_header_of(container, 0)->n_keys, n;
        char *bytes = read_file(path, &n);
        struct gguf_header header;
        assert_int_equal(parse_bytes((uint8_t *)bytes, n, &header, &err), OK);
        check_accepted((uint8_t *)bytes, n, &header);
        gguf_header_free(&header);
        printf("%s: %zu keys, %zu tensors, %zu notes\n", files[i].path, n_keys, container->n_tensors, container->n_notes);
        if (files[i].n_keys) assert_int_equal(n_keys, files[i].n_keys);
        for (size_t t = 0; t < container->n_tensors; t++) {
            const struct tensor *tensor = &container->tensors[t];
            char byte;
            if (!tensor->quantised) assert_ok(container_read(container, t, tensor->nbytes - 1, 1, &byte, &err));
            if (!tensor->quantised) assert_int_equal(byte, bytes[tensor->offset + tensor->nbytes - 1]);
        }
        free(bytes);
        container_close(container);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crafted_files_get_their_verdict),
        cmocka_unit_test(every_type_has_its_size),
        cmocka_unit_test(strings_over_windows),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(random_files_are_read_as_written),
        cmocka_unit_test(every_byte_of_the_header_swept),
        cmocka_unit_test(numbers_at_their_boundaries),
        cmocka_unit_test(random_changes),
        cmocka_unit_test(many_keys_and_tensors_open_quickly),
        cmocka_unit_test(a_vocabulary_is_not_kept),
        cmocka_unit_test(hostile_claims_end_quickly),
        cmocka_unit_test(keys_are_found_and_read),
        cmocka_unit_test(tensors_are_shown_outermost_first),
        cmocka_unit_test(pieces_equal_the_whole),
        cmocka_unit_test(split_files_are_one_model),
        cmocka_unit_test(failing_reads_are_reported),
        cmocka_unit_test(real_files_open),
    };
    return cmocka_run_group_tests_name("gguf", tests, make_dir, remove_dir);
}
