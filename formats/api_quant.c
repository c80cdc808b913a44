/* api_quant.c: struct llmq_quant of llmq.h, and rows of floats in memory to planes and back.
 *
 *   "int4:group=64" -> struct quant -> sizes of planes;   f32 rows -> matrix_encode, tile after tile -> planes;   planes -> codec_decode_row, row after row -> f32 rows
 *
 * Why this way: the caller's rows are the one big tile source; no copy is made of them.
 * Corner cases: 0 rows or columns have planes of 0 bytes; with group "tensor" all rows of a call share the scale; the
 * scale of a matrix (nvfp4) is the third plane; a tensor whose file gives other
 * facts than the format table is refused, its codes would mean something else.
 * Reference: llmq.h, NUMERICS.md, FORMAT.md 3.2. Worked number: int4:group=64, 2 x 100: codes_row 50, scales_row 4.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "api_matrix.h"
#include "base/size.h"
#include "container/llmq_read.h"
#include "container/shown.h"
#include "layout/facts.h"
#include "number/observe.h"

/* ---- the object ----------------------------------------------------------------------------------------------------------------- */

enum llmq_status llmq_quant_open(const char *text, struct llmq_quant **out, struct llmq_error *error)
{
    struct err *err = api_err(error);
    if (!out) return api_null("quant", error);
    *out = NULL;
    if (!text) return api_null("text", error);
    struct llmq_quant *quant = malloc(sizeof *quant);
    if (!quant) return api_status(err_set(err, ERR_MEMORY, "out of memory"));
    quant->kernels = kernels_select(NULL);
    enum status status = quant_parse(text, NULL, &quant->quant, err);
    if (status == OK) *out = quant;
    else free(quant);
    return api_status(status);
}

enum llmq_status llmq_quant_of_tensor(const struct llmq_model *model, size_t index, struct llmq_quant **out, struct llmq_error *error)
{
    struct err *err = api_err(error);
    struct llmq_tensor_info info;
    if (!out) return api_null("quant", error);
    *out = NULL;
    enum llmq_status status = llmq_model_tensor(model, index, &info, error);
    if (status != LLMQ_OK) return status;
    if (!info.format) return api_status(err_set(err, ERR_USAGE, "tensor '%s' is kept, not quantised", shown_str(info.name).text));
    const struct llmq_entry *entry = llmq_entry_of(model->container, index);
    const struct format *format = format_find(info.format);
    if (!entry->decodable || !format || !facts_same(format, entry->quant.format) || !(format->scale_types >> entry->quant.scale & 1))
        return api_status(err_set(err, ERR_UNSUPPORTED, "tensor '%s' has format '%s', which is none of this library's own", shown_str(info.name).text,
                                  shown_str(info.format).text));
    status = llmq_quant_open(format->name, out, error);
    if (status != LLMQ_OK) return status;
    struct quant *quant = &(*out)->quant;
    quant->group_kind = entry->quant.group_kind;
    quant->group = entry->quant.group;
    quant->sub_block = entry->quant.sub_block;
    quant->shift_bits = entry->quant.shift_bits;
    quant->scale = entry->quant.scale;
    quant->tensor_scale = entry->quant.tensor_scale;
    if (entry->quant.rule != RULE_COUNT && format->rules >> entry->quant.rule & 1) quant->rule = entry->quant.rule;
    if (quant->rule == RULE_PERCENTILE) quant->percentile = entry->percentile[0] ? entry->quant.percentile : observer_percentile.defaults.percentile;
    if (entry->quant.rounding != ROUND_COUNT) quant->rounding = entry->quant.rounding;
    return LLMQ_OK;
}

void llmq_quant_close(struct llmq_quant *quant)
{
    free(quant);
}

/* ---- sizes ---------------------------------------------------------------------------------------------------------------------- */

static enum status make(const struct llmq_quant *quant, uint64_t n_rows, uint64_t cols, struct matrix *matrix, struct err *err)
{
    const struct shape shape = { n_rows, cols, 1 };
    return matrix_make(&quant->quant, quant->kernels, dtype_find("F32", 3), &shape, matrix, err);
}

