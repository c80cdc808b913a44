/* arch_case.c: see arch_case.h.
 *
 * Why this way: the container is one of the library's own, behind its table of calls; its small file is config.json, or GGUF keys in their bytes.
 * Corner cases: a wrong case fails the test at once.
 * Reference: arch_case.h; GGUF 3. Worked number: none needed.
 */
#include "support/arch_case.h"

#include "base/text.h"
#include "container/gguf.h"
#include "support/support.h"

struct made {
    struct container base;
    struct blob blob;
    struct text bytes; /* of the small file */
    size_t capacity;
};

/* ---- the container ------------------------------------------------------------------------------------------------------------------- */

static enum status read_blob(struct container *container, size_t index, uint64_t offset, size_t nbytes, void *buf, struct err *err)
{
    struct made *made = (struct made *)container;
    (void)index;
    if (offset + nbytes > made->bytes.nbytes) return err_set(err, ERR_DATA, "ends early");
    memcpy(buf, made->bytes.data + offset, nbytes);
    return OK;
}

static void close_made(struct container *container)
{
    struct made *made = (struct made *)container;
    for (size_t i = 0; i < made->base.n_tensors; i++) {
        free((void *)(uintptr_t)made->base.tensors[i].name);
        free((void *)(uintptr_t)made->base.tensors[i].dims);
    }
    free(made->base.tensors);
    text_free(&made->bytes);
    free(made);
}

static const struct container_ops made_ops = { .name = "made", .read_blob = read_blob, .close = close_made };

/* ---- GGUF keys ------------------------------------------------------------------------------------------------------------------------ */

static void add_number(struct text *text, uint64_t number, size_t nbytes)
{
    for (size_t i = 0; i < nbytes; i++) {
        char byte = (char)(number >> (8 * i));
        text_add_bytes(text, &byte, 1);
    }
}

static void add_string(struct text *text, const char *string, size_t n)
{
    add_number(text, n, 8);
    text_add_bytes(text, string, n);
}

static void add_value(struct text *text, const char *value, size_t n)
{
    char copy[64] = { 0 };
    assert_true(n < sizeof copy);
    memcpy(copy, value, n);
    if (strspn(copy, "0123456789") == n) {
        add_number(text, GGUF_U32, 4);
        add_number(text, strtoul(copy, NULL, 10), 4);
    } else if (strspn(copy, "0123456789.e-") == n) {
        float number = strtof(copy, NULL);
        uint32_t bits = 0;
        memcpy(&bits, &number, 4);
        add_number(text, GGUF_F32, 4);
        add_number(text, bits, 4);
    } else if (strspn(copy, "0123456789,") == n) {
        size_t count = 1;
        for (const char *at = copy; *at; at++) count += *at == ',';
        add_number(text, GGUF_ARRAY, 4);
        add_number(text, GGUF_I32, 4);
        add_number(text, count, 8);
        for (char *at = copy; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) add_number(text, strtoul(at, NULL, 10), 4);
    } else if (strcmp(copy, "true") == 0 || strcmp(copy, "false") == 0) {
        add_number(text, GGUF_BOOL, 4);
        add_number(text, copy[0] == 't', 1);
    } else {
        add_number(text, GGUF_STRING, 4);
        add_string(text, copy, n);
    }
}

/* Keys without the architecture's name get it. */
static void make_gguf(struct text *out, const char *keys)
{
    const char *arch = strchr(keys, '=') + 1;
    size_t n_arch = strcspn(arch, " "), count = 0;
    for (const char *at = keys; *at; at++) count += *at == '=';
    text_add_bytes(out, "GGUF", 4);
    add_number(out, 3, 4);
    add_number(out, 0, 8);
    add_number(out, count, 8);
    for (const char *at = keys; *at; at += strspn(at, " ")) {
        char name[128];
        size_t n = strcspn(at, "="), n_value = strcspn(at + n + 1, " ");
        if (memchr(at, '.', n) && strncmp(at, "general.", 8) == 0) snprintf(name, sizeof name, "%.*s", (int)n, at);
        else snprintf(name, sizeof name, "%.*s.%.*s", (int)n_arch, arch, (int)n, at);
        add_string(out, name, strlen(name));
        add_value(out, at + n + 1, n_value);
        at += n + 1 + n_value;
    }
}

