/* test_prequant.c: checkpoints of other quantisers are refused by name, plain ones are not.
 *
 * Formula: a model is a list of "NAME DTYPE"; the verdict is a part of the sentence, or NULL for a plain model.
 * Why this way: the rows of prequant.c are met one by one, and every layout it names must be met by some model here.
 * Corner cases: companions that are missing, other dtypes, names that only look alike, config.json that is no JSON.
 * Reference: the project's layout notes 2; real index files and config.json of shared/data/headers.
 */
#include "support/support.h"

#include <time.h>

#include "base/json.h"
#include "container/container.h"
#include "container/prequant.h"
#include "container/shard_index.h"

/* ---- models made of names --------------------------------------------------------------------------------------------------------- */

static const uint64_t one = 1;

static void add_tensor(struct container *container, const char *name, const char *dtype)
{
    container->tensors = realloc(container->tensors, (container->n_tensors + 1) * sizeof *container->tensors);
    assert_non_null(container->tensors);
    const struct dtype *row = dtype_find(dtype, strlen(dtype));
    if (!row) fail_msg("no dtype %s", dtype);
    container->tensors[container->n_tensors++] = (struct tensor){ .name = name, .dtype = row, .dims = &one, .rank = 1, .n_weights = 1 };
}

static struct container make_model(void)
{
    return (struct container){ .path = strdup("dir/m.safetensors") };
}

/* entry is "NAME DTYPE"; the name lives until free_names. */
static char *names[100];
static size_t n_names;

static void add_entry(struct container *container, const char *entry)
{
    char *copy = strdup(entry), *blank = strrchr(copy, ' ');
    assert_non_null(blank);
    *blank = '\0';
    names[n_names++] = copy;
    add_tensor(container, copy, blank + 1);
}

static void free_model(struct container *container)
{
    container_release(container);
    while (n_names > 0) free(names[--n_names]);
}

/* ---- the table -------------------------------------------------------------------------------------------------------------------- */

