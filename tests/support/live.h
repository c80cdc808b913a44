/* live.h: the bundled model, opened to be run, for the tests of the forward pass.
 *
 * Why this way: four test programs begin with the same five calls.
 * Corner cases: fails the test when anything fails.
 * Reference: smoothquant/forward.h.
 */
#ifndef LLMQ_TESTS_LIVE_H
#define LLMQ_TESTS_LIVE_H

#include "smoothquant/arch.h"
#include "smoothquant/forward.h"

struct live {
    struct container *container;
    struct arch *arch;
    struct arch_model *model;
    struct forward_options options; /* 2 workers, 64 MiB, our preferred product of matrices */
};

/* The model at path; NULL: tests/data/tiny-llama (258 entries, 3 layers, hidden 256, 8 heads on 4 of 32, 352 channels). */
void live_open(struct live *live, const char *path);
void live_close(struct live *live);

/* n ids below vocab, a fixed sequence. */
void live_ids(int32_t *ids, size_t n, size_t vocab);

#endif
