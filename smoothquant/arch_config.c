/* arch_config.c: see arch_config.h.
 *
 * Drawing: blob config.json -> strict JSON tree; blob metadata.gguf -> keys, whose values are read when asked for.
 * Why this way: the vocabulary of a GGUF file is megabytes that nobody here needs.
 * Corner cases: config.json over 16 MiB, names over 160 bytes with {arch} filled in, and texts over 64 KiB are refused or absent.
 * Reference: see arch_config.h. Worked number: none needed.
 */
#include "smoothquant/arch_config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "container/gguf.h"
#include "container/gguf_header.h"

#define JSON_NAME "config.json"
#define JSON_NBYTES_MAX ((uint64_t)16 << 20)
#define TEXT_NBYTES_MAX 65536u

enum { SCOPES_MAX = 8, ITEMS_MAX = 4096, NAME_MAX_NBYTES = 160 };

/* Bytes of one blob. */
struct blob_source {
    struct container *container;
    size_t blob;
};

struct arch_config {
    cJSON *root;
    const cJSON *scopes[SCOPES_MAX]; /* the nested ones, then root */
    size_t n_scopes;
    bool is_gguf;
    struct blob_source blob;
    struct gguf_header header;
    char *arch; /* general.architecture */
    const char *names[2 * SCOPES_MAX]; /* of the architecture; belong to root, or arch */
    size_t n_names;
};

static enum status no_memory(struct err *err)
{
    return err_set(err, ERR_MEMORY, "out of memory for a configuration");
}

void config_value_free(struct config_value *value)
{
    free(value->text);
    free(value->numbers);
    for (size_t i = 0; value->texts && i < value->n; i++) free(value->texts[i]);
    free(value->texts);
    *value = (struct config_value){ 0 };
}

/* Room for n numbers or texts. */
static enum status make_list(struct config_value *out, bool texts, size_t n, struct err *err)
{
    out->kind = texts ? CONFIG_TEXTS : CONFIG_NUMBERS;
    out->n = n;
    if (texts) out->texts = calloc(n + 1, sizeof *out->texts);
    else out->numbers = calloc(n + 1, sizeof *out->numbers);
    return out->texts || out->numbers ? OK : no_memory(err);
}

static enum status set_text(struct config_value *out, const char *text, struct err *err)
{
    out->text = strdup(text);
    out->kind = CONFIG_TEXT;
    return out->text ? OK : no_memory(err);
}

/* ---- config.json -------------------------------------------------------------------------------------------------------------------- */

static enum status read_json(struct arch_config *config, struct container *container, size_t blob, struct err *err)
{
    const struct json_limits limits = { .max_depth = 32, .max_values = 1u << 20 };
    uint64_t nbytes = container->blobs[blob].nbytes;
    if (nbytes > JSON_NBYTES_MAX) return err_set(err, ERR_UNSUPPORTED, "is %llu bytes, more than 16 MiB", (unsigned long long)nbytes);
    char *text = malloc((size_t)nbytes + 1);
    if (!text) return no_memory(err);
    enum status status = container_read_blob(container, blob, 0, (size_t)nbytes, text, err);
    text[nbytes] = '\0';
    if (status == OK) status = json_parse(text, (size_t)nbytes, &limits, &config->root, err);
    free(text);
    if (status == OK && !cJSON_IsObject(config->root)) return err_set(err, ERR_DATA, "is no JSON object");
    return status;
}

static void find_scopes(struct arch_config *config, const char *const *nested)
{
    for (size_t i = 0; nested && nested[i] && config->n_scopes + 1 < SCOPES_MAX; i++) {
        const cJSON *member = json_get(config->root, nested[i]);
        if (cJSON_IsObject(member)) config->scopes[config->n_scopes++] = member;
    }
    config->scopes[config->n_scopes++] = config->root;
}

static void find_names(struct arch_config *config)
{
    for (size_t i = 0; i < config->n_scopes; i++) {
        const cJSON *scope = config->scopes[i == 0 ? config->n_scopes - 1 : i - 1]; /* root first */
        const cJSON *list = json_get(scope, "architectures"), *first = cJSON_IsArray(list) ? list->child : NULL,
                    *type = json_get(scope, "model_type");
        if (cJSON_IsString(first)) config->names[config->n_names++] = first->valuestring;
        if (cJSON_IsString(type)) config->names[config->n_names++] = type->valuestring;
    }
}

/* Member "a.b" of an object, or NULL. */
static const cJSON *json_path(const cJSON *object, const char *path)
{
    char piece[NAME_MAX_NBYTES];
    for (const char *at = path; object; at = strchr(at, '.') + 1) {
        size_t n = strcspn(at, ".");
        if (n >= sizeof piece || !cJSON_IsObject(object)) return NULL;
        memcpy(piece, at, n);
        piece[n] = '\0';
        object = json_get(object, piece);
        if (at[n] == '\0') return cJSON_IsNull(object) ? NULL : object;
    }
    return NULL;
}

