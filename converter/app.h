/* app.h: what travels through every command: file calls, kernels, settings, the stop flag.
 *
 * Why this way: no mutable globals below main.c; a command is a function of this struct.
 * Corner cases: stop is set by a signal handler and read by workers; stdout is for results, stderr for talk.
 * Reference: design.md 5.
 */
#ifndef LLMQ_CONVERTER_APP_H
#define LLMQ_CONVERTER_APP_H

#include <signal.h>
#include <stdio.h>

#include "base/err.h"
#include "base/io.h"
#include "converter/settings.h"
#include "number/kernel.h"

struct app {
    const struct io_calls *io;
    const struct kernels *kernels;
    struct settings settings;
    const volatile sig_atomic_t *stop;
    const char *config_override; /* $LLMQ_CONFIG or NULL */
};

/* Prints a note to stderr unless --quiet: "note: ...". */
void app_note(const struct app *app, const char *format, ...) LLMQ_PRINTF(2, 3);

/* New string: path of a configuration file by its name within configs/ ("roles.yaml"): in $LLMQ_CONFIG, the installed share directory (also beside
 * the program), the source directory recorded at build, the first that has it. ERR_IO naming the places when none has. */
enum status app_config_path(const struct app *app, const char *name, char **path, struct err *err);

/* The commands: OK, or an error whose sentence main.c prints. */
enum status cmd_convert(struct app *app, struct err *err);
enum status cmd_plan(struct app *app, struct err *err);
enum status cmd_inspect(struct app *app, struct err *err);
enum status cmd_verify(struct app *app, struct err *err);
enum status cmd_dequantize(struct app *app, struct err *err);
enum status cmd_compare(struct app *app, struct err *err);
enum status cmd_extract(struct app *app, struct err *err);
enum status cmd_formats(struct app *app, struct err *err);
enum status cmd_bench(struct app *app, struct err *err);
enum status cmd_stats(struct app *app, struct err *err);
enum status cmd_sweep(struct app *app, struct err *err);
enum status cmd_calibrate(struct app *app, struct err *err);
enum status cmd_eval(struct app *app, struct err *err);
enum status cmd_smooth(struct app *app, struct err *err);

#endif
