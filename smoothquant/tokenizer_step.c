/* tokenizer_step.c: runs the steps between a text and its words; see tokenizer_step.h.
 *
 * Formula: bytes 21..7e, a1..ac, ae..ff are spelt as the code points of the same number, the other 68 as 100, 101, ... in their order.
 * Why this way: step k writes what it makes into its own buffer and calls step k + 1, which never touches that buffer: no copies, no lists.
 * Corner cases: a cut to the next holds one match back until it is known what follows. A match of no character cuts where it stands.
 * Reference: see tokenizer_step.h; GPT-2's bytes_to_unicode. Worked number: byte 0 is spelt U+0100, byte 0xad U+0143.
 */
#include "smoothquant/tokenizer_step.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "smoothquant/tokenizer.h"
#include "smoothquant/unicode.h"

#define GROWN_MAX (TOKENIZER_FILE_MAX * 16) /* bytes of a text that a step has made */

/* ---- lists ------------------------------------------------------------------------------------------------------------------------ */

enum status step_add(struct step_list *list, struct step *step, struct err *err)
{
    if (list->n_steps < TOKENIZER_STEPS_MAX) {
        list->steps[list->n_steps++] = *step;
        return OK;
    }
    tokenizer_pattern_close(step->pattern);
    return err_set(err, ERR_UNSUPPORTED, "more than %u steps before the merges", TOKENIZER_STEPS_MAX);
}

static enum status set_text(char *out, size_t *n_out, const char *text, size_t n, struct err *err)
{
    if (n > TOKENIZER_PREFIX_MAX) return err_set(err, ERR_UNSUPPORTED, "a prefix or replacement of %zu bytes, more than %u", n, TOKENIZER_PREFIX_MAX);
    if (n) memcpy(out, text, n);
    *n_out = n;
    return OK;
}

enum status step_add_prefix(struct step_list *list, const char *text, size_t n, bool only_first, bool unless_there, struct err *err)
{
    struct step step = { .kind = STEP_PREFIX, .only_first = only_first, .unless_there = unless_there };
    enum status status = set_text(step.text, &step.n_text, text, n, err);
    return status == OK ? step_add(list, &step, err) : status;
}

enum status step_add_replace(struct step_list *list, const char *from, size_t n_from, const char *to, size_t n_to, struct err *err)
{
    struct step step = { .kind = STEP_REPLACE };
    if (n_from == 0) return err_set(err, ERR_DATA, "a replacement of nothing");
    enum status status = set_text(step.text, &step.n_text, to, n_to, err);
    if (status == OK) status = set_text(step.from, &step.n_from, from, n_from, err);
    return status == OK ? step_add(list, &step, err) : status;
}

enum status step_add_cut(struct step_list *list, const char *pattern, size_t n, enum cut_rule rule, bool inverts, struct err *err)
{
    struct step step = { .kind = STEP_CUT, .rule = rule, .inverts = inverts };
    enum status status = tokenizer_pattern_open(pattern, n, &step.pattern, err);
    return status == OK ? step_add(list, &step, err) : status;
}

enum status step_add_kind(struct step_list *list, enum step_kind kind, struct err *err)
{
    struct step step = { .kind = kind };
    return step_add(list, &step, err);
}

void step_list_free(struct step_list *list)
{
    for (size_t i = 0; i < list->n_steps; i++) tokenizer_pattern_close(list->steps[i].pattern);
    list->n_steps = 0;
}

void step_work_free(struct step_work *work)
{
    pattern_work_free(&work->pattern);
    for (size_t i = 0; i < work->n_texts; i++) text_free(&work->texts[i]);
    work->n_texts = 0;
}

/* ---- bytes ------------------------------------------------------------------------------------------------------------------------ */

static bool is_plain(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

static uint32_t spell(unsigned byte)
{
    if (is_plain(byte)) return byte;
    if (byte <= 0x20) return 0x100 + byte;
    return byte == 0xad ? 0x143 : 0x121 + (byte - 0x7f); /* 7f..a0 */
}

int step_byte_of(uint32_t code)
{
    if (code < 0x100) return is_plain(code) ? (int)code : -1;
    if (code <= 0x120) return (int)code - 0x100;
    if (code <= 0x142) return (int)code - 0x121 + 0x7f;
    return code == 0x143 ? 0xad : -1;
}

static void put_bytes(const char *text, size_t n, struct text *out)
{
    char piece[512];
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        used += utf8_put(spell((unsigned char)text[i]), piece + used);
        if (used < sizeof piece - 4) continue;
        text_add_bytes(out, piece, used);
        used = 0;
    }
    text_add_bytes(out, piece, used);
}

/* ---- running ---------------------------------------------------------------------------------------------------------------------- */

struct running {
    const struct step_list *list;
    struct step_work *work;
    step_take *take;
    void *context;
    struct err *err;
};

static enum status run_from(const struct running *run, size_t index, const char *text, size_t n, bool is_first);

/* A cut in progress. */
struct cutting {
    const struct running *run;
    size_t index;
    const char *text;
    bool is_first;
    bool holds; /* [start, end) is held back, until it is known whether what follows joins it */
    size_t start, end;
    bool was_match;
};

static enum status pass_on(struct cutting *cut)
{
    const size_t start = cut->start, n = cut->end - start;
    const bool is_piece = cut->holds && n > 0;
    cut->holds = false;
    return is_piece ? run_from(cut->run, cut->index + 1, cut->text + start, n, cut->is_first && start == 0) : OK;
}

