/* test_stats_kind.c: reading and writing files of statistics: good ones, crafted bad ones, every file cut at every byte and with every byte changed.
 *
 * Formula: the seeds of fuzz_stats are good files of every kind, written by tests/stats_oracle.py; bad ones are built here, a row each.
 * Why this way: a row has a part of the sentence that must be there, so that a file is refused for its own reason.
 * Corner cases: a changed byte may give another good file, never a crash; what is accepted has passed stats_check.
 * Reference: smoothquant/STATS.md; the project's smoothing notes 4a, 6b, 6e 8. The real imatrix: 154 entries, 365 chunks.
 */
#include "support/support.h"

#include "smoothquant/stats_kind.h"
#include "smoothquant/zip.h"

static struct err err;

/* ---- building --------------------------------------------------------------------------------------------------------------------- */

struct bytes {
    uint8_t *data;
    size_t n;
};

static void add(struct bytes *b, const void *data, size_t n)
{
    b->data = realloc(b->data, b->n + n + 1);
    assert_non_null(b->data);
    if (n) memcpy(b->data + b->n, data, n);
    b->n += n;
}

static void add_uint(struct bytes *b, uint64_t v, unsigned nbytes)
{
    for (unsigned i = 0; i < nbytes; i++) {
        uint8_t c = (uint8_t)(v >> (8 * i) & 0xff);
        add(b, &c, 1);
    }
}

static enum status read_bytes(const struct bytes *b, struct stats_set **set)
{
    uint8_t *exact = malloc(b->n + !b->n); /* so that a sanitizer sees an over-read */
    assert_non_null(exact);
    if (b->n) memcpy(exact, b->data, b->n);
    struct stats_source source = stats_source_memory(exact, b->n);
    const struct stats_kind *kind = NULL;
    *set = NULL;
    err.text[0] = '\0';
    enum status status = stats_read(&source, 0, set, &kind, &err);
    if ((status == OK) != (*set != NULL) || (status == OK) != (err.text[0] == '\0')) fail_msg("status %d, sentence '%s'", (int)status, err.text);
    if (strchr(err.text, '\n')) fail_msg("'%s' has two lines", err.text);
    free(exact);
    return status;
}

/* Refused with this part of the sentence; part NULL: accepted. Frees b. */
static void expect(struct bytes b, enum status status, const char *part)
{
    struct stats_set *set = NULL;
    if (!part) assert_ok(read_bytes(&b, &set));
    else assert_refused(read_bytes(&b, &set), status, part);
    stats_close(set);
    free(b.data);
}

static struct bytes seed(const char *name)
{
    char path[256];
    struct bytes b;
    snprintf(path, sizeof path, "fuzz/corpus/stats/%s", name);
    b.data = (uint8_t *)read_file(tests_path(path), &b.n);
    return b;
}

static struct stats_set *open_seed(const char *name)
{
    struct bytes b = seed(name);
    struct stats_set *set = NULL;
    assert_ok(read_bytes(&b, &set));
    free(b.data);
    return set;
}

/* ---- good files ------------------------------------------------------------------------------------------------------------------- */

static void test_seeds_say_what_they_hold(void **state)
{
    (void)state;
    struct stats_set *set = open_seed("dat");
    const struct stats_entry *entry = stats_find(set, "blk.0.attn_q.weight");
    assert_non_null(entry);
    assert_int_equal(entry->counts[0], 3 * 512);
    assert_true(entry->values[STATS_SUM2][0] == 1.5 * 512 && entry->values[STATS_SUM2][2] == 4.0 * 512);
    assert_int_equal(stats_find(set, "blk.0.ffn_down.weight")->counts[0], 0);
    assert_int_equal(set->chunk_count, 7);
    assert_string_equal(set->datasets[0], "text");
    stats_close(set);

    set = open_seed("gguf");
    entry = stats_find(set, "a");
    assert_true(entry->n_mat == 2 && entry->n_in == 3 && entry->counts[0] == 10 && entry->counts[1] == 0 && entry->values[STATS_SUM2][5] == 5.0);
    assert_true(set->n_datasets == 2 && set->chunk_count == 5 && set->chunk_size == 512);
    stats_close(set);

    set = open_seed("gguf_sums");
    assert_true(stats_find(set, "a")->values[STATS_SUM2][2] == 2.0 && set->chunk_count == UINT64_MAX);
    stats_close(set);

    set = open_seed("safetensors");
    entry = stats_find(set, "w");
    assert_true(entry->values[STATS_MIN][3] == -1.0 && entry->hist && entry->gram[5] == 1.0f && entry->n_sample == 1 && entry->sample[1] == 0x4000);
    assert_ptr_equal(stats_find(set, "k"), entry);
    assert_string_equal(stats_pair(set, "tool"), "t");
    assert_true(entry->counts[0] == 512 && entry->counts[1] == 0);
    stats_close(set);

    set = open_seed("act_scales");
    entry = stats_find(set, "model.layers.0.self_attn.q_proj.weight");
    assert_true(entry->values[STATS_ABSMAX][1] == 2.0 && !entry->counts && !entry->values[STATS_SUM2] && set->n_entries == 2);
    stats_close(set);

    set = open_seed("awq");
    assert_true(stats_find(set, "k.weight") == stats_find(set, "q.weight") && stats_find(set, "q.weight")->values[STATS_SCALE][1] == 2.0);
    assert_true(stats_find(set, "o.weight")->values[STATS_SCALE][0] == 0.5);
    assert_non_null(strstr(set->notes[0], "1 clipping limits"));
    stats_close(set);

    set = open_seed("state_dict"); /* BF16 */
    assert_true(stats_find(set, "a.weight")->values[STATS_ABSMAX][1] == 2.0);
    stats_close(set);
}

