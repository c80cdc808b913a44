/* test_kept.c: kept tensors become planes and come back: all dtypes, all 65536 values of the 16-bit ones, lengths around vector widths.
 *
 * Why this way: worked bytes first, then every value there is.
 * Corner cases: n 0; unaligned buffers; sub-byte dtypes; no rows, no cols.
 * Reference: FORMAT.md 3.1. Worked number: BF16 0xBF80: exponent 0x7F, rest 0x80.
 */
#include "support/support.h"

#include "layout/kept.h"

static struct err err;

static void test_bytes(void **state)
{
    (void)state;
    const uint8_t source[6] = { 0x80, 0xBF, 0x7F, 0x7F, 0x01, 0x80 };
    uint8_t a[3], b[3], back[6];
    uint8_t *const planes[KEPT_PLANES_MAX] = { a, b };
    const uint8_t *const read[KEPT_PLANES_MAX] = { a, b };
    kept_split(KEPT_BF16, 2, source, 3, planes);
    const uint8_t exponent[3] = { 0x7F, 0xFE, 0x00 }, rest[3] = { 0x80, 0x7F, 0x81 };
    assert_memory_equal(a, exponent, 3);
    assert_memory_equal(b, rest, 3);
    kept_join(KEPT_BF16, 2, read, 3, back);
    assert_memory_equal(back, source, 6);
    kept_split(KEPT_F16, 2, source, 3, planes);
    const uint8_t high[3] = { 0xBF, 0x7F, 0x80 }, low[3] = { 0x80, 0x7F, 0x01 };
    assert_memory_equal(a, high, 3);
    assert_memory_equal(b, low, 3);
}

static void round_trip(enum kept_kind kind, uint32_t item_nbytes, const uint8_t *source, size_t n_items, size_t shift)
{
    size_t nbytes = n_items * item_nbytes;
    uint8_t *a = malloc(nbytes + 8), *b = malloc(nbytes + 8), *back = malloc(nbytes + 8);
    uint8_t *const planes[KEPT_PLANES_MAX] = { a + shift, b + shift };
    const uint8_t *const read[KEPT_PLANES_MAX] = { a + shift, b + shift };
    kept_split(kind, item_nbytes, source, n_items, planes);
    kept_join(kind, item_nbytes, read, n_items, back + shift);
    if (nbytes) assert_memory_equal(back + shift, source, nbytes);
    free(a);
    free(b);
    free(back);
}

static void test_all_values(void **state)
{
    (void)state;
    uint8_t *source = malloc(2 * 65536);
    for (uint32_t i = 0; i < 65536; i++) {
        source[2 * i] = (uint8_t)i;
        source[2 * i + 1] = (uint8_t)(i >> 8);
    }
    round_trip(KEPT_BF16, 2, source, 65536, 0);
    round_trip(KEPT_F16, 2, source, 65536, 0);
    for (size_t n = 0; n < 200; n++)
        for (size_t shift = 0; shift < 3; shift++) {
            round_trip(KEPT_BF16, 2, source + 2 * 777 + shift, n, shift);
            round_trip(KEPT_F16, 2, source + 2 * 777 + shift, n, shift);
            round_trip(KEPT_DATA, 4, source + shift, n, shift);
            round_trip(KEPT_DATA, 1, source + shift, n, shift);
        }
    free(source);
}

static void test_planes(void **state)
{
    (void)state;
    static const uint64_t shapes[][2] = { { 1, 1 }, { 0, 5 }, { 5, 0 }, { 3, 16 }, { 1, 300000 }, { 4096, 128 }, { 2, 524288 } };
    for (size_t d = 0; d < dtype_count(); d++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
            for (int split = 0; split < 2; split++) {
                const struct dtype *dtype = dtype_at(d);
                uint64_t rows = shapes[s][0], cols = shapes[s][1], total = 0;
                if (rows * cols * dtype->bits % 8) continue;
                struct kept kept;
                kept_planes(dtype, rows, cols, split, &kept);
                bool two = split && (strcmp(dtype->name, "BF16") == 0 || strcmp(dtype->name, "F16") == 0);
                assert_int_equal(kept.n_planes, two ? 2 : 1);
                for (uint32_t p = 0; p < kept.n_planes; p++) {
                    assert_ok(plane_check(&kept.planes[p], &err));
                    assert_int_equal(kept.planes[p].rows, dtype->bits < 8 ? 1 : rows);
                    total += plane_nbytes(&kept.planes[p]);
                }
                assert_int_equal(total, rows * cols * dtype->bits / 8);
                assert_int_equal(kept.rows * kept.cols * kept.item_nbytes, total);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_all_values),
        cmocka_unit_test(test_planes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
