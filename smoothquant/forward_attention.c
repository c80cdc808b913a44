/* forward_attention.c: see forward_attention.h.
 *
 * Drawing: block of queries x keys [first, last): first from the window of the block's first query, last behind its last query.
 * Why this way: see forward_attention.h.
 * Corner cases: see forward_attention.h.
 * Reference: forward_attention.h. Worked number: 300 queries: blocks of 128, 128, 44, which see at most 128, 256, 300 keys.
 */
#include "smoothquant/forward_attention.h"

#include <string.h>

#include "smoothquant/forward_ops.h"

/* The scores of one query at keys [first, last); n of them before its own key and with it are seen. */
static void finish_row(const struct attention *a, size_t head, size_t query, size_t first, size_t last, float *row)
{
    const size_t from = a->window && query + 1 > a->window ? query + 1 - a->window : 0, begin = from > first ? from - first : 0,
                 end = query + 1 - first;
    for (size_t j = begin; j < end; j++) row[j] *= a->scale;
    if (a->softcap > 0.0f) softcap(row + begin, end - begin, a->softcap);
    for (size_t j = begin; a->slopes && j < end; j++) row[j] -= a->slopes[head] * (float)(query - first - j);
    softmax(row + begin, end - begin, a->sinks ? &a->sinks[head] : NULL);
    memset(row, 0, begin * sizeof *row);
    memset(row + end, 0, (last - first - end) * sizeof *row);
}

void attend(const struct attention *a, const float *q, size_t q_stride, size_t n_queries, const float *k, const float *v, size_t kv_stride,
            size_t n_keys, float *out, size_t out_stride, float *scores, float *gemm_scratch)
{
    const size_t share = a->n_heads / a->n_kv_heads, d = a->head_dim, before = n_keys - n_queries;
    for (size_t q0 = 0; q0 < n_queries; q0 += ATTENTION_BLOCK) {
        const size_t n = n_queries - q0 < ATTENTION_BLOCK ? n_queries - q0 : ATTENTION_BLOCK, last = before + q0 + n;
        const size_t first = a->window && before + q0 + 1 > a->window ? before + q0 + 1 - a->window : 0, width = last - first;
        for (size_t h = 0; h < a->n_heads; h++) {
            const size_t at = h / share * d + first * kv_stride;
            gemm_multiply(a->gemm, n, width, d, (struct gemm_matrix){ q + q0 * q_stride + h * d, q_stride, false },
                          (struct gemm_matrix){ k + at, kv_stride, true }, false, scores, width, gemm_scratch);
            for (size_t r = 0; r < n; r++) finish_row(a, h, before + q0 + r, first, last, scores + r * width);
            gemm_multiply(a->gemm, n, d, width, (struct gemm_matrix){ scores, width, false }, (struct gemm_matrix){ v + at, kv_stride, false }, false,
                          out + q0 * out_stride + h * d, out_stride, gemm_scratch);
        }
    }
}
