/* digest.h: the checksums of llmq: XXH3-64 for every chunk, XXH3-128 for identity. The only user of libxxhash.
 *
 *   digest64("", 0) = 0x2d06800538d394c2
 *
 * Why this way: XXH3 runs near memory speed, so that checking every byte costs little; it finds accidents, it does not authenticate.
 * Corner cases: 128-bit values are kept in canonical (big-endian) byte order, the order in which `xxhsum -H128` prints them.
 * Reference: xxHash 0.8 specification.
 */
#ifndef LLMQ_BASE_DIGEST_H
#define LLMQ_BASE_DIGEST_H

#include <stddef.h>
#include <stdint.h>

struct digest128 {
    uint8_t bytes[16]; /* canonical order */
};

#define DIGEST128_HEX 33 /* characters of the hexadecimal form with its NUL */

uint64_t digest64(const void *data, size_t nbytes);
struct digest128 digest128(const void *data, size_t nbytes);
/* The same over pieces: open, add in order, take the value; reset begins anew. digest_open returns NULL when out of memory. */
struct digest_stream;
struct digest_stream *digest_open(void);
void digest_add(struct digest_stream *stream, const void *data, size_t nbytes);
struct digest128 digest_value(const struct digest_stream *stream);
void digest_reset(struct digest_stream *stream);
void digest_close(struct digest_stream *stream); /* NULL allowed */

void digest128_hex(const struct digest128 *digest, char out[DIGEST128_HEX]);

#endif
