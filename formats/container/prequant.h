/* prequant.h: recognises a checkpoint that another tool has already quantised, by name.
 *
 *   model.layers.0.mlp.up_proj.qweight + .g_idx  ->  "'PATH' is already quantised with GPTQ (tensor '...qweight'); llmq reads plain weights only"
 *
 * Why this way: packed codes look like ordinary integer tensors; quantising them again, or keeping them and dropping their meaning, gives a model
 * that talks nonsense. The tensors are asked first, because they are what would be read; config.json second.
 * Corner cases: see prequant.c.
 * Reference: the project's layout notes 2; the source of transformers' quantizers.
 */
#ifndef LLMQ_CONTAINER_PREQUANT_H
#define LLMQ_CONTAINER_PREQUANT_H

#include <stddef.h>

#include "base/err.h"
#include "container/container.h"

/* ERR_UNSUPPORTED when the container's tensors, or the nbytes of config.json text (NULL: none), belong to a known quantised layout; else OK. Time:
 * linear in the number of tensors. */
enum status prequant_check(const struct container *container, const char *config_json, size_t nbytes, struct err *err);

/* Iteration over the names of the layouts that are recognised by tensors, for tests and documentation. */
size_t prequant_count(void);
const char *prequant_at(size_t index);

#endif
