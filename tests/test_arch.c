/* test_arch.c: architecture files: choosing one, what tensors are called, the facts of a model, and everything that must be refused.
 *
 * Formula: expected names, facts and refusals by hand from the smoothing notes 3b, 3c and the configurations of real models.
 * Why this way: the files are data, so their tests are tables: a model as text (support/arch_case.h), what stays of its groups, what is said.
 * Corner cases: the same model as a folder and as GGUF; models that no file describes; maps and configurations with mistakes.
 * Reference: the project's smoothquant notes 3, 6e.7.
 */
#include "support/support.h"

#include "base/json.h"
#include "base/text.h"
#include "smoothquant/stats.h"
#include "smoothquant/stats_kind.h"
#include "support/arch_case.h"

static struct err err;

#define DIR_OF_MAPS tests_path("../configs/arch")
#define SIZES "\"num_hidden_layers\":2,\"hidden_size\":16,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":6,\"intermediate_size\":20"
#define HF(NAME) "{\"architectures\":[\"" NAME "\"]," SIZES "}"
#define HF_AND(NAME, MORE) "{\"architectures\":[\"" NAME "\"]," SIZES "," MORE "}"
#define LAYERS "model.layers.{n}."
#define ATTN "@input_layernorm 16\n@self_attn.q_proj 24x16\n@self_attn.k_proj 12x16\n@self_attn.v_proj 12x16\n@self_attn.o_proj 16x24\n"
#define MLP "@post_attention_layernorm 16\n@mlp.gate_proj 20x16\n@mlp.up_proj 20x16\n@mlp.down_proj 16x20\n"
#define QKV "N input_layernorm 16: input_layernorm -> self_attn.q_proj self_attn.k_proj self_attn.v_proj\n"
#define VO "VG self_attn.v_proj 24/2x6: self_attn.v_proj^ -> self_attn.o_proj\n"
#define FFN "N post_attention_layernorm 16: post_attention_layernorm -> mlp.gate_proj mlp.up_proj\nU mlp.up_proj 20: mlp.up_proj^ -> mlp.down_proj\n"
#define MIXTRAL(GATE, EXPERTS)                                                                                                                       \
    ATTN "@post_attention_layernorm 16\n" GATE "@block_sparse_moe.experts.{e:" EXPERTS "}.w1 20x16\n@block_sparse_moe.experts.{e:" EXPERTS           \
         "}.w2 16x20\n@block_sparse_moe.experts.{e:" EXPERTS "}.w3 20x16\n"

/* ---- a real model -------------------------------------------------------------------------------------------------------------------- */

static struct container *open_model(const char *path)
{
    struct container *container = NULL;
    assert_ok(container_open(&io_system, path, &container, &err));
    return container;
}

static struct arch *open_arch(struct container *container)
{
    struct arch *arch = NULL;
    assert_ok(arch_open(&io_system, DIR_OF_MAPS, NULL, container, &arch, &err));
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

static void check_story_groups(const struct arch *arch)
{
    struct smooth_groups groups;
    assert_ok(arch_groups(arch, &groups, &err));
    assert_int_equal(groups.n_groups, 20);
    assert_int_equal(groups.n_refusals, 1); /* the last norm */
    for (size_t i = 0; i < groups.n_groups; i++) {
        static const enum smooth_kind kinds[] = { SMOOTH_N, SMOOTH_VG, SMOOTH_N, SMOOTH_U };
        static const uint64_t channels[] = { 64, 64, 64, 172 };
        assert_int_equal(groups.groups[i].kind, kinds[i % 4]);
        assert_int_equal(groups.groups[i].n, channels[i % 4]);
        assert_int_equal(groups.groups[i].layer, i / 4);
    }
    smooth_groups_free(&groups);
}

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
        assert_refused(arch_require(arch, "nonsense", 0, ARCH_NONE, &index, &err), ERR_UNSUPPORTED, "has no tensor 'nonsense'");
        check_story_groups(arch);
        arch_close(arch);
        container_close(container);
    }
}

/* ---- real headers -------------------------------------------------------------------------------------------------------------------- */

/* Shapes by the ends of names, as sums the configuration of each model gives. */
struct ending {
    const char *end;
    const char *shape;
};

static const struct header_case {
    const char *folder, *map, *start;
    size_t n_groups; /* by hand: layers times groups */
    const char *refusal;
    struct ending endings[24];
} headers[] = {
    { "granite-7b_llama-arch",
      "llama",
      LAYERS,
      32 * 4,
      "model.norm: ",
      { { "layernorm", "4096" },
        { "self_attn.*", "4096x4096" },
        { "mlp.gate_proj", "11008x4096" },
        { "mlp.up_proj", "11008x4096" },
        { "mlp.down_proj", "4096x11008" } } },
    { "mistral-24b_devstral",
      "llama",
      LAYERS,
      40 * 4,
      "model.norm: ",
      { { "layernorm", "5120" },
        { "q_proj", "4096x5120" },
        { "k_proj", "1024x5120" },
        { "v_proj", "1024x5120" },
        { "o_proj", "5120x4096" },
        { "gate_proj", "32768x5120" },
        { "up_proj", "32768x5120" },
        { "down_proj", "5120x32768" } } },
    { "mixtral-8x22b_wizardlm2",
      "llama",
      LAYERS,
      56 * (3 + 8),
      "model.norm: ",
      { { "layernorm", "6144" },
        { "q_proj", "6144x6144" },
        { "k_proj", "1024x6144" },
        { "v_proj", "1024x6144" },
        { "o_proj", "6144x6144" },
        { "block_sparse_moe.gate", "8x6144" },
        { "w1", "16384x6144" },
        { "w3", "16384x6144" },
        { "w2", "6144x16384" } } },
    { "phi3-mini",
      "phi3",
      LAYERS,
      32 * 4,
      "model.norm: ",
      { { "layernorm", "3072" },
        { "qkv_proj", "9216x3072" },
        { "o_proj", "3072x3072" },
        { "gate_up_proj", "16384x3072" },
        { "down_proj", "3072x8192" } } },
    { "qwen2.5-14b_cogito",
      "llama",
      LAYERS,
      48 * 4,
      "model.norm: ",
      { { "layernorm", "5120" },
        { "q_proj", "5120x5120" },
        { "k_proj", "1024x5120" },
        { "v_proj", "1024x5120" },
        { "q_proj.bias", "5120" },
        { "k_proj.bias", "1024" },
        { "v_proj.bias", "1024" },
        { "o_proj", "5120x5120" },
        { "gate_proj", "13824x5120" },
        { "up_proj", "13824x5120" },
        { "down_proj", "5120x13824" } } },
    { "qwen3-14b-mlx-4bit",
      "qwen3",
      LAYERS,
      0,
      "model.layers.0.mlp.up_proj: 'model.layers.0.mlp.down_proj.biases' stands in the same layer",
      { { "layernorm", "5120" } } },
    { "gemma4-26b-a4b_int4-g32_compressed-tensors",
      "gemma4",
      "model.language_model.layers.{n}.",
      0,
      "weight_shape' stands in the same layer, and the map gemma4",
      { { "layernorm", "2816" } } },
    { "qwen3.5-moe-25b-a3b",
      "qwen35",
      "model.language_model.layers.{n}.",
      40 * (3 + 180 + 1),
      "model.language_model.norm: ",
      { { "layernorm", "2048" },
        { "self_attn.q_proj", "8192x2048" },
        { "self_attn.k_proj", "512x2048" },
        { "self_attn.v_proj", "512x2048" },
        { "self_attn.o_proj", "2048x4096" },
        { "self_attn.q_norm", "256" },
        { "self_attn.k_norm", "256" },
        { "in_proj_qkv", "8192x2048" },
        { "in_proj_z", "4096x2048" },
        { "in_proj_a", "32x2048" },
        { "in_proj_b", "32x2048" },
        { "linear_attn.norm", "128" },
        { "out_proj", "2048x4096" },
        { "A_log", "32" },
        { "dt_bias", "32" },
        { "conv1d", "8192x1x4" },
        { "mlp.gate", "180x2048" },
        { "shared_expert_gate", "1x2048" },
        { "gate_proj", "512x2048" },
        { "up_proj", "512x2048" },
        { "down_proj", "2048x512" } } },
};

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), n_end = strlen(end);
    if (n_end > 1 && end[n_end - 1] == '*') { /* a piece anywhere */
        char piece[64];
        snprintf(piece, sizeof piece, "%.*s", (int)(n_end - 1), end);
        return strstr(name, piece) != NULL;
    }
    return n >= n_end && strcmp(name + n - n_end, end) == 0;
}

