"""The natural cycles of a frequency, in slots. Owns what a synthetic series may repeat after; knows no randomness."""

from __future__ import annotations

from typing import Final

from rillcast.bundle.frequency import parse
from rillcast_training.model.features import DAY_MS, WEEK_MS, YEAR_MS, default_seasons

_PERIODS_MS: Final = (1_000, 60_000, 3_600_000, DAY_MS, WEEK_MS, YEAR_MS)
_SHORTEST: Final = 4  # slots; a shorter cycle has no shape
_LONGEST: Final = 4_400  # slots; half a year of hours: beyond it a cycle is a trend within any series made here


def cycles(freq: str) -> tuple[int, ...]:
    """Return the cycles that a stream of this frequency may have, in slots, shortest first; the main season is one.

    Raises:
        ValueError: the frequency is none.
    """
    step = parse(freq).nominal_ms
    natural = {round(period / step) for period in _PERIODS_MS}
    found = {slots for slots in natural if _SHORTEST <= slots <= _LONGEST}
    return tuple(sorted(found | {season for season in default_seasons(freq) if season > 1}))
