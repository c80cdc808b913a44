/* recipe.c: reads rules from the command line and from a YAML recipe, and decides tensor by tensor.
 *
 * Drawing of a recipe:   format: int4
 *                        group-size: 64
 *                        rules:
 *                          - {match: 'role:down', format: mxfp6_e3m2}
 *                          - {match: '*.layers.0.*', keep: true, optional: true}
 *                          - {match: 'role:v', format: q6_k, when: {layers: more-bits}}
 *                        fallback: {q4_k: q5_0}
 * Why this way: see recipe.h. Settings names in a recipe are the option names; nothing has two names.
 * Corner cases: global --group-size, --scale-rule, --scale-dtype and --rounding apply to the default format strictly and to rules' formats where
 * these take them; a rule's own keys and inline parameters go before; a recipe's settings count for the rules of the command line too; a tensor
 * without weights is kept; integer and opaque dtypes are never selected by a pattern, naming one exactly is an error.
 * Reference: recipe.h. Example: --rule '*.down_proj.*=int8:group=32'.
 */
#include "converter/recipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/yaml.h"

static enum status add_rule(struct recipe *recipe, struct rule **rule, struct err *err)
{
    struct rule *bigger = realloc(recipe->rules, (recipe->n_rules + 1) * sizeof *bigger);
    if (!bigger) return err_set(err, ERR_MEMORY, "out of memory");
    recipe->rules = bigger;
    *rule = &bigger[recipe->n_rules++];
    **rule = (struct rule){ 0 };
    return OK;
}

static enum status set_pattern(const struct recipe *recipe, struct rule *rule, const char *text, size_t nbytes, const char *origin, struct err *err)
{
    rule->text = strndup(text, nbytes);
    rule->origin = strdup(origin);
    if (!rule->text || !rule->origin) return err_set(err, ERR_MEMORY, "out of memory");
    if (strncmp(rule->text, "role:", 5) != 0) {
        enum status status = pattern_open(rule->text, &rule->pattern, err);
        return status ? err_wrap(err, status, "%s", origin) : OK;
    }
    rule->role = strdup(rule->text + 5);
    if (!rule->role) return err_set(err, ERR_MEMORY, "out of memory");
    if (!roles_know(recipe->roles, rule->role)) return err_set(err, ERR_USAGE, "%s: there is no role '%s' in roles.yaml", origin, rule->role);
    return OK;
}

/* Global parameters for the default format (strict) or for a rule's format (where it takes them). */
static struct quant_params global_params(const struct settings *settings, bool strict)
{
    return (struct quant_params){ .group = settings->values[SET_GROUP_SIZE],
                                  .scale = settings->values[SET_SCALE_DTYPE],
                                  .rule = settings->values[SET_SCALE_RULE],
                                  .rounding = settings->values[SET_ROUNDING],
                                  .tensor_scale = settings_tensor_scale(settings),
                                  .half_range = settings->values[SET_HALF_RANGE],
                                  .percentile = settings->values[SET_PERCENTILE],
                                  .where_valid = !strict };
}

static enum status rule_from_option(struct recipe *recipe, const struct settings *settings, const struct setting_rule *option, struct err *err)
{
    struct rule *rule = NULL;
    const char *origin = option->keep ? "--keep" : "--rule";
    const char *equals = option->keep ? NULL : strchr(option->text, '=');
    if (!option->keep && (!equals || equals == option->text || !equals[1]))
        return err_set(err, ERR_USAGE, "--rule '%s' is not of the form PATTERN=FORMAT", option->text);
    enum status status = add_rule(recipe, &rule, err);
    if (!status) status = set_pattern(recipe, rule, option->text, equals ? (size_t)(equals - option->text) : strlen(option->text), origin, err);
    if (status) return status;
    rule->keep = option->keep || strcmp(equals + 1, "keep") == 0;
    if (rule->keep) return OK;
    struct quant_params params = global_params(settings, false);
    status = quant_parse(equals + 1, &params, &rule->quant, err);
    return status ? err_wrap(err, status, "--rule '%s'", option->text) : OK;
}

/* ---- recipe file ---------------------------------------------------------------------------------------------------------------- */

static enum status scalar_of(const struct yaml_doc *doc, const struct yaml_node *map, const char *key, const char **value, struct err *err)
{
    const struct yaml_node *node = yaml_get(map, key);
    *value = NULL;
    if (!node) return OK;
    enum status status = yaml_expect(doc, node, YAML_SCALAR_VALUE, err);
    if (!status) *value = node->value;
    return status;
}

