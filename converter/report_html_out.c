/* report_html_out.c: see report_html_out.h.
 *
 * Drawing: <b>&"\x07 -> &lt;b&gt;&amp;&quot;\x07
 * Why this way: one table of what a byte becomes and one of the ranges that are spelt out, instead of a list of calls.
 * Corner cases: a figure of three digits, "100.", loses its point; digits of whole numbers are parted by thin no-break spaces (U+202F) from five digits on.
 * Reference: report_html_out.h. Worked number: 12345 is written 12 345, 1234 is written 1234.
 */
#include "converter/report_html_out.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

enum { FLUSH_NBYTES = 1 << 16, BUFFER_MAX = 1 << 20 };

void html_begin(struct html *html, struct outfile *file, struct err *err)
{
    *html = (struct html){ .file = file, .buffer = text_make(BUFFER_MAX), .err = err };
}

static void flush(struct html *html)
{
    if (html->status == OK) html->status = text_ok(&html->buffer, "the report", html->err);
    if (html->status == OK && html->buffer.nbytes)
        html->status = outfile_write(html->file, html->buffer.data, html->buffer.nbytes, html->offset, html->err);
    html->offset += html->buffer.nbytes;
    text_reset(&html->buffer);
}

enum status html_end(struct html *html)
{
    flush(html);
    text_free(&html->buffer);
    return html->status;
}

/* ---- markup and text ---------------------------------------------------------------------------------------------------------------- */

void html_put(struct html *html, const char *format, ...)
{
    char piece[1024];
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(piece, sizeof piece, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof piece) {
        if (html->status == OK) html->status = err_set(html->err, ERR_UNSUPPORTED, "a piece of the report is too long");
        return;
    }
    text_add_bytes(&html->buffer, piece, (size_t)n);
    if (html->buffer.nbytes >= FLUSH_NBYTES) flush(html);
}

/* Characters that reorder, hide or break text. */
static const uint32_t spelt_out[][2] = { { 0x0, 0x1f },      { 0x7f, 0x9f },     { 0x61c, 0x61c },  { 0x200b, 0x200f },
                                         { 0x2028, 0x202e }, { 0x2060, 0x206f }, { 0xfeff, 0xfeff } };

static uint32_t code_point(const char *text, size_t length)
{
    const unsigned char *b = (const unsigned char *)text;
    static const unsigned char lead[5] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };
    uint32_t code = b[0] & lead[length];
    for (size_t i = 1; i < length; i++) code = code << 6 | (b[i] & 0x3f);
    return code;
}

static const char *entity_of(char c)
{
    return c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '"' ? "&quot;" : c == '\'' ? "&#39;" : NULL;
}

static void put_character(struct html *html, const char *text, size_t length)
{
    const char *entity = entity_of(*text);
    const uint32_t code = code_point(text, length);
    bool spell = false;
    for (size_t i = 0; i < sizeof spelt_out / sizeof spelt_out[0]; i++) spell |= code >= spelt_out[i][0] && code <= spelt_out[i][1];
    if (entity) html_put(html, "%s", entity);
    else if (spell && code < 0x100) html_put(html, "\\x%02x", (unsigned)code);
    else if (spell) html_put(html, "\\u{%04x}", (unsigned)code);
    else text_add_bytes(&html->buffer, text, length);
}

void html_text(struct html *html, const char *text)
{
    size_t left = strlen(text);
    while (left) {
        const size_t length = utf8_length(text, left), step = length ? length : 1;
        if (length) put_character(html, text, length);
        else html_put(html, "\\x%02x", (unsigned)(unsigned char)*text);
        text += step;
        left -= step;
    }
    if (html->buffer.nbytes >= FLUSH_NBYTES) flush(html);
}

/* ---- figures ------------------------------------------------------------------------------------------------------------------------ */

/* True when value was no number to print with digits. */
static bool put_special(struct html *html, double value)
{
    if (isfinite(value)) return false;
    html_put(html, "%s", isnan(value) ? "–" : value > 0 ? "∞" : "-∞");
    return true;
}

void html_fixed(struct html *html, double value, int digits)
{
    if (!put_special(html, value)) html_put(html, "%.*f", digits, value + 0.0);
}

void html_short(struct html *html, double value, int digits)
{
    if (!put_special(html, value)) html_put(html, "%.*g", digits, value);
}

void html_figure(struct html *html, double value, int digits)
{
    char text[40];
    if (put_special(html, value)) return;
    const int n = snprintf(text, sizeof text, "%#.*g", digits, value);
    html_put(html, "%.*s", n > 0 && text[n - 1] == '.' ? n - 1 : n, text);
}

void html_percent(struct html *html, double share)
{
    if (put_special(html, share)) return;
    const double percent = 100.0 * share;
    html_put(html, "%.*f", percent == 0.0 ? 0 : percent < 0.1 ? 3 : percent < 10.0 ? 2 : 1, percent);
}

void html_count(struct html *html, uint64_t n)
{
    char digits[24];
    const int length = snprintf(digits, sizeof digits, "%llu", (unsigned long long)n);
    for (int i = 0; i < length; i++) html_put(html, "%s%c", i && length > 4 && (length - i) % 3 == 0 ? "\u202f" : "", digits[i]);
}
