/* smooth_inc.c: the JSON of --smooth-inc-json: for each linear layer the factors and 8-bit scales under the names that the reference's tools use.
 *
 *   { "model.layers.0.self_attn.q_proj": { "alpha": .., "input_scale_for_mul": [1/s ..], "smooth_quant_scaling_factor": [s ..],
 *     "input_scale_after_mul": .., "input_zero_point_after_mul": .., "input_dtype": "torch.quint8", "weight_scale_after_mul": [..] }, .. }
 *
 * Formula: weight_scale_after_mul of a row = max(max_j |W_ij s_j| / 127.5, 2^-23); of the input see qdq8.h.
 * Why this way: what update_sq_scale puts into a quantisation recipe, readable without the rest.
 * Corner cases: without ranges of the input (an imatrix) its two members are null; a matrix of a stack has its number behind the name; rows are read
 * once more.
 * Reference: the project's smoothquant notes 1a (update_sq_scale), 1b. Worked number: s = 2: input_scale_for_mul 0.5.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "converter/smooth_files.h"
#include "converter/smooth_weights.h"

static void add_floats(struct text *text, const char *key, const float *x, uint64_t n)
{
    text_add(text, "\"%s\":[", key);
    for (uint64_t i = 0; i < n; i++) text_add(text, "%s%.9g", i ? "," : "", (double)x[i]);
    text_add(text, "]");
}

/* The module's name: without .weight, the matrix of a stack behind it. */
static void add_name(struct text *text, const struct plan *plan, const struct smooth_side *side)
{
    const char *name = plan->container->tensors[side->tensor].name, ending[] = ".weight";
    size_t n = strlen(name);
    char *shown = malloc(n + 32);
    if (n >= sizeof ending && strcmp(name + n - strlen(ending), ending) == 0) n -= strlen(ending);
    if (shown && plan->entries[side->tensor].shape.n_matrices > 1) snprintf(shown, n + 32, "%.*s[%llu]", (int)n, name, (unsigned long long)side->mat);
    else if (shown) snprintf(shown, n + 32, "%.*s", (int)n, name);
    text_add_json_str(text, shown ? shown : "");
    text->failed |= !shown;
    free(shown);
}

static enum status add_row_scales(struct text *text, struct weights_reader *reader, const struct smooth_outcome *outcome,
                                  const struct smooth_side *side, struct err *err)
{
    const uint64_t n = outcome->group->n, n_rows = weights_rows(reader->container, side);
    float *row = malloc((size_t)n * sizeof *row + 1), scale;
    enum status status = row ? OK : err_set(err, ERR_MEMORY, "out of memory");
    text_add(text, ",\"weight_scale_after_mul\":[");
    for (uint64_t r = 0; r < n_rows && !status; r++) {
        status = weights_read_row(reader, side, r, n, row, err);
        if (status) break;
        for (uint64_t j = 0; j < n; j++) row[j] *= outcome->consumers[j];
        qdq_row_scales(row, 1, n, &scale);
        text_add(text, "%s%.9g", r ? "," : "", (double)scale);
    }
    text_add(text, "]");
    free(row);
    return status;
}

static enum status add_linear(struct text *text, struct weights_reader *reader, const struct plan *plan, const struct smooth_outcome *outcome,
                              const struct smooth_side *side, struct err *err)
{
    const uint64_t n = outcome->group->n;
    float *inverse = malloc((size_t)n * sizeof *inverse + 1);
    if (!inverse) return err_set(err, ERR_MEMORY, "out of memory");
    for (uint64_t j = 0; j < n; j++) inverse[j] = 1.0f / outcome->consumers[j];
    add_name(text, plan, side);
    if (isfinite(outcome->alpha)) text_add(text, ":{\"alpha\":%.17g,", outcome->alpha);
    else text_add(text, ":{\"alpha\":null,");
    add_floats(text, "input_scale_for_mul", inverse, n);
    text_add(text, ",");
    add_floats(text, "smooth_quant_scaling_factor", outcome->consumers, n);
    if (outcome->has_act)
        text_add(text, ",\"input_scale_after_mul\":%.9g,\"input_zero_point_after_mul\":%d", (double)outcome->act.scale, (int)outcome->act.zero);
    else text_add(text, ",\"input_scale_after_mul\":null,\"input_zero_point_after_mul\":null");
    text_add(text, ",\"input_dtype\":\"torch.quint8\"");
    free(inverse);
    enum status status = side->along_rows ? OK : add_row_scales(text, reader, outcome, side, err);
    text_add(text, "}");
    return status;
}

enum status smooth_inc_make(struct app *app, const struct plan *plan, struct smoothing *smoothing, struct err *err)
{
    struct text text = text_make(1u << 30);
    struct weights_reader reader;
    size_t n = 0;
    (void)app;
    enum status status = weights_reader_open(plan->container, &reader, err);
    text_add(&text, "{");
    for (size_t i = 0; i < smoothing->n_outcomes && !status; i++)
        for (size_t k = 0; k < smoothing->outcomes[i].group->n_consumers && smoothing->outcomes[i].fate != SMOOTH_LEFT && !status; k++) {
            text_add(&text, n++ ? ",\n " : "\n ");
            status = add_linear(&text, &reader, plan, &smoothing->outcomes[i], &smoothing->outcomes[i].group->consumers[k], err);
        }
    text_add(&text, "}\n");
    if (!status) status = text_ok(&text, "JSON", err);
    if (!status && !(smoothing->inc_json = strdup(text.data))) status = err_set(err, ERR_MEMORY, "out of memory");
    smoothing->inc_json_nbytes = text.nbytes;
    text_free(&text);
    weights_reader_close(&reader);
    return status;
}