/* The tensors of an index as lines of a case. */
static char *tensors_of(const char *index, const struct header_case *header)
{
    const struct json_limits limits = { .max_depth = 16, .max_values = 1u << 20 };
    size_t n = 0;
    char *bytes = read_file(index, &n);
    cJSON *tree = NULL;
    struct text text = text_make((size_t)1 << 26);
    assert_ok(json_parse(bytes, n, &limits, &tree, &err));
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, json_get(tree, "weight_map"))
    {
        char name[256];
        const char *shape = "7x16";
        snprintf(name, sizeof name, "%s", item->string);
        size_t length = strlen(name);
        bool weight = length > 7 && strcmp(name + length - 7, ".weight") == 0, bias = ends_with(name, ".bias");
        if (weight) name[length - 7] = '\0';
        for (size_t i = 0; i < 24 && header->endings[i].end; i++)
            if (ends_with(name, header->endings[i].end)) {
                shape = header->endings[i].shape;
                break;
            }
        text_add(&text, "%s%s %s\n", name, weight || bias ? "" : "*", shape);
    }
    cJSON_Delete(tree);
    free(bytes);
    char *out = strdup(text.data);
    assert_true(out && !text.failed);
    text_free(&text);
    return out;
}

static void every_real_header_has_a_map(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        char path[200];
        snprintf(path, sizeof path, "headers/%s/config.json", headers[i].folder);
        const char *config_path = shared_data(path);
        if (!config_path) skip();
        size_t n = 0;
        char *config = read_file(config_path, &n);
        snprintf(path, sizeof path, "headers/%s/model.safetensors.index.json", headers[i].folder);
        char *tensors = tensors_of(shared_data(path), &headers[i]);
        struct container *container = arch_case_container(config, headers[i].start, 0, tensors);
        struct arch *arch = open_arch(container);
        struct smooth_groups groups;
        assert_string_equal(arch_name(arch), headers[i].map);
        assert_ok(arch_groups(arch, &groups, &err));
        char *refusals = arch_case_refusals(&groups);
        if (groups.n_groups != headers[i].n_groups || !strstr(refusals, headers[i].refusal))
            fail_msg("%s: %zu groups, refusals:\n%.2000s", headers[i].folder, groups.n_groups, refusals);
        free(refusals);
        smooth_groups_free(&groups);
        arch_close(arch);
        container_close(container);
        free(tensors);
        free(config);
    }
}

/* ---- statistics --------------------------------------------------------------------------------------------------------------------- */

static const double *squares_of(const struct stats_set *set, const struct container *container, const struct smooth_side *side, uint64_t n)
{
    const struct stats_entry *entry = stats_find(set, container->tensors[side->tensor].name);
    assert_non_null(entry);
    assert_int_equal(entry->n_in, n);
    assert_non_null(entry->values[STATS_SUM2]);
    return entry->values[STATS_SUM2];
}

/* Weights that read the same activations have the same statistics to the last bit: the groups of the map are the sets that a real file shows. */
static void groups_are_those_that_equal_statistics_show(void **state)
{
    (void)state;
    const char *path = shared_data("imatrix/imatrix.dat");
    struct stats_set *set = NULL;
    const struct stats_kind *kind = NULL;
    struct smooth_groups groups;
    if (!path) skip();
    assert_ok(stats_open(&io_system, path, 0, &set, &kind, &err));
    struct container *container = arch_case_container("gguf general.architecture=llama block_count=22 embedding_length=2048 attention.head_count=32 "
                                                      "attention.head_count_kv=4 feed_forward_length=5632",
                                                      "blk.{n}.", 22,
                                                      "@attn_norm 2048\n@attn_q 2048x2048\n@attn_k 256x2048\n@attn_v 256x2048\n@attn_output "
                                                      "2048x2048\n@ffn_norm 2048\n@ffn_gate 5632x2048\n@ffn_up 5632x2048\n@ffn_down 2048x5632\n");
    struct arch *arch = open_arch(container);
    assert_ok(arch_groups(arch, &groups, &err));
    assert_int_equal(groups.n_groups, 22 * 4);
    for (size_t i = 0; i < groups.n_groups; i++) {
        const struct smooth_group *group = &groups.groups[i];
        const double *first = squares_of(set, container, &group->consumers[0], group->n);
        for (size_t k = 1; k < group->n_consumers; k++)
            assert_memory_equal(squares_of(set, container, &group->consumers[k], group->n), first, group->n * sizeof *first);
        for (size_t k = 0; k < groups.n_groups; k++) { /* and no other group has them */
            const struct smooth_group *other = &groups.groups[k];
            if (k == i || other->n != group->n) continue;
            assert_true(memcmp(squares_of(set, container, &other->consumers[0], group->n), first, group->n * sizeof *first) != 0);
        }
    }
    smooth_groups_free(&groups);
    arch_close(arch);
    container_close(container);
    stats_close(set);
}

/* ---- refusals ------------------------------------------------------------------------------------------------------------------------ */

