/* api.h: what the files behind llmq.h share: the public objects from inside, and the way from struct llmq_error to struct err.
 *
 *   llmq.h   <-  api.c  version, formats     api_read.c  struct llmq_model     api_quant.c  struct llmq_quant     api_write.c  struct llmq_writer
 *
 * Why this way: the public error has the shape of the internal one (asserted here), so a sentence is written once, where the failure is, and never
 * copied.
 * Corner cases: a NULL error passes through as a NULL err.
 * Reference: llmq.h. Worked number: both errors are 4 + 1024 bytes.
 */
#ifndef LLMQ_API_H
#define LLMQ_API_H

#include <assert.h>
#include <stddef.h>

#include "base/err.h"
#include "container/container.h"
#include "llmq.h"
#include "number/format.h"
#include "number/kernel.h"

static_assert(sizeof(struct llmq_error) == sizeof(struct err) && sizeof(int) == sizeof(enum status), "the two errors have one shape");
static_assert(offsetof(struct llmq_error, code) == offsetof(struct err, code) && offsetof(struct llmq_error, text) == offsetof(struct err, text),
              "member by member");
static_assert(LLMQ_ERROR_TEXT_MAX == ERR_TEXT_MAX, "the same room");
static_assert((int)LLMQ_OK == (int)OK && (int)LLMQ_ERR_IO == (int)ERR_IO && (int)LLMQ_ERR_DATA == (int)ERR_DATA &&
                  (int)LLMQ_ERR_UNSUPPORTED == (int)ERR_UNSUPPORTED && (int)LLMQ_ERR_USAGE == (int)ERR_USAGE &&
                  (int)LLMQ_ERR_MEMORY == (int)ERR_MEMORY && (int)LLMQ_ERR_EXISTS == (int)ERR_EXISTS && (int)LLMQ_ERR_MISMATCH == (int)ERR_MISMATCH &&
                  (int)LLMQ_ERR_CANCELLED == (int)ERR_CANCELLED,
              "the same codes");

struct llmq_model {
    struct container *container;
};

struct llmq_quant {
    struct quant quant; /* of a row of the format table */
    const struct kernels *kernels;
};

static inline struct err *api_err(struct llmq_error *error)
{
    return (struct err *)(void *)error;
}

static inline enum llmq_status api_status(enum status status)
{
    return (enum llmq_status)status;
}

/* The sentence for a NULL where something is needed. */
static inline enum llmq_status api_null(const char *what, struct llmq_error *error)
{
    return api_status(err_set(api_err(error), ERR_USAGE, "%s is NULL", what));
}

/* The rounding of a name, nearest-even for NULL. */
static inline enum status api_rounding(const char *name, enum rounding *rounding, struct err *err)
{
    *rounding = name ? rounding_find(name) : ROUND_NEAREST_EVEN;
    return *rounding != ROUND_COUNT ? OK : err_set(err, ERR_USAGE, "rounding '%s' is none of nearest-even, away, up, truncate", name);
}

/* The sentence for an index that is not there. */
static inline enum llmq_status api_index(const char *what, size_t index, size_t count, struct llmq_error *error)
{
    return api_status(err_set(api_err(error), ERR_USAGE, "there is no %s number %zu, only %zu", what, index, count));
}

#endif
