"""Which model's table an event belongs to, by its stream, by members of its record, and by its record's headers.

The first table that takes an event has it. An event that none takes is left out and counted, or its record becomes a
dead letter.

Owns: the rules, and the division of a poll's events. Does not know: models, how a record is decoded.

Invariant: the table of an event depends on its record alone, so a replay finds the same one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import translate
from typing import Any, Final

import numpy as np

from rillcast.arrays import IntArray
from rillcast.codecs.observations.fields import PolledRecords
from rillcast.codecs.observations.rejections import Reason, Rejection, rejection_of
from rillcast.events import EventBatch
from rillcast.reading import paths
from rillcast.reading.paths import HEADER, MATCHED, Condition, MemberPath

MOST_TABLES: Final = 62
_CACHED_STREAMS: Final = 1_000_000
NO_TABLE: Final = -1


@dataclass(frozen=True, slots=True)
class Rule:
    """What a table takes; an event has to meet all of it.

    Attributes:
        streams: Pattern of the stream ids, with `*`, `?` and `[...]`.
        members: Conditions on members of the record.
        headers: Conditions on the record's headers, by their names.
    """

    streams: str = "*"
    members: tuple[Condition, ...] = ()
    headers: tuple[tuple[str, frozenset[str]], ...] = ()

    @classmethod
    def of(cls, streams: str, only: str | None, *, in_array: bool = False, in_table: bool = False) -> Rule:
        """Read the notation of the settings: a pattern, and `member=text|text,$header.NAME=text`.

        Args:
            streams: The pattern.
            only: The conditions; None = there are none.
            in_array: Whether a document is a list of records, and a member is one of an element.
            in_table: Whether a member is a column, which a record has in its member `MATCHED`.

        Raises:
            ValueError: A condition cannot be read.
        """
        found = paths.conditions(only)
        headers = [(paths.unescaped(each.path.text[len(HEADER) :]), each.texts) for each in found if _of_header(each)]
        if other := next((each for each in found if each.path.text.startswith("$") and not _of_header(each)), None):
            raise ValueError(f"{other.path.text!r}: expected a member of the record, or {HEADER}NAME")
        members = [each for each in found if not _of_header(each)]
        if in_array:
            members = [Condition(paths.parse(f"[].{each.path.text}"), each.texts) for each in members]
        elif in_table:
            members = [Condition(_column(each.path), each.texts) for each in members]
        return cls(streams, tuple(members), tuple(headers))


class Matching:
    """Divides events among tables. Used from one thread at a time."""

    def __init__(self, rules: Sequence[Rule], *, unmatched_are_dead: bool = False) -> None:
        """Take the rules of the tables, in their order.

        Args:
            rules: At most `MOST_TABLES`.
            unmatched_are_dead: Whether an event that no table takes makes its record a dead letter.
        """
        self._rules = rules
        self._patterns = [re.compile(translate(rule.streams)) for rule in rules]
        self._dead = unmatched_are_dead
        self._of_stream: dict[str, int] = {}

    @property
    def by_members(self) -> bool:
        """Whether a rule asks for members, so that records have to be read whole."""
        return any(rule.members for rule in self._rules)

    @property
    def members(self) -> list[MemberPath]:
        """The members that rules ask for."""
        return [each.path for rule in self._rules for each in rule.members]

    def meets(self, document: Any, element: Any = None) -> int:
        """Return the tables whose conditions on members a document meets, a bit for each."""
        found = 0
        for number, rule in enumerate(self._rules):
            if all(each.holds(each.path.find(document, element)) for each in rule.members):
                found |= 1 << number
        return found

    def divide(
        self, records: PolledRecords, events: EventBatch, meets: IntArray | None = None
    ) -> tuple[EventBatch, list[Rejection]]:
        """Return the events that a table takes, each with its table, and why others' records are dead letters.

        Args:
            records: The poll.
            events: Its events.
            meets: `(n,)` int64, `meets` of each event; None = no rule asks for members.
        """
        streams = self._streams(events.unique_ids)
        if meets is not None:
            streams &= meets
        self._ask_headers(records, events, streams)
        tables = np.full(len(events), NO_TABLE, np.int64)
        for number in reversed(range(len(self._rules))):
            tables[(streams >> number) & 1 == 1] = number
        taken = tables != NO_TABLE
        if taken.all():
            return replace(events, routes=tables), []
        unmatched = np.flatnonzero(~taken)
        kept = replace(events, routes=tables).take(np.flatnonzero(taken))
        counted = replace(kept, masked=events.masked, left_out=events.left_out)
        if not self._dead:
            return replace(counted, unmatched=unmatched.size), []
        rejections = []
        for row in unmatched.tolist():
            detail = f"no table of models takes stream {events.unique_ids[row]!r}"
            rejections.append(rejection_of(records, int(events.rows[row]), Reason.UNMATCHED, detail))
        return counted, rejections

    def _streams(self, unique_ids: Sequence[str]) -> IntArray:
        """Return the tables whose patterns take each stream, a bit for each."""
        known = self._of_stream
        if len(known) > _CACHED_STREAMS:
            known.clear()
        for unique_id in unique_ids:
            if unique_id not in known:
                known[unique_id] = sum(
                    1 << number for number, pattern in enumerate(self._patterns) if pattern.match(unique_id)
                )
        return np.fromiter(map(known.__getitem__, unique_ids), np.int64, len(unique_ids))

    def _ask_headers(self, records: PolledRecords, events: EventBatch, streams: IntArray) -> None:
        """Take away the tables whose conditions on headers an event's record does not meet."""
        for number, rule in enumerate(self._rules):
            if rule.headers:
                asked = np.flatnonzero((streams >> number) & 1)
                met = {row: _has(records, row, rule) for row in np.unique(events.rows[asked]).tolist()}
                failed = [
                    at for at, row in zip(asked.tolist(), events.rows[asked].tolist(), strict=True) if not met[row]
                ]
                streams[failed] &= ~(1 << number)


def _column(path: MemberPath) -> MemberPath:
    return MemberPath(path.text, (MATCHED, paths.unescaped(path.text)))


def _of_header(condition: Condition) -> bool:
    return condition.path.text.startswith(HEADER)


def _has(records: PolledRecords, row: int, rule: Rule) -> bool:
    """Return whether a record has the headers of a rule, of several the first; an absent one has the empty text."""
    given = reversed(records.headers(row))
    found = {name: "" if value is None else value.decode(errors="replace") for name, value in given}
    return all(found.get(name, "") in texts for name, texts in rule.headers)
