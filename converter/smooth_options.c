/* smooth_options.c: see smooth_options.h.
 *
 * Drawing: settings -> texts, choices, numbers -> struct; words of --smooth-groups -> bits of kinds.
 * Why this way: see smooth_options.h.
 * Corner cases: --smooth gain makes gain the statistic, unless another one is given, which is refused; "any" with a fixed alpha is refused, a fixed
 * alpha has one family.
 * Reference: smooth_options.h. Worked number: see there.
 */
#include "converter/smooth_options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const kind_names[SMOOTH_KIND_COUNT] = { "N", "N1", "U", "R", "V", "VG", "M", "G" };

static const struct {
    const char *word;
    uint32_t kinds;
} kind_words[] = {
    { "norm", 1u << SMOOTH_N | 1u << SMOOTH_N1 }, { "updown", 1u << SMOOTH_U }, { "relu", 1u << SMOOTH_R },
    { "vo", 1u << SMOOTH_V | 1u << SMOOTH_VG },   { "mla", 1u << SMOOTH_M },    { "gated", 1u << SMOOTH_G },
};

const char *smooth_kind_name(enum smooth_kind kind)
{
    return kind_names[kind];
}

/* Bits of one word of n bytes: a word of the table or the name of a kind; 0 for another. */
static uint32_t kinds_of(const char *word, size_t n)
{
    for (size_t i = 0; i < sizeof kind_words / sizeof kind_words[0]; i++)
        if (strlen(kind_words[i].word) == n && strncmp(kind_words[i].word, word, n) == 0) return kind_words[i].kinds;
    for (uint32_t i = 0; i < SMOOTH_KIND_COUNT; i++)
        if (strlen(kind_names[i]) == n && strncmp(kind_names[i], word, n) == 0) return 1u << i;
    return 0;
}

static enum status read_kinds(const char *text, uint32_t *kinds, struct err *err)
{
    *kinds = text ? 0 : UINT32_MAX;
    for (const char *at = text; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        const size_t n = strcspn(at, ",");
        const uint32_t found = kinds_of(at, n);
        if (!found) return err_set(err, ERR_USAGE, "--smooth-groups '%s': '%.*s' is none of norm, updown, relu, vo, mla, gated", text, (int)n, at);
        *kinds |= found;
    }
    return OK;
}

static enum status read_alpha(const struct settings *settings, struct smooth_options *options, struct err *err)
{
    const char *text = settings_text(settings, SET_ALPHA);
    char *end;
    options->how = !text ? ALPHA_DEFAULT : strcmp(text, "auto") == 0 ? ALPHA_AUTO : ALPHA_FIXED;
    if (options->how != ALPHA_FIXED) return OK;
    options->alpha = strtod(text, &end);
    if (end != text && *end == '\0' && strspn(text, "0123456789.e-") == strlen(text) && options->alpha >= 0.0 && options->alpha <= 1.0) return OK;
    return err_set(err, ERR_USAGE, "--alpha '%s' is neither auto nor a number from 0 to 1", text);
}

static enum status read_clamp(const struct settings *settings, double *clamp, struct err *err)
{
    const char *text = settings_text(settings, SET_SMOOTH_CLAMP);
    char *end;
    *clamp = strtod(text, &end);
    if (end != text && *end == '\0' && *clamp > 0.0 && *clamp <= 1.0) return OK;
    return err_set(err, ERR_USAGE, "--smooth-clamp '%s' is not above 0 and at most 1", text);
}

static enum status read_family(const struct settings *settings, struct smooth_options *options, struct err *err)
{
    const bool any = settings_is(settings, SET_SMOOTH_FAMILY, "any");
    options->family = any ? SMOOTH_SQ : smooth_family_find(settings_text(settings, SET_SMOOTH_FAMILY));
    for (uint32_t i = 0; i < SMOOTH_FAMILY_COUNT; i++) options->search.families[i] = any || i == (uint32_t)options->family;
    if (!any || options->how != ALPHA_FIXED) return OK;
    return err_set(err, ERR_USAGE, "--smooth-family any needs --alpha auto: a fixed alpha belongs to one family");
}

/* Options that mean nothing beside a fixed alpha. */
static enum status check_fixed(const struct settings *settings, const struct smooth_options *options, struct err *err)
{
    static const enum setting_id searches[] = { SET_SHARED_CRITERION, SET_ALPHA_MIN,    SET_ALPHA_MAX,    SET_ALPHA_STEP,
                                                SET_INIT_ALPHA,       SET_DO_BLOCKWISE, SET_SMOOTH_REFINE };
    for (size_t i = 0; options->how == ALPHA_FIXED && i < sizeof searches / sizeof searches[0]; i++)
        if (settings_given(settings, searches[i]) && !settings->from_recipe[searches[i]])
            return err_set(err, ERR_USAGE, "--%s needs --alpha auto: nothing is searched with --alpha %s", settings_table[searches[i]].name,
                           settings_text(settings, SET_ALPHA));
    return OK;
}

