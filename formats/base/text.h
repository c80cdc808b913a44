/* text.h: a growing byte buffer with a cap, for texts that llmq writes (JSON headers, reports, index).
 *
 *   struct text t = text_make(cap);  text_add(&t, "%d", 5);  text_add_json(&t, name, n);  ... t.data, t.nbytes ...  text_free(&t);
 *
 * Why this way: errors are sticky, so a writer of fifty fields checks once at the end (text_ok) and not fifty times.
 * Corner cases: a buffer over its cap or out of memory turns failed and stays so, what is there remains valid; data is always NUL-terminated
 * (an empty buffer reads ""); text_add_json writes a quoted JSON string: control characters, quote and backslash escaped, everything else as it is.
 * Reference: sticky errors as in Go's bufio.Writer.
 */
#ifndef LLMQ_BASE_TEXT_H
#define LLMQ_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct text {
    char *data; /* owned; never NULL after text_make, but not writable while nbytes is 0 and capacity is 0 */
    size_t nbytes;
    size_t capacity;
    size_t max_nbytes;
    bool failed;
};

/* An empty buffer that will hold at most max_nbytes. */
struct text text_make(size_t max_nbytes);
void text_free(struct text *text);

/* Empties the buffer and keeps its memory. */
void text_reset(struct text *text);

void text_add(struct text *text, const char *format, ...) LLMQ_PRINTF(2, 3);
void text_add_bytes(struct text *text, const void *bytes, size_t nbytes);
void text_add_json(struct text *text, const char *string, size_t nbytes);
void text_add_json_str(struct text *text, const char *string); /* NUL-terminated; NULL writes null */

/* ERR_MEMORY naming what, if any addition failed. */
enum status text_ok(const struct text *text, const char *what, struct err *err);

#endif
