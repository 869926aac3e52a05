"""The judge: compares every forecast that a reader of committed records sees with the unroll.

Owns: the counts of lost, doubled and wrong. Does not know: what happened to the service.

    lost      an event that has to have a forecast, and has none
    doubled   exactly_once: a forecast beyond the first of its event. at_least_once: one that differs from the first in
              any byte, or has no `source` by which a reader could drop it
    wrong     a first forecast that is not the unroll's, or names no event, or comes before an earlier one of its
              stream; and a dead letter, because no event of the loads deserves one

Records of alarms are judged alike: every alarm of the unroll has a record where it opens and one where it closes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np

from rillcast.bundle.alarms import CHANGES
from tests.faults.load import PARTITIONS, Alarms, Load, Published, PublishedAlarm

_EXAMPLES: Final = 20
_UNSEEN: Final = -1


@dataclass
class Verdict:
    """The counts, and the first few cases in words."""

    events: int
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    repeats: int = 0  # identical ones, which at_least_once allows
    cases: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing is lost, doubled or wrong."""
        return self.lost == self.doubled == self.wrong == 0

    def note(self, case: str) -> None:
        """Remember a case, if it is among the first."""
        if len(self.cases) < _EXAMPLES:
            self.cases.append(case)


def judge(
    load: Load,
    delivery: str,
    forecasts: Iterable[bytes | None],
    dead_letters: Iterable[bytes | None],
    alarms: Iterable[bytes | None] | None = None,
) -> Verdict:
    """Return the verdict.

    Args:
        load: what was fed, and its oracle.
        delivery: `exactly_once` or `at_least_once`.
        forecasts: values of the output topic; those of one stream in the order of their topic.
        dead_letters: values of the dead-letter topic.
        alarms: values of the topic of alarms; those of one stream in the order of their topic; None = they are
            not judged.
    """
    verdict = Verdict(len(load))
    decode = msgspec.json.Decoder(Published).decode
    events = [load.of_partition(partition) for partition in range(PARTITIONS)]
    first = np.full(len(load), _UNSEEN, np.int64)  # hash of the first forecast
    newest = np.full(len(load.ids), _UNSEEN, np.int64)  # event of each stream's newest first forecast
    for value in forecasts:
        try:
            published = decode(value or b"")
        except msgspec.MsgspecError as error:
            verdict.wrong += 1
            verdict.note(f"wrong: no forecast ({error}): {value!r}")
            continue
        source = published.source
        if source is None or not (source.partition < PARTITIONS and source.offset < events[source.partition].size):
            verdict.wrong += 1
            verdict.note(f"wrong: names no event that was fed: {value!r}")
            continue
        event, digest = int(events[source.partition][source.offset]), abs(hash(value))
        if first[event] != _UNSEEN:
            if delivery == "at_least_once" and first[event] == digest:
                verdict.repeats += 1
            else:
                verdict.doubled += 1
                verdict.note(f"doubled: {value!r}")
            continue
        first[event] = digest
        stream = load.stream[event]
        fault = load.oracle.fault_of(event, published)
        if load.answered is not None and not load.answered[event]:
            fault = "this event has no forecast: it only joins its period"
        if event < newest[stream]:
            fault = f"comes after that of a later event of its stream, {newest[stream]}"
        newest[stream] = max(newest[stream], event)
        if fault is not None:
            verdict.wrong += 1
            verdict.note(f"wrong: partition {source.partition} offset {source.offset}: {fault}")
    lost = np.flatnonzero((first == _UNSEEN) & (True if load.answered is None else load.answered))
    verdict.lost = int(lost.size)
    for event in lost[:_EXAMPLES].tolist():
        partition = load.home[load.stream[event]]
        offset = int(np.searchsorted(events[partition], event))
        verdict.note(f"lost: partition {partition} offset {offset}, {load.ids[load.stream[event]]}")
    for letter in dead_letters:
        verdict.wrong += 1
        verdict.note(f"wrong: a dead letter: {letter!r}")
    if load.alarms is not None and alarms is not None:
        _judge_alarms(verdict, load, load.alarms, delivery, alarms)
    return verdict


def _judge_alarms(
    verdict: Verdict, load: Load, expected: Alarms, delivery: str, values: Iterable[bytes | None]
) -> None:
    decode = msgspec.json.Decoder(PublishedAlarm).decode
    events = [load.of_partition(partition) for partition in range(PARTITIONS)]
    seen: dict[int, bytes] = {}
    newest = np.full(len(load.ids), _UNSEEN, np.int64)
    for value in values:
        try:
            alarm = decode(value or b"")
            event = int(events[alarm.source.partition][alarm.source.offset])
        except (msgspec.MsgspecError, IndexError) as error:
            verdict.wrong += 1
            verdict.note(f"wrong: no alarm of an event that was fed ({error}): {value!r}")
            continue
        if event in seen:
            if delivery == "at_least_once" and seen[event] == value:
                verdict.repeats += 1
            else:
                verdict.doubled += 1
                verdict.note(f"doubled: {value!r}")
            continue
        seen[event] = value or b""
        stream = load.stream[event]
        right = load.ids[stream], CHANGES.get(int(expected.phase[event])), float(expected.strength[event])
        if (alarm.unique_id, alarm.change, alarm.strength) != right or event < newest[stream]:
            verdict.wrong += 1
            verdict.note(f"wrong: {value!r}, the unroll has {right} at this event; the one before is {newest[stream]}")
        newest[stream] = max(newest[stream], event)
    lacking = sorted(set(np.flatnonzero(np.isin(expected.phase, list(CHANGES))).tolist()) - seen.keys())
    verdict.lost += len(lacking)
    for event in lacking[:_EXAMPLES]:
        verdict.note(f"lost: the alarm of {load.ids[load.stream[event]]} that {CHANGES[int(expected.phase[event])]}")
