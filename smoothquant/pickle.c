/* pickle.c: the stack machine; see pickle.h.
 *
 * Drawing: opcode -> row of the table (name, bytes of its argument, what it does). marks: heights of the stack; memo: numbers of values.
 * Why this way: a row for each opcode that is known, and a row with a name for each that is refused, so that the sentence can say it.
 * Corner cases: every pop looks at the height above the last mark first; a text's length is compared with the bytes that are left; LONG1 of up to 8
 * bytes; BUILD only sets what a dict carries besides its items, which is passed over; a second PROTO is refused with the rest.
 * Reference: see pickle.h. Worked number: BININT2 "M\x01\x02" is 513.
 */
#include "smoothquant/pickle.h"

#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "container/shown.h"

#define VALUES_MAX (1u << 20)
#define STACK_MAX (1u << 20)
#define MEMO_MAX (1u << 20)
#define MARKS_MAX 1000u
#define UNSET UINT32_MAX
#define GLOBALS_COUNT 7u

struct pickle {
    const uint8_t *bytes;
    size_t n, at;
    struct pickle_value *values;
    uint32_t n_values, values_capacity;
    uint32_t *stack;
    uint32_t n_stack, stack_capacity;
    uint32_t *memo; /* UNSET where nothing was put */
    uint32_t n_memo, memo_capacity, n_memoized;
    uint32_t marks[MARKS_MAX];
    uint32_t n_marks;
    uint32_t root;
    bool is_done;
};

static const struct global {
    const char *module, *name;
    const char *dtype; /* of a storage */
    enum status (*call)(struct pickle *p, const struct pickle_value *arguments, struct err *err);
} globals[GLOBALS_COUNT];

const char *pickle_kind_name(enum pickle_kind kind)
{
    static const char *const names[PICKLE_KIND_COUNT] = { "None",   "a bool", "an int", "a float",   "a text",  "a tuple",
                                                          "a list", "a dict", "a name", "a storage", "a tensor" };
    return names[kind];
}

const struct pickle_value *pickle_root(const struct pickle *pickle)
{
    return &pickle->values[pickle->root];
}

const struct pickle_value *pickle_at(const struct pickle *pickle, uint32_t id)
{
    return &pickle->values[id];
}

const struct pickle_value *pickle_get(const struct pickle *pickle, const struct pickle_value *dict, const char *key)
{
    size_t n = strlen(key);
    for (uint32_t i = 0; i + 1 < dict->as.items.n; i += 2) {
        const struct pickle_value *found = &pickle->values[dict->as.items.ids[i]];
        if (found->kind == PICKLE_TEXT && found->as.text.n == n && memcmp(found->as.text.bytes, key, n) == 0)
            return &pickle->values[dict->as.items.ids[i + 1]];
    }
    return NULL;
}

static enum status no_memory(struct err *err)
{
    return err_set(err, ERR_MEMORY, "out of memory for the pickle");
}

/* ---- values, stack, memo ----------------------------------------------------------------------------------------------------------- */

/* Makes room for one item more than n; false when out of memory. */
static bool make_room(void **array, uint32_t n, uint32_t *capacity, size_t item_nbytes)
{
    if (n < *capacity) return true;
    uint32_t wanted = *capacity ? *capacity * 2 : 16; /* at most 2^24 */
    void *bigger = realloc(*array, wanted * item_nbytes);
    if (!bigger) return false;
    *array = bigger;
    *capacity = wanted;
    return true;
}

static enum status push_id(struct pickle *p, uint32_t id, struct err *err)
{
    if (p->n_stack == STACK_MAX) return err_set(err, ERR_UNSUPPORTED, "its stack is higher than %u", STACK_MAX);
    void *stack = p->stack;
    if (!make_room(&stack, p->n_stack, &p->stack_capacity, sizeof *p->stack)) return no_memory(err);
    p->stack = stack;
    p->stack[p->n_stack++] = id;
    return OK;
}

