"""What a data set is like: streams, span, step, holes; and the options that fit it.

Owns: the figures that one wants to see before training. Does not know: where the data come from, training.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import polars as pl

from pipeline.errors import DataError
from pipeline.frequency import step_ms
from training.features import default_context, default_seasons

_UNITS: Final = (("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1))


@dataclass(frozen=True, slots=True)
class Survey:
    """The figures; times in milliseconds since the epoch.

    Attributes:
        streams: how many.
        events: rows.
        shortest: events of the shortest stream.
        longest: events of the longest one.
        first_ms: earliest time.
        last_ms: latest time.
        freq: the most frequent step between neighbouring events, as a frequency; or the one that was asked for.
        step_share: share of neighbouring events that are exactly one step apart.
        repeated: share of events whose stream had one in the same slot before.
        missing: share of events without a value.
        absent: share of slots, between a stream's first and last event, without any event.
        seasons: default seasons of the frequency, in slots.
        context: default lag window, in slots.
    """

    streams: int
    events: int
    shortest: int
    longest: int
    first_ms: int
    last_ms: int
    freq: str
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
    """Look at a table `unique_id, ds, y` (`training.tables.read`).

    Args:
        frame: the table.
        freq: frequency to count slots by; None = the most frequent step.

    Raises:
        DataError: no stream has two events at different times, and no frequency was given.
    """
    frame = frame.sort("unique_id", "ds", maintain_order=True)
    steps = frame.select(pl.col("ds").diff().over("unique_id").alias("step")).drop_nulls()["step"]
    freq = freq or _frequency_of(steps.filter(steps > 0))
    step = step_ms(freq)
    streams = (
        frame.with_columns(pl.col("ds").floordiv(step).alias("slot"))
        .group_by("unique_id")
        .agg(
            pl.len().alias("events"),
            pl.col("slot").n_unique().alias("slots"),
            (pl.col("slot").max() - pl.col("slot").min() + 1).alias("span"),
            pl.col("y").is_nan().sum().alias("missing"),
        )
    )
    events, slots = int(streams["events"].sum()), int(streams["slots"].sum())
    seasons = default_seasons(freq)
    return Survey(
        streams=len(streams),
        events=events,
        shortest=int(streams["events"].to_numpy().min()),
        longest=int(streams["events"].to_numpy().max()),
        first_ms=int(frame["ds"].to_numpy().min()),
        last_ms=int(frame["ds"].to_numpy().max()),
        freq=freq,
        step_share=float((steps == step).sum() / max(len(steps), 1)),
        repeated=(events - slots) / events,
        missing=int(streams["missing"].sum()) / events,
        absent=1 - slots / int(streams["span"].sum()),
        seasons=seasons,
        context=default_context(seasons),
    )


def _frequency_of(steps: pl.Series) -> str:
    """Return the most frequent step as a frequency in the largest unit that divides it."""
    if steps.is_empty():
        raise DataError("no stream has two events at different times: name the frequency with --freq")
    usual = int(steps.value_counts().sort("count", "step", descending=[True, False])["step"][0])
    unit, length = next((unit, length) for unit, length in _UNITS if usual % length == 0)
    return f"{usual // length}{unit}"
