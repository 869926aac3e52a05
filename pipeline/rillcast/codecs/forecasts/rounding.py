"""Fewer digits for forecasts that are written as text.

A forecast of float32 has seven to nine digits, most of them finer than the forecast knows. `auto` keeps at each step
the fewest decimal places whose unit is at most a thousandth of the width of the 80 % interval there, so no level moves
by more than a two-thousandth of that width. For a normal distribution this shifts the coverage of a level by at most
0.05 percentage points; to see so small a shift, a hundred thousand scored events do not suffice.

Rounding depends on the forecast alone, so a replay writes the same text. All levels of a step share their unit, so they
stay in order. The arithmetic is that of float64, which neither overflows nor loses digits of float32.

Owns: the number of places. Does not know: the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import numpy as np

from rillcast.arrays import FloatArray

Decimals: TypeAlias = int | Literal["auto", "full"]
"""Decimal places of each number; `auto` = as the interval's width needs, `full` = all that float32 has."""

_INTERVAL: Final = 0.1, 0.9
_SHARE: Final = 1_000  # units in an interval, at least
_MOST: Final = 46  # decimal places; float32 has none beyond
_SCALES: Final = 10.0 ** np.arange(_MOST + 1)
_WIDTHS: Final = _SHARE / _SCALES  # the least width for each number of places


def rounded(forecast: FloatArray, levels: Sequence[float], decimals: Decimals) -> FloatArray:
    """Return `(n, h, q)` forecasts rounded as `decimals` says, each number the float32 next to its decimal.

    With `auto`, a step keeps all digits where its interval has no width: a single level, equal levels, or NaN.
    """
    if decimals == "full":
        return forecast
    exact = forecast.astype(np.float64)
    if decimals != "auto":
        return _to_places(exact, np.float64(10.0**decimals))
    low, high = (int(np.argmin([abs(level - end) for level in levels])) for end in _INTERVAL)
    with np.errstate(invalid="ignore"):  # infinite levels have no width
        width = exact[:, :, high] - exact[:, :, low]
    # Not a logarithm, whose last bit may depend on the place in the array.
    places = np.searchsorted(-_WIDTHS, -width)
    known = places <= _MOST
    scale = _SCALES[np.where(known, places, 0)]
    return np.where(known[:, :, None], _to_places(exact, scale[:, :, None]), forecast)


def _to_places(exact: np.ndarray[tuple[int, ...], np.dtype[np.float64]], scale: np.ndarray | np.float64) -> FloatArray:
    found: FloatArray = (np.rint(exact * scale) / scale).astype(np.float32)
    return found
