/* smooth_recipe.h: a migration as files: what was decided, to be replayed to the same bytes, undone, or read by other tools.
 *
 *   R.json: format, version, model digest, settings, groups (id, kind, tensors, alpha, losses, keys of factors), left and refused ones with reasons
 *   R.json.safetensors: for group number i "i.s" (factors as chosen) and "i.columns" (what the columns were multiplied by), F32 [n]
 *
 * Why this way: a recipe can be read and compared by people and is small; factors of a 7B model are 6 MB, exact to the bit, beside it.
 * Corner cases: a recipe of another model is refused by its digest of names and shapes; a group the model does not have, or factors that are not
 * positive and finite, are errors; groups of the model that the recipe does not name are left.
 * Reference: the project's smoothquant notes 1c, 6c. Worked number: a group of 64 channels takes 512 bytes of factors.
 */
#ifndef LLMQ_CONVERTER_SMOOTH_RECIPE_H
#define LLMQ_CONVERTER_SMOOTH_RECIPE_H

#include "converter/smooth.h"

/* Fills the outcomes from the recipe that options.recipe names, or undoes that of options.inverse. The groups of the map are there. */
enum status smooth_recipe_replay(struct app *app, struct plan *plan, struct smoothing *smoothing, struct err *err);

/* Makes the texts of --smooth-recipe-out and --smooth-inc-json, where they are wanted. */
enum status smooth_recipe_make(struct app *app, const struct plan *plan, struct smoothing *smoothing, struct err *err);

#endif
