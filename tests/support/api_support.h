/* api_support.h: what the tests of llmq.h share: a call that must succeed, one that must be refused, and views.
 *
 * Why this way: the public error is another type than struct err, so support.h's macros do not fit.
 * Corner cases: the error lies in a static variable of the test program; a refusal is checked for code and words.
 * Reference: llmq.h.
 */
#ifndef LLMQ_TESTS_API_SUPPORT_H
#define LLMQ_TESTS_API_SUPPORT_H

#include "llmq.h"

#include "support/support.h"

static struct llmq_error error;

#define assert_done(call)                                                                                                                            \
    do {                                                                                                                                             \
        enum llmq_status assert_done_status = (call);                                                                                                \
        if (assert_done_status != LLMQ_OK) fail_msg("%s: %d: %s", #call, (int)assert_done_status, error.text);                                       \
    } while (0)

#define assert_denied(call, wanted, part)                                                                                                            \
    do {                                                                                                                                             \
        error = (struct llmq_error){ 0, "" };                                                                                                        \
        enum llmq_status assert_denied_status = (call);                                                                                              \
        if (assert_denied_status != (wanted)) fail_msg("%s: %d: %s", #call, (int)assert_denied_status, error.text);                                  \
        assert_int_equal(error.code, wanted);                                                                                                        \
        if (!strstr(error.text, (part))) fail_msg("%s: '%s' lacks '%s'", #call, error.text, (part));                                                 \
    } while (0)

#define DIMS(...)                                                                                                                                    \
    (const uint64_t[])                                                                                                                               \
    {                                                                                                                                                \
        __VA_ARGS__                                                                                                                                  \
    }

#endif
