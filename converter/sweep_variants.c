/* sweep_variants.c: the lists of a sweep as variants: every combination, each either a quant that convert would take or a reason why not.
 *
 *   int4,mxfp4 x 32,64 x mse  ->  int4|32|mse  int4|64|mse  mxfp4|32|mse: skipped, mxfp4 has no rule mse  ...
 *
 * Why this way: quant_parse is what convert asks too, and its sentence is the reason.
 * Corner cases: commas inside inline parameters (int4:group=64,scale=f16) do not end an entry, for what follows has '=' and no ':'; a combination that
 * comes to the same as an earlier one is skipped as such; strength 0 is a variant without migration; a word that is no format, rule or group size at all is an error.
 * Reference: sweep.h. Worked number: 5 formats x 4 group sizes: 20 variants.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "converter/sweep_run.h"

enum { LIST_MAX = 64, VARIANTS_MAX = 4096 };

struct list {
    char *words[LIST_MAX]; /* owned; NULL: the format's default */
    size_t n;
};

static void list_free(struct list *list)
{
    for (size_t i = 0; i < list->n; i++) free(list->words[i]);
    list->n = 0;
}

/* Whether the word goes on with parameters of the one before it. */
static bool continues(const char *word, size_t nbytes)
{
    return memchr(word, '=', nbytes) && !memchr(word, ':', nbytes);
}

static enum status list_add(struct list *list, const char *option, const char *word, size_t nbytes, struct err *err)
{
    if (list->n && list->words[list->n - 1] && continues(word, nbytes)) {
        char *before = list->words[list->n - 1];
        const size_t have = strlen(before);
        char *longer = realloc(before, have + nbytes + 2);
        if (!longer) return err_set(err, ERR_MEMORY, "out of memory");
        snprintf(longer + have, nbytes + 2, ",%.*s", (int)nbytes, word);
        list->words[list->n - 1] = longer;
        return OK;
    }
    if (nbytes == 0) return err_set(err, ERR_USAGE, "--%s has an empty entry", option);
    if (list->n == LIST_MAX) return err_set(err, ERR_USAGE, "--%s has more than %d entries", option, LIST_MAX);
    list->words[list->n] = strndup(word, nbytes);
    if (!list->words[list->n]) return err_set(err, ERR_MEMORY, "out of memory");
    list->n++;
    return OK;
}

/* text NULL: one entry, the default. */
static enum status list_read(const char *option, const char *text, struct list *list, struct err *err)
{
    *list = (struct list){ 0 };
    if (!text) {
        list->n = 1;
        return OK;
    }
    enum status status = OK;
    for (const char *at = text; !status; at++) {
        const size_t nbytes = strcspn(at, ",");
        status = list_add(list, option, at, nbytes, err);
        at += nbytes;
        if (!*at) break;
    }
    return status;
}

/* ---- words that mean nothing anywhere -------------------------------------------------------------------------------------------- */

static bool is_group(const char *text)
{
    return (strspn(text, "0123456789") == strlen(text) && *text) || group_kind_find(text) != GROUP_SIZE;
}

static enum status check_words(const struct list *formats, const struct list *groups, const struct list *rules, struct err *err)
{
    for (size_t i = 0; i < formats->n; i++) {
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(formats->words[i], ":"), formats->words[i]);
        struct quant quant;
        if (!format_find(name)) return quant_parse(name, &(struct quant_params){ 0 }, &quant, err);
    }
    for (size_t i = 0; i < groups->n; i++)
        if (groups->words[i] && !is_group(groups->words[i]))
            return err_set(err, ERR_USAGE, "--group-sizes '%s' is neither a number nor channel, tensor or 128x128", groups->words[i]);
    for (size_t i = 0; i < rules->n; i++)
        if (rules->words[i] && scale_rule_find(rules->words[i]) == RULE_COUNT)
            return err_set(err, ERR_USAGE, "--scale-rules '%s' is no scale rule (llmq formats lists them)", rules->words[i]);
    return OK;
}

/* A strength of migration. */
struct strength {
    double alpha; /* 0: no migration; NaN: text is a word */
    const char *text; /* as --alpha takes it, or "default"; NULL: no migration */
};

/* text NULL: without --alphas. */
static enum status read_strength(const struct settings *settings, const char *text, struct strength *strength, struct err *err)
{
    const bool smooth = settings_given(settings, SET_SMOOTH);
    char *end = NULL;
    *strength = (struct strength){ 0.0, NULL };
    if (!text && !smooth) return OK;
    if (!text || strcmp(text, "auto") == 0) {
        *strength = (struct strength){ (double)NAN, text ? text : "default" };
    } else {
        const double alpha = strtod(text, &end);
        if (strspn(text, "0123456789.") != strlen(text) || *end || !(alpha >= 0.0 && alpha <= 1.0))
            return err_set(err, ERR_USAGE, "--alphas '%s' is neither a number from 0 to 1 nor auto", text);
        if (alpha > 0.0) *strength = (struct strength){ alpha, text };
    }
    return strength->text && !smooth ? err_set(err, ERR_USAGE, "--alphas '%s' needs --smooth", text) : OK;
}

