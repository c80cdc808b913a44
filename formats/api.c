/* api.c: what of llmq.h needs no object: the version and the list of formats.
 *
 * Drawing: LLMQ_VERSION_MAJOR . MINOR . PATCH -> "0.1.0".
 * Why this way: the header states the version, a test holds it equal to that of the build.
 * Corner cases: an index behind the last format is refused, so a loop may also run until it fails.
 * Reference: llmq.h; semantic versioning. Worked number: "0.1.0".
 */
#include "api.h"

#define TEXT(x) #x
#define NUMBER(x) TEXT(x)

const char *llmq_version(void)
{
    return NUMBER(LLMQ_VERSION_MAJOR) "." NUMBER(LLMQ_VERSION_MINOR) "." NUMBER(LLMQ_VERSION_PATCH);
}

size_t llmq_format_count(void)
{
    return format_count();
}

enum llmq_status llmq_format(size_t index, struct llmq_format_info *info, struct llmq_error *error)
{
    if (!info) return api_null("format", error);
    if (index >= format_count()) return api_index("format", index, format_count(), error);
    const struct format *format = format_at(index);
    *info = (struct llmq_format_info){ .name = format->name,
                                       .summary = format->summary,
                                       .bits = format->elem ? format->elem->bits : 0,
                                       .default_group = format->default_kind == GROUP_CHANNEL ? LLMQ_GROUP_CHANNEL : format->default_group,
                                       .default_scale = scale_type_name(format->default_scale),
                                       .zero_point = format->zero_point };
    return LLMQ_OK;
}
