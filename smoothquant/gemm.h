/* gemm.h: products of f32 matrices, for the forward pass: our own kernels, or OpenBLAS where the machine has it and it is faster.
 *
 *   C[m x n] (+)= A[m x k] B[k x n]      B may lie transposed (rows are columns: the weights of a linear layer), A too (Gram matrices)
 *
 * Why this way: the only place that knows a BLAS. It is loaded when a pass begins and not linked: loading it starts a thread for every processor, which
 * no other command should pay for. It then runs on one thread: the callers share their work out over sequences, so a result cannot depend on how many
 * threads there are. OpenBLAS takes processors younger than itself for a Pentium 4; there, and with AVX-512, our own kernels are faster.
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

struct gemm;

/* C = A B, or C += A B when add; scratch has GEMM_SCRATCH floats, of the calling thread alone. No dimension is above GEMM_DIM_MAX. */
typedef void gemm_fn(const struct gemm *gemm, size_t m, size_t n, size_t k, struct gemm_matrix a, struct gemm_matrix b, bool add, float *c,
                     size_t c_stride, float *scratch);

/* An implementation. Plain data: copies are as good. */
struct gemm {
    const char *name; /* "portable", "avx2", "openblas", "avx512" */
    gemm_fn *multiply;
    void (*sgemm)(void); /* of OpenBLAS */
};

static inline void gemm_multiply(const struct gemm *gemm, size_t m, size_t n, size_t k, struct gemm_matrix a, struct gemm_matrix b, bool add,
                                 float *c, size_t c_stride, float *scratch)
{
    gemm->multiply(gemm, m, n, k, a, b, add, c, c_stride, scratch);
}

/* Number i of all implementations this processor can run, the first is "portable"; false behind the last. Loads OpenBLAS when it comes to it. */
bool gemm_at(size_t index, struct gemm *out);

/* The one called name, or the preferred one (NULL, "", a name that is not here). */
struct gemm gemm_select(const char *name);

#endif
