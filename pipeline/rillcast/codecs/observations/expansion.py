"""Records that are several observations: several members, arrays, joined ids, and records that are left out.

    {"tags": {"host": "web-17"}, "fields": {"cpu": 0.4, "mem": 0.7}, "timestamp": 1714564800}

With `unique_id = "tags.host"` and `y = "fields.cpu,fields.mem"` these are two events, of the streams `web-17/cpu` and
`web-17/mem`. Members are read from the whole document, by `rillcast.reading`; a mapping of one member each is read
faster (`rillcast.codecs.observations.fields`).

Owns: which events a document is, and the ids of their streams. Does not know: bytes, limits, dead letters.

Invariants: the events of a record depend on the record alone, and come in its order. A member that cannot be read costs
its own event; the others of the record are events all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, Final, NamedTuple

from rillcast.bundle.covariates import Covariate, ahead
from rillcast.codecs.observations import covariates as of_covariates
from rillcast.codecs.observations.fields import RecordContext, source_of, understood
from rillcast.codecs.observations.matching import Matching
from rillcast.codecs.observations.rejections import Reason, RefusedError
from rillcast.reading import paths
from rillcast.reading.paths import ABSENT, Condition, MemberPath
from rillcast.reading.times import Unit, read_time
from rillcast.reading.values import join_ids, read_id, read_number, read_numbers

_EXACT: Final = 2**53
"""Whole numbers below are floats without a loss."""


class Event(NamedTuple):
    """One observation of a record.

    Attributes:
        unique_id: The stream.
        key: The id without the member of the observation, which all streams of one entity share.
        ds: Milliseconds since the epoch.
        y: The observation; None = missing.
        where: Place of the observation in the record, for messages.
        x: Covariates at the event, where any are declared.
        future: Covariates of the next periods.
        meets: The tables of `[[models]]` whose conditions on members it meets, a bit for each.
    """

    unique_id: str
    key: str
    ds: int
    y: float | None
    where: str
    x: Any = None
    future: Any = None
    meets: int = -1


class Expansion:
    """A mapping under which a record may be several events. Immutable."""

    def __init__(
        self,
        unique_id: str,
        ds: str,
        y: str,
        unit: Unit = "ms",
        only: str | None = None,
        x: str = "x",
        future: str = "future",
        covariates: Sequence[Covariate] = (),
        *,
        in_array: bool = False,
        stream: str = "",
        matching: Matching | None = None,
    ) -> None:
        """Read the mapping.

        Args:
            unique_id: Members that are joined to the id; empty = the member of the observation is the whole id.
            ds: Member of the time.
            y: Members of the observations.
            unit: Unit of a time that is a number.
            only: Conditions on members; None = every record is taken.
            x: Object with the covariates at the event; empty = they are members of the record itself.
            future: Object with the covariates of the next periods.
            covariates: Covariates to read.
            stream: Id of the only stream, where `unique_id` is empty and `y` is one member.
            matching: The tables of `[[models]]`; None = there is one model.
            in_array: Whether a document is a list of records, and all paths are those of an element.

        Raises:
            ValueError: A path cannot be read, or the paths do not fit together.
        """
        prefix = "[]." if in_array else ""
        self._ids = [_place("unique_id", name, prefix) for name in paths.names(unique_id) if unique_id]
        self._ds = _place("ds", ds, prefix)
        self._ys = [paths.parse(prefix + name) for name in paths.names(y)]
        self._only = [
            condition if not in_array else Condition(paths.parse(prefix + condition.path.text), condition.texts)
            for condition in paths.conditions(only)
        ]
        self._unit = unit
        self._members = _member_names(self._ys)
        self._stream = stream
        self._matching = matching
        self._read_time = partial(read_time, unit=unit)
        self._covariates = [
            (one.name, MemberPath(f"{x}.{one.name}", (*_steps(x, prefix), one.name), _array(x, prefix)), reader)
            for one in covariates
            for reader in [of_covariates.reader_of(one)]
        ]
        self._ahead = [
            (one.name, MemberPath(f"{future}.{one.name}", (*_steps(future, prefix), one.name), _array(future, prefix)))
            for one in ahead(covariates)
        ]
        self._types = of_covariates.types(covariates)
        self._array = self._only_array()

    @property
    def selects(self) -> bool:
        """Whether records are left out that do not meet a condition."""
        return bool(self._only)

    @property
    def has_many_keys(self) -> bool:
        """Whether one record may have events of several entities, because the id is read from an array's elements."""
        return any(isinstance(place, MemberPath) and place.array is not None for place in self._ids)

    def events(self, document: Any, context: RecordContext) -> Iterator[Event | RefusedError | None]:
        """Yield the events of a document, a refusal for each that cannot be read, and None for what is left out.

        A refusal without an event concerns the whole document or one element of its array.
        """
        if self._only and not all(
            condition.holds(condition.path.find(document)) for condition in self._only if condition.path.array is None
        ):
            yield None
            return
        if self._array is None:
            yield from self._of_element(document, None, "", context)
            return
        elements = paths.walk(document, self._array)
        if isinstance(elements, str | bytes) or not isinstance(elements, Sequence):
            name = ".".join(self._array) or "the record"
            absent = elements is ABSENT or elements is None
            found = "nothing" if absent else type(elements).__name__
            reason = Reason.MISSING_FIELD if absent else Reason.WRONG_TYPE
            yield RefusedError(reason, f"{name}: found {found}, expected an array of observations")
            return
        if not elements:
            yield None
        for number, element in enumerate(elements):
            if all(each.holds(each.path.find(document, element)) for each in self._only if each.path.array is not None):
                where = f"{'.'.join(self._array)}[{number}]: "
                yield from self._of_element(document, element, where, context)
            else:
                yield None

    def _of_element(
        self, document: Any, element: Any, where: str, context: RecordContext
    ) -> Iterator[Event | RefusedError | None]:
        try:
            parts = self._parts(document, element, context)
            ds = self._time(document, element, context)
            x, future = self._covariates_of(document, element)
        except RefusedError as error:
            yield RefusedError(error.reason, where + error.detail)
            return
        meets = -1 if self._matching is None else self._matching.meets(document, element)
        key = join_ids(parts) if parts else self._stream
        start = "/".join(map(_escaped, parts)) + "/" if parts else ""
        found = False
        for member, value, path in self._values(document, element):
            if value is ABSENT:
                continue
            found = True
            kind = type(value)
            try:
                # The usual forms first; `read_number` knows all of them.
                usual = (kind is float and value - value == 0.0) or (kind is int and -_EXACT < value < _EXACT)
                y = value if usual else None
                if y is None and value is not None:
                    y = understood(path, read_number, value)
            except RefusedError as error:
                yield RefusedError(error.reason, where + error.detail)
                continue
            unique_id = key if member is None else start + member
            yield Event(unique_id, key or unique_id, ds, y, where, x, future, meets)
        if not found:
            names = ", ".join(path.text for path in self._ys)
            yield RefusedError(Reason.MISSING_FIELD, f"{where}found no observation, expected a number in {names}")

    def _values(self, document: Any, element: Any) -> Iterator[tuple[str | None, Any, str]]:
        """Yield the observations of an element: the escaped last part of the id, the value, the path."""
        for path, member in zip(self._ys, self._members, strict=True):
            value = path.find(document, element)
            if not path.every:
                # One member alone is missing where it is absent; of several, each record has those that it has.
                yield member, (None if value is ABSENT and member is None else value), path.text
                continue
            for name, each in value.items() if isinstance(value, dict) else ():
                if each is None or (isinstance(each, int | float | Decimal) and not isinstance(each, bool)):
                    yield _escaped(str(name)), each, f"{path.text[:-1]}{name}"

    def _parts(self, document: Any, element: Any, context: RecordContext) -> list[str]:
        parts: list[str] = []
        for place in self._ids:
            if isinstance(place, str):
                parts.append(understood(place, read_id, context.find(place)))
                continue
            value = place.find(document, element)
            if place.every:
                members = sorted(value.items(), key=lambda item: str(item[0])) if isinstance(value, dict) else ()
                parts += [f"{name}={understood(f'{place.text}: {name}', read_id, each)}" for name, each in members]
            elif value is ABSENT:
                raise RefusedError(Reason.MISSING_FIELD, f"the record has no {place.text}, a part of the id")
            else:
                parts.append(value if type(value) is str and value else understood(place.text, read_id, value))
        if self._ids and not parts:
            raise RefusedError(Reason.BAD_ID, f"{', '.join(map(_shown, self._ids))}: no part of the id is there")
        return parts

    def _time(self, document: Any, element: Any, context: RecordContext) -> int:
        place = self._ds
        if isinstance(place, str):
            unit: Unit = "ms" if place == "$timestamp" else self._unit
            found: int = understood(place, partial(read_time, unit=unit), context.find(place))
            return found
        value = place.find(document, element)
        if value is ABSENT:
            raise RefusedError(Reason.MISSING_FIELD, f"the record has no {place.text}")
        moment: int = understood(place.text, self._read_time, value)
        return moment

    def _covariates_of(self, document: Any, element: Any) -> tuple[Any, Any]:
        if not self._covariates:
            return None, None
        x = {
            of_covariates.attribute(name): _read_covariate(path, read, path.find(document, element))
            for name, path, read in self._covariates
        }
        future = {
            of_covariates.attribute(name): _read_covariate(path, read_numbers, path.find(document, element))
            for name, path in self._ahead
        }
        return self._types.x(**x), self._types.future(**future)

    def _only_array(self) -> tuple[str, ...] | None:
        """Return the way to the one array that paths lead through."""
        used = [path for path in [*self._ids, self._ds, *self._ys] if isinstance(path, MemberPath)]
        used += [condition.path for condition in self._only]
        used += [] if self._matching is None else self._matching.members
        found = {path.array for path in used if path.array is not None}
        if len(found) > 1:
            raise ValueError(f"{', '.join(path.text for path in used)} lead through different arrays; one is possible")
        own = [*self._ids, self._ds]
        if found and not any(isinstance(path, MemberPath) and path.array is not None for path in own):
            raise ValueError("the elements of the array need a ds or a unique_id of their own: NAME[].MEMBER")
        return next(iter(found)) if found else None


