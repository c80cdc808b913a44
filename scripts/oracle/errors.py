"""Sums of squared errors in their fixed order, and the choice of the least (NUMERICS.md 5)."""

from fractions import Fraction

from oracle.binary import fl
from oracle.rounding import INF


def lanes_of(terms, count):
    lanes = [Fraction(0)] * count
    for i, t in enumerate(terms):
        lanes[i % count] = fl(lanes[i % count] + t)
    return lanes


def lane_sum(terms):
    """Sixteen binary32 lanes, then the fixed tree."""
    lanes = lanes_of(terms, 16)
    for width in (8, 4, 2):
        for j in range(width):
            lanes[j] = fl(lanes[j] + lanes[j + width])
    return fl(lanes[0] + lanes[1])


def squared_terms(deviations, weights):
    terms = [fl(d * d) for d in deviations]
    if weights is None:
        return terms
    assert INF not in terms
    return [fl(t * w) for t, w in zip(terms, weights)]


def least_error(candidates, total=None):
    """The result of least error of [(terms, result), ..]; a tie goes to the earlier."""
    best_error, best = None, None
    for terms, result in candidates:
        error = (total or lane_sum)(terms)
        if best is None or error < best_error:
            best_error, best = error, result
    return best