/* True when the next span joins what is held back. */
static bool joins(const struct cutting *cut, enum cut_rule rule, bool is_match)
{
    if (!cut->holds) return false;
    if (rule == CUT_TO_PREVIOUS) return is_match && !cut->was_match;
    if (rule == CUT_TO_NEXT) return !is_match && cut->was_match;
    return rule == CUT_JOINED && is_match == cut->was_match;
}

/* The next span; spans follow each other without gaps, matches may be empty. */
static enum status put_span(struct cutting *cut, size_t start, size_t end, bool is_match)
{
    const struct step *step = &cut->run->list->steps[cut->index];
    enum status status = OK;
    if (step->inverts) is_match = !is_match;
    if (joins(cut, step->rule, is_match)) {
        cut->end = end;
    } else {
        status = pass_on(cut);
        cut->holds = step->rule != CUT_REMOVED || !is_match;
        cut->start = start;
        cut->end = end;
    }
    cut->was_match = is_match;
    return status;
}

/* The next match in [*from, n). An empty one right behind the last match, which ended at last, is none. */
static enum status next_match(const struct running *run, const struct tokenizer_pattern *pattern, const char *text, size_t n, size_t *from,
                              size_t last, size_t *start, size_t *end, bool *found)
{
    enum status status = OK;
    *found = false;
    while (*from <= n && status == OK) {
        status = tokenizer_pattern_find(pattern, &run->work->pattern, text, n, *from, start, end, found, run->err);
        if (status != OK || !*found) return status;
        *from = *start < *end ? *end : *end + (*end < n ? unicode_length(text[*end]) : 1);
        if (*start < *end || *end != last) return OK;
        *found = false;
    }
    return status;
}

static enum status run_cut(const struct running *run, size_t index, const char *text, size_t n, bool is_first)
{
    const struct tokenizer_pattern *pattern = run->list->steps[index].pattern;
    struct cutting cut = { .run = run, .index = index, .text = text, .is_first = is_first };
    size_t at = 0, from = 0, last = SIZE_MAX, start = 0, end = 0;
    bool found = true;
    for (;;) {
        enum status status = next_match(run, pattern, text, n, &from, last, &start, &end, &found);
        if (status == OK && !found) break;
        if (status == OK && at < start) status = put_span(&cut, at, start, false);
        if (status == OK) status = put_span(&cut, start, end, true);
        if (status != OK) return status;
        at = last = end;
    }
    enum status status = at < n ? put_span(&cut, at, n, false) : OK;
    return status == OK ? pass_on(&cut) : status;
}

static void replace_literal(const struct step *step, const char *text, size_t n, struct text *out)
{
    size_t at = 0;
    while (at < n) {
        const char *found = memchr(text + at, step->from[0], n - at);
        size_t start = found ? (size_t)(found - text) : n;
        text_add_bytes(out, text + at, start - at);
        at = start;
        if (start == n) break;
        const bool is_match = n - start >= step->n_from && memcmp(text + start, step->from, step->n_from) == 0;
        if (is_match) text_add_bytes(out, step->text, step->n_text);
        else text_add_bytes(out, text + start, 1);
        at += is_match ? step->n_from : 1;
    }
}

static enum status replace_pattern(const struct running *run, const struct step *step, const char *text, size_t n, struct text *out)
{
    size_t at = 0, from = 0, last = SIZE_MAX, start = 0, end = 0;
    bool found = true;
    for (;;) {
        enum status status = next_match(run, step->pattern, text, n, &from, last, &start, &end, &found);
        if (status != OK) return status;
        if (!found) break;
        text_add_bytes(out, text + at, start - at);
        text_add_bytes(out, step->text, step->n_text);
        at = last = end;
    }
    text_add_bytes(out, text + at, n - at);
    return OK;
}

static bool wants_prefix(const struct step *step, const char *text, size_t n, bool is_first)
{
    if (step->only_first && !is_first) return false;
    return !step->unless_there || n < step->n_text || memcmp(text, step->text, step->n_text) != 0;
}

/* A step that makes a new text. */
static enum status run_make(const struct running *run, size_t index, const char *text, size_t n, bool is_first)
{
    const struct step *step = &run->list->steps[index];
    struct text *out = &run->work->texts[index];
    enum status status = OK;
    text_reset(out);
    if (step->kind == STEP_NFC) {
        status = unicode_nfc(text, n, out, run->err);
    } else if (step->kind == STEP_PREFIX) {
        if (wants_prefix(step, text, n, is_first)) text_add_bytes(out, step->text, step->n_text);
        text_add_bytes(out, text, n);
    } else if (step->kind == STEP_BYTES) {
        put_bytes(text, n, out);
    } else if (step->pattern) {
        status = replace_pattern(run, step, text, n, out);
    } else {
        replace_literal(step, text, n, out);
    }
    if (status == OK) status = text_ok(out, "a text before its words", run->err);
    return status == OK ? run_from(run, index + 1, out->data, out->nbytes, is_first) : status;
}

static enum status run_from(const struct running *run, size_t index, const char *text, size_t n, bool is_first)
{
    if (n == 0) return OK;
    if (index == run->list->n_steps) return run->take(run->context, text, n, is_first, run->err);
    return run->list->steps[index].kind == STEP_CUT ? run_cut(run, index, text, n, is_first) : run_make(run, index, text, n, is_first);
}

enum status step_run(const struct step_list *list, struct step_work *work, const char *text, size_t n, bool is_first, step_take *take, void *context,
                     struct err *err)
{
    const struct running run = { list, work, take, context, err };
    for (; work->n_texts < list->n_steps; work->n_texts++) work->texts[work->n_texts] = text_make(GROWN_MAX);
    return run_from(&run, 0, text, n, is_first);
}
