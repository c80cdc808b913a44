/* forward_rope.c: see forward_rope.h.
 *
 * Formula: see forward_rope.h. YaRN's ramp: dim(turns) = n ln(old / (turns 2 pi)) / (2 ln theta); low = floor dim(beta_fast), high = ceil dim(beta_slow),
 * both within 0 .. n - 1; share of the scaled frequency at i = clamp((i - low) / (high - low), 0, 1).
 * Why this way: see forward_rope.h.
 * Corner cases: a ramp of no width gets one of 0.001, as in the models' code.
 * Reference: transformers modeling_rope_utils.py. Worked number: yarn, factor 4: attention factor 0.1 ln 4 + 1 = 1.138629.
 */
#include "smoothquant/forward_rope.h"

#include <math.h>
#include <stdlib.h>

#define TWO_PI 6.283185307179586476925

static double clamp(double x, double low, double high)
{
    return x < low ? low : x > high ? high : x;
}

/* ---- one function a scaling: what becomes of frequency f of pair i ------------------------------------------------------------------- */

static double keep(const struct rope *rope, size_t i, double f, bool is_long)
{
    (void)rope, (void)i, (void)is_long;
    return f;
}

static double linear(const struct rope *rope, size_t i, double f, bool is_long)
{
    (void)i, (void)is_long;
    return f / rope->factor;
}

static double llama3(const struct rope *rope, size_t i, double f, bool is_long)
{
    (void)i, (void)is_long;
    const double turns = rope->old_positions * f / TWO_PI; /* old positions over the wavelength */
    if (turns > rope->high) return f;
    if (turns < rope->low) return f / rope->factor;
    const double share = (turns - rope->low) / (rope->high - rope->low);
    return (1.0 - share) * f / rope->factor + share * f;
}

static double yarn_dim(const struct rope *rope, double turns)
{
    return (double)rope->n_dims * log(rope->old_positions / (turns * TWO_PI)) / (2.0 * log(rope->theta));
}

static double yarn(const struct rope *rope, size_t i, double f, bool is_long)
{
    (void)is_long;
    double low = yarn_dim(rope, rope->beta_fast > 0 ? rope->beta_fast : 32.0), high = yarn_dim(rope, rope->beta_slow > 0 ? rope->beta_slow : 1.0);
    if (!rope->no_truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = low < 0.0 ? 0.0 : low;
    high = high > (double)rope->n_dims - 1.0 ? (double)rope->n_dims - 1.0 : high;
    if (low == high) high += 0.001;
    const double scaled = clamp(((double)i - low) / (high - low), 0.0, 1.0);
    return f / rope->factor * scaled + f * (1.0 - scaled);
}

static double longrope(const struct rope *rope, size_t i, double f, bool is_long)
{
    const float *factors = is_long ? rope->factors_long : rope->factors_short;
    return factors ? f / (double)factors[i] : f;
}

/* ---- factors of attention ------------------------------------------------------------------------------------------------------------- */

static double no_factor(const struct rope *rope)
{
    (void)rope;
    return 1.0;
}

static double mscale_of(double factor, double mscale)
{
    return factor <= 1.0 ? 1.0 : 0.1 * mscale * log(factor) + 1.0;
}

static double yarn_factor(const struct rope *rope)
{
    if (rope->mscale > 0 && rope->mscale_all > 0) return mscale_of(rope->factor, rope->mscale) / mscale_of(rope->factor, rope->mscale_all);
    return mscale_of(rope->factor, 1.0);
}

static double longrope_factor(const struct rope *rope)
{
    const double factor = rope->factor > 0 ? rope->factor : rope->max_positions > 0 ? rope->max_positions / rope->old_positions : 1.0;
    return factor <= 1.0 ? 1.0 : sqrt(1.0 + log(factor) / log(rope->old_positions));
}

static const struct scaling_row {
    double (*frequency)(const struct rope *rope, size_t i, double f, bool is_long);
    double (*attention_factor)(const struct rope *rope);
} rows[ROPE_SCALING_COUNT] = {
    [ROPE_PLAIN] = { keep, no_factor },  [ROPE_LINEAR] = { linear, no_factor },           [ROPE_LLAMA3] = { llama3, no_factor },
    [ROPE_YARN] = { yarn, yarn_factor }, [ROPE_LONGROPE] = { longrope, longrope_factor }, [ROPE_DYNAMIC] = { keep, no_factor },
};

size_t rope_long_from(const struct rope *rope)
{
    const bool matters = rope->scaling == ROPE_LONGROPE || rope->scaling == ROPE_DYNAMIC;
    return matters && rope->old_positions >= 1 && rope->old_positions < 0x1p40 ? (size_t)rope->old_positions : SIZE_MAX;
}

void rope_frequencies(const struct rope *rope, size_t length, double *frequencies, double *attention_factor)
{
    const bool is_long = rope->scaling == ROPE_LONGROPE && length > rope_long_from(rope);
    double theta = rope->theta;
    if (rope->scaling == ROPE_DYNAMIC && length > rope_long_from(rope))
        theta *= pow(rope->factor * (double)length / rope->old_positions - rope->factor + 1.0, (double)rope->n_dims / ((double)rope->n_dims - 2.0));
    for (size_t i = 0; i < rope->n_dims / 2; i++) {
        double f = pow(theta, -2.0 * (double)i / (double)rope->n_dims);
        if (rope->scaling != ROPE_LONGROPE && rope->factors_short) f /= (double)rope->factors_short[i];
        frequencies[i] = rows[rope->scaling].frequency(rope, i, f, is_long);
    }
    *attention_factor = rope->attention_factor > 0 ? rope->attention_factor : rows[rope->scaling].attention_factor(rope);
}

enum status rope_table_make(const struct rope *rope, size_t n_positions, size_t length, struct rope_table *table, struct err *err)
{
    const size_t half = rope->n_dims / 2;
    *table = (struct rope_table){ .n_dims = rope->n_dims, .n_positions = n_positions, .interleaved = rope->interleaved };
    if (half == 0) return OK;
    double *frequencies = malloc(half * sizeof *frequencies), factor;
    table->table = malloc(n_positions * half * 2 * sizeof *table->table);
    if (!frequencies || !table->table) {
        free(frequencies);
        rope_table_free(table);
        return err_set(err, ERR_MEMORY, "out of memory");
    }
    rope_frequencies(rope, length, frequencies, &factor);
    for (size_t pos = 0; pos < n_positions; pos++)
        for (size_t i = 0; i < half; i++) {
            float *pair = table->table + (pos * half + i) * 2;
            pair[0] = (float)(cos((double)pos * frequencies[i]) * factor);
            pair[1] = (float)(sin((double)pos * frequencies[i]) * factor);
        }
    free(frequencies);
    return OK;
}

void rope_table_free(struct rope_table *table)
{
    free(table->table);
    table->table = NULL;
}

void rope_turn(const struct rope_table *table, size_t position, float *x, size_t n_heads, size_t head_dim)
{
    const size_t half = table->n_dims / 2, step = table->interleaved ? 2 : 1, apart = table->interleaved ? 1 : half;
    if (half == 0) return;
    const float *pairs = table->table + position * half * 2;
    for (size_t h = 0; h < n_heads; h++, x += head_dim)
        for (size_t i = 0; i < half; i++) {
            const float a = x[i * step], b = x[i * step + apart], c = pairs[2 * i], s = pairs[2 * i + 1];
            x[i * step] = a * c - b * s;
            x[i * step + apart] = b * c + a * s;
        }
}
