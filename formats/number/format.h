/* format.h: formats, the table of what llmq quantises to, and the families of functions behind the rows.
 *
 *   row: mxfp4 = element e2m1, group 32, scale e8m0, rules floor even ceil rceil search, family mx
 *
 * Why this way: a new format of a known family is one row; a new family is one file. Nothing outside this table asks for a format by name.
 * Corner cases: groups of 1 .. 32768 weights, a whole row ("channel"), a whole tensor ("tensor") or a square of a matrix ("128x128"); the last
 * group of a row may be shorter.
 * Reference: NUMERICS.md; design.md 3.
 */
#ifndef LLMQ_NUMBER_FORMAT_H
#define LLMQ_NUMBER_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "number/elem.h"
#include "number/ggml.h"
#include "number/scale.h"

#define GROUP_MAX 32768u
#define CANDIDATES_MAX 64u
#define SEARCH_GROUPS 64u
#define SQUARE_SIDE 128u
#define SUB_BLOCKS_MAX 128u /* of one group */
#define SHIFT_BITS_MAX 3u
#define KEY_KERNEL "kernel" /* parameters that ask for full_elem */
#define KEY_NEGATIVE_END "negative-end"

struct error_sum;
struct kernels;
struct quant;

/* How the weights of a group, or of one of its sub-blocks, are encoded: the stored bits and what they mean. */
struct group_scale {
    uint32_t bits; /* as stored */
    float value; /* scale_load of bits, times 2^-shift */
    int32_t zero; /* zero point, 0 where the format has none */
    uint32_t shift; /* of a sub-block, 0 where the format has none */
};

/* What an observe pass found out about one group. */
struct range {
    float min, max; /* over the weights, with 0 included: min <= 0 <= max */
};

static inline float range_amax(struct range range)
{
    return -range.min > range.max ? -range.min : range.max;
}

static inline void range_add(struct range *range, struct range part)
{
    if (part.min < range->min) range->min = part.min;
    if (part.max > range->max) range->max = part.max;
}

/* n weights in groups of `group` (the last may be shorter), one scale each. */
struct groups {
    size_t n, group;
    const struct group_scale *scales;
};

/* The functions of a family: how its scales are found. No function allocates or keeps a pointer. */
struct family {
    const char *name; /* as in the container's index */
    /* Scale for a group of known range by candidate number: candidate 0 is what a rule without search takes. false: there is no such candidate (the
     * scale overflows, or the clamp made it equal to an earlier one). */
    bool (*candidate)(const struct quant *quant, struct range range, uint32_t number, struct group_scale *scale);
    /* How many candidates the rule tries, at least 1. */
    uint32_t (*candidates)(const struct quant *quant);
    /* Adds the error terms under this scale to the sum (NUMERICS.md 5), in units that depend on the range alone; sum->unit is set here. */
    void (*error)(const struct quant *quant, const struct kernels *kernels, struct range range, const struct group_scale *scale,
                  struct error_sum *sum);
    /* A shortcut, NULL where there is none: the best scales of as many groups, from the first on, as it can do at once (0: none; at most
     * SEARCH_GROUPS), for n weights without importance in groups of `group`. */
    size_t (*search)(const struct quant *quant, const struct kernels *kernels, const struct range *ranges, const float *x, size_t n, size_t group,
                     struct group_scale *scales);
    /* Codes one group of n weights whose sub-blocks have scales of their own (ceil(n / sub_block) of them); NULL where a group has one scale. weight
     * and y may be NULL. */
    void (*encode)(const struct quant *quant, const struct kernels *kernels, const float *x, const float *weight, size_t n,
                   struct group_scale *scales, uint16_t *codes, float *y);
    /* The scale of one group of n weights of known range, for the rules that read its weights (choose.h); NULL where the family has none. weight is
     * NULL or n importance weights. false when the scale overflows. */
    bool (*choose)(const struct quant *quant, const struct kernels *kernels, struct range range, const float *x, const float *weight, size_t n,
                   struct group_scale *scale);
    /* The scale of a matrix of this range, NULL where there is no such level (NUMERICS_BLOCK.md 6). */
    float (*tensor_scale)(struct range range);
    bool integers; /* its elements are integers with a fraction of 0 bits, and a zero point is possible; else no zero point is */
    bool levels; /* its elements are codebooks */
    bool blocks; /* a group is a whole block of a ggml type, coded in one step by format->block; there are no elements, and no functions above */
};

enum group_kind {
    GROUP_SIZE, /* so many weights of a row */
    GROUP_CHANNEL, /* a row */
    GROUP_TENSOR,
    GROUP_SQUARE /* 128 x 128 weights of a matrix */
};

/* A row. */
struct format {
    const char *name;
    const char *summary; /* one line */
    const struct family *family;
    const struct elem *elem;
    const struct elem *full_elem; /* the same, written down to its lowest code; NULL: there is no such variant */
    const char *full_key; /* the parameter that asks for it */
    uint32_t default_group; /* counts where default_kind is GROUP_SIZE */
    uint32_t sub_block, shift_bits; /* defaults of formats whose sub-blocks have shifts, else 0 */
    enum group_kind default_kind;
    uint32_t group_kinds; /* bit mask over enum group_kind, beside GROUP_SIZE */
    bool zero_point;
    uint32_t scale_types; /* bit mask over enum scale_type */
    enum scale_type default_scale;
    uint32_t rules; /* bit mask over enum scale_rule */
    enum scale_rule default_rule;
    float sqnr_db; /* least SQNR on Gaussian weights with the defaults, dB: the row's own quality bound, held by a test */
    const struct ggml_type *block; /* the type in which GGUF holds its groups; NULL: GGUF has none */
    const char *fallback; /* the format for rows that are no multiple of the block */
    bool tensor_scale; /* a second-level scale, one for each matrix, is possible */
};

