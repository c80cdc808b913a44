/* zframe.c: one-shot calls of the stable libzstd interface, and a look at the frame header before them.
 *
 *   descriptor byte:  content size flag (7-6) | single segment (5) | unused (4) | reserved (3) | checksum (2) | dictionary id (1-0)
 *   window byte:      2^(10 + b >> 3) * (1 + (b & 7) / 8) bytes;  absent with single segment: the window is the content
 *
 * Why this way: the library checks the window only when it streams, so the header is read here; contexts are reset before each use, one-shot calls
 * know the size of their input, and one thread works on a frame: the bytes depend on input, level and library version alone.
 * Corner cases: see zframe.h; the unused bit of the descriptor, which decoders ignore, must be 0.
 * Reference: RFC 8878 3.1.1. Worked number: window byte 0x58 is exponent 11, mantissa 0: 2^21 bytes.
 */
#include "container/zframe.h"

#include <stdlib.h>
#include <zstd.h>

struct zframe_coder {
    ZSTD_CCtx *context;
};

struct zframe_decoder {
    ZSTD_DCtx *context;
};

const char *zframe_library(void)
{
    return ZSTD_versionString();
}

size_t zframe_slack(size_t nbytes)
{
    return ZSTD_compressBound(nbytes) - nbytes;
}

size_t zframe_coder_nbytes(int level, size_t nbytes)
{
    size_t used = 0, stored;
    struct zframe_coder *coder = zframe_coder_open(level);
    char *zeros = calloc(nbytes + 1, 1), *out = malloc(ZSTD_compressBound(nbytes));
    if (coder && zeros && out && zframe_code(coder, zeros, nbytes, out, &stored, NULL) == OK) used = ZSTD_sizeof_CCtx(coder->context);
    free(out);
    free(zeros);
    zframe_coder_close(coder);
    return used;
}

struct zframe_coder *zframe_coder_open(int level)
{
    struct zframe_coder *coder = calloc(1, sizeof *coder);
    if (!coder) return NULL;
    coder->context = ZSTD_createCCtx();
    if (coder->context && !ZSTD_isError(ZSTD_CCtx_setParameter(coder->context, ZSTD_c_compressionLevel, level)) &&
        !ZSTD_isError(ZSTD_CCtx_setParameter(coder->context, ZSTD_c_contentSizeFlag, 1)) &&
        !ZSTD_isError(ZSTD_CCtx_setParameter(coder->context, ZSTD_c_checksumFlag, 0)))
        return coder;
    zframe_coder_close(coder);
    return NULL;
}

void zframe_coder_close(struct zframe_coder *coder)
{
    if (!coder) return;
    ZSTD_freeCCtx(coder->context);
    free(coder);
}

enum status zframe_code(struct zframe_coder *coder, const void *src, size_t nbytes, void *dst, size_t *stored, struct err *err)
{
    size_t n = ZSTD_compress2(coder->context, dst, nbytes + zframe_slack(nbytes), src, nbytes);
    if (ZSTD_isError(n)) {
        ZSTD_CCtx_reset(coder->context, ZSTD_reset_session_only);
        return err_set(err, ERR_MEMORY, "cannot compress %zu bytes: %s", nbytes, ZSTD_getErrorName(n));
    }
    *stored = n < nbytes ? n : nbytes;
    return OK;
}

struct zframe_decoder *zframe_decoder_open(void)
{
    struct zframe_decoder *decoder = calloc(1, sizeof *decoder);
    if (!decoder) return NULL;
    decoder->context = ZSTD_createDCtx();
    if (decoder->context) return decoder;
    zframe_decoder_close(decoder);
    return NULL;
}

void zframe_decoder_close(struct zframe_decoder *decoder)
{
    if (!decoder) return;
    ZSTD_freeDCtx(decoder->context);
    free(decoder);
}

/* What the frame header says must be what is wanted. */
static enum status check_header(const uint8_t *src, size_t stored, size_t nbytes, struct err *err)
{
    if (stored < 6 || src[0] != 0x28 || src[1] != 0xB5 || src[2] != 0x2F || src[3] != 0xFD) return err_set(err, ERR_DATA, "is not a zstd frame");
    uint8_t descriptor = src[4];
    if (descriptor & 0x18) return err_set(err, ERR_DATA, "has reserved bits set in its zstd header");
    if (descriptor & 3) return err_set(err, ERR_DATA, "wants a zstd dictionary");
    bool single = descriptor & 0x20;
    if (!single) {
        unsigned exponent = src[5] >> 3;
        uint64_t base = UINT64_C(1) << (10 + exponent);
        if (base + base / 8 * (src[5] & 7u) > ZFRAME_WINDOW_MAX)
            return err_set(err, ERR_DATA, "wants a zstd window over %u bytes", ZFRAME_WINDOW_MAX);
    } else if (nbytes > ZFRAME_WINDOW_MAX) {
        return err_set(err, ERR_DATA, "wants a zstd window over %u bytes", ZFRAME_WINDOW_MAX);
    }
    unsigned long long content = ZSTD_getFrameContentSize(src, stored);
    if (content == ZSTD_CONTENTSIZE_UNKNOWN || content == ZSTD_CONTENTSIZE_ERROR)
        return err_set(err, ERR_DATA, "does not say its size in its zstd header");
    if (content != nbytes) return err_set(err, ERR_DATA, "claims to be %llu bytes in its zstd header, not %zu", content, nbytes);
    return OK;
}

enum status zframe_decode(struct zframe_decoder *decoder, const void *src, size_t stored, void *dst, size_t nbytes, struct err *err)
{
    enum status status = check_header(src, stored, nbytes, err);
    if (status != OK) return status;
    size_t frame = ZSTD_findFrameCompressedSize(src, stored);
    if (ZSTD_isError(frame)) return err_set(err, ERR_DATA, "is no valid zstd frame: %s", ZSTD_getErrorName(frame));
    if (frame != stored) return err_set(err, ERR_DATA, "has %zu bytes behind its zstd frame", stored - frame);
    size_t n = ZSTD_decompressDCtx(decoder->context, dst, nbytes, src, stored);
    if (ZSTD_isError(n)) return err_set(err, ERR_DATA, "cannot be decompressed: %s", ZSTD_getErrorName(n));
    if (n != nbytes) return err_set(err, ERR_DATA, "gives %zu bytes, not %zu", n, nbytes);
    return OK;
}
