"""Integer formats: one scale, perhaps one zero point, a group (NUMERICS.md 4)."""

from fractions import Fraction

from oracle.binary import F32, fl
from oracle.errors import least_error, squared_terms
from oracle.rounding import HALF, ROUNDINGS, clamp, ilog2, nearest_even, pow2
from oracle.scales import ScaleOverflow, store_scale

INT_FORMATS = {f"{kind}{n}": (kind, n) for kind in ("int", "uint") for n in range(2, 9)}

MSE_STEPS = [*range(64, 15, -1), *range(65, 73)]


def symmetric_scale(amax, n, scale_type):
    return store_scale(fl(amax / (pow2(n - 1) - HALF)), scale_type, 1 << (n - 1)), 0


def asymmetric_scale(a, span, n, scale_type):
    """Scale and zero point of a range of length span whose lower end is a <= 0."""
    levels = (1 << n) - 1
    s = store_scale(fl(span / levels), scale_type, levels)
    return s, clamp(-nearest_even(fl(a / s)), 0, levels)


def int_range(kind, n, xs, scale_type, k=None):
    """Scale and zero point of one group; with k the mse candidate k/64."""
    part = Fraction(64 if k is None else k, 64)
    lo = min(Fraction(0), min(x.value for x in xs))
    hi = max(Fraction(0), max(x.value for x in xs))
    if kind == "int":
        return symmetric_scale(fl(max(-lo, hi) * part), n, scale_type)
    return asymmetric_scale(fl(lo * part), fl(fl(hi - lo) * part), n, scale_type)


def encode_int(kind, n, x, s, z, rounding):
    lo, hi = (-(1 << n - 1), (1 << n - 1) - 1) if kind == "int" else (0, (1 << n) - 1)
    return clamp(ROUNDINGS[rounding](fl(x / s)) + z, lo, hi)


def int_codes_and_values(kind, n, xs, s, z, rounding):
    codes = [encode_int(kind, n, x.value, s, z, rounding) for x in xs]
    return codes, [fl((c - z) * s) for c in codes]


def int_error_terms(kind, n, xs, s, z, rounding, p, weights):
    ys = int_codes_and_values(kind, n, xs, s, z, rounding)[1]
    unit = pow2(-p)
    deviations = [fl(fl(x.value - y) * unit) for x, y in zip(xs, ys)]
    return squared_terms(deviations, weights)


def mse_candidates(kind, n, xs, rounding, scale_type, weights=None, steps=MSE_STEPS):
    """[(error terms, (scale, zero point, k)), ..]"""
    amax = max(abs(x.value) for x in xs)
    p = clamp(ilog2(amax), -126, 126) if amax else 0
    candidates = []
    for k in steps:
        try:
            s, z = int_range(kind, n, xs, scale_type, k)
        except ScaleOverflow:
            if k == 64:
                raise  # the full range does not fit: the tensor is refused
            continue
        candidates.append((int_error_terms(kind, n, xs, s, z, rounding, p, weights), (s, z, k)))
    return candidates


def quantize_int_group(xs, kind, n, rule, rounding, scale_type, weights=None):
    if rule == "mse":
        s, z, _ = least_error(mse_candidates(kind, n, xs, rounding, scale_type, weights))
    else:
        s, z = int_range(kind, n, xs, scale_type)
    codes, ys = int_codes_and_values(kind, n, xs, s, z, rounding)
    return scale_type.bits(s), z, codes, [F32.bits(y) for y in ys]


def full_range_of(kind, n):
    """amax (or span) divided by the scale."""
    return (1 << n - 1) - HALF if kind == "int" else Fraction((1 << n) - 1)
