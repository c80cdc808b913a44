/* format.c: the rows of formats, and what is common to all families: parsing parameters, choosing a scale, coding a group.
 *
 * Drawing: x -> range -> candidates -> errors -> least -> codes.
 * Why this way: see format.h; a new row needs no other line of code anywhere.
 * Corner cases: errors of candidates are compared strictly, so the first of equals wins; a group whose first candidate overflows is refused.
 * Reference: NUMERICS.md 3 to 5. Worked number: "int4:group=64,scale=f16" is int4 with groups of 64 and F16 scales.
 */
#include "number/format.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "number/choose.h"
#include "number/kernel.h"
#include "number/observe.h"

extern const struct family family_mx, family_affine, family_bfp, family_prime, family_float, family_codebook, family_nvfp4, family_ggml;

#define BIT(n) (1u << (n))
#define INLINE_ONLY SIZE_MAX
#define PERCENTILE_PLACES 12
#define PERCENTILE_UNITS UINT64_C(1000000000000) /* of one per cent */
#define KEY_KERNEL "kernel"
#define KEY_NEGATIVE_END "negative-end"
#define NO_PERCENTILE (-1.0)
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

/* ---- parameters ----------------------------------------------------------------------------------------------------------------- */

/* Writes the names whose bits are set in mask: "floor, even". */
static const char *list_names(uint32_t mask, uint32_t count, const char *(*name)(uint32_t), char *out, size_t out_size)
{
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < count && used < out_size; i++)
        if (mask & BIT(i)) used += (size_t)snprintf(out + used, out_size - used, "%s%s", used ? ", " : "", name(i));
    return out;
}

static const char *rule_name_at(uint32_t i)
{
    return scale_rule_name((enum scale_rule)i);
}

static const char *scale_name_at(uint32_t i)
{
    return scale_type_name((enum scale_type)i);
}

static const char *const group_kinds[] = { [GROUP_SIZE] = "", [GROUP_CHANNEL] = "channel", [GROUP_TENSOR] = "tensor", [GROUP_SQUARE] = "128x128" };

enum group_kind group_kind_find(const char *name)
{
    enum group_kind kind = GROUP_SQUARE;
    while (kind != GROUP_SIZE && strcmp(group_kinds[kind], name) != 0) kind = (enum group_kind)(kind - 1);
    return kind;
}

/* A group as users write it: a size or a word; false for anything else. */
static bool read_group(const char *value, enum group_kind *kind, uint32_t *size)
{
    char *end;
    unsigned long n = isdigit((unsigned char)value[0]) ? strtoul(value, &end, 10) : 0;
    *kind = group_kind_find(value);
    *size = *kind == GROUP_SQUARE ? SQUARE_SIDE : *kind == GROUP_SIZE && n <= GROUP_MAX ? (uint32_t)n : 0;
    return *kind != GROUP_SIZE || (*size > 0 && *end == '\0');
}

static bool known_group(const char *value)
{
    enum group_kind kind;
    uint32_t size;
    return read_group(value, &kind, &size);
}

static bool known_scale(const char *value)
{
    return scale_type_find(value) != SCALE_TYPE_COUNT;
}

static bool known_rule(const char *value)
{
    return scale_rule_find(value) != RULE_COUNT;
}

static bool known_rounding(const char *value)
{
    return rounding_find(value) != ROUND_COUNT;
}

static enum status set_group(const char *value, struct quant *quant, struct err *err)
{
    const struct format *format = quant->format;
    enum group_kind kind;
    uint32_t size;
    if (!read_group(value, &kind, &size))
        return err_set(err, ERR_USAGE, "group size '%s' is not a number from 1 to %u, channel, tensor or 128x128", value, GROUP_MAX);
    if (kind != GROUP_SIZE && !(format->group_kinds & BIT(kind)))
        return err_set(err, ERR_USAGE, "format %s has groups of a fixed size%s, not groups '%s'", format->name,
                       format->group_kinds ? ", channel or tensor" : "", value);
    if (format->family->blocks && size != format->default_group)
        return err_set(err, ERR_USAGE, "format %s has groups of %u, not of %s", format->name, format->default_group, value);
    quant->group_kind = kind;
    quant->group = size;
    return OK;
}

