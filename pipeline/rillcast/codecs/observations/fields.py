"""The members of a record that are the stream, the time and the observation.

A mapping becomes a generated msgspec type with the renamed and nested members. So the same compiled code decodes and
checks a mapped record and a plain one.

There are two types. `shape` has the usual forms of each member, and compiled code reads it. `any_shape` takes members
of any type, which `rillcast.reading` then reads: other forms, and the reason why a member has none. Both read a member
that `shape` accepts alike.

Owns: `Observation`, to which every format decodes; the mapping of other names, nested members and the record's context
(key, timestamp, headers, CloudEvents attributes) onto it.
Does not know: how bytes become members (`rillcast.codecs.observations.format`), which values are allowed
(`rillcast.codecs.observations.decoder`).
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Annotated, Any, Final, Literal, Protocol, TypeAlias

import msgspec

from rillcast.arrays import IntArray
from rillcast.bundle.covariates import Covariate, ahead
from rillcast.codecs.observations import covariates as of_covariates
from rillcast.codecs.observations.rejections import Reason, RefusedError
from rillcast.reading.paths import unescaped
from rillcast.reading.refusals import Cause, RefusedValueError
from rillcast.reading.times import PER_MS, Unit, is_date_number, read_time
from rillcast.reading.values import read_id, read_number, read_numbers

_NAMES: Final = ("unique_id", "ds", "y")
_REQUIRED: Final = ("unique_id", "ds")
_UNESCAPED_DOT: Final = re.compile(r"(?<!\\)\.")
_FIRST_DATE, _LAST_DATE = 19_000_101, 22_001_231
_REMEDIES: Final[Mapping[Cause, str]] = {"unit": "set input.fields.ds_unit"}

Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]
Time: TypeAlias = int | dt.datetime


class Observation(msgspec.Struct, gc=False):
    """One event: `{"unique_id": "web-17/cpu", "ds": "2024-05-01T12:00:00Z", "y": 0.42}`.

    `ds` is RFC 3339 text (UTC where it has no zone) or whole milliseconds since the epoch. A `y` that is null or absent
    is a missing observation, which still advances the stream. Other members are ignored.
    """

    unique_id: Text
    ds: Time
    y: float | None = None


class CovariateObservation(Observation, gc=False):
    """One mapped event with covariates; `x` and `future` have the types that `covariates.types` generates."""

    x: Any = None
    future: Any = None


class PolledRecords(Protocol):
    """The columns of a poll that a decoder reads; `rillcast.transports.base.Polled` implements it."""

    @property
    def partitions(self) -> IntArray:
        """`(n,)` int64."""
        ...

    @property
    def offsets(self) -> IntArray:
        """`(n,)` int64, increasing within a partition."""
        ...

    @property
    def keys(self) -> Sequence[bytes | None]:
        """Raw keys."""
        ...

    @property
    def values(self) -> Sequence[bytes | None]:
        """Raw values."""
        ...

    @property
    def timestamps_ms(self) -> IntArray:
        """`(n,)` int64, milliseconds since the epoch, -1 = unknown."""
        ...

    @property
    def headers(self) -> Callable[[int], Sequence[tuple[str, bytes | None]]]:
        """The headers of a row."""
        ...

    @property
    def place(self) -> Callable[[int], str]:
        """Where a row stands in a file, or an empty text."""
        ...

    @property
    def faults(self) -> Mapping[int, RefusedValueError]:
        """By row, why the reader of a file could not read it."""
        ...


@dataclass(frozen=True, slots=True)
class RecordContext:
    """Key, timestamp, headers and CloudEvents attributes of one record."""

    records: PolledRecords
    row: int
    attributes: dict[str, str] = field(default_factory=dict)

    def find(self, source: str) -> str | int:
        """Return what `source` names: `$key`, `$timestamp`, `$header.NAME` or `$ce.NAME`.

        Raises:
            RefusedError: The record does not have it, or it is not text.
        """
        kind, _, name = source.partition(".")
        try:
            if kind == "$key":
                if (key := self.records.keys[self.row]) is not None:
                    return key.decode()
            elif kind == "$timestamp":
                if (timestamp := int(self.records.timestamps_ms[self.row])) >= 0:
                    return timestamp
            elif kind == "$header":
                for given, value in self.records.headers(self.row):
                    if given == name and value is not None:
                        return value.decode()
            elif name in self.attributes:
                return self.attributes[name]
        except UnicodeDecodeError as error:
            raise RefusedError(Reason.NOT_UTF8, f"{source}: {error}") from error
        raise RefusedError(Reason.MISSING_FIELD, f"the record has no {source}")


class Fields:
    """A mapping of members onto `Observation`. Immutable."""

    def __init__(
        self,
        unique_id: str = "unique_id",
        ds: str = "ds",
        y: str = "y",
        ds_unit: Unit = "ms",
        x: str = "x",
        future: str = "future",
        covariates: Sequence[Covariate] = (),
        stream: str = "",
    ) -> None:
        r"""Name the members.

        Args:
            unique_id: Source of the stream id: a path into the value (`"tags.host"`; `\.` is a dot within a name), or
                `$key`, `$header.NAME`, `$ce.NAME`. Empty = every record is of the one stream `stream`.
            ds: Source of the time: a path, or `$timestamp`, `$header.NAME`, `$ce.NAME`.
            y: Path of the observation.
            ds_unit: Unit of a `ds` that is a number.
            x: Path of the object with the covariates at the event; empty = the covariates are members of the value.
            future: Path of the object with the covariates for the next periods.
            covariates: Covariates to read.
            stream: Id of the only stream, where `unique_id` is empty.

        Raises:
            ValueError: A path is empty, or a source does not fit its field.
        """
        self._paths: dict[str, tuple[str, ...]] = {}
        self._sources: dict[str, str] = {}
        self._stream = stream if not unique_id else ""
        for name, where in zip(_NAMES, (unique_id, ds, y), strict=True):
            if name == "unique_id" and self._stream:
                continue
            if where.startswith("$"):
                self._sources[name] = source_of(name, where)
            else:
                self._paths[name] = _path(name, where)
        self._covariates = tuple(covariates)
        self._types = of_covariates.types(covariates)
        for one_covariate in covariates:
            path = _path("x", x) if x else ()
            self._paths[f"x.{one_covariate.name}"] = (*path, one_covariate.name)
        for one_covariate in ahead(covariates):
            self._paths[f"future.{one_covariate.name}"] = (*_path("future", future), one_covariate.name)
        for a, one in self._paths.items():
            for b, other in self._paths.items():
                if a != b and one[: len(other)] == other:
                    raise ValueError(f"input.fields.{a} {'.'.join(one)!r} leads through input.fields.{b}")
        self._unit = ds_unit
        own = {name: (name,) for name in _NAMES}
        self.plain = (x, future) == ("x", "future") and ds_unit == "ms"
        self.plain &= {name: path for name, path in self._paths.items() if name in own} == own and not self._sources

    @property
    def needs_context(self) -> bool:
        """Whether a field comes from the record's context."""
        return bool(self._sources)

    @property
    def shape(self) -> type[msgspec.Struct]:
        """The type to which a value with members of the usual forms is decoded."""
        return self._plain_shape() if self.plain else self._shape(self._type_of)

    @property
    def any_shape(self) -> type[msgspec.Struct]:
        """The type to which a value with members of any type is decoded."""
        return self._shape(lambda _name: Any)

    def getter(self) -> Callable[[Any, RecordContext | None], Observation]:
        """Return a function that makes an observation of a value of `shape` and its record's context.

        The function raises `RefusedError` or `ValueError` where a member has no usual form.
        """
        if self.plain:
            return lambda value, _context: value
        read_x, read_future = self._covariate_reader("x"), self._covariate_reader("future")
        readers, sources = self._readers(), dict(self._sources)
        (times, per), stream = PER_MS[self._unit], self._stream

        def get(value: Any, context: RecordContext | None) -> Observation:
            found: dict[str, Any] = {name: _read(read, value) for name, read in readers.items()}
            for name, source in sources.items():
                assert context is not None  # the decoder passes it where `needs_context`
                found[name] = self._from_context(name, source, context)
            ds = found["ds"]
            if "ds" in readers and isinstance(ds, int):
                if _FIRST_DATE <= ds <= _LAST_DATE and is_date_number(ds):
                    raise ValueError(ds)  # to be read with care
                ds = ds * times // per
            unique_id = stream or found["unique_id"]
            unique_id = unique_id if isinstance(unique_id, str) else str(unique_id)
            if not self._covariates:
                return Observation(unique_id, ds, found["y"])
            return CovariateObservation(unique_id, ds, found["y"], read_x(value), read_future(value))

        return get

    def any_getter(self) -> Callable[[Any, RecordContext], Observation]:
        """Return a function that makes an observation of a value of `any_shape` and its record's context.

        The function raises `RefusedError` where a member cannot be read.
        """
        readers, sources = self._readers(), dict(self._sources)
        of: dict[str, Callable[[Any], Any]] = {
            "unique_id": read_id,
            "ds": partial(read_time, unit=self._unit),
            "y": read_number,
        }
        paths = {name: ".".join(path) for name, path in self._paths.items()}
        covariates = [(f"x.{one.name}", of_covariates.reader_of(one)) for one in self._covariates]
        covariates += [(f"future.{one.name}", read_numbers) for one in ahead(self._covariates)]
        at = {name: _path_reader(self._paths[name]) for name, _ in covariates}

        def get(value: Any, context: RecordContext) -> Observation:
            found: dict[str, Any] = {"unique_id": self._stream}
            for name, read in readers.items():
                found[name] = understood(paths[name], of[name], _read(read, value))
            for name, source in sources.items():
                found[name] = self._from_context(name, source, context)
            if not covariates:
                return Observation(found["unique_id"], found["ds"], found["y"])
            parts: dict[str, dict[str, Any]] = {"x": {}, "future": {}}
            for name, read_value in covariates:
                part, _, own = name.partition(".")
                member = understood(paths[name], read_value, _read(at[name], value), of_y=False)
                parts[part][of_covariates.attribute(own)] = member
            x, future = self._types.x(**parts["x"]), self._types.future(**parts["future"])
            return CovariateObservation(found["unique_id"], found["ds"], found["y"], x, future)

        return get

    def has_y(self, members: Any) -> bool:
        """Whether the object of a record has the member of the observation, null or not."""
        at = members
        for step in self._paths["y"]:
            if not isinstance(at, dict) or step not in at:
                return False
            at = at[step]
        return True

    @property
    def y(self) -> str:
        """Path of the observation, for messages."""
        return ".".join(self._paths["y"])

    def _shape(self, type_of: Callable[[str], Any]) -> type[msgspec.Struct]:
        tree: dict[str, Any] = {}
        for name, path in self._paths.items():
            branch = tree
            for step in path[:-1]:
                branch = branch.setdefault(step, {})
            branch[path[-1]] = name
        return _struct("Value", tree, {name: type_of(name) for name in self._paths})

    def _readers(self) -> dict[str, Callable[[Any], Any]]:
        """Return a function for each of stream, time and observation that takes it out of a decoded value."""
        return {name: _path_reader(path) for name, path in self._paths.items() if name in _NAMES}

    def _from_context(self, name: str, source: str, context: RecordContext) -> Any:
        """Return the id or the time that the record's context has."""
        found = context.find(source)
        if name == "unique_id":
            return understood(source, read_id, found)
        return understood(source, partial(read_time, unit="ms" if source == "$timestamp" else self._unit), found)

    def _plain_shape(self) -> type[msgspec.Struct]:
        if not self._covariates:
            return Observation
        x, future = self._types
        members: list[tuple[str, Any, Any]] = [("x", x | None, None)]
        if ahead(self._covariates):
            members.append(("future", future | None, None))
        return msgspec.defstruct("ObservationWithCovariates", members, bases=(Observation,), gc=False)

    def _covariate_reader(self, part: Literal["x", "future"]) -> Callable[[Any], Any]:
        """Return a function that makes `x` or `future` of a decoded value with members at any path."""
        kind: Any = self._types.x if part == "x" else self._types.future
        readers = {
            of_covariates.attribute(name.removeprefix(f"{part}.")): _path_reader(path)
            for name, path in self._paths.items()
            if name.startswith(f"{part}.")
        }
        return lambda value: kind(**{name: _read(read, value) for name, read in readers.items()})

    def _type_of(self, name: str) -> Any:
        if name.startswith("future."):
            return of_covariates.type_ahead()
        if name.startswith("x."):
            return of_covariates.type_of(next(one for one in self._covariates if one.name == name.removeprefix("x.")))
        if name == "unique_id":
            return Text if self._paths[name] == (name,) else Text | int
        return Time if name == "ds" else float | None


