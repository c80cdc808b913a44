/* test_budget_solve.c: the choice under a budget against enumeration of all choices, and its bound on large cases.
 *
 * Drawing: every choice of every item counted through like a clock; least (error, cost) within the budget.
 * Why this way: enumeration shares nothing with hulls, slopes or states. Whole and halved errors are exact in binary64, so ties are ties.
 * Corner cases: equal costs, no errors, equal options, budgets from too small to more than enough, values near the ends of their types.
 * Reference: budget_solve.h. Worked number: {0: 10, 4: 2}, {0: 9, 6: 0} and 7 bits: options 0 and 1, error 10.
 */
#include "support/support.h"

#include <float.h>
#include <math.h>
#include <time.h>

#include "converter/budget_solve.h"

enum { ITEMS_MAX = 8, OPTIONS_MAX = 6 };

struct model {
    struct budget_option options[ITEMS_MAX][OPTIONS_MAX];
    struct budget_item items[ITEMS_MAX];
    size_t n_items;
};

/* Least error of all choices within the budget, and of those the least cost. False when there is none. */
static bool enumerate(const struct model *model, uint64_t budget, double *error, uint64_t *cost)
{
    size_t at[ITEMS_MAX] = { 0 };
    bool found = false;
    for (;;) {
        double e = 0.0;
        uint64_t c = 0;
        for (size_t i = 0; i < model->n_items; i++) {
            e += model->options[i][at[i]].error;
            c += model->options[i][at[i]].cost_bits;
        }
        if (c <= budget && (!found || e < *error || (e == *error && c < *cost))) {
            found = true;
            *error = e;
            *cost = c;
        }
        size_t i = 0;
        while (i < model->n_items && ++at[i] == model->items[i].n_options) at[i++] = 0;
        if (i == model->n_items) return found;
    }
}

static void check_answer(const struct model *model, uint64_t budget, const size_t *choices, const struct budget_answer *answer)
{
    double error = 0.0;
    uint64_t cost = 0;
    for (size_t i = 0; i < model->n_items; i++) {
        assert_true(choices[i] < model->items[i].n_options);
        error += model->options[i][choices[i]].error;
        cost += model->options[i][choices[i]].cost_bits;
    }
    assert_true(answer->error == error && answer->cost_bits == cost && cost <= budget);
    assert_true(answer->bound <= answer->error && (!answer->exact || answer->bound == answer->error));
}

static void check(const struct model *model, uint64_t budget, bool ties)
{
    struct err err;
    struct budget_answer answer = { 0 };
    size_t choices[ITEMS_MAX] = { 0 };
    double error = 0.0;
    uint64_t cost = 0;
    const bool found = enumerate(model, budget, &error, &cost);
    if (!found) {
        assert_refused(budget_solve(model->items, model->n_items, budget, choices, &answer, &err), ERR_USAGE, "at least");
        return;
    }
    assert_ok(budget_solve(model->items, model->n_items, budget, choices, &answer, &err));
    check_answer(model, budget, choices, &answer);
    assert_true(answer.exact);
    if (ties && (answer.error != error || answer.cost_bits != cost))
        fail_msg("budget %llu: %g in %llu bits, best is %g in %llu", (unsigned long long)budget, answer.error, (unsigned long long)answer.cost_bits,
                 error, (unsigned long long)cost);
    if (fabs(answer.error - error) > 1e-13 * error) fail_msg("budget %llu: %.17g, best is %.17g", (unsigned long long)budget, answer.error, error);
}

/* ---- made-up models ---------------------------------------------------------------------------------------------------------------- */

static double uniform(uint64_t *seed)
{
    return (double)(test_random(seed) >> 11) * 0x1p-53;
}

enum kind { WHOLE, REAL, LIKE_FORMATS, EQUAL_ITEMS, ZEROS, WIDE, KINDS };

/* One option of kind. */
static struct budget_option draw_option(enum kind kind, size_t item, size_t k, uint64_t *seed)
{
    const uint64_t bits = 2 + test_random(seed) % 7;
    if (kind == WHOLE) return (struct budget_option){ test_random(seed) % 20, (double)(test_random(seed) % 12) };
    if (kind == REAL) return (struct budget_option){ test_random(seed) % 1000000, uniform(seed) };
    if (kind == LIKE_FORMATS)
        return (struct budget_option){ bits * 4096 * (1 + item % 3),
                                       (1.0 + 0.2 * uniform(seed)) * exp2(-2.0 * (double)bits) * (double)(1 + item % 3) };
    if (kind == EQUAL_ITEMS) return (struct budget_option){ 3 * k + 1, 0x1p-1 * (double)((OPTIONS_MAX - k) * (OPTIONS_MAX - k)) };
    if (kind == ZEROS) return (struct budget_option){ test_random(seed) % 3, test_random(seed) % 2 ? 0.0 : (double)(test_random(seed) % 2) };
    return (struct budget_option){ (uint64_t)1 << test_random(seed) % 58, exp2(40.0 * uniform(seed) - 20.0) };
}

