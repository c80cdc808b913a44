/* round.c: the names of the rounding modes.
 *
 * Drawing: name -> mode -> name, one table.
 * Why this way: foreign numeric codes are translated elsewhere, at the edge; inside there is one enum.
 * Corner cases: an unknown name gives ROUND_COUNT.
 * Reference: NUMERICS.md 1. Worked number: "up" is mode 2.
 */
#include "number/round.h"

#include <string.h>

static const char *const names[ROUND_COUNT] = { "nearest-even", "away", "up", "truncate" };

const char *rounding_name(enum rounding rounding)
{
    return names[rounding];
}

enum rounding rounding_find(const char *name)
{
    unsigned i = 0;
    while (i < ROUND_COUNT && strcmp(names[i], name) != 0) i++;
    return (enum rounding)i;
}
