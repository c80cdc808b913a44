/* budget_choice.c: see budget_choice.h.
 *
 * Drawing: candidate -> recipe_open, plan_convert -> bytes of every tensor, which ones no rule decides -> sets -> items
 * Formula: cost of a tensor = 8 * (bytes from its first plane to that of the next tensor, as planes are aligned in a .llmq file: FORMAT.md 3).
 * Why this way: see budget_choice.h.
 * Corner cases: a set in which a role stands twice is no set (as in fused.c); tensors of one set may be of different rows, not of different columns.
 * Reference: budget_choice.h. Worked number: 45056 bytes of codes, 2816 of scales, then a plane of 4096 or more: 8 * 49152 bits.
 */
#include "converter/budget_choice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "converter/recipe.h"

enum { SLOTS = 3, SMALL_ALIGN = 64, LARGE_ALIGN = 4096 };

static const char *const kinds[][SLOTS] = { { "q", "k", "v" }, { "gate", "up", NULL } };

/* ---- plans ----------------------------------------------------------------------------------------------------------------------------- */

/* Alignment of a plane in the mapped region of a .llmq file; 1 elsewhere. */
static uint64_t unit_of(const struct plan *plan, size_t i, uint32_t k)
{
    const uint64_t align = plan->options.align ? plan->options.align : LARGE_ALIGN;
    if (plan->writer != &llmq_writer_ops || !plan->outs[i].planes[k].mapped) return 1;
    return plane_nbytes(&plan->outs[i].planes[k].plane) >= align ? align : SMALL_ALIGN;
}

/* From where its first plane begins to where that of the next tensor does. */
static uint64_t cost_bits(const struct plan *plan, size_t i)
{
    uint64_t at = 0, unmapped = 0;
    for (uint32_t k = 0; k < plan->outs[i].n_planes; k++) {
        const uint64_t nbytes = plane_nbytes(&plan->outs[i].planes[k].plane), unit = unit_of(plan, i, k);
        if (unit == 1) unmapped += nbytes;
        else at = size_ceil_div(at, unit) * unit + nbytes;
    }
    const uint64_t next = i + 1 < plan->n_tensors && plan->outs[i + 1].n_planes ? unit_of(plan, i + 1, 0) : 1;
    return 8 * (size_ceil_div(at, next) * next + unmapped);
}

/* "model.layers.3.mlp.|1|4096": all of the name but its last part, the kind, the columns. NULL in *key: it is in no set. */
static enum status make_key(struct budget_tensor *tensor, const struct shape *shape, struct err *err)
{
    for (size_t kind = 0; kind < sizeof kinds / sizeof kinds[0]; kind++)
        for (size_t slot = 0; slot < SLOTS && kinds[kind][slot]; slot++) {
            if (strcmp(kinds[kind][slot], tensor->role) != 0) continue;
            size_t n = strlen(tensor->name);
            if (n > 7 && strcmp(tensor->name + n - 7, ".weight") == 0) n -= 7;
            while (n > 0 && tensor->name[n - 1] != '.') n--;
            tensor->key = malloc(n + 80);
            tensor->slot = slot;
            if (!tensor->key) return err_set(err, ERR_MEMORY, "out of memory");
            snprintf(tensor->key, n + 80, "%.*s|%zu|%llu|%llu", (int)n, tensor->name, kind, (unsigned long long)shape->n_matrices,
                     (unsigned long long)shape->cols);
            return OK;
        }
    return OK;
}

struct costs {
    uint64_t *bits; /* n_candidates x n_tensors */
};

/* Of one candidate. The first says which tensors there are to choose for. */
static enum status take_plan(struct budget_choice *choice, const struct plan *plan, size_t candidate, struct costs *costs, struct err *err)
{
    enum status status = OK;
    for (size_t i = 0; i < choice->n_tensors && !status; i++) {
        const struct plan_entry *entry = &plan->entries[i];
        struct budget_tensor *tensor = &choice->tensors[i];
        costs->bits[candidate * choice->n_tensors + i] = cost_bits(plan, i);
        if (candidate || entry->fate != FATE_QUANTISE || entry->verdict.rule) continue;
        tensor->item = 0;
        if (!settings_flag(choice->settings, SET_FREE_FUSED)) status = make_key(tensor, &entry->shape, err);
    }
    return status;
}

