/* codebook.c: the tables.
 *
 *   nf4: quantiles of the normal distribution (QLoRA, Dettmers et al. 2023)    fp4_bnb: 0, 1/16, 8, 12, 4, 6, 2, 3 over 12, with signs
 *
 * Why this way: the numbers are those that bitsandbytes and ggml hold, bit for bit.
 * Corner cases: fp4_bnb has fourteen thresholds, because its levels 0 and -0 are equal; code 8 is never written.
 * Reference: NUMERICS_BLOCK.md 7. Worked number: nf4, between the levels 0 and 0.0796 the threshold is 0x1.45f5fep-5 = 0.0398.
 */
#include "number/codebook.h"

#include <math.h>

const struct codebook codebook_nf4 = {
    .levels = { -1.0f, -0x1.647362p-1f, -0x1.0cd66p-1f, -0x1.94654p-2f, -0x1.23449ap-2f, -0x1.7a6a7ep-3f, -0x1.74f0e2p-4f, 0.0f, 0x1.45f5fep-4f,
                0x1.4995c6p-3f, 0x1.f809bap-3f, 0x1.5a0674p-2f, 0x1.c3497p-2f, 0x1.200f56p-1f, 0x1.722766p-1f, 1.0f },
    .thresholds = { -0x1.b239b2p-1f, -0x1.38a4e2p-1f, -0x1.d709p-2f, -0x1.5bd4eep-2f, -0x1.e079dap-3f, -0x1.1a7178p-3f, -0x1.74f0e2p-5f,
                    0x1.45f5fep-5f, 0x1.ec90c4p-4f, 0x1.a0cfcp-3f, 0x1.2b05a8p-2f, 0x1.8ea7f2p-2f, 0x1.00da06p-1f, 0x1.491b5ep-1f, 0x1.b913b2p-1f },
    .codes = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 },
    .largest = 1.0f,
    .has_zero = true,
};

const struct codebook codebook_fp4_bnb = {
    .levels = { 0.0f, 0x1.555556p-8f, 0x1.555556p-1f, 1.0f, 0x1.555556p-2f, 0x1.p-1f, 0x1.555556p-3f, 0x1.p-2f, -0.0f, -0x1.555556p-8f,
                -0x1.555556p-1f, -1.0f, -0x1.555556p-2f, -0x1.p-1f, -0x1.555556p-3f, -0x1.p-2f },
    .thresholds = { -0x1.aaaaacp-1f, -0x1.2aaaacp-1f, -0x1.aaaaacp-2f, -0x1.2aaaacp-2f, -0x1.aaaaacp-3f, -0x1.600002p-4f, -0x1.555556p-9f,
                    0x1.555556p-9f, 0x1.6p-4f, 0x1.aaaaaap-3f, 0x1.2aaaaap-2f, 0x1.aaaaaap-2f, 0x1.2aaaaap-1f, 0x1.aaaaaap-1f, INFINITY },
    .codes = { 11, 10, 13, 12, 15, 14, 9, 0, 1, 6, 7, 4, 5, 2, 3, 3 },
    .largest = 1.0f,
    .has_zero = true,
};

const struct codebook codebook_iq4nl = {
    .levels = { -127.0f, -104.0f, -83.0f, -65.0f, -49.0f, -35.0f, -22.0f, -10.0f, 1.0f, 13.0f, 25.0f, 38.0f, 53.0f, 69.0f, 89.0f, 113.0f },
    .thresholds = { -115.5f, -93.5f, -74.0f, -57.0f, -42.0f, -28.5f, -16.0f, -4.5f, 7.0f, 19.0f, 31.5f, 45.5f, 61.0f, 79.0f, 101.0f },
    .codes = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 },
    .largest = -127.0f,
};
