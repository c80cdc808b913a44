/* format.c: the rows of formats, and what is common to all families: parsing parameters, choosing a scale, coding a group.
 *
 * Drawing: x -> range -> candidates -> errors -> least -> codes.
 * Why this way: see format.h; a new row needs no other line of code anywhere.
 * Corner cases: errors of candidates are compared strictly, so the first of equals wins; a group whose first candidate overflows is refused.
 * Reference: NUMERICS.md 3 to 5. Worked number: "int4:group=64,scale=f16" is int4 with groups of 64 and F16 scales.
 */
#include "number/format.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "number/kernel.h"

extern const struct family family_mx, family_affine;

#define BIT(n) (1u << (n))
#define MX_RULES (BIT(RULE_FLOOR) | BIT(RULE_EVEN) | BIT(RULE_CEIL) | BIT(RULE_RCEIL) | BIT(RULE_SEARCH))
#define INT_RULES (BIT(RULE_ABSMAX) | BIT(RULE_MSE))
#define INT_SCALES (BIT(SCALE_BF16) | BIT(SCALE_F16) | BIT(SCALE_F32))

#define MX(name, elem, db, text)                                                                                                                     \
    {                                                                                                                                                \
        name, text, &family_mx, &elem_rows[elem], 32, false, false, false, BIT(SCALE_E8M0), SCALE_E8M0, MX_RULES, RULE_SEARCH, db                    \
    }
#define INT(name, elem, db, text)                                                                                                                    \
    {                                                                                                                                                \
        name, text, &family_affine, &elem_rows[elem], 128, true, true, false, INT_SCALES, SCALE_BF16, INT_RULES, RULE_ABSMAX, db                     \
    }
#define UINT(name, elem, db, text)                                                                                                                   \
    {                                                                                                                                                \
        name, text, &family_affine, &elem_rows[elem], 128, true, true, true, INT_SCALES, SCALE_BF16, INT_RULES, RULE_ABSMAX, db                      \
    }

static const struct format rows[] = {
    MX("mxfp4", ELEM_E2M1, 19.0f, "OCP MXFP4: 4-bit floats (E2M1) sharing a power of two"),
    MX("mxfp6_e3m2", ELEM_E3M2, 25.4f, "OCP MXFP6: 6-bit floats with 3 exponent bits"),
    MX("mxfp6_e2m3", ELEM_E2M3, 31.0f, "OCP MXFP6: 6-bit floats with 2 exponent bits"),
    MX("mxfp8_e4m3", ELEM_E4M3, 31.4f, "OCP MXFP8: 8-bit floats with 4 exponent bits"),
    MX("mxfp8_e5m2", ELEM_E5M2, 25.4f, "OCP MXFP8: 8-bit floats with 5 exponent bits"),
    MX("mxint8", ELEM_MXINT8, 42.1f, "OCP MXINT8: 8-bit integers sharing a power of two"),
    INT("int2", ELEM_INT2, 5.3f, "2-bit integers with a float scale a group"),
    INT("int3", ELEM_INT3, 12.6f, "3-bit integers with a float scale a group"),
    INT("int4", ELEM_INT4, 19.2f, "4-bit integers with a float scale a group"),
    INT("int5", ELEM_INT5, 25.5f, "5-bit integers with a float scale a group"),
    INT("int6", ELEM_INT6, 31.7f, "6-bit integers with a float scale a group"),
    INT("int7", ELEM_INT7, 37.8f, "7-bit integers with a float scale a group"),
    INT("int8", ELEM_INT8, 43.9f, "8-bit integers with a float scale a group"),
    UINT("uint2", ELEM_UINT2, 6.0f, "2-bit unsigned integers with scale and zero point"),
    UINT("uint3", ELEM_UINT3, 13.4f, "3-bit unsigned integers with scale and zero point"),
    UINT("uint4", ELEM_UINT4, 20.0f, "4-bit unsigned integers with scale and zero point"),
    UINT("uint5", ELEM_UINT5, 26.3f, "5-bit unsigned integers with scale and zero point"),
    UINT("uint6", ELEM_UINT6, 32.5f, "6-bit unsigned integers with scale and zero point"),
    UINT("uint7", ELEM_UINT7, 38.5f, "7-bit unsigned integers with scale and zero point"),
    UINT("uint8", ELEM_UINT8, 44.6f, "8-bit unsigned integers with scale and zero point"),
};

static const struct family *const families[] = { &family_mx, &family_affine };

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

