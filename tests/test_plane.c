/* test_plane.c: tiles are contiguous, cover the plane once and in order, for all widths; bad planes are refused.
 *
 * Why this way: every other file trusts this geometry; so it is checked against sums, not against itself.
 * Corner cases: 0 rows, 0 cols, tiles larger than the plane, cut rows, 1 to 64 bits, overflow of every product.
 * Reference: FORMAT.md 3. Worked number: 4 bits, 5 x 172: one tile of 430 bytes.
 */
#include "support/support.h"

#include "layout/plane.h"

static struct err err;

static void check_cover(const struct plane *plane)
{
    assert_ok(plane_check(plane, &err));
    uint64_t n = plane_tile_count(plane), at = 0, fields = 0;
    for (uint64_t i = 0; i < n; i++) {
        struct tile tile = plane_tile(plane, i);
        assert_int_equal(plane_tile_offset(plane, i), at);
        assert_true(tile.n_rows > 0 && tile.n_cols > 0);
        assert_true(tile.n_cols == plane->cols || tile.n_rows == 1);
        at += plane_tile_nbytes(plane, i);
        fields += tile.n_rows * tile.n_cols;
    }
    assert_int_equal(at, plane_nbytes(plane));
    assert_int_equal(fields, plane->rows * plane->cols);
}

static void test_cover(void **state)
{
    (void)state;
    static const uint64_t rows[] = { 0, 1, 2, 3, 1523, 1524, 1525, 4000 }, cols[] = { 0, 1, 7, 31, 32, 33, 172 };
    static const uint64_t groups[] = { 1, 3, 32, 128 };
    for (uint32_t bits = 1; bits <= 64; bits += bits < 17 ? 1 : 15)
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
            for (size_t c = 0; c < sizeof cols / sizeof *cols; c++)
                for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
                    struct plane plane = { "codes", bits, rows[r], cols[c], 0, 0 };
                    tile_shape(plane.rows, plane.cols, groups[g], &plane.tile_rows, &plane.tile_cols);
                    check_cover(&plane);
                }
}

static void test_long_rows(void **state)
{
    (void)state;
    static const uint64_t cols[] = { 262143, 262144, 262145, 300000, 524288, 1000001 }, groups[] = { 1, 3, 32, 100, 32768 };
    for (uint32_t bits = 1; bits <= 64; bits += bits < 17 ? 1 : 15)
        for (size_t c = 0; c < sizeof cols / sizeof *cols; c++)
            for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
                struct plane plane = { "codes", bits, 3, cols[c], 0, 0 };
                tile_shape(plane.rows, plane.cols, groups[g], &plane.tile_rows, &plane.tile_cols);
                assert_true(plane.tile_cols >= plane.cols || plane.tile_cols % groups[g] == 0);
                check_cover(&plane);
                struct plane scales = {
                    "scales", bits, 3, (cols[c] + groups[g] - 1) / groups[g], plane.tile_rows, (plane.tile_cols + groups[g] - 1) / groups[g]
                };
                check_cover(&scales);
                assert_int_equal(plane_tile_count(&plane), plane_tile_count(&scales));
            }
}

static void test_numbers(void **state)
{
    (void)state;
    struct plane plane = { "codes", 4, 5, 172, 0, 0 };
    tile_shape(5, 172, 32, &plane.tile_rows, &plane.tile_cols);
    assert_int_equal(plane.tile_rows, 1524);
    assert_int_equal(plane.tile_cols, 172);
    assert_int_equal(plane_row_nbytes(&plane), 86);
    assert_int_equal(plane_nbytes(&plane), 430);
    assert_int_equal(plane_tile_count(&plane), 1);
    plane = (struct plane){ "codes", 4, 2, 300000, 0, 0 };
    tile_shape(2, 300000, 32, &plane.tile_rows, &plane.tile_cols);
    assert_int_equal(plane.tile_rows, 1);
    assert_int_equal(plane.tile_cols, 262144);
    assert_int_equal(plane_tile_count(&plane), 4);
    assert_int_equal(plane_tile(&plane, 3).n_cols, 37856);
    assert_int_equal(plane_tile_offset(&plane, 3), 150000 + 131072);
    tile_shape(1, UINT64_MAX, 3, &plane.tile_rows, &plane.tile_cols);
    assert_int_equal(plane.tile_cols, 262128); /* 10922 * 24 */
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        struct plane plane;
        const char *part;
    } cases[] = {
        { { "x", 0, 1, 1, 1, 1 }, "0 bits" },
        { { "x", 4097, 1, 1, 1, 1 }, "4097 bits" },
        { { "x", 8, 1, UINT64_MAX, 1, 8 }, "overflows" },
        { { "x", 8, UINT64_MAX, 2, 1, 2 }, "overflows" },
        { { "x", 64, UINT64_C(1) << 60, 1, 1, 1 }, "overflows" },
        { { "x", 8, 1, 1, 0, 1 }, "empty tile" },
        { { "x", 8, 1, 1, 1, 0 }, "empty tile" },
        { { "x", 8, 4, 16, 2, 8 }, "contiguous" },
        { { "x", 3, 4, 16, 1, 7 }, "contiguous" },
        { { "x", 8, 1u << 24, 2, 1u << 24, 2 }, "larger than" },
        { { "x", 8, 1, (16u << 20) + 1, 1, UINT64_MAX }, "larger than" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) assert_refused(plane_check(&cases[i].plane, &err), ERR_DATA, cases[i].part);
    struct plane largest = { "x", 8, 1, 16u << 20, UINT64_MAX, UINT64_MAX };
    assert_ok(plane_check(&largest, &err));
    struct plane cut = { "x", 8, 4, 16, 1, 7 };
    assert_ok(plane_check(&cut, &err));
    check_cover(&cut);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cover),
        cmocka_unit_test(test_long_rows),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
