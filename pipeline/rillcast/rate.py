"""Rates as people write them: `1/week`.

Owns: their spelling. Does not know: what happens so often.
"""

from __future__ import annotations

import re
from typing import Final

_DAYS: Final = {"hour": 1 / 24, "day": 1.0, "week": 7.0, "month": 30.436875, "year": 365.2425}
_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)/(hour|day|week|month|year)")

NEVER: Final = ("off", "0")
"""Texts for what is never to happen, which is no rate."""


def days_between(rate: str) -> float:
    """Return the days between two of what happens at a rate, such as 7 for `1/week`.

    Raises:
        ValueError: The text is no rate above zero.
    """
    match = _RATE.fullmatch(rate.strip())
    if match is None or not float(match[1]) > 0:
        raise ValueError(f"{rate!r} is no rate: a number and hour, day, week, month or year, as in '1/week'")
    return _DAYS[match[2]] / float(match[1])
