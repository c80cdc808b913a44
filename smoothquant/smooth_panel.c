/* smooth_panel.c: see smooth_panel.h.
 *
 * Drawing: quadratic form, four rows j .. j+3 of H: their triangle among themselves one by one | from column j+4 on four vectors at a time
 * Why this way: see smooth_panel.h; intrinsics multiply and add in two steps, as plain C does.
 * Corner cases: see smooth_panel.h; the last vectors of fewer than four are repeated and not kept.
 * Reference: see smooth_panel.h. Worked number: packed row j of H begins at j n - j (j - 1) / 2.
 */
#include "smoothquant/smooth_panel.h"

#include <string.h>

static void add_portable(const double *panel, const float *const x[SMOOTH_VECTORS], uint64_t n, double sums[SMOOTH_VECTORS][SMOOTH_PANEL])
{
    for (size_t v = 0; v < SMOOTH_VECTORS; v++) {
        double own[SMOOTH_PANEL];
        memcpy(own, sums[v], sizeof own);
        for (uint64_t j = 0; j < n; j++)
            for (size_t r = 0; r < SMOOTH_PANEL; r++) own[r] += (double)x[v][j] * panel[j * SMOOTH_PANEL + r];
        memcpy(sums[v], own, sizeof own);
    }
}

/* ---- x86-64 --------------------------------------------------------------------------------------------------------------------- */

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

__attribute__((target("avx2"))) static void add_avx2(const double *panel, const float *const x[SMOOTH_VECTORS], uint64_t n,
                                                     double sums[SMOOTH_VECTORS][SMOOTH_PANEL])
{
    __m256d low[SMOOTH_VECTORS], high[SMOOTH_VECTORS];
    for (size_t v = 0; v < SMOOTH_VECTORS; v++) {
        low[v] = _mm256_loadu_pd(sums[v]);
        high[v] = _mm256_loadu_pd(sums[v] + 4);
    }
    for (uint64_t j = 0; j < n; j++) {
        const __m256d first = _mm256_loadu_pd(panel + j * SMOOTH_PANEL), second = _mm256_loadu_pd(panel + j * SMOOTH_PANEL + 4);
        for (size_t v = 0; v < SMOOTH_VECTORS; v++) {
            const __m256d factor = _mm256_set1_pd((double)x[v][j]);
            low[v] = _mm256_add_pd(low[v], _mm256_mul_pd(factor, first));
            high[v] = _mm256_add_pd(high[v], _mm256_mul_pd(factor, second));
        }
    }
    for (size_t v = 0; v < SMOOTH_VECTORS; v++) {
        _mm256_storeu_pd(sums[v], low[v]);
        _mm256_storeu_pd(sums[v] + 4, high[v]);
    }
}

__attribute__((target("avx512f"))) static void add_avx512(const double *panel, const float *const x[SMOOTH_VECTORS], uint64_t n,
                                                          double sums[SMOOTH_VECTORS][SMOOTH_PANEL])
{
    __m512d all[SMOOTH_VECTORS];
    for (size_t v = 0; v < SMOOTH_VECTORS; v++) all[v] = _mm512_loadu_pd(sums[v]);
    for (uint64_t j = 0; j < n; j++) {
        const __m512d column = _mm512_loadu_pd(panel + j * SMOOTH_PANEL);
        for (size_t v = 0; v < SMOOTH_VECTORS; v++) all[v] = _mm512_add_pd(all[v], _mm512_mul_pd(_mm512_set1_pd((double)x[v][j]), column));
    }
    for (size_t v = 0; v < SMOOTH_VECTORS; v++) _mm512_storeu_pd(sums[v], all[v]);
}

size_t smooth_panel_count(void)
{
    return !__builtin_cpu_supports("avx2") ? 1 : !__builtin_cpu_supports("avx512f") ? 2 : 3;
}

smooth_panel_add *smooth_panel_at(size_t index)
{
    static smooth_panel_add *const sets[] = { add_portable, add_avx2, add_avx512 };
    return sets[index];
}

#else

size_t smooth_panel_count(void)
{
    return 1;
}

smooth_panel_add *smooth_panel_at(size_t index)
{
    (void)index;
    return add_portable;
}

#endif

smooth_panel_add *smooth_panel_best(void)
{
    return smooth_panel_at(smooth_panel_count() - 1);
}

/* ---- what is made of them ------------------------------------------------------------------------------------------------------- */

void smooth_panel_load(double *panel, const float *v, const float *y, const double *factor, uint64_t n_rows, uint64_t n)
{
    for (size_t r = 0; r < SMOOTH_PANEL; r++)
        for (uint64_t j = 0; j < n; j++) {
            double d = 0.0;
            if (r < n_rows) d = v ? (double)(y[r * n + j] - v[r * n + j]) : (double)y[r * n + j];
            panel[j * SMOOTH_PANEL + r] = factor ? d * factor[j] : d;
        }
}

void smooth_panel_times(smooth_panel_add *add, const double *panel, const float *x, uint64_t n_vectors, uint64_t n, double (*sums)[SMOOTH_PANEL])
{
    for (uint64_t at = 0; at < n_vectors; at += SMOOTH_VECTORS) {
        const float *vectors[SMOOTH_VECTORS];
        for (size_t v = 0; v < SMOOTH_VECTORS; v++) vectors[v] = x + (at + v < n_vectors ? at + v : n_vectors - 1) * n;
        memset(sums[at], 0, SMOOTH_VECTORS * sizeof *sums);
        add(panel, vectors, n, sums + at);
    }
}

static void add_row(const double *own, double diagonal, const double sums[SMOOTH_PANEL], double rows[SMOOTH_PANEL])
{
    for (size_t r = 0; r < SMOOTH_PANEL; r++) rows[r] += own[r] * (diagonal * own[r] + 2.0 * sums[r]);
}

/* h at row j of the triangle, as many rows as there are, at most four; returns the first of the rows behind them. */
static const float *add_rows(smooth_panel_add *add, const double *panel, const float *h, uint64_t j, uint64_t n, double rows[SMOOTH_PANEL])
{
    const uint64_t count = n - j < SMOOTH_VECTORS ? n - j : SMOOTH_VECTORS, end = j + count;
    const float *starts[SMOOTH_VECTORS], *behind[SMOOTH_VECTORS];
    double sums[SMOOTH_VECTORS][SMOOTH_PANEL] = { { 0 } };
    for (uint64_t v = 0; v < count; h += n - j - v, v++) {
        starts[v] = h;
        behind[v] = h + (count - v);
        for (uint64_t k = j + v + 1; k < end; k++)
            for (size_t r = 0; r < SMOOTH_PANEL; r++) sums[v][r] += (double)h[k - j - v] * panel[k * SMOOTH_PANEL + r];
    }
    for (uint64_t v = count; v < SMOOTH_VECTORS; v++) behind[v] = behind[0];
    add(panel + end * SMOOTH_PANEL, behind, n - end, sums);
    for (uint64_t v = 0; v < count; v++) add_row(panel + (j + v) * SMOOTH_PANEL, (double)*starts[v], sums[v], rows);
    return h;
}

void smooth_panel_quadratic(smooth_panel_add *add, const double *panel, const float *h, uint64_t n, double rows[SMOOTH_PANEL])
{
    memset(rows, 0, SMOOTH_PANEL * sizeof *rows);
    for (uint64_t j = 0; j < n; j += SMOOTH_VECTORS) h = add_rows(add, panel, h, j, n, rows);
}
