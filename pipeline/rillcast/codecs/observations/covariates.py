"""Covariates of observation records: members to the columns `x` and `future` of a graph.

    {"unique_id": "shop-7", "ds": ..., "y": 41, "x": {"promo": 0, "price": 9.5, "region": "north"},
     "future": {"promo": [0, 1, 1], "price": [9.5, 7, 7]}}

`x` has the value of each covariate at the event. `future` has the values of the `known` covariates in the next periods,
the next period first. Absent values are missing. Values beyond the horizon and members that the bundle does not declare
are ignored.

Owns: the types to which `x` and `future` are decoded, the treatment of values that are missing, out of range or
unknown, and the values that the table of streams brings.
Does not know: bytes, how a model uses the columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np

from rillcast.arrays import FloatArray
from rillcast.bundle.covariates import UNKNOWN, Covariate, ahead
from rillcast.codecs.observations.rejections import Reason, RefusedError
from rillcast.events import Masked
from rillcast.reading.values import read_category, read_number

Policy: TypeAlias = Literal["mask", "dead_letter"]
_Wide: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class CovariateRules:
    """Treatment of values that cannot be used: mask the value, or make the record a dead letter.

    Attributes:
        max_abs_x: Largest magnitude of a value.
        missing: Treatment of a covariate that neither the event nor the table of streams brings. A missing value in
            `future` is always masked.
        out_of_range: Treatment of a value beyond `max_abs_x`.
    """

    max_abs_x: float = 1e15
    missing: Policy = "mask"
    out_of_range: Policy = "mask"


class Types(NamedTuple):
    """The types to which `x` and `future` are decoded; `attribute` names the attribute of each covariate."""

    x: type[msgspec.Struct]
    future: type[msgspec.Struct]


def attribute(name: str) -> str:
    """Return a Python name for a member's name; different names give different results."""
    return "m_" + name.encode().hex()


def types(covariates: Sequence[Covariate]) -> Types:
    """Return types with exactly the declared members; each may be null or absent."""
    kinds: dict[str, Any] = {one.name: type_of(one) for one in covariates}
    future: dict[str, Any] = {one.name: type_ahead() for one in ahead(covariates)}
    return Types(_struct("x", kinds), _struct("future", future))


def type_of(covariate: Covariate) -> Any:
    """Return the type of a covariate's value at the event."""
    return str | int | None if covariate.kind == "category" else float | None


def reader_of(covariate: Covariate) -> Callable[[Any], Any]:
    """Return the function that reads a value of any type as that covariate."""
    return read_category if covariate.kind == "category" else read_number


def type_ahead() -> Any:
    """Return the type of a covariate's values for the next periods."""
    return list[float | None] | None


def _struct(title: str, members: Mapping[str, Any]) -> type[msgspec.Struct]:
    return msgspec.defstruct(
        title,
        [(attribute(name), kind, None) for name, kind in members.items()],
        rename={attribute(name): name for name in members},
        gc=False,
        kw_only=True,
    )


class Vocabulary:
    """The texts of a category before a bundle declares them; each new text gets the next index, from 1."""

    def __init__(self) -> None:
        self._indices: dict[str, float] = {}

    def get(self, text: str, _unknown: float) -> float:
        """Return the index of a text; no text is unknown."""
        return self._indices.setdefault(text, float(len(self._indices) + 1))

    @property
    def texts(self) -> list[str]:
        """The texts in the order of their indices."""
        return list(self._indices)


