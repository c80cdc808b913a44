/* kernel_x86.c: the kernels for AVX2 and AVX-512: kernel_body.h compiled for them, and hand-written overrides of single slots.
 *
 * Drawing, one group of mxfp4_bf16 with AVX2: 32 BF16 = 2 registers of 16 x 16 bits -> |x| -> maximum -> scale byte -> 7 compares and subtractions -> codes 0 .. 7 with the sign as
 * bit 3 -> pairs by multiply-add (low + 16 * high) -> 16 bytes.
 * Why this way: function-level targets, so one binary runs everywhere; integer compares are exact, there is nothing to round.
 * Corner cases: as the portable kernel, which the tests compare bit for bit; groups with scale bytes below 3 go the generic way.
 * Reference: NUMERICS.md 3. Worked number: see mxfp4_bf16.h.
 */
#include "number/kernel_x86.h"

#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>
#include <math.h>

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
            mxfp4_codes_tiny(x, b, codes);
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

/* The compiled sets with the overridden slots. */
#define SET(level)                                                                                                                          \
    {                                                                                                                                       \
        .name = #level, .widen_bf16 = widen_bf16_##level, .all_finite = all_finite_##level, .range = range_##level,                         \
        .encode_float = encode_float_##level, .error_float = error_float_##level, .decode_float = decode_float_##level,                     \
        .encode_fixed = encode_fixed_##level, .error_fixed = error_fixed_##level, .encode_int = encode_int_##level,                         \
        .error_int = error_int_##level, .decode_int = decode_int_##level, .measure = measure_##level, .mxfp4_bf16 = mxfp4_bf16_intrinsics,  \
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