static enum status push(struct pickle *p, struct pickle_value value, struct err *err)
{
    if (p->n_values == VALUES_MAX) return err_set(err, ERR_UNSUPPORTED, "it has more than %u values", VALUES_MAX);
    void *values = p->values;
    if (!make_room(&values, p->n_values, &p->values_capacity, sizeof *p->values)) return no_memory(err);
    p->values = values;
    p->values[p->n_values] = value;
    return push_id(p, p->n_values++, err);
}

/* Height of the stack that opcodes without a mark may take from. */
static uint32_t floor_of(const struct pickle *p)
{
    return p->n_marks ? p->marks[p->n_marks - 1] : 0;
}

static enum status need(const struct pickle *p, uint32_t n, struct err *err)
{
    if (p->n_stack - floor_of(p) >= n) return OK;
    return err_set(err, ERR_DATA, "its stack is empty");
}

static enum status pop(struct pickle *p, uint32_t *id, struct err *err)
{
    enum status status = need(p, 1, err);
    if (status == OK) *id = p->stack[--p->n_stack];
    return status;
}

static enum status pop_mark(struct pickle *p, uint32_t *height, struct err *err)
{
    if (p->n_marks == 0) return err_set(err, ERR_DATA, "it has no mark on its stack");
    *height = p->marks[--p->n_marks];
    return OK;
}

static enum status memoize(struct pickle *p, uint32_t number, struct err *err)
{
    enum status status = need(p, 1, err);
    if (status != OK) return status;
    if (number >= MEMO_MAX) return err_set(err, ERR_UNSUPPORTED, "memo number %u is over the limit of %u", number, MEMO_MAX);
    while (p->n_memo <= number) {
        void *memo = p->memo;
        if (!make_room(&memo, p->n_memo, &p->memo_capacity, sizeof *p->memo)) return no_memory(err);
        p->memo = memo;
        p->memo[p->n_memo++] = UNSET;
    }
    p->memo[number] = p->stack[p->n_stack - 1];
    p->n_memoized++;
    return OK;
}

static enum status recall(struct pickle *p, uint32_t number, struct err *err)
{
    if (number >= p->n_memo || p->memo[number] == UNSET) return err_set(err, ERR_DATA, "memo number %u was never put", number);
    return push_id(p, p->memo[number], err);
}

/* Appends n ids to a container. */
static enum status append(struct pickle *p, uint32_t container, const uint32_t *ids, uint32_t n, struct err *err)
{
    struct pickle_items *items = &p->values[container].as.items;
    for (uint32_t i = 0; i < n; i++) {
        void *array = items->ids;
        if (items->n == PICKLE_NBYTES_MAX || !make_room(&array, items->n, &items->capacity, sizeof *items->ids)) return no_memory(err);
        items->ids = array;
        items->ids[items->n++] = ids[i];
    }
    return OK;
}

/* Turns the n topmost values into a tuple. */
static enum status make_tuple(struct pickle *p, uint32_t n, struct err *err)
{
    struct pickle_value tuple = { .kind = PICKLE_TUPLE };
    uint32_t from = p->n_stack - n;
    enum status status = push(p, tuple, err);
    if (status != OK) return status;
    uint32_t id = p->stack[p->n_stack - 1];
    status = append(p, id, p->stack + from, n, err);
    p->stack[from] = id;
    p->n_stack = from + 1;
    return status;
}

/* ---- arguments -------------------------------------------------------------------------------------------------------------------- */

static uint64_t little(const uint8_t *bytes, unsigned n)
{
    uint64_t out = 0;
    for (unsigned i = 0; i < n; i++) out |= (uint64_t)bytes[i] << (8 * i);
    return out;
}

static enum status take_text(struct pickle *p, uint64_t n, struct pickle_text *text, struct err *err)
{
    if (n > p->n - p->at) return err_set(err, ERR_DATA, "a text of %llu bytes, %zu bytes follow", (unsigned long long)n, p->n - p->at);
    *text = (struct pickle_text){ (const char *)p->bytes + p->at, (size_t)n };
    p->at += (size_t)n;
    return OK;
}