/* Keys of a rule in a recipe and the inline parameters that they are. */
static const struct {
    const char *key, *parameter;
} rule_keys[] = {
    { "group-size", "group" },          { "scale-dtype", "scale" },     { "scale-rule", "rule" },       { "rounding", "rounding" },
    { "half-range", "half-range" },     { "sub-block", "sub-block" },   { "shift-bits", "shift-bits" }, { "kernel", "kernel" },
    { "negative-end", "negative-end" }, { "percentile", "percentile" },
};

static enum status rule_quant(const struct yaml_doc *doc, const struct yaml_node *node, const struct settings *settings, const char *format,
                              struct quant *quant, struct err *err)
{
    /* A rule's own keys are written behind the format's text, where inline parameters stand; they are meant for this format and checked strictly. */
    char text[512];
    snprintf(text, sizeof text, "%s", format);
    bool first = strchr(format, ':') == NULL;
    for (size_t i = 0; i < sizeof rule_keys / sizeof rule_keys[0]; i++) {
        const char *value;
        enum status status = scalar_of(doc, node, rule_keys[i].key, &value, err);
        if (status) return status;
        if (!value) continue;
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "%c%s=%s", first ? ':' : ',', rule_keys[i].parameter, value);
        first = false;
    }
    struct quant_params params = global_params(settings, false);
    enum status status = quant_parse(text, &params, quant, err);
    return status ? yaml_error(doc, node, err, "%s", err->text) : OK;
}

static enum status read_count(const struct yaml_doc *doc, const struct yaml_node *map, const char *key, uint32_t *out, struct err *err)
{
    const char *text;
    enum status status = scalar_of(doc, map, key, &text, err);
    if (status || !text) return status;
    if (strspn(text, "0123456789") != strlen(text) || !*text || strlen(text) > 5 || strtoul(text, NULL, 10) == 0)
        return yaml_error(doc, yaml_get(map, key), err, "'%s' is no count from 1 to 99999", key);
    *out = (uint32_t)strtoul(text, NULL, 10);
    return OK;
}

/* when: {layers: more-bits, arch: falcon, blocks: 80, gqa: 4, experts: 8, tied: true} */
static enum status read_condition(const struct yaml_doc *doc, const struct yaml_node *node, struct rule *rule, struct err *err)
{
    static const char *const known[] = { "layers", "arch", "blocks", "gqa", "experts", "tied", NULL };
    const char *layers = NULL, *arch = NULL;
    bool tied;
    enum status status = yaml_expect(doc, node, YAML_MAP, err);
    if (!status) status = yaml_check_keys(doc, node, known, err);
    if (!status) status = scalar_of(doc, node, "layers", &layers, err);
    if (!status && layers && !model_facts_is_layers(layers))
        status = yaml_error(doc, yaml_get(node, "layers"), err, "layers are a number, a range like 0-3, first/8, last/8 or more-bits");
    if (!status) status = scalar_of(doc, node, "arch", &arch, err);
    if (!status) status = read_count(doc, node, "blocks", &rule->when.blocks, err);
    if (!status) status = read_count(doc, node, "gqa", &rule->when.gqa, err);
    if (!status) status = read_count(doc, node, "experts", &rule->when.experts, err);
    if (!status && yaml_get(node, "tied")) {
        status = yaml_bool(doc, yaml_get(node, "tied"), &tied, err);
        if (!status) rule->when.tied = tied ? TIED_YES : TIED_NO;
    }
    if (status) return status;
    rule->when.layers = layers ? strdup(layers) : NULL;
    rule->when.arch = arch ? strdup(arch) : NULL;
    return (rule->when.layers || !layers) && (rule->when.arch || !arch) ? OK : err_set(err, ERR_MEMORY, "out of memory");
}

