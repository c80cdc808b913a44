/* arch_model.c: the section `forward` of an architecture file and the facts of a model, as a struct arch_model; see arch_model.h.
 *
 *   forward: {norm: rms, position: rope, cases: [{if: {file: gguf}, rope_pairs: interleaved}]}     a later case that holds replaces keys
 *
 * Why this way: a key is a row of a table: its name, its kind, its place in struct spec. A number or a flag may be written as such or as the name of a
 * fact, which is then asked. What the tensors themselves say (a gate, biases, norms of heads, fused or not) is read off them.
 * Corner cases: unknown keys and words are refused with their line; a fact that the model does not have leaves the key at its default.
 * Reference: configs/arch/README.md. Worked number: fused [q; k; v] of 32 and 8 heads of 128: q first 0, k first 4096, v first 5120.
 */
#include "smoothquant/arch_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "smoothquant/arch_self.h"

/* ---- the section ------------------------------------------------------------------------------------------------------------------- */

enum window_rule { WINDOW_NONE, WINDOW_ALL, WINDOW_PATTERN };
enum qkv_parts { QKV_BLOCKS, QKV_GROUPED };
enum gate_parts { GATE_HALVES, GATE_INTERLEAVED };

/* The values of all keys. Numbers that are not given are 0. */
struct spec {
    int norm, position, pairs, router, window, qkv, gate_up;
    bool norm_always, parallel, norm_topk, logits_divide, local_rope, window_flag;
    double norm_eps, embed_scale, residual_scale, logits_scale, attn_scale, attn_scalar, attn_softcap, logits_softcap, glu_limit, clip_qkv,
        router_scale;
    double position_offset, window_size, window_pattern, window_from, rope_theta, local_theta;
    double n_kv_heads; /* 0: that of the facts */
    const char *act, *refuse, *attn_norm, *ffn_norm; /* the last two are keys of tensors */
};

static const char *const norm_words[] = { "none", "rms", "layer", NULL };
static const char *const position_words[] = { "rope", "learned", "alibi", "none", NULL };
static const char *const pair_words[] = { "half", "interleaved", NULL };
static const char *const router_words[] = { "softmax", "softmax_chosen", "sigmoid", NULL };
static const char *const window_words[] = { "none", "all", "pattern", NULL };
static const char *const qkv_words[] = { "blocks", "grouped", NULL };
static const char *const gate_words[] = { "halves", "interleaved", NULL };

enum key_kind { KEY_WORD, KEY_NUMBER, KEY_FLAG, KEY_TEXT };

static const struct key_row {
    const char *name;
    enum key_kind kind;
    size_t offset;
    const char *const *words;
} keys[] = {
    { "norm", KEY_WORD, offsetof(struct spec, norm), norm_words },
    { "position", KEY_WORD, offsetof(struct spec, position), position_words },
    { "rope_pairs", KEY_WORD, offsetof(struct spec, pairs), pair_words },
    { "router", KEY_WORD, offsetof(struct spec, router), router_words },
    { "window", KEY_WORD, offsetof(struct spec, window), window_words },
    { "qkv", KEY_WORD, offsetof(struct spec, qkv), qkv_words },
    { "gate_up", KEY_WORD, offsetof(struct spec, gate_up), gate_words },
    { "norm_always", KEY_FLAG, offsetof(struct spec, norm_always), NULL },
    { "parallel", KEY_FLAG, offsetof(struct spec, parallel), NULL },
    { "norm_topk", KEY_FLAG, offsetof(struct spec, norm_topk), NULL },
    { "logits_divide", KEY_FLAG, offsetof(struct spec, logits_divide), NULL },
    { "local_rope", KEY_FLAG, offsetof(struct spec, local_rope), NULL },
    { "window_flag", KEY_FLAG, offsetof(struct spec, window_flag), NULL },
    { "norm_eps", KEY_NUMBER, offsetof(struct spec, norm_eps), NULL },
    { "embed_scale", KEY_NUMBER, offsetof(struct spec, embed_scale), NULL },
    { "residual_scale", KEY_NUMBER, offsetof(struct spec, residual_scale), NULL },
    { "logits_scale", KEY_NUMBER, offsetof(struct spec, logits_scale), NULL },
    { "attn_scale", KEY_NUMBER, offsetof(struct spec, attn_scale), NULL },
    { "attn_scalar", KEY_NUMBER, offsetof(struct spec, attn_scalar), NULL },
    { "attn_softcap", KEY_NUMBER, offsetof(struct spec, attn_softcap), NULL },
    { "logits_softcap", KEY_NUMBER, offsetof(struct spec, logits_softcap), NULL },
    { "glu_limit", KEY_NUMBER, offsetof(struct spec, glu_limit), NULL },
    { "clip_qkv", KEY_NUMBER, offsetof(struct spec, clip_qkv), NULL },
    { "router_scale", KEY_NUMBER, offsetof(struct spec, router_scale), NULL },
    { "position_offset", KEY_NUMBER, offsetof(struct spec, position_offset), NULL },
    { "window_size", KEY_NUMBER, offsetof(struct spec, window_size), NULL },
    { "window_pattern", KEY_NUMBER, offsetof(struct spec, window_pattern), NULL },
    { "window_from", KEY_NUMBER, offsetof(struct spec, window_from), NULL },
    { "rope_theta", KEY_NUMBER, offsetof(struct spec, rope_theta), NULL },
    { "local_theta", KEY_NUMBER, offsetof(struct spec, local_theta), NULL },
    { "act", KEY_TEXT, offsetof(struct spec, act), NULL },
    { "attn_norm", KEY_TEXT, offsetof(struct spec, attn_norm), NULL },
    { "ffn_norm", KEY_TEXT, offsetof(struct spec, ffn_norm), NULL },
    { "n_kv_heads", KEY_NUMBER, offsetof(struct spec, n_kv_heads), NULL },
    { "refuse", KEY_TEXT, offsetof(struct spec, refuse), NULL },
};

