/* code_counts.c: see code_counts.h.
 *
 * Drawing: planes "codes", "scales" (and shifts) of a tensor -> FIELDS at a time of each row -> counts -> bins by value.
 * Why this way: pieces of whole bytes, so that a row of any length passes through two small buffers.
 * Corner cases: a scale and its shifts (bfp-prime) give a scale for each sub-block; planes of one group over the whole tensor have one row.
 * Reference: code_counts.h.
 */
#include "converter/code_counts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "layout/codec.h"
#include "layout/pack.h"

enum { CODE_BINS = 256, FIELDS = 8192, SIDE_BITS_MAX = 16, SCALE_NBYTES_MAX = 4 };

bool code_counts_apply(const struct quant *quant)
{
    return quant && quant->elem && !quant->blocks;
}

enum status code_counts_open(const struct elem *elem, struct code_counts *counts, struct err *err)
{
    memset(counts, 0, sizeof *counts);
    counts->elem = elem;
    counts->codes = calloc((size_t)1 << elem->bits, sizeof *counts->codes);
    return counts->codes ? OK : err_set(err, ERR_MEMORY, "out of memory");
}

void code_counts_close(struct code_counts *counts)
{
    free(counts->codes);
    counts->codes = NULL;
}

/* ---- counting ------------------------------------------------------------------------------------------------------------------------ */

static size_t bin_of(float scale)
{
    const double at = (log2((double)scale) - COUNTS_LOWEST) * COUNTS_PER_OCTAVE;
    return at < 0.0 ? 0 : at >= COUNTS_SCALE_BINS ? COUNTS_SCALE_BINS - 1 : (size_t)at;
}

void code_counts_add(struct code_counts *counts, const uint16_t *codes, size_t n)
{
    for (size_t i = 0; i < n; i++) counts->codes[codes[i]]++;
}

void code_counts_add_scales(struct code_counts *counts, const struct group_scale *scales, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const float scale = fabsf(scales[i].value);
        counts->n_scales++;
        if (scale > 0.0f) counts->scales[bin_of(scale)]++;
        else counts->n_zero++;
    }
}

/* ---- reading planes ------------------------------------------------------------------------------------------------------------------ */

/* What is read at a time, and what it becomes. */
struct reading {
    struct container *container;
    size_t index;
    const struct quant *quant;
    struct plane planes[CODEC_PLANES_MAX];
    uint32_t n_planes;
    uint8_t bytes[FIELDS * 2], sides[FIELDS * SIDE_BITS_MAX / 8];
    uint16_t codes[FIELDS];
    struct group_scale scales[FIELDS];
};

/* Fields [col, col + n) of a row of plane k; col * bits is a whole number of bytes. */
static enum status read_fields(struct reading *reading, uint32_t k, uint64_t row, uint64_t col, uint64_t n, uint8_t *out, struct err *err)
{
    const struct plane *plane = &reading->planes[k];
    return container_read_plane(reading->container, reading->index, k, row * plane_row_nbytes(plane) + col * plane->bits / 8,
                                (size_t)size_ceil_div(n * plane->bits, 8), out, err);
}

static enum status read_codes(struct reading *reading, struct code_counts *counts, struct err *err)
{
    const struct plane *plane = &reading->planes[0];
    enum status status = OK;
    for (uint64_t row = 0; row < plane->rows && !status; row++)
        for (uint64_t col = 0, n; col < plane->cols && !status; col += n) {
            n = size_min(plane->cols - col, FIELDS);
            status = read_fields(reading, 0, row, col, n, reading->bytes, err);
            if (status) break;
            unpack_bits(reading->bytes, 0, (size_t)n, plane->bits, reading->codes);
            code_counts_add(counts, reading->codes, (size_t)n);
        }
    return status;
}

/* Sub-blocks of a row that share a scale, or 1. */
static uint64_t scales_step(const struct reading *reading)
{
    return reading->quant->sub_block ? quant_scales_per_group(reading->quant) : 1;
}

