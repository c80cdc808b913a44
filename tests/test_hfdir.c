/* test_hfdir.c: model folders and index files: which weights are taken, that index and shards agree, path tricks, small files, notes.
 *
 * Formula: a case is a list of folder entries and the verdict on the folder. An entry is written as
 *   NAME:a b c   a safetensors file with the tensors a, b, c (U8, 4 bytes each)     NAME=text   a file with this text
 *   NAME>target  a link                                                            NAME/       a folder      NAME|   a FIFO
 * Why this way: the verdicts are one table; every case is also run with a recorder in the table of file calls, so that no file outside the folder
 * is opened by name in any of them.
 * Corner cases: the same folder is opened by its own path and, where it has one, by its index file.
 * Reference: the project's reliability notes 1.4, 5.1 rows 3 and 9.
 */
#include "support/support.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"
#include "base/text.h"
#include "container/blob_rule.h"
#include "container/container.h"
#include "container/shard_index.h"

#define IDX "model.safetensors.index.json"

/* ---- building folders ------------------------------------------------------------------------------------------------------------- */

/* The header and data of a safetensors file with the tensors named in list, separated by blanks. */
static void write_shard(const char *path, const char *list)
{
    struct text text = text_make((size_t)1 << 28);
    size_t n_tensors = 0;
    uint8_t zeros[8] = { 0 };
    text_add(&text, "{");
    for (const char *at = list; *at; at += strspn(at, " ")) {
        size_t n = strcspn(at, " ");
        text_add(&text, "%s\"%.*s\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[%zu,%zu]}", n_tensors ? "," : "", (int)n, at, n_tensors * 4,
                 n_tensors * 4 + 4);
        n_tensors++;
        at += n;
    }
    text_add(&text, "}");
    struct text file = text_make((size_t)1 << 28);
    uint64_t length = text.nbytes;
    for (unsigned i = 0; i < 8; i++) {
        char byte = (char)(length >> (8 * i));
        text_add_bytes(&file, &byte, 1);
    }
    text_add_bytes(&file, text.data, text.nbytes);
    for (size_t i = 0; i < n_tensors; i++) text_add_bytes(&file, zeros, 4);
    assert_false(file.failed);
    write_file(path, file.data, file.nbytes);
    text_free(&text);
    text_free(&file);
}

static void make_entry(const char *dir, const char *entry)
{
    size_t n = strcspn(entry, ":=>|/");
    char path[4096];
    snprintf(path, sizeof path, "%s/%.*s", dir, (int)n, entry);
    const char *rest = entry + n + 1;
    switch (entry[n]) {
    case ':':
        write_shard(path, rest);
        break;
    case '=':
        write_file(path, rest, strlen(rest));
        break;
    case '>':
        assert_int_equal(symlink(rest, path), 0);
        break;
    case '/':
        assert_int_equal(mkdir(path, 0700), 0);
        break;
    case '|':
        assert_int_equal(mkfifo(path, 0600), 0);
        break;
    default:
        fail_msg("bad entry %s", entry);
    }
}

/* ---- a recorder of what is opened ------------------------------------------------------------------------------------------------- */

static const char *watched_dir;
static unsigned n_outside;

/* Counts names that are not DIR/NAME with a plain NAME. */
static int recording_open(const char *path, int flags, mode_t mode)
{
    size_t n = strlen(watched_dir);
    bool inside = strncmp(path, watched_dir, n) == 0 && path[n] == '/' && path_is_plain_name(path + n + 1, strlen(path + n + 1));
    if (!inside) n_outside++;
    return io_system.open(path, flags, mode);
}

static struct io_calls recorder(const char *dir)
{
    struct io_calls io = io_system;
    io.open = recording_open;
    watched_dir = dir;
    n_outside = 0;
    return io;
}

/* ---- the table -------------------------------------------------------------------------------------------------------------------- */

#define MAP2                                                                                                                                         \
    "="                                                                                                                                              \
    "{\"metadata\":{\"total_size\":12},\"weight_map\":{\"a\":\"s1.safetensors\",\"b\":\"s1.safetensors\",\"c\":\"s2.safetensors\"}}"
#define WEIGHTS2 "s1.safetensors:a b", "s2.safetensors:c"
#define MAP(members) "={\"weight_map\":{" members "}}"

