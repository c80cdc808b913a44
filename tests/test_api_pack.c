/* test_api_pack.c: packing orders through llmq.h: the specification's bytes, and every order and width there and back.
 *
 * Why this way: bytes are those of the specification's worked examples; the drawings of GGUF's blocks are repeated as loops.
 * Corner cases: short last words, codes split over words, codes and bits out of range, sizes that overflow.
 * Reference: the specification's 4.8, 8.5.6; layouts.md 2. Worked number: 0 .. 7, 4 bits: AWQ 0x75316420.
 */
#include "support/api_support.h"

static void check(enum llmq_order order, uint32_t bits, int is_signed, int64_t offset, const int64_t *codes, uint64_t n, const unsigned char *want,
                  uint64_t nbytes)
{
    const struct llmq_packing packing = { order, bits, is_signed, offset };
    unsigned char out[64] = { 0 };
    int64_t back[64];
    uint64_t size;
    assert_done(llmq_packed_nbytes(&packing, n, &size, &error));
    assert_int_equal(size, nbytes);
    assert_done(llmq_pack(&packing, codes, n, out, &error));
    assert_memory_equal(out, want, nbytes);
    assert_done(llmq_unpack(&packing, out, n, back, &error));
    assert_memory_equal(back, codes, n * sizeof *back);
}

#define CODES(...)                                                                                                                                   \
    (const int64_t[])                                                                                                                                \
    {                                                                                                                                                \
        __VA_ARGS__                                                                                                                                  \
    }
#define BYTES(...)                                                                                                                                   \
    (const unsigned char[])                                                                                                                          \
    {                                                                                                                                                \
        __VA_ARGS__                                                                                                                                  \
    }

static void test_worked(void **state)
{
    (void)state;
    const int64_t *count = CODES(0, 1, 2, 3, 4, 5, 6, 7), *mixed = CODES(-8, -1, 0, 1, 2, 3, 7, -3);
    check(LLMQ_ORDER_AWQ, 4, 0, 0, count, 8, BYTES(0x20, 0x64, 0x31, 0x75), 4);
    check(LLMQ_ORDER_WORDS, 4, 0, 0, count, 8, BYTES(0x10, 0x32, 0x54, 0x76), 4);
    check(LLMQ_ORDER_AWQ, 4, 1, 0, mixed, 8, BYTES(0x08, 0x72, 0x1F, 0xD3), 4);
    check(LLMQ_ORDER_STREAM, 4, 1, 0, mixed, 8, BYTES(0xF8, 0x10, 0x32, 0xD7), 4);
    check(LLMQ_ORDER_STREAM, 3, 1, 0, CODES(-4, -3, -2, -1, 0, 1, 2, 3), 8, BYTES(0xAC, 0x8F, 0x68), 3);
    check(LLMQ_ORDER_STREAM, 4, 0, 0, CODES(1, 0xA, 7, 0xF, 0, 3, 5, 9), 8, BYTES(0xA1, 0xF7, 0x30, 0x95), 4);
    check(LLMQ_ORDER_STREAM, 6, 0, 0, CODES(0x1F, 0x21, 0x08, 0x39), 4, BYTES(0x5F, 0x88, 0xE4), 3);
    check(LLMQ_ORDER_STREAM, 6, 0, 0, CODES(0x1F, 0x21, 0x0C, 0x33), 4, BYTES(0x5F, 0xC8, 0xCC), 3);
    check(LLMQ_ORDER_MX_FP6, 6, 0, 0, CODES(0x1F, 0x21, 0x08, 0x39), 4, BYTES(0x63, 0xF1, 0x89), 3);
    check(LLMQ_ORDER_AWQ, 4, 0, 0, count + 1, 2, BYTES(0x01, 0x00, 0x02, 0x00), 4); /* a short word */
    check(LLMQ_ORDER_WORDS, 4, 0, 8, CODES(-8, -1, 0, 7), 4, BYTES(0x70, 0xF8, 0, 0), 4); /* compressed-tensors */
    check(LLMQ_ORDER_STREAM, 8, 1, 0, CODES(-128, 127, -1), 3, BYTES(0x80, 0x7F, 0xFF), 3);
    check(LLMQ_ORDER_STREAM, 32, 1, 0, CODES(INT32_MIN, -1), 2, BYTES(0, 0, 0, 0x80, 0xFF, 0xFF, 0xFF, 0xFF), 8);
    check(LLMQ_ORDER_STREAM, 12, 0, 0, CODES(0xABC, 0x123), 2, BYTES(0xBC, 0x3A, 0x12), 3);
}

/* Byte j of a unit has codes j and j + unit / 2. */
static void test_halves(void **state)
{
    (void)state;
    for (uint64_t unit = 16; unit <= 64; unit *= 2) {
        const enum llmq_order order = unit == 16 ? LLMQ_ORDER_HALVES_16 : unit == 32 ? LLMQ_ORDER_HALVES_32 : LLMQ_ORDER_HALVES_64;
        int64_t codes[64];
        unsigned char want[32];
        for (uint64_t i = 0; i < unit; i++) codes[i] = (int64_t)((i * 7 + 3) % 16);
        for (uint64_t j = 0; j < unit / 2; j++) want[j] = (unsigned char)(codes[j] | codes[j + unit / 2] << 4);
        check(order, 4, 0, 0, codes, unit, want, unit / 2);
    }
}

