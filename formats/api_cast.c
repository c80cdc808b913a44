/* api_cast.c: weights to codes of one element and back, one scale or none for all; and the rounding codes of other tools.
 *
 *   v = clamp(fl(x / scale), -max, max) -> nearest code      x = fl(value(code) * scale)        scale 0: none
 *
 * Why this way: the element table is the definition of every format; f16 and bf16 are not in it and stand here beside it.
 * Corner cases: Inf and what is beyond max saturate, but f16 and bf16 are plain IEEE casts; a NaN becomes the NaN code (7F of 8-bit floats), and is refused where the element has none; -0
 * keeps its sign in floats; the default rounding is nearest-even.
 * Reference: the specification's 4.1, 4.2, 8.4. Worked number: E4M3: 0.3 -> 2A = 0.3125, 500 -> 7E, NaN -> 7F.
 */
#include <math.h>
#include <string.h>

#include "api.h"
#include "number/elem.h"
#include "number/foreign_rounding.h"
#include "number/half.h"

/* ---- elements ------------------------------------------------------------------------------------------------------------------- */

/* An element of the table, or one of the two 16-bit floats. */
struct cast {
    const struct elem *elem; /* NULL: half */
    uint16_t (*encode_half)(float x);
    float (*decode_half)(uint16_t code);
};

static const struct {
    const char *name, *own;
} aliases[] = {
    { "fp8_e4m3", "e4m3" }, { "fp8_e5m2", "e5m2" }, { "fp6_e3m2", "e3m2" }, { "fp6_e2m3", "e2m3" }, { "fp4_e2m1", "e2m1" },
    { "fp4", "e2m1" },      { "float16", "f16" },   { "fp16", "f16" },      { "bfloat16", "bf16" },
};

static bool cast_find(const char *name, struct cast *cast)
{
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++)
        if (strcmp(name, aliases[i].name) == 0) name = aliases[i].own;
    *cast = (struct cast){ .elem = elem_find(name) };
    if (strcmp(name, "f16") == 0) *cast = (struct cast){ NULL, f32_to_f16, f16_to_f32 };
    if (strcmp(name, "bf16") == 0) *cast = (struct cast){ NULL, f32_to_bf16, bf16_to_f32 };
    return cast->elem || cast->encode_half;
}

static enum status cast_check(const char *element, float scale, struct cast *cast, struct err *err)
{
    if (!element) return err_set(err, ERR_USAGE, "element is NULL");
    if (!cast_find(element, cast)) return err_set(err, ERR_USAGE, "unknown element '%s'", element);
    if (scale != 0.0f && !(scale > 0.0f && isfinite(scale))) return err_set(err, ERR_USAGE, "scale %g is not positive and finite", (double)scale);
    return OK;
}

/* The code of a NaN; 0 where there is none. */
static uint32_t nan_code(const struct cast *cast)
{
    if (cast->encode_half) return cast->encode_half(NAN) & 0x7FFFu;
    return cast->elem->kind == ELEM_FLOAT && cast->elem->special != ELEM_NO_SPECIAL ? (1u << (cast->elem->bits - 1)) - 1u : 0;
}

/* f16 and bf16 are plain IEEE casts; Inf is taken for the largest number, as others saturate. */
static uint16_t encode_one(const struct cast *cast, float u, enum rounding rounding)
{
    if (isnan(u)) return (uint16_t)nan_code(cast);
    if (cast->encode_half) return cast->encode_half(u);
    const float most = 0x1.FFFFFEp127f;
    return (uint16_t)elem_encode(cast->elem, isinf(u) ? copysignf(most, u) : u, rounding);
}

static float decode_one(const struct cast *cast, uint16_t code)
{
    return cast->encode_half ? cast->decode_half(code) : elem_decode(cast->elem, code);
}

static enum status encode_all(const struct cast *cast, enum rounding rounding, float scale, const float *x, size_t n, uint16_t *codes, float *y,
                              struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        const float u = scale != 0.0f ? x[i] / scale : x[i];
        if (isnan(u) && !nan_code(cast)) return err_set(err, ERR_DATA, "weight number %zu is NaN, and the element has none", i);
        const uint16_t code = encode_one(cast, u, rounding);
        if (codes) codes[i] = code;
        if (y) y[i] = scale != 0.0f ? decode_one(cast, code) * scale : decode_one(cast, code);
    }
    return OK;
}

