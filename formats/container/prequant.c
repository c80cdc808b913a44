/* prequant.c: the table of layouts of other quantisers; see prequant.h.
 *
 * Formula: a row matches a tensor NAME = PREFIX + suffix of one of its dtypes when PREFIX + with is there (of one of its dtypes) and PREFIX +
 * without is not.
 * Why this way: one row a layout. The first row that any tensor matches counts: the telling ones stand first, the general ones last.
 * Corner cases: dtypes are words separated by blanks, NULL is any dtype; an empty suffix matches every name. A plain tensor stored in FP8 or int8
 * without a scale beside it is not quantised in this sense. A config.json that is no strict JSON (some hold NaN or Infinity) is not judged here. An
 * unknown quant_method is refused by its own name.
 * Reference: see prequant.h. Worked example: "a.weight" of dtype U32 with "a.scales" is MLX, whatever "a.biases" is.
 */
#include "container/prequant.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "container/shown.h"

#define FP8 "F8_E4M3 F8_E5M2 F8_E4M3FNUZ F8_E5M2FNUZ"
#define E8M0 "U8 F8_E8M0"
#define COMPANION_MAX 64 /* bytes of a companion's suffix */

/* ---- by tensors ------------------------------------------------------------------------------------------------------------------- */

static const struct rule {
    const char *layout;
    const char *suffix, *dtypes; /* of the tensor that tells */
    const char *with, *with_dtypes; /* NULL: no companion needed */
    const char *without;
} rules[] = {
    { "GPTQ", ".qweight", "I32", ".g_idx", NULL, NULL },
    { "AWQ", ".qweight", "I32", ".qzeros", NULL, ".g_idx" },
    { "GPTQ, AWQ or a relative", ".qweight", NULL, NULL, NULL, NULL },
    { "bitsandbytes NF4", ".quant_state.bitsandbytes__nf4", NULL, NULL, NULL, NULL },
    { "bitsandbytes FP4", ".quant_state.bitsandbytes__fp4", NULL, NULL, NULL, NULL },
    { "bitsandbytes 4-bit", ".weight.absmax", NULL, NULL, NULL, NULL },
    { "bitsandbytes 4-bit", ".weight.quant_map", NULL, NULL, NULL, NULL },
    { "bitsandbytes LLM.int8", ".SCB", NULL, NULL, NULL, NULL },
    { "compressed-tensors", ".weight_packed", NULL, NULL, NULL, NULL },
    { "compressed-tensors (sparse)", ".compressed", NULL, ".bitmask", NULL, NULL },
    { "NVFP4 (ModelOpt or Quark)", ".weight_scale_2", NULL, NULL, NULL, NULL },
    { "FP8 with block scales", ".weight_scale_inv", NULL, NULL, NULL, NULL },
    { "Quark MXFP4 or MXFP6", ".weight", "U8", ".weight_scale", E8M0, NULL },
    { "Quark INT4", ".weight", "I32", ".weight_scale", NULL, NULL },
    { "MXFP8", ".weight", FP8, ".weight_scale", E8M0, NULL },
    { "FP8", ".weight", FP8, ".weight_scale", NULL, NULL },
    { "FP8", ".weight", FP8, ".scale_weight", NULL, NULL },
    { "INT8 (compressed-tensors)", ".weight", "I8", ".weight_scale", NULL, NULL },
    { "BitNet", ".weight", "U8", ".weight_scale", NULL, NULL },
    { "EETQ", ".weight", "I8", ".weight_scales", NULL, NULL },
    { "DeepSeek FP8 or FP4", ".weight", FP8 " I8 U8 F4", ".scale", "F8_E8M0 F32", NULL },
    { "quanto", ".weight._data", NULL, ".weight._scale", NULL, NULL },
    { "MLX", ".weight", "U32", ".scales", NULL, NULL },
    { "gpt-oss MXFP4", "_blocks", "U8", "_scales", E8M0, NULL },
    { "gpt-oss MXFP4", ".blocks", "U8", ".scales", E8M0, NULL },
    { "HQQ", ".W_q", NULL, NULL, NULL, NULL },
    { "torchao", ":qdata", NULL, NULL, NULL, NULL },
    { "torchao", ":int_data", NULL, NULL, NULL, NULL },
    { "torchao", ":original_weight", NULL, NULL, NULL, NULL },
    { "torchao", "_weight_qdata", NULL, NULL, NULL, NULL },
    { "AQLM", ".codes", NULL, ".codebooks", NULL, NULL },
    { "QuIP#", ".Qidxs", NULL, NULL, NULL, NULL },
    { "EXL2", ".q_weight", NULL, ".q_scale", NULL, NULL },
    { "EXL3", ".trellis", NULL, ".suh", NULL, NULL },
    { "VPTQ", ".indices", NULL, ".centroids.weight", NULL, NULL },
    { "Marlin", ".B", "I32", ".s", NULL, NULL },
    { "FP8 with block scales", "", FP8, "_scale_inv", NULL, NULL },
    { "FP8", "", FP8, "_scale", NULL, NULL },
    { "a layout with scales of its own", "", "I8 U8 I32 U32 F4 F6_E2M3 F6_E3M2", "_scale", NULL, NULL },
};

