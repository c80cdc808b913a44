/* utf8.h: well-formed UTF-8, as names in files and messages must be.
 *
 *   U+0000..7F 0xxxxxxx   U+80..7FF 110xxxxx 10xxxxxx   U+800..FFFF 1110xxxx 10xxxxxx 10xxxxxx   U+10000..10FFFF 11110xxx 10xxxxxx * 3
 *   U+20AC is e2 82 ac: utf8_length("\xe2\x82\xac", 3) = 3, utf8_put(0x20ac, out) = 3.
 *
 * Why this way: the JSON scanner and the escaping of names need the same verdict on the same bytes; two loops would drift apart.
 * Corner cases: overlong forms, surrogates (ed a0..bf), code points above U+10FFFF and cut sequences are not well-formed.
 * Reference: RFC 3629, Unicode table 3-7.
 */
#ifndef LLMQ_BASE_UTF8_H
#define LLMQ_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the well-formed sequence at the start of the n bytes of text (1 to 4); 0 when there is none. */
static inline size_t utf8_length(const char *text, size_t n)
{
    const unsigned char *b = (const unsigned char *)text;
    if (n == 0) return 0;
    if (b[0] < 0x80) return 1;
    size_t length = b[0] >= 0xf0 ? 4 : b[0] >= 0xe0 ? 3 : 2;
    if (b[0] < 0xc2 || b[0] > 0xf4 || length > n) return 0;
    for (size_t i = 1; i < length; i++)
        if ((b[i] & 0xc0) != 0x80) return 0;
    if ((b[0] == 0xe0 && b[1] < 0xa0) || (b[0] == 0xed && b[1] > 0x9f)) return 0;
    if ((b[0] == 0xf0 && b[1] < 0x90) || (b[0] == 0xf4 && b[1] > 0x8f)) return 0;
    return length;
}

/* Writes the code point (at most 10FFFF, no surrogate) as 1 to 4 bytes and returns how many. */
static inline size_t utf8_put(uint32_t code, char *out)
{
    size_t length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned char lead[5] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    for (size_t i = length - 1; i > 0; i--, code >>= 6) out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)(lead[length] | code);
    return length;
}

#endif
