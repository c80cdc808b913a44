/* kernel_x86.h: the kernel sets of x86-64, in rising order; empty elsewhere.
 *
 * Why this way: kernel_ref.c owns the choice, this file owns the instruction sets.
 * Corner cases: sets that the processor (or the operating system's saved state) lacks are not listed.
 * Reference: design.md 4. Example: on a processor with AVX-512F, BW, DQ and VL: "avx2", "avx512".
 */
#ifndef LLMQ_NUMBER_KERNEL_X86_H
#define LLMQ_NUMBER_KERNEL_X86_H

#include <stdbool.h>
#include <stddef.h>

struct kernels;

size_t kernels_x86_count(void);
const struct kernels *kernels_x86_at(size_t index);

/* True for a name this build knows, whether or not the processor has it. */
bool kernels_x86_known(const char *name);

#endif
