/* test_safetensors.c: the strict safetensors reader against crafted, cut, changed, huge and real files.
 *
 * Formula: a file is N (8 bytes, little-endian), N bytes of header, data. Where a sweep is accepted, an independent check colours every data byte
 * with the tensor that claims it: each byte must be claimed exactly once.
 * Why this way: the verdicts are a table, one row a file; the list follows the reliability notes 1.1 and their appendix A. A case has a part of the
 * sentence that must be there, so that a file is refused for its own reason.
 * Corner cases: times are five times the goal, so that a busy machine passes; memory is measured only without sanitizers.
 * Reference: the project's reliability notes 1.1, 5.1 rows 1, 4, 5, 7, 8, appendix A.
 */
#include "support/support.h"

#include <dirent.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/size.h"
#include "container/container.h"
#include "container/safetensors.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED true
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define SANITIZED true
#endif
#ifndef SANITIZED
#define SANITIZED false
#endif

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
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- building files --------------------------------------------------------------------------------------------------------------- */

struct bytes {
    char *data;
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

static void add_str(struct bytes *b, const char *s)
{
    add(b, s, strlen(s));
}

static void add_fill(struct bytes *b, char c, size_t n)
{
    char block[4096];
    memset(block, c, sizeof block);
    for (; n > 0; n -= size_min(n, sizeof block)) add(b, block, (size_t)size_min(n, sizeof block));
}

static void add_u64(struct bytes *b, uint64_t v)
{
    for (unsigned i = 0; i < 8; i++) {
        uint8_t c = (uint8_t)(v >> (8 * i));
        add(b, &c, 1);
    }
}

/* N, header, n_data zero bytes. */
static struct bytes make_file(const char *header, size_t n_header, size_t n_data)
{
    struct bytes b = { 0 };
    add_u64(&b, n_header);
    add(&b, header, n_header);
    add_fill(&b, 0, n_data);
    return b;
}

static const char *store(struct bytes b)
{
    const char *path = temp_path(dir, "x.safetensors");
    write_file(path, b.data, b.n);
    free(b.data);
    return path;
}

/* Opens the file as a container and closes it again. */
static enum status verdict(const char *path, struct err *err)
{
    struct container *container = NULL;
    memset(err, 0, sizeof *err);
    enum status status = container_open(&io_system, path, &container, err);
    if (status == OK) container_close(container);
    else assert_null(container);
    return status;
}

/* Fails unless the file's verdict is as wanted, in one line of text. */
static void expect(const char *what, const char *path, enum status wanted, const char *part)
{
    struct err err;
    enum status status = verdict(path, &err);
    if (status != wanted) fail_msg("%s: status %d instead of %d: %s", what, (int)status, (int)wanted, err.text);
    if (status == OK) return;
    if (!strstr(err.text, part)) fail_msg("%s: message '%s' lacks '%s'", what, err.text, part);
    if (!strstr(err.text, "x.safetensors")) fail_msg("%s: message '%s' lacks the file", what, err.text);
    for (const char *c = err.text; *c; c++)
        if ((unsigned char)*c < 0x20) fail_msg("%s: message of more than one line", what);
}

/* ---- the independent check of an accepted header ---------------------------------------------------------------------------------- */

static unsigned bits_of(const char *dtype)
{
    static const struct {
        const char *name;
        unsigned bits;
    } known[] = {
        { "BOOL", 8 },        { "U8", 8 },          { "I8", 8 },    { "F8_E5M2", 8 }, { "F8_E4M3", 8 }, { "F8_E8M0", 8 },
        { "F8_E4M3FNUZ", 8 }, { "F8_E5M2FNUZ", 8 }, { "F4", 4 },    { "F6_E2M3", 6 }, { "F6_E3M2", 6 }, { "I16", 16 },
        { "U16", 16 },        { "F16", 16 },        { "BF16", 16 }, { "I32", 32 },    { "U32", 32 },    { "F32", 32 },
        { "I64", 64 },        { "U64", 64 },        { "F64", 64 },  { "C64", 64 },
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i].name, dtype) == 0) return known[i].bits;
    fail_msg("unknown dtype %s was accepted", dtype);
    return 0;
}

/* Every data byte belongs to exactly one tensor, sizes follow from shapes, names are distinct. */
static void check_spans(const struct safetensors_header *header, uint64_t n_data)
{
    uint8_t *owner = calloc((size_t)n_data + 1, 1);
    assert_non_null(owner);
    for (size_t i = 0; i < header->n_tensors; i++) {
        const struct tensor *t = &header->tensors[i];
        double weights = 1.0;
        for (uint32_t d = 0; d < t->rank; d++) weights *= (double)t->dims[d];
        assert_true(weights == (double)t->n_weights);
        assert_true(weights * bits_of(t->dtype->name) / 8 == (double)t->nbytes);
        assert_true(t->offset <= n_data && t->nbytes <= n_data - t->offset);
        assert_true(t->name[0] != '\0' && strlen(t->name) <= TENSOR_NAME_MAX);
        for (uint64_t b = t->offset; b < t->offset + t->nbytes; b++) assert_int_equal(owner[b]++, 0);
        for (size_t j = 0; j < i; j++) assert_string_not_equal(t->name, header->tensors[j].name);
    }
    for (uint64_t b = 0; b < n_data; b++) assert_int_equal(owner[b], 1);
    free(owner);
}

/* Parses from an exact-size copy; true when accepted (and then checked). */
static bool parse_checked(const char *text, size_t n, uint64_t n_data)
{
    struct safetensors_header header;
    struct err err = { .code = OK };
    char *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    memcpy(copy, text, n);
    enum status status = safetensors_header_parse(copy, n, n_data, &header, &err);
    free(copy);
    if (status == OK) {
        check_spans(&header, n_data);
    } else {
        assert_true(err.text[0] != '\0' && status == err.code);
        assert_null(header.tensors);
    }
    safetensors_header_free(&header);
    return status == OK;
}

/* ---- the table of crafted files --------------------------------------------------------------------------------------------------- */

#define T(fields) "{\"a\":{" fields "}}"
#define GOOD "\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]"
#define SHAPE(dtype, shape, offsets) "\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets
#define TENSOR(name, dtype, shape, offsets) "\"" name "\":{" SHAPE(dtype, shape, offsets) "}"
#define H(text) text, sizeof(text) - 1

