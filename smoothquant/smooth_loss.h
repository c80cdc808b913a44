/* smooth_loss.h: what some rows of a member lose under one candidate.
 *
 *   E = Y - V (smoothed weights after and before quantisation), D = E / s
 *   diag    sum_j E_ij^2 (e_j / s_j^2)           gram   sum_j D_j (H_jj D_j + 2 sum_{k>j} H_jk D_k)           sample   1/T sum_t (sum_j x_tj D_j)^2
 *   w8a8    sum_t |o_ti / M - q_ti / M|^(1/2), o = W x, q = QDQ8(W s) QDQ8(x / s), M largest |o| of the member
 *
 * Why this way: the diagonal loss is made in the smoothed domain, where nothing moves when a channel is scaled through; the others run 8 rows at a time,
 * so that H and x are read once for eight.
 * Order: E in binary32, all else in binary64; diag: 8 lanes j mod 8, added 0+4, 1+5, 2+6, 3+7, then 0+2, 1+3, then both; gram and sample: j (k, t)
 * ascending; rows ascending. Rows beside a row in a panel do not touch its numbers.
 * Corner cases: M is at least 1e-5; a row that is missing in the last panel is zeros and adds nothing.
 * Reference: the project's smoothquant notes 4c, 1b. Worked number: E = 1, 2, s = 2, 1, e = 4, 1: diag 1 * 1 + 4 * 1 = 5.
 */
#ifndef LLMQ_SMOOTHQUANT_SMOOTH_LOSS_H
#define LLMQ_SMOOTHQUANT_SMOOTH_LOSS_H

#include "smoothquant/smooth_panel.h"
#include "smoothquant/smooth_search.h"

/* A candidate as losses see it; zeroed before the first use. */
struct smooth_view {
    bool norm; /* what is lost are the weights themselves */
    bool has_importance;
    float *s; /* [n] */
    double *inverse; /* [n]: 1 / s_j */
    double *energy; /* [n]: e_j / s_j^2, for diag */
    float *importance; /* [n] */
    float *acts; /* [n_sample][n]: QDQ8(x / s), for w8a8 */
};

/* s NULL: 1. False: out of memory. */
bool smooth_view_set(struct smooth_view *view, const struct smooth_problem *problem, const struct smooth_settings *settings, const float *s);
void smooth_view_close(struct smooth_view *view);

/* Working memory of one thread. */
struct smooth_bench {
    uint64_t n;
    smooth_panel_add *add;
    double *panel, *other; /* [n][SMOOTH_PANEL] */
    float *rows; /* [SMOOTH_PANEL][n] */
    double (*sums)[SMOOTH_PANEL], (*coded)[SMOOTH_PANEL]; /* [n_sample and up to SMOOTH_VECTORS more] */
};

bool smooth_bench_open(struct smooth_bench *bench, uint64_t n, uint64_t n_sample);
void smooth_bench_close(struct smooth_bench *bench);

/* Loss diag, gram or sample of n_rows rows. */
double smooth_loss_rows(struct smooth_bench *bench, const struct smooth_problem *problem, enum smooth_loss loss, const struct smooth_view *view,
                        const float *v, const float *y, uint64_t n_rows);

/* Largest |W_i x_t|, and loss w8a8 of rows w, which smoothed are v. */
double smooth_output_max(struct smooth_bench *bench, const struct smooth_problem *problem, const float *w, uint64_t n_rows);
double smooth_loss_w8a8(struct smooth_bench *bench, const struct smooth_problem *problem, const struct smooth_view *view, const float *w,
                        const float *v, uint64_t n_rows, double output_max, double power);

#endif
