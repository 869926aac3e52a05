"""The columns of a CSV or Parquet file that hold the stream, the time, the observation and the covariates.

Owns: the names, and the translation of a row of cells into the members of a plain observation record, so that the
decoder sees files like topics. Does not know: how a file is read (`rillcast.transports.file.readers`), the forms of a
value (`rillcast.reading`).

A covariate has a column of its own name. Its values for the periods ahead have a column `future.NAME`: a list in
Parquet, the text of a JSON list in CSV. If the column of a covariate is absent, the covariate is missing in every row.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, NamedTuple

from rillcast.bundle.covariates import Covariate, ahead
from rillcast.errors import DataError, SettingsError
from rillcast.reading import paths
from rillcast.reading.files import OptionNames, TextForm, UnreadableError, positions
from rillcast.reading.paths import MATCHED, Condition
from rillcast.reading.refusals import Cause, RefusedValueError, listed, shown
from rillcast.reading.times import read_time
from rillcast.reading.values import join_ids, read_category, read_id, read_number, read_numbers
from rillcast.settings import FieldSettings

log = logging.getLogger(__name__)

NAMES: Final = OptionNames("set input.separator to", "set input.decimal to", "set input.encoding to", "input.fields")
REMEDIES: Final[Mapping[Cause, str]] = {"decimal": "set input.decimal to ','", "unit": "set input.fields.ds_unit"}
# Text that the decoder of JSON takes as it stands; all other forms become milliseconds here.
_RFC3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})?", re.ASCII
)
Read = Callable[[Any], Any]


class Cell(NamedTuple):
    """One member of a record: the path to it, its column, and the function that reads a cell; None = as it is."""

    member: tuple[str, ...]
    column: str
    read: Read | None


@dataclass(frozen=True, slots=True)
class FileColumns:
    """Names of columns.

    With several columns of ids or observations, or with conditions, a row is as many records as it has observations, or
    none (`is_spread`).

    Attributes:
        unique_id: Column of the stream id; empty = the whole file is the stream `stream`.
        ds: Column of the time.
        y: Column of the observation.
        unit: Unit of a time that is a number.
        covariates: Covariates to read.
        future: Prefix, before a dot and the covariate's name, of the columns of values ahead.
        stream: Id of the stream of a file without ids.
        ids: Columns that are joined to the id, where they are several or none.
        ys: Columns of the observations, where they are several; each is a stream, with its name as the id's last part.
        only: Conditions that a row has to meet.
        matched: Columns that tables of `[[models]]` ask for; a record has them in its member `matched`.
        counted: Whether rows are counted, so that a file without the column `y` is as good.
    """

    unique_id: str = "unique_id"
    ds: str = "ds"
    y: str = "y"
    unit: str = "ms"
    covariates: tuple[Covariate, ...] = ()
    future: str = "future"
    stream: str = ""
    ids: tuple[str, ...] = ()
    ys: tuple[str, ...] = ()
    only: tuple[Condition, ...] = ()
    matched: tuple[str, ...] = ()
    counted: bool = False

    @classmethod
    def of(
        cls,
        fields: FieldSettings,
        covariates: Sequence[Covariate],
        stream: str = "",
        only: str | None = None,
        *,
        counted: bool = False,
    ) -> FileColumns:
        r"""Return the columns that a mapping names; a path is a name, since a column has no members.

        Raises:
            SettingsError: The mapping names a place outside of the value (`$key`, ...).
        """
        for name in ("unique_id", "ds", "y"):
            if (where := getattr(fields, name)).startswith("$"):
                raise SettingsError(f"input.fields.{name} is {where!r}, which a CSV or Parquet file does not have")
        ids = tuple(map(paths.unescaped, paths.names(fields.unique_id))) if fields.unique_id else ()
        ys = tuple(map(paths.unescaped, paths.names(fields.y)))
        if not all((*ids, *ys)) or len(set(ys)) < len(ys):
            raise SettingsError(
                f"input.fields.unique_id {fields.unique_id!r}, input.fields.y {fields.y!r}: a name is empty or twice"
            )
        chosen = tuple(paths.conditions(only))
        plain = cls(
            ids[0] if ids else "",
            paths.unescaped(fields.ds),
            ys[0],
            fields.unit,
            tuple(covariates),
            fields.future,
            stream,
            counted=counted,
        )
        if len(ids) <= 1 and len(ys) == 1 and not chosen:
            return plain
        return replace(plain, ids=ids, ys=ys, only=chosen)

    @property
    def is_spread(self) -> bool:
        """Whether a row may be several records, or none."""
        return bool(self.ys)

    @property
    def required(self) -> list[str]:
        """Columns without which a file cannot be read."""
        if self.is_spread:
            asked = [column_of(condition) for condition in self.only]
            return list(dict.fromkeys([*self.ids, self.ds, *self.ys, *asked, *self.matched]))
        plain = [name for name in (self.unique_id, self.ds, "" if self.counted else self.y) if name != ""]
        return list(dict.fromkeys([*plain, *self.matched])) if self.matched else plain

    def of_now(self, header: Sequence[str]) -> dict[str, str]:
        """Return the file's columns of covariates at the event, by the covariate's name."""
        return {one.name: one.name for one in self.covariates if one.name in header}

    def of_future(self, header: Sequence[str]) -> dict[str, str]:
        """Return the file's columns of covariates' values ahead, by the covariate's name."""
        columns = {one.name: f"{self.future}.{one.name}" for one in ahead(self.covariates)}
        return {name: column for name, column in columns.items() if column in header}

    def check(self, header: Sequence[str], name: str, form: TextForm | None = None) -> None:
        """Require the columns of a plain observation, and log those that are not read; `form` is that of CSV.

        Raises:
            DataError: A required column is missing, or stands twice.
        """
        now, future = self.of_now(header).values(), self.of_future(header).values()
        read = [*self.required, *now, *future]
        try:
            positions(header, self.required, NAMES, form)
            positions(header, list(dict.fromkeys(read)), NAMES, form)
        except UnreadableError as error:
            raise DataError(f"input.path {name}: {error}") from error
        if extra := [column for column in header if column not in read]:
            log.info("%s: columns %s are not used", name, listed(extra))
        if absent := [one.name for one in self.covariates if one.name not in header]:
            log.warning("%s: no columns for covariates %s; they are missing in every row", name, listed(absent))

    def cells(self, header: Sequence[str], decimal: str = ".") -> list[Cell]:
        """Return the members of a record and how a cell becomes each of them."""
        number = partial(read_number, decimal=decimal)
        kinds = {one.name: read_category if one.kind == "category" else number for one in self.covariates}
        found = [Cell(("unique_id",), self.unique_id, read_id)] if self.unique_id else []
        found.append(Cell(("ds",), self.ds, self.time))
        if not self.counted or self.y in header:
            found.append(Cell(("y",), self.y, number))
        if self.is_spread:
            found = [Cell(("ids", name), name, read_id) for name in self.ids]
            found += [Cell(("ds",), self.ds, self.time), *(Cell(("ys", name), name, number) for name in self.ys)]
        found += [Cell((MATCHED, name), name, None) for name in self.matched]
        found += [Cell(("x", name), column, kinds[name]) for name, column in self.of_now(header).items()]
        return found + [Cell(("future", name), column, read_numbers) for name, column in self.of_future(header).items()]

    def time(self, value: Any) -> int | str:
        """Return a time as records have it: milliseconds, or text that the decoder reads as it stands.

        Raises:
            RefusedValueError: The cell is no time.
        """
        if isinstance(value, str) and _RFC3339.fullmatch(value):
            return value
        return read_time(value, self.unit)

    def record(self, cells: Sequence[Cell], row: Sequence[Any]) -> dict[str, Any]:
        """Return the members of the record of a row.

        Raises:
            RefusedValueError: A cell cannot be read.
        """
        members: dict[str, Any] = {} if self.unique_id else {"unique_id": self.stream}
        for (path, _, read), value in zip(cells, row, strict=True):
            _put(members, path, value if read is None else read(value))
        return members

    def refused(self, cells: Sequence[Cell], row: Sequence[Any]) -> tuple[dict[str, Any], RefusedValueError]:
        """Return the record of a row that cannot be read, with such cells as they stand, and the first reason."""
        members, reasons = self._understood(cells, row)
        return members, next(iter(reasons.values()))  # called for rows in which a cell is refused

    def spread(
        self, cells: Sequence[Cell], row: Sequence[Any]
    ) -> list[tuple[dict[str, Any], RefusedValueError | None]]:
        """Return a record for each observation of a row, and why it cannot be read; one where none can be."""
        members, reasons = self._understood(cells, row)
        observations = members.pop("ys")
        parts = list(members.pop("ids", {}).values())
        common = next((reason for path, reason in reasons.items() if path[0] != "ys"), None)
        if common is not None:
            return [({"unique_id": parts, **members, "y": observations}, common)]
        found = []
        for name, y in observations.items():
            own = [] if len(self.ys) == 1 else [name]
            unique_id = join_ids([*parts, *own]) if parts or own else self.stream
            found.append(({"unique_id": unique_id, **members, "y": y}, reasons.get(("ys", name))))
        return found

    def left_out(self, cells: Mapping[str, Any]) -> bool:
        """Return whether a row, by column, does not meet the conditions."""
        return not all(condition.holds(cells[column_of(condition)]) for condition in self.only)

    def _understood(
        self, cells: Sequence[Cell], row: Sequence[Any]
    ) -> tuple[dict[str, Any], dict[tuple[str, ...], RefusedValueError]]:
        """Return the members of a row, cells that cannot be read as they stand, and the reasons by member."""
        members: dict[str, Any] = {} if self.unique_id or self.is_spread else {"unique_id": self.stream}
        reasons: dict[tuple[str, ...], RefusedValueError] = {}
        for (path, column, read), value in zip(cells, row, strict=True):
            found = value
            try:
                found = value if read is None else read(value)
            except RefusedValueError as error:
                reasons[path] = RefusedValueError(error.kind, f"column {shown(column)}: {error.explain(REMEDIES)}")
            _put(members, path, found)
        return members, reasons


def column_of(condition: Condition) -> str:
    """Return the column of a condition; a column has no members, so that a path is its name."""
    return paths.unescaped(condition.path.text)


def _put(members: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    at = members if len(path) == 1 else members.setdefault(path[0], {})
    at[path[-1]] = value