enum { N_KEYS = sizeof keys / sizeof keys[0] };

struct reader {
    const struct arch *arch;
    const struct yaml_doc *doc;
    struct spec *spec;
    struct err *err;
};

static enum status read_word(const struct reader *r, const struct key_row *key, const struct yaml_node *node, int *out)
{
    for (int i = 0; key->words[i]; i++)
        if (strcmp(key->words[i], node->value) == 0) {
            *out = i;
            return OK;
        }
    return yaml_error(r->doc, node, r->err, "'%s' is no value of '%s'", node->value, key->name);
}

/* A number as written, "sqrt(FACT)", or a fact; a fact that is not known leaves *out alone. */
static enum status read_number(const struct reader *r, const struct yaml_node *node, double *out)
{
    char *end;
    double value = strtod(node->value, &end);
    size_t n = strlen(node->value);
    if (*node->value && *end == '\0') {
        *out = value;
        return OK;
    }
    const bool root = n > 6 && strncmp(node->value, "sqrt(", 5) == 0 && node->value[n - 1] == ')';
    const char *name = root ? node->value + 5 : node->value;
    if (!arch_fact_find(r->arch, name, root ? n - 6 : n)) return yaml_error(r->doc, node, r->err, "'%s' is no number and no fact", node->value);
    char fact[256];
    memcpy(fact, name, root ? n - 6 : n);
    fact[root ? n - 6 : n] = '\0';
    if (arch_number(r->arch, fact, &value)) *out = root ? sqrt(value) : value;
    return OK;
}

static enum status read_flag(const struct reader *r, const struct yaml_node *node, bool *out)
{
    if (!node->quoted && (strcmp(node->value, "true") == 0 || strcmp(node->value, "false") == 0)) return yaml_bool(r->doc, node, out, r->err);
    if (!arch_fact_find(r->arch, node->value, strlen(node->value)))
        return yaml_error(r->doc, node, r->err, "'%s' is neither true nor false nor a fact", node->value);
    (void)arch_flag(r->arch, node->value, out);
    return OK;
}

static enum status read_text(const struct reader *r, const struct yaml_node *node, const char **out)
{
    if (!arch_text(r->arch, node->value, out)) *out = node->value;
    return OK;
}

static enum status read_key(const struct reader *r, const struct yaml_node *node)
{
    for (size_t i = 0; i < N_KEYS; i++) {
        if (strcmp(keys[i].name, node->key) != 0) continue;
        char *at = (char *)r->spec + keys[i].offset;
        enum status status = yaml_expect(r->doc, node, YAML_SCALAR_VALUE, r->err);
        if (status != OK) return status;
        if (keys[i].kind == KEY_WORD) return read_word(r, &keys[i], node, (int *)(void *)at);
        if (keys[i].kind == KEY_NUMBER) return read_number(r, node, (double *)(void *)at);
        if (keys[i].kind == KEY_FLAG) return read_flag(r, node, (bool *)at);
        return read_text(r, node, (const char **)(void *)at);
    }
    return yaml_error(r->doc, node, r->err, "'%s' is no key of the section forward", node->key);
}

static enum status read_map(const struct reader *r, const struct yaml_node *map, bool is_case)
{
    enum status status = OK;
    for (size_t i = 0; i < map->n_items && status == OK; i++) {
        const struct yaml_node *item = map->items[i];
        if (strcmp(item->key, is_case ? "if" : "cases") == 0) continue;
        status = read_key(r, item);
    }
    return status;
}

static enum status read_spec(const struct arch *arch, struct spec *spec, struct err *err)
{
    const struct yaml_doc *doc;
    const struct yaml_node *section = arch_section(arch, "forward", &doc);
    if (!section)
        return err_set(err, ERR_UNSUPPORTED, "the architecture file '%s' does not say how the model computes (section forward)", arch_name(arch));
    *spec = (struct spec){ .norm = NORM_RMS,
                           .embed_scale = 1,
                           .residual_scale = 1,
                           .logits_scale = 1,
                           .router_scale = 1,
                           .window_flag = true,
                           .attn_norm = "attn_norm",
                           .ffn_norm = "ffn_norm" };
    (void)arch_number(arch, "norm_eps", &spec->norm_eps);
    (void)arch_number(arch, "sliding_window", &spec->window_size);
    (void)arch_number(arch, "rope_theta", &spec->rope_theta);
    (void)arch_number(arch, "clip_qkv", &spec->clip_qkv);
    (void)arch_text(arch, "act", &spec->act);
    const struct reader reader = { arch, doc, spec, err };
    enum status status = yaml_expect(doc, section, YAML_MAP, err);
    if (status == OK) status = read_map(&reader, section, false);
    const struct yaml_node *cases = status == OK ? yaml_get(section, "cases") : NULL;
    if (cases) status = yaml_expect(doc, cases, YAML_SEQUENCE, err);
    for (size_t i = 0; cases && i < cases->n_items && status == OK; i++) {
        status = yaml_expect(doc, cases->items[i], YAML_MAP, err);
        const struct arch_at condition = { doc, status == OK ? yaml_get(cases->items[i], "if") : NULL };
        if (status == OK && arch_condition(arch, condition, 0)) status = read_map(&reader, cases->items[i], true);
    }
    if (status == OK && spec->refuse) return err_set(err, ERR_UNSUPPORTED, "the forward pass does not know this model: %s", spec->refuse);
    return status;
}

