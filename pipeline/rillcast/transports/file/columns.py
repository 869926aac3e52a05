"""The columns of a CSV or Parquet file that hold the stream, the time, the observation and the covariates.

Owns: the names, and the translation of a row of cells into the members of a plain observation record, so that the
decoder sees files like topics. Does not know: how a file is read (`rillcast.transports.file.readers`).

A covariate has a column of its own name. Its values for the periods ahead have a column `future.NAME`: a list in
Parquet, the text of a JSON list in CSV. If the column of a covariate is absent, the covariate is missing in every row.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from rillcast.bundle.covariates import Covariate, ahead
from rillcast.errors import DataError, SettingsError
from rillcast.settings import FieldSettings

log = logging.getLogger(__name__)

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MIDNIGHT: Final = "T00:00:00Z"
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
_MISSING: Final = frozenset({"", "nan", "na", "null", "none"})
_PER_MS: Final[dict[str, tuple[int, int]]] = {"s": (1_000, 1), "ms": (1, 1), "us": (1, 1_000), "ns": (1, 1_000_000)}
_list = msgspec.json.Decoder(list[Any]).decode


@dataclass(frozen=True, slots=True)
class FileColumns:
    """Names of columns.

    Attributes:
        unique_id: Column of the stream id.
        ds: Column of the time.
        y: Column of the observation.
        scale: Factor and divisor that turn a whole-number time into milliseconds.
        covariates: Covariates to read.
        future: Prefix, before a dot and the covariate's name, of the columns of values ahead.
    """

    unique_id: str = "unique_id"
    ds: str = "ds"
    y: str = "y"
    scale: tuple[int, int] = (1, 1)
    covariates: tuple[Covariate, ...] = ()
    future: str = "future"

    @classmethod
    def of(cls, fields: FieldSettings, covariates: Sequence[Covariate]) -> FileColumns:
        r"""Return the columns that a mapping names; a path is a name, since a column has no members.

        Raises:
            SettingsError: The mapping names a place outside of the value (`$key`, ...).
        """
        for name in ("unique_id", "ds", "y"):
            if (where := getattr(fields, name)).startswith("$"):
                raise SettingsError(f"input.fields.{name} is {where!r}, which a CSV or Parquet file does not have")
        unique_id, ds, y = (name.replace("\\.", ".") for name in (fields.unique_id, fields.ds, fields.y))
        return cls(unique_id, ds, y, _PER_MS[fields.ds_unit], tuple(covariates), fields.future)

    @property
    def required(self) -> tuple[str, str, str]:
        """Columns without which a file cannot be read."""
        return self.unique_id, self.ds, self.y

    def of_now(self, header: Sequence[str]) -> dict[str, str]:
        """Return the file's columns of covariates at the event, by the covariate's name."""
        return {one.name: one.name for one in self.covariates if one.name in header}

    def of_future(self, header: Sequence[str]) -> dict[str, str]:
        """Return the file's columns of covariates' values ahead, by the covariate's name."""
        columns = {one.name: f"{self.future}.{one.name}" for one in ahead(self.covariates)}
        return {name: column for name, column in columns.items() if column in header}

    def check(self, header: Sequence[str], name: str) -> None:
        """Require the columns of a plain observation, and log those that are not read.

        Raises:
            DataError: A required column is missing.
        """
        if missing := [column for column in self.required if column not in header]:
            raise DataError(
                f"input.path {name}: columns {missing} are missing; found {list(header)}, expected "
                f"{list(self.required)}; input.fields can name others"
            )
        read = {*self.required, *self.of_now(header).values(), *self.of_future(header).values()}
        if extra := [column for column in header if column not in read]:
            log.info("%s: columns %s are not used", name, extra)
        if absent := [one.name for one in self.covariates if one.name not in header]:
            log.warning("%s: no columns for covariates %s; they are missing in every row", name, absent)

    def is_text(self, covariate: str) -> bool:
        """Whether a covariate is a category."""
        return next(one for one in self.covariates if one.name == covariate).kind == "category"

    def time(self, value: Any) -> Any:
        """Return a time as records have it: whole numbers in milliseconds, dates at midnight, the rest unchanged."""
        if isinstance(value, int):
            return value * self.scale[0] // self.scale[1]
        if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
            return f"{value}{_MIDNIGHT}"
        return value

    def text_time(self, text: str) -> int | str:
        """Return the time in a cell of text as records have it."""
        if _INTEGER.fullmatch(text):
            return int(self.time(int(text)))
        return text + _MIDNIGHT if _DATE.fullmatch(text) else text


def number(text: str) -> float | str | None:
    """Return a cell of text as a number, None if it is empty, or unchanged so that the decoder refuses it."""
    stripped = text.strip()
    if stripped.lower() in _MISSING:
        return None
    if _NUMBER.fullmatch(stripped) and math.isfinite(value := float(stripped)):
        return value
    return text


def category(text: str) -> str | None:
    """Return a cell of text as a category, None if it is empty."""
    return text.strip() or None


def numbers(text: str) -> list[Any] | str | None:
    """Return a cell of text as a list, None if it is empty, or unchanged so that the decoder refuses it."""
    if text.strip().lower() in _MISSING:
        return None
    try:
        return _list(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return text


def finite(value: Any) -> Any:
    """Return an infinity as text, which the decoder refuses; JSON has none, and null would count as a missing value."""
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def record(unique_id: Any, ds: Any, y: Any, x: Mapping[str, Any], future: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a plain observation."""
    members = {"unique_id": unique_id, "ds": ds, "y": y}
    if x:
        members["x"] = x
    if future:
        members["future"] = future
    return members