static const struct folder {
    const char *what;
    const char *entries[10];
    enum status status;
    const char *part; /* of the sentence, or for OK of some note; "" for a folder without notes; NULL: do not look */
    size_t n_tensors;
} folders[] = {
    /* which weights */
    { "index and shards", { IDX MAP2, WEIGHTS2 }, OK, "", 3 },
    { "another index name", { "other.safetensors.index.json" MAP2, WEIGHTS2 }, OK, "", 3 },
    { "a bare index name", { "x.index.json" MAP2, WEIGHTS2 }, OK, "", 3 },
    { "one model.safetensors", { "model.safetensors:a b" }, OK, "", 2 },
    { "one file of another name", { "weights.safetensors:a" }, OK, "", 1 },
    { "model.safetensors among others",
      { "model.safetensors:a b", "x.safetensors:c" },
      OK,
      "ignored 1 safetensors file beside the model: 'x.safetensors'",
      2 },
    { "index before model.safetensors",
      { IDX MAP2, WEIGHTS2, "model.safetensors:z" },
      OK,
      "ignored 1 safetensors file that the index does not name: 'model.safetensors'",
      3 },
    { "default index before others", { IDX MAP2, WEIGHTS2, "x.index.json=no" }, OK, "ignored 1 other entry of the folder: 'x.index.json'", 3 },
    { "a PyTorch index beside one file", { "model.safetensors:a", "pytorch_model.bin.index.json={}" }, OK, "'pytorch_model.bin.index.json'", 1 },
    { "two index files", { "x.index.json" MAP2, "y.index.json" MAP2, WEIGHTS2 }, ERR_DATA, "has 2 index files ('x.index.json', 'y.index.json')", 0 },
    { "two files, no index",
      { "a.safetensors:a", "b.safetensors:b" },
      ERR_DATA,
      "has 2 safetensors files ('a.safetensors', 'b.safetensors') and no *.index.json",
      0 },
    { "shards without their index",
      { "s1.safetensors:a", "s2.safetensors:b", "s3.safetensors:c", "s4.safetensors:d", "s5.safetensors:e" },
      ERR_DATA,
      "and 2 more",
      0 },
    { "empty folder", { NULL }, ERR_UNSUPPORTED, "no model files (0 entries)", 0 },
    { "only other files", { "config.json={}", "README.md=x" }, ERR_UNSUPPORTED, "no model files (2 entries)", 0 },
    { "only PyTorch", { "pytorch_model.bin=x", "config.json={}" }, ERR_UNSUPPORTED, "only PyTorch files ('pytorch_model.bin')", 0 },
    { "only sharded PyTorch", { "pytorch_model-1.bin=x", "pytorch_model.bin.index.json={}" }, ERR_UNSUPPORTED, "only PyTorch files", 0 },
    { "only .pth", { "consolidated.00.pth=x" }, ERR_UNSUPPORTED, "only PyTorch files ('consolidated.00.pth')", 0 },
    { "only GGUF", { "m-q4.gguf=x", "n.gguf=x" }, ERR_UNSUPPORTED, "only GGUF files ('m-q4.gguf', 'n.gguf'): give the file itself", 0 },
    { "only TensorFlow", { "tf_model.h5=x" }, ERR_UNSUPPORTED, "only TensorFlow files", 0 },
    { "only Flax", { "flax_model.msgpack=x" }, ERR_UNSUPPORTED, "only Flax files", 0 },
    { "only ONNX", { "model.onnx=x" }, ERR_UNSUPPORTED, "only ONNX files", 0 },
    { "an llmq file", { "m.llmq=x", "config.json={}" }, ERR_UNSUPPORTED, "it has llmq files ('m.llmq'): give the file itself", 0 },
    { "a name that only ends alike", { "xsafetensors=x", ".safetensors/" }, ERR_UNSUPPORTED, "no *.safetensors", 0 },

    /* the one file */
    { "the one file is an LFS pointer",
      { "model.safetensors=version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n" },
      ERR_DATA,
      "run git lfs pull",
      0 },
    { "the one file is empty", { "model.safetensors=" }, ERR_DATA, "is empty", 0 },
    { "the one file is damaged", { "model.safetensors=12345678{" }, ERR_DATA, "over the limit", 0 },
    { "the one file is a folder", { "model.safetensors/" }, ERR_UNSUPPORTED, "directory", 0 },
    { "the one file is a FIFO", { "model.safetensors|" }, ERR_UNSUPPORTED, "FIFO", 0 },
    { "the one file is a link to nothing", { "model.safetensors>nowhere" }, ERR_IO, "No such file", 0 },
    { "the one file has no tensors", { "model.safetensors:" }, OK, "has no tensors", 0 },

    /* the index itself */
    { "index empty", { IDX "=" }, ERR_DATA, "is empty", 0 },
    { "index is an LFS pointer",
      { IDX "=version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", WEIGHTS2 },
      ERR_DATA,
      "run git lfs pull",
      0 },
    { "index is a web page", { IDX "=<!DOCTYPE html><html></html>", WEIGHTS2 }, ERR_DATA, "web page", 0 },
    { "index is no JSON", { IDX "=hello world", WEIGHTS2 }, ERR_DATA, "object expected", 0 },
    { "index is cut", { IDX "={\"weight_map\":{\"a\":\"s1.safe", WEIGHTS2 }, ERR_DATA, "ends early", 0 },
    { "index is a list", { IDX "=[]", WEIGHTS2 }, ERR_DATA, "shorter than 8 bytes", 0 },
    { "index without weight_map", { IDX "={\"metadata\":{}}", WEIGHTS2 }, ERR_DATA, "weight_map is missing", 0 },
    { "index {}", { IDX "={}", WEIGHTS2 }, ERR_DATA, "weight_map is missing", 0 },
    { "weight_map empty", { IDX MAP(""), WEIGHTS2 }, ERR_DATA, "weight_map is empty", 0 },
    { "weight_map a list", { IDX "={\"weight_map\":[]}", WEIGHTS2 }, ERR_DATA, "weight_map is not an object", 0 },
    { "weight_map null", { IDX "={\"weight_map\":null}", WEIGHTS2 }, ERR_DATA, "weight_map is not an object", 0 },
    { "shard a number", { IDX MAP("\"a\":1"), WEIGHTS2 }, ERR_DATA, "the shard of tensor 'a' is not a string", 0 },
    { "shard null", { IDX MAP("\"a\":null"), WEIGHTS2 }, ERR_DATA, "the shard of tensor 'a' is not a string", 0 },
    { "shard a list", { IDX MAP("\"a\":[\"s1.safetensors\"]"), WEIGHTS2 }, ERR_DATA, "the shard of tensor 'a' is not a string", 0 },
    { "tensor twice in the index", { IDX MAP("\"a\":\"s1.safetensors\",\"a\":\"s2.safetensors\""), WEIGHTS2 }, ERR_DATA, "duplicate key 'a'", 0 },
    { "two weight_maps", { IDX "={\"weight_map\":{},\"weight_map\":{}}", WEIGHTS2 }, ERR_DATA, "duplicate key 'weight_map'", 0 },
    { "index with a BOM", { IDX "=\xef\xbb\xbf{\"weight_map\":{\"a\":\"s1.safetensors\"}}", "s1.safetensors:a" }, ERR_DATA, "object expected", 0 },
    { "index with a trailing comma", { IDX "={\"weight_map\":{\"a\":\"s1.safetensors\",}}", "s1.safetensors:a" }, ERR_DATA, "key", 0 },
    { "index with trailing text", { IDX MAP("\"a\":\"s1.safetensors\"") "x", "s1.safetensors:a" }, ERR_DATA, "after the end", 0 },
    { "index is a folder", { IDX "/", WEIGHTS2 }, ERR_UNSUPPORTED, "directory", 0 },
    { "index is a FIFO", { IDX "|", WEIGHTS2 }, ERR_UNSUPPORTED, "FIFO", 0 },
    { "unknown members are passed over",
      { IDX "={\"x\":[1.5,{\"y\":null}],\"weight_map\":{\"a\":\"s1.safetensors\"}}", "s1.safetensors:a" },
      OK,
      "",
      1 },
    { "metadata null", { IDX "={\"metadata\":null,\"weight_map\":{\"a\":\"s1.safetensors\"}}", "s1.safetensors:a" }, OK, "", 1 },
    { "total_size right, as a float",
      { IDX "={\"metadata\":{\"total_size\":4.0},\"weight_map\":{\"a\":\"s1.safetensors\"}}", "s1.safetensors:a" },
      OK,
      "",
      1 },
    { "total_size wrong",
      { IDX "={\"metadata\":{\"total_size\":5},\"weight_map\":{\"a\":\"s1.safetensors\"}}", "s1.safetensors:a" },
      OK,
      "total_size in '" IDX "' is 5, the tensors have 4 bytes",
      1 },
    { "total_size a string",
      { IDX "={\"metadata\":{\"total_size\":\"4\"},\"weight_map\":{\"a\":\"s1.safetensors\"}}", "s1.safetensors:a" },
      OK,
      "",
      1 },
    { "total_size negative",
      { IDX "={\"metadata\":{\"total_size\":-1},\"weight_map\":{\"a\":\"s1.safetensors\"}}", "s1.safetensors:a" },
      OK,
      "total_size",
      1 },
    { "total_size huge",
      { IDX "={\"metadata\":{\"total_size\":1e999},\"weight_map\":{\"a\":\"s1.safetensors\"}}", "s1.safetensors:a" },
      OK,
      "total_size",
      1 },
    { "escapes in a shard name", { IDX MAP("\"a\":\"\\u0073\\u0031.safetensors\""), "s1.safetensors:a" }, OK, "", 1 },
    { "escapes in a tensor name", { IDX MAP("\"\\u0061\":\"s1.safetensors\""), "s1.safetensors:a" }, OK, "", 1 },

    /* index against shards */
    { "a shard is missing",
      { IDX MAP2, "s1.safetensors:a b" },
      ERR_DATA,
      "1 of the 2 shards that '" IDX "' names are missing, the first is 's2.safetensors'",
      0 },
    { "all shards are missing", { IDX MAP2 }, ERR_DATA, "2 of the 2 shards", 0 },
    { "a shard is a link to nothing", { IDX MAP2, "s1.safetensors:a b", "s2.safetensors>gone" }, ERR_DATA, "1 of the 2 shards", 0 },
    { "a shard is a link to itself", { IDX MAP2, "s1.safetensors:a b", "s2.safetensors>s2.safetensors" }, ERR_IO, "s2.safetensors", 0 },
    { "a shard is a folder", { IDX MAP2, "s1.safetensors:a b", "s2.safetensors/" }, ERR_UNSUPPORTED, "directory", 0 },
    { "a shard is a FIFO", { IDX MAP2, "s1.safetensors:a b", "s2.safetensors|" }, ERR_UNSUPPORTED, "FIFO", 0 },
    { "a shard is /dev/zero", { IDX MAP2, "s1.safetensors:a b", "s2.safetensors>/dev/zero" }, ERR_UNSUPPORTED, "device", 0 },
    { "a shard is an LFS pointer",
      { IDX MAP2, "s1.safetensors:a b", "s2.safetensors=version https://git-lfs.github.com/spec/v1\n" },
      ERR_DATA,
      "s2.safetensors' is a git-LFS pointer",
      0 },
    { "a shard is empty", { IDX MAP2, "s1.safetensors:a b", "s2.safetensors=" }, ERR_DATA, "s2.safetensors' is empty", 0 },
    { "a shard is damaged", { IDX MAP2, "s1.safetensors:a b", "s2.safetensors=12345678" }, ERR_DATA, "s2.safetensors': header", 0 },
    { "tensor in no shard",
      { IDX MAP("\"a\":\"s1.safetensors\",\"x\":\"s1.safetensors\""), "s1.safetensors:a" },
      ERR_DATA,
      "tensor 'x' is not in its shard 's1.safetensors'",
      0 },
    { "tensor in the other shard",
      { IDX MAP("\"a\":\"s1.safetensors\",\"c\":\"s1.safetensors\",\"d\":\"s2.safetensors\""), "s1.safetensors:a", "s2.safetensors:c d" },
      ERR_DATA,
      "tensor 'c' is in 's2.safetensors', not in 's1.safetensors'",
      0 },
    { "tensor not in the index",
      { IDX MAP("\"a\":\"s1.safetensors\""), "s1.safetensors:a b" },
      ERR_DATA,
      "tensor 'b' of 's1.safetensors' is missing: the index is of another version",
      0 },
    { "stale index, all names differ", { IDX MAP2, "s1.safetensors:x y", "s2.safetensors:z" }, ERR_DATA, "is not in its shard", 0 },
    { "swapped shards",
      { IDX MAP2, "s1.safetensors:c", "s2.safetensors:a b" },
      ERR_DATA,
      "tensor 'a' is in 's2.safetensors', not in 's1.safetensors'",
      0 },
    { "tensor in two shards",
      { IDX MAP2, "s1.safetensors:a b", "s2.safetensors:c a" },
      ERR_DATA,
      "tensor 'a' is there twice: in 's1.safetensors' and in 's2.safetensors'",
      0 },
    { "two names of one file",
      { IDX MAP("\"a\":\"s1.safetensors\",\"b\":\"s2.safetensors\""), "s1.safetensors:a b", "s2.safetensors>s1.safetensors" },
      ERR_DATA,
      "is there twice",
      0 },
    { "a shard without tensors cannot be named",
      { IDX MAP("\"a\":\"s1.safetensors\""), "s1.safetensors:" },
      ERR_DATA,
      "tensor 'a' is not in its shard",
      0 },
    { "empty tensor name in the index", { IDX MAP("\"\":\"s1.safetensors\""), "s1.safetensors:a" }, ERR_DATA, "tensor '' is not in its shard", 0 },
    { "stray safetensors",
      { IDX MAP2, WEIGHTS2, "x1.safetensors:q", "x2.safetensors:a" },
      OK,
      "ignored 2 safetensors files that the index does not name: 'x1.safetensors', 'x2.safetensors'",
      3 },
    { "shard in capitals is another file", { IDX MAP("\"a\":\"S1.safetensors\""), "s1.safetensors:a" }, ERR_DATA, "1 of the 1 shards", 0 },

    /* what else lies there */
    { "others stay behind",
      { "model.safetensors:a", "modeling.py=x", "notes.tmp=y", "sub/", ".gitattributes=z" },
      OK,
      "ignored 4 other entries of the folder: '.gitattributes', 'modeling.py', 'notes.tmp' and 1 more",
      1 },
    { "a folder named like a small file", { "model.safetensors:a", "x.json/" }, OK, "ignored 1 other entry of the folder: 'x.json'", 1 },
    { "a FIFO named like a small file", { "model.safetensors:a", "config.json|" }, OK, "ignored 1 other entry of the folder: 'config.json'", 1 },
    { "a small file linked to nothing", { "model.safetensors:a", "config.json>gone" }, ERR_IO, "config.json", 0 },
};

