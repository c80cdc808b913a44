/* plane_hash.c: see plane_hash.h.
 *
 * Drawing: tile -> bytes of each plane -> digest of the tile -> digest of digests.
 * Why this way: see plane_hash.h.
 * Corner cases: the tiles are those that convert cuts, not those of the container, which may be larger (GGUF has none).
 * Reference: plane_hash.h. Worked number: no tiles: 99aa06d3014798d86001c324468d497f.
 */
#include "converter/plane_hash.h"

#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "layout/codec.h"
#include "layout/kept.h"

struct hashing {
    struct container *container;
    size_t index;
    const struct quant *quant;
    struct shape shape;
    struct plane geometry; /* in weights */
    struct plane planes[CODEC_PLANES_MAX];
    uint32_t n_planes;
    uint8_t *bytes;
    struct digest_stream *tile, *all;
};

/* Bytes of a plane that belong to a tile. */
static void span_of(const struct hashing *hashing, uint32_t k, uint64_t index, uint64_t *offset, uint64_t *nbytes)
{
    const struct plane *plane = &hashing->planes[k];
    const struct tile weights = plane_tile(&hashing->geometry, index);
    struct tile fields;
    if (codec_fields(hashing->quant, &hashing->shape, plane, &weights, &fields)) {
        *offset = fields.row * plane_row_nbytes(plane) + fields.col * plane->bits / 8;
        *nbytes = size_ceil_div(fields.n_cols * plane->bits, 8) * fields.n_rows;
    } else {
        *offset = 0;
        *nbytes = index == 0 ? plane_nbytes(plane) : 0;
    }
}

static enum status add_tile(struct hashing *hashing, uint64_t index, struct err *err)
{
    enum status status = OK;
    digest_reset(hashing->tile);
    for (uint32_t k = 0; k < hashing->n_planes && !status; k++) {
        uint64_t offset = plane_tile_offset(&hashing->geometry, index), nbytes = plane_tile_nbytes(&hashing->geometry, index);
        if (hashing->quant) span_of(hashing, k, index, &offset, &nbytes);
        for (uint64_t done = 0, n; done < nbytes && !status; done += n) {
            n = size_min(nbytes - done, TILE_NBYTES_MAX);
            status = hashing->quant ? container_read_plane(hashing->container, hashing->index, k, offset + done, (size_t)n, hashing->bytes, err)
                                    : container_read(hashing->container, hashing->index, offset + done, (size_t)n, hashing->bytes, err);
            if (!status) digest_add(hashing->tile, hashing->bytes, (size_t)n);
        }
    }
    const struct digest128 digest = digest_value(hashing->tile);
    digest_add(hashing->all, &digest, sizeof digest);
    return status;
}

/* Planes, tiles and the largest piece that is read at a time. */
static uint64_t lay_out(struct hashing *hashing)
{
    const struct tensor *tensor = &hashing->container->tensors[hashing->index];
    hashing->shape = tensor_shape(tensor);
    hashing->quant = tensor->quant;
    hashing->n_planes = 1;
    if (!tensor->quant) {
        struct kept kept;
        kept_planes(tensor->dtype, tensor_rows(tensor), tensor_cols(tensor), false, &kept);
        hashing->geometry = (struct plane){ "data", kept.item_nbytes * 8, kept.rows, kept.cols, kept.tile_rows, kept.tile_cols };
        return plane_tile_count(&hashing->geometry) ? plane_tile_nbytes(&hashing->geometry, 0) : 1;
    }
    uint64_t largest = 1;
    hashing->geometry = (struct plane){ "data", 8, hashing->shape.rows, hashing->shape.cols, 0, 0 };
    codec_tile_shape(tensor->quant, &hashing->shape, &hashing->geometry.tile_rows, &hashing->geometry.tile_cols);
    hashing->n_planes = codec_planes(tensor->quant, &hashing->shape, hashing->planes);
    for (uint32_t k = 0; k < hashing->n_planes && plane_tile_count(&hashing->geometry); k++) {
        uint64_t offset, nbytes;
        span_of(hashing, k, 0, &offset, &nbytes);
        largest = size_max(largest, nbytes);
    }
    return largest;
}

enum status plane_hash(struct container *container, size_t index, struct digest128 *hash, struct err *err)
{
    const struct tensor *tensor = &container->tensors[index];
    struct hashing hashing = { .container = container, .index = index, .tile = digest_open(), .all = digest_open() };
    char name[200];
    enum status status = OK;
    if (tensor->quantised && !tensor->quant)
        status = err_set(err, ERR_UNSUPPORTED, "tensor '%s' has type %s, which llmq cannot decode",
                         err_name(tensor->name, strlen(tensor->name), name, sizeof name), tensor->format ? tensor->format : "?");
    if (!status) hashing.bytes = malloc((size_t)size_min(lay_out(&hashing), TILE_NBYTES_MAX));
    if (!status && (!hashing.bytes || !hashing.tile || !hashing.all)) status = err_set(err, ERR_MEMORY, "out of memory");
    const uint64_t n_tiles = status ? 0 : plane_tile_count(&hashing.geometry);
    for (uint64_t i = 0; i < n_tiles && !status; i++) status = add_tile(&hashing, i, err);
    if (!status) *hash = n_tiles ? digest_value(hashing.all) : digest128("", 0);
    free(hashing.bytes);
    digest_close(hashing.tile);
    digest_close(hashing.all);
    return status;
}
