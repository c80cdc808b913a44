/* learn_case.h: cases of tests/golden/learn.json.
 *
 * Why this way: groups in memory and streams read the same rows.
 * Corner cases: a file that is missing or lacks a member fails the test.
 * Reference: header of tests/oracle_learn.py.
 */
#ifndef LLMQ_TESTS_LEARN_CASE_H
#define LLMQ_TESTS_LEARN_CASE_H

#include "number/learn.h"

struct learn_case {
    const char *name;
    enum learn_rule rule;
    struct learn_params params;
    int32_t code_min, code_max;
    size_t n, span;
    float *x, *weight; /* weight may be NULL */
    uint32_t scale;
    int32_t zero;
    uint64_t loss, start_loss; /* bits of binary64 */
    uint32_t judged;
};

/* Calls check for each case of a list; returns how many there were. */
size_t learn_cases(const char *list, void (*check)(const struct learn_case *golden));

/* Fails the test unless the result is the case's, bit for bit. */
void learn_case_check(const struct learn_case *golden, const struct learned *learned);

#endif
