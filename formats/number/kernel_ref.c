/* kernel_ref.c: the portable kernel set, the one that defines the bits, and the choice between sets.
 *
 * Formula: kernel_body.h.
 * Why this way: design.md 4: portable reference first, overrides in a table, one list for tests and benchmarks.
 * Corner cases: on processors other than x86-64 this set is the only one.
 * Reference: NUMERICS.md. Worked number: lanes 1, 2, .. 16 sum to 136.
 */
#include <math.h>
#include <string.h>

#include "number/chunk.h"
#include "number/half.h"
#include "number/kernel.h"
#include "number/kernel_x86.h"
#include "number/mxfp4_bf16.h"

#define KERNEL(name) name##_portable
#define KERNEL_TARGET
#include "number/kernel_body.h"

static const struct kernels portable = {
    .name = "portable",
    .widen_bf16 = widen_bf16_portable,
    .all_finite = all_finite_portable,
    .ranges = ranges_portable,
    .encode = encode_portable,
    .decode = decode_portable,
    .error = error_portable,
    .errors = errors_portable,
    .terms = terms_portable,
    .search = search_portable,
    .measure = measure_portable,
    .mxfp4_bf16 = mxfp4_bf16_portable,
    .mxfp4_f32 = mxfp4_f32_portable,
};

size_t kernels_count(void)
{
    return 1 + kernels_x86_count();
}

const struct kernels *kernels_at(size_t index)
{
    return index == 0 ? &portable : kernels_x86_at(index - 1);
}

const struct kernels *kernels_select(const char *most)
{
    size_t best = kernels_count() - 1;
    if (!most || !*most) return kernels_at(best);
    for (size_t i = 0; i <= best; i++)
        if (strcmp(kernels_at(i)->name, most) == 0) return kernels_at(i);
    return kernels_x86_known(most) ? kernels_at(best) : kernels_at(0);
}
