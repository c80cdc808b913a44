/* group.c: see group.h.
 *
 * Drawing: groups -> sides, id; refusals -> id, why.
 * Why this way: see group.h.
 * Corner cases: half-made groups (zeroed memory) are freed as well.
 * Reference: see group.h. Worked number: none needed.
 */
#include "smoothquant/group.h"

#include <stdlib.h>

void smooth_groups_free(struct smooth_groups *groups)
{
    for (size_t i = 0; i < groups->n_groups; i++) {
        free(groups->groups[i].id);
        free(groups->groups[i].producers);
        free(groups->groups[i].consumers);
    }
    for (size_t i = 0; i < groups->n_refusals; i++) {
        free(groups->refusals[i].id);
        free(groups->refusals[i].why);
    }
    free(groups->groups);
    free(groups->refusals);
    *groups = (struct smooth_groups){ 0 };
}
