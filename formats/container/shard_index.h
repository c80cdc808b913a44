/* shard_index.h: the text of a model.safetensors.index.json: which shard holds which tensor.
 *
 *   {"metadata": {"total_size": 18}, "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
 *
 * Why this way: parsed from memory, so that a fuzzer reaches it; the names of tensors are not copied: the map is walked once for the shard names
 * and once more, after the shards are open, to compare.
 * Corner cases: see shard_index.c.
 * Reference: huggingface_hub and transformers, which write it; the project's reliability notes 1.4.
 */
#ifndef LLMQ_CONTAINER_SHARD_INDEX_H
#define LLMQ_CONTAINER_SHARD_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define SHARD_INDEX_NBYTES_MAX ((uint64_t)64 << 20)
#define SHARD_INDEX_SUFFIX ".index.json"

struct shard_index {
    const char *weight_map; /* the map's text, inside the text that was parsed */
    size_t weight_map_nbytes;
    size_t n_tensors; /* entries of the map */
    char **shards; /* distinct file names, by strcmp; each a plain name that ends in .safetensors */
    size_t n_shards;
    bool has_total_size;
    double total_size; /* metadata.total_size as it stands there */
};

/* Parses the nbytes of text, which must live as long as *index. On failure *index is empty. */
enum status shard_index_parse(const char *text, size_t nbytes, struct shard_index *index, struct err *err);

/* Calls fn for each (tensor, shard) pair in the order of the text; stops at the first status that is not OK. */
typedef enum status shard_index_fn(void *context, const char *tensor, const char *shard, struct err *err);
enum status shard_index_walk(const struct shard_index *index, shard_index_fn *fn, void *context, struct err *err);

void shard_index_free(struct shard_index *index);

#endif
