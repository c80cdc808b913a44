/* roles.h: the role of a tensor in the model (q, down, norm, ...), from name patterns in configs/roles.yaml.
 *
 *   model.layers.3.mlp.down_proj.weight -> role "down", linear
 *
 * Why this way: names are data, not code; a new architecture is a line of YAML.
 * Corner cases: a name nothing matches has role "other" and is not linear; the first matching entry decides.
 * Reference: configs/roles.yaml.
 */
#ifndef LLMQ_CONVERTER_ROLES_H
#define LLMQ_CONVERTER_ROLES_H

#include <stdbool.h>

#include "base/err.h"
#include "base/io.h"

struct roles;

/* One entry. Strings belong to the struct roles. */
struct role {
    const char *name;
    const char *const *also; /* NULL-terminated further names */
    bool linear;
};

enum status roles_open(const struct io_calls *io, const char *path, struct roles **roles, struct err *err);
void roles_close(struct roles *roles); /* NULL allowed */

/* Never NULL. */
const struct role *roles_of(const struct roles *roles, const char *tensor_name);

/* True when name is the role or one of its further names. */
bool role_is(const struct role *role, const char *name);

/* True when some entry has this name. */
bool roles_know(const struct roles *roles, const char *name);

#endif
