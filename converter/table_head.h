/* table_head.h: what a table of results says of its run: title, model, program, options.
 *
 *   settings as given (command line and recipe), but for those that change no result -> name, value
 *
 * Why this way: a sweep and a conversion say it in the same words, those of the settings table.
 * Corner cases: rules and --keep follow in their order, each a line.
 * Reference: sweep_table.h, settings.h.
 */
#ifndef LLMQ_CONVERTER_TABLE_HEAD_H
#define LLMQ_CONVERTER_TABLE_HEAD_H

#include "converter/settings.h"
#include "converter/sweep_table.h"

/* Fills title, model, writer and settings; nothing was evaluated or left out so far. table is zeroed before. ERR_MEMORY. */
enum status table_head(const struct settings *settings, const char *title, struct sweep_table *table, struct err *err);

/* False for options that change no result: threads, memory, where outputs go. */
bool table_tells(enum setting_id id);

/* The first number between dots in a tensor's name, or SWEEP_NO_LAYER: 3 for "model.layers.3.mlp.up_proj.weight". */
uint32_t table_layer(const char *tensor_name);

/* A name that the table keeps, for rows to point to; NULL: out of memory. */
char *table_text(struct sweep_table *table, const char *text);

#endif
