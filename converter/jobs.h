/* jobs.h: a list of tensors as a list of jobs (some consecutive tiles of one tensor), worked off by several threads in ascending order.
 *
 *   tensors with 3, 0, 5 tiles, 2 tiles a job:  job 0 = A[0,2)  job 1 = A[2,3)  job 2 = C[0,2)  job 3 = C[2,4)  job 4 = C[4,5)
 *
 * Why this way: every command that reads a model (convert, compare, scan, verify) is this loop with another body.
 * Corner cases: a tensor without tiles has no job; the first error in job order is the one reported, whatever the threads did; a stop signal ends
 * with ERR_CANCELLED.
 * Reference: base/pool.h.
 */
#ifndef LLMQ_CONVERTER_JOBS_H
#define LLMQ_CONVERTER_JOBS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "converter/app.h"

struct job {
    uint64_t ticket; /* 0, 1, 2, ... (or from *list->ticket on) in the order of tensors and tiles */
    size_t tensor;
    uint64_t first_tile, n_tiles;
};

struct job_list {
    size_t n_tensors;
    uint64_t (*tile_count)(void *context, size_t tensor); /* tiles of a tensor, 0 to leave it out */
    uint64_t tiles_per_job;
    unsigned n_workers;
    const volatile sig_atomic_t *stop;
    enum status (*work)(void *context, unsigned worker, const struct job *job, struct err *err);
    void (*failed)(void *context); /* called once some job has failed, so that waiting ones can be woken; may be NULL */
    void *context;
    uint64_t *ticket; /* of the first job; then that behind the last, for a list that goes on. NULL: 0 */
};

/* Runs all jobs; the status and sentence of the first failed job in ticket order. */
enum status jobs_run(const struct job_list *list, struct err *err);

#endif
