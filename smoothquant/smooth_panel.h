/* smooth_panel.h: eight rows side by side, multiplied by four vectors at a time.
 *
 *   panel[j][r]: number j of row r        sums[v][r] += x_v[j] * panel[j][r], j ascending, product and sum rounded each, in binary64
 *
 * Why this way: 32 sums do not wait for each other, and a panel is read once for four vectors; every row's sum is the plain one, so all sets of
 * instructions give the same bits.
 * Corner cases: n 0 leaves the sums as they are; rows that are not there are zeros.
 * Reference: design.md 4. Worked number: one row 1, 2 and one vector 3, 4: 3, then 11.
 */
#ifndef LLMQ_SMOOTHQUANT_SMOOTH_PANEL_H
#define LLMQ_SMOOTHQUANT_SMOOTH_PANEL_H

#include <stddef.h>
#include <stdint.h>

#define SMOOTH_PANEL 8u /* rows of a panel */
#define SMOOTH_VECTORS 4u /* at a time */

typedef void smooth_panel_add(const double *panel, const float *const x[SMOOTH_VECTORS], uint64_t n, double sums[SMOOTH_VECTORS][SMOOTH_PANEL]);

/* All that this processor can run, the best last; number 0 is plain C. */
size_t smooth_panel_count(void);
smooth_panel_add *smooth_panel_at(size_t index);
smooth_panel_add *smooth_panel_best(void);

/* panel[n][SMOOTH_PANEL] = ((y - v) * factor) of rows of n numbers; v NULL: 0, factor NULL: 1. y - v is rounded to binary32. Rows from n_rows on are zeros. */
void smooth_panel_load(double *panel, const float *v, const float *y, const double *factor, uint64_t n_rows, uint64_t n);

/* sums[v][r] for n_vectors vectors of n numbers, one behind the other; sums has room for a multiple of SMOOTH_VECTORS. */
void smooth_panel_times(smooth_panel_add *add, const double *panel, const float *x, uint64_t n_vectors, uint64_t n, double (*sums)[SMOOTH_PANEL]);

/* rows[r] = sum over j of p_j (h_jj p_j + 2 sum over k > j of h_jk p_k), p_j = panel[j][r], h the packed upper triangle of n x n. */
void smooth_panel_quadratic(smooth_panel_add *add, const double *panel, const float *h, uint64_t n, double rows[SMOOTH_PANEL]);

#endif