/* Up to the end of the line, which is passed. */
static enum status take_line(struct pickle *p, struct pickle_text *text, struct err *err)
{
    const uint8_t *end = memchr(p->bytes + p->at, '\n', p->n - p->at);
    if (!end) return err_set(err, ERR_DATA, "a name without an end");
    enum status status = take_text(p, (uint64_t)(end - (p->bytes + p->at)), text, err);
    p->at++;
    return status;
}

static bool same_text(struct pickle_text a, const char *b)
{
    return a.n == strlen(b) && memcmp(a.bytes, b, a.n) == 0;
}

/* ---- globals ---------------------------------------------------------------------------------------------------------------------- */

static enum status refuse_call(const char *name, const char *why, struct err *err)
{
    return err_set(err, ERR_UNSUPPORTED, "%s: %s", name, why);
}

static enum status call_ordered_dict(struct pickle *p, const struct pickle_value *arguments, struct err *err)
{
    if (arguments->as.items.n != 0) return refuse_call("OrderedDict", "it has arguments", err);
    return push(p, (struct pickle_value){ .kind = PICKLE_DICT }, err);
}

/* A tuple of numbers that are not negative. */
static enum status take_dims(const struct pickle *p, const struct pickle_value *tuple, uint32_t *rank, uint64_t dims[PICKLE_RANK_MAX],
                             struct err *err)
{
    if (tuple->kind != PICKLE_TUPLE || tuple->as.items.n > PICKLE_RANK_MAX) return refuse_call("_rebuild_tensor_v2", "its shape", err);
    *rank = tuple->as.items.n;
    for (uint32_t i = 0; i < *rank; i++) {
        const struct pickle_value *dim = &p->values[tuple->as.items.ids[i]];
        if (dim->kind != PICKLE_INT || dim->as.integer < 0) return refuse_call("_rebuild_tensor_v2", "its shape", err);
        dims[i] = (uint64_t)dim->as.integer;
    }
    return OK;
}

/* Contiguous, inside its storage. */
static enum status check_tensor(const struct pickle *p, struct pickle_tensor *tensor, const uint64_t strides[PICKLE_RANK_MAX], struct err *err)
{
    uint64_t n = 1, end = 0;
    for (uint32_t i = tensor->rank; i > 0; i--) {
        if (tensor->dims[i - 1] > 1 && strides[i - 1] != n) return refuse_call("_rebuild_tensor_v2", "the tensor is not contiguous", err);
        if (!size_mul(n, tensor->dims[i - 1], &n)) return err_set(err, ERR_DATA, "the size of a tensor overflows");
    }
    if (!size_add(tensor->offset, n, &end) || end > p->values[tensor->storage].as.storage->n_values)
        return err_set(err, ERR_DATA, "a tensor of %llu values at %llu goes beyond its storage", (unsigned long long)n,
                       (unsigned long long)tensor->offset);
    tensor->n_values = n;
    return OK;
}

static enum status call_tensor(struct pickle *p, const struct pickle_value *arguments, struct err *err)
{
    const uint32_t *ids = arguments->as.items.ids;
    if (arguments->as.items.n < 6 || arguments->as.items.n > 7) return refuse_call("_rebuild_tensor_v2", "its number of arguments", err);
    const struct pickle_value *storage = &p->values[ids[0]], *offset = &p->values[ids[1]];
    if (storage->kind != PICKLE_STORAGE || offset->kind != PICKLE_INT || offset->as.integer < 0)
        return refuse_call("_rebuild_tensor_v2", "its storage or offset", err);
    struct pickle_tensor tensor = { .storage = ids[0], .offset = (uint64_t)offset->as.integer };
    uint64_t strides[PICKLE_RANK_MAX] = { 0 };
    uint32_t n_strides = 0;
    enum status status = take_dims(p, &p->values[ids[2]], &tensor.rank, tensor.dims, err);
    if (status == OK) status = take_dims(p, &p->values[ids[3]], &n_strides, strides, err);
    if (status == OK && n_strides != tensor.rank) status = refuse_call("_rebuild_tensor_v2", "its strides", err);
    if (status == OK) status = check_tensor(p, &tensor, strides, err);
    if (status != OK) return status;
    struct pickle_tensor *copy = malloc(sizeof *copy);
    if (!copy) return no_memory(err);
    *copy = tensor;
    uint32_t before = p->n_values;
    status = push(p, (struct pickle_value){ .kind = PICKLE_TENSOR, .as.tensor = copy }, err);
    if (p->n_values == before) free(copy);
    return status;
}

