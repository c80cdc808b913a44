/* test_name_map.c: the names in configs/names.yaml, both ways, and what a wrong file says.
 *
 * Formula: pairs by hand from the table of GGUF and checkpoint names; every weight of the real model indexes must have a place.
 * Why this way: the map is data, so its test is a table.
 * Corner cases: single experts and stacks, prefixes, wrappers, names that fit nothing, numbers with leading zeros.
 * Reference: the project's layouts notes 3.2 and smoothing notes 3b; llama.cpp gguf-py tensor_mapping.py.
 */
#include "support/names.h"

#include "base/json.h"

/* The GGUF name and expert of a name; "" when nothing fits. */
static const char *gguf_of(const char *name, uint32_t *expert)
{
    static char out[256];
    struct name_place place;
    *expert = NAME_NONE;
    if (!name_map_find(map, name, &place)) return "";
    *expert = place.expert;
    assert_true(name_map_gguf(map, &place, out, sizeof out));
    return out;
}

static const struct {
    const char *name, *gguf;
    uint32_t expert;
} pairs[] = {
    { "model.layers.12.self_attn.q_proj.weight", "blk.12.attn_q.weight", NAME_NONE },
    { "model.layers.0.self_attn.k_proj.weight", "blk.0.attn_k.weight", NAME_NONE },
    { "model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight", NAME_NONE },
    { "model.layers.0.self_attn.o_proj.weight", "blk.0.attn_output.weight", NAME_NONE },
    { "model.layers.0.mlp.gate_proj.weight", "blk.0.ffn_gate.weight", NAME_NONE },
    { "model.layers.0.mlp.up_proj.weight", "blk.0.ffn_up.weight", NAME_NONE },
    { "model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight", NAME_NONE },
    { "model.layers.0.mlp.down_proj", "blk.0.ffn_down.weight", NAME_NONE },
    { "model.embed_tokens.weight", "token_embd.weight", NAME_NONE },
    { "lm_head.weight", "output.weight", NAME_NONE },
    /* Gemma 3 and Qwen3.5 with vision: a longer prefix */
    { "language_model.model.layers.3.mlp.up_proj.weight", "blk.3.ffn_up.weight", NAME_NONE },
    { "model.language_model.layers.3.linear_attn.in_proj_qkv.weight", "blk.3.attn_qkv.weight", NAME_NONE },
    { "model.language_model.layers.3.linear_attn.in_proj_z.weight", "blk.3.attn_gate.weight", NAME_NONE },
    { "model.language_model.layers.3.linear_attn.out_proj.weight", "blk.3.ssm_out.weight", NAME_NONE },
    /* fused */
    { "model.layers.31.self_attn.qkv_proj.weight", "blk.31.attn_qkv.weight", NAME_NONE },
    { "model.layers.31.mlp.gate_up_proj.weight", "blk.31.ffn_up.weight", NAME_NONE },
    /* experts */
    { "model.layers.5.block_sparse_moe.experts.7.w1.weight", "blk.5.ffn_gate_exps.weight", 7 },
    { "model.layers.5.block_sparse_moe.experts.7.w3.weight", "blk.5.ffn_up_exps.weight", 7 },
    { "model.layers.5.block_sparse_moe.experts.7.w2.weight", "blk.5.ffn_down_exps.weight", 7 },
    { "model.layers.5.block_sparse_moe.gate.weight", "blk.5.ffn_gate_inp.weight", NAME_NONE },
    { "model.layers.5.mlp.experts.127.down_proj.weight", "blk.5.ffn_down_exps.weight", 127 },
    { "model.layers.5.mlp.experts.down_proj", "blk.5.ffn_down_exps.weight", NAME_NONE },
    { "model.layers.5.mlp.experts.gate_up_proj", "blk.5.ffn_gate_up_exps.weight", NAME_NONE },
    { "model.layers.5.mlp.shared_expert.up_proj.weight", "blk.5.ffn_up_shexp.weight", NAME_NONE },
    { "model.layers.5.mlp.shared_expert_gate.weight", "blk.5.ffn_gate_inp_shexp.weight", NAME_NONE },
    { "model.layers.5.mlp.gate.weight", "blk.5.ffn_gate_inp.weight", NAME_NONE },
    /* DeepSeek */
    { "model.layers.5.self_attn.kv_a_proj_with_mqa.weight", "blk.5.attn_kv_a_mqa.weight", NAME_NONE },
    { "model.layers.5.self_attn.q_b_proj.weight", "blk.5.attn_q_b.weight", NAME_NONE },
    /* OPT, GPT-2, Falcon, BLOOM, NeoX, GPT-J, MPT, ChatGLM, InternLM2, Qwen 1, EXAONE, StarCoder2, Phi-2, llama2.c */
    { "model.decoder.layers.2.fc1.weight", "blk.2.ffn_up.weight", NAME_NONE },
    { "model.decoder.layers.2.self_attn.out_proj.weight", "blk.2.attn_output.weight", NAME_NONE },
    { "transformer.h.2.attn.c_attn.weight", "blk.2.attn_qkv.weight", NAME_NONE },
    { "h.2.attn.c_proj.weight", "blk.2.attn_output.weight", NAME_NONE },
    { "h.2.mlp.c_fc.weight", "blk.2.ffn_up.weight", NAME_NONE },
    { "transformer.h.2.mlp.c_proj.weight", "blk.2.ffn_down.weight", NAME_NONE },
    { "transformer.h.2.self_attention.query_key_value.weight", "blk.2.attn_qkv.weight", NAME_NONE },
    { "h.2.mlp.dense_4h_to_h.weight", "blk.2.ffn_down.weight", NAME_NONE },
    { "gpt_neox.layers.2.attention.dense.weight", "blk.2.attn_output.weight", NAME_NONE },
    { "transformer.h.2.mlp.fc_in.weight", "blk.2.ffn_up.weight", NAME_NONE },
    { "transformer.blocks.2.attn.Wqkv.weight", "blk.2.attn_qkv.weight", NAME_NONE },
    { "transformer.encoder.layers.2.self_attention.query_key_value.weight", "blk.2.attn_qkv.weight", NAME_NONE },
    { "model.layers.2.attention.wqkv.weight", "blk.2.attn_qkv.weight", NAME_NONE },
    { "model.layers.2.feed_forward.w1.weight", "blk.2.ffn_gate.weight", NAME_NONE },
    { "transformer.h.2.mlp.w2.weight", "blk.2.ffn_gate.weight", NAME_NONE },
    { "transformer.h.2.mlp.w1.weight", "blk.2.ffn_up.weight", NAME_NONE },
    { "transformer.h.2.attn.attention.q_proj.weight", "blk.2.attn_q.weight", NAME_NONE },
    { "transformer.h.2.mlp.c_fc_0.weight", "blk.2.ffn_gate.weight", NAME_NONE },
    { "model.layers.2.mlp.c_fc.weight", "blk.2.ffn_up.weight", NAME_NONE },
    { "model.layers.2.mlp.fc2.weight", "blk.2.ffn_down.weight", NAME_NONE },
    { "layers.2.attention.wq.weight", "blk.2.attn_q.weight", NAME_NONE },
    /* wrappers */
    { "base_model.model.model.layers.2.self_attn.q_proj.base_layer.weight", "blk.2.attn_q.weight", NAME_NONE },
    { "model.layers.2.mlp.up_proj.sq_linear.weight", "blk.2.ffn_up.weight", NAME_NONE },
    { "model.layers.2.mlp.up_proj.orig_layer", "blk.2.ffn_up.weight", NAME_NONE },
    /* nothing */
    { "model.layers.2.input_layernorm.weight", "", NAME_NONE },
    { "model.layers.2.self_attn.q_proj.bias", "", NAME_NONE },
    { "model.layers.02.self_attn.q_proj.weight", "", NAME_NONE },
    { "model.layers.x.self_attn.q_proj.weight", "", NAME_NONE },
    { "model.layers.12345678.self_attn.q_proj.weight", "", NAME_NONE },
    { "model.vision_tower.encoder.layers.2.self_attn.q_proj.weight", "", NAME_NONE },
    { "model.layers.2.self_attn.q_proj.base_layers.weight", "", NAME_NONE },
    { "blk.2.nope.weight", "", NAME_NONE },
    { "", "", NAME_NONE },
    { ".", "", NAME_NONE },
    { ".weight", "", NAME_NONE },
};

