"""The experts as plain arithmetic in float64, written from their definition and not from the layer.

Every expert's forecast stands in an array of its own; states of unseen things are NaN; loops are loops. Shapes: R rows
(streams), K experts, A anchors, H horizon, C units of width, Q levels.

The method is a mixture of experts weighted by their delayed errors. Experts that have nothing to say of a period sleep,
and are compared with the others on the periods at which they were awake (Freund, Schapire, Singer & Warmuth 1997, Using
and combining predictors that specialize; Blum 1997, Empirical support for Winnow and weighted-majority algorithms).
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np

from rillcast_training.model.experts.config import ExpertsConfig, Season

Array = Any
UNITS = 5  # trusted, newest misses, size, phase, phase times trusted
LEAST_SHARE = 0.12345


def finite(values: Array) -> Array:
    """The values with 0 where there is none; numpy's `nan_to_num` took a third of the oracle's time."""
    return np.where(np.isfinite(values), values, 0.0)


class SeasonOracle:
    """What is remembered of one season: newest values, running mean, part and width of each bin."""

    def __init__(self, season: Season, rows: int) -> None:
        self.season, self.rows = season, np.arange(rows)
        shape = (rows, season.bins)
        self.newest = np.full((*shape, season.kept), np.nan)
        self.mean, self.part = np.full(shape, np.nan), np.full(shape, np.nan)
        self.width = np.ones(shape)
        self.sums = np.zeros((rows, 4))  # of the visited bin's values, parts, widths, and the number of widths
        self.count = np.zeros(rows)

    def visit(self, period: Array) -> Array:
        """The number of a bin's visit; bins are of equal length, so their ends need not be those of periods."""
        return period * self.season.bins // self.season.periods

    def bin_of(self, period: Array) -> Array:
        return self.visit(period) % self.season.bins

    def smoothed(self, memory: Array, at: Array) -> Array:
        reach = self.season.reach
        window = memory[self.rows[:, None], (at[:, None] + np.arange(reach + 1)) % self.season.bins]
        known = np.isfinite(window)
        total = np.where(known, window, 0).sum(1)
        return np.where(known.any(1), total / np.maximum(known.sum(1), 1), np.nan)

    def read(self, what: str, period: Array) -> Array:
        """The value of a period `[R]`: between the middles of two bins, or at the phase itself; NaN = unknown."""
        season = self.season
        of = {"newest": self.newest[:, :, 0], "mean": self.mean, "smooth": self.mean, "part": self.part}
        memory = self.width if what == "width" else of[what.removeprefix("smooth ")]
        place = (period % season.periods + 0.5) * season.bins / season.periods - 0.5
        left = np.floor(place + 1e-9).astype(int)
        share = place - left
        smooth, sides = what.startswith("smooth"), (left, left + 1)
        values = [self.smoothed(memory, at) if smooth else memory[self.rows, at % season.bins] for at in sides]
        weights = [(1 - share) * np.isfinite(values[0]), share * np.isfinite(values[1])]
        total = weights[0] + weights[1]
        value = sum(w * finite(v) for w, v in zip(weights, values, strict=True))
        return np.where(total > LEAST_SHARE, value / np.maximum(total, LEAST_SHARE), np.nan)