static const struct model {
    const char *what;
    const char *tensors[6];
    const char *part; /* NULL: plain */
    const char *config; /* NULL: none */
} models[] = {
    { "plain", { "a.weight BF16", "a.bias BF16", "norm.weight F32" }, NULL, NULL },
    { "plain with integers", { "position_ids I64", "mask BOOL", "embeddings I8", "mapping I32" }, NULL, NULL },
    { "plain FP8 without scales", { "a.weight F8_E4M3", "b.weight F8_E5M2" }, NULL, NULL },
    { "scales of a plain model",
      { "router.scale BF16", "router.per_expert_scale BF16", "router.weight BF16", "std_scale F32", "layer_scalar BF16" },
      NULL,
      NULL },
    { "weight_scale beside a float weight", { "a.weight BF16", "a.weight_scale BF16" }, NULL, NULL },
    { "scales beside a float weight", { "a.weight BF16", "a.scales BF16", "a.biases BF16" }, NULL, NULL },
    { "qzeros without qweight", { "a.qzeros I32", "a.scales F16" }, NULL, NULL },
    { "a name that ends alike", { "aqweight I32", "xblocks U8", "xscales U8" }, NULL, NULL },
    { "no tensors", { NULL }, NULL, NULL },

    { "GPTQ", { "a.qweight I32", "a.qzeros I32", "a.scales F16", "a.g_idx I32" }, "GPTQ (tensor 'a.qweight')", NULL },
    { "AWQ", { "a.qweight I32", "a.qzeros I32", "a.scales F16" }, "AWQ (tensor 'a.qweight')", NULL },
    { "AWQ and GPTQ: the telling row wins",
      { "a.qweight I32", "a.qzeros I32", "b.qweight I32", "b.qzeros I32", "b.g_idx I32" },
      "GPTQ (tensor 'b.qweight')",
      NULL },
    { "qweight alone", { "a.qweight U8" }, "GPTQ, AWQ or a relative (tensor 'a.qweight')", NULL },
    { "bitsandbytes NF4",
      { "a.weight U8", "a.weight.absmax U8", "a.weight.quant_map F32", "a.weight.quant_state.bitsandbytes__nf4 U8" },
      "bitsandbytes NF4",
      NULL },
    { "bitsandbytes FP4", { "a.weight U8", "a.weight.absmax U8", "a.weight.quant_state.bitsandbytes__fp4 U8" }, "bitsandbytes FP4", NULL },
    { "bitsandbytes absmax", { "a.weight U8", "a.weight.absmax F32" }, "bitsandbytes 4-bit", NULL },
    { "bitsandbytes map", { "a.weight U8", "a.weight.quant_map F32" }, "bitsandbytes 4-bit (tensor 'a.weight.quant_map')", NULL },
    { "LLM.int8", { "a.weight I8", "a.SCB F32" }, "LLM.int8", NULL },
    { "compressed-tensors packed",
      { "a.weight_packed I32", "a.weight_scale BF16", "a.weight_shape I64" },
      "compressed-tensors (tensor 'a.weight_packed')",
      NULL },
    { "compressed-tensors sparse", { "a.compressed BF16", "a.bitmask U8" }, "compressed-tensors (sparse)", NULL },
    { "compressed-tensors int8", { "a.weight I8", "a.weight_scale BF16" }, "INT8 (compressed-tensors)", NULL },
    { "compressed-tensors MXFP8", { "a.weight F8_E4M3", "a.weight_scale U8" }, "MXFP8 (tensor 'a.weight')", NULL },
    { "ModelOpt NVFP4", { "a.weight U8", "a.weight_scale F8_E4M3", "a.weight_scale_2 F32", "a.input_scale F32" }, "NVFP4 (ModelOpt or Quark)", NULL },
    { "FP8 block", { "a.weight F8_E4M3", "a.weight_scale_inv F32" }, "FP8 with block scales (tensor 'a.weight_scale_inv')", NULL },
    { "FP8 channel", { "a.weight F8_E4M3", "a.weight_scale F32" }, "FP8 (tensor 'a.weight')", NULL },
    { "FP8 of ComfyUI", { "a.weight F8_E4M3", "a.scale_weight F32" }, "FP8 (tensor 'a.weight')", NULL },
    { "FP8 experts", { "experts.gate_up_proj F8_E4M3", "experts.gate_up_proj_scale F32" }, "FP8 (tensor 'experts.gate_up_proj')", NULL },
    { "FP8 block experts",
      { "experts.gate_up_proj F8_E4M3", "experts.gate_up_proj_scale_inv F32" },
      "FP8 with block scales (tensor 'experts.gate_up_proj')",
      NULL },
    { "Quark MXFP4", { "a.weight U8", "a.weight_scale U8" }, "Quark MXFP4 or MXFP6", NULL },
    { "Quark INT4", { "a.weight I32", "a.weight_scale F32", "a.weight_zero_point I32" }, "Quark INT4", NULL },
    { "BitNet", { "a.weight U8", "a.weight_scale BF16" }, "BitNet", NULL },
    { "EETQ", { "a.weight I8", "a.weight_scales F16" }, "EETQ", NULL },
    { "DeepSeek-V3 inference", { "a.weight F8_E4M3", "a.scale F32" }, "DeepSeek FP8 or FP4", NULL },
    { "DeepSeek-V4 dense", { "a.weight F8_E4M3", "a.scale F8_E8M0" }, "DeepSeek FP8 or FP4", NULL },
    { "DeepSeek-V4 experts", { "a.weight I8", "a.scale F8_E8M0" }, "DeepSeek FP8 or FP4", NULL },
    { "quanto", { "a.weight._data I8", "a.weight._scale BF16" }, "quanto", NULL },
    { "MLX affine", { "a.weight U32", "a.scales BF16", "a.biases BF16" }, "MLX (tensor 'a.weight')", NULL },
    { "MLX mxfp4", { "a.weight U32", "a.scales U8" }, "MLX (tensor 'a.weight')", NULL },
    { "gpt-oss",
      { "mlp.experts.gate_up_proj_blocks U8", "mlp.experts.gate_up_proj_scales U8", "mlp.experts.gate_up_proj_bias BF16" },
      "gpt-oss MXFP4",
      NULL },
    { "gpt-oss, original names", { "block.0.mlp.mlp1_weight.blocks U8", "block.0.mlp.mlp1_weight.scales U8" }, "gpt-oss MXFP4", NULL },
    { "HQQ", { "a.W_q U8", "a.scale F16", "a.zero F16" }, "HQQ", NULL },
    { "torchao qdata", { "a.weight:qdata I8", "a.weight:scale F32" }, "torchao", NULL },
    { "torchao int_data", { "a.weight:int_data I8" }, "torchao", NULL },
    { "torchao original_weight", { "a.weight:original_weight F32" }, "torchao", NULL },
    { "torchao flat", { "a._weight_qdata I8", "a._weight_scale F32" }, "torchao", NULL },
    { "AQLM", { "a.codes I8", "a.codebooks F16", "a.scales F16" }, "AQLM", NULL },
    { "QuIP#", { "a.Qidxs I64" }, "QuIP#", NULL },
    { "EXL2", { "a.q_weight I32", "a.q_scale I32", "a.q_groups I16" }, "EXL2", NULL },
    { "EXL3", { "a.trellis I16", "a.suh F16", "a.svh F16" }, "EXL3", NULL },
    { "VPTQ", { "a.indices I32", "a.centroids.weight F16" }, "VPTQ", NULL },
    { "Marlin", { "a.B I32", "a.s F16" }, "Marlin", NULL },
    { "unknown scales", { "a.w I8", "a.w_scale F32" }, "a layout with scales of its own (tensor 'a.w')", NULL },

    { "config without settings", { "a.weight BF16" }, NULL, "{\"hidden_size\":64}" },
    { "config null", { "a.weight BF16" }, NULL, "{\"quantization_config\":null}" },
    { "config with empty settings", { "a.weight BF16" }, NULL, "{\"quantization_config\":{}}" },
    { "config with a text", { "a.weight BF16" }, NULL, "{\"quantization\":\"none\"}" },
    { "config with method null", { "a.weight BF16" }, NULL, "{\"quantization_config\":{\"quant_method\":null}}" },
    { "config no JSON", { "a.weight BF16" }, NULL, "{\"quantization_config\":{\"quant_method\":\"gptq\"}, x" },
    { "config with Infinity", { "a.weight BF16" }, NULL, "{\"time_step_limit\":[0.0,Infinity]}" },
    { "config a list", { "a.weight BF16" }, NULL, "[]" },
    { "config empty", { "a.weight BF16" }, NULL, "" },
    { "config GPTQ",
      { "a.weight BF16" },
      "GPTQ (config.json: quant_method 'gptq')",
      "{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":128}}" },
    { "config FP8", { "a.weight BF16" }, "FP8 with block scales (config.json", "{\"quantization_config\":{\"quant_method\":\"fp8\"}}" },
    { "config ModelOpt", { "a.weight BF16" }, "ModelOpt (config.json", "{\"quantization_config\":{\"quant_method\":\"modelopt\"}}" },
    { "config unknown method",
      { "a.weight BF16" },
      "quantised with brandnew (config.json: quant_method 'brandnew')",
      "{\"quantization_config\":{\"quant_method\":\"brandnew\"}}" },
    { "config method with an escape", { "a.weight BF16" }, "quantised with a\\x0ab (", "{\"quantization_config\":{\"quant_method\":\"a\\nb\"}}" },
    { "config MLX", { "a.weight BF16" }, "MLX (config.json: 'quantization')", "{\"quantization\":{\"group_size\":64,\"bits\":4}}" },
    { "config compression_config",
      { "a.weight BF16" },
      "compressed-tensors (config.json: 'compression_config')",
      "{\"compression_config\":{\"config_groups\":{}}}" },
    { "config nested",
      { "a.weight BF16" },
      "bitsandbytes (config.json",
      "{\"text_config\":{\"quantization_config\":{\"quant_method\":\"bitsandbytes\"}}}" },
    { "tensors before config", { "a.weight U32", "a.scales BF16" }, "MLX (tensor", "{\"quantization_config\":{\"quant_method\":\"gptq\"}}" },
};