static void test_pairs(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        uint32_t expert = 0;
        const char *found = gguf_of(pairs[i].name, &expert);
        if (strcmp(found, pairs[i].gguf) != 0) fail_msg("%s: '%s', wanted '%s'", pairs[i].name, found, pairs[i].gguf);
        assert_int_equal(expert, pairs[i].expert);
        if (!*found) continue;
        char gguf[256];
        snprintf(gguf, sizeof gguf, "%s", found);
        assert_string_equal(gguf_of(gguf, &expert), gguf); /* a GGUF name is its own */
        assert_int_equal(expert, NAME_NONE);
    }
    char name[2000];
    uint32_t expert = 0;
    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_string_equal(gguf_of(name, &expert), "");
    for (size_t i = 1; i < sizeof name - 1; i += 2) name[i] = '.';
    assert_string_equal(gguf_of(name, &expert), "");
    assert_string_equal(gguf_of("1.2.3.4.5.6.7", &expert), "");
}

static void test_same_input(void **state)
{
    (void)state;
    struct name_place q, down;
    char names[512] = "", gguf[128];
    assert_true(name_map_find(map, "blk.1.ffn_gate_exps.weight", &q) && name_map_find(map, "blk.1.ffn_down_exps.weight", &down));
    for (uint32_t rule = name_map_sibling(map, q.rule, NAME_NONE); rule != NAME_NONE; rule = name_map_sibling(map, q.rule, rule)) {
        struct name_place place = { rule, 1, NAME_NONE };
        assert_true(name_map_gguf(map, &place, gguf, sizeof gguf));
        strncat(names, gguf, sizeof names - strlen(names) - 1);
        strncat(names, " ", sizeof names - strlen(names) - 1);
    }
    assert_string_equal(names, "blk.1.ffn_up_exps.weight blk.1.ffn_gate_up_exps.weight ");
    assert_int_equal(name_map_sibling(map, down.rule, NAME_NONE), NAME_NONE);
    assert_false(name_map_gguf(map, &q, gguf, 10));
}

