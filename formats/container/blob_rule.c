/* blob_rule.c: the table of small files that travel along; see blob_rule.h.
 *
 * Formula: the first row whose pattern matches the name decides; no row: it stays behind.
 * Why this way: what describes weights (an index, another tool's quantisation settings) is named before the general patterns, because it would lie
 * about the output.
 * Corner cases: hidden names, names that are no valid UTF-8 and names with control characters never travel; capital letters count.
 * Reference: POSIX fnmatch with FNM_PERIOD. Worked example: "hf_quant_config.json" meets *quant*.json (stays) before *.json (travels).
 */
#include "container/blob_rule.h"

#include <fnmatch.h>
#include <stddef.h>
#include <string.h>

#include "base/io.h"
#include "base/utf8.h"

static const struct row {
    const char *pattern;
    bool travels;
} rows[] = {
    /* weights, and what describes their storage */
    { "*.safetensors", false },
    { "*.bin", false },
    { "*.pt", false },
    { "*.pth", false },
    { "metadata.gguf", true }, /* the keys of a GGUF file, without tensors */
    { "*.gguf", false },
    { "*.llmq", false },
    { "*.partial", false },
    { "*.index.json", false },
    { "*quant*.json", false },
    /* what runtimes read */
    { "config.json", true },
    { "generation_config.json", true },
    { "tokenizer.json", true },
    { "tokenizer.model", true },
    { "tokenizer_config.json", true },
    { "special_tokens_map.json", true },
    { "added_tokens.json", true },
    { "vocab.json", true },
    { "merges.txt", true },
    { "vocab.txt", true },
    { "chat_template.json", true },
    { "chat_template.jinja", true },
    { "preprocessor_config.json", true },
    { "processor_config.json", true },
    { "spiece.model", true },
    { "*.tiktoken", true },
    { "*.jinja", true },
    /* what people and other tools read */
    { "*.json", true },
    { "*.txt", true },
    { "*.md", true },
    { "README*", true },
    { "LICENSE*", true },
    { "NOTICE*", true },
};

static bool is_text(const char *name)
{
    size_t n = strlen(name);
    if (!path_is_plain_name(name, n)) return false;
    for (size_t at = 0; at < n;) {
        size_t length = utf8_length(name + at, n - at);
        if (length == 0) return false;
        at += length;
    }
    return true;
}

bool blob_rule_takes(const char *name)
{
    if (!is_text(name)) return false;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (fnmatch(rows[i].pattern, name, FNM_PERIOD) == 0) return rows[i].travels;
    return false;
}
