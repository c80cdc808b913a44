/* fuzz_safetensors.c: libFuzzer target of the safetensors header.
 *
 * Formula: the input is a file: N (8 bytes), header, data; an N beyond the input is cut to what is there, so that most inputs reach the parser.
 * Why this way: what is accepted is checked by other means: every data byte is claimed by exactly one tensor, sizes follow from shapes, names are
 * distinct.
 * Corner cases: the text is copied to a block of its exact size, so that a sanitizer sees any read beyond it.
 * Reference: libFuzzer, LLVMFuzzerTestOneInput. Run: fuzz_safetensors -max_len=4096 CORPUS, real files as the corpus.
 */
#include <stdlib.h>
#include <string.h>

#include "container/safetensors_header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

static void require(bool holds)
{
    if (!holds) abort();
}

/* Colours the bytes of the data by the tensors. */
static void check_coverage(const struct safetensors_header *header, size_t data_nbytes)
{
    uint8_t *owned = calloc(data_nbytes + 1, 1);
    require(owned != NULL);
    size_t n_owned = 0;
    for (size_t i = 0; i < header->n_tensors; i++) {
        const struct tensor *tensor = &header->tensors[i];
        require(tensor->offset <= data_nbytes && tensor->nbytes <= data_nbytes - tensor->offset);
        for (uint64_t b = 0; b < tensor->nbytes; b++) require(owned[tensor->offset + b]++ == 0);
        n_owned += (size_t)tensor->nbytes;
    }
    require(n_owned == data_nbytes);
    free(owned);
}

static void check_tensor(const struct safetensors_header *header, size_t index)
{
    const struct tensor *tensor = &header->tensors[index];
    double weights = 1.0;
    require(tensor->rank <= TENSOR_RANK_MAX);
    for (uint32_t d = 0; d < tensor->rank; d++) weights *= (double)tensor->dims[d];
    require(weights == (double)tensor->n_weights);
    require(weights * tensor->dtype->bits == 8.0 * (double)tensor->nbytes);
    require(tensor->name[0] != '\0' && strlen(tensor->name) <= TENSOR_NAME_MAX);
    for (const char *c = tensor->name; *c; c++) require((unsigned char)*c >= 0x20 && *c != 0x7f);
    for (size_t i = 0; i < index; i++) require(strcmp(tensor->name, header->tensors[i].name) != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    if (nbytes < SAFETENSORS_LENGTH_NBYTES) return 0;
    size_t rest = nbytes - SAFETENSORS_LENGTH_NBYTES;
    uint64_t claimed = safetensors_header_nbytes(data);
    size_t n_text = claimed < rest ? (size_t)claimed : rest;
    char *text = malloc(n_text ? n_text : 1);
    require(text != NULL);
    memcpy(text, data + SAFETENSORS_LENGTH_NBYTES, n_text);
    struct safetensors_header header;
    struct err err = { .code = OK };
    enum status status = safetensors_header_parse(text, n_text, rest - n_text, &header, &err);
    require((status == OK) == (err.text[0] == '\0'));
    free(text);
    if (status == OK) check_coverage(&header, rest - n_text);
    for (size_t i = 0; status == OK && i < header.n_tensors; i++) check_tensor(&header, i);
    safetensors_header_free(&header);
    return 0;
}
