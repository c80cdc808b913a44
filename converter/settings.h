/* settings.h: the settings table: one row is one option, for the command line, recipes, --help and the documentation.
 *
 *   --group-size 64   on the command line      group-size: 64   in a recipe      both are row "group-size"
 *
 * Why this way: an option is one row that feeds parser, ranges, help and recipe keys; there is no second list.
 * Corner cases: an unknown option names the nearest known one; a value out of range says the range; an option another command takes is refused by
 * name; the command line beats the recipe, the recipe beats the default; --rule and --keep keep the order in which they were given.
 * Reference: design.md 3; FFmpeg's and git's option tables.
 */
#ifndef LLMQ_CONVERTER_SETTINGS_H
#define LLMQ_CONVERTER_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

/* The commands, as bits of the rows' command masks. */
enum command_bit {
    CMD_CONVERT = 1 << 0,
    CMD_PLAN = 1 << 1,
    CMD_INSPECT = 1 << 2,
    CMD_VERIFY = 1 << 3,
    CMD_DEQUANTIZE = 1 << 4,
    CMD_COMPARE = 1 << 5,
    CMD_EXTRACT = 1 << 6,
    CMD_FORMATS = 1 << 7,
    CMD_BENCH = 1 << 8,
    CMD_STATS = 1 << 9,
    CMD_SMOOTH = 1 << 10,
    CMD_CALIBRATE = 1 << 11,
    CMD_EVAL = 1 << 12,
    CMD_SWEEP = 1 << 13,
    CMD_ALL = (1 << 14) - 1
};

enum setting_id {
    SET_IN,
    SET_OUT,
    SET_AGAINST,
    SET_FORMAT,
    SET_GROUP_SIZE,
    SET_SCALE_RULE,
    SET_PERCENTILE,
    SET_SCALE_DTYPE,
    SET_ROUNDING,
    SET_HALF_RANGE,
    SET_RULE,
    SET_KEEP,
    SET_RECIPE,
    SET_IMATRIX,
    SET_SMOOTH,
    SET_ALPHA,
    SET_SMOOTH_FAMILY,
    SET_SMOOTH_STAT,
    SET_SMOOTH_LOSS,
    SET_SHARED_CRITERION,
    SET_ALPHA_MIN,
    SET_ALPHA_MAX,
    SET_ALPHA_STEP,
    SET_INIT_ALPHA,
    SET_DO_BLOCKWISE,
    SET_N_SAMPLES,
    SET_SMOOTH_REFINE,
    SET_SMOOTH_REDUCE,
    SET_SMOOTH_CLAMP,
    SET_SMOOTH_GROUPS,
    SET_SMOOTH_MAP,
    SET_FOLDING,
    SET_SMOOTH_RUNTIME,
    SET_SMOOTH_CHECK,
    SET_SMOOTH_RECIPE,
    SET_SMOOTH_RECIPE_OUT,
    SET_SMOOTH_INC_JSON,
    SET_INVERSE,
    SET_NVFP4_SCALE,
    SET_NO_FALLBACK,
    SET_ALLOW_REQUANTIZE,
    SET_FILE_TYPE,
    SET_NONFINITE,
    SET_COMPRESS,
    SET_SPLIT_SIZE,
    SET_ALIGN,
    SET_MEASURE,
    SET_DTYPE,
    SET_RAW,
    SET_TENSORS,
    SET_SCAN,
    SET_SECONDS,
    SET_EXPERTS,
    SET_TEXT,
    SET_TOKENS,
    SET_SELF,
    SET_SAMPLES,
    SET_SEQ,
    SET_SKIP_FIRST,
    SET_COLLECT,
    SET_SEQUENTIAL,
    SET_RESUME,
    SET_LOGITS,
    SET_THREADS,
    SET_MAX_RAM,
    SET_FORCE,
    SET_JSON,
    SET_QUIET,
    SET_PROGRESS,
    SET_FORMATS,
    SET_GROUP_SIZES,
    SET_SCALE_RULES,
    SET_ALPHAS,
    SET_TENSORS_OF,
    SET_SAMPLE,
    SET_HISTOGRAM,
    SET_EVAL_TEXT,
    SET_EVAL_TOKENS,
    SET_REPORT,
    SET_CSV,
    SET_SWEEP_JSON,
    SET_HASHES,
    SET_TARGET_BPW,
    SET_TARGET_SIZE,
    SET_CANDIDATES,
    SET_FREE_FUSED,
    SET_RECIPE_OUT,
    SET_COUNT
};

enum setting_type { SETTING_FLAG, SETTING_TEXT, SETTING_LIST, SETTING_CHOICE, SETTING_COUNT, SETTING_BYTES, SETTING_REAL };

struct setting {
    const char *name; /* without the dashes */
    enum setting_type type;
    const char *argument; /* placeholder in --help; for SETTING_CHOICE the choices: "none|default|max" */
    const char *preset; /* default as text; NULL: none */
    uint64_t min, max; /* of SETTING_COUNT, SETTING_BYTES and SETTING_REAL */
    uint32_t commands; /* who takes it */
    bool in_recipe; /* may stand in a recipe */
    const char *help; /* one sentence */
};

extern const struct setting settings_table[SET_COUNT];

/* One --rule or --keep, in the order given. */
struct setting_rule {
    bool keep;
    const char *text;
};

struct settings {
    const char *values[SET_COUNT]; /* text as given; NULL: not given; not owned, except what settings_set_owned copied */
    bool from_recipe[SET_COUNT];
    struct setting_rule *rules;
    size_t n_rules;
    const char **arguments; /* positional */
    size_t n_arguments;
    char **owned;
    size_t n_owned;
};

/* Parses argv[0 .. argc-1] (what follows the command's name) for the command bit. *help is set when --help is among them. The strings of argv must
 * outlive settings. */
enum status settings_parse(struct settings *settings, uint32_t command, int argc, char **argv, bool *help, struct err *err);

/* Sets one row from a recipe unless the command line has set it; text is copied. Checks as settings_parse. */
enum status settings_set_from_recipe(struct settings *settings, const char *name, const char *text, struct err *err);

void settings_free(struct settings *settings);

bool settings_given(const struct settings *settings, enum setting_id id);
bool settings_flag(const struct settings *settings, enum setting_id id);
const char *settings_text(const struct settings *settings, enum setting_id id); /* the default when not given */
uint64_t settings_number(const struct settings *settings, enum setting_id id); /* COUNT and BYTES */
double settings_real(const struct settings *settings, enum setting_id id); /* REAL */
bool settings_is(const struct settings *settings, enum setting_id id, const char *choice);

/* --nvfp4-scale as one matrix sees it, "tensor" or "none"; NULL: not given. */
const char *settings_tensor_scale(const struct settings *settings);

/* Prints the options of a command, one row each. */
void settings_print_help(FILE *out, uint32_t command);

#endif
