/* weights.c: made-up weights from integers alone.
 *
 * Drawing, why, corner cases, reference: weights.h.
 */
#include "support/weights.h"

#include "support/support.h"

enum { OUTLIER_EVERY = 128, OUTLIER_TIMES = 16, LARGEST = (1 << 24) - 1 };

static int64_t uniform(uint64_t *seed)
{
    return (int64_t)(test_random(seed) >> 48);
}

static int64_t gauss(uint64_t *seed)
{
    int64_t sum = -393210;
    for (int i = 0; i < 12; i++) sum += uniform(seed);
    return sum;
}

static int64_t laplace(uint64_t *seed)
{
    for (int64_t k = 0;; k++) {
        const int64_t first = uniform(seed);
        int64_t last = first, next;
        unsigned length = 1;
        while ((next = uniform(seed)) < last) last = next, length++;
        if (length % 2 == 0) continue;
        return uniform(seed) & 1 ? -(k * 65536 + first) : k * 65536 + first;
    }
}

/* The largest r with r * r <= a. */
static int64_t whole_root(int64_t a)
{
    int64_t root = 0;
    for (int64_t bit = INT64_C(1) << 30; bit > 0; bit /= 2)
        if ((root + bit) * (root + bit) <= a) root += bit;
    return root;
}

static int64_t t5(uint64_t *seed)
{
    int64_t squares = 0;
    const int64_t top = gauss(seed) * 65536;
    for (int i = 0; i < 5; i++) {
        const int64_t g = gauss(seed);
        squares += g * g;
    }
    const int64_t root = whole_root(squares / 5), v = top / (root ? root : 1);
    return v > LARGEST ? LARGEST : v < -LARGEST ? -LARGEST : v;
}

static const struct {
    const char *name;
    int64_t (*draw)(uint64_t *seed);
    int64_t outlier; /* factor of one weight of OUTLIER_EVERY */
} kinds[WEIGHTS_KINDS] = {
    [WEIGHTS_GAUSS] = { "gauss", gauss, 1 },
    [WEIGHTS_LAPLACE] = { "laplace", laplace, 1 },
    [WEIGHTS_T5] = { "t5", t5, 1 },
    [WEIGHTS_OUTLIER] = { "outlier", gauss, OUTLIER_TIMES },
};

const char *weights_name(enum weights_kind kind)
{
    return kinds[kind].name;
}

void weights_make(enum weights_kind kind, uint64_t seed, size_t n, float *x)
{
    size_t place = 0;
    for (size_t i = 0; i < n; i++) {
        if (i % OUTLIER_EVERY == 0) place = i + (size_t)uniform(&seed) % OUTLIER_EVERY;
        const int64_t v = kinds[kind].draw(&seed) * (i == place ? kinds[kind].outlier : 1);
        x[i] = (float)v * 0x1p-22f;
    }
}
