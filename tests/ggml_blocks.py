"""The block types of ggml, decoded in plain numpy; written from the layouts alone, sharing nothing with the C sources.

What it is
  decode("Q4_K", data, n_weights) gives binary32 weights. Every operation is one binary32 operation in the order written, none fused.
  TYPES: name -> (id in GGUF files, weights of a block, bytes of a block).

Drawing (16-bit floats are little-endian, j counts within the group named)
  Q4_0  d f16 | 16 bytes: low nibble weight j, high nibble weight j + 16          NVFP4 | 4 scales E4M3 | 4 * 8 bytes, low j, high j + 8
  Q4_K  d, dmin f16 | 12 bytes: 8 six-bit scales, 8 six-bit minima | 4 * 32 bytes, low j, high j + 32 of 64 weights

Corner cases
  E2M1 code 8 is +0, as ggml's table of integers has it (-0 in .llmq files); E8M0 byte 255 is NaN; byte 0x7F of an NVFP4 scale is 0, the sign is ignored, so
  0xFF is 480.

Worked number
  Q4_0 of d = 1.0 (bytes 00 3c) and a first byte of 0x2f: weight 0 is 1 * (15 - 8) = 7, weight 16 is 1 * (2 - 8) = -6.
"""
import numpy as np

TYPES = {
    "F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20), "Q5_0": (6, 32, 22), "Q5_1": (7, 32, 24), "Q8_0": (8, 32, 34),
    "Q2_K": (10, 256, 84), "Q3_K": (11, 256, 110), "Q4_K": (12, 256, 144), "Q5_K": (13, 256, 176), "Q6_K": (14, 256, 210), "IQ4_NL": (20, 32, 18),
    "IQ4_XS": (23, 256, 136), "BF16": (30, 1, 2), "TQ1_0": (34, 256, 54), "TQ2_0": (35, 256, 66), "MXFP4": (39, 32, 17), "NVFP4": (40, 64, 36),
    "Q1_0": (41, 128, 18), "Q2_0": (42, 64, 18),
}
F32 = np.float32
LEVELS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], F32)
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], F32)


def half(b, at):
    """The binary16 at byte `at` of each block, as binary32, [blocks, 1]."""
    return np.ascontiguousarray(b[:, at:at + 2]).view("<f2").astype(F32)


def nibbles(q):
    """Low nibbles of all bytes of a group, then the high ones."""
    return np.concatenate([q & 15, q >> 4], axis=-1)


def fifth_bits(b, at):
    """32 bits, least significant first, as 16 or 0."""
    return np.unpackbits(b[:, at:at + 4], axis=1, bitorder="little") * 16


def q4_0(b):
    return half(b, 0) * (nibbles(b[:, 2:18]).astype(F32) - F32(8))


def q4_1(b):
    return half(b, 0) * nibbles(b[:, 4:20]).astype(F32) + half(b, 2)


def q5_0(b):
    return half(b, 0) * ((nibbles(b[:, 6:22]) + fifth_bits(b, 2)).astype(F32) - F32(16))


def q5_1(b):
    return half(b, 0) * (nibbles(b[:, 8:24]) + fifth_bits(b, 4)).astype(F32) + half(b, 2)


def q8_0(b):
    return half(b, 0) * b[:, 2:34].view(np.int8).astype(F32)


def two_bits(q):
    """32 bytes a half block of 128: four planes of 32 two-bit codes, lowest bits first. [blocks, 64] -> [blocks, 8, 32]."""
    q = q.reshape(-1, 2, 1, 32)
    return (q >> np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1) & 3).reshape(-1, 8, 32)


def q2_k(b):
    sc = b[:, :16]
    q = two_bits(b[:, 16:80]).reshape(-1, 16, 16).astype(F32)
    scale = half(b, 80) * (sc & 15).astype(F32)
    low = half(b, 82) * (sc >> 4).astype(F32)
    return (scale[:, :, None] * q - low[:, :, None]).reshape(len(b), 256)


def q3_k(b):
    mask, packed = b[:, :32], b[:, 96:108]
    q = two_bits(b[:, 32:96]).astype(np.int32)
    q -= np.where(mask[:, None, :] >> np.arange(8, dtype=np.uint8).reshape(1, 8, 1) & 1, 0, 4)
    scales = np.empty((len(b), 16), np.int32)
    for i in range(16):
        low = packed[:, i] & 15 if i < 8 else packed[:, i - 8] >> 4
        scales[:, i] = (low | (packed[:, 8 + (i & 3)] >> 2 * (i >> 2) & 3) << 4).astype(np.int32) - 32
    scale = half(b, 108) * scales.astype(F32)
    return (scale[:, :, None] * q.reshape(-1, 16, 16).astype(F32)).reshape(len(b), 256)


def six_bits(p):
    """Twelve bytes -> 8 scales, 8 minima."""
    sc, mn = np.empty((len(p), 8), np.uint8), np.empty((len(p), 8), np.uint8)
    for j in range(8):
        if j < 4:
            sc[:, j], mn[:, j] = p[:, j] & 63, p[:, j + 4] & 63
        else:
            sc[:, j], mn[:, j] = p[:, j + 4] & 15 | p[:, j - 4] >> 6 << 4, p[:, j + 4] >> 4 | p[:, j] >> 6 << 4
    return sc.astype(F32), mn.astype(F32)


