/* format.c: the rows of formats and their families.
 *
 *   row: see format.h; macros write what the rows of a family have in common
 *
 * Why this way: see format.h; a new row needs no other line of code anywhere.
 * Corner cases: a ggml type may stand behind several rows; the one whose groups are its blocks as they are is its own.
 * Reference: NUMERICS.md; the bounds sqnr_db are of Gaussian weights. Worked number: int4 in groups of 128 with BF16 scales: at least 19.2 dB.
 */
#include "number/format.h"

#include <string.h>

extern const struct family family_mx, family_affine, family_bfp, family_prime, family_float, family_codebook, family_nvfp4, family_ggml;

#define BIT(n) (1u << (n))
#define MX_RULES (BIT(RULE_FLOOR) | BIT(RULE_EVEN) | BIT(RULE_CEIL) | BIT(RULE_RCEIL) | BIT(RULE_SEARCH))
#define FLOAT_RULES (BIT(RULE_ABSMAX) | BIT(RULE_MSE))
#define OBSERVER_RULES (BIT(RULE_MINMAX) | BIT(RULE_PERCENTILE) | BIT(RULE_MSE_HIST) | BIT(RULE_HISTOGRAM_PRO) | BIT(RULE_3SD) | BIT(RULE_KL_J))
#define INT_RULES (FLOAT_RULES | OBSERVER_RULES | BIT(RULE_TQT) | BIT(RULE_LSQ) | BIT(RULE_PACT))
#define INT_SCALES (BIT(SCALE_BF16) | BIT(SCALE_F16) | BIT(SCALE_F32))

/* clang-format off */
#define MX(name_, elem_, db, rules_, block_, text) \
    { .name = name_, .summary = text, .family = &family_mx, .elem = &elem_rows[elem_], .default_group = 32, .scale_types = BIT(SCALE_E8M0), \
      .default_scale = SCALE_E8M0, .rules = rules_, .default_rule = RULE_SEARCH, .sqnr_db = db, .block = block_, .fallback = "f16", \
      .full_elem = elem_ == ELEM_MXINT8 ? &elem_rows[ELEM_MXINT8_FULL] : NULL, .full_key = elem_ == ELEM_MXINT8 ? KEY_NEGATIVE_END : NULL }
#define INT(name_, elem_, db, block_, text) \
    { .name = name_, .summary = text, .family = &family_affine, .elem = &elem_rows[elem_], .default_group = 128, \
      .group_kinds = BIT(GROUP_CHANNEL) | BIT(GROUP_TENSOR), .scale_types = INT_SCALES, .default_scale = SCALE_BF16, .rules = INT_RULES, \
      .default_rule = RULE_ABSMAX, .sqnr_db = db, .block = block_, .fallback = "f16" }
#define UINT(name_, elem_, db, block_, text) \
    { .name = name_, .summary = text, .family = &family_affine, .elem = &elem_rows[elem_], .default_group = 128, \
      .group_kinds = BIT(GROUP_CHANNEL) | BIT(GROUP_TENSOR), .zero_point = true, .scale_types = INT_SCALES, .default_scale = SCALE_BF16, \
      .rules = INT_RULES, .default_rule = RULE_ABSMAX, .sqnr_db = db, .block = block_, .fallback = "f16" }
#define BFP(name_, elem_, group_, db, block_, text) \
    { .name = name_, .summary = text, .family = &family_bfp, .elem = &elem_rows[elem_], .default_group = group_, .scale_types = BIT(SCALE_E8M0), \
      .default_scale = SCALE_E8M0, .rules = BIT(RULE_FLOOR) | BIT(RULE_SEARCH), .default_rule = RULE_FLOOR, .sqnr_db = db, .block = block_, \
      .fallback = "f16", .full_elem = elem_ == ELEM_MXINT8 ? &elem_rows[ELEM_MXINT8_FULL] : NULL, .full_key = KEY_KERNEL }
