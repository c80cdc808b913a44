/* app.c: notes to the user and the search for configuration files.
 *
 * Drawing: $LLMQ_CONFIG/NAME, else DIR-OF-PROGRAM/../share/llmq/NAME, else SHARE/llmq/NAME of the installation, else SOURCE/configs/NAME.
 * Why this way: the program works from any directory, installed, moved or straight from the build folder.
 * Corner cases: $LLMQ_CONFIG set but without the file is an error that names it, not a silent fallback.
 * Reference: Filesystem Hierarchy Standard. Example: /usr/local/share/llmq/roles.yaml.
 */
#include "converter/app.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void app_note(const struct app *app, const char *format, ...)
{
    if (settings_flag(&app->settings, SET_QUIET)) return;
    va_list args;
    va_start(args, format);
    fputs("note: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

/* Directory ../share/llmq seen from the running program, or "". */
static void share_beside_program(char *out, size_t out_size)
{
    char program[2048];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    out[0] = '\0';
    if (n <= 0) return;
    program[n] = '\0';
    char *slash = strrchr(program, '/');
    if (!slash) return;
    *slash = '\0';
    if ((size_t)snprintf(out, out_size, "%s/../share/llmq", program) >= out_size) out[0] = '\0';
}

enum status app_config_path(const struct app *app, const char *name, char **path, struct err *err)
{
    char beside[2100];
    share_beside_program(beside, sizeof beside);
    const char *places[] = { app->config_override, beside, LLMQ_INSTALL_CONFIG, LLMQ_SOURCE_CONFIG };
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (!places[i] || !*places[i]) continue;
        *path = path_join(places[i], name);
        if (!*path) return err_set(err, ERR_MEMORY, "out of memory");
        if (access(*path, R_OK) == 0) return OK;
        free(*path);
        *path = NULL;
        if (i == 0) return err_set(err, ERR_IO, "cannot find '%s' in '%s' (LLMQ_CONFIG)", name, places[i]);
    }
    return err_set(err, ERR_IO, "cannot find the configuration file '%s' in '%s' or '%s'; set LLMQ_CONFIG to its folder", name, LLMQ_INSTALL_CONFIG,
                   LLMQ_SOURCE_CONFIG);
}
