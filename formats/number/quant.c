/* quant.c: what follows from a format with its parameters: how many groups there are, and the scales and codes of some.
 *
 * Drawing: x -> range -> candidates -> errors -> least -> codes.
 * Why this way: common to all families; see format.h.
 * Corner cases: errors of candidates are compared strictly, so the first of equals wins; a group whose first candidate overflows is refused.
 * Reference: NUMERICS.md 3 to 5. Worked number: int4 in groups of 64, rows of 1000: 16 groups a row.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "number/choose.h"
#include "number/kernel.h"

static const char *const group_kinds[] = { [GROUP_SIZE] = "", [GROUP_CHANNEL] = "channel", [GROUP_TENSOR] = "tensor", [GROUP_SQUARE] = "128x128" };

enum group_kind group_kind_find(const char *name)
{
    enum group_kind kind = GROUP_SQUARE;
    while (kind != GROUP_SIZE && strcmp(group_kinds[kind], name) != 0) kind = (enum group_kind)(kind - 1);
    return kind;
}

uint64_t quant_group_len(const struct quant *quant, uint64_t cols)
{
    return quant->group ? quant->group : cols;
}

uint64_t quant_groups_per_row(const struct quant *quant, uint64_t cols)
{
    return quant->group ? cols / quant->group + (cols % quant->group != 0) : 1;
}

/* Rows of squares in a matrix of so many rows. */
static uint64_t square_rows(uint64_t n_rows)
{
    return n_rows / SQUARE_SIDE + (n_rows % SQUARE_SIDE != 0);
}

uint64_t quant_scale_rows(const struct quant *quant, uint64_t n_rows, uint64_t matrix_rows)
{
    if (quant->group_kind == GROUP_TENSOR) return n_rows > 0;
    return quant->group_kind == GROUP_SQUARE && n_rows ? n_rows / matrix_rows * square_rows(matrix_rows) : n_rows;
}

uint64_t quant_scale_row(const struct quant *quant, uint64_t matrix_rows, uint64_t row)
{
    if (quant->group_kind == GROUP_TENSOR) return 0;
    if (quant->group_kind != GROUP_SQUARE) return row;
    return row / matrix_rows * square_rows(matrix_rows) + row % matrix_rows / SQUARE_SIDE;
}

uint64_t quant_first_row(const struct quant *quant, uint64_t matrix_rows, uint64_t scale_row)
{
    if (quant->group_kind != GROUP_SQUARE) return scale_row;
    return scale_row / square_rows(matrix_rows) * matrix_rows + scale_row % square_rows(matrix_rows) * SQUARE_SIDE;
}

size_t quant_scales_per_group(const struct quant *quant)
{
    return quant->sub_block ? quant->group / quant->sub_block : 1;
}

size_t quant_scales(const struct quant *quant, size_t n, size_t group)
{
    const size_t unit = quant->sub_block ? quant->sub_block : group;
    return n / unit + (n % unit != 0);
}

uint32_t quant_side_bits(const struct quant *quant)
{
    return quant->format->zero_point ? quant->elem->bits : quant->sub_block ? quant->shift_bits : 0;
}

bool quant_fits(const struct quant *quant, uint64_t cols)
{
    return !quant->blocks || cols % quant->format->block->elements == 0;
}

double quant_bits_per_weight(const struct quant *quant, uint64_t cols, uint64_t n_weights)
{
    const struct format *format = quant->format;
    if (quant->blocks) return 8.0 * format->block->bytes / format->block->elements;
    const double weights[] = { [GROUP_SIZE] = (double)quant->group,
                               [GROUP_CHANNEL] = (double)cols,
                               [GROUP_TENSOR] = (double)n_weights,
                               [GROUP_SQUARE] = (double)(SQUARE_SIDE * SQUARE_SIDE) };
    const double group = weights[quant->group_kind];
    return quant->elem->bits + (scale_type_bits(quant->scale) + (double)(quant_side_bits(quant) * quant_scales_per_group(quant))) / group;
}

const char *quant_group_json(const struct quant *quant, char *out)
{
    if (quant->group_kind == GROUP_SIZE) snprintf(out, 16, "%u", quant->group);
    else snprintf(out, 16, "\"%s\"", group_kinds[quant->group_kind]);
    return out;
}

/* ---- coding a group ------------------------------------------------------------------------------------------------------------- */

