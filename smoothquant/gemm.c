/* gemm.c: see gemm.h.
 *
 * Drawing, our own: for each block of 256 of k: pack up to 1024 columns of B into strips [k][NR], for each block of rows pack A into strips [k][MR],
 * then a kernel holds MR x NR sums in registers over the block and adds them to C:
 *
 *        k ->                    strip of B: k x NR, contiguous
 *   A strip  a00 a10 .. | a01 a11 .. | ...      acc[r][c] += a[k][r] * b[k][c]
 *
 * Why this way: one packed form serves all four cases of transposition; three kernels (plain C, AVX2, AVX-512) share everything else. Fused
 * multiply-add is used by intrinsics on purpose: nothing here reaches a quantised byte.
 * Corner cases: strips at the edges are padded with zeros, their sums are not stored.
 * Reference: gemm.h. Worked number: AVX-512, MR 12, NR 32: 24 sums in 24 of 32 registers.
 */
#include "smoothquant/gemm.h"

#include <stdint.h>
#include <string.h>

#ifdef LLMQ_OPENBLAS
#include <dlfcn.h>
#endif

#if defined(__x86_64__) && defined(__GNUC__)
#define GEMM_X86 1
#include <immintrin.h>
#endif

enum { BLOCK_K = 512, BLOCK_N = 512, BLOCK_M = 252, MR_MAX = 12, NR_MAX = 32 };

/* acc[MR][NR] = sum over k of a[k][MR] b[k][NR] */
typedef void micro_fn(size_t k, const float *a, const float *b, float *acc);

/* n_along lines of the matrix from (i0, k0) on into strips of width: strip[k][width]. lines are rows of A (or columns of B when of_columns). */
static void pack(struct gemm_matrix x, bool of_columns, size_t first, size_t n, size_t k0, size_t n_k, size_t width, float *out)
{
    const bool lines_contiguous_in_k = of_columns ? x.transposed : !x.transposed;
    for (size_t s = 0; s < n; s += width, out += n_k * width) {
        const size_t w = n - s < width ? n - s : width;
        if (w < width) memset(out, 0, n_k * width * sizeof *out);
        if (lines_contiguous_in_k) {
            /* turned 16 steps at a time, so that what is written stays in the nearest cache */
            for (size_t k = 0; k < n_k; k += 16) {
                const size_t now = n_k - k < 16 ? n_k - k : 16;
                for (size_t r = 0; r < w; r++) {
                    const float *line = x.data + (first + s + r) * x.stride + k0 + k;
                    float *to = out + k * width + r;
                    for (size_t t = 0; t < now; t++) to[t * width] = line[t];
                }
            }
        } else {
            for (size_t k = 0; k < n_k; k++) memcpy(out + k * width, x.data + (k0 + k) * x.stride + first + s, w * sizeof *out);
        }
    }
}

static void store(const float *acc, size_t nr, size_t m, size_t n, bool add, float *c, size_t stride)
{
    for (size_t i = 0; i < m; i++, acc += nr, c += stride) {
        if (add)
            for (size_t j = 0; j < n; j++) c[j] += acc[j];
        else memcpy(c, acc, n * sizeof *c);
    }
}

/* sums[4 i + j] = a[i] . b[j], 4 rows of k each: sums over k in 16 lanes, which are added in order. */
typedef void dots_fn(size_t k, const float *const a[4], const float *const b[4], float sums[16]);

enum { FEW_ROWS = 64 };