def source_of(name: str, where: str) -> str:
    """Return the place outside of the value that a field comes from.

    Raises:
        ValueError: The field cannot come from there.
    """
    kind, _, rest = where.partition(".")
    allowed = {"unique_id": ("$key", "$header", "$ce"), "ds": ("$timestamp", "$header", "$ce"), "y": ()}[name]
    if kind not in allowed or (kind in ("$header", "$ce")) != bool(rest):
        shown = ", ".join(f"{k}.NAME" if k in ("$header", "$ce") else k for k in allowed) or "nothing else"
        raise ValueError(f"input.fields.{name} is {where!r}; it can be a path into the value or {shown}")
    return where


def _path(name: str, where: str) -> tuple[str, ...]:
    steps = tuple(map(unescaped, _UNESCAPED_DOT.split(where)))
    if name == "unique_id" and not where:
        raise ValueError(
            "input.fields.unique_id is empty, which only a file may have: its name is then the only stream"
        )
    if not all(steps):
        raise ValueError(f"input.fields.{name} is {where!r}: a name in it is empty")
    return steps


def _attribute(step: str) -> str:
    return of_covariates.attribute(step)


def _struct(title: str, tree: dict[str, Any], types: dict[str, Any]) -> type[msgspec.Struct]:
    """Return a type with the members of `tree`; only stream, time and the objects that contain them are required."""
    members: list[tuple[str, Any, Any]] = []
    for step, branch in tree.items():
        if isinstance(branch, dict):
            inner = _struct(title + "." + step, branch, types)
            optional = _may_be_absent(branch)
            members.append(
                (_attribute(step), inner | None if optional else inner, None if optional else msgspec.NODEFAULT)
            )
        else:
            members.append((_attribute(step), types[branch], msgspec.NODEFAULT if branch in _REQUIRED else None))
    names = {_attribute(step): step for step in tree}
    return msgspec.defstruct(title, members, rename=names, gc=False, kw_only=True)


def _may_be_absent(branch: dict[str, Any]) -> bool:
    return all(_may_be_absent(part) if isinstance(part, dict) else part not in _REQUIRED for part in branch.values())


def _read(read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return read(value)
    except AttributeError:  # an object on the path to `y` is null or absent
        return None


def _path_reader(path: Sequence[str]) -> Callable[[Any], Any]:
    return attrgetter(".".join(_attribute(step) for step in path))


def understood(where: str, read: Callable[[Any], Any], found: Any, *, of_y: bool = True) -> Any:
    """Return what a value means; `where` names it in the refusal."""
    try:
        return read(found)
    except RefusedValueError as error:
        reason = Reason(error.kind)
        if not of_y and reason is Reason.Y_OUT_OF_RANGE:
            reason = Reason.COVARIATE_OUT_OF_RANGE
        raise RefusedError(reason, f"{where}: {error.explain(_REMEDIES)}") from error
