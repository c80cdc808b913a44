/* table_head.c: see table_head.h.
 *
 * Drawing: "model.layers.3.mlp.up_proj.weight" -> 3; "blk.12.ffn_up.weight" -> 12; "output.weight" -> none.
 * Why this way: see table_head.h.
 * Corner cases: numbers of more than 8 digits are no layer.
 * Reference: table_head.h.
 */
#include "converter/table_head.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "converter/version.h"

static enum status add_setting(struct sweep_table *table, const char *name, const char *value, struct err *err)
{
    struct sweep_setting *bigger = realloc(table->settings, (table->n_settings + 1) * sizeof *bigger);
    if (!bigger) return err_set(err, ERR_MEMORY, "out of memory");
    table->settings = bigger;
    struct sweep_setting *setting = &bigger[table->n_settings++];
    *setting = (struct sweep_setting){ strdup(name), strdup(value) };
    return setting->name && setting->value ? OK : err_set(err, ERR_MEMORY, "out of memory");
}

bool table_tells(enum setting_id id)
{
    static const enum setting_id silent[] = { SET_IN,       SET_OUT,  SET_THREADS, SET_MAX_RAM,    SET_FORCE,  SET_QUIET,
                                              SET_PROGRESS, SET_JSON, SET_CSV,     SET_SWEEP_JSON, SET_REPORT, SET_RESUME };
    for (size_t k = 0; k < sizeof silent / sizeof silent[0]; k++)
        if (silent[k] == id) return false;
    return true;
}

enum status table_head(const struct settings *settings, const char *title, struct sweep_table *table, struct err *err)
{
    enum status status = OK;
    table->title = strdup(title);
    table->model = strdup(settings_text(settings, SET_IN));
    table->writer = strdup("llmq " LLMQ_VERSION_TEXT);
    table->reference_name = strdup("");
    table->reference_perplexity = (double)NAN;
    table->sample = 1.0;
    if (!table->title || !table->model || !table->writer || !table->reference_name) return err_set(err, ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < SET_COUNT && !status; i++)
        if (settings_given(settings, (enum setting_id)i) && table_tells((enum setting_id)i))
            status = add_setting(table, settings_table[i].name, settings_text(settings, (enum setting_id)i), err);
    for (size_t i = 0; i < settings->n_rules && !status; i++)
        status = add_setting(table, settings->rules[i].keep ? "keep" : "rule", settings->rules[i].text, err);
    return status;
}

uint32_t table_layer(const char *tensor_name)
{
    for (const char *at = tensor_name; *at; at++) {
        const size_t digits = strspn(at, "0123456789");
        if ((at == tensor_name || at[-1] == '.') && digits > 0 && digits < 9 && at[digits] == '.') return (uint32_t)strtoul(at, NULL, 10);
    }
    return SWEEP_NO_LAYER;
}

char *table_text(struct sweep_table *table, const char *text)
{
    char *copy = strdup(text);
    if ((table->n_texts & (table->n_texts + 1)) == 0) { /* full: 0, 1, 3, 7, ... */
        char **bigger = realloc(table->texts, (2 * table->n_texts + 1) * sizeof *bigger);
        if (!bigger) {
            free(copy);
            return NULL;
        }
        table->texts = bigger;
    }
    if (copy) table->texts[table->n_texts++] = copy;
    return copy;
}
