/* shown.h: a name from a file as it stands in a message: escaped, cut to a length that leaves room for the sentence.
 *
 *   err_set(err, ERR_DATA, "tensor '%s' has no shape", shown(name, n).text);
 *
 * Why this way: returned by value, so that a message with two names needs no buffers at its call.
 * Corner cases: as err_name: control characters and invalid bytes are \xNN, what does not fit ends in "...".
 * Reference: base/err.h.
 */
#ifndef LLMQ_CONTAINER_SHOWN_H
#define LLMQ_CONTAINER_SHOWN_H

#include <string.h>

#include "base/err.h"

struct shown {
    char text[160];
};

struct shown_path {
    char text[400];
};

/* A tensor name, key or file name of n bytes. */
static inline struct shown shown(const char *name, size_t n)
{
    struct shown out;
    err_name(name, n, out.text, sizeof out.text);
    return out;
}

static inline struct shown shown_str(const char *name)
{
    return shown(name, strlen(name));
}

static inline struct shown_path shown_path(const char *path)
{
    struct shown_path out;
    err_name(path, strlen(path), out.text, sizeof out.text);
    return out;
}

#endif
