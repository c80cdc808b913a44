/* text.c: the growing byte buffer with sticky failure; see text.h.
 *
 * Formula: capacity grows to the larger of twice itself and what is needed, never over max_nbytes + 1; one byte of it is the NUL.
 * Why this way: see text.h.
 * Corner cases: an addition that does not fit is dropped whole; an empty buffer points at a constant "" and owns nothing; in JSON strings
 * bytes from 0x80 and 0x7f pass as they are.
 * Reference: RFC 8259 section 7. Worked number: text_add_json of the 2 bytes 'a' 0x01 writes the 9 bytes "a\u0001" with its quotes.
 */
#include "base/text.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char nothing[1] = "";

struct text text_make(size_t max_nbytes)
{
    struct text text = { .data = (char *)(uintptr_t)nothing, .max_nbytes = max_nbytes < SIZE_MAX ? max_nbytes : SIZE_MAX - 1 };
    return text;
}

void text_free(struct text *text)
{
    if (!text) return;
    if (text->capacity) free(text->data);
    *text = text_make(text->max_nbytes);
}

/* Makes room for nbytes more and the NUL; false, and the buffer failed, when there is none. */
static bool reserve(struct text *text, size_t nbytes)
{
    if (text->failed || nbytes > text->max_nbytes - text->nbytes) {
        text->failed = true;
        return false;
    }
    size_t wanted = text->nbytes + nbytes + 1;
    if (wanted <= text->capacity) return true;
    size_t capacity = text->capacity > text->max_nbytes / 2 ? text->max_nbytes + 1 : text->capacity * 2;
    if (capacity < wanted) capacity = wanted;
    char *data = realloc(text->capacity ? text->data : NULL, capacity);
    if (!data) {
        text->failed = true;
        return false;
    }
    text->data = data;
    text->capacity = capacity;
    return true;
}

void text_add(struct text *text, const char *format, ...)
{
    if (text->failed) return;
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (length < 0) text->failed = true;
    else if (reserve(text, (size_t)length)) {
        vsnprintf(text->data + text->nbytes, (size_t)length + 1, format, again);
        text->nbytes += (size_t)length;
    }
    va_end(again);
}

void text_add_bytes(struct text *text, const void *bytes, size_t nbytes)
{
    if (nbytes == 0 || !reserve(text, nbytes)) return;
    memcpy(text->data + text->nbytes, bytes, nbytes);
    text->nbytes += nbytes;
    text->data[text->nbytes] = '\0';
}

static void add_json_escape(struct text *text, char c)
{
    static const char shorts[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    for (size_t i = 0; i + 1 < sizeof shorts; i += 2) {
        if (shorts[i] != c) continue;
        text_add_bytes(text, (char[]){ '\\', shorts[i + 1] }, 2);
        return;
    }
    text_add(text, "\\u%04x", (unsigned)(unsigned char)c);
}

void text_add_json(struct text *text, const char *string, size_t nbytes)
{
    text_add_bytes(text, "\"", 1);
    size_t start = 0;
    for (size_t i = 0; i < nbytes; i++) {
        unsigned char c = (unsigned char)string[i];
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        text_add_bytes(text, string + start, i - start);
        add_json_escape(text, string[i]);
        start = i + 1;
    }
    if (start < nbytes) text_add_bytes(text, string + start, nbytes - start);
    text_add_bytes(text, "\"", 1);
}

void text_add_json_str(struct text *text, const char *string)
{
    if (string) text_add_json(text, string, strlen(string));
    else text_add_bytes(text, "null", 4);
}

enum status text_ok(const struct text *text, const char *what, struct err *err)
{
    if (!text->failed) return OK;
    return err_set(err, ERR_MEMORY, "cannot hold %s: it is over %zu bytes or memory is short", what, text->max_nbytes);
}

void text_reset(struct text *text)
{
    if (text->nbytes) text->data[0] = '\0';
    text->nbytes = 0;
}
