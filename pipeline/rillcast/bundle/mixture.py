"""What a forecast of a bundle of experts is made of: the weight of each base, in words.

Owns: the words, where the weights stand in a stream's state, and their sums by base. Does not know: how weights are
learnt (`rillcast_training.model.experts`, whose layout a test compares), who asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rillcast.arrays import FloatArray
from rillcast.bundle.frequency import Frequency, parse
from rillcast.bundle.metadata import BundleMetadata

MEMBER: Final = "experts"
"""Member of `training` in the metadata of a bundle of experts: its configuration."""
STATE: Final = "core"
"""The state that has the weights of the newest forecast."""
_SCALARS: Final = 13  # figures of a stream before those by base and horizon
_MISSED: Final = 11  # by horizon: two misses, their number and three units, five losses, before the quantiles
_PLAIN_AND_JUDGED: Final = 2  # by horizon
_AFTER: Final = 10  # by horizon: five ratios and shares of the units of width
_TOLD: Final = 2  # by horizon, with a network: what it and the mixture missed by, before the quantiles
_SAID: Final = 2  # by horizon, with a network: its newest correction
_PENDING: Final = 6  # by horizon, with a network: its corrections that are to be judged
_SUMS_TO_ONE: Final = 1e-3
_CYCLES: Final = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000, "week": 604_800_000, "year": 31_556_952_000}
_MONTHS_A_YEAR: Final = 12
_PLAIN: Final = {
    "level": "level, and the last value",
    "holt": "level with a damped trend",
    "drift": "last value with the mean change",
    "median": "running median",
    "double": "level with the parts of both seasons",
    "naive_drift": "value a {season} ago with the mean change over a {season}",
    "phase_anomaly": "mean of the same time of the {season}, with its mean distance",
    "naive": "value a {season} ago",
    "phase": "mean of the same time of the {season}",
}


@dataclass(frozen=True, slots=True)
class Shares:
    """Weights at one horizon.

    Attributes:
        step: Periods ahead.
        shares: Weight of each base in words, the largest first; they sum to 1, or are empty without any value yet.
    """

    step: int
    shares: dict[str, float]

    def sentence(self, least: float = 0.05) -> str:
        """Return the shares of at least `least`, as in `62 % value a day ago, 20 % running median`."""
        shown = [f"{share:.0%} {what}" for what, share in self.shares.items() if share >= least]
        rest = 1 - sum(share for share in self.shares.values() if share >= least)
        listed = [*shown, *([f"{rest:.0%} others"] if shown and rest >= 0.005 else [])]
        return ", ".join(listed).replace("%", " %") if listed else "no value is known yet"


class Mixture:
    """The experts of one bundle, as its metadata describe them.

    Attributes:
        bases: Base of each expert.
        anchors: Horizons at which experts are judged, in periods ahead; between them weights lie on lines.
        horizon: Number of periods ahead.
        has_network: Whether a network corrects them.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Read a configuration.

        Args:
            config: The member `MEMBER` of `training` in the metadata.

        Raises:
            KeyError, TypeError: It is none.
        """
        self.bases = [str(base) for base, _ in config["experts"]]
        self.anchors = [int(anchor) for anchor in config["anchors"]]
        self.horizon, self.has_network = int(config["horizon"]), bool(config.get("network"))
        seasons, freq = tuple(config["seasons"]), str(config["freq"])
        self._words = [in_words(base, freq, seasons) for base in self.bases]
        away = {base for base, decay in config["experts"] if decay and base != "level"}
        self._first = _SCALARS + len(away)
        levels = len(config["quantiles"])
        self._told = len(self.bases) + (1 + len(seasons)) + _MISSED + levels
        self._before = self._told + (_TOLD + levels if self.has_network else 0) + _PLAIN_AND_JUDGED

    @classmethod
    def of(cls, metadata: BundleMetadata) -> Mixture | None:
        """Return the experts of a bundle; None = it has none."""
        config = metadata.training.get(MEMBER)
        return cls(config) if isinstance(config, Mapping) else None

    def weights(self, rows: FloatArray) -> FloatArray | None:
        """Return the weights of the newest forecasts.

        Args:
            rows: `[n, width]`, rows of the state `STATE`.

        Returns:
            `[n, A, K]` by horizon and expert; rows of 0 = no value is known yet. None = the rows have weights
            elsewhere, because another version exported the bundle.
        """
        by_anchor = self._at_anchors(rows)
        if by_anchor is None:
            return None
        weights = by_anchor[:, :, self._before : self._before + len(self.bases)]
        total = weights.sum(axis=2)
        sound = (weights >= 0).all() and ((np.abs(total - 1) < _SUMS_TO_ONE) | (total == 0)).all()
        return weights if sound else None

    def missed(self, rows: FloatArray) -> FloatArray | None:
        """Return what the mixture and the network missed by, each alone.

        Args:
            rows: `[n, width]`, rows of the state `STATE`.

        Returns:
            `[n, A, 2]` sums over the past, in widths. None = there is no network, or the rows have them elsewhere.
        """
        by_anchor = self._at_anchors(rows) if self.has_network and self.weights(rows) is not None else None
        return None if by_anchor is None else by_anchor[:, :, self._told : self._told + _TOLD]

    def newest_correction(self, rows: FloatArray) -> FloatArray:
        """Return what the network said last, `[n, A, 2]`, of rows that `missed` has figures of."""
        by_anchor = self._at_anchors(rows)
        assert by_anchor is not None
        return by_anchor[:, :, -_SAID:]

    def _at_anchors(self, rows: FloatArray) -> FloatArray | None:
        """Return the figures of each horizon, `[n, A, width]`; None = the rows are too short."""
        said = _PENDING + _SAID if self.has_network else 0
        shape = len(self.anchors), self._before + len(self.bases) + _AFTER + said
        end = self._first + shape[0] * shape[1]
        return rows[:, self._first : end].reshape(-1, *shape) if rows.shape[1] >= end else None

    def shares(self, weights: npt.NDArray[np.floating[Any]]) -> list[Shares]:
        """Return weights `[A, K]` in words, by horizon."""
        found = []
        for anchor, row in zip(self.anchors, weights, strict=True):
            shares: dict[str, float] = {}
            for words, weight in zip(self._words, row.tolist(), strict=True):
                shares[words] = shares.get(words, 0.0) + weight
            positive = {what: share for what, share in sorted(shares.items(), key=lambda one: -one[1]) if share > 0}
            found.append(Shares(anchor, positive))
        return found

    def by_base(self, weights: npt.NDArray[np.floating[Any]]) -> dict[str, float]:
        """Return the mean weight of each base over all horizons, of weights `[A, K]`."""
        means: dict[str, float] = dict.fromkeys(self.bases, 0.0)
        for base, weight in zip(self.bases, weights.mean(axis=0).tolist(), strict=True):
            means[base] += weight
        return means


def in_words(base: str, freq: str, seasons: tuple[int, ...]) -> str:
    """Return what a base says, in words."""
    name = base.rstrip("01")
    season = seasons[int(base[-1])] if base != name else seasons[0]
    return _PLAIN.get(name, base).format(season=_season(season, parse(freq)))


def _season(periods: int, frequency: Frequency) -> str:
    """Return the name of a season, or its length in periods."""
    if frequency.in_months:
        return "year" if periods * frequency.step == _MONTHS_A_YEAR else f"cycle of {periods} periods"
    for name, length in _CYCLES.items():
        if periods == round(length / frequency.step):
            return name
    return f"cycle of {periods} periods"
