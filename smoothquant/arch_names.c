/* arch_names.c: which tensor of a container is what: names to places; see arch_self.h.
 *
 *   model.layers.3.mlp.experts.7.up_proj.weight = prefix "model." + layer 3 + "mlp.experts.{e}.up_proj", expert 7, a weight
 *   -> place { layer 3, ffn_up_exps, expert 7 }
 *
 * Why this way: names are looked up by their pattern in a table; places are sorted once and then searched.
 * Corner cases: all layers of the model have one beginning ("model.language_model.layers."): a second one with names the map knows is refused; towers with
 * other beginnings are not the language model and are left out; a name in a layer that fits nothing keeps its place without key; two tensors of one place
 * are refused with both names; numbers have at most 6 digits.
 * Reference: configs/arch/README.md. Worked number: see the drawing.
 */
#include "smoothquant/arch_self.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_NBYTES_MAX 512u
#define DIGITS_MAX 6u

/* How a name begins: number of the prefix and of the form of a layer. */
struct start {
    uint32_t prefix, form;
};

struct reading {
    struct arch *arch;
    const struct arch_patterns *patterns;
    const char *const *prefixes, *const *layers;
    bool has_start;
    struct start start;
    size_t first; /* tensor that gave the start */
    uint64_t styles[8]; /* how often each was met */
};

/* A name taken apart. */
struct parts {
    struct start start;
    uint32_t layer;
    const char *tail;
};

static void drop_pieces(const struct arch_map *map, char *name)
{
    for (size_t i = 0; map->drops[i]; i++) {
        size_t length = strlen(map->drops[i]);
        for (char *at = strstr(name, map->drops[i]); at; at = strstr(at, map->drops[i])) {
            if (at[length] == '.' || at[length] == '\0') memmove(at, at + length, strlen(at + length) + 1);
            else at += length;
        }
    }
}

/* A piece of only digits, without a leading zero: its length, or 0. */
static size_t number_length(const char *piece)
{
    size_t n = strspn(piece, "0123456789");
    return n > DIGITS_MAX || (n > 1 && *piece == '0') || (piece[n] != '.' && piece[n] != '\0') ? 0 : n;
}

/* Takes "layers.12.tail" apart after the form "layers.{n}."; false when it does not fit. */
static bool split_layer(const char *name, const char *form, uint32_t *layer, const char **tail)
{
    size_t before = (size_t)(strstr(form, "{n}") - form);
    if (strncmp(name, form, before) != 0) return false;
    size_t digits = number_length(name + before);
    if (digits == 0 || name[before + digits] != '.') return false;
    *layer = (uint32_t)strtoul(name + before, NULL, 10);
    *tail = name + before + digits + 1;
    return true;
}

/* Puts {e} in place of the number in a name that has just one; false otherwise. */
static bool with_mark(const char *name, char *out, size_t out_size, uint32_t *expert)
{
    const char *found = NULL;
    for (const char *at = name; at; at = strchr(at, '.') ? strchr(at, '.') + 1 : NULL) {
        if (number_length(at) == 0) continue;
        if (found) return false;
        found = at;
    }
    if (!found) return false;
    *expert = (uint32_t)strtoul(found, NULL, 10);
    int n = snprintf(out, out_size, "%.*s{e}%s", (int)(found - name), name, found + number_length(found));
    return n > 0 && (size_t)n < out_size;
}

/* The pattern that text, "L" or "M" and a name, is; NULL when there is none. */
static const struct arch_pattern *pattern_of(const struct arch_patterns *patterns, const char *text, uint32_t *expert)
{
    char marked[NAME_NBYTES_MAX + 8];
    size_t index = name_table_find(&patterns->texts, text);
    *expert = ARCH_NONE;
    if (index == SIZE_MAX && with_mark(text, marked, sizeof marked, expert)) index = name_table_find(&patterns->texts, marked);
    return index == SIZE_MAX ? NULL : &patterns->items[index];
}

/* The same, with or without the ending .weight or .bias. */
static const struct arch_pattern *find_pattern(const struct arch_patterns *patterns, char kind, const char *name, uint32_t *expert, bool *is_bias)
{
    static const char *const endings[] = { "", ".weight", ".bias" };
    char text[NAME_NBYTES_MAX + 2];
    size_t length = strlen(name);
    for (size_t i = 0; i < 3; i++) {
        size_t n = strlen(endings[i]);
        if (n > length || strcmp(name + length - n, endings[i]) != 0) continue;
        snprintf(text, sizeof text, "%c%.*s", kind, (int)(length - n), name);
        const struct arch_pattern *found = pattern_of(patterns, text, expert);
        *is_bias = found && (found->is_bias || i == 2);
        if (found) return found;
    }
    return NULL;
}

