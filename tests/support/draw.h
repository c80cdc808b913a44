/* draw.h: rows of weights for the tests of ggml's types, of the shapes that blocks find easy or hard.
 *
 * Formula: normal = (sum of 12 uniform integers below 2^16, less 6 * 65535) * 2^-16; the first eight shapes follow from it and a level a block.
 * Why this way: golden/ggml.tsv holds checksums of what ggml made of these very numbers, so they must never change.
 * Corner cases: draws are taken in a fixed order, whichever shape needs them.
 * Reference: tests/golden/ggml.tsv. Worked number: shape 4, "constant": each weight is the level.
 */
#ifndef LLMQ_TESTS_DRAW_H
#define LLMQ_TESTS_DRAW_H

#include <stddef.h>
#include <stdint.h>

uint32_t draw(uint64_t *state, uint32_t below);

/* About normal, of standard deviation 1, exact in binary32. */
float draw_normal(uint64_t *state);

#define DRAW_SHAPES "normal", "bf16", "outliers", "sparse", "constant", "grid", "single", "scales"
enum { DRAW_SCALES = 7, DRAW_SHAPES_COUNT = 8 };

/* Weight i of a row of one of these shapes, from a normal number drawn before. */
float draw_shape(size_t shape, size_t i, float level, float normal, uint64_t *state);

/* n weights by value(shape, i, level, state); a level holds for 32 of them, for 16 of shape "scales". */
typedef float draw_value_of(size_t shape, size_t i, float level, uint64_t *state);
void draw_row(draw_value_of *value, size_t shape, size_t n, uint64_t *state, float *x);

#endif
