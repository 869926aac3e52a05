"""Covariates of training data: from columns of a table to the forecaster's inputs.

Owns: the declaration that is fitted to a table, the values of a series in the order of a declaration, and which of them
are known at which time. Does not know: files (`rillcast_training.data.tables`), windows, models.

Invariant: training sees the same covariates at an event as serving: the values in the event's own row, and, of those
known ahead, the values of the next periods in the row's column `future.NAME`. In a table without that column, the
values of the next periods are those in their rows, NaN where there is no such row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from rillcast.bundle.covariates import Covariate, Kind, ahead
from rillcast.errors import DataError
from rillcast_training.data.tables import FUTURE

_LEAST_SPREAD: Final = 1e-9  # share of the level: less is rounding
Wanted = tuple[str, Kind]
Rows = npt.NDArray[np.int64] | slice


@dataclass(frozen=True, slots=True)
class SeriesCovariates:
    """The covariates of one series' events.

    Attributes:
        periods: `[n]` int64, of the events.
        x: `[n, C]` float32, NaN = missing.
        first_period: Period of the first row of `grid`.
        grid: `[G, F]` float32, covariates known ahead by period, NaN where nothing is known.
        listed: By index among those known ahead, `[n, L]` float32, the values for the next periods in each event's own
            row; the others are in `grid`.
    """

    periods: npt.NDArray[np.int64]
    x: npt.NDArray[np.float32]
    first_period: int
    grid: npt.NDArray[np.float32]
    listed: Mapping[int, npt.NDArray[np.float32]] = field(default_factory=dict)

    @property
    def known_ahead(self) -> int:
        """Number of covariates known ahead, F."""
        return int(self.grid.shape[1])

    def take(self, rows: Rows) -> SeriesCovariates:
        """Return those of some events; values known ahead stay known."""
        listed = {number: values[rows] for number, values in self.listed.items()}
        return SeriesCovariates(self.periods[rows], self.x[rows], self.first_period, self.grid, listed)

    def future(self, rows: Rows, horizon: int) -> npt.NDArray[np.float32]:
        """Return `[n, F, H]`, the values for the next periods that some events know."""
        at = (self.periods[rows] - self.first_period)[:, None] + np.arange(1, horizon + 1)
        inside = (at >= 0) & (at < len(self.grid))
        values = self.grid[np.where(inside, at, 0)]
        values[~inside] = np.nan
        for number, ahead_values in self.listed.items():
            values[:, :, number] = np.nan
            values[:, : ahead_values.shape[1], number] = ahead_values[rows, :horizon]
        return np.ascontiguousarray(values.transpose(0, 2, 1))


def declare(frame: pl.DataFrame, wanted: Sequence[Wanted], source: str) -> tuple[Covariate, ...]:
    """Return the declaration of the wanted covariates, with usual values and categories from a table.

    Raises:
        DataError: a column has no value at all, or a static one differs within a stream.
    """
    declared = []
    for name, kind in wanted:
        column = frame[name]
        if kind == "category":
            texts = column.drop_nulls().unique().sort().to_list()
            _require(bool(texts), f"{source}: covariate column {name!r} has no value")
            declared.append(Covariate(name, kind, categories=tuple(texts)))
            continue
        values = column.drop_nans().to_numpy()
        _require(len(values) > 0, f"{source}: covariate column {name!r} has no value")
        if kind == "static":
            _require_constant(frame, name, source)
        loc, spread = float(values.mean()), float(values.std())
        varies = spread > _LEAST_SPREAD * abs(loc)
        declared.append(Covariate(name, kind, loc, spread if varies else max(abs(loc), 1.0)))
    return tuple(declared)


def of_series(
    part: pl.DataFrame, periods: npt.NDArray[np.int64], covariates: Sequence[Covariate]
) -> SeriesCovariates | None:
    """Return the covariates of one series' rows, in the order of their declaration; None if none are declared."""
    if not covariates:
        return None
    columns = {one.name: _column(part[one.name], one) for one in covariates}
    x = np.stack([columns[one.name] for one in covariates], axis=1)
    first, known = int(periods.min()), ahead(covariates)
    grid = np.full((int(periods.max()) - first + 1, len(known)), np.nan, np.float32)
    for number, one in enumerate(known):
        grid[periods[::-1] - first, number] = columns[one.name][::-1]  # backwards: the first row of a period stays
    listed = {
        number: _of_lists(part[FUTURE + one.name])
        for number, one in enumerate(known)
        if FUTURE + one.name in part.columns
    }
    return SeriesCovariates(periods, x, first, grid, listed)


def nothing(periods: npt.NDArray[np.int64], covariates: Sequence[Covariate]) -> SeriesCovariates:
    """Return the covariates of a series without any: all missing."""
    x = np.full((len(periods), len(covariates)), np.nan, np.float32)
    grid = np.full((1, len(ahead(covariates))), np.nan, np.float32)
    return SeriesCovariates(periods, x, int(periods[0]) if len(periods) else 0, grid)


def _column(column: pl.Series, covariate: Covariate) -> npt.NDArray[np.float32]:
    if covariate.kind != "category":
        return column.to_numpy().astype(np.float32)
    numbers = {text: number for number, text in enumerate(covariate.categories, start=1)}
    return np.array([numbers.get(text, np.nan) for text in column.to_list()], np.float32)


def _of_lists(column: pl.Series) -> npt.NDArray[np.float32]:
    """Return `[n, L]`, L the length of the longest list; NaN where a list is shorter, or has a null."""
    longest = int(column.list.len().fill_null(0).max() or 0)  # type: ignore[arg-type]  # lengths are integers
    values = np.full((len(column), longest), np.nan, np.float32)
    for index in range(longest):
        values[:, index] = column.list.get(index, null_on_oob=True).to_numpy()
    return values


def _require_constant(frame: pl.DataFrame, name: str, source: str) -> None:
    differing = (
        frame.filter(pl.col(name).is_not_nan())
        .group_by("unique_id", maintain_order=True)
        .agg(pl.col(name).n_unique().alias("values"))
        .filter(pl.col("values") > 1)
    )
    if len(differing):
        stream, values = differing.row(0)
        raise DataError(
            f"{source}: static covariate {name!r} has {values} values in stream {stream!r}, expected one; "
            f"declare it as `past` or `known` if it changes with time"
        )


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise DataError(message)
