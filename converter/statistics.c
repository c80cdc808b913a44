/* statistics.c: see statistics.h.
 *
 * Drawing: names.yaml -> map; FILE -> set; both -> look-up.
 * Why this way: see statistics.h.
 * Corner cases: see statistics.h.
 * Reference: statistics.h. Worked number: none needed.
 */
#include "converter/statistics.h"

#include <stdlib.h>

enum status names_open(const struct app *app, struct name_map **map, struct err *err)
{
    char *path = NULL;
    enum status status = app_config_path(app, "names.yaml", &path, err);
    if (!status) status = name_map_open(app->io, path, map, err);
    free(path);
    return status;
}

enum status statistics_open(const struct app *app, const char *path, struct statistics *statistics, struct err *err)
{
    *statistics = (struct statistics){ 0 };
    enum status status = names_open(app, &statistics->map, err);
    if (!status) status = stats_open(app->io, path, 0, &statistics->set, NULL, err);
    if (!status) status = stats_lookup_open(statistics->set, statistics->map, &statistics->lookup, err);
    for (size_t i = 0; !status && i < statistics->set->n_notes; i++) app_note(app, "%s", statistics->set->notes[i]);
    return status;
}

void statistics_close(struct statistics *statistics)
{
    stats_lookup_close(statistics->lookup);
    stats_close(statistics->set);
    name_map_close(statistics->map);
}

void statistics_note_left(const struct app *app, const struct stats_kind *kind, const struct stats_left *left)
{
    const unsigned long long n_entries = left->n_entries, n_fields = left->n_fields;
    if (n_entries && n_fields) app_note(app, "%s cannot hold %llu entries, and %llu fields of others", kind->name, n_entries, n_fields);
    else if (n_entries) app_note(app, "%s cannot hold %llu entries", kind->name, n_entries);
    else if (n_fields) app_note(app, "%s cannot hold %llu fields", kind->name, n_fields);
}
