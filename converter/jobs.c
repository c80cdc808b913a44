/* jobs.c: see jobs.h.
 *
 * Drawing: a cursor (tensor, tile, ticket) under a mutex; workers take from it until it is at the end, a job failed, or a stop was asked for.
 * Why this way: jobs are taken in order, so all jobs before a failed one are taken too and will report; that makes the reported error the same for
 * any thread count.
 * Corner cases: ERR_CANCELLED of a job that was woken because another failed never hides that other's error.
 * Reference: jobs.h. Worked number: 5 tiles, 2 a job: 3 jobs.
 */
#include "converter/jobs.h"

#include <pthread.h>

#include "base/pool.h"

struct run {
    const struct job_list *list;
    pthread_mutex_t mutex;
    struct job next;
    bool ended;
    struct err first; /* error of the lowest failed ticket */
    uint64_t first_ticket;
};

static bool take(struct run *run, struct job *job)
{
    const struct job_list *list = run->list;
    bool got = false;
    pthread_mutex_lock(&run->mutex);
    while (!run->ended && !got) {
        uint64_t n_tiles = run->next.tensor < list->n_tensors ? list->tile_count(list->context, run->next.tensor) : 0;
        if (run->next.tensor >= list->n_tensors) run->ended = true;
        else if (run->next.first_tile >= n_tiles) {
            run->next.tensor++;
            run->next.first_tile = 0;
        } else {
            uint64_t left = n_tiles - run->next.first_tile;
            run->next.n_tiles = left < list->tiles_per_job ? left : list->tiles_per_job;
            *job = run->next;
            run->next.first_tile += run->next.n_tiles;
            run->next.ticket++;
            got = true;
        }
    }
    pthread_mutex_unlock(&run->mutex);
    return got;
}

static void fail(struct run *run, uint64_t ticket, const struct err *err)
{
    pthread_mutex_lock(&run->mutex);
    bool real = err->code != ERR_CANCELLED, have_real = run->first.code != OK && run->first.code != ERR_CANCELLED;
    if (run->first.code == OK || (real && (!have_real || ticket < run->first_ticket))) {
        run->first = *err;
        run->first_ticket = ticket;
    }
    run->ended = true;
    pthread_mutex_unlock(&run->mutex);
    if (run->list->failed) run->list->failed(run->list->context);
}

static void work(void *context, unsigned worker)
{
    struct run *run = context;
    struct job job;
    while (take(run, &job)) {
        struct err err = { OK, "" };
        enum status status =
            run->list->stop && *run->list->stop ? err_set(&err, ERR_CANCELLED, "stopped") : run->list->work(run->list->context, worker, &job, &err);
        if (status) fail(run, job.ticket, &err);
    }
}

enum status jobs_run(const struct job_list *list, struct err *err)
{
    struct run run = { .list = list, .next.ticket = list->ticket ? *list->ticket : 0 };
    pthread_mutex_init(&run.mutex, NULL);
    pool_run(list->n_workers, work, &run);
    pthread_mutex_destroy(&run.mutex);
    if (list->ticket) *list->ticket = run.next.ticket;
    if (run.first.code == OK) return OK;
    if (err) *err = run.first;
    return run.first.code;
}
