/* model_facts.c: see model_facts.h.
 *
 * Formula: rank i of n blocks; first/d: i < n/d; last/d: i >= (d-1)n/d; more-bits: i < n/8, i >= 7n/8 or (i - n/8) % 3 = 2, whole divisions.
 * Why this way: see model_facts.h. A bit for each block and role; a model has at most some hundred blocks.
 * Corner cases: block numbers over 65535 are no block numbers.
 * Reference: model_facts.h. Worked number: 22 blocks: more-bits are 0, 1, 4, 7, 10, 13, 16, 19, 20, 21.
 */
#include "converter/model_facts.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "container/gguf.h"

enum { BLOCKS_MAX = 65536 };

/* Blocks that have a tensor of one role. */
struct model_facts_role {
    const char *name;
    uint8_t *has; /* a flag a block, n_has of them; owned */
    size_t n_has;
};

/* The first number between two dots (or before the first, or behind the last), or UINT32_MAX. */
static uint32_t block_of(const char *name)
{
    for (const char *at = name; at && *at; at = strchr(at, '.') ? strchr(at, '.') + 1 : NULL) {
        size_t digits = strspn(at, "0123456789");
        if (digits == 0 || digits > 5 || (at[digits] != '.' && at[digits] != '\0')) continue;
        uint32_t number = (uint32_t)strtoul(at, NULL, 10);
        return number < BLOCKS_MAX ? number : UINT32_MAX;
    }
    return UINT32_MAX;
}

static struct model_facts_role *role_of(struct model_facts *facts, const struct role *role)
{
    for (size_t i = 0; i < facts->n_roles; i++)
        if (strcmp(facts->roles[i].name, role->name) == 0) return &facts->roles[i];
    struct model_facts_role *bigger = realloc(facts->roles, (facts->n_roles + 1) * sizeof *bigger);
    if (!bigger) return NULL;
    facts->roles = bigger;
    bigger[facts->n_roles] = (struct model_facts_role){ .name = role->name };
    return &bigger[facts->n_roles++];
}

static enum status mark(struct model_facts *facts, const struct role *role, uint32_t block, struct err *err)
{
    struct model_facts_role *marks = role_of(facts, role);
    if (marks && block >= marks->n_has) {
        size_t n = (size_t)block + 64;
        uint8_t *bigger = realloc(marks->has, n);
        if (!bigger) return err_set(err, ERR_MEMORY, "out of memory");
        memset(bigger + marks->n_has, 0, n - marks->n_has);
        marks->has = bigger;
        marks->n_has = n;
    }
    if (!marks) return err_set(err, ERR_MEMORY, "out of memory");
    marks->has[block] = 1;
    if (block >= facts->blocks) facts->blocks = block + 1;
    return OK;
}

/* Experts as a stack of matrices, or one by one with their numbers: "...experts.7.w1.weight". */
static uint32_t experts_of(const struct tensor *tensor, const struct role *role)
{
    const char *at = strstr(tensor->name, ".experts.");
    if (at && isdigit((unsigned char)at[9])) return (uint32_t)strtoul(at + 9, NULL, 10) % BLOCKS_MAX + 1;
    return role_is(role, "expert") && tensor->rank == 3 && tensor->dims[0] < BLOCKS_MAX ? (uint32_t)tensor->dims[0] : 0;
}

/* Key ARCH.NAME of a GGUF model, a number or an array of them whose first counts; false when there is none. */
static bool key_of(const struct container *container, const char *arch, const char *name, uint32_t *out)
{
    char key[160];
    bool found = false;
    snprintf(key, sizeof key, "%.100s.%s", arch, name);
    return gguf_get_u32(container, key, out, &found, NULL) == OK && found;
}

/* What the keys say counts, where they say something. */
static void read_keys(const struct container *container, struct model_facts *facts)
{
    size_t nbytes = 0;
    uint32_t heads = 0, kv_heads = 0, number = 0;
    if (!gguf_is(container) || gguf_get_string(container, "general.architecture", 100, &facts->arch, &nbytes, NULL) != OK || !facts->arch) return;
    if (key_of(container, facts->arch, "block_count", &number)) facts->blocks = number;
    if (key_of(container, facts->arch, "expert_count", &number)) facts->experts = number;
    if (!key_of(container, facts->arch, "attention.head_count", &heads)) return;
    if (!key_of(container, facts->arch, "attention.head_count_kv", &kv_heads)) kv_heads = heads;
    facts->gqa = kv_heads ? heads / kv_heads : 0;
}

