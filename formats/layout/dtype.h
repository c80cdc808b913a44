/* dtype.h: the stored element types of checkpoints: their names, widths, and how their bytes become f32 and back.
 *
 *   row of facts: name (safetensors spelling), bits, class
 *   dtype_widen: n stored little-endian elements -> n floats;  dtype_narrow: floats -> stored, to nearest even
 *
 * Why this way: one table for every reader; a type a reader knows only by size (C64, F4, ...) is still a row, so that such tensors can be kept.
 * Corner cases: sub-byte types must come out in whole bytes per tensor; F64 and wide integers round once to f32; widening never needs alignment of
 * the source.
 * Reference: safetensors dtype list; IEEE 754; OCP FP8.
 */
#ifndef LLMQ_LAYOUT_DTYPE_H
#define LLMQ_LAYOUT_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dtype_class { DTYPE_FLOAT, DTYPE_INTEGER, DTYPE_OPAQUE };

struct dtype {
    const char *name; /* "BF16" */
    uint32_t bits; /* per element */
    enum dtype_class class; /* OPAQUE: can be kept, not decoded */
    void (*widen)(const uint8_t *stored, size_t n, float *out); /* NULL for OPAQUE */
    void (*narrow)(const float *x, size_t n, uint8_t *stored); /* NULL where nothing is written in this type; overflow gives Inf */
    bool widen_fast; /* struct kernels has a slot for widen */
};

/* The row with exactly this name (n bytes), or NULL. */
const struct dtype *dtype_find(const char *name, size_t nbytes);

/* Iteration over all rows. */
size_t dtype_count(void);
const struct dtype *dtype_at(size_t index);

#endif
