/* arch_groups.c: whether a map fits a model; see arch_self.h.
 *
 * Formula: no tensor of a layer is without key, and every tensor a group of the layer needs is there.
 * Why this way: a model without config.json may only be taken for what nothing contradicts.
 * Corner cases: groups whose condition does not hold in a layer need nothing there.
 * Reference: configs/arch/README.md. Worked number: none needed.
 */
#include "smoothquant/arch_self.h"

/* Every tensor that a group of this layer needs is there. */
static bool has_all(const struct arch *arch, const struct arch_group *group, uint32_t layer)
{
    for (size_t i = 0; i < group->n_absorb + group->n_consumers; i++) {
        const struct arch_ref *ref = i < group->n_absorb ? &group->absorb[i] : &group->consumers[i - group->n_absorb];
        if (!ref->optional && !arch_has(arch, ref->key, layer)) return false;
    }
    return true;
}

enum status arch_fits(const struct arch *arch, bool *fits, struct err *err)
{
    (void)err;
    *fits = true;
    for (size_t i = 0; i < arch->n_places && *fits; i++)
        if (arch->places[i].layer != ARCH_NONE && arch->places[i].key == ARCH_KEY_NONE) *fits = false;
    for (uint32_t layer = 0; layer < arch->n_layers && *fits; layer++)
        for (size_t i = 0; i < arch->map->n_groups && *fits; i++)
            if (arch_condition(arch, arch->map->groups[i].when, layer) && !has_all(arch, &arch->map->groups[i], layer)) *fits = false;
    return OK;
}