static const struct {
    const char *config, *tensors;
    const char *groups[2]; /* of layer 0 and 1: what stays */
    const char *refusals[4];
} refused[] = {
    /* a tensor that the map does not explain: nothing of its layer stays, the other layer does */
    { HF("LlamaForCausalLM"),
      ATTN MLP "@1:self_attn.extra_proj 4x16\n",
      { QKV VO FFN, "" },
      { "model.layers.1.input_layernorm: 'model.layers.1.self_attn.extra_proj.weight' stands in the same layer, and the map llama does not explain "
        "it",
        "model.layers.1.self_attn.v_proj: 'model.layers.1.self_attn.extra_proj.weight'",
        "model.layers.1.mlp.up_proj: 'model.layers.1.self_attn.extra_proj.weight'" } },
    /* norms inside attention and feed forward (BitNet) stand between producer and consumer */
    { HF("LlamaForCausalLM"),
      ATTN MLP "@self_attn.attn_sub_norm 24\n",
      { "", "" },
      { "model.layers.0.self_attn.v_proj: 'model.layers.0.self_attn.attn_sub_norm.weight'" } },
    /* an adapter beside its weight */
    { HF("LlamaForCausalLM"),
      ATTN MLP "@0:self_attn.q_proj.lora_A 2x16\n",
      { "", QKV VO FFN },
      { "'model.layers.0.self_attn.q_proj.lora_A.weight' stands in the same layer" } },
    /* a norm of another kind's bias is divided too; the bias of a consumer is not */
    { HF("LlamaForCausalLM"), ATTN MLP "@self_attn.o_proj.bias 16\n", { QKV VO FFN, QKV VO FFN }, { NULL } },
    /* missing tensors */
    { HF("LlamaForCausalLM"),
      "@input_layernorm 16\n@self_attn.q_proj 24x16\n@0:self_attn.k_proj 12x16\n@self_attn.v_proj 12x16\n@self_attn.o_proj 16x24\n" MLP,
      { QKV VO FFN, VO FFN },
      { "model.layers.1.input_layernorm: the model lacks 'model.layers.1.self_attn.k_proj', which this group needs" } },
    { HF("LlamaForCausalLM"),
      "@0:input_layernorm 16\n@self_attn.q_proj 24x16\n@self_attn.k_proj 12x16\n@self_attn.v_proj 12x16\n@self_attn.o_proj 16x24\n" MLP,
      { QKV VO FFN, VO FFN },
      { "model.layers.1.input_layernorm: the model lacks 'model.layers.1.input_layernorm'" } },
    /* shapes */
    { HF("LlamaForCausalLM"),
      "@input_layernorm 16\n@self_attn.q_proj 24x16\n@self_attn.k_proj 12x16\n@self_attn.v_proj 12x16\n@self_attn.o_proj "
      "16x24\n@post_attention_layernorm 16\n"
      "@mlp.gate_proj 20x16\n@mlp.up_proj 22x16\n@mlp.down_proj 16x20\n",
      { QKV VO "N post_attention_layernorm 16: post_attention_layernorm -> mlp.gate_proj mlp.up_proj\n",
        QKV VO "N post_attention_layernorm 16: post_attention_layernorm -> mlp.gate_proj mlp.up_proj\n" },
      { "model.layers.0.mlp.up_proj: 'model.layers.0.mlp.up_proj.weight' has 22 channels, 20 are expected" } },
    { HF("LlamaForCausalLM"),
      "@input_layernorm 16\n@self_attn.q_proj 24x16\n@self_attn.k_proj 12x18\n@self_attn.v_proj 12x16\n@self_attn.o_proj 16x24\n" MLP,
      { VO FFN, VO FFN },
      { "model.layers.0.input_layernorm: 'model.layers.0.self_attn.k_proj.weight' has 18 channels, 16 are expected" } },
    { HF("LlamaForCausalLM"),
      "@input_layernorm 15\n@self_attn.q_proj 24x16\n@self_attn.k_proj 12x16\n@self_attn.v_proj 12x16\n@self_attn.o_proj 16x24\n" MLP,
      { VO FFN, VO FFN },
      { "'model.layers.0.input_layernorm.weight' has 15 channels, 16 are expected" } },
    /* rows of q against the heads of the configuration */
    { HF("LlamaForCausalLM"),
      "@input_layernorm 16\n@self_attn.q_proj 18x16\n@self_attn.k_proj 12x16\n@self_attn.v_proj 12x16\n@self_attn.o_proj 16x24\n" MLP,
      { VO FFN, VO FFN },
      { "'model.layers.0.self_attn.q_proj.weight' has 18 outputs, the configuration makes it 24 (q_dim)" } },
    { HF_AND("LlamaForCausalLM", "\"num_key_value_heads_\":1"),
      "@input_layernorm 16\n@self_attn.q_proj 24x16\n@self_attn.k_proj 12x16\n@self_attn.v_proj 6x16\n@self_attn.o_proj 16x24\n" MLP,
      { FFN, FFN },
      { "model.layers.0.self_attn.v_proj: 'model.layers.0.self_attn.v_proj.weight' has 6 outputs, the configuration makes it 12 (kv_dim)" } },
    { "{\"architectures\":[\"LlamaForCausalLM\"],\"num_hidden_layers\":2,\"hidden_size\":16}",
      ATTN MLP,
      { QKV FFN, QKV FFN },
      { "model.layers.0.self_attn.v_proj: the configuration does not say 'q_dim'" } },
    /* clip_qkv */
    { HF_AND("LlamaForCausalLM", "\"clip_qkv\":8.0"),
      ATTN MLP,
      { QKV FFN, QKV FFN },
      { "model.layers.1.self_attn.v_proj: clip_qkv clamps the values" } },
    { HF_AND("LlamaForCausalLM", "\"clip_qkv\":null"), ATTN MLP, { QKV VO FFN, QKV VO FFN }, { NULL } },
    /* quantised already */
    { HF("LlamaForCausalLM"),
      "@input_layernorm 16\n@self_attn.q_proj 24x16 F8_E4M3\n@self_attn.k_proj 12x16\n@self_attn.v_proj 12x16\n@self_attn.o_proj 16x24 "
      "Q\n@post_attention_layernorm 16\n"
      "@mlp.gate_proj 20x16\n@mlp.up_proj 20x16 I8\n@mlp.down_proj 16x20\n",
      { "", "" },
      { "model.layers.0.input_layernorm: 'model.layers.0.self_attn.q_proj.weight' is quantised already (stored as F8_E4M3)",
        "model.layers.0.self_attn.v_proj: 'model.layers.0.self_attn.o_proj.weight' is quantised already (q4_k)",
        "model.layers.1.mlp.up_proj: 'model.layers.1.mlp.up_proj.weight' is quantised already (stored as I8)" } },
    /* experts: the router is a consumer; without it the norm stays as it is */
    { HF_AND("MixtralForCausalLM", "\"num_local_experts\":2"),
      MIXTRAL("", "2"),
      { QKV VO "U block_sparse_moe.experts.0.w3 20: block_sparse_moe.experts.0.w3^ -> block_sparse_moe.experts.0.w2\n"
               "U block_sparse_moe.experts.1.w3 20: block_sparse_moe.experts.1.w3^ -> block_sparse_moe.experts.1.w2\n",
        QKV VO "U block_sparse_moe.experts.0.w3 20: block_sparse_moe.experts.0.w3^ -> block_sparse_moe.experts.0.w2\n"
               "U block_sparse_moe.experts.1.w3 20: block_sparse_moe.experts.1.w3^ -> block_sparse_moe.experts.1.w2\n" },
      { "model.layers.0.post_attention_layernorm: the model lacks 'model.layers.0.block_sparse_moe.gate'" } },
    /* a missing expert */
    { HF_AND("MixtralForCausalLM", "\"num_local_experts\":3"),
      MIXTRAL("@block_sparse_moe.gate 3x16\n", "2"),
      { QKV VO "U block_sparse_moe.experts.0.w3 20: block_sparse_moe.experts.0.w3^ -> block_sparse_moe.experts.0.w2\n"
               "U block_sparse_moe.experts.1.w3 20: block_sparse_moe.experts.1.w3^ -> block_sparse_moe.experts.1.w2\n",
        QKV VO "U block_sparse_moe.experts.0.w3 20: block_sparse_moe.experts.0.w3^ -> block_sparse_moe.experts.0.w2\n"
               "U block_sparse_moe.experts.1.w3 20: block_sparse_moe.experts.1.w3^ -> block_sparse_moe.experts.1.w2\n" },
      { "model.layers.0.post_attention_layernorm: the model lacks 'model.layers.0.block_sparse_moe.experts.2.w1'",
        "model.layers.0.block_sparse_moe.experts.2.w3: the model lacks 'model.layers.0.block_sparse_moe.experts.2.w2'" } },
    /* most of them missing: said once */
    { HF_AND("MixtralForCausalLM", "\"num_local_experts\":60000"),
      MIXTRAL("@block_sparse_moe.gate 60000x16\n", "2"),
      { QKV VO, QKV VO },
      { "model.layers.0.block_sparse_moe.experts.*.w3: the model lacks 'model.layers.0.block_sparse_moe.experts.2.w2'" } },
    /* one more than the configuration has */
    { HF_AND("MixtralForCausalLM", "\"num_local_experts\":2"),
      MIXTRAL("@block_sparse_moe.gate 2x16\n", "3"),
      { "", "" },
      { "'model.layers.0.block_sparse_moe.experts.2.w1.weight' stands in the same layer" } },
    /* the router has outputs for other experts */
    { HF_AND("MixtralForCausalLM", "\"num_local_experts\":2"),
      MIXTRAL("@block_sparse_moe.gate 3x16\n", "2"),
      { QKV VO "U block_sparse_moe.experts.0.w3 20: block_sparse_moe.experts.0.w3^ -> block_sparse_moe.experts.0.w2\n"
               "U block_sparse_moe.experts.1.w3 20: block_sparse_moe.experts.1.w3^ -> block_sparse_moe.experts.1.w2\n",
        QKV VO "U block_sparse_moe.experts.0.w3 20: block_sparse_moe.experts.0.w3^ -> block_sparse_moe.experts.0.w2\n"
               "U block_sparse_moe.experts.1.w3 20: block_sparse_moe.experts.1.w3^ -> block_sparse_moe.experts.1.w2\n" },
      { "'model.layers.0.block_sparse_moe.gate.weight' has 3 outputs, the configuration makes it 2 (n_experts)" } },
    /* a stack of other experts */
    { HF_AND("Qwen3MoeForCausalLM", "\"num_experts\":3"),
      ATTN "@post_attention_layernorm 16\n@mlp.gate 3x16\n@mlp.experts.gate_up_proj* 2x16x16\n@mlp.experts.down_proj* 2x16x8\n",
      { QKV VO, QKV VO },
      { "model.layers.0.post_attention_layernorm: 'model.layers.0.mlp.experts.gate_up_proj' has 2 experts, the configuration says 3",
        "model.layers.0.mlp.experts.gate_up_proj[1]: 'model.layers.0.mlp.experts.down_proj' has 2 experts" } },
    /* the gate of the shared expert is missing */
    { HF_AND("Qwen2MoeForCausalLM", "\"num_experts\":1"),
      ATTN "@post_attention_layernorm 16\n@mlp.gate 1x16\n@mlp.experts.{e:1}.gate_proj 8x16\n@mlp.experts.{e:1}.up_proj "
           "8x16\n@mlp.experts.{e:1}.down_proj 16x8\n"
           "@mlp.shared_expert.gate_proj 10x16\n@mlp.shared_expert.up_proj 10x16\n@mlp.shared_expert.down_proj 16x10\n",
      { QKV VO "U mlp.experts.0.up_proj 8: mlp.experts.0.up_proj^ -> mlp.experts.0.down_proj\nU mlp.shared_expert.up_proj 10: "
               "mlp.shared_expert.up_proj^ -> mlp.shared_expert.down_proj\n",
        QKV VO "U mlp.experts.0.up_proj 8: mlp.experts.0.up_proj^ -> mlp.experts.0.down_proj\nU mlp.shared_expert.up_proj 10: "
               "mlp.shared_expert.up_proj^ -> mlp.shared_expert.down_proj\n" },
      { "model.layers.0.post_attention_layernorm: the model lacks 'model.layers.0.mlp.shared_expert_gate'" } },
    /* dense and expert layers in one model */
    { HF_AND("Qwen3MoeForCausalLM", "\"num_experts\":1,\"mlp_only_layers\":[0]"),
      ATTN "@post_attention_layernorm 16\n@0:mlp.gate_proj 20x16\n@0:mlp.up_proj 20x16\n@0:mlp.down_proj 16x20\n@1:mlp.gate "
           "1x16\n@1:mlp.experts.0.gate_proj 8x16\n"
           "@1:mlp.experts.0.up_proj 8x16\n@1:mlp.experts.0.down_proj 16x8\n",
      { QKV VO FFN, QKV VO "N? post_attention_layernorm 16: post_attention_layernorm -> mlp.gate mlp.experts.0.gate_proj mlp.experts.0.up_proj\n"
                           "U mlp.experts.0.up_proj 8: mlp.experts.0.up_proj^ -> mlp.experts.0.down_proj\n" },
      { NULL } },
    /* DeepSeek V3.2's indexer reads the same norms and is not in the map of V3 */
    { HF_AND("DeepseekV3ForCausalLM", "\"kv_lora_rank\":9,\"q_lora_rank\":7,\"qk_nope_head_dim\":3,\"qk_rope_head_dim\":2,\"v_head_dim\":5"),
      "@input_layernorm 16\n@self_attn.q_a_proj 7x16\n@self_attn.q_a_layernorm 7\n@self_attn.q_b_proj 20x7\n@self_attn.kv_a_proj_with_mqa "
      "11x16\n@self_attn.kv_a_layernorm 9\n"
      "@self_attn.kv_b_proj 32x9\n@self_attn.o_proj 16x20\n@self_attn.indexer.wk 4x16\n@self_attn.indexer.weights_proj 4x16\n@self_attn.indexer.wq_b "
      "8x7\n" MLP,
      { "", "" },
      { "model.layers.0.input_layernorm: 'model.layers.0.self_attn.indexer.wk.weight' stands in the same layer",
        "model.layers.0.self_attn.q_a_layernorm: 'model.layers.0.self_attn.indexer.wk.weight'" } },
    /* a tied head: the last norm is left alone whether it is or not */
    { HF_AND("LlamaForCausalLM", "\"tie_word_embeddings\":true"),
      "model.embed_tokens 50x16\nmodel.norm 16\n" ATTN MLP,
      { QKV VO FFN, QKV VO FFN },
      { "model.norm: the head behind the last norm may share its weights with the embedding" } },
    /* a layer too few, a layer too many (a head that predicts more tokens) */
    { HF("LlamaForCausalLM"),
      "@0:input_layernorm 16\n@0:self_attn.q_proj 24x16\n@0:self_attn.k_proj 12x16\n@0:self_attn.v_proj 12x16\n@0:self_attn.o_proj 16x24\n",
      { QKV VO, "" },
      { "model.layers.0.post_attention_layernorm: the model lacks 'model.layers.0.mlp.gate_proj'",
        "model.layers.1: the configuration counts this layer, the model has no tensor of it" } },
    { HF("LlamaForCausalLM"),
      ATTN MLP "@2:input_layernorm 16\n@2:eh_proj 16x32\n@2:self_attn.q_proj 24x16\n",
      { QKV VO FFN, QKV VO FFN },
      { "model.layers.2: it stands behind the layers that the configuration counts" } },
};

