/* sweep_write.c: see sweep_write.h.
 *
 * Drawing: row -> columns (a name and a function each) -> text -> sink, some rows at a time
 * Why this way: a column is one row of a table; CSV and JSON differ in how a value is quoted.
 * Corner cases: numbers have 12 digits, enough to tell any two measurements apart and the same on every machine; counts have all of theirs.
 * Reference: sweep_write.h. Worked number: bpw 4.25 is written 4.25.
 */
#include "converter/sweep_write.h"

#include <math.h>
#include <string.h>

#include "base/text.h"
#include "converter/print.h"

enum { FLUSH_NBYTES = 1 << 16 };

/* ---- values -------------------------------------------------------------------------------------------------------------------------- */

enum kind { VALUE_TEXT, VALUE_NUMBER, VALUE_COUNT, VALUE_NONE };

struct value {
    enum kind kind;
    const char *text;
    double number;
    uint64_t count;
};

static struct value text_value(const char *text)
{
    return (struct value){ .kind = text && *text ? VALUE_TEXT : VALUE_NONE, .text = text };
}

static struct value number_value(double number)
{
    return (struct value){ .kind = isnan(number) ? VALUE_NONE : VALUE_NUMBER, .number = number };
}

static struct value count_value(uint64_t count)
{
    return (struct value){ .kind = VALUE_COUNT, .count = count };
}

/* A row and its variant; row NULL: the variant was skipped. */
struct line {
    const struct sweep_table *table;
    const struct sweep_variant *variant;
    const struct sweep_row *row;
};

static const struct value none = { VALUE_NONE, NULL, 0.0, 0 };

#define TEXT_COLUMN(name, expression)                                                                                                                \
    static struct value get_##name(const struct line *line)                                                                                          \
    {                                                                                                                                                \
        return text_value(expression);                                                                                                               \
    }
#define ROW_TEXT(name, member)                                                                                                                       \
    static struct value get_##name(const struct line *line)                                                                                          \
    {                                                                                                                                                \
        return line->row ? text_value(line->row->member) : none;                                                                                     \
    }
#define ROW_NUMBER(name, expression)                                                                                                                 \
    static struct value get_##name(const struct line *line)                                                                                          \
    {                                                                                                                                                \
        return line->row ? number_value(expression) : none;                                                                                          \
    }
#define ROW_COUNT(name, member)                                                                                                                      \
    static struct value get_##name(const struct line *line)                                                                                          \
    {                                                                                                                                                \
        return line->row ? count_value(line->row->member) : none;                                                                                    \
    }

TEXT_COLUMN(format, line->variant->format)
TEXT_COLUMN(group_size, line->variant->group_size)
TEXT_COLUMN(scale_rule, line->variant->scale_rule)
TEXT_COLUMN(scope, sweep_scope_names[line->row ? line->row->scope : SWEEP_TOTAL])
TEXT_COLUMN(name, line->row ? line->row->name : sweep_scope_names[SWEEP_TOTAL])
TEXT_COLUMN(role, line->row ? line->row->role : sweep_scope_names[SWEEP_TOTAL])
TEXT_COLUMN(settings, line->variant->settings)
TEXT_COLUMN(skipped, line->variant->skipped)
ROW_TEXT(tensor_format, format)
ROW_TEXT(hash, hash)
ROW_COUNT(n_weights, n_weights)
ROW_COUNT(n_measured, n_measured)
ROW_COUNT(bits, bits)
ROW_NUMBER(plane_bpw, line->row->n_weights ? (double)line->row->plane_bits / (double)line->row->n_weights : (double)NAN)
ROW_NUMBER(mse, line->row->mse)
ROW_NUMBER(sqnr_db, line->row->sqnr_db)
ROW_NUMBER(wsqnr_db, line->row->wsqnr_db)
ROW_NUMBER(max_error, line->row->max_error)
ROW_NUMBER(clipped, line->row->clipped)
ROW_NUMBER(perplexity, line->row->perplexity)
ROW_NUMBER(kl, line->row->kl)

static struct value get_alpha(const struct line *line)
{
    return isnan(line->variant->alpha) ? text_value(line->variant->alpha_text) : number_value(line->variant->alpha);
}

static struct value get_layer(const struct line *line)
{
    return line->row && line->row->layer != SWEEP_NO_LAYER ? count_value(line->row->layer) : none;
}

/* Of a skipped variant nan, so that a reader of numbers finds one that is none. */
static struct value get_bpw(const struct line *line)
{
    if (!line->row) return (struct value){ .kind = VALUE_NUMBER, .number = (double)NAN };
    return number_value(line->row->bpw);
}

