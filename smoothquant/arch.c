/* arch.c: see arch.h.
 *
 * Drawing: folder -> the file whose match lists the model's name -> map -> facts, places -> lookups.
 * Why this way: only the match section of the other files is looked at, so that a mistake in one harms the models of that one alone.
 * Corner cases: a name that two files list is an error that names both; files are asked in the order of their names.
 * Reference: see arch.h. Worked number: none needed.
 */
#include "smoothquant/arch.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "smoothquant/arch_self.h"

static enum status no_memory(struct err *err)
{
    return err_set(err, ERR_MEMORY, "out of memory for an architecture");
}

/* ---- the folder --------------------------------------------------------------------------------------------------------------------- */

struct listing {
    char **paths; /* sorted */
    size_t n;
};

static void free_listing(struct listing *listing)
{
    for (size_t i = 0; i < listing->n; i++) free(listing->paths[i]);
    free(listing->paths);
}

static int compare_paths(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

static bool is_map(const char *name)
{
    size_t n = strlen(name);
    return n > 5 && strcmp(name + n - 5, ".yaml") == 0 && strcmp(name, ARCH_FACTS_FILE) != 0;
}

static enum status list_folder(const char *path, struct listing *out, struct err *err)
{
    DIR *dir = opendir(path);
    enum status status = OK;
    if (!dir) return err_set_errno(err, errno, "cannot list the architecture files in '%s'", path);
    for (struct dirent *entry = readdir(dir); entry && status == OK; entry = readdir(dir)) {
        if (!is_map(entry->d_name)) continue;
        char **bigger = realloc(out->paths, (out->n + 1) * sizeof *bigger);
        if (bigger) out->paths = bigger;
        char *joined = bigger ? path_join(path, entry->d_name) : NULL;
        if (joined) out->paths[out->n++] = joined;
        else status = no_memory(err);
    }
    closedir(dir);
    if (status == OK && out->n > 0) qsort(out->paths, out->n, sizeof *out->paths, compare_paths);
    return status;
}

/* Index of the file that lists name; SIZE_MAX when none does. */
static enum status find_file(const struct io_calls *io, const struct listing *listing, const char *section, const char *name, size_t *found,
                             struct err *err)
{
    enum status status = OK;
    *found = SIZE_MAX;
    for (size_t i = 0; i < listing->n && status == OK; i++) {
        struct yaml_doc *doc = NULL;
        status = yaml_open(io, listing->paths[i], &doc, err);
        if (status != OK) break;
        bool has = arch_match_has(doc->root, section, name);
        yaml_close(doc);
        if (has && *found != SIZE_MAX) return err_set(err, ERR_DATA, "'%s' and '%s' both list '%s'", listing->paths[*found], listing->paths[i], name);
        if (has) *found = i;
    }
    return status;
}

/* ---- one map ------------------------------------------------------------------------------------------------------------------------ */

static enum status count_layers(struct arch *arch, struct err *err)
{
    double said = 0;
    uint32_t last = 0;
    for (size_t i = 0; i < arch->n_places; i++)
        if (arch->places[i].layer != ARCH_NONE && arch->places[i].key != ARCH_KEY_NONE && arch->places[i].layer > last) last = arch->places[i].layer;
    arch->n_layers = last + 1;
    if (!arch_number(arch, "n_layers", &said)) return last < ARCH_LAYERS_MAX ? OK : err_set(err, ERR_DATA, "layer number %u is out of range", last);
    if (!(said >= 1) || said > ARCH_LAYERS_MAX) return err_set(err, ERR_DATA, "the configuration says %g layers", said);
    arch->n_layers = (uint32_t)said;
    return OK;
}

/* Takes map over. */
static enum status make(struct arch *arch, struct arch_map *map, struct err *err)
{
    arch->map = map;
    enum status status = arch_facts_read(arch, err);
    if (status == OK) status = arch_names_read(arch, err);
    return status == OK ? count_layers(arch, err) : status;
}

static void unmake(struct arch *arch)
{
    if (arch->map) arch_facts_free(arch);
    free(arch->places);
    free(arch->layer_start);
    arch_map_close(arch->map);
    *arch = (struct arch){ .config = arch->config, .container = arch->container, .gguf = arch->gguf };
}

static enum status open_map(const struct io_calls *io, const char *dir, const char *path, struct arch *arch, struct err *err)
{
    struct arch_map *map = NULL;
    enum status status = arch_map_open(io, dir, path, &map, err);
    return status == OK ? make(arch, map, err) : status;
}

/* ---- choosing ----------------------------------------------------------------------------------------------------------------------- */

/* Without a configuration: the only file that all tensors fit. */
static enum status choose_by_names(const struct io_calls *io, const char *dir, const struct listing *listing, struct arch *arch, struct err *err)
{
    size_t found = SIZE_MAX, second = SIZE_MAX;
    for (size_t i = 0; i < listing->n; i++) {
        bool fits = false;
        struct err ignored;
        enum status status = open_map(io, dir, listing->paths[i], arch, &ignored);
        if (status == OK) status = arch_fits(arch, &fits, &ignored);
        unmake(arch);
        if (status == ERR_MEMORY || status == ERR_IO) return err_set(err, status, "%s", ignored.text);
        if (fits && found != SIZE_MAX && second == SIZE_MAX) second = i;
        if (fits && found == SIZE_MAX) found = i;
    }
    const char *lack = arch->gguf ? "the GGUF keys do not name the architecture" : "there is no config.json that names the architecture";
    if (found == SIZE_MAX) return err_set(err, ERR_UNSUPPORTED, "%s, and the tensors' names fit no file of '%s'", lack, dir);
    if (second != SIZE_MAX)
        return err_set(
            err, ERR_UNSUPPORTED,
            "%s, and the tensors' names fit more than one file, like '%s' and '%s' (name the model's folder, or the file with --smooth-map)", lack,
            path_base(listing->paths[found]), path_base(listing->paths[second]));
    return open_map(io, dir, listing->paths[found], arch, err);
}

static enum status choose(const struct io_calls *io, const char *dir, const struct listing *listing, struct arch *arch, struct err *err)
{
    char shown[200];
    size_t found = SIZE_MAX;
    const char *section = arch->gguf ? "gguf" : "hf";
    enum status status = OK;
    if (!arch_config_name(arch->config, 0)) return choose_by_names(io, dir, listing, arch, err);
    for (size_t i = 0; arch_config_name(arch->config, i) && found == SIZE_MAX && status == OK; i++)
        status = find_file(io, listing, section, arch_config_name(arch->config, i), &found, err);
    if (status != OK) return status;
    if (found != SIZE_MAX) return open_map(io, dir, listing->paths[found], arch, err);
    const char *name = arch_config_name(arch->config, 0);
    return err_set(err, ERR_UNSUPPORTED, "no file of '%s' describes the architecture '%s'", dir, err_name(name, strlen(name), shown, sizeof shown));
}

enum status arch_open(const struct io_calls *io, const char *dir, const char *file, struct container *container, struct arch **out, struct err *err)
{
    struct arch *arch = calloc(1, sizeof *arch);
    struct listing listing = { NULL, 0 };
    struct arch_common common = { NULL, NULL };
    if (!arch) return no_memory(err);
    arch->container = container;
    enum status status = arch_common_open(io, dir, &common, err);
    if (status == OK) status = arch_config_open(container, common.nested, &arch->config, err);
    arch_common_close(&common);
    if (status == OK) arch->gguf = arch_config_is_gguf(arch->config);
    if (status == OK && file) status = open_map(io, dir, file, arch, err);
    else if (status == OK) {
        status = list_folder(dir, &listing, err);
        if (status == OK) status = choose(io, dir, &listing, arch, err);
    }
    free_listing(&listing);
    if (status == OK) *out = arch;
    else arch_close(arch);
    return status;
}

void arch_close(struct arch *arch)
{
    if (!arch) return;
    unmake(arch);
    arch_config_close(arch->config);
    free(arch);
}

/* ---- looking up --------------------------------------------------------------------------------------------------------------------- */

const char *arch_name(const struct arch *arch)
{
    return arch->map->name;
}

uint32_t arch_layers(const struct arch *arch)
{
    return arch->n_layers;
}

bool arch_is_gguf(const struct arch *arch)
{
    return arch->gguf;
}

size_t arch_tensor(const struct arch *arch, const char *key, uint32_t layer, uint32_t expert, bool bias)
{
    uint32_t number = arch_map_key(arch->map, key);
    return number == ARCH_KEY_NONE ? SIZE_MAX : arch_place_find(arch, number, layer, expert, bias);
}

enum status arch_require(const struct arch *arch, const char *key, uint32_t layer, uint32_t expert, size_t *out, struct err *err)
{
    char name[512];
    uint32_t number = arch_map_key(arch->map, key);
    if (number == ARCH_KEY_NONE) return err_set(err, ERR_UNSUPPORTED, "the map %s has no tensor '%s'", arch->map->name, key);
    *out = arch_place_find(arch, number, layer, expert, false);
    if (*out != SIZE_MAX) return OK;
    arch_name_of(arch, number, layer, expert, name, sizeof name);
    return err_set(err, ERR_DATA, "the model lacks the tensor '%s' (%s)", name, key);
}

static const struct arch_key *key_of(const struct arch *arch, const char *name)
{
    uint32_t number = arch_map_key(arch->map, name);
    return number == ARCH_KEY_NONE ? NULL : &arch->map->keys[number];
}

bool arch_plus_one(const struct arch *arch, const char *key)
{
    const struct arch_key *found = key_of(arch, key);
    return found && found->plus_one && !arch->gguf;
}

bool arch_transposed(const struct arch *arch, const char *key)
{
    const struct arch_key *found = key_of(arch, key);
    return found && found->transposed[arch->gguf];
}

bool arch_is_transposed(const struct arch *arch, size_t tensor)
{
    for (size_t i = 0; i < arch->n_places; i++) {
        const struct arch_place *place = &arch->places[i];
        if (place->tensor == tensor && place->key != ARCH_KEY_NONE && place->expert == ARCH_NONE && !place->is_bias)
            return arch->map->keys[place->key].transposed[arch->gguf];
    }
    return false;
}

const struct yaml_node *arch_section(const struct arch *arch, const char *section, const struct yaml_doc **doc)
{
    struct arch_at at = arch_map_section(arch->map, section);
    if (doc) *doc = at.doc;
    return at.node;
}