static bool has_note(const struct container *container, const char *part)
{
    for (size_t i = 0; i < container->n_notes; i++)
        if (strstr(container->notes[i], part)) return true;
    return false;
}

static void check_opened(const struct folder *folder, const struct container *container)
{
    if (container->n_tensors != folder->n_tensors) fail_msg("%s: %zu tensors", folder->what, container->n_tensors);
    if (folder->part && *folder->part == '\0' && container->n_notes > 0) fail_msg("%s: note '%s'", folder->what, container->notes[0]);
    if (folder->part && *folder->part && !has_note(container, folder->part)) fail_msg("%s: no note has '%s'", folder->what, folder->part);
    for (size_t i = 0; i < container->n_tensors; i++)
        if (container_find(container, container->tensors[i].name) != i) fail_msg("%s: tensor %zu is not found", folder->what, i);
}

static void check_path(const struct folder *folder, const char *dir, const char *path)
{
    struct io_calls io = recorder(dir);
    struct container *container = NULL;
    struct err err = { .code = OK };
    enum status status = container_open(&io, path, &container, &err);
    if (status != folder->status) fail_msg("%s: status %d: %s", folder->what, (int)status, err.text);
    if (status == OK) check_opened(folder, container);
    else if (!strstr(err.text, folder->part)) fail_msg("%s: message '%s' lacks '%s'", folder->what, err.text, folder->part);
    if (strchr(err.text, '\n')) fail_msg("%s: message of more than one line", folder->what);
    if (n_outside > 0) fail_msg("%s: %u files outside the folder were opened", folder->what, n_outside);
    container_close(container);
}

