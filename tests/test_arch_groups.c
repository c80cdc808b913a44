/* test_arch_groups.c: the groups of every architecture, under the names of Hugging Face and of GGUF.
 *
 * Formula: a case is a configuration, tensors with shapes, and the groups of a layer, written by hand from the table of the smoothing notes 3b.
 * Why this way: one line a tensor, one line a group; the numbers are small and different: hidden 16, 4 query heads of 6 on 2 value heads, feed forward 20.
 * Corner cases: what a case leaves alone stands beside it with its reason.
 * Reference: the project's smoothquant notes 3; support/arch_case.h explains the lines.
 */
#include "support/support.h"

#include <dirent.h>

#include "support/arch_case.h"

static struct err err;

/* hidden 16, 4 heads of 6, 2 of them for values, feed forward 20. */
#define SIZES "\"num_hidden_layers\":2,\"hidden_size\":16,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":6,\"intermediate_size\":20"
#define HF(NAME) "{\"architectures\":[\"" NAME "\"]," SIZES "}"
#define HF_AND(NAME, MORE) "{\"architectures\":[\"" NAME "\"]," SIZES "," MORE "}"
#define MHA(NAME, MORE) "{\"architectures\":[\"" NAME "\"],\"num_hidden_layers\":2,\"hidden_size\":24,\"num_attention_heads\":4" MORE "}"
#define GGUF(NAME)                                                                                                                                   \
    "gguf general.architecture=" NAME " block_count=2 embedding_length=16 attention.head_count=4 attention.head_count_kv=2 attention.key_length=6 "  \
    "attention.value_length=6 feed_forward_length=20"
#define GGUF_MHA(NAME) "gguf general.architecture=" NAME " block_count=2 embedding_length=24 attention.head_count=4 feed_forward_length=20"
#define LAYERS "model.layers.{n}."
#define BLK "blk.{n}."

#define LLAMA_HF                                                                                                                                     \
    "model.embed_tokens 50x16\nmodel.norm 16\nlm_head 50x16\n@input_layernorm 16\n@self_attn.q_proj 24x16\n@self_attn.k_proj 12x16\n"                \
    "@self_attn.v_proj 12x16\n@self_attn.o_proj 16x24\n@post_attention_layernorm 16\n@mlp.gate_proj 20x16\n@mlp.up_proj 20x16\n@mlp.down_proj "      \
    "16x20\n"
#define LLAMA_GGUF                                                                                                                                   \
    "token_embd 50x16\noutput_norm 16\noutput 50x16\n@attn_norm 16\n@attn_q 24x16\n@attn_k 12x16\n@attn_v 12x16\n@attn_output 16x24\n@ffn_norm 16\n" \
    "@ffn_gate 20x16\n@ffn_up 20x16\n@ffn_down 16x20\n"
#define ATTN_HF "@input_layernorm 16\n@self_attn.q_proj 24x16\n@self_attn.k_proj 12x16\n@self_attn.v_proj 12x16\n@self_attn.o_proj 16x24\n"
#define LLAMA_QKV "N input_layernorm 16: input_layernorm -> self_attn.q_proj self_attn.k_proj self_attn.v_proj\n"
#define LLAMA_VO "VG self_attn.v_proj 24/2x6: self_attn.v_proj^ -> self_attn.o_proj\n"
#define LLAMA_FFN                                                                                                                                    \
    "N post_attention_layernorm 16: post_attention_layernorm -> mlp.gate_proj mlp.up_proj\nU mlp.up_proj 20: mlp.up_proj^ -> mlp.down_proj\n"
#define GGUF_ATTN "N attn_norm 16: attn_norm -> attn_q attn_k attn_v\nVG attn_v 24/2x6: attn_v^ -> attn_output\n"
#define GGUF_FFN "N ffn_norm 16: ffn_norm -> ffn_gate ffn_up\nU ffn_up 20: ffn_up^ -> ffn_down\n"
#define FINAL "model.norm: the head behind the last norm may share its weights"

static const struct {
    const char *map, *config, *start, *tensors, *groups;
    const char *refusals[6]; /* each is a part of the list of refusals */
} cases[] = {
#include "support/arch_cases.inc"
};

static void run_case(size_t i)
{
    struct container *container = arch_case_container(cases[i].config, cases[i].start, 2, cases[i].tensors);
    struct arch *arch = NULL;
    struct smooth_groups groups;
    enum status status = arch_open(&io_system, tests_path("../configs/arch"), NULL, container, &arch, &err);
    if (status != OK) fail_msg("%s: %s", cases[i].config, err.text);
    if (strcmp(arch_name(arch), cases[i].map) != 0) fail_msg("%s: map %s", cases[i].config, arch_name(arch));
    assert_ok(arch_groups(arch, &groups, &err));
    char *refusals = arch_case_refusals(&groups);
    for (uint32_t layer = 0; layer < 2; layer++) {
        char *text = arch_case_groups(container, &groups, cases[i].start, layer);
        if (strcmp(text, cases[i].groups) != 0)
            fail_msg("case %zu, %s\ngroups of layer %u:\n%swanted:\n%srefusals:\n%s", i, cases[i].config, layer, text, cases[i].groups, refusals);
        free(text);
    }
    for (size_t k = 0; k < 6 && cases[i].refusals[k]; k++)
        if (!strstr(refusals, cases[i].refusals[k]))
            fail_msg("case %zu, %s\nno refusal '%s' in\n%s", i, cases[i].config, cases[i].refusals[k], refusals);
    size_t lines = 0, wanted = 0;
    for (const char *at = refusals; *at; at++) lines += *at == '\n';
    for (; wanted < 6 && cases[i].refusals[wanted]; wanted++) {
    }
    if (lines > 0 && wanted == 0) fail_msg("case %zu, %s\nrefusals:\n%s", i, cases[i].config, refusals);
    free(refusals);
    smooth_groups_free(&groups);
    arch_close(arch);
    container_close(container);
}

