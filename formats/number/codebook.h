/* codebook.h: tables of sixteen levels, the values of elements of kind ELEM_CODEBOOK.
 *
 *   level   -127 -104 .. 113          thresholds between levels in ascending order: u goes above one when u > t
 *
 * Why this way: u is an f32, so "nearer to the upper level than to the lower" is u > t with t their midpoint rounded down to f32; counting the
 * thresholds below u finds the level without a branch.
 * Corner cases: on a midpoint the lower level is taken; of two codes with the same level the lower one is written; unused thresholds are +Inf.
 * Reference: NUMERICS_BLOCK.md 7. Worked number: iq4nl, u = 4: one threshold, -4.5, lies between -10 and 1 and 7 between 1 and 13, so the level is 1.
 */
#ifndef LLMQ_NUMBER_CODEBOOK_H
#define LLMQ_NUMBER_CODEBOOK_H

#include <stdbool.h>
#include <stdint.h>

enum { CODEBOOK_LEVELS = 16 };

struct codebook {
    float levels[CODEBOOK_LEVELS]; /* by code */
    float thresholds[CODEBOOK_LEVELS - 1]; /* ascending */
    uint8_t codes[CODEBOOK_LEVELS]; /* by the number of thresholds below u */
    float largest; /* level of the largest size; the positive one, where there are both */
    bool has_zero; /* 0 is a level */
};

extern const struct codebook codebook_nf4, codebook_fp4_bnb, codebook_iq4nl;

#endif