static void check_parts(size_t i, const char *text, const char *const parts[4])
{
    for (size_t k = 0; k < 4 && parts[k]; k++)
        if (!strstr(text, parts[k])) fail_msg("case %zu: no '%s' in\n%s", i, parts[k], text);
}

static void what_does_not_fit_is_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        struct container *container = arch_case_container(refused[i].config, LAYERS, 2, refused[i].tensors);
        struct arch *arch = open_arch(container);
        struct smooth_groups groups;
        assert_ok(arch_groups(arch, &groups, &err));
        char *refusals = arch_case_refusals(&groups);
        for (uint32_t layer = 0; layer < 2; layer++) {
            char *text = arch_case_groups(container, &groups, LAYERS, layer);
            if (strcmp(text, refused[i].groups[layer]) != 0)
                fail_msg("case %zu, layer %u:\n%swanted:\n%srefusals:\n%s", i, layer, text, refused[i].groups[layer], refusals);
            free(text);
        }
        check_parts(i, refusals, refused[i].refusals);
        if (!refused[i].refusals[0]) assert_string_equal(refusals, "");
        free(refusals);
        smooth_groups_free(&groups);
        arch_close(arch);
        container_close(container);
    }
}

/* ---- choosing ------------------------------------------------------------------------------------------------------------------------ */