static void draw_model(struct model *model, enum kind kind, uint64_t *seed)
{
    model->n_items = 1 + test_random(seed) % (ITEMS_MAX - 2);
    for (size_t i = 0; i < model->n_items; i++) {
        const size_t n = kind == EQUAL_ITEMS ? OPTIONS_MAX : 1 + test_random(seed) % OPTIONS_MAX;
        model->items[i] = (struct budget_item){ model->options[i], n };
        for (size_t k = 0; k < n; k++) model->options[i][k] = draw_option(kind, i, k, seed);
    }
}

/* A budget between somewhat too little and more than enough. */
static uint64_t draw_budget(const struct model *model, uint64_t *seed)
{
    uint64_t least = 0, most = 0;
    for (size_t i = 0; i < model->n_items; i++) {
        uint64_t low = UINT64_MAX, high = 0;
        for (size_t k = 0; k < model->items[i].n_options; k++) {
            const uint64_t cost = model->options[i][k].cost_bits;
            if (cost < low) low = cost;
            if (cost > high) high = cost;
        }
        least += low;
        most += high;
    }
    const double share = 1.1 * uniform(seed) - 0.02;
    return (uint64_t)fmax(0.0, (double)least + share * (double)(most - least));
}

static void test_against_enumeration(void **state)
{
    (void)state;
    uint64_t seed = 7;
    struct model model;
    for (int round = 0; round < 600; round++)
        for (enum kind kind = 0; kind < KINDS; kind++) {
            draw_model(&model, kind, &seed);
            for (int b = 0; b < 3; b++) check(&model, draw_budget(&model, &seed), kind != REAL && kind != LIKE_FORMATS && kind != WIDE);
        }
}

/* ---- single cases ------------------------------------------------------------------------------------------------------------------ */

struct single {
    const char *what;
    size_t n_items, n_options;
    struct budget_option options[3][3];
    uint64_t budget;
    size_t choices[3];
};

static const struct single singles[] = {
    { "the worked number", 2, 2, { { { 0, 10 }, { 4, 2 } }, { { 0, 9 }, { 6, 0 } } }, 7, { 0, 1 } },
    { "all fit", 2, 2, { { { 0, 10 }, { 4, 2 } }, { { 0, 9 }, { 6, 0 } } }, 10, { 1, 1 } },
    { "nothing but the least fits", 2, 2, { { { 5, 10 }, { 9, 2 } }, { { 7, 9 }, { 13, 0 } } }, 12, { 0, 0 } },
    { "equal errors take fewer bits", 1, 3, { { { 8, 1 }, { 4, 1 }, { 6, 1 } } }, 8, { 1 } },
    { "equal options take the first", 1, 3, { { { 4, 1 }, { 4, 1 }, { 4, 1 } } }, 4, { 0 } },
    { "two ways of one error, one smaller", 2, 2, { { { 0, 4 }, { 5, 1 } }, { { 0, 3 }, { 3, 0 } } }, 7, { 0, 1 } },
    { "a beaten option", 1, 3, { { { 2, 5 }, { 3, 6 }, { 9, 1 } } }, 8, { 0 } },
    { "no errors at all", 2, 2, { { { 9, 0 }, { 8, 0 } }, { { 1, 0 }, { 2, 0 } } }, 100, { 1, 0 } },
    { "an option that nothing pays for", 2, 2, { { { 1, 5 }, { UINT64_MAX, 0 } }, { { 1, 5 }, { 2, 0 } } }, 50, { 0, 1 } },
    { "no budget too large", 2, 2, { { { 1, 5 }, { 1ull << 61, 0 } }, { { 1, 5 }, { 1ull << 60, 0 } } }, UINT64_MAX, { 1, 1 } },
    { "half of the largest budget", 2, 2, { { { 1, 5 }, { 1ull << 62, 0 } }, { { 1, 4 }, { (1ull << 62) - 1, 0 } } }, UINT64_MAX, { 0, 1 } },
    { "no budget, no bits", 2, 2, { { { 0, 5 }, { 1, 0 } }, { { 0, 5 }, { 1, 0 } } }, 0, { 0, 0 } },
    { "one item beyond hope hides no others",
      3,
      2,
      { { { 1, 1e200 }, { 90, 9e199 } }, { { 1, 3e-9 }, { 2, 1e-9 } }, { { 1, 2e-9 }, { 2, 1e-9 } } },
      4,
      { 0, 1, 0 } },
    { "least errors of binary64", 2, 2, { { { 1, 0x1p-1074 }, { 2, 0 } }, { { 1, 0x1p-1073 }, { 2, 0 } } }, 3, { 0, 1 } },
    { "inside the hull", 2, 3, { { { 0, 100 }, { 5, 51 }, { 9, 0 } }, { { 0, 10 }, { 4, 0 }, { 9, 9 } } }, 6, { 1, 0 } },
};