static enum status check_model(const struct model *model, struct err *err)
{
    struct container container = make_model();
    for (size_t i = 0; i < 6 && model->tensors[i]; i++) add_entry(&container, model->tensors[i]);
    *err = (struct err){ .code = OK };
    assert_int_equal(container_index_names(&container, err), OK);
    enum status status = prequant_check(&container, model->config, model->config ? strlen(model->config) : 0, err);
    free_model(&container);
    return status;
}

static void models_are_recognised(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        struct err err;
        enum status status = check_model(&models[i], &err);
        if (status != (models[i].part ? ERR_UNSUPPORTED : OK)) fail_msg("%s: status %d, %s", models[i].what, (int)status, err.text);
        if (!models[i].part) continue;
        if (!strstr(err.text, models[i].part)) fail_msg("%s: message '%s' lacks '%s'", models[i].what, err.text, models[i].part);
        assert_non_null(strstr(err.text, "'dir/m.safetensors' is already quantised with "));
        assert_non_null(strstr(err.text, "; llmq reads plain weights only"));
    }
}

static void every_layout_of_the_table_is_met(void **state)
{
    (void)state;
    for (size_t r = 0; r < prequant_count(); r++) {
        bool met = false;
        for (size_t i = 0; i < sizeof models / sizeof models[0] && !met; i++)
            met = models[i].part && strncmp(models[i].part, prequant_at(r), strlen(prequant_at(r))) == 0;
        /* sentences begin with the layout's name, except where the table above shortens them */
        for (size_t i = 0; i < sizeof models / sizeof models[0] && !met; i++) met = models[i].part && strstr(prequant_at(r), models[i].part);
        if (!met) fail_msg("no model here is '%s'", prequant_at(r));
    }
}