static enum status rule_from_node(struct recipe *recipe, const struct settings *settings, const struct yaml_doc *doc, const struct yaml_node *node,
                                  struct err *err)
{
    static const char *const known[] = { "match",    "format",     "keep",      "optional",   "when",   "group-size",   "scale-rule", "scale-dtype",
                                         "rounding", "half-range", "sub-block", "shift-bits", "kernel", "negative-end", "percentile", NULL };
    struct rule *rule = NULL;
    const char *match = NULL, *format = NULL;
    char origin[512];
    enum status status = yaml_expect(doc, node, YAML_MAP, err);
    if (!status) status = yaml_check_keys(doc, node, known, err);
    if (!status) status = scalar_of(doc, node, "match", &match, err);
    if (!status) status = scalar_of(doc, node, "format", &format, err);
    if (!status) status = add_rule(recipe, &rule, err);
    if (status) return status;
    if (!match) return yaml_error(doc, node, err, "a rule needs 'match'");
    snprintf(origin, sizeof origin, "%s:%u", doc->path, node->line);
    status = set_pattern(recipe, rule, match, strlen(match), origin, err);
    if (!status && yaml_get(node, "keep")) status = yaml_bool(doc, yaml_get(node, "keep"), &rule->keep, err);
    if (!status && yaml_get(node, "when")) status = read_condition(doc, yaml_get(node, "when"), rule, err);
    if (!status && yaml_get(node, "optional")) status = yaml_bool(doc, yaml_get(node, "optional"), &rule->optional, err);
    if (status) return status;
    if (format && strcmp(format, "keep") == 0) rule->keep = true;
    else if (format && rule->keep) return yaml_error(doc, node, err, "a rule has either 'format' or 'keep: true', not both");
    if (rule->keep) return OK;
    if (!format) return yaml_error(doc, node, err, "a rule needs 'format', or 'keep: true'");
    return rule_quant(doc, node, settings, format, &rule->quant, err);
}

static enum status read_settings(struct app *app, const struct yaml_doc *doc, struct err *err)
{
    for (size_t i = 0; i < doc->root->n_items; i++) {
        const struct yaml_node *node = doc->root->items[i];
        if (strcmp(node->key, "rules") == 0 || strcmp(node->key, "description") == 0 || strcmp(node->key, "fallback") == 0) continue;
        enum status status = yaml_expect(doc, node, YAML_SCALAR_VALUE, err);
        if (status) return status;
        status = settings_set_from_recipe(&app->settings, node->key, node->value, err);
        if (status) return yaml_error(doc, node, err, "%s", err->text);
    }
    return OK;
}

static enum status recipe_path(const struct app *app, char **path, struct err *err)
{
    const char *given = settings_text(&app->settings, SET_RECIPE);
    char name[256];
    if (strchr(given, '/') || access(given, F_OK) == 0 || strlen(given) > 200) {
        *path = strdup(given);
        return *path ? OK : err_set(err, ERR_MEMORY, "out of memory");
    }
    size_t n = strlen(given);
    bool has_ending = n > 5 && strcmp(given + n - 5, ".yaml") == 0;
    snprintf(name, sizeof name, "recipes/%s%s", given, has_ending ? "" : ".yaml");
    return app_config_path(app, name, path, err);
}

/* A recipe that is no file. */
struct recipe_text {
    const char *text, *name;
    size_t nbytes;
};

/* Opens the recipe file (text NULL) and takes its settings; its rules come later, behind those of the command line. *doc is NULL without a recipe. */
static enum status open_recipe_file(struct app *app, const struct recipe_text *text, struct yaml_doc **doc, struct err *err)
{
    char *path = NULL;
    *doc = NULL;
    if (!text && !settings_given(&app->settings, SET_RECIPE)) return OK;
    enum status status = text ? yaml_parse(text->text, text->nbytes, text->name, doc, err) : recipe_path(app, &path, err);
    if (!status && !text) status = yaml_open(app->io, path, doc, err);
    if (!status) status = yaml_expect(*doc, (*doc)->root, YAML_MAP, err);
    if (!status) status = read_settings(app, *doc, err);
    free(path);
    return status;
}

/* fallback: {q4_k: q5_0, q6_k: q8_0} */
static enum status read_fallbacks(const struct yaml_doc *doc, struct recipe *recipe, struct err *err)
{
    const struct yaml_node *map = doc ? yaml_get(doc->root, "fallback") : NULL;
    enum status status = map ? yaml_expect(doc, map, YAML_MAP, err) : OK;
    if (status || !map) return status;
    recipe->fallbacks = calloc(map->n_items + 1, sizeof *recipe->fallbacks);
    if (!recipe->fallbacks) return err_set(err, ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < map->n_items && !status; i++) {
        const struct yaml_node *node = map->items[i];
        status = yaml_expect(doc, node, YAML_SCALAR_VALUE, err);
        if (status) break;
        if (!format_find(node->key) || !format_find(node->value)) return yaml_error(doc, node, err, "a fallback leads from one format to another");
        struct fallback *fallback = &recipe->fallbacks[recipe->n_fallbacks++];
        fallback->from = strdup(node->key);
        fallback->to = strdup(node->value);
        if (!fallback->from || !fallback->to) status = err_set(err, ERR_MEMORY, "out of memory");
    }
    return status;
}

