"""The members of a record that are the stream, the time and the observation.

A mapping becomes a generated msgspec type with the renamed and nested members. So the same compiled code decodes and
checks a mapped record and a plain one.

Owns: `Observation`, to which every format decodes; the mapping of other names, nested members and the record's context
(key, timestamp, headers, CloudEvents attributes) onto it.
Does not know: how bytes become members (`rillcast.codecs.observations.format`), which values are allowed
(`rillcast.codecs.observations.decoder`).
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Annotated, Any, Final, Literal, Protocol, TypeAlias

import msgspec

from rillcast.arrays import IntArray
from rillcast.bundle.covariates import Covariate, ahead
from rillcast.codecs.observations import covariates as of_covariates
from rillcast.codecs.observations.rejections import Reason, RefusedError

Unit: TypeAlias = Literal["s", "ms", "us", "ns"]
_PER_MS: Final[dict[str, tuple[int, int]]] = {"s": (1_000, 1), "ms": (1, 1), "us": (1, 1_000), "ns": (1, 1_000_000)}
_NAMES: Final = ("unique_id", "ds", "y")
_REQUIRED: Final = ("unique_id", "ds")
_UNESCAPED_DOT: Final = re.compile(r"(?<!\\)\.")

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
    ) -> None:
        r"""Name the members.

        Args:
            unique_id: Source of the stream id: a path into the value (`"tags.host"`; `\.` is a dot within a name), or
                `$key`, `$header.NAME`, `$ce.NAME`. Under another than the plain name it may be a whole number.
            ds: Source of the time: a path, or `$timestamp`, `$header.NAME`, `$ce.NAME`.
            y: Path of the observation.
            ds_unit: Unit of a `ds` that is a number.
            x: Path of the object with the covariates at the event; empty = the covariates are members of the value.
            future: Path of the object with the covariates for the next periods.
            covariates: Covariates to read.

        Raises:
            ValueError: A path is empty, or a source does not fit its field.
        """
        self._paths: dict[str, tuple[str, ...]] = {}
        self._sources: dict[str, str] = {}
        for name, where in zip(_NAMES, (unique_id, ds, y), strict=True):
            if where.startswith("$"):
                self._sources[name] = _source(name, where)
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
        self._scale = _PER_MS[ds_unit]
        own = {name: (name,) for name in _NAMES}
        self.plain = (x, future) == ("x", "future") and ds_unit == "ms"
        self.plain &= {name: path for name, path in self._paths.items() if name in own} == own and not self._sources

    @property
    def needs_context(self) -> bool:
        """Whether a field comes from the record's context."""
        return bool(self._sources)

    @property
    def shape(self) -> type[msgspec.Struct]:
        """The type to which a value is decoded."""
        if self.plain:
            return self._plain_shape()
        tree: dict[str, Any] = {}
        for name, path in self._paths.items():
            branch = tree
            for step in path[:-1]:
                branch = branch.setdefault(step, {})
            branch[path[-1]] = name
        return _struct("Value", tree, {name: self._type_of(name) for name in self._paths})

    def getter(self) -> Callable[[Any, RecordContext | None], Observation]:
        """Return a function that makes an observation of a decoded value and its record's context.

        The function raises `RefusedError` where a field is missing or of a wrong type.
        """
        if self.plain:
            return lambda value, _context: value
        read_x, read_future = self._covariate_reader("x"), self._covariate_reader("future")
        readers = {
            name: attrgetter(".".join(_attribute(step) for step in path))
            for name, path in self._paths.items()
            if name in _NAMES
        }
        sources, (times, per) = dict(self._sources), self._scale

        def get(value: Any, context: RecordContext | None) -> Observation:
            found: dict[str, Any] = {name: _read(read, value) for name, read in readers.items()}
            for name, source in sources.items():
                assert context is not None  # the decoder passes it where `needs_context`
                found[name] = _converted(name, source, context.find(source))
            ds = found["ds"]
            if isinstance(ds, int) and sources.get("ds") != "$timestamp":
                ds = ds * times // per
            unique_id = found["unique_id"]
            unique_id = unique_id if isinstance(unique_id, str) else str(unique_id)
            if not self._covariates:
                return Observation(unique_id, ds, found["y"])
            return CovariateObservation(unique_id, ds, found["y"], read_x(value), read_future(value))

        return get

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
            of_covariates.attribute(name.removeprefix(f"{part}.")): attrgetter(
                ".".join(_attribute(step) for step in path)
            )
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


def _source(name: str, where: str) -> str:
    kind, _, rest = where.partition(".")
    allowed = {"unique_id": ("$key", "$header", "$ce"), "ds": ("$timestamp", "$header", "$ce"), "y": ()}[name]
    if kind not in allowed or (kind in ("$header", "$ce")) != bool(rest):
        shown = ", ".join(f"{k}.NAME" if k in ("$header", "$ce") else k for k in allowed) or "nothing else"
        raise ValueError(f"input.fields.{name} is {where!r}; it can be a path into the value or {shown}")
    return where


def _path(name: str, where: str) -> tuple[str, ...]:
    steps = tuple(step.replace("\\.", ".") for step in _UNESCAPED_DOT.split(where))
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


def _converted(name: str, source: str, found: str | int) -> Any:
    """Return a value from the record's context as the type of its field."""
    if name == "unique_id" and isinstance(found, str) and not found:
        raise RefusedError(Reason.BAD_ID, f"{source} is empty")
    if name == "unique_id" or isinstance(found, int):
        return found
    try:
        return int(found) if found.lstrip("-").isdecimal() else msgspec.convert(found, dt.datetime)
    except (msgspec.ValidationError, ValueError) as error:
        raise RefusedError(Reason.DS_OUT_OF_RANGE, f"{source}: {error}") from error
