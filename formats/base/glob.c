/* glob.c: name patterns through fnmatch and regcomp; see glob.h.
 *
 * Formula: the regular expression E is matched as ^(E)$.
 * Why this way: anchored, the C library is linear in the name; unanchored it tries every start and needs 6 s for one name of 64 KiB.
 * Corner cases: E must be an expression by itself ("a)(b" would be one only between the parentheses) and must have no ")" of its own that
 * the C library would take as a plain byte; back-references are refused (their numbers would shift, their time is exponential). A
 * backslash escapes the next byte in a glob and in a regular expression, and is itself in an exact pattern; "re:" alone is an empty pattern.
 * Reference: see glob.h; POSIX.1-2008 XBD 9.4. Worked number: re:a|ab becomes ^(a|ab)$ and matches 2 names.
 */
#include "base/glob.h"

#include <fnmatch.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATTERN_TEXT_MAX 200 /* bytes of a pattern in a message */

struct pattern {
    enum pattern_kind kind;
    char *text;
    regex_t regex; /* PATTERN_REGEX only */
};

static enum pattern_kind kind_of(const char *text)
{
    if (strncmp(text, "re:", 3) == 0) return PATTERN_REGEX;
    return strpbrk(text, "*?[") ? PATTERN_GLOB : PATTERN_EXACT;
}

static enum status refuse(const char *text, enum status code, const char *reason, struct err *err)
{
    char name[PATTERN_TEXT_MAX];
    return err_set(err, code, "pattern '%s': %s", err_name(text, strlen(text), name, sizeof name), reason);
}

static bool has_back_reference(const char *expression)
{
    for (const char *at = expression; (at = strchr(at, '\\')) && at[1]; at += 2)
        if (at[1] >= '1' && at[1] <= '9') return true;
    return false;
}

/* Compiles before + expression + after; returns the code of regcomp. */
static int compile_between(const char *before, const char *expression, const char *after, regex_t *regex)
{
    size_t size = strlen(before) + strlen(expression) + strlen(after) + 1;
    char *whole = malloc(size);
    if (!whole) return REG_ESPACE;
    snprintf(whole, size, "%s%s%s", before, expression, after);
    int result = regcomp(regex, whole, REG_EXTENDED | REG_NOSUB);
    free(whole);
    return result;
}

static enum status compile(const char *text, regex_t *regex, struct err *err)
{
    const char *expression = text + 3;
    char reason[128];
    if (has_back_reference(expression)) return refuse(text, ERR_USAGE, "back-references are not allowed", err);
    int alone = compile_between("", expression, "", regex);
    if (alone == 0) regfree(regex);
    int opened = alone == 0 ? compile_between("(", expression, "", regex) : alone;
    if (opened == 0) {
        regfree(regex);
        return refuse(text, ERR_USAGE, "Unmatched )", err);
    }
    int result = alone == 0 ? compile_between("^(", expression, ")$", regex) : alone;
    if (result == 0) return OK;
    regerror(result, regex, reason, sizeof reason);
    return refuse(text, result == REG_ESPACE ? ERR_MEMORY : ERR_USAGE, reason, err);
}

enum status pattern_open(const char *text, struct pattern **out, struct err *err)
{
    *out = NULL;
    if (*text == '\0' || strcmp(text, "re:") == 0) return err_set(err, ERR_USAGE, "pattern '%s' is empty", text);
    struct pattern *pattern = calloc(1, sizeof *pattern);
    char *copy = strdup(text);
    if (!pattern || !copy) {
        free(pattern);
        free(copy);
        return err_set(err, ERR_MEMORY, "out of memory for a pattern");
    }
    pattern->text = copy;
    enum pattern_kind kind = kind_of(text);
    enum status status = kind == PATTERN_REGEX ? compile(text, &pattern->regex, err) : OK;
    pattern->kind = status == OK ? kind : PATTERN_EXACT;
    if (status == OK) *out = pattern;
    else pattern_close(pattern);
    return status;
}

void pattern_close(struct pattern *pattern)
{
    if (!pattern) return;
    if (pattern->kind == PATTERN_REGEX) regfree(&pattern->regex);
    free(pattern->text);
    free(pattern);
}

enum pattern_kind pattern_kind(const struct pattern *pattern)
{
    return pattern->kind;
}

const char *pattern_text(const struct pattern *pattern)
{
    return pattern->text;
}

bool pattern_match(const struct pattern *pattern, const char *name)
{
    if (pattern->kind == PATTERN_EXACT) return strcmp(pattern->text, name) == 0;
    if (pattern->kind == PATTERN_GLOB) return fnmatch(pattern->text, name, 0) == 0;
    return regexec(&pattern->regex, name, 0, NULL, 0) == 0;
}