#define N_RULES (sizeof rules / sizeof rules[0])

/* True when name is one of the words of list; a NULL list holds every word. */
static bool has_word(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *at = list; at; at = strchr(at, ' ')) {
        if (*at == ' ') at++;
        if (strncmp(at, name, n) == 0 && (at[n] == ' ' || at[n] == '\0')) return true;
    }
    return !list;
}

/* Looks for the tensor PREFIX + suffix, where PREFIX is the first n_prefix bytes of name; room has space for it. */
static bool has_companion(const struct container *container, const char *name, size_t n_prefix, const char *suffix, const char *dtypes, char *room)
{
    memcpy(room, name, n_prefix);
    memcpy(room + n_prefix, suffix, strlen(suffix) + 1);
    size_t found = container_find(container, room);
    return found != SIZE_MAX && has_word(dtypes, container->tensors[found].dtype->name);
}

/* n_name: bytes of the tensor's name; room: space for the longest name and any companion's suffix. */
static bool rule_matches(const struct container *container, const struct rule *rule, const struct tensor *tensor, size_t n_name, char *room)
{
    size_t n_suffix = strlen(rule->suffix);
    if (n_name < n_suffix || memcmp(tensor->name + n_name - n_suffix, rule->suffix, n_suffix) != 0) return false;
    if (!has_word(rule->dtypes, tensor->dtype->name)) return false;
    const char *name = tensor->name;
    size_t n_prefix = n_name - n_suffix;
    return (!rule->with || has_companion(container, name, n_prefix, rule->with, rule->with_dtypes, room)) &&
           (!rule->without || !has_companion(container, name, n_prefix, rule->without, NULL, room));
}

static enum status refuse(const struct container *container, const char *layout, const char *evidence, const char *detail, struct err *err)
{
    return err_set(err, ERR_UNSUPPORTED, "'%s' is already quantised with %s (%s '%s'); llmq reads plain weights only",
                   shown_path(container->path).text, shown_str(layout).text, evidence, shown_str(detail).text);
}

/* The first of the first n_rules rules that matches the tensor, or n_rules. */
static size_t find_rule(const struct container *container, const struct tensor *tensor, size_t n_rules, char *room)
{
    size_t n_name = strlen(tensor->name), r = 0;
    while (r < n_rules && !rule_matches(container, &rules[r], tensor, n_name, room)) r++;
    return r;
}

static enum status check_rules(const struct container *container, char *room, struct err *err)
{
    size_t best = N_RULES;
    const char *evidence = NULL;
    for (size_t i = 0; i < container->n_tensors && best > 0; i++) {
        const struct tensor *tensor = &container->tensors[i];
        size_t r = tensor->quantised ? best : find_rule(container, tensor, best, room);
        if (r < best) evidence = tensor->name;
        best = r;
    }
    return evidence ? refuse(container, rules[best].layout, "tensor", evidence, err) : OK;
}

