/* kernel_x86.c: the kernels for AVX2 and AVX-512: kernel_body.h compiled for them, and hand-written overrides of single slots.
 *
 * Drawing, one group of mxfp4_bf16 with AVX2: 32 BF16 = 2 registers of 16 x 16 bits -> |x| -> maximum -> scale byte -> 7 compares and subtractions
 * -> codes 0 .. 7 with the sign as bit 3 -> pairs by multiply-add (low + 16 * high) -> 16 bytes.
 * Why this way: function-level targets, so one binary runs everywhere. Overridden are only the slots that compilers do not get right from plain C:
 * those of MXFP4, whose integer compares are exact, and the MX search, which does the operations of chunk.h one by one. What AVX2 does well serves
 * AVX-512 too.
 * Corner cases: as the portable kernel, which the tests compare bit for bit; groups with scale bytes below 3 go the generic way.
 * Reference: NUMERICS.md 3. Worked number: see mxfp4_bf16.h.
 */
#include "number/kernel_x86.h"

#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>
#include <math.h>

#include "number/chunk.h"
#include "number/half.h"
#include "number/kernel.h"
#include "number/mxfp4_bf16.h"

#define KERNEL(name) name##_avx2
#define KERNEL_TARGET __attribute__((target("avx2")))
#include "number/kernel_body.h"
#undef KERNEL
#undef KERNEL_TARGET

#define KERNEL(name) name##_avx512
#if defined(__clang__)
#define KERNEL_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#else
#define KERNEL_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")))
#endif
#include "number/kernel_body.h"
#undef KERNEL
#undef KERNEL_TARGET

#define AVX2 __attribute__((target("avx2")))

static inline AVX2 uint32_t max_of_16(__m256i sizes)
{
    __m128i m = _mm_max_epi16(_mm256_castsi256_si128(sizes), _mm256_extracti128_si256(sizes, 1));
    /* the minimum of 0xFFFF - x is the maximum of x; minpos finds it in one instruction */
    m = _mm_minpos_epu16(_mm_xor_si128(m, _mm_set1_epi16(-1)));
    return 0xFFFFu & ~(uint32_t)_mm_cvtsi128_si32(m);
}

static inline AVX2 __m256i codes_of_16(__m256i x, __m256i size, const __m256i limits[7])
{
    __m256i code = _mm256_and_si256(_mm256_srli_epi16(x, 12), _mm256_set1_epi16(8));
    for (int k = 0; k < 7; k++) code = _mm256_sub_epi16(code, _mm256_cmpgt_epi16(size, limits[k]));
    return code;
}

static AVX2 bool mxfp4_bf16_intrinsics(const uint8_t *stored, size_t n_groups, enum scale_rule rule, uint8_t *codes, uint8_t *scales)
{
    const __m256i size_mask = _mm256_set1_epi16(0x7FFF), pair = _mm256_set1_epi32(16 << 16 | 1);
    /* (limit - 1) for b = 0; limits grow by 128 a step of b */
    const int16_t base[7] = { -256, -128 + 63, 32, 95, 128 + 32, 128 + 95, 256 + 32 };
    uint32_t worst = 0;
    for (size_t g = 0; g < n_groups; g++, stored += 64, codes += 16) {
        __m256i x0 = _mm256_loadu_si256((const __m256i *)(const void *)stored);
        __m256i x1 = _mm256_loadu_si256((const __m256i *)(const void *)(stored + 32));
        __m256i size0 = _mm256_and_si256(x0, size_mask), size1 = _mm256_and_si256(x1, size_mask);
        uint32_t amax = max_of_16(_mm256_max_epi16(size0, size1));
        worst = amax > worst ? amax : worst;
        int b = mxfp4_scale_byte(amax, rule);
        scales[g] = (uint8_t)b;
        if (b < 3) {
            uint16_t x[32];
            memcpy(x, stored, sizeof x);
            mxfp4_codes_tiny(x, amax, b, codes);
            continue;
        }
        __m256i limits[7];
        for (int k = 0; k < 7; k++) limits[k] = _mm256_set1_epi16((int16_t)(base[k] + b * 128));
        __m256i pairs0 = _mm256_madd_epi16(codes_of_16(x0, size0, limits), pair);
        __m256i pairs1 = _mm256_madd_epi16(codes_of_16(x1, size1, limits), pair);
        __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(pairs0, pairs1), 0xD8);
        __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        _mm_storeu_si128((__m128i *)(void *)codes, bytes);
    }
    return worst < 0x7F80u;
}

/* Four groups of 8 weights: the code picks one of eight magnitudes, its bit 3 is the sign. */
static AVX2 void mxfp4_f32_intrinsics(const uint8_t *codes, const uint8_t *scales, size_t n_groups, float *y)
{
    const __m256 magnitudes = _mm256_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f);
    const __m256i sign_bit = _mm256_set1_epi32((int32_t)0x80000000u);
    for (size_t g = 0; g < n_groups; g++, codes += 16) {
        const __m256 value = _mm256_set1_ps(scale_load(SCALE_E8M0, scales[g]));
        const __m128i packed = _mm_loadu_si128((const __m128i *)(const void *)codes), low_mask = _mm_set1_epi8(15);
        const __m128i low = _mm_and_si128(packed, low_mask), high = _mm_and_si128(_mm_srli_epi16(packed, 4), low_mask);
        const __m128i halves[2] = { _mm_unpacklo_epi8(low, high), _mm_unpackhi_epi8(low, high) };
        for (int k = 0; k < 4; k++, y += 8) {
            __m256i code = _mm256_cvtepu8_epi32(k % 2 ? _mm_srli_si128(halves[k / 2], 8) : halves[k / 2]);
            __m256 sign = _mm256_castsi256_ps(_mm256_and_si256(_mm256_slli_epi32(code, 28), sign_bit));
            __m256 size = _mm256_permutevar8x32_ps(magnitudes, code);
            _mm256_storeu_ps(y, _mm256_mul_ps(_mm256_or_ps(size, sign), value));
        }
    }
}