#define PRIME(name_, elem_, db, text) \
    { .name = name_, .summary = text, .family = &family_prime, .elem = &elem_rows[elem_], .default_group = 16, .sub_block = 2, .shift_bits = 1, \
      .scale_types = BIT(SCALE_E8M0), .default_scale = SCALE_E8M0, .rules = BIT(RULE_FLOOR) | BIT(RULE_SEARCH), .default_rule = RULE_FLOOR, \
      .sqnr_db = db }
#define FLOAT(name_, elem_, kind_, group_, scale_, db, text) \
    { .name = name_, .summary = text, .family = &family_float, .elem = &elem_rows[elem_], .default_kind = kind_, .default_group = group_, \
      .group_kinds = BIT(GROUP_CHANNEL) | BIT(GROUP_TENSOR) | BIT(GROUP_SQUARE), .scale_types = INT_SCALES, .default_scale = scale_, \
      .rules = FLOAT_RULES, .default_rule = RULE_ABSMAX, .sqnr_db = db }
#define CODEBOOK(name_, elem_, group_, db, text) \
    { .name = name_, .summary = text, .family = &family_codebook, .elem = &elem_rows[elem_], .default_group = group_, \
      .group_kinds = BIT(GROUP_CHANNEL) | BIT(GROUP_TENSOR), .scale_types = INT_SCALES, .default_scale = SCALE_F16, .rules = FLOAT_RULES, \
      .default_rule = RULE_ABSMAX, .sqnr_db = db }