static struct value get_sample(const struct line *line)
{
    return number_value(line->table->sample);
}

static const struct column {
    const char *name;
    struct value (*get)(const struct line *line);
} columns[] = {
    { "format", get_format },
    { "group_size", get_group_size },
    { "scale_rule", get_scale_rule },
    { "alpha", get_alpha },
    { "scope", get_scope },
    { "name", get_name },
    { "bpw", get_bpw },
    { "role", get_role },
    { "layer", get_layer },
    { "tensor_format", get_tensor_format },
    { "weights", get_n_weights },
    { "measured", get_n_measured },
    { "bits", get_bits },
    { "plane_bpw", get_plane_bpw },
    { "mse", get_mse },
    { "sqnr_db", get_sqnr_db },
    { "wsqnr_db", get_wsqnr_db },
    { "max_error", get_max_error },
    { "clipped", get_clipped },
    { "perplexity", get_perplexity },
    { "kl", get_kl },
    { "hash", get_hash },
    { "sample", get_sample },
    { "settings", get_settings },
    { "skipped", get_skipped },
};

enum { N_COLUMNS = sizeof columns / sizeof columns[0] };

/* ---- sink ---------------------------------------------------------------------------------------------------------------------------- */

static enum status flush(struct sweep_sink *sink, struct text *text, struct err *err)
{
    enum status status = text_ok(text, "the table of a sweep", err);
    if (!status && sink->file) status = outfile_write(sink->file, text->data, text->nbytes, sink->offset, err);
    else if (!status) fwrite(text->data, 1, text->nbytes, sink->stream);
    sink->offset += text->nbytes;
    text_reset(text);
    return status;
}

/* Calls add for each line of the table. */
static enum status for_lines(const struct sweep_table *table, struct sweep_sink *sink, struct text *text,
                             void (*add)(struct text *, const struct line *, bool first), struct err *err)
{
    enum status status = OK;
    bool first = true;
    for (size_t v = 0; v < table->n_variants && !status; v++) {
        const struct sweep_variant *variant = &table->variants[v];
        struct line line = { table, variant, NULL };
        if (variant->skipped) {
            add(text, &line, first);
            first = false;
        }
        for (size_t k = 0; k < variant->n_rows && !status; k++, first = false) {
            line.row = &table->rows[variant->first_row + k];
            add(text, &line, first);
            if (text->nbytes > FLUSH_NBYTES) status = flush(sink, text, err);
        }
    }
    return status;
}

/* ---- CSV ----------------------------------------------------------------------------------------------------------------------------- */

static void csv_text(struct text *text, const char *value)
{
    if (!strpbrk(value, ",\"\r\n")) {
        text_add_bytes(text, value, strlen(value));
        return;
    }
    text_add(text, "\"");
    for (const char *at = value; *at; at++) {
        if (*at == '"') text_add(text, "\"");
        text_add_bytes(text, at, 1);
    }
    text_add(text, "\"");
}

static void csv_number(struct text *text, double value)
{
    if (isnan(value)) text_add(text, "nan");
    else if (isinf(value)) text_add(text, value > 0 ? "inf" : "-inf");
    else text_add(text, "%.12g", value);
}

static void csv_line(struct text *text, const struct line *line, bool first)
{
    (void)first;
    for (size_t i = 0; i < N_COLUMNS; i++) {
        const struct value value = columns[i].get(line);
        if (i) text_add(text, ",");
        if (value.kind == VALUE_TEXT) csv_text(text, value.text);
        else if (value.kind == VALUE_COUNT) text_add(text, "%llu", (unsigned long long)value.count);
        else if (value.kind == VALUE_NUMBER) csv_number(text, value.number);
    }
    text_add(text, "\r\n");
}

enum status sweep_write_csv(struct sweep_sink *sink, const struct sweep_table *table, struct err *err)
{
    struct text text = text_make(1u << 26);
    for (size_t i = 0; i < N_COLUMNS; i++) text_add(&text, "%s%s", i ? "," : "", columns[i].name);
    text_add(&text, "\r\n");
    enum status status = for_lines(table, sink, &text, csv_line, err);
    if (!status) status = flush(sink, &text, err);
    text_free(&text);
    return status;
}

/* ---- JSON ---------------------------------------------------------------------------------------------------------------------------- */

static void json_value(struct text *text, const struct value *value)
{
    if (value->kind == VALUE_TEXT) text_add_json_str(text, value->text);
    else if (value->kind == VALUE_COUNT) text_add(text, "%llu", (unsigned long long)value->count);
    else if (value->kind == VALUE_NUMBER && isfinite(value->number)) text_add(text, "%.12g", value->number);
    else text_add(text, "null");
}

