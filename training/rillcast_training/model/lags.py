"""The lag window of a stream: how it moves with time, and what it holds for a period without an observation.

Owns: the rule that fills such a period, for one window at a time (`LagWindow`) and for a whole series (`fill`). Does
not know: features, cells, files.

Rule: a period without an observation takes the median of three values: the newest value, the value of a season before
it, and the latter plus the deviation of the newest value from its own season. This is the predictor of LOCO-I
(Weinberger, Seroussi & Sapiro 2000, The LOCO-I lossless image compression algorithm), whose rows are seasons here. So a
series that wanders keeps its level, one that repeats itself keeps its shape, and as the result lies between values of
the series, values that are filled from filled ones cannot grow, as seasonal values plus a deviation do where most are
missing. Bundles from before this rule take the value of a season before (`SEASON`).

Beyond one season without an event, filled values repeat. A period before the known ones holds the newest value.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

MEDIAN: Final = "median"
SEASON: Final = "season"
FILLS: Final = (MEDIAN, SEASON)


def fill(
    values: npt.NDArray[np.float32] | list[Tensor],
    offsets: npt.NDArray[np.int64],
    observed: npt.NDArray[np.bool_],
    season: int,
    rule: str,
) -> None:
    """Fill the periods of a segment without an observation, from its first observation on, in place.

    Args:
        values: Values by period since the segment's first event: an array, or a list of tensors. Those of periods with
            an observation are read, the others are set.
        offsets: `[T]` int64, the period of each event since the first one, increasing.
        observed: `[T]` bool, whether the event has an observation.
        season: Periods in the season.
        rule: One of `FILLS`.
        most_known: Largest number of known periods.
    """
    if not observed.any():
        return
    first = int(offsets[observed][0])
    series: Any = values
    for event in np.flatnonzero((np.diff(offsets) > 1) | ~observed[1:]):
        before, until = int(offsets[event]), int(offsets[event + 1]) + int(not observed[event + 1])
        if before < first:
            continue
        newest = series[before]
        ago = series[before - season] if before - season >= first else newest
        for period in range(before + 1, until):
            seasonal = series[period - season] if period - season >= first else newest
            if rule == MEDIAN and period <= before + season:
                seasonal = _median(newest, seasonal, newest - ago)
            series[period] = seasonal


def _median(newest: Any, seasonal: Any, deviation: Any) -> Any:
    """Return the median of the newest value, the seasonal value, and that plus the deviation: numbers or tensors."""
    if isinstance(newest, Tensor):
        low, high = torch.minimum(newest, seasonal), torch.maximum(newest, seasonal)
        return torch.minimum(torch.maximum(seasonal + deviation, low), high)
    return min(max(seasonal + deviation, min(newest, seasonal)), max(newest, seasonal))


class Moved(NamedTuple):
    """A window after an event.

    Attributes:
        lags: `[B, L]` values by period, the event's last; periods before the known ones hold the newest value.
        seasonal: `[B]` value of a season before the event; undefined where the event begins a segment.
    """

    lags: Tensor
    seasonal: Tensor


class LagWindow(nn.Module):
    """Moves the lags of a stream to the period of an event. No parameters.

    Args:
        context: Periods in the window, L.
        season: Periods in the season, below L.
        max_gap: Most periods by which a window moves, at most L.
        rule: One of `FILLS`.
    """

    source: Tensor
    kept: Tensor

    def __init__(self, context: int, season: int, max_gap: int, rule: str, most_known: int) -> None:
        super().__init__()
        self.context, self.season, self.rule = context, season, rule
        source = _sources(context, season, max_gap, filled=rule == MEDIAN).to(torch.int32)
        self.register_buffer("source", source, persistent=False)
        position, known = torch.arange(context), torch.arange(most_known + 1).unsqueeze(1)
        kept = (position >= context - known) & (position < context - 1)
        self.register_buffer("kept", kept, persistent=False)

    def forward(self, lags: Tensor, shift: Tensor, known: Tensor, value: Tensor, taken: Tensor, new: Tensor) -> Moved:
        """Move the windows.

        Args:
            lags: `[B, L]` before the event.
            shift: `[B]` int64, periods to move by; 0 for an event that does not advance, or begins a segment.
            known: `[B]` int64, periods known since the segment began, the event's included, up to `most_known`.
            value: `[B]` observations.
            taken: `[B]` bool, whether the observation is the newest value.
            new: `[B]` bool, whether the event begins a segment.
        """
        moved = self._with_coming(lags).gather(1, self.source[shift].to(torch.int64))
        filled = torch.where(new, 0.0, moved[:, -1])
        newest = torch.where(taken, value, filled).unsqueeze(1)
        seasonal = moved[:, self.context - 1 - self.season]
        return Moved(torch.where(self.kept[known], moved, newest), seasonal)

    def _with_coming(self, lags: Tensor) -> Tensor:
        """Return the lags, and after them what the periods of the next season hold unless they are observed."""
        if self.rule == SEASON:
            return lags
        newest, seasonal = lags[:, -1:], lags[:, -self.season :]
        deviation = newest - lags[:, -1 - self.season : -self.season]
        return torch.cat([lags, _median(newest, seasonal, deviation)], dim=1)


def _sources(context: int, season: int, max_gap: int, *, filled: bool) -> Tensor:
    """Return `[max_gap + 1, L]` int64: row g says where each lag comes from when the lags move by g periods.

    Lag j takes old lag j + g. Where that lies beyond the old lags (a period without an event), it takes the value that
    is filled in, behind the old lags, or without such values its seasonal value, whole seasons back. One row of the
    table serves ordinary steps, gaps and events that change nothing (g = 0).
    """
    source = torch.arange(context) + torch.arange(max_gap + 1).unsqueeze(1)
    limit = context + season if filled else context
    beyond = (source - (limit - 1)).clamp(min=0)
    return source - season * torch.div(beyond + season - 1, season, rounding_mode="floor")