static void test_wrong_files(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } rows[] = {
        { "tensors: []\nx: 1\n", "x" },
        { "prefixes: []\n", "no list 'tensors'" },
        { "tensors: {}\n", "tensors" },
        { "tensors:\n  - {hf: [a]}\n", "needs 'gguf'" },
        { "tensors:\n  - {gguf: a, wrong: b}\n", "wrong" },
        { "tensors:\n  - {gguf: 'blk.{n}.a', hf: [b]}\n", "both have {n}" },
        { "prefixes: ['']\ntensors:\n  - {gguf: 'blk.{n}.a', hf: [b]}\n", "both have {n}" },
        { "prefixes: ['']\ntensors:\n  - {gguf: 'blk.{n}.a', hf: ['x.{n}.{e}']}\n", "may not have {e}" },
        { "prefixes: ['']\ntensors:\n  - {gguf: 'blk.{n}.a', experts: ['x.{n}']}\n", "lacks {e}" },
        { "prefixes: ['']\ntensors:\n  - {gguf: 'blk.{n}.a', hf: ['x.{n}', 'x.{n}']}\n", "fits two patterns" },
        { "prefixes: ['', 'p.']\ntensors:\n  - {gguf: 'blk.{n}.a', hf: ['p.x.{n}']}\n  - {gguf: 'blk.{n}.b', hf: ['x.{n}']}\n",
          "'p.x.{}' fits two patterns" },
        { "tensors:\n  - {gguf: 'blk.{n}.{n}'}\n", "once each" },
        { "tensors:\n  - {gguf: 'blk{n}.a'}\n", "whole pieces" },
        { "tensors:\n  - {gguf: 'blk.{x}.a'}\n", "brace" },
        { "tensors:\n  - {gguf: 'blk.7.a'}\n", "piece of digits" },
        { "drop: [x]\ntensors: []\n", "begin with a dot" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct name_map *wrong = NULL;
        assert_refused(name_map_parse(rows[i].text, strlen(rows[i].text), "names.yaml", &wrong, &err), ERR_DATA, rows[i].part);
        if (!strstr(err.text, "names.yaml:")) fail_msg("'%s' does not name its line", err.text);
    }
}

/* Every weight of a linear layer in the indexes of real models. */
static void test_real_indexes(void **state)
{
    (void)state;
    static const char *const models[] = { "granite-7b_llama-arch", "mistral-24b_devstral", "mixtral-8x22b_wizardlm2", "phi3-mini",
                                          "qwen2.5-14b_cogito",    "qwen3-14b-mlx-4bit",   "qwen3.5-moe-25b-a3b" };
    const struct json_limits limits = { .max_depth = 8, .max_values = 1 << 20 };
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        char name[256];
        snprintf(name, sizeof name, "headers/%s/model.safetensors.index.json", models[i]);
        const char *path = shared_data(name);
        if (!path) return;
        size_t n = 0, n_found = 0, n_linear = 0;
        char *text = read_file(path, &n);
        cJSON *tree = NULL;
        assert_ok(json_parse(text, n, &limits, &tree, &err));
        for (const cJSON *item = json_get(tree, "weight_map")->child; item; item = item->next) {
            struct name_place place;
            bool found = name_map_find(map, item->string, &place);
            n_found += found;
            size_t length = strlen(item->string);
            bool is_linear = length > 7 && strcmp(item->string + length - 7, ".weight") == 0 && !strstr(item->string, "norm") &&
                             !strstr(item->string, "conv1d") && !strstr(item->string, "visual");
            n_linear += is_linear;
            if (is_linear && !found) fail_msg("%s: '%s' has no place", models[i], item->string);
        }
        assert_true(n_linear > 100 && n_found >= n_linear);
        cJSON_Delete(tree);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_same_input),
        cmocka_unit_test(test_wrong_files),
        cmocka_unit_test(test_real_indexes),
    };
    return cmocka_run_group_tests(tests, open_map, close_map);
}
