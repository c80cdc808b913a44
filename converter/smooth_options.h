/* smooth_options.h: what the --smooth settings ask for, as numbers.
 *
 *   --smooth S --alpha auto --alpha-max 0.7 --smooth-family any  ->  struct smooth_options
 *
 * Why this way: texts are parsed once, before anything is read; the rest of the migration knows no settings.
 * Corner cases: options of the search without a search, and options of migration without --smooth or --smooth-recipe, are refused by name.
 * Reference: settings.h. Worked number: without --alpha a group of int4 with groups of 64 gets 0.45, of 128 gets 0.35.
 */
#ifndef LLMQ_CONVERTER_SMOOTH_OPTIONS_H
#define LLMQ_CONVERTER_SMOOTH_OPTIONS_H

#include "converter/settings.h"
#include "number/format.h"
#include "smoothquant/group.h"
#include "smoothquant/smooth_search.h"
#include "smoothquant/smooth_stat.h"

struct smooth_options {
    const char *path; /* of the statistics; NULL: none are read */
    bool gain; /* --smooth gain */
    enum { ALPHA_DEFAULT, ALPHA_FIXED, ALPHA_AUTO } how;
    double alpha; /* of ALPHA_FIXED */
    double init_alpha;
    bool stat_given;
    struct smooth_stat stat;
    struct smooth_settings search;
    enum smooth_family family; /* of a fixed alpha */
    bool blockwise;
    uint64_t n_samples;
    enum smooth_reduce reduce;
    double clamp; /* least factor, of the geometric mean */
    uint32_t kinds; /* bit 1 << enum smooth_kind: groups to migrate */
    bool folding, runtime;
    const char *recipe, *recipe_out, *inc_json, *inverse; /* paths or NULL */
};

/* *any is false when nothing is to be migrated. */
enum status smooth_options_read(const struct settings *settings, struct smooth_options *options, bool *any, struct err *err);

/* The alpha of a group whose weights go to this format (NULL: none); *search: none, it is searched. */
double smooth_options_alpha(const struct smooth_options *options, const struct quant *quant, bool *search);

/* "N", "N1", "U", ... */
const char *smooth_kind_name(enum smooth_kind kind);

#endif