static enum status plan_candidate(struct app *app, struct budget_choice *choice, size_t candidate, struct costs *costs, struct err *err)
{
    const struct sweep_variant *variant = choice->candidates[candidate];
    struct settings *settings = &app->settings;
    const char *saved[] = { settings->values[SET_FORMAT], settings->values[SET_GROUP_SIZE], settings->values[SET_SCALE_RULE],
                            settings->values[SET_QUIET] };
    settings->values[SET_FORMAT] = variant->format;
    settings->values[SET_GROUP_SIZE] = strstr(variant->settings, "--group-size ") ? variant->group_size : NULL;
    settings->values[SET_SCALE_RULE] = variant->scale_rule;
    settings->values[SET_QUIET] = "true";
    enum status status = recipe_open(app, &choice->recipes[candidate], err);
    if (!status) status = plan_convert(app, &choice->recipes[candidate], &choice->plans[candidate], err);
    if (!status) status = take_plan(choice, &choice->plans[candidate], candidate, costs, err);
    settings->values[SET_FORMAT] = saved[0];
    settings->values[SET_GROUP_SIZE] = saved[1];
    settings->values[SET_SCALE_RULE] = saved[2];
    settings->values[SET_QUIET] = saved[3];
    return status;
}

/* ---- sets ------------------------------------------------------------------------------------------------------------------------------ */

static int by_key(const void *a, const void *b)
{
    const struct budget_tensor *x = *(struct budget_tensor *const *)a, *y = *(struct budget_tensor *const *)b;
    const int order = strcmp(x->key, y->key);
    return order ? order : x < y ? -1 : x > y;
}

/* Tensors of one key whose slots differ stay a set; those of others are alone. */
static void settle_set(struct budget_tensor **members, size_t n)
{
    bool taken[SLOTS] = { false }, twice = false;
    for (size_t k = 0; k < n; k++) {
        twice |= taken[members[k]->slot];
        taken[members[k]->slot] = true;
    }
    for (size_t k = 0; k < n; k++) members[k]->slot = twice ? SIZE_MAX : (size_t)(members[k] - members[0]); /* from the first to here, or none */
}

/* Numbers the items in the container's order; a set has the number of its first tensor. */
static enum status number_items(struct budget_choice *choice, struct err *err)
{
    struct budget_tensor **keyed = malloc((choice->n_tensors + 1) * sizeof *keyed);
    size_t n = 0;
    if (!keyed) return err_set(err, ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < choice->n_tensors; i++)
        if (choice->tensors[i].key) keyed[n++] = &choice->tensors[i];
    qsort(keyed, n, sizeof *keyed, by_key);
    for (size_t first = 0, end; first < n; first = end) {
        for (end = first + 1; end < n && strcmp(keyed[end]->key, keyed[first]->key) == 0;) end++;
        settle_set(keyed + first, end - first);
    }
    for (size_t i = 0; i < choice->n_tensors; i++) {
        struct budget_tensor *tensor = &choice->tensors[i];
        if (tensor->item == SIZE_MAX) continue;
        const bool alone = !tensor->key || tensor->slot == SIZE_MAX || tensor->slot == 0;
        tensor->item = alone ? choice->n_items++ : (tensor - tensor->slot)->item;
    }
    free(keyed);
    return choice->n_items ? OK : err_set(err, ERR_USAGE, "there is no linear layer to choose a format for");
}

