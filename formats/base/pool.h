/* pool.h: worker threads, the order in which they hand in results, and the flag that stops them.
 *
 *   pool_run(n, work, context): work(context, 0) .. work(context, n-1) at the same time, one of them on the calling thread
 *   turn_wait(t, k) blocks until turn_done was called for 0 .. k-1; so appends to a file happen in job order whatever the thread count.
 *
 * Why this way: the pipeline needs exactly these two things; jobs are taken in ascending order, so the lowest unfinished job never waits and there is
 * no deadlock.
 * Corner cases: if a thread cannot be created the remaining ones do all the work (jobs are taken, not assigned); turn_abort wakes all waiters,
 * turn_wait then returns false.
 * Reference: POSIX threads.
 */
#ifndef LLMQ_BASE_POOL_H
#define LLMQ_BASE_POOL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef void pool_work_fn(void *context, unsigned worker);

/* Runs work on n_workers threads (the caller is one of them) and returns when all have ended. */
void pool_run(unsigned n_workers, pool_work_fn *work, void *context);

/* Number of processors this process may use, at least 1. */
unsigned pool_cpu_count(void);

struct turn {
    pthread_mutex_t mutex;
    pthread_cond_t moved;
    uint64_t next;
    bool aborted;
};

void turn_init(struct turn *turn);
void turn_destroy(struct turn *turn);
bool turn_wait(struct turn *turn, uint64_t ticket); /* false when aborted */
void turn_done(struct turn *turn, uint64_t ticket);
void turn_abort(struct turn *turn);

#endif