static const struct crafted {
    const char *what;
    const char *header;
    size_t n_header;
    size_t n_data;
    enum status status;
    const char *part;
} crafted[] = {
    /* accepted */
    { "plain", H(T(GOOD)), 16, OK, "" },
    { "trailing blanks", H(T(GOOD) "      "), 16, OK, "" },
    { "all four blanks around", H(" \t\r\n" T(GOOD) " \t\r\n"), 16, OK, "" },
    { "leading newline", H("\n" T(GOOD)), 16, OK, "" },
    { "blanks inside", H("{ \"a\" : { \"dtype\" : \"F32\" , \"shape\" : [ 2 , 2 ] , \"data_offsets\" : [ 0 , 16 ] } }"), 16, OK, "" },
    { "no tensors", H("{}"), 0, OK, "" },
    { "metadata only", H("{\"__metadata__\":{\"format\":\"pt\"}}"), 0, OK, "" },
    { "empty metadata", H("{\"__metadata__\":{}," TENSOR("a", "U8", "[1]", "[0,1]") "}"), 1, OK, "" },
    { "metadata last", H("{" TENSOR("a", "U8", "[1]", "[0,1]") ",\"__metadata__\":{\"a\":\"b\",\"c\":\"{[1,null]}\\\"\"}}"), 1, OK, "" },
    { "keys not in storage order", H("{" TENSOR("b", "U8", "[2]", "[1,3]") "," TENSOR("a", "U8", "[1]", "[0,1]") "}"), 3, OK, "" },
    { "fields in another order", H(T("\"data_offsets\":[0,16],\"shape\":[2,2],\"dtype\":\"F32\"")), 16, OK, "" },
    { "scalar", H(T(SHAPE("F32", "[]", "[0,4]"))), 4, OK, "" },
    { "zero dimension alone", H(T(SHAPE("F32", "[0]", "[0,0]"))), 0, OK, "" },
    { "zero dimension between tensors",
      H("{" TENSOR("a", "U8", "[2]", "[0,2]") "," TENSOR("z", "U8", "[3,0]", "[2,2]") "," TENSOR("b", "U8", "[1]", "[2,3]") "}"), 3, OK, "" },
    { "zero dimension at the start", H("{" TENSOR("z", "U8", "[0]", "[0,0]") "," TENSOR("a", "U8", "[1]", "[0,1]") "}"), 1, OK, "" },
    { "zero dimension at the end", H("{" TENSOR("a", "U8", "[1]", "[0,1]") "," TENSOR("z", "U8", "[0]", "[1,1]") "}"), 1, OK, "" },
    { "two zero tensors at one place", H("{" TENSOR("y", "U8", "[0]", "[0,0]") "," TENSOR("z", "F64", "[0,9]", "[0,0]") "}"), 0, OK, "" },
    { "odd header length", H(T(GOOD) " "), 16, OK, "" },
    { "F32 at offset 3", H("{" TENSOR("a", "U8", "[3]", "[0,3]") "," TENSOR("b", "F32", "[1]", "[3,7]") "}"), 7, OK, "" },
    { "name ../../x", H("{" TENSOR("../../x", "U8", "[1]", "[0,1]") "}"), 1, OK, "" },
    { "name with an escaped line end", H("{" TENSOR("\\u0061\\n\\\"b", "U8", "[1]", "[0,1]") "}"), 1, ERR_DATA, "control character" },
    { "name with an escaped quote", H("{" TENSOR("a\\\"b\\\\c\\/d", "U8", "[1]", "[0,1]") "}"), 1, OK, "" },
    { "name in UTF-8", H("{" TENSOR("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "U8", "[1]", "[0,1]") "}"), 1, OK, "" },
    { "name with a surrogate pair", H("{" TENSOR("\\ud83d\\ude00", "U8", "[1]", "[0,1]") "}"), 1, OK, "" },
    { "name of one blank", H("{" TENSOR(" ", "U8", "[1]", "[0,1]") "}"), 1, OK, "" },
    { "F4 of two", H(T(SHAPE("F4", "[2]", "[0,1]"))), 1, OK, "" },
    { "F6 of four", H(T(SHAPE("F6_E3M2", "[2,2]", "[0,3]"))), 3, OK, "" },
    { "F4 of three and zero", H(T(SHAPE("F4", "[3,0]", "[0,0]"))), 0, OK, "" },
    { "dims of one", H(T(SHAPE("BF16", "[1,1,1,1,1,1,1,1]", "[0,2]"))), 2, OK, "" },

    /* not JSON, not UTF-8, not an object */
    { "lone brace", H("{"), 0, ERR_DATA, "ends early" },
    { "top level array", H("[]"), 0, ERR_DATA, "object expected" },
    { "top level null", H("null"), 0, ERR_DATA, "object expected" },
    { "only blanks", H("        "), 0, ERR_DATA, "byte 8" },
    { "BOM", H("\xef\xbb\xbf" T(GOOD)), 16, ERR_DATA, "object expected" },
    { "trailing NUL", H(T(GOOD) "\0"), 16, ERR_DATA, "after the end" },
    { "trailing text", H(T(GOOD) "x"), 16, ERR_DATA, "after the end" },
    { "two objects", H(T(GOOD) "{}"), 16, ERR_DATA, "after the end" },
    { "trailing comma", H("{\"a\":{" GOOD "},}"), 16, ERR_DATA, "key" },
    { "trailing comma in an entry", H(T(GOOD ",")), 16, ERR_DATA, "key" },
    { "trailing comma in the shape", H(T(SHAPE("F32", "[2,2,]", "[0,16]"))), 16, ERR_DATA, "value" },
    { "comment", H("{/**/\"a\":{" GOOD "}}"), 16, ERR_DATA, "key" },
    { "line comment", H("{//\n\"a\":{" GOOD "}}"), 16, ERR_DATA, "key" },
    { "single quotes", H("{'a':{" GOOD "}}"), 16, ERR_DATA, "key" },
    { "unquoted key", H("{a:{" GOOD "}}"), 16, ERR_DATA, "key" },
    { "missing colon", H("{\"a\"{" GOOD "}}"), 16, ERR_DATA, "':'" },
    { "form feed as a blank", H("\f" T(GOOD)), 16, ERR_DATA, "object expected" },
    { "vertical tab inside", H("{\v\"a\":{" GOOD "}}"), 16, ERR_DATA, "key" },
    { "bad byte in a name", H("{" TENSOR("a\xff", "U8", "[1]", "[0,1]") "}"), 1, ERR_DATA, "UTF-8" },
    { "overlong form in a name", H("{" TENSOR("a\xc0\xaf", "U8", "[1]", "[0,1]") "}"), 1, ERR_DATA, "UTF-8" },
    { "raw surrogate in a name", H("{" TENSOR("a\xed\xa0\x80", "U8", "[1]", "[0,1]") "}"), 1, ERR_DATA, "UTF-8" },
    { "cut UTF-8 in a name", H("{" TENSOR("a\xe2\x82", "U8", "[1]", "[0,1]") "}"), 1, ERR_DATA, "UTF-8" },
    { "code point beyond Unicode", H("{" TENSOR("\xf4\x90\x80\x80", "U8", "[1]", "[0,1]") "}"), 1, ERR_DATA, "UTF-8" },
    { "bad byte outside strings", H("{\xff}"), 0, ERR_DATA, "key" },
    { "lone surrogate escape", H("{" TENSOR("\\ud800", "U8", "[1]", "[0,1]") "}"), 1, ERR_DATA, "surrogate" },
    { "lone low surrogate escape", H("{" TENSOR("\\udc00", "U8", "[1]", "[0,1]") "}"), 1, ERR_DATA, "surrogate" },
    { "bad hex escape", H("{" TENSOR("\\u00zz", "U8", "[1]", "[0,1]") "}"), 1, ERR_DATA, "hexadecimal" },
    { "bad escape", H("{" TENSOR("\\x41", "U8", "[1]", "[0,1]") "}"), 1, ERR_DATA, "escape" },
    { "raw control character in a name", H("{" TENSOR("a\nb", "U8", "[1]", "[0,1]") "}"), 1, ERR_DATA, "control" },
    { "NaN token", H(T(SHAPE("F32", "[NaN]", "[0,16]"))), 16, ERR_DATA, "value" },

    /* duplicates */
    { "duplicate tensor, same", H("{\"a\":{" GOOD "},\"a\":{" GOOD "}}"), 16, ERR_DATA, "duplicate key 'a'" },
    { "duplicate tensor, other dtype", H("{\"a\":{" GOOD "},\"a\":{" SHAPE("I32", "[2,2]", "[0,16]") "}}"), 16, ERR_DATA, "duplicate key 'a'" },
    { "duplicate tensor, zero first", H("{\"a\":{" SHAPE("F32", "[0]", "[0,0]") "},\"a\":{" GOOD "}}"), 16, ERR_DATA, "duplicate key 'a'" },
    { "duplicate tensor by escape", H("{\"a\":{" GOOD "},\"\\u0061\":{" SHAPE("U8", "[1]", "[16,17]") "}}"), 17, ERR_DATA, "duplicate key 'a'" },
    { "duplicate dtype", H(T(GOOD ",\"dtype\":\"F32\"")), 16, ERR_DATA, "duplicate key 'dtype'" },
    { "duplicate shape", H(T(GOOD ",\"shape\":[2,2]")), 16, ERR_DATA, "duplicate key 'shape'" },
    { "duplicate offsets", H(T(GOOD ",\"data_offsets\":[0,16]")), 16, ERR_DATA, "duplicate key 'data_offsets'" },
    { "two metadata", H("{\"__metadata__\":{},\"__metadata__\":{}}"), 0, ERR_DATA, "duplicate key '__metadata__'" },
    { "duplicate key in metadata", H("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}"), 0, ERR_DATA, "duplicate key 'a'" },

    /* metadata */
    { "metadata null", H("{\"__metadata__\":null}"), 0, ERR_DATA, "not an object of strings" },
    { "metadata list", H("{\"__metadata__\":[]}"), 0, ERR_DATA, "not an object of strings" },
    { "metadata string", H("{\"__metadata__\":\"x\"}"), 0, ERR_DATA, "not an object of strings" },
    { "metadata with a number", H("{\"__metadata__\":{\"a\":1}}"), 0, ERR_DATA, "not an object of strings" },
    { "metadata with null", H("{\"__metadata__\":{\"a\":null}}"), 0, ERR_DATA, "not an object of strings" },
    { "metadata nested", H("{\"__metadata__\":{\"a\":{}}}"), 0, ERR_DATA, "not an object of strings" },
    { "metadata with a list", H("{\"__metadata__\":{\"a\":[\"b\"]}}"), 0, ERR_DATA, "not an object of strings" },
    { "metadata shaped as a tensor", H("{\"__metadata__\":{" GOOD "}}"), 16, ERR_DATA, "not an object of strings" },

    /* entries */
    { "entry as an array", H("{\"a\":[\"F32\",[2,2],[0,16]]}"), 16, ERR_DATA, "not an object" },
    { "entry null", H("{\"a\":null}"), 0, ERR_DATA, "not an object" },
    { "entry a number", H("{\"a\":1}"), 0, ERR_DATA, "not an object" },
    { "entry a string", H("{\"a\":\"F32\"}"), 0, ERR_DATA, "not an object" },
    { "entry empty", H("{\"a\":{}}"), 0, ERR_DATA, "dtype is missing" },
    { "missing dtype", H(T("\"shape\":[2,2],\"data_offsets\":[0,16]")), 16, ERR_DATA, "dtype is missing" },
    { "missing shape", H(T("\"dtype\":\"F32\",\"data_offsets\":[0,16]")), 16, ERR_DATA, "shape is missing" },
    { "missing offsets", H(T("\"dtype\":\"F32\",\"shape\":[2,2]")), 16, ERR_DATA, "data_offsets is missing" },
    { "unknown field", H(T(GOOD ",\"strides\":[2,1]")), 16, ERR_DATA, "unknown field 'strides'" },
    { "field in capitals", H(T("\"DTYPE\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]")), 16, ERR_DATA, "unknown field 'DTYPE'" },
    { "nested too deeply", H(T(GOOD ",\"x\":[[[[]]]]")), 16, ERR_DATA, "nested too deeply" },
    { "shape nested", H(T(SHAPE("F32", "[[2],2]", "[0,16]"))), 16, ERR_DATA, "shape is not a number" },

    /* dtype */
    { "dtype in lower case", H(T(SHAPE("f32", "[2,2]", "[0,16]"))), 16, ERR_UNSUPPORTED, "unsupported dtype 'f32'" },
    { "dtype F8_E4M3FN", H(T(SHAPE("F8_E4M3FN", "[16]", "[0,16]"))), 16, ERR_UNSUPPORTED, "unsupported dtype" },
    { "dtype U4", H(T(SHAPE("U4", "[32]", "[0,16]"))), 16, ERR_UNSUPPORTED, "unsupported dtype" },
    { "dtype I4", H(T(SHAPE("I4", "[32]", "[0,16]"))), 16, ERR_UNSUPPORTED, "unsupported dtype" },
    { "dtype F6", H(T(SHAPE("F6", "[4]", "[0,3]"))), 3, ERR_UNSUPPORTED, "unsupported dtype" },
    { "dtype E8M0", H(T(SHAPE("E8M0", "[16]", "[0,16]"))), 16, ERR_UNSUPPORTED, "unsupported dtype" },
    { "dtype C128", H(T(SHAPE("C128", "[1]", "[0,16]"))), 16, ERR_UNSUPPORTED, "unsupported dtype" },
    { "dtype torch.float32", H(T(SHAPE("torch.float32", "[2,2]", "[0,16]"))), 16, ERR_UNSUPPORTED, "unsupported dtype" },
    { "dtype float32", H(T(SHAPE("float32", "[2,2]", "[0,16]"))), 16, ERR_UNSUPPORTED, "unsupported dtype" },
    { "dtype with a blank", H(T(SHAPE("F32 ", "[2,2]", "[0,16]"))), 16, ERR_UNSUPPORTED, "unsupported dtype" },
    { "dtype empty", H(T(SHAPE("", "[2,2]", "[0,16]"))), 16, ERR_UNSUPPORTED, "unsupported dtype" },
    { "dtype a prefix", H(T(SHAPE("F3", "[2,2]", "[0,16]"))), 16, ERR_UNSUPPORTED, "unsupported dtype" },
    { "dtype a number", H(T("\"dtype\":32,\"shape\":[2,2],\"data_offsets\":[0,16]")), 16, ERR_DATA, "dtype is not a string" },
    { "dtype null", H(T("\"dtype\":null,\"shape\":[2,2],\"data_offsets\":[0,16]")), 16, ERR_DATA, "dtype is not a string" },

    /* numbers */
    { "offset -0", H(T(SHAPE("F32", "[2,2]", "[-0,16]"))), 16, ERR_DATA, "plain integer" },
    { "offset 16.0", H(T(SHAPE("F32", "[2,2]", "[0,16.0]"))), 16, ERR_DATA, "plain integer" },
    { "offset 16e0", H(T(SHAPE("F32", "[2,2]", "[0,16e0]"))), 16, ERR_DATA, "plain integer" },
    { "offset \"16\"", H(T(SHAPE("F32", "[2,2]", "[0,\"16\"]"))), 16, ERR_DATA, "data_offsets is not a number" },
    { "offset 00", H(T(SHAPE("F32", "[2,2]", "[00,16]"))), 16, ERR_DATA, "leading zero" },
    { "offset 016", H(T(SHAPE("F32", "[2,2]", "[0,016]"))), 16, ERR_DATA, "leading zero" },
    { "offset +16", H(T(SHAPE("F32", "[2,2]", "[0,+16]"))), 16, ERR_DATA, "value" },
    { "offset 0x10", H(T(SHAPE("F32", "[2,2]", "[0,0x10]"))), 16, ERR_DATA, "expected" },
    { "offset negative", H(T(SHAPE("F32", "[2,2]", "[0,-16]"))), 16, ERR_DATA, "plain integer" },
    { "offset 2^64", H(T(SHAPE("F32", "[2,2]", "[0,18446744073709551616]"))), 16, ERR_DATA, "0 to 2^53-1" },
    { "offset of 30 digits", H(T(SHAPE("F32", "[2,2]", "[0,100000000000000000000000000000]"))), 16, ERR_DATA, "0 to 2^53-1" },
    { "dimension negative", H(T(SHAPE("F32", "[-2,2]", "[0,16]"))), 16, ERR_DATA, "plain integer" },
    { "dimension 2.0", H(T(SHAPE("F32", "[2.0,2]", "[0,16]"))), 16, ERR_DATA, "plain integer" },
    { "dimension \"2\"", H(T(SHAPE("F32", "[\"2\",2]", "[0,16]"))), 16, ERR_DATA, "shape is not a number" },
    { "dimension null", H(T(SHAPE("F32", "[null,2]", "[0,16]"))), 16, ERR_DATA, "shape is not a number" },
    { "dimension true", H(T(SHAPE("F32", "[true,2]", "[0,16]"))), 16, ERR_DATA, "shape is not a number" },
    { "dimension 2^64", H(T(SHAPE("F32", "[18446744073709551616]", "[0,16]"))), 16, ERR_DATA, "0 to 2^53-1" },
    { "shape null", H(T(SHAPE("F32", "null", "[0,16]"))), 16, ERR_DATA, "shape is not an array" },
    { "shape a number", H(T(SHAPE("F32", "4", "[0,16]"))), 16, ERR_DATA, "shape is not an array" },
    { "shape an object", H(T(SHAPE("F32", "{}", "[0,16]"))), 16, ERR_DATA, "shape is not an array" },

    /* offsets */
    { "no offsets", H(T(SHAPE("F32", "[2,2]", "[]"))), 16, ERR_DATA, "not two integers" },
    { "one offset", H(T(SHAPE("F32", "[2,2]", "[0]"))), 16, ERR_DATA, "not two integers" },
    { "three offsets", H(T(SHAPE("F32", "[2,2]", "[0,16,32]"))), 16, ERR_DATA, "not two integers" },
    { "offsets null", H(T(SHAPE("F32", "[2,2]", "null"))), 16, ERR_DATA, "data_offsets is not an array" },
    { "offsets reversed", H(T(SHAPE("F32", "[2,2]", "[16,0]"))), 16, ERR_DATA, "ends before it begins" },
    { "hole at the start", H(T(SHAPE("F32", "[2,2]", "[4,20]"))), 20, ERR_DATA, "bytes 0 to 4 belong to no tensor" },
    { "hole in the middle", H("{" TENSOR("a", "U8", "[2]", "[0,2]") "," TENSOR("b", "U8", "[2]", "[3,5]") "}"), 5, ERR_DATA, "bytes 2 to 3" },
    { "full overlap", H("{" TENSOR("a", "U8", "[2]", "[0,2]") "," TENSOR("b", "U8", "[2]", "[0,2]") "}"), 2, ERR_DATA, "inside tensor 'a'" },
    { "full overlap, two dtypes", H("{" TENSOR("a", "F32", "[1]", "[0,4]") "," TENSOR("b", "I8", "[4]", "[0,4]") "}"), 4, ERR_DATA, "inside" },
    { "partial overlap", H("{" TENSOR("a", "U8", "[4]", "[0,4]") "," TENSOR("b", "U8", "[4]", "[2,6]") "}"), 6, ERR_DATA, "inside tensor 'a'" },
    { "zero tensor inside", H("{" TENSOR("a", "U8", "[4]", "[0,4]") "," TENSOR("z", "U8", "[0]", "[2,2]") "}"), 4, ERR_DATA, "inside tensor 'a'" },
    { "zero tensor beyond", H("{" TENSOR("a", "U8", "[4]", "[0,4]") "," TENSOR("z", "U8", "[0]", "[9,9]") "}"), 4, ERR_DATA, "belong to no tensor" },
    { "size over the span", H(T(SHAPE("F32", "[2,2]", "[0,12]"))), 12, ERR_DATA, "need 16 bytes, data_offsets has 12" },
    { "size under the span", H(T(SHAPE("F32", "[2,2]", "[0,20]"))), 20, ERR_DATA, "need 16 bytes, data_offsets has 20" },
    { "end 2^64-1", H(T(SHAPE("F32", "[2,2]", "[0,18446744073709551615]"))), 16, ERR_DATA, "0 to 2^53-1" },
    { "span at the top of 2^64", H(T(SHAPE("U8", "[1]", "[18446744073709551614,18446744073709551615]"))), 1, ERR_DATA, "0 to 2^53-1" },
    { "one byte short", H(T(GOOD)), 15, ERR_DATA, "truncated" },
    { "no data", H(T(GOOD)), 0, ERR_DATA, "truncated" },
    { "one byte long", H(T(GOOD)), 17, ERR_DATA, "1 bytes at the end of the file belong to no tensor" },
    { "data with no tensors", H("{}"), 8, ERR_DATA, "8 bytes at the end" },
    { "data with an empty tensor", H(T(SHAPE("F32", "[0]", "[0,0]"))), 4, ERR_DATA, "4 bytes at the end" },

    /* shapes that overflow or do not fill bytes */
    { "product overflows", H(T(SHAPE("F32", "[4294967296,4294967296]", "[0,16]"))), 16, ERR_DATA, "product of the shape overflows" },
    { "bits overflow", H(T(SHAPE("F32", "[1152921504606846976]", "[0,16]"))), 16, ERR_DATA, "0 to 2^53-1" },
    { "end 2^53-1", H(T(SHAPE("F32", "[2,2]", "[0,9007199254740991]"))), 16, ERR_DATA, "data_offsets has 9007199254740991" },
    { "bits overflow in two dims", H(T(SHAPE("F64", "[4503599627370496,2048]", "[0,16]"))), 16, ERR_DATA, "size of the shape overflows" },
    { "bits overflow of a byte type", H(T(SHAPE("U8", "[2251799813685248,1024]", "[0,0]"))), 0, ERR_DATA, "size of the shape overflows" },
    { "product wraps to the right size", H(T(SHAPE("U8", "[4294967297,4294967296,16]", "[0,16]"))), 16, ERR_DATA, "overflows" },
    { "overflow before a zero", H(T(SHAPE("F32", "[4503599627370496,8192,0]", "[0,0]"))), 0, ERR_DATA, "product of the shape overflows" },
    { "overflow behind a zero", H(T(SHAPE("F32", "[0,4503599627370496,8192]", "[0,0]"))), 0, ERR_DATA, "product of the shape overflows" },
    { "F4 of three", H(T(SHAPE("F4", "[3]", "[0,1]"))), 1, ERR_DATA, "12 bits are no whole number of bytes" },
    { "F4 of three, two bytes", H(T(SHAPE("F4", "[3]", "[0,2]"))), 2, ERR_DATA, "12 bits" },
    { "F6 of three", H(T(SHAPE("F6_E2M3", "[3]", "[0,2]"))), 2, ERR_DATA, "18 bits" },
    { "F4 scalar", H(T(SHAPE("F4", "[]", "[0,1]"))), 1, ERR_DATA, "4 bits" },
    { "huge honest claim", H(T(SHAPE("U8", "[1000000000000000]", "[0,1000000000000000]"))), 16, ERR_DATA, "truncated" },

    /* names */
    { "empty name", H("{" TENSOR("", "U8", "[1]", "[0,1]") "}"), 1, ERR_DATA, "empty name" },
    { "name with \\u0000", H("{" TENSOR("a\\u0000b", "U8", "[1]", "[0,1]") "}"), 1, ERR_DATA, "\\u0000" },
    { "name with a raw NUL", H("{" TENSOR("a\0b", "U8", "[1]", "[0,1]") "}"), 1, ERR_DATA, "control" },
    { "name with an escaped newline", H("{" TENSOR("a\\nb", "U8", "[1]", "[0,1]") "}"), 1, ERR_DATA, "control character in its name" },
    { "name with DEL", H("{" TENSOR("a\x7f", "U8", "[1]", "[0,1]") "}"), 1, ERR_DATA, "control character in its name" },
};

static void crafted_files_get_their_verdict(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof crafted / sizeof crafted[0]; i++) {
        const struct crafted *c = &crafted[i];
        expect(c->what, store(make_file(c->header, c->n_header, c->n_data)), c->status, c->part);
        assert_int_equal(parse_checked(c->header, c->n_header, c->n_data), c->status == OK);
    }
    print_message("%zu crafted headers\n", sizeof crafted / sizeof crafted[0]);
    assert_true(sizeof crafted / sizeof crafted[0] >= 110);
}

static void every_dtype_has_its_size(void **state)
{
    (void)state;
    assert_int_equal(dtype_count(), 22);
    for (size_t i = 0; i < dtype_count(); i++) {
        char header[200];
        unsigned n = bits_of(dtype_at(i)->name);
        snprintf(header, sizeof header, T(SHAPE("%s", "[8]", "[0,%u]")), dtype_at(i)->name, n);
        expect(dtype_at(i)->name, store(make_file(header, strlen(header), n)), OK, "");
        assert_true(parse_checked(header, strlen(header), n));
        assert_false(parse_checked(header, strlen(header), n - 1));
    }
}

/* ---- length fields, generated texts ----------------------------------------------------------------------------------------------- */

static void length_fields(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        uint64_t length;
        size_t n_rest;
        enum status status;
        const char *part;
    } cases[] = {
        { "length 0", 0, 2, ERR_DATA, "length is 0" },
        { "length 0 alone", 0, 0, ERR_DATA, "length is 0" },
        { "one over the limit", 100000001, 100, ERR_DATA, "over the limit" },
        { "2^63", (uint64_t)1 << 63, 100, ERR_DATA, "over the limit" },
        { "2^64-1", UINT64_MAX, 100, ERR_DATA, "over the limit" },
        { "2^64-8", UINT64_MAX - 7, 100, ERR_DATA, "over the limit" },
        { "2^32", (uint64_t)1 << 32, 100, ERR_DATA, "over the limit" },
        { "past the end by one", 101, 100, ERR_DATA, "exceeds the 100 bytes that follow" },
        { "past the end, at the limit", 100000000, 100, ERR_DATA, "exceeds the 100 bytes that follow" },
        { "length without text", 60, 0, ERR_DATA, "exceeds the 0 bytes that follow" },
        { "within the file, no JSON", 100, 100, ERR_DATA, "object expected" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bytes b = { 0 };
        add_u64(&b, cases[i].length);
        add_fill(&b, 0, cases[i].n_rest);
        expect(cases[i].what, store(b), cases[i].status, cases[i].part);
    }
    for (size_t n = 0; n < 8; n++) {
        struct bytes b = { 0 };
        add_fill(&b, 2, n);
        expect("below eight bytes", store(b), ERR_DATA, n == 0 ? "is empty" : "shorter than 8 bytes");
    }
}

/* {"NAME":{"dtype":"U8","shape":[1,1,...],"data_offsets":[0,1]}} with a name of n_name times 'n' and rank ones. */
static struct bytes make_sized(size_t n_name, size_t rank)
{
    struct bytes b = { 0 };
    add_str(&b, "{\"");
    add_fill(&b, 'n', n_name);
    add_str(&b, "\":{\"dtype\":\"U8\",\"shape\":[");
    for (size_t i = 0; i < rank; i++) add_str(&b, i ? ",1" : "1");
    add_str(&b, "],\"data_offsets\":[0,1]}}");
    struct bytes file = make_file(b.data, b.n, 1);
    free(b.data);
    return file;
}

static void caps_on_rank_and_name(void **state)
{
    (void)state;
    static const struct {
        size_t n_name, rank;
        enum status status;
        const char *part;
    } cases[] = {
        { 1, 64, OK, "" },
        { 1, 65, ERR_UNSUPPORTED, "more than 64 items" },
        { 1, 100, ERR_UNSUPPORTED, "more than 64 items" },
        { 1, 1000000, ERR_UNSUPPORTED, "more than the limit of 65536" },
        { 65536, 1, OK, "" },
        { 65537, 1, ERR_UNSUPPORTED, "name of 65537 bytes" },
        { 1000000, 1, ERR_UNSUPPORTED, "name of 1000000 bytes" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect("cap", store(make_sized(cases[i].n_name, cases[i].rank)), cases[i].status, cases[i].part);
}

static void deep_nesting(void **state)
{
    (void)state;
    struct bytes b = { 0 };
    add_str(&b, "{\"a\":{" GOOD ",\"x\":");
    add_fill(&b, '[', 120);
    add_fill(&b, ']', 120);
    add_str(&b, "}}");
    expect("field nested 120 deep", store(make_file(b.data, b.n, 16)), ERR_DATA, "nested too deeply");
    b.n = 0;
    add_fill(&b, '[', 100000);
    expect("100000 brackets", store(make_file(b.data, b.n, 0)), ERR_DATA, "object expected");
    free(b.data);
}

/* ---- sweeps ----------------------------------------------------------------------------------------------------------------------- */

static const char *const seeds[] = {
    T(GOOD),
    T(GOOD) "     ",
    "{\"__metadata__\":{\"format\":\"pt\"}," TENSOR("a.weight", "BF16", "[2,4]", "[0,16]") "}",
    "{" TENSOR("b", "U8", "[2]", "[14,16]") "," TENSOR("a", "I16", "[7]", "[0,14]") "}",
    "{" TENSOR("z", "F32", "[0,3]", "[0,0]") "," TENSOR("s", "F64", "[]", "[0,8]") "," TENSOR("t", "F4", "[16]", "[8,16]") "}",
    " {" TENSOR("q", "C64", "[1,2]", "[0,16]") "}\n",
};

#define N_SEEDS (sizeof seeds / sizeof seeds[0])
#define SEED_DATA 16

static void every_cut_is_refused(void **state)
{
    (void)state;
    size_t n_cuts = 0;
    for (size_t s = 0; s < N_SEEDS; s++) {
        struct bytes file = make_file(seeds[s], strlen(seeds[s]), SEED_DATA);
        size_t n = file.n;
        const char *path = store(file);
        expect("seed", path, OK, "");
        while (n-- > 0) {
            assert_int_equal(truncate(path, (off_t)n), 0);
            expect("cut", path, ERR_DATA, "x.safetensors");
            n_cuts++;
        }
        for (n = 0; n < strlen(seeds[s]); n++) /* the text alone, with the data still there */
            for (uint64_t data = 0; data <= SEED_DATA; data += SEED_DATA) {
                /* losing only trailing blanks loses nothing */
                bool whole = strspn(seeds[s] + n, " \n") == strlen(seeds[s] + n);
                assert_int_equal(parse_checked(seeds[s], n, data), whole && data == SEED_DATA);
                n_cuts++;
            }
    }
    print_message("%zu cuts\n", n_cuts);
}

static void every_byte_of_the_header_swept(void **state)
{
    (void)state;
    size_t n_inputs = 0, n_accepted = 0;
    for (size_t s = 0; s < N_SEEDS; s++) {
        size_t n = strlen(seeds[s]);
        char *text = strdup(seeds[s]);
        for (size_t at = 0; at < n; at++) {
            for (unsigned v = 0; v < 256; v++, n_inputs++) {
                text[at] = (char)v;
                n_accepted += parse_checked(text, n, SEED_DATA);
            }
            text[at] = seeds[s][at];
        }
        free(text);
    }
    print_message("%zu inputs, %zu accepted\n", n_inputs, n_accepted);
    assert_true(n_accepted > n_inputs / 256); /* at least the unchanged ones */
}

static void every_byte_of_the_length_swept(void **state)
{
    (void)state;
    struct bytes file = make_file(seeds[1], strlen(seeds[1]), SEED_DATA);
    const char *path = temp_path(dir, "x.safetensors");
    size_t n_accepted = 0;
    for (size_t at = 0; at < 8; at++)
        for (unsigned v = 0; v < 256; v++) {
            char old = file.data[at];
            struct err err;
            file.data[at] = (char)v;
            write_file(path, file.data, file.n);
            n_accepted += verdict(path, &err) == OK;
            file.data[at] = old;
        }
    free(file.data);
    assert_int_equal(n_accepted, 8); /* the unchanged length, once a byte */
}

/* Puts boundary values in the place of each number. */
static void numbers_at_their_boundaries(void **state)
{
    (void)state;
    static const char *const values[] = {
        "0",
        "1",
        "2",
        "3",
        "4",
        "7",
        "8",
        "15",
        "16",
        "17",
        "18",
        "32",
        "127",
        "128",
        "255",
        "256",
        "32767",
        "32768",
        "65535",
        "65536",
        "2147483647",
        "2147483648",
        "2147483649",
        "4294967295",
        "4294967296",
        "4294967297",
        "9007199254740991",
        "9007199254740992",
        "9007199254740993",
        "9223372036854775807",
        "9223372036854775808",
        "9223372036854775809",
        "18446744073709551599",
        "18446744073709551600",
        "18446744073709551615",
        "18446744073709551616",
        "18446744073709551617",
        "36893488147419103232",
        "340282366920938463463374607431768211456",
    };
    enum { N = sizeof values / sizeof values[0] };
    size_t n_inputs = 0;
    char text[400];
    for (size_t a = 0; a < N; a++)
        for (size_t b = 0; b < N; b++)
            for (size_t c = 0; c < N; c += 3, n_inputs += 3) {
                snprintf(text, sizeof text, T(SHAPE("F32", "[%s,%s]", "[0,%s]")), values[a], values[b], values[c]);
                parse_checked(text, strlen(text), 16);
                snprintf(text, sizeof text, T(SHAPE("U8", "[%s]", "[%s,%s]")), values[a], values[b], values[c]);
                parse_checked(text, strlen(text), 16);
                snprintf(text, sizeof text, "{" TENSOR("a", "F4", "[%s]", "[0,%s]") "," TENSOR("b", "U8", "[8]", "[%s,16]") "}", values[a], values[b],
                         values[c]);
                parse_checked(text, strlen(text), 16);
            }
    print_message("%zu inputs\n", n_inputs);
}

/* Random damage: bytes of the text replaced by pieces of the grammar. */
static void random_pieces(void **state)
{
    (void)state;
    static const char *const pieces[] = { "{", "}",    "[",   "]", ",", ":", "\"", "\\", "0", "16", "\"shape\":", "\"F32\"", "__metadata__",
                                          " ", "\x80", "null" };
    uint64_t random = 1;
    for (size_t run = 0; run < 100000; run++) {
        struct bytes b = { 0 };
        const char *seed = seeds[test_random(&random) % N_SEEDS];
        size_t at = test_random(&random) % strlen(seed), cut = test_random(&random) % 4;
        add(&b, seed, at);
        add_str(&b, pieces[test_random(&random) % (sizeof pieces / sizeof pieces[0])]);
        add_str(&b, seed + size_min(at + cut, strlen(seed)));
        parse_checked(b.data, b.n, SEED_DATA);
        free(b.data);
    }
}

/* ---- size ------------------------------------------------------------------------------------------------------------------------- */

/* n tensors of 16 bytes with names as long as real ones. */
static struct bytes make_many(size_t n)
{
    struct bytes b = { 0 };
    for (size_t i = 0; i < n; i++) {
        char entry[200];
        snprintf(entry, sizeof entry,
                 "%c\"model.layers.%zu.mlp.experts.%zu.down_proj.weight\":{\"dtype\":\"BF16\",\"shape\":[4,2],\"data_offsets\":[%zu,%zu]}",
                 i ? ',' : '{', i / 100, i % 100, i * 16, i * 16 + 16);
        add_str(&b, entry);
    }
    add_str(&b, "}");
    struct bytes file = make_file(b.data, b.n, n * 16);
    free(b.data);
    return file;
}

static void open_many(size_t n, double limit)
{
    const char *path = store(make_many(n));
    struct container *container = NULL;
    struct err err;
    double start = seconds();
    assert_ok(container_open(&io_system, path, &container, &err));
    double took = seconds() - start;
    assert_int_equal(container->n_tensors, n);
    assert_int_equal(container_find(container, "model.layers.7.mlp.experts.42.down_proj.weight"), 742);
    container_close(container);
    print_message("%zu tensors: %.3f s\n", n, took);
    assert_true(took < limit);
}

static long peak_kb(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

/* The file is made by a child, so that the peak of this process is that of opening it. Runs first. */
static void many_tensors_fit_in_memory(void **state)
{
    (void)state;
    const char *path = store(make_many(100000)); /* its 13 MB count here too: memory is not handed back */
    struct container *container = NULL;
    struct err err;
    assert_ok(container_open(&io_system, path, &container, &err));
    container_close(container);
    print_message("peak %ld kB\n", peak_kb());
    if (!SANITIZED) assert_true(peak_kb() < 5 * 64 * 1024L);
}

static void many_tensors_open_quickly(void **state)
{
    (void)state;
    open_many(100000, 5 * 0.5);
    open_many(600000, 5 * 3.0);
}

static void hostile_headers_end_quickly(void **state)
{
    (void)state;
    static const struct {
        const char *what, *begin, *repeated, *end;
        size_t nbytes;
        enum status status;
        const char *part;
    } cases[] = {
        { "exactly the limit", "{}", " ", "", 100000000, OK, "" },
        { "blanks", "  ", " ", "{}", 100000000, OK, "" },
        { "zero bytes", "{", "", "", 100000000, ERR_DATA, "key" },
        { "0,0,0", "{\"a\":[0", ",0", "]}", 100000000, ERR_DATA, "more than 1048576 values" },
        { "empty lists", "{\"a\":[[]", ",[]", "]}", 100000000, ERR_DATA, "more than 1048576 values" },
        { "one number", "{\"a\":1", "0", "}", 100000000, ERR_DATA, "1024 characters" },
        { "one name", "{\"a", "a", "\":0}", 100000000, ERR_UNSUPPORTED, "name of 99999994 bytes" },
        { "one metadata string", "{\"__metadata__\":{\"a\":\"", "a", "\"}}", 100000000, OK, "" },
        { "brackets", "{\"a\":", "[", "", 100000000, ERR_DATA, "nested too deeply" },
        { "escapes", "{\"", "\\u0061", "\":0}", 100000000, ERR_UNSUPPORTED, "more than the limit" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bytes b = { .data = malloc(cases[i].nbytes), .capacity = cases[i].nbytes };
        struct safetensors_header header;
        struct err err = { .code = OK };
        size_t n_fixed = strlen(cases[i].begin) + strlen(cases[i].end), n_repeated = strlen(cases[i].repeated);
        assert_non_null(b.data);
        add_str(&b, cases[i].begin);
        for (size_t r = 0; n_repeated && r < (cases[i].nbytes - n_fixed) / n_repeated; r++) add(&b, cases[i].repeated, n_repeated);
        if (!n_repeated) add_fill(&b, 0, cases[i].nbytes - n_fixed);
        add_str(&b, cases[i].end);
        double start = seconds();
        enum status status = safetensors_header_parse(b.data, b.n, 0, &header, &err);
        double took = seconds() - start;
        free(b.data);
        safetensors_header_free(&header);
        if (status != cases[i].status || !strstr(err.text, cases[i].part)) fail_msg("%s: status %d, %s", cases[i].what, (int)status, err.text);
        print_message("%s: %.3f s\n", cases[i].what, took);
        assert_true(took < 5 * 2.0);
    }
}

static void a_file_at_the_length_limit(void **state)
{
    (void)state;
    struct bytes b = { 0 };
    add_u64(&b, SAFETENSORS_HEADER_MAX);
    add_str(&b, "{}");
    add_fill(&b, ' ', SAFETENSORS_HEADER_MAX - 2);
    expect("at the limit", store(b), OK, "");
}

static void a_sparse_file_of_two_terabytes(void **state)
{
    (void)state;
    static const char header[] = T(SHAPE("F32", "[524288,1048576]", "[0,2199023255552]"));
    const char *path = store(make_file(header, sizeof header - 1, 0));
    if (truncate(path, (off_t)(8 + sizeof header - 1) + ((off_t)1 << 41)) != 0) {
        print_message("no sparse files of this size here; skipped\n");
        return;
    }
    struct container *container = NULL;
    struct err err;
    assert_ok(container_open(&io_system, path, &container, &err));
    uint32_t word = 1;
    assert_ok(container_read(container, 0, ((uint64_t)1 << 41) - 4, 4, &word, &err));
    assert_int_equal(word, 0);
    assert_refused(container_read(container, 0, ((uint64_t)1 << 41) - 3, 4, &word, &err), ERR_USAGE, "exceeds its 2199023255552 bytes");
    container_close(container);
}

/* ---- an accepted file ------------------------------------------------------------------------------------------------------------- */

static void tensors_are_listed_and_read(void **state)
{
    (void)state;
    static const char header[] =
        " {\"__metadata__\":{\"format\":\"pt\"}," TENSOR("b", "U8", "[2,3]", "[4,10]") "," TENSOR("a", "F32", "[]", "[0,4]") "}";
    struct bytes b = { 0 };
    add_u64(&b, sizeof header - 1);
    add_str(&b, header);
    add(&b,
        "\x00\x00\x80\x3f"
        "BCDEFG",
        10);
    const char *path = store(b);
    struct container *container = NULL;
    struct err err;
    assert_ok(container_open(&io_system, path, &container, &err));
    assert_string_equal(container->ops->name, "safetensors");
    assert_string_equal(container->metadata_json, "{\"format\":\"pt\"}");
    assert_int_equal(container->n_tensors, 2);
    assert_int_equal(container->n_files, 1);
    assert_int_equal(container->n_blobs, 0);
    assert_int_equal(container->n_notes, 1);
    assert_non_null(strstr(container->notes[0], "begins with a blank"));
    const struct tensor *t = container->tensors;
    assert_string_equal(t[0].name, "a");
    assert_int_equal(t[0].rank, 0);
    assert_int_equal(t[0].n_weights, 1);
    assert_int_equal(tensor_rows(&t[0]), 1);
    assert_int_equal(tensor_cols(&t[0]), 1);
    assert_string_equal(t[1].name, "b");
    assert_int_equal(t[1].rank, 2);
    assert_int_equal(tensor_rows(&t[1]), 2);
    assert_int_equal(tensor_cols(&t[1]), 3);
    assert_int_equal(t[1].offset, 8 + sizeof header - 1 + 4);
    char bytes[7] = { 0 };
    assert_ok(container_read(container, 1, 1, 4, bytes, &err));
    assert_string_equal(bytes, "CDEF");
    assert_ok(container_check_unchanged(container, &err));
    container_close(container);
}

static void a_file_that_shrinks_or_changes_is_noticed(void **state)
{
    (void)state;
    const char *path = store(make_file(seeds[0], strlen(seeds[0]), SEED_DATA));
    struct container *container = NULL;
    struct err err;
    char bytes[16];
    assert_ok(container_open(&io_system, path, &container, &err));
    assert_int_equal(truncate(path, 80), 0);
    assert_refused(container_read(container, 0, 0, 16, bytes, &err), ERR_DATA, "cannot read tensor 'a' of 'x.safetensors': ");
    assert_refused(container_check_unchanged(container, &err), ERR_DATA, "changed while it was read");
    container_close(container);
}

/* ---- files of others -------------------------------------------------------------------------------------------------------------- */

static void verdicts_of_the_reference(void **state)
{
    (void)state;
    const char *list = shared_data("malformed/safetensors_rust_tests/EXPECTED.tsv");
    if (!list) return;
    char *text = read_file(list, NULL), *rest = NULL;
    size_t n_files = 0;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest), n_files++) {
        char name[200], path[4096];
        bool accept = strstr(line, "\taccept") != NULL;
        struct err err;
        *strchr(line, '\t') = '\0';
        snprintf(name, sizeof name, "malformed/safetensors_rust_tests/%s", line);
        snprintf(path, sizeof path, "%s", shared_data(name));
        enum status status = verdict(path, &err);
        if (accept != (status == OK)) fail_msg("%s: status %d, %s", line, (int)status, err.text);
    }
    free(text);
    assert_int_equal(n_files, 16);
}

static void real_files_open(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        size_t n_tensors; /* 0: any */
        enum status status;
    } files[] = {
        { "malformed/natural/dummy_param.safetensors", 1, OK },
        { "malformed/natural/lfs_pointer.gguf", 0, ERR_DATA },
        { "other/retsim/model.safetensors", 23, OK },
        { "other/silero/silero_vad_16k.safetensors", 15, OK },
        { "other/torchao_fp8_weights_multi.safetensors", 3, OK },
        { "other/model2vec/float16/model.safetensors", 1, OK },
        { "other/model2vec/float32/model.safetensors", 1, OK },
        { "other/model2vec/int8/model.safetensors", 1, OK },
        { "other/model2vec/vocab-quantized/model.safetensors", 3, OK },
        { "other/safetensors_kolanich_samples/overall.safetensors", 9, OK },
        { "other/safetensors_kolanich_samples/B.safetensors", 1, OK },
        { "other/safetensors_kolanich_samples/b.safetensors", 1, OK },
        { "other/safetensors_kolanich_samples/d.safetensors", 1, OK },
        { "other/safetensors_kolanich_samples/e.safetensors", 1, OK },
        { "other/safetensors_kolanich_samples/f.safetensors", 1, OK },
        { "other/safetensors_kolanich_samples/H.safetensors", 1, OK },
        { "other/safetensors_kolanich_samples/h.safetensors", 1, OK },
        { "other/safetensors_kolanich_samples/I.safetensors", 1, OK },
        { "other/safetensors_kolanich_samples/i.safetensors", 1, OK },
        { "llm/stories260K-hf-f32/model.safetensors", 47, OK },
        { "gguf/taesd-decoder.gguf", 67, OK },
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        const char *path = shared_data(files[i].path);
        struct container *container = NULL;
        struct err err = { .code = OK };
        if (!path) continue;
        enum status status = container_open(&io_system, path, &container, &err);
        if (status != files[i].status) fail_msg("%s: status %d, %s", path, (int)status, err.text);
        if (status != OK) continue;
        assert_int_equal(container->n_tensors, files[i].n_tensors);
        for (size_t t = 0; t < container->n_tensors; t++) {
            char byte;
            assert_ok(container_read(container, t, container->tensors[t].nbytes - 1, 1, &byte, &err));
            assert_int_equal(container_find(container, container->tensors[t].name), t);
        }
        container_close(container);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_tensors_fit_in_memory),
        cmocka_unit_test(crafted_files_get_their_verdict),
        cmocka_unit_test(every_dtype_has_its_size),
        cmocka_unit_test(length_fields),
        cmocka_unit_test(caps_on_rank_and_name),
        cmocka_unit_test(deep_nesting),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(every_byte_of_the_header_swept),
        cmocka_unit_test(every_byte_of_the_length_swept),
        cmocka_unit_test(numbers_at_their_boundaries),
        cmocka_unit_test(random_pieces),
        cmocka_unit_test(many_tensors_open_quickly),
        cmocka_unit_test(hostile_headers_end_quickly),
        cmocka_unit_test(a_file_at_the_length_limit),
        cmocka_unit_test(a_sparse_file_of_two_terabytes),
        cmocka_unit_test(tensors_are_listed_and_read),
        cmocka_unit_test(a_file_that_shrinks_or_changes_is_noticed),
        cmocka_unit_test(verdicts_of_the_reference),
        cmocka_unit_test(real_files_open),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
