/* pool.c: pool_run and struct turn over POSIX threads.
 *
 * Drawing, 2 workers, 4 jobs:   worker 0: job 0 ----turn 0--, job 2 ---turn 2--
 *                               worker 1: job 1 --(waits)-turn 1--, job 3 -----turn 3--
 * Why this way: see pool.h.
 * Corner cases: no more than 1024 workers; a failed pthread_create only means fewer threads.
 * Reference: POSIX threads. Worked number: 3 workers asked, 2 threads created, the caller is the third.
 */
#define _GNU_SOURCE
#include "base/pool.h"

#include <sched.h>

enum { MAX_WORKERS = 1024 };

struct pool_thread {
    pool_work_fn *work;
    void *context;
    unsigned worker;
    pthread_t thread;
    bool started;
};

static void *pool_main(void *argument)
{
    const struct pool_thread *self = argument;
    self->work(self->context, self->worker);
    return NULL;
}

void pool_run(unsigned n_workers, pool_work_fn *work, void *context)
{
    struct pool_thread threads[MAX_WORKERS];
    if (n_workers > MAX_WORKERS) n_workers = MAX_WORKERS;
    for (unsigned i = 1; i < n_workers; i++) {
        threads[i] = (struct pool_thread){ .work = work, .context = context, .worker = i };
        threads[i].started = pthread_create(&threads[i].thread, NULL, pool_main, &threads[i]) == 0;
    }
    work(context, 0);
    for (unsigned i = 1; i < n_workers; i++)
        if (threads[i].started) pthread_join(threads[i].thread, NULL);
}

unsigned pool_cpu_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int n = CPU_COUNT(&set);
    return n < 1 ? 1u : n > MAX_WORKERS ? (unsigned)MAX_WORKERS : (unsigned)n;
}

void turn_init(struct turn *turn)
{
    pthread_mutex_init(&turn->mutex, NULL);
    pthread_cond_init(&turn->moved, NULL);
    turn->next = 0;
    turn->aborted = false;
}

void turn_destroy(struct turn *turn)
{
    pthread_cond_destroy(&turn->moved);
    pthread_mutex_destroy(&turn->mutex);
}

bool turn_wait(struct turn *turn, uint64_t ticket)
{
    pthread_mutex_lock(&turn->mutex);
    while (turn->next < ticket && !turn->aborted) pthread_cond_wait(&turn->moved, &turn->mutex);
    bool ours = !turn->aborted;
    pthread_mutex_unlock(&turn->mutex);
    return ours;
}

void turn_done(struct turn *turn, uint64_t ticket)
{
    pthread_mutex_lock(&turn->mutex);
    turn->next = ticket + 1;
    pthread_cond_broadcast(&turn->moved);
    pthread_mutex_unlock(&turn->mutex);
}

void turn_abort(struct turn *turn)
{
    pthread_mutex_lock(&turn->mutex);
    turn->aborted = true;
    pthread_cond_broadcast(&turn->moved);
    pthread_mutex_unlock(&turn->mutex);
}