static void json_line(struct text *text, const struct line *line, bool first)
{
    text_add(text, first ? "\n{" : ",\n{");
    for (size_t i = 0; i < N_COLUMNS; i++) {
        const struct value value = columns[i].get(line);
        text_add(text, "%s\"%s\":", i ? "," : "", columns[i].name);
        json_value(text, &value);
    }
    text_add(text, "}");
}

static void json_head(struct text *text, const struct sweep_table *table)
{
    text_add(text, "{\"writer\":");
    text_add_json_str(text, table->writer);
    text_add(text, ",\"model\":");
    text_add_json_str(text, table->model);
    text_add(text, ",\"input_digest\":");
    text_add_json_str(text, table->input_digest[0] ? table->input_digest : NULL);
    text_add(text, ",\"sample\":%.12g,\"weighted\":%s,\"eval\":", table->sample, table->weighted ? "true" : "false");
    text_add_json_str(text, table->reference_name && *table->reference_name ? table->reference_name : NULL);
    text_add(text, ",\"reference_perplexity\":");
    const struct value perplexity = number_value(table->reference_perplexity);
    json_value(text, &perplexity);
    text_add(text, ",\"settings\":[");
    for (size_t i = 0; i < table->n_settings; i++) {
        text_add(text, "%s{\"name\":", i ? "," : "");
        text_add_json_str(text, table->settings[i].name);
        text_add(text, ",\"value\":");
        text_add_json_str(text, table->settings[i].value);
        text_add(text, "}");
    }
    text_add(text, "],\"rows\":[");
}

enum status sweep_write_json(struct sweep_sink *sink, const struct sweep_table *table, struct err *err)
{
    struct text text = text_make(1u << 26);
    json_head(&text, table);
    enum status status = for_lines(table, sink, &text, json_line, err);
    text_add(&text, "\n]}\n");
    if (!status) status = flush(sink, &text, err);
    text_free(&text);
    return status;
}

/* ---- for people ---------------------------------------------------------------------------------------------------------------------- */

static bool has_alpha(const struct sweep_table *table)
{
    for (size_t v = 0; v < table->n_variants; v++)
        if (table->variants[v].alpha_text) return true;
    return false;
}

/* "0" where the variant does not migrate. */
static void print_names(FILE *out, const struct sweep_table *table, const struct sweep_variant *variant)
{
    fprintf(out, "  %-20s %-8s %-13s", variant->format, variant->group_size, variant->scale_rule);
    if (has_alpha(table)) fprintf(out, " %-7s", variant->alpha_text ? variant->alpha_text : "0");
}

static void print_total(FILE *out, const struct sweep_table *table, const struct sweep_variant *variant)
{
    const struct sweep_row *row = &table->rows[variant->first_row + variant->n_rows - 1];
    char db[16], weighed[16];
    print_names(out, table, variant);
    fprintf(out, " %9.4f %8s %12.5g %8s", row->bpw, show_db(row->sqnr_db, db), row->mse, isnan(row->wsqnr_db) ? "" : show_db(row->wsqnr_db, weighed));
    if (isnan(row->clipped)) fprintf(out, " %9s", "");
    else fprintf(out, " %8.3f%%", 100.0 * row->clipped);
    if (!isnan(row->perplexity)) fprintf(out, " %10.4f %10.5f", row->perplexity, row->kl);
    fprintf(out, "\n");
}

void sweep_print(FILE *out, const struct sweep_table *table)
{
    size_t n_skipped = 0;
    fprintf(out, "%s: bits a weight of the whole file, error over the quantised weights%s\n", table->model,
            table->sample < 1.0 ? " (of a sample)" : "");
    fprintf(out, "  %-20s %-8s %-13s%s %9s %8s %12s %8s %9s%s\n", "format", "group", "scale rule", has_alpha(table) ? " alpha  " : "", "bits/w",
            "SQNR dB", "MSE", "weighed", "clipped", *table->reference_name ? " perplexity         KL" : "");
    for (size_t v = 0; v < table->n_variants; v++) {
        n_skipped += table->variants[v].skipped != NULL;
        if (!table->variants[v].skipped) print_total(out, table, &table->variants[v]);
    }
    for (size_t v = 0; v < table->n_variants; v++)
        if (table->variants[v].skipped) {
            print_names(out, table, &table->variants[v]);
            fprintf(out, " skipped: %s\n", table->variants[v].skipped);
        }
    if (!isnan(table->reference_perplexity)) fprintf(out, "perplexity of the model as it was read: %.4f\n", table->reference_perplexity);
    fprintf(out, "%zu variants in %.2f s\n", table->n_variants - n_skipped, table->seconds);
}
