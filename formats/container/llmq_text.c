/* llmq_text.c: see llmq_text.h.
 *
 * Drawing: {"writer":..,"metadata":{..},"formats":{..},"blobs":{..},"tensors":{..}}
 * Why this way: see llmq_text.h.
 * Corner cases: names are escaped; absent members are left out, never null.
 * Reference: FORMAT.md 2. Worked number: see llmq_text.h.
 */
#include "container/llmq_text.h"

#include <inttypes.h>
#include <string.h>

#include "base/size.h"

static void add_pair(struct text *text, const char *name, uint64_t a, uint64_t b)
{
    text_add(text, "\"%s\":[%" PRIu64 ",%" PRIu64 "]", name, a, b);
}

static void add_string(struct text *text, const char *name, const char *value)
{
    if (!value) return;
    text_add(text, "\"%s\":", name);
    text_add_json_str(text, value);
    text_add(text, ",");
}

void llmq_text_head(struct text *text, const struct llmq_layout *layout, bool first_shard)
{
    text_add(text, "{\"writer\":");
    text_add_json_str(text, layout->options->writer_name ? layout->options->writer_name : "");
    const char *metadata = first_shard && layout->options->metadata_json ? layout->options->metadata_json : "{}";
    text_add(text, ",\"metadata\":");
    text_add_bytes(text, metadata, strlen(metadata));
    text_add(text, ",\n\"formats\":{");
}

void llmq_text_format(struct text *text, const struct out_tensor *tensor, bool first)
{
    if (!first) text_add(text, ",");
    text_add_json_str(text, tensor->format);
    text_add(text, ":");
    const char *facts = tensor->format_facts ? tensor->format_facts : "{}";
    text_add_bytes(text, facts, strlen(facts));
}

void llmq_text_blobs(struct text *text, const struct llmq_layout *layout, bool first_shard)
{
    text_add(text, "},\n\"blobs\":{");
    uint64_t chunk = 0;
    for (size_t i = 0; first_shard && i < layout->n_blobs; i++) {
        uint64_t count = size_ceil_div(layout->blobs[i].nbytes, LLMQ_BLOB_TILE);
        text_add(text, i ? ",\n" : "\n");
        text_add_json_str(text, layout->blobs[i].name);
        text_add(text, ":{\"bytes\":%" PRIu64 ",\"tile\":%u,", layout->blobs[i].nbytes, LLMQ_BLOB_TILE);
        add_pair(text, "chunks", chunk, count);
        text_add(text, "}");
        chunk += count;
    }
    text_add(text, "},\n\"tensors\":{");
}

static void add_plane(struct text *text, const struct plane *plane, uint64_t first, uint64_t offset)
{
    text_add(text, "{\"name\":\"%s\",\"bits\":%u,", plane->name, plane->bits);
    add_pair(text, "shape", plane->rows, plane->cols);
    text_add(text, ",");
    add_pair(text, "tile", plane->tile_rows, plane->tile_cols);
    if (offset) text_add(text, ",\"offset\":%" PRIu64, offset);
    text_add(text, ",");
    add_pair(text, "chunks", first, plane_tile_count(plane));
    text_add(text, "}");
}

void llmq_text_tensor(struct text *text, const struct out_tensor *tensor, const struct llmq_laid *laid, const struct digest128 *digest, bool first)
{
    char hex[DIGEST128_HEX];
    static const struct digest128 none;
    digest128_hex(digest ? digest : &none, hex);
    text_add(text, first ? "\n" : ",\n");
    text_add_json_str(text, tensor->name);
    text_add(text, ":{\"shape\":[");
    for (uint32_t i = 0; i < tensor->rank; i++) text_add(text, i ? ",%" PRIu64 : "%" PRIu64, tensor->dims[i]);
    text_add(text, "],");
    add_string(text, "role", tensor->role ? tensor->role : "other");
    add_string(text, "dtype", tensor->dtype);
    text_add(text, "\"source_digest\":\"%s\",", hex);
    add_pair(text, "tile", tensor->tile_rows, tensor->tile_cols);
    text_add(text, ",");
    if (tensor->format) {
        add_string(text, "format", tensor->format);
        text_add(text, "\"group\":%s,", tensor->group);
        if (tensor->sub_block) text_add(text, "\"sub_block\":%u,", tensor->sub_block);
        text_add(text, "\"axis\":%u,", tensor->rank ? tensor->rank - 1 : 0);
        add_string(text, "scale_rule", tensor->scale_rule);
        if (tensor->percentile) add_string(text, "percentile", tensor->percentile);
        add_string(text, "rounding", tensor->rounding);
        add_string(text, "scale", tensor->scale);
    }
    text_add(text, "\"planes\":[");
    for (uint32_t i = 0; i < tensor->n_planes; i++) {
        if (i) text_add(text, ",");
        add_plane(text, &tensor->planes[i].plane, laid->first[i], laid->offset[i]);
    }
    text_add(text, "]}");
}

void llmq_text_end(struct text *text)
{
    text_add(text, "}}\n");
}
