"""Groups of the block families in which two candidates have the same least error, or one rounding more would show."""

from fractions import Fraction

from oracle.binary import F32, fl
from oracle.distributions import one_row, stack, to_bits
from oracle.elements import E2M1, E4M3, positive_midpoints
from oracle.errors import lane_sum
from oracle.near_ties import as_weights
from oracle.nvfp4 import scale_byte


def least_results(candidates):
    """The results of all candidates that have the least error."""
    errors = [lane_sum(terms) for terms, _ in candidates]
    return [result for error, (_, result) in zip(errors, candidates) if error == min(errors)]


# whole numbers (halves for fp4_e2m1) whose scale of step k is k, found by trying, and the steps that tie
MSE_TIES = {
    "fp4_e2m1": [("-384 -288.5 360.5 179.5", [64, 63]), ("-384 -281.5 -262 235", [64, 65]),
                 ("-384 -314.5 -150.5 -373.5", [59, 66])],
    "iq4nl": [("-8128 -6648 3127", [64, 63]), ("-8128 769 2687", [64, 65]), ("-8128 -4693 -4725", [61, 67])],
}


def mse_ties(fmt, candidates_of):
    """A group a row; candidates_of: weights -> candidates of the rule mse."""
    rows = []
    for text, steps in MSE_TIES[fmt]:
        rows.append(to_bits(map(Fraction, text.split())))
        assert [abs(s) for s in least_results(candidates_of(as_weights(rows[-1])))] == steps
    return stack("mse-ties", rows)


def tipping_weight(candidates_of, xs, first, second):
    """The weight of the second of two numbers for which two candidates have the same error; 0 if there is none."""
    errors = {str(result): terms for terms, result in candidates_of(xs, None)}
    if str(first) not in errors or str(second) not in errors:
        return 0
    (p1, q1), (p2, q2) = errors[str(first)], errors[str(second)]
    return (p2 - p1) / (q1 - q2) if q1 != q2 else 0


def weighted_ties(lcg, candidates_of, pick, pairs_of, rows):
    """[(bits, weights)] of pairs of numbers; two candidates that pairs_of names are equal, and the best."""
    found = []
    while len(found) < rows:
        bits = to_bits([pick(), pick()])
        xs = as_weights(bits)
        for first, second in pairs_of(xs):
            w = tipping_weight(candidates_of, xs, first, second)
            if w <= 0 or fl(w) != w or w > 4096:
                continue
            if [str(r) for r in least_results(candidates_of(xs, [Fraction(1), w]))] == [str(first), str(second)]:
                found.append((bits, [Fraction(1), w]))
                break
    return found[:rows]


def neighbours(value, reach):
    at = F32.bits(fl(value))
    return range(at - reach, at + reach + 1)


def nvfp4_roundings(g):
    """Groups under the tensor scale g whose amax would give another byte in another order of division."""
    bits = []
    for middle in positive_midpoints(E4M3)[8:]:
        for b in neighbours(middle * 6 * g, 3):
            a = F32.value(b)[1]
            others = {scale_byte(fl(fl(a / 6) / g)), scale_byte(fl(a / fl(6 * g)))}
            if others != {scale_byte(fl(fl(a / g) / 6))}:
                bits.append([b] + to_bits([a / 3, -a / 7]))
    return one_row("scale-roundings", [b for group in bits[:8] for b in group + [0] * 13])


def nvfp4_quotients(g):
    """Groups with weights that would get another code if their quotient were formed in another order."""
    rows = []
    for c in range(0x40, 0x7F):
        scale = E4M3.decode(c)[1]
        s, picked = fl(scale * g), []
        for middle in positive_midpoints(E2M1):
            for b in neighbours(middle * s, 2):
                x = F32.value(b)[1]
                others = [fl(fl(x / scale) / g), fl(x / s), fl(x * fl(1 / s))]
                codes = {E2M1.encode(0, u, "nearest-even") for u in others}
                if codes != {E2M1.encode(0, fl(fl(x / g) / scale), "nearest-even")}:
                    picked.append(b)
        lead = F32.bits(fl(6 * s))
        if picked and scale_byte(fl(fl(F32.value(lead)[1] / g) / 6)) == c:
            rows.append(([lead] + picked + [0] * 16)[:16])
    return one_row("quotients", [b for row in rows[:6] for b in row])
