/* test_model_facts.c: blocks, query heads a key head, experts, tied heads, and which block is among which layers.
 *
 * Drawing: names and shapes -> model_facts_make -> model_facts_in_layers for every block and every form.
 * Why this way: the rules are written again here, in as few words as they have.
 * Corner cases: no blocks at all, blocks with gaps, numbers that are no block numbers, fused heads, experts as a stack and one by one.
 * Reference: model_facts.h; llama.cpp's use_more_bits. Worked number: 22 blocks: more-bits are 0, 1, 4, 7, 10, 13, 16, 19, 20, 21.
 */
#include "support/support.h"

#include "converter/model_facts.h"

static struct err err;

enum { TENSORS_MAX = 256 };

static struct sample {
    struct container container;
    struct tensor tensors[TENSORS_MAX];
    char names[TENSORS_MAX][80];
    uint64_t dims[TENSORS_MAX][3];
} sample;

static struct roles *roles;

static int setup(void **state)
{
    (void)state;
    return roles_open(&io_system, tests_path("../configs/roles.yaml"), &roles, &err) != OK;
}

static int teardown(void **state)
{
    (void)state;
    roles_close(roles);
    return 0;
}

static void begin(void)
{
    memset(&sample, 0, sizeof sample);
    sample.container.tensors = sample.tensors;
}

static void add(const char *name, uint32_t rank, uint64_t a, uint64_t b, uint64_t c)
{
    const size_t i = sample.container.n_tensors++;
    assert_true(i < TENSORS_MAX);
    snprintf(sample.names[i], sizeof sample.names[i], "%s", name);
    sample.dims[i][0] = a;
    sample.dims[i][1] = b;
    sample.dims[i][2] = c;
    sample.tensors[i] = (struct tensor){ .name = sample.names[i], .rank = rank, .dims = sample.dims[i] };
    sample.tensors[i].n_weights = a * (rank > 1 ? b : 1) * (rank > 2 ? c : 1);
}

static struct model_facts make(void)
{
    struct model_facts facts;
    assert_ok(model_facts_make(&sample.container, roles, &facts, &err));
    return facts;
}

static void test_counts(void **state)
{
    (void)state;
    begin();
    struct model_facts facts = make();
    assert_true(facts.blocks == 0 && facts.gqa == 0 && facts.experts == 0 && facts.tied);
    model_facts_free(&facts);

    begin();
    add("token_embd.weight", 2, 100, 64, 0);
    add("blk.0.attn_q.weight", 2, 4096, 64, 0);
    add("blk.0.attn_k.weight", 2, 1024, 64, 0);
    add("blk.31.ffn_down.weight", 2, 64, 128, 0);
    add("blk.40.attn_norm.weight", 1, 64, 0, 0); /* a norm makes no block */
    add("blk.3.ffn_up_exps.weight", 3, 8, 128, 64);
    facts = make();
    assert_true(facts.blocks == 32 && facts.gqa == 4 && facts.experts == 8 && facts.tied);
    model_facts_free(&facts);
    add("output.weight", 2, 100, 64, 0);
    facts = make();
    assert_false(facts.tied);
    model_facts_free(&facts);

    begin();
    add("model.layers.2.mlp.experts.127.down_proj.weight", 2, 8, 8, 0);
    add("model.layers.2.mlp.experts.5.down_proj.weight", 2, 8, 8, 0);
    add("model.layers.2.self_attn.qkv_proj.weight", 2, 24, 8, 0);
    add("lm_head.weight", 2, 24, 8, 0);
    facts = make();
    assert_true(facts.blocks == 3 && facts.gqa == 0 && facts.experts == 128 && !facts.tied);
    model_facts_free(&facts);

    begin();
    add("blk.70000.ffn_down.weight", 2, 8, 8, 0);
    add("blk.123456.ffn_down.weight", 2, 8, 8, 0);
    add("blk.1x.ffn_down.weight", 2, 8, 8, 0);
    add("ffn_down.weight", 2, 8, 8, 0);
    facts = make();
    assert_true(facts.blocks == 0);
    model_facts_free(&facts);
}

static bool more_bits(unsigned i, unsigned n)
{
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

static bool among(const struct model_facts *facts, unsigned block, const char *layers)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%u.ffn_down.weight", block);
    return model_facts_in_layers(facts, roles_of(roles, name), name, layers);
}

static void test_layers(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 100; n++)
        for (unsigned step = 1; step <= 2; step++) { /* every block, and every second */
            char name[64];
            begin();
            for (unsigned i = 0; i < n; i++) {
                snprintf(name, sizeof name, "blk.%u.ffn_down.weight", i * step);
                add(name, 2, 8, 8, 0);
            }
            add("blk.150.attn_q.weight", 2, 8, 8, 0);
            struct model_facts facts = make();
            for (unsigned i = 0; i < n; i++) {
                assert_int_equal(among(&facts, i * step, "more-bits"), more_bits(i, n));
                assert_int_equal(among(&facts, i * step, "first/8"), i < n / 8);
                assert_int_equal(among(&facts, i * step, "last/8"), i >= n * 7 / 8);
                assert_int_equal(among(&facts, i * step, "first/16"), i < n / 16);
                assert_int_equal(among(&facts, i * step, "3"), i == 3);
                assert_int_equal(among(&facts, i * step, "2-5"), i >= 2 && i <= 5);
            }
            assert_false(among(&facts, n * step + 1, "more-bits") || among(&facts, n * step + 1, "0-65535"));
            assert_false(model_facts_in_layers(&facts, roles_of(roles, "output.weight"), "output.weight", "0-65535"));
            assert_true(model_facts_in_layers(&facts, roles_of(roles, "blk.150.attn_q.weight"), "blk.150.attn_q.weight", "0"));
            model_facts_free(&facts);
        }
}

static void test_worked_number(void **state)
{
    (void)state;
    static const bool wanted[22] = {
        [0] = true, [1] = true, [4] = true, [7] = true, [10] = true, [13] = true, [16] = true, [19] = true, [20] = true, [21] = true
    };
    char name[64];
    begin();
    for (unsigned i = 0; i < 22; i++) {
        snprintf(name, sizeof name, "blk.%u.ffn_down.weight", i);
        add(name, 2, 8, 8, 0);
    }
    struct model_facts facts = make();
    for (unsigned i = 0; i < 22; i++) assert_int_equal(among(&facts, i, "more-bits"), wanted[i]);
    model_facts_free(&facts);
}

static void test_forms(void **state)
{
    (void)state;
    static const char *const good[] = { "0", "31", "65535", "0-0", "0-2", "first/8", "last/16", "first/1", "first/999", "more-bits" };
    static const char *const bad[] = { "",          "-1",    "2-1",     "1-",         "a",          "first/", "first/0",
                                       "first8",    "last",  "first/x", "first/1000", "more-bits ", "65536",  "0-65536",
                                       "first/8/8", "1-2-3", "0x1",     "more",       " 1",         "1 ",     "99999999999999999999" };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (!model_facts_is_layers(good[i])) fail_msg("'%s'", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (model_facts_is_layers(bad[i])) fail_msg("'%s'", bad[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_counts), cmocka_unit_test(test_layers), cmocka_unit_test(test_worked_number),
                                        cmocka_unit_test(test_forms) };
    return cmocka_run_group_tests(tests, setup, teardown);
}