static bool is_search(enum setting_id id)
{
    static const enum setting_id searches[] = { SET_SHARED_CRITERION, SET_ALPHA_MIN,    SET_ALPHA_MAX,    SET_ALPHA_STEP,
                                                SET_INIT_ALPHA,       SET_DO_BLOCKWISE, SET_SMOOTH_REFINE };
    for (size_t i = 0; i < sizeof searches / sizeof searches[0]; i++)
        if (searches[i] == id) return true;
    return false;
}

bool sweep_heeds(const struct sweep_variant *variant, enum setting_id id)
{
    if (id < SET_SMOOTH || id > SET_SMOOTH_MAP) return true;
    return variant->alpha_text && (isnan(variant->alpha) || !is_search(id));
}

/* Options of a search that no strength has. */
static enum status check_searches(const struct settings *settings, const struct list *alphas, struct err *err)
{
    for (size_t i = 0; i < alphas->n; i++)
        if (!alphas->words[i] || strcmp(alphas->words[i], "auto") == 0) return OK;
    for (size_t id = 0; id < SET_COUNT; id++)
        if (is_search((enum setting_id)id) && settings_given(settings, (enum setting_id)id))
            return err_set(err, ERR_USAGE, "--%s needs auto among the --alphas: nothing is searched", settings_table[id].name);
    return OK;
}

/* ---- variants -------------------------------------------------------------------------------------------------------------------- */

enum status sweep_skip(struct sweep_variant *variant, const char *reason, struct err *err)
{
    if (!variant->skipped) variant->skipped = strdup(reason);
    return variant->skipped ? OK : err_set(err, ERR_MEMORY, "out of memory");
}

/* The group as text without quotes. */
static void group_text(const struct quant *quant, char out[16])
{
    char json[16];
    quant_group_json(quant, json);
    const size_t n = strlen(json), cut = json[0] == '"';
    snprintf(out, 16, "%.*s", (int)(n - 2 * cut), json + cut);
}

struct making {
    struct app *app;
    struct sweep_table *table;
    struct quant *quants; /* of each variant that is not skipped */
};

