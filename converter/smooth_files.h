/* smooth_files.h: what the writers and readers of migration recipes share: names, and the digest by which a model is known again.
 *
 *   digest = exclusive or over all tensors of XXH3-128 of the name with its NUL and each dim as 8 little-endian bytes
 *
 * Why this way: smoothing changes no name and no shape, so that a recipe fits the model before and after.
 * Corner cases: the order of tensors and of shards does not matter.
 * Reference: smooth_recipe.h. Worked number: none needed.
 */
#ifndef LLMQ_CONVERTER_SMOOTH_FILES_H
#define LLMQ_CONVERTER_SMOOTH_FILES_H

#include "base/digest.h"
#include "converter/smooth.h"

#define SMOOTH_RECIPE_FORMAT "llmq-smooth"
#define SMOOTH_SCALES_ENDING ".safetensors"

enum status smooth_model_digest(const struct container *container, char out[DIGEST128_HEX], struct err *err);

/* New string: the file of factors beside a recipe; NULL when out of memory. */
char *smooth_scales_path(const char *recipe);

/* The text of --smooth-inc-json. */
enum status smooth_inc_make(struct app *app, const struct plan *plan, struct smoothing *smoothing, struct err *err);

#endif