/* A number as a count of at most max; anything else, NaN too, is 0. */
static size_t count_of(double value, double max)
{
    return value >= 1.0 && value <= max ? (size_t)value : 0;
}

/* ---- weights ----------------------------------------------------------------------------------------------------------------------- */

struct finder {
    const struct arch *arch;
    const struct container *container;
    struct arch_model *model;
    const struct spec *spec;
    struct err *err;
};

static struct weight_part nothing(void)
{
    return (struct weight_part){ .tensor = SIZE_MAX, .run = 1, .step = 1 };
}

static struct model_linear no_linear(void)
{
    return (struct model_linear){ nothing(), nothing() };
}

static const char *shown_name(const struct finder *f, size_t tensor, char out[200])
{
    const char *name = f->container->tensors[tensor].name;
    return err_name(name, strlen(name), out, 200);
}

/* A vector of n values from place first on in row `row` of a tensor that has `all` values a row. */
static enum status vector(const struct finder *f, size_t tensor, uint64_t row, uint64_t first, uint64_t n, uint64_t run, uint64_t step, uint64_t all,
                          struct weight_part *out)
{
    char shown[200];
    *out = nothing();
    if (tensor == SIZE_MAX) return OK;
    const struct tensor *t = &f->container->tensors[tensor];
    if (t->n_weights % size_max(all, 1) != 0 || row >= t->n_weights / size_max(all, 1))
        return err_set(f->err, ERR_DATA, "tensor '%s' has %llu values where %llu are expected", shown_name(f, tensor, shown),
                       (unsigned long long)t->n_weights, (unsigned long long)all);
    *out = (struct weight_part){ .tensor = tensor, .base = row, .first = first, .run = run, .step = step, .n_out = n, .n_in = 1, .is_vector = true };
    if (tensor_cols(t) == all) return OK;
    return err_set(f->err, ERR_DATA, "tensor '%s' has rows of %llu where %llu are expected", shown_name(f, tensor, shown),
                   (unsigned long long)tensor_cols(t), (unsigned long long)all);
}

/* Where a matrix lies in its tensor. */
struct matrix_place {
    uint64_t number; /* of the matrix in a stack */
    uint64_t all; /* outputs of the whole matrix */
    uint64_t first, n, run, step; /* those that are wanted */
};

/* The part of a matrix of `all` outputs and n_in inputs. */
static enum status matrix(const struct finder *f, const char *key, size_t tensor, const struct matrix_place *place, uint64_t n_in,
                          struct weight_part *out)
{
    char shown[200];
    const struct tensor *t = &f->container->tensors[tensor];
    const bool transposed = arch_transposed(f->arch, key);
    const uint64_t rows = transposed ? n_in : place->all, cols = transposed ? place->all : n_in;
    if (tensor_cols(t) != cols || tensor_rows(t) < (place->number + 1) * rows || tensor_rows(t) % size_max(rows, 1) != 0)
        return err_set(f->err, ERR_DATA, "tensor '%s' is %llu x %llu where %llu x %llu is expected", shown_name(f, tensor, shown),
                       (unsigned long long)tensor_rows(t), (unsigned long long)tensor_cols(t), (unsigned long long)rows, (unsigned long long)cols);
    *out = (struct weight_part){ .tensor = tensor,
                                 .transposed = transposed,
                                 .base = place->number * rows,
                                 .first = place->first,
                                 .run = place->run,
                                 .step = place->step,
                                 .n_out = place->n,
                                 .n_in = n_in };
    return OK;
}

static struct matrix_place whole(uint64_t number, uint64_t n)
{
    return (struct matrix_place){ number, n, 0, n, size_max(n, 1), size_max(n, 1) };
}

/* Weight and bias of a part of a projection; n_in inputs. */
static enum status linear_part(const struct finder *f, const char *key, uint32_t layer, uint32_t expert, const struct matrix_place *place,
                               uint64_t n_in, struct model_linear *out)
{
    size_t tensor = arch_tensor(f->arch, key, layer, expert, false);
    *out = no_linear();
    if (tensor == SIZE_MAX) return arch_require(f->arch, key, layer, expert, &tensor, f->err);
    enum status status = matrix(f, key, tensor, place, n_in, &out->weight);
    if (status != OK) return status;
    return vector(f, arch_tensor(f->arch, key, layer, expert, true), place->number, place->first, place->n, place->run, place->step, place->all,
                  &out->bias);
}

