/* shard_index.c: parsing the index of a sharded checkpoint; see shard_index.h.
 *
 * Formula: shards = sorted set of the values of weight_map.
 * Why this way: a shard name decides which file is opened, so it is checked here, where it is read, and not where it is used. The open file is a
 * legal safetensors file wherever it lies; nothing later would notice a redirection.
 * Corner cases: refused: no weight_map or an empty one, values that are no strings, duplicate keys, names with / or \ or control characters, "."
 * and "..", names over 255 bytes or without .safetensors, more than 10,000 shards. metadata is optional and its content is not trusted: a
 * total_size that is no number is no total_size. Unknown members are ignored. Escapes in shard names are undone.
 * Reference: see shard_index.h. Worked number: the drawing in shard_index.h has 2 tensors, 2 shards, total size 18.
 */
#include "container/shard_index.h"

#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/json.h"
#include "container/name_table.h"
#include "container/shown.h"

#define SHARDS_MAX 10000
#define SHARD_SUFFIX ".safetensors"

static const struct json_limits limits = { .max_depth = 16, .max_values = (uint64_t)1 << 23, .plain_integers = false };

/* ---- values ----------------------------------------------------------------------------------------------------------------------- */

/* The string of a checked JSON value, copied; the caller frees it. Escapes are left to the JSON parser. */
static enum status copy_string(const char *value, size_t nbytes, char **copy, struct err *err)
{
    *copy = NULL;
    if (!memchr(value, '\\', nbytes)) {
        *copy = strndup(value + 1, nbytes - 2);
    } else {
        cJSON *tree = NULL;
        enum status status = json_parse(value, nbytes, &limits, &tree, err);
        if (status != OK) return status;
        *copy = cJSON_IsString(tree) ? strdup(tree->valuestring) : NULL;
        cJSON_Delete(tree);
    }
    return *copy ? OK : err_set(err, ERR_MEMORY, "out of memory for a shard name");
}

static bool ends_with(const char *name, const char *suffix)
{
    size_t n = strlen(name), n_suffix = strlen(suffix);
    return n > n_suffix && strcmp(name + n - n_suffix, suffix) == 0;
}

static enum status check_shard_name(const char *name, struct err *err)
{
    if (!path_is_plain_name(name, strlen(name)))
        return err_set(err, ERR_DATA, "shard '%s' is not a plain file name in the model's folder", shown_str(name).text);
    if (!ends_with(name, SHARD_SUFFIX)) return err_set(err, ERR_DATA, "shard '%s' does not end in %s", shown_str(name).text, SHARD_SUFFIX);
    return OK;
}

/* ---- first walk: the distinct shard names ----------------------------------------------------------------------------------------- */

struct collect {
    struct shard_index *index;
    struct name_table table; /* of index->shards while they are collected */
};

/* Adds the shard name, which the collection then owns or frees. */
static enum status add_shard(struct collect *collect, char *name, struct err *err)
{
    struct shard_index *index = collect->index;
    size_t number = 0;
    enum status status = name_table_add(&collect->table, name, &number, err);
    if (status != OK || collect->table.n_names == index->n_shards) {
        free(name);
        return status;
    }
    char **grown = realloc(index->shards, collect->table.capacity * sizeof *grown);
    if (!grown) {
        free(name);
        return err_set(err, ERR_MEMORY, "out of memory for %zu shard names", collect->table.n_names);
    }
    index->shards = grown;
    index->shards[index->n_shards++] = name;
    if (index->n_shards > SHARDS_MAX) return err_set(err, ERR_UNSUPPORTED, "weight_map names more than %d shards", SHARDS_MAX);
    return OK;
}

