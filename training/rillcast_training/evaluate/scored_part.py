"""How much of the data a backtest has scored, what it left out and why, and whether the bundle had learnt from it.

Owns: the reasons and their wording. Does not know: forecasts, figures, the choice of origins.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rillcast.bundle.metadata import BundleMetadata
from rillcast_training.evaluate.accuracy import Floats, Ints

_SYNTHETIC: Final = re.compile(r"\d+ synthetic series")


@dataclass(frozen=True, slots=True)
class ScoredPart:
    """Counts of series and origins.

    Attributes:
        series: Series of the data.
        series_scored: Those with a scored origin.
        series_that_end: Those without an observation after their first origin.
        series_without_origin: Those with observations there, and every origin left out.
        origins_scored: Origins that are scored.
        origins_without_event: Those of series with covariates that are left out because their period has no
            event, so that its covariates are unknown.
        origins_without_observation: Those left out because the steps after them have no observation, but later ones do.
    """

    series: int
    series_scored: int
    series_that_end: int
    series_without_origin: int
    origins_scored: int
    origins_without_event: int
    origins_without_observation: int

    def as_dict(self) -> dict[str, int]:
        """Return JSON-ready values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return what was scored, and on a second line what was not, if anything."""
        scored = f"scored: {self.series_scored:,} of {self.series:,} series, {self.origins_scored:,} origins"
        left_out = {
            "series without an observation after their first origin": self.series_that_end,
            "series without an event at any origin, or an observation within reach of one": self.series_without_origin,
            "origins in periods without an event, whose covariates are unknown": self.origins_without_event,
            "origins without an observation within reach": self.origins_without_observation,
        }
        listed = "; ".join(f"{count:,} {what}" for what, count in left_out.items() if count)
        return [scored, *([f"left out: {listed}"] if listed else [])]


@dataclass(frozen=True, slots=True)
class Learnt:
    """Origins of data that the bundle was trained on, if they are the same series.

    Attributes:
        data: Name of the training data.
        until: Time of their newest period, ISO 8601.
        origins: Scored origins before it.
        of: Scored origins in all.
    """

    data: str
    until: str
    origins: int
    of: int

    def warning(self) -> str:
        """Return the warning."""
        return (
            f"the bundle was trained on {self.data}, up to {self.until}, and {self.origins:,} of {self.of:,} origins "
            "lie before that: if these are the same series, it is scored on what it has learnt. Score newer data, or "
            "train with `--hold-out PERIODS`"
        )


def learnt_from(metadata: BundleMetadata, origins_ms: npt.NDArray[np.int64]) -> Learnt | None:
    """Return which origins lie within the time of the bundle's training data; None = none, or no data.

    Bundles of experts and those trained on synthetic series alone have seen no data.
    """
    training: dict[str, Any] = metadata.training
    data, until = str(training.get("data", "")), training.get("last_ds")
    if not isinstance(until, str) or _SYNTHETIC.fullmatch(data):
        return None
    moment = dt.datetime.fromisoformat(until)
    end = round((moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp() * 1_000)
    count = int((origins_ms < end).sum())
    return Learnt(data, until, count, len(origins_ms)) if count else None


def count_parts(
    grids: Sequence[tuple[Floats, int, int]], stride: int, horizon: int, series: Ints, periods: Ints
) -> ScoredPart:
    """Count what was scored.

    Args:
        grids: Per series its observations by period, its first period, and its first origin.
        stride: Periods between origins.
        horizon: Steps that are scored.
        series: Per scored origin, the number of its series.
        periods: Per scored origin, its period.
    """
    scored: dict[int, set[int]] = {}
    for number, period in zip(series.tolist(), periods.tolist(), strict=True):
        scored.setdefault(number, set()).add(period - grids[number][1])
    ended = without_origin = without_event = without_observation = 0
    for number, (grid, first_period, first_origin) in enumerate(grids):
        observed = np.flatnonzero(~np.isnan(grid))
        last, first = (int(observed[-1]) if observed.size else -1), first_origin - first_period
        # Data that no earlier data precede have their first origin before their first period.
        possible = range(first if first >= 0 else first + stride, last, stride)
        ended += number not in scored and not possible
        without_origin += number not in scored and len(possible) > 0
        for origin in set(possible) - scored.get(number, set()):
            seen = not np.isnan(grid[origin + 1 : origin + 1 + horizon]).all()
            without_event += seen
            without_observation += not seen
    return ScoredPart(len(grids), len(scored), ended, without_origin, len(series), without_event, without_observation)
