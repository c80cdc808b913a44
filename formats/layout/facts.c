/* facts.c: see facts.h.
 *
 * Drawing: common members, then those of float or of integer elements or the levels of a codebook, then zero_point; of blocks only their type and
 * size.
 * Why this way: see facts.h.
 * Corner cases: see facts.h.
 * Reference: FORMAT.md 4. Example: int4 -> {"family":"affine","element":"int4","bits":4,"signed":true,"fraction_bits":0,"zero_point":false}.
 */
#include "layout/facts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "layout/plane.h"
#include "number/half.h"

/* Levels as the hex digits of their f32 bits, which no reader can misread. */
static void write_levels(const struct codebook *book, struct text *out)
{
    text_add(out, "\"levels\":[");
    for (size_t i = 0; i < CODEBOOK_LEVELS; i++) text_add(out, "%s\"%08x\"", i ? "," : "", f32_bits(book->levels[i]));
    text_add(out, "],");
}

void facts_write(const struct format *format, struct text *out)
{
    static const char *const special[] = { [ELEM_NO_SPECIAL] = "none", [ELEM_NAN_ONLY] = "nan", [ELEM_IEEE] = "ieee" };
    const struct elem *elem = format->elem;
    if (format->family->blocks) {
        text_add(out, "{\"family\":\"%s\",\"type\":\"%s\",\"block\":%u,\"block_bytes\":%u}", format->family->name, format->block->name,
                 format->block->elements, format->block->bytes);
        return;
    }
    text_add(out, "{\"family\":\"%s\",\"element\":\"%s\",\"bits\":%u,", format->family->name, elem->name, elem->bits);
    if (elem->kind == ELEM_CODEBOOK) write_levels(elem->book, out);
    else if (elem->kind == ELEM_FLOAT)
        text_add(out, "\"exponent_bits\":%u,\"mantissa_bits\":%u,\"bias\":%d,\"special\":\"%s\",", elem->exp_bits, elem->man_bits, (int)elem->bias,
                 special[elem->special]);
    else text_add(out, "\"signed\":%s,\"fraction_bits\":%u,", elem->kind == ELEM_SIGNED ? "true" : "false", elem->fraction_bits);
    text_add(out, "\"zero_point\":%s}", format->zero_point ? "true" : "false");
}

bool facts_same(const struct format *a, const struct format *b)
{
    const struct elem *x = a->elem, *y = b->elem;
    if (a->family != b->family) return false;
    if (a->family->blocks) return a->block == b->block;
    if (a->family->levels) return memcmp(x->book->levels, y->book->levels, sizeof x->book->levels) == 0;
    return a->zero_point == b->zero_point && x->kind == y->kind && x->bits == y->bits && x->exp_bits == y->exp_bits && x->man_bits == y->man_bits &&
           x->bias == y->bias && x->special == y->special && x->fraction_bits == y->fraction_bits;
}

static enum status read_float_element(const cJSON *facts, struct elem *elem, struct err *err)
{
    uint32_t bias = 0;
    enum status status = json_u32_in(facts, "mantissa_bits", 0, 14, &elem->man_bits, err);
    if (status == OK) status = json_u32_in(facts, "bias", 0, 127, &bias, err);
    if (status != OK) return status;
    elem->kind = ELEM_FLOAT;
    elem->bias = (int32_t)bias;
    int32_t top = (1 << elem->exp_bits) - 1 - elem->bias;
    if (elem->bits != 1 + elem->exp_bits + elem->man_bits || elem->bits > 16 || top > 127 || top < -126)
        return err_set(err, ERR_UNSUPPORTED, "a float element of %u bits, %u of exponent, %u of mantissa, bias %u", elem->bits, elem->exp_bits,
                       elem->man_bits, bias);
    if (elem->special == ELEM_NAN_ONLY && elem->man_bits == 0) return err_set(err, ERR_DATA, "an element without mantissa has no NaN");
    elem->emax = elem->special == ELEM_IEEE ? top - 1 : top;
    uint32_t mantissa_max = (1u << elem->man_bits) - (elem->special == ELEM_NAN_ONLY ? 2 : 1);
    elem->max = (1.0f + (float)mantissa_max / (float)(1u << elem->man_bits)) * exact_exp2(elem->emax);
    return OK;
}

