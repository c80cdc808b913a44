/* gguf_blob.c: the keys of a GGUF model as a small file that travels with its weights: a GGUF file without tensors.
 *
 *   "GGUF" | 3 | 0 tensors | n keys | the keys as they are, without split.*
 *
 * Why this way: a container that holds it can become GGUF again without losing a byte of its vocabulary, and any GGUF tool reads it. The keys are
 * never held in memory: a range of the blob is a few ranges of the file.
 * Corner cases: keys that say where a split model was cut are left out; general.alignment stays.
 * Reference: gguf_header.h. Worked number: a file with one key of 50 bytes: a blob of 24 + 50 bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "container/gguf_self.h"

static bool travels(const struct gguf_key *key)
{
    return strncmp(key->name, "split.", 6) != 0;
}

static void add_key(struct gguf *self, const struct gguf_key *key)
{
    struct gguf_span *last = self->n_spans ? &self->spans[self->n_spans - 1] : NULL;
    self->n_kept_keys++;
    if (last && last->offset + last->nbytes == key->offset) last->nbytes += key->nbytes;
    else self->spans[self->n_spans++] = (struct gguf_span){ key->offset, key->nbytes };
}

enum status gguf_make_blob(struct gguf *self, struct err *err)
{
    const struct gguf_header *header = &self->headers[0];
    struct container *base = &self->base;
    self->spans = calloc(header->n_keys + 1, sizeof *self->spans);
    base->blobs = calloc(1, sizeof *base->blobs);
    char *name = strdup(GGUF_BLOB_NAME);
    if (!self->spans || !base->blobs || !name) {
        free(name);
        return err_set(err, ERR_MEMORY, "out of memory for %zu keys", header->n_keys);
    }
    base->blobs[0] = (struct blob){ name, GGUF_KV_OFFSET };
    base->n_blobs = 1;
    for (size_t i = 0; i < header->n_keys; i++)
        if (travels(&header->keys[i])) add_key(self, &header->keys[i]);
    for (size_t i = 0; i < self->n_spans; i++) base->blobs[0].nbytes += self->spans[i].nbytes; /* at most the header's */
    return OK;
}

static void make_head(const struct gguf *self, uint8_t head[GGUF_KV_OFFSET])
{
    memset(head, 0, GGUF_KV_OFFSET);
    memcpy(head, GGUF_MAGIC, GGUF_MAGIC_NBYTES);
    head[4] = 3;
    for (unsigned i = 0; i < 8; i++) head[16 + i] = (uint8_t)(self->n_kept_keys >> (8 * i));
}

enum status gguf_read_blob(struct container *container, size_t index, uint64_t offset, size_t nbytes, void *buf, struct err *err)
{
    const struct gguf *self = gguf_self(container);
    uint8_t head[GGUF_KV_OFFSET], *out = buf;
    uint64_t begin = GGUF_KV_OFFSET; /* of the span, in the blob */
    (void)index;
    make_head(self, head);
    if (offset < GGUF_KV_OFFSET) {
        size_t n = (size_t)size_min(nbytes, GGUF_KV_OFFSET - offset);
        memcpy(out, head + offset, n);
        out += n;
        offset += n;
        nbytes -= n;
    }
    for (size_t i = 0; i < self->n_spans && nbytes > 0; begin += self->spans[i++].nbytes) {
        const struct gguf_span *span = &self->spans[i];
        if (offset >= begin + span->nbytes) continue;
        size_t n = (size_t)size_min(nbytes, begin + span->nbytes - offset);
        enum status status = file_read(&container->files[0], out, n, span->offset + (offset - begin), err);
        if (status != OK) return status;
        out += n;
        offset += n;
        nbytes -= n;
    }
    return OK;
}
