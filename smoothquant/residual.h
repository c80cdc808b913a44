/* residual.h: the activations of all tokens between two layers: planes of f32 rows in a file, or in memory when they are few.
 *
 *   plane p, row r (a token), n_cols floats at byte ((p * n_rows) + r) * n_cols * 4
 *
 * Why this way: a layer's weights are read once for all sequences, so what is between the layers must wait somewhere; it is written and read in
 * order, which the page cache and disks like.
 * Corner cases: a file that has a name stays after a crash, so that a run can be taken up again; one without is removed from its folder at once and
 * gone when it is closed. A full disk is an error that names the file. Calls for different rows may come from several threads at once.
 * Reference: the project's smoothquant notes 4b. Worked number: 16384 tokens of 4096: 268 MB a plane.
 */
#ifndef LLMQ_SMOOTHQUANT_RESIDUAL_H
#define LLMQ_SMOOTHQUANT_RESIDUAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/io.h"

struct residual;

struct residual_shape {
    uint64_t n_planes, n_rows, n_cols;
};

/* In memory. */
enum status residual_open_memory(const struct residual_shape *shape, struct residual **out, struct err *err);

/* A file without a name in folder dir. */
enum status residual_open_unnamed(const struct io_calls *io, const char *dir, const struct residual_shape *shape, struct residual **out,
                                  struct err *err);

/* The file at path: made anew, or, with keep, as an earlier run left it (ERR_DATA when its size is another). */
enum status residual_open_file(const struct io_calls *io, const char *path, bool keep, const struct residual_shape *shape, struct residual **out,
                               struct err *err);

enum status residual_read(const struct residual *residual, uint64_t plane, uint64_t row, uint64_t n_rows, float *out, struct err *err);
enum status residual_write(struct residual *residual, uint64_t plane, uint64_t row, uint64_t n_rows, const float *in, struct err *err);

/* Closes; with remove a file that has a name is removed. NULL allowed. */
void residual_close(struct residual *residual, bool remove);

#endif