static enum status set_scale(const char *value, struct quant *quant, struct err *err)
{
    char names[64];
    enum scale_type type = scale_type_find(value);
    if (type == SCALE_TYPE_COUNT || !(quant->format->scale_types & BIT(type)))
        return err_set(err, ERR_USAGE, "format %s does not take scale type '%s', only %s", quant->format->name, value,
                       list_names(quant->format->scale_types, SCALE_TYPE_COUNT, scale_name_at, names, sizeof names));
    quant->scale = type;
    return OK;
}

static enum status set_rule(const char *value, struct quant *quant, struct err *err)
{
    char names[160];
    enum scale_rule rule = scale_rule_find(value);
    if (rule == RULE_MSE && !(quant->format->rules & BIT(RULE_MSE)) && quant->format->rules & BIT(RULE_SEARCH)) rule = RULE_SEARCH; /* the same aim */
    if (rule == RULE_COUNT || !(quant->format->rules & BIT(rule)))
        return err_set(err, ERR_USAGE, "format %s does not take scale rule '%s', only %s", quant->format->name, value,
                       list_names(quant->format->rules, RULE_COUNT, rule_name_at, names, sizeof names));
    quant->rule = rule;
    return OK;
}

bool quant_read_percentile(const char *text, double *percentile)
{
    uint64_t units = 0;
    int places = -1; /* decimals so far; -1 before the point */
    if (strspn(text, "0123456789.") != strlen(text) || strcspn(text, "0123456789") == strlen(text)) return false;
    for (; *text; text++) {
        if (*text == '.') {
            if (places >= 0) return false;
            places = 0;
            continue;
        }
        if (places == PERCENTILE_PLACES || units > 100 * PERCENTILE_UNITS) return false;
        units = 10 * units + (uint64_t)(*text - '0');
        places += places >= 0;
    }
    for (places = places < 0 ? 0 : places; places < PERCENTILE_PLACES && units <= 100 * PERCENTILE_UNITS; places++) units *= 10;
    *percentile = (double)units / (double)PERCENTILE_UNITS;
    return units <= 100 * PERCENTILE_UNITS;
}

static bool known_percentile(const char *value)
{
    double percentile;
    return quant_read_percentile(value, &percentile);
}

static enum status set_percentile(const char *value, struct quant *quant, struct err *err)
{
    if (!quant_read_percentile(value, &quant->percentile))
        return err_set(err, ERR_USAGE, "percentile '%s' is not a number from 0 to 100 of at most 12 decimals", value);
    if (quant->format->rules & BIT(RULE_PERCENTILE)) return OK;
    quant->percentile = NO_PERCENTILE;
    return err_set(err, ERR_USAGE, "format %s has no scale rule percentile", quant->format->name);
}

static enum status set_rounding(const char *value, struct quant *quant, struct err *err)
{
    enum rounding rounding = rounding_find(value);
    if (rounding == ROUND_COUNT) return err_set(err, ERR_USAGE, "rounding '%s' is none of nearest-even, away, up, truncate", value);
    const bool own = quant->format->family->blocks || quant->elem->kind == ELEM_CODEBOOK;
    if (own && rounding != ROUND_NEAREST_EVEN)
        return err_set(err, ERR_USAGE, "format %s has a rounding of its own, not '%s'", quant->format->name, value);
    quant->rounding = rounding;
    return OK;
}

static bool known_tensor_scale(const char *value)
{
    return strcmp(value, "tensor") == 0 || strcmp(value, "none") == 0;
}

static enum status set_tensor_scale(const char *value, struct quant *quant, struct err *err)
{
    if (!known_tensor_scale(value)) return err_set(err, ERR_USAGE, "tensor scale '%s' is none of tensor, none", value);
    if (!quant->format->tensor_scale) return err_set(err, ERR_USAGE, "format %s has no scale of a matrix", quant->format->name);
    quant->tensor_scale = strcmp(value, "tensor") == 0;
    return OK;
}

/* The element, or the variant whose lowest code is used; key is the parameter that the format has for it, value was given. */
static enum status set_full(const char *key, const char *value, bool full, struct quant *quant, struct err *err)
{
    const struct format *format = quant->format;
    if (!format->full_key || strcmp(format->full_key, key) != 0 || (full && !format->full_elem))
        return err_set(err, ERR_USAGE, "format %s does not take %s=%s", format->name, key, value);
    quant->elem = full ? format->full_elem : format->elem;
    return OK;
}

