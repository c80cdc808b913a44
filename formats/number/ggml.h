/* ggml.h: ggml's block types, the table of how GGUF packs a run of weights into bytes.
 *
 *   row: Q4_K = id 12, 256 elements in 144 bytes, decode, encode       blocks of a row lie one behind the other, a row of 1024 elements is 4 * 144 bytes
 *
 * Why this way: a block mixes codes, scales and minima in its own order, so a type is a pair of pure functions over whole blocks; everything a
 * reader, a writer or a plan needs beside them is in the row.
 * Corner cases: blocks have any alignment; every pattern of bytes decodes, perhaps to Inf or NaN, as in ggml; every finite input encodes, one
 * beyond F16 to a scale of Inf, one below it to zeros, as in ggml. An encoder never gets NaN or Inf.
 * Reference: layouts.md 2(f) and 5; ggml of llama-cpp-python 0.3.36 compiled for x86-64 without fused multiply-add. Worked number: Q8_0 of amax
 * 0.453125: d = 0.0035679 = F16 0x1B4F.
 */
#ifndef LLMQ_NUMBER_GGML_H
#define LLMQ_NUMBER_GGML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* n_blocks blocks to y[n_blocks * elements]. */
typedef void ggml_decode(const uint8_t *blocks, size_t n_blocks, float *y);

/* x[n_blocks * elements] to n_blocks blocks. weight is NULL or as many importance weights >= 0, one an element. */
typedef void ggml_encode(const float *x, const float *weight, size_t n_blocks, uint8_t *blocks);

/* A row. Functions allocate nothing, keep no pointer and may run on any thread. */
struct ggml_type {
    const char *name; /* as GGUF tools print it: "Q4_K" */
    const char *format; /* as we do: "q4_k" */
    const char *summary; /* one line */
    uint32_t id; /* in a GGUF tensor info */
    uint32_t elements, bytes; /* of one block */
    bool weighted; /* whether encode heeds importance weights */
    bool
        row_mean; /* weighted codes depend on the mean square of the whole row: such a call takes exactly one row; without weights any blocks will do */
    ggml_decode *decode;
    ggml_encode *encode; /* ggml's own rule: the bytes of ggml_quantize_chunk, without or with an importance matrix */
    ggml_encode *encode_mse; /* NULL, or a better rule of our own */
    float largest; /* of plain numbers the largest that is finite; 0 where that depends on the block */
};

size_t ggml_type_count(void);
const struct ggml_type *ggml_type_at(size_t index);

/* By either name, in any case of letters, or by id; NULL when there is none. */
const struct ggml_type *ggml_type_find(const char *name);
const struct ggml_type *ggml_type_by_id(uint32_t id);

/* The rows, for tables that point at them. */
extern const struct ggml_type ggml_f32, ggml_f16, ggml_bf16;
extern const struct ggml_type ggml_q4_0, ggml_q4_1, ggml_q5_0, ggml_q5_1, ggml_q8_0;
extern const struct ggml_type ggml_q2_k, ggml_q3_k, ggml_q4_k, ggml_q5_k, ggml_q6_k;
extern const struct ggml_type ggml_iq4_nl, ggml_iq4_xs;
extern const struct ggml_type ggml_tq1_0, ggml_tq2_0, ggml_q1_0, ggml_q2_0;
extern const struct ggml_type ggml_mxfp4, ggml_nvfp4;

#endif