/* A group as users write it: a size, "channel" or "tensor"; false for anything else. */
static bool read_group(const char *value, enum group_kind *kind, uint32_t *size)
{
    char *end;
    unsigned long n = isdigit((unsigned char)value[0]) ? strtoul(value, &end, 10) : 0;
    *kind = strcmp(value, "channel") == 0 ? GROUP_CHANNEL : strcmp(value, "tensor") == 0 ? GROUP_TENSOR : GROUP_SIZE;
    *size = *kind == GROUP_SIZE ? (uint32_t)(n <= GROUP_MAX ? n : 0) : 0;
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
        return err_set(err, ERR_USAGE, "group size '%s' is not a number from 1 to %u, channel or tensor", value, GROUP_MAX);
    if ((kind == GROUP_CHANNEL && !format->channel) || (kind == GROUP_TENSOR && !format->tensor))
        return err_set(err, ERR_USAGE, "format %s has groups of a fixed size, not one group a %s", format->name, value);
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
    char names[128];
    enum scale_rule rule = scale_rule_find(value);
    if (rule == RULE_COUNT || !(quant->format->rules & BIT(rule)))
        return err_set(err, ERR_USAGE, "format %s does not take scale rule '%s', only %s", quant->format->name, value,
                       list_names(quant->format->rules, RULE_COUNT, rule_name_at, names, sizeof names));
    quant->rule = rule;
    return OK;
}

static enum status set_rounding(const char *value, struct quant *quant, struct err *err)
{
    enum rounding rounding = rounding_find(value);
    if (rounding == ROUND_COUNT) return err_set(err, ERR_USAGE, "rounding '%s' is none of nearest-even, away, up, truncate", value);
    quant->rounding = rounding;
    return OK;
}

/* known: whether some format takes the value. */
static const struct {
    const char *key;
    enum status (*set)(const char *value, struct quant *quant, struct err *err);
    bool (*known)(const char *value);
} setters[] = {
    { "group", set_group, known_group },
    { "scale", set_scale, known_scale },
    { "rule", set_rule, known_rule },
    { "rounding", set_rounding, known_rounding },
};

static enum status set_inline(char *item, struct quant *quant, struct err *err)
{
    char *equals = strchr(item, '=');
    if (!equals) return err_set(err, ERR_USAGE, "format parameter '%s' is not of the form key=value", item);
    *equals = '\0';
    for (size_t i = 0; i < sizeof setters / sizeof setters[0]; i++)
        if (strcmp(setters[i].key, item) == 0) return setters[i].set(equals + 1, quant, err);
    return err_set(err, ERR_USAGE, "format parameter '%s' is none of group, scale, rule, rounding", item);
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
    *quant = (struct quant){ format, GROUP_SIZE, format->default_group, format->default_scale, format->default_rule, ROUND_NEAREST_EVEN };
    const char *values[] = { params ? params->group : NULL, params ? params->scale : NULL, params ? params->rule : NULL,
                             params ? params->rounding : NULL };
    for (size_t i = 0; i < sizeof setters / sizeof setters[0]; i++)
        if (values[i] && *values[i]) {
            enum status status = setters[i].set(values[i], quant, err);
            if (status && !(params->where_valid && setters[i].known(values[i]))) return status;
        }
    while (rest) {
        char *next = strchr(rest, ',');
        if (next) *next++ = '\0';
        enum status status = set_inline(rest, quant, err);
        if (status) return status;
        rest = next;
    }
    return OK;
}

uint64_t quant_group_len(const struct quant *quant, uint64_t cols)
{
    return quant->group_kind == GROUP_SIZE ? quant->group : cols;
}

uint64_t quant_groups_per_row(const struct quant *quant, uint64_t cols)
{
    return quant->group_kind == GROUP_SIZE ? cols / quant->group + (cols % quant->group != 0) : 1;
}

const char *quant_group_json(const struct quant *quant, char *out)
{
    if (quant->group_kind == GROUP_SIZE) snprintf(out, 16, "%u", quant->group);
    else snprintf(out, 16, "\"%s\"", quant->group_kind == GROUP_CHANNEL ? "channel" : "tensor");
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

size_t quant_encode(const struct quant *quant, const struct kernels *kernels, const float *x, const float *weight, size_t n, size_t group,
                    struct group_scale *scales, uint16_t *codes, float *y)
{
    struct range ranges[SEARCH_GROUPS];
    size_t done = 0;
    for (size_t at = 0, count; at < n; at += count) {
        count = (n - at) / group < SEARCH_GROUPS ? n - at : SEARCH_GROUPS * group;
        kernels->ranges(x + at, count, group, ranges);
        size_t found = choose_scales(quant, kernels, ranges, x + at, weight ? weight + at : NULL, count, group, scales + done);
        const struct groups groups = { count, group, scales + done };
        done += found;
        if (found * group < count) break;
        kernels->encode(quant->format->elem, quant->rounding, &groups, x + at, codes + at, y ? y + at : NULL);
    }
    return done;
}

bool quant_group(const struct quant *quant, const struct kernels *kernels, const float *x, const float *weight, size_t n, struct group_scale *scale,
                 uint16_t *codes)
{
    return quant_encode(quant, kernels, x, weight, n, n, scale, codes, NULL) == 1;
}
