"""Which members of a record are its stream, its time and its observations.

The column with most points is chosen (`rillcast.discovery.points`). Where several numbers look alike, all of them are
observations; where one id has several events at most times, further members are joined to it.

Owns: the choice, and its reasons in words. Does not know: how records are decoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rillcast.arrays import IntArray
from rillcast.discovery.columns import Column
from rillcast.discovery.points import Scored, as_id, as_time, as_value
from rillcast.discovery.words import VALUE_NAMES, bare
from rillcast.reading.times import Unit

_LEAST: Final = {"ds": 0.5, "unique_id": -2.5, "y": -1.5}
"""Points below which nothing is chosen."""
_ALIKE: Final = 1.6  # points by which several observations may differ
_OBSERVATION: Final = 0.5  # points that each of several observations has at least
_MOST_MEMBERS: Final = 12  # observations that are listed; more of one object are `object.*`
_MOST_PARTS: Final = 4
_REPEATED: Final = 0.2  # share of events with the id and time of another from which on the id lacks a part


@dataclass(frozen=True, slots=True)
class Chosen:
    """The fields of a record.

    Attributes:
        unique_id: Source of the stream's id, several joined by commas; None = no column looks like one.
        ds: Source of the time; None = no column looks like one.
        ds_unit: Unit of a time that is a number, or `auto`.
        y: Source of the observation, several joined by commas; None = no column looks like one.
        why: By field, what speaks for the choice.
        others: By field, other columns that came near.
    """

    unique_id: str | None
    ds: str | None
    ds_unit: str
    y: str | None
    why: dict[str, str]
    others: dict[str, list[str]]


def choose(columns: Sequence[Column], partitions: IntArray, fixed: dict[str, str]) -> Chosen:
    """Choose the fields of some records.

    Args:
        columns: Their columns, of members in the order of the record, and of the context.
        partitions: `(n,)` the partition of each record.
        fixed: Sources that the caller has named, by field.
    """
    by_source = {column.source: column for column in columns}
    why = dict.fromkeys(fixed, "as you said")
    others: dict[str, list[str]] = {}

    def ranked(field: str, found: Iterable[Scored | None]) -> list[Scored]:
        if field in fixed:
            named = fixed[field]
            return [Scored(by_source.get(named, Column(named, named, ())), 0.0, ())]
        likely = [each for each in found if each is not None and each.points >= _LEAST[field]]
        return sorted(likely, key=lambda each: -each.points)

    stamps, key = by_source.get("$timestamp"), by_source.get("$key")
    times = ranked("ds", (as_time(column, stamps, partitions) for column in columns))
    time = times[0].column if times else None
    rest = [column for column in columns if column is not time and column.source != "$timestamp"]
    ids = ranked("unique_id", (as_id(column, key, columns) for column in rest))
    parts = ids[:1] if "unique_id" in fixed else _parts(ids, time)
    taken = {each.column.source for each in parts}
    rest = [column for column in rest if column.source not in taken and not column.source.startswith("$")]
    values = ranked("y", (as_value(column, partitions) for column in rest))
    members = values[:1] if "y" in fixed else _observations(values)
    for field, chosen, found in (("ds", times[:1], times), ("unique_id", parts, ids), ("y", members, values)):
        if field not in fixed and chosen:
            why[field] = ", ".join(chosen[0].reasons)
            others[field] = [each.column.source for each in found if each not in chosen][:3]
    if len(parts) > 1:
        why["unique_id"] += "; without the others it has several events at a time"
    if len(members) > 1:
        why["y"] = f"{len(members)} numbers that look alike: each is a stream"
    unit: Unit = (time.time_unit if time is not None and time.source != "$timestamp" else None) or "ms"
    return Chosen(
        ",".join(each.column.source for each in parts) or None,
        None if time is None else time.source,
        unit,
        _listed([each.column.source for each in members], by_source) or None,
        why,
        others,
    )


def _parts(ids: Sequence[Scored], time: Column | None) -> list[Scored]:
    """Return the id, and further members while it has several events at one time without them."""
    chosen = list(ids[:1])
    if not chosen or time is None:
        return chosen
    unit: Unit = time.time_unit or "ms"
    times = [*time.values] if time.source == "$timestamp" else time.times(unit)
    repeated = _repeated(chosen, times)
    while repeated > _REPEATED and len(chosen) < _MOST_PARTS:
        more = [each for each in ids if each not in chosen and not each.column.source.startswith("$")]
        found = [(_repeated([*chosen, each], times), -each.points, number) for number, each in enumerate(more)]
        if not found or min(found)[0] > repeated / 2:
            return chosen
        repeated = min(found)[0]
        chosen.append(more[min(found)[2]])
    return chosen


def _repeated(parts: Sequence[Scored], times: Sequence[object]) -> float:
    """Return the share of records with the id and time of another."""
    rows = list(zip(*(each.column.ids for each in parts), times, strict=True))
    return 1 - len(set(rows)) / max(1, len(rows))


def _observations(values: Sequence[Scored]) -> list[Scored]:
    """Return the best observation, or several that look alike."""
    if not values or bare(values[0].column.name) in VALUE_NAMES:
        return list(values[:1])
    least = max(_OBSERVATION, values[0].points - _ALIKE)
    alike = [each for each in values if each.points >= least]
    return alike if len(alike) > 1 else list(values[:1])


def _listed(sources: Sequence[str], columns: Iterable[str]) -> str:
    """Return the observations by their names, or all members of the object that contains nothing but them."""
    if len(sources) > _MOST_MEMBERS:
        outer = sources[0].rpartition(".")[0]
        within = {source for source in columns if source.startswith(f"{outer}.")}
        if outer and within == set(sources):
            return f"{outer}.*"
    return ",".join(sources)