static const struct {
    const char *config, *start, *tensors;
    enum status status;
    const char *says; /* the sentence, or the map */
} choices[] = {
    { HF("NoSuchForCausalLM"), LAYERS, ATTN MLP, ERR_UNSUPPORTED, "describes the architecture 'NoSuchForCausalLM'" },
    { "{\"model_type\":\"nosuch\"}", LAYERS, ATTN MLP, ERR_UNSUPPORTED, "describes the architecture 'nosuch'" },
    { "gguf general.architecture=nosuch", "blk.{n}.", "@attn_q 24x16\n", ERR_UNSUPPORTED, "describes the architecture 'nosuch'" },
    { "{\"architectures\":[\"Unknown\"],\"model_type\":\"llama\"}", LAYERS, ATTN MLP, OK, "llama" },
    { "{\"architectures\":[],\"model_type\":\"qwen3\"}", LAYERS, ATTN MLP, OK, "qwen3" },
    { "{\"architectures\":[\"XVL\"],\"model_type\":\"xvl\",\"llm_config\":{\"architectures\":[\"Qwen2ForCausalLM\"]}}", LAYERS, ATTN MLP, OK,
      "llama" },
    /* without config.json */
    { NULL, LAYERS, ATTN MLP, ERR_UNSUPPORTED,
      "there is no config.json that names the architecture, and the tensors' names fit more than one file, like 'gemma.yaml' and 'llama.yaml'" },
    { NULL, LAYERS, ATTN "@some_other 4\n" MLP, ERR_UNSUPPORTED,
      "there is no config.json that names the architecture, and the tensors' names fit no file" },
    { NULL, "layers.{n}.",
      "@attention_norm 16\n@attention.wq 24x16\n@attention.wk 12x16\n@attention.wv 12x16\n@attention.wo 16x24\n@ffn_norm 16\n@feed_forward.w1 "
      "20x16\n@feed_forward.w2 16x20\n@feed_forward.w3 20x16\n",
      OK, "llama" },
    { NULL, "gpt_neox.layers.{n}.",
      "@input_layernorm 24\n@attention.query_key_value 72x24\n@attention.dense 24x24\n@post_attention_layernorm 24\n@mlp.dense_h_to_4h "
      "20x24\n@mlp.dense_4h_to_h 24x20\n",
      OK, "gptneox" },
    { "gguf general.name=x", "blk.{n}.", "@nothing 4\n", ERR_UNSUPPORTED,
      "the GGUF keys do not name the architecture, and the tensors' names fit no file" },
    { "{}", LAYERS, "nothing 4\n", ERR_UNSUPPORTED, "there is no config.json that names" },
    /* names */
    { HF("LlamaForCausalLM"), "x.{n}.", "@a 4\n", ERR_UNSUPPORTED, "no tensor is called as the map llama has it, like 'layers.0.input_layernorm'" },
    { HF("LlamaForCausalLM"), LAYERS, ATTN MLP "language_model.layers.0.self_attn.q_proj 24x16\n", ERR_UNSUPPORTED,
      "are layers of two models in one" },
    { HF("LlamaForCausalLM"), LAYERS, ATTN MLP "model.layers.0.self_attn.q_proj.base_layer 24x16\n", ERR_DATA, "are both attn_q of one place" },
    /* configurations with mistakes */
    { "{\"architectures\":[\"LlamaForCausalLM\"],", LAYERS, ATTN MLP, ERR_DATA, "config.json: " },
    { "[1,2]", LAYERS, ATTN MLP, ERR_DATA, "config.json: is no JSON object" },
    { "{\"architectures\":[\"LlamaForCausalLM\"],\"architectures\":[]}", LAYERS, ATTN MLP, ERR_DATA, "config.json: " },
    { "{\"architectures\":[\"LlamaForCausalLM\"],\"num_attention_heads\":\"many\"}", LAYERS, ATTN MLP, ERR_DATA,
      "the configuration's 'num_attention_heads' is no number" },
    { "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_act\":5}", LAYERS, ATTN MLP, ERR_DATA, "the configuration's 'hidden_act' is no text" },
    { "{\"architectures\":[\"LlamaForCausalLM\"],\"tie_word_embeddings\":\"yes\"}", LAYERS, ATTN MLP, ERR_DATA,
      "the configuration's 'tie_word_embeddings' is no flag" },
    { "{\"architectures\":[\"LlamaForCausalLM\"],\"num_hidden_layers\":-3}", LAYERS, ATTN MLP, ERR_DATA, "the configuration says -3 layers" },
    { "{\"architectures\":[\"LlamaForCausalLM\"],\"num_hidden_layers\":1e15}", LAYERS, ATTN MLP, ERR_DATA, "the configuration says 1e+15 layers" },
    { "{\"architectures\":{\"a\":1},\"model_type\":[\"llama\"]}", LAYERS, ATTN MLP, ERR_UNSUPPORTED, "there is no config.json that names" },
    { "{\"architectures\":[\"LlamaForCausalLM\"],\"num_attention_heads\":0,\"num_key_value_heads\":0}", LAYERS, ATTN MLP, OK, "llama" },
    { "{\"architectures\":[\"LlamaForCausalLM\"],\"num_attention_heads\":4.5,\"hidden_size\":-1}", LAYERS, ATTN MLP, OK, "llama" },
};

static void a_map_is_chosen_or_the_model_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++) {
        struct container *container = arch_case_container(choices[i].config, choices[i].start, 2, choices[i].tensors);
        struct arch *arch = NULL;
        enum status status = arch_open(&io_system, DIR_OF_MAPS, NULL, container, &arch, &err);
        if (status != choices[i].status) fail_msg("case %zu: status %d: %s", i, (int)status, status ? err.text : arch_name(arch));
        if (status != OK && !strstr(err.text, choices[i].says)) fail_msg("case %zu: '%s' lacks '%s'", i, err.text, choices[i].says);
        if (status == OK) {
            struct smooth_groups groups;
            assert_string_equal(arch_name(arch), choices[i].says);
            assert_ok(arch_groups(arch, &groups, &err)); /* whatever the numbers are */
            smooth_groups_free(&groups);
        }
        arch_close(arch);
        container_close(container);
    }
}

