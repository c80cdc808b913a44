/* support.h: what the C tests share: cmocka in its required order, temporary directories, files, the data folders.
 *
 * Why this way: a test program is one table of cases; everything around it stands here once.
 * Corner cases: temp_dir makes a fresh directory under $TMPDIR or /tmp that temp_dir_remove deletes with all in it; shared_data returns NULL, after
 * saying so on stdout, when the optional data folder is missing.
 * Reference: cmocka 1.1.
 */
#ifndef LLMQ_TESTS_SUPPORT_H
#define LLMQ_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"

/* Fails the test with the sentence in err when status is not OK. */
#define assert_ok(call)                                                                                                                              \
    do {                                                                                                                                             \
        enum status assert_ok_status = (call);                                                                                                       \
        if (assert_ok_status != OK) fail_msg("%s: status %d: %s", #call, (int)assert_ok_status, err.text);                                           \
    } while (0)

/* Fails unless status is wanted and the sentence contains part. */
#define assert_refused(call, wanted, part)                                                                                                           \
    do {                                                                                                                                             \
        enum status assert_refused_status = (call);                                                                                                  \
        if (assert_refused_status != (wanted)) fail_msg("%s: status %d: %s", #call, (int)assert_refused_status, err.text);                           \
        if (!strstr(err.text, (part))) fail_msg("%s: message '%s' lacks '%s'", #call, err.text, (part));                                             \
    } while (0)

/* A fresh directory; the caller frees the name with temp_dir_remove. */
char *temp_dir(void);
void temp_dir_remove(char *dir);

/* Static buffers, four in turn: DIR/NAME. */
const char *temp_path(const char *dir, const char *name);

void write_file(const char *path, const void *bytes, size_t nbytes);
char *read_file(const char *path, size_t *nbytes); /* NUL-terminated, caller frees; fails the test when missing */
bool file_exists(const char *path);

/* Path of a file in the tests folder, or in the optional shared data folder (NULL and a note when that is missing). Static buffers, four in turn. */
const char *tests_path(const char *name);
const char *shared_data(const char *name);

/* A fixed pseudo-random sequence (xorshift64*), the same on every machine. */
uint64_t test_random(uint64_t *state);

#endif
