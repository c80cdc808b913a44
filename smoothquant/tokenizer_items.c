/* tokenizer_items.c: the items of a checked JSON array; see tokenizer_items.h.
 *
 * Formula: an item ends at the comma or bracket that stands outside of strings and of brackets opened in it.
 * Why this way: see tokenizer_items.h.
 * Corner cases: a quote behind a backslash ends no string.
 * Reference: see tokenizer_items.h. Worked number: "\"," is one item of four bytes and a comma.
 */
#include "smoothquant/tokenizer_items.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"

static bool is_blank(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

bool items_open(struct items *items, const char *text, size_t n)
{
    *items = (struct items){ text, n, 1 };
    return n >= 2 && text[0] == '[';
}

/* Behind the string that begins at at. */
static size_t string_end(const char *text, size_t n, size_t at)
{
    for (at++; at < n && text[at] != '"'; at++)
        if (text[at] == '\\') at++;
    return at + 1;
}

bool items_next(struct items *items, const char **item, size_t *n)
{
    const char *text = items->text;
    size_t at = items->at, depth = 0;
    while (at < items->n && (is_blank(text[at]) || text[at] == ',')) at++;
    const size_t start = at;
    if (at >= items->n || text[at] == ']') return false;
    for (;;) {
        if (at >= items->n) return false;
        const char c = text[at];
        if (depth == 0 && at > start && (c == ',' || c == ']' || is_blank(c))) break;
        depth += c == '[' || c == '{';
        depth -= c == ']' || c == '}';
        at = c == '"' ? string_end(text, items->n, at) : at + 1;
    }
    *item = text + start;
    *n = at - start;
    items->at = at;
    return true;
}

bool items_string(const char *item, size_t n, char **held, const char **out, size_t *n_out)
{
    if (n < 2 || item[0] != '"') return false;
    *out = item + 1;
    *n_out = n - 2;
    if (!memchr(item, '\\', n)) return true;
    struct err err;
    cJSON *tree = NULL;
    if (json_parse_checked(item, n, &tree, &err) != OK) return false;
    const char *text = "";
    const bool is_string = json_string(tree, "item", &text, &err) == OK;
    char *copy = is_string ? strdup(text) : NULL;
    cJSON_Delete(tree);
    if (!copy) return false;
    free(*held);
    *held = copy;
    *out = copy;
    *n_out = strlen(copy);
    return true;
}
