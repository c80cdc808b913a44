/* facts.c: see facts.h.
 *
 * Drawing: common members, then those of float or of integer elements, then zero_point.
 * Why this way: see facts.h.
 * Corner cases: see facts.h.
 * Reference: FORMAT.md 4. Example: int4 -> {"family":"affine","element":"int4","bits":4,"signed":true,"fraction_bits":0,"zero_point":false}.
 */
#include "layout/facts.h"

void facts_write(const struct format *format, struct text *out)
{
    static const char *const special[] = { [ELEM_NO_SPECIAL] = "none", [ELEM_NAN_ONLY] = "nan", [ELEM_IEEE] = "ieee" };
    const struct elem *elem = format->elem;
    text_add(out, "{\"family\":\"%s\",\"element\":\"%s\",\"bits\":%u,", format->family->name, elem->name, elem->bits);
    if (elem->kind == ELEM_FLOAT)
        text_add(out, "\"exponent_bits\":%u,\"mantissa_bits\":%u,\"bias\":%d,\"special\":\"%s\",", elem->exp_bits, elem->man_bits, (int)elem->bias,
                 special[elem->special]);
    else text_add(out, "\"signed\":%s,\"fraction_bits\":%u,", elem->kind == ELEM_SIGNED ? "true" : "false", elem->fraction_bits);
    text_add(out, "\"zero_point\":%s}", format->zero_point ? "true" : "false");
}
