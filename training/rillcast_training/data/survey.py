"""Survey of a data set: streams, span, step, holes; and the options that fit it.

Owns: the figures to look at before training. Does not know: the source of the data, training.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from rillcast.bundle.cadence import frequency_of, jitter, share_apart
from rillcast.bundle.frequency import canonical, parse
from rillcast.errors import DataError
from rillcast_training.data.outlying import outlying_rows
from rillcast_training.model.features import default_context, default_seasons


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
        freq = canonical(freq) if freq else frequency_of(ds, before)
    except ValueError as error:
        raise DataError(str(error)) from error
    if freq is None:
        raise DataError("no stream has two events at different times; name the frequency with --freq")
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
        jitter_ms=jitter(ds - before, frequency),
        outlying=int(outlying.sum()),
        step_share=share_apart(ds, before, frequency),
        repeated=(events - periods) / events,
        missing=int(streams["missing"].sum()) / events,
        absent=1 - periods / int(streams["span"].sum()),
        seasons=seasons,
        context=default_context(seasons),
    )
