/* progress.h: what a person or a program sees while a command works: a bar with rate and ETA, plain lines, or one JSON object a line.
 *
 *   convert  [##########..........]  52 %  1.04 of 2.01 GB  812 MB/s  ETA 1 s
 *   {"phase":"convert","done":1040187392,"total":2013265920,"seconds":1.281}
 *
 * Why this way: workers only add bytes; whoever adds looks at the clock, one at a time, so progress costs nothing and needs no thread.
 * Corner cases: a bar is drawn only on a terminal and erased at the end; plain lines come every 5 seconds and at the end; --quiet shows nothing; a
 * total of 0 is done at once.
 * Reference: curl, zstd -v. All of it goes to stderr.
 */
#ifndef LLMQ_CONVERTER_PROGRESS_H
#define LLMQ_CONVERTER_PROGRESS_H

#include <stdint.h>

#include "converter/app.h"

struct progress;

/* NULL when nothing is to be shown or memory is short; all functions accept NULL. */
struct progress *progress_open(const struct app *app, const char *phase, uint64_t total_nbytes);

/* The same for things that are no bytes: total steps, of which `steps` make one unit (a token that went through `steps` layers). */
struct progress *progress_open_count(const struct app *app, const char *phase, uint64_t total, uint64_t steps, const char *unit);
void progress_add(struct progress *progress, uint64_t nbytes); /* any thread */
void progress_close(struct progress *progress);

/* "1.04 GB": decimal units, for people. out has at least 24 bytes. */
const char *show_bytes(uint64_t nbytes, char *out);

/* Seconds on the monotonic clock. */
double clock_seconds(void);

#endif