static enum status take_pair(void *context, const char *key, size_t n_key, const char *value, size_t nbytes, struct err *err)
{
    struct collect *collect = context;
    if (value[0] != '"') return err_set(err, ERR_DATA, "weight_map: the shard of tensor '%s' is not a string", shown(key, n_key).text);
    char *name = NULL;
    enum status status = copy_string(value, nbytes, &name, err);
    if (status != OK) return status;
    status = check_shard_name(name, err);
    if (status != OK) {
        free(name);
        return err_wrap(err, status, "weight_map: tensor '%s'", shown(key, n_key).text);
    }
    collect->index->n_tensors++;
    return add_shard(collect, name, err);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static enum status collect_shards(struct shard_index *index, struct err *err)
{
    struct collect collect = { .index = index };
    enum status status = json_walk_object(index->weight_map, index->weight_map_nbytes, &limits, take_pair, &collect, err);
    name_table_free(&collect.table);
    if (status == OK && index->n_tensors == 0) status = err_set(err, ERR_DATA, "weight_map is empty");
    if (status == OK) qsort(index->shards, index->n_shards, sizeof *index->shards, compare_names);
    return status;
}

/* ---- members of the index --------------------------------------------------------------------------------------------------------- */

static enum status take_metadata_member(void *context, const char *key, size_t n_key, const char *value, size_t nbytes, struct err *err)
{
    (void)n_key;
    struct shard_index *index = context;
    cJSON *tree = NULL;
    bool is_number = value[0] == '-' || (value[0] >= '0' && value[0] <= '9');
    if (strcmp(key, "total_size") != 0 || !is_number) return OK;
    enum status status = json_parse(value, nbytes, &limits, &tree, err);
    if (status != OK) return status;
    index->has_total_size = true;
    index->total_size = tree->valuedouble;
    cJSON_Delete(tree);
    return OK;
}

static enum status take_metadata(struct shard_index *index, const char *value, size_t nbytes, struct err *err)
{
    if (value[0] != '{') return OK;
    return json_walk_object(value, nbytes, &limits, take_metadata_member, index, err);
}

static enum status take_weight_map(struct shard_index *index, const char *value, size_t nbytes, struct err *err)
{
    if (value[0] != '{') return err_set(err, ERR_DATA, "weight_map is not an object");
    index->weight_map = value;
    index->weight_map_nbytes = nbytes;
    return OK;
}

static const struct member {
    const char *name;
    enum status (*take)(struct shard_index *index, const char *value, size_t nbytes, struct err *err);
} members[] = {
    { "metadata", take_metadata },
    { "weight_map", take_weight_map },
};

static enum status take_member(void *context, const char *key, size_t n_key, const char *value, size_t nbytes, struct err *err)
{
    (void)n_key;
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
        if (strcmp(members[i].name, key) == 0) return members[i].take(context, value, nbytes, err);
    return OK;
}

/* ---- public ----------------------------------------------------------------------------------------------------------------------- */

enum status shard_index_parse(const char *text, size_t nbytes, struct shard_index *index, struct err *err)
{
    *index = (struct shard_index){ 0 };
    if (nbytes > SHARD_INDEX_NBYTES_MAX)
        return err_set(err, ERR_DATA, "it has %zu bytes, more than the limit of %llu", nbytes, (unsigned long long)SHARD_INDEX_NBYTES_MAX);
    enum status status = json_walk_object(text, nbytes, &limits, take_member, index, err);
    if (status == OK && !index->weight_map) status = err_set(err, ERR_DATA, "weight_map is missing");
    if (status == OK) status = collect_shards(index, err);
    if (status != OK) shard_index_free(index);
    return status;
}

struct walk {
    shard_index_fn *fn;
    void *context;
};

static enum status pass_pair(void *context, const char *key, size_t n_key, const char *value, size_t nbytes, struct err *err)
{
    (void)n_key;
    const struct walk *walk = context;
    char *shard = NULL;
    enum status status = copy_string(value, nbytes, &shard, err);
    if (status != OK) return status;
    status = walk->fn(walk->context, key, shard, err);
    free(shard);
    return status;
}

enum status shard_index_walk(const struct shard_index *index, shard_index_fn *fn, void *context, struct err *err)
{
    struct walk walk = { .fn = fn, .context = context };
    return json_walk_object(index->weight_map, index->weight_map_nbytes, &limits, pass_pair, &walk, err);
}

void shard_index_free(struct shard_index *index)
{
    if (!index) return;
    for (size_t i = 0; i < index->n_shards; i++) free(index->shards[i]);
    free(index->shards);
    *index = (struct shard_index){ 0 };
}
