/* made_table.h: a made-up table of results, as a sweep would give it, for tests of what is made of it.
 *
 * Why this way: pages are tested without a model; every figure follows from the numbers of variant, layer and role, so a test can say what it must be.
 * Corner cases: a tensor with the most hostile of names (made_hostile_name), kept tensors, skipped variants, a variant without a total, infinities and
 * figures that were not measured.
 * Reference: converter/sweep_table.h.
 */
#ifndef LLMQ_TESTS_MADE_TABLE_H
#define LLMQ_TESTS_MADE_TABLE_H

#include "converter/sweep_table.h"

/* What is asked of the table. */
struct made {
    size_t n_layers;
    size_t n_variants; /* at most 12; two skipped ones come on top where there is more than one */
    bool perplexity; /* totals have it, and KL */
    bool weighted;
    bool hostile; /* one tensor, one setting and the model have hostile names */
};

extern const char made_hostile_name[];

/* A new table; the caller frees it with made_table_free. */
struct sweep_table *made_table(const struct made *made);
void made_table_free(struct sweep_table *table);

#endif