#define GGML(type, group, rules_, db, fallback_, text) \
    { .name = #type, .summary = text, .family = &family_ggml, .default_group = group, .scale_types = BIT(SCALE_NONE), \
      .default_scale = SCALE_NONE, .rules = rules_, .default_rule = RULE_REFERENCE, .sqnr_db = db, .block = &ggml_##type, .fallback = fallback_ }
#define PLAIN BIT(RULE_REFERENCE)
#define BOTH (BIT(RULE_REFERENCE) | BIT(RULE_MSE))

static const struct format rows[] = {
    MX("mxfp4", ELEM_E2M1, 19.0f, MX_RULES | BIT(RULE_REFERENCE), &ggml_mxfp4, "OCP MXFP4: 4-bit floats (E2M1) sharing a power of two"),
    MX("mxfp6_e3m2", ELEM_E3M2, 25.4f, MX_RULES, NULL, "OCP MXFP6: 6-bit floats with 3 exponent bits"),
    MX("mxfp6_e2m3", ELEM_E2M3, 31.0f, MX_RULES, NULL, "OCP MXFP6: 6-bit floats with 2 exponent bits"),
    MX("mxfp8_e4m3", ELEM_E4M3, 31.4f, MX_RULES, NULL, "OCP MXFP8: 8-bit floats with 4 exponent bits"),
    MX("mxfp8_e5m2", ELEM_E5M2, 25.4f, MX_RULES, NULL, "OCP MXFP8: 8-bit floats with 5 exponent bits"),
    MX("mxint8", ELEM_MXINT8, 42.1f, MX_RULES, &ggml_q8_0, "OCP MXINT8: 8-bit integers sharing a power of two"),
    { .name = "nvfp4", .summary = "NVFP4: 4-bit floats (E2M1) with an E4M3 scale for 16 and a float scale for the matrix", .family = &family_nvfp4,
      .elem = &elem_rows[ELEM_E2M1], .default_group = 16, .scale_types = BIT(SCALE_E4M3), .default_scale = SCALE_E4M3,
      .rules = BIT(RULE_ABSMAX) | BIT(RULE_SEARCH) | BIT(RULE_REFERENCE), .default_rule = RULE_SEARCH, .sqnr_db = 21.7f, .block = &ggml_nvfp4,
      .fallback = "f16", .tensor_scale = true },
    INT("int2", ELEM_INT2, 5.3f, NULL, "2-bit integers with a float scale a group"),
    INT("int3", ELEM_INT3, 12.6f, NULL, "3-bit integers with a float scale a group"),
    INT("int4", ELEM_INT4, 19.2f, &ggml_q4_0, "4-bit integers with a float scale a group"),
    INT("int5", ELEM_INT5, 25.5f, &ggml_q5_0, "5-bit integers with a float scale a group"),
    INT("int6", ELEM_INT6, 31.7f, NULL, "6-bit integers with a float scale a group"),
    INT("int7", ELEM_INT7, 37.8f, NULL, "7-bit integers with a float scale a group"),
    INT("int8", ELEM_INT8, 43.9f, &ggml_q8_0, "8-bit integers with a float scale a group"),
    UINT("uint2", ELEM_UINT2, 6.0f, NULL, "2-bit unsigned integers with scale and zero point"),
    UINT("uint3", ELEM_UINT3, 13.4f, NULL, "3-bit unsigned integers with scale and zero point"),
    UINT("uint4", ELEM_UINT4, 20.0f, &ggml_q4_1, "4-bit unsigned integers with scale and zero point"),
    UINT("uint5", ELEM_UINT5, 26.3f, &ggml_q5_1, "5-bit unsigned integers with scale and zero point"),
    UINT("uint6", ELEM_UINT6, 32.5f, NULL, "6-bit unsigned integers with scale and zero point"),
    UINT("uint7", ELEM_UINT7, 38.5f, NULL, "7-bit unsigned integers with scale and zero point"),
    UINT("uint8", ELEM_UINT8, 44.6f, NULL, "8-bit unsigned integers with scale and zero point"),
    BFP("bfp10", ELEM_BLOCK_M1, 8, 7.4f, NULL, "block floating point: a sign and 1 magnitude bit, 8 of exponent for 8"),
    BFP("bfp11", ELEM_BLOCK_M2, 8, 13.7f, NULL, "block floating point: a sign and 2 magnitude bits, 8 of exponent for 8"),
    BFP("bfp12", ELEM_BLOCK_M3, 8, 19.9f, &ggml_q4_0, "block floating point: a sign and 3 magnitude bits, 8 of exponent for 8"),
    BFP("bfp13", ELEM_BLOCK_M4, 8, 26.0f, &ggml_q5_0, "block floating point: a sign and 4 magnitude bits, 8 of exponent for 8"),
    BFP("bfp14", ELEM_BLOCK_M5, 8, 32.0f, NULL, "block floating point: a sign and 5 magnitude bits, 8 of exponent for 8"),
    BFP("bfp15", ELEM_BLOCK_M6, 8, 37.9f, NULL, "block floating point: a sign and 6 magnitude bits, 8 of exponent for 8"),
    BFP("bfp16", ELEM_MXINT8, 8, 43.5f, &ggml_q8_0, "block floating point: a sign and 7 magnitude bits, 8 of exponent for 8"),
    BFP("bfp17", ELEM_BLOCK_M8, 8, 50.2f, NULL, "block floating point: a sign and 8 magnitude bits, 8 of exponent for 8"),
    BFP("bfp18", ELEM_BLOCK_M9, 8, 58.0f, NULL, "block floating point: a sign and 9 magnitude bits, 8 of exponent for 8"),
    BFP("bfp19", ELEM_BLOCK_M10, 8, 66.7f, NULL, "block floating point: a sign and 10 magnitude bits, 8 of exponent for 8"),
    BFP("bfp20", ELEM_BLOCK_M11, 8, 75.6f, NULL, "block floating point: a sign and 11 magnitude bits, 8 of exponent for 8"),
    BFP("bfp21", ELEM_BLOCK_M12, 8, 84.6f, NULL, "block floating point: a sign and 12 magnitude bits, 8 of exponent for 8"),
    BFP("bfp22", ELEM_BLOCK_M13, 8, 93.6f, NULL, "block floating point: a sign and 13 magnitude bits, 8 of exponent for 8"),
    BFP("bfp23", ELEM_BLOCK_M14, 8, 102.6f, NULL, "block floating point: a sign and 14 magnitude bits, 8 of exponent for 8"),
    BFP("bfp24", ELEM_BLOCK_M15, 8, 111.7f, NULL, "block floating point: a sign and 15 magnitude bits, 8 of exponent for 8"),
    BFP("bfp8_b", ELEM_MXINT8, 16, 42.6f, &ggml_q8_0, "Tenstorrent BFP8_b: a sign and 7 magnitude bits, 8 of exponent for 16"),
    BFP("bfp4_b", ELEM_BLOCK_M3, 16, 18.9f, &ggml_q4_0, "Tenstorrent BFP4_b: a sign and 3 magnitude bits, 8 of exponent for 16"),
    PRIME("bfpprime10", ELEM_BLOCK_M1, 8.9f, "bfp10 for 16 with a shift for 2"),
    PRIME("bfpprime11", ELEM_BLOCK_M2, 15.8f, "bfp11 for 16 with a shift for 2"),
    PRIME("bfpprime12", ELEM_BLOCK_M3, 22.2f, "bfp12 for 16 with a shift for 2"),
    PRIME("bfpprime13", ELEM_BLOCK_M4, 28.4f, "bfp13 for 16 with a shift for 2"),
    PRIME("bfpprime14", ELEM_BLOCK_M5, 34.4f, "bfp14 for 16 with a shift for 2"),
    PRIME("bfpprime15", ELEM_BLOCK_M6, 40.3f, "bfp15 for 16 with a shift for 2"),
    PRIME("bfpprime16", ELEM_MXINT8, 45.6f, "bfp16 for 16 with a shift for 2"),
    PRIME("bfpprime17", ELEM_BLOCK_M8, 54.3f, "bfp17 for 16 with a shift for 2"),
    PRIME("bfpprime18", ELEM_BLOCK_M9, 62.5f, "bfp18 for 16 with a shift for 2"),
    PRIME("bfpprime19", ELEM_BLOCK_M10, 71.2f, "bfp19 for 16 with a shift for 2"),
    PRIME("bfpprime20", ELEM_BLOCK_M11, 80.2f, "bfp20 for 16 with a shift for 2"),
    PRIME("bfpprime21", ELEM_BLOCK_M12, 89.2f, "bfp21 for 16 with a shift for 2"),
    PRIME("bfpprime22", ELEM_BLOCK_M13, 98.1f, "bfp22 for 16 with a shift for 2"),
    PRIME("bfpprime23", ELEM_BLOCK_M14, 107.2f, "bfp23 for 16 with a shift for 2"),
    PRIME("bfpprime24", ELEM_BLOCK_M15, 116.1f, "bfp24 for 16 with a shift for 2"),
    PRIME("mx9", ELEM_MXINT8, 45.6f, "MX9: 7 magnitude bits, 8 of exponent for 16, a shift for 2"),
    PRIME("mx6", ELEM_BLOCK_M4, 28.4f, "MX6: 4 magnitude bits, 8 of exponent for 16, a shift for 2"),
    PRIME("mx4", ELEM_BLOCK_M2, 15.8f, "MX4: 2 magnitude bits, 8 of exponent for 16, a shift for 2"),
    FLOAT("fp8_e4m3", ELEM_E4M3, GROUP_CHANNEL, 128, SCALE_F32, 31.4f, "FP8: 8-bit floats with 4 exponent bits and a float scale a row"),
    FLOAT("fp8_e5m2", ELEM_E5M2, GROUP_CHANNEL, 128, SCALE_F32, 25.4f, "FP8: 8-bit floats with 5 exponent bits and a float scale a row"),
    FLOAT("fp6_e3m2", ELEM_E3M2, GROUP_SIZE, 32, SCALE_BF16, 26.2f, "FP6: 6-bit floats with 3 exponent bits and a float scale a group"),
    FLOAT("fp6_e2m3", ELEM_E2M3, GROUP_SIZE, 32, SCALE_BF16, 32.2f, "FP6: 6-bit floats with 2 exponent bits and a float scale a group"),
    FLOAT("fp4_e2m1", ELEM_E2M1, GROUP_SIZE, 32, SCALE_BF16, 19.7f, "FP4: 4-bit floats (E2M1) with a float scale a group"),
    CODEBOOK("nf4", ELEM_NF4, 64, 20.6f, "NF4 of QLoRA: 16 levels, quantiles of the normal distribution"),
    CODEBOOK("fp4_bnb", ELEM_FP4_BNB, 64, 18.2f, "FP4 of bitsandbytes: 16 levels with signs"),
    CODEBOOK("iq4nl", ELEM_IQ4NL, 32, 21.9f, "the 16 uneven levels of IQ4_NL under a float scale"),
    GGML(q4_0, 32, BOTH, 21.3f, "f16", "GGUF Q4_0: 4-bit codes, a scale for 32"),
    GGML(q4_1, 32, BOTH, 22.1f, "f16", "GGUF Q4_1: 4-bit codes, a scale and a minimum for 32"),
    GGML(q5_0, 32, BOTH, 27.4f, "f16", "GGUF Q5_0: 5-bit codes, a scale for 32"),
    GGML(q5_1, 32, BOTH, 28.4f, "f16", "GGUF Q5_1: 5-bit codes, a scale and a minimum for 32"),
    GGML(q8_0, 32, BOTH, 45.5f, "f16", "GGUF Q8_0: 8-bit codes, a scale for 32"),
    GGML(q2_k, 256, BOTH, 10.5f, "q4_0", "GGUF Q2_K: 2-bit codes, 4-bit scales and minima for 16 in 256"),
    GGML(q3_k, 256, BOTH, 16.4f, "q4_0", "GGUF Q3_K: 3-bit codes, 6-bit scales for 16 in 256"),
    GGML(q4_k, 256, BOTH, 22.9f, "q5_0", "GGUF Q4_K: 4-bit codes, 6-bit scales and minima for 32 in 256"),
    GGML(q5_k, 256, BOTH, 28.8f, "q5_1", "GGUF Q5_K: 5-bit codes, 6-bit scales and minima for 32 in 256"),
    GGML(q6_k, 256, BOTH, 35.0f, "q8_0", "GGUF Q6_K: 6-bit codes, 8-bit scales for 16 in 256"),
    GGML(iq4_nl, 32, BOTH, 22.4f, "f16", "GGUF IQ4_NL: 16 uneven levels, a scale for 32"),
    GGML(iq4_xs, 256, BOTH, 22.3f, "iq4_nl", "GGUF IQ4_XS: 16 uneven levels, 6-bit scales for 32 in 256"),
    GGML(tq1_0, 256, PLAIN, 1.9f, "q4_0", "GGUF TQ1_0: ternary, five codes a byte"),
    GGML(tq2_0, 256, PLAIN, 1.9f, "q4_0", "GGUF TQ2_0: ternary, four codes a byte"),
    GGML(q1_0, 128, PLAIN, 4.4f, "q4_0", "GGUF Q1_0: signs, a scale for 128"),
    GGML(q2_0, 64, PLAIN, 2.9f, "q4_0", "GGUF Q2_0: 2-bit codes, a scale for 64"),
    GGML(f16, 1, PLAIN, 70.0f, NULL, "16-bit floats (IEEE half)"),
    GGML(bf16, 1, PLAIN, 50.0f, NULL, "16-bit floats with 8 exponent bits"),
    GGML(f32, 1, PLAIN, 140.0f, NULL, "32-bit floats"),
};
/* clang-format on */

static const struct family *const families[] = { &family_mx,    &family_affine,   &family_bfp,   &family_prime,
                                                 &family_float, &family_codebook, &family_nvfp4, &family_ggml };

size_t format_count(void)
{
    return sizeof rows / sizeof rows[0];
}

const struct format *format_at(size_t index)
{
    return &rows[index];
}

const struct format *format_find(const char *name)
{
    for (size_t i = 0; i < format_count(); i++)
        if (strcmp(rows[i].name, name) == 0) return &rows[i];
    return NULL;
}

const struct family *family_find(const char *name)
{
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        if (strcmp(families[i]->name, name) == 0) return families[i];
    return NULL;
}

const struct format *format_of_block(const struct ggml_type *block)
{
    const struct format *found = NULL;
    for (size_t i = 0; i < format_count(); i++)
        if (rows[i].block == block && (!found || rows[i].family->blocks)) found = &rows[i];
    return found;
}
