"""Survey of a data set: streams, span, step, holes; and the options that fit it.

Owns: the figures to look at before training. Does not know: the source of the data, training.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from rillcast.arrays import IntArray
from rillcast.bundle.frequency import DAY_MS, Frequency, canonical, parse
from rillcast.errors import DataError
from rillcast_training.data.outlying import outlying_rows
from rillcast_training.model.features import default_context, default_seasons

_UNITS: Final = (("w", 7 * DAY_MS), ("d", DAY_MS), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1))
_USUAL: Final = {
    parse(freq).nominal_ms: canonical(freq)
    for freq in (
        *("1ms", "10ms", "100ms", "1s", "2s", "5s", "10s", "15s", "20s", "30s"),
        *("1min", "2min", "5min", "10min", "15min", "20min", "30min", "1h", "2h", "3h", "4h", "6h", "8h", "12h"),
        *("1d", "1w", "1mo", "3mo", "6mo", "12mo"),
    )
}
"""Usual frequencies by their length in milliseconds."""
_REGULAR: Final = 0.5  # share of steps from which on they have no jitter
_NEAR: Final = 1.2  # ratio up to which a usual frequency is near
_MONTH: Final = Frequency(1, in_months=True)


@dataclass(frozen=True, slots=True)
class Survey:
    """The figures; times in milliseconds since the epoch.

    Attributes:
        streams: Number of streams.
        events: Number of rows.
        shortest: Events of the shortest stream.
        longest: Events of the longest stream.
        first_ms: Earliest time.
        last_ms: Latest time.
        freq: Step between neighbouring events, as a frequency; or the requested one.
        jitter_ms: Mean deviation from the step, over the neighbours that are nearer to one step than to none or two;
            0 of calendar months.
        outlying: Number of events at outlying dates, which no other figure counts.
        step_share: Share of neighbouring events that are exactly one step apart; of calendar months, at the same time
            of their month, counted from its beginning or, for all of them, from its end.
        repeated: Share of events whose stream had one in the same period before.
        missing: Share of events without a value.
        absent: Share of periods, between a stream's first and last event, without any event.
        seasons: Default seasons of the frequency, in periods.
        context: Default lag window, in periods.
    """

    streams: int
    events: int
    shortest: int
    longest: int
    first_ms: int
    last_ms: int
    freq: str
    jitter_ms: int
    outlying: int
    step_share: float
    repeated: float
    missing: float
    absent: float
    seasons: tuple[int, ...]
    context: int

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


def survey(frame: pl.DataFrame, freq: str | None = None) -> Survey:
    """Survey a table `unique_id, ds, y` (`rillcast_training.data.tables.read`).

    Args:
        frame: The table.
        freq: Frequency of the periods; None = the most frequent step, or with jitter the usual frequency nearest to the
            median step.

    Raises:
        DataError: `freq` is no frequency; or no stream has two events at different times, and no frequency was given.
    """
    frame = frame.sort("unique_id", "ds", maintain_order=True)
    outlying = outlying_rows(frame)
    frame = frame.filter(~outlying)
    neighbours = frame.select("ds", pl.col("ds").shift().over("unique_id").alias("before")).drop_nulls()
    ds, before = neighbours["ds"].to_numpy(), neighbours["before"].to_numpy()
    try:
        freq = canonical(freq) if freq else _frequency_of(ds, before)
    except ValueError as error:
        raise DataError(str(error)) from error
    frequency = parse(freq)
    streams = (
        frame.with_columns(pl.Series("period", frequency.period_of(frame["ds"].to_numpy())))
        .group_by("unique_id")
        .agg(
            pl.len().alias("events"),
            pl.col("period").n_unique().alias("periods"),
            (pl.col("period").max() - pl.col("period").min() + 1).alias("span"),
            pl.col("y").is_nan().sum().alias("missing"),
        )
    )
    events, periods = int(streams["events"].sum()), int(streams["periods"].sum())
    seasons = default_seasons(freq)
    return Survey(
        streams=len(streams),
        events=events,
        shortest=int(streams["events"].to_numpy().min()),
        longest=int(streams["events"].to_numpy().max()),
        first_ms=int(frame["ds"].to_numpy().min()),
        last_ms=int(frame["ds"].to_numpy().max()),
        freq=freq,
        jitter_ms=_jitter(ds - before, frequency),
        outlying=int(outlying.sum()),
        step_share=_share_apart(ds, before, frequency),
        repeated=(events - periods) / events,
        missing=int(streams["missing"].sum()) / events,
        absent=1 - periods / int(streams["span"].sum()),
        seasons=seasons,
        context=default_context(seasons),
    )


def _frequency_of(ds: IntArray, before: IntArray) -> str:
    """Return the step between neighbours.

    It is the most frequent one: in calendar months if at least as many neighbours are that far apart as are a fixed
    step apart, else in the largest unit that divides it. Where most steps differ from it and it is no usual frequency,
    the steps have jitter: the usual frequency next to their median is taken, if there is one near.
    """
    if not (ds > before).any():
        raise DataError("no stream has two events at different times; name the frequency with --freq")
    usual = _most_frequent((ds - before)[ds > before])
    apart = _MONTH.period_of(ds) - _MONTH.period_of(before)
    if (apart > 0).any():
        months = _most_frequent(apart[apart > 0])
        in_months = Frequency(months, in_months=True)
        if _share_apart(ds, before, in_months) >= _share_apart(ds, before, Frequency(usual)):
            return f"{months}mo"
    if usual not in _USUAL and _share_apart(ds, before, Frequency(usual)) < _REGULAR:
        median = float(np.median((ds - before)[ds > before]))
        nearest = min(_USUAL, key=lambda length: abs(math.log(length / median)))
        if abs(math.log(nearest / median)) < math.log(_NEAR):
            return _USUAL[nearest]
    unit, length = next((unit, length) for unit, length in _UNITS if usual % length == 0)
    return f"{usual // length}{unit}"


def _jitter(steps: IntArray, frequency: Frequency) -> int:
    """Return the mean deviation in milliseconds of the steps that are nearest to one period."""
    if frequency.in_months:
        return 0
    off = np.abs(steps - frequency.step)
    single = off < frequency.step / 2
    return round(float(off[single].mean())) if single.any() else 0


def _most_frequent(steps: IntArray) -> int:
    """Return the most frequent of some numbers; the smallest in a tie."""
    values, counts = np.unique(steps, return_counts=True)
    return int(values[counts.argmax()])


def _share_apart(ds: IntArray, before: IntArray, frequency: Frequency) -> float:
    """Return the share of neighbours that are one step apart."""
    if not ds.size:
        return 0.0
    if not frequency.in_months:
        return float(np.mean(ds - before == frequency.step))
    month, earlier = _MONTH.period_of(ds), _MONTH.period_of(before)
    a_step = month - earlier == frequency.step
    from_start, from_end = (
        ds - _MONTH.start_of(month + end) == before - _MONTH.start_of(earlier + end) for end in (0, 1)
    )
    # The same end for all pairs: otherwise steps of 31 days would pass as months.
    return float(max(np.mean(a_step & from_start), np.mean(a_step & from_end)))