static void test_every_width(void **state)
{
    (void)state;
    uint64_t seed = 5;
    for (int order = 0; order < (int)LLMQ_ORDER_COUNT; order++)
        for (uint32_t bits = 1; bits <= 32; bits++)
            for (uint64_t n = 0; n < 70; n += 1 + n / 4) {
                const struct llmq_packing packing = { (enum llmq_order)order, bits, (int)(n % 2), 0 };
                int64_t codes[70], back[70];
                unsigned char out[600];
                uint64_t nbytes;
                if (llmq_packed_nbytes(&packing, n, &nbytes, NULL) != LLMQ_OK) continue;
                const int64_t span = (int64_t)1 << bits;
                for (uint64_t i = 0; i < n; i++) codes[i] = (int64_t)(test_random(&seed) % (uint64_t)span) - (packing.is_signed ? span / 2 : 0);
                memset(out, 0xA5, sizeof out);
                assert_done(llmq_pack(&packing, codes, n, out, &error));
                if (n) assert_int_equal(out[nbytes], 0xA5);
                assert_done(llmq_unpack(&packing, out, n, back, &error));
                assert_memory_equal(back, codes, n * sizeof *codes);
            }
}

/* GPTQ: word r of column n has consecutive rows, lowest bits first; of 3 bits, values 10 and 21 of 32 are split. */
static void test_columns(void **state)
{
    (void)state;
    enum { ROWS = 32, COLS = 3 };
    for (uint32_t bits = 2; bits <= 8; bits++) {
        const struct llmq_packing packing = { LLMQ_ORDER_WORDS, bits, 0, 0 };
        int64_t codes[ROWS * COLS], back[ROWS * COLS], column[ROWS];
        unsigned char out[ROWS * COLS], one[ROWS];
        for (int i = 0; i < ROWS * COLS; i++) codes[i] = (i * 5 + 1) % (1 << bits);
        assert_done(llmq_pack_columns(&packing, codes, ROWS, COLS, out, &error));
        for (int c = 0; c < COLS; c++) {
            for (int r = 0; r < ROWS; r++) column[r] = codes[r * COLS + c];
            assert_done(llmq_pack(&packing, column, ROWS, one, &error));
            for (uint32_t w = 0; w < bits; w++) assert_memory_equal(out + 4 * (w * COLS + (uint32_t)c), one + 4 * w, 4);
        }
        assert_done(llmq_unpack_columns(&packing, out, ROWS, COLS, back, &error));
        assert_memory_equal(back, codes, sizeof codes);
    }
    const struct llmq_packing stream = { LLMQ_ORDER_STREAM, 4, 0, 0 };
    assert_denied(llmq_pack_columns(&stream, CODES(1), 1, 1, &(uint32_t){ 0 }, &error), LLMQ_ERR_USAGE, "not stream");
    assert_denied(llmq_pack_columns(&(struct llmq_packing){ LLMQ_ORDER_WORDS, 4, 0, 0 }, CODES(1), UINT64_MAX, 2, &(uint32_t){ 0 }, &error),
                  LLMQ_ERR_UNSUPPORTED, "too many");
}

static void test_denied(void **state)
{
    (void)state;
    unsigned char out[8];
    uint64_t nbytes;
    const struct llmq_packing four = { LLMQ_ORDER_STREAM, 4, 0, 0 }, with_sign = { LLMQ_ORDER_STREAM, 4, 1, 0 },
                              far = { LLMQ_ORDER_STREAM, 4, 0, INT64_MAX };
    assert_denied(llmq_pack(&four, CODES(3, 16), 2, out, &error), LLMQ_ERR_USAGE, "code number 1, 16, does not fit in 4 bits");
    assert_denied(llmq_pack(&four, CODES(-1), 1, out, &error), LLMQ_ERR_USAGE, "does not fit");
    assert_denied(llmq_pack(&with_sign, CODES(8), 1, out, &error), LLMQ_ERR_USAGE, "does not fit");
    assert_denied(llmq_pack(&with_sign, CODES(-9), 1, out, &error), LLMQ_ERR_USAGE, "does not fit");
    assert_denied(llmq_pack(&far, CODES(INT64_MAX), 1, out, &error), LLMQ_ERR_USAGE, "does not fit");
    assert_denied(llmq_pack(&four, NULL, 1, out, &error), LLMQ_ERR_USAGE, "codes is NULL");
    assert_denied(llmq_unpack(&four, NULL, 1, &(int64_t){ 0 }, &error), LLMQ_ERR_USAGE, "bytes is NULL");
    assert_denied(llmq_packed_nbytes(&(struct llmq_packing){ LLMQ_ORDER_AWQ, 3, 0, 0 }, 1, &nbytes, &error), LLMQ_ERR_USAGE,
                  "order awq has no codes of 3");
    assert_denied(llmq_packed_nbytes(&(struct llmq_packing){ LLMQ_ORDER_STREAM, 33, 0, 0 }, 1, &nbytes, &error), LLMQ_ERR_USAGE, "33 bits");
    assert_denied(llmq_packed_nbytes(&(struct llmq_packing){ LLMQ_ORDER_STREAM, 0, 0, 0 }, 1, &nbytes, &error), LLMQ_ERR_USAGE, "0 bits");
    assert_denied(llmq_packed_nbytes(&(struct llmq_packing){ LLMQ_ORDER_COUNT, 4, 0, 0 }, 1, &nbytes, &error), LLMQ_ERR_USAGE, "no order");
    assert_denied(llmq_packed_nbytes(NULL, 1, &nbytes, &error), LLMQ_ERR_USAGE, "packing is NULL");
    assert_denied(llmq_packed_nbytes(&four, UINT64_MAX, &nbytes, &error), LLMQ_ERR_UNSUPPORTED, "too many");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worked),  cmocka_unit_test(test_halves), cmocka_unit_test(test_every_width),
        cmocka_unit_test(test_columns), cmocka_unit_test(test_denied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
