/* test_stats_lookup.c: statistics under one set of names for a tensor under another, and the importance weights that come of them.
 *
 * Formula: in_sum2 1, 0, 3: u = 1/3, 0, 1, S = 4/3, w = 0.75, 0, 2.25.
 * Why this way: weights are compared bit for bit with the definition in plain doubles, written out again here.
 * Corner cases: stacks against single experts and back, experts side by side, one matrix for all, fused weights, a missing expert, only zeros, a spread of
 * 1e12 and of 1e300, entries the map cannot tell apart.
 * Reference: smoothquant/STATS.md; tests/stats_oracle.py has the same formula in Python.
 */
#include "support/names.h"

#include "smoothquant/stats_lookup.h"
#include "smoothquant/stats_names.h"

/* An entry with in_sum2 = from, from + 1, ... */
static void add(struct stats_set *set, const char *name, uint64_t n_mat, uint64_t n_in, double from)
{
    size_t index = 0;
    assert_ok(stats_add(set, name, n_mat, n_in, &index, &err));
    assert_ok(stats_make_field(set, &set->entries[index], STATS_SUM2, &err));
    assert_ok(stats_make_counts(set, &set->entries[index], &err));
    for (uint64_t i = 0; i < n_mat * n_in; i++) set->entries[index].values[STATS_SUM2][i] = from + (double)i;
    for (uint64_t m = 0; m < n_mat; m++) set->entries[index].counts[m] = 10;
}

static struct stats_set *new_set(void)
{
    struct stats_set *set = stats_new(0);
    assert_non_null(set);
    return set;
}

static struct stats_lookup *open_lookup(const struct stats_set *set, const struct name_map *with)
{
    struct stats_lookup *lookup = NULL;
    assert_ok(stats_lookup_open(set, with, &lookup, &err));
    return lookup;
}

/* Finds matrix mat and returns in_sum2 of its first channel; -1: nothing there. */
static double first_of(struct stats_lookup *lookup, const char *name, uint64_t n_mat, uint64_t mat, uint64_t n_in, enum stats_how how)
{
    struct stats_slice slice;
    assert_ok(stats_lookup_find(lookup, name, n_mat, mat, n_in, &slice, &err));
    if (slice.how != how) fail_msg("%s: found by way %d, wanted %d", name, (int)slice.how, (int)how);
    return slice.entry ? slice.entry->values[STATS_SUM2][slice.mat * slice.entry->n_in + slice.first] : -1.0;
}