enum llmq_status llmq_quant_sizes(const struct llmq_quant *quant, uint64_t n_rows, uint64_t cols, struct llmq_sizes *sizes, struct llmq_error *error)
{
    struct matrix matrix;
    if (!quant || !sizes) return api_null(quant ? "sizes" : "quant", error);
    enum status status = make(quant, n_rows, cols, &matrix, api_err(error));
    if (status != OK) return api_status(status);
    *sizes = (struct llmq_sizes){ 0 };
    if (n_rows == 0 || cols == 0) return LLMQ_OK;
    *sizes = (struct llmq_sizes){ .codes = plane_nbytes(&matrix.planes[0]), .codes_row = plane_row_nbytes(&matrix.planes[0]) };
    if (matrix.n_planes < 2) return LLMQ_OK;
    sizes->scales = plane_nbytes(&matrix.planes[1]);
    sizes->scales_row = plane_row_nbytes(&matrix.planes[1]);
    if (matrix.n_planes < 3) return LLMQ_OK;
    sizes->zeros = plane_nbytes(&matrix.planes[2]);
    sizes->zeros_row = plane_row_nbytes(&matrix.planes[2]);
    return LLMQ_OK;
}

/* ---- quantising ----------------------------------------------------------------------------------------------------------------- */

enum llmq_status llmq_quantise_rows(const struct llmq_quant *quant, const float *x, uint64_t n_rows, uint64_t cols, void *codes, void *scales,
                                    void *zeros, struct llmq_error *error)
{
    struct err *err = api_err(error);
    struct matrix matrix;
    struct codec_scratch scratch;
    if (!quant) return api_null("quant", error);
    enum status status = make(quant, n_rows, cols, &matrix, err);
    if (status != OK || n_rows == 0 || cols == 0) return api_status(status);
    if (!x || !codes) return api_null(!x ? "x" : "codes", error);
    if (!scales && matrix.n_planes > 1) return api_null("scales", error);
    if (!zeros && matrix.n_planes > 2) return api_null("zeros", error);
    uint8_t *const whole[CODEC_PLANES_MAX] = { codes, scales, zeros, NULL };
    status = matrix_scratch_open(&matrix, &scratch, err);
    if (status == OK) status = matrix_encode_all(&matrix, (const uint8_t *)(const void *)x, NULL, &scratch, whole, err);
    matrix_scratch_close(&scratch);
    return api_status(status);
}

/* ---- dequantising --------------------------------------------------------------------------------------------------------------- */

/* Rows that plane number k goes on when row r of a matrix has been decoded. */
static uint64_t rows_on(const struct quant *quant, uint64_t n_rows, uint64_t r, uint32_t k)
{
    if (k == 2 && quant->tensor_scale) return 0;
    return k == 0 ? 1 : quant_scale_row(quant, n_rows, r + 1) - quant_scale_row(quant, n_rows, r);
}

enum llmq_status llmq_dequantise_rows(const struct llmq_quant *quant, const void *codes, const void *scales, const void *zeros, uint64_t n_rows,
                                      uint64_t cols, float *out, struct llmq_error *error)
{
    struct matrix matrix;
    if (!quant) return api_null("quant", error);
    enum status status = make(quant, n_rows, cols, &matrix, api_err(error));
    if (status != OK || n_rows == 0 || cols == 0) return api_status(status);
    if (!codes || !out) return api_null(codes ? "out" : "codes", error);
    if (!scales && matrix.n_planes > 1) return api_null("scales", error);
    if (!zeros && matrix.n_planes > 2) return api_null("zeros", error);
    const uint8_t *streams[CODEC_PLANES_MAX] = { codes, scales, zeros, NULL };
    float tensor_scale = 1.0f;
    if (quant->quant.tensor_scale) ggml_f32.decode(zeros, 1, &tensor_scale);
    for (uint64_t r = 0; r < n_rows; r++) {
        codec_decode_row(&quant->quant, quant->kernels, streams, tensor_scale, 0, (size_t)cols, out + r * cols);
        for (uint32_t k = 0; k < matrix.n_planes; k++) streams[k] += rows_on(&quant->quant, n_rows, r, k) * plane_row_nbytes(&matrix.planes[k]);
    }
    return LLMQ_OK;
}
