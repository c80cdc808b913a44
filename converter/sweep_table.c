/* sweep_table.c: see sweep_table.h.
 *
 * Drawing: table -> variants, rows, histograms, settings, texts; rows own nothing.
 * Why this way: see sweep_table.h.
 * Corner cases: a table that was built halfway is freed as well.
 * Reference: sweep_table.h. Worked number: scope 1 is "role".
 */
#include "converter/sweep_table.h"

#include <stdlib.h>

const char *const sweep_scope_names[SWEEP_SCOPES] = { "tensor", "role", "total" };

static void free_variant(struct sweep_variant *variant)
{
    free(variant->format);
    free(variant->group_size);
    free(variant->scale_rule);
    free(variant->alpha_text);
    free(variant->settings);
    free(variant->skipped);
}

static void free_histogram(struct sweep_histogram *histogram)
{
    free(histogram->codes);
    free(histogram->code_values);
    free(histogram->scales);
}

void sweep_table_free(struct sweep_table *table)
{
    for (size_t i = 0; i < table->n_variants; i++) free_variant(&table->variants[i]);
    for (size_t i = 0; i < table->n_histograms; i++) free_histogram(&table->histograms[i]);
    for (size_t i = 0; i < table->n_settings; i++) {
        free(table->settings[i].name);
        free(table->settings[i].value);
    }
    for (size_t i = 0; i < table->n_texts; i++) free(table->texts[i]);
    free(table->variants);
    free(table->histograms);
    free(table->settings);
    free(table->texts);
    free(table->rows);
    free(table->title);
    free(table->model);
    free(table->writer);
    free(table->histogram_tensor);
    free(table->reference_name);
    *table = (struct sweep_table){ 0 };
}
