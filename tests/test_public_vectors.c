/* test_public_vectors.c: vectors that other projects publish, against llmq.h: ONNX casts and quantised blocks, torchao's roundings, gfloat's tables.
 *
 * Why this way: nobody here made these numbers. They are read where they lie, and are no part of the project.
 * Corner cases: NaN is told by being NaN, not by its bits; casts that do not saturate, FNUZ types, integers that wrap, and E8M0 of any number are not ours.
 * Reference: the README of the shared data. Worked number: 0.25 in E2M1 is a tie, and 0.
 */
#include "support/api_support.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>

#include "number/half.h"

enum { MOST = 512 };

/* ---- ONNX casts ----------------------------------------------------------------------------------------------------------------- */

/* Their types, our elements. */
static const struct {
    const char *theirs, *ours;
    uint32_t bits;
} types[] = { { "e2m1", "e2m1", 4 }, { "e4m3fn", "e4m3", 8 }, { "e5m2", "e5m2", 8 },  { "i2", "int2", 2 }, { "i4", "int4", 4 },
              { "u2", "uint2", 2 },  { "u4", "uint4", 4 },    { "bf16", "bf16", 16 }, { "f16", "f16", 16 } };

static uint32_t width_of(const char *type)
{
    if (strcmp(type, "f32") == 0) return 32;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(type, types[i].theirs) == 0) return types[i].bits;
    return 0;
}

static const char *element_of(const char *type)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(type, types[i].theirs) == 0) return types[i].ours;
    return NULL;
}

static const char *text_of(const cJSON *item, const char *key)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, key));
    return text ? text : "";
}

/* Fields of a tensor, the first in the low bits; 0 where it is not given so. */
static size_t read_fields(const cJSON *tensor, uint32_t *fields)
{
    const char *hex = text_of(tensor, "hex");
    const uint32_t width = width_of(text_of(tensor, "dtype"));
    const cJSON *dim;
    size_t n = 1;
    cJSON_ArrayForEach(dim, cJSON_GetObjectItemCaseSensitive(tensor, "dims")) n *= (size_t)dim->valuedouble;
    if (!hex[0] || !width || n > MOST) return 0;
    for (size_t i = 0; i < n; i++) {
        fields[i] = 0;
        for (uint32_t b = 0; b < width; b++) {
            const size_t bit = i * width + b;
            const char pair[3] = { hex[bit / 8 * 2], hex[bit / 8 * 2 + 1], 0 };
            fields[i] |= (uint32_t)(strtoul(pair, NULL, 16) >> bit % 8 & 1u) << b;
        }
    }
    return n;
}

static float widen(const char *type, uint32_t field)
{
    return strcmp(type, "f16") == 0 ? f16_to_f32((uint16_t)field) : strcmp(type, "bf16") == 0 ? f32_from_bits(field << 16) : f32_from_bits(field);
}

static size_t check_narrow(const char *name, const char *from, const char *to, const uint32_t *in, const uint32_t *out, size_t n)
{
    size_t n_checked = 0;
    for (size_t i = 0; i < n; i++) {
        const float x = widen(from, in[i]);
        uint16_t code;
        if (isnan(x)) continue;
        assert_done(llmq_element_encode(element_of(to), NULL, 0, &x, 1, &code, &error));
        if (code != out[i]) fail_msg("%s: %s of %a is %X, not %X", name, to, (double)x, out[i], code);
        n_checked++;
    }
    return n_checked;
}

static size_t check_wide(const char *name, const char *from, const char *to, const uint32_t *in, const uint32_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const uint16_t code = (uint16_t)in[i];
        const float want = widen(to, out[i]);
        float x;
        assert_done(llmq_element_decode(element_of(from), 0, &code, 1, &x, &error));
        if (strcmp(to, "f16") == 0) assert_done(llmq_element_cast("f16", NULL, 0, &x, 1, &x, &error));
        if (!(isnan(x) && isnan(want)) && f32_bits(x) != f32_bits(want)) fail_msg("%s: %X is %a, not %a", name, code, (double)want, (double)x);
    }
    return n;
}

static bool is_float(const char *type)
{
    return strcmp(type, "f32") == 0 || strcmp(type, "f16") == 0 || strcmp(type, "bf16") == 0;
}

static cJSON *shared_json(const char *name)
{
    const char *path = shared_data(name);
    size_t nbytes;
    if (!path) skip();
    char *text = read_file(path, &nbytes);
    cJSON *json = cJSON_ParseWithLength(text, nbytes);
    assert_non_null(json);
    free(text);
    return json;
}

static void test_onnx_casts(void **state)
{
    (void)state;
    cJSON *cases = shared_json("golden/onnx_cast_qdq.json");
    const cJSON *item;
    size_t n_casts = 0, n_checked = 0;
    cJSON_ArrayForEach(item, cases)
    {
        static uint32_t in[MOST], out[MOST];
        const cJSON *source = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(item, "in"), 0);
        const cJSON *target = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(item, "out"), 0);
        const char *from = text_of(source, "dtype"), *to = text_of(target, "dtype");
        const bool integers = to[0] == 'i' || to[0] == 'u';
        if (strncmp(item->string, "test_cast", 9) != 0 || strstr(item->string, "no_saturate") || integers) continue;
        const size_t n = read_fields(source, in);
        if (n == 0 || read_fields(target, out) != n || !width_of(to)) continue;
        if (is_float(from) && element_of(to)) n_checked += check_narrow(item->string, from, to, in, out, n);
        else if (element_of(from) && is_float(to)) n_checked += check_wide(item->string, from, to, in, out, n);
        else continue;
        n_casts++;
    }
    print_message("%zu casts, %zu numbers\n", n_casts, n_checked);
    assert_true(n_casts >= 20);
    cJSON_Delete(cases);
}