static const char *const seeds[] = { "dat",        "dat_bare",     "gguf", "gguf_sums", "safetensors", "safetensors_plain",
                                     "act_scales", "act_scales_4", "awq",  "state_dict" };

static void test_cut_and_changed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof seeds / sizeof seeds[0]; i++) {
        struct bytes b = seed(seeds[i]);
        const size_t n = b.n;
        for (b.n = 0; b.n < n; b.n++) {
            struct stats_set *set = NULL;
            enum status status = read_bytes(&b, &set);
            bool is_short_dat = strncmp(seeds[i], "dat", 3) == 0 && status == OK; /* the trailer may be missing */
            bool is_unpadded = strncmp(seeds[i], "gguf", 4) == 0 && status == OK;
            if (status == OK && !is_short_dat && !is_unpadded) fail_msg("%s cut at %zu is accepted", seeds[i], b.n);
            stats_close(set);
        }
        for (size_t at = 0; at < n && at < 1200; at++)
            for (unsigned bit = 0; bit < 8; bit++) {
                struct stats_set *set = NULL;
                b.data[at] ^= (uint8_t)(1u << bit);
                read_bytes(&b, &set);
                stats_close(set);
                b.data[at] ^= (uint8_t)(1u << bit);
            }
        uint8_t byte = 0;
        add(&b, &byte, 1);
        struct stats_set *set = NULL;
        if (read_bytes(&b, &set) == OK) fail_msg("%s with a byte behind it is accepted", seeds[i]);
        free(b.data);
    }
}

static void test_foreign(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } rows[] = {
        { "", "is empty" },
        { "hello", "shorter than 8 bytes" },
        { "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-LFS" },
        { "<!DOCTYPE html><html></html>", "web page" },
        { "some other text that is nothing at all", "no file of statistics" },
        { "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9", "before version 1.6" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct bytes b = { 0 };
        struct stats_set *set = NULL;
        add(&b, rows[i].text, strlen(rows[i].text));
        enum status status = read_bytes(&b, &set);
        if (status == OK || !strstr(err.text, rows[i].part)) fail_msg("'%s' lacks '%s'", err.text, rows[i].part);
        free(b.data);
    }
}

/* ---- .dat ------------------------------------------------------------------------------------------------------------------------- */

/* Numbers separated by blanks: iN an i32, fHEX an f32 by its bits, sTEXT a length and a text, rTEXT a text. */
static struct bytes dat(const char *script)
{
    struct bytes b = { 0 };
    while (*script) {
        size_t n = strcspn(script, " ");
        if (*script == 'i') add_uint(&b, (uint64_t)strtoll(script + 1, NULL, 10), 4);
        if (*script == 'f') add_uint(&b, strtoull(script + 1, NULL, 16), 4);
        if (*script == 's') add_uint(&b, n - 1, 4);
        if (*script == 's' || *script == 'r') add(&b, script + 1, n - 1);
        script += n + (script[n] == ' ');
    }
    return b;
}