static enum status linear(const struct finder *f, const char *key, uint32_t layer, uint64_t n_out, uint64_t n_in, struct model_linear *out)
{
    const struct matrix_place place = whole(0, n_out);
    return linear_part(f, key, layer, ARCH_NONE, &place, n_in, out);
}

static bool there(const struct finder *f, const char *key, uint32_t layer)
{
    return arch_tensor(f->arch, key, layer, ARCH_NONE, false) != SIZE_MAX;
}

static enum status norm(const struct finder *f, const char *key, uint32_t layer, uint64_t n, struct model_norm *out)
{
    *out = (struct model_norm){ nothing(), nothing(), false, arch_plus_one(f->arch, key) };
    const struct matrix_place place = whole(0, n);
    enum status status = vector(f, arch_tensor(f->arch, key, layer, ARCH_NONE, false), 0, 0, n, n, n, place.all, &out->gain);
    if (status == OK) status = vector(f, arch_tensor(f->arch, key, layer, ARCH_NONE, true), 0, 0, n, n, n, place.all, &out->bias);
    return status;
}

/* ---- attention --------------------------------------------------------------------------------------------------------------------- */

/* q, k, v of a fused projection. */
static enum status fused_attention(const struct finder *f, uint32_t l, struct model_layer *layer)
{
    const uint64_t d = f->model->head_dim, kv = f->model->n_kv_heads * d, q = f->model->n_heads * d, rep = f->model->n_heads / f->model->n_kv_heads;
    const uint64_t all = q + 2 * kv, group = (rep + 2) * d;
    const bool grouped = f->spec->qkv == QKV_GROUPED;
    const struct matrix_place blocks[] = { { 0, all, 0, q, q, q }, { 0, all, q, kv, kv, kv }, { 0, all, q + kv, kv, kv, kv } };
    const struct matrix_place groups[] = { { 0, all, 0, q, rep * d, group },
                                           { 0, all, rep * d, kv, d, group },
                                           { 0, all, (rep + 1) * d, kv, d, group } };
    struct model_linear *const parts[] = { &layer->q, &layer->k, &layer->v };
    enum status status = OK;
    for (size_t i = 0; i < 3 && status == OK; i++)
        status = linear_part(f, "attn_qkv", l, ARCH_NONE, grouped ? &groups[i] : &blocks[i], f->model->hidden, parts[i]);
    return status;
}

static enum status head_norm(const struct finder *f, const char *key, uint32_t l, uint64_t n_heads, struct model_norm *out)
{
    const size_t tensor = arch_tensor(f->arch, key, l, ARCH_NONE, false);
    const uint64_t d = f->model->head_dim;
    const bool all = tensor != SIZE_MAX && f->container->tensors[tensor].n_weights == n_heads * d && n_heads > 1;
    if (all) f->model->qk_norm = QK_NORM_ALL;
    else if (tensor != SIZE_MAX) f->model->qk_norm = QK_NORM_HEAD;
    return norm(f, key, l, all ? n_heads * d : d, out);
}

static enum status attention(const struct finder *f, uint32_t l, struct model_layer *layer)
{
    const struct arch_model *m = f->model;
    const uint64_t kv = m->n_kv_heads * m->head_dim, q = m->n_heads * m->head_dim;
    enum status status;
    if (there(f, "attn_qkv", l)) status = fused_attention(f, l, layer);
    else {
        status = linear(f, "attn_q", l, q, m->hidden, &layer->q);
        if (status == OK) status = linear(f, "attn_k", l, kv, m->hidden, &layer->k);
        if (status == OK) status = linear(f, "attn_v", l, kv, m->hidden, &layer->v);
    }
    if (status == OK) status = linear(f, "attn_output", l, m->hidden, q, &layer->o);
    if (status == OK) status = head_norm(f, "attn_q_norm", l, m->n_heads, &layer->q_norm);
    if (status == OK) status = head_norm(f, "attn_k_norm", l, m->n_kv_heads, &layer->k_norm);
    if (status == OK)
        status =
            vector(f, arch_tensor(f->arch, "attn_sinks", l, ARCH_NONE, false), 0, 0, m->n_heads, m->n_heads, m->n_heads, m->n_heads, &layer->sinks);
    return status;
}

/* ---- MLP --------------------------------------------------------------------------------------------------------------------------- */

/* Keys of an MLP: of the dense one, of experts, of the shared one. */
struct mlp_keys {
    const char *gate, *up, *down, *gate_up;
};

static const struct mlp_keys dense_keys = { "ffn_gate", "ffn_up", "ffn_down", "ffn_gate_up" };
static const struct mlp_keys expert_keys = { "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps", "ffn_gate_up_exps" };
static const struct mlp_keys shared_keys = { "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp", "ffn_gate_up_shexp" };

/* Outputs of a matrix: all its rows (columns) but the inputs, of one of n_stack matrices; 0 when it cannot be. */
static uint64_t outputs_of(const struct finder *f, const char *key, size_t tensor, uint64_t n_stack, uint64_t n_in)
{
    const uint64_t n = f->container->tensors[tensor].n_weights;
    (void)key;
    return n_in && n_stack && n % (n_in * n_stack) == 0 ? n / n_in / n_stack : 0;
}

