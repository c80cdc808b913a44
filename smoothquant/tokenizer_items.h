/* tokenizer_items.h: walks a JSON array of half a million merges item by item, without a tree of all of them.
 *
 *   [ "a b", ["c", "d"] ]   ->  "a b"  then  ["c", "d"]
 *
 * Why this way: a tree of the merges of a large model has 160 MB; the walk has none.
 * Corner cases: the text must have passed json_check; then every bracket and quote is where it belongs.
 * Reference: RFC 8259. Worked number: the array above has the items at bytes 2..6 and 9..18.
 */
#ifndef LLMQ_SMOOTHQUANT_TOKENIZER_ITEMS_H
#define LLMQ_SMOOTHQUANT_TOKENIZER_ITEMS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* A place in a checked array, at first its opening bracket. */
struct items {
    const char *text;
    size_t n, at;
};

/* False when text is no array. */
bool items_open(struct items *items, const char *text, size_t n);

/* The next item's text; false behind the last one. */
bool items_next(struct items *items, const char **item, size_t *n);

/* The string that an item is, with its escapes undone: a piece of the item where it has none, else of *held, which the caller frees in the end (NULL at
 * first). False when it is no string; ERR_MEMORY is reported as false too. */
bool items_string(const char *item, size_t n, char **held, const char **out, size_t *n_out);

#endif