/* Few rows of A times rows of a transposed B: packing B would take longer than the product. Rows beyond the edge are the last one again. */
static bool multiply_few(dots_fn *dots, size_t m, size_t n, size_t k, struct gemm_matrix a, struct gemm_matrix b, bool add, float *c, size_t c_stride)
{
    float sums[16];
    if (m > FEW_ROWS || a.transposed || !b.transposed || k < 64) return false;
    for (size_t j = 0; j < n; j += 4) {
        const float *columns[4];
        for (size_t s = 0; s < 4; s++) columns[s] = b.data + (j + s < n ? j + s : n - 1) * b.stride;
        for (size_t i = 0; i < m; i += 4) {
            const float *rows[4];
            for (size_t r = 0; r < 4; r++) rows[r] = a.data + (i + r < m ? i + r : m - 1) * a.stride;
            dots(k, rows, columns, sums);
            for (size_t r = 0; r < 4 && i + r < m; r++)
                for (size_t s = 0; s < 4 && j + s < n; s++) {
                    float *to = &c[(i + r) * c_stride + j + s];
                    *to = add ? *to + sums[4 * r + s] : sums[4 * r + s];
                }
        }
    }
    return true;
}

static float lane_sum(const float lanes[16])
{
    float sum = 0.0f;
    for (size_t l = 0; l < 16; l++) sum += lanes[l];
    return sum;
}

static float tail_sum(const float *a, const float *b, size_t from, size_t k)
{
    float sum = 0.0f;
    for (size_t i = from; i < k; i++) sum += a[i] * b[i];
    return sum;
}

static void multiply_blocks(micro_fn *micro, size_t mr, size_t nr, size_t m, size_t n, size_t k, struct gemm_matrix a, struct gemm_matrix b, bool add,
                            float *c, size_t c_stride, float *scratch)
{
    float *const packed_b = scratch, *const packed_a = scratch + (size_t)BLOCK_K * BLOCK_N;
    float acc[MR_MAX * NR_MAX];
    if (k == 0 && !add)
        for (size_t i = 0; i < m; i++) memset(c + i * c_stride, 0, n * sizeof *c);
    for (size_t j0 = 0; j0 < n; j0 += BLOCK_N) {
        const size_t nj = n - j0 < BLOCK_N ? n - j0 : BLOCK_N;
        for (size_t k0 = 0; k0 < k; k0 += BLOCK_K) {
            const size_t nk = k - k0 < BLOCK_K ? k - k0 : BLOCK_K;
            pack(b, true, j0, nj, k0, nk, nr, packed_b);
            for (size_t i0 = 0; i0 < m; i0 += BLOCK_M) {
                const size_t ni = m - i0 < BLOCK_M ? m - i0 : BLOCK_M;
                pack(a, false, i0, ni, k0, nk, mr, packed_a);
                for (size_t j = 0; j < nj; j += nr)
                    for (size_t i = 0; i < ni; i += mr) {
                        micro(nk, packed_a + i * nk, packed_b + j * nk, acc);
                        store(acc, nr, ni - i < mr ? ni - i : mr, nj - j < nr ? nj - j : nr, add || k0 > 0, c + (i0 + i) * c_stride + j0 + j,
                              c_stride);
                    }
            }
        }
    }
}

/* ---- kernels ---------------------------------------------------------------------------------------------------------------------- */

enum { PORTABLE_MR = 4, PORTABLE_NR = 8 };

#if defined(__GNUC__)
typedef float four __attribute__((vector_size(16)));

static void micro_portable(size_t n_k, const float *a, const float *b, float *acc)
{
    four sum[PORTABLE_MR][2] = { 0 };
    for (size_t k = 0; k < n_k; k++, a += PORTABLE_MR, b += PORTABLE_NR) {
        four b0, b1;
        memcpy(&b0, b, sizeof b0);
        memcpy(&b1, b + 4, sizeof b1);
#pragma GCC unroll 4
        for (size_t r = 0; r < PORTABLE_MR; r++) {
            const four x = { a[r], a[r], a[r], a[r] };
            sum[r][0] += x * b0;
            sum[r][1] += x * b1;
        }
    }
    memcpy(acc, sum, sizeof sum);
}
#else
static void micro_portable(size_t n_k, const float *a, const float *b, float *acc)
{
    float sum[PORTABLE_MR][PORTABLE_NR] = { { 0 } };
    for (size_t k = 0; k < n_k; k++, a += PORTABLE_MR, b += PORTABLE_NR)
        for (size_t r = 0; r < PORTABLE_MR; r++)
            for (size_t j = 0; j < PORTABLE_NR; j++) sum[r][j] += a[r] * b[j];
    memcpy(acc, sum, sizeof sum);
}
#endif