static void test_bad_dat(void **state)
{
    (void)state;
    static const struct {
        const char *script, *part;
    } rows[] = {
        { "i1 sw i1 i1 f3f800000", NULL },
        { "i1 sw i1 i1 f3f800000 i3", NULL },
        { "i1 sw i1 i1 f3f800000 i3 sname", NULL },
        { "i1 sw i1 i1 f3f800000 i3 i0", NULL },
        { "i1 sw i0 i1 f3f800000", NULL },
        { "i2 sw i1 i1 f3f800000 sw i1 i1 f3f800000 i0", "'w' is there twice" },
        { "i2 sw i1 i1 f3f800000 i0 rxxxxxxxxxxxxx", "the length of its name is 0" },
        { "i1 sw i-1 i1 f3f800000", "its number of calls is -1" },
        { "i1 sw i1 i0 f3f800000", "its number of values is 0" },
        { "i1 sw i1 i-5 f3f800000", "its number of values is -5" },
        { "i1 sw i1 i2 f3f800000", "claims 2 values, 4 bytes follow" },
        { "i1 sw i1 i2147483647 f3f800000", "claims 2147483647 values" },
        { "i1 sw i1 i1 f7fc00000", "'w': in_sum2 of channel 0 is NaN" },
        { "i1 sw i1 i1 f7f800000", "NaN or Inf" },
        { "i1 sw i1 i1 fbf800000", "negative" },
        { "i1 sw i1 i1 f3f800000 i-2", "the number of chunks" },
        { "i1 sw i1 i1 f3f800000 i3 i-1", "the length of the dataset's name" },
        { "i1 sw i1 i1 f3f800000 i3 i9 rabc", "the dataset's name: 9 bytes" },
        { "i1 sw i1 i1 f3f800000 i3 sabc rdef", "3 bytes follow the dataset's name" },
        { "i1 sw i1 i1 f3f800000 rab", "the number of chunks behind the entries: 4 bytes" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) expect(dat(rows[i].script), ERR_DATA, rows[i].part);
}

/* ---- safetensors ------------------------------------------------------------------------------------------------------------------ */

/* json with ' for ", n_data bytes of data. */
static struct bytes safetensors(const char *json, size_t n_data)
{
    struct bytes b = { 0 };
    add_uint(&b, strlen(json), 8);
    add(&b, json, strlen(json));
    for (size_t i = 8; i < b.n; i++)
        if (b.data[i] == '\'') b.data[i] = '"';
    for (; n_data > 0; n_data--) add_uint(&b, 0, 1);
    return b;
}

#define F32_2 "'dtype':'F32','shape':[2]"
#define OURS "'__metadata__':{'format':'llmq-actstats','version':'1'"

static void test_bad_safetensors(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        size_t n_data;
        const char *part;
    } rows[] = {
        { "{'w.in_sum2':{" F32_2 ",'data_offsets':[0,8]}}", 8, NULL },
        { "{'w':{" F32_2 ",'data_offsets':[0,8]}}", 8, "holds no statistics" },
        { "{'in_sum2':{" F32_2 ",'data_offsets':[0,8]}}", 8, "holds no statistics" },
        { "{" OURS "}}", 0, "no entries" },
        { "{'__metadata__':{'format':'llmq-actstats'},'w.in_sum2':{" F32_2 ",'data_offsets':[0,8]}}", 8, "version is missing" },
        { "{'__metadata__':{'format':'llmq-actstats','version':'2'},'w.in_sum2':{" F32_2 ",'data_offsets':[0,8]}}", 8, "version is 2" },
        { "{'__metadata__':{'format':'pt'},'w.in_sum2':{" F32_2 ",'data_offsets':[0,8]}}", 8, NULL },
        { "{" OURS ",'alias':'{}'},'w.in_sum2':{" F32_2 ",'data_offsets':[0,8]}}", 8, NULL },
        { "{" OURS ",'alias':'[]'},'w.in_sum2':{" F32_2 ",'data_offsets':[0,8]}}", 8, "no object" },
        { "{" OURS ",'alias':'{'},'w.in_sum2':{" F32_2 ",'data_offsets':[0,8]}}", 8, "'alias'" },
        { "{" OURS ",'alias':'{\\'k\\':\\'x\\'}'},'w.in_sum2':{" F32_2 ",'data_offsets':[0,8]}}", 8, "which is no entry" },
        { "{" OURS ",'alias':'{\\'w\\':\\'w\\'}'},'w.in_sum2':{" F32_2 ",'data_offsets':[0,8]}}", 8, "twice" },
        { "{" OURS ",'alias':'{\\'k\\':\\'w\\',\\'l\\':\\'k\\'}'},'w.in_sum2':{" F32_2 ",'data_offsets':[0,8]}}", 8, "which is no entry" },
        { "{" OURS ",'seq_len':'x'},'w.in_sum2':{" F32_2 ",'data_offsets':[0,8]}}", 8, "seq_len 'x' is no number" },
        { "{" OURS ",'datasets':'3'},'w.in_sum2':{" F32_2 ",'data_offsets':[0,8]}}", 8, "no list" },
        { "{'w.counts':{'dtype':'I64','shape':[1],'data_offsets':[0,8]}}", 8, "no field with a value a channel" },
        { "{'w.in_sum2':{'dtype':'I32','shape':[2],'data_offsets':[0,8]}}", 8, "is I32, no type for statistics" },
        { "{'w.in_sum2':{'dtype':'F32','shape':[2,0],'data_offsets':[0,0]}}", 0, "no channels" },
        { "{'w.in_sum2':{" F32_2 ",'data_offsets':[0,8]},'w.in_sum':{'dtype':'F32','shape':[1],'data_offsets':[8,12]}}", 12, "shape 1 x 1" },
        { "{'w.in_sum2':{" F32_2 ",'data_offsets':[0,8]},'w.counts':{" F32_2 ",'data_offsets':[8,16]}}", 16, "'w.counts' has the shape" },
        { "{'w.in_sum2':{'dtype':'F32','shape':[2,1],'data_offsets':[0,8]},'w.counts':{'dtype':'F32','shape':[1],'data_offsets':[8,12]}}", 12, NULL },
        { "{'w.in_sum2':{" F32_2 ",'data_offsets':[0,8]},'w.sums':{" F32_2 ",'data_offsets':[8,16]}}", 16, "in_sum2 twice" },
        { "{'w.in_sum2':{" F32_2 ",'data_offsets':[0,8]},'w.in_hist':{" F32_2 ",'data_offsets':[8,16]}}", 16, "in_hist" },
        { "{'w.in_sum2':{" F32_2 ",'data_offsets':[0,8]},'w.in_gram':{" F32_2 ",'data_offsets':[8,16]}}", 16, "in_gram" },
        { "{'w.in_sum2':{" F32_2 ",'data_offsets':[0,8]},'w.in_sample':{" F32_2 ",'data_offsets':[8,16]}}", 16, "not BF16" },
        { "{'w.in_sum2':{" F32_2 ",'data_offsets':[0,8]},'w.other':{" F32_2 ",'data_offsets':[8,16]}}", 16, NULL },
        { "{'w.in_sum2':{" F32_2 ",'data_offsets':[0,8]}}", 9, "" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct bytes b = safetensors(rows[i].json, rows[i].n_data);
        struct stats_set *set = NULL;
        enum status status = read_bytes(&b, &set);
        if ((status == OK) != (rows[i].part == NULL) || (rows[i].part && !strstr(err.text, rows[i].part)))
            fail_msg("%s: status %d, '%s'", rows[i].json, (int)status, err.text);
        stats_close(set);
        free(b.data);
    }
    /* a count that is no whole number, and a name with a control character */
    struct bytes b =
        safetensors("{'w.in_sum2':{'dtype':'F32','shape':[1],'data_offsets':[0,4]},'w.counts':{'dtype':'F32','shape':[1],'data_offsets':[4,8]}}", 8);
    memcpy(b.data + b.n - 4, "\0\0\0\x3f", 4);
    expect(b, ERR_DATA, "'w.counts': count 0 is no whole number");
}

/* ---- GGUF ------------------------------------------------------------------------------------------------------------------------- */

static void test_bad_gguf(void **state)
{
    (void)state;
    static const struct {
        size_t n;
        const char *find, *put, *part;
    } rows[] = {
        { 7, "imatrix", "imatriX", "of type 'imatriX', not imatrix" },
        { 16, "imatrix.datasets", "imatrix.dataset_", NULL },
        { 9, "a.in_sum2", "b.in_sum2", "'a' has no field" },
        { 9, "a.in_sum2", "a.in_sum_", "'a' has no field" },
        { 8, "a.counts", "a.count_", NULL },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct bytes b = seed("gguf");
        size_t at = 0;
        while (at + rows[i].n <= b.n && (memcmp(b.data + at, rows[i].find, rows[i].n) != 0 || (i == 0 && at < 40))) at++;
        assert_true(at + rows[i].n <= b.n);
        memcpy(b.data + at, rows[i].put, rows[i].n);
        expect(b, i == 0 ? ERR_UNSUPPORTED : ERR_DATA, rows[i].part);
    }
    struct bytes b = { 0 };
    size_t n = 0;
    b.data = (uint8_t *)read_file(tests_path("fuzz/corpus/gguf/tensors"), &n);
    b.n = n;
    expect(b, ERR_UNSUPPORTED, "of type 'model', not imatrix");
}

/* ---- .pt -------------------------------------------------------------------------------------------------------------------------- */

struct part {
    const char *name;
    const char *data;
    size_t n;
    unsigned method, flags;
    bool wrong_crc, wrong_local_name;
    uint32_t size_off; /* added to the size in the directory */
};

/* CRC-32 bit by bit. */
static uint32_t crc_of(const char *data, size_t n)
{
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < n; i++) {
        crc ^= (unsigned char)data[i];
        for (unsigned k = 0; k < 8; k++) crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
    }
    return ~crc;
}