/* A format with all parameters resolved: what one tensor is quantised with. */
struct quant {
    const struct format *format;
    const struct elem *elem; /* that of the format, or its variant; NULL for family ggml */
    enum group_kind group_kind;
    uint32_t group; /* weights of a row, for GROUP_SIZE and GROUP_SQUARE; else 0 */
    uint32_t sub_block; /* weights that share a shift, a divisor of group; 0: there are no shifts */
    uint32_t shift_bits;
    bool int_max; /* symmetric integers: the largest weight goes to the largest code, not half a code beyond it */
    enum scale_type scale;
    enum scale_rule rule;
    double percentile; /* of rule percentile, 0 .. 100; else 0 */
    enum rounding rounding;
    bool tensor_scale; /* weights are divided by a scale of their matrix first (NUMERICS_BLOCK.md 6) */
    bool input_scale; /* the stored matrix is that of scaled inputs: its columns are multiplied by factors stored beside it */
    bool blocks; /* stored as blocks of format->block, not as planes of codes and scales */
};

/* "channel", "tensor", "128x128"; GROUP_SIZE for another word, which has none. */
enum group_kind group_kind_find(const char *name);

size_t format_count(void);
const struct format *format_at(size_t index);
const struct format *format_find(const char *name);
const struct family *family_find(const char *name);

/* Parameters a user may set beside the format's name; a NULL or empty string leaves the format's default. */
struct quant_params {
    const char *group; /* "32", "channel", "tensor", "128x128" */
    const char *scale; /* "bf16" */
    const char *rule; /* "search" */
    const char *rounding; /* "nearest-even" */
    const char *tensor_scale; /* "tensor", "none"; counts only for formats that have such a level */
    const char *half_range; /* "half", "int_max" */
    const char *percentile; /* "99.99"; counts only for rule percentile */
    bool where_valid; /* leave out, instead of refusing, what another format takes but this one does not */
};

/* The format of a ggml type: the row whose groups are its blocks as they are; NULL when there is none. */
const struct format *format_of_block(const struct ggml_type *block);

/* Bits of a weight, scales included, without tails. cols counts for groups that are whole rows, n_weights for those that are the whole tensor. */
double quant_bits_per_weight(const struct quant *quant, uint64_t cols, uint64_t n_weights);

/* Parses "int4" or "int4:group=64,scale=f16,rule=mse,rounding=away": inline values go before those of params, where params' value makes no sense
 * for this format (a scale type of an MX format, a rule the row does not list) it is ERR_USAGE naming format, value and what is allowed. */
enum status quant_parse(const char *text, const struct quant_params *params, struct quant *quant, struct err *err);

/* Weights in one group of a row of cols weights (cols for channel and tensor), and groups in a row (1 for channel and tensor). */
uint64_t quant_group_len(const struct quant *quant, uint64_t cols);
uint64_t quant_groups_per_row(const struct quant *quant, uint64_t cols);

/* Rows of the matrix of scales of a tensor of n_rows rows in matrices of matrix_rows, and the one that row `row` belongs to. */
uint64_t quant_scale_rows(const struct quant *quant, uint64_t n_rows, uint64_t matrix_rows);
uint64_t quant_scale_row(const struct quant *quant, uint64_t matrix_rows, uint64_t row);

/* The reverse: the first row that a row of scales belongs to. */
uint64_t quant_first_row(const struct quant *quant, uint64_t matrix_rows, uint64_t scale_row);

/* Scales (struct group_scale) of one group, and of n weights in whole groups (the last may be shorter) of `group`. */
size_t quant_scales_per_group(const struct quant *quant);
size_t quant_scales(const struct quant *quant, size_t n, size_t group);

/* Bits of what is stored beside the scale: a zero point of a group, a shift of a sub-block; 0 for formats that have neither. */
uint32_t quant_side_bits(const struct quant *quant);

/* False when the tensor is stored as blocks and cols is no multiple of them. */
bool quant_fits(const struct quant *quant, uint64_t cols);

/* True when both give the same bytes for the same weights. */
bool quant_same(const struct quant *a, const struct quant *b);

/* "32", "\"channel\"", "\"128x128\"": JSON text of the group. out has at least 16 bytes. */
const char *quant_group_json(const struct quant *quant, char *out);

/* A number from 0 to 100 of at most 12 decimals, all of the text, whatever the locale; false for anything else. */
bool quant_read_percentile(const char *text, double *percentile);

/* "99.99", which quant_read_percentile reads again; NULL for other rules than percentile. out has at least 24 bytes. */
const char *quant_percentile_text(const struct quant *quant, char *out);

/* n weights in groups of `group`, all steps: range, candidates by least error, codes, and decoded weights where y is not NULL. weight is NULL or n
 * importance weights >= 0; scales has room for quant_scales. Returns how many groups were done: all, or those before the first one whose scale overflows its type. */
size_t quant_encode(const struct quant *quant, const struct kernels *kernels, const float *x, const float *weight, size_t n, size_t group,
                    struct group_scale *scales, uint16_t *codes, float *y);

/* The same for one group: false when its scale overflows. */
bool quant_group(const struct quant *quant, const struct kernels *kernels, const float *x, const float *weight, size_t n, struct group_scale *scale,
                 uint16_t *codes);

/* Chooses among the candidates with the given errors (errors[i] for candidate i; left-out ones are skipped): least error, first on ties. */
bool quant_choose(const struct quant *quant, struct range range, const double *errors, struct group_scale *scale);

#endif