static void test_singles(void **state)
{
    (void)state;
    struct err err;
    for (size_t n = 0; n < sizeof singles / sizeof singles[0]; n++) {
        const struct single *single = &singles[n];
        struct budget_item items[3];
        struct budget_answer answer;
        size_t choices[3];
        for (size_t i = 0; i < single->n_items; i++) items[i] = (struct budget_item){ single->options[i], single->n_options };
        assert_ok(budget_solve(items, single->n_items, single->budget, choices, &answer, &err));
        for (size_t i = 0; i < single->n_items; i++)
            if (choices[i] != single->choices[i]) fail_msg("%s: item %zu: %zu, not %zu", single->what, i, choices[i], single->choices[i]);
        assert_true(answer.exact && answer.bound == answer.error && answer.cost_bits <= single->budget);
    }
}

static void test_refused(void **state)
{
    (void)state;
    struct err err;
    struct budget_answer answer;
    size_t choices[2];
    const struct budget_option fine[] = { { 60, 1.0 }, { 100, 0.0 } }, huge[] = { { UINT64_MAX, 0.0 } };
    const struct budget_item two[] = { { fine, 2 }, { fine, 2 } }, none[] = { { fine, 2 }, { fine, 0 } }, overflow[] = { { huge, 1 }, { huge, 1 } };
    assert_refused(budget_solve(two, 2, 119, choices, &answer, &err), ERR_USAGE, "at least 120 bits, 1 more");
    assert_refused(budget_solve(none, 2, 200, choices, &answer, &err), ERR_USAGE, "item 1 has nothing");
    assert_refused(budget_solve(overflow, 2, UINT64_MAX, choices, &answer, &err), ERR_USAGE, "more than 2^64");
    assert_refused(budget_solve(overflow, 1, UINT64_MAX, choices, &answer, &err), ERR_USAGE, "at least 18446744073709551615");
    static const double bad[] = { -1.0, (double)NAN, HUGE_VAL, DBL_MAX };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const struct budget_option option = { 1, bad[i] };
        const struct budget_item item = { &option, 1 };
        assert_refused(budget_solve(&item, 1, 9, choices, &answer, &err), ERR_DATA, "option 0 of item 0");
    }
    assert_ok(budget_solve(NULL, 0, 0, NULL, &answer, &err));
    assert_true(answer.exact && answer.cost_bits == 0 && answer.error == 0.0);
}

/* ---- middle-sized cases against a table over all budgets ---------------------------------------------------------------------------- */

enum { TABLE_ITEMS = 40, TABLE_OPTIONS = 5, TABLE_BITS = 2048 };

/* Least error with at most b bits, for each b: the textbook's way, item after item. */
static void fill_table(const struct budget_item *items, size_t n_items, double *table)
{
    static double next[TABLE_BITS];
    for (size_t b = 0; b < TABLE_BITS; b++) table[b] = 0.0;
    for (size_t i = 0; i < n_items; i++) {
        for (size_t b = 0; b < TABLE_BITS; b++) {
            next[b] = HUGE_VAL;
            for (size_t k = 0; k < items[i].n_options; k++) {
                const struct budget_option *option = &items[i].options[k];
                if (option->cost_bits <= b) next[b] = fmin(next[b], table[b - option->cost_bits] + option->error);
            }
        }
        memcpy(table, next, sizeof next);
    }
}

