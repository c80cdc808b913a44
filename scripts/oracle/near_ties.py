"""Groups in which the order of a sum, or of the candidates, decides."""

from fractions import Fraction

from oracle.affine import MSE_STEPS, full_range_of, mse_candidates
from oracle.binary import F32, NEG_ZERO, fl
from oracle.distributions import stack, to_bits
from oracle.elements import Weight
from oracle.errors import lane_sum, lanes_of, least_error
from oracle.mx import search_candidates
from oracle.rounding import clamp, nearest_even


def sum_in_order(terms):
    total = Fraction(0)
    for t in terms:
        total = fl(total + t)
    return total


def sum_neighbours(terms):
    """Sixteen lanes, folded by neighbours (0 + 1, 2 + 3, ..) in place of halves."""
    lanes = lanes_of(terms, 16)
    while len(lanes) > 1:
        lanes = [fl(a + b) for a, b in zip(lanes[::2], lanes[1::2])]
    return lanes[0]

WRONG_SUMS = [sum, sum_in_order, sum_neighbours, lambda terms: sum_in_order(lanes_of(terms, 8)),
              lambda terms: sum_in_order(lanes_of(terms, 16))]


def misled_by(candidates):
    """Which of WRONG_SUMS would choose another candidate."""
    right = least_error(candidates)
    return {i for i, wrong in enumerate(WRONG_SUMS) if least_error(candidates, wrong) != right}


def flip_point(choice, low, high):
    """Two neighbouring bit patterns with different choices, between low and high; () where these two agree."""
    first = choice(low)
    if choice(high) == first:
        return ()
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if choice(middle) == first else (low, middle)
    return low, high


def as_weights(bits):
    return [Weight(*F32.value(b)) for b in bits]


def order_sensitive(lcg, tip_over, rows):
    """Groups of 32, moved by tip_over to an almost equal error of two candidates, that mislead WRONG_SUMS."""
    found, caught = [], set()
    while len(found) < rows:
        inner = [clamp(lcg.gauss() / 60, Fraction(-1, 16), Fraction(1, 16)) for _ in range(30)]
        start = to_bits([Fraction(23 + lcg.below(8), 256), Fraction(-23, 256)] + inner)
        for group, candidates in tip_over(start):
            misled = misled_by(candidates)
            if len(found) < rows and (misled - caught or len(caught) == len(WRONG_SUMS)):
                found.append(group)
                caught |= misled
    return stack("sum-order", found)


def mx_order_sensitive(lcg, elem, rows):
    """The maximum moves within its binade: that is where the search changes its mind."""
    def candidates(bits):
        xs = as_weights(bits)
        return search_candidates(xs, max(abs(x.value) for x in xs), elem, "nearest-even")

    def tip_over(bits):
        def choice(b):
            return least_error(candidates([b] + bits[1:]))

        low = F32.bits(Fraction(1, 8))
        for b in flip_point(choice, low, low + (1 << 23) - 1):
            yield [b] + bits[1:], candidates([b] + bits[1:])

    return order_sensitive(lcg, tip_over, rows)


def int_order_sensitive(lcg, kind, n, rows):
    """An inner weight moves until the two best steps k have almost equal errors; the range stays."""
    def candidates(bits, steps):
        return mse_candidates(kind, n, as_weights(bits), "nearest-even", F32, steps=steps)

    def tip_over(bits):
        ranked = sorted(candidates(bits, MSE_STEPS), key=lambda c: lane_sum(c[0]))
        best_two = {result[2] for _, result in ranked[:2]}
        steps = [k for k in MSE_STEPS if k in best_two]

        def choice(b):
            return least_error(candidates(bits[:-1] + [b], steps))

        end = bits[-1] & NEG_ZERO | F32.bits(Fraction(1, 16))
        for b in flip_point(choice, min(bits[-1], end), max(bits[-1], end)):
            group = bits[:-1] + [b]
            yield group, candidates(group, MSE_STEPS)

    return order_sensitive(lcg, tip_over, rows)


def tied_steps(kind, n, values):
    """The k of least error, for whole numbers whose scale of step k is k itself."""
    lo, hi = (-(1 << n - 1), (1 << n - 1) - 1) if kind == "int" else (0, (1 << n) - 1)
    errors = {k: sum((x - clamp(nearest_even(Fraction(x, k)), lo, hi) * k) ** 2 for x in values) for k in MSE_STEPS}
    return [k for k in MSE_STEPS if errors[k] == min(errors.values())]


def mse_ties(lcg, kind, n):
    """Groups of 4 with several k of least error: one with k <= 64 and a smaller k, one with k <= 64 and k > 64."""
    top = int(full_range_of(kind, n) * 64)
    wanted = [lambda ks: ks[0] <= 64 and min(ks) < ks[0], lambda ks: ks[0] <= 64 < max(ks)]
    rows = []
    while wanted:
        low = -top + 1 if kind == "int" else 0
        values = [top] + [low + lcg.below(top - low) for _ in range(3)]
        if kind == "int":
            values[0] *= lcg.sign()
        steps = tied_steps(kind, n, values)
        if len(steps) > 1 and wanted[0](steps):
            rows.append(to_bits(map(Fraction, values)))
            wanted.pop(0)
    return stack("mse-ties", rows)