/* Gate and up as one matrix. */
static enum status fused_mlp(const struct finder *f, const char *key, uint32_t l, uint32_t expert, uint64_t number, uint64_t all,
                             struct model_mlp *out)
{
    const uint64_t n = all / 2;
    const bool mixed = f->spec->gate_up == GATE_INTERLEAVED;
    const struct matrix_place gate = { number, all, 0, n, mixed ? 1 : n, mixed ? 2 : n },
                              up = { number, all, mixed ? 1 : n, n, mixed ? 1 : n, mixed ? 2 : n };
    out->n = n;
    if (all % 2) return err_set(f->err, ERR_DATA, "layer %u: gate and up have an odd number of rows together", l);
    enum status status = linear_part(f, key, l, expert, &gate, f->model->hidden, &out->gate);
    return status == OK ? linear_part(f, key, l, expert, &up, f->model->hidden, &out->up) : status;
}

/* expert: its number in the names, ARCH_NONE for a whole tensor; number: of the matrix in a stack of n_stack. */
static enum status mlp(const struct finder *f, const struct mlp_keys *k, uint32_t l, uint32_t expert, uint64_t number, uint64_t n_stack,
                       struct model_mlp *out)
{
    const uint64_t hidden = f->model->hidden;
    const size_t both = arch_tensor(f->arch, k->gate_up, l, expert, false), gate = arch_tensor(f->arch, k->gate, l, expert, false);
    size_t down;
    enum status status = arch_require(f->arch, k->down, l, expert, &down, f->err);
    if (status != OK) return status;
    const uint64_t n = outputs_of(f, k->down, down, n_stack, hidden);
    struct matrix_place place = whole(number, n);
    *out = (struct model_mlp){ no_linear(), no_linear(), no_linear(), n };
    if (n == 0) return err_set(f->err, ERR_DATA, "layer %u: %s has a shape that does not fit the model", l, k->down);
    f->model->gated |= both != SIZE_MAX || gate != SIZE_MAX;
    const size_t up = arch_tensor(f->arch, k->up, l, expert, false);
    if (both != SIZE_MAX) status = fused_mlp(f, k->gate_up, l, expert, number, 2 * n, out);
    else if (gate == SIZE_MAX && up != SIZE_MAX && outputs_of(f, k->up, up, n_stack, hidden) == 2 * n) {
        f->model->gated = true;
        status = fused_mlp(f, k->up, l, expert, number, 2 * n, out);
    } else {
        if (gate != SIZE_MAX) status = linear_part(f, k->gate, l, expert, &place, hidden, &out->gate);
        if (status == OK) status = linear_part(f, k->up, l, expert, &place, hidden, &out->up);
    }
    place = whole(number, hidden);
    return status == OK ? linear_part(f, k->down, l, expert, &place, n, &out->down) : status;
}

static enum status experts(const struct finder *f, uint32_t l, struct model_layer *layer)
{
    double n = 0;
    if (!arch_number(f->arch, "n_experts", &n) || !(n >= 1) || n > ARCH_EXPERTS_MAX)
        return err_set(f->err, ERR_DATA, "layer %u has a router, but the configuration does not say how many experts", l);
    if (f->model->n_experts_used < 1 || (double)f->model->n_experts_used > n)
        return err_set(f->err, ERR_DATA, "%zu of %g experts cannot be used", f->model->n_experts_used, n);
    layer->n_experts = (size_t)n;
    layer->experts = calloc(layer->n_experts, sizeof *layer->experts);
    if (!layer->experts) return err_set(f->err, ERR_MEMORY, "out of memory");
    enum status status = linear(f, "ffn_gate_inp", l, layer->n_experts, f->model->hidden, &layer->router);
    if (status == OK)
        status = vector(f, arch_tensor(f->arch, "exp_probs_b", l, ARCH_NONE, false), 0, 0, layer->n_experts, layer->n_experts, layer->n_experts,
                        layer->n_experts, &layer->router_bias);
    const bool stacked = there(f, expert_keys.down, l);
    for (size_t e = 0; e < layer->n_experts && status == OK; e++)
        status = mlp(f, &expert_keys, l, stacked ? ARCH_NONE : (uint32_t)e, stacked ? e : 0, stacked ? layer->n_experts : 1, &layer->experts[e]);
    if (status != OK || !there(f, shared_keys.down, l)) return status;
    layer->has_shared = true;
    status = mlp(f, &shared_keys, l, ARCH_NONE, 0, 1, &layer->shared);
    if (status == OK && there(f, "ffn_gate_inp_shexp", l)) {
        /* one row, or in GGUF a vector */
        const size_t tensor = arch_tensor(f->arch, "ffn_gate_inp_shexp", l, ARCH_NONE, false);
        const struct matrix_place place = whole(0, 1);
        status = matrix(f, "ffn_gate_inp_shexp", tensor, &place, f->model->hidden, &layer->shared_gate.weight);
    }
    return status;
}

static enum status dense(const struct finder *f, uint32_t l, struct model_layer *layer)
{
    layer->n_experts = 1;
    layer->experts = calloc(1, sizeof *layer->experts);
    if (!layer->experts) return err_set(f->err, ERR_MEMORY, "out of memory");
    return mlp(f, &dense_keys, l, ARCH_NONE, 0, 1, layer->experts);
}

