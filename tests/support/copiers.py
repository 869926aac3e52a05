"""A worker reduced to its transactions: it copies a topic, a transaction per iteration, and resets after an abort.

Owns: the loop. Does not know: the faults of its group and its broker.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Final

from rillcast.errors import TransactionAborted
from rillcast.settings import KafkaSettings
from rillcast.transports.base import Assignment, Channel, Records, Source, TransactionalSink
from rillcast.transports.connect import open_transactional_sink
from tests.support.transports import from_beginning, kafka_source

_MAX_RECORDS: Final = 40


class Copier:
    """One member, in its own thread. Each copy names the position of its original: `partition/offset`."""

    def __init__(self, settings: KafkaSettings, source: str, target: str) -> None:
        self.owned: dict[int, int] = {}  # partition -> next offset
        self.commits = 0
        self.resets = 0
        self.failure: BaseException | None = None
        self._source: Source = kafka_source(settings.client, settings, source)
        self._sink: TransactionalSink = open_transactional_sink(settings, {Channel.FORECASTS: target}, source)
        self._reset_due = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="copier")
        self._source.open(self)
        self._thread.start()

    def leave(self) -> None:
        """Finish the iteration, which ends with a commit, and leave the group."""
        self._stop.set()
        self._thread.join()
        self._sink.close()
        self._source.close()

    def on_assigned(self, assignments: Sequence[Assignment]) -> Mapping[int, int | None]:
        starts: dict[int, int | None] = {}
        for assignment in assignments:
            self.owned[assignment.partition] = starts[assignment.partition] = from_beginning(assignment)
        return starts

    def on_revoked(self, partitions: Sequence[int]) -> None:
        if not self._reset_due:
            self._commit()
        for number in partitions:
            del self.owned[number]

    def on_lost(self, partitions: Sequence[int]) -> None:
        self._reset_due = True
        for number in partitions:
            del self.owned[number]

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._iterate()
        except BaseException as error:  # noqa: BLE001  the test's own thread raises it
            self.failure = error

    def _iterate(self) -> None:
        polled = self._source.poll(_MAX_RECORDS, 0.05)
        if self._reset_due:
            self._reset_to_committed()
            return
        places = list(zip(polled.partitions.tolist(), polled.offsets.tolist(), strict=True))
        for partition, offset in places:
            assert self.owned[partition] <= offset, f"{offset} of partition {partition} came again: {self.owned}"
            self.owned[partition] = offset + 1
        if places:
            try:
                copies = Records([None] * len(places), [b"%d/%d" % place for place in places])
                self._sink.publish(Channel.FORECASTS, copies)
            except TransactionAborted:
                self._reset_due = True
            else:
                self._commit()

    def _commit(self) -> None:
        try:
            self._sink.commit(self.owned, self._source.group())
        except TransactionAborted:
            self._reset_due = True
        else:
            self.commits += 1

    def _reset_to_committed(self) -> None:
        self.resets += 1
        self._sink.abort()
        self._reset_due = False
        self._source.pause(list(self.owned))
        for assignment in self._source.assignments():
            self.owned[assignment.partition] = from_beginning(assignment)
            self._source.resume_from(assignment.partition, self.owned[assignment.partition])