static enum status call_parameter(struct pickle *p, const struct pickle_value *arguments, struct err *err)
{
    if (arguments->as.items.n != 3 || p->values[arguments->as.items.ids[0]].kind != PICKLE_TENSOR)
        return refuse_call("_rebuild_parameter", "its arguments", err);
    return push_id(p, arguments->as.items.ids[0], err);
}

static const struct global globals[GLOBALS_COUNT] = {
    { "collections", "OrderedDict", NULL, call_ordered_dict },
    { "torch._utils", "_rebuild_tensor_v2", NULL, call_tensor },
    { "torch._utils", "_rebuild_parameter", NULL, call_parameter },
    { "torch", "FloatStorage", "F32", NULL },
    { "torch", "HalfStorage", "F16", NULL },
    { "torch", "BFloat16Storage", "BF16", NULL },
    { "torch", "DoubleStorage", "F64", NULL },
};

static enum status push_global(struct pickle *p, struct pickle_text module, struct pickle_text name, struct err *err)
{
    for (uint32_t i = 0; i < GLOBALS_COUNT; i++)
        if (same_text(module, globals[i].module) && same_text(name, globals[i].name))
            return push(p, (struct pickle_value){ .kind = PICKLE_GLOBAL, .as.global = i }, err);
    return err_set(err, ERR_UNSUPPORTED, "it wants '%s.%s', which llmq does not take from a pickle", shown(module.bytes, module.n).text,
                   shown(name.bytes, name.n).text);
}

/* ---- opcodes ---------------------------------------------------------------------------------------------------------------------- */

/* a: the opcode's argument as an unsigned number, where it has one of up to 8 bytes. */
typedef enum status opcode_fn(struct pickle *p, uint64_t a, struct err *err);

static enum status do_nothing(struct pickle *p, uint64_t a, struct err *err)
{
    (void)p, (void)a, (void)err;
    return OK;
}

static enum status do_proto(struct pickle *p, uint64_t a, struct err *err)
{
    if (p->at != 2) return err_set(err, ERR_DATA, "PROTO inside the pickle");
    return a >= 2 && a <= 5 ? OK : err_set(err, ERR_UNSUPPORTED, "its protocol is %u", (unsigned)a);
}

static enum status do_stop(struct pickle *p, uint64_t a, struct err *err)
{
    (void)a;
    p->is_done = true;
    enum status status = pop(p, &p->root, err);
    if (status == OK && (p->n_stack != 0 || p->n_marks != 0)) return err_set(err, ERR_DATA, "values are left on its stack");
    return status;
}

static enum status do_mark(struct pickle *p, uint64_t a, struct err *err)
{
    (void)a;
    if (p->n_marks == MARKS_MAX) return err_set(err, ERR_UNSUPPORTED, "it is nested deeper than %u", MARKS_MAX);
    p->marks[p->n_marks++] = p->n_stack;
    return OK;
}

static enum status do_dict(struct pickle *p, uint64_t a, struct err *err)
{
    (void)a;
    return push(p, (struct pickle_value){ .kind = PICKLE_DICT }, err);
}

static enum status do_list(struct pickle *p, uint64_t a, struct err *err)
{
    (void)a;
    return push(p, (struct pickle_value){ .kind = PICKLE_LIST }, err);
}

static enum status do_none(struct pickle *p, uint64_t a, struct err *err)
{
    (void)a;
    return push(p, (struct pickle_value){ .kind = PICKLE_NONE }, err);
}

