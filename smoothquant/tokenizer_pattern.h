/* tokenizer_pattern.h: the regular expressions by which tokenizers cut a text into words.
 *
 *   pattern = alternatives of sequences      x* x+ x? x{n,m} greedy, lazy (x+?), possessive (x++)      (x) (?:x) (?i:x) (?=x) (?!x)
 *   x = character | . | [class] | \s \S \d \D \w \W \p{Lu} \P{..} | \r \n \t \x{..} \uXXXX      $ \z \b \B
 *
 * Why this way: each tokenizer.json brings its pattern as text; a small machine for the syntax they use knows all of them, where a list of known patterns
 * would know yesterday's.
 * Corner cases: syntax outside of the drawing (look-behind, back references, scripts, && in a class) is refused by name; a match tries alternatives from
 * left to right, as Oniguruma and PCRE do. $ stands before a line feed and at the end, \z at the end alone. Without case means ASCII letters, and U+017F
 * and U+212A, which fold to s and k.
 * Reference: Oniguruma's doc/RE (Ruby syntax), which Hugging Face tokenizers uses. Worked number: \s+(?!\S)|\s+ in "a  b" first matches one blank.
 */
#ifndef LLMQ_SMOOTHQUANT_TOKENIZER_PATTERN_H
#define LLMQ_SMOOTHQUANT_TOKENIZER_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define TOKENIZER_PATTERN_MAX 65536u /* bytes of a pattern */

/* Constant after it is compiled. */
struct tokenizer_pattern;

/* Compiles n bytes of UTF-8. ERR_UNSUPPORTED "pattern '...': byte 3: ..." for syntax that is not known; ERR_DATA for what is no pattern. */
enum status tokenizer_pattern_open(const char *text, size_t n, struct tokenizer_pattern **out, struct err *err);
void tokenizer_pattern_close(struct tokenizer_pattern *pattern); /* NULL allowed */

struct pattern_retry;

/* Memory of matching, for one thread. A zeroed struct is empty. */
struct pattern_work {
    struct pattern_retry *stack;
    size_t n_stack, capacity;
    uint64_t steps; /* that may still be taken */
};

void pattern_work_free(struct pattern_work *work);

/* The first match in text[from, n), which is well-formed UTF-8 and begins at a code point; *found says whether there is one. ERR_UNSUPPORTED when steps
 * run out. */
enum status tokenizer_pattern_find(const struct tokenizer_pattern *pattern, struct pattern_work *work, const char *text, size_t n, size_t from,
                                   size_t *start, size_t *end, bool *found, struct err *err);

#endif
