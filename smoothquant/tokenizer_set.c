/* tokenizer_set.c: sets of code points; see tokenizer_set.h.
 *
 * Formula: after sorting, a range joins the one before it when first <= last + 1; the complement is what lies between.
 * Why this way: see tokenizer_set.h.
 * Corner cases: the complement of the empty set is 0..10FFFF, of all of it the empty set.
 * Reference: see tokenizer_set.h. Worked number: 5..7 and 8..9 become 5..9; its complement 0..4, a..10ffff.
 */
#include "smoothquant/tokenizer_set.h"

#include <stdlib.h>
#include <string.h>

#include "smoothquant/unicode.h"

bool tokenizer_set_add(struct tokenizer_set *set, uint32_t first, uint32_t last)
{
    if (set->n_ranges == set->capacity) {
        size_t capacity = set->capacity ? set->capacity * 2 : 16;
        struct code_range *ranges = realloc(set->ranges, capacity * sizeof *ranges);
        if (!ranges) return false;
        set->ranges = ranges;
        set->capacity = capacity;
    }
    set->ranges[set->n_ranges++] = (struct code_range){ first, last };
    return true;
}

bool tokenizer_set_add_categories(struct tokenizer_set *set, uint32_t mask)
{
    uint32_t first, last, bit;
    for (size_t i = 0; unicode_category_run(i, &first, &last, &bit); i++)
        if (bit & mask && !tokenizer_set_add(set, first, last)) return false;
    return true;
}

bool tokenizer_set_add_spaces(struct tokenizer_set *set)
{
    static const struct code_range spaces[] = { { 9, 13 },          { 0x20, 0x20 },     { 0x85, 0x85 },     { 0xa0, 0xa0 },     { 0x1680, 0x1680 },
                                                { 0x2000, 0x200a }, { 0x2028, 0x2029 }, { 0x202f, 0x202f }, { 0x205f, 0x205f }, { 0x3000, 0x3000 } };
    for (size_t i = 0; i < sizeof spaces / sizeof spaces[0]; i++)
        if (!tokenizer_set_add(set, spaces[i].first, spaces[i].last)) return false;
    return true;
}

bool tokenizer_set_add_set(struct tokenizer_set *set, const struct tokenizer_set *other)
{
    for (size_t i = 0; i < other->n_ranges; i++)
        if (!tokenizer_set_add(set, other->ranges[i].first, other->ranges[i].last)) return false;
    return true;
}

static int compare(const void *a, const void *b)
{
    const struct code_range *left = a, *right = b;
    return (left->first > right->first) - (left->first < right->first);
}

static void join(struct tokenizer_set *set)
{
    size_t n = 0;
    if (set->n_ranges > 1) qsort(set->ranges, set->n_ranges, sizeof *set->ranges, compare);
    for (size_t i = 0; i < set->n_ranges; i++) {
        struct code_range range = set->ranges[i];
        if (n > 0 && range.first <= set->ranges[n - 1].last + 1) {
            if (range.last > set->ranges[n - 1].last) set->ranges[n - 1].last = range.last;
        } else {
            set->ranges[n++] = range;
        }
    }
    set->n_ranges = n;
}

static bool turn(struct tokenizer_set *set)
{
    struct tokenizer_set out = { 0 };
    uint32_t first = 0;
    bool added = true;
    for (size_t i = 0; i < set->n_ranges && added; i++) {
        if (set->ranges[i].first > first) added = tokenizer_set_add(&out, first, set->ranges[i].first - 1);
        first = set->ranges[i].last + 1;
    }
    if (added && first <= UNICODE_MAX) added = tokenizer_set_add(&out, first, UNICODE_MAX);
    tokenizer_set_free(set);
    *set = out;
    return added;
}

bool tokenizer_set_close_ranges(struct tokenizer_set *set, bool complement)
{
    join(set);
    if (complement && !turn(set)) return false;
    memset(set->bits, 0, sizeof set->bits);
    for (size_t i = 0; i < set->n_ranges; i++)
        for (uint32_t code = set->ranges[i].first; code <= set->ranges[i].last && code < TOKENIZER_SET_BITS; code++)
            set->bits[code / 64] |= UINT64_C(1) << (code % 64);
    return true;
}

bool tokenizer_set_search(const struct tokenizer_set *set, uint32_t code)
{
    size_t low = 0, high = set->n_ranges;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (set->ranges[middle].last < code) low = middle + 1;
        else high = middle;
    }
    return low < set->n_ranges && set->ranges[low].first <= code;
}

void tokenizer_set_free(struct tokenizer_set *set)
{
    free(set->ranges);
    *set = (struct tokenizer_set){ 0 };
}
