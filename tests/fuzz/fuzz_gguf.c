/* fuzz_gguf.c: libFuzzer target of the GGUF header.
 *
 * Formula: the input is a whole file.
 * Why this way: what is accepted is checked by other means: keys tile their section, spans of tensors lie in the file one behind the other, sizes
 * follow from dims, names are distinct.
 * Corner cases: the input is copied to a block of its exact size, so that a sanitizer sees any read beyond it.
 * Reference: libFuzzer, LLVMFuzzerTestOneInput. Run: fuzz_gguf -max_len=4096 CORPUS, real files as the corpus.
 */
#include <stdlib.h>
#include <string.h>

#include "container/gguf_header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

static void require(bool holds)
{
    if (!holds) abort();
}

static void check_keys(const struct gguf_header *header, size_t nbytes)
{
    uint64_t at = GGUF_KV_OFFSET;
    for (size_t i = 0; i < header->n_keys; i++) {
        const struct gguf_key *key = &header->keys[i];
        require(key->offset == at && key->type < GGUF_VALUE_COUNT && strlen(key->name) == key->n_name && key->n_name > 0);
        require(key->value_offset == at + 8 + key->n_name + 4 && key->nbytes > key->value_offset - at);
        require(gguf_find_key(header, key->name) == key);
        at += key->nbytes;
        require(at <= nbytes);
    }
    require(at == GGUF_KV_OFFSET + header->kv_nbytes);
}

static void check_tensors(const struct gguf_header *header, size_t nbytes)
{
    uint64_t at = header->data_offset, end = at;
    for (size_t i = 0; i < header->n_tensors; i++) {
        const struct tensor *tensor = &header->tensors[i];
        const struct gguf_entry *entry = &header->entries[i];
        double weights = 1.0;
        require(tensor->rank <= GGUF_DIMS_MAX && tensor->offset == at && tensor->dims == entry->dims);
        for (uint32_t d = 0; d < tensor->rank; d++) weights *= (double)tensor->dims[d];
        require(weights == (double)tensor->n_weights && tensor_cols(tensor) % entry->type->block == 0);
        require(weights / entry->type->block * entry->type->block_nbytes == (double)entry->nbytes);
        require((tensor->quantised == NULL) == (entry->type->block == 1) && tensor->nbytes == tensor->n_weights * tensor->dtype->bits / 8);
        require(tensor->name[0] != '\0' && strlen(tensor->name) <= GGUF_NAME_MAX);
        for (size_t k = 0; k < i; k++) require(strcmp(tensor->name, header->tensors[k].name) != 0);
        end = at + entry->nbytes;
        require(end <= nbytes);
        for (at = end; at % header->alignment; at++) {
        }
    }
    if (header->n_tensors > 0 && at > header->data_offset) require(header->is_unpadded ? nbytes == end && nbytes < at : nbytes == at);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    uint8_t *copy = malloc(nbytes ? nbytes : 1);
    require(copy != NULL);
    if (nbytes) memcpy(copy, data, nbytes);
    struct gguf_source source = { .read = gguf_read_memory, .context = copy, .nbytes = nbytes };
    struct gguf_header header;
    struct err err = { .code = OK };
    enum status status = gguf_header_parse(&source, &header, &err);
    require((status == OK) == (err.text[0] == '\0'));
    free(copy);
    if (status == OK) {
        check_keys(&header, nbytes);
        check_tensors(&header, nbytes);
    }
    gguf_header_free(&header);
    return 0;
}
