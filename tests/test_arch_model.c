/* test_arch_model.c: the section forward of architecture files: keys, words, numbers, facts, cases; mistakes are refused with their line. */
#include "smoothquant/arch_model.h"
#include "smoothquant/arch.h"
#include "support/live.h"
#include "support/support.h"

#include <math.h>

/* llama.yaml with another section forward, in a folder of its own. */
static enum status open_with(const char *dir, const char *forward, struct container *container, struct arch **arch, struct arch_model **model,
                             struct err *err)
{
    size_t n, m;
    char *facts = read_file(tests_path("../configs/arch/facts.yaml"), &n), *map = read_file(tests_path("../configs/arch/llama.yaml"), &m);
    char *cut = strstr(map, "\nforward:"), path[512];
    assert_non_null(cut);
    cut[1] = '\0';
    char *text = malloc(strlen(map) + strlen(forward) + 1);
    strcpy(text, map);
    strcat(text, forward);
    snprintf(path, sizeof path, "%s/facts.yaml", dir);
    write_file(path, facts, n);
    snprintf(path, sizeof path, "%s/llama.yaml", dir);
    write_file(path, text, strlen(text));
    free(facts), free(map), free(text);
    *model = NULL;
    enum status status = arch_open(&io_system, dir, NULL, container, arch, err);
    return status == OK ? arch_model_open(*arch, container, model, err) : status;
}

static void test_sections(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum status status;
        const char *needle;
    } cases[] = {
        { "forward: {norm: rms}\n", OK, "" },
        { "forward: {}\n", OK, "" },
        { "", ERR_UNSUPPORTED, "section forward" },
        { "forward: [1]\n", ERR_DATA, "llama.yaml:" },
        { "forward: {norn: rms}\n", ERR_DATA, "'norn' is no key" },
        { "forward: {norm: rmsnorm}\n", ERR_DATA, "'rmsnorm' is no value of 'norm'" },
        { "forward: {norm: [rms]}\n", ERR_DATA, "norm" },
        { "forward: {embed_scale: twice}\n", ERR_DATA, "'twice' is no number and no fact" },
        { "forward: {embed_scale: sqrt(hiddem)}\n", ERR_DATA, "sqrt(hiddem)" },
        { "forward: {embed_scale: sqrt(hidden)}\n", OK, "" },
        { "forward: {embed_scale: 1e3}\n", OK, "" },
        { "forward: {parallel: maybe}\n", ERR_DATA, "'maybe'" },
        { "forward: {parallel: parallel}\n", OK, "" },
        { "forward: {act: nothing}\n", ERR_UNSUPPORTED, "'nothing'" },
        { "forward: {refuse: 'it is only a test'}\n", ERR_UNSUPPORTED, "it is only a test" },
        { "forward: {cases: {if: 1}}\n", ERR_DATA, "cases" },
        { "forward: {cases: [1]}\n", ERR_DATA, "llama.yaml:" },
        { "forward: {cases: [{if: {file: gguf}, refuse: 'no'}]}\n", OK, "" },
        { "forward: {cases: [{if: {file: hf}, refuse: 'no checkpoints'}]}\n", ERR_UNSUPPORTED, "no checkpoints" },
        { "forward: {cases: [{if: {file: hf}, nom: rms}]}\n", ERR_DATA, "'nom'" },
    };
    struct live live;
    live_open(&live, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *dir = temp_dir();
        struct arch *arch = NULL;
        struct arch_model *model;
        struct err err = { OK, "" };
        enum status status = open_with(dir, cases[i].text, live.container, &arch, &model, &err);
        if (status != cases[i].status || !strstr(err.text, cases[i].needle)) fail_msg("%s: status %d: %s", cases[i].text, (int)status, err.text);
        if (status == OK && strstr(cases[i].text, "sqrt")) assert_true(model->embed_scale == 16.0f);
        arch_model_close(model);
        arch_close(arch);
        temp_dir_remove(dir);
    }
    live_close(&live);
}

/* What is read of the bundled model. */
static void test_bundled(void **state)
{
    (void)state;
    struct live live;
    live_open(&live, NULL);
    const struct arch_model *m = live.model;
    assert_true(m->n_layers == 3 && m->hidden == 256 && m->vocab == 258 && m->n_heads == 8 && m->n_kv_heads == 4 && m->head_dim == 32 && m->gated &&
                m->is_tied && !m->parallel);
    assert_true(m->norm == NORM_RMS && m->position == POSITION_ROPE && m->act == ACT_SILU && m->n_ropes == 1 && m->ropes[0].n_dims == 32 &&
                !m->ropes[0].interleaved);
    assert_true(m->layers[2].n_experts == 1 && m->layers[2].experts[0].n == 352 && m->layers[2].window == 0 && !m->layers[2].has_shared);
    assert_true(fabsf(m->attn_scale - 0.1767767f) < 1e-6f && arch_model_positions(m) == 0);
    assert_string_equal(live.container->tensors[m->layers[1].o.weight.tensor].name, "model.layers.1.self_attn.o_proj.weight");
    live_close(&live);
    arch_model_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_sections), cmocka_unit_test(test_bundled) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
