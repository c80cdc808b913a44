/* learn.h: scales learned from the weights: TQT (a power of two), LSQ (a step), PACT (a clip value), forward, backward and offline optimiser.
 *
 *   TQT   s = 2^ceil(l) / D,  D = 2^(b-1)      dL/dl     = ln 2 * s * sum g tau
 *   LSQ   s itself                             dL/ds     = grad_factor * sum g tau
 *   PACT  s = alpha / int_max                  dL/dalpha = sum over |x| > alpha of g sgn(x),  or  sum g tau / int_max
 *
 * Why this way: the formulas of the three differ in how a parameter makes a scale and a slope, nothing else; so they share fakequant.h (tau), one
 * optimiser (learn_search.h) and one result. Offline the weights are frozen, L = sum w (y - x)^2, and only the parameter's gradient has a meaning.
 * Corner cases: an optimiser keeps the best scale it has judged, and judges what the rule absmax would take first (TQT: the next power of two above), so
 * it never ends worse; a scale is never below 2^-23; where even the first scale overflows, every candidate may fail and the result is Inf; a group of
 * zeros, or one of importance 0, keeps absmax.
 * Reference: NUMERICS_LEARNED.md; TQT arXiv 1903.08066, LSQ arXiv 1902.08153, PACT arXiv 1805.06085. Worked number: NUMERICS_LEARNED.md 8.
 */
#ifndef LLMQ_NUMBER_LEARN_H
#define LLMQ_NUMBER_LEARN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "number/fakequant.h"
#include "number/scale.h"

struct kernels;

/* ---- the optimisers -------------------------------------------------------------------------------------------------------------- */

enum learn_rule { LEARN_TQT, LEARN_LSQ, LEARN_PACT, LEARN_RULE_COUNT };

/* TQT: LEARN_SEARCH tries powers of two until no other can win, which is the exact optimum; LEARN_DESCENT walks l. LSQ: LEARN_SEARCH is a grid of 100 clip
 * ratios, LEARN_DESCENT starts from two scales, LEARN_BEST does both. PACT: LEARN_DESCENT alone, or with the grid (LEARN_SEARCH, LEARN_BEST). */
enum learn_method { LEARN_BEST, LEARN_SEARCH, LEARN_DESCENT };

/* Where TQT and PACT start a descent: max |x|; |mean(x + 1e-6)| + 3 standard deviations; TQT's divergence threshold KL-J; the constant 2.2 of PACT. */
enum learn_start { LEARN_FROM_MAX, LEARN_FROM_3SD, LEARN_FROM_KLJ, LEARN_FROM_CONSTANT };

struct learn_params {
    enum rounding rounding;
    enum scale_type stored; /* every candidate is judged as stored in this type: SCALE_F32 (no change), SCALE_BF16, SCALE_F16 */
    enum learn_method method;
    enum learn_start start;
    uint32_t steps, patience; /* of one descent: at most steps, and until patience of them in a row have not helped */
    float rate; /* of one step: d ln s = rate * d ln L / d ln s */
    const struct kernels *kernels; /* whose instruction set to use, NULL: portable; the same bits with all */
};

/* FROM_MAX, nearest-even, SCALE_F32, portable; method (TQT: SEARCH, LSQ: BEST, PACT: DESCENT), steps, patience and rate of the rule. */
struct learn_params learn_defaults(enum learn_rule rule);

const char *learn_rule_name(enum learn_rule rule); /* "tqt", "lsq", "pact" */
enum learn_rule learn_rule_find(const char *name); /* LEARN_RULE_COUNT when unknown */

struct learned {
    float scale; /* as stored; Inf when no candidate is in range */
    int32_t zero; /* zero point that was judged with it; 0 for symmetric codes */
    double loss; /* sum w (y - x)^2 under it */
    double start_loss; /* the same under what absmax takes (TQT: the least power of two that clips no more than it) */
    uint32_t judged; /* how many scales were judged */
};