/* ---- tensors -------------------------------------------------------------------------------------------------------------------------- */

static void add_tensor(struct made *made, const char *name, const char *shape, const char *type)
{
    struct container *base = &made->base;
    static const struct {
        int unused;
    } blocks;
    if (base->n_tensors == made->capacity) {
        made->capacity = made->capacity ? made->capacity * 2 : 64;
        base->tensors = realloc(base->tensors, made->capacity * sizeof *base->tensors);
        assert_non_null(base->tensors);
    }
    uint64_t *dims = calloc(8, sizeof *dims);
    struct tensor *tensor = &base->tensors[base->n_tensors++];
    size_t n = strlen(name);
    bool bare = n > 5 && strcmp(name + n - 5, ".bias") == 0, star = name[n - 1] == '*';
    char *full = malloc(n + 8);
    assert_true(dims && full);
    snprintf(full, n + 8, "%.*s%s", (int)(star ? n - 1 : n), name, bare || star ? "" : ".weight");
    *tensor = (struct tensor){ .name = full, .dims = dims, .n_weights = 1, .dtype = dtype_find("BF16", 4) };
    for (const char *at = shape; at; at = strchr(at, 'x') ? strchr(at, 'x') + 1 : NULL) {
        dims[tensor->rank] = strtoul(at, NULL, 10);
        tensor->n_weights *= dims[tensor->rank++];
    }
    if (strcmp(type, "Q") == 0) {
        tensor->quantised = &blocks;
        tensor->format = "q4_k";
    } else if (*type) tensor->dtype = dtype_find(type, strlen(type));
    assert_non_null(tensor->dtype);
}

static void add_experts(struct made *made, const char *name, const char *shape, const char *type)
{
    const char *mark = strstr(name, "{e:");
    char one[256];
    if (!mark) {
        add_tensor(made, name, shape, type);
        return;
    }
    const char *rest = strchr(mark, '}') + 1;
    for (unsigned e = 0; e < strtoul(mark + 3, NULL, 10); e++) {
        snprintf(one, sizeof one, "%.*s%u%s", (int)(mark - name), name, e, rest);
        add_experts(made, one, shape, type);
    }
}

static void add_line(struct made *made, const char *line, size_t n, const char *start, uint32_t n_layers)
{
    char copy[256], name[256], shape[64] = "", type[16] = "", full[600];
    assert_true(n < sizeof copy);
    memcpy(copy, line, n);
    copy[n] = '\0';
    if (sscanf(copy, "%255s %63s %15s", name, shape, type) < 2) fail_msg("no tensor: %s", copy);
    if (name[0] != '@') {
        add_experts(made, name, shape, type);
        return;
    }
    char *colon = strchr(name, ':');
    bool only = colon && colon - name < 4 && strspn(name + 1, "0123456789") == (size_t)(colon - name - 1);
    const char *mark = strstr(start, "{n}");
    for (uint32_t layer = 0; layer < 100; layer++) {
        if (only ? layer != strtoul(name + 1, NULL, 10) : layer >= n_layers) continue;
        snprintf(full, sizeof full, "%.*s%u%s%s", (int)(mark - start), start, layer, mark + 3, only ? colon + 1 : name + 1);
        add_experts(made, full, shape, type);
    }
}

