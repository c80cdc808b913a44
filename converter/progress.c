/* progress.c: see progress.h.
 *
 * Formula: rate = done / elapsed; ETA = (total - done) / rate.
 * Why this way: see progress.h.
 * Corner cases: the clock is monotonic; two threads never print at once (try-lock, the loser goes on working).
 * Reference: curl. Worked number: 1040187392 bytes are shown as 1.04 GB.
 */
#include "converter/progress.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum mode { MODE_BAR, MODE_PLAIN, MODE_JSONL };

struct progress {
    enum mode mode;
    char phase[32];
    uint64_t total;
    uint64_t steps; /* of one unit; 0: bytes are counted */
    const char *unit;
    atomic_uint_fast64_t done;
    double start, next; /* seconds; next time to print */
    pthread_mutex_t printing;
};

double clock_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

const char *show_bytes(uint64_t nbytes, char *out)
{
    static const char *const units[] = { "B", "kB", "MB", "GB", "TB", "PB", "EB" };
    double value = (double)nbytes;
    size_t unit = 0;
    while (value >= 999.5 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1000.0;
        unit++;
    }
    snprintf(out, 24, unit == 0 || value >= 99.95 ? "%.0f %s" : value >= 9.995 ? "%.1f %s" : "%.2f %s", value, units[unit]);
    return out;
}

/* "1.04 GB", or "12800 tokens" */
static const char *show_done(const struct progress *progress, uint64_t done, char *out)
{
    if (!progress->steps) return show_bytes(done, out);
    snprintf(out, 24, "%.0f", (double)done / (double)progress->steps);
    return out;
}

/* Mode wanted by the settings; -1 for none. */
static int wanted_mode(const struct app *app)
{
    const char *text = settings_text(&app->settings, SET_PROGRESS);
    if (settings_flag(&app->settings, SET_QUIET) || strcmp(text, "none") == 0) return -1;
    if (strcmp(text, "bar") == 0) return MODE_BAR;
    if (strcmp(text, "jsonl") == 0) return MODE_JSONL;
    if (strcmp(text, "plain") == 0) return MODE_PLAIN;
    return isatty(STDERR_FILENO) ? MODE_BAR : MODE_PLAIN;
}

static double interval(enum mode mode)
{
    return mode == MODE_BAR ? 0.1 : mode == MODE_JSONL ? 0.5 : 5.0;
}

static void print_bar(const struct progress *progress, uint64_t done, double seconds)
{
    char bar[21], shown[24], total[24], rate[24];
    double share = progress->total ? (double)done / (double)progress->total : 1.0;
    double per_second = seconds > 0.0 ? (double)done / seconds : 0.0;
    for (int i = 0; i < 20; i++) bar[i] = share * 20.0 > i ? '#' : '.';
    bar[20] = '\0';
    fprintf(stderr, "\r%-10s [%s] %3.0f %%  %s of %s  %s%s%s/s", progress->phase, bar, 100.0 * share, show_done(progress, done, shown),
            show_done(progress, progress->total, total), show_done(progress, (uint64_t)per_second, rate), progress->steps ? " " : "",
            progress->steps ? progress->unit : "");
    if (per_second > 0.0) fprintf(stderr, "  ETA %.0f s", (double)(progress->total - done) / per_second);
    fprintf(stderr, "\033[K");
    fflush(stderr);
}

static void print_state(const struct progress *progress, uint64_t done, double now)
{
    char shown[24], total[24];
    double seconds = now - progress->start;
    if (done > progress->total) done = progress->total;
    if (progress->mode == MODE_BAR) print_bar(progress, done, seconds);
    else if (progress->mode == MODE_JSONL)
        fprintf(stderr, "{\"phase\":\"%s\",\"done\":%llu,\"total\":%llu,\"seconds\":%.3f}\n", progress->phase, (unsigned long long)done,
                (unsigned long long)progress->total, seconds);
    else if (progress->steps)
        fprintf(stderr, "%s: %s of %s %s, %.0f a second, %.1f s\n", progress->phase, show_done(progress, done, shown),
                show_done(progress, progress->total, total), progress->unit, seconds > 0.0 ? (double)done / (double)progress->steps / seconds : 0.0,
                seconds);
    else fprintf(stderr, "%s: %s of %s, %.1f s\n", progress->phase, show_bytes(done, shown), show_bytes(progress->total, total), seconds);
}

struct progress *progress_open(const struct app *app, const char *phase, uint64_t total_nbytes)
{
    int mode = wanted_mode(app);
    struct progress *progress = mode < 0 ? NULL : calloc(1, sizeof *progress);
    if (!progress) return NULL;
    progress->mode = (enum mode)mode;
    snprintf(progress->phase, sizeof progress->phase, "%s", phase);
    progress->total = total_nbytes;
    progress->start = clock_seconds();
    progress->next = progress->start + interval(progress->mode);
    pthread_mutex_init(&progress->printing, NULL);
    return progress;
}

struct progress *progress_open_count(const struct app *app, const char *phase, uint64_t total, uint64_t steps, const char *unit)
{
    struct progress *progress = progress_open(app, phase, total);
    if (!progress) return NULL;
    progress->steps = steps ? steps : 1;
    progress->unit = unit;
    return progress;
}

void progress_add(struct progress *progress, uint64_t nbytes)
{
    if (!progress) return;
    uint64_t done = atomic_fetch_add(&progress->done, nbytes) + nbytes;
    if (pthread_mutex_trylock(&progress->printing) != 0) return;
    double now = clock_seconds();
    if (now >= progress->next) {
        print_state(progress, done, now);
        progress->next = now + interval(progress->mode);
    }
    pthread_mutex_unlock(&progress->printing);
}

void progress_close(struct progress *progress)
{
    if (!progress) return;
    if (progress->mode == MODE_BAR) fprintf(stderr, "\r\033[K");
    else print_state(progress, atomic_load(&progress->done), clock_seconds());
    pthread_mutex_destroy(&progress->printing);
    free(progress);
}