static enum status check_tensors(const struct container *container, struct err *err)
{
    char *room = malloc(TENSOR_NAME_MAX + COMPANION_MAX + 1);
    if (!room) return err_set(err, ERR_MEMORY, "out of memory for a tensor's name");
    enum status status = check_rules(container, room, err);
    free(room);
    return status;
}

/* ---- by config.json --------------------------------------------------------------------------------------------------------------- */

static const struct method {
    const char *quant_method; /* as config.json spells it */
    const char *layout;
} methods[] = {
    { "gptq", "GPTQ" },
    { "awq", "AWQ" },
    { "fp8", "FP8 with block scales" },
    { "fbgemm_fp8", "FBGEMM FP8" },
    { "bitsandbytes", "bitsandbytes" },
    { "compressed-tensors", "compressed-tensors" },
    { "mxfp4", "gpt-oss MXFP4" },
    { "modelopt", "ModelOpt" },
    { "modelopt_fp4", "ModelOpt" },
    { "quark", "Quark" },
    { "hqq", "HQQ" },
    { "aqlm", "AQLM" },
    { "quip", "QuIP#" },
    { "torchao", "torchao" },
    { "eetq", "EETQ" },
    { "quanto", "quanto" },
    { "higgs", "HIGGS" },
    { "vptq", "VPTQ" },
    { "spqr", "SpQR" },
    { "bitnet", "BitNet" },
    { "auto-round", "AutoRound" },
    { "intel/auto-round", "AutoRound" },
    { "exl2", "EXL2" },
    { "exl3", "EXL3" },
};

/* Members of config.json, and of its text_config, that hold such settings. */
static const char *const settings_keys[] = { "quantization_config", "compression_config", "quantization" };
static const char *const nested_keys[] = { "text_config", "llm_config", "language_config" };

static const char *layout_of_method(const char *quant_method)
{
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
        if (strcmp(methods[i].quant_method, quant_method) == 0) return methods[i].layout;
    return quant_method;
}

/* settings: the object under key. */
static enum status check_settings(const struct container *container, const char *key, const cJSON *settings, struct err *err)
{
    const cJSON *method = json_get(settings, "quant_method");
    if (cJSON_IsString(method))
        return refuse(container, layout_of_method(method->valuestring), "config.json: quant_method", method->valuestring, err);
    if (json_get(settings, "bits") && json_get(settings, "group_size")) return refuse(container, "MLX", "config.json:", key, err);
    if (json_get(settings, "config_groups")) return refuse(container, "compressed-tensors", "config.json:", key, err);
    return OK;
}

static enum status check_object(const struct container *container, const cJSON *object, struct err *err)
{
    enum status status = OK;
    for (size_t i = 0; status == OK && i < sizeof settings_keys / sizeof settings_keys[0]; i++) {
        const cJSON *settings = json_get(object, settings_keys[i]);
        if (cJSON_IsObject(settings)) status = check_settings(container, settings_keys[i], settings, err);
    }
    return status;
}

static enum status check_config(const struct container *container, const cJSON *config, struct err *err)
{
    enum status status = check_object(container, config, err);
    for (size_t i = 0; status == OK && i < sizeof nested_keys / sizeof nested_keys[0]; i++) {
        const cJSON *nested = json_get(config, nested_keys[i]);
        if (cJSON_IsObject(nested)) status = check_object(container, nested, err);
    }
    return status;
}

/* ---- public ----------------------------------------------------------------------------------------------------------------------- */

enum status prequant_check(const struct container *container, const char *config_json, size_t nbytes, struct err *err)
{
    static const struct json_limits limits = { .max_depth = 64, .max_values = 1000000, .plain_integers = false };
    enum status status = check_tensors(container, err);
    cJSON *config = NULL;
    if (status != OK || !config_json) return status;
    status = json_parse(config_json, nbytes, &limits, &config, NULL);
    if (status == ERR_MEMORY) return err_set(err, ERR_MEMORY, "out of memory for config.json");
    if (status != OK) return OK;
    status = cJSON_IsObject(config) ? check_config(container, config, err) : OK;
    cJSON_Delete(config);
    return status;
}

size_t prequant_count(void)
{
    return N_RULES;
}

const char *prequant_at(size_t index)
{
    return rules[index].layout;
}