static enum status do_true(struct pickle *p, uint64_t a, struct err *err)
{
    (void)a;
    return push(p, (struct pickle_value){ .kind = PICKLE_BOOL, .as.truth = true }, err);
}

static enum status do_false(struct pickle *p, uint64_t a, struct err *err)
{
    (void)a;
    return push(p, (struct pickle_value){ .kind = PICKLE_BOOL, .as.truth = false }, err);
}

static enum status do_unsigned(struct pickle *p, uint64_t a, struct err *err)
{
    return push(p, (struct pickle_value){ .kind = PICKLE_INT, .as.integer = (int64_t)a }, err);
}

static enum status do_binint(struct pickle *p, uint64_t a, struct err *err)
{
    return push(p, (struct pickle_value){ .kind = PICKLE_INT, .as.integer = (int64_t)(int32_t)(uint32_t)a }, err);
}

/* a: bytes that follow, two's complement. */
static enum status do_long1(struct pickle *p, uint64_t a, struct err *err)
{
    struct pickle_text text = { 0 };
    enum status status = take_text(p, a, &text, err);
    if (status != OK) return status;
    if (a > 8) return err_set(err, ERR_UNSUPPORTED, "a number of %u bytes", (unsigned)a);
    const uint8_t *bytes = (const uint8_t *)text.bytes;
    uint64_t value = little(bytes, (unsigned)a);
    if (a > 0 && a < 8 && bytes[a - 1] & 0x80) value |= UINT64_MAX << (8 * a);
    int64_t integer;
    memcpy(&integer, &value, sizeof integer);
    return push(p, (struct pickle_value){ .kind = PICKLE_INT, .as.integer = integer }, err);
}

static enum status do_float(struct pickle *p, uint64_t a, struct err *err)
{
    uint64_t bits = 0; /* big-endian in the pickle */
    for (unsigned i = 0; i < 8; i++) bits = bits << 8 | (a >> (8 * i) & 0xff);
    struct pickle_value value = { .kind = PICKLE_FLOAT };
    memcpy(&value.as.real, &bits, sizeof bits);
    return push(p, value, err);
}

static enum status do_text(struct pickle *p, uint64_t a, struct err *err)
{
    struct pickle_value value = { .kind = PICKLE_TEXT };
    enum status status = take_text(p, a, &value.as.text, err);
    return status == OK ? push(p, value, err) : status;
}

static enum status do_empty_tuple(struct pickle *p, uint64_t a, struct err *err)
{
    (void)a;
    return push(p, (struct pickle_value){ .kind = PICKLE_TUPLE }, err);
}

static enum status tuple_of(struct pickle *p, uint32_t n, struct err *err)
{
    enum status status = need(p, n, err);
    return status == OK ? make_tuple(p, n, err) : status;
}

static enum status do_tuple1(struct pickle *p, uint64_t a, struct err *err)
{
    (void)a;
    return tuple_of(p, 1, err);
}

static enum status do_tuple2(struct pickle *p, uint64_t a, struct err *err)
{
    (void)a;
    return tuple_of(p, 2, err);
}

static enum status do_tuple3(struct pickle *p, uint64_t a, struct err *err)
{
    (void)a;
    return tuple_of(p, 3, err);
}

static enum status do_tuple(struct pickle *p, uint64_t a, struct err *err)
{
    uint32_t height = 0;
    (void)a;
    enum status status = pop_mark(p, &height, err);
    if (status != OK) return status;
    return p->n_stack == height ? do_empty_tuple(p, 0, err) : make_tuple(p, p->n_stack - height, err);
}

/* Moves what is above height into the container below it. */
static enum status move_into(struct pickle *p, uint32_t height, enum pickle_kind kind, struct err *err)
{
    uint32_t n = p->n_stack - height;
    if (height <= floor_of(p)) return err_set(err, ERR_DATA, "its stack is empty");
    uint32_t container = p->stack[height - 1];
    if (p->values[container].kind != kind || (kind == PICKLE_DICT && n % 2 != 0))
        return err_set(err, ERR_DATA, "items for %s that is %s", pickle_kind_name(kind), pickle_kind_name(p->values[container].kind));
    enum status status = append(p, container, p->stack + height, n, err);
    p->n_stack = height;
    return status;
}

