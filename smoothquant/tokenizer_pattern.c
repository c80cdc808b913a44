/* tokenizer_pattern.c: runs the program of a pattern over a text; see tokenizer_pattern.h.
 *
 * Formula: a failure takes the last entry off the stack and goes on from there; a loop's entry is a range of places, of which the last is next.
 * Why this way: matching that backtracks finds what Oniguruma finds, alternatives from left to right; the stack is on the heap, so no text can overflow it.
 * Corner cases: steps are counted, and a pattern that takes too many on a text is refused instead of hanging; look and atomic run as programs of their
 * own, nested as deep as the pattern.
 * Reference: see tokenizer_pattern.h. Worked number: \s+(?!\S) at "  b": the loop takes 2, the look fails, the loop gives one back, 1 is matched.
 */
#include "smoothquant/tokenizer_pattern.h"

#include <stdlib.h>

#include "smoothquant/tokenizer_pattern_self.h"
#include "smoothquant/unicode.h"

#define STACK_MAX ((size_t)1 << 22)

/* Where to go on after a failure: at code with the text at high, and then at each code point down to low. */
struct pattern_retry {
    uint32_t code;
    size_t low, high;
};

void pattern_work_free(struct pattern_work *work)
{
    free(work->stack);
    *work = (struct pattern_work){ 0 };
}

struct run {
    const struct tokenizer_pattern *pattern;
    struct pattern_work *work;
    const char *text;
    size_t n;
    bool is_spent; /* out of steps, of stack, or of memory */
    bool lacks_memory;
};

static void push(struct run *run, uint32_t code, size_t low, size_t high)
{
    struct pattern_work *work = run->work;
    if (work->n_stack == work->capacity) {
        size_t capacity = work->capacity ? work->capacity * 2 : 64;
        struct pattern_retry *stack = capacity <= STACK_MAX ? realloc(work->stack, capacity * sizeof *stack) : NULL;
        run->is_spent = !stack;
        run->lacks_memory = !stack && capacity <= STACK_MAX;
        if (!stack) return;
        work->stack = stack;
        work->capacity = capacity;
    }
    work->stack[work->n_stack++] = (struct pattern_retry){ code, low, high };
}

/* Takes the next retry above base into *code and *at; false when there is none. */
static bool pop(struct run *run, size_t base, uint32_t *code, size_t *at)
{
    struct pattern_work *work = run->work;
    if (work->n_stack == base) return false;
    struct pattern_retry *retry = &work->stack[work->n_stack - 1];
    *code = retry->code;
    *at = retry->high;
    if (retry->low == retry->high) {
        work->n_stack--;
        return true;
    }
    do retry->high--;
    while (((unsigned char)run->text[retry->high] & 0xc0) == 0x80);
    return true;
}

static bool one_of(const struct run *run, uint32_t set, size_t *at)
{
    if (*at == run->n) return false;
    size_t length = unicode_length(run->text[*at]);
    if (!tokenizer_set_has(&run->pattern->sets[set], unicode_decode(run->text + *at, length))) return false;
    *at += length;
    return true;
}

static bool loop(struct run *run, const struct pattern_code *code, uint32_t next, size_t *at)
{
    uint32_t count = 0;
    for (; count < code->min; count++)
        if (!one_of(run, code->x, at)) return false;
    const size_t low = *at;
    size_t last = low;
    while (count < code->max) {
        const size_t before = *at;
        if (!one_of(run, code->x, at)) break;
        last = before;
        if (count < UINT32_MAX - 1) count++;
    }
    if (*at > low && !code->flag) push(run, next, low, last);
    return true;
}

static bool is_in_before(const struct run *run, uint32_t set, size_t at)
{
    if (at == 0) return false;
    do at--;
    while (((unsigned char)run->text[at] & 0xc0) == 0x80);
    return one_of(run, set, &at);
}

static bool is_edge(const struct run *run, uint32_t set, size_t at)
{
    size_t next = at;
    return is_in_before(run, set, at) != one_of(run, set, &next);
}

static bool match(struct run *run, uint32_t pc, size_t at, size_t *end);

/* What stands behind a look or an atomic group. */
static bool enclosed(struct run *run, uint32_t pc, size_t *at)
{
    const struct pattern_code *code = &run->pattern->codes[pc];
    size_t end = *at;
    const bool matched = match(run, pc + 1, *at, &end);
    if (code->op == PATTERN_LOOK) return matched != code->flag;
    if (matched) *at = end;
    return matched;
}

/* One instruction; false when it fails. */
static bool step(struct run *run, uint32_t *pc, size_t *at)
{
    const struct pattern_code *code = &run->pattern->codes[*pc];
    const uint32_t next = *pc + 1;
    *pc = next;
    switch (code->op) {
    case PATTERN_SET:
        return one_of(run, code->x, at);
    case PATTERN_LOOP:
        return loop(run, code, next, at);
    case PATTERN_SPLIT:
        push(run, code->y, *at, *at);
        *pc = code->x;
        return true;
    case PATTERN_JUMP:
        *pc = code->x;
        return true;
    case PATTERN_LOOK:
    case PATTERN_ATOMIC:
        *pc = code->x;
        return enclosed(run, next - 1, at);
    case PATTERN_LINE_END:
        return *at == run->n || run->text[*at] == '\n';
    case PATTERN_TEXT_END:
        return *at == run->n;
    case PATTERN_WORD_EDGE:
        return is_edge(run, code->x, *at) != code->flag;
    case PATTERN_END:
        break;
    }
    return false;
}

/* Runs the program at pc with the text at at. */
static bool match(struct run *run, uint32_t pc, size_t at, size_t *end)
{
    const size_t base = run->work->n_stack;
    bool goes_on = true;
    while (goes_on && run->pattern->codes[pc].op != PATTERN_END) {
        if (run->work->steps == 0) run->is_spent = true;
        else run->work->steps--;
        goes_on = !run->is_spent && (step(run, &pc, &at) || pop(run, base, &pc, &at)) && !run->is_spent;
    }
    run->work->n_stack = base;
    *end = at;
    return goes_on;
}

enum status tokenizer_pattern_find(const struct tokenizer_pattern *pattern, struct pattern_work *work, const char *text, size_t n, size_t from,
                                   size_t *start, size_t *end, bool *found, struct err *err)
{
    struct run run = { .pattern = pattern, .work = work, .text = text, .n = n };
    for (*start = from; *start <= n; *start += *start < n ? unicode_length(text[*start]) : 1) {
        *found = match(&run, 0, *start, end);
        if (run.lacks_memory) return err_set(err, ERR_MEMORY, "out of memory for the pattern '%s'", pattern->shown);
        if (run.is_spent) return err_set(err, ERR_UNSUPPORTED, "pattern '%s' takes too many steps on this text", pattern->shown);
        if (*found) return OK;
    }
    *found = false;
    return OK;
}