static void folders_get_their_verdict(void **state)
{
    (void)state;
    size_t n_folders = sizeof folders / sizeof folders[0];
    for (size_t i = 0; i < n_folders; i++) {
        char *dir = temp_dir();
        for (size_t e = 0; e < 10 && folders[i].entries[e]; e++) make_entry(dir, folders[i].entries[e]);
        check_path(&folders[i], dir, dir);
        struct stat st;
        const char *index = temp_path(dir, IDX);
        if (stat(index, &st) == 0 && S_ISREG(st.st_mode)) check_path(&folders[i], dir, index);
        temp_dir_remove(dir);
    }
    print_message("%zu folders\n", n_folders);
    assert_true(n_folders >= 60);
}

/* ---- path tricks ------------------------------------------------------------------------------------------------------------------ */

static void shard_names_stay_in_the_folder(void **state)
{
    (void)state;
    static const char *const names[] = {
        "../evil.safetensors",
        "..",
        ".",
        "",
        "/etc/passwd",
        "/tmp/evil.safetensors",
        "sub/evil.safetensors",
        "./s1.safetensors",
        "../d/s1.safetensors",
        "..\\\\evil.safetensors",
        "C:\\\\evil.safetensors",
        "\\\\\\\\host\\\\x.safetensors",
        "a\\u0000.safetensors",
        "a\\n.safetensors",
        "a\\u0001.safetensors",
        "a\\u007f.safetensors",
        "/proc/self/fd/0",
        "/proc/self/root/x.safetensors",
        "/dev/zero",
        "file:///tmp/evil.safetensors",
        "https://example.org/evil.safetensors",
        "~/evil.safetensors/",
        "sub//evil.safetensors",
        "evil.safetensors/",
        "..\\/evil.safetensors",
        "\\u002e\\u002e\\u002fevil.safetensors",
        "\\u002e\\u002e/evil.safetensors",
        ".../evil.safetensors",
        "..//evil.safetensors",
        "s1.safetensors ",
        "s1.bin",
        "s1.safetensors.bin",
        "s1",
        ".safetensors",
        "config.json",
        "s1.SAFETENSORS",
        "\\ud800.safetensors",
        "s1.safetensors\\t",
    };
    char *parent = temp_dir();
    const char *dir = strdup(temp_path(parent, "d"));
    char *target = strdup(temp_path(parent, "evil.safetensors"));
    assert_int_equal(mkdir(dir, 0700), 0);
    write_shard(target, "a");
    make_entry(dir, "s1.safetensors:a");
    make_entry(dir, "sub/");
    write_shard(temp_path(dir, "sub/evil.safetensors"), "a");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char index[1000];
        struct container *container = NULL;
        struct err err = { .code = OK };
        struct io_calls io = recorder(dir);
        snprintf(index, sizeof index, "{\"weight_map\":{\"a\":\"%s\"}}", names[i]);
        write_file(temp_path(dir, IDX), index, strlen(index));
        enum status status = container_open(&io, dir, &container, &err);
        if (status != ERR_DATA) fail_msg("'%s': status %d, %s", names[i], (int)status, err.text);
        if (n_outside > 0) fail_msg("'%s' was opened", names[i]);
    }
    assert_true(sizeof names / sizeof names[0] >= 25);
    free(target);
    free((void *)(uintptr_t)dir);
    temp_dir_remove(parent);
}

