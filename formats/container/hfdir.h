/* hfdir.h: a model folder as Hugging Face tools write it, or the index file in it, as one container.
 *
 *   model.safetensors.index.json + its shards     or     one *.safetensors     and config.json, tokenizer.json, ...
 *
 * Why this way: the converter sees one list of tensors in storage order and the small files, however many files there are.
 * Corner cases: see hfdir.c.
 * Reference: the project's reliability notes 1.4.
 */
#ifndef LLMQ_CONTAINER_HFDIR_H
#define LLMQ_CONTAINER_HFDIR_H

#include "container/container.h"

extern const struct container_ops hfdir_container_ops;

#endif
