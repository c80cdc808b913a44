/* hfdir.c: the model folder; see hfdir.h.
 *
 * Formula: which weights: model.safetensors.index.json, else the one *.index.json, else model.safetensors, else the one *.safetensors.
 *          files: the shards by name, then the index, then the small files by name.
 * Why this way: shards are opened as single files are, and merged; the index is then compared with what the shards really hold, in both directions,
 * because nobody else does: a stale index or a missing shard gives a model that runs and talks nonsense.
 * Corner cases: links are followed (the cache of the hub is made of them), but names are plain, so nothing outside the folder is opened by name.
 * Refused, each with its own sentence: missing shards (counted), a tensor in another shard than the index says, in no shard, in two shards, or not
 * in the index; two index files; several *.safetensors without an index; a folder without any. Notes: a wrong total_size, *.safetensors that the
 * index does not name, files that stay behind, small files over 64 MiB, shards whose metadata differs (the first one's is kept). Two names of one
 * file are two shards with the same tensors, so refused.
 * Reference: see hfdir.h. Worked example: 3 shards, an index, config.json: files 0..2, 3, 4; blob 0 is file 4.
 */
#include "container/hfdir.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/size.h"
#include "base/text.h"
#include "container/blob_rule.h"
#include "container/foreign.h"
#include "container/safetensors.h"
#include "container/shard_index.h"
#include "container/shown.h"

#define ENTRIES_MAX 100000
#define DEFAULT_INDEX "model.safetensors.index.json"
#define DEFAULT_FILE "model.safetensors"
#define LISTED_MAX 3 /* names in one message */

struct hfdir {
    struct container base;
    struct safetensors_header *headers; /* of the shards; keep names and dims, their tables have moved to base */
    size_t n_headers;
    size_t first_blob; /* files[first_blob + i] is blob i */
};

/* A name in the folder. */
struct entry {
    char *name;
    bool used; /* as shard, index or small file, or named in a note of its own */
};

/* What is known while the folder is opened. */
struct opening {
    const struct io_calls *io;
    struct hfdir *self;
    char *dir;
    struct entry *entries; /* by strcmp of the names */
    size_t n_entries;
    const char *index_name; /* NULL without an index */
    char *index_text;
    struct shard_index index;
    const char *single; /* the one file of a folder without an index */
};

static enum status short_of_memory(const struct opening *opening, struct err *err)
{
    return err_set(err, ERR_MEMORY, "cannot open '%s': out of memory", shown_path(opening->self->base.path).text);
}

static bool ends_with(const char *name, const char *suffix)
{
    size_t n = strlen(name), n_suffix = strlen(suffix);
    return n > n_suffix && strcmp(name + n - n_suffix, suffix) == 0;
}

/* ---- the folder's names ----------------------------------------------------------------------------------------------------------- */

static int compare_entries(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static enum status add_entry(struct opening *opening, const char *name, struct err *err)
{
    size_t n = opening->n_entries;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return OK;
    if (n >= ENTRIES_MAX) return err_set(err, ERR_UNSUPPORTED, "'%s' has more than %d entries", shown_path(opening->dir).text, ENTRIES_MAX);
    if ((n & (n - 1)) == 0) { /* full at each power of two */
        struct entry *grown = realloc(opening->entries, (n ? n * 2 : 1) * sizeof *grown);
        if (!grown) return short_of_memory(opening, err);
        opening->entries = grown;
    }
    opening->entries[n] = (struct entry){ .name = strdup(name) };
    if (!opening->entries[n].name) return short_of_memory(opening, err);
    opening->n_entries++;
    return OK;
}

/* The only reading of a directory in llmq. */
static enum status list_folder(struct opening *opening, struct err *err)
{
    DIR *dir = opendir(opening->dir);
    if (!dir) return err_set_errno(err, errno, "cannot list '%s'", shown_path(opening->dir).text);
    enum status status = OK;
    struct dirent *found;
    errno = 0;
    while (status == OK && (found = readdir(dir))) {
        status = add_entry(opening, found->d_name, err);
        errno = 0;
    }
    if (status == OK && errno != 0) status = err_set_errno(err, errno, "cannot list '%s'", shown_path(opening->dir).text);
    closedir(dir);
    if (status == OK && opening->n_entries > 1) qsort(opening->entries, opening->n_entries, sizeof *opening->entries, compare_entries);
    return status;
}

static struct entry *find_entry(const struct opening *opening, const char *name)
{
    size_t low = 0, high = opening->n_entries;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, opening->entries[middle].name);
        if (order == 0) return &opening->entries[middle];
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}

