/* llmq_text.h: the JSON text of the index of a .llmq file, piece by piece in the order of FORMAT.md 2.
 *
 *   head, formats, blobs, tensors, end     each call appends its piece to a struct text
 *
 * Why this way: pieces, so that an index of any length passes through a small buffer, and the same calls measure its length beforehand.
 * Corner cases: a digest that is not known yet is written as zeros, which have the same length.
 * Reference: FORMAT.md 2. Example: "blobs":{"config.json":{"bytes":486,"tile":262144,"chunks":[0,1]}}.
 */
#ifndef LLMQ_CONTAINER_LLMQ_TEXT_H
#define LLMQ_CONTAINER_LLMQ_TEXT_H

#include "container/llmq_layout.h"

void llmq_text_head(struct text *text, const struct llmq_layout *layout, bool first_shard);
void llmq_text_format(struct text *text, const struct out_tensor *tensor, bool first);
void llmq_text_blobs(struct text *text, const struct llmq_layout *layout, bool first_shard);
void llmq_text_tensor(struct text *text, const struct out_tensor *tensor, const struct llmq_laid *laid, const struct digest128 *digest, bool first);
void llmq_text_end(struct text *text);

#endif