/* ---- layers ------------------------------------------------------------------------------------------------------------------------ */

/* Whether the layer's attention has a window: as the list of layer types says, else by the rule of the map. */
static bool has_window(const struct finder *f, uint32_t l)
{
    const char *type;
    double period = f->spec->window_pattern;
    if (f->spec->window == WINDOW_NONE || !f->spec->window_flag || !(f->spec->window_size >= 1)) return false;
    if (arch_text_at(f->arch, "layer_types", l, &type)) return strcmp(type, "sliding_attention") == 0 || strcmp(type, "chunked_attention") == 0;
    if (f->spec->window == WINDOW_ALL) return (double)l >= f->spec->window_from;
    double flag;
    if (arch_number_at(f->arch, "sliding_pattern", 1, &flag) && arch_number_at(f->arch, "sliding_pattern", l, &flag) && flag <= 1.0) return flag > 0;
    return count_of(period, 1 << 20) && (l + 1) % (uint32_t)count_of(period, 1 << 20) != 0;
}

static enum status layer(const struct finder *f, uint32_t l, struct err *err)
{
    struct model_layer *out = &f->model->layers[l];
    double uses_rope = 1;
    *out = (struct model_layer){ .sinks = nothing(), .router_bias = nothing(), .router = no_linear(), .shared_gate = no_linear() };
    const struct {
        const char *key;
        struct model_norm *norm;
    } norms[] = { { f->spec->attn_norm, &out->attn_norm },
                  { "post_attention_norm", &out->post_attn_norm },
                  { f->spec->ffn_norm, &out->ffn_norm },
                  { "post_ffw_norm", &out->post_ffn_norm } };
    enum status status = OK;
    for (size_t i = 0; i < sizeof norms / sizeof norms[0] && status == OK; i++) status = norm(f, norms[i].key, l, f->model->hidden, norms[i].norm);
    out->attn_norm.always = out->ffn_norm.always = f->spec->norm_always;
    if (status == OK) status = attention(f, l, out);
    if (status == OK) status = there(f, "ffn_gate_inp", l) ? experts(f, l, out) : dense(f, l, out);
    if (status != OK) return err_wrap(err, status, "layer %u", l);
    const bool local = has_window(f, l);
    out->window = local ? count_of(f->spec->window_size, 0x1p40) : 0;
    out->rope = f->model->n_ropes > 1 && local ? 1 : 0;
    out->no_rope = arch_number_at(f->arch, "rope_layers", l, &uses_rope) && uses_rope < 0.5;
    return OK;
}

/* ---- positions --------------------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    enum rope_scaling scaling;
} scalings[] = {
    { "none", ROPE_PLAIN }, { "default", ROPE_PLAIN },     { "mrope", ROPE_PLAIN }, { "linear", ROPE_LINEAR },   { "llama3", ROPE_LLAMA3 },
    { "yarn", ROPE_YARN },  { "longrope", ROPE_LONGROPE }, { "su", ROPE_LONGROPE }, { "dynamic", ROPE_DYNAMIC },
};

static double fact_or(const struct finder *f, const char *name, double otherwise)
{
    double value;
    return arch_number(f->arch, name, &value) ? value : otherwise;
}

/* A list of n factors from a fact, or from a tensor of GGUF files; NULL when there is none. */
static enum status factors(const struct finder *f, const char *fact, const char *tensor_name, size_t n, float **out)
{
    double value;
    struct container *container = (struct container *)(uintptr_t)f->container;
    const size_t tensor = container_find(f->container, tensor_name);
    const bool listed = arch_number_at(f->arch, fact, 0, &value) && n > 0;
    *out = NULL;
    if (!listed && tensor == SIZE_MAX) return OK;
    *out = calloc(n + 1, sizeof **out);
    if (!*out) return err_set(f->err, ERR_MEMORY, "out of memory");
    for (size_t i = 0; listed && i < n; i++) {
        if (!arch_number_at(f->arch, fact, i, &value) || !(value > 0))
            return err_set(f->err, ERR_DATA, "the rotary factors (%s) are not %zu positive numbers", fact, n);
        (*out)[i] = (float)value;
    }
    if (listed) return OK;
    if (f->container->tensors[tensor].n_weights != n)
        return err_set(f->err, ERR_DATA, "tensor '%s' has not the %zu factors of this model", tensor_name, n);
    const struct weight_source source = weight_source_container(container);
    return source.read(source.context, tensor, 0, 1, 0, n, *out, f->err);
}