static enum status read_recipe_rules(struct app *app, const struct yaml_doc *doc, struct recipe *recipe, struct err *err)
{
    const struct yaml_node *rules = doc ? yaml_get(doc->root, "rules") : NULL;
    enum status status = rules ? yaml_expect(doc, rules, YAML_SEQUENCE, err) : OK;
    if (!status) status = read_fallbacks(doc, recipe, err);
    for (size_t i = 0; rules && !status && i < rules->n_items; i++) status = rule_from_node(recipe, &app->settings, doc, rules->items[i], err);
    return status;
}

/* ---- opening -------------------------------------------------------------------------------------------------------------------- */

/* A global parameter is left out where a rule's format does not take it, so a value that no format takes would be ignored; it is refused here. */
static enum status check_globals(const struct settings *settings, struct err *err)
{
    const char *texts[] = { settings->values[SET_GROUP_SIZE], settings->values[SET_SCALE_DTYPE], settings->values[SET_SCALE_RULE],
                            settings->values[SET_PERCENTILE] };
    for (size_t k = 0; k < sizeof texts / sizeof texts[0]; k++) {
        struct quant_params params = { .group = k == 0 ? texts[k] : NULL, .scale = k == 1 ? texts[k] : NULL, .rule = k == 2 ? texts[k] : NULL };
        if (k == 3) {
            params.rule = scale_rule_name(RULE_PERCENTILE);
            params.percentile = texts[k];
        }
        struct quant quant;
        struct err first = { OK, "" };
        bool taken = !texts[k];
        for (size_t i = 0; i < format_count() && !taken; i++) taken = quant_parse(format_at(i)->name, &params, &quant, i ? NULL : &first) == OK;
        if (taken) continue;
        if (k == 3) return err_set(err, ERR_USAGE, "percentile '%s' is not a number from 0 to 100 of at most 12 decimals", texts[k]);
        if (k == 0) return err_set(err, ERR_USAGE, "%s", first.text);
        return err_set(err, ERR_USAGE, "no format takes %s '%s' (llmq formats lists what each takes)", k == 1 ? "scale type" : "scale rule",
                       texts[k]);
    }
    return OK;
}

static enum status read_rules(struct app *app, const struct yaml_doc *doc, struct recipe *recipe, struct err *err)
{
    enum status status = check_globals(&app->settings, err);
    for (size_t i = 0; !status && i < app->settings.n_rules; i++) status = rule_from_option(recipe, &app->settings, &app->settings.rules[i], err);
    if (!status) status = read_recipe_rules(app, doc, recipe, err);
    if (status) return status;
    recipe->has_default = settings_given(&app->settings, SET_FORMAT);
    if (!recipe->has_default) return OK;
    struct quant_params params = global_params(&app->settings, true);
    return quant_parse(settings_text(&app->settings, SET_FORMAT), &params, &recipe->preset, err);
}

static enum status read_all(struct app *app, const struct recipe_text *text, struct recipe *recipe, struct err *err)
{
    char *roles_path;
    struct yaml_doc *doc = NULL;
    enum status status = app_config_path(app, "roles.yaml", &roles_path, err);
    if (status) return status;
    status = roles_open(app->io, roles_path, &recipe->roles, err);
    free(roles_path);
    if (!status) status = open_recipe_file(app, text, &doc, err);
    if (!status) status = read_rules(app, doc, recipe, err);
    yaml_close(doc);
    return status;
}

static enum status open_from(struct app *app, const struct recipe_text *text, struct recipe *recipe, struct err *err)
{
    *recipe = (struct recipe){ 0 };
    enum status status = read_all(app, text, recipe, err);
    if (status) recipe_close(recipe);
    return status;
}

enum status recipe_open(struct app *app, struct recipe *recipe, struct err *err)
{
    return open_from(app, NULL, recipe, err);
}

enum status recipe_parse(struct app *app, const char *text, size_t nbytes, const char *name, struct recipe *recipe, struct err *err)
{
    return open_from(app, &(struct recipe_text){ text, name, nbytes }, recipe, err);
}

void recipe_close(struct recipe *recipe)
{
    for (size_t i = 0; i < recipe->n_rules; i++) {
        free(recipe->rules[i].text);
        free(recipe->rules[i].role);
        free(recipe->rules[i].origin);
        free(recipe->rules[i].when.layers);
        free(recipe->rules[i].when.arch);
        pattern_close(recipe->rules[i].pattern);
    }
    for (size_t i = 0; i < recipe->n_fallbacks; i++) {
        free(recipe->fallbacks[i].from);
        free(recipe->fallbacks[i].to);
    }
    free(recipe->fallbacks);
    free(recipe->rules);
    roles_close(recipe->roles);
    *recipe = (struct recipe){ 0 };
}

/* ---- deciding ------------------------------------------------------------------------------------------------------------------- */

