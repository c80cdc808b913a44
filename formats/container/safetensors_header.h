/* safetensors_header.h: the JSON text at the head of a safetensors file, as a checked table of tensors.
 *
 *   file:   N (8 bytes, little-endian) | N bytes of JSON | data
 *   JSON:   {"__metadata__": {"format": "pt"}, "w": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}, ...}
 *
 * Why this way: the text is parsed without its file, so that a fuzzer and a test reach every check from memory. Everything is checked before
 * anything is handed out: a reader that has this table needs no further test of a size or an offset.
 * Corner cases: see safetensors_header.c; stricter than the reference reader, every difference is on the list of the reliability notes 1.1.
 * Reference: safetensors README and its Rust reader; the project's reliability notes 1.1.
 */
#ifndef LLMQ_CONTAINER_SAFETENSORS_HEADER_H
#define LLMQ_CONTAINER_SAFETENSORS_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "container/container.h"

#define SAFETENSORS_HEADER_MAX 100000000u /* bytes of JSON, inclusive */
#define SAFETENSORS_LENGTH_NBYTES 8u

struct memory_block;

/* The parsed header. A zeroed struct is empty. */
struct safetensors_header {
    struct tensor *tensors; /* in storage order; offset counts from the start of the data, file is 0 */
    size_t n_tensors;
    char *metadata_json; /* text of __metadata__, an object of strings; NULL when there is none */
    size_t metadata_nbytes;
    bool begins_with_blank;
    struct memory_block *memory; /* holds names and dims of the tensors */
};

/* The length N at the start of a file of which head holds the first 8 bytes. */
uint64_t safetensors_header_nbytes(const uint8_t head[SAFETENSORS_LENGTH_NBYTES]);

/* True when the first n_head bytes of a file could begin a safetensors file: a possible N, then a brace or a blank. */
bool safetensors_header_plausible(const uint8_t *head, size_t n_head);

/* Parses the nbytes of JSON text of a file with data_nbytes of data. On failure *header is empty. ERR_UNSUPPORTED for an unknown dtype and for a
 * rank or name over the caps, else ERR_DATA. Memory: 64 bytes, the name and 8 bytes a dim for each tensor. */
enum status safetensors_header_parse(const char *text, size_t nbytes, uint64_t data_nbytes, struct safetensors_header *header, struct err *err);

void safetensors_header_free(struct safetensors_header *header);

#endif