/* Every beginning of a layer that name may have, one a call: the next one from *start on. */
static bool next_layer(const struct reading *reading, const char *name, struct parts *parts)
{
    struct start *start = &parts->start;
    for (; reading->prefixes[start->prefix]; start->prefix++, start->form = 0) {
        const char *prefix = reading->prefixes[start->prefix];
        if (strncmp(name, prefix, strlen(prefix)) != 0) continue;
        for (; reading->layers[start->form]; start->form++)
            if (split_layer(name + strlen(prefix), reading->layers[start->form], &parts->layer, &parts->tail)) return true;
    }
    return false;
}

static enum status copy_name(const struct arch *arch, size_t tensor, char out[NAME_NBYTES_MAX + 1])
{
    const char *name = arch->container->tensors[tensor].name;
    out[0] = '\0';
    if (strlen(name) <= NAME_NBYTES_MAX) {
        memcpy(out, name, strlen(name) + 1);
        drop_pieces(arch->map, out);
    }
    return OK;
}

/* Finds how the layers of this model begin. */
static enum status find_start(struct reading *reading, size_t tensor, struct err *err)
{
    char name[NAME_NBYTES_MAX + 1], shown[2][200];
    uint32_t expert = 0;
    bool is_bias = false;
    copy_name(reading->arch, tensor, name);
    for (struct parts parts = { { 0, 0 }, 0, NULL }; next_layer(reading, name, &parts); parts.start.form++) {
        const struct arch_pattern *pattern = find_pattern(reading->patterns, 'L', parts.tail, &expert, &is_bias);
        if (!pattern) continue;
        reading->styles[pattern->style < 8 ? pattern->style : 7]++;
        if (!reading->has_start) {
            reading->has_start = true;
            reading->start = parts.start;
            reading->first = tensor;
        }
        if (parts.start.prefix == reading->start.prefix && parts.start.form == reading->start.form) return OK;
        const char *one = reading->arch->container->tensors[reading->first].name, *other = reading->arch->container->tensors[tensor].name;
        return err_set(err, ERR_UNSUPPORTED, "'%s' and '%s' are layers of two models in one; the map %s describes one",
                       err_name(one, strlen(one), shown[0], sizeof shown[0]), err_name(other, strlen(other), shown[1], sizeof shown[1]),
                       reading->arch->map->name);
    }
    return OK;
}

/* Place of a tensor; false when it is none of the model's. */
static bool place_of(const struct reading *reading, size_t tensor, struct arch_place *place)
{
    char name[NAME_NBYTES_MAX + 1];
    const char *tail = NULL, *prefix = reading->prefixes[reading->start.prefix];
    copy_name(reading->arch, tensor, name);
    *place = (struct arch_place){ .layer = ARCH_NONE, .key = ARCH_KEY_NONE, .expert = ARCH_NONE, .tensor = tensor };
    if (strncmp(name, prefix, strlen(prefix)) == 0 &&
        split_layer(name + strlen(prefix), reading->layers[reading->start.form], &place->layer, &tail)) {
        const struct arch_pattern *pattern = find_pattern(reading->patterns, 'L', tail, &place->expert, &place->is_bias);
        if (pattern) place->key = pattern->key;
        else place->expert = ARCH_NONE;
        return true;
    }
    for (size_t i = 0; reading->prefixes[i]; i++) {
        size_t n = strlen(reading->prefixes[i]);
        if (strncmp(name, reading->prefixes[i], n) != 0) continue;
        const struct arch_pattern *pattern = find_pattern(reading->patterns, 'M', name + n, &place->expert, &place->is_bias);
        if (!pattern) continue;
        place->key = pattern->key;
        return true;
    }
    return false;
}