static struct bytes zip_of(const struct part *parts, size_t n)
{
    struct bytes b = { 0 }, directory = { 0 };
    for (size_t i = 0; i < n; i++) {
        const struct part *p = &parts[i];
        uint32_t crc = crc_of(p->data, p->n) ^ (p->wrong_crc ? 1u : 0u);
        size_t local = b.n, n_name = strlen(p->name);
        add(&b, "PK\3\4", 4);
        add_uint(&b, 20, 2);
        add_uint(&b, p->flags, 2);
        add_uint(&b, p->method, 2);
        add_uint(&b, 0, 4);
        add_uint(&b, crc, 4);
        add_uint(&b, p->n, 4);
        add_uint(&b, p->n, 4);
        add_uint(&b, n_name, 2);
        add_uint(&b, 3, 2);
        add(&b, p->wrong_local_name ? "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz" : p->name, n_name);
        add(&b, "\0\0\0", 3); /* an extra field, as torch aligns with */
        add(&b, p->data, p->n);
        add(&directory, "PK\1\2", 4);
        add_uint(&directory, 20, 2);
        add_uint(&directory, 20, 2);
        add_uint(&directory, p->flags, 2);
        add_uint(&directory, p->method, 2);
        add_uint(&directory, 0, 4);
        add_uint(&directory, crc, 4);
        add_uint(&directory, p->n + p->size_off, 4);
        add_uint(&directory, p->n + p->size_off, 4);
        add_uint(&directory, n_name, 2);
        add_uint(&directory, 0, 2);
        add_uint(&directory, 0, 2);
        add_uint(&directory, 0, 8);
        add_uint(&directory, local, 4);
        add(&directory, p->name, n_name);
    }
    size_t at = b.n;
    add(&b, directory.data, directory.n);
    add(&b, "PK\5\6\0\0\0\0", 8);
    add_uint(&b, n, 2);
    add_uint(&b, n, 2);
    add_uint(&b, directory.n, 4);
    add_uint(&b, at, 4);
    add_uint(&b, 0, 2);
    free(directory.data);
    return b;
}

