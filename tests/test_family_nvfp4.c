/* test_family_nvfp4.c: NVFP4 against golden vectors of the exact oracle: scale of the matrix, bytes, codes and decoded weights, with every kernel set.
 *
 * Why this way: the vectors know the scale of the matrix, which the other formats do not have; here it is divided out and multiplied in as codec.c
 * does.
 * Corner cases: a scale from outside (a fused set), none at all, refused groups, importance weights.
 * Reference: NUMERICS_BLOCK.md 6 and 10. Worked number: amax 0.49609375: g = 0x39418618.
 */
#include "support/support.h"

#include <stdlib.h>

#include "base/json.h"
#include "number/half.h"
#include "number/kernel.h"

static const char *text_of(const cJSON *item, const char *name)
{
    const cJSON *member = cJSON_GetObjectItemCaseSensitive(item, name);
    return cJSON_IsString(member) ? member->valuestring : NULL;
}

static uint32_t hex_at(const char *text, size_t index, size_t digits)
{
    char part[9] = { 0 };
    memcpy(part, text + index * digits, digits);
    return (uint32_t)strtoul(part, NULL, 16);
}

static size_t number_of(const cJSON *item, const char *name)
{
    return (size_t)cJSON_GetObjectItemCaseSensitive(item, name)->valueint;
}

/* What the file says the scale of the matrix is, checked against the range. */
static float tensor_scale_of(const cJSON *item, const struct quant *quant, const char *x, size_t n)
{
    struct range range = { 0 };
    if (!quant->tensor_scale) return 1.0f;
    for (size_t i = 0; i < n; i++) {
        float value = f32_from_bits(hex_at(x, i, 8));
        if (text_of(item, "amax")) value = f32_from_bits(hex_at(text_of(item, "amax"), 0, 8));
        range_add(&range, (struct range){ value < 0 ? value : 0, value > 0 ? value : 0 });
    }
    float scale = quant->format->family->tensor_scale(range);
    assert_int_equal(f32_bits(scale), hex_at(text_of(item, "g"), 0, 8));
    return scale;
}

static void check_row(const cJSON *item, const struct quant *quant, const struct kernels *kernels, float g, size_t row, size_t *n_scales)
{
    enum { MOST = 4096 };
    static float x[MOST], y[MOST], weight[MOST];
    static uint16_t codes[MOST];
    static struct group_scale scales[MOST / 16];
    const size_t cols = number_of(item, "cols"), n_groups = (cols + 15) / 16;
    const char *w = text_of(item, "w"), *name = text_of(item, "name");
    const cJSON *stored = cJSON_GetObjectItemCaseSensitive(item, "scales");
    assert_true(cols <= MOST);
    for (size_t i = 0; i < cols; i++) {
        x[i] = f32_from_bits(hex_at(text_of(item, "x"), row * cols + i, 8)) / g;
        if (w) weight[i] = f32_from_bits(hex_at(w, i, 8));
    }
    const size_t done = quant_encode(quant, kernels, x, w ? weight : NULL, cols, 16, scales, codes, y);
    if (text_of(item, "error")) {
        *n_scales += done; /* some row is not done whole */
        return;
    }
    assert_int_equal(done, n_groups);
    for (size_t i = 0; i < n_groups; i++) {
        int want = cJSON_GetArrayItem(stored, (int)(row * n_groups + i))->valueint;
        if ((int)scales[i].bits != want) fail_msg("%s %s: byte %zu of row %zu is %02x, not %02x", kernels->name, name, i, row, scales[i].bits, want);
    }
    for (size_t i = 0; i < cols; i++) {
        uint32_t code = hex_at(text_of(item, "codes"), row * cols + i, 2), value = hex_at(text_of(item, "y"), row * cols + i, 8);
        if (codes[i] != code || f32_bits(y[i] * g) != value)
            fail_msg("%s %s: weight %zu of row %zu is code %x %08x, not %x %08x", kernels->name, name, i, row, codes[i], f32_bits(y[i] * g), code,
                     value);
    }
}

static void check_case(const cJSON *item)
{
    struct err err;
    struct quant quant;
    const struct quant_params params = { .rule = text_of(item, "rule"),
                                         .rounding = text_of(item, "rounding"),
                                         .tensor_scale = strcmp(text_of(item, "tensor_scale"), "none") == 0 ? "none" : "tensor" };
    assert_ok(quant_parse("nvfp4", &params, &quant, &err));
    const size_t rows = number_of(item, "rows"), cols = number_of(item, "cols");
    const float g = tensor_scale_of(item, &quant, text_of(item, "x"), rows * cols);
    for (size_t k = 0; k < kernels_count(); k++) {
        size_t n_scales = 0;
        for (size_t row = 0; row < rows; row++) check_row(item, &quant, kernels_at(k), g, row, &n_scales);
        if (text_of(item, "error")) assert_true(n_scales < rows * ((cols + 15) / 16));
    }
}

static size_t check_file(const char *path, bool all)
{
    size_t nbytes = 0, count = 0;
    char *text = read_file(tests_path(path), &nbytes);
    cJSON *root = cJSON_ParseWithLength(text, nbytes);
    const cJSON *item;
    assert_non_null(root);
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(root, "block_cases"))
    {
        if (!all && (!text_of(item, "format") || strcmp(text_of(item, "format"), "nvfp4") != 0)) continue;
        check_case(item);
        count++;
    }
    cJSON_Delete(root);
    free(text);
    return count;
}

static void test_golden_vectors(void **state)
{
    (void)state;
    assert_true(check_file("golden/nvfp4.json", true) > 30);
    assert_true(check_file("golden/weighted_block.json", false) > 0);
    assert_true(check_file("golden/spec_block_vectors.json", false) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_golden_vectors) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
