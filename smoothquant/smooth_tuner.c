/* smooth_tuner.c: the table of tuners, see autoalpha.h.
 *
 * Drawing: name -> runs the model | judges statistics by a loss over families.
 * Why this way: the counterpart of register_autotune: a tuner is a row, nothing asks for one by name.
 * Corner cases: a name that is not there is NULL.
 * Reference: the project's smoothquant notes 1a. Worked number: "awq": family awq, loss sample.
 */
#include <string.h>

#include "smoothquant/autoalpha.h"

static const struct smooth_tuner tuners[] = {
    { "inc-v1",
      "AutoAlpha as Intel's neural-compressor has it: runs the model with 8-bit weights and activations",
      true,
      { true, false, false },
      SMOOTH_LOSS_W8A8,
      false },
    { "diag", "weights' errors in the target format, weighed by E[x^2] of their columns", false, { true, false, false }, SMOOTH_LOSS_DIAG, true },
    { "gram", "exact mean square of the outputs' errors, from the Gram matrix", false, { true, false, false }, SMOOTH_LOSS_GRAM, true },
    { "sample", "mean square of the outputs' errors on sampled tokens", false, { true, false, false }, SMOOTH_LOSS_SAMPLE, true },
    { "w8a8", "the loss of inc-v1 on sampled tokens, without running the model", false, { true, false, false }, SMOOTH_LOSS_W8A8, true },
    { "awq", "AWQ's factors x^r, judged on sampled tokens", false, { false, true, false }, SMOOTH_LOSS_SAMPLE, true },
    { "awq-duo", "AWQ's factors with the mean of the weights, judged on sampled tokens", false, { false, false, true }, SMOOTH_LOSS_SAMPLE, true },
};

size_t smooth_tuner_count(void)
{
    return sizeof tuners / sizeof *tuners;
}

const struct smooth_tuner *smooth_tuner_at(size_t index)
{
    return &tuners[index];
}

const struct smooth_tuner *smooth_tuner_find(const char *name)
{
    for (size_t i = 0; i < smooth_tuner_count(); i++)
        if (strcmp(tuners[i].name, name) == 0) return &tuners[i];
    return NULL;
}

void smooth_tuner_set(const struct smooth_tuner *tuner, struct smooth_settings *settings)
{
    memcpy(settings->families, tuner->families, sizeof settings->families);
    settings->loss = tuner->loss;
    settings->refuse_worse = tuner->refuse_worse;
}