static void test_both_ways(void **state)
{
    (void)state;
    struct stats_set *set = new_set();
    add(set, "blk.0.attn_q.weight", 1, 4, 100);
    add(set, "blk.0.ffn_down_exps.weight", 3, 4, 200); /* 200, 204, 208 */
    add(set, "model.layers.1.self_attn.q_proj.weight", 1, 4, 300);
    add(set, "model.layers.1.mlp.experts.0.down_proj.weight", 1, 4, 400);
    add(set, "model.layers.1.mlp.experts.2.down_proj.weight", 1, 4, 420);
    add(set, "blk.2.ffn_up_exps.weight", 1, 12, 500); /* 3 experts side by side */
    add(set, "odd name", 1, 4, 600);
    struct stats_lookup *lookup = open_lookup(set, map);
    assert_true(first_of(lookup, "blk.0.attn_q.weight", 1, 0, 4, STATS_EXACT) == 100);
    assert_true(first_of(lookup, "model.layers.0.self_attn.q_proj.weight", 1, 0, 4, STATS_MAPPED) == 100);
    assert_true(first_of(lookup, "blk.1.attn_q.weight", 1, 0, 4, STATS_MAPPED) == 300);
    /* the same input */
    assert_true(first_of(lookup, "model.layers.0.self_attn.k_proj.weight", 1, 0, 4, STATS_SAME_INPUT) == 100);
    assert_true(first_of(lookup, "model.layers.0.self_attn.qkv_proj.weight", 1, 0, 4, STATS_SAME_INPUT) == 100);
    assert_true(first_of(lookup, "blk.0.attn_output.weight", 1, 0, 4, STATS_NOT_FOUND) == -1);
    /* experts */
    assert_true(first_of(lookup, "model.layers.0.mlp.experts.2.down_proj.weight", 1, 0, 4, STATS_MAPPED) == 208);
    assert_true(first_of(lookup, "model.layers.0.mlp.experts.down_proj", 3, 1, 4, STATS_MAPPED) == 204);
    assert_true(first_of(lookup, "blk.1.ffn_down_exps.weight", 3, 0, 4, STATS_MAPPED) == 400);
    assert_true(first_of(lookup, "blk.1.ffn_down_exps.weight", 3, 1, 4, STATS_NOT_FOUND) == -1);
    assert_true(first_of(lookup, "blk.1.ffn_down_exps.weight", 3, 2, 4, STATS_MAPPED) == 420);
    assert_true(first_of(lookup, "blk.2.ffn_up_exps.weight", 3, 2, 4, STATS_EXACT) == 508);
    assert_true(first_of(lookup, "model.layers.2.mlp.experts.1.up_proj.weight", 1, 0, 4, STATS_MAPPED) == 504);
    assert_true(first_of(lookup, "model.layers.2.mlp.experts.1.gate_proj.weight", 1, 0, 4, STATS_SAME_INPUT) == 504);
    assert_true(first_of(lookup, "odd name", 1, 0, 4, STATS_EXACT) == 600);
    assert_true(first_of(lookup, "odd name", 5, 3, 4, STATS_EXACT) == 600); /* one matrix for all */
    struct stats_slice slice;
    assert_refused(stats_lookup_find(lookup, "odd name", 1, 0, 5, &slice, &err), ERR_DATA, "1 x 4 channels, tensor 'odd name' has 1 x 5");
    assert_null(slice.entry);
    assert_refused(stats_lookup_find(lookup, "blk.0.ffn_down_exps.weight", 4, 0, 4, &slice, &err), ERR_DATA, "3 x 4");
    assert_refused(stats_lookup_find(lookup, "model.layers.0.mlp.experts.3.down_proj.weight", 1, 0, 4, &slice, &err), ERR_DATA, "3 x 4");
    assert_refused(stats_lookup_find(lookup, "blk.2.ffn_up_exps.weight", 4, 0, 4, &slice, &err), ERR_DATA, "1 x 12");
    assert_int_equal(stats_lookup_unmatched(lookup), 1);
    assert_int_equal(stats_lookup_next_unmatched(lookup, SIZE_MAX), 6);
    assert_int_equal(stats_lookup_next_unmatched(lookup, 6), SIZE_MAX);
    assert_int_equal(stats_lookup_unused(lookup), 0);
    stats_lookup_close(lookup);
    lookup = open_lookup(set, NULL);
    assert_true(first_of(lookup, "model.layers.0.self_attn.q_proj.weight", 1, 0, 4, STATS_NOT_FOUND) == -1);
    assert_int_equal(stats_lookup_unmatched(lookup), 7);
    assert_int_equal(stats_lookup_unused(lookup), 7);
    assert_int_equal(stats_lookup_next_unused(lookup, SIZE_MAX), 0);
    stats_lookup_close(lookup);
    stats_close(set);
}

static void test_ambiguous(void **state)
{
    (void)state;
    struct stats_set *set = new_set();
    add(set, "model.layers.0.mlp.down_proj.weight", 1, 4, 1);
    add(set, "layers.0.mlp.down_proj.weight", 1, 4, 2);
    struct stats_lookup *lookup = open_lookup(set, map);
    assert_true(first_of(lookup, "blk.0.ffn_down.weight", 1, 0, 4, STATS_NOT_FOUND) == -1);
    assert_true(first_of(lookup, "layers.0.mlp.down_proj.weight", 1, 0, 4, STATS_EXACT) == 2);
    stats_lookup_close(lookup);
    stats_close(set);
}

/* ---- importance ------------------------------------------------------------------------------------------------------------------- */