static int compare_numbers(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

static int compare_places(const void *left, const void *right)
{
    const struct arch_place *a = left, *b = right;
    int order = compare_numbers(a->layer, b->layer);
    if (order == 0) order = compare_numbers(a->key, b->key);
    if (order == 0) order = compare_numbers(a->is_bias, b->is_bias);
    if (order == 0) order = compare_numbers(a->expert, b->expert);
    return order != 0 ? order : compare_numbers(a->tensor, b->tensor);
}

static enum status check_unique(const struct arch *arch, struct err *err)
{
    char shown[2][200];
    for (size_t i = 1; i < arch->n_places; i++) {
        const struct arch_place *a = &arch->places[i - 1], *b = &arch->places[i];
        if (a->layer != b->layer || a->key != b->key || a->is_bias != b->is_bias || a->expert != b->expert || a->key == ARCH_KEY_NONE) continue;
        const char *one = arch->container->tensors[a->tensor].name, *other = arch->container->tensors[b->tensor].name;
        return err_set(err, ERR_DATA, "'%s' and '%s' are both %s of one place", err_name(one, strlen(one), shown[0], sizeof shown[0]),
                       err_name(other, strlen(other), shown[1], sizeof shown[1]), arch->map->keys[a->key].name);
    }
    return OK;
}

static enum status keep_start(struct reading *reading, struct err *err)
{
    struct arch *arch = reading->arch;
    char example[NAME_NBYTES_MAX];
    if (!reading->has_start) {
        uint32_t key = 0;
        while (key + 1 < arch->map->n_keys && !(arch->map->keys[key].in_layer && arch_key_name(&arch->map->keys[key], arch->gguf, 0))) key++;
        arch_name_of(arch, key, 0, ARCH_NONE, example, sizeof example);
        return err_set(err, ERR_UNSUPPORTED, "no tensor is called as the map %s has it, like '%s'", arch->map->name, example);
    }
    const char *prefix = reading->prefixes[reading->start.prefix], *form = reading->layers[reading->start.form];
    arch->layer_start = malloc(strlen(prefix) + strlen(form) + 1);
    if (!arch->layer_start) return err_set(err, ERR_MEMORY, "out of memory for names");
    memcpy(arch->layer_start, prefix, strlen(prefix));
    memcpy(arch->layer_start + strlen(prefix), form, strlen(form) + 1);
    for (uint32_t i = 1; i < 8; i++)
        if (reading->styles[i] > reading->styles[arch->style]) arch->style = i;
    return OK;
}

enum status arch_names_read(struct arch *arch, struct err *err)
{
    static const char *const gguf_prefixes[] = { "", NULL }, *const gguf_layers[] = { "blk.{n}.", NULL };
    struct reading reading = { .arch = arch,
                               .patterns = arch->gguf ? &arch->map->gguf : &arch->map->hf,
                               .prefixes = arch->gguf ? gguf_prefixes : arch->map->prefixes,
                               .layers = arch->gguf ? gguf_layers : arch->map->layers };
    enum status status = OK;
    for (size_t i = 0; i < arch->container->n_tensors && status == OK; i++) status = find_start(&reading, i, err);
    if (status == OK) status = keep_start(&reading, err);
    if (status != OK) return status;
    arch->places = calloc(arch->container->n_tensors + 1, sizeof *arch->places);
    if (!arch->places) return err_set(err, ERR_MEMORY, "out of memory for %zu tensors", arch->container->n_tensors);
    for (size_t i = 0; i < arch->container->n_tensors; i++)
        if (place_of(&reading, i, &arch->places[arch->n_places])) arch->n_places++;
    qsort(arch->places, arch->n_places, sizeof *arch->places, compare_places);
    return check_unique(arch, err);
}

/* ---- looking up --------------------------------------------------------------------------------------------------------------------- */

/* First place not before wanted. */
static size_t lower_bound(const struct arch *arch, const struct arch_place *wanted)
{
    size_t low = 0, high = arch->n_places;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_places(&arch->places[middle], wanted) < 0) low = middle + 1;
        else high = middle;
    }
    return low;
}

size_t arch_layer_begin(const struct arch *arch, uint32_t layer)
{
    const struct arch_place wanted = { .layer = layer };
    return lower_bound(arch, &wanted);
}

size_t arch_place_find(const struct arch *arch, uint32_t key, uint32_t layer, uint32_t expert, bool is_bias)
{
    const struct arch_place wanted = { .layer = layer, .key = key, .expert = expert, .is_bias = is_bias };
    size_t at = lower_bound(arch, &wanted);
    if (at == arch->n_places) return SIZE_MAX;
    const struct arch_place *found = &arch->places[at];
    return found->layer == layer && found->key == key && found->expert == expert && found->is_bias == is_bias ? found->tensor : SIZE_MAX;
}

bool arch_has(const struct arch *arch, uint32_t key, uint32_t layer)
{
    const struct arch_place wanted = { .layer = layer, .key = key };
    size_t at = lower_bound(arch, &wanted);
    return at < arch->n_places && arch->places[at].layer == layer && arch->places[at].key == key && !arch->places[at].is_bias;
}

/* Writes text with number in place of the mark. */
static size_t fill(char *out, size_t out_size, const char *text, const char *mark, uint32_t number)
{
    const char *at = strstr(text, mark);
    int n = at && number != ARCH_NONE ? snprintf(out, out_size, "%.*s%u%s", (int)(at - text), text, number, at + strlen(mark))
            : at                      ? snprintf(out, out_size, "%.*s*%s", (int)(at - text), text, at + strlen(mark))
                                      : snprintf(out, out_size, "%s", text);
    return n < 0 ? 0 : (size_t)n < out_size ? (size_t)n : out_size - 1;
}

void arch_name_of(const struct arch *arch, uint32_t key, uint32_t layer, uint32_t expert, char *out, size_t out_size)
{
    const struct arch_key *kind = &arch->map->keys[key];
    const char *found = NULL, *start = arch->layer_start ? arch->layer_start : arch->gguf ? "blk.{n}." : arch->map->layers[0];
    for (uint32_t i = 0; arch_key_name(kind, arch->gguf, i); i++) {
        const char *name = arch_key_name(kind, arch->gguf, i);
        if (expert != ARCH_NONE && !strstr(name, "{e}")) continue;
        if (!found || i <= arch->style) found = name;
    }
    if (!found) found = kind->name;
    size_t used = kind->in_layer ? fill(out, out_size, start ? start : "", "{n}", layer) : 0;
    fill(out + used, out_size - used, found, "{e}", expert);
}
