/* cmd_stats.c: the command stats: what files of activation statistics hold, one file from several, one kind from another.
 *
 *   stats show FILE...            a line an entry: matrices x channels, tokens, spread, dead channels, missing experts
 *   stats merge FILE... --out F   sums and counts add; the order of the files does not matter
 *   stats convert FILE --out F    the kind follows from the ending: .safetensors, .gguf, .dat
 *
 * Formula: spread = largest / median of the channels' rms (or absmax, or mean, or scale: the first the file has), the worst matrix.
 * Why this way: one verb is one function of the table; what a kind cannot hold is said, not hidden.
 * Corner cases: a spread over a median of 0 is Inf, null in JSON; .gguf and .dat get GGUF names, which is all llama.cpp knows.
 * Reference: smoothquant/STATS.md. Worked number: rms 1, 1, 2, 50: median 1.5 of the middle two, spread 33.3.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "converter/app.h"
#include "converter/print.h"
#include "converter/statistics.h"
#include "smoothquant/name_map.h"
#include "smoothquant/stats_kind.h"
#include "smoothquant/stats_merge.h"
#include "smoothquant/stats_names.h"

/* ---- what is shown of an entry ----------------------------------------------------------------------------------------------------- */

struct view {
    const char *statistic; /* "rms"; NULL: nothing can be said */
    double median, largest, spread; /* of the matrix with the largest spread */
    uint64_t n_dead; /* channels that are 0, of matrices with tokens */
    uint64_t n_missing; /* matrices without tokens */
    uint64_t fewest, most; /* tokens */
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* One statistic of one matrix into values; false when the entry lacks it. */
static bool channel_values(const struct stats_entry *entry, size_t which, uint64_t mat, double *values)
{
    static const enum stats_derived order[] = { STATS_RMS, STATS_ABS_MAX, STATS_MEAN_ABS };
    if (which < 3) return stats_derive(entry, order[which], mat, values);
    if (!entry->values[STATS_SCALE]) return false;
    memcpy(values, entry->values[STATS_SCALE] + mat * entry->n_in, (size_t)entry->n_in * sizeof *values);
    return true;
}

static const char *statistic_name(size_t which)
{
    static const char *const names[] = { "rms", "absmax", "mean", "scale" };
    return names[which];
}

static void look_at_matrix(const struct stats_entry *entry, double *values, struct view *view)
{
    const size_t n = (size_t)entry->n_in;
    for (size_t j = 0; j < n; j++) view->n_dead += values[j] == 0.0;
    qsort(values, n, sizeof *values, by_value);
    double median = n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2, largest = values[n - 1];
    double spread = median > 0 ? largest / median : largest > 0 ? (double)INFINITY : 1.0;
    if (view->spread > spread) return;
    view->median = median;
    view->largest = largest;
    view->spread = spread;
}

static enum status look_at(const struct stats_entry *entry, struct view *view, struct err *err)
{
    double *values = malloc((size_t)entry->n_in * sizeof *values);
    *view = (struct view){ .n_missing = stats_missing(entry), .fewest = UINT64_MAX };
    if (!values) return err_set(err, ERR_MEMORY, "out of memory");
    for (uint64_t m = 0; entry->counts && m < entry->n_mat; m++) {
        if (entry->counts[m] < view->fewest) view->fewest = entry->counts[m];
        if (entry->counts[m] > view->most) view->most = entry->counts[m];
    }
    for (size_t which = 0; which < 4 && !view->statistic; which++)
        for (uint64_t m = 0; m < entry->n_mat; m++) {
            if (!channel_values(entry, which, m, values)) continue;
            view->statistic = statistic_name(which);
            look_at_matrix(entry, values, view);
        }
    free(values);
    return OK;
}

/* ---- text ------------------------------------------------------------------------------------------------------------------------- */

static void text_tokens(const struct stats_entry *entry, const struct view *view, char out[48])
{
    if (!entry->counts) snprintf(out, 48, "-");
    else if (view->fewest == view->most) snprintf(out, 48, "%llu", (unsigned long long)view->most);
    else snprintf(out, 48, "%llu..%llu", (unsigned long long)view->fewest, (unsigned long long)view->most);
}

static void text_entry(const struct stats_entry *entry, const struct view *view)
{
    char name[49], shape[48], tokens[48];
    if (entry->n_mat > 1) snprintf(shape, sizeof shape, "%llu x %llu", (unsigned long long)entry->n_mat, (unsigned long long)entry->n_in);
    else snprintf(shape, sizeof shape, "%llu", (unsigned long long)entry->n_in);
    text_tokens(entry, view, tokens);
    printf("  %-48s %12s %14s", show_name(entry->name, name, 48), shape, tokens);
    if (view->statistic) printf("  %-6s max %-11.5g median %-11.5g spread %.4g", view->statistic, view->largest, view->median, view->spread);
    if (view->n_dead) printf("  %llu dead", (unsigned long long)view->n_dead);
    if (view->n_missing) printf("  %llu missing", (unsigned long long)view->n_missing);
    printf("\n");
}

static void text_head(const char *path, const struct stats_kind *kind, const struct stats_set *set)
{
    char shown[97];
    printf("%s: %s, %zu %s", path, kind->name, set->n_entries, set->n_entries == 1 ? "entry" : "entries");
    if (set->n_aliases) printf(", %zu %s", set->n_aliases, set->n_aliases == 1 ? "alias" : "aliases");
    if (set->chunk_count != UINT64_MAX) printf(", %llu chunks", (unsigned long long)set->chunk_count);
    if (set->chunk_count != UINT64_MAX && set->chunk_size) printf(" of %llu tokens", (unsigned long long)set->chunk_size);
    for (size_t i = 0; i < set->n_datasets; i++) printf("%s%s", i ? ", " : "; from ", show_name(set->datasets[i], shown, 96));
    printf("\n");
}

/* ---- JSON ------------------------------------------------------------------------------------------------------------------------- */

static void json_entry(const struct stats_entry *entry, const struct view *view, bool is_first)
{
    const bool others[] = { entry->counts, entry->hist, entry->gram, entry->sample };
    static const char *const other_names[] = { "counts", "in_hist", "in_gram", "in_sample" };
    bool any = false;
    printf("%s\n{\"name\":", is_first ? "" : ",");
    print_json_string(stdout, entry->name);
    printf(",\"n_mat\":%llu,\"n_in\":%llu,\"fields\":[", (unsigned long long)entry->n_mat, (unsigned long long)entry->n_in);
    for (size_t f = 0; f < STATS_FIELD_COUNT; f++)
        if (entry->values[f]) any |= printf("%s\"%s\"", any ? "," : "", stats_fields[f].name) > 0;
    for (size_t i = 0; i < 4; i++)
        if (others[i]) any |= printf("%s\"%s\"", any ? "," : "", other_names[i]) > 0;
    printf("],\"tokens\":");
    if (entry->counts) printf("[%llu,%llu]", (unsigned long long)view->fewest, (unsigned long long)view->most);
    else printf("null");
    printf(",\"missing\":%llu,\"dead\":%llu,\"statistic\":", (unsigned long long)view->n_missing, (unsigned long long)view->n_dead);
    print_json_string(stdout, view->statistic);
    if (view->statistic) {
        printf(",\"max\":");
        print_json_number(stdout, view->largest);
        printf(",\"median\":");
        print_json_number(stdout, view->median);
        printf(",\"spread\":");
        print_json_number(stdout, view->spread);
    }
    printf("}");
}

static void json_strings(const char *name, char *const *texts, size_t n)
{
    printf(",\"%s\":[", name);
    for (size_t i = 0; i < n; i++) {
        if (i) putchar(',');
        print_json_string(stdout, texts[i]);
    }
    putchar(']');
}

static void json_head(const char *path, const struct stats_kind *kind, const struct stats_set *set)
{
    printf("{\"path\":");
    print_json_string(stdout, path);
    printf(",\"kind\":\"%s\"", kind->name);
    if (set->chunk_size) printf(",\"chunk_size\":%llu", (unsigned long long)set->chunk_size);
    if (set->chunk_count != UINT64_MAX) printf(",\"chunk_count\":%llu", (unsigned long long)set->chunk_count);
    json_strings("datasets", set->datasets, set->n_datasets);
    json_strings("notes", set->notes, set->n_notes);
    printf(",\"metadata\":{");
    for (size_t i = 0; i < set->n_pairs; i++) {
        if (i) putchar(',');
        print_json_string(stdout, set->pairs[i].key);
        putchar(':');
        print_json_string(stdout, set->pairs[i].value);
    }
    printf("},\"aliases\":{");
    for (size_t i = 0; i < set->n_aliases; i++) {
        if (i) putchar(',');
        print_json_string(stdout, set->aliases[i].name);
        putchar(':');
        print_json_string(stdout, set->entries[set->aliases[i].entry].name);
    }
    printf("},\"n_entries\":%zu,\"entries\":[", set->n_entries);
}

/* ---- show ------------------------------------------------------------------------------------------------------------------------- */

static void tell_notes(const struct app *app, const struct stats_set *set)
{
    for (size_t i = 0; i < set->n_notes; i++) app_note(app, "%s", set->notes[i]);
}

static enum status show_set(const struct app *app, const char *path, const struct stats_kind *kind, const struct stats_set *set, struct err *err)
{
    bool json = settings_flag(&app->settings, SET_JSON);
    enum status status = OK;
    tell_notes(app, set);
    if (json) json_head(path, kind, set);
    else text_head(path, kind, set);
    for (size_t i = 0; i < set->n_entries && status == OK; i++) {
        struct view view;
        status = look_at(&set->entries[i], &view, err);
        if (status == OK && json) json_entry(&set->entries[i], &view, i == 0);
        else if (status == OK) text_entry(&set->entries[i], &view);
    }
    if (json) printf("\n]}");
    return status;
}

static enum status run_show(struct app *app, const char *const *paths, size_t n, struct err *err)
{
    bool json = settings_flag(&app->settings, SET_JSON);
    enum status status = OK;
    for (size_t i = 0; i < n && status == OK; i++) {
        const struct stats_kind *kind = NULL;
        struct stats_set *set = NULL;
        status = stats_open(app->io, paths[i], 0, &set, &kind, err);
        if (status == OK && json) printf(i ? ",\n" : "{\"files\":[\n");
        if (status == OK) status = show_set(app, paths[i], kind, set, err);
        stats_close(set);
    }
    if (status == OK && json) printf("\n]}\n");
    return status;
}

/* ---- merge and convert ------------------------------------------------------------------------------------------------------------ */

/* Divides the stacks that have one row into --experts matrices; without the option says how many there are, where that matters. */
static enum status split_stacks(struct app *app, const struct name_map *map, bool matters, struct stats_set *set, struct err *err)
{
    uint64_t n_experts = settings_number(&app->settings, SET_EXPERTS), n_flat = 0;
    for (size_t i = 0; i < set->n_entries; i++) {
        struct name_place place;
        if (set->entries[i].n_mat != 1 || !name_map_find(map, set->entries[i].name, &place)) continue;
        if (place.expert != NAME_NONE || !name_map_is_stack(map, place.rule)) continue;
        n_flat++;
        enum status status = n_experts ? stats_split(set, i, n_experts, err) : OK;
        if (status != OK) return status;
    }
    if (n_experts && !n_flat) return err_set(err, ERR_USAGE, "--experts %llu: no stack of experts has one row", (unsigned long long)n_experts);
    if (n_flat && !n_experts && matters)
        app_note(app, "%llu stacks of experts have one row, as in .dat files; llama.cpp wants matrices: --experts N", (unsigned long long)n_flat);
    return OK;
}

/* Kinds other than llmq's own are read by tools that know GGUF names only. */
static enum status rename_for(struct app *app, const struct stats_kind *kind, struct stats_set **set, struct err *err)
{
    struct name_map *map = NULL;
    struct stats_set *renamed = NULL;
    struct stats_renamed done = { 0 };
    bool keeps_names = kind == &stats_kind_safetensors;
    if (keeps_names && !settings_given(&app->settings, SET_EXPERTS)) return OK;
    enum status status = names_open(app, &map, err);
    if (status == OK) status = split_stacks(app, map, kind == &stats_kind_imatrix_gguf, *set, err);
    if (status == OK && !keeps_names) status = stats_to_gguf_names(*set, map, &renamed, &done, err);
    name_map_close(map);
    if (status != OK || keeps_names) return status;
    stats_close(*set);
    *set = renamed;
    if (done.n_renamed) app_note(app, "%llu names became GGUF names", (unsigned long long)done.n_renamed);
    if (done.n_unmatched) app_note(app, "%llu names are in no pattern of names.yaml and stay as they are", (unsigned long long)done.n_unmatched);
    if (done.n_fields) app_note(app, "%llu fields were dropped, which not all experts of a stack have", (unsigned long long)done.n_fields);
    return OK;
}

static void print_done(const struct app *app, const char *out, const struct stats_kind *kind, const struct stats_set *set,
                       const struct stats_left *left, uint64_t nbytes)
{
    if (!settings_flag(&app->settings, SET_JSON)) {
        printf("wrote %s: %s, %llu entries, %llu bytes\n", out, kind->name, (unsigned long long)(set->n_entries - left->n_entries),
               (unsigned long long)nbytes);
        return;
    }
    printf("{\"out\":");
    print_json_string(stdout, out);
    printf(",\"kind\":\"%s\",\"entries\":%llu,\"nbytes\":%llu,\"left_out\":{\"entries\":%llu,\"fields\":%llu,\"facts\":%llu}}\n", kind->name,
           (unsigned long long)(set->n_entries - left->n_entries), (unsigned long long)nbytes, (unsigned long long)left->n_entries,
           (unsigned long long)left->n_fields, (unsigned long long)left->n_pairs);
}

static enum status write_set(struct app *app, struct stats_set **set, const char *const *paths, size_t n, struct err *err)
{
    const char *out = settings_text(&app->settings, SET_OUT);
    const struct stats_kind *kind = stats_kind_of_path(out);
    struct stats_left left = { 0 };
    uint64_t nbytes = 0;
    enum status status = rename_for(app, kind, set, err);
    if (status == OK) status = stats_save(app->io, *set, out, settings_flag(&app->settings, SET_FORCE), paths, n, &left, &nbytes, err);
    if (status != OK) return status;
    statistics_note_left(app, kind, &left);
    print_done(app, out, kind, *set, &left, nbytes);
    return OK;
}

/* The output must be named, and its ending be that of a kind: known before anything is read. */
static enum status check_out(const struct app *app, struct err *err)
{
    char shown[129];
    if (!settings_given(&app->settings, SET_OUT)) return err_set(err, ERR_USAGE, "where to? --out FILE.safetensors, FILE.gguf or FILE.dat");
    const char *out = settings_text(&app->settings, SET_OUT);
    if (stats_kind_of_path(out)) return OK;
    return err_set(err, ERR_USAGE, "--out '%s' ends in none of .safetensors, .gguf, .dat", show_name(out, shown, 128));
}

static enum status run_merge(struct app *app, const char *const *paths, size_t n, struct err *err)
{
    struct stats_set *set = NULL;
    struct stats_lost lost = { 0 };
    enum status status = check_out(app, err);
    if (status == OK) status = stats_merge_files(app->io, paths, n, &set, &lost, err);
    if (status != OK) return status;
    tell_notes(app, set);
    if (lost.n_fields) app_note(app, "%llu fields were dropped, which not all files have", (unsigned long long)lost.n_fields);
    if (lost.n_pairs) app_note(app, "%llu facts were dropped, which differ between the files", (unsigned long long)lost.n_pairs);
    status = write_set(app, &set, paths, n, err);
    stats_close(set);
    return status;
}

static enum status run_convert(struct app *app, const char *const *paths, size_t n, struct err *err)
{
    struct stats_set *set = NULL;
    if (n != 1) return err_set(err, ERR_USAGE, "one file at a time; stats merge takes several");
    enum status status = check_out(app, err);
    if (status == OK) status = stats_open(app->io, paths[0], 0, &set, NULL, err);
    if (status != OK) return status;
    tell_notes(app, set);
    status = write_set(app, &set, paths, n, err);
    stats_close(set);
    return status;
}

/* ---- the command ------------------------------------------------------------------------------------------------------------------ */

static const struct verb {
    const char *name;
    bool writes;
    enum status (*run)(struct app *app, const char *const *paths, size_t n, struct err *err);
} verbs[] = {
    { "show", false, run_show },
    { "merge", true, run_merge },
    { "convert", true, run_convert },
};

enum status cmd_stats(struct app *app, struct err *err)
{
    const struct settings *settings = &app->settings;
    char shown[65];
    if (settings->n_arguments == 0) return err_set(err, ERR_USAGE, "show, merge or convert?");
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
        if (strcmp(settings->arguments[0], verbs[i].name) != 0) continue;
        if (settings->n_arguments < 2) return err_set(err, ERR_USAGE, "which file?");
        if (!verbs[i].writes && (settings_given(settings, SET_OUT) || settings_given(settings, SET_EXPERTS) || settings_flag(settings, SET_FORCE)))
            return err_set(err, ERR_USAGE, "stats %s writes nothing; --out, --force and --experts do not belong to it", verbs[i].name);
        return verbs[i].run(app, settings->arguments + 1, settings->n_arguments - 1, err);
    }
    return err_set(err, ERR_USAGE, "'%s' is none of show, merge, convert", show_name(settings->arguments[0], shown, 64));
}