/* ---- torchao -------------------------------------------------------------------------------------------------------------------- */

static void test_torchao_roundings(void **state)
{
    (void)state;
    static const char *const files[][2] = { { "golden/torchao/fp4_e2m1_rounding_cases.json", "e2m1" },
                                            { "golden/torchao/fp6_e3m2_rounding_cases.json", "e3m2" } };
    for (size_t f = 0; f < 2; f++) {
        cJSON *cases = shared_json(files[f][0]);
        const cJSON *item;
        cJSON_ArrayForEach(item, cases)
        {
            const float x = (float)cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(item, "in"));
            const cJSON *code = cJSON_GetObjectItemCaseSensitive(item, "code"), *value = cJSON_GetObjectItemCaseSensitive(item, "out");
            uint16_t found;
            float y;
            assert_done(llmq_element_encode(files[f][1], NULL, 0, &x, 1, &found, &error));
            assert_done(llmq_element_decode(files[f][1], 0, &found, 1, &y, &error));
            if (code && found != (uint16_t)code->valueint) fail_msg("%s of %g: %X", files[f][1], (double)x, found);
            if (value && (double)y != value->valuedouble) fail_msg("%s of %g: %g", files[f][1], (double)x, (double)y);
        }
        cJSON_Delete(cases);
    }
}

/* Blocks of 32 whose scales are no subnormals; where they are, torchao flushes what we do not. */
static void test_torchao_blocks(void **state)
{
    (void)state;
    cJSON *cases = shared_json("golden/torchao/mxfp8_e4m3_rceil_blocks.json");
    struct llmq_quant *quant = NULL;
    const cJSON *item;
    size_t n_checked = 0;
    assert_done(llmq_quant_open("mxfp8_e4m3:rule=rceil", &quant, &error));
    cJSON_ArrayForEach(item, cases)
    {
        const cJSON *bits = cJSON_GetObjectItemCaseSensitive(item, "input_bits"), *codes = cJSON_GetObjectItemCaseSensitive(item, "e4m3");
        const int scale = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(item, "e8m0"), 0)
                              ? cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(item, "e8m0"), 0)->valueint
                              : 0;
        const bool halves = strcmp(text_of(item, "input_dtype"), "bf16") == 0;
        float x[32];
        uint8_t got[32], byte;
        if (!codes || scale == 0) continue;
        for (int i = 0; i < 32; i++) x[i] = f32_from_bits((uint32_t)cJSON_GetArrayItem(bits, i)->valuedouble << (halves ? 16 : 0));
        assert_done(llmq_quantise_rows(quant, x, 1, 32, got, &byte, NULL, &error));
        assert_int_equal(byte, scale);
        for (int i = 0; i < 32; i++) assert_int_equal(got[i], cJSON_GetArrayItem(codes, i)->valueint);
        n_checked++;
    }
    print_message("%zu blocks\n", n_checked);
    assert_true(n_checked >= 4);
    llmq_quant_close(quant);
    cJSON_Delete(cases);
}

/* ---- gfloat --------------------------------------------------------------------------------------------------------------------- */

/* "+0b1.01*2^-3", or the number behind the last "=". */
static double exact_value(const char *line)
{
    const char *at = strstr(line + 4, "0b");
    if (!at) return strtod(strrchr(line, '=') + 1, NULL);
    const bool negative = at[-1] == '-';
    int places = 0;
    bool fraction = false;
    double value = 0.0;
    for (at += 2; *at == '0' || *at == '1' || *at == '.'; at++) {
        if (*at == '.') {
            fraction = true;
            continue;
        }
        value = 2.0 * value + (*at - '0');
        places += fraction;
    }
    return ldexp(negative ? -value : value, (int)strtol(strchr(at, '^') + 1, NULL, 10) - places);
}

/* Parts of tables. "0x02<tab>= 0_01_0 = +0b1.0*2^0   = 1.0": a code, its exact value, and that in decimal. */
static void test_gfloat_tables(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t n;
    } tables[] = { { "e2m1", 16 }, { "e2m3", 64 }, { "e3m2", 40 }, { "e4m3", 128 }, { "e5m2", 128 } };
    for (size_t t = 0; t < sizeof tables / sizeof tables[0]; t++) {
        char name[64];
        size_t nbytes, n = 0;
        snprintf(name, sizeof name, "golden/gfloat/ocp_%s_table.txt", tables[t].name);
        const char *path = shared_data(name);
        if (!path) skip();
        char *text = read_file(path, &nbytes);
        for (char *line = strstr(text, "0x"), *next; line; line = next, n++) {
            char *end = strchr(line, '\n');
            next = end ? strstr(end, "0x") : NULL;
            if (end) *end = '\0';
            const uint16_t code = (uint16_t)strtoul(line, NULL, 16);
            const double want = exact_value(line);
            float x;
            assert_done(llmq_element_decode(tables[t].name, 0, &code, 1, &x, &error));
            const bool same = isnan(want) ? isnan(x) : (double)x == want && !signbit(x) == !signbit(want);
            if (!same) fail_msg("%s: '%s' is %g here", tables[t].name, line, (double)x);
        }
        assert_int_equal(n, tables[t].n);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_onnx_casts), cmocka_unit_test(test_torchao_roundings),
                                        cmocka_unit_test(test_torchao_blocks), cmocka_unit_test(test_gfloat_tables) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