class ExpertsOracle:
    """The streams' states, and one step of each."""

    def __init__(self, rows: int, config: ExpertsConfig) -> None:
        self.config, self.rows = config, rows
        anchors, experts, levels = len(config.anchors), len(config.experts), len(config.quantiles)
        self.anchors = np.array(config.anchors)
        steps = np.arange(1, config.horizon + 1)
        self.between = np.stack([np.interp(steps, self.anchors, row) for row in np.eye(anchors)])
        self.bases = [base for base, _ in config.experts]
        self.decays = np.array([decay for _, decay in config.experts])

        def z(*shape: int) -> Array:
            return np.zeros((rows, *shape))

        self.period, self.first, self.last_seen = (np.full(rows, np.iinfo(np.int64).min) for _ in range(3))
        self.known = np.zeros(rows, np.int64)  # periods since the first value, which included
        self.offset, self.n, self.last = z(), z(), z()
        self.level, self.slow, self.drift, self.holt, self.trend = z(), z(), z(), z(), z()
        self.median, self.spread, self.size, self.season_drift, self.phase_anomaly = z(), z(), z(), z(), z()
        self.seasons = [SeasonOracle(season, rows) for season in config.memories]
        # What was known at each of the newest periods, by period modulo their number.
        self.kept = config.horizon + 1
        self.stamp = np.full((rows, self.kept), np.iinfo(np.int64).min)
        self.past: dict[str, Array] = {}
        self.distance = {base: z() for base in set(self.bases)}
        self.reads: dict[tuple[int, str, int], Array] = {}
        self.prior = np.array(config.prior.relative).T
        self.growth = np.array(config.prior.growth)
        self.before: dict[str, Array] = {}
        self.L, self.R = z(experts, anchors), z(experts, anchors)
        self.G, self.GN = z(anchors), z(anchors)
        self.miss, self.unit, self.newest, self.loss = z(anchors), z(anchors, 3), z(anchors, 2), z(anchors, UNITS)
        normal = np.array([NormalDist().inv_cdf(q) for q in config.quantiles]) * np.sqrt(np.pi / 2)
        self.quantile = np.broadcast_to(normal, (rows, anchors, levels)).copy()
        self.w, self.trusted = z(experts, anchors), z(anchors)  # of the newest forecast
        self.zeros, self.forecasts = z(2), z(2)  # after low and high forecasts
        self.mean_point, self.negative, self.fractional = z(), np.zeros(rows, bool), np.zeros(rows, bool)

    # What the bases say of a period.

    def _read(self, number: int, what: str, ahead: int) -> Array:
        """What a season says of the period `ahead` after the newest one; kept until the next event."""
        key = (number, what, ahead)
        if key not in self.reads:
            self.reads[key] = self.seasons[number].read(what, self.period + ahead)
        return self.reads[key]

    def _base(self, base: str, ahead: int) -> Array:
        if base == "level":
            return self.level
        if base == "double":
            parts = [self._read(0, "part", ahead), self._read(1, "smooth part", ahead)]
            return self.slow + sum(finite(part) for part in parts)
        if base == "naive_drift0":
            return self._read(0, "newest", ahead) + self.season_drift
        if base == "phase_anomaly0":
            return self._read(0, "mean", ahead) + self.phase_anomaly
        kind, number = base[:-1], int(base[-1])
        return self._read(number, {"naive": "newest", "phase": "mean"}[kind], ahead)

    def _trend_sum(self, steps: Array) -> Array:
        d = self.config.constants.damping
        return d * (1 - d**steps) / (1 - d)

    def _ahead(self, h: int) -> Array:
        """`[R, K]`: what every expert says of the period h after the newest one; NaN = it sleeps."""
        idle = self.period - self.last_seen
        out = np.full((self.rows, len(self.bases)), np.nan)
        for k, (base, decay) in enumerate(zip(self.bases, self.decays, strict=True)):
            if base == "holt":
                out[:, k] = self.holt + self.trend * self._trend_sum(h + np.maximum(idle, 0))
            elif base == "drift":
                out[:, k] = self.last + self.drift * (h + np.maximum(idle, 0))
            elif base == "median":
                out[:, k] = self.median
            else:
                value = self._base(base, h)
                away = self.distance[base] * decay ** (h + np.maximum(idle, 0)) if decay else 0.0
                out[:, k] = value + away
        out[self.n == 0] = np.nan
        return out

    # One event of each row that has one.

    def step(self, period: Array, y: Array, active: Array | None = None) -> None:
        c = self.config.constants
        active = np.ones(self.rows, bool) if active is None else active
        advances = active & (period > self.period)
        observed = np.isfinite(y) & (np.abs(finite(y)) <= 1e30)
        on = advances & observed
        new = on & (self.n == 0)
        self.offset = np.where(new, finite(y), self.offset)
        self.known = np.where(self.known > 0, self.known + np.where(advances, period - self.period, 0), new)
        self.period = np.where(advances, period, self.period)
        v = np.where(on, finite(y) - self.offset, 0.0)
        width = self._learn(v, on)
        more = on & ~new

        def towards(old: Array, rate: Array, target: Array) -> Array:
            return np.where(more, old + rate * (target - old), np.where(new, 0.0, old))

        n, change = np.maximum(self.n, 1), v - self.last
        self.drift = towards(self.drift, np.maximum(c.drift, 1 / n), change)
        self.level = towards(self.level, np.maximum(c.level, 1 / (n + 1)), v)
        self.slow = towards(self.slow, np.maximum(c.slow, 1 / (n + 1)), v)
        self.spread = towards(self.spread, np.maximum(c.spread, 1 / n), np.abs(v - self.median))
        limit = c.median * self.spread
        self.median = np.where(more, self.median + np.clip(v - self.median, -limit, limit), self.median)
        before = self.holt
        moved = before + c.damping * self.trend
        self.holt = towards(self.holt, 1.0, moved + c.holt * (v - moved))
        self.trend = towards(self.trend, 1.0, c.trend * (self.holt - before) + (1 - c.trend) * c.damping * self.trend)
        absolute = np.abs(finite(y))
        self.size = np.where(more, self.size + c.size * (absolute - self.size), np.where(new, absolute, self.size))
        self._remember(v, on, width)
        self.last = np.where(on, v, self.last)
        self.n = self.n + on
        self.last_seen = np.where(on, self.period, self.last_seen)
        self._note(on)
        said = np.stack([self._ahead(int(a)) for a in self.anchors], 2)
        w, trusted = self.weights(np.isfinite(said))
        self.w = np.where(active[:, None, None], w, self.w)
        self.trusted = np.where(active[:, None], trusted, self.trusted)

    def _remember(self, v: Array, on: Array, width: Array) -> None:
        """Write the value into the seasons' memories."""
        c, short = self.config.constants, self.seasons[0]
        rows, period = short.rows, self.period
        # What the season says of this period, before it learns it.
        for number, season in enumerate(self.seasons):
            self.before[f"naive{number}"] = season.newest[rows, season.bin_of(period), 0].copy()
        at = short.bin_of(period)
        known = on & np.isfinite(short.mean[rows, at])
        cycle = np.maximum(c.season_drift, 1 / np.maximum(self.known - self.config.seasons[0], 1))
        step = cycle * (v - short.newest[rows, at, 0] - self.season_drift)
        self.season_drift = self.season_drift + np.where(known, finite(step), 0)
        step = c.anomaly * (v - short.mean[rows, at] - self.phase_anomaly)
        self.phase_anomaly = self.phase_anomaly + np.where(known, finite(step), 0)
        places = [season.bin_of(period) for season in self.seasons]
        for number, season in enumerate(self.seasons):
            part = np.zeros(self.rows)
            if len(self.seasons) == 2:
                other = self.seasons[1 - number]
                part = v - self.slow - finite(other.part[rows, places[1 - number]])
            values = np.stack([v, part, finite(width), np.isfinite(width)], axis=1)
            if season.season.exact:
                self._write(season, number, places[number], values, np.ones(self.rows), on)
                continue
            # A bin is written when the stream has left it.
            left = on & (self.n > 0) & self._other_bin(season)
            old = season.bin_of(np.where(self.n > 0, self.last_seen, 0))
            self._write(season, number, old, season.sums, np.maximum(season.count, 1), left)
            fresh = left | (on & (self.n == 0))
            keep = np.where(on, np.where(fresh, 0.0, 1.0), 1.0)[:, None]
            season.sums = season.sums * keep + np.where(on[:, None], values, 0)
            season.count = season.count * keep[:, 0] + on

    def _other_bin(self, season: SeasonOracle) -> Array:
        """Whether the newest value lies in another visit of a bin than the one before."""
        before = np.where(self.n > 0, self.last_seen, self.period)
        return season.visit(before) != season.visit(self.period)

    def _write(self, season: SeasonOracle, number: int, at: Array, sums: Array, count: Array, on: Array) -> None:
        c, rows = self.config.constants, season.rows
        v, x = sums[:, 0] / count, sums[:, 1] / count
        width = np.where(sums[:, 3] > 0, sums[:, 2] / np.maximum(sums[:, 3], 1), np.nan)
        known = np.isfinite(season.mean[rows, at])
        age = np.floor(np.maximum(self.known - 1, 0) / season.season.periods)
        mean, part, old = season.mean[rows, at], season.part[rows, at], season.width[rows, at]
        rate = np.maximum(c.phase, 1 / (age + 1))
        mean = np.where(known, mean + rate * (v - mean), v)
        rate = np.maximum(c.parts[number], 1 / (age + 1))
        start = c.part_start if number else 1.0
        part = np.where(known, part + rate * (x - part), start * x)
        rate = np.maximum(c.width, 1 / (age + 4))
        new = np.where(np.isfinite(width), old + rate * (finite(width) - old), old)
        newest = np.concatenate([v[:, None], season.newest[rows, at][:, :-1]], axis=1)
        season.newest[rows[on], at[on]] = newest[on]
        season.mean[rows[on], at[on]], season.part[rows[on], at[on]] = mean[on], part[on]
        season.width[rows[on], at[on]] = np.maximum(new, 0.02)[on]

    def _note(self, on: Array) -> None:
        """Keep what the forecasts made at this period follow from."""
        self.reads = {}
        now = {base: self._now(base) for base in set(self.bases) if base not in
               ("holt", "drift", "median", "naive_drift0", "phase_anomaly0")}  # fmt: skip
        for base, value in now.items():
            away = np.where(np.isfinite(value), self.last - finite(value), 0.0)
            self.distance[base] = np.where(on, away, self.distance[base])
        names = ("last", "level", "slow", "drift", "holt", "trend", "median", "season_drift", "phase_anomaly")
        known = {name: getattr(self, name) for name in names}
        known |= {f"away from {base}": distance for base, distance in self.distance.items()}
        rows = np.flatnonzero(on)
        at = self.period[rows] % self.kept
        self.stamp[rows, at] = self.period[rows]
        for name, value in known.items():
            self.past.setdefault(name, np.zeros((self.rows, self.kept)))[rows, at] = value[rows]

    def _now(self, base: str) -> Array:
        """What a base says of the newest period itself; the value a season ago is the one before it."""
        exact = base.startswith("naive") and self.seasons[int(base[-1])].season.exact
        return self.before[base] if exact else self._base(base, 0)

    # Errors of what was said of this period.

    def _said(self, a: int, expert: int, reads: dict[str, Array], then: dict[str, Array]) -> Array:
        """What an expert said of the newest period, `a` periods before it: `[R]`. NaN = it slept."""
        base, decay = self.bases[expert], self.decays[expert]
        if base == "holt":
            return then["holt"] + then["trend"] * self._trend_sum(a)
        if base == "drift":
            return then["last"] + then["drift"] * a
        if base == "median":
            return then["median"]
        if base == "naive_drift0":
            return self._naive(0, a) + then["season_drift"]
        if base == "phase_anomaly0":
            return self._mean(0, a) + then["phase_anomaly"]
        if base == "level":
            value = then["level"]
        elif base == "double":
            value = then["slow"] + finite(reads["part0"]) + finite(reads["smooth part1"])
        elif base.startswith("naive"):
            value = self._naive(int(base[-1]), a)
        else:
            value = self._mean(int(base[-1]), a)
        return value + (then[f"away from {base}"] * decay**a if decay else 0.0)

    def _naive(self, number: int, a: int) -> Array:
        season = self.seasons[number]
        back = -(-a // season.season.periods)
        entry = season.rows, season.bin_of(self.period)
        # A value that should be there by the stream's age, but was missing, counts as the stream's first one.
        return self._awake(number, a, finite(season.newest[(*entry, back - 1)]))

    def _mean(self, number: int, a: int) -> Array:
        """The running mean of the newest period's phase, `a` periods ago: what was learnt since is taken back."""
        season, c = self.seasons[number], self.config.constants
        entry = season.rows, season.bin_of(self.period)
        mean = finite(season.mean[entry])
        cycles = np.maximum(self.known - 1, 0) // season.season.periods
        for visit in range(1, -(-a // season.season.periods)):
            rate = np.maximum(c.phase, 1 / np.maximum(cycles - visit + 1, 2))
            mean = (mean - rate * finite(season.newest[(*entry, visit - 1)])) / (1 - rate)
        return self._awake(number, a, mean)

    def _awake(self, number: int, a: int, value: Array) -> Array:
        """What a season said of the newest period, NaN where that phase had no value yet, `a` periods ago."""
        season = self.seasons[number]
        periods = -(-a // season.season.periods) * season.season.periods
        known = np.isfinite(season.newest[season.rows, season.bin_of(self.period), 0]) & (self.known > periods)
        return np.where(known, value, np.nan)

    def _learn(self, y: Array, on: Array) -> Array:
        """Learn from the forecasts of this period; return the mean relative miss `[R]`, NaN where there is none."""
        c, anchors, experts = self.config.constants, self.anchors, len(self.bases)
        reads: dict[str, Array] = {}
        for number, season in enumerate(self.seasons):
            at = season.bin_of(self.period)
            pick = (season.rows, at)
            reads |= {f"part{number}": season.part[pick],
                      f"smooth part{number}": season.smoothed(season.part, at),
                      f"width{number}": season.width[pick]}  # fmt: skip
        said, mix = np.full((self.rows, experts, len(anchors)), np.nan), np.zeros((self.rows, len(anchors)))
        for i, (a, stride) in enumerate(zip(anchors, self.config.strides, strict=True)):
            made = self.period - a
            there = on & (self.stamp[np.arange(self.rows), made % self.kept] == made) & (made % stride == 0)
            at = (np.arange(self.rows), made % self.kept)
            then = {name: values[at] for name, values in self.past.items()}
            for k in range(experts if there.any() else 0):
                said[:, k, i] = np.where(there, self._said(int(a), k, reads, then), np.nan)
                asleep = then["last"] + then[f"away from {self.bases[k]}"] * self.decays[k] ** a
                mix[:, i] += self.w[:, k, i] * np.where(np.isfinite(said[:, k, i]), said[:, k, i], asleep)
        e = np.abs(y[:, None, None] - said)
        awake = np.isfinite(e)
        self._learn_bounds(y + self.offset, mix[:, 0], on, awake[:, self.bases.index("level"), 0])
        levels = [k for k, base in enumerate(self.bases) if base == "level"]
        there = awake[:, levels[0]]
        plain, judged = np.where(there, finite(e[:, levels]).mean(1), 0), self.GN
        self.G = np.where(there, c.forget * self.G + plain, self.G)
        self.GN = np.where(there, c.forget * self.GN + 1, self.GN)
        reference = plain + c.reference * self.G / np.maximum(self.GN, 1e-9)
        use = awake & there[:, None]
        self.L = np.where(use, c.forget * self.L + finite(e), self.L)
        self.R = np.where(use, c.forget * self.R + reference[:, None], self.R)
        # Widths.
        miss = np.where(there, y[:, None] - mix, 0)
        unit = self._units(mix, np.repeat(reads[f"width{len(self.seasons) - 1}"][:, None], len(anchors), 1))
        spread = np.minimum(self._ratios() * unit, 6 * self.trusted[:, :, None])
        width = (self._shares(judged) * spread).sum(2)
        good = there & (width > 0)
        tau = np.array(self.config.quantiles)
        d = miss[:, :, None, None] - self.quantile[:, :, None] * spread[..., None]
        pinball = np.maximum(tau * d, (tau - 1) * d).sum(3)
        d = miss[..., None] / np.where(width > 0, width, 1)[..., None] - self.quantile
        covered = np.clip(0.5 - d / c.ramp, 0, 1)
        self.loss = np.where(good[..., None], c.forget * self.loss + pinball, self.loss)
        slowest = c.quantile / np.sqrt(self.anchors)
        rate = np.maximum(slowest, 0.5 / (judged + 10))[..., None]
        self.quantile = self.quantile + np.where(good[..., None], rate * (tau - covered), 0)
        valid = there & (self.trusted > 0)
        relative = np.where(valid, np.minimum(np.abs(miss) / np.where(valid, self.trusted, 1), 100), 0)
        count = valid.sum(1)
        size, each = np.abs(miss), there[..., None]
        self.miss = np.where(there, c.forget * self.miss + size, self.miss)
        self.unit = np.where(each, c.forget * self.unit + unit[:, :, 2:], self.unit)
        self.newest = np.where(each, c.newest * self.newest + np.stack([size, 1 + 0 * size], 2), self.newest)
        return np.where(count > 0, relative.sum(1) / np.maximum(count, 1), np.nan)

    def _usual_size(self) -> Array:
        """`[R, 1]`: the unit of size of the newest value."""
        return (np.abs(self.last + self.offset) + 0.1 * self.size)[:, None]

    def _units(self, point: Array, width: Array) -> Array:
        """The units of width, `[R, A, C]`, of forecasts `[R, A]` of periods with these relative widths."""
        size, one = np.abs(point + self.offset[:, None]) + 0.1 * self.size[:, None], np.ones_like(point)
        return np.stack([one, one, size, width, width * self.trusted], axis=2)

    def _ratios(self) -> Array:
        """`[R, A, C]`: what a forecast misses by in each unit."""
        m0, trusted = self.config.constants.prior_misses, self.trusted
        of = np.stack([self._usual_size() + 0 * trusted, 1 + 0 * trusted, trusted], 2)
        by_unit = (self.miss + m0 * trusted)[..., None] / np.maximum(self.unit + m0 * of, 1e-30)
        newest = (self.newest[..., 0] + m0 * trusted) / (self.newest[..., 1] + m0)
        return np.concatenate([trusted[..., None], newest[..., None], by_unit], 2)

    def _shares(self, judged: Array) -> Array:
        """`[R, A, C]`: how much each unit counts, by the loss of its quantiles."""
        c, first = self.config.constants, np.eye(UNITS)[0]
        seen = self.loss[:, :, :1] > 0
        loss = np.where(seen, self.loss, 1.0)
        trust = (judged / (judged + 5))[:, :, None]
        ratio = (loss.min(2, keepdims=True) + 1e-30) / (loss + 1e-30)
        share = np.where(seen, trust * ratio**c.unit_power + (1 - trust) * first, first)
        return share / share.sum(2, keepdims=True)

    def _learn_bounds(self, y: Array, point: Array, on: Array, judged: Array) -> None:
        """Learn which values `[R]` the streams have, and how often they are zero after a low and a high forecast."""
        self.negative |= on & (y < 0)
        self.fractional |= on & (y != np.round(y))
        high = point > self.mean_point
        for side, here in enumerate((~high, high)):
            self.zeros[:, side] = np.where(judged, 0.99 * self.zeros[:, side] + ((y == 0) & here), self.zeros[:, side])
            self.forecasts[:, side] = np.where(judged, 0.99 * self.forecasts[:, side] + here, self.forecasts[:, side])
        self.mean_point = np.where(judged, self.mean_point + 0.02 * (point - self.mean_point), self.mean_point)

    def _bounded(self, quantiles: Array) -> Array:
        """Quantiles `[R, H, Q]` kept to the values that the streams can have."""
        share = self.zeros.sum(1) / (self.forecasts.sum(1) + 2)
        share = ((self.zeros + 5 * share[:, None]) / (self.forecasts + 5)).min(1)
        known = ~self.negative & (self.n > 8)
        whole = known & ~self.fractional
        out: Array = np.where(whole[:, None, None], np.round(np.maximum(quantiles, 0)), quantiles)
        for q, level in enumerate(self.config.quantiles):
            held = ~self.negative & (1 / (self.n + 2) < level)
            zero = (known & (level <= share))[:, None]
            out[:, :, q] = np.where(zero, 0, np.where(held[:, None], np.maximum(out[:, :, q], 0), out[:, :, q]))
        return out

    # Weights and forecast.

    def scale(self) -> Array:
        """`[R, A]`: the plain experts' error, grown from the anchor before where little is known."""
        c, one = self.config.constants, self.GN[:, 0]
        start = c.prior * self._usual_size()[:, 0]
        scale = [np.where(one > 0, self.G[:, 0] / np.where(one > 0, one, 1), start)]
        for i in range(1, len(self.anchors)):
            grown = scale[-1] * self.growth[i] / self.growth[i - 1]
            scale.append((self.G[:, i] + c.prior_growth * grown) / (self.GN[:, i] + c.prior_growth))
        return (1 + c.reference) * np.maximum(np.stack(scale, 1), 1e-6 * self.size[:, None])

    def weights(self, awake: Array) -> tuple[Array, Array]:
        """`[R, K, A]`, which sums to 1 over the experts that are awake, or zeros; `[R, A]`, what they miss by."""
        c, scale = self.config.constants, np.maximum(self.scale(), 1e-30)
        error, reference = self.L / scale[:, None], self.R / scale[:, None]
        shift = (c.prior_shift + error.sum(2)) / (c.prior_shift + (self.prior * reference).sum(2))
        relative = (error + c.prior_errors * self.prior * shift[:, :, None]) / (reference + c.prior_errors)
        total, count = relative.copy(), np.ones(len(self.anchors))
        for here, there in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
            total[:, :, here] += c.neighbour * relative[:, :, there]
            count[here] += c.neighbour
        smooth = total / count
        best = np.where(awake, smooth, 1e15).min(1, keepdims=True)
        followed = (self.n + c.evidence_start)[:, None]
        power = c.power * followed / (followed + c.evidence * self.anchors)
        w = np.where(awake, np.exp(-power[:, None] * 2 * (smooth - best) / (smooth + best)), 0)
        w = w / np.maximum(w.sum(1, keepdims=True), 1e-30)
        return w, scale * (w * relative).sum(1)

    def forecast(self) -> Array:
        """Quantiles `[R, H, Q]` of the periods after the newest one."""
        horizon = self.config.horizon
        at_anchors = np.stack([self._ahead(int(a)) for a in self.anchors], 2)
        w = self.w
        seasonal = {base for base in self.bases if base[:-1] in ("naive", "phase")}
        # The part that has a shape over the season is taken at each period, the rest on lines between the anchors.
        rest = finite(at_anchors).copy()
        shaped = np.zeros((self.rows, len(self.bases), horizon))
        for k, base in enumerate(self.bases):
            of_season = base if base in seasonal else {"naive_drift0": "naive0", "phase_anomaly0": "phase0"}.get(base)
            for h in range(1, horizon + 1):
                if of_season is not None:
                    value = self._base(of_season, h)
                    shaped[:, k, h - 1] = np.where(np.isfinite(value), value, self.last)
                elif base == "double":
                    shaped[:, k, h - 1] = self._base(base, h) - self.slow
            if of_season is not None or base == "double":
                rest[:, k] -= np.where(np.isfinite(at_anchors[:, k]), shaped[:, k][:, self.anchors - 1], 0)
        point = np.einsum("rkh,rkh->rh", np.einsum("rka,ah->rkh", w, self.between), shaped)
        point += np.einsum("ra,ah->rh", (w * rest).sum(1), self.between)
        return self._quantiles(point)

    def _quantiles(self, point: Array) -> Array:
        c = self.config.constants
        steps = range(1, self.config.horizon + 1)
        width = np.stack([self._read(len(self.seasons) - 1, "width", h) for h in steps], axis=1)
        size = np.abs(point + self.offset[:, None]) + 0.1 * self.size[:, None]
        middle = min(range(len(self.config.quantiles)), key=lambda i: abs(self.config.quantiles[i] - 0.5))
        q = self.quantile - c.pin * self.quantile[..., middle : middle + 1]
        q[..., middle:] = np.maximum.accumulate(q[..., middle:], axis=-1)
        q[..., : middle + 1] = np.minimum.accumulate(q[..., middle::-1], axis=-1)[..., ::-1]
        parts = self._shares(self.GN) * self._ratios()
        parts[:, :, 4] *= self.trusted
        own, newest, by_size, by_phase, both = np.einsum("rac,ah->crh", parts, self.between)
        spread = own + newest + by_size * size + (by_phase + both) * width
        spread = np.minimum(spread, 6 * np.einsum("ra,ah->rh", self.trusted, self.between))
        each = np.einsum("raq,ah->rhq", q, self.between)
        return self._bounded(point[:, :, None] + spread[..., None] * each + self.offset[:, None, None])
