/* family_ggml.c: formats whose groups are whole blocks of a ggml type, as GGUF holds them: Q4_0 to Q8_0, the K and IQ4 types, plain floats.
 *
 *   x[256] --block->encode--> 144 bytes of Q4_K --block->decode--> y[256]
 *
 * Why this way: such a block mixes codes, scales and minima, and finds them together; there is nothing here to choose, only a name to find the rows
 * by.
 * Corner cases: none of the functions exists; whoever codes groups asks for `blocks` first.
 * Reference: number/ggml.h. Worked number: format q4_k has 144 bytes for 256 weights, 4.5 bits each.
 */
#include "number/format.h"

extern const struct family family_ggml;
const struct family family_ggml = { .name = "ggml", .blocks = true };
