/* test_forward_rope.c: frequencies of every scaling (numbers of a Python reading of the definitions), and the turn itself. */
#include "smoothquant/forward_rope.h"
#include "support/support.h"

#include <math.h>

static void near(double found, double wanted, const char *what)
{
    if (!(fabs(found - wanted) <= 1e-6 * (1.0 + fabs(wanted)))) fail_msg("%s is %.12g, wanted %.12g", what, found, wanted);
}

static const float short_factors[] = { 1, 2, 4, 8 }, long_factors[] = { 2, 3, 5, 7 };

/* theta 10000 and 8 dims: plain frequencies 1, .1, .01, .001 */
static const struct {
    const char *name;
    struct rope rope;
    size_t length;
    double frequencies[4], factor;
} cases[] = {
    { "plain", { .theta = 10000, .n_dims = 8 }, 9, { 1, 0.1, 0.01, 0.001 }, 1 },
    { "linear", { .scaling = ROPE_LINEAR, .theta = 10000, .n_dims = 8, .factor = 4 }, 9, { 0.25, 0.025, 0.0025, 0.00025 }, 1 },
    /* old 64: turns in it 10.19, 1.0186, 0.10186, 0.010186; low 1, high 4: kept, s = 0.0062, scaled, scaled */
    { "llama3",
      { .scaling = ROPE_LLAMA3, .theta = 10000, .n_dims = 8, .factor = 8, .old_positions = 64, .low = 1, .high = 4 },
      9,
      { 1, 0.0130418942, 0.00125, 0.000125 },
      1 },
    /* dims of 32 and 1 turns: below 0 and 1.008, so the ramp is 0 .. 2: shares 0, 0.5, 1, 1 */
    { "yarn",
      { .scaling = ROPE_YARN, .theta = 10000, .n_dims = 8, .factor = 4, .old_positions = 64 },
      9,
      { 1, 0.0625, 0.0025, 0.00025 },
      1.138629436 },
    { "yarn given",
      { .scaling = ROPE_YARN, .theta = 10000, .n_dims = 8, .factor = 4, .old_positions = 64, .attention_factor = 1.5 },
      9,
      { 1, 0.0625, 0.0025, 0.00025 },
      1.5 },
    { "longrope short",
      { .scaling = ROPE_LONGROPE,
        .theta = 10000,
        .n_dims = 8,
        .old_positions = 16,
        .max_positions = 64,
        .factors_short = short_factors,
        .factors_long = long_factors },
      16,
      { 1, 0.05, 0.0025, 0.000125 },
      1.224744871 },
    { "longrope long",
      { .scaling = ROPE_LONGROPE,
        .theta = 10000,
        .n_dims = 8,
        .old_positions = 16,
        .max_positions = 64,
        .factors_short = short_factors,
        .factors_long = long_factors },
      17,
      { 0.5, 0.0333333333, 0.002, 0.000142857143 },
      1.224744871 },
    { "factors of a file", { .theta = 10000, .n_dims = 8, .factors_short = short_factors }, 9, { 1, 0.05, 0.0025, 0.000125 }, 1 },
    { "dynamic", { .scaling = ROPE_DYNAMIC, .theta = 10000, .n_dims = 8, .factor = 2, .old_positions = 16 }, 16, { 1, 0.1, 0.01, 0.001 }, 1 },
    /* theta (2 * 32 / 16 - 1)^(8 / 6) = 43267.487 */
    { "dynamic long",
      { .scaling = ROPE_DYNAMIC, .theta = 10000, .n_dims = 8, .factor = 2, .old_positions = 16 },
      32,
      { 1, 0.0693361274, 0.00480749857, 0.000333333333 },
      1 },
};

static void test_frequencies(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double found[4], factor;
        rope_frequencies(&cases[i].rope, cases[i].length, found, &factor);
        for (size_t k = 0; k < 4; k++) near(found[k], cases[i].frequencies[k], cases[i].name);
        near(factor, cases[i].factor, cases[i].name);
    }
    assert_int_equal(rope_long_from(&cases[0].rope), SIZE_MAX);
    assert_int_equal(rope_long_from(&cases[5].rope), 16);
}

static void test_turn(void **state)
{
    (void)state;
    struct err err;
    struct rope_table table;
    const struct rope half = { .theta = 10000, .n_dims = 4 }, mixed = { .theta = 10000, .n_dims = 4, .interleaved = true };
    float x[] = { 1, 0, 0, 0, 7, 0, 1, 0, 0, 8 }, y[] = { 1, 0, 0, 1, 7 };
    assert_ok(rope_table_make(&half, 3, 3, &table, &err));
    rope_turn(&table, 1, x, 2, 5); /* pairs (0, 2), (1, 3); dim 4 stays */
    const double wanted[] = { cos(1), 0, sin(1), 0, 7, 0, cos(0.01), 0, sin(0.01), 8 };
    for (size_t i = 0; i < 10; i++) near((double)x[i], wanted[i], "half split");
    rope_table_free(&table);
    assert_ok(rope_table_make(&mixed, 3, 3, &table, &err));
    rope_turn(&table, 2, y, 1, 5); /* pairs (0, 1), (2, 3) */
    const double other[] = { cos(2), sin(2), -sin(0.02), cos(0.02), 7 };
    for (size_t i = 0; i < 5; i++) near((double)y[i], other[i], "interleaved");
    rope_turn(&table, 0, y, 1, 5);
    near((double)y[0], cos(2), "position 0");
    rope_table_free(&table);
    assert_ok(rope_table_make(&(struct rope){ .theta = 10000 }, 3, 3, &table, &err));
    rope_turn(&table, 2, y, 1, 5);
    rope_table_free(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_frequencies), cmocka_unit_test(test_turn) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
