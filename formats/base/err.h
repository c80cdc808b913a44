/* err.h: the error every function reports through: a status code and one sentence.
 *
 * The innermost function writes the sentence with err_set; each outer one may put its context in front with err_wrap, so that the reader gets
 *   cannot read tensor 'x' of 'm.safetensors': offset 12 + size 40 exceeds file size 50
 *
 * Why this way: a code alone cannot name file, tensor and cause, and a printed message cannot be tested; nothing below converter/main.c prints
 * or exits.
 * Corner cases: control characters and invalid bytes in names from files are written as \xNN by err_name, so a message is always one line;
 * text longer than the buffer is cut, never overrun; a NULL struct err * is allowed and drops the sentence.
 * Reference: design.md 5 (conventions) of the project's design; the sentence form follows git and SQLite.
 */
#ifndef LLMQ_BASE_ERR_H
#define LLMQ_BASE_ERR_H

#include <stddef.h>

#if defined(__GNUC__)
#define LLMQ_PRINTF(fmt_index, first_arg) __attribute__((format(printf, fmt_index, first_arg)))
#else
#define LLMQ_PRINTF(fmt_index, first_arg)
#endif

enum status {
    OK = 0,
    ERR_IO, /* a file call failed; the sentence has the errno text */
    ERR_DATA, /* a file's content is malformed or contradicts itself */
    ERR_UNSUPPORTED, /* well-formed, but not something llmq reads or does */
    ERR_USAGE, /* the caller or the command line asked for something wrong */
    ERR_MEMORY, /* allocation failed or a memory budget is too small */
    ERR_EXISTS, /* an output is in the way */
    ERR_MISMATCH, /* a checksum or a comparison failed */
    ERR_CANCELLED /* stopped on request (Ctrl-C) */
};

#define ERR_TEXT_MAX 1024

struct err {
    enum status code;
    char text[ERR_TEXT_MAX];
};

/* Writes the sentence and returns code, so that callers say: return err_set(err, ERR_DATA, "..."). */
enum status err_set(struct err *err, enum status code, const char *format, ...) LLMQ_PRINTF(3, 4);

/* As err_set, and appends ": " and the text of the errno value number. */
enum status err_set_errno(struct err *err, int number, const char *format, ...) LLMQ_PRINTF(3, 4);

/* Puts "context: " before the sentence already there; returns err->code (or code_if_null for a NULL err). */
enum status err_wrap(struct err *err, enum status code, const char *format, ...) LLMQ_PRINTF(3, 4);

/* Copies at most out_size - 1 bytes of the n bytes of name into out, escaping control characters, quotes, backslashes and invalid UTF-8 as
 * \xNN; what does not fit ends in "...". Returns out. Use for every name that comes from a file. */
const char *err_name(const char *name, size_t n, char *out, size_t out_size);

#endif