struct container *arch_case_container(const char *config, const char *start, uint32_t n_layers, const char *tensors)
{
    struct made *made = calloc(1, sizeof *made);
    assert_non_null(made);
    made->base.ops = &made_ops;
    made->bytes = text_make((size_t)1 << 20);
    if (config) {
        bool gguf = strncmp(config, "gguf ", 5) == 0;
        if (gguf) make_gguf(&made->bytes, config + 5);
        else text_add_bytes(&made->bytes, config, strlen(config));
        static char names[2][16] = { "config.json", GGUF_BLOB_NAME };
        made->blob = (struct blob){ names[gguf], made->bytes.nbytes };
        made->base.blobs = &made->blob;
        made->base.n_blobs = 1;
    }
    for (const char *at = tensors; *at;) {
        size_t n = strcspn(at, "\n");
        if (n > 0) add_line(made, at, n, start, n_layers);
        at += n + (at[n] == '\n');
    }
    return &made->base;
}

/* ---- groups as text ------------------------------------------------------------------------------------------------------------------ */

/* The name without the beginning of its layer and without .weight. */
static void add_name(struct text *text, const char *name, const char *start, uint32_t layer)
{
    char prefix[128];
    const char *mark = strstr(start, "{n}");
    snprintf(prefix, sizeof prefix, "%.*s%u%s", (int)(mark - start), start, layer, mark + 3);
    if (strncmp(name, prefix, strlen(prefix)) == 0) name += strlen(prefix);
    size_t n = strlen(name);
    if (n > 7 && strcmp(name + n - 7, ".weight") == 0) n -= 7;
    text_add(text, "%.*s", (int)n, name);
}

static void add_side(struct text *text, const struct container *container, const struct smooth_side *side, uint64_t n, const char *start,
                     uint32_t layer)
{
    text_add(text, " ");
    add_name(text, container->tensors[side->tensor].name, start, layer);
    if (side->along_rows) text_add(text, "^");
    if (side->first != 0 || side->run != n || side->step != n)
        text_add(text, "@%llu+%llu/%llu", (unsigned long long)side->first, (unsigned long long)side->run, (unsigned long long)side->step);
    if (side->mat != 0 || side->n_mats != 1) text_add(text, "#%llu+%llu", (unsigned long long)side->mat, (unsigned long long)side->n_mats);
    if (side->plus_one) text_add(text, "~");
    if (side->root) text_add(text, "!");
    const char *name = container->tensors[side->tensor].name;
    bool bias = strstr(name, "bias") != NULL;
    if (bias != side->is_bias) text_add(text, "?");
}

static void add_group(struct text *text, const struct container *container, const struct smooth_group *group, const char *start)
{
    static const char *const kinds[SMOOTH_KIND_COUNT] = { "N", "N1", "U", "R", "V", "VG", "M", "G" };
    text_add(text, "%s%s ", kinds[group->kind], group->on_request ? "?" : "");
    add_name(text, group->id, start, group->layer);
    text_add(text, " %llu", (unsigned long long)group->n);
    if (group->share_heads != 1) text_add(text, "/%llux%llu", (unsigned long long)group->share_heads, (unsigned long long)group->share_run);
    text_add(text, ":");
    for (size_t i = 0; i < group->n_producers; i++)
        add_side(text, container, &group->producers[i], smooth_group_producers(group), start, group->layer);
    text_add(text, " ->");
    for (size_t i = 0; i < group->n_consumers; i++) add_side(text, container, &group->consumers[i], group->n, start, group->layer);
    text_add(text, "\n");
}

char *arch_case_groups(const struct container *container, const struct smooth_groups *groups, const char *start, uint32_t layer)
{
    struct text text = text_make((size_t)1 << 24);
    for (size_t i = 0; i < groups->n_groups; i++)
        if (groups->groups[i].layer == layer) add_group(&text, container, &groups->groups[i], start);
    char *out = strdup(text.data);
    assert_true(out && !text.failed);
    text_free(&text);
    return out;
}

char *arch_case_refusals(const struct smooth_groups *groups)
{
    struct text text = text_make((size_t)1 << 24);
    for (size_t i = 0; i < groups->n_refusals; i++) text_add(&text, "%s: %s\n", groups->refusals[i].id, groups->refusals[i].why);
    char *out = strdup(text.data);
    assert_true(out && !text.failed);
    text_free(&text);
    return out;
}