static enum status make_items(struct budget_choice *choice, const struct costs *costs, struct err *err)
{
    const size_t n = choice->n_candidates;
    enum status status = number_items(choice, err);
    choice->items = calloc(choice->n_items + 1, sizeof *choice->items);
    choice->options = calloc(choice->n_items * n + 1, sizeof *choice->options);
    if (!status && (!choice->items || !choice->options)) status = err_set(err, ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < choice->n_items && !status; i++) choice->items[i] = (struct budget_item){ choice->options + i * n, n };
    for (size_t t = 0; t < choice->n_tensors && !status; t++)
        for (size_t k = 0; k < n && choice->tensors[t].item != SIZE_MAX; k++) {
            const struct sweep_row *row = &choice->table->rows[choice->candidates[k]->first_row + t];
            struct budget_option *option = &choice->options[choice->tensors[t].item * n + k];
            option->cost_bits += costs->bits[k * choice->n_tensors + t];
            option->error += choice->weighted ? row->sum_wdd : row->sum_dd;
        }
    return status;
}

/* ---- making ---------------------------------------------------------------------------------------------------------------------------- */

static enum status list_candidates(struct budget_choice *choice, const struct app *app, struct err *err)
{
    const struct sweep_table *table = choice->table;
    choice->candidates = calloc(table->n_variants + 1, sizeof *choice->candidates);
    if (!choice->candidates) return err_set(err, ERR_MEMORY, "out of memory");
    for (size_t v = 0; v < table->n_variants; v++) {
        if (table->variants[v].skipped) app_note(app, "candidate %s is left out: %s", table->variants[v].format, table->variants[v].skipped);
        else choice->candidates[choice->n_candidates++] = &table->variants[v];
    }
    if (choice->n_candidates) return OK;
    return err_set(err, ERR_USAGE, "none of the candidates can be used; the first: %s", table->variants[0].skipped);
}

enum status budget_choice_make(struct app *app, const struct sweep_table *table, struct budget_choice *choice, struct err *err)
{
    struct costs costs = { NULL };
    *choice = (struct budget_choice){ .settings = &app->settings, .table = table, .weighted = table->weighted };
    enum status status = list_candidates(choice, app, err);
    if (status) return status;
    const struct sweep_row *rows = &table->rows[choice->candidates[0]->first_row];
    while (rows[choice->n_tensors].scope == SWEEP_TENSOR) choice->n_tensors++;
    choice->n_weights = rows[choice->candidates[0]->n_rows - 1].n_weights;
    choice->tensors = calloc(choice->n_tensors + 1, sizeof *choice->tensors);
    choice->recipes = calloc(choice->n_candidates + 1, sizeof *choice->recipes);
    choice->plans = calloc(choice->n_candidates + 1, sizeof *choice->plans);
    choice->outs = calloc(choice->n_tensors + 1, sizeof *choice->outs);
    costs.bits = calloc(choice->n_candidates * choice->n_tensors + 1, sizeof *costs.bits);
    if (!choice->tensors || !choice->recipes || !choice->plans || !choice->outs || !costs.bits) status = err_set(err, ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < choice->n_tensors && !status; i++)
        choice->tensors[i] = (struct budget_tensor){ .name = rows[i].name, .role = rows[i].role, .n_weights = rows[i].n_weights, .item = SIZE_MAX };
    for (size_t k = 0; k < choice->n_candidates && !status; k++) status = plan_candidate(app, choice, k, &costs, err);
    if (!status) status = make_items(choice, &costs, err);
    free(costs.bits);
    return status;
}

void budget_choice_free(struct budget_choice *choice)
{
    for (size_t i = 0; choice->tensors && i < choice->n_tensors; i++) free(choice->tensors[i].key);
    for (size_t k = 0; choice->plans && k < choice->n_candidates; k++) plan_close(&choice->plans[k]);
    for (size_t k = 0; choice->recipes && k < choice->n_candidates; k++) recipe_close(&choice->recipes[k]);
    free(choice->plans);
    free(choice->recipes);
    free(choice->outs);
    free(choice->tensors);
    free(choice->items);
    free(choice->options);
    free(choice->candidates);
    *choice = (struct budget_choice){ 0 };
}

/* ---- a choice -------------------------------------------------------------------------------------------------------------------------- */