static void test_weights(void **state)
{
    (void)state;
    static const struct {
        double sum2[4];
        float wanted[4];
        bool none;
    } rows[] = {
        { { 1, 0, 3, 0 }, { 1, 0, 3, 0 }, false }, /* S = 4/3, n = 4 */
        { { 0, 0, 0, 0 }, { 0 }, true },
        { { 7, 7, 7, 7 }, { 1, 1, 1, 1 }, false },
        { { 1e-300, 1e300, 0, 1e300 }, { 0x1p-126f, 2, 0, 2 }, false },
        { { 1.7e308, 1.7e308, 1.7e308, 1.7e308 }, { 1, 1, 1, 1 }, false },
        { { 5e-324, 0, 0, 0 }, { 4, 0, 0, 0 }, false },
        { { 1e-12, 1, 0, 1 }, { 1.99999999e-12f, 2, 0, 2 }, false },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct stats_set *set = new_set();
        struct importance importance;
        add(set, "w", 1, 4, 0);
        memcpy(set->entries[0].values[STATS_SUM2], rows[i].sum2, sizeof rows[i].sum2);
        struct stats_lookup *lookup = open_lookup(set, NULL);
        assert_ok(stats_importance(lookup, "w", 1, 4, &importance, &err));
        assert_int_equal(importance.n_without, rows[i].none);
        assert_true((importance.rows[0] == NULL) == rows[i].none);
        for (unsigned j = 0; j < 4 && !rows[i].none; j++)
            if (importance.rows[0][j] != rows[i].wanted[j])
                fail_msg("row %zu channel %u: %a, wanted %a", i, j, (double)importance.rows[0][j], (double)rows[i].wanted[j]);
        importance_free(&importance);
        stats_lookup_close(lookup);
        stats_close(set);
    }
}

/* Random values against the definition, in the order it gives. */
static void test_weights_follow_the_definition(void **state)
{
    (void)state;
    enum { N = 1000 };
    uint64_t random = 7;
    struct stats_set *set = new_set();
    struct importance importance;
    add(set, "w", 1, N, 0);
    double *sum2 = set->entries[0].values[STATS_SUM2];
    for (unsigned j = 0; j < N; j++) {
        sum2[j] = (double)(test_random(&random) >> 40);
        for (unsigned k = 0; k < test_random(&random) % 40; k++) sum2[j] /= 2;
    }
    struct stats_lookup *lookup = open_lookup(set, NULL);
    assert_ok(stats_importance(lookup, "w", 1, N, &importance, &err));
    double most = 0, sum = 0, mean = 0;
    for (unsigned j = 0; j < N; j++) most = sum2[j] > most ? sum2[j] : most;
    for (unsigned j = 0; j < N; j++) sum += sum2[j] / most;
    for (unsigned j = 0; j < N; j++) {
        assert_true(importance.rows[0][j] == (float)(sum2[j] / most * N / sum));
        mean += (double)importance.rows[0][j] / N;
    }
    assert_true(mean > 0.999999 && mean < 1.000001);
    importance_free(&importance);
    stats_lookup_close(lookup);
    stats_close(set);
}

static void test_matrices(void **state)
{
    (void)state;
    struct stats_set *set = new_set();
    struct importance importance;
    add(set, "stack", 3, 4, 1);
    set->entries[0].counts[1] = 0;
    add(set, "one", 1, 4, 1);
    size_t index = 0;
    assert_ok(stats_add(set, "absmax only", 1, 4, &index, &err));
    assert_ok(stats_make_field(set, &set->entries[index], STATS_ABSMAX, &err));
    struct stats_lookup *lookup = open_lookup(set, NULL);
    assert_ok(stats_importance(lookup, "stack", 3, 4, &importance, &err));
    assert_true(importance.rows[0] && !importance.rows[1] && importance.rows[2] && importance.n_without == 1 && importance.how == STATS_EXACT);
    assert_true(importance.rows[0][0] == 0.4f && importance.rows[2][0] == (float)(9.0 / 12 * 4 / (9.0 / 12 + 10.0 / 12 + 11.0 / 12 + 1)));
    importance_free(&importance);
    assert_ok(stats_importance(lookup, "one", 5, 4, &importance, &err));
    for (unsigned m = 1; m < 5; m++) assert_ptr_equal(importance.rows[m], importance.rows[0]);
    importance_free(&importance);
    assert_ok(stats_importance(lookup, "absmax only", 1, 4, &importance, &err));
    assert_true(!importance.rows[0] && importance.n_without == 1 && importance.how == STATS_EXACT);
    importance_free(&importance);
    assert_ok(stats_importance(lookup, "nothing", 2, 4, &importance, &err));
    assert_true(importance.n_without == 2 && importance.how == STATS_NOT_FOUND);
    importance_free(&importance);
    assert_refused(stats_importance(lookup, "stack", 2, 4, &importance, &err), ERR_DATA, "3 x 4");
    importance_free(&importance);
    assert_refused(stats_importance(lookup, "stack", 3, UINT64_MAX / 2, &importance, &err), ERR_UNSUPPORTED, "too many");
    importance_free(&importance);
    stats_lookup_close(lookup);
    stats_close(set);
}

