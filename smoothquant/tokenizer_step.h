/* tokenizer_step.h: what is done to a text before its words meet the merges: it is put in normal form, given a prefix, replaced in, cut, spelt as bytes.
 *
 *   prefix U+2581 | replace " " by U+2581 | cut before each U+2581            a Metaspace
 *   cut by 's|'t|...| ?\p{L}+|... | bytes                                     a ByteLevel
 *
 * Why this way: every normaliser and pre-tokenizer that llmq knows is a row of these five; what one step yields goes straight into the next, so a text of a
 * gigabyte needs no list of its words.
 * Corner cases: pieces without a byte are dropped. "First" means that the piece begins where the text begins.
 * Reference: tokenizers normalizers and pre_tokenizers. Worked number: byte 0x20 is spelt U+0120, 0x41 is spelt "A".
 */
#ifndef LLMQ_SMOOTHQUANT_TOKENIZER_STEP_H
#define LLMQ_SMOOTHQUANT_TOKENIZER_STEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/text.h"
#include "smoothquant/tokenizer_pattern.h"

#define TOKENIZER_STEPS_MAX 32u
#define TOKENIZER_PREFIX_MAX 64u

enum step_kind { STEP_NFC, STEP_PREFIX, STEP_REPLACE, STEP_CUT, STEP_BYTES };

/* What becomes of the matches of a cut. */
enum cut_rule { CUT_ISOLATED, CUT_REMOVED, CUT_TO_PREVIOUS, CUT_TO_NEXT, CUT_JOINED, CUT_RULE_COUNT };

struct step {
    enum step_kind kind;
    enum cut_rule rule; /* CUT */
    bool inverts; /* CUT: what lies between the matches counts as the matches */
    bool only_first; /* PREFIX: only where the text begins */
    bool unless_there; /* PREFIX: not before a piece that begins with it */
    char text[TOKENIZER_PREFIX_MAX]; /* PREFIX; REPLACE: what is put there */
    size_t n_text;
    char from[TOKENIZER_PREFIX_MAX]; /* REPLACE without a pattern: what is replaced, not empty */
    size_t n_from;
    struct tokenizer_pattern *pattern; /* CUT, REPLACE; owned */
};

/* A zeroed struct is empty. */
struct step_list {
    struct step steps[TOKENIZER_STEPS_MAX];
    size_t n_steps;
};

/* Takes the step over, its pattern too, also on failure. ERR_UNSUPPORTED when there are too many. */
enum status step_add(struct step_list *list, struct step *step, struct err *err);
enum status step_add_prefix(struct step_list *list, const char *text, size_t n, bool only_first, bool unless_there, struct err *err);
enum status step_add_replace(struct step_list *list, const char *from, size_t n_from, const char *to, size_t n_to, struct err *err);
enum status step_add_cut(struct step_list *list, const char *pattern, size_t n, enum cut_rule rule, bool inverts, struct err *err);
enum status step_add_kind(struct step_list *list, enum step_kind kind, struct err *err); /* NFC, BYTES */

void step_list_free(struct step_list *list);

/* Memory of running, for one thread. A zeroed struct is empty. */
struct step_work {
    struct pattern_work pattern;
    struct text texts[TOKENIZER_STEPS_MAX]; /* what each step has made */
    size_t n_texts; /* that are made */
};

void step_work_free(struct step_work *work);

typedef enum status step_take(void *context, const char *text, size_t n, bool is_first, struct err *err);

/* Runs all steps over a piece and gives what comes out to take, piece by piece, in order. */
enum status step_run(const struct step_list *list, struct step_work *work, const char *text, size_t n, bool is_first, step_take *take, void *context,
                     struct err *err);

/* The byte that a code point of spelt bytes stands for, or -1. */
int step_byte_of(uint32_t code);

#endif