class CovariateColumns:
    """Decoded events to columns, with a few list comprehensions for a poll and none for each number of an event."""

    def __init__(
        self,
        covariates: Sequence[Covariate],
        horizon: int,
        rules: CovariateRules | None = None,
        streams: Mapping[str, Mapping[str, float | str | None]] | None = None,
        vocabularies: Mapping[str, Vocabulary] | None = None,
    ) -> None:
        """Prepare the columns.

        Args:
            covariates: Covariates that the bundle declares, in the order of its inputs.
            horizon: Number of periods ahead, H.
            rules: Treatment of values that cannot be used.
            streams: By stream id, values of the stream's covariates for events without them.
            vocabularies: By name of a category, the vocabulary that replaces its declared texts.
        """
        self._covariates, self._horizon, self._rules = tuple(covariates), horizon, rules or CovariateRules()
        self._blank_x, self._blank_future = (kind() for kind in types(covariates))
        numbers = [index for index, one in enumerate(covariates) if one.kind != "category"]
        self._numbers = numbers
        self._read_numbers = _tuple_getter([attribute(covariates[index].name) for index in numbers])
        self._categories: list[tuple[int, str, Vocabulary | dict[str, float]]] = [
            (index, attribute(one.name), (vocabularies or {}).get(one.name) or _categories(one))
            for index, one in enumerate(covariates)
            if one.kind == "category"
        ]
        self._ahead = [attribute(one.name) for one in ahead(covariates)]
        self._of_streams = [index for index, one in enumerate(covariates) if one.of_the_stream]
        self._rows = {unique_id: row for row, unique_id in enumerate(streams or {}, start=1)}
        self._table = np.full(
            (len(self._rows) + 1, len(covariates)), np.nan
        )  # row 0: a stream that the table does not have
        for unique_id, row in self._rows.items():
            self._table[row] = self._of_stream((streams or {})[unique_id])

    def columns(self, events: Sequence[Any]) -> tuple[FloatArray, FloatArray | None, Masked]:
        """Return `x` `(n, C)`, `future` `(n, F, H)` where covariates are known ahead, and the masked values.

        Raises:
            RefusedError: A value is missing or out of range, and the rules refuse such a record.
        """
        n, blank, rules = len(events), self._blank_x, self._rules
        given = [event.x if event.x is not None else blank for event in events]
        x: _Wide = np.full((n, len(self._covariates)), np.nan)
        if self._numbers:
            read = self._read_numbers
            x[:, self._numbers] = np.array([read(one) for one in given], np.float64).reshape(n, len(self._numbers))
        unknown = 0
        for index, name, categories in self._categories:
            texts = [_category(getattr(one, name)) for one in given]
            x[:, index] = [categories.get(text, UNKNOWN) if text else np.nan for text in texts]
            unknown += int((x[:, index] == UNKNOWN).sum())
        if self._rows:
            rows = self._rows
            known = self._table[[rows.get(event.unique_id, 0) for event in events]]
            x = np.where(np.isnan(x), known, x)
        far = np.abs(x) > rules.max_abs_x
        missing, out_of_range = int(np.isnan(x).sum()), int(far.sum())
        if missing and rules.missing == "dead_letter":
            raise RefusedError(Reason.COVARIATE_MISSING, self._names(np.isnan(x)))
        future: _Wide | None = None
        if self._ahead:
            future = self._future(events)
            missing += int(np.isnan(future).sum())
            beyond = np.abs(future) > rules.max_abs_x
            out_of_range += int(beyond.sum())
            future[beyond] = np.nan
        if out_of_range and rules.out_of_range == "dead_letter":
            what = self._names(far) or "a value in `future`"
            raise RefusedError(
                Reason.COVARIATE_OUT_OF_RANGE, f"{what}: magnitude exceeds input.max_abs_x, {rules.max_abs_x:g}"
            )
        x[far] = np.nan
        masked = Masked(missing, out_of_range, unknown)
        return x.astype(np.float32), None if future is None else future.astype(np.float32), masked

    def _future(self, events: Sequence[Any]) -> _Wide:
        blank, horizon = self._blank_future, self._horizon
        given = [event.future if event.future is not None else blank for event in events]
        columns: _Wide = np.full((len(events), len(self._ahead), horizon), np.nan)
        for number, name in enumerate(self._ahead):
            values = [getattr(one, name) for one in given]
            whole = [row for row, one in enumerate(values) if one is not None and len(one) == horizon]
            columns[whole, number] = np.array([values[row] for row in whole], np.float64).reshape(-1, horizon)
            if len(whole) < len(values):
                for row, one in enumerate(values):
                    if one is not None and len(one) != horizon:
                        columns[row, number, : len(one)] = np.array(one[:horizon], np.float64)
        return columns

    def _of_stream(self, values: Mapping[str, float | str | None]) -> list[float]:
        """Return the table's values of one stream, in the order of the covariates."""
        categories = {index: known for index, _, known in self._categories}
        row = [np.nan] * len(self._covariates)
        for index in self._of_streams:
            if (value := values.get(self._covariates[index].name)) is not None:
                row[index] = categories[index].get(str(value), UNKNOWN) if index in categories else float(value)
        return row

    def _names(self, which: Any) -> str:
        return ", ".join(repr(self._covariates[index].name) for index in np.flatnonzero(which.any(axis=0)).tolist())


def _categories(category: Covariate) -> dict[str, float]:
    return {text: float(number) for number, text in enumerate(category.categories, start=1)}


def _category(value: str | int | None) -> str:
    """Return a category as `rillcast.reading.values.read_category` reads it; an empty text is missing."""
    return "" if value is None else str(value).strip()


def _tuple_getter(names: Sequence[str]) -> Any:
    return attrgetter(*names) if names else lambda _value: ()