enum status budget_choice_size(struct budget_choice *choice, const size_t *choices, struct writer_size *size, struct err *err)
{
    const struct plan *first = &choice->plans[0];
    struct writer_options options = first->options;
    for (size_t t = 0; t < choice->n_tensors; t++) {
        const struct plan *plan = &choice->plans[choice->tensors[t].item == SIZE_MAX ? 0 : choices[choice->tensors[t].item]];
        choice->outs[t] = plan->outs[t];
        if (plan->entries[t].importance.rows) options.metadata_json = plan->options.metadata_json; /* it names the statistics */
    }
    return first->writer->plan(choice->outs, choice->n_tensors, first->blobs, first->n_blobs, &options, size, err);
}

uint64_t budget_choice_cost(const struct budget_choice *choice, const size_t *choices)
{
    uint64_t bits = 0;
    for (size_t i = 0; i < choice->n_items; i++) bits += choice->items[i].options[choices[i]].cost_bits;
    return bits;
}

double budget_choice_error(const struct budget_choice *choice, const size_t *choices)
{
    double error = 0.0;
    for (size_t i = 0; i < choice->n_items; i++) error += choice->items[i].options[choices[i]].error;
    return error;
}

/* ---- the recipe ------------------------------------------------------------------------------------------------------------------------- */

/* A YAML scalar in single quotes. */
static void add_quoted(struct text *text, const char *value)
{
    text_add(text, "'");
    for (const char *at = value; *at; at++) {
        if (*at == '\'') text_add(text, "'");
        text_add_bytes(text, at, 1);
    }
    text_add(text, "'");
}

/* A pattern that matches this name and no other. */
static void add_name(struct text *text, const char *name)
{
    const bool prefixed = strncmp(name, "re:", 3) == 0 || strncmp(name, "role:", 5) == 0;
    struct text pattern = text_make(1u << 20);
    if (prefixed) text_add(&pattern, "[r]");
    for (const char *at = name + prefixed; *at; at++) {
        if (strchr("*?[]\\", *at) && (prefixed || strpbrk(name, "*?["))) text_add(&pattern, "\\");
        text_add_bytes(&pattern, at, 1);
    }
    add_quoted(text, pattern.data);
    text->failed |= pattern.failed;
    text_free(&pattern);
}

static void add_format(struct text *text, const struct sweep_variant *candidate)
{
    text_add(text, ", format: ");
    add_quoted(text, candidate->format);
    if (strstr(candidate->settings, "--group-size ") && !strstr(candidate->format, "group=")) {
        text_add(text, ", group-size: ");
        add_quoted(text, candidate->group_size);
    }
    if (strstr(candidate->settings, "--scale-rule ") && !strstr(candidate->format, "rule=")) {
        text_add(text, ", scale-rule: ");
        add_quoted(text, candidate->scale_rule);
    }
    text_add(text, "}\n");
}

/* The candidate most tensors of the role have, and whether all tensors of the role are chosen for. */
static size_t common_candidate(const struct budget_choice *choice, const size_t *choices, const char *role, size_t *counts, bool *all)
{
    size_t best = 0;
    *all = true;
    memset(counts, 0, choice->n_candidates * sizeof *counts);
    for (size_t t = 0; t < choice->n_tensors; t++) {
        const struct budget_tensor *tensor = &choice->tensors[t];
        if (tensor->role != role) continue;
        if (tensor->item == SIZE_MAX) *all = false;
        else counts[choices[tensor->item]]++;
    }
    for (size_t k = 1; k < choice->n_candidates; k++)
        if (counts[k] > counts[best]) best = k;
    return best;
}

static bool is_first_of_role(const struct budget_choice *choice, size_t t)
{
    for (size_t i = 0; i < t; i++)
        if (choice->tensors[i].role == choice->tensors[t].role && choice->tensors[i].item != SIZE_MAX) return false;
    return choice->tensors[t].item != SIZE_MAX;
}