static enum status read_search(const struct settings *settings, struct smooth_options *options, struct err *err)
{
    double alphas[SMOOTH_ALPHAS_MAX];
    size_t n;
    struct smooth_settings *search = &options->search;
    *search = smooth_settings_default();
    search->alpha_min = settings_real(settings, SET_ALPHA_MIN);
    search->alpha_max = settings_real(settings, SET_ALPHA_MAX);
    search->alpha_step = settings_real(settings, SET_ALPHA_STEP);
    search->criterion = smooth_criterion_find(settings_text(settings, SET_SHARED_CRITERION));
    search->loss = smooth_loss_find(settings_text(settings, SET_SMOOTH_LOSS));
    search->refine = (uint32_t)settings_number(settings, SET_SMOOTH_REFINE);
    search->importance = settings_given(settings, SET_IMATRIX);
    return smooth_grid(search->alpha_min, search->alpha_max, search->alpha_step, alphas, &n, err);
}

static enum status read_stat(const struct settings *settings, struct smooth_options *options, struct err *err)
{
    const char *text = settings_text(settings, SET_SMOOTH_STAT);
    options->stat_given = text != NULL;
    enum status status = smooth_stat_parse(text ? text : options->gain ? "gain" : "rms", &options->stat, err);
    if (status || !options->gain || options->stat.kind == SMOOTH_STAT_GAIN) return status;
    return err_set(err, ERR_USAGE, "--smooth gain has no statistic '%s': that needs a file", text);
}

/* The first option given that means nothing without migration. */
static enum status check_alone(const struct settings *settings, struct err *err)
{
    for (int id = SET_ALPHA; id <= SET_SMOOTH_INC_JSON; id++)
        if (settings->values[id] && !settings->from_recipe[id]) return err_set(err, ERR_USAGE, "--%s needs --smooth", settings_table[id].name);
    return OK;
}

enum status smooth_options_read(const struct settings *settings, struct smooth_options *options, bool *any, struct err *err)
{
    *options = (struct smooth_options){ .recipe = settings_text(settings, SET_SMOOTH_RECIPE),
                                        .recipe_out = settings_text(settings, SET_SMOOTH_RECIPE_OUT),
                                        .inc_json = settings_text(settings, SET_SMOOTH_INC_JSON),
                                        .inverse = settings_text(settings, SET_INVERSE),
                                        .blockwise = settings_flag(settings, SET_DO_BLOCKWISE),
                                        .n_samples = settings_number(settings, SET_N_SAMPLES),
                                        .init_alpha = settings_real(settings, SET_INIT_ALPHA),
                                        .folding = settings_is(settings, SET_FOLDING, "on"),
                                        .runtime = settings_flag(settings, SET_SMOOTH_RUNTIME) };
    const char *source = settings_text(settings, SET_SMOOTH);
    const int n_sources = (source != NULL) + (options->recipe != NULL) + (options->inverse != NULL);
    *any = n_sources > 0;
    if (n_sources == 0) return check_alone(settings, err);
    if (n_sources > 1) return err_set(err, ERR_USAGE, "--smooth, --smooth-recipe and --inverse exclude each other");
    options->gain = source && strcmp(source, "gain") == 0;
    options->path = options->gain ? NULL : source;
    if (options->runtime && !source) return err_set(err, ERR_USAGE, "--smooth-runtime belongs to --smooth; a recipe says itself what it stores");
    options->reduce = smooth_reduce_find(settings_text(settings, SET_SMOOTH_REDUCE));
    enum status status = read_alpha(settings, options, err);
    if (!status) status = check_fixed(settings, options, err);
    if (!status) status = read_search(settings, options, err);
    if (!status) status = read_family(settings, options, err);
    if (!status) status = read_stat(settings, options, err);
    if (!status) status = read_clamp(settings, &options->clamp, err);
    if (!status) status = read_kinds(settings_text(settings, SET_SMOOTH_GROUPS), &options->kinds, err);
    return status;
}

double smooth_options_alpha(const struct smooth_options *options, const struct quant *quant, bool *search)
{
    const bool is_mx = quant && strcmp(quant->format->family->name, "mx") == 0, is_short = quant && quant->group && quant->group <= 64;
    *search = options->how == ALPHA_AUTO || (options->how == ALPHA_DEFAULT && is_mx);
    if (options->how == ALPHA_FIXED) return options->alpha;
    return is_short ? 0.45 : 0.35;
}