static void every_architecture_has_its_groups(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) run_case(i);
}

/* ---- changed models ------------------------------------------------------------------------------------------------------------------- */

/* The side lies within its tensor. */
static void check_side(size_t i, const struct container *container, const struct smooth_side *side, uint64_t n)
{
    const struct tensor *tensor = &container->tensors[side->tensor];
    uint64_t stack = tensor->rank == 3 ? tensor->dims[0] : 1, length = tensor->dims[tensor->rank - 1];
    if (side->along_rows) length = tensor->dims[tensor->rank - 2];
    if (side->along_rows && side->n_mats == 1 && side->mat == 0) length *= stack; /* a stack of heads, row by row */
    bool fits = n > 0 && side->run >= 1 && side->step >= side->run && smooth_side_place(side, n - 1) < length && side->n_mats >= 1 &&
                side->mat + side->n_mats <= stack;
    if (!fits || tensor->quantised) fail_msg("case %zu: '%s' does not hold its side", i, tensor->name);
}

/* A model with one line dropped or one digit changed: whatever comes out lies within the tensors. */
static void check_changed(size_t i, const char *tensors)
{
    struct container *container = arch_case_container(cases[i].config, cases[i].start, 2, tensors);
    struct arch *arch = NULL;
    struct smooth_groups groups;
    if (arch_open(&io_system, tests_path("../configs/arch"), NULL, container, &arch, &err) == OK) {
        assert_ok(arch_groups(arch, &groups, &err));
        for (size_t k = 0; k < groups.n_groups; k++) {
            const struct smooth_group *group = &groups.groups[k];
            assert_true(group->n_producers > 0 && group->n_consumers > 0 && group->n % group->share_heads == 0);
            for (size_t s = 0; s < group->n_producers; s++) check_side(i, container, &group->producers[s], smooth_group_producers(group));
            for (size_t s = 0; s < group->n_consumers; s++) check_side(i, container, &group->consumers[s], group->n);
            assert_true(smooth_group_producer(group, group->n - 1) < smooth_group_producers(group));
        }
        smooth_groups_free(&groups);
    }
    arch_close(arch);
    container_close(container);
}

static void changed_models_give_nothing_beyond_their_tensors(void **state)
{
    (void)state;
    uint64_t seed = 7;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t round = 0; round < 6; round++) {
            char *tensors = strdup(cases[i].tensors);
            assert_non_null(tensors);
            char *at = tensors + test_random(&seed) % strlen(tensors);
            if (round % 2 == 0) { /* drop a line */
                char *line = at;
                while (line > tensors && line[-1] != '\n') line--;
                size_t n = strcspn(line, "\n");
                memmove(line, line + n, strlen(line + n) + 1);
            } else { /* another digit */
                size_t far = strcspn(at, "0123456789");
                if (at[far] && at[far + 1] != ':') at[far] = (char)('1' + test_random(&seed) % 9);
            }
            check_changed(i, tensors);
            free(tensors);
        }
}

/* A file that builds on another inherits how that one computes only where it is known to compute alike. */
static void no_forward_pass_is_inherited_unseen(void **state)
{
    (void)state;
    static const char *const alike[] = { "qwen3.yaml", "deepseek32.yaml", NULL };
    DIR *dir = opendir(tests_path("../configs/arch"));
    assert_non_null(dir);
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        char path[4096];
        struct yaml_doc *doc = NULL;
        bool known = !strstr(entry->d_name, ".yaml");
        for (size_t i = 0; alike[i]; i++) known = known || strcmp(alike[i], entry->d_name) == 0;
        if (known) continue;
        snprintf(path, sizeof path, "%s/%s", tests_path("../configs/arch"), entry->d_name);
        assert_ok(yaml_open(&io_system, path, &doc, &err));
        if (yaml_get(doc->root, "like") && !yaml_get(doc->root, "forward")) fail_msg("%s inherits the section forward", entry->d_name);
        yaml_close(doc);
    }
    closedir(dir);
}

/* Every file is read, and some case uses it. */
static void every_file_has_a_case(void **state)
{
    (void)state;
    DIR *dir = opendir(tests_path("../configs/arch"));
    assert_non_null(dir);
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        const char *end = strstr(entry->d_name, ".yaml");
        bool used = !end || strcmp(entry->d_name, "facts.yaml") == 0;
        for (size_t i = 0; i < sizeof cases / sizeof cases[0] && !used; i++)
            used = strlen(cases[i].map) == (size_t)(end - entry->d_name) && strncmp(cases[i].map, entry->d_name, strlen(cases[i].map)) == 0;
        if (!used) fail_msg("%s has no case", entry->d_name);
    }
    closedir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(every_architecture_has_its_groups),
                                        cmocka_unit_test(changed_models_give_nothing_beyond_their_tensors),
                                        cmocka_unit_test(no_forward_pass_is_inherited_unseen), cmocka_unit_test(every_file_has_a_case) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
