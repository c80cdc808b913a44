/* foreign_rounding.c: the two tables.
 *
 * Drawing: (vocabulary, code) -> mode, three rows each.
 * Why this way: see foreign_rounding.h. What the tools do beside their codes is not copied:
 *   - onnx, MXINT8 takes any other code for 0 and BFP leaves it undefined; the GPU kernel of BFPPrime reads 0 as truncate, 1 as away, 2 as stochastic.
 *     Here the CPU meaning counts, and other codes are refused.
 *   - torch, RoundType "floor" is code 3 and rounds half away from zero (C `round`), it does not floor; "round" is code 2, half up; "half_even" is 8.
 *     The code is honoured there by the per-tensor GPU kernel alone, every CPU, per-channel, per-group and writing path rounds to nearest even
 *     whatever it says. Here it is honoured in every path.
 *   - floating-point elements always round to nearest even there.
 * Corner cases: truncate has no code in either vocabulary.
 * Reference: NUMERICS_LEARNED.md 1. Worked number: -2.5 is -3 by onnx 0 and torch 3, -2 by onnx 1 and 2 and by torch 2 and 8.
 */
#include "number/foreign_rounding.h"

#include <stddef.h>

enum { CODES = 3 };

static const struct {
    const char *name;
    struct {
        int32_t code;
        enum rounding rounding;
    } rows[CODES];
} vocabularies[FOREIGN_COUNT] = {
    [FOREIGN_ONNX] = { "onnx", { { 0, ROUND_AWAY }, { 1, ROUND_UP }, { 2, ROUND_NEAREST_EVEN } } },
    [FOREIGN_TORCH] = { "torch", { { 2, ROUND_UP }, { 3, ROUND_AWAY }, { 8, ROUND_NEAREST_EVEN } } },
};

const char *foreign_rounding_name(enum foreign_rounding vocabulary)
{
    return vocabularies[vocabulary].name;
}

enum status foreign_rounding_find(enum foreign_rounding vocabulary, int32_t code, enum rounding *rounding, struct err *err)
{
    for (size_t i = 0; i < CODES; i++) {
        if (vocabularies[vocabulary].rows[i].code != code) continue;
        *rounding = vocabularies[vocabulary].rows[i].rounding;
        return OK;
    }
    return err_set(err, ERR_USAGE, "%d is no rounding code of %s; it has %d, %d and %d", code, vocabularies[vocabulary].name,
                   vocabularies[vocabulary].rows[0].code, vocabularies[vocabulary].rows[1].code, vocabularies[vocabulary].rows[2].code);
}

int32_t foreign_rounding_code(enum foreign_rounding vocabulary, enum rounding rounding)
{
    for (size_t i = 0; i < CODES; i++)
        if (vocabularies[vocabulary].rows[i].rounding == rounding) return vocabularies[vocabulary].rows[i].code;
    return -1;
}
