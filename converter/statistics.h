/* statistics.h: statistics as commands open them: the file, the names they may have been made under, and the look-up of a tensor's.
 *
 *   FILE + configs/names.yaml -> struct stats_set, struct name_map -> struct stats_lookup;      notes of the file -> stderr
 *
 * Why this way: importance, migration and sweeps read the same files and say the same of them.
 * Corner cases: what was opened before an error is closed as after success.
 * Reference: smoothquant/stats_lookup.h. Worked number: none needed.
 */
#ifndef LLMQ_CONVERTER_STATISTICS_H
#define LLMQ_CONVERTER_STATISTICS_H

#include "converter/app.h"
#include "smoothquant/stats_kind.h"
#include "smoothquant/stats_lookup.h"

struct statistics {
    struct name_map *map;
    struct stats_set *set;
    struct stats_lookup *lookup;
};

/* The map of names in configs/names.yaml; name_map_close frees it. */
enum status names_open(const struct app *app, struct name_map **map, struct err *err);

/* Opens the file at path and prints its notes; statistics_close also after an error. */
enum status statistics_open(const struct app *app, const char *path, struct statistics *statistics, struct err *err);
void statistics_close(struct statistics *statistics);

/* Notes what a kind of file could not hold of a set that was written; nothing where it held all. */
void statistics_note_left(const struct app *app, const struct stats_kind *kind, const struct stats_left *left);

#endif
