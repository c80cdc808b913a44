/* arch_config.h: what a model says about itself: config.json, or the keys of a GGUF file, read by name.
 *
 *   config.json: { "text_config": { "num_hidden_layers": 34 } }   "num_hidden_layers"   ->  the number 34
 *   metadata.gguf                                                 "{arch}.block_count"  ->  the key gemma3.block_count, 34
 *
 * Why this way: both travel as small files of every container, so that a converted model answers like its source.
 * Corner cases: a name with dots goes down into objects; nested configurations (text_config, ...) are asked before the whole; null is absent; a file
 * that is no JSON object is an error that names it; lists of up to 4096 numbers or texts, longer ones count as absent.
 * Reference: configs/arch/README.md; GGUF keys as container/gguf_header.h has them. Worked number: see above.
 */
#ifndef LLMQ_SMOOTHQUANT_ARCH_CONFIG_H
#define LLMQ_SMOOTHQUANT_ARCH_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "container/container.h"

enum config_kind { CONFIG_ABSENT, CONFIG_NUMBER, CONFIG_TEXT, CONFIG_FLAG, CONFIG_NUMBERS, CONFIG_TEXTS };

/* A value, its memory owned: config_value_free. */
struct config_value {
    enum config_kind kind;
    double number; /* a flag is 0 or 1 */
    char *text;
    double *numbers;
    char **texts;
    size_t n; /* of numbers or texts */
};

struct arch_config;

/* Looks for config.json, then for GGUF keys; a container with neither gives a config that answers nothing. nested: names of members that hold the
 * language model's configuration, NULL-terminated. The container must outlive the config. */
enum status arch_config_open(struct container *container, const char *const *nested, struct arch_config **out, struct err *err);
void arch_config_close(struct arch_config *config); /* NULL allowed */

bool arch_config_is_gguf(const struct arch_config *config);

/* The i-th name by which the model may call its architecture: architectures[0] and model_type of config.json, then the same of the nested ones;
 * general.architecture of a GGUF file. NULL behind the last. Lives as long as the config. */
const char *arch_config_name(const struct arch_config *config, size_t i);

/* The value called name; kind CONFIG_ABSENT when there is none. {arch} stands for general.architecture in GGUF names. */
enum status arch_config_get(const struct arch_config *config, const char *name, struct config_value *out, struct err *err);

void config_value_free(struct config_value *value);

#endif
