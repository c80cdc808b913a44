/* foreign_rounding.h: the numeric rounding codes of other tools, translated once, at the edge.
 *
 *   code         0            1     2             3       8
 *   onnx         away         up    nearest-even  -       -
 *   torch        -            -     up            away    nearest-even
 *
 * Why this way: the same number means different things in different tools (2 is nearest-even in one, up in the other), so one enum stands inside and
 * each vocabulary is a table of its own.
 * Corner cases: every other code is refused, also -1 ("not given"), which the caller replaces by its default first.
 * Reference: the tools' own kernels; NUMERICS_LEARNED.md 1.
 */
#ifndef LLMQ_NUMBER_FOREIGN_ROUNDING_H
#define LLMQ_NUMBER_FOREIGN_ROUNDING_H

#include <stdint.h>

#include "base/err.h"
#include "number/round.h"

/* FOREIGN_ONNX: the operators BFPQuantizeDequantize, BFPPrime and MXINT8. FOREIGN_TORCH: round_mode, rounding_key and RoundType of a torch kernel. */
enum foreign_rounding { FOREIGN_ONNX, FOREIGN_TORCH, FOREIGN_COUNT };

/* Name of a vocabulary, "onnx" or "torch". */
const char *foreign_rounding_name(enum foreign_rounding vocabulary);

/* The mode that a code stands for; ERR_USAGE, naming code and vocabulary, when it stands for none (*rounding is then untouched). */
enum status foreign_rounding_find(enum foreign_rounding vocabulary, int32_t code, enum rounding *rounding, struct err *err);

/* The code of a mode, for writing a foreign file; -1 when the vocabulary has none. */
int32_t foreign_rounding_code(enum foreign_rounding vocabulary, enum rounding rounding);

#endif
