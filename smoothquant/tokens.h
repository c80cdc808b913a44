/* tokens.h: documents as token ids, read from a file of ids or made from a text by a tokenizer.
 *
 *   ids  : [ document 0 | document 1 | ... ]   document i = ids[starts[i]] .. ids[starts[i + 1] - 1]
 *   text : .txt is one document; .jsonl one document a line (a string, or an object with "text"); .json one array of these
 *
 * Why this way: evaluation and calibration walk windows that never cross a document, so its bounds come with the ids and not as marks among them.
 * Corner cases: see tokens.c. Documents without a token are dropped from a file of ids (a blank line is no document); ids are taken as they are, texts
 * get in front what the tokenizer's model wants there.
 * Reference: NumPy's NEP 1 for .npy. Worked number: the lines "1 2 3" and "4": ids 1 2 3 4, starts 0 3 4.
 */
#ifndef LLMQ_SMOOTHQUANT_TOKENS_H
#define LLMQ_SMOOTHQUANT_TOKENS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/io.h"
#include "smoothquant/tokenizer.h"

#define TOKENS_FILE_MAX ((uint64_t)4 << 30) /* bytes of a file of ids */
#define TOKENS_TEXT_MAX ((uint64_t)1 << 30) /* bytes of a text */
#define TOKENS_MAX ((uint64_t)1 << 30) /* tokens of all documents */

/* Documents. All memory belongs to it; a zeroed struct is empty and safe to free. */
struct token_docs {
    int32_t *ids; /* starts[n_docs] of them, none negative */
    uint64_t *starts; /* n_docs + 1 */
    size_t n_docs; /* at least 1 after a successful read */
    uint64_t *nbytes; /* n_docs: bytes of the text of each document; 0 where it came as ids */
};

/* Reads a file of ids, recognised by its first bytes:
 *   text  one document a line, decimal ids divided by blanks or tabs; CR before LF is a blank
 *   .npy  i4 or i8, little endian, C order; one axis is one document, two axes are one document a row
 * Every id is below vocab (0: only below 2^31). ERR_DATA "'FILE', line 3, column 7: ..." for the first that is not, for anything else in a text, for a
 * malformed .npy, for a file without ids; ERR_UNSUPPORTED for other .npy types and orders and over the limits. On failure *out is empty. */
enum status tokens_read_ids(const struct io_calls *io, const char *path, uint32_t vocab, struct token_docs *out, struct err *err);

/* Reads a text in UTF-8, documents by the file's name as drawn above (any other name: one document), and encodes each with what the model wants in front.
 * nbytes counts the bytes of each document's text, after the escapes of JSON. ERR_DATA naming file and byte where it is no UTF-8 or no JSON; ERR_DATA
 * for a file without text. On failure *out is empty. */
enum status tokens_read_text(const struct io_calls *io, const char *path, const struct tokenizer *tokenizer, struct token_docs *out, struct err *err);

/* Frees the members and empties the struct; NULL allowed. */
void tokens_free(struct token_docs *docs);

#endif