/* A word as a shell takes it. */
static void add_word(struct text *text, const char *word)
{
    if (*word && strspn(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-+=:,/@%") == strlen(word)) {
        text_add(text, " %s", word);
        return;
    }
    text_add(text, " '");
    for (const char *at = word; *at; at++) text_add(text, *at == '\'' ? "'\\''" : "%c", *at);
    text_add(text, "'");
}

static void add_option(const struct settings *settings, enum setting_id id, struct text *text)
{
    if (!settings_given(settings, id)) return;
    text_add(text, " --%s", settings_table[id].name);
    if (settings_table[id].type != SETTING_FLAG) add_word(text, settings_text(settings, id));
}

/* The options that give the same bytes; a format of blocks takes no group size. */
static void settings_text_of(const struct settings *settings, const struct sweep_variant *variant, const char *format, const char *group,
                             const char *rule, struct text *text)
{
    static const enum setting_id further[] = { SET_SCALE_DTYPE, SET_PERCENTILE, SET_ROUNDING, SET_HALF_RANGE,
                                               SET_NVFP4_SCALE, SET_NONFINITE,  SET_IMATRIX };
    text_add(text, "--format %s", format);
    if (group) text_add(text, " --group-size %s", group);
    if (rule) text_add(text, " --scale-rule %s", rule);
    for (size_t i = 0; i < sizeof further / sizeof further[0]; i++) add_option(settings, further[i], text);
    if (!variant->alpha_text) return;
    add_option(settings, SET_SMOOTH, text);
    if (strcmp(variant->alpha_text, "default") != 0) text_add(text, " --alpha %s", variant->alpha_text);
    for (int id = SET_SMOOTH + 1; id <= SET_SMOOTH_MAP; id++)
        if (id != SET_ALPHA && sweep_heeds(variant, (enum setting_id)id)) add_option(settings, (enum setting_id)id, text);
}

static enum status name_variant(const struct settings *settings, struct sweep_variant *variant, const char *format, const char *group, bool blocks,
                                const char *rule, struct err *err)
{
    struct text text = text_make(1u << 16);
    settings_text_of(settings, variant, format, blocks ? NULL : group, rule, &text);
    variant->format = strdup(format);
    variant->group_size = strdup(group ? group : "default");
    variant->scale_rule = strdup(rule ? rule : "default");
    variant->settings = text.failed ? NULL : strdup(text.data);
    text_free(&text);
    if (!variant->format || !variant->group_size || !variant->scale_rule || !variant->settings) return err_set(err, ERR_MEMORY, "out of memory");
    return OK;
}

static bool same_strength(const struct sweep_variant *a, const struct sweep_variant *b)
{
    if (isnan(a->alpha) || isnan(b->alpha)) return isnan(a->alpha) && isnan(b->alpha) && strcmp(a->alpha_text, b->alpha_text) == 0;
    return !(a->alpha < b->alpha || a->alpha > b->alpha);
}

static enum status skip_double(const struct making *making, size_t number, struct err *err)
{
    struct sweep_table *table = making->table;
    char reason[300];
    for (size_t i = 0; i < number; i++) {
        const struct sweep_variant *earlier = &table->variants[i];
        if (earlier->skipped || !same_strength(earlier, &table->variants[number]) || !quant_same(&making->quants[i], &making->quants[number]))
            continue;
        snprintf(reason, sizeof reason, "the same as %s, group size %s, scale rule %s%s%s, which is there already", earlier->format,
                 earlier->group_size, earlier->scale_rule, earlier->alpha_text ? ", alpha " : "", earlier->alpha_text ? earlier->alpha_text : "");
        return sweep_skip(&table->variants[number], reason, err);
    }
    return OK;
}

static enum status add_variant(struct making *making, const char *format, const char *group, const char *rule, const char *strength_text,
                               struct err *err)
{
    const struct settings *settings = &making->app->settings;
    struct sweep_table *table = making->table;
    const size_t number = table->n_variants++;
    struct sweep_variant *variant = &table->variants[number];
    struct quant *quant = &making->quants[number];
    const struct quant_params params = { .group = group,
                                         .scale = settings->values[SET_SCALE_DTYPE],
                                         .rule = rule,
                                         .rounding = settings->values[SET_ROUNDING],
                                         .tensor_scale = settings_tensor_scale(settings),
                                         .half_range = settings->values[SET_HALF_RANGE],
                                         .percentile = settings->values[SET_PERCENTILE] };
    struct err why = { OK, "" };
    char text[16];
    struct strength strength;
    if (read_strength(settings, strength_text, &strength, err) != OK) return err->code;
    variant->alpha = strength.alpha;
    variant->alpha_text = strength.text ? strdup(strength.text) : NULL;
    if (strength.text && !variant->alpha_text) return err_set(err, ERR_MEMORY, "out of memory");
    if (quant_parse(format, &params, quant, &why) != OK) {
        enum status status = name_variant(settings, variant, format, group, false, rule, err);
        return status ? status : sweep_skip(variant, why.text, err);
    }
    group_text(quant, text);
    enum status status = name_variant(settings, variant, strchr(format, ':') ? format : quant->format->name, text, quant->format->family->blocks,
                                      quant->rule == RULE_COUNT ? NULL : scale_rule_name(quant->rule), err);
    return status ? status : skip_double(making, number, err);
}

static enum status check_some(const struct sweep_table *table, struct err *err)
{
    for (size_t i = 0; i < table->n_variants; i++)
        if (!table->variants[i].skipped) return OK;
    return err_set(err, ERR_USAGE, "none of the %zu combinations makes sense; the first: %s", table->n_variants, table->variants[0].skipped);
}

static enum status combine(struct making *making, const struct list lists[4], struct err *err)
{
    enum status status = OK;
    for (size_t f = 0; f < lists[0].n && !status; f++)
        for (size_t g = 0; g < lists[1].n && !status; g++)
            for (size_t r = 0; r < lists[2].n && !status; r++)
                for (size_t a = 0; a < lists[3].n && !status; a++)
                    status = add_variant(making, lists[0].words[f], lists[1].words[g], lists[2].words[r], lists[3].words[a], err);
    return status;
}

enum status sweep_variants_make(struct app *app, const struct sweep_spec *spec, struct sweep_table *table, struct err *err)
{
    struct list lists[4] = { { .n = 0 } };
    struct making making = { app, table, NULL };
    if (!spec->formats) return err_set(err, ERR_USAGE, "--formats is missing: the formats to compare");
    enum status status = list_read("formats", spec->formats, &lists[0], err);
    if (!status) status = list_read("group-sizes", spec->group_sizes, &lists[1], err);
    if (!status) status = list_read("scale-rules", spec->scale_rules, &lists[2], err);
    if (!status) status = list_read("alphas", spec->alphas, &lists[3], err);
    if (!status) status = check_words(&lists[0], &lists[1], &lists[2], err);
    if (!status) status = check_searches(&app->settings, &lists[3], err);
    const size_t n = lists[0].n * lists[1].n * lists[2].n * lists[3].n;
    if (!status && n > VARIANTS_MAX) status = err_set(err, ERR_USAGE, "%zu combinations are more than %d", n, VARIANTS_MAX);
    if (!status) {
        table->variants = calloc(n + 1, sizeof *table->variants);
        making.quants = calloc(n + 1, sizeof *making.quants);
        if (!table->variants || !making.quants) status = err_set(err, ERR_MEMORY, "out of memory for %zu variants", n);
    }
    if (!status) status = combine(&making, lists, err);
    if (!status) status = check_some(table, err);
    free(making.quants);
    for (size_t i = 0; i < 4; i++) list_free(&lists[i]);
    return status;
}