static enum status set_kernel(const char *value, struct quant *quant, struct err *err)
{
    if (strcmp(value, "0") != 0 && strcmp(value, "1") != 0) return err_set(err, ERR_USAGE, "kernel '%s' is none of 0, 1", value);
    return set_full(KEY_KERNEL, value, *value == '1', quant, err);
}

static enum status set_negative_end(const char *value, struct quant *quant, struct err *err)
{
    const bool full = strcmp(value, "full") == 0;
    if (!full && strcmp(value, "symmetric") != 0) return err_set(err, ERR_USAGE, "negative end '%s' is none of symmetric, full", value);
    return set_full(KEY_NEGATIVE_END, value, full, quant, err);
}

static bool known_half_range(const char *value)
{
    return strcmp(value, "half") == 0 || strcmp(value, "int_max") == 0;
}

static enum status set_half_range(const char *value, struct quant *quant, struct err *err)
{
    if (!known_half_range(value)) return err_set(err, ERR_USAGE, "half range '%s' is none of half, int_max", value);
    if (!quant->format->family->integers || quant->format->zero_point)
        return err_set(err, ERR_USAGE, "format %s has no half range", quant->format->name);
    quant->int_max = strcmp(value, "int_max") == 0;
    return OK;
}

/* A whole number of at most five digits; UINT32_MAX for anything else. */
static uint32_t read_number(const char *value)
{
    const size_t n = strlen(value);
    return n && n <= 5 && strspn(value, "0123456789") == n ? (uint32_t)strtoul(value, NULL, 10) : UINT32_MAX;
}

static enum status check_has_shifts(const struct quant *quant, struct err *err)
{
    return quant->format->sub_block ? OK : err_set(err, ERR_USAGE, "format %s has no sub-blocks", quant->format->name);
}

static enum status set_sub_block(const char *value, struct quant *quant, struct err *err)
{
    const uint32_t size = read_number(value);
    if (size == 0 || size > GROUP_MAX) return err_set(err, ERR_USAGE, "sub-block '%s' is not a number from 1 to %u", value, GROUP_MAX);
    quant->sub_block = size;
    return check_has_shifts(quant, err);
}

static enum status set_shift_bits(const char *value, struct quant *quant, struct err *err)
{
    const uint32_t bits = read_number(value);
    if (bits > SHIFT_BITS_MAX) return err_set(err, ERR_USAGE, "shift bits '%s' is not a number from 0 to %u", value, SHIFT_BITS_MAX);
    quant->shift_bits = bits;
    return check_has_shifts(quant, err);
}

/* known: whether some format takes the value. param: where it stands in struct quant_params, or INLINE_ONLY. */
static const struct setter {
    const char *key;
    enum status (*set)(const char *value, struct quant *quant, struct err *err);
    bool (*known)(const char *value);
    size_t param;
} setters[] = {
    { "group", set_group, known_group, offsetof(struct quant_params, group) },
    { "scale", set_scale, known_scale, offsetof(struct quant_params, scale) },
    { "rule", set_rule, known_rule, offsetof(struct quant_params, rule) },
    { "rounding", set_rounding, known_rounding, offsetof(struct quant_params, rounding) },
    { "tensor-scale", set_tensor_scale, known_tensor_scale, offsetof(struct quant_params, tensor_scale) },
    { "half-range", set_half_range, known_half_range, offsetof(struct quant_params, half_range) },
    { "percentile", set_percentile, known_percentile, offsetof(struct quant_params, percentile) },
    { "sub-block", set_sub_block, NULL, INLINE_ONLY },
    { "shift-bits", set_shift_bits, NULL, INLINE_ONLY },
    { KEY_KERNEL, set_kernel, NULL, INLINE_ONLY },
    { KEY_NEGATIVE_END, set_negative_end, NULL, INLINE_ONLY },
};

enum { N_SETTERS = sizeof setters / sizeof setters[0] };

/* ggml's rule for the formats that are ours too: its own group and rounding, and one level of scales. */
static enum status check_reference(struct quant *quant, struct err *err)
{
    if (quant->rule != RULE_REFERENCE || quant->blocks) return OK;
    if (quant->group != quant->format->default_group || quant->rounding != ROUND_NEAREST_EVEN)
        return err_set(err, ERR_USAGE, "scale rule reference of format %s is for groups of %u and rounding nearest-even", quant->format->name,
                       quant->format->default_group);
    quant->tensor_scale = false;
    return OK;
}