static enum status json_list(const cJSON *item, struct config_value *out, struct err *err)
{
    size_t n = 0, i = 0;
    const cJSON *one = NULL;
    bool numbers = true, texts = true;
    cJSON_ArrayForEach(one, item)
    {
        n++;
        numbers = numbers && (cJSON_IsNumber(one) || cJSON_IsBool(one));
        texts = texts && cJSON_IsString(one);
    }
    if (n > ITEMS_MAX || (!numbers && !texts)) return OK;
    enum status status = make_list(out, texts && !numbers, n, err);
    if (status != OK) return status;
    cJSON_ArrayForEach(one, item)
    {
        if (out->numbers) out->numbers[i++] = cJSON_IsNumber(one) ? one->valuedouble : cJSON_IsTrue(one);
        else if (!(out->texts[i++] = strdup(one->valuestring))) return no_memory(err);
    }
    return OK;
}

static enum status json_value(const cJSON *item, struct config_value *out, struct err *err)
{
    if (cJSON_IsString(item)) return set_text(out, item->valuestring, err);
    if (cJSON_IsArray(item)) return json_list(item, out, err);
    if (cJSON_IsBool(item)) *out = (struct config_value){ .kind = CONFIG_FLAG, .number = cJSON_IsTrue(item) };
    else if (cJSON_IsNumber(item) && isfinite(item->valuedouble)) *out = (struct config_value){ .kind = CONFIG_NUMBER, .number = item->valuedouble };
    return OK; /* an object is no value */
}

/* ---- GGUF keys ---------------------------------------------------------------------------------------------------------------------- */

static enum status read_blob(void *context, void *buf, size_t nbytes, uint64_t offset, struct err *err)
{
    const struct blob_source *source = context;
    return container_read_blob(source->container, source->blob, offset, nbytes, buf, err);
}

static enum status read_at(const struct arch_config *config, void *buf, size_t nbytes, uint64_t offset, struct err *err)
{
    return container_read_blob(config->blob.container, config->blob.blob, offset, nbytes, buf, err);
}

