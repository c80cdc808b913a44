/* test_smooth_panel.c: every set of instructions gives the bits of plain C, which are those of the plain sums.
 *
 * Formula: sums[v][r] = ((x_0 p_0) + x_1 p_1) + ..
 * Why this way: losses decide which factors are taken; they may not depend on the processor.
 * Corner cases: all small lengths, vectors that are no multiple of four, missing rows, Inf.
 * Reference: smooth_panel.h. Worked number: row 1, 2, vector 3, 4: 11; H = [[2, 1], [1, 3]]: 2 + 2 * 2 + 12 = 18.
 */
#include "support/support.h"

#include <math.h>

#include "smoothquant/smooth_panel.h"
#include "support/weights.h"

enum { MOST = 37, VECTORS = 7 };

static float rows[SMOOTH_PANEL * MOST], x[VECTORS * MOST], h[MOST * (MOST + 1) / 2];

static void check_times(smooth_panel_add *add, uint64_t n, uint64_t n_rows)
{
    double panel[MOST * SMOOTH_PANEL], sums[VECTORS + SMOOTH_VECTORS][SMOOTH_PANEL];
    smooth_panel_load(panel, NULL, rows, NULL, n_rows, n);
    smooth_panel_times(add, panel, x, VECTORS, n, sums);
    for (size_t v = 0; v < VECTORS; v++)
        for (size_t r = 0; r < SMOOTH_PANEL; r++) {
            double wanted = 0.0;
            for (size_t j = 0; j < n && r < n_rows; j++) wanted += (double)x[v * n + j] * (double)rows[r * n + j];
            assert_true(sums[v][r] == wanted);
        }
}

static void check_quadratic(smooth_panel_add *add, uint64_t n, uint64_t n_rows)
{
    double panel[MOST * SMOOTH_PANEL], found[SMOOTH_PANEL];
    smooth_panel_load(panel, NULL, rows, NULL, n_rows, n);
    smooth_panel_quadratic(add, panel, h, n, found);
    for (size_t r = 0; r < SMOOTH_PANEL; r++) {
        double wanted = 0.0;
        const float *line = h;
        for (size_t j = 0; j < n && r < n_rows; line += n - j, j++) {
            double sum = 0.0;
            const double own = (double)rows[r * n + j];
            for (size_t k = j + 1; k < n; k++) sum += (double)line[k - j] * (double)rows[r * n + k];
            wanted += own * ((double)line[0] * own + 2.0 * sum);
        }
        assert_true(found[r] == wanted);
    }
}

static void test_sets(void **state)
{
    (void)state;
    weights_make(WEIGHTS_GAUSS, 1, SMOOTH_PANEL * MOST, rows);
    weights_make(WEIGHTS_T5, 2, VECTORS * MOST, x);
    weights_make(WEIGHTS_LAPLACE, 3, MOST * (MOST + 1) / 2, h);
    for (size_t set = 0; set < smooth_panel_count(); set++)
        for (uint64_t n = 0; n <= MOST; n++)
            for (uint64_t n_rows = 0; n_rows <= SMOOTH_PANEL; n_rows++) {
                check_times(smooth_panel_at(set), n, n_rows);
                check_quadratic(smooth_panel_at(set), n, n_rows);
            }
}

static void test_worked(void **state)
{
    (void)state;
    double panel[2 * SMOOTH_PANEL], sums[SMOOTH_VECTORS][SMOOTH_PANEL], found[SMOOTH_PANEL];
    for (size_t set = 0; set < smooth_panel_count(); set++) {
        smooth_panel_load(panel, NULL, (const float[]){ 1, 2 }, NULL, 1, 2);
        smooth_panel_times(smooth_panel_at(set), panel, (const float[]){ 3, 4 }, 1, 2, sums);
        assert_true(sums[0][0] == 11 && sums[0][1] == 0);
        smooth_panel_quadratic(smooth_panel_at(set), panel, (const float[]){ 2, 1, 3 }, 2, found);
        assert_true(found[0] == 18 && found[1] == 0);
        smooth_panel_load(panel, (const float[]){ 1, 1 }, (const float[]){ INFINITY, 2 }, (const double[]){ 1, .5 }, 1, 2);
        assert_true(isinf(panel[0]) && panel[SMOOTH_PANEL] == .5);
        smooth_panel_times(smooth_panel_at(set), panel, (const float[]){ 3, 4 }, 1, 2, sums);
        assert_true(isinf(sums[0][0]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sets),
        cmocka_unit_test(test_worked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