static void mark_used(struct opening *opening, const char *name)
{
    struct entry *entry = find_entry(opening, name);
    if (entry) entry->used = true;
}

typedef bool entry_test(const struct entry *entry, const char *argument);

/* Entries for which test holds: how many, the first, and the text "'a', 'b', 'c' and 4 more". */
struct listed {
    size_t count;
    const char *first;
    char text[256];
};

static struct listed list_entries(const struct opening *opening, entry_test *test, const char *argument)
{
    struct listed listed = { .count = 0 };
    struct text text = text_make(sizeof listed.text - 1);
    for (size_t i = 0; i < opening->n_entries; i++) {
        const struct entry *entry = &opening->entries[i];
        char name[64];
        if (!test(entry, argument)) continue;
        if (listed.count++ == 0) listed.first = entry->name;
        if (listed.count <= LISTED_MAX)
            text_add(&text, "%s'%s'", listed.count > 1 ? ", " : "", err_name(entry->name, strlen(entry->name), name, sizeof name));
    }
    if (listed.count > LISTED_MAX) text_add(&text, " and %zu more", listed.count - LISTED_MAX);
    memcpy(listed.text, text.data, text.nbytes);
    text_free(&text);
    return listed;
}

static bool has_suffix(const struct entry *entry, const char *suffix)
{
    return ends_with(entry->name, suffix);
}

static bool is_unused(const struct entry *entry, const char *suffix)
{
    return !entry->used && (!suffix || ends_with(entry->name, suffix));
}

/* ---- which weights ---------------------------------------------------------------------------------------------------------------- */

/* Files of weights that this container does not read, and what to say of them. */
static const struct other_kind {
    const char *suffix;
    const char *index_suffix; /* an index of such files is no index of ours */
    const char *sentence;
} other_kinds[] = {
    { ".llmq", ".llmq.index.json", "it has llmq files (%s): give the file itself" },
    { ".gguf", ".gguf.index.json", "it has only GGUF files (%s): give the file itself" },
    { ".bin", ".bin.index.json", "it has only PyTorch files (%s); llmq reads no pickles, convert them to safetensors first" },
    { ".pt", ".pt.index.json", "it has only PyTorch files (%s); llmq reads no pickles, convert them to safetensors first" },
    { ".pth", ".pth.index.json", "it has only PyTorch files (%s); llmq reads no pickles, convert them to safetensors first" },
    { ".h5", ".h5.index.json", "it has only TensorFlow files (%s); convert them to safetensors first" },
    { ".msgpack", ".msgpack.index.json", "it has only Flax files (%s); convert them to safetensors first" },
    { ".onnx", ".onnx.index.json", "it has only ONNX files (%s)" },
};

#define N_OTHER_KINDS (sizeof other_kinds / sizeof other_kinds[0])

static bool is_index(const struct entry *entry, const char *argument)
{
    (void)argument;
    for (size_t i = 0; i < N_OTHER_KINDS; i++)
        if (ends_with(entry->name, other_kinds[i].index_suffix)) return false;
    return ends_with(entry->name, SHARD_INDEX_SUFFIX);
}

/* Writes the sentence for a folder without safetensors. */
static enum status refuse_without_weights(const struct opening *opening, struct err *err)
{
    struct text text = text_make(ERR_TEXT_MAX);
    for (size_t i = 0; i < N_OTHER_KINDS && text.nbytes == 0; i++) {
        struct listed listed = list_entries(opening, has_suffix, other_kinds[i].suffix);
        if (listed.count == 0) continue;
        const char *hole = strstr(other_kinds[i].sentence, "%s");
        text_add_bytes(&text, other_kinds[i].sentence, (size_t)(hole - other_kinds[i].sentence));
        text_add(&text, "%s%s", listed.text, hole + 2);
    }
    if (text.nbytes == 0) text_add(&text, "it has no model files (%zu entries)", opening->n_entries);
    enum status status = err_set(err, ERR_UNSUPPORTED, "'%s' has no *.safetensors: %s", shown_path(opening->dir).text, text.data);
    text_free(&text);
    return status;
}

