/* size.h: checked arithmetic on sizes; every number that comes from a file passes through here before it is used.
 *
 * Each function returns false on overflow and then leaves *out untouched.
 *   size_mul(4294967296, 4294967296, &n) is false: the product is 2^64.
 *
 * Why this way: all but six of the published holes of GGUF readers are one mistake, arithmetic on a file value before it is compared with
 * the bytes that are there.
 * Corner cases: zero factors are allowed; size_align takes a power of two.
 * Reference: compiler builtins (gcc and clang).
 */
#ifndef LLMQ_BASE_SIZE_H
#define LLMQ_BASE_SIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool size_add(uint64_t a, uint64_t b, uint64_t *out)
{
    uint64_t sum;
    if (__builtin_add_overflow(a, b, &sum)) return false;
    *out = sum;
    return true;
}

static inline bool size_mul(uint64_t a, uint64_t b, uint64_t *out)
{
    uint64_t product;
    if (__builtin_mul_overflow(a, b, &product)) return false;
    *out = product;
    return true;
}

/* Rounds n up to a multiple of the power of two align. */
static inline bool size_align(uint64_t n, uint64_t align, uint64_t *out)
{
    uint64_t sum;
    if (__builtin_add_overflow(n, align - 1, &sum)) return false;
    *out = sum & ~(align - 1);
    return true;
}

/* ceil(a / b) for b > 0, without overflow. */
static inline uint64_t size_ceil_div(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

static inline uint64_t size_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t size_max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

#endif
