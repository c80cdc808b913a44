/* quant_parse.c: a format and its parameters, from text to struct quant.
 *
 *   "int4:group=64,scale=f16,rule=mse"      params of the run, then what stands inline, then what must fit together
 *
 * Why this way: a parameter is a row of setters: its key, what it sets, whether a value is one of any format.
 * Corner cases: numbers are read without the locale; a percentile is whole parts of 10^-12, so that text and value are one; a value that only other
 * formats take is left out where the caller says so.
 * Reference: format.h. Worked number: "int4:group=64,scale=f16" is int4 with groups of 64 and F16 scales.
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "number/choose.h"
#include "number/format.h"
#include "number/observe.h"

#define BIT(n) (1u << (n))
#define INLINE_ONLY SIZE_MAX
#define PERCENTILE_PLACES 12
#define PERCENTILE_UNITS UINT64_C(1000000000000) /* of one per cent */
#define NO_PERCENTILE (-1.0)

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

const char *quant_percentile_text(const struct quant *quant, char *out)
{
    if (quant->rule != RULE_PERCENTILE) return NULL;
    const uint64_t units = (uint64_t)(quant->percentile * (double)PERCENTILE_UNITS + 0.5), rest = units % PERCENTILE_UNITS;
    int n = snprintf(out, 24, "%u.%0*" PRIu64, (unsigned)(units / PERCENTILE_UNITS), PERCENTILE_PLACES, rest);
    while (out[n - 1] == '0') out[--n] = '\0';
    if (out[n - 1] == '.') out[n - 1] = '\0';
    return out;
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