static void dots_portable(size_t k, const float *const a[4], const float *const b[4], float sums[16])
{
    for (size_t i = 0; i < 16; i++) {
        const float *x = a[i / 4], *y = b[i % 4];
        float lanes[16] = { 0 };
        size_t t = 0;
        for (; t + 16 <= k; t += 16)
            for (size_t l = 0; l < 16; l++) lanes[l] += x[t + l] * y[t + l];
        sums[i] = lane_sum(lanes) + tail_sum(x, y, t, k);
    }
}

static void multiply_portable(const struct gemm *gemm, size_t m, size_t n, size_t k, struct gemm_matrix a, struct gemm_matrix b, bool add, float *c,
                              size_t c_stride, float *scratch)
{
    (void)gemm;
    if (multiply_few(dots_portable, m, n, k, a, b, add, c, c_stride)) return;
    multiply_blocks(micro_portable, PORTABLE_MR, PORTABLE_NR, m, n, k, a, b, add, c, c_stride, scratch);
}

#ifdef GEMM_X86
enum { AVX2_MR = 6, AVX2_NR = 16, AVX512_MR = 12, AVX512_NR = 32 };

__attribute__((target("avx2,fma"))) static void micro_avx2(size_t n_k, const float *a, const float *b, float *acc)
{
    __m256 sum[AVX2_MR][2];
    for (size_t r = 0; r < AVX2_MR; r++) sum[r][0] = sum[r][1] = _mm256_setzero_ps();
    for (size_t k = 0; k < n_k; k++, a += AVX2_MR, b += AVX2_NR) {
        const __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8);
#pragma GCC unroll 6
        for (size_t r = 0; r < AVX2_MR; r++) {
            const __m256 x = _mm256_broadcast_ss(a + r);
            sum[r][0] = _mm256_fmadd_ps(x, b0, sum[r][0]);
            sum[r][1] = _mm256_fmadd_ps(x, b1, sum[r][1]);
        }
    }
    for (size_t r = 0; r < AVX2_MR; r++) {
        _mm256_storeu_ps(acc + r * AVX2_NR, sum[r][0]);
        _mm256_storeu_ps(acc + r * AVX2_NR + 8, sum[r][1]);
    }
}

__attribute__((target("avx2,fma"))) static void dots_avx2(size_t k, const float *const a[4], const float *const b[4], float sums[16])
{
    for (size_t half = 0; half < 4; half += 2) { /* 2 x 4 sums of 8 lanes at a time; the 16 lanes of the others are two such steps */
        __m256 acc[2][4];
        for (size_t i = 0; i < 2; i++)
            for (size_t j = 0; j < 4; j++) acc[i][j] = _mm256_setzero_ps();
        size_t t = 0;
        for (; t + 8 <= k; t += 8) {
            const __m256 x0 = _mm256_loadu_ps(a[half] + t), x1 = _mm256_loadu_ps(a[half + 1] + t);
#pragma GCC unroll 4
            for (size_t j = 0; j < 4; j++) {
                const __m256 y = _mm256_loadu_ps(b[j] + t);
                acc[0][j] = _mm256_fmadd_ps(x0, y, acc[0][j]);
                acc[1][j] = _mm256_fmadd_ps(x1, y, acc[1][j]);
            }
        }
        for (size_t i = 0; i < 2; i++)
            for (size_t j = 0; j < 4; j++) {
                float lanes[16] = { 0 };
                _mm256_storeu_ps(lanes, acc[i][j]);
                sums[4 * (half + i) + j] = lane_sum(lanes) + tail_sum(a[half + i], b[j], t, k);
            }
    }
}

