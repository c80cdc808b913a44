/* api_pack.c: codes to bytes and back in the orders of several tools, behind llmq.h.
 *
 *   code + offset -> in range? -> field of b bits (two's complement) -> the order's bits      rows of a matrix, or its columns as words
 *
 * Why this way: layout/pack.c knows where bits lie; ranges, sizes and signs are checked here.
 * Corner cases: bytes are zeroed first, so what no code fills is 0; sizes that overflow are refused.
 * Reference: the specification's 4.8, 8.5.6; layouts.md 2. Worked number: 0 .. 7, 4 bits: AWQ word 0x75316420, plain 0x76543210.
 */
#include <inttypes.h>
#include <string.h>

#include "api.h"
#include "base/size.h"
#include "layout/pack.h"

static_assert((int)LLMQ_ORDER_COUNT == (int)ORDER_COUNT && (int)LLMQ_ORDER_AWQ == (int)ORDER_AWQ &&
                  (int)LLMQ_ORDER_HALVES_64 == (int)ORDER_HALVES_64 && (int)LLMQ_ORDER_MX_FP6 == (int)ORDER_MX_FP6,
              "the same orders");

static const char *const names[ORDER_COUNT] = { "stream", "words", "awq", "halves of 16", "halves of 32", "halves of 64", "mx fp6" };

static enum status check(const struct llmq_packing *packing, struct err *err)
{
    if (!packing) return err_set(err, ERR_USAGE, "packing is NULL");
    if ((int)packing->order < 0 || packing->order >= LLMQ_ORDER_COUNT)
        return err_set(err, ERR_USAGE, "there is no order number %d", (int)packing->order);
    if (!pack_order_has((enum pack_order)packing->order, packing->bits))
        return err_set(err, ERR_USAGE, "order %s has no codes of %u bits", names[packing->order], packing->bits);
    return OK;
}

/* The field of a code; false when it does not fit. */
static bool field_of(const struct llmq_packing *packing, int64_t code, uint32_t *field)
{
    const int64_t span = (int64_t)1 << packing->bits, low = packing->is_signed ? -span / 2 : 0;
    const uint64_t above = (uint64_t)code + (uint64_t)packing->offset - (uint64_t)low;
    const bool wraps = packing->offset >= 0 ? code > INT64_MAX - packing->offset : code < INT64_MIN - packing->offset;
    *field = (uint32_t)(((uint64_t)code + (uint64_t)packing->offset) & (uint64_t)(span - 1));
    return !wraps && above < (uint64_t)span;
}

static int64_t code_of(const struct llmq_packing *packing, uint32_t field)
{
    const int64_t span = (int64_t)1 << packing->bits;
    const int64_t code = packing->is_signed && (int64_t)field >= span / 2 ? (int64_t)field - span : (int64_t)field;
    return (int64_t)((uint64_t)code - (uint64_t)packing->offset);
}

/* Codes at steps of `step` into one run of bytes. */
static enum status pack_run(const struct llmq_packing *packing, const int64_t *codes, uint64_t n, uint64_t step, uint8_t *out, uint64_t stride,
                            struct err *err)
{
    for (uint64_t i = 0; i < n; i++) {
        uint32_t field;
        if (!field_of(packing, codes[i * step], &field))
            return err_set(err, ERR_USAGE, "code number %" PRIu64 ", %" PRId64 ", does not fit in %u bits", i, codes[i * step], packing->bits);
        pack_field((enum pack_order)packing->order, packing->bits, i, field, out, stride);
    }
    return OK;
}

static void unpack_run(const struct llmq_packing *packing, const uint8_t *bytes, uint64_t n, uint64_t step, uint64_t stride, int64_t *codes)
{
    for (uint64_t i = 0; i < n; i++)
        codes[i * step] = code_of(packing, unpack_field((enum pack_order)packing->order, packing->bits, i, bytes, stride));
}