static uint64_t little_endian(const uint8_t *bytes, size_t n)
{
    uint64_t value = 0;
    for (size_t i = 0; i < n; i++) value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

/* Bytes of a scalar; 0 for strings and arrays. */
static size_t scalar_nbytes(uint32_t type)
{
    static const uint8_t sizes[GGUF_VALUE_COUNT] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    return type < GGUF_VALUE_COUNT ? sizes[type] : 0;
}

static double scalar(uint32_t type, const uint8_t *bytes)
{
    uint64_t bits = little_endian(bytes, scalar_nbytes(type));
    uint32_t low = (uint32_t)bits;
    float single = 0;
    double number = (double)bits;
    if (type == GGUF_F32) {
        memcpy(&single, &low, sizeof single);
        return (double)single;
    }
    if (type == GGUF_F64) memcpy(&number, &bits, sizeof number);
    if (type == GGUF_I8) number = (double)(int8_t)bits;
    if (type == GGUF_I16) number = (double)(int16_t)bits;
    if (type == GGUF_I32) number = (double)(int32_t)bits;
    if (type == GGUF_I64) number = (double)(int64_t)bits;
    if (type == GGUF_BOOL) number = bits != 0;
    return number;
}

/* The string at offset, which moves behind it; NULL and OK when it is too long. */
static enum status read_string(const struct arch_config *config, uint64_t *offset, char **out, struct err *err)
{
    uint8_t head[8];
    enum status status = read_at(config, head, sizeof head, *offset, err);
    *out = NULL;
    if (status != OK) return status;
    uint64_t n = little_endian(head, 8);
    if (n > TEXT_NBYTES_MAX) return OK;
    *out = malloc((size_t)n + 1);
    if (!*out) return no_memory(err);
    (*out)[n] = '\0';
    status = read_at(config, *out, (size_t)n, *offset + 8, err);
    *offset += 8 + n;
    return status;
}

static enum status gguf_list(const struct arch_config *config, const struct gguf_key *key, struct config_value *out, struct err *err)
{
    size_t size = scalar_nbytes(key->array_type), n = (size_t)key->count;
    uint64_t at = key->value_offset + 12;
    uint8_t bytes[8];
    if (key->count > ITEMS_MAX || key->array_type == GGUF_ARRAY) return OK;
    enum status status = make_list(out, size == 0, n, err);
    for (size_t i = 0; i < n && status == OK; i++) {
        if (size == 0) {
            status = read_string(config, &at, &out->texts[i], err);
            if (status == OK && !out->texts[i]) status = err_set(err, ERR_UNSUPPORTED, "key '%s' has a text over 64 KiB", key->name);
            continue;
        }
        status = read_at(config, bytes, size, at + i * size, err);
        if (status == OK) out->numbers[i] = scalar(key->array_type, bytes);
    }
    return status;
}

static enum status gguf_value(const struct arch_config *config, const struct gguf_key *key, struct config_value *out, struct err *err)
{
    uint64_t at = key->value_offset;
    uint8_t bytes[8] = { 0 };
    if (key->type == GGUF_ARRAY) return gguf_list(config, key, out, err);
    if (key->type == GGUF_STRING) {
        enum status status = read_string(config, &at, &out->text, err);
        if (out->text) out->kind = CONFIG_TEXT;
        return status;
    }
    enum status status = read_at(config, bytes, scalar_nbytes(key->type), at, err);
    if (status != OK) return status;
    double number = scalar(key->type, bytes);
    if (!isfinite(number)) return err_set(err, ERR_DATA, "key '%s' is not finite", key->name);
    *out = (struct config_value){ .kind = key->type == GGUF_BOOL ? CONFIG_FLAG : CONFIG_NUMBER, .number = number };
    return OK;
}

static enum status gguf_get(const struct arch_config *config, const char *name, struct config_value *out, struct err *err)
{
    char full[NAME_MAX_NBYTES];
    const char *mark = strstr(name, "{arch}");
    int n = mark ? snprintf(full, sizeof full, "%.*s%s%s", (int)(mark - name), name, config->arch ? config->arch : "", mark + 6)
                 : snprintf(full, sizeof full, "%s", name);
    if (n < 0 || (size_t)n >= sizeof full) return OK;
    const struct gguf_key *key = gguf_find_key(&config->header, full);
    return key ? gguf_value(config, key, out, err) : OK;
}

static enum status read_gguf(struct arch_config *config, struct container *container, size_t blob, struct err *err)
{
    struct config_value value = { 0 };
    config->blob = (struct blob_source){ container, blob };
    config->is_gguf = true;
    const struct gguf_source source = { read_blob, &config->blob, container->blobs[blob].nbytes };
    enum status status = gguf_header_parse(&source, &config->header, err);
    if (status == OK) status = gguf_get(config, "general.architecture", &value, err);
    if (status == OK && value.kind == CONFIG_TEXT) {
        config->arch = value.text;
        config->names[config->n_names++] = config->arch;
        value.text = NULL;
    }
    config_value_free(&value);
    return status;
}

/* ---- both --------------------------------------------------------------------------------------------------------------------------- */

static size_t find_blob(const struct container *container, const char *name)
{
    for (size_t i = 0; i < container->n_blobs; i++)
        if (strcmp(container->blobs[i].name, name) == 0) return i;
    return SIZE_MAX;
}

enum status arch_config_open(struct container *container, const char *const *nested, struct arch_config **out, struct err *err)
{
    struct arch_config *config = calloc(1, sizeof *config);
    size_t json = find_blob(container, JSON_NAME), gguf = find_blob(container, GGUF_BLOB_NAME);
    enum status status = OK;
    if (!config) return no_memory(err);
    if (json != SIZE_MAX) {
        status = read_json(config, container, json, err);
        if (status != OK) err_wrap(err, status, "%s", JSON_NAME);
        if (status == OK) {
            find_scopes(config, nested);
            find_names(config);
        }
    } else if (gguf != SIZE_MAX) {
        status = read_gguf(config, container, gguf, err);
        if (status != OK) err_wrap(err, status, "%s", GGUF_BLOB_NAME);
    }
    if (status == OK) *out = config;
    else arch_config_close(config);
    return status;
}

void arch_config_close(struct arch_config *config)
{
    if (!config) return;
    cJSON_Delete(config->root);
    gguf_header_free(&config->header);
    free(config->arch);
    free(config);
}

bool arch_config_is_gguf(const struct arch_config *config)
{
    return config->is_gguf;
}

const char *arch_config_name(const struct arch_config *config, size_t i)
{
    return i < config->n_names ? config->names[i] : NULL;
}

enum status arch_config_get(const struct arch_config *config, const char *name, struct config_value *out, struct err *err)
{
    enum status status = OK;
    *out = (struct config_value){ 0 };
    if (config->is_gguf) status = gguf_get(config, name, out, err);
    for (size_t i = 0; i < config->n_scopes && status == OK && out->kind == CONFIG_ABSENT; i++) {
        const cJSON *item = json_path(config->scopes[i], name);
        if (item) status = json_value(item, out, err);
    }
    if (status != OK) config_value_free(out);
    return status;
}