static void one_missing_companion_makes_it_plain(void **state)
{
    (void)state;
    static const struct model halves[] = {
        { "scale elsewhere", { "a.weight F8_E4M3", "b.weight_scale F32" }, NULL, NULL },
        { "MLX without scales", { "a.weight U32", "a.biases BF16" }, NULL, NULL },
        { "gpt-oss blocks alone", { "a_blocks U8", "b_scales U8" }, NULL, NULL },
        { "gpt-oss of another dtype", { "a_blocks BF16", "a_scales U8" }, NULL, NULL },
        { "EXL2 half", { "a.q_weight I32" }, NULL, NULL },
        { "Marlin half", { "a.B I32" }, NULL, NULL },
        { "codes alone", { "a.codes I8" }, NULL, NULL },
        { "DeepSeek with a BF16 scale", { "a.weight F8_E4M3", "a.scale BF16" }, NULL, NULL },
        { "dtype that only begins alike", { "a.weight F64", "a.weight_scale F32" }, NULL, NULL },
    };
    for (size_t i = 0; i < sizeof halves / sizeof halves[0]; i++) {
        struct err err;
        if (check_model(&halves[i], &err) != OK) fail_msg("%s: %s", halves[i].what, err.text);
    }
}

static void a_long_name(void **state)
{
    (void)state;
    struct container container = make_model();
    struct err err;
    char *name = malloc(TENSOR_NAME_MAX + 1);
    memset(name, 'n', TENSOR_NAME_MAX);
    memcpy(name + TENSOR_NAME_MAX - 7, ".weight", 8);
    add_tensor(&container, name, "F8_E4M3");
    assert_ok(container_index_names(&container, &err));
    assert_ok(prequant_check(&container, NULL, 0, &err));
    free_model(&container);
    free(name);
}