/* ---- facts ---------------------------------------------------------------------------------------------------------------------------- */

static void facts_come_from_both_kinds_of_files(void **state)
{
    (void)state;
    struct container *container = arch_case_container("{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"x\",\"num_hidden_layers\":2,"
                                                      "\"hidden_size\":16,\"num_attention_heads\":4,\"rms_norm_eps\":1e-5,\"rope_theta\":500000.0,"
                                                      "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0},\"tie_word_"
                                                      "embeddings\":true,\"sliding_window\":null,\"layer_types\":[\"full\",\"sliding\"],"
                                                      "\"text_config\":{\"num_key_value_heads\":2}}",
                                                      LAYERS, 2, ATTN MLP);
    struct arch *arch = open_arch(container);
    const char *text = NULL;
    bool flag = false;
    double value = 0;
    assert_int_equal((int)number(arch, "n_kv_heads"), 2);
    assert_int_equal((int)number(arch, "head_dim"), 4);
    assert_int_equal((int)number(arch, "value_dim"), 4);
    assert_int_equal((int)number(arch, "rope_theta"), 500000);
    assert_int_equal((int)number(arch, "rope_factor"), 8);
    assert_true(arch_text(arch, "rope_scaling", &text));
    assert_string_equal(text, "llama3");
    assert_true(arch_text(arch, "act", &text)); /* the family's default */
    assert_string_equal(text, "silu");
    assert_true(arch_flag(arch, "tied", &flag) && flag);
    assert_false(arch_number(arch, "sliding_window", &value));
    assert_false(arch_text(arch, "layer_types", &text)); /* not the same in all layers */
    assert_true(arch_text_at(arch, "layer_types", 1, &text));
    assert_string_equal(text, "sliding");
    assert_false(arch_text_at(arch, "layer_types", 2, &text));
    assert_true(arch_number_at(arch, "n_heads", 1, &value) && (int)value == 4);
    assert_false(arch_number(arch, "nonsense", &value));
    assert_false(arch_number(arch, "act", &value));
    arch_close(arch);
    container_close(container);

    container = arch_case_container(
        "gguf general.architecture=llama block_count=2 embedding_length=16 attention.head_count=4 attention.head_count_kv=2,1 rope.freq_base=10000.0 "
        "attention.layer_norm_rms_epsilon=1e-5",
        "blk.{n}.", 2, "@attn_norm 16\n@attn_q 16x16\n");
    arch = open_arch(container);
    assert_false(arch_number(arch, "n_kv_heads", &value)); /* differs from layer to layer: not all query heads by default */
    assert_true(arch_number_at(arch, "n_kv_heads", 1, &value) && (int)value == 1);
    assert_true(arch_number(arch, "norm_eps", &value) && value > 9.9e-6 && value < 1.01e-5);
    assert_int_equal((int)number(arch, "rope_theta"), 10000);
    arch_close(arch);
    container_close(container);
}

static void tensors_know_how_they_are_stored(void **state)
{
    (void)state;
    struct container *container = arch_case_container("{\"architectures\":[\"GPT2LMHeadModel\"],\"n_layer\":1}", "h.{n}.", 1, "@attn.c_attn 4x12\n");
    struct arch *arch = open_arch(container);
    assert_true(arch_transposed(arch, "attn_qkv"));
    assert_false(arch_transposed(arch, "attn_norm"));
    arch_close(arch);
    container_close(container);
    container = arch_case_container("gguf general.architecture=gpt2", "blk.{n}.", 1, "@attn_qkv 12x4\n");
    arch = open_arch(container);
    assert_false(arch_transposed(arch, "attn_qkv"));
    arch_close(arch);
    container_close(container);
    container = arch_case_container(HF("GemmaForCausalLM"), LAYERS, 2, ATTN MLP);
    arch = open_arch(container);
    assert_true(arch_plus_one(arch, "attn_norm") && arch_plus_one(arch, "output_norm"));
    assert_false(arch_plus_one(arch, "attn_q"));
    arch_close(arch);
    container_close(container);
    container = arch_case_container(HF_AND("MixtralForCausalLM", "\"num_local_experts\":2"), LAYERS, 2, MIXTRAL("", "2"));
    arch = open_arch(container);
    assert_string_equal(container->tensors[arch_tensor(arch, "ffn_down_exps", 1, 1, false)].name,
                        "model.layers.1.block_sparse_moe.experts.1.w2.weight");
    assert_int_equal(arch_tensor(arch, "ffn_down_exps", 1, ARCH_NONE, false), SIZE_MAX);
    assert_int_equal(arch_tensor(arch, "ffn_down_exps", 1, 2, false), SIZE_MAX);
    arch_close(arch);
    container_close(container);
}

/* ---- maps with mistakes --------------------------------------------------------------------------------------------------------------- */

#define HEAD "layers: ['layers.{n}.']\nlayer: {a: x.a, b: {hf: x.b}}\n" /* two lines */
#define GROUP "groups: [{kind: N, absorb: a, consumers: b}]\n"