#define TEXT1(c) "X\1\0\0\0" c
/* A tensor of [2] in storage "0"; numel, offset, size, stride are one-byte opcodes. */
#define TENSOR_OF(type, numel, offset, size, stride)                                                                                                 \
    "ctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\n" type "\nX\1\0\0\0000X\3\0\0\0cpuK" numel "tQK" offset "K" size "\x85K" stride    \
    "\x85\x89"                                                                                                                                       \
    "ccollections\nOrderedDict\n)RtR"
#define TENSOR TENSOR_OF("FloatStorage", "\2", "\0", "\2", "\1")
#define PROTO "\x80\x02"

static const char values[8] = { 0, 0, (char)0x80, 0x3f, 0, 0, 0, 0x40 }; /* 1, 2 */

static void test_bad_pickles(void **state)
{
    (void)state;
#define ROW(text, part)                                                                                                                              \
    {                                                                                                                                                \
        text, sizeof text - 1, part                                                                                                                  \
    }
    static const struct {
        const char *pickle;
        size_t n;
        const char *part;
    } rows[] = {
        ROW(PROTO "}" TEXT1("a") TENSOR "s.", NULL),
        ROW(PROTO "}(" TEXT1("a") TENSOR TEXT1("b") TENSOR "u.", NULL),
        ROW(PROTO "}.", "no entries"),
        ROW(PROTO "}" TEXT1("a") "cos\nsystem\n" TEXT1("x") "\x85Rs.", "it wants 'os.system'"),
        ROW(PROTO "}" TEXT1("a") "cbuiltins\neval\n" TEXT1("x") "\x85Rs.", "it wants 'builtins.eval'"),
        ROW(PROTO "ctorch\nload\n.", "it wants 'torch.load'"),
        ROW(PROTO "ctorch\nLongStorage\n.", "it wants 'torch.LongStorage'"),
        ROW(PROTO "(i__main__\nX\n.", "opcode INST"),
        ROW(PROTO "}}\x81.", "opcode NEWOBJ"),
        ROW(PROTO "I1\n.", "opcode INT"),
        ROW(PROTO "\xff.", "0xff, no opcode"),
        ROW(PROTO, "ends without STOP"),
        ROW(PROTO "}}.", "values are left"),
        ROW(PROTO "(.", "its stack is empty"),
        ROW(PROTO ".", "its stack is empty"),
        ROW(PROTO "t.", "no mark"),
        ROW(PROTO "X\xff\xff\xff\x7f", "a text of 2147483647 bytes"),
        ROW(PROTO "X\1", "ends inside BINUNICODE"),
        ROW(PROTO "cabc", "a name without an end"),
        ROW(PROTO "h\0.", "memo number 0 was never put"),
        ROW(PROTO "}r\xff\xff\xff\xff.", "over the limit"),
        ROW("\x80\x06}.", "its protocol is 6"),
        ROW(PROTO PROTO "}.", "PROTO inside"),
        ROW(PROTO "]" TEXT1("a") "a.", "it holds a list"),
        ROW(PROTO "K\5.", "it holds an int"),
        ROW(PROTO "}" TEXT1("a") "K\5s.", "'a' is an int, not a tensor"),
        ROW(PROTO "}K\5" TENSOR "s.", "a key of its dict is an int"),
        ROW(PROTO "](" TEXT1("a") "u.", "items for a dict that is a list"),
        ROW(PROTO "}(" TEXT1("a") "u.", "items for a dict"),
        ROW(PROTO "}" TEXT1("a") "a.", "items for a list"),
        ROW(PROTO TEXT1("a") "Q.", "no storage"),
        ROW(PROTO "K\1K\2R.", "REDUCE of an int"),
        ROW(PROTO "ctorch\nFloatStorage\n)R.", "FloatStorage: it is not called"),
        ROW(PROTO "ccollections\nOrderedDict\nK\1\x85R.", "OrderedDict: it has arguments"),
        ROW(PROTO "ctorch._utils\n_rebuild_tensor_v2\n)R.", "number of arguments"),
        ROW(PROTO "ctorch._utils\n_rebuild_parameter\n)R.", "its arguments"),
        ROW(PROTO "]}b.", "BUILD of a list"),
        ROW(PROTO "}" TEXT1("a") TENSOR_OF("FloatStorage", "\2", "\1", "\2", "\1") "s.", "goes beyond its storage"),
        ROW(PROTO "}" TEXT1("a") TENSOR_OF("FloatStorage", "\2", "\0", "\3", "\1") "s.", "goes beyond its storage"),
        ROW(PROTO "}" TEXT1("a") TENSOR_OF("FloatStorage", "\2", "\0", "\2", "\0") "s.", "not contiguous"),
        ROW(PROTO "}" TEXT1("a") TENSOR_OF("FloatStorage", "\2", "\0", "\0", "\1") "s.", "no vector"),
        ROW(PROTO "}" TEXT1("a") TENSOR_OF("FloatStorage", "\3", "\0", "\2", "\1") "s.", "has 8 bytes for 3 values of F32"),
        ROW(PROTO "}" TEXT1("a") TENSOR_OF("HalfStorage", "\2", "\0", "\2", "\1") "s.", "has 8 bytes for 2 values of F16"),
        ROW(PROTO "}" TEXT1("a") TENSOR_OF("DoubleStorage", "\1", "\0", "\1", "\1") "s.", NULL),
        ROW(PROTO "}(" TEXT1("a") TENSOR TEXT1("a") TENSOR "u.", "'a.weight' is there twice"),
        ROW(PROTO "}q\0" TEXT1("a") "h\0sh\0.", "values are left"),
        ROW(PROTO "}q\0" TEXT1("a") "h\0s.", "'a' is a dict, not a tensor"), /* a dict that contains itself */
        ROW(PROTO "}X\5\0\0\0scale](" TEXT1("n") TEXT1("q") "\x85" TENSOR "\x87"
                                                            "es.",
            NULL),
        ROW(PROTO "}X\5\0\0\0scale](" TEXT1("n") ")" TENSOR "\x87"
                                                 "es.",
            "without consumers"),
        ROW(PROTO "}X\5\0\0\0scale](" TEXT1("n") "es.", "no tuple of 3"),
        ROW(PROTO "}X\5\0\0\0scale](" TEXT1("n") "K\1\x85" TENSOR "\x87"
                                                 "es.",
            "a consumer that is an int"),
    };
#undef ROW
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct part parts[] = { { .name = "a/data.pkl", .data = rows[i].pickle, .n = rows[i].n },
                                      { .name = "a/data/0", .data = values, .n = 8 } };
        struct bytes b = zip_of(parts, 2);
        struct stats_set *set = NULL;
        enum status status = read_bytes(&b, &set);
        if ((status == OK) != (rows[i].part == NULL) || (rows[i].part && !strstr(err.text, rows[i].part)))
            fail_msg("pickle %zu: status %d, '%s' lacks '%s'", i, (int)status, err.text, rows[i].part ? rows[i].part : "");
        stats_close(set);
        free(b.data);
    }
}