/* ---- GGUF names ------------------------------------------------------------------------------------------------------------------- */

static void test_gguf_names(void **state)
{
    (void)state;
    struct stats_set *set = new_set(), *out = NULL;
    struct stats_renamed renamed;
    add(set, "model.layers.0.self_attn.q_proj.weight", 1, 4, 1);
    add(set, "model.layers.0.mlp.experts.2.down_proj.weight", 1, 2, 20);
    add(set, "strange", 1, 4, 30);
    add(set, "model.layers.0.mlp.experts.0.down_proj.weight", 1, 2, 10);
    assert_ok(stats_make_field(set, &set->entries[1], STATS_SUM, &err)); /* expert 0 lacks it */
    assert_ok(stats_add_alias(set, "model.layers.0.self_attn.k_proj.weight", 0, &err));
    assert_ok(stats_add_dataset(set, "d", 1, &err));
    set->chunk_size = 512;
    assert_ok(stats_to_gguf_names(set, map, &out, &renamed, &err));
    assert_int_equal(renamed.n_renamed, 4);
    assert_int_equal(renamed.n_unmatched, 1);
    assert_int_equal(renamed.n_fields, 1);
    assert_int_equal(out->n_entries, 3);
    assert_string_equal(out->entries[0].name, "blk.0.attn_q.weight");
    assert_string_equal(out->entries[2].name, "strange");
    assert_ptr_equal(stats_find(out, "blk.0.attn_k.weight"), &out->entries[0]);
    const struct stats_entry *stack = stats_find(out, "blk.0.ffn_down_exps.weight");
    assert_true(stack->n_mat == 3 && stack->n_in == 2 && stack->counts[0] == 10 && stack->counts[1] == 0 && stack->counts[2] == 10);
    assert_true(stack->values[STATS_SUM2][0] == 10 && stack->values[STATS_SUM2][2] == 0 && stack->values[STATS_SUM2][5] == 21 &&
                !stack->values[STATS_SUM]);
    assert_string_equal(out->datasets[0], "d");
    stats_close(out);
    stats_close(set);
}

static void test_gguf_names_refused(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        uint64_t n_in;
        const char *part;
    } rows[] = {
        { "model.layers.0.mlp.down_proj.weight", "layers.0.mlp.down_proj.weight", 4, "are both 'blk.0.ffn_down.weight'" },
        { "blk.0.ffn_down_exps.weight", "layers.0.mlp.experts.0.down_proj.weight", 4, "are both" },
        { "layers.0.mlp.experts.0.down_proj.weight", "blk.0.ffn_down_exps.weight", 4, "are both" },
        { "layers.0.mlp.experts.0.down_proj.weight", "layers.0.mlp.experts.1.down_proj.weight", 5, "makes no stack" },
        { "layers.0.mlp.experts.3.down_proj.weight", "model.layers.0.mlp.experts.3.down_proj.weight", 4,
          "is expert 3 of 'blk.0.ffn_down_exps.weight'" },
        { "layers.0.mlp.experts.0.down_proj.weight", "layers.0.mlp.experts.4096.down_proj.weight", 4, "over 4095" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct stats_set *set = new_set(), *out = NULL;
        struct stats_renamed renamed;
        add(set, rows[i].a, 1, 4, 1);
        add(set, rows[i].b, 1, rows[i].n_in, 1);
        enum status status = stats_to_gguf_names(set, map, &out, &renamed, &err);
        if (status == OK || !strstr(err.text, rows[i].part)) fail_msg("'%s' lacks '%s'", err.text, rows[i].part);
        assert_null(out);
        stats_close(set);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways),
        cmocka_unit_test(test_ambiguous),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_weights_follow_the_definition),
        cmocka_unit_test(test_matrices),
        cmocka_unit_test(test_gguf_names),
        cmocka_unit_test(test_gguf_names_refused),
    };
    return cmocka_run_group_tests(tests, open_map, close_map);
}
