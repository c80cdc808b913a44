/* unicode_table.h: the tables behind unicode.c.
 *
 *   categories: first << 5 | category     combining: first << 8 | class     steps: code = first second     pairs: first second = code
 *
 * Why this way: data that a script writes stands apart from the code that reads it.
 * Corner cases: all are sorted by their first member; second is 0 in a step to a single code point.
 * Reference: scripts/make_unicode.py. Worked number: { 0xe9, 0x65, 0x301 } among the steps.
 */
#ifndef LLMQ_SMOOTHQUANT_UNICODE_TABLE_H
#define LLMQ_SMOOTHQUANT_UNICODE_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct unicode_step {
    uint32_t code, first, second;
};

struct unicode_pair {
    uint32_t first, second, code;
};

extern const uint32_t unicode_categories[], unicode_combining[];
extern const struct unicode_step unicode_steps[];
extern const struct unicode_pair unicode_pairs[];
extern const size_t unicode_categories_count, unicode_combining_count, unicode_steps_count, unicode_pairs_count;

#endif