static void long_shard_names(void **state)
{
    (void)state;
    static const size_t lengths[] = { 255, 256, 4096 };
    char *dir = temp_dir();
    for (size_t i = 0; i < 3; i++) {
        struct text index = text_make(10000);
        struct container *container = NULL;
        struct err err = { .code = OK };
        text_add(&index, "{\"weight_map\":{\"a\":\"");
        for (size_t c = 0; c < lengths[i] - strlen(".safetensors"); c++) text_add(&index, "x");
        text_add(&index, ".safetensors\"}}");
        write_file(temp_path(dir, IDX), index.data, index.nbytes);
        text_free(&index);
        assert_refused(container_open(&io_system, dir, &container, &err), ERR_DATA,
                       lengths[i] == 255 ? "1 of the 1 shards" : "not a plain file name");
    }
    temp_dir_remove(dir);
}

static void the_layout_of_the_hub_cache_opens(void **state)
{
    (void)state;
    char *root = temp_dir();
    char *blobs = strdup(temp_path(root, "blobs")), *snapshots = strdup(temp_path(root, "snapshots")),
         *dir = strdup(temp_path(root, "snapshots/rev"));
    struct container *container = NULL;
    struct err err;
    mkdir(blobs, 0700);
    mkdir(snapshots, 0700);
    mkdir(dir, 0700);
    make_entry(blobs, "0123abc:a b");
    make_entry(blobs, "4567def:c");
    make_entry(blobs, "89ab" MAP2);
    make_entry(blobs, "cdef={\"x\":1}");
    make_entry(dir, "s1.safetensors>../../blobs/0123abc");
    make_entry(dir, "s2.safetensors>../../blobs/4567def");
    make_entry(dir, IDX ">../../blobs/89ab");
    make_entry(dir, "config.json>../../blobs/cdef");
    struct io_calls io = recorder(dir);
    assert_ok(container_open(&io, dir, &container, &err));
    assert_int_equal(n_outside, 0);
    assert_int_equal(container->n_tensors, 3);
    assert_int_equal(container->n_blobs, 1);
    assert_int_equal(container->blobs[0].nbytes, 7);
    assert_int_equal(container->n_notes, 0);
    container_close(container);
    free(blobs);
    free(snapshots);
    free(dir);
    temp_dir_remove(root);
}

/* ---- small files ------------------------------------------------------------------------------------------------------------------ */

static void names_of_small_files(void **state)
{
    (void)state;
    static const char *const taken[] = {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "vocab.txt",
        "chat_template.json",
        "chat_template.jinja",
        "preprocessor_config.json",
        "processor_config.json",
        "x.json",
        "notes.txt",
        "README.md",
        "USE_POLICY.md",
        "README",
        "LICENSE",
        "LICENSE.txt",
        "LICENSE-APACHE",
        "qwen.tiktoken",
    };
    static const char *const left[] = {
        "model.safetensors.index.json",
        "x.index.json",
        "pytorch_model.bin.index.json",
        "quantize_config.json",
        "hf_quant_config.json",
        "quant_config.json",
        "model.safetensors",
        "x.bin",
        "x.gguf",
        "x.pt",
        "x.py",
        ".hidden.json",
        "LICENSE.bin",
        "README.safetensors",
        "a\nb.json",
        "a\x80.json",
        "",
        "x",
        "json",
        "out.llmq",
        "out.llmq.partial",
        "config.json.partial",
    };
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++)
        if (!blob_rule_takes(taken[i])) fail_msg("'%s' stays behind", taken[i]);
    for (size_t i = 0; i < sizeof left / sizeof left[0]; i++)
        if (blob_rule_takes(left[i])) fail_msg("'%s' travels", left[i]);
}

