"""Stored scales of the formats with a float scale, and their overflow (NUMERICS.md 4)."""

from oracle.binary import BF16, F16, F32, fl
from oracle.rounding import INF, pow2

SCALE_TYPES = {"bf16": BF16, "f16": F16, "f32": F32}

SCALE_FLOOR = pow2(-23)


class ScaleOverflow(Exception):
    """A scale beyond its type's largest finite number: the tensor is refused."""


def store_scale(s, scale_type, widest):
    """The stored scale; refused when it, or its product with the widest code, is beyond binary32."""
    stored = scale_type.round(max(s, SCALE_FLOOR))
    if stored == INF or fl(stored * widest) == INF:
        raise ScaleOverflow
    return stored