/* Shifts of 0 bits are not stored, so sub-blocks then have no meaning. */
static enum status check_sub_blocks(struct quant *quant, struct err *err)
{
    if (quant->shift_bits == 0) quant->sub_block = 0;
    if (quant->sub_block == 0) return OK;
    if (quant->group % quant->sub_block)
        return err_set(err, ERR_USAGE, "format %s: sub-blocks of %u weights do not divide a group of %u", quant->format->name, quant->sub_block,
                       quant->group);
    if (quant->group / quant->sub_block > SUB_BLOCKS_MAX)
        return err_set(err, ERR_USAGE, "format %s: a group of %u weights has more than %u sub-blocks of %u", quant->format->name, quant->group,
                       SUB_BLOCKS_MAX, quant->sub_block);
    return OK;
}

/* The share that rule percentile keeps; other rules have none: one that was asked for is refused, or left out where it was meant for other formats
 * too. */
static enum status check_percentile(struct quant *quant, bool where_valid, struct err *err)
{
    const bool given = quant->percentile >= 0.0, counts = quant->rule == RULE_PERCENTILE;
    if (!given || !counts) quant->percentile = counts ? observer_percentile.defaults.percentile : 0.0;
    if (!given || counts || where_valid) return OK;
    return err_set(err, ERR_USAGE, "format %s: a percentile is for scale rule percentile, not for %s", quant->format->name,
                   scale_rule_name(quant->rule));
}

/* What is learned needs no half range to start from. */
static enum status check_learned(const struct quant *quant, struct err *err)
{
    if (!quant->int_max || choose_learner(quant->rule) == LEARN_RULE_COUNT) return OK;
    return err_set(err, ERR_USAGE, "format %s: scale rule %s learns the scale, half range int_max is not for it", quant->format->name,
                   scale_rule_name(quant->rule));
}

static const char *setter_name_at(uint32_t i)
{
    return setters[i].key;
}

static enum status set_inline(char *item, struct quant *quant, struct err *err)
{
    char *equals = strchr(item, '=');
    if (!equals) return err_set(err, ERR_USAGE, "format parameter '%s' is not of the form key=value", item);
    *equals = '\0';
    for (size_t i = 0; i < N_SETTERS; i++)
        if (strcmp(setters[i].key, item) == 0) return setters[i].set(equals + 1, quant, err);
    char names[176];
    return err_set(err, ERR_USAGE, "format parameter '%s' is none of %s", item,
                   list_names(BIT(N_SETTERS) - 1u, N_SETTERS, setter_name_at, names, sizeof names));
}

static const char *param_of(const struct quant_params *params, const struct setter *setter)
{
    const char *value = NULL;
    if (setter->param != INLINE_ONLY) memcpy(&value, (const char *)params + setter->param, sizeof value);
    return value && *value ? value : NULL;
}

static enum status set_params(const struct quant_params *params, struct quant *quant, struct err *err)
{
    for (size_t i = 0; i < N_SETTERS; i++) {
        const char *value = param_of(params, &setters[i]);
        if (!value || (value == params->tensor_scale && !quant->format->tensor_scale)) continue;
        enum status status = setters[i].set(value, quant, err);
        if (status && !(params->where_valid && setters[i].known(value))) return status;
    }
    return OK;
}

static enum status set_inlines(char *rest, struct quant *quant, struct err *err)
{
    enum status status = OK;
    while (rest && !status) {
        char *next = strchr(rest, ',');
        if (next) *next++ = '\0';
        status = set_inline(rest, quant, err);
        rest = next;
    }
    return status;
}

enum status quant_parse(const char *text, const struct quant_params *params, struct quant *quant, struct err *err)
{
    char copy[256];
    if (strlen(text) >= sizeof copy) return err_set(err, ERR_USAGE, "format text is too long");
    memcpy(copy, text, strlen(text) + 1);
    char *rest = strchr(copy, ':');
    if (rest) *rest++ = '\0';
    const struct format *format = format_find(copy);
    if (!format) return err_set(err, ERR_USAGE, "unknown format '%s' (llmq formats lists them)", copy);
    *quant = (struct quant){ .format = format,
                             .elem = format->elem,
                             .sub_block = format->sub_block,
                             .shift_bits = format->shift_bits,
                             .group_kind = format->default_kind,
                             .group = format->default_kind == GROUP_SIZE ? format->default_group : 0,
                             .scale = format->default_scale,
                             .rule = format->default_rule,
                             .percentile = NO_PERCENTILE,
                             .rounding = ROUND_NEAREST_EVEN,
                             .tensor_scale = format->tensor_scale,
                             .blocks = format->family->blocks };
    enum status status = params ? set_params(params, quant, err) : OK;
    if (!status) status = set_inlines(rest, quant, err);
    if (!status) status = check_sub_blocks(quant, err);
    if (!status) status = check_percentile(quant, params && params->where_valid && params->percentile && *params->percentile, err);
    if (!status) status = check_learned(quant, err);
    return status ? status : check_reference(quant, err);
}