def scaled_32(b, q):
    """d * scale * q - dmin * min for 8 groups of 32; the heads of Q4_K and Q5_K are alike."""
    sc, mn = six_bits(b[:, 4:16])
    scale, low = half(b, 0) * sc, half(b, 2) * mn
    return (scale[:, :, None] * q.astype(F32) - low[:, :, None]).reshape(len(b), 256)


def q4_k(b):
    return scaled_32(b, nibbles(b[:, 16:144].reshape(-1, 4, 32)).reshape(-1, 8, 32))


def q5_k(b):
    high = b[:, None, 16:48] >> np.arange(8, dtype=np.uint8).reshape(1, 8, 1) & 1
    return scaled_32(b, nibbles(b[:, 48:176].reshape(-1, 4, 32)).reshape(-1, 8, 32) + 16 * high)


def q6_k(b):
    low, high = b[:, :128].reshape(-1, 2, 64), b[:, 128:192].reshape(-1, 2, 32)
    q = np.empty((len(b), 2, 4, 32), np.int32)
    for part, piece in enumerate((low[:, :, :32] & 15, low[:, :, 32:] & 15, low[:, :, :32] >> 4, low[:, :, 32:] >> 4)):
        q[:, :, part] = (piece | (high >> 2 * part & 3) << 4).astype(np.int32) - 32
    scale = half(b, 208) * b[:, 192:208].view(np.int8).astype(F32)
    return (scale[:, :, None] * q.reshape(-1, 16, 16).astype(F32)).reshape(len(b), 256)


def iq4_nl(b):
    return half(b, 0) * LEVELS[nibbles(b[:, 2:18])]


def iq4_xs(b):
    high = np.ascontiguousarray(b[:, 2:4]).view("<u2").astype(np.int32)
    scales = np.empty((len(b), 8), np.int32)
    for i in range(8):
        scales[:, i] = (b[:, 4 + i // 2] >> 4 * (i % 2) & 15).astype(np.int32) | (high[:, 0] >> 2 * i & 3) << 4
    scale = half(b, 0) * (scales - 32).astype(F32)
    return (scale[:, :, None] * LEVELS[nibbles(b[:, 8:136].reshape(-1, 8, 16))]).reshape(len(b), 256)


def e8m0(byte):
    with np.errstate(over="ignore"):
        return np.where(byte == 255, F32(np.nan), np.ldexp(F32(1), byte.astype(np.int32) - 127)).astype(F32)


def e4m3(byte):
    """The scales of NVFP4: 0x7F is 0; then the sign is ignored, so 0xFF is 480."""
    zero = byte == 0x7F
    byte = byte & 0x7F
    field, mantissa = (byte >> 3).astype(np.int32), (byte & 7).astype(F32)
    value = np.where(field > 0, np.ldexp(F32(1) + mantissa / F32(8), field - 7), np.ldexp(mantissa / F32(8), -6))
    return np.where(zero, F32(0), value).astype(F32)


def mxfp4(b):
    return E2M1[nibbles(b[:, 1:17])] * e8m0(b[:, :1])


def nvfp4(b):
    return (E2M1[nibbles(b[:, 4:36].reshape(-1, 4, 8))] * e4m3(b[:, :4])[:, :, None]).reshape(len(b), 64)


def tq1_0(b):
    """Five ternary digits a byte as a fraction of 256: digit n of q is (q * 3^n mod 256) * 3 / 256, less 1."""
    def digits(q, count):
        powers = np.array([1, 3, 9, 27, 81], np.uint8)[:count].reshape(1, count, 1)
        return ((q[:, None, :] * powers).astype(np.uint16) * 3 >> 8).astype(np.int32) - 1
    parts = [digits(b[:, :32], 5), digits(b[:, 32:48], 5), digits(b[:, 48:52], 4)]
    return half(b, 52) * np.concatenate([p.reshape(len(b), -1) for p in parts], axis=1).astype(F32)


def tq2_0(b):
    return half(b, 64) * (two_bits(b[:, :64]).reshape(len(b), 256).astype(F32) - F32(1))


def q1_0(b):
    return np.where(np.unpackbits(b[:, 2:18], axis=1, bitorder="little"), half(b, 0), -half(b, 0))


def q2_0(b):
    q = (b[:, 2:18, None] >> np.array([0, 2, 4, 6], np.uint8) & 3).reshape(len(b), 64)
    return (q.astype(F32) - F32(1)) * half(b, 0)


def f16(b):
    return half(b, 0)


def bf16(b):
    return (np.ascontiguousarray(b).view("<u2").astype(np.uint32) << 16).view(F32)


def f32(b):
    return np.ascontiguousarray(b).view("<f4")


DECODERS = {name: globals()[name.lower()] for name in TYPES}


def decode(name, data, n_weights):
    """n_weights binary32 weights of whole blocks."""
    _, elements, nbytes = TYPES[name]
    blocks = np.frombuffer(data, np.uint8).reshape(-1, nbytes)
    if len(blocks) * elements != n_weights:
        raise ValueError(f"{name}: {len(blocks)} blocks are not {n_weights} weights")
    with np.errstate(invalid="ignore", over="ignore"):
        return np.ascontiguousarray(DECODERS[name](blocks)).reshape(-1).astype(F32) if n_weights else np.zeros(0, F32)


def type_of_id(number):
    return next((name for name, row in TYPES.items() if row[0] == number), None)
