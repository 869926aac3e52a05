"""The oracle of aggregation: polars' group-by of raw events, and the toy's unroll of it."""

from __future__ import annotations

import datetime as dt
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import polars as pl

from rillcast.engine.periods import Aggregation
from tests.support.toy import HOUR_MS, MULTIPLIER, unroll

MINUTE_MS = 60_000
BEGIN_MS = 400_000 * HOUR_MS
POLARS = {
    "last": pl.col("y").drop_nulls().last(),
    "first": pl.col("y").drop_nulls().first(),
    "mean": pl.col("y").mean(),
    "sum": pl.col("y").sum(),
    "count": pl.len().cast(pl.Float64).alias("y"),
    "min": pl.col("y").min(),
    "max": pl.col("y").max(),
}


class Raw(NamedTuple):
    partition: int
    unique_id: str
    ds: int
    y: float | None


def in_time(events: Sequence[Raw], aggregation: Aggregation) -> tuple[list[Raw], dict[str, int]]:
    """Return the events that are not too late, and by stream the first period that stays open at the end."""
    newest: dict[object, int] = {}
    kept = []
    for event in events:
        key = event.unique_id if aggregation.close == "stream" else event.partition
        grace = aggregation.grace_ms if aggregation.close == "partition" else 0
        newest[key] = max(newest.get(key, event.ds), event.ds)
        if event.ds // HOUR_MS >= (newest[key] - grace) // HOUR_MS - aggregation.correctable:
            kept.append(event)
    open_from = {}
    for event in kept:
        key = event.unique_id if aggregation.close == "stream" else event.partition
        grace = aggregation.grace_ms if aggregation.close == "partition" else 0
        open_from[event.unique_id] = (newest[key] - grace) // HOUR_MS
    return kept, open_from


def offline(events: Sequence[Raw], aggregation: Aggregation, *, whole: bool = False) -> dict[str, dict[int, float]]:
    """Return by stream the value of each closed period, by its number; `whole` = no event is late, and all close."""
    if whole:
        newest: dict[object, int] = {}
        keys = {e.unique_id: e.unique_id if aggregation.close == "stream" else e.partition for e in events}
        for event in events:
            key = keys[event.unique_id]
            newest[key] = max(newest.get(key, event.ds), event.ds)
        kept, open_from = list(events), {name: newest[key] // HOUR_MS + 1 for name, key in keys.items()}
    else:
        kept, open_from = in_time(events, aggregation)
    table = pl.DataFrame(
        [(e.unique_id, e.ds, None if e.y is None else float(e.y)) for e in kept],
        schema={"unique_id": pl.String, "ds": pl.Int64, "y": pl.Float64},
        orient="row",
    ).with_columns(pl.from_epoch("ds", "ms"))
    grouped = (
        table.sort("ds", maintain_order=True)
        .group_by_dynamic("ds", every="1h", group_by="unique_id")
        .agg(POLARS[aggregation.kind])
        .with_columns(period=pl.col("ds").dt.epoch("ms") // HOUR_MS, y=pl.col("y").fill_null(aggregation.empty))
    )
    found: dict[str, dict[int, float]] = {}
    for (unique_id,), rows in grouped.group_by("unique_id"):
        values = dict(rows.sort("period").select("period", "y").iter_rows())
        end, filled = open_from[str(unique_id)], dict[int, float]()
        for period, after in zip(values, [*list(values)[1:], end], strict=True):
            if period < end:
                filled[period] = values[period]
                empty = range(period + 1, min(after, end, period + 1 + aggregation.silent_after))
                filled |= dict.fromkeys(empty, aggregation.empty)
        if filled:
            found[str(unique_id)] = filled
    return found


def expected(
    events: Sequence[Raw], aggregation: Aggregation, multiplier: int = MULTIPLIER
) -> dict[str, list[tuple[int, int]]]:
    """Return by stream the period and the toy's forecast of each step."""
    return {
        unique_id: list(zip(values, unroll((int(y) for y in values.values()), multiplier), strict=True))
        for unique_id, values in offline(events, aggregation).items()
    }


def published(values: Iterable[bytes]) -> dict[str, list[tuple[int, int]]]:
    """Return the last forecasts by stream and period.

    Repeats are dropped by `unique_id`, `ds` and `revision` and have to be equal; no revision may be missing.
    """
    seen: dict[tuple[str, int], dict[int, tuple[int, object]]] = defaultdict(dict)
    for value in values:
        record = json.loads(value)
        forecast = int(record["quantiles"]["0.5"][0]), record["source"]
        where = record["unique_id"], round(dt.datetime.fromisoformat(record["ds"]).timestamp() * 1000)
        revisions, number = seen[where], record.get("revision", 0)
        assert revisions.setdefault(number, forecast) == forecast, f"{where}: {revisions[number]} and {forecast}"
    streams: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for (unique_id, ds), revisions in sorted(seen.items()):
        assert sorted(revisions) == list(range(len(revisions))), f"{unique_id} at {ds}: revisions {sorted(revisions)}"
        streams[unique_id].append((ds // HOUR_MS, revisions[max(revisions)][0]))
    return dict(streams)