enum status model_facts_make(const struct container *container, const struct roles *roles, struct model_facts *facts, struct err *err)
{
    uint64_t q_rows = 0, k_rows = 0;
    *facts = (struct model_facts){ .tied = true };
    for (size_t i = 0; i < container->n_tensors; i++) {
        const struct tensor *tensor = &container->tensors[i];
        const struct role *role = roles_of(roles, tensor->name);
        const uint32_t block = block_of(tensor->name), experts = experts_of(tensor, role);
        if (experts > facts->experts) facts->experts = experts;
        if (strcmp(role->name, "head") == 0) facts->tied = false;
        if (block == UINT32_MAX || tensor->rank < 2) continue;
        if (strcmp(role->name, "q") == 0 && !q_rows) q_rows = tensor_rows(tensor);
        if (strcmp(role->name, "k") == 0 && !k_rows) k_rows = tensor_rows(tensor);
        enum status status = mark(facts, role, block, err);
        if (status) return status;
    }
    if (k_rows && q_rows / k_rows < UINT32_MAX) facts->gqa = (uint32_t)(q_rows / k_rows);
    read_keys(container, facts);
    return OK;
}

void model_facts_free(struct model_facts *facts)
{
    for (size_t i = 0; i < facts->n_roles; i++) free(facts->roles[i].has);
    free(facts->roles);
    free(facts->arch);
    *facts = (struct model_facts){ 0 };
}

/* ---- layers --------------------------------------------------------------------------------------------------------------------- */

/* "3" or "0-2". */
static bool read_span(const char *text, unsigned long *first, unsigned long *last)
{
    char *end;
    if (!isdigit((unsigned char)*text)) return false;
    *first = *last = strtoul(text, &end, 10);
    if (*end == '-' && isdigit((unsigned char)end[1])) *last = strtoul(end + 1, &end, 10);
    return *end == '\0' && *first <= *last && *last < BLOCKS_MAX;
}

/* "first/8" with this word before the stroke. */
static bool read_part(const char *text, const char *word, uint32_t *parts)
{
    size_t n = strlen(word);
    if (strncmp(text, word, n) != 0 || text[n] != '/' || !isdigit((unsigned char)text[n + 1]) || strlen(text) > n + 4) return false;
    char *end;
    *parts = (uint32_t)strtoul(text + n + 1, &end, 10);
    return *end == '\0' && *parts > 0;
}

bool model_facts_is_layers(const char *text)
{
    unsigned long first, last;
    uint32_t parts;
    return strcmp(text, "more-bits") == 0 || read_span(text, &first, &last) || read_part(text, "first", &parts) || read_part(text, "last", &parts);
}

static bool is_among(const char *layers, uint32_t i, uint32_t n)
{
    unsigned long first, last;
    uint32_t parts;
    if (read_span(layers, &first, &last)) return i >= first && i <= last;
    if (read_part(layers, "first", &parts)) return i < n / parts;
    if (read_part(layers, "last", &parts)) return i >= (uint64_t)n * (parts - 1) / parts;
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

bool model_facts_in_layers(const struct model_facts *facts, const struct role *role, const char *name, const char *layers)
{
    const uint32_t block = block_of(name);
    for (size_t k = 0; k < facts->n_roles && block != UINT32_MAX; k++) {
        const struct model_facts_role *marks = &facts->roles[k];
        if (strcmp(marks->name, role->name) != 0 || block >= marks->n_has || !marks->has[block]) continue;
        uint32_t rank = 0, count = 0;
        for (uint32_t b = 0; b < marks->n_has; b++) {
            rank += b < block && marks->has[b];
            count += marks->has[b];
        }
        return is_among(layers, rank, count);
    }
    return false;
}
