/* test_group_observe.c: pieces of matrices, groups that stay open, errors of parts that add up to those of the whole.
 *
 * Drawing: a tile of rows 3 .. 9 of matrices of 4 rows -> 3, 4 .. 7, 8 .. 9;   a tensor in two halves -> errors -> the choice of the whole
 * Why this way: the expected pieces are counted by hand; the expected scale is that of the least of errors summed here, in tile order.
 * Corner cases: a tile inside one matrix, one that begins in the middle; formats without a search.
 * Reference: converter/group_observe.h. Worked number: squares of 128 over 512 columns: 4 open groups a row of squares.
 */
#include <string.h>

#include "converter/group_observe.h"
#include "number/kernel.h"

#include "support/support.h"

static struct err err;

static struct quant parsed(const char *text)
{
    struct quant quant;
    assert_ok(quant_parse(text, &(struct quant_params){ 0 }, &quant, &err));
    return quant;
}

static void pieces_of_matrices(void **state)
{
    (void)state;
    static const struct {
        uint64_t row, n_rows, n;
        uint64_t wanted[4][3]; /* matrix, first row within the tile, rows */
    } cases[] = {
        { 3, 7, 3, { { 0, 0, 1 }, { 1, 1, 4 }, { 2, 5, 2 } } },
        { 0, 4, 1, { { 0, 0, 4 } } },
        { 5, 2, 1, { { 1, 0, 2 } } },
        { 8, 4, 1, { { 2, 0, 4 } } },
    };
    const struct shape shape = { 12, 5, 3 };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct tile place = { cases[i].row, cases[i].n_rows, 0, 5 };
        struct codec_piece piece = { 0 };
        uint64_t n = 0;
        for (; matrix_next_piece(&shape, &place, &piece); n++) {
            assert_true(n < cases[i].n);
            assert_int_equal(piece.group, cases[i].wanted[n][0]);
            assert_int_equal(piece.at.row, cases[i].wanted[n][1]);
            assert_int_equal(piece.at.n_rows, cases[i].wanted[n][2]);
            assert_int_equal(piece.at.n_cols, 5);
        }
        assert_int_equal(n, cases[i].n);
    }
}

static void open_groups(void **state)
{
    (void)state;
    static const struct {
        const char *format;
        uint64_t tile_rows, tile_cols;
        size_t wanted;
    } cases[] = {
        { "fp8_e4m3:group=128x128,rule=mse", 512, 512, 8 }, { "fp8_e4m3:group=128x128,rule=mse", 1, 512, 4 },
        { "int4:group=tensor,rule=mse", 512, 512, 1 },      { "int4:group=tensor", 512, 512, 0 },
        { "int4:group=tensor,rule=lsq", 512, 512, 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct quant quant = parsed(cases[i].format);
        const struct plane geometry = { "data", 32, 1024, 512, cases[i].tile_rows, cases[i].tile_cols };
        assert_int_equal(group_open_count(&quant, &geometry), cases[i].wanted);
    }
}

/* One group of a tensor in two tiles: the scale is the one whose errors of both are least. */
static void parts_add_up(void **state)
{
    (void)state;
    enum { ROWS = 4, COLS = 64, HALF = ROWS / 2 };
    const struct quant quant = parsed("int3:group=tensor,rule=mse");
    const struct kernels *kernels = kernels_at(0);
    const struct shape shape = { ROWS, COLS, 1 };
    float x[ROWS * COLS], scratch_x[ROWS * COLS], scratch_y[ROWS * COLS];
    uint16_t codes[ROWS * COLS];
    const struct codec_scratch scratch = { scratch_x, scratch_y, codes, ROWS * COLS };
    struct range range = { 0 };
    struct group_scale given = { 0 }, wanted = { 0 };
    struct error_total parts[2], total = { .group = UINT64_MAX };
    double sums[CANDIDATES_MAX] = { 0 };
    uint64_t seed = 3;
    for (size_t i = 0; i < ROWS * COLS; i++) {
        x[i] = (float)(test_random(&seed) >> 40) / 0x1p23f - 1.0f;
        if (i % 37 == 0) x[i] *= 3.0f;
        range_add(&range, (struct range){ x[i] < 0 ? x[i] : 0, x[i] > 0 ? x[i] : 0 });
    }
    for (size_t half = 0; half < 2; half++) {
        const struct tile place = { half * HALF, HALF, 0, COLS };
        const struct codec_tile tile = { .source = (const uint8_t *)(x + half * HALF * COLS),
                                         .dtype = dtype_find("F32", 3),
                                         .n_rows = HALF,
                                         .n_cols = COLS,
                                         .first_row = half * HALF,
                                         .matrix_rows = ROWS };
        const struct observed_tile observed = { &quant, kernels, &shape, &place, &tile, &scratch };
        double one[CANDIDATES_MAX] = { 0 };
        assert_int_equal(group_errors(&observed, &range, &given, &parts[half]), 1);
        codec_observe_errors(&quant, kernels, &tile, &scratch, range, one);
        for (size_t c = 0; c < CANDIDATES_MAX; c++) sums[c] += one[c];
        group_errors_add(&quant, &range, &parts[half], 1, &total, 1, &given);
    }
    assert_true(quant_choose(&quant, range, sums, &wanted));
    assert_int_equal(given.bits, wanted.bits);
    assert_memory_equal(total.sums, sums, sizeof sums);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(pieces_of_matrices), cmocka_unit_test(open_groups), cmocka_unit_test(parts_add_up) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