static enum status ropes(const struct finder *f)
{
    struct arch_model *m = f->model;
    struct rope *rope = &m->ropes[0];
    const char *name = "none";
    enum status status = OK;
    char shown[80];
    if (m->position != POSITION_ROPE) return OK;
    if (!(f->spec->rope_theta > 0)) return err_set(f->err, ERR_DATA, "the configuration does not say rope_theta");
    rope->theta = f->spec->rope_theta;
    rope->interleaved = f->spec->pairs == 1;
    rope->n_dims = count_of(fact_or(f, "rope_dim", floor((double)m->head_dim * fact_or(f, "rope_partial", 1.0))), 0x1p40);
    if (rope->n_dims > m->head_dim || rope->n_dims % 2)
        return err_set(f->err, ERR_DATA, "%zu rotary dims of a head of %zu", rope->n_dims, m->head_dim);
    (void)arch_text(f->arch, "rope_scaling", &name);
    size_t i = 0;
    while (i < sizeof scalings / sizeof scalings[0] && strcmp(scalings[i].name, name) != 0) i++;
    if (i == sizeof scalings / sizeof scalings[0])
        return err_set(f->err, ERR_UNSUPPORTED, "the forward pass does not know the rotary scaling '%s'",
                       err_name(name, strlen(name), shown, sizeof shown));
    rope->scaling = container_find(f->container, "rope_factors_long.weight") != SIZE_MAX ? ROPE_LONGROPE : scalings[i].scaling; /* GGUF */
    rope->factor = fact_or(f, "rope_factor", 0);
    rope->old_positions = fact_or(f, "rope_original_context", 0);
    rope->max_positions = fact_or(f, "context", 0);
    rope->low = fact_or(f, "rope_low_freq", 0);
    rope->high = fact_or(f, "rope_high_freq", 0);
    rope->attention_factor = fact_or(f, "rope_attention_factor", 0);
    rope->beta_fast = fact_or(f, "rope_beta_fast", 0);
    rope->beta_slow = fact_or(f, "rope_beta_slow", 0);
    rope->mscale = fact_or(f, "rope_mscale", 0);
    rope->mscale_all = fact_or(f, "rope_mscale_all", 0);
    bool truncate = true;
    rope->no_truncate = arch_flag(f->arch, "rope_truncate", &truncate) && !truncate;
    const bool needs_factor =
        rope->scaling == ROPE_LINEAR || rope->scaling == ROPE_LLAMA3 || rope->scaling == ROPE_YARN || rope->scaling == ROPE_DYNAMIC;
    if (needs_factor && !(rope->factor > 0)) return err_set(f->err, ERR_DATA, "the rotary scaling '%s' has no factor", name);
    if (rope->old_positions <= 0) rope->old_positions = rope->max_positions;
    if ((rope->scaling >= ROPE_LLAMA3) && !(rope->old_positions > 1))
        return err_set(f->err, ERR_DATA, "the rotary scaling '%s' has no original context", name);
    if (rope->scaling == ROPE_LLAMA3 && !(rope->high > rope->low))
        return err_set(f->err, ERR_DATA, "the rotary scaling '%s' lacks its frequency factors", name);
    const bool is_long = rope->scaling == ROPE_LONGROPE;
    status = factors(f, is_long ? "rope_short_factors" : "rope_no_factors", is_long ? "rope_factors_short.weight" : "rope_freqs.weight",
                     rope->n_dims / 2, &m->rope_factors[0][0]);
    if (status == OK && is_long) status = factors(f, "rope_long_factors", "rope_factors_long.weight", rope->n_dims / 2, &m->rope_factors[0][1]);
    if (status == OK && is_long && (!m->rope_factors[0][0] || !m->rope_factors[0][1]))
        status = err_set(f->err, ERR_DATA, "the rotary scaling '%s' lacks its factors", name);
    rope->factors_short = m->rope_factors[0][0];
    rope->factors_long = m->rope_factors[0][1];
    m->n_ropes = 1;
    if (status == OK && f->spec->local_rope) {
        m->ropes[1] = (struct rope){ .theta = f->spec->local_theta > 0 ? f->spec->local_theta : rope->theta,
                                     .interleaved = rope->interleaved,
                                     .n_dims = rope->n_dims };
        m->n_ropes = 2;
    }
    return status;
}

static enum status learned(const struct finder *f)
{
    struct arch_model *m = f->model;
    size_t tensor;
    m->position_embd = nothing();
    if (m->position != POSITION_LEARNED) return OK;
    enum status status = arch_require(f->arch, "position_embd", ARCH_NONE, ARCH_NONE, &tensor, f->err);
    if (status != OK) return status;
    const uint64_t rows = tensor_rows(&f->container->tensors[tensor]);
    const struct matrix_place place = whole(0, rows);
    status = matrix(f, "position_embd", tensor, &place, m->hidden, &m->position_embd);
    if (status == OK && rows <= m->position_offset) status = err_set(f->err, ERR_DATA, "there are no learned positions");
    m->max_positions = rows - m->position_offset;
    return status;
}

uint64_t arch_model_positions(const struct arch_model *model)
{
    return model->position == POSITION_LEARNED ? model->max_positions : 0;
}

/* ---- the whole --------------------------------------------------------------------------------------------------------------------- */

static enum status size_of(const struct finder *f, const char *fact, double max, size_t *out)
{
    double value;
    if (!arch_number(f->arch, fact, &value) || !(value >= 1) || value > max || value != floor(value))
        return err_set(f->err, ERR_DATA, "the configuration does not say %s, one number for all layers", fact);
    *out = (size_t)value;
    return OK;
}

