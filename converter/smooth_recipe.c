/* smooth_recipe.c: writes recipes; see smooth_recipe.h.
 *
 * Drawing: outcomes -> JSON text; keys of factors -> safetensors header and data.
 * Why this way: see smooth_recipe.h. Numbers are written with 17 digits, factors as their bits.
 * Corner cases: NAN (no alpha, no loss) is null.
 * Reference: smooth_recipe.h. Worked number: see there.
 */
#include "converter/smooth_recipe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/text.h"
#include "converter/smooth_files.h"
#include "converter/version.h"

enum status smooth_model_digest(const struct container *container, char out[DIGEST128_HEX], struct err *err)
{
    struct digest_stream *stream = digest_open();
    struct digest128 total = { { 0 } };
    if (!stream) return err_set(err, ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < container->n_tensors; i++) {
        const struct tensor *tensor = &container->tensors[i];
        digest_reset(stream);
        digest_add(stream, tensor->name, strlen(tensor->name) + 1);
        for (uint32_t k = 0; k < tensor->rank; k++) {
            uint8_t bytes[8];
            for (uint32_t b = 0; b < 8; b++) bytes[b] = (uint8_t)(tensor->dims[k] >> (8 * b));
            digest_add(stream, bytes, sizeof bytes);
        }
        const struct digest128 digest = digest_value(stream);
        for (size_t b = 0; b < sizeof total.bytes; b++) total.bytes[b] ^= digest.bytes[b];
    }
    digest128_hex(&total, out);
    digest_close(stream);
    return OK;
}

/* ---- JSON ------------------------------------------------------------------------------------------------------------------------- */

static void add_number(struct text *text, const char *key, double value)
{
    if (isfinite(value)) text_add(text, "\"%s\":%.17g", key, value);
    else text_add(text, "\"%s\":null", key);
}

static void add_names(struct text *text, const char *key, const struct plan *plan, const struct smooth_side *sides, size_t n)
{
    text_add(text, "\"%s\":[", key);
    for (size_t i = 0; i < n; i++) {
        text_add(text, i ? "," : "");
        text_add_json_str(text, plan->container->tensors[sides[i].tensor].name);
    }
    text_add(text, "]");
}

static void add_group(struct text *text, const struct plan *plan, const struct smooth_outcome *outcome, size_t index)
{
    const struct smooth_group *group = outcome->group;
    text_add(text, "{\"id\":");
    text_add_json_str(text, group->id);
    text_add(text, ",\"kind\":\"%s\",\"fate\":\"%s\",", group->n_producers ? smooth_kind_name(group->kind) : "S",
             outcome->fate == SMOOTH_FOLDED ? "folded" : "stored");
    add_names(text, "absorb", plan, group->producers, group->n_producers);
    text_add(text, ",");
    add_names(text, "consumers", plan, group->consumers, group->n_consumers);
    if (!group->n_producers) text_add(text, ",\"matrix\":%llu", (unsigned long long)group->consumers[0].mat);
    text_add(text, ",\"family\":\"%s\",", outcome->given ? "given" : outcome->identity ? "identity" : smooth_family_name(outcome->family));
    add_number(text, "alpha", outcome->alpha);
    text_add(text, ",\"searched\":%s,\"loss\":{", outcome->searched ? "true" : "false");
    add_number(text, "identity", outcome->identity_loss);
    text_add(text, ",");
    add_number(text, "best", outcome->loss);
    text_add(text, "},\"clipped\":%llu,\"dead\":%llu,", (unsigned long long)outcome->n_clipped, (unsigned long long)outcome->n_dead);
    add_number(text, "deviation", outcome->deviation);
    text_add(text, ",\"channels\":%llu,\"s\":\"%zu.s\",\"columns\":\"%zu.columns\"}", (unsigned long long)group->n, index, index);
}

static void add_left(struct text *text, const struct smoothing *smoothing)
{
    size_t n = 0;
    text_add(text, "\"unfolded\":[");
    for (size_t i = 0; i < smoothing->n_outcomes; i++) {
        if (smoothing->outcomes[i].fate != SMOOTH_LEFT) continue;
        text_add(text, "%s\n  {\"id\":", n++ ? "," : "");
        text_add_json_str(text, smoothing->outcomes[i].group->id);
        text_add(text, ",\"why\":");
        text_add_json_str(text, smoothing->outcomes[i].why);
        text_add(text, "}");
    }
    for (size_t i = 0; i < smoothing->groups.n_refusals; i++) {
        text_add(text, "%s\n  {\"id\":", n++ ? "," : "");
        text_add_json_str(text, smoothing->groups.refusals[i].id);
        text_add(text, ",\"why\":");
        text_add_json_str(text, smoothing->groups.refusals[i].why);
        text_add(text, "}");
    }
    text_add(text, "]");
}

/* The settings given, as texts. */
static void add_settings(struct text *text, const struct settings *settings)
{
    size_t n = 0;
    text_add(text, "\"settings\":{");
    for (int id = SET_SMOOTH; id <= SET_SMOOTH_RUNTIME; id++) {
        if (!settings->values[id]) continue;
        text_add(text, "%s\"%s\":", n++ ? "," : "", settings_table[id].name);
        text_add_json_str(text, id == SET_SMOOTH || id == SET_SMOOTH_MAP ? path_base(settings->values[id]) : settings->values[id]);
    }
    text_add(text, "}");
}