static void test_deep_pickle(void **state)
{
    (void)state;
    struct bytes pickle = { 0 };
    add(&pickle, PROTO, 2);
    for (unsigned i = 0; i < 2000; i++) add(&pickle, "(", 1);
    struct part parts[] = { { .name = "a/data.pkl", .data = (const char *)pickle.data, .n = pickle.n } };
    expect(zip_of(parts, 1), ERR_UNSUPPORTED, "nested deeper");
    pickle.n = 2 + 1200000;
    pickle.data = realloc(pickle.data, pickle.n);
    assert_non_null(pickle.data);
    memset(pickle.data + 2, 'N', pickle.n - 2);
    parts[0].data = (const char *)pickle.data;
    parts[0].n = pickle.n;
    expect(zip_of(parts, 1), ERR_UNSUPPORTED, "more than 1048576 values");
    free(pickle.data);
}

static void test_bad_zips(void **state)
{
    (void)state;
#define PKL(...)                                                                                                                                     \
    {                                                                                                                                                \
        .name = "a/data.pkl", .data = PROTO "}" TEXT1("a") TENSOR "s.", .n = sizeof(PROTO "}" TEXT1("a") TENSOR "s.") - 1, __VA_ARGS__               \
    }
#define DATA(...)                                                                                                                                    \
    {                                                                                                                                                \
        .name = "a/data/0", .data = values, .n = 8, __VA_ARGS__                                                                                      \
    }
    static const struct {
        struct part parts[3];
        size_t n;
        const char *part;
    } rows[] = {
        { { PKL(.flags = 0), DATA(.flags = 0) }, 2, NULL },
        { { PKL(.flags = 0) }, 1, "its storage '0' is not in the file" },
        { { DATA(.flags = 0) }, 1, "without data.pkl" },
        { { PKL(.method = 8), DATA(.flags = 0) }, 2, "'a/data.pkl': it is compressed (method 8)" },
        { { PKL(.flags = 1), DATA(.flags = 0) }, 2, "encrypted" },
        { { PKL(.wrong_crc = true), DATA(.flags = 0) }, 2, "its checksum" },
        { { PKL(.flags = 0), DATA(.wrong_crc = true) }, 2, "entry 'a/data/0': its checksum" },
        { { PKL(.wrong_local_name = true), DATA(.flags = 0) }, 2, "another name" },
        { { PKL(.flags = 0), DATA(.size_off = 100000) }, 2, "reach into the directory" },
        { { PKL(.flags = 0), DATA(.size_off = 1) }, 2, "reach into the directory" },
        { { PKL(.flags = 0), DATA(.flags = 0), DATA(.flags = 0) }, 3, "'a/data/0' is there twice" },
        { { PKL(.flags = 0), DATA(.flags = 0), { .name = "b/data.pkl", .data = "", .n = 0 } }, 3, "two entries data.pkl" },
        { { PKL(.flags = 0), DATA(.flags = 0), { .name = "a/byteorder", .data = "big", .n = 3 } }, 3, "byte order is 'big'" },
        { { PKL(.flags = 0), DATA(.flags = 0), { .name = "a/byteorder", .data = "little", .n = 6 } }, 3, NULL },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct bytes b = zip_of(rows[i].parts, rows[i].n);
        struct stats_set *set = NULL;
        enum status status = read_bytes(&b, &set);
        if ((status == OK) != (rows[i].part == NULL) || (rows[i].part && !strstr(err.text, rows[i].part)))
            fail_msg("zip %zu: status %d, '%s' lacks '%s'", i, (int)status, err.text, rows[i].part ? rows[i].part : "");
        stats_close(set);
        free(b.data);
    }
    assert_int_equal(zip_crc32(0, (const uint8_t *)"123456789", 9), 0xcbf43926);
    assert_int_equal(zip_crc32(zip_crc32(0, (const uint8_t *)"1234", 4), (const uint8_t *)"56789", 5), 0xcbf43926);
}