static const struct {
    const char *text, *says;
} maps[] = {
    { HEAD GROUP "surprise: 1\n", "own.yaml:4: key 'surprise': unknown" },
    { HEAD "groups:\n  - {kind: N, absorb: a, consumers: b, axis: 1}\n", "own.yaml:4: key 'axis': unknown" },
    { HEAD "groups:\n  - {kind: X, absorb: a, consumers: b}\n", "own.yaml:4: a kind is N, U, R, V, M or G" },
    { HEAD "groups:\n  - {absorb: a, consumers: b}\n", "own.yaml:4: a kind is N, U, R, V, M or G" },
    { HEAD "groups:\n  - {kind: N, absorb: c, consumers: b}\n", "own.yaml:4: there is no tensor 'c'" },
    { HEAD "groups:\n  - {kind: N, absorb: a}\n", "own.yaml:4: a group needs 'absorb' and 'consumers'" },
    { HEAD "groups:\n  - {kind: N, absorb: a, consumers: b.v}\n", "own.yaml:4: there is no part 'b.v'" },
    { HEAD "groups:\n  - {kind: N, absorb: a, consumers: b, channels: 2 * nothing}\n", "own.yaml:4: '2 * nothing': no fact at 'nothing'" },
    { HEAD "groups:\n  - {kind: N, absorb: a, consumers: b, channels: 2 * (hidden}\n", "own.yaml:4: '2 * (hidden': no closing parenthesis" },
    { HEAD "groups:\n  - {kind: N, absorb: a, consumers: b, channels: 2 hidden}\n", "own.yaml:4: '2 hidden': no sign at 'hidden'" },
    { HEAD "groups:\n  - {kind: N, absorb: a, consumers: b, share: {heads: 2}}\n", "own.yaml:4: share needs 'heads' and 'run'" },
    { HEAD "groups:\n  - {kind: N, absorb: a, consumers: b, if: {nothing: 1}}\n", "own.yaml:4: there is no fact 'nothing'" },
    { HEAD "groups:\n  - {kind: N, absorb: a, consumers: b, if: {has: c}}\n", "own.yaml:4: there is no tensor 'c'" },
    { HEAD "groups:\n  - {kind: N, absorb: a, consumers: b, if: [5]}\n", "own.yaml:4:" },
    { HEAD "groups:\n  - {kind: N, absorb: a, consumers: b, if: {file: zip}}\n", "own.yaml:4: file is hf or gguf" },
    { HEAD "groups:\n  - {kind: N, absorb: a, consumers: b, unless: [{act: relu}]}\n", "own.yaml:4: a reason to refuse a group needs 'why'" },
    { HEAD "groups:\n  - {kind: N, absorb: a, consumers: b, on_request: 1}\n", "own.yaml:4:" },
    { HEAD, "own.yaml:1: there is no list 'groups'" },
    { "layer: {a: x}\n" GROUP, "there is no list 'layers'" },
    { "layers: ['layers.']\nlayer: {a: x.a, b: x.b}\n" GROUP, "own.yaml:1: a beginning of names ends in '{n}.', not 'layers.'" },
    { "layers: ['layers.{n}.']\nlayer: {a: x.a, b: x.a}\n" GROUP, "own.yaml:2: 'x.a' is a name of 'a' already" },
    { "layers: ['layers.{n}.']\nlayer: {a: x.a, b: 'x.{e}.{e}'}\n" GROUP, "own.yaml:2: only one {e} may stand in 'x.{e}.{e}'" },
    { "layers: ['layers.{n}.']\nmodel: {c: 'x.{e}'}\nlayer: {a: x.a, b: x.b}\n" GROUP, "own.yaml:2: {e} stands in a layer only" },
    { "layers: ['layers.{n}.']\nlayer: {a: x.a, b: {hf: x.b, color: red}}\n" GROUP, "own.yaml:2: key 'color': unknown" },
    { "layers: ['layers.{n}.']\nlayer: {a: x.a, b: {hf: x.b, transposed: yes}}\n" GROUP, "own.yaml:2: transposed is hf or gguf, not 'yes'" },
    { "layers: ['layers.{n}.']\nlayer: {a: x.a, b: {hf: x.b, out: 1 +}}\n" GROUP, "own.yaml:2: '1 +': no number, name or parenthesis" },
    { "layers: ['layers.{n}.']\nmodel: {a: y}\nlayer: {a: x.a, b: x.b}\n" GROUP, "own.yaml:3: there are two keys 'a'" },
    { HEAD GROUP "ignore: [c]\n", "own.yaml:4: there is no tensor 'c'" },
    { HEAD GROUP "ignore: [a]\nnever: {a: because}\n", "own.yaml:5: two of ignore, never and unfolded list 'a'" },
    { HEAD GROUP "never: [a]\n", "own.yaml:4:" },
    { HEAD GROUP "parts: [{of: a, name: v}]\n", "own.yaml:4: a part needs 'of', 'name' and 'size'" },
    { HEAD GROUP "parts: [{of: c, name: v, size: n}]\n", "own.yaml:4: there is no tensor 'c'" },
    { HEAD GROUP "facts: {new: {type: list}}\n", "own.yaml:4: a type is number, text or flag, not 'list'" },
    { HEAD GROUP "facts: {new: {default: 3 apples}}\n", "own.yaml:4: '3 apples': no sign" },
    { HEAD GROUP "facts: {new: {type: flag, default: perhaps}}\n", "own.yaml:4:" },
    { HEAD GROUP "facts: {new: {from: x}}\n", "own.yaml:4: key 'from': unknown" },
    { HEAD GROUP "like: nosuch\n", "nosuch.yaml" },
    { HEAD GROUP "like: ../llama\n", "'../llama' is no name of an architecture" },
    { HEAD GROUP "like: qwen3\n", "own.yaml:4: like names a map that builds on another itself: 'qwen3'" },
    { HEAD GROUP "match: [a]\n", "own.yaml:4:" },
    { HEAD GROUP "match: {onnx: a}\n", "own.yaml:4: key 'onnx': unknown" },
    { "layers: [\n", "own.yaml:" },
    { "", "there is no list 'layers'" },
};

/* "own.yaml:4: what is wrong": the place and the reason; the key may stand between them. */
static bool says_both(const char *says)
{
    char place[32];
    size_t n = strspn(says, "own.yaml:0123456789");
    snprintf(place, sizeof place, "%.*s", (int)(n < 31 ? n : 31), says);
    if (n < 10 || !strstr(place, "yaml:")) return strstr(err.text, says) != NULL;
    return strstr(err.text, place) && strstr(err.text, says + n + strspn(says + n, " "));
}

static void mistakes_in_a_map_are_refused_with_their_line(void **state)
{
    (void)state;
    char *dir = temp_dir();
    for (size_t i = 0; i < sizeof maps / sizeof maps[0]; i++) {
        const char *path = temp_path(dir, "own.yaml");
        write_file(path, maps[i].text, strlen(maps[i].text));
        struct container *container = arch_case_container("{}", "layers.{n}.", 1, "@x.a 4\n@x.b 4x4\n");
        struct arch *arch = NULL;
        enum status status = arch_open(&io_system, DIR_OF_MAPS, path, container, &arch, &err);
        if (status == OK) fail_msg("map %zu was taken:\n%s", i, maps[i].text);
        if (!says_both(maps[i].says)) fail_msg("map %zu: '%s' lacks '%s'", i, err.text, maps[i].says);
        container_close(container);
    }
    temp_dir_remove(dir);
}