static void many_tensors(void **state)
{
    (void)state;
    struct container container = make_model();
    struct err err;
    enum { N = 200000 };
    char *text = malloc((size_t)N * 24);
    container.tensors = calloc(N, sizeof *container.tensors);
    for (size_t i = 0; i < N; i++) {
        snprintf(text + i * 24, 24, "layer.%zu.weight", i);
        container.tensors[i] = (struct tensor){ .name = text + i * 24, .dtype = dtype_find("BF16", 4), .dims = &one, .rank = 1 };
    }
    container.n_tensors = N;
    assert_ok(container_index_names(&container, &err));
    struct timespec begin, end;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
    assert_ok(prequant_check(&container, NULL, 0, &err));
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
    double took = (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
    print_message("%d tensors: %.3f s\n", (int)N, took);
    assert_true(took < 5);
    free_model(&container);
    free(text);
}

/* ---- real checkpoints ------------------------------------------------------------------------------------------------------------- */

/* The dtype a tensor of this name has in the real file, as far as it matters here. */
static const char *dtype_of(const char *name, bool mlx)
{
    size_t n = strlen(name);
    if (n > 14 && strcmp(name + n - 14, ".weight_packed") == 0) return "I32";
    if (n > 13 && strcmp(name + n - 13, ".weight_shape") == 0) return "I64";
    return mlx && n > 12 && strstr(name, "proj.weight") ? "U32" : "BF16";
}

struct fill {
    struct container *container;
    char *text; /* of the names */
    size_t n_text;
    bool mlx;
};

static enum status add_name(void *context, const char *tensor, const char *shard, struct err *err)
{
    struct fill *fill = context;
    char *name = fill->text + fill->n_text;
    (void)shard, (void)err;
    strcpy(name, tensor);
    fill->n_text += strlen(tensor) + 1;
    add_tensor(fill->container, name, dtype_of(name, fill->mlx));
    return OK;
}

static void real_models(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        const char *tensors, *config; /* parts of the sentence by tensors and by config.json alone; NULL: plain */
    } real[] = {
        { "headers/gemma4-26b-a4b_int4-g32_compressed-tensors", "compressed-tensors (tensor", "compressed-tensors (config.json" },
        { "headers/granite-7b_llama-arch", NULL, NULL },
        { "headers/mistral-24b_devstral", NULL, NULL },
        { "headers/mixtral-8x22b_wizardlm2", NULL, NULL },
        { "headers/phi3-mini", NULL, NULL },
        { "headers/qwen2.5-14b_cogito", NULL, NULL },
        { "headers/qwen3-14b-mlx-4bit", "MLX (tensor", "MLX (config.json" },
        { "headers/qwen3.5-moe-25b-a3b", NULL, NULL },
    };
    for (size_t m = 0; m < sizeof real / sizeof real[0]; m++) {
        char name[300];
        snprintf(name, sizeof name, "%s/model.safetensors.index.json", real[m].path);
        if (!shared_data(name)) continue;
        size_t n = 0, n_config = 0;
        char *text = read_file(shared_data(name), &n);
        snprintf(name, sizeof name, "%s/config.json", real[m].path);
        char *config = read_file(shared_data(name), &n_config);
        struct container container = make_model(), empty = make_model();
        struct shard_index index;
        struct err err = { .code = OK };
        assert_ok(shard_index_parse(text, n, &index, &err));
        struct fill fill = { .container = &container, .text = malloc(n), .mlx = strstr(real[m].path, "mlx") != NULL };
        assert_ok(shard_index_walk(&index, add_name, &fill, &err));
        assert_ok(container_index_names(&container, &err));
        assert_ok(container_index_names(&empty, &err));
        if (real[m].tensors) assert_refused(prequant_check(&container, NULL, 0, &err), ERR_UNSUPPORTED, real[m].tensors);
        else assert_ok(prequant_check(&container, config, n_config, &err));
        if (real[m].config) assert_refused(prequant_check(&empty, config, n_config, &err), ERR_UNSUPPORTED, real[m].config);
        shard_index_free(&index);
        free_model(&container);
        free_model(&empty);
        free(fill.text);
        free(text);
        free(config);
    }
}

static void real_files(void **state)
{
    (void)state;
    static const struct {
        const char *path, *part;
    } files[] = {
        { "other/torchao_fp8_weights_multi.safetensors", "torchao" },
        { "other/model2vec/int8", NULL },
        { "other/model2vec/vocab-quantized", NULL },
        { "llm/stories260K-hf-bf16-3shards", NULL },
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        const char *path = shared_data(files[i].path);
        struct container *container = NULL;
        struct err err;
        if (!path) continue;
        assert_ok(container_open(&io_system, path, &container, &err));
        if (files[i].part) assert_refused(prequant_check(container, NULL, 0, &err), ERR_UNSUPPORTED, files[i].part);
        else assert_ok(prequant_check(container, NULL, 0, &err));
        container_close(container);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_are_recognised),
        cmocka_unit_test(every_layout_of_the_table_is_met),
        cmocka_unit_test(one_missing_companion_makes_it_plain),
        cmocka_unit_test(a_long_name),
        cmocka_unit_test(many_tensors),
        cmocka_unit_test(real_models),
        cmocka_unit_test(real_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