def _place(name: str, where: str, prefix: str) -> MemberPath | str:
    return source_of(name, where) if where.startswith("$") else paths.parse(prefix + where)


def _steps(path: str, prefix: str) -> tuple[str, ...]:
    return paths.parse(prefix + path).steps if path else ()


def _array(path: str, prefix: str) -> tuple[str, ...] | None:
    return paths.parse(prefix + path).array if path else (() if prefix else None)


def _member_names(ys: Sequence[MemberPath]) -> list[str | None]:
    """Return the escaped last part of each stream's id; None = the id has no such part, because `y` is one member.

    It is the last name of the path, or all of them where two paths end alike.
    """
    if len(ys) == 1 and not ys[0].every:
        return [None]
    last = [path.steps[-1] if path.steps else "" for path in ys]
    full = [".".join(path.steps) for path in ys]
    return [_escaped(name if last.count(name) == 1 else whole) for name, whole in zip(last, full, strict=True)]


def _escaped(part: str) -> str:
    """Return a part as it stands in a joined id."""
    return part if "/" not in part and "\\" not in part else join_ids([part, ""])[:-1]


def _read_covariate(path: MemberPath, read: Callable[[Any], Any], value: Any) -> Any:
    return understood(path.text, read, None if value is ABSENT else value, of_y=False)


def _shown(place: MemberPath | str) -> str:
    return place if isinstance(place, str) else place.text