uint64_t quant_group_len(const struct quant *quant, uint64_t cols)
{
    return quant->group ? quant->group : cols;
}

uint64_t quant_groups_per_row(const struct quant *quant, uint64_t cols)
{
    return quant->group ? cols / quant->group + (cols % quant->group != 0) : 1;
}

/* Rows of squares in a matrix of so many rows. */
static uint64_t square_rows(uint64_t n_rows)
{
    return n_rows / SQUARE_SIDE + (n_rows % SQUARE_SIDE != 0);
}

uint64_t quant_scale_rows(const struct quant *quant, uint64_t n_rows, uint64_t matrix_rows)
{
    if (quant->group_kind == GROUP_TENSOR) return n_rows > 0;
    return quant->group_kind == GROUP_SQUARE && n_rows ? n_rows / matrix_rows * square_rows(matrix_rows) : n_rows;
}

uint64_t quant_scale_row(const struct quant *quant, uint64_t matrix_rows, uint64_t row)
{
    if (quant->group_kind == GROUP_TENSOR) return 0;
    if (quant->group_kind != GROUP_SQUARE) return row;
    return row / matrix_rows * square_rows(matrix_rows) + row % matrix_rows / SQUARE_SIDE;
}

uint64_t quant_first_row(const struct quant *quant, uint64_t matrix_rows, uint64_t scale_row)
{
    if (quant->group_kind != GROUP_SQUARE) return scale_row;
    return scale_row / square_rows(matrix_rows) * matrix_rows + scale_row % square_rows(matrix_rows) * SQUARE_SIDE;
}

size_t quant_scales_per_group(const struct quant *quant)
{
    return quant->sub_block ? quant->group / quant->sub_block : 1;
}

size_t quant_scales(const struct quant *quant, size_t n, size_t group)
{
    const size_t unit = quant->sub_block ? quant->sub_block : group;
    return n / unit + (n % unit != 0);
}

uint32_t quant_side_bits(const struct quant *quant)
{
    return quant->format->zero_point ? quant->elem->bits : quant->sub_block ? quant->shift_bits : 0;
}

bool quant_fits(const struct quant *quant, uint64_t cols)
{
    return !quant->blocks || cols % quant->format->block->elements == 0;
}

double quant_bits_per_weight(const struct quant *quant, uint64_t cols, uint64_t n_weights)
{
    const struct format *format = quant->format;
    if (quant->blocks) return 8.0 * format->block->bytes / format->block->elements;
    const double weights[] = { [GROUP_SIZE] = (double)quant->group,
                               [GROUP_CHANNEL] = (double)cols,
                               [GROUP_TENSOR] = (double)n_weights,
                               [GROUP_SQUARE] = (double)(SQUARE_SIDE * SQUARE_SIDE) };
    const double group = weights[quant->group_kind];
    return quant->elem->bits + (scale_type_bits(quant->scale) + (double)(quant_side_bits(quant) * quant_scales_per_group(quant))) / group;
}

const char *quant_group_json(const struct quant *quant, char *out)
{
    if (quant->group_kind == GROUP_SIZE) snprintf(out, 16, "%u", quant->group);
    else snprintf(out, 16, "\"%s\"", group_kinds[quant->group_kind]);
    return out;
}

const char *quant_percentile_text(const struct quant *quant, char *out)
{
    if (quant->rule != RULE_PERCENTILE) return NULL;
    const uint64_t units = (uint64_t)(quant->percentile * (double)PERCENTILE_UNITS + 0.5), rest = units % PERCENTILE_UNITS;
    int n = snprintf(out, 24, "%u.%0*" PRIu64, (unsigned)(units / PERCENTILE_UNITS), PERCENTILE_PLACES, rest);
    while (out[n - 1] == '0') out[--n] = '\0';
    if (out[n - 1] == '.') out[n - 1] = '\0';
    return out;
}

