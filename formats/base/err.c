/* err.c: building the one sentence of an error; see err.h.
 *
 * Formula: wrapped text = context ": " sentence; a context longer than half the buffer is cut when both do not fit.
 * Why this way: the cause stands at the end of the sentence, so a long name in front must not push it out.
 * Corner cases: arguments may point into the same err (the new text is built aside first); what is cut ends in "...", never inside a UTF-8
 * sequence; err_name also escapes the C1 controls, the line separators and the marks that turn the direction of writing (U+009B, U+2028,
 * U+202E: a terminal obeys them).
 * Reference: see err.h. Worked number: err_name of the 3 bytes 'a' 0x0a 'b' is the 6 bytes a\x0ab.
 */
#include "base/err.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "base/utf8.h"

/* Puts "..." at the end of the text in out whose last byte stands at size - 2 and which was cut there. */
static void mark_cut(char *out, size_t size)
{
    if (size < 4) return;
    size_t at = size - 4;
    while (at > 0 && ((unsigned char)out[at] & 0xc0) == 0x80) at--;
    memcpy(out + at, "...", 4);
}

LLMQ_PRINTF(3, 0)
static void format_text(char *out, size_t size, const char *format, va_list args)
{
    int length = vsnprintf(out, size, format, args);
    if (length < 0) out[0] = '\0';
    else if ((size_t)length >= size) mark_cut(out, size);
}

/* Appends text to the NUL-terminated out of size bytes. */
static void append(char *out, size_t size, const char *text)
{
    size_t used = strlen(out);
    size_t length = strlen(text);
    size_t room = size - 1 - used;
    memcpy(out + used, text, length < room ? length : room);
    out[used + (length < room ? length : room)] = '\0';
    if (length > room) mark_cut(out, size);
}

enum status err_set(struct err *err, enum status code, const char *format, ...)
{
    if (!err) return code;
    char text[ERR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    format_text(text, sizeof text, format, args);
    va_end(args);
    memcpy(err->text, text, sizeof text);
    err->code = code;
    return code;
}

enum status err_set_errno(struct err *err, int number, const char *format, ...)
{
    enum status code = ERR_IO;
    if (!err) return code;
    char reason[128];
    if (strerror_r(number, reason, sizeof reason) != 0) snprintf(reason, sizeof reason, "error %d", number);
    char text[ERR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    format_text(text, sizeof text - strlen(reason) - 2, format, args);
    va_end(args);
    append(text, sizeof text, ": ");
    append(text, sizeof text, reason);
    memcpy(err->text, text, sizeof text);
    err->code = code;
    return code;
}

enum status err_wrap(struct err *err, enum status code, const char *format, ...)
{
    if (!err) return code;
    if (err->code == OK) err->code = code;
    char text[ERR_TEXT_MAX];
    size_t length = strlen(err->text);
    size_t room = sizeof text - size_min(length + (length ? 2 : 0), sizeof text / 2);
    va_list args;
    va_start(args, format);
    format_text(text, room, format, args);
    va_end(args);
    if (length) append(text, sizeof text, ": ");
    append(text, sizeof text, err->text);
    memcpy(err->text, text, strlen(text) + 1);
    return err->code;
}

/* True when the well-formed sequence of length bytes may stand in a message as it is. */
static bool is_harmless(const unsigned char *b, size_t length)
{
    if (length == 1) return b[0] >= 0x20 && b[0] != 0x7f && b[0] != '\'' && b[0] != '"' && b[0] != '\\';
    if (length == 2) return !(b[0] == 0xc2 && b[1] < 0xa0);
    if (length != 3 || b[0] != 0xe2) return true;
    if (b[1] == 0x80) return !(b[2] == 0x8e || b[2] == 0x8f || (b[2] >= 0xa8 && b[2] <= 0xae));
    return !(b[1] == 0x81 && b[2] >= 0xa6 && b[2] <= 0xa9);
}

/* Writes the message form of the first sequence of name into unit (at most 4 bytes long), sets *taken and returns its length. */
static size_t escape_first(const char *name, size_t n, char unit[5], size_t *taken)
{
    size_t length = utf8_length(name, n);
    const unsigned char *b = (const unsigned char *)name;
    if (length && is_harmless(b, length)) {
        memcpy(unit, name, length);
        *taken = length;
        return length;
    }
    snprintf(unit, 5, "\\x%02x", (unsigned)b[0]);
    *taken = 1;
    return 4;
}

const char *err_name(const char *name, size_t n, char *out, size_t out_size)
{
    if (out_size == 0) return out;
    size_t used = 0;
    size_t cut = 0; /* the last place where "..." still fits */
    while (n > 0) {
        char unit[5];
        size_t taken;
        size_t length = escape_first(name, n, unit, &taken);
        if (used + 3 < out_size) cut = used;
        if (used + length >= out_size) {
            used = cut;
            length = size_min(3, out_size - 1 - used);
            memcpy(out + used, "...", length);
            used += length;
            break;
        }
        memcpy(out + used, unit, length);
        used += length;
        name += taken;
        n -= taken;
    }
    out[used] = '\0';
    return out;
}
