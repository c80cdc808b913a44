/* facts.h: a format row as the JSON object that stands in the container's index, so that a reader needs no table of its own.
 *
 *   mxfp4 -> {"family":"mx","element":"e2m1","bits":4,"exponent_bits":2,"mantissa_bits":1,"bias":1,"special":"none","zero_point":false}
 *
 * Why this way: facts, not names, decode a tensor; a new row needs no new reader.
 * Corner cases: the text is fixed by the row, so the index has a known size.
 * Reference: FORMAT.md 4.
 */
#ifndef LLMQ_LAYOUT_FACTS_H
#define LLMQ_LAYOUT_FACTS_H

#include "base/json.h"
#include "base/text.h"
#include "number/format.h"

void facts_write(const struct format *format, struct text *out);

/* True when codes of the two stand for the same numbers: all that is written but names. */
bool facts_same(const struct format *a, const struct format *b);

/* What the reverse fills: the members point at each other. */
struct facts {
    struct format format; /* what decoding needs of it; block stays NULL for a type of blocks that is unknown here */
    struct elem elem; /* but its name */
    struct codebook book; /* levels only */
};

/* The reverse. ERR_DATA or ERR_UNSUPPORTED for facts that no element of this family has. */
enum status facts_read(const cJSON *text, const struct family *family, struct facts *facts, struct err *err);

#endif
