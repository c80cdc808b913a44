/* digest.c: XXH3 checksums through libxxhash.
 *
 * Formula: XXH3_64bits(data), XXH3_128bits(data), seed 0.
 * Why this way: see digest.h.
 * Corner cases: nbytes may be 0, data then is not read.
 * Reference: xxHash 0.8 specification. Worked number: XXH3-64 of no bytes is 0x2d06800538d394c2.
 */
#include "base/digest.h"

#include <string.h>
#include <xxhash.h>

uint64_t digest64(const void *data, size_t nbytes)
{
    return XXH3_64bits(data, nbytes);
}

static struct digest128 canonical(XXH128_hash_t hash)
{
    XXH128_canonical_t bytes;
    XXH128_canonicalFromHash(&bytes, hash);
    struct digest128 digest;
    memcpy(digest.bytes, bytes.digest, sizeof digest.bytes);
    return digest;
}

struct digest128 digest128(const void *data, size_t nbytes)
{
    return canonical(XXH3_128bits(data, nbytes));
}

/* A stream is the library's state under another name. */
struct digest_stream *digest_open(void)
{
    XXH3_state_t *state = XXH3_createState();
    if (state) XXH3_128bits_reset(state);
    return (struct digest_stream *)state;
}

void digest_add(struct digest_stream *stream, const void *data, size_t nbytes)
{
    XXH3_128bits_update((XXH3_state_t *)stream, data, nbytes);
}

struct digest128 digest_value(const struct digest_stream *stream)
{
    return canonical(XXH3_128bits_digest((const XXH3_state_t *)stream));
}

void digest_reset(struct digest_stream *stream)
{
    XXH3_128bits_reset((XXH3_state_t *)stream);
}

void digest_close(struct digest_stream *stream)
{
    XXH3_freeState((XXH3_state_t *)stream);
}

void digest128_hex(const struct digest128 *digest, char out[DIGEST128_HEX])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < sizeof digest->bytes; i++) {
        out[2 * i] = digits[digest->bytes[i] >> 4];
        out[2 * i + 1] = digits[digest->bytes[i] & 15];
    }
    out[DIGEST128_HEX - 1] = '\0';
}