/* ---- MX search ------------------------------------------------------------------------------------------------------------------ */

/* |x * multiplier| */
static inline AVX2 __m256 sizes_of_8(const float *x, __m256 multiplier)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), _mm256_mul_ps(_mm256_loadu_ps(x), multiplier));
}

static inline AVX2 __m256i powers_of_8(__m256 size)
{
    return _mm256_and_si256(_mm256_castps_si256(size), _mm256_set1_epi32(0x7F800000));
}

/* sum plus the search_term of 8 weights */
static inline AVX2 __m256 add_terms_of_8(__m256 sum, __m256 size, __m256i power, struct search_grid grid, __m256i lift)
{
    __m256 magic = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_max_epi32(power, _mm256_set1_epi32(grid.lowest)), lift));
    __m256 r = _mm256_min_ps(_mm256_sub_ps(_mm256_add_ps(size, magic), magic), _mm256_set1_ps(grid.max));
    __m256 d = _mm256_sub_ps(size, r);
    return _mm256_add_ps(sum, _mm256_mul_ps(d, d));
}

/* The trees of two sets of lanes, 0 .. 7 and 8 .. 15 each; the sums are elements 0 and 2. */
static inline AVX2 __m128 sums_of_lanes(const __m256 a[2], const __m256 b[2])
{
    __m256 a8 = _mm256_add_ps(a[0], a[1]), b8 = _mm256_add_ps(b[0], b[1]);
    __m128 a4 = _mm_add_ps(_mm256_castps256_ps128(a8), _mm256_extractf128_ps(a8, 1));
    __m128 b4 = _mm_add_ps(_mm256_castps256_ps128(b8), _mm256_extractf128_ps(b8, 1));
    __m128 two = _mm_add_ps(_mm_movelh_ps(a4, b4), _mm_movehl_ps(b4, a4));
    return _mm_add_ps(two, _mm_movehdup_ps(two));
}

static AVX2 void search_intrinsics(const struct elem *elem, const struct groups *groups, const struct range *ranges, const float *x, int8_t *steps)
{
    const struct coding coding = coding_of(elem, ROUND_NEAREST_EVEN);
    const struct search_grid here = search_grid_of(&coding, 0), above = search_grid_of(&coding, 1), below = search_grid_of(&coding, -1);
    const __m256i lift = _mm256_set1_epi32(coding.lift);
    const size_t group = groups->group;
    for (size_t g = 0; g < groups->n / group; g++, x += group) {
        const float scalar = exact_exp2(127 - (int32_t)groups->scales[g].bits);
        const __m256 multiplier = _mm256_set1_ps(scalar), zero = _mm256_setzero_ps();
        __m256 a[2] = { zero, zero }, b[2] = { zero, zero };
        for (size_t i = 0; i < group; i += 16)
            for (int k = 0; k < 2; k++) {
                __m256 size = sizes_of_8(x + i + 8 * k, multiplier);
                __m256i power = powers_of_8(size);
                a[k] = add_terms_of_8(a[k], size, power, here, lift);
                b[k] = add_terms_of_8(b[k], size, power, above, lift);
            }
        __m128 sums = sums_of_lanes(a, b);
        float here_sum = _mm_cvtss_f32(sums), above_sum = _mm_cvtss_f32(_mm_movehl_ps(sums, sums));
        float least = above_sum < here_sum ? above_sum : here_sum;
        steps[g] = above_sum < here_sum;
        if (search_hopeless(ranges[g], scalar, below, least)) continue;
        __m256 c[2] = { zero, zero };
        for (size_t i = 0; i < group; i += 16)
            for (int k = 0; k < 2; k++) {
                __m256 size = sizes_of_8(x + i + 8 * k, multiplier);
                c[k] = add_terms_of_8(c[k], size, powers_of_8(size), below, lift);
            }
        if (_mm_cvtss_f32(sums_of_lanes(c, c)) < least) steps[g] = -1;
    }
}

/* The compiled sets with the overridden slots. */
#define SET(level)                                                                                                                                   \
    {                                                                                                                                                \
        .name = #level, .widen_bf16 = widen_bf16_##level, .all_finite = all_finite_##level, .ranges = ranges_##level, .encode = encode_##level,      \
        .decode = decode_##level, .error = error_##level, .errors = errors_##level, .terms = terms_##level, .search = search_intrinsics,             \
        .measure = measure_##level, .mxfp4_bf16 = mxfp4_bf16_intrinsics, .mxfp4_f32 = mxfp4_f32_intrinsics,                                          \
    }

static const struct kernels sets[] = { SET(avx2), SET(avx512) };
static const char *const set_names[] = { "avx2", "avx512" };

size_t kernels_x86_count(void)
{
    if (!__builtin_cpu_supports("avx2")) return 0;
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
    return avx512 ? 2 : 1;
}

const struct kernels *kernels_x86_at(size_t index)
{
    return &sets[index];
}

bool kernels_x86_known(const char *name)
{
    for (size_t i = 0; i < sizeof set_names / sizeof set_names[0]; i++)
        if (strcmp(set_names[i], name) == 0) return true;
    return false;
}

#else

size_t kernels_x86_count(void)
{
    return 0;
}

const struct kernels *kernels_x86_at(size_t index)
{
    (void)index;
    return NULL;
}

bool kernels_x86_known(const char *name)
{
    return strcmp(name, "avx2") == 0 || strcmp(name, "avx512") == 0;
}

#endif
