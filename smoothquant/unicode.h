/* unicode.h: what tokenizers ask of Unicode: general categories, white space, and the canonical composition NFC.
 *
 *   category: a bit of a set of 30      \p{L} = Ll | Lm | Lo | Lt | Lu      \w = Alphabetic | M | Nd | Pc      \s = White_Space
 *
 * Why this way: a class of a pattern is a set of categories, so they are bits. Tables are those of one stated version, whatever the machine has.
 * Corner cases: code points above 10FFFF do not occur; what Unicode has not assigned is Cn.
 * Reference: Unicode 16.0, UAX 15 (normal forms), UAX 44. Worked number: U+0065 U+0301 becomes U+00E9.
 */
#ifndef LLMQ_SMOOTHQUANT_UNICODE_H
#define LLMQ_SMOOTHQUANT_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/text.h"

#define UNICODE_MAX 0x10ffffu

/* Decodes the well-formed sequence at text, whose length utf8_length has found. */
static inline uint32_t unicode_decode(const char *text, size_t length)
{
    const unsigned char *b = (const unsigned char *)text;
    if (length == 1) return b[0];
    if (length == 2) return (b[0] & 0x1fu) << 6 | (b[1] & 0x3fu);
    if (length == 3) return (b[0] & 0xfu) << 12 | (b[1] & 0x3fu) << 6 | (b[2] & 0x3fu);
    return (b[0] & 7u) << 18 | (b[1] & 0x3fu) << 12 | (b[2] & 0x3fu) << 6 | (b[3] & 0x3fu);
}

/* Bytes of the sequence that begins with this byte, in text that is known to be well-formed. */
static inline size_t unicode_length(char lead)
{
    unsigned char b = (unsigned char)lead;
    return b < 0x80 ? 1 : b < 0xe0 ? 2 : b < 0xf0 ? 3 : 4;
}

/* The categories that a name means: "L", "Lu", "L&"; 0 for one that is none. */
uint32_t unicode_category_mask(const char *name, size_t n);

/* The category of a code point as one bit of such a mask. */
uint32_t unicode_category(uint32_t code);

/* Runs of code points of one category: run number index is [*first, *last] with this bit; false behind the last run. */
bool unicode_category_run(size_t index, uint32_t *first, uint32_t *last, uint32_t *bit);

bool unicode_is_space(uint32_t code); /* White_Space */
bool unicode_is_word(uint32_t code); /* Alphabetic, a mark, a decimal digit, a connector, or a zero-width joiner: \w as UTS 18 has it */

/* Alphabetic is L, Nl, marks, and these circled letters among the symbols. */
#define UNICODE_CIRCLED_COUNT 4u
extern const uint32_t unicode_circled[UNICODE_CIRCLED_COUNT][2];

/* Appends the n bytes of well-formed UTF-8 in the normal form C. ERR_MEMORY when out is over its cap. */
enum status unicode_nfc(const char *text, size_t n, struct text *out, struct err *err);

#endif
