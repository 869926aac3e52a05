"""The past of one stream as the forecaster's sequence view sees it, with access to every observation.

Owns: which events make up a forecast's past, and how a change of one observation reaches the grid from which features
are taken. Does not know: attribution, files, bundles.

Invariant: `History.sequences` with the stream's own observations are the sequences that training would see. Periods
without an observation follow the observations that fill them (`rillcast_training.model.lags`).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rillcast.bundle.frequency import parse
from rillcast.errors import DataError
from rillcast_training.data.series import Series, segments
from rillcast_training.data.windows import Window, collate
from rillcast_training.model.features import MAX_ABS_Y
from rillcast_training.model.forecaster import ForecasterConfig, Sequences
from rillcast_training.model.lags import fill

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class History:
    """The advancing events of one stream up to the explained one.

    Attributes:
        unique_id: Name of the stream.
        periods: `[T]` int64, periods since the epoch, strictly increasing.
        y: `[T]` float32; NaN = missing.
        longer: Events of the same segment that were left out as too old.
    """

    unique_id: str
    periods: npt.NDArray[np.int64]
    y: npt.NDArray[np.float32]
    longer: int
    _config: ForecasterConfig
    _sequences: Sequences

    @property
    def covariates(self) -> dict[str, npt.NDArray[np.float32]]:
        """The inputs `x`, `[T, C]`, and `future`, `[T, F, H]`, of the events, if the forecaster takes them."""
        given = {"x": self._sequences.x, "future": self._sequences.future}
        return {name: values[0].numpy() for name, values in given.items() if values is not None}

    @property
    def observed(self) -> npt.NDArray[np.int64]:
        """Rows of the events that are observations."""
        return np.flatnonzero(np.isfinite(self.y))

    def sequences(self, y: Tensor) -> Sequences:
        """Return the sequences with other observations instead of the stream's.

        Args:
            y: `[S, T]`; values where the stream has no observation are not read. Gradients flow through.
        """
        rows, config = len(y), self._config
        offsets = self.periods - self.periods[0]
        values = [torch.zeros(rows)] * (int(offsets[-1]) + 1)
        for event in self.observed:
            values[offsets[event]] = y[:, event]
        fill(values, offsets, np.isfinite(self.y), config.seasons[0], config.fill)
        grid = torch.cat([torch.zeros(rows, config.context - 1), torch.stack(values, dim=1)], dim=1)
        others: dict[str, Any] = {
            name: None if tensor is None else tensor.expand(rows, *tensor.shape[1:])
            for name, tensor in self._sequences._asdict().items()
            if name != "grid"
        }
        return Sequences(grid=grid, **others)


def history_of(series: Series, config: ForecasterConfig, *, at: int | None = None, limit: int | None = None) -> History:
    """Return the past of the last event at or before a period.

    Args:
        series: The stream.
        config: Configuration of the forecaster, whose rules define the effect of an event.
        at: Period since the epoch; None = the last one.
        limit: Most events; None = all since the segment began.

    Raises:
        DataError: the stream has no observation by then.
    """
    end = len(series.periods) if at is None else int(np.searchsorted(series.periods, at, side="right"))
    split = partial(segments, season=config.seasons[0], max_gap=config.max_gap, rule=config.fill)
    parts = split(series.periods[:end], series.y[:end])
    if not parts or not parts[-1].observed.any():
        raise DataError(f"stream {series.unique_id!r}: no observation at or before the time to explain")
    rows = parts[-1].rows
    longer = max(0, len(rows) - limit) if limit is not None else 0
    rows = rows[longer:]
    periods, y = series.periods[rows], series.y[rows]
    y = np.where(np.abs(y) <= MAX_ABS_Y, y, np.float32(np.nan))
    covariates = None if series.covariates is None else series.covariates.take(rows)
    (segment,) = split(periods, y, covariates=covariates)
    window = Window(segment, 0, len(periods), None, 1.0, fresh=False)
    batch = collate([window], config, [np.array([len(periods) - 1])])
    return History(series.unique_id, periods, y, longer, config, batch.sequences)


def find(series: list[Series], unique_id: str) -> Series:
    """Return a stream by name.

    Raises:
        DataError: there is no such stream; the message names some that exist.
    """
    for one in series:
        if one.unique_id == unique_id:
            return one
    known = ", ".join(repr(one.unique_id) for one in series[:5])
    raise DataError(f"no stream {unique_id!r} in the data; there are {len(series)}, such as {known}")


def period_of(text: str, freq: str) -> int:
    """Return the period of a time: ISO 8601 (UTC if it has no offset) or milliseconds since the epoch.

    Raises:
        DataError: it is neither.
    """
    try:
        return parse(freq).period_of(int(text))
    except ValueError:
        pass
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise DataError(f"time {text!r}: expected ISO 8601 or milliseconds since the epoch") from error
    if time.tzinfo is None:
        time = time.replace(tzinfo=dt.UTC)
    return parse(freq).period_of((time - _EPOCH) // dt.timedelta(milliseconds=1))


def iso(period: int, freq: str) -> str:
    """Return the start of a period as ISO 8601 in UTC."""
    time = _EPOCH + dt.timedelta(milliseconds=parse(freq).start_of(int(period)))
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")
