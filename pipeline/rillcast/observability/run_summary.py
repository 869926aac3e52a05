"""What became of the records of a run, for the person who started it: the lines in the log that need no metrics.

Owns: the counts of records without a forecast, the first example of each kind, and their words. Does not know: when a
report is due, or what follows from it.

Invariant: a record is counted once, also when a reset to the committed positions brings it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

from rillcast.arrays import IntArray
from rillcast.bundle.bundle import Status
from rillcast.codecs.observations.rejections import Reason, Rejection
from rillcast.engine.periods import RawOutcome
from rillcast.events import EventBatch
from rillcast.observability.observer import Observer, Published
from rillcast.text import printable
from rillcast.transports.base import Polled

_ADVANCED: Final = np.array([status.advanced for status in Status])
_IGNORED: Final = {
    Status.DUPLICATE: "repeated the period of an earlier event and were ignored",
    Status.LATE: "were late and left the state unchanged",
}
_SHOWN_CHARACTERS: Final = 300


class RunSummary(Observer):
    """Counts over the life of a worker. Used from the thread of the loop."""

    def __init__(self, source_name: str, dead_letters: str) -> None:
        """Begin with nothing counted.

        Args:
            source_name: Topic or file of the records.
            dead_letters: The place of the dead letters, in words: `topic dead-letters`.
        """
        self._source_name = source_name
        self._place = dead_letters
        self._reasons = Counter[Reason]()
        self._ignored = Counter[Status]()
        self._examples: dict[Reason | Status, str] = {}
        self._rejected_to: dict[int, int] = {}  # by partition, the last offset that was counted
        self._ignored_to: dict[tuple[str, Status, int], int] = {}  # by route, status and partition
        self._split, self._split_example = 0, ""
        self._reported = (0, 0)
        self._several = False  # whether a record has had several events
        self.records = 0
        self.forecasts = 0
        self.kept_back = 0
        self.left_out = 0
        self.unmatched = 0

    @property
    def losses(self) -> int:
        """Records that became dead letters or were ignored."""
        return self._reasons.total() + self._ignored.total()

    def polled(self, records: int) -> None:
        """Count the records of a poll."""
        self.records += records

    def dead_lettered(self, polled: Polled, rejections: Sequence[Rejection]) -> None:
        """Count dead letters of a poll."""
        for row, reason, detail in sorted(rejections):
            partition, offset = int(polled.partitions[row]), int(polled.offsets[row])
            if offset > self._rejected_to.get(partition, -1):
                self._rejected_to[partition] = offset
                self._reasons[reason] += 1
                if reason not in self._examples:
                    self._examples[reason] = f"{self._at(partition, offset)}: {_one_line(detail)}"

    def observe(self, published: Published) -> None:
        """Count forecasts, and events that changed no state."""
        events, status = published.events, published.result.status
        residents = published.engine.residents
        if (split := residents.num_split) > self._split:
            self._split, self._split_example = split, residents.last_split or self._split_example
        advanced = _ADVANCED[status]
        self._several |= bool((np.diff(events.rows) == 0).any())
        self.forecasts += len(published.forecasts)
        self.kept_back += max(0, int(np.count_nonzero(published.stepped & advanced)) - len(published.forecasts))
        for kind in _IGNORED if not advanced.all() else ():
            rows = np.flatnonzero(published.stepped & (status == kind))
            self._ignore_all((published.route, kind), events, rows)
        if published.taken is not None and (rows := published.raw(RawOutcome.LATE)).size:
            self._ignore_all((published.route, Status.LATE), published.taken.events, rows)

    def _ignore_all(self, kind: tuple[str, Status], events: EventBatch, rows: IntArray) -> None:
        for partition in np.unique(events.partitions[rows]).tolist():
            self._ignore(kind, partition, events, rows[events.partitions[rows] == partition])

    def _ignore(self, of: tuple[str, Status], partition: int, events: EventBatch, rows: IntArray) -> None:
        """Count events of one route and partition that changed no state."""
        rows, kind = rows[events.offsets[rows] > self._ignored_to.get((*of, partition), -1)], of[1]
        if rows.size:
            first, last = int(rows[0]), int(rows[-1])
            self._ignored_to[(*of, partition)] = int(events.offsets[last])
            self._ignored[kind] += rows.size
            if kind not in self._examples:
                moment = np.datetime64(int(events.ds[first]), "ms")
                example = f"{self._at(partition, int(events.offsets[first]))}: stream {events.unique_ids[first]!r}"
                self._examples[kind] = _one_line(f"{example} at {moment}Z")

    def report(self, *, always: bool = False) -> list[str]:
        """Return a line for each kind of trouble, if there was any since the last report, or else if `always`."""
        found = self.losses, self._split
        if not always and found == self._reported:
            return []
        self._reported = found
        lines = [self._dead_letters()] if self._reasons else []
        for kind, words in _IGNORED.items():
            # A late event that became a dead letter is in the first line.
            if count := self._ignored[kind] - (self._reasons[Reason.LATE] if kind is Status.LATE else 0):
                noun = "events of" if self._several else "of"
                lines.append(f"{count:,} {noun} {self.records:,} records {words}, the first at {self._examples[kind]}")
        if self._split:
            lines.append(
                f"{self._split:,} {'stream has' if self._split == 1 else 'streams have'} events in more than one "
                f"partition of {self._source_name}, such as {_one_line(repr(self._split_example))}. Each partition "
                f"forecasts them by its own share of the events; key the topic by stream (`rillcast rekey`)"
            )
        if always and self.unmatched:
            lines.append(f"{self.unmatched:,} events were left out, because no table of models takes them")
        return lines

    def why_no_forecast(self) -> str:
        """Return in one line why a run over a file has no forecast."""
        found = self.report(always=True)
        if self.kept_back:
            found.append(f"{self.kept_back:,} forecasts were kept back (publish.warming_up, .every, .on_change)")
        if self.left_out:
            found.append(f"{self.left_out:,} records were left out (input.only)")
        return "; ".join(found) or f"it has {self.records:,} records"

    def _dead_letters(self) -> str:
        reasons = ", ".join(f"{count:,} {reason.value}" for reason, count in self._reasons.most_common())
        commonest = self._reasons.most_common(1)[0][0]
        return (
            f"{self._reasons.total():,} of {self.records:,} records became dead letters ({reasons}), in {self._place}; "
            f"the first {commonest.value} at {self._examples[commonest]}"
        )

    def _at(self, partition: int, offset: int) -> str:
        return f"{self._source_name}[{partition}]@{offset}"


def _one_line(text: str) -> str:
    """Return text that a terminal shows in one line: no control characters, and not the whole of a long record."""
    shown = printable(text[:_SHOWN_CHARACTERS])
    return shown if len(text) <= _SHOWN_CHARACTERS else f"{shown} ..."
