/* test_dtype.c: stored element types.
 *
 * Why this way: one table of stored bytes and values per row; then every pattern of the 16-bit types.
 * Corner cases: unaligned sources; integers and F64 that round; overflow, subnormals and NaN when narrowing; opaque types cannot be widened.
 * Reference: dtype.h; safetensors dtype list.
 */
#include "support/support.h"

#include <math.h>

#include "layout/dtype.h"
#include "number/half.h"

static const struct {
    const char *name;
    uint8_t stored[8];
    float value;
} samples[] = {
    { "F32", { 0, 0, 0x80, 0x3F }, 1.0f },
    { "F32", { 1, 0, 0, 0x80 }, -0x1p-149f },
    { "BF16", { 0x80, 0x3F }, 1.0f },
    { "BF16", { 0x01, 0x80 }, -0x1p-133f },
    { "F16", { 0x01, 0x00 }, 0x1p-24f },
    { "F16", { 0xFF, 0xFB }, -65504.0f },
    { "F64", { 0, 0, 0, 0, 0, 0, 0xF0, 0xBF }, -1.0f },
    { "F64", { 0, 0, 0, 0x10, 0, 0, 0xF0, 0x3F }, 1.0f }, /* 1 + 2^-24: a tie to even */
    { "F64", { 1, 0, 0, 0x10, 0, 0, 0xF0, 0x3F }, 0x1.000002p0f },
    { "F8_E4M3", { 0x58 }, 16.0f },
    { "F8_E4M3", { 0x81 }, -0x1p-9f },
    { "F8_E5M2", { 0x7B }, 57344.0f },
    { "BOOL", { 1 }, 1.0f },
    { "U8", { 255 }, 255.0f },
    { "I8", { 255 }, -1.0f },
    { "U16", { 0xFF, 0xFF }, 65535.0f },
    { "I16", { 0x00, 0x80 }, -32768.0f },
    { "U32", { 1, 0, 0, 1 }, 16777216.0f }, /* 2^24 + 1 */
    { "U32", { 0xFF, 0xFF, 0xFF, 0xFF }, 4294967296.0f },
    { "I32", { 0xFF, 0xFF, 0xFF, 0xFF }, -1.0f },
    { "I32", { 0, 0, 0, 0x80 }, -2147483648.0f },
    { "U64", { 1, 0, 0, 0, 0, 0, 0, 0x80 }, 0x1p63f },
    { "I64", { 0, 0, 0, 0, 0, 0, 0, 0x80 }, -0x1p63f },
    { "I64", { 0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF }, -2.0f },
};

static const struct {
    const char *name;
    uint32_t bits;
} facts[] = {
    { "F32", 32 },        { "BF16", 16 },       { "F16", 16 }, { "F64", 64 },    { "F8_E4M3", 8 }, { "F8_E5M2", 8 }, { "BOOL", 8 }, { "U8", 8 },
    { "I8", 8 },          { "U16", 16 },        { "I16", 16 }, { "U32", 32 },    { "I32", 32 },    { "U64", 64 },    { "I64", 64 }, { "F8_E8M0", 8 },
    { "F8_E4M3FNUZ", 8 }, { "F8_E5M2FNUZ", 8 }, { "F4", 4 },   { "F6_E2M3", 6 }, { "F6_E3M2", 6 }, { "C64", 64 },
};

static void test_samples(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        const struct dtype *dtype = dtype_find(samples[i].name, strlen(samples[i].name));
        uint8_t buffer[40];
        float out[4] = { 0, 0, 0, 77.0f };
        assert_non_null(dtype);
        for (size_t shift = 0; shift < 8; shift++) {
            for (size_t k = 0; k < 3; k++) memcpy(buffer + shift + k * dtype->bits / 8, samples[i].stored, dtype->bits / 8);
            dtype->widen(buffer + shift, 3, out);
            for (size_t k = 0; k < 3; k++)
                if (f32_bits(out[k]) != f32_bits(samples[i].value)) fail_msg("%s sample %zu: %a", samples[i].name, i, (double)out[k]);
        }
        assert_true(out[3] == 77.0f);
    }
}

static void test_facts(void **state)
{
    (void)state;
    assert_int_equal(dtype_count(), sizeof facts / sizeof facts[0]);
    for (size_t i = 0; i < dtype_count(); i++) {
        const struct dtype *dtype = dtype_find(facts[i].name, strlen(facts[i].name));
        assert_non_null(dtype);
        assert_int_equal(dtype->bits, facts[i].bits);
        assert_true((dtype->class == DTYPE_OPAQUE) == (dtype->widen == NULL));
        assert_ptr_equal(dtype_find(dtype_at(i)->name, strlen(dtype_at(i)->name)), dtype_at(i));
    }
    assert_null(dtype_find("BF1", 3));
    assert_null(dtype_find("bf16", 4));
    assert_null(dtype_find("", 0));
    assert_ptr_equal(dtype_find("F16F16", 3), dtype_find("F16", 3));
}

/* Everything a 16-bit or F32 type stores comes back; NaNs come back as quiet NaNs. */
static void test_there_and_back(void **state)
{
    (void)state;
    static const char *const names[] = { "F16", "BF16" };
    for (size_t k = 0; k < 2; k++) {
        const struct dtype *dtype = dtype_find(names[k], strlen(names[k]));
        for (uint32_t bits = 0; bits < 65536; bits++) {
            uint8_t stored[2] = { (uint8_t)bits, (uint8_t)(bits >> 8) }, back[2];
            float x;
            dtype->widen(stored, 1, &x);
            dtype->narrow(&x, 1, back);
            uint32_t got = (uint32_t)back[0] | (uint32_t)back[1] << 8;
            if (isnan(x)) assert_true((got | (k ? 0x40u : 0x200u)) == (bits | (k ? 0x40u : 0x200u)));
            else assert_int_equal(got, bits);
        }
    }
}

static const struct {
    const char *name;
    float x;
    uint8_t stored[4];
} narrowed[] = {
    { "BF16", 0x1.01p0f, { 0x80, 0x3F } }, { "BF16", 0x1.03p0f, { 0x82, 0x3F } }, { "BF16", 0x1.ffp127f, { 0x80, 0x7F } },
    { "F16", 65519.0f, { 0xFF, 0x7B } },   { "F16", 65520.0f, { 0x00, 0x7C } },   { "F16", 0x1p-25f, { 0, 0 } },
    { "F16", 0x1.8p-25f, { 1, 0 } },       { "F16", -0x1p-24f, { 1, 0x80 } },     { "F32", -0x1p-149f, { 1, 0, 0, 0x80 } },
};

static void test_narrow(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof narrowed / sizeof narrowed[0]; i++) {
        const struct dtype *dtype = dtype_find(narrowed[i].name, strlen(narrowed[i].name));
        uint8_t out[4];
        dtype->narrow(&narrowed[i].x, 1, out);
        assert_memory_equal(out, narrowed[i].stored, dtype->bits / 8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_samples), cmocka_unit_test(test_facts), cmocka_unit_test(test_there_and_back),
                                        cmocka_unit_test(test_narrow) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
