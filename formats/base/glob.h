/* glob.h: name patterns as users write them in rules: exact, glob, or `re:` and a POSIX extended regular expression.
 *
 *   model.norm.weight          exact: no * ? [ in it
 *   *.down_proj.weight         glob: * any bytes (dots and slashes too), ? one byte, [a-z] a set
 *   re:layers\.[0-3]\..*       regular expression, matched against the whole name
 *
 * Why this way: fnmatch and regcomp of the C library, nothing of our own.
 * Corner cases: an empty pattern or a regular expression that does not compile is ERR_USAGE with the library's reason; `[` without `]` is literal,
 * as fnmatch has it. Back-references are refused.
 * Reference: POSIX fnmatch (no flags), regcomp (REG_EXTENDED | REG_NOSUB).
 */
#ifndef LLMQ_BASE_GLOB_H
#define LLMQ_BASE_GLOB_H

#include <stdbool.h>

#include "base/err.h"

enum pattern_kind { PATTERN_EXACT, PATTERN_GLOB, PATTERN_REGEX };

struct pattern;

enum status pattern_open(const char *text, struct pattern **pattern, struct err *err);
void pattern_close(struct pattern *pattern);
enum pattern_kind pattern_kind(const struct pattern *pattern);
const char *pattern_text(const struct pattern *pattern);
bool pattern_match(const struct pattern *pattern, const char *name);

#endif