static enum status sizes(const struct finder *f)
{
    struct arch_model *m = f->model;
    enum status status = size_of(f, "hidden", 1 << 24, &m->hidden);
    if (status == OK) status = size_of(f, "n_heads", 1 << 16, &m->n_heads);
    if (status == OK && f->spec->n_kv_heads >= 1) m->n_kv_heads = count_of(f->spec->n_kv_heads, 1 << 16);
    else if (status == OK) status = size_of(f, "n_kv_heads", 1 << 16, &m->n_kv_heads);
    if (status == OK) status = size_of(f, "head_dim", 1 << 16, &m->head_dim);
    if (status == OK && m->n_heads % m->n_kv_heads) status = err_set(f->err, ERR_DATA, "%zu heads on %zu key heads", m->n_heads, m->n_kv_heads);
    m->n_layers = arch_layers(f->arch);
    m->n_experts_used = count_of(fact_or(f, "n_experts_used", 0), ARCH_EXPERTS_MAX);
    return status;
}

static enum status scalars(const struct finder *f)
{
    struct arch_model *m = f->model;
    const struct spec *s = f->spec;
    char shown[80];
    m->norm = (enum norm_kind)s->norm;
    m->norm_eps = (float)s->norm_eps;
    m->parallel = s->parallel;
    m->norm_topk = s->norm_topk;
    m->position = (enum model_position)s->position;
    m->position_offset = count_of(s->position_offset, 0x1p40);
    m->router = (enum model_router)s->router;
    m->embed_scale = (float)s->embed_scale;
    m->residual_scale = (float)s->residual_scale;
    m->logits_scale = (float)(s->logits_divide ? 1.0 / s->logits_scale : s->logits_scale);
    m->attn_scale = (float)(s->attn_scale > 0 ? s->attn_scale : 1.0 / sqrt(s->attn_scalar > 0 ? s->attn_scalar : (double)m->head_dim));
    m->attn_softcap = (float)s->attn_softcap;
    m->logits_softcap = (float)s->logits_softcap;
    m->glu_limit = (float)s->glu_limit;
    m->clip_qkv = (float)s->clip_qkv;
    m->router_scale = (float)s->router_scale;
    if (!(s->norm_eps > 0)) return err_set(f->err, ERR_DATA, "the configuration does not say norm_eps");
    if (!s->act) return err_set(f->err, ERR_DATA, "the configuration does not say the activation function");
    m->act = activation_find(s->act);
    if (m->act == ACT_COUNT)
        return err_set(f->err, ERR_UNSUPPORTED, "the forward pass does not know the activation '%s'",
                       err_name(s->act, strlen(s->act), shown, sizeof shown));
    return OK;
}

static enum status ends(const struct finder *f)
{
    struct arch_model *m = f->model;
    size_t tensor;
    enum status status = arch_require(f->arch, "token_embd", ARCH_NONE, ARCH_NONE, &tensor, f->err);
    if (status == OK && there(f, "project_in", ARCH_NONE))
        status = err_set(f->err, ERR_UNSUPPORTED, "the forward pass has no projections between embeddings and layers");
    if (status != OK) return status;
    m->vocab = (size_t)tensor_rows(&f->container->tensors[tensor]);
    struct matrix_place place = whole(0, m->vocab);
    status = matrix(f, "token_embd", tensor, &place, m->hidden, &m->token_embd);
    if (status == OK) status = norm(f, "token_embd_norm", ARCH_NONE, m->hidden, &m->embd_norm);
    if (status == OK) status = norm(f, "output_norm", ARCH_NONE, m->hidden, &m->output_norm);
    m->output_norm.always = f->spec->norm_always;
    m->is_tied = !there(f, "output", ARCH_NONE);
    m->head = (struct model_linear){ m->token_embd, nothing() };
    if (status != OK || m->is_tied) return status;
    m->vocab = (size_t)(f->container->tensors[arch_tensor(f->arch, "output", ARCH_NONE, ARCH_NONE, false)].n_weights / m->hidden);
    return linear(f, "output", ARCH_NONE, m->vocab, m->hidden, &m->head);
}

enum status arch_model_open(const struct arch *arch, struct container *container, struct arch_model **out, struct err *err)
{
    struct arch_model *model = calloc(1, sizeof *model);
    struct spec spec;
    struct err own = { OK, "" };
    *out = NULL;
    if (!model) return err_set(err, ERR_MEMORY, "out of memory");
    if (!err) err = &own;
    const struct finder finder = { arch, container, model, &spec, err };
    enum status status = read_spec(arch, &spec, err);
    if (status == OK) status = sizes(&finder);
    if (status == OK) status = scalars(&finder);
    if (status == OK) status = ends(&finder);
    if (status == OK) status = ropes(&finder);
    if (status == OK) status = learned(&finder);
    if (status == OK) {
        model->layers = calloc(model->n_layers, sizeof *model->layers);
        if (!model->layers) status = err_set(err, ERR_MEMORY, "out of memory");
    }
    for (uint32_t l = 0; status == OK && l < model->n_layers; l++) status = layer(&finder, l, err);
    if (status == OK) *out = model;
    else arch_model_close(model);
    return status;
}

void arch_model_close(struct arch_model *model)
{
    if (!model) return;
    for (size_t l = 0; model->layers && l < model->n_layers; l++) free(model->layers[l].experts);
    free(model->layers);
    for (size_t i = 0; i < MODEL_ROPES_MAX; i++) {
        free(model->rope_factors[i][0]);
        free(model->rope_factors[i][1]);
    }
    free(model);
}