__attribute__((target("avx512f"))) static void dots_avx512(size_t k, const float *const a[4], const float *const b[4], float sums[16])
{
    __m512 acc[4][4];
    for (size_t i = 0; i < 16; i++) acc[i / 4][i % 4] = _mm512_setzero_ps();
    size_t t = 0;
    for (; t + 16 <= k; t += 16) {
        const __m512 y0 = _mm512_loadu_ps(b[0] + t), y1 = _mm512_loadu_ps(b[1] + t), y2 = _mm512_loadu_ps(b[2] + t), y3 = _mm512_loadu_ps(b[3] + t);
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; i++) {
            const __m512 x = _mm512_loadu_ps(a[i] + t);
            acc[i][0] = _mm512_fmadd_ps(x, y0, acc[i][0]);
            acc[i][1] = _mm512_fmadd_ps(x, y1, acc[i][1]);
            acc[i][2] = _mm512_fmadd_ps(x, y2, acc[i][2]);
            acc[i][3] = _mm512_fmadd_ps(x, y3, acc[i][3]);
        }
    }
    for (size_t i = 0; i < 16; i++) {
        float lanes[16];
        _mm512_storeu_ps(lanes, acc[i / 4][i % 4]);
        sums[i] = lane_sum(lanes) + tail_sum(a[i / 4], b[i % 4], t, k);
    }
}

__attribute__((target("avx512f"))) static void micro_avx512(size_t n_k, const float *a, const float *b, float *acc)
{
    __m512 sum[AVX512_MR][2];
    for (size_t r = 0; r < AVX512_MR; r++) sum[r][0] = sum[r][1] = _mm512_setzero_ps();
    for (size_t k = 0; k < n_k; k++, a += AVX512_MR, b += AVX512_NR) {
        const __m512 b0 = _mm512_loadu_ps(b), b1 = _mm512_loadu_ps(b + 16);
#pragma GCC unroll 12
        for (size_t r = 0; r < AVX512_MR; r++) {
            const __m512 x = _mm512_set1_ps(a[r]);
            sum[r][0] = _mm512_fmadd_ps(x, b0, sum[r][0]);
            sum[r][1] = _mm512_fmadd_ps(x, b1, sum[r][1]);
        }
    }
    for (size_t r = 0; r < AVX512_MR; r++) {
        _mm512_storeu_ps(acc + r * AVX512_NR, sum[r][0]);
        _mm512_storeu_ps(acc + r * AVX512_NR + 16, sum[r][1]);
    }
}

static void multiply_avx2(const struct gemm *gemm, size_t m, size_t n, size_t k, struct gemm_matrix a, struct gemm_matrix b, bool add, float *c,
                          size_t c_stride, float *scratch)
{
    (void)gemm;
    if (multiply_few(dots_avx2, m, n, k, a, b, add, c, c_stride)) return;
    multiply_blocks(micro_avx2, AVX2_MR, AVX2_NR, m, n, k, a, b, add, c, c_stride, scratch);
}

static void multiply_avx512(const struct gemm *gemm, size_t m, size_t n, size_t k, struct gemm_matrix a, struct gemm_matrix b, bool add, float *c,
                            size_t c_stride, float *scratch)
{
    (void)gemm;
    if (multiply_few(dots_avx512, m, n, k, a, b, add, c, c_stride)) return;
    multiply_blocks(micro_avx512, AVX512_MR, AVX512_NR, m, n, k, a, b, add, c, c_stride, scratch);
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") != 0;
}
#endif

/* ---- OpenBLAS ---------------------------------------------------------------------------------------------------------------------- */

#ifdef LLMQ_OPENBLAS
typedef void sgemm_fn(int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha, const float *a, int lda, const float *b, int ldb,
                      float beta, float *c, int ldc);
enum { ROW_MAJOR = 101, NO_TRANSPOSE = 111, TRANSPOSE = 112 };

