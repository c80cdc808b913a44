/* blob_rule.h: which small files of a model folder travel along with its weights, by name.
 *
 *   config.json -> yes   tokenizer.model -> yes   LICENSE -> yes   model.safetensors.index.json -> no   modeling_x.py -> no
 *
 * Why this way: runtimes need tokenizer and configuration beside the weights; one table says which names those are.
 * Corner cases: see blob_rule.c.
 * Reference: the files that transformers and llama.cpp's converter read from a model folder.
 */
#ifndef LLMQ_CONTAINER_BLOB_RULE_H
#define LLMQ_CONTAINER_BLOB_RULE_H

#include <stdbool.h>
#include <stdint.h>

#define BLOB_NBYTES_MAX ((uint64_t)64 << 20)
#define BLOBS_MAX 256

/* True when a file with this name travels along. */
bool blob_rule_takes(const char *name);

#endif
