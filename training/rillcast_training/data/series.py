"""Training data: tables to series by period, and series to segments.

Owns: the form of a data set for the rest of training, and how a series' events become the sequences that
`Forecaster.forward` takes. Does not know: file formats (`rillcast_training.data.tables`), built-in data sets
(`rillcast_training.data.datasets`), models, windows, splits.

Invariant: `segments` treats events as `Forecaster.step` does. Late and repeated events drop out, a gap beyond `max_gap`
starts a new segment, and the rule that fills a period without an observation is its own
(`rillcast_training.model.lags`). So the network trains on the inputs that it sees in service.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from rillcast.bundle import precision
from rillcast.bundle.covariates import Covariate
from rillcast.bundle.frequency import parse
from rillcast.errors import DataError
from rillcast.reading.units import doubt
from rillcast_training.data import datasets, tables
from rillcast_training.data.aggregation import aggregated
from rillcast_training.data.columns import Columns
from rillcast_training.data.covariates import SeriesCovariates, Wanted, of_series
from rillcast_training.data.outlying import iso, outlying_rows
from rillcast_training.data.scratch import Scratch
from rillcast_training.model.features import MAX_ABS_Y
from rillcast_training.model.lags import fill

log = logging.getLogger(__name__)

_SHOWN: Final = 3  # outlying events that a warning names


@dataclass(frozen=True, slots=True)
class Series:
    """One stream's events in time order.

    Attributes:
        unique_id: Name of the stream.
        periods: `[n]` int64, periods since the epoch; not decreasing.
        y: `[n]` float32; NaN = missing.
        covariates: Covariates of the events; None if none are asked for.
    """

    unique_id: str
    periods: npt.NDArray[np.int64]
    y: npt.NDArray[np.float32]
    covariates: SeriesCovariates | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """Advancing events of a series between two restarts of `step`.

    Attributes:
        rows: `[T]` int64, each event's row in the series.
        periods: `[T]` int64, strictly increasing.
        observed: `[T]` bool.
        known: `[T]` int64, periods known since the segment began; 0 before the first observation.
        grid: `[G]` float32, values from the first event's period to the last one's, gaps filled causally.
        truth: `[G]` float32, the observations alone, NaN elsewhere.
        covariates: Covariates of the events; None if none are asked for.
    """

    rows: npt.NDArray[np.int64]
    periods: npt.NDArray[np.int64]
    observed: npt.NDArray[np.bool_]
    known: npt.NDArray[np.int64]
    grid: npt.NDArray[np.float32]
    truth: npt.NDArray[np.float32]
    covariates: SeriesCovariates | None = None

    def kept(self, scratch: Scratch) -> Segment:
        """Return the segment with its arrays on the disk; covariates stay in memory."""
        keep = scratch.keep
        return Segment(
            keep(self.rows),
            keep(self.periods),
            keep(self.observed),
            keep(self.known),
            keep(self.grid),
            keep(self.truth),
            self.covariates,
        )


def load(
    source: str | Path, freq: str, columns: Columns | None = None, covariates: Sequence[Covariate] = ()
) -> list[Series]:
    """Read a data set and order it by series and time.

    Args:
        source: File (see `rillcast_training.data.tables.read`), or name of a built-in data set
            (`rillcast_training.data.datasets.DATASETS`).
        freq: Frequency of the periods.
        columns: Names of a file's columns; by default `unique_id, ds, y`.
        covariates: Covariates to read, in the order in which a forecaster takes them.

    Raises:
        DataError: the data cannot be used; it says which column and row.
        ModuleNotFoundError: the package that ships the data set is not installed.
    """
    frame = observations(source, freq, columns, [(one.name, one.kind) for one in covariates])
    return to_series(frame, freq, covariates)


def observations(
    source: str | Path, freq: str, columns: Columns | None = None, covariates: Sequence[Wanted] = ()
) -> pl.DataFrame:
    """Return `table`, with its events aggregated where `columns` says so.

    Raises:
        DataError, ModuleNotFoundError: as `load`.
    """
    frame = table(source, columns, covariates)
    require_likely_times(frame, freq, source)
    if columns is None or columns.aggregate is None:
        return frame
    frame = _without_outlying(frame.sort("unique_id", "ds", maintain_order=True))
    return aggregated(frame, freq, columns.aggregate, source)


def require_likely_times(frame: pl.DataFrame, freq: str, source: str | Path) -> None:
    """Refuse a table whose times are probably in another unit: epoch seconds, years, row numbers.

    Raises:
        DataError: They are; it says the likely unit.
    """
    pairs = frame.select("unique_id", pl.Series("period", parse(freq).period_of(frame["ds"].to_numpy())))
    first, last = int(frame["ds"].to_numpy().min()), int(frame["ds"].to_numpy().max())
    streams, periods = frame["unique_id"].n_unique(), pairs.n_unique()
    if (why := doubt(first, last, len(frame), streams, periods, "--time-unit")) is not None:
        raise DataError(f"{source}: {why}")


def table(source: str | Path, columns: Columns | None = None, covariates: Sequence[Wanted] = ()) -> pl.DataFrame:
    """Return a file or a built-in data set as `unique_id, ds, y` and the covariates that are asked for.

    A file wins over a data set of the same name.

    Raises:
        DataError, ModuleNotFoundError: as `load`.
    """
    path = Path(source)
    if str(source) in datasets.DATASETS and not path.exists():
        if columns is not None and not columns.are_usual:
            raise DataError(
                f"{source}: a built-in data set has the columns {list(Columns().all)}; leave out the column flags"
            )
        return _of_dataset(str(source), covariates)
    if not path.suffix and not path.exists():
        raise DataError(f"{source}: neither a file nor a built-in data set; choose from {sorted(datasets.DATASETS)}")
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
    """Return the series of a table `unique_id, ds, y` with its covariates, by name; their events in time order.

    Events at outlying dates (`rillcast_training.data.outlying`) are left out, with a warning that names them.
    """
    frame = frame.with_columns(pl.Series("period", parse(freq).period_of(frame["ds"].to_numpy())))
    frame = frame.sort("unique_id", "ds", maintain_order=True)
    frame = _without_outlying(frame)
    series, unresolved = [], []
    for (name,), part in frame.partition_by("unique_id", as_dict=True, maintain_order=True).items():
        periods = part["period"].to_numpy().astype(np.int64)
        y = part["y"].to_numpy()
        if (reason := precision.unresolved(y)) is not None:
            unresolved.append((str(name), reason))
        series.append(Series(str(name), periods, y.astype(np.float32), of_series(part, periods, covariates)))
    if unresolved:
        name, reason = unresolved[0]
        others = f"; {len(unresolved) - 1} more series are like it" if len(unresolved) > 1 else ""
        log.warning("series %r: %s%s", name, reason, others)
    return series


def _without_outlying(frame: pl.DataFrame) -> pl.DataFrame:
    outlying = outlying_rows(frame)
    if not outlying.any():
        return frame
    found = frame.filter(outlying)
    named = [f"{iso(ds)} of stream {name!r}" for name, ds in found.select("unique_id", "ds").head(_SHOWN).rows()]
    more = f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
    log.warning("events at outlying dates are left out: %s%s; correct or drop these rows", ", ".join(named), more)
    return frame.filter(~outlying)


def newest(series: Sequence[Series], hold_out: int) -> tuple[list[Series], list[Series]]:
    """Split every series before the newest `hold_out` periods of the whole data set.

    Raises:
        DataError: no event is older than that.
    """
    if not series or hold_out < 1:
        raise DataError(f"--hold-out {hold_out}: takes at least 1 period")
    cut = max(int(one.periods[-1]) for one in series) - hold_out
    parts: tuple[list[Series], list[Series]] = [], []
    for one in series:
        at = int(np.searchsorted(one.periods, cut, side="right"))
        for part, rows in zip(parts, (slice(None, at), slice(at, None)), strict=True):
            if one.periods[rows].size:
                covariates = None if one.covariates is None else one.covariates.take(rows)
                part.append(Series(one.unique_id, one.periods[rows], one.y[rows], covariates))
    if not parts[0]:
        span = cut + hold_out + 1 - min(int(one.periods[0]) for one in series)
        raise DataError(
            f"--hold-out {hold_out}: no event is older than the newest {hold_out} periods; the data span {span} periods"
        )
    if young := len(series) - len(parts[0]):
        log.warning("--hold-out %d: %d of %d series begin within these periods", hold_out, young, len(series))
    return parts


def to_table(series: Sequence[Series], freq: str) -> pl.DataFrame:
    """Return series as a table `unique_id, ds, y` in time order, each event at the beginning of its period."""
    start_of = parse(freq).start_of
    parts = [
        pl.DataFrame(
            {
                "unique_id": [one.unique_id] * len(one.periods),
                "ds": start_of(one.periods),
                "y": one.y.astype(np.float64),
            }
        )
        for one in series
    ]
    return pl.concat(parts).sort("ds", "unique_id", maintain_order=True)


def segments(
    periods: npt.NDArray[np.int64],
    y: npt.NDArray[np.float32],
    *,
    season: int,
    max_gap: int,
    rule: str,
    covariates: SeriesCovariates | None = None,
) -> list[Segment]:
    """Split one series' events, in order of arrival, into segments.

    Args:
        periods: `[n]` periods since the epoch, in any order.
        y: `[n]` observations; NaN, or beyond `MAX_ABS_Y`, is missing.
        season: Periods in the main season, which fills gaps.
        max_gap: Longest gap, in periods, within a segment.
        rule: What fills a period without an observation, one of `rillcast_training.model.lags.FILLS`.
        covariates: Covariates of the same events.
    """
    if not len(periods):
        return []
    newest = np.maximum.accumulate(periods)
    advancing = np.flatnonzero(np.concatenate([[True], periods[1:] > newest[:-1]]))
    breaks = np.flatnonzero(np.diff(periods[advancing]) > max_gap) + 1
    found = [_segment(rows, periods[rows], y[rows], season, rule) for rows in np.split(advancing, breaks)]
    if covariates is None:
        return found
    return [replace(segment, covariates=covariates.take(segment.rows)) for segment in found]


def seasonal_scale(segment: Segment, season: int, until_period: int) -> tuple[float, int]:
    """Return the sum of |y_t - y_(t - season)| over observed pairs before `until_period`, and their number."""
    truth = segment.truth[: max(0, int(until_period - segment.periods[0]))].astype(np.float64)
    changes = np.abs(truth[season:] - truth[:-season])
    known = np.isfinite(changes)
    return float(changes[known].sum()), int(known.sum())


def _segment(
    rows: npt.NDArray[np.int64],
    periods: npt.NDArray[np.int64],
    y: npt.NDArray[np.float32],
    season: int,
    rule: str,
) -> Segment:
    observed = np.abs(y) <= MAX_ABS_Y  # False for NaN
    offsets = periods - periods[0]
    truth = np.full(int(offsets[-1]) + 1, np.nan, dtype=np.float32)
    truth[offsets[observed]] = y[observed]
    grid = truth.copy()
    first = int(offsets[observed][0]) if observed.any() else len(grid)
    grid[:first] = 0.0
    fill(grid, offsets, observed, season, rule)
    known = np.maximum(0, offsets - first + 1)
    return Segment(rows, periods, observed, known, grid, truth)