/* Without an index: the one file. */
static enum status choose_single(struct opening *opening, struct err *err)
{
    struct listed files = list_entries(opening, has_suffix, ".safetensors");
    if (find_entry(opening, DEFAULT_FILE)) opening->single = DEFAULT_FILE;
    else if (files.count == 1) opening->single = files.first;
    else if (files.count > 1)
        return err_set(err, ERR_DATA, "'%s' has %zu safetensors files (%s) and no *.index.json: give one of them, or restore the index",
                       shown_path(opening->dir).text, files.count, files.text);
    else return refuse_without_weights(opening, err);
    return OK;
}

static enum status choose_weights(struct opening *opening, struct err *err)
{
    struct listed found = list_entries(opening, is_index, NULL);
    if (opening->index_name) return OK;
    if (find_entry(opening, DEFAULT_INDEX)) opening->index_name = DEFAULT_INDEX;
    else if (found.count == 1) opening->index_name = found.first;
    else if (found.count > 1)
        return err_set(err, ERR_DATA, "'%s' has %zu index files (%s): give one of them", shown_path(opening->dir).text, found.count, found.text);
    else return choose_single(opening, err);
    return OK;
}

/* ---- files ------------------------------------------------------------------------------------------------------------------------ */

static bool takes_blob(const struct entry *entry, const char *argument)
{
    (void)argument;
    return !entry->used && blob_rule_takes(entry->name);
}

/* Room for n_shards shards, the index and every small file there may be. */
static enum status make_room(struct opening *opening, size_t n_shards, struct err *err)
{
    struct hfdir *self = opening->self;
    size_t n_blobs = list_entries(opening, takes_blob, NULL).count;
    if (n_blobs > BLOBS_MAX)
        return err_set(err, ERR_UNSUPPORTED, "'%s' has %zu small files (*.json, *.txt, ...), more than the limit of %d",
                       shown_path(opening->dir).text, n_blobs, BLOBS_MAX);
    self->base.files = calloc(n_shards + 1 + n_blobs, sizeof *self->base.files);
    self->base.blobs = calloc(n_blobs + 1, sizeof *self->base.blobs);
    self->headers = calloc(n_shards, sizeof *self->headers);
    return self->base.files && self->base.blobs && self->headers ? OK : short_of_memory(opening, err);
}

/* DIR/NAME, or NULL with the sentence in err. */
static char *join(const struct opening *opening, const char *name, struct err *err)
{
    char *path = path_join(opening->dir, name);
    if (!path) short_of_memory(opening, err);
    return path;
}

/* ---- the index file --------------------------------------------------------------------------------------------------------------- */

static enum status read_index_text(struct opening *opening, const struct file *file, struct err *err)
{
    if (file->nbytes > SHARD_INDEX_NBYTES_MAX)
        return err_set(err, ERR_DATA, "it has %llu bytes, more than the limit of %llu", (unsigned long long)file->nbytes,
                       (unsigned long long)SHARD_INDEX_NBYTES_MAX);
    opening->index_text = malloc((size_t)file->nbytes + 1);
    if (!opening->index_text) return short_of_memory(opening, err);
    opening->index_text[0] = '\0';
    return file_read(file, opening->index_text, (size_t)file->nbytes, 0, err);
}

/* Replaces the JSON error of an index that is a git-LFS pointer, a web page, ...: the rows of foreign.c that say "damaged". */
static enum status explain_foreign(const struct opening *opening, const struct file *file, enum status status, struct err *err)
{
    size_t n_head = file->nbytes < FOREIGN_HEAD_NBYTES ? (size_t)file->nbytes : FOREIGN_HEAD_NBYTES;
    const struct foreign *foreign = foreign_find((const uint8_t *)opening->index_text, n_head);
    if (!foreign || foreign->status != ERR_DATA || opening->index_text[0] == '{') return status;
    return err_set(err, foreign->status, "'%s' %s", shown_path(file->path).text, foreign->sentence);
}

