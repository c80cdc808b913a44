/* fuzz_index.c: libFuzzer target of the index of a sharded checkpoint.
 *
 * Formula: the input is the text of an index.
 * Why this way: what is accepted must hold only plain *.safetensors names, sorted and distinct, and the second walk must see exactly the shards
 * that the first found.
 * Corner cases: the text is copied to a block of its exact size, so that a sanitizer sees any read beyond it.
 * Reference: libFuzzer, LLVMFuzzerTestOneInput. Run: fuzz_index -max_len=4096 CORPUS, real index files as the corpus.
 */
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "container/shard_index.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

static void require(bool holds)
{
    if (!holds) abort();
}

struct seen {
    const struct shard_index *index;
    size_t n_pairs;
    bool *shards;
};

static enum status see_pair(void *context, const char *tensor, const char *shard, struct err *err)
{
    struct seen *seen = context;
    (void)tensor, (void)err;
    size_t i = 0;
    while (i < seen->index->n_shards && strcmp(seen->index->shards[i], shard) != 0) i++;
    require(i < seen->index->n_shards);
    seen->shards[i] = true;
    seen->n_pairs++;
    return OK;
}

static void check_index(const struct shard_index *index)
{
    struct seen seen = { .index = index, .shards = calloc(index->n_shards, sizeof(bool)) };
    require(index->n_shards > 0 && index->n_tensors >= index->n_shards && seen.shards);
    for (size_t i = 0; i < index->n_shards; i++) {
        size_t n = strlen(index->shards[i]);
        require(path_is_plain_name(index->shards[i], n) && n > 12 && strcmp(index->shards[i] + n - 12, ".safetensors") == 0);
        require(i == 0 || strcmp(index->shards[i - 1], index->shards[i]) < 0);
    }
    require(shard_index_walk(index, see_pair, &seen, NULL) == OK);
    require(seen.n_pairs == index->n_tensors);
    for (size_t i = 0; i < index->n_shards; i++) require(seen.shards[i]);
    free(seen.shards);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    char *text = malloc(nbytes ? nbytes : 1);
    require(text != NULL);
    memcpy(text, data, nbytes);
    struct shard_index index;
    struct err err = { .code = OK };
    enum status status = shard_index_parse(text, nbytes, &index, &err);
    require((status == OK) == (err.text[0] == '\0'));
    if (status == OK) check_index(&index);
    shard_index_free(&index);
    free(text);
    return 0;
}
