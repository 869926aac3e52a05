"""The tails beyond the outermost quantiles as plain arithmetic in float64, one stream, written from the definition."""

from __future__ import annotations

import math

SHARES, RATES, FIRST = (0.3, 0.05, 0.005), (0.4, 0.6, 1.5), (0.45, 1.0, 1.8)


class TailsOracle:
    """One side's knots of a stream, and its usual miss."""

    def __init__(self, lowest: float, highest: float) -> None:
        self.outermost = (lowest, 1 - highest)
        self.knots = [list(FIRST), list(FIRST)]
        self.usual: float | None = None

    def judge(self, y: float, low: float, middle: float, high: float) -> tuple[float, float]:
        """Return the tail probabilities below and above, and learn."""
        miss = abs(y - middle)
        usual = self.usual or miss
        unit = max(high - low + 1e-6 * abs(middle), usual)
        tails = []
        for side, distance in enumerate((max(low - y, 0) / unit, max(y - high, 0) / unit)):
            p = self.outermost[side]
            at_knots = [p * share for share in SHARES]
            knots = self.knots[side]
            reached = [1 / p + (1 / at_knots[0] - 1 / p) * min(distance / knots[0], 1)]
            for number, (knot, tail) in enumerate(zip(knots, at_knots, strict=True)):
                if distance > knot:
                    rarest = 1 / at_knots[number + 1] if number < 2 else 1e7
                    reached.append(min((distance / knot) ** 2 / tail, rarest))
            tails.append(1 / max(reached))
            for number, (tail, rate) in enumerate(zip(at_knots, RATES, strict=True)):
                knots[number] = max(1e-6, knots[number] * math.exp(rate * ((distance > knots[number]) - tail)))
        self.usual = usual + 0.02 * (min(miss, 3 * usual) - usual)
        return tails[0], tails[1]