static void test_against_table(void **state)
{
    (void)state;
    static double table[TABLE_BITS];
    static struct budget_option options[TABLE_ITEMS][TABLE_OPTIONS];
    struct budget_item items[TABLE_ITEMS];
    uint64_t seed = 11;
    size_t choices[TABLE_ITEMS], n_exact = 0, n_checked = 0;
    struct budget_answer answer;
    struct err err;
    for (int round = 0; round < 60; round++) {
        const bool hard = round % 3 == 0; /* error falls with cost by nearly the same slope everywhere */
        for (size_t i = 0; i < TABLE_ITEMS; i++) {
            items[i] = (struct budget_item){ options[i], TABLE_OPTIONS };
            for (size_t k = 0; k < TABLE_OPTIONS; k++) {
                const uint64_t cost = test_random(&seed) % 50;
                const uint64_t error = hard ? 20 * (50 - cost) + test_random(&seed) % 5 : test_random(&seed) % 1000;
                options[i][k] = (struct budget_option){ cost, (double)error };
            }
        }
        fill_table(items, TABLE_ITEMS, table);
        for (uint64_t budget = 100; budget < TABLE_BITS; budget += 61) {
            if (table[budget] == HUGE_VAL) {
                assert_refused(budget_solve(items, TABLE_ITEMS, budget, choices, &answer, &err), ERR_USAGE, "at least");
                continue;
            }
            assert_ok(budget_solve(items, TABLE_ITEMS, budget, choices, &answer, &err));
            assert_true(answer.cost_bits <= budget && answer.bound <= table[budget] && table[budget] <= answer.error);
            assert_true(!answer.exact || (answer.error == table[budget] && (answer.cost_bits == 0 || table[answer.cost_bits - 1] > answer.error)));
            n_exact += answer.exact;
            n_checked++;
        }
    }
    print_message("%zu of %zu exact\n", n_exact, n_checked);
    assert_true(n_exact == n_checked);
}

/* ---- large cases ------------------------------------------------------------------------------------------------------------------- */

enum { LARGE_ITEMS = 10000, LARGE_OPTIONS = 10 };

/* Of random numbers; like formats; equal items of odd costs; costs that follow errors closely: the hard ones of the literature. */
static struct budget_option large_option(int kind, size_t item, size_t k, uint64_t *seed)
{
    const double size = (double)(1 + item % 5), bits = 2.0 + 0.75 * (double)k;
    if (kind == 0) return (struct budget_option){ 1 + test_random(seed) % 10000000, uniform(seed) };
    if (kind == 1) return (struct budget_option){ (uint64_t)(bits * size) << 16, (1.0 + 0.3 * uniform(seed)) * exp2(-2.0 * bits) * size };
    if (kind == 2) return (struct budget_option){ 1 + 7 * k, exp2(-2.0 * bits) };
    const uint64_t cost = 1 + test_random(seed) % 10000000;
    return (struct budget_option){ cost, 1.0 - 1e-7 * (double)cost + 1e-3 * uniform(seed) };
}

static void test_large(void **state)
{
    (void)state;
    struct err err;
    uint64_t seed = 3;
    struct budget_option *options = malloc(LARGE_ITEMS * LARGE_OPTIONS * sizeof *options);
    struct budget_item *items = malloc(LARGE_ITEMS * sizeof *items);
    size_t *choices = malloc(LARGE_ITEMS * sizeof *choices);
    assert_true(options && items && choices);
    for (int kind = 0; kind < 4; kind++)
        for (int share = 1; share < 8; share += 3) {
            uint64_t budget = 0;
            for (size_t i = 0; i < LARGE_ITEMS; i++) {
                struct budget_option *own = options + i * LARGE_OPTIONS;
                uint64_t low = UINT64_MAX, high = 0;
                for (size_t k = 0; k < LARGE_OPTIONS; k++) {
                    own[k] = large_option(kind, i, k, &seed);
                    if (own[k].cost_bits < low) low = own[k].cost_bits;
                    if (own[k].cost_bits > high) high = own[k].cost_bits;
                }
                items[i] = (struct budget_item){ own, LARGE_OPTIONS };
                budget += low + (high - low) * (uint64_t)share / 8;
            }
            struct budget_answer answer;
            const clock_t start = clock();
            assert_ok(budget_solve(items, LARGE_ITEMS, budget, choices, &answer, &err));
            const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
            print_message("kind %d, share %d/8: %.2f s, error %.6g, gap %.2g of it%s\n", kind, share, seconds, answer.error,
                          (answer.error - answer.bound) / answer.error, answer.exact ? ", exact" : "");
            assert_true(answer.cost_bits <= budget && answer.bound <= answer.error);
            assert_true(answer.error - answer.bound <= 1e-4 * answer.error);
            assert_true(seconds < 20.0); /* 1 s is the aim; sanitizers and shared machines take longer */
        }
    free(options);
    free(items);
    free(choices);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_enumeration),
        cmocka_unit_test(test_against_table),
        cmocka_unit_test(test_singles),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