static enum status make_json(struct app *app, const struct plan *plan, struct smoothing *smoothing, const char *scales_name, struct err *err)
{
    char digest[DIGEST128_HEX];
    struct text text = text_make(1u << 30);
    size_t n = 0;
    enum status status = smooth_model_digest(plan->container, digest, err);
    text_add(&text,
             "{\"format\":\"" SMOOTH_RECIPE_FORMAT "\",\"version\":1,\"tool\":\"llmq " LLMQ_VERSION_TEXT "\",\"model\":\"%s\",\"scales\":", digest);
    text_add_json_str(&text, scales_name);
    text_add(&text, ",\"arch\":");
    text_add_json_str(&text, smoothing->arch);
    text_add(&text, ",\"statistic\":");
    text_add_json_str(&text, smoothing->stat);
    text_add(&text, ",");
    add_settings(&text, &app->settings);
    text_add(&text, ",\n \"groups\":[");
    for (size_t i = 0; i < smoothing->n_outcomes; i++) {
        if (smoothing->outcomes[i].fate == SMOOTH_LEFT) continue;
        text_add(&text, "%s\n  ", n++ ? "," : "");
        add_group(&text, plan, &smoothing->outcomes[i], i);
    }
    text_add(&text, "],\n ");
    add_left(&text, smoothing);
    text_add(&text, "}\n");
    if (!status) status = text_ok(&text, "recipe", err);
    if (!status && !(smoothing->recipe_json = strdup(text.data))) status = err_set(err, ERR_MEMORY, "out of memory");
    smoothing->recipe_json_nbytes = text.nbytes;
    text_free(&text);
    return status;
}

/* ---- factors ---------------------------------------------------------------------------------------------------------------------- */

static void add_tensor(struct text *text, size_t index, const char *what, uint64_t n, uint64_t *at)
{
    text_add(text, "%s\"%zu.%s\":{\"dtype\":\"F32\",\"shape\":[%llu],\"data_offsets\":[%llu,%llu]}", *at ? "," : "", index, what,
             (unsigned long long)n, (unsigned long long)*at, (unsigned long long)(*at + 4 * n));
    *at += 4 * n;
}

static uint8_t *put_factors(uint8_t *out, const float *factors, uint64_t n)
{
    ggml_f32.encode(factors, NULL, (size_t)n, out);
    return out + 4 * n;
}

static enum status make_scales(struct smoothing *smoothing, struct err *err)
{
    struct text text = text_make(1u << 28);
    uint64_t at = 0;
    text_add(&text, "{");
    for (size_t i = 0; i < smoothing->n_outcomes; i++) {
        if (smoothing->outcomes[i].fate == SMOOTH_LEFT) continue;
        add_tensor(&text, i, "s", smoothing->outcomes[i].group->n, &at);
        add_tensor(&text, i, "columns", smoothing->outcomes[i].group->n, &at);
    }
    text_add(&text, "}");
    while (text.nbytes % 8 && !text.failed) text_add(&text, " ");
    enum status status = text_ok(&text, "recipe", err);
    smoothing->recipe_scales_nbytes = 8 + text.nbytes + (size_t)at;
    if (!status && !(smoothing->recipe_scales = malloc(smoothing->recipe_scales_nbytes))) status = err_set(err, ERR_MEMORY, "out of memory");
    if (!status) {
        uint8_t *out = smoothing->recipe_scales;
        for (uint32_t b = 0; b < 8; b++) *out++ = (uint8_t)((uint64_t)text.nbytes >> (8 * b));
        memcpy(out, text.data, text.nbytes);
        out += text.nbytes;
        for (size_t i = 0; i < smoothing->n_outcomes; i++) {
            const struct smooth_outcome *outcome = &smoothing->outcomes[i];
            if (outcome->fate == SMOOTH_LEFT) continue;
            out = put_factors(out, outcome->s, outcome->group->n);
            out = put_factors(out, outcome->consumers, outcome->group->n);
        }
    }
    text_free(&text);
    return status;
}

char *smooth_scales_path(const char *recipe)
{
    const size_t n = strlen(recipe) + sizeof SMOOTH_SCALES_ENDING;
    char *path = malloc(n);
    if (path) snprintf(path, n, "%s" SMOOTH_SCALES_ENDING, recipe);
    return path;
}

enum status smooth_recipe_make(struct app *app, const struct plan *plan, struct smoothing *smoothing, struct err *err)
{
    enum status status = OK;
    if (smoothing->options.recipe_out) {
        char *path = smooth_scales_path(smoothing->options.recipe_out);
        status = path ? make_json(app, plan, smoothing, path_base(path), err) : err_set(err, ERR_MEMORY, "out of memory");
        free(path);
        if (!status) status = make_scales(smoothing, err);
    }
    if (!status && smoothing->options.inc_json) status = smooth_inc_make(app, plan, smoothing, err);
    return status;
}

/* ---- the files -------------------------------------------------------------------------------------------------------------------- */

static enum status write_file(struct outset *set, const char *path, const void *bytes, size_t nbytes, struct err *err)
{
    struct outfile *file;
    enum status status = outset_add(set, path, &file, err);
    return status ? status : outfile_write(file, bytes, nbytes, 0, err);
}

enum status smooth_write_files(const struct plan *plan, struct outset *set, struct err *err)
{
    const struct smoothing *smoothing = plan->smoothing;
    enum status status = OK;
    if (!smoothing) return OK;
    if (smoothing->recipe_json) {
        char *path = smooth_scales_path(smoothing->options.recipe_out);
        status =
            path ? write_file(set, path, smoothing->recipe_scales, smoothing->recipe_scales_nbytes, err) : err_set(err, ERR_MEMORY, "out of memory");
        free(path);
        if (!status) status = write_file(set, smoothing->options.recipe_out, smoothing->recipe_json, smoothing->recipe_json_nbytes, err);
    }
    if (!status && smoothing->inc_json) status = write_file(set, smoothing->options.inc_json, smoothing->inc_json, smoothing->inc_json_nbytes, err);
    return status;
}