enum llmq_status llmq_packed_nbytes(const struct llmq_packing *packing, uint64_t n, uint64_t *nbytes, struct llmq_error *error)
{
    if (!nbytes) return api_null("nbytes", error);
    enum status status = check(packing, api_err(error));
    if (status != OK) return api_status(status);
    uint64_t found;
    if (!pack_order_nbytes((enum pack_order)packing->order, packing->bits, n, &found) || found > SIZE_MAX)
        return api_status(err_set(api_err(error), ERR_UNSUPPORTED, "%" PRIu64 " codes are too many", n));
    *nbytes = found;
    return LLMQ_OK;
}

enum llmq_status llmq_pack(const struct llmq_packing *packing, const int64_t *codes, uint64_t n, void *out, struct llmq_error *error)
{
    uint64_t nbytes;
    enum llmq_status status = llmq_packed_nbytes(packing, n, &nbytes, error);
    if (status != LLMQ_OK || n == 0) return status;
    if (!codes || !out) return api_null(codes ? "out" : "codes", error);
    memset(out, 0, (size_t)nbytes);
    return api_status(pack_run(packing, codes, n, 1, out, 4, api_err(error)));
}

enum llmq_status llmq_unpack(const struct llmq_packing *packing, const void *bytes, uint64_t n, int64_t *codes, struct llmq_error *error)
{
    uint64_t nbytes;
    enum llmq_status status = llmq_packed_nbytes(packing, n, &nbytes, error);
    if (status != LLMQ_OK || n == 0) return status;
    if (!codes || !bytes) return api_null(codes ? "bytes" : "codes", error);
    unpack_run(packing, bytes, n, 1, 4, codes);
    return LLMQ_OK;
}

/* Bytes of a whole matrix of words. */
static enum status columns_nbytes(const struct llmq_packing *packing, uint64_t rows, uint64_t cols, uint64_t *nbytes, struct err *err)
{
    uint64_t column, n_codes;
    enum status status = check(packing, err);
    if (status != OK) return status;
    if (packing->order != LLMQ_ORDER_WORDS && packing->order != LLMQ_ORDER_AWQ)
        return err_set(err, ERR_USAGE, "columns are packed in orders words and awq, not %s", names[packing->order]);
    const bool fits = pack_order_nbytes((enum pack_order)packing->order, packing->bits, rows, &column) && size_mul(column, cols, nbytes) &&
                      size_mul(rows, cols, &n_codes) && *nbytes <= SIZE_MAX && n_codes <= SIZE_MAX / sizeof(int64_t);
    return fits ? OK : err_set(err, ERR_UNSUPPORTED, "%" PRIu64 " x %" PRIu64 " codes are too many", rows, cols);
}

enum llmq_status llmq_pack_columns(const struct llmq_packing *packing, const int64_t *codes, uint64_t rows, uint64_t cols, void *out,
                                   struct llmq_error *error)
{
    uint64_t nbytes = 0;
    enum status status = columns_nbytes(packing, rows, cols, &nbytes, api_err(error));
    if (status != OK || nbytes == 0) return api_status(status);
    if (!codes || !out) return api_null(codes ? "out" : "codes", error);
    memset(out, 0, (size_t)nbytes);
    for (uint64_t c = 0; c < cols && status == OK; c++)
        status = pack_run(packing, codes + c, rows, cols, (uint8_t *)out + 4 * c, 4 * cols, api_err(error));
    return api_status(status);
}

enum llmq_status llmq_unpack_columns(const struct llmq_packing *packing, const void *bytes, uint64_t rows, uint64_t cols, int64_t *codes,
                                     struct llmq_error *error)
{
    uint64_t nbytes = 0;
    enum status status = columns_nbytes(packing, rows, cols, &nbytes, api_err(error));
    if (status != OK || nbytes == 0) return api_status(status);
    if (!codes || !bytes) return api_null(codes ? "bytes" : "codes", error);
    for (uint64_t c = 0; c < cols; c++) unpack_run(packing, (const uint8_t *)bytes + 4 * c, rows, cols, 4 * cols, codes + c);
    return LLMQ_OK;
}
