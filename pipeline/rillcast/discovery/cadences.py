"""Streams of several cadences in one input, and a table of models for each kind where they can be told apart.

Owns: which streams belong together, and the tables. Does not know: how records are read, how streams are told apart
(`rillcast.discovery.telling`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from rillcast.arrays import IntArray
from rillcast.bundle import shipped
from rillcast.bundle.cadence import frequency_of, share_apart
from rillcast.bundle.frequency import parse
from rillcast.discovery.choice import Choice, choose
from rillcast.discovery.fields import Chosen
from rillcast.discovery.profile import profile, repeated_periods
from rillcast.discovery.telling import Taken
from rillcast.events import EventBatch

_STEPS: Final = 3  # between neighbours, from which on a stream's cadence is believed
_REGULAR: Final = 0.5  # share of them that are one step, below which a stream is irregular
_LEAST: Final = 0.01  # share of the streams below which a cadence has no table of its own
_MOST: Final = 6  # kinds of streams, above which the cadences are noise
IRREGULAR: Final = "irregular"


@dataclass(frozen=True, slots=True)
class Kind:
    """Streams that one model serves.

    Attributes:
        cadences: Their frequencies, the most frequent first.
        streams: Their ids.
        choice: Model, aggregation and lateness for them.
    """

    cadences: tuple[str, ...]
    streams: frozenset[str]
    choice: Choice


def kinds(chosen: Chosen, events: EventBatch) -> list[Kind]:
    """Return the streams by what serves them, the largest kind first; streams that were hardly seen are in none.

    None at all is found where events have no value, and where there are too many kinds.

    Args:
        chosen: The fields of a record.
        events: Events in the order of each partition.
    """
    if chosen.y is None:
        return []  # events that are counted have the cadence of what is counted
    names, codes = np.unique(np.array(events.unique_ids, dtype=object), return_inverse=True)
    of_cadence: dict[str, list[int]] = {}
    for code, cadence in _cadences(codes.astype(np.int64), events.ds).items():
        of_cadence.setdefault(cadence, []).append(code)
    known = sum(map(len, of_cadence.values()))
    found: dict[tuple[Any, Any], Kind] = {}
    for cadence, members in sorted(of_cadence.items(), key=lambda each: -len(each[1])):
        if len(members) < _LEAST * known:
            continue
        mine = events.take(np.flatnonzero(np.isin(codes, members)))
        choice = _choice(chosen, mine)
        key = (choice.values["model"], choice.values.get("input.aggregate"))
        streams = frozenset(str(names[code]) for code in members)
        before = found.get(key)
        if before is None:
            found[key] = Kind((cadence,), streams, choice)
        else:
            found[key] = Kind((*before.cadences, cadence), before.streams | streams, before.choice)
    ordered = sorted(found.values(), key=lambda each: -len(each.streams))
    return ordered if len(ordered) <= _MOST else []


def tables(kinds: Sequence[Kind], rest: int, taken: Mapping[int, Sequence[Taken]]) -> Choice:
    """Return the settings of a service with a table for each kind.

    Args:
        kinds: The kinds.
        rest: Number of the kind whose table takes what no other takes.
        taken: By number of each other kind, what its tables take.
    """
    choice = Choice()
    models: list[dict[str, Any]] = []
    common = kinds[rest].choice.values.get("input.aggregate", "none")
    for number in [*taken, rest]:
        kind = kinds[number]
        model = str(kind.choice.values["model"])
        aggregate = kind.choice.values.get("input.aggregate", "none")
        for part, rule in enumerate(taken.get(number, (Taken(),))):
            name = _name(model, models)
            table = {"name": name, "model": model, **rule.settings}
            if aggregate != common:
                table["aggregate"] = aggregate
            models.append(table)
            choice.why[f"models.{name}"] = _why(kind, rest=number == rest) if part == 0 else "more of the same cadence"
    choice.set("models", models)
    _common(choice, [kind.choice for kind in kinds], common)
    return choice


def _common(choice: Choice, choices: Sequence[Choice], aggregate: str) -> None:
    """Choose the settings that tables share: aggregation, how periods close, and lateness."""
    if aggregate != "none":
        choice.set("input.aggregate", aggregate)
    if all(each.values.get("input.close") == "partition" for each in choices):
        choice.set("input.close", "partition", choices[0].why.get("input.close", ""))
        if grace_s := max(each.values.get("input.grace_s", 0.0) for each in choices):
            choice.set("input.grace_s", grace_s, "the longest that the streams of a table need")
    if periods := max(each.values.get("input.allowed_lateness_periods", 0) for each in choices):
        choice.set("input.allowed_lateness_periods", periods, "the most that the streams of a table need")


def _name(model: str, before: Sequence[Mapping[str, Any]]) -> str:
    name = model.removeprefix(shipped.PREFIX)
    taken = {table["name"] for table in before}
    return next(each for each in (name, *(f"{name}-{n}" for n in range(2, 100))) if each not in taken)


def _why(kind: Kind, *, rest: bool) -> str:
    streams = f"{len(kind.streams):,} stream{'s' if len(kind.streams) > 1 else ''}"
    why = f"{streams} ({', '.join(kind.cadences[:3])}): {kind.choice.why.get('model', '')}"
    return f"{why}. Takes what no table before it takes" if rest else why


def _choice(chosen: Chosen, events: EventBatch) -> Choice:
    return choose(chosen, profile(events), lambda freq: repeated_periods(events, freq))


def _cadences(codes: IntArray, ds: IntArray) -> dict[int, str]:
    """Return the frequency of each stream with enough events, or that it is irregular."""
    order = np.lexsort((ds, codes))
    same = (np.diff(codes[order]) == 0) & (np.diff(ds[order]) > 0)
    later, before, owner = ds[order][1:][same], ds[order][:-1][same], codes[order][1:][same]
    found: dict[int, str] = {}
    borders = np.flatnonzero(np.diff(owner, prepend=-1, append=-1)).tolist()  # none where no stream has two times
    for first, end in itertools.pairwise(borders):
        if end - first < _STEPS:
            continue
        frequency = frequency_of(later[first:end], before[first:end])
        assert frequency is not None  # the times differ
        regular = share_apart(later[first:end], before[first:end], parse(frequency)) >= _REGULAR
        found[int(owner[first])] = frequency if regular else IRREGULAR
    return found
