/* recipe.h: the rules of a run: which tensor gets which format, and who said so.
 *
 *   --rule 'role:down=mxfp6_e3m2'  --keep '*.layers.0.*'        then the recipe file's rules, in its order, then the defaults
 *
 * Why this way: one ordered list; the first rule that matches a tensor decides, and the plan can name it.
 * Corner cases: a glob, regular expression or role never selects a tensor of fewer than 2 dims, an exact name does; a rule that selects nothing is
 * an error unless it says `optional: true` or has a condition; two rules may match the same tensor, the earlier one wins.
 * Reference: CONTRIBUTING.md; recipes in configs/recipes/.
 */
#ifndef LLMQ_CONVERTER_RECIPE_H
#define LLMQ_CONVERTER_RECIPE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/glob.h"
#include "container/container.h"
#include "converter/app.h"
#include "converter/model_facts.h"
#include "converter/roles.h"
#include "number/format.h"

/* When a rule applies, beside its pattern. */
struct condition {
    char *layers; /* some of the layers (model_facts.h); NULL: all. Owned */
    char *arch; /* general.architecture of a GGUF model; NULL: any. Owned */
    uint32_t blocks, gqa, experts; /* the model has that many blocks; that many query heads a key head, or more; that many experts. 0: any */
    enum { TIED_ANY, TIED_YES, TIED_NO } tied; /* whether the output head is the embedding */
};

struct rule {
    char *text; /* the pattern as written */
    struct pattern *pattern; /* NULL for a role rule */
    char *role; /* of a role rule */
    bool keep;
    struct quant quant; /* unless keep */
    bool optional;
    struct condition when;
    char *origin; /* "--rule", "--keep", "FILE:LINE" */
    size_t n_selected; /* tensors it selects, also those an earlier rule decides */
};

/* What a recipe says of rows that are no multiple of a format's block. */
struct fallback {
    char *from, *to; /* names of formats */
};

struct recipe {
    struct roles *roles;
    struct fallback *fallbacks;
    size_t n_fallbacks;
    struct rule *rules;
    size_t n_rules;
    bool has_default; /* --format was given */
    struct quant preset; /* the default for linear layers */
};

/* Builds the list from app->settings; a recipe file also sets settings that the command line left open. A recipe name without '/' that is no file
 * is looked up in configs/recipes/. */
enum status recipe_open(struct app *app, struct recipe *recipe, struct err *err);
/* The same for the text of a recipe, called name in messages, in place of --recipe. */
enum status recipe_parse(struct app *app, const char *text, size_t nbytes, const char *name, struct recipe *recipe, struct err *err);
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
enum status recipe_decide(struct recipe *recipe, const struct model_facts *facts, const struct tensor *tensor, struct verdict *verdict,
                          struct err *err);

/* The format for rows that are no multiple of quant's block: the recipe's, or the table's; ERR_USAGE when there is none. */
enum status recipe_fall_back(const struct recipe *recipe, struct quant *quant, struct err *err);

/* After all tensors: ERR_USAGE naming the first rule that selected nothing. */
enum status recipe_check_rules(const struct recipe *recipe, struct err *err);

#endif