/* ---- writing ---------------------------------------------------------------------------------------------------------------------- */

static void save(const struct stats_set *set, const char *path, struct stats_left *left)
{
    assert_ok(stats_save(&io_system, set, path, true, NULL, 0, left, NULL, &err));
}

static struct stats_set *open_file(const char *path, const char *kind_name)
{
    struct stats_set *set = NULL;
    const struct stats_kind *kind = NULL;
    assert_ok(stats_open(&io_system, path, 0, &set, &kind, &err));
    assert_string_equal(kind->name, kind_name);
    return set;
}

/* Through all kinds and back to .dat: the same bytes. */
static void round_trip(const char *dir, const char *path)
{
    const char *a = temp_path(dir, "a.safetensors"), *b = temp_path(dir, "b.gguf"), *c = temp_path(dir, "c.dat");
    struct stats_left left;
    struct stats_set *set = open_file(path, "imatrix-dat");
    save(set, a, &left);
    assert_int_equal(left.n_entries + left.n_fields + left.n_pairs, 0);
    stats_close(set);
    set = open_file(a, "safetensors");
    save(set, b, &left);
    stats_close(set);
    set = open_file(b, "imatrix-gguf");
    save(set, c, &left);
    stats_close(set);
    size_t n = 0, n_back = 0;
    char *wanted = read_file(path, &n), *back = read_file(c, &n_back);
    assert_int_equal(n, n_back);
    assert_memory_equal(wanted, back, n);
    free(wanted);
    free(back);
}

static void test_round_trips(void **state)
{
    (void)state;
    char *dir = temp_dir();
    round_trip(dir, tests_path("fuzz/corpus/stats/dat_bare"));
    const char *real = shared_data("imatrix/imatrix.dat");
    if (real) {
        round_trip(dir, real);
        struct stats_set *set = open_file(real, "imatrix-dat");
        assert_int_equal(set->n_entries, 154);
        assert_int_equal(set->chunk_count, 365);
        assert_string_equal(set->datasets[0], "imatrix-training-full-3");
        stats_close(set);
    }
    temp_dir_remove(dir);
}

