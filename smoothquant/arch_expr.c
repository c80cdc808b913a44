/* arch_expr.c: see arch_expr.h.
 *
 * Formula: sum = product { (+|-) product };  product = factor { (*|/) factor };  factor = digits | name | ( sum ).
 * Why this way: recursive descent, twelve lines a rule; the first mistake ends it.
 * Corner cases: a check walks with every value 1, so that its arithmetic cannot fail.
 * Reference: see arch_expr.h. Worked number: "a-b" is a difference: names have letters, digits and underscores.
 */
#include "smoothquant/arch_expr.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"

enum { DEPTH_MAX = 16 };

struct walk {
    const char *at;
    expr_lookup_fn *lookup;
    void *context;
    char *why;
    unsigned depth;
    bool only_check;
};

static enum expr_answer bad(struct walk *walk, const char *what)
{
    snprintf(walk->why, EXPR_WHY_MAX, "%s at '%.40s'", what, walk->at);
    return EXPR_BAD;
}

static void skip_blanks(struct walk *walk)
{
    walk->at += strspn(walk->at, " \t\n");
}

static size_t name_length(const char *at)
{
    return strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
}

static enum expr_answer sum(struct walk *walk, uint64_t *out);

static enum expr_answer digits(struct walk *walk, uint64_t *out)
{
    uint64_t value = 0;
    for (; *walk->at >= '0' && *walk->at <= '9'; walk->at++)
        if (!size_mul(value, 10, &value) || !size_add(value, (uint64_t)(*walk->at - '0'), &value)) return bad(walk, "a number too large");
    *out = walk->only_check ? 1 : value;
    return EXPR_OK;
}

static enum expr_answer name(struct walk *walk, size_t n, uint64_t *out)
{
    uint64_t value = 1;
    enum expr_answer answer = walk->lookup(walk->context, walk->at, n, &value);
    if (answer == EXPR_BAD) return bad(walk, "no fact");
    if (answer == EXPR_UNKNOWN && !walk->only_check) {
        snprintf(walk->why, EXPR_WHY_MAX, "%.*s", (int)(n < 60 ? n : 60), walk->at);
        return EXPR_UNKNOWN;
    }
    walk->at += n;
    *out = walk->only_check ? 1 : value;
    return EXPR_OK;
}

static enum expr_answer factor(struct walk *walk, uint64_t *out)
{
    skip_blanks(walk);
    size_t n = name_length(walk->at);
    if (*walk->at >= '0' && *walk->at <= '9') return digits(walk, out);
    if (n > 0) return name(walk, n, out);
    if (*walk->at != '(' || walk->depth == DEPTH_MAX) return bad(walk, "no number, name or parenthesis");
    walk->at++;
    walk->depth++;
    enum expr_answer answer = sum(walk, out);
    walk->depth--;
    if (answer != EXPR_OK) return answer;
    if (*walk->at != ')') return bad(walk, "no closing parenthesis");
    walk->at++;
    return EXPR_OK;
}

static enum expr_answer combine(struct walk *walk, char sign, uint64_t right, uint64_t *left)
{
    if (walk->only_check) return EXPR_OK;
    if (sign == '+' && size_add(*left, right, left)) return EXPR_OK;
    if (sign == '*' && size_mul(*left, right, left)) return EXPR_OK;
    if (sign == '-' && right <= *left) {
        *left -= right;
        return EXPR_OK;
    }
    if (sign == '/' && right > 0 && *left % right == 0) {
        *left /= right;
        return EXPR_OK;
    }
    return bad(walk, sign == '/' ? "a division that leaves a remainder" : "a number out of range");
}

static enum expr_answer product(struct walk *walk, uint64_t *out)
{
    enum expr_answer answer = factor(walk, out);
    for (skip_blanks(walk); answer == EXPR_OK && (*walk->at == '*' || *walk->at == '/'); skip_blanks(walk)) {
        char sign = *walk->at++;
        uint64_t right = 0;
        answer = factor(walk, &right);
        if (answer == EXPR_OK) answer = combine(walk, sign, right, out);
    }
    return answer;
}

static enum expr_answer sum(struct walk *walk, uint64_t *out)
{
    enum expr_answer answer = product(walk, out);
    while (answer == EXPR_OK && (*walk->at == '+' || *walk->at == '-')) {
        char sign = *walk->at++;
        uint64_t right = 0;
        answer = product(walk, &right);
        if (answer == EXPR_OK) answer = combine(walk, sign, right, out);
    }
    return answer;
}

static enum expr_answer whole(struct walk *walk, uint64_t *out)
{
    uint64_t value = 0;
    walk->why[0] = '\0';
    enum expr_answer answer = sum(walk, &value);
    if (answer == EXPR_OK && *walk->at) answer = bad(walk, "no sign");
    if (answer == EXPR_OK) *out = value;
    return answer;
}

enum expr_answer expr_value(const char *text, expr_lookup_fn *lookup, void *context, uint64_t *out, char why[EXPR_WHY_MAX])
{
    struct walk walk = { .at = text, .lookup = lookup, .context = context, .why = why };
    return whole(&walk, out);
}

enum expr_answer expr_check(const char *text, expr_lookup_fn *lookup, void *context, char why[EXPR_WHY_MAX])
{
    uint64_t value = 0;
    struct walk walk = { .at = text, .lookup = lookup, .context = context, .why = why, .only_check = true };
    return whole(&walk, &value);
}