static enum status do_append(struct pickle *p, uint64_t a, struct err *err)
{
    (void)a;
    enum status status = need(p, 2, err);
    return status == OK ? move_into(p, p->n_stack - 1, PICKLE_LIST, err) : status;
}

static enum status do_appends(struct pickle *p, uint64_t a, struct err *err)
{
    uint32_t height = 0;
    (void)a;
    enum status status = pop_mark(p, &height, err);
    return status == OK ? move_into(p, height, PICKLE_LIST, err) : status;
}

static enum status do_setitem(struct pickle *p, uint64_t a, struct err *err)
{
    (void)a;
    enum status status = need(p, 3, err);
    return status == OK ? move_into(p, p->n_stack - 2, PICKLE_DICT, err) : status;
}

static enum status do_setitems(struct pickle *p, uint64_t a, struct err *err)
{
    uint32_t height = 0;
    (void)a;
    enum status status = pop_mark(p, &height, err);
    return status == OK ? move_into(p, height, PICKLE_DICT, err) : status;
}

static enum status do_put(struct pickle *p, uint64_t a, struct err *err)
{
    return memoize(p, (uint32_t)a, err);
}

static enum status do_memoize(struct pickle *p, uint64_t a, struct err *err)
{
    (void)a;
    return memoize(p, p->n_memoized, err);
}

static enum status do_get(struct pickle *p, uint64_t a, struct err *err)
{
    return recall(p, (uint32_t)a, err);
}

static enum status do_global(struct pickle *p, uint64_t a, struct err *err)
{
    struct pickle_text module = { 0 }, name = { 0 };
    (void)a;
    enum status status = take_line(p, &module, err);
    if (status == OK) status = take_line(p, &name, err);
    return status == OK ? push_global(p, module, name, err) : status;
}

static enum status do_stack_global(struct pickle *p, uint64_t a, struct err *err)
{
    uint32_t name = 0, module = 0;
    (void)a;
    enum status status = need(p, 2, err);
    if (status == OK) status = pop(p, &name, err);
    if (status == OK) status = pop(p, &module, err);
    if (status != OK) return status;
    if (p->values[name].kind != PICKLE_TEXT || p->values[module].kind != PICKLE_TEXT) return err_set(err, ERR_DATA, "STACK_GLOBAL without names");
    return push_global(p, p->values[module].as.text, p->values[name].as.text, err);
}

static enum status do_reduce(struct pickle *p, uint64_t a, struct err *err)
{
    uint32_t arguments = 0, callable = 0;
    (void)a;
    enum status status = need(p, 2, err);
    if (status == OK) status = pop(p, &arguments, err);
    if (status == OK) status = pop(p, &callable, err);
    if (status != OK) return status;
    const struct pickle_value *called = &p->values[callable];
    if (called->kind != PICKLE_GLOBAL || p->values[arguments].kind != PICKLE_TUPLE)
        return err_set(err, ERR_DATA, "REDUCE of %s with %s", pickle_kind_name(called->kind), pickle_kind_name(p->values[arguments].kind));
    const struct global *global = &globals[called->as.global];
    if (!global->call) return refuse_call(global->name, "it is not called here", err);
    struct pickle_value copy = p->values[arguments]; /* the table of values may move */
    return global->call(p, &copy, err);
}