static void test_safetensors_keeps_everything(void **state)
{
    (void)state;
    char *dir = temp_dir();
    const char *names[] = { "safetensors", "awq", "gguf", "act_scales", "state_dict" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct stats_set *set = open_seed(names[i]);
        struct stats_left left;
        const char *first = temp_path(dir, "1.safetensors"), *second = temp_path(dir, "2.safetensors");
        size_t n = 0, m = 0;
        save(set, first, &left);
        struct stats_set *again = open_file(first, "safetensors");
        assert_int_equal(again->n_aliases, set->n_aliases);
        assert_int_equal(again->n_pairs, set->n_pairs);
        assert_int_equal(again->n_datasets, set->n_datasets);
        assert_true(again->chunk_count == set->chunk_count && again->chunk_size == set->chunk_size && again->nbytes == set->nbytes);
        for (size_t k = 0; k < set->n_entries; k++) {
            const struct stats_entry *x = &set->entries[k], *y = stats_find(again, x->name);
            for (unsigned f = 0; f < STATS_FIELD_COUNT; f++) {
                assert_true((x->values[f] != NULL) == (y->values[f] != NULL));
                if (x->values[f]) assert_memory_equal(x->values[f], y->values[f], x->n_mat * x->n_in * sizeof(double));
            }
            if (x->sample) assert_memory_equal(x->sample, y->sample, x->n_sample * x->n_in * 2);
        }
        save(again, second, &left);
        char *a = read_file(first, &n), *b = read_file(second, &m);
        assert_int_equal(n, m);
        assert_memory_equal(a, b, n);
        free(a);
        free(b);
        stats_close(set);
        stats_close(again);
    }
    temp_dir_remove(dir);
}

static void test_wide_values(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct stats_set *set = stats_new(0), *again = NULL;
    struct stats_left left;
    size_t index = 0;
    assert_ok(stats_add(set, "w", 1, 3, &index, &err));
    assert_ok(stats_make_field(set, &set->entries[0], STATS_SUM2, &err));
    assert_ok(stats_make_counts(set, &set->entries[0], &err));
    const double sums[3] = { 1e300, 0.1, 0.0 };
    memcpy(set->entries[0].values[STATS_SUM2], sums, sizeof sums);
    set->entries[0].counts[0] = 600;
    const char *path = temp_path(dir, "w.safetensors");
    save(set, path, &left);
    again = open_file(path, "safetensors");
    assert_memory_equal(again->entries[0].values[STATS_SUM2], sums, sizeof sums); /* F64, since F32 would be Inf */
    stats_close(again);
    assert_refused(stats_save(&io_system, set, temp_path(dir, "w.gguf"), true, NULL, 0, &left, NULL, &err), ERR_UNSUPPORTED, "beyond F32");
    assert_refused(stats_save(&io_system, set, temp_path(dir, "w.dat"), true, NULL, 0, &left, NULL, &err), ERR_UNSUPPORTED, "beyond F32");
    assert_false(file_exists(temp_path(dir, "w.dat")));
    /* 600 tokens are 2 calls of 512: the mean stays, E[x^2] = 6 / 600 */
    set->entries[0].values[STATS_SUM2][0] = 6;
    save(set, temp_path(dir, "w.dat"), &left);
    again = open_file(temp_path(dir, "w.dat"), "imatrix-dat");
    assert_int_equal(again->entries[0].counts[0], 1024);
    assert_true(again->entries[0].values[STATS_SUM2][0] == (double)0.02f * 512); /* 6 * 2 / 600 = 0.02 */
    stats_close(again);
    stats_close(set);
    temp_dir_remove(dir);
}

static void test_what_cannot_be_held(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct stats_left left;
    struct stats_set *set = open_seed("act_scales");
    assert_refused(stats_save(&io_system, set, temp_path(dir, "x.dat"), true, NULL, 0, &left, NULL, &err), ERR_UNSUPPORTED, "in_sum2 and counts");
    assert_refused(stats_save(&io_system, set, temp_path(dir, "x.gguf"), true, NULL, 0, &left, NULL, &err), ERR_UNSUPPORTED, "in_sum2 and counts");
    assert_refused(stats_save(&io_system, set, temp_path(dir, "x.pt"), true, NULL, 0, &left, NULL, &err), ERR_USAGE, "ends in none of");
    assert_false(file_exists(temp_path(dir, "x.dat")));
    stats_close(set);
    set = open_seed("safetensors"); /* counts 512 and 0; an alias */
    save(set, temp_path(dir, "x.dat"), &left);
    assert_int_equal(left.n_fields, 6);
    assert_int_equal(left.n_pairs, 1);
    struct stats_set *again = open_file(temp_path(dir, "x.dat"), "imatrix-dat");
    assert_int_equal(again->n_entries, 2); /* the alias is an entry of its own */
    const struct stats_entry *entry = stats_find(again, "k");
    assert_true(entry->n_in == 4 && entry->values[STATS_SUM2][0] == 1.0 &&
                entry->values[STATS_SUM2][3] == 512.0); /* 1 x 1 call for the missing expert */
    stats_close(again);
    stats_close(set);
    temp_dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seeds_say_what_they_hold),
        cmocka_unit_test(test_cut_and_changed),
        cmocka_unit_test(test_foreign),
        cmocka_unit_test(test_bad_dat),
        cmocka_unit_test(test_bad_safetensors),
        cmocka_unit_test(test_bad_gguf),
        cmocka_unit_test(test_bad_pickles),
        cmocka_unit_test(test_deep_pickle),
        cmocka_unit_test(test_bad_zips),
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_safetensors_keeps_everything),
        cmocka_unit_test(test_wide_values),
        cmocka_unit_test(test_what_cannot_be_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