/* Opens and parses the index; its file waits in *file until the shards stand before it. */
static enum status open_index(struct opening *opening, struct file *file, struct err *err)
{
    char *path = join(opening, opening->index_name, err);
    if (!path) return ERR_MEMORY;
    enum status status = file_open(opening->io, path, file, err);
    free(path);
    if (status != OK) return status;
    mark_used(opening, opening->index_name);
    status = read_index_text(opening, file, err);
    if (status == OK) status = shard_index_parse(opening->index_text, (size_t)file->nbytes, &opening->index, err);
    if (status == OK) return OK;
    status = err_wrap(err, status, "cannot read '%s'", shown_path(file->path).text);
    return opening->index.n_shards == 0 && opening->index_text ? explain_foreign(opening, file, status, err) : status;
}

/* ---- shards ----------------------------------------------------------------------------------------------------------------------- */

static enum status check_none_missing(const struct opening *opening, struct err *err)
{
    size_t n_missing = 0;
    const char *first = NULL;
    for (size_t i = 0; i < opening->index.n_shards; i++) {
        struct stat st;
        char *path = join(opening, opening->index.shards[i], err);
        if (!path) return ERR_MEMORY;
        bool missing = opening->io->stat(path, &st) != 0 && errno == ENOENT;
        free(path);
        if (missing && n_missing++ == 0) first = opening->index.shards[i];
    }
    if (n_missing == 0) return OK;
    return err_set(err, ERR_DATA, "%zu of the %zu shards that '%s' names are missing, the first is '%s'", n_missing, opening->index.n_shards,
                   shown_str(opening->index_name).text, shown_str(first).text);
}

/* Appends the tensors of header, which are those of files[file], to the container and drops the header's table. */
static enum status move_tensors(struct opening *opening, struct safetensors_header *header, size_t file, struct err *err)
{
    struct container *base = &opening->self->base;
    size_t n = base->n_tensors + header->n_tensors;
    if (header->n_tensors > 0) {
        struct tensor *grown = realloc(base->tensors, n * sizeof *grown);
        if (!grown) return short_of_memory(opening, err);
        base->tensors = grown;
        memcpy(grown + base->n_tensors, header->tensors, header->n_tensors * sizeof *grown);
    }
    for (; base->n_tensors < n; base->n_tensors++) base->tensors[base->n_tensors].file = (uint32_t)file;
    free(header->tensors);
    header->tensors = NULL;
    return OK;
}

/* Keeps the first shard's metadata; false when this one's differs from it. */
static bool move_metadata(struct container *base, struct safetensors_header *header)
{
    if (!header->metadata_json) return true;
    bool same = true;
    if (!base->metadata_json) {
        base->metadata_json = header->metadata_json;
    } else {
        same = strcmp(base->metadata_json, header->metadata_json) == 0;
        free(header->metadata_json);
    }
    header->metadata_json = NULL;
    return same;
}

static enum status open_shard(struct opening *opening, const char *name, struct err *err)
{
    struct hfdir *self = opening->self;
    struct safetensors_header *header = &self->headers[self->n_headers];
    size_t number = self->base.n_files;
    char *path = join(opening, name, err);
    if (!path) return ERR_MEMORY;
    enum status status = safetensors_open_file(opening->io, path, &self->base.files[number], header, err);
    free(path);
    if (status != OK) return status;
    self->base.n_files++;
    self->n_headers++;
    mark_used(opening, name);
    if (header->begins_with_blank) container_note(&self->base, "the header of '%s' begins with a blank", shown_str(name).text);
    if (!move_metadata(&self->base, header))
        container_note(&self->base, "the metadata of '%s' differs from that of the first shard, which is kept", shown_str(name).text);
    return move_tensors(opening, header, number, err);
}

static enum status open_shards(struct opening *opening, struct err *err)
{
    enum status status = check_none_missing(opening, err);
    if (status == OK) status = make_room(opening, opening->index.n_shards, err);
    for (size_t i = 0; status == OK && i < opening->index.n_shards; i++) status = open_shard(opening, opening->index.shards[i], err);
    return status;
}

/* ---- index against shards --------------------------------------------------------------------------------------------------------- */

struct comparison {
    const struct container *base;
    bool *listed; /* by tensor number */
};