/* Makes a storage of ('storage', type, key, location, number of values). */
static enum status do_persid(struct pickle *p, uint64_t a, struct err *err)
{
    uint32_t id = 0;
    (void)a;
    enum status status = pop(p, &id, err);
    if (status != OK) return status;
    const struct pickle_value *tuple = &p->values[id];
    if (tuple->kind != PICKLE_TUPLE || tuple->as.items.n != 5) return err_set(err, ERR_DATA, "a persistent id that is no storage");
    const struct pickle_value *word = &p->values[tuple->as.items.ids[0]], *type = &p->values[tuple->as.items.ids[1]];
    const struct pickle_value *key = &p->values[tuple->as.items.ids[2]], *n = &p->values[tuple->as.items.ids[4]];
    if (word->kind != PICKLE_TEXT || !same_text(word->as.text, "storage") || type->kind != PICKLE_GLOBAL || !globals[type->as.global].dtype ||
        key->kind != PICKLE_TEXT || n->kind != PICKLE_INT || n->as.integer < 0)
        return err_set(err, ERR_DATA, "a persistent id that is no storage");
    struct pickle_storage *storage = malloc(sizeof *storage);
    if (!storage) return no_memory(err);
    *storage = (struct pickle_storage){ key->as.text, globals[type->as.global].dtype, (uint64_t)n->as.integer };
    uint32_t before = p->n_values;
    status = push(p, (struct pickle_value){ .kind = PICKLE_STORAGE, .as.storage = storage }, err);
    if (p->n_values == before) free(storage);
    return status;
}

/* What a dict carries besides its items (state_dict's _metadata) is passed over. */
static enum status do_build(struct pickle *p, uint64_t a, struct err *err)
{
    uint32_t state = 0;
    (void)a;
    enum status status = need(p, 2, err);
    if (status == OK) status = pop(p, &state, err);
    if (status != OK) return status;
    if (p->values[p->stack[p->n_stack - 1]].kind == PICKLE_DICT && p->values[state].kind == PICKLE_DICT) return OK;
    return err_set(err, ERR_UNSUPPORTED, "BUILD of %s", pickle_kind_name(p->values[p->stack[p->n_stack - 1]].kind));
}

static const struct opcode {
    uint8_t code;
    uint8_t n_argument; /* bytes */
    const char *name;
    opcode_fn *run; /* NULL: refused */
} opcodes[] = {
    { 0x80, 1, "PROTO", do_proto },
    { 0x95, 8, "FRAME", do_nothing },
    { '.', 0, "STOP", do_stop },
    { '(', 0, "MARK", do_mark },
    { '}', 0, "EMPTY_DICT", do_dict },
    { ']', 0, "EMPTY_LIST", do_list },
    { ')', 0, "EMPTY_TUPLE", do_empty_tuple },
    { 't', 0, "TUPLE", do_tuple },
    { 0x85, 0, "TUPLE1", do_tuple1 },
    { 0x86, 0, "TUPLE2", do_tuple2 },
    { 0x87, 0, "TUPLE3", do_tuple3 },
    { 'q', 1, "BINPUT", do_put },
    { 'r', 4, "LONG_BINPUT", do_put },
    { 0x94, 0, "MEMOIZE", do_memoize },
    { 'h', 1, "BINGET", do_get },
    { 'j', 4, "LONG_BINGET", do_get },
    { 'X', 4, "BINUNICODE", do_text },
    { 0x8c, 1, "SHORT_BINUNICODE", do_text },
    { 'c', 0, "GLOBAL", do_global },
    { 0x93, 0, "STACK_GLOBAL", do_stack_global },
    { 'R', 0, "REDUCE", do_reduce },
    { 'Q', 0, "BINPERSID", do_persid },
    { 'J', 4, "BININT", do_binint },
    { 'K', 1, "BININT1", do_unsigned },
    { 'M', 2, "BININT2", do_unsigned },
    { 0x8a, 1, "LONG1", do_long1 },
    { 'G', 8, "BINFLOAT", do_float },
    { 'N', 0, "NONE", do_none },
    { 0x88, 0, "NEWTRUE", do_true },
    { 0x89, 0, "NEWFALSE", do_false },
    { 's', 0, "SETITEM", do_setitem },
    { 'u', 0, "SETITEMS", do_setitems },
    { 'a', 0, "APPEND", do_append },
    { 'e', 0, "APPENDS", do_appends },
    { 'b', 0, "BUILD", do_build },
    { 'i', 0, "INST", NULL },
    { 'o', 0, "OBJ", NULL },
    { 0x81, 0, "NEWOBJ", NULL },
    { 0x92, 0, "NEWOBJ_EX", NULL },
    { 0x82, 0, "EXT1", NULL },
    { 0x83, 0, "EXT2", NULL },
    { 0x84, 0, "EXT4", NULL },
    { 'P', 0, "PERSID", NULL },
    { 'I', 0, "INT", NULL },
    { 'L', 0, "LONG", NULL },
    { 0x8b, 0, "LONG4", NULL },
    { 'F', 0, "FLOAT", NULL },
    { 'S', 0, "STRING", NULL },
    { 'T', 0, "BINSTRING", NULL },
    { 'U', 0, "SHORT_BINSTRING", NULL },
    { 'V', 0, "UNICODE", NULL },
    { 0x8d, 0, "BINUNICODE8", NULL },
    { 'B', 0, "BINBYTES", NULL },
    { 'C', 0, "SHORT_BINBYTES", NULL },
    { 0x8e, 0, "BINBYTES8", NULL },
    { 0x96, 0, "BYTEARRAY8", NULL },
    { 0x97, 0, "NEXT_BUFFER", NULL },
    { 0x98, 0, "READONLY_BUFFER", NULL },
    { 'd', 0, "DICT", NULL },
    { 'l', 0, "LIST", NULL },
    { 0x8f, 0, "EMPTY_SET", NULL },
    { 0x90, 0, "ADDITEMS", NULL },
    { 0x91, 0, "FROZENSET", NULL },
    { 'p', 0, "PUT", NULL },
    { 'g', 0, "GET", NULL },
    { '0', 0, "POP", NULL },
    { '1', 0, "POP_MARK", NULL },
    { '2', 0, "DUP", NULL },
};

