"""Alarms as plain arithmetic in float64, one stream, written from the definition and not from the layer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

FIGURES = ("value", "fast", "slow", "miss")
RATES = {"value": 1.0, "fast": 0.1, "slow": 0.01, "miss": 0.1}
STARTS = {"value": 1, "fast": 30, "slow": 100, "miss": 30}
COUNTS = {"value": 150, "fast": 200, "slow": 600, "miss": 200}
KINDS = {"tail": 1, "value": 1, "fast": 2, "slow": 3, "miss": 4, "flat": 5}


@dataclass
class AlarmsOracle:
    """What is known of a stream, and its alarm."""

    interval: float
    seen: int = 0
    last: float = math.nan
    means: dict[str, float] = field(default_factory=dict)
    low: dict[str, float] = field(default_factory=dict)
    high: dict[str, float] = field(default_factory=dict)
    run: int = 0
    longest_run: int = 0
    level: float = 1.0
    age: int | None = None
    calm: int = 0
    strongest: tuple[int, float, float, float] = (0, 0.0, 0.0, 0.0)

    def step(self, y: float | None, expected: float | None, tail: float, passed: int) -> list[float]:
        """Take in an event; return phase, kind, strength, age, calm, expected, observed, level, or zeros."""
        evidence = {"tail": (tail, 1 if expected is None or y is None or y >= expected else -1)}
        if y is not None:
            self._figures(y, expected)
            for name in FIGURES:
                evidence[name] = self._record(name)
            before, self.run = self.run, self.run + 1 if self.seen and y == self.last else 0
            evidence["flat"] = (self._longer(self.run, self.longest_run, 20), 1)
            self.longest_run = max(self.longest_run, before if not self.run else 0)
        warm = self.seen >= 150
        name = max(evidence, key=lambda one: evidence[one][0])
        strength, side = evidence[name]
        height = max(self.level * self.interval, 20)
        active = warm and strength > height
        opened = active and self.age is None
        found = [0.0] * 8
        was_open = self.age is not None
        self.calm = 0 if active else self.calm + passed
        self.age = 0 if opened else (None if self.age is None else self.age + passed)
        if opened or (active and strength > self.strongest[1]):
            value = self.last if y is None else y
            self.strongest = (side * KINDS[name], strength, value if expected is None else expected, value)
        if self.age is not None:
            closes = was_open and not active and self.calm >= max(3, 0.05 * self.interval)
            kind, strength, said, value = self.strongest
            phase = 1 if opened else 3 if closes else 2
            found = [phase, kind, strength, self.age, self.calm, said, value, height]
            if closes:
                self.age = None
        if self.age is None:
            self.calm = 0
        self.level *= math.exp(0.5) if opened else 1 if was_open else 1 - 0.5 / self.interval
        if y is not None:
            self._learn(y)
        return found

    def _figures(self, y: float, expected: float | None) -> None:
        for name in FIGURES:
            before = self.means.get(name, 0.0)
            missed = before if expected is None else abs(y - expected)
            target = missed if name == "miss" else y
            rate = max(RATES[name], 1 / (self.seen + 1))
            self.means[name] = before + rate * (target - before)
            if self.seen < STARTS[name]:
                self.low[name] = self.high[name] = self.means[name]

    def _record(self, name: str) -> tuple[float, int]:
        value, low, high = self.means[name], self.low[name], self.high[name]
        over, under = value - high, (low - value if name != "miss" else 0.0)
        beyond = max(over, under)
        side = -1 if under > over else 1
        if beyond <= 0 or self.seen < COUNTS[name]:
            return 0.0, side
        width = high - low + 1e-6 * abs(high) + 1e-30
        return min(self.seen / 2 * (1 + beyond / (0.01 * width)), 1e7), side

    def _longer(self, run: int, longest: int, margin: int) -> float:
        return min(self.seen / 2 * run / (longest + 1), 1e7) if run > 1.5 * longest + margin else 0.0

    def _learn(self, y: float) -> None:
        for name in FIGURES:
            middle = self.means["miss" if name == "miss" else "slow"]
            high, low = max(self.high[name], self.means[name]), min(self.low[name], self.means[name])
            self.high[name] = high + 3e-5 * (middle - high)
            self.low[name] = low + 3e-5 * (middle - low)
        self.last, self.seen = y, self.seen + 1
