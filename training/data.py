"""Training data: long-format files to series, and series to contexts on the slot grid.

Owns: what a data file may look like (`unique_id, ds, y` as CSV, JSON Lines or Parquet), and how a series' events
become the sequences that `Forecaster.forward` takes. Does not know: models, windows, splits.

Invariant: `contexts` treats events as `Forecaster.step` does. Late and repeated events drop out, a gap beyond
`max_gap` starts a new context, a slot without an observation takes its seasonal value; so whatever the network
learns here is what it meets in service.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from pipeline.errors import DataError
from pipeline.frequency import step_ms
from training.features import MAX_ABS_Y

COLUMNS: Final = ("unique_id", "ds", "y")
_DATE: Final = r"^\d{4}-\d{2}-\d{2}$"
_NO_SECONDS: Final = r"(T\d{2}:\d{2})($|Z|[+-])"
_NO_OFFSET: Final = r"(\d)$"
_HAS_OFFSET: Final = r"[+-]\d{2}:?\d{2}$"


@dataclass(frozen=True, slots=True)
class Series:
    """One stream's events in time order.

    Attributes:
        unique_id: the stream.
        slots: `[n]` int64, slots since the epoch; not decreasing.
        y: `[n]` float32; NaN = missing.
    """

    unique_id: str
    slots: npt.NDArray[np.int64]
    y: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Context:
    """The advancing events of one stretch of a series that `step` would see as one context.

    Attributes:
        rows: `[T]` int64, each event's row in the series.
        slots: `[T]` int64, strictly increasing.
        observed: `[T]` bool.
        known: `[T]` int64, slots known since the context began; 0 before the first observation.
        grid: `[G]` float32, values from the first event's slot to the last one's, gaps filled causally.
        truth: `[G]` float32, the observations alone, NaN elsewhere.
    """

    rows: npt.NDArray[np.int64]
    slots: npt.NDArray[np.int64]
    observed: npt.NDArray[np.bool_]
    known: npt.NDArray[np.int64]
    grid: npt.NDArray[np.float32]
    truth: npt.NDArray[np.float32]


def load(path: str | Path, freq: str) -> list[Series]:
    """Read a data set and order it by series and time.

    Args:
        path: `.csv`, `.csv.gz`, `.jsonl`, `.jsonl.gz`, `.ndjson` or `.parquet`. `ds` is ISO 8601 (UTC where it names no
            offset) or whole milliseconds since the epoch; an empty, null or NaN `y` is missing.
        freq: frequency whose slots the times fall into.

    Raises:
        DataError: the file cannot be used; it says which column and row.
    """
    path = Path(path)
    frame = _read(path)
    for column in COLUMNS:
        if column not in frame.columns:
            raise DataError(f"{path}: no column {column!r}; found {frame.columns}, expected {list(COLUMNS)}")
    if frame.is_empty():
        raise DataError(f"{path}: no rows")
    frame = frame.select(
        pl.col("unique_id").cast(pl.String), _times(path, frame["ds"]), _values(path, frame["y"])
    ).with_columns(pl.col("ds").floordiv(step_ms(freq)).alias("slot"))
    _refuse_first(path, frame["unique_id"].is_null(), frame["unique_id"], "unique_id", "a stream name")
    frame = frame.sort("unique_id", "ds", maintain_order=True)
    return [
        Series(str(name), part["slot"].to_numpy().astype(np.int64), part["y"].to_numpy().astype(np.float32))
        for (name,), part in frame.partition_by("unique_id", as_dict=True, maintain_order=True).items()
    ]


def contexts(slots: npt.NDArray[np.int64], y: npt.NDArray[np.float32], *, season: int, max_gap: int) -> list[Context]:
    """Split one series' events, in order of arrival, into contexts.

    Args:
        slots: `[n]` slots since the epoch, in any order.
        y: `[n]` observations; NaN, or beyond `MAX_ABS_Y`, is missing.
        season: slots in the main season, which fills gaps.
        max_gap: a longer gap starts a new context.
    """
    if not len(slots):
        return []
    newest = np.maximum.accumulate(slots)
    advancing = np.flatnonzero(np.concatenate([[True], slots[1:] > newest[:-1]]))
    breaks = np.flatnonzero(np.diff(slots[advancing]) > max_gap) + 1
    return [_context(rows, slots[rows], y[rows], season) for rows in np.split(advancing, breaks)]


def seasonal_scale(context: Context, season: int, until_slot: int) -> tuple[float, int]:
    """Return the sum of |y_t - y_(t - season)| over observed pairs before `until_slot`, and how many there are."""
    truth = context.truth[: max(0, int(until_slot - context.slots[0]))].astype(np.float64)
    changes = np.abs(truth[season:] - truth[:-season])
    there = np.isfinite(changes)
    return float(changes[there].sum()), int(there.sum())


def _context(
    rows: npt.NDArray[np.int64], slots: npt.NDArray[np.int64], y: npt.NDArray[np.float32], season: int
) -> Context:
    observed = np.abs(y) <= MAX_ABS_Y  # False for NaN
    offsets = slots - slots[0]
    truth = np.full(int(offsets[-1]) + 1, np.nan, dtype=np.float32)
    truth[offsets[observed]] = y[observed]
    grid = truth.copy()
    first = int(offsets[observed][0]) if observed.any() else len(grid)
    grid[:first] = 0.0
    for slot in np.flatnonzero(np.isnan(grid)):
        grid[slot] = grid[slot - season] if slot - season >= first else grid[slot - 1]
    known = np.maximum(0, offsets - first + 1)
    return Context(rows, slots, observed, known, grid, truth)


def _read(path: Path) -> pl.DataFrame:
    """Read a file by its name; CSV columns stay text, so that a bad cell can be named."""
    name = path.name.lower()
    try:
        if name.endswith(".parquet"):
            return pl.read_parquet(path)
        raw = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
        name = name.removesuffix(".gz")
        if name.endswith(".csv"):
            return pl.read_csv(raw, infer_schema=False)
        if name.endswith((".jsonl", ".ndjson")):
            return pl.read_ndjson(raw, infer_schema_length=None)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except (pl.exceptions.PolarsError, EOFError) as error:
        raise DataError(f"{path}: not readable as {path.suffix}: {str(error).splitlines()[0]}") from error
    raise DataError(f"{path}: format unknown; expected .csv, .jsonl (each also .gz) or .parquet")


def _times(path: Path, column: pl.Series) -> pl.Series:
    """Return milliseconds since the epoch."""
    expected = "ISO 8601 or whole milliseconds since the epoch"
    if column.dtype.is_integer():
        times = column.cast(pl.Int64)
    elif column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime):
        times = column.cast(pl.Datetime("ms")).cast(pl.Int64)
    elif column.dtype == pl.String:
        times = column.cast(pl.Int64, strict=False)
        if times.null_count():
            times = times.to_frame().select(pl.coalesce("ds", _parse_iso(column))).to_series()
    else:
        raise DataError(f"{path}: column 'ds' is {column.dtype}, expected {expected}")
    _refuse_first(path, times.is_null(), column, "ds", expected)
    return times.alias("ds")


def _parse_iso(column: pl.Series) -> pl.Series:
    text = column.str.strip_chars().str.replace(" ", "T", literal=True)
    text = text.set(text.str.contains(_DATE), None).fill_null(column.str.strip_chars() + "T00:00:00")
    text = text.str.replace(_NO_SECONDS, "${1}:00${2}").str.replace(r"[Zz]$", "+00:00")
    text = text.set(~text.str.contains(_HAS_OFFSET), None).fill_null(text + "+00:00")
    parsed = text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", time_unit="ms", time_zone="UTC", strict=False)
    return parsed.cast(pl.Int64)


def _values(path: Path, column: pl.Series) -> pl.Series:
    """Return float64 with NaN for what is missing."""
    if column.dtype == pl.String:
        text = column.str.strip_chars()
        text = text.set(text == "", None)
        values = text.cast(pl.Float64, strict=False)
        _refuse_first(path, values.is_null() & text.is_not_null(), column, "y", "a number, or nothing if missing")
    elif column.dtype.is_numeric() or column.dtype == pl.Null:
        values = column.cast(pl.Float64)
    else:
        raise DataError(f"{path}: column 'y' is {column.dtype}, expected numbers")
    _refuse_first(path, values.is_infinite().fill_null(False), column, "y", "a finite number")
    return values.fill_null(float("nan")).alias("y")


def _refuse_first(path: Path, bad: pl.Series, column: pl.Series, name: str, expected: str) -> None:
    """Raise for the first bad cell, if any; rows count from 1, the header of a CSV file aside."""
    row = bad.arg_max() if bad.any() else None
    if row is not None:
        found: Any = column[row]
        raise DataError(f"{path}: column {name!r}, row {row + 1}: found {found!r}, expected {expected}")
