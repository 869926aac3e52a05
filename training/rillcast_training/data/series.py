"""Training data: tables to series on the slot grid, and series to contexts.

Owns: what a data set is to the rest of training, and how a series' events become the sequences that
`Forecaster.forward` takes. Does not know: file formats (`rillcast_training.data.tables`), built-in data sets
(`rillcast_training.data.datasets`), models, windows, splits.

Invariant: `contexts` treats events as `Forecaster.step` does. Late and repeated events drop out, a gap beyond
`max_gap` starts a new context, a slot without an observation takes its seasonal value; so whatever the network
learns here is what it meets in service.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from rillcast.bundle.covariates import Covariate
from rillcast.bundle.frequency import parse
from rillcast.errors import DataError
from rillcast_training.data import datasets, tables
from rillcast_training.data.columns import Columns
from rillcast_training.data.covariates import SeriesCovariates, Wanted, of_series
from rillcast_training.model.features import MAX_ABS_Y


@dataclass(frozen=True, slots=True)
class Series:
    """One stream's events in time order.

    Attributes:
        unique_id: the stream.
        slots: `[n]` int64, slots since the epoch; not decreasing.
        y: `[n]` float32; NaN = missing.
        covariates: of the events; None where none are asked for.
    """

    unique_id: str
    slots: npt.NDArray[np.int64]
    y: npt.NDArray[np.float32]
    covariates: SeriesCovariates | None = None


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
        covariates: of the events; None where none are asked for.
    """

    rows: npt.NDArray[np.int64]
    slots: npt.NDArray[np.int64]
    observed: npt.NDArray[np.bool_]
    known: npt.NDArray[np.int64]
    grid: npt.NDArray[np.float32]
    truth: npt.NDArray[np.float32]
    covariates: SeriesCovariates | None = None


def load(
    source: str | Path, freq: str, columns: Columns | None = None, covariates: Sequence[Covariate] = ()
) -> list[Series]:
    """Read a data set and order it by series and time.

    Args:
        source: a file (see `rillcast_training.data.tables.read`), or the name of a built-in data set
        (`rillcast_training.data.datasets.DATASETS`).
        freq: frequency whose slots the times fall into.
        columns: how a file's columns are named; by default `unique_id, ds, y`.
        covariates: what else is read, in the order in which a forecaster takes it.

    Raises:
        DataError: the data cannot be used; it says which column and row.
        ModuleNotFoundError: the package that ships the data set is not installed.
    """
    return to_series(table(source, columns, [(one.name, one.kind) for one in covariates]), freq, covariates)


def table(source: str | Path, columns: Columns | None = None, covariates: Sequence[Wanted] = ()) -> pl.DataFrame:
    """Return a file or a built-in data set as `unique_id, ds, y` and the covariates that are asked for.

    A file wins over a data set of the same name.

    Raises:
        DataError, ModuleNotFoundError: as `load`.
    """
    path = Path(source)
    if str(source) in datasets.DATASETS and not path.exists():
        if columns is not None and columns != Columns():
            raise DataError(
                f"{source} is a built-in data set; its columns are {list(Columns().all)} and have no other names"
            )
        return _of_dataset(str(source), covariates)
    if not path.suffix and not path.exists():
        raise DataError(f"{source}: neither a file nor a built-in data set; those are {sorted(datasets.DATASETS)}")
    columns = replace(
        columns or Columns(),
        numbers=tuple(name for name, kind in covariates if kind != "category"),
        texts=tuple(name for name, kind in covariates if kind == "category"),
        ahead=tuple(name for name, kind in covariates if kind == "known"),
    )
    return tables.read(path, columns)


def _of_dataset(name: str, covariates: Sequence[Wanted]) -> pl.DataFrame:
    frame = datasets.read(name)
    if lacking := [wanted for wanted, _ in covariates if wanted not in frame.columns[3:]]:
        raise DataError(f"data set {name} has no covariates {lacking}; it has {frame.columns[3:]}")
    return frame.select("unique_id", "ds", "y", *(wanted for wanted, _ in covariates))


def to_series(frame: pl.DataFrame, freq: str, covariates: Sequence[Covariate] = ()) -> list[Series]:
    """Return the series of a table `unique_id, ds, y` with its covariates, by name; their events in time order."""
    frame = frame.with_columns(pl.Series("slot", parse(freq).period_of(frame["ds"].to_numpy())))
    frame = frame.sort("unique_id", "ds", maintain_order=True)
    series = []
    for (name,), part in frame.partition_by("unique_id", as_dict=True, maintain_order=True).items():
        slots = part["slot"].to_numpy().astype(np.int64)
        y = part["y"].to_numpy().astype(np.float32)
        series.append(Series(str(name), slots, y, of_series(part, slots, covariates)))
    return series


def newest(series: Sequence[Series], hold_out: int) -> tuple[list[Series], list[Series]]:
    """Split every series in front of the newest `hold_out` slots of the whole data set.

    Raises:
        DataError: nothing is older than that.
    """
    if not series or hold_out < 1:
        raise DataError(f"--hold-out {hold_out}: takes at least 1 slot")
    cut = max(int(one.slots[-1]) for one in series) - hold_out
    parts: tuple[list[Series], list[Series]] = [], []
    for one in series:
        at = int(np.searchsorted(one.slots, cut, side="right"))
        for part, rows in zip(parts, (slice(None, at), slice(at, None)), strict=True):
            if one.slots[rows].size:
                covariates = None if one.covariates is None else one.covariates.take(rows)
                part.append(Series(one.unique_id, one.slots[rows], one.y[rows], covariates))
    if not parts[0]:
        raise DataError(f"--hold-out {hold_out}: no event is older than the newest {hold_out} slots")
    return parts


def to_table(series: Sequence[Series], freq: str) -> pl.DataFrame:
    """Return series as a table `unique_id, ds, y` in time order, each event at the beginning of its slot."""
    start_of = parse(freq).start_of
    parts = [
        pl.DataFrame(
            {"unique_id": [one.unique_id] * len(one.slots), "ds": start_of(one.slots), "y": one.y.astype(np.float64)}
        )
        for one in series
    ]
    return pl.concat(parts).sort("ds", "unique_id", maintain_order=True)


def contexts(
    slots: npt.NDArray[np.int64],
    y: npt.NDArray[np.float32],
    *,
    season: int,
    max_gap: int,
    covariates: SeriesCovariates | None = None,
) -> list[Context]:
    """Split one series' events, in order of arrival, into contexts.

    Args:
        slots: `[n]` slots since the epoch, in any order.
        y: `[n]` observations; NaN, or beyond `MAX_ABS_Y`, is missing.
        season: slots in the main season, which fills gaps.
        max_gap: a longer gap starts a new context.
        covariates: of the same events.
    """
    if not len(slots):
        return []
    newest = np.maximum.accumulate(slots)
    advancing = np.flatnonzero(np.concatenate([[True], slots[1:] > newest[:-1]]))
    breaks = np.flatnonzero(np.diff(slots[advancing]) > max_gap) + 1
    found = [_context(rows, slots[rows], y[rows], season) for rows in np.split(advancing, breaks)]
    if covariates is None:
        return found
    return [replace(context, covariates=covariates.take(context.rows)) for context in found]


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