static void small_files_are_listed_and_read(void **state)
{
    (void)state;
    static const char *const entries[] = {
        "model.safetensors:a", "vocab.txt=one\ntwo\n", "config.json={\"hidden_size\":64}", "LICENSE=free", "B.json={}", "empty.txt="
    };
    static const char *const sorted[] = { "B.json", "LICENSE", "config.json", "empty.txt", "vocab.txt" };
    char *dir = temp_dir();
    struct container *container = NULL;
    struct err err;
    char bytes[100] = { 0 };
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) make_entry(dir, entries[i]);
    assert_ok(container_open(&io_system, dir, &container, &err));
    assert_int_equal(container->n_blobs, 5);
    assert_int_equal(container->n_files, 6);
    for (size_t i = 0; i < 5; i++) assert_string_equal(container->blobs[i].name, sorted[i]);
    assert_ok(container_read_blob(container, 2, 2, 11, bytes, &err));
    assert_string_equal(bytes, "hidden_size");
    assert_ok(container_read_blob(container, 3, 0, 0, bytes, &err));
    assert_refused(container_read_blob(container, 2, 10, 11, bytes, &err), ERR_USAGE, "cannot read 'config.json' of ");
    assert_refused(container_read_blob(container, 5, 0, 1, bytes, &err), ERR_USAGE, "no small file number 5");
    assert_ok(container_check_unchanged(container, &err));
    write_file(temp_path(dir, "config.json"), "{}", 2);
    assert_refused(container_check_unchanged(container, &err), ERR_DATA, "config.json' changed while it was read");
    assert_refused(container_read_blob(container, 2, 0, 18, bytes, &err), ERR_DATA, "ends at byte 2");
    container_close(container);
    temp_dir_remove(dir);
}

static void large_and_many_small_files(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct container *container = NULL;
    struct err err;
    make_entry(dir, "model.safetensors:a");
    make_entry(dir, "big.json=x");
    make_entry(dir, "fits.json=x");
    assert_int_equal(truncate(temp_path(dir, "big.json"), (off_t)BLOB_NBYTES_MAX + 1), 0);
    assert_int_equal(truncate(temp_path(dir, "fits.json"), (off_t)BLOB_NBYTES_MAX), 0);
    assert_ok(container_open(&io_system, dir, &container, &err));
    assert_int_equal(container->n_blobs, 1);
    assert_true(has_note(container, "left out 'big.json': 67108865 bytes"));
    assert_int_equal(container->n_notes, 1);
    container_close(container);
    for (unsigned i = 0; i < BLOBS_MAX - 2; i++) {
        char entry[40];
        snprintf(entry, sizeof entry, "n%03u.txt=%u", i, i);
        make_entry(dir, entry);
    }
    assert_ok(container_open(&io_system, dir, &container, &err));
    assert_int_equal(container->n_blobs, BLOBS_MAX - 1);
    container_close(container);
    make_entry(dir, "one_more.txt=x");
    assert_refused(container_open(&io_system, dir, &container, &err), ERR_UNSUPPORTED, "has 257 small files");
    temp_dir_remove(dir);
}

/* ---- file calls that fail --------------------------------------------------------------------------------------------------------- */

/* Call number fail_at of all (1, 2, ...) fails with fail_errno, and with fail_on also every later one. */
static unsigned n_calls, fail_at;
static bool fail_on;
static int fail_errno;

static bool fails(void)
{
    n_calls++;
    if (n_calls != fail_at && !(fail_on && n_calls > fail_at)) return false;
    errno = fail_errno;
    return true;
}

static int failing_open(const char *path, int flags, mode_t mode)
{
    return fails() ? -1 : io_system.open(path, flags, mode);
}

static int failing_fstat(int fd, struct stat *st)
{
    return fails() ? -1 : io_system.fstat(fd, st);
}

static int failing_stat(const char *path, struct stat *st)
{
    return fails() ? -1 : io_system.stat(path, st);
}

/* Also short: it never gives more than 7 bytes. */
static ssize_t failing_pread(int fd, void *buf, size_t nbytes, off_t offset)
{
    return fails() ? -1 : io_system.pread(fd, buf, nbytes < 7 ? nbytes : 7, offset);
}

