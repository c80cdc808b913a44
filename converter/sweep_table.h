/* sweep_table.h: the results of a sweep, or of one conversion: variants (ways to quantise the model) by rows (tensor, role, total) of measures.
 *
 *   variants[v]            int4 | 64 | mse | alpha 0      skipped: a reason and no rows
 *   rows[variant.first_row .. + variant.n_rows)           one a tensor in the container's order, one a role in order of appearance, one total
 *
 * Why this way: one plain struct between whoever measures (sweep.c, pipeline.c) and whoever writes (CSV, JSON, HTML, the budget); it owns no file and
 * computes nothing.
 * Corner cases: a figure that was not measured is NaN (JSON null, CSV empty), never 0; a lossless tensor has SQNR +infinity and MSE 0; a tensor that is
 * kept has rows too, with format "keep"; a tensor without weights has bits 0 and bpw NaN. Names are as the file has them: hostile.
 * Reference: converter/SWEEP.md. Worked number: mxfp4, 2 x 64 weights: bits 2 * 64 * 4 + 2 * 2 * 8 = 544, bpw 4.25.
 */
#ifndef LLMQ_CONVERTER_SWEEP_TABLE_H
#define LLMQ_CONVERTER_SWEEP_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"

enum sweep_scope { SWEEP_TENSOR, SWEEP_ROLE, SWEEP_TOTAL, SWEEP_SCOPES };

/* "tensor", "role", "total". */
extern const char *const sweep_scope_names[SWEEP_SCOPES];

#define SWEEP_NO_LAYER UINT32_MAX

/* One way to quantise the model. All text is UTF-8 or, of names, whatever the user wrote; never NULL. */
struct sweep_variant {
    char *format; /* "int4", or with inline parameters as the user wrote them */
    char *group_size; /* "64", "channel", "tensor", "128x128"; of a format that is skipped the one asked for */
    char *scale_rule; /* "mse" */
    double alpha; /* of migration; 0: none; NaN: the text says it */
    char *alpha_text; /* as --alpha takes it: "0.3", "auto"; "default": as without --alpha; NULL: the number says it */
    char *settings; /* the options that convert needs for the same bytes: "--format int4 --group-size 64 --scale-rule mse" */
    char *skipped; /* why there are no rows; NULL: there are */
    size_t first_row, n_rows;
};

struct sweep_row {
    uint32_t variant;
    enum sweep_scope scope;
    const char *name; /* tensor or role; "total" */
    const char *role; /* of a tensor or role; "total" */
    uint32_t layer; /* block number of a tensor, or SWEEP_NO_LAYER */
    const char *format; /* of a tensor: the format it really has: "keep", or a fallback; else that of the variant */
    uint64_t n_weights; /* of the scope */
    uint64_t n_measured; /* weights that were quantised and compared; fewer with --sample; 0 for kept tensors */
    uint64_t bits; /* in the output file: of a tensor or role all its planes, scales included; of the total the whole file, headers and small files
                      included, under --compress none */
    uint64_t plane_bits; /* the planes alone: = bits but for the total */
    double bpw; /* bits / n_weights */
    double mse, sqnr_db, max_error; /* over the measured weights; max_error is absolute. SQNR may be +-infinity */
    double wsqnr_db; /* with squared signal and error weighed by importance; NaN without statistics */
    double sum_dd, sum_xx; /* squared error and signal, which the figures above are made of */
    double sum_wdd, sum_wxx; /* the same weighed; NaN without statistics */
    double clipped; /* share of the measured weights that lie so far outside their group's codes that rounding does not explain it; NaN: not known */
    char hash[DIGEST128_HEX]; /* of codes, scales and zeros, or of kept bytes; of roles and totals over those of their tensors (SWEEP.md); "" where a
                                 sample left something out */
    double perplexity, kl; /* of totals, with an eval text; else NaN. kl: mean over tokens, nats, against the model as it was read */
};

/* Counts of what stands in the planes of one tensor. */
struct sweep_histogram {
    uint32_t variant;
    size_t n_codes; /* bins of codes: one a code where the element has at most 8 bits, else 256 equal bins over its codes */
    uint64_t *codes; /* [n_codes], by value of the code, ascending; NULL: the format has no codes of its own (ggml blocks) */
    double *code_values; /* [n_codes]: what the code stands for before its scale (of a bin: its lowest); zero points not taken off */
    uint64_t n_scales;
    double scale_log2_low, scale_log2_step; /* bin b holds |scale| in [2^(low + b step), 2^(low + (b+1) step)) */
    size_t n_scale_bins;
    uint64_t *scales; /* [n_scale_bins]; scales that are 0 are in none: n_zero_scales */
    uint64_t n_zero_scales;
};

/* One option of the run and its value, as text. */
struct sweep_setting {
    char *name, *value;
};

struct sweep_table {
    char *title; /* "sweep", "convert" */
    char *model; /* path as given */
    char input_digest[DIGEST128_HEX]; /* of the weights as read (SWEEP.md); "" where a sample left something out */
    char *writer; /* program and version */
    struct sweep_setting *settings;
    size_t n_settings;
    struct sweep_variant *variants;
    size_t n_variants;
    struct sweep_row *rows; /* variant after variant; role and total rows are last within theirs */
    size_t n_rows;
    char *histogram_tensor; /* whose histograms follow; NULL: there are none */
    struct sweep_histogram *histograms;
    size_t n_histograms;
    char *reference_name; /* "" or what perplexity is of: the eval text */
    double reference_perplexity; /* of the model as it was read; NaN: not evaluated */
    double sample; /* share of the tiles that were read; 1: all */
    bool weighted; /* there are statistics */
    double seconds; /* of the run; not written to CSV and JSON rows, so that these are the same bytes each time */
    uint64_t read_nbytes; /* of the model's weights, all reads */
    char **texts; /* owned strings that names and roles of rows point to */
    size_t n_texts;
};

/* Frees all a table owns; a zeroed one is fine. */
void sweep_table_free(struct sweep_table *table);

#endif