static void write_role(const struct budget_choice *choice, const size_t *choices, const char *role, size_t *counts, struct text *text)
{
    bool all;
    const size_t common = common_candidate(choice, choices, role, counts, &all);
    for (size_t t = 0; t < choice->n_tensors; t++) {
        const struct budget_tensor *tensor = &choice->tensors[t];
        if (tensor->role != role || tensor->item == SIZE_MAX || (all && choices[tensor->item] == common)) continue;
        text_add(text, "  - {match: ");
        add_name(text, tensor->name);
        add_format(text, choice->candidates[choices[tensor->item]]);
    }
    if (!all) return;
    text_add(text, "  - {match: 'role:%s'", role);
    add_format(text, choice->candidates[common]);
}

/* Settings of the command line that a recipe may hold and that change what is written. */
static void write_settings(const struct settings *settings, struct text *text)
{
    static const enum setting_id silent[] = { SET_THREADS, SET_MAX_RAM, SET_MEASURE, SET_FORMAT };
    for (size_t i = 0; i < SET_COUNT; i++) {
        bool skip = !settings_table[i].in_recipe || !settings_given(settings, (enum setting_id)i);
        for (size_t k = 0; k < sizeof silent / sizeof silent[0]; k++) skip |= silent[k] == (enum setting_id)i;
        if (skip) continue;
        text_add(text, "%s: ", settings_table[i].name);
        add_quoted(text, settings_text(settings, (enum setting_id)i));
        text_add(text, "\n");
    }
}

/* The command line's own rules. */
static void write_own_rules(const struct settings *settings, struct text *text)
{
    for (size_t i = 0; i < settings->n_rules; i++) {
        const struct setting_rule *rule = &settings->rules[i];
        const char *equals = rule->keep ? NULL : strchr(rule->text, '=');
        char *pattern = strndup(rule->text, equals ? (size_t)(equals - rule->text) : strlen(rule->text));
        text_add(text, "  - {match: ");
        add_quoted(text, pattern ? pattern : "");
        text->failed |= !pattern;
        free(pattern);
        if (rule->keep) {
            text_add(text, ", keep: true}\n");
            continue;
        }
        text_add(text, ", format: ");
        add_quoted(text, equals ? equals + 1 : "");
        text_add(text, "}\n");
    }
}

static void write_comment(const struct budget_choice *choice, const struct budget_report *report, struct text *text)
{
    text_add(
        text,
        "# A format for each linear layer under a size, chosen from measured errors; llmq convert --recipe FILE writes the same bytes again.\n#\n");
    text_add(text, "#   target     %llu bytes, %.4f bits per weight of the whole file\n", (unsigned long long)report->target_nbytes,
             report->target_bpw);
    text_add(text, "#   predicted  %s%llu bytes, %.4f bits per weight\n", report->exact_size ? "" : "at most ",
             (unsigned long long)report->predicted_nbytes, report->predicted_bpw);
    text_add(text, "#   error      %.6g, sum of squared errors%s; %s %.6g\n", report->error, report->weighted ? " weighed by importance" : "",
             report->exact ? "proven best, bound" : "no choice of this size has less than", report->bound);
    for (size_t k = 0; k < report->n_uses; k++)
        text_add(text, "#   %-10s %llu tensors, %llu weights\n", report->uses[k].name, (unsigned long long)report->uses[k].n_tensors,
                 (unsigned long long)report->uses[k].n_weights);
    text_add(text, "description: a bit budget of %.4f bits per weight over %zu sets of tensors\n", report->target_bpw, choice->n_items);
}

void budget_choice_write(const struct budget_choice *choice, const size_t *choices, const struct budget_report *report, struct text *text)
{
    size_t *counts = calloc(choice->n_candidates + 1, sizeof *counts);
    text->failed |= !counts;
    if (report) write_comment(choice, report, text);
    write_settings(choice->settings, text);
    text_add(text, "rules:\n");
    write_own_rules(choice->settings, text);
    for (size_t t = 0; counts && t < choice->n_tensors; t++)
        if (is_first_of_role(choice, t)) write_role(choice, choices, choice->tensors[t].role, counts, text);
    free(counts);
}