static bool is_weight(const struct tensor *tensor)
{
    return tensor->dtype->class == DTYPE_FLOAT;
}

static bool applies(const struct condition *when, const struct model_facts *facts, const struct tensor *tensor, const struct role *role)
{
    if (when->arch && (!facts->arch || strcmp(facts->arch, when->arch) != 0)) return false;
    if (when->blocks && facts->blocks != when->blocks) return false;
    if (when->experts && facts->experts != when->experts) return false;
    if (when->gqa && facts->gqa < when->gqa) return false;
    if (when->tied != TIED_ANY && facts->tied != (when->tied == TIED_YES)) return false;
    return !when->layers || model_facts_in_layers(facts, role, tensor->name, when->layers);
}

static bool selects(const struct rule *rule, const struct model_facts *facts, const struct tensor *tensor, const struct role *role)
{
    if (!applies(&rule->when, facts, tensor, role)) return false;
    if (rule->pattern && pattern_kind(rule->pattern) == PATTERN_EXACT) return pattern_match(rule->pattern, tensor->name);
    if (tensor->rank < 2 || (!rule->keep && !is_weight(tensor))) return false;
    return rule->pattern ? pattern_match(rule->pattern, tensor->name) : role_is(role, rule->role);
}

static enum status decide_by_rule(const struct rule *rule, const struct tensor *tensor, struct verdict *verdict, struct err *err)
{
    verdict->rule = rule;
    verdict->keep = rule->keep;
    verdict->quant = rule->quant;
    verdict->reason = rule->keep ? "a rule keeps it" : "a rule";
    if (rule->keep || is_weight(tensor)) return OK;
    return err_set(err, ERR_USAGE, "%s '%s': tensor has dtype %s, which is not quantised", rule->origin, rule->text, tensor->dtype->name);
}

static void decide_by_default(const struct recipe *recipe, const struct tensor *tensor, struct verdict *verdict)
{
    verdict->quant = recipe->preset;
    verdict->keep = true;
    if (!is_weight(tensor)) verdict->reason = "not a float dtype";
    else if (tensor->rank < 2) verdict->reason = "fewer than 2 dims";
    else if (!verdict->role->linear) verdict->reason = "not a linear layer";
    else if (tensor->rank > 3) verdict->reason = "more than 3 dims";
    else if (!recipe->has_default) verdict->reason = "no rule and no --format";
    else {
        verdict->keep = false;
        verdict->reason = "default for linear layers";
    }
}

enum status recipe_decide(struct recipe *recipe, const struct model_facts *facts, const struct tensor *tensor, struct verdict *verdict,
                          struct err *err)
{
    *verdict = (struct verdict){ .role = roles_of(recipe->roles, tensor->name) };
    const struct rule *decided = NULL;
    for (size_t i = 0; i < recipe->n_rules; i++)
        if (selects(&recipe->rules[i], facts, tensor, verdict->role)) {
            recipe->rules[i].n_selected++;
            if (!decided) decided = &recipe->rules[i];
        }
    enum status status = OK;
    if (decided) status = decide_by_rule(decided, tensor, verdict, err);
    else decide_by_default(recipe, tensor, verdict);
    if (!verdict->keep && tensor->n_weights == 0) {
        verdict->keep = true;
        verdict->reason = "has no weights";
    }
    return status;
}

enum status recipe_fall_back(const struct recipe *recipe, struct quant *quant, struct err *err)
{
    const char *to = quant->format->fallback;
    for (size_t i = 0; i < recipe->n_fallbacks; i++)
        if (strcmp(recipe->fallbacks[i].from, quant->format->name) == 0) to = recipe->fallbacks[i].to;
    if (!to) return err_set(err, ERR_USAGE, "there is no fallback for format %s", quant->format->name);
    struct quant_params params = { .rule = scale_rule_name(quant->rule), .where_valid = true }; /* the rule goes along where the other has it */
    return quant_parse(to, &params, quant, err);
}

static bool has_condition(const struct condition *when)
{
    return when->layers || when->arch || when->blocks || when->gqa || when->experts || when->tied != TIED_ANY;
}

enum status recipe_check_rules(const struct recipe *recipe, struct err *err)
{
    for (size_t i = 0; i < recipe->n_rules; i++) {
        const struct rule *rule = &recipe->rules[i];
        if (rule->n_selected == 0 && !rule->optional && !has_condition(&rule->when))
            return err_set(err, ERR_USAGE, "%s '%s' selects no tensor (a pattern never selects 1-D tensors; optional: true in a recipe allows this)",
                           rule->origin, rule->text);
    }
    return OK;
}