static void every_file_call_may_fail(void **state)
{
    (void)state;
    static const int numbers[] = { EIO, EACCES, EMFILE, EINTR };
    struct io_calls io = io_system;
    char *dir = temp_dir();
    make_entry(dir, "s1.safetensors:a b");
    make_entry(dir, "s2.safetensors:c");
    make_entry(dir, IDX MAP2);
    make_entry(dir, "config.json={\"hidden_size\":64}");
    io.open = failing_open;
    io.fstat = failing_fstat;
    io.stat = failing_stat;
    io.pread = failing_pread;
    size_t n_runs = 0;
    for (size_t e = 0; e < sizeof numbers / sizeof numbers[0]; e++)
        for (unsigned on = 0; on < 2; on++)
            for (fail_at = 1;; fail_at++, n_runs++) {
                struct container *container = NULL;
                struct err err = { .code = OK };
                n_calls = 0;
                fail_on = on == 1 && numbers[e] != EINTR; /* interrupted for ever is a matter of io.c's tests */
                fail_errno = numbers[e];
                enum status status = container_open(&io, dir, &container, &err);
                container_close(container);
                if (n_calls < fail_at) break;
                if (numbers[e] == EINTR && status != OK) fail_msg("call %u: %s", fail_at, err.text);
                if (status != OK && err.text[0] == '\0') fail_msg("call %u: no message", fail_at);
            }
    print_message("%zu runs\n", n_runs);
    assert_true(n_runs > 100);
    temp_dir_remove(dir);
}

/* ---- order, metadata, changes ----------------------------------------------------------------------------------------------------- */

static void tensors_come_in_storage_order(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct container *container = NULL;
    struct err err;
    make_entry(dir, "s2.safetensors:d c");
    make_entry(dir, "s10.safetensors:b");
    make_entry(dir, "s1.safetensors:z a");
    make_entry(
        dir,
        IDX MAP("\"a\":\"s1.safetensors\",\"b\":\"s10.safetensors\",\"c\":\"s2.safetensors\",\"d\":\"s2.safetensors\",\"z\":\"s1.safetensors\""));
    assert_ok(container_open(&io_system, dir, &container, &err));
    static const char *const names[] = { "z", "a", "b", "d", "c" };
    static const uint32_t files[] = { 0, 0, 1, 2, 2 };
    assert_int_equal(container->n_tensors, 5);
    for (size_t i = 0; i < 5; i++) {
        assert_string_equal(container->tensors[i].name, names[i]);
        assert_int_equal(container->tensors[i].file, files[i]);
        char bytes[4];
        assert_ok(container_read(container, i, 0, 4, bytes, &err));
    }
    assert_int_equal(container->n_files, 4);
    assert_string_equal(path_base(container->files[1].path), "s10.safetensors");
    assert_string_equal(path_base(container->files[3].path), IDX);
    write_file(temp_path(dir, IDX), "{}", 2);
    assert_refused(container_check_unchanged(container, &err), ERR_DATA, IDX "' changed");
    container_close(container);
    temp_dir_remove(dir);
}

static void write_with_metadata(const char *path, const char *header)
{
    char bytes[300] = { 0 };
    bytes[0] = (char)strlen(header);
    memcpy(bytes + 8, header, strlen(header));
    write_file(path, bytes, 8 + strlen(header) + 1);
}

static void metadata_of_the_first_shard_is_kept(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct container *container = NULL;
    struct err err;
    make_entry(dir, IDX MAP("\"a\":\"s1.safetensors\",\"b\":\"s2.safetensors\",\"c\":\"s3.safetensors\""));
    write_with_metadata(temp_path(dir, "s1.safetensors"),
                        "{\"__metadata__\":{\"f\":\"1\"},\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}");
    write_with_metadata(temp_path(dir, "s2.safetensors"), "{\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}");
    write_with_metadata(temp_path(dir, "s3.safetensors"),
                        "{\"__metadata__\":{\"f\":\"1\"},\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}");
    assert_ok(container_open(&io_system, dir, &container, &err));
    assert_string_equal(container->metadata_json, "{\"f\":\"1\"}");
    assert_int_equal(container->n_notes, 0);
    container_close(container);
    write_with_metadata(temp_path(dir, "s3.safetensors"),
                        " {\"__metadata__\":{\"f\":\"2\"},\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}");
    assert_ok(container_open(&io_system, dir, &container, &err));
    assert_string_equal(container->metadata_json, "{\"f\":\"1\"}");
    assert_true(has_note(container, "the metadata of 's3.safetensors' differs"));
    assert_true(has_note(container, "the header of 's3.safetensors' begins with a blank"));
    container_close(container);
    temp_dir_remove(dir);
}

static void paths_as_people_write_them(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct container *container = NULL;
    struct err err;
    char path[4096], here[4096];
    make_entry(dir, "s1.safetensors:a b");
    make_entry(dir, "s2.safetensors:c");
    make_entry(dir, IDX MAP2);
    snprintf(path, sizeof path, "%s///", dir);
    assert_ok(container_open(&io_system, path, &container, &err));
    container_close(container);
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(chdir(dir), 0);
    static const char *const relative[] = { ".", "./", IDX, ("./" IDX) };
    for (size_t i = 0; i < 4; i++) {
        assert_ok(container_open(&io_system, relative[i], &container, &err));
        assert_int_equal(container->n_tensors, 3);
        container_close(container);
    }
    assert_int_equal(chdir(here), 0);
    assert_refused(container_open(&io_system, temp_path(dir, "nowhere.index.json"), &container, &err), ERR_IO, "No such file");
    temp_dir_remove(dir);
}

static void an_index_over_the_cap(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct container *container = NULL;
    struct err err;
    make_entry(dir, "s1.safetensors:a b");
    make_entry(dir, "s2.safetensors:c");
    make_entry(dir, IDX MAP2);
    assert_int_equal(truncate(temp_path(dir, IDX), (off_t)SHARD_INDEX_NBYTES_MAX + 1), 0);
    assert_refused(container_open(&io_system, dir, &container, &err), ERR_DATA, "67108865 bytes, more than the limit of 67108864");
    temp_dir_remove(dir);
}