/* Learns the scale of n finite weights for codes code_min .. code_max (at most 8 bits). code_min < 0: symmetric, zero point 0. code_min = 0: the zero point
 * is that of the whole range under absmax, clamp(-RNE(fl(min / store(absmax)))), and stays so; what is learned is then a multiplier of the range, scale /
 * absmax. weight is NULL or n importance weights >= 0. */
void learn_group(enum learn_rule rule, const struct learn_params *params, const float *x, const float *weight, size_t n, int32_t code_min,
                 int32_t code_max, struct learned *learned);

/* The scale alone. */
float learn_scale(enum learn_rule rule, const struct learn_params *params, const float *x, const float *weight, size_t n, int32_t code_min,
                  int32_t code_max);

/* ---- TQT ------------------------------------------------------------------------------------------------------------------------- */

struct tqt {
    uint32_t bits; /* domain D = 2^(bits-1); codes -D .. D-1 */
    int32_t zero; /* 0 in all known uses */
    enum rounding rounding;
};

/* 2^ceil(log_threshold) / D; l = 0 is a threshold of 1. */
float tqt_scale(uint32_t bits, float log_threshold);

/* y for n weights; log_thresholds has axis.count members. */
void tqt_forward(const struct tqt *tqt, const float *log_thresholds, struct fakequant_axis axis, const float *x, size_t n, float *y);

/* From g = dL/dy: dL/dx to dx (may be g or NULL) and dL/dl to dlog_thresholds[axis.count]. */
void tqt_backward(const struct tqt *tqt, const float *log_thresholds, struct fakequant_axis axis, const float *x, const float *g, size_t n, float *dx,
                  float *dlog_thresholds);

/* Thresholds to start from. KL-J: the divergence of the cumulative histogram of |x| and itself at 2^(bits-1) levels; at most 2048 bins, n^2 in them. */
float tqt_threshold_3sd(const float *x, size_t n);
float tqt_threshold_klj(uint32_t bits, const float *x, size_t n);

/* ---- LSQ ------------------------------------------------------------------------------------------------------------------------- */

/* 2 mean|x| / sqrt(code_max), of one parameter's weights. */
float lsq_start(const float *x, size_t n, int32_t code_max);

/* 1 / sqrt(n code_max), n the weights of the whole tensor, also per channel. */
float lsq_grad_factor(size_t n, int32_t code_max);

/* Forward is fakequant_forward (the original adds 2^-23 to the scale first; that is the caller's to do). From g = dL/dy: dL/dx to dx (may be g or NULL)
 * and grad_factor * sum g tau to dscales[axis.count]. */
void lsq_backward(const struct fakequant *codes, const float *scales, struct fakequant_axis axis, float grad_factor, const float *x, const float *g,
                  size_t n, float *dx, float *dscales);

/* ---- PACT ------------------------------------------------------------------------------------------------------------------------ */

/* PACT_CLIP: the step is taken as given, only clipped weights pull (nothing ever shrinks alpha). PACT_STEP: with the step's own dependence on alpha. */
enum pact_form { PACT_CLIP, PACT_STEP };

#define PACT_ALPHA 2.2f

/* y = q alpha / int_max with q = RNE(clip(x int_max / alpha)) of n weights, |alpha| counts; alphas has axis.count members. */
void pact_forward(uint32_t bits, const float *alphas, struct fakequant_axis axis, const float *x, size_t n, float *y);

/* From g = dL/dy: dL/dx (g where |x| <= alpha for PACT_CLIP, where the code is in range for PACT_STEP, else 0) to dx (may be g or NULL), dL/dalpha to
 * dalphas[axis.count]. */
void pact_backward(uint32_t bits, enum pact_form form, const float *alphas, struct fakequant_axis axis, const float *x, const float *g, size_t n,
                   float *dx, float *dalphas);

#endif
