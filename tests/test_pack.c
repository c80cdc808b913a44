/* test_pack.c: bit streams.
 *
 * Formula: bit k of the stream is bit k % bits of code k / bits.
 * Why this way: the oracle sets single bits; the worked bytes of the specification fix the direction.
 * Corner cases: every length up to 70 with every width 1 .. 16; reading from any first code; high bits of a code are cut; bytes behind the stream
 * are not touched.
 * Reference: FORMAT.md 3.
 */
#include "support/support.h"

#include "layout/pack.h"

static const struct {
    uint32_t bits;
    size_t n;
    uint16_t codes[8];
    uint8_t bytes[8];
    size_t nbytes;
} samples[] = {
    { 4, 3, { 1, 2, 3 }, { 0x21, 0x03 }, 2 },
    { 4, 8, { 1, 0xA, 7, 0xF, 0, 3, 5, 9 }, { 0xA1, 0xF7, 0x30, 0x95 }, 4 },
    { 6, 4, { 0x1F, 0x21, 0x08, 0x39 }, { 0x5F, 0x88, 0xE4 }, 3 },
    { 6, 4, { 0x1F, 0x21, 0x0C, 0x33 }, { 0x5F, 0xC8, 0xCC }, 3 },
    { 3, 8, { 4, 5, 6, 7, 0, 1, 2, 3 }, { 0xAC, 0x8F, 0x68 }, 3 },
    { 3, 8, { 1, 2, 3, 4, 5, 6, 7, 0 }, { 0xD1, 0x58, 0x1F }, 3 },
    { 8, 2, { 0xFF, 0x01 }, { 0xFF, 0x01 }, 2 },
    { 2, 4, { 0xFFFD, 0xFFFE, 0xFFFF, 0xFFFC }, { 0x39 }, 1 },
};

static void test_samples(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        uint8_t out[9];
        memset(out, 0x55, sizeof out);
        pack_bits(samples[i].codes, samples[i].n, samples[i].bits, out);
        assert_memory_equal(out, samples[i].bytes, samples[i].nbytes);
        assert_int_equal(out[samples[i].nbytes], 0x55);
    }
}

static void check_round_trip(const uint16_t *codes, size_t n, uint32_t bits)
{
    size_t nbytes = (n * bits + 7) / 8;
    uint8_t *want = calloc(nbytes + 1, 1), *got = malloc(nbytes + 1); /* one byte more: malloc(0) may be NULL */
    uint16_t *back = malloc(2 * (n + 1));
    got[nbytes] = 0x55;
    for (size_t k = 0; k < n * bits; k++) want[k / 8] = (uint8_t)(want[k / 8] | (codes[k / bits] >> k % bits & 1) << k % 8);
    pack_bits(codes, n, bits, got);
    assert_memory_equal(got, want, nbytes);
    assert_int_equal(got[nbytes], 0x55);
    uint8_t *exact = malloc(nbytes ? nbytes : 1); /* no byte behind the stream may be read */
    memcpy(exact, got, nbytes);
    for (size_t first = 0; first < n; first += n / 3 + 1)
        for (size_t count = 0; first + count <= n; count += 1 + count / 4) {
            unpack_bits(exact, first, count, bits, back);
            for (size_t i = 0; i < count; i++) assert_int_equal(back[i], codes[first + i] & ((1u << bits) - 1u));
        }
    unpack_bits(exact, 0, n, bits, back);
    for (size_t i = 0; i < n; i++) assert_int_equal(back[i], codes[i] & ((1u << bits) - 1u));
    free(want);
    free(got);
    free(back);
    free(exact);
}

static void test_round_trips(void **state)
{
    (void)state;
    static const size_t lengths[] = { 127, 128, 129, 1000, 4096 };
    uint16_t codes[4096];
    uint64_t seed = 1;
    for (size_t i = 0; i < 4096; i++) codes[i] = (uint16_t)test_random(&seed);
    for (uint32_t bits = 1; bits <= 16; bits++) {
        for (size_t n = 0; n <= 70; n++) check_round_trip(codes + n, n, bits);
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) check_round_trip(codes, lengths[i], bits);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_samples), cmocka_unit_test(test_round_trips) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
