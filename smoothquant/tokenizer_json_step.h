/* tokenizer_json_step.h: the normaliser, pre-tokenizer and post-processor of a tokenizer.json.
 *
 *   { "type": "Sequence", "normalizers": [ { "type": "Prepend", ... }, { "type": "Replace", ... } ] }
 *
 * Why this way: each type is a row of a table, name and reader; what is not in the table is refused by its name.
 * Corner cases: see tokenizer_json_step.c.
 * Reference: tokenizers 0.23, the serde forms of normalizers, pre_tokenizers and processors. Worked number: Digits is a cut by \p{N}.
 */
#ifndef LLMQ_SMOOTHQUANT_TOKENIZER_JSON_STEP_H
#define LLMQ_SMOOTHQUANT_TOKENIZER_JSON_STEP_H

#include "base/json.h"
#include "smoothquant/tokenizer_self.h"

/* Each takes the member's tree; NULL or null means that there is none. */
enum status json_read_normalizer(const cJSON *tree, struct tokenizer *tokenizer, struct err *err);
enum status json_read_pre_tokenizer(const cJSON *tree, struct tokenizer *tokenizer, struct err *err);

/* What stands before the text: tokenizer->front. */
enum status json_read_post_processor(const cJSON *tree, struct tokenizer *tokenizer, struct err *err);

#endif
