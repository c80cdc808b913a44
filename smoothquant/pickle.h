/* pickle.h: a pickle as data: dicts, lists, tuples, texts, numbers and tensors of torch, nothing that runs.
 *
 *   bytes --opcodes--> stack of values --STOP--> root        {"model.layers.0.mlp.up_proj": tensor(storage "3", offset 0, [4096])}
 *
 * Why this way: a pickle is a program that may call anything; this machine knows 35 opcodes and 7 globals, each with one meaning, and refuses all
 * others by name. REDUCE makes tensors and empty dicts and calls nothing.
 * Corner cases: 16 MiB of pickle, 2^20 values, memo numbers below 2^20; tensors must be contiguous and lie inside their storage; values may be
 * shared and even contain themselves through the memo, so readers walk to a fixed depth only; protocols 2 to 5.
 * Reference: CPython Lib/pickletools.py; torch/serialization.py. Worked number: "\x80\x02}q\x00." is an empty dict.
 */
#ifndef LLMQ_SMOOTHQUANT_PICKLE_H
#define LLMQ_SMOOTHQUANT_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define PICKLE_NBYTES_MAX ((uint64_t)16 << 20)
#define PICKLE_RANK_MAX 8u

enum pickle_kind {
    PICKLE_NONE,
    PICKLE_BOOL,
    PICKLE_INT,
    PICKLE_FLOAT,
    PICKLE_TEXT,
    PICKLE_TUPLE,
    PICKLE_LIST,
    PICKLE_DICT,
    PICKLE_GLOBAL,
    PICKLE_STORAGE,
    PICKLE_TENSOR,
    PICKLE_KIND_COUNT
};

struct pickle_text {
    const char *bytes; /* in the pickle, no NUL behind */
    size_t n;
};

struct pickle_items {
    uint32_t *ids; /* of values; a dict alternates keys and values */
    uint32_t n, capacity;
};

struct pickle_storage {
    struct pickle_text key; /* the data is the zip entry <folder>/data/<key> */
    const char *dtype; /* "F32" */
    uint64_t n_values;
};

struct pickle_tensor {
    uint32_t storage; /* id of a value */
    uint32_t rank;
    uint64_t offset; /* in values */
    uint64_t n_values;
    uint64_t dims[PICKLE_RANK_MAX];
};

struct pickle_value {
    enum pickle_kind kind;
    union {
        bool truth;
        int64_t integer;
        double real;
        struct pickle_text text;
        struct pickle_items items;
        uint32_t global;
        struct pickle_storage *storage;
        struct pickle_tensor *tensor;
    } as;
};

struct pickle;

/* Runs the n bytes, which must outlive the result. ERR_UNSUPPORTED for what is refused by name, else ERR_DATA. */
enum status pickle_parse(const uint8_t *bytes, size_t n, struct pickle **out, struct err *err);
void pickle_close(struct pickle *pickle); /* NULL allowed */

const struct pickle_value *pickle_root(const struct pickle *pickle);
const struct pickle_value *pickle_at(const struct pickle *pickle, uint32_t id);

/* The value of a dict's key, or NULL. */
const struct pickle_value *pickle_get(const struct pickle *pickle, const struct pickle_value *dict, const char *key);

/* "a dict", "a tensor" */
const char *pickle_kind_name(enum pickle_kind kind);

#endif