static enum status compare_pair(void *context, const char *tensor, const char *shard, struct err *err)
{
    struct comparison *comparison = context;
    const struct container *base = comparison->base;
    size_t number = container_find(base, tensor);
    if (number == SIZE_MAX)
        return err_set(err, ERR_DATA, "weight_map: tensor '%s' is not in its shard '%s'", shown_str(tensor).text, shown_str(shard).text);
    const char *holder = path_base(base->files[base->tensors[number].file].path);
    if (strcmp(holder, shard) != 0)
        return err_set(err, ERR_DATA, "weight_map: tensor '%s' is in '%s', not in '%s'", shown_str(tensor).text, shown_str(holder).text,
                       shown_str(shard).text);
    comparison->listed[number] = true;
    return OK;
}

static enum status check_all_listed(const struct comparison *comparison, struct err *err)
{
    const struct container *base = comparison->base;
    for (size_t i = 0; i < base->n_tensors; i++) {
        if (comparison->listed[i]) continue;
        return err_set(err, ERR_DATA, "weight_map: tensor '%s' of '%s' is missing: the index is of another version",
                       shown_str(base->tensors[i].name).text, shown_str(path_base(base->files[base->tensors[i].file].path)).text);
    }
    return OK;
}

static void note_total_size(struct opening *opening)
{
    struct container *base = &opening->self->base;
    uint64_t sum = 0;
    if (!opening->index.has_total_size) return;
    for (size_t i = 0; i < base->n_tensors; i++)
        if (!size_add(sum, base->tensors[i].nbytes, &sum)) return;
    if ((double)sum == opening->index.total_size) return;
    container_note(base, "total_size in '%s' is %.0f, the tensors have %llu bytes", shown_str(opening->index_name).text, opening->index.total_size,
                   (unsigned long long)sum);
}

static enum status compare_index(struct opening *opening, struct err *err)
{
    struct container *base = &opening->self->base;
    enum status status = container_index_names(base, err);
    if (status != OK) return status;
    struct comparison comparison = { .base = base, .listed = calloc(base->n_tensors + 1, sizeof(bool)) };
    if (!comparison.listed) return short_of_memory(opening, err);
    status = shard_index_walk(&opening->index, compare_pair, &comparison, err);
    if (status == OK) status = check_all_listed(&comparison, err);
    free(comparison.listed);
    if (status != OK) return err_wrap(err, status, "'%s' does not fit the shards", shown_str(opening->index_name).text);
    note_total_size(opening);
    return OK;
}

static enum status open_weights(struct opening *opening, struct err *err)
{
    if (!opening->index_name) {
        enum status status = make_room(opening, 1, err);
        return status == OK ? open_shard(opening, opening->single, err) : status;
    }
    struct file file = { .fd = -1 };
    enum status status = open_index(opening, &file, err);
    if (status == OK) status = open_shards(opening, err);
    if (status == OK) status = compare_index(opening, err);
    if (status == OK) opening->self->base.files[opening->self->base.n_files++] = file;
    else file_close(&file);
    return status;
}

/* ---- small files ------------------------------------------------------------------------------------------------------------------ */

/* Lists the open file at the end of base->files as a small file. */
static enum status add_blob(struct opening *opening, const char *name, struct err *err)
{
    struct container *base = &opening->self->base;
    struct blob *blob = &base->blobs[base->n_blobs];
    blob->nbytes = base->files[base->n_files++].nbytes;
    blob->name = strdup(name);
    if (!blob->name) return short_of_memory(opening, err);
    base->n_blobs++;
    return OK;
}

/* A matching name that is a folder or the like stays among the unused ones. */
static enum status take_blob(struct opening *opening, struct entry *entry, struct err *err)
{
    struct container *base = &opening->self->base;
    struct file *file = &base->files[base->n_files];
    char *path = join(opening, entry->name, err);
    if (!path) return ERR_MEMORY;
    enum status status = file_open(opening->io, path, file, err);
    free(path);
    if (status != OK) return status == ERR_UNSUPPORTED ? OK : status; /* not a regular file */
    entry->used = true;
    if (file->nbytes <= BLOB_NBYTES_MAX) return add_blob(opening, entry->name, err);
    container_note(base, "left out '%s': %llu bytes is more than the limit of %llu for a small file", shown_str(entry->name).text,
                   (unsigned long long)file->nbytes, (unsigned long long)BLOB_NBYTES_MAX);
    file_close(file);
    return OK;
}