bool quant_same(const struct quant *a, const struct quant *b)
{
    return a->format == b->format && a->elem == b->elem && a->group_kind == b->group_kind && a->group == b->group && a->sub_block == b->sub_block &&
           a->shift_bits == b->shift_bits && a->int_max == b->int_max && a->scale == b->scale && a->rule == b->rule &&
           !(a->percentile < b->percentile || a->percentile > b->percentile) && a->rounding == b->rounding && a->tensor_scale == b->tensor_scale &&
           a->input_scale == b->input_scale && a->blocks == b->blocks;
}

bool quant_choose(const struct quant *quant, struct range range, const double *errors, struct group_scale *scale)
{
    const struct family *family = quant->format->family;
    struct group_scale candidate;
    double least = HUGE_VAL;
    if (!family->candidate(quant, range, 0, scale)) return false;
    for (uint32_t i = 0; i < family->candidates(quant); i++)
        if (errors[i] < least && family->candidate(quant, range, i, &candidate)) {
            least = errors[i];
            *scale = candidate;
        }
    return true;
}

/* Candidate of least error for one group; false when candidate 0 overflows. */
static bool choose_scale(const struct quant *quant, const struct kernels *kernels, struct range range, const float *x, const float *weight, size_t n,
                         struct group_scale *scale)
{
    const struct family *family = quant->format->family;
    const uint32_t n_candidates = family->candidates(quant);
    uint32_t best = 0;
    struct error_sum sum = { .x = x, .weight = weight, .n = n, .limit = HUGE_VALF };
    if (choose_reads(quant->rule)) return family->choose(quant, kernels, range, x, weight, n, scale);
    if (n_candidates == 1 || !family->candidate(quant, range, 0, scale)) return family->candidate(quant, range, 0, scale);
    for (uint32_t i = 0; i < n_candidates; i++) {
        if (!family->candidate(quant, range, i, scale)) continue;
        family->error(quant, kernels, range, scale, &sum);
        best = sum.total < sum.limit ? i : best; /* without a branch: nobody can predict it */
        sum.limit = sum.total < sum.limit ? sum.total : sum.limit;
    }
    return family->candidate(quant, range, best, scale);
}

/* Scales of the groups of n weights; returns how many were found before one overflowed. */
static size_t choose_scales(const struct quant *quant, const struct kernels *kernels, const struct range *ranges, const float *x, const float *weight,
                            size_t n, size_t group, struct group_scale *scales)
{
    const struct family *family = quant->format->family;
    size_t g = 0;
    for (size_t at = 0, found; at < n; at += found * group, g += found) {
        found = family->search && !weight ? family->search(quant, kernels, ranges + g, x + at, n - at, group, scales + g) : 0;
        if (found > 0) continue;
        if (!choose_scale(quant, kernels, ranges[g], x + at, weight ? weight + at : NULL, n - at < group ? n - at : group, scales + g)) break;
        found = 1;
    }
    return g;
}

/* Groups whose family codes them itself, one by one. */
static size_t encode_by_family(const struct quant *quant, const struct kernels *kernels, const float *x, const float *weight, size_t n, size_t group,
                               struct group_scale *scales, uint16_t *codes, float *y)
{
    size_t done = 0;
    for (size_t at = 0; at < n; at += group, done++, scales += quant_scales(quant, group, group))
        quant->format->family->encode(quant, kernels, x + at, weight ? weight + at : NULL, n - at < group ? n - at : group, scales, codes + at,
                                      y ? y + at : NULL);
    return done;
}

size_t quant_encode(const struct quant *quant, const struct kernels *kernels, const float *x, const float *weight, size_t n, size_t group,
                    struct group_scale *scales, uint16_t *codes, float *y)
{
    struct range ranges[SEARCH_GROUPS];
    size_t done = 0;
    if (quant->format->family->encode) return encode_by_family(quant, kernels, x, weight, n, group, scales, codes, y);
    for (size_t at = 0, count; at < n; at += count) {
        count = (n - at) / group < SEARCH_GROUPS ? n - at : SEARCH_GROUPS * group;
        kernels->ranges(x + at, count, group, ranges);
        size_t found = choose_scales(quant, kernels, ranges, x + at, weight ? weight + at : NULL, count, group, scales + done);
        const struct groups groups = { count, group, scales + done };
        done += found;
        if (found * group < count) break;
        kernels->encode(quant->elem, quant->rounding, &groups, x + at, codes + at, y ? y + at : NULL);
    }
    return done;
}

bool quant_group(const struct quant *quant, const struct kernels *kernels, const float *x, const float *weight, size_t n, struct group_scale *scale,
                 uint16_t *codes)
{
    return quant_encode(quant, kernels, x, weight, n, n, scale, codes, NULL) == 1;
}
