/* gemm.h: products of f32 matrices, for the forward pass: OpenBLAS where it is linked and knows the processor, else our own.
 *
 *   C[m x n] (+)= A[m x k] B[k x n]      B may lie transposed (rows are columns: the weights of a linear layer), A too (Gram matrices)
 *
 * Why this way: the only place that knows a BLAS, which is optional. BLAS runs on one thread: the callers share their work out over sequences, so a
 * result cannot depend on how many threads there are. OpenBLAS takes processors it has never heard of for a Pentium 4; there our own kernels, which
 * ask for instructions and not for names, are four times faster, so they are taken.
 * Corner cases: m, n or k of 0: C is zeroed or left as it is. Sums run over k in ascending blocks; results differ between processors and libraries in
 * the last bits and are never part of a quantised byte. Inf and NaN go through.
 * Reference: Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication (2008). Worked number: [1 2] [3 4]^T = 11.
 */
#ifndef LLMQ_SMOOTHQUANT_GEMM_H
#define LLMQ_SMOOTHQUANT_GEMM_H

#include <stdbool.h>
#include <stddef.h>

#define GEMM_SCRATCH ((size_t)(256 * 1024 + 512 * 256)) /* floats of working memory of one call */
#define GEMM_DIM_MAX ((size_t)1 << 30)

/* A matrix of floats: element (i, j) at data[i * stride + j]; transposed: at data[j * stride + i]. */
struct gemm_matrix {
    const float *data;
    size_t stride;
    bool transposed;
};

struct gemm {
    const char *name; /* "openblas Haswell", "avx512", "avx2", "portable" */
    /* C = A B, or C += A B when add; scratch has GEMM_SCRATCH floats, of the calling thread alone. No dimension is above GEMM_DIM_MAX. */
    void (*multiply)(size_t m, size_t n, size_t k, struct gemm_matrix a, struct gemm_matrix b, bool add, float *c, size_t c_stride, float *scratch);
};

/* All implementations this processor can run, the preferred one last. */
size_t gemm_count(void);
const struct gemm *gemm_at(size_t index);

/* The one whose name begins with name, or the preferred one (NULL, "": no wish; an unknown name too). Sets BLAS to one thread. */
const struct gemm *gemm_select(const char *name);

#endif