/* ---- size ------------------------------------------------------------------------------------------------------------------------- */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void an_index_of_a_million(void **state)
{
    (void)state;
    struct text text = text_make((size_t)1 << 27);
    struct shard_index index;
    struct err err;
    text_add(&text, "{\"weight_map\":{");
    for (unsigned i = 0; i < 1000000; i++) text_add(&text, "%s\"layers.%u.weight\":\"m-%05u.safetensors\"", i ? "," : "", i, i % 1000);
    text_add(&text, "}}");
    assert_false(text.failed);
    double start = seconds();
    assert_ok(shard_index_parse(text.data, text.nbytes, &index, &err));
    double took = seconds() - start;
    print_message("1000000 entries: %.3f s\n", took);
    assert_int_equal(index.n_tensors, 1000000);
    assert_int_equal(index.n_shards, 1000);
    assert_string_equal(index.shards[999], "m-00999.safetensors");
    assert_true(took < 10);
    shard_index_free(&index);
    text_free(&text);
}

static void too_many_shards(void **state)
{
    (void)state;
    struct text text = text_make((size_t)1 << 27);
    struct shard_index index;
    struct err err;
    text_add(&text, "{\"weight_map\":{");
    for (unsigned i = 0; i < 1000000; i++) text_add(&text, "%s\"%u\":\"%u.safetensors\"", i ? "," : "", i, i);
    text_add(&text, "}}");
    assert_refused(shard_index_parse(text.data, text.nbytes, &index, &err), ERR_UNSUPPORTED, "more than 10000 shards");
    assert_null(index.shards);
    text_free(&text);
}

/* Tensors of one shard of an index, as write_shard takes them. */
struct shard_list {
    const char *shard;
    struct text names;
};

static enum status collect_name(void *context, const char *tensor, const char *shard, struct err *err)
{
    struct shard_list *list = context;
    (void)err;
    if (strcmp(shard, list->shard) == 0) text_add(&list->names, "%s%s", list->names.nbytes ? " " : "", tensor);
    return OK;
}

static void real_indexes_open_with_made_shards(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        size_t n_tensors, n_shards;
    } models[] = {
        { "headers/gemma4-26b-a4b_int4-g32_compressed-tensors", 35743, 162 },
        { "headers/granite-7b_llama-arch", 291, 3 },
        { "headers/mistral-24b_devstral", 363, 10 },
        { "headers/mixtral-8x22b_wizardlm2", 1739, 59 },
        { "headers/phi3-mini", 195, 2 },
        { "headers/qwen2.5-14b_cogito", 579, 6 },
        { "headers/qwen3-14b-mlx-4bit", 1007, 2 },
        { "headers/qwen3.5-moe-25b-a3b", 22213, 10 },
    };
    for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
        char name[300];
        snprintf(name, sizeof name, "%s/" IDX, models[m].path);
        const char *path = shared_data(name);
        if (!path) continue;
        size_t n = 0;
        char *text = read_file(path, &n);
        struct shard_index index;
        struct container *container = NULL;
        struct err err;
        assert_ok(shard_index_parse(text, n, &index, &err));
        assert_int_equal(index.n_tensors, models[m].n_tensors);
        assert_int_equal(index.n_shards, models[m].n_shards);
        assert_true(index.has_total_size);
        char *dir = temp_dir();
        write_file(temp_path(dir, IDX), text, n);
        assert_refused(container_open(&io_system, dir, &container, &err), ERR_DATA, "are missing");
        for (size_t s = 0; s < index.n_shards; s++) {
            struct shard_list list = { .shard = index.shards[s], .names = text_make((size_t)1 << 26) };
            assert_ok(shard_index_walk(&index, collect_name, &list, &err));
            write_shard(temp_path(dir, list.shard), list.names.data);
            text_free(&list.names);
        }
        double start = seconds();
        assert_ok(container_open(&io_system, dir, &container, &err));
        print_message("%s: %.3f s\n", models[m].path, seconds() - start);
        assert_int_equal(container->n_tensors, models[m].n_tensors);
        assert_true(has_note(container, "total_size"));
        container_close(container);
        temp_dir_remove(dir);
        shard_index_free(&index);
        free(text);
    }
}

static void a_real_sharded_model(void **state)
{
    (void)state;
    const char *path = shared_data("llm/stories260K-hf-bf16-3shards");
    struct container *container = NULL;
    struct err err;
    if (!path) return;
    assert_ok(container_open(&io_system, path, &container, &err));
    assert_int_equal(container->n_tensors, 47);
    assert_int_equal(container->n_blobs, 1);
    assert_int_equal(container->n_notes, 0);
    assert_string_equal(container->ops->name, "folder");
    container_close(container);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders_get_their_verdict),
        cmocka_unit_test(shard_names_stay_in_the_folder),
        cmocka_unit_test(long_shard_names),
        cmocka_unit_test(the_layout_of_the_hub_cache_opens),
        cmocka_unit_test(names_of_small_files),
        cmocka_unit_test(small_files_are_listed_and_read),
        cmocka_unit_test(large_and_many_small_files),
        cmocka_unit_test(every_file_call_may_fail),
        cmocka_unit_test(tensors_come_in_storage_order),
        cmocka_unit_test(metadata_of_the_first_shard_is_kept),
        cmocka_unit_test(paths_as_people_write_them),
        cmocka_unit_test(an_index_over_the_cap),
        cmocka_unit_test(an_index_of_a_million),
        cmocka_unit_test(too_many_shards),
        cmocka_unit_test(real_indexes_open_with_made_shards),
        cmocka_unit_test(a_real_sharded_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