/* A map of one's own, which scales a matrix twice, or shares between layers what it may not. */
static const struct {
    const char *groups, *tensors, *left;
    const char *refusals[4];
} own_maps[] = {
    { "groups: [{kind: N, absorb: a, consumers: b}]\n", "@x.a 4\n@x.b 6x4\n", "N x.a 4: x.a -> x.b\n", { NULL } },
    { "groups: [{kind: N, absorb: a, consumers: b}, {kind: N, absorb: a, consumers: c}]\nignore: [d]\n",
      "@x.a 4\n@x.b 6x4\n@x.c 5x4\n",
      "",
      { "layers.0.x.a: 'layers.0.x.a' would be scaled by the group 'layers.0.x.a' as well" } },
    { "groups: [{kind: N, absorb: a, consumers: b}, {kind: N, absorb: d, consumers: [b, c]}]\n",
      "@x.a 4\n@x.d 4\n@x.b 6x4\n@x.c 5x4\n",
      "",
      { "layers.0.x.a: 'layers.0.x.b' would be scaled by the group 'layers.0.x.d' as well",
        "layers.0.x.d: 'layers.0.x.b' would be scaled by the group 'layers.0.x.a' as well" } },
    /* a chain: b is consumer on one axis and producer on the other */
    { "groups: [{kind: N, absorb: a, consumers: b}, {kind: R, absorb: b, consumers: c}]\n",
      "@x.a 4\n@x.b 6x4\n@x.c 5x6\n",
      "N x.a 4: x.a -> x.b\nR x.b 6: x.b^ -> x.c\n",
      { NULL } },
    /* squared ReLU */
    { "groups: [{kind: N, absorb: a, consumers: b}, {kind: R, absorb: b, consumers: c, root: true}]\n",
      "@x.a 4\n@x.b 6x4\n@x.b.bias 6\n@x.c 5x6\n",
      "N x.a 4: x.a -> x.b\nR x.b 6: x.b^! x.b.bias! -> x.c\n",
      { NULL } },
    /* a matrix that only produces does not explain itself */
    { "groups: [{kind: R, absorb: b, consumers: c}]\n", "@x.b 6x4\n@x.c 5x6\n", "", { "'layers.0.x.b.weight' stands in the same layer" } },
    { "groups: [{kind: R, absorb: b, consumers: c}]\nunfolded: {b: it reads something else}\n",
      "@x.b 6x4\n@x.c 5x6\n",
      "R x.b 6: x.b^ -> x.c\n",
      { "layers.0.x.b: it reads something else" } },
    /* what a kind divides */
    { "groups: [{kind: U, absorb: a, consumers: b}]\n",
      "@x.a 4\n@x.b 6x4\n",
      "",
      { "layers.0.x.a: 'layers.0.x.a.weight' has 1 dims, which is not what the group's kind divides" } },
    { "groups: [{kind: N, absorb: b, consumers: c}]\nunfolded: {b: x}\n",
      "@x.b 6x4\n@x.c 5x6\n",
      "",
      { "layers.0.x.b: 'layers.0.x.b.weight' has 2 dims, which is not what the group's kind divides" } },
    /* optional ones */
    { "groups: [{kind: N, absorb: a, consumers: [b, 'c?']}]\n", "@x.a 4\n@x.b 6x4\n", "N x.a 4: x.a -> x.b\n", { NULL } },
    { "groups: [{kind: N, absorb: a, consumers: ['b?', 'c?']}]\n", "@x.a 4\n", "", { "layers.0.x.a: none of its consumers is there" } },
    /* parts */
    { "parts: [{of: b, name: p, size: 6, first: 5}]\ngroups: [{kind: R, absorb: b.p, consumers: c}]\nunfolded: {b: x}\n",
      "@x.b 6x4\n@x.c 5x2\n",
      "",
      { "layers.0.x.b: the part 'p' of 'layers.0.x.b.weight' does not lie in its 6 channels" } },
    { "parts: [{of: b, name: p, size: 8, first: 1, run: 1, step: 2}]\ngroups: [{kind: R, absorb: b.p, consumers: c}]\nunfolded: {b: x}\n",
      "@x.b 8x4\n@x.c 5x4\n",
      "R x.b 4: x.b^@1+1/2 -> x.c\n",
      { "layers.0.x.b: x" } },
    { "parts: [{of: b, name: p, size: 8, first: 1 - 2}]\ngroups: [{kind: R, absorb: b.p, consumers: c}]\nunfolded: {b: x}\n",
      "@x.b 8x4\n@x.c 5x4\n",
      "",
      { "layers.0.x.b: '1 - 2' does not come out: a number out of range" } },
    { "parts: [{of: b, name: p, size: 8, first: 7 / 2}]\ngroups: [{kind: R, absorb: b.p, consumers: c}]\nunfolded: {b: x}\n",
      "@x.b 8x4\n@x.c 5x4\n",
      "",
      { "'7 / 2' does not come out: a division that leaves a remainder" } },
    { "parts: [{of: b, name: p, size: 8, run: 0}]\ngroups: [{kind: R, absorb: b.p, consumers: c}]\nunfolded: {b: x}\n",
      "@x.b 8x4\n@x.c 5x4\n",
      "",
      { "does not lie in its 8 channels" } },
    { "parts: [{of: b, name: p, size: 8, run: 4294967296 * 4294967295, step: 4294967296 * 4294967295}]\ngroups: [{kind: R, absorb: b.p, consumers: "
      "c}]\nunfolded: {b: x}\n",
      "@x.b 8x4\n@x.c 5x4\n",
      "",
      { "does not lie in its 8 channels" } },
    { "groups: [{kind: V, absorb: b, consumers: c, share: {heads: 3, run: 2}}]\nunfolded: {b: x}\n",
      "@x.b 8x4\n@x.c 5x8\n",
      "",
      { "its 8 channels are no heads of 2, 3 of which share" } },
    { "groups: [{kind: V, absorb: b, consumers: c, share: {heads: 0, run: 2}}]\nunfolded: {b: x}\n",
      "@x.b 8x4\n@x.c 5x8\n",
      "",
      { "its 8 channels are no heads of 2, 0 of which share" } },
    { "groups: [{kind: V, absorb: b, consumers: c, channels: 3 + 2 * 4}]\nunfolded: {b: x}\n",
      "@x.b 8x4\n@x.c 5x8\n",
      "",
      { "it has 8 channels, the configuration makes it 11 (3 + 2 * 4)" } },
    /* odd shapes */
    { "groups: [{kind: N, absorb: a, consumers: b}]\n", "@x.a 4\n@x.b 2x2x6x4\n", "", { "'layers.0.x.b.weight' has 4 dims" } },
    { "groups: [{kind: N, absorb: a, consumers: b}]\n", "@x.a 0\n@x.b 6x0\n", "", { "layers.0.x.a: it has no channels" } },
};

static void groups_of_a_map_of_ones_own(void **state)
{
    (void)state;
    char *dir = temp_dir(), text[2000];
    for (size_t i = 0; i < sizeof own_maps / sizeof own_maps[0]; i++) {
        const char *path = temp_path(dir, "own.yaml");
        snprintf(text, sizeof text, "layers: ['layers.{n}.']\nlayer: {a: x.a, b: x.b, c: x.c, d: x.d}\nforward: {anything: [1, 2]}\n%s",
                 own_maps[i].groups);
        write_file(path, text, strlen(text));
        struct container *container = arch_case_container("{\"architectures\":[\"Whatever\"]}", "layers.{n}.", 1, own_maps[i].tensors);
        struct arch *arch = NULL;
        struct smooth_groups groups;
        assert_ok(arch_open(&io_system, DIR_OF_MAPS, path, container, &arch, &err));
        assert_string_equal(arch_name(arch), "own");
        const struct yaml_doc *doc = NULL;
        const struct yaml_node *forward = arch_section(arch, "forward", &doc);
        assert_true(forward && doc && yaml_get(forward, "anything"));
        assert_null(arch_section(arch, "backward", NULL));
        assert_ok(arch_groups(arch, &groups, &err));
        char *refusals = arch_case_refusals(&groups), *left = arch_case_groups(container, &groups, "layers.{n}.", 0);
        if (strcmp(left, own_maps[i].left) != 0) fail_msg("map %zu:\n%swanted:\n%srefusals:\n%s", i, left, own_maps[i].left, refusals);
        check_parts(i, refusals, own_maps[i].refusals);
        if (!own_maps[i].refusals[0]) assert_string_equal(refusals, "");
        free(left);
        free(refusals);
        smooth_groups_free(&groups);
        arch_close(arch);
        container_close(container);
    }
    temp_dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_real_model_in_both_forms),
        cmocka_unit_test(every_real_header_has_a_map),
        cmocka_unit_test(groups_are_those_that_equal_statistics_show),
        cmocka_unit_test(what_does_not_fit_is_refused_by_name),
        cmocka_unit_test(a_map_is_chosen_or_the_model_refused),
        cmocka_unit_test(facts_come_from_both_kinds_of_files),
        cmocka_unit_test(tensors_know_how_they_are_stored),
        cmocka_unit_test(mistakes_in_a_map_are_refused_with_their_line),
        cmocka_unit_test(groups_of_a_map_of_ones_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