static enum status run_one(struct pickle *p, const struct opcode *const by_code[256], struct err *err)
{
    if (p->at == p->n) return err_set(err, ERR_DATA, "the pickle ends without STOP");
    uint8_t code = p->bytes[p->at++];
    const struct opcode *opcode = by_code[code];
    if (!opcode) return err_set(err, ERR_DATA, "byte %zu of the pickle is 0x%02x, no opcode", p->at - 1, code);
    if (!opcode->run) return err_set(err, ERR_UNSUPPORTED, "opcode %s at byte %zu of the pickle is not allowed", opcode->name, p->at - 1);
    if (opcode->n_argument > p->n - p->at) return err_set(err, ERR_DATA, "the pickle ends inside %s", opcode->name);
    uint64_t argument = little(p->bytes + p->at, opcode->n_argument);
    p->at += opcode->n_argument;
    return opcode->run(p, argument, err);
}

enum status pickle_parse(const uint8_t *bytes, size_t n, struct pickle **out, struct err *err)
{
    const struct opcode *by_code[256] = { NULL };
    for (size_t i = 0; i < sizeof opcodes / sizeof opcodes[0]; i++) by_code[opcodes[i].code] = &opcodes[i];
    if (n > PICKLE_NBYTES_MAX)
        return err_set(err, ERR_UNSUPPORTED, "the pickle has %zu bytes, more than the limit of %llu", n, (unsigned long long)PICKLE_NBYTES_MAX);
    struct pickle *p = calloc(1, sizeof *p);
    if (!p) return no_memory(err);
    p->bytes = bytes;
    p->n = n;
    enum status status = OK;
    while (status == OK && !p->is_done) status = run_one(p, by_code, err);
    if (status != OK) pickle_close(p);
    else *out = p;
    return status;
}

void pickle_close(struct pickle *pickle)
{
    if (!pickle) return;
    for (uint32_t i = 0; i < pickle->n_values; i++) {
        struct pickle_value *value = &pickle->values[i];
        if (value->kind == PICKLE_TUPLE || value->kind == PICKLE_LIST || value->kind == PICKLE_DICT) free(value->as.items.ids);
        else if (value->kind == PICKLE_STORAGE) free(value->as.storage);
        else if (value->kind == PICKLE_TENSOR) free(value->as.tensor);
    }
    free(pickle->values);
    free(pickle->stack);
    free(pickle->memo);
    free(pickle);
}