static enum status read_scales(struct reading *reading, struct code_counts *counts, struct err *err)
{
    const struct plane *plane = &reading->planes[1];
    const bool sided = quant_side_bits(reading->quant) > 0;
    const uint64_t step = scales_step(reading), units = reading->quant->sub_block ? reading->planes[2].cols : plane->cols;
    const uint64_t most = FIELDS / (8 * step) * 8 * step; /* whole bytes of scales and of sides */
    enum status status = OK;
    for (uint64_t row = 0; row < plane->rows && !status; row++)
        for (uint64_t unit = 0, n; unit < units && !status; unit += n) {
            n = size_min(units - unit, most);
            status = read_fields(reading, 1, row, unit / step, size_ceil_div(n, step), reading->bytes, err);
            if (!status && sided) status = read_fields(reading, 2, row, unit, n, reading->sides, err);
            if (status) break;
            layout_load_scales(reading->quant, reading->bytes, reading->sides, 0, (size_t)n, reading->scales);
            code_counts_add_scales(counts, reading->scales, (size_t)n);
        }
    return status;
}

enum status code_counts_read(struct container *container, size_t index, struct code_counts *counts, struct err *err)
{
    const struct tensor *tensor = &container->tensors[index];
    const struct shape shape = tensor_shape(tensor);
    struct reading *reading = malloc(sizeof *reading);
    if (!reading) return err_set(err, ERR_MEMORY, "out of memory");
    *reading = (struct reading){ .container = container, .index = index, .quant = tensor->quant };
    reading->n_planes = codec_planes(tensor->quant, &shape, reading->planes);
    enum status status = read_codes(reading, counts, err);
    if (!status) status = read_scales(reading, counts, err);
    free(reading);
    return status;
}

/* ---- histograms ---------------------------------------------------------------------------------------------------------------------- */

struct valued {
    double value;
    uint64_t count;
};

static int by_value(const void *a, const void *b)
{
    const struct valued *x = a, *y = b;
    return x->value < y->value ? -1 : x->value > y->value;
}

static enum status fill_codes(const struct code_counts *counts, struct sweep_histogram *out, struct err *err)
{
    const size_t n_codes = (size_t)1 << counts->elem->bits;
    struct valued *valued = malloc(n_codes * sizeof *valued);
    size_t n = 0;
    if (!valued) return err_set(err, ERR_MEMORY, "out of memory");
    for (uint32_t code = 0; code < n_codes; code++) {
        const double value = (double)elem_decode(counts->elem, code);
        if (isfinite(value)) valued[n++] = (struct valued){ value, counts->codes[code] };
    }
    qsort(valued, n, sizeof *valued, by_value);
    out->n_codes = n < CODE_BINS ? n : CODE_BINS;
    out->codes = calloc(out->n_codes + 1, sizeof *out->codes);
    out->code_values = calloc(out->n_codes + 1, sizeof *out->code_values);
    for (size_t i = n; out->codes && out->code_values && i-- > 0;) {
        out->codes[i * out->n_codes / n] += valued[i].count;
        out->code_values[i * out->n_codes / n] = valued[i].value;
    }
    free(valued);
    return out->codes && out->code_values ? OK : err_set(err, ERR_MEMORY, "out of memory");
}

static enum status fill_scales(const struct code_counts *counts, struct sweep_histogram *out, struct err *err)
{
    size_t first = 0, end = COUNTS_SCALE_BINS;
    while (first < end && !counts->scales[first]) first++;
    while (end > first && !counts->scales[end - 1]) end--;
    out->n_scales = counts->n_scales;
    out->n_zero_scales = counts->n_zero;
    out->scale_log2_step = 1.0 / COUNTS_PER_OCTAVE;
    out->scale_log2_low = COUNTS_LOWEST + (double)first / COUNTS_PER_OCTAVE;
    out->n_scale_bins = end - first;
    out->scales = calloc(out->n_scale_bins + 1, sizeof *out->scales);
    if (!out->scales) return err_set(err, ERR_MEMORY, "out of memory");
    memcpy(out->scales, counts->scales + first, out->n_scale_bins * sizeof *out->scales);
    return OK;
}

enum status code_counts_fill(const struct code_counts *counts, struct sweep_histogram *out, struct err *err)
{
    const enum status status = fill_codes(counts, out, err);
    return status ? status : fill_scales(counts, out, err);
}
