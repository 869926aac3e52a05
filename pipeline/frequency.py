"""Regular frequencies: the length of one time slot.

A bundle forecasts at one frequency; slot `k` covers `[k * step_ms, (k + 1) * step_ms)` since the epoch (UTC).
Only frequencies of fixed length are known here; calendar months have none.
"""

from __future__ import annotations

import re
from typing import Final

_UNIT_MS: Final = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_PATTERN: Final = re.compile(r"^(\d*)(ms|s|min|h|d|w)$")


def step_ms(freq: str) -> int:
    """Return the length in milliseconds of one slot of `freq`, such as `1h`, `30min`, `5min` or `1d`.

    Raises:
        ValueError: `freq` is not a positive whole number followed by ms, s, min, h, d or w.
    """
    match = _PATTERN.match(freq.strip().lower())
    count = int(match[1] or 1) if match else 0
    if match is None or count <= 0:
        raise ValueError(
            f"frequency {freq!r} is not a positive whole number and a unit (ms, s, min, h, d, w), as in '30min'; "
            "months and years have no fixed length (docs/data-sets.md says what to do with them)"
        )
    return count * _UNIT_MS[match[2]]