static void multiply_openblas(const struct gemm *gemm, size_t m, size_t n, size_t k, struct gemm_matrix a, struct gemm_matrix b, bool add, float *c,
                              size_t c_stride, float *scratch)
{
    (void)scratch;
    if (m == 0 || n == 0) return;
    if (k == 0) {
        for (size_t i = 0; i < m && !add; i++) memset(c + i * c_stride, 0, n * sizeof *c);
        return;
    }
    ((sgemm_fn *)gemm->sgemm)(ROW_MAJOR, a.transposed ? TRANSPOSE : NO_TRANSPOSE, b.transposed ? TRANSPOSE : NO_TRANSPOSE, (int)m, (int)n, (int)k,
                              1.0f, a.data, (int)a.stride, b.data, (int)b.stride, add ? 1.0f : 0.0f, c, (int)c_stride);
}

/* A function of a loaded library; object pointers hold functions on POSIX. */
static bool function_of(void *library, const char *name, void (**out)(void))
{
    void *found = dlsym(library, name);
    memcpy(out, &found, sizeof found);
    return found != NULL;
}

/* True when OpenBLAS takes the processor for one without the instructions of the last ten years although it has them. */
static bool is_lost(const char *core)
{
#ifdef GEMM_X86
    static const char *const old[] = { "Prescott", "Core2", "Penryn", "Dunnington", "Nehalem", "Generic", "generic", "Atom", "Katmai", "Northwood" };
    for (size_t i = 0; i < sizeof old / sizeof old[0] && has_avx2(); i++)
        if (strcmp(core, old[i]) == 0) return true;
#endif
    (void)core;
    return false;
}

/* Loads it once more or for the first time; it stays loaded. Integers of 64 bits are another interface, which is not taken. */
static bool openblas(struct gemm *out, bool *lost)
{
    void *library = dlopen(LLMQ_OPENBLAS, RTLD_NOW | RTLD_LOCAL);
    void (*set_threads)(void), (*core)(void), (*config)(void);
    *out = (struct gemm){ "openblas", multiply_openblas, NULL };
    if (!library || !function_of(library, "cblas_sgemm", &out->sgemm) || !function_of(library, "openblas_set_num_threads", &set_threads) ||
        !function_of(library, "openblas_get_corename", &core) || !function_of(library, "openblas_get_config", &config))
        return false;
    if (strstr(((const char *(*)(void))config)(), "USE64BITINT")) return false;
    ((void (*)(int))set_threads)(1);
    *lost = is_lost(((const char *(*)(void))core)());
    return true;
}
#else
static bool openblas(struct gemm *out, bool *lost)
{
    (void)out, (void)lost;
    return false;
}
#endif

/* ---- the choice -------------------------------------------------------------------------------------------------------------------- */

/* Ours, in rising order of speed. */
static const struct own {
    struct gemm gemm;
    bool (*usable)(void);
} own[] = {
    { { "portable", multiply_portable, NULL }, NULL },
#ifdef GEMM_X86
    { { "avx2", multiply_avx2, NULL }, has_avx2 },
    { { "avx512", multiply_avx512, NULL }, has_avx512 },
#endif
};

enum { N_OWN = sizeof own / sizeof own[0] };

bool gemm_at(size_t index, struct gemm *out)
{
    bool lost;
    for (size_t i = 0; i < N_OWN; i++) {
        if (own[i].usable && !own[i].usable()) continue;
        if (index-- == 0) {
            *out = own[i].gemm;
            return true;
        }
    }
    return index == 0 && openblas(out, &lost);
}

struct gemm gemm_select(const char *name)
{
    struct gemm best = own[0].gemm, found;
    bool lost = false;
    for (size_t i = 0; i < N_OWN; i++) {
        if (own[i].usable && !own[i].usable()) continue;
        best = own[i].gemm;
        if (name && strcmp(best.name, name) == 0) return best;
    }
    const bool wanted = name && strcmp(name, "openblas") == 0;
    /* with AVX-512 ours are as fast, and nothing need be loaded */
    if ((wanted || strcmp(best.name, "avx512") != 0) && openblas(&found, &lost) && (wanted || !lost)) return found;
    return best;
}
