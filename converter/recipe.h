/* recipe.h: the rules of a run: which tensor gets which format, and who said so.
 *
 *   --rule 'role:down=mxfp6_e3m2'  --keep '*.layers.0.*'        then the recipe file's rules, in its order, then the defaults
 *
 * Why this way: one ordered list; the first rule that matches a tensor decides, and the plan can name it.
 * Corner cases: a glob, regular expression or role never selects a tensor of fewer than 2 dims, an exact name does; a rule that selects nothing is
 * an error unless it says `optional: true`; two rules may match the same tensor, the earlier one wins.
 * Reference: CONTRIBUTING.md; recipes in configs/recipes/.
 */
#ifndef LLMQ_CONVERTER_RECIPE_H
#define LLMQ_CONVERTER_RECIPE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/glob.h"
#include "container/container.h"
#include "converter/app.h"
#include "converter/roles.h"
#include "number/format.h"

struct rule {
    char *text; /* the pattern as written */
    struct pattern *pattern; /* NULL for a role rule */
    char *role; /* of a role rule */
    bool keep;
    struct quant quant; /* unless keep */
    bool optional;
    char *origin; /* "--rule", "--keep", "FILE:LINE" */
    size_t n_selected; /* tensors it selects, also those an earlier rule decides */
};

struct recipe {
    struct roles *roles;
    struct rule *rules;
    size_t n_rules;
    bool has_default; /* --format was given */
    struct quant fallback; /* the default for linear layers */
};

/* Builds the list from app->settings; a recipe file also sets settings that the command line left open. A recipe name without '/' that is no file
 * is looked up in configs/recipes/. */
enum status recipe_open(struct app *app, struct recipe *recipe, struct err *err);
void recipe_close(struct recipe *recipe);

/* What happens to one tensor. */
struct verdict {
    bool keep;
    struct quant quant; /* unless keep */
    const struct rule *rule; /* NULL: the defaults decided */
    const char *reason; /* of a default or of a kept tensor, for people */
    const struct role *role;
};

/* Decides, and counts what every rule selects. */
enum status recipe_decide(struct recipe *recipe, const struct tensor *tensor, struct verdict *verdict, struct err *err);

/* After all tensors: ERR_USAGE naming the first rule that selected nothing. */
enum status recipe_check_rules(const struct recipe *recipe, struct err *err);

#endif