/* ---- coding a group ------------------------------------------------------------------------------------------------------------- */

bool quant_choose(const struct quant *quant, struct range range, const double *errors, struct group_scale *scale)
{
    const struct family *family = quant->format->family;
    struct group_scale candidate;
    double least = HUGE_VAL;
    if (!family->candidate(quant, range, 0, scale)) return false;
    for (uint32_t i = 0; i < family->candidates(quant); i++)
        if (errors[i] < least && family->candidate(quant, range, i, &candidate)) {
            least = errors[i];
            *scale = candidate;
        }
    return true;
}

/* Candidate of least error for one group; false when candidate 0 overflows. */
static bool choose_scale(const struct quant *quant, const struct kernels *kernels, struct range range, const float *x, const float *weight, size_t n,
                         struct group_scale *scale)
{
    const struct family *family = quant->format->family;
    const uint32_t n_candidates = family->candidates(quant);
    uint32_t best = 0;
    struct error_sum sum = { .x = x, .weight = weight, .n = n, .limit = HUGE_VALF };
    if (choose_reads(quant->rule)) return family->choose(quant, kernels, range, x, weight, n, scale);
    if (n_candidates == 1 || !family->candidate(quant, range, 0, scale)) return family->candidate(quant, range, 0, scale);
    for (uint32_t i = 0; i < n_candidates; i++) {
        if (!family->candidate(quant, range, i, scale)) continue;
        family->error(quant, kernels, range, scale, &sum);
        best = sum.total < sum.limit ? i : best; /* without a branch: nobody can predict it */
        sum.limit = sum.total < sum.limit ? sum.total : sum.limit;
    }
    return family->candidate(quant, range, best, scale);
}

/* Scales of the groups of n weights; returns how many were found before one overflowed. */
static size_t choose_scales(const struct quant *quant, const struct kernels *kernels, const struct range *ranges, const float *x, const float *weight,
                            size_t n, size_t group, struct group_scale *scales)
{
    const struct family *family = quant->format->family;
    size_t g = 0;
    for (size_t at = 0, found; at < n; at += found * group, g += found) {
        found = family->search && !weight ? family->search(quant, kernels, ranges + g, x + at, n - at, group, scales + g) : 0;
        if (found > 0) continue;
        if (!choose_scale(quant, kernels, ranges[g], x + at, weight ? weight + at : NULL, n - at < group ? n - at : group, scales + g)) break;
        found = 1;
    }
    return g;
}

/* Groups whose family codes them itself, one by one. */
static size_t encode_by_family(const struct quant *quant, const struct kernels *kernels, const float *x, const float *weight, size_t n, size_t group,
                               struct group_scale *scales, uint16_t *codes, float *y)
{
    size_t done = 0;
    for (size_t at = 0; at < n; at += group, done++, scales += quant_scales(quant, group, group))
        quant->format->family->encode(quant, kernels, x + at, weight ? weight + at : NULL, n - at < group ? n - at : group, scales, codes + at,
                                      y ? y + at : NULL);
    return done;
}

size_t quant_encode(const struct quant *quant, const struct kernels *kernels, const float *x, const float *weight, size_t n, size_t group,
                    struct group_scale *scales, uint16_t *codes, float *y)
{
    struct range ranges[SEARCH_GROUPS];
    size_t done = 0;
    if (quant->format->family->encode) return encode_by_family(quant, kernels, x, weight, n, group, scales, codes, y);
    for (size_t at = 0, count; at < n; at += count) {
        count = (n - at) / group < SEARCH_GROUPS ? n - at : SEARCH_GROUPS * group;
        kernels->ranges(x + at, count, group, ranges);
        size_t found = choose_scales(quant, kernels, ranges, x + at, weight ? weight + at : NULL, count, group, scales + done);
        const struct groups groups = { count, group, scales + done };
        done += found;
        if (found * group < count) break;
        kernels->encode(quant->elem, quant->rounding, &groups, x + at, codes + at, y ? y + at : NULL);
    }
    return done;
}

bool quant_group(const struct quant *quant, const struct kernels *kernels, const float *x, const float *weight, size_t n, struct group_scale *scale,
                 uint16_t *codes)
{
    return quant_encode(quant, kernels, x, weight, n, n, scale, codes, NULL) == 1;
}