static enum status read_integer_element(const cJSON *facts, struct elem *elem, struct err *err)
{
    bool is_signed;
    enum status status = json_bool(facts, "signed", &is_signed, err);
    if (status == OK && !json_get(facts, "signed")) status = err_set(err, ERR_DATA, "signed is missing");
    if (status == OK) status = json_optional_u32(facts, "fraction_bits", 64, &elem->fraction_bits, err);
    if (status != OK) return status;
    elem->kind = is_signed ? ELEM_SIGNED : ELEM_UNSIGNED;
    elem->code_max = (int32_t)((1u << (elem->bits - is_signed)) - 1);
    elem->code_min = is_signed ? -elem->code_max - 1 : 0;
    elem->max = (float)elem->code_max * exact_exp2(-(int32_t)elem->fraction_bits);
    elem->emax = exact_ilog2(elem->max);
    return OK;
}

static bool read_level(const cJSON *item, float *level)
{
    const char *hex = cJSON_GetStringValue(item);
    if (!hex || strlen(hex) != 8 || strspn(hex, "0123456789abcdef") != 8) return false;
    *level = f32_from_bits((uint32_t)strtoul(hex, NULL, 16));
    return isfinite(*level);
}

static enum status read_levels(const cJSON *facts, struct elem *elem, struct codebook *book, struct err *err)
{
    const cJSON *levels = json_get(facts, "levels"), *item = cJSON_IsArray(levels) ? levels->child : NULL;
    size_t n = 0;
    for (; item && n < CODEBOOK_LEVELS && read_level(item, &book->levels[n]); item = item->next) n++;
    if (item || n != CODEBOOK_LEVELS || elem->bits != 4) return err_set(err, ERR_DATA, "levels are not 16 finite numbers of 8 hex digits for 4 bits");
    elem->kind = ELEM_CODEBOOK;
    elem->book = book;
    return OK;
}

static enum status read_element(const cJSON *facts, const struct family *family, struct elem *elem, struct codebook *book, struct err *err)
{
    const cJSON *special = json_get(facts, "special");
    const char *word = "none";
    char shown[80];
    enum status status = json_u32_in(facts, "bits", 1, 16, &elem->bits, err);
    if (status == OK && family->levels) return read_levels(facts, elem, book, err);
    if (status == OK) status = json_optional_u32(facts, "exponent_bits", 8, &elem->exp_bits, err);
    if (status == OK && special) status = json_string(special, "special", &word, err);
    if (status != OK) return status;
    if (strcmp(word, "none") == 0) elem->special = ELEM_NO_SPECIAL;
    else if (strcmp(word, "nan") == 0) elem->special = ELEM_NAN_ONLY;
    else if (strcmp(word, "ieee") == 0) elem->special = ELEM_IEEE;
    else return err_set(err, ERR_DATA, "special is '%s', not none, nan or ieee", err_name(word, strlen(word), shown, sizeof shown));
    return elem->exp_bits ? read_float_element(facts, elem, err) : read_integer_element(facts, elem, err);
}

/* A type that is decoded here must have the size it has here; one that is not leaves block NULL. */
static enum status read_block(const cJSON *facts, struct format *format, struct err *err)
{
    const char *name = "";
    uint32_t block = 0, block_nbytes = 0;
    const cJSON *type = json_get(facts, "type");
    enum status status = type ? json_string(type, "type", &name, err) : err_set(err, ERR_DATA, "type is missing");
    if (status == OK) status = json_u32_in(facts, "block", 1, GROUP_MAX, &block, err);
    if (status == OK) status = json_u32_in(facts, "block_bytes", 1, PLANE_BITS_MAX / 8, &block_nbytes, err);
    if (status != OK) return status;
    format->block = ggml_type_find(name);
    if (!format->block) return OK;
    if (format->block->elements == block && format->block->bytes == block_nbytes) return OK;
    return err_set(err, ERR_DATA, "type %s has blocks of %u weights in %u bytes, not of %u in %u", format->block->name, format->block->elements,
                   format->block->bytes, block, block_nbytes);
}

enum status facts_read(const cJSON *text, const struct family *family, struct facts *facts, struct err *err)
{
    struct format *format = &facts->format;
    struct elem *elem = &facts->elem;
    format->summary = "";
    format->family = family;
    if (family->blocks) return read_block(text, format, err);
    enum status status = read_element(text, family, elem, &facts->book, err);
    if (status == OK) status = json_bool(text, "zero_point", &format->zero_point, err);
    if (status != OK) return status;
    if (family->integers ? elem->kind == ELEM_FLOAT || elem->fraction_bits : format->zero_point)
        return err_set(err, ERR_DATA, "family '%s' has no such element or zero point", family->name);
    format->elem = elem;
    return OK;
}