enum llmq_status llmq_element_bits(const char *element, uint32_t *bits, struct llmq_error *error)
{
    struct cast cast;
    if (!bits) return api_null("bits", error);
    enum status status = cast_check(element, 0.0f, &cast, api_err(error));
    if (status == OK) *bits = cast.elem ? cast.elem->bits : 16;
    return api_status(status);
}

static enum llmq_status cast_all(const char *element, const char *rounding, float scale, const float *x, size_t n, uint16_t *codes, float *y,
                                 struct llmq_error *error)
{
    struct cast cast;
    enum rounding mode;
    enum status status = cast_check(element, scale, &cast, api_err(error));
    if (status == OK) status = api_rounding(rounding, &mode, api_err(error));
    if (status == OK && n && !x) return api_null("x", error);
    if (status == OK && (cast.encode_half || cast.elem->kind == ELEM_CODEBOOK) && mode != ROUND_NEAREST_EVEN)
        status = err_set(api_err(error), ERR_USAGE, "element %s is rounded to nearest even only", element);
    return api_status(status == OK ? encode_all(&cast, mode, scale, x, n, codes, y, api_err(error)) : status);
}

enum llmq_status llmq_element_encode(const char *element, const char *rounding, float scale, const float *x, size_t n, uint16_t *codes,
                                     struct llmq_error *error)
{
    if (n && !codes) return api_null("codes", error);
    return cast_all(element, rounding, scale, x, n, codes, NULL, error);
}

enum llmq_status llmq_element_cast(const char *element, const char *rounding, float scale, const float *x, size_t n, float *y,
                                   struct llmq_error *error)
{
    if (n && !y) return api_null("y", error);
    return cast_all(element, rounding, scale, x, n, NULL, y, error);
}

enum llmq_status llmq_element_decode(const char *element, float scale, const uint16_t *codes, size_t n, float *x, struct llmq_error *error)
{
    struct cast cast;
    if (n && (!codes || !x)) return api_null(codes ? "x" : "codes", error);
    enum status status = cast_check(element, scale, &cast, api_err(error));
    if (status != OK) return api_status(status);
    for (size_t i = 0; i < n; i++) x[i] = decode_one(&cast, codes[i]) * (scale != 0.0f ? scale : 1.0f);
    return LLMQ_OK;
}

/* ---- rounding codes of other tools ---------------------------------------------------------------------------------------------- */

static enum status vocabulary_of(const char *name, enum foreign_rounding *vocabulary, struct err *err)
{
    for (int i = 0; name && i < (int)FOREIGN_COUNT; i++) {
        *vocabulary = (enum foreign_rounding)i;
        if (strcmp(foreign_rounding_name(*vocabulary), name) == 0) return OK;
    }
    return err_set(err, ERR_USAGE, "vocabulary '%s' is none of onnx, torch", name ? name : "");
}

enum llmq_status llmq_rounding_of_code(const char *vocabulary, int32_t code, const char **rounding, struct llmq_error *error)
{
    enum foreign_rounding found;
    enum rounding mode;
    if (!rounding) return api_null("rounding", error);
    enum status status = vocabulary_of(vocabulary, &found, api_err(error));
    if (status == OK) status = foreign_rounding_find(found, code, &mode, api_err(error));
    if (status == OK) *rounding = rounding_name(mode);
    return api_status(status);
}

enum llmq_status llmq_code_of_rounding(const char *vocabulary, const char *rounding, int32_t *code, struct llmq_error *error)
{
    enum foreign_rounding found;
    enum rounding mode;
    if (!rounding || !code) return api_null(rounding ? "code" : "rounding", error);
    enum status status = vocabulary_of(vocabulary, &found, api_err(error));
    if (status == OK) status = api_rounding(rounding, &mode, api_err(error));
    if (status != OK) return api_status(status);
    const int32_t known = foreign_rounding_code(found, mode);
    if (known < 0) return api_status(err_set(api_err(error), ERR_USAGE, "%s has no code for rounding %s", vocabulary, rounding));
    *code = known;
    return LLMQ_OK;
}
