/* test_arch.c: architecture files: choosing one, what tensors are called, the facts of a model.
 *
 * Formula: expected names and facts by hand from the smoothing notes 3b and the configurations of the models.
 * Why this way: the files are data, so their test is a table.
 * Corner cases: the same model as a folder and as GGUF; models that no file describes.
 * Reference: the project's smoothquant notes 3.
 */
#include "support/support.h"

#include "smoothquant/arch.h"

static struct err err;

static struct container *open_model(const char *path)
{
    struct container *container = NULL;
    assert_ok(container_open(&io_system, path, &container, &err));
    return container;
}

static struct arch *open_arch(struct container *container)
{
    struct arch *arch = NULL;
    assert_ok(arch_open(&io_system, tests_path("../configs/arch"), NULL, container, &arch, &err));
    return arch;
}

static double number(const struct arch *arch, const char *fact)
{
    double value = -1;
    return arch_number(arch, fact, &value) ? value : -1;
}

static const struct {
    const char *key, *hf, *gguf;
    uint32_t layer;
} story_names[] = {
    { "token_embd", "model.embed_tokens.weight", "token_embd.weight", ARCH_NONE },
    { "output_norm", "model.norm.weight", "output_norm.weight", ARCH_NONE },
    { "attn_norm", "model.layers.4.input_layernorm.weight", "blk.4.attn_norm.weight", 4 },
    { "attn_q", "model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight", 0 },
    { "attn_output", "model.layers.2.self_attn.o_proj.weight", "blk.2.attn_output.weight", 2 },
    { "ffn_norm", "model.layers.1.post_attention_layernorm.weight", "blk.1.ffn_norm.weight", 1 },
    { "ffn_gate", "model.layers.1.mlp.gate_proj.weight", "blk.1.ffn_gate.weight", 1 },
    { "ffn_up", "model.layers.1.mlp.up_proj.weight", "blk.1.ffn_up.weight", 1 },
    { "ffn_down", "model.layers.1.mlp.down_proj.weight", "blk.1.ffn_down.weight", 1 },
};

static void a_real_model_in_both_forms(void **state)
{
    (void)state;
    static const char *const paths[] = { "llm/stories260K-hf-f32", "llm/stories260K-hf-bf16-3shards", "llm/stories260K/stories260K.gguf" };
    for (size_t i = 0; i < 3; i++) {
        const char *path = shared_data(paths[i]);
        if (!path) skip();
        struct container *container = open_model(path);
        struct arch *arch = open_arch(container);
        assert_string_equal(arch_name(arch), "llama");
        assert_int_equal(arch_layers(arch), 5);
        assert_int_equal(arch_is_gguf(arch), i == 2);
        assert_int_equal((int)number(arch, "hidden"), 64);
        assert_int_equal((int)number(arch, "ffn"), 172);
        assert_int_equal((int)number(arch, "n_heads"), 8);
        assert_int_equal((int)number(arch, "n_kv_heads"), 4);
        assert_int_equal((int)number(arch, "head_dim"), 8);
        assert_int_equal((int)number(arch, "rep"), 2);
        for (size_t k = 0; k < sizeof story_names / sizeof story_names[0]; k++) {
            size_t index = arch_tensor(arch, story_names[k].key, story_names[k].layer, ARCH_NONE, false), required = 0;
            if (index == SIZE_MAX) fail_msg("%s: no %s", path, story_names[k].key);
            assert_string_equal(container->tensors[index].name, i == 2 ? story_names[k].gguf : story_names[k].hf);
            assert_ok(arch_require(arch, story_names[k].key, story_names[k].layer, ARCH_NONE, &required, &err));
            assert_int_equal(required, index);
        }
        assert_int_equal(arch_tensor(arch, "attn_q", 0, ARCH_NONE, true), SIZE_MAX);
        assert_int_equal(arch_tensor(arch, "attn_q", 5, ARCH_NONE, false), SIZE_MAX);
        size_t index = 0;
        assert_refused(arch_require(arch, "attn_q", 5, ARCH_NONE, &index, &err), ERR_DATA,
                       i == 2 ? "lacks the tensor 'blk.5.attn_q'" : "lacks the tensor 'model.layers.5.self_attn.q_proj'");
        assert_null(arch_section(arch, "forward", NULL));
        arch_close(arch);
        container_close(container);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(a_real_model_in_both_forms) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