static enum status take_blobs(struct opening *opening, struct err *err)
{
    enum status status = OK;
    opening->self->first_blob = opening->self->base.n_files;
    for (size_t i = 0; status == OK && i < opening->n_entries; i++)
        if (takes_blob(&opening->entries[i], NULL)) status = take_blob(opening, &opening->entries[i], err);
    return status;
}

/* ---- what stays behind ------------------------------------------------------------------------------------------------------------ */

static void note_unused(struct opening *opening)
{
    struct container *base = &opening->self->base;
    if (base->n_tensors == 0) container_note(base, "'%s' has no tensors", shown_path(base->path).text);
    struct listed stray = list_entries(opening, is_unused, ".safetensors");
    if (stray.count > 0)
        container_note(base, "ignored %zu safetensors file%s %s: %s", stray.count, stray.count == 1 ? "" : "s",
                       opening->index_name ? "that the index does not name" : "beside the model", stray.text);
    for (size_t i = 0; i < opening->n_entries; i++)
        if (ends_with(opening->entries[i].name, ".safetensors")) opening->entries[i].used = true;
    struct listed rest = list_entries(opening, is_unused, NULL);
    if (rest.count > 0) container_note(base, "ignored %zu other entr%s of the folder: %s", rest.count, rest.count == 1 ? "y" : "ies", rest.text);
}

/* ---- the container ---------------------------------------------------------------------------------------------------------------- */

static bool probe(const char *path, bool is_dir, const uint8_t *head, size_t n_head)
{
    (void)head, (void)n_head;
    return is_dir || ends_with(path_base(path), SHARD_INDEX_SUFFIX);
}

static void close_container(struct container *container)
{
    struct hfdir *self = (struct hfdir *)container;
    container_release(container);
    for (size_t i = 0; i < self->n_headers; i++) safetensors_header_free(&self->headers[i]);
    free(self->headers);
    free(self);
}

static enum status open_folder(struct opening *opening, struct err *err)
{
    enum status status = list_folder(opening, err);
    if (status == OK) status = choose_weights(opening, err);
    if (status == OK) status = open_weights(opening, err);
    if (status == OK) status = take_blobs(opening, err);
    if (status == OK) note_unused(opening);
    return status;
}

static void end_opening(struct opening *opening)
{
    for (size_t i = 0; i < opening->n_entries; i++) free(opening->entries[i].name);
    free(opening->entries);
    free(opening->index_text);
    shard_index_free(&opening->index);
    free(opening->dir);
}

static enum status open_container(const struct io_calls *io, const char *path, struct container **container, struct err *err)
{
    struct hfdir *self = calloc(1, sizeof *self);
    if (!self) return err_set(err, ERR_MEMORY, "cannot open '%s': out of memory", shown_path(path).text);
    bool is_dir = path_is_dir(path);
    struct opening opening = { .io = io, .self = self, .dir = is_dir ? strdup(path) : path_dir(path) };
    if (!is_dir) opening.index_name = path_base(path);
    self->base.ops = &hfdir_container_ops;
    self->base.path = strdup(path);
    enum status status;
    if (!opening.dir || !self->base.path) status = err_set(err, ERR_MEMORY, "cannot open '%s': out of memory", shown_path(path).text);
    else status = open_folder(&opening, err);
    end_opening(&opening);
    if (status == OK) *container = &self->base;
    else close_container(&self->base);
    return status;
}

static enum status read_blob(struct container *container, size_t index, uint64_t offset, size_t nbytes, void *buf, struct err *err)
{
    const struct hfdir *self = (const struct hfdir *)container;
    return file_read(&container->files[self->first_blob + index], buf, nbytes, offset, err);
}

const struct container_ops hfdir_container_ops = {
    .name = "folder",
    .description = "model folder with *.safetensors, or its *.index.json",
    .probe = probe,
    .open = open_container,
    .read = safetensors_read,
    .read_blob = read_blob,
    .check_unchanged = container_files_unchanged,
    .close = close_container,
};
