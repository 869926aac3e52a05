"""The natural cycles of a frequency, in periods. Owns the cycles of synthetic series. Does not know randomness."""

from __future__ import annotations

from typing import Final

from rillcast.bundle.frequency import parse
from rillcast_training.model.features import DAY_MS, WEEK_MS, YEAR_MS, default_seasons

_CYCLES_MS: Final = (1_000, 60_000, 3_600_000, DAY_MS, WEEK_MS, YEAR_MS)
_SHORTEST: Final = 4  # periods; a shorter cycle has no shape
_LONGEST: Final = 4_400  # periods; half a year of hours: beyond it a cycle is a trend within any series made here


def cycles(freq: str) -> tuple[int, ...]:
    """Return the cycles that a stream of this frequency may have, in periods, shortest first; the main season is one.

    Raises:
        ValueError: the frequency is invalid.
    """
    step = parse(freq).nominal_ms
    natural = {round(cycle / step) for cycle in _CYCLES_MS}
    found = {periods for periods in natural if _SHORTEST <= periods <= _LONGEST}
    return tuple(sorted(found | {season for season in default_seasons(freq) if season > 1}))
