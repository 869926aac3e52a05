"""Copies a topic into another one, keyed by stream, so that each stream stays in one partition.

A pass without state: poll, decode, publish, commit. A record is copied as it is, with its value, headers and timestamp;
its key becomes the id of its stream. A record that has no stream becomes a dead letter, with its own key.

Owns: the loop of one member, and what it does when partitions move and transactions fail. Does not know: which client
is in use, models, state.

Invariant: a position is committed after the copies of all records before it, in one transaction with them under
`exactly_once`. So a crash loses no record, and then doubles none either.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.codecs.observations.rejections import Reason, Rejection
from rillcast.durability.delivery import AtLeastOnce, Budget, ExactlyOnce
from rillcast.durability.positions import Positions
from rillcast.errors import DeliveryError, TransactionAborted
from rillcast.events import EventBatch
from rillcast.publishing.dead_letters import DeadLetters
from rillcast.settings import WorkerSettings
from rillcast.transports.base import Assignment, Channel, Polled, Records, Sink, Source, TransactionalSink

log = logging.getLogger(__name__)

_MODEL: Final = "none (rekey)"
_SUMMARY_INTERVAL_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class RekeyParts:
    """The parts of a rekeyer.

    Attributes:
        source: Where records come from.
        sink: Takes the copies as `Channel.FORECASTS`, and the dead letters; a `TransactionalSink` for exactly-once.
        decoder: Finds the stream of a record.
        dead_letters: Makes dead letters of records without a stream.
    """

    source: Source
    sink: Sink
    decoder: ObservationDecoder
    dead_letters: DeadLetters


class Rekeyer:
    """One member of the group, from its first poll to its last commit. `stop` may be called from a signal handler."""

    def __init__(
        self,
        parts: RekeyParts,
        settings: WorkerSettings,
        *,
        start_at: Literal["earliest", "latest"] = "earliest",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open nothing yet.

        Args:
            parts: The parts.
            settings: Sizes and intervals.
            start_at: Where a partition starts that the group has never committed.
            clock: Monotonic seconds.
        """
        self._source, self._sink = parts.source, parts.sink
        self._parts = parts
        self._settings = settings
        self._start_at = start_at
        self._clock = clock
        self._transactional = isinstance(parts.sink, TransactionalSink)
        self._delivery = (
            ExactlyOnce(parts.source, parts.sink)
            if isinstance(parts.sink, TransactionalSink)
            else AtLeastOnce(parts.source, parts.sink, settings.flush_timeout_s)
        )
        self._positions = Positions()
        self._owned: set[int] = set()
        self._stop = threading.Event()
        self._reset_due = False
        self._copied, self._dead = 0, Counter[str]()
        self._next_commit = self._next_summary = clock()

    def stop(self) -> None:
        """Ask the loop to finish its iteration, commit and close."""
        self._stop.set()

    def run(self) -> None:
        """Run until `stop` or the source's end; always closes source and sink.

        Raises:
            TransportError: Source or sink failed. Nothing after the last commit counts; start again.
        """
        try:
            self._source.open(self)
            while not self._stop.is_set() and not self._source.exhausted:
                self._iterate()
            self._drain()
        finally:
            self._source.close()
            self._sink.close()
        log.info("%s", self._summary())

    def _iterate(self) -> None:
        polled = self._source.poll(self._settings.max_poll_records, self._settings.poll_timeout_s)
        try:
            if self._reset_due:
                self._reset_to_committed()
                return  # the records of this poll are read again
            if len(polled):
                self._copy(polled)
            if self._clock() >= self._next_commit:
                self._commit()
        except TransactionAborted as error:
            log.warning("%s; resetting to the committed positions", error)
            self._reset_due = True
        if self._clock() >= self._next_summary:
            self._next_summary = self._clock() + _SUMMARY_INTERVAL_S
            log.info("%s; %d records behind", self._summary(), sum(self._source.lag().values()))

    def _copy(self, polled: Polled) -> None:
        """Publish the copies and dead letters of a poll, and note its positions."""
        events, rejections = self._parts.decoder.decode(polled)
        keys = _keys(events)
        several = [row for row, of in keys.items() if len(of) > 1]
        rejections = [each for each in rejections if each.row not in keys]  # of the others some event can be used
        rejections += [_several(row, keys.pop(row)) for row in several]
        copies, rows = _copies(polled, keys), list(keys)
        if (limit := self._sink.largest_record(Channel.FORECASTS)) is not None:
            copies, too_large = copies.within(limit)
            rejections = [*rejections, *(_too_large(rows[at], size, limit) for at, size in too_large.items())]
        if len(copies):
            self._sink.publish(Channel.FORECASTS, copies)
        if rejections:
            self._parts.dead_letters.publish(self._sink, polled, rejections, _MODEL)
        self._copied += len(copies)
        self._dead.update(rejection.reason.value for rejection in rejections)
        self._positions.processed(polled.partitions, polled.offsets, self._owned)

    def _commit(self, within_s: float | None = None) -> None:
        self._next_commit = self._clock() + self._settings.commit_interval_s
        pending = {partition: self._positions.of(partition) for partition in self._positions.pending}
        if pending:
            self._delivery.commit(pending, (), Budget(within_s, self._clock))
            self._positions.committed()

    def _drain(self) -> None:
        if self._reset_due:
            return  # a successor reads again what is not committed
        try:
            self._commit()
        except TransactionAborted as error:
            log.warning("the last transaction aborted (%s); a successor reads its records again", error)

    def _reset_to_committed(self) -> None:
        """Drop what was published since the last commit, and read again from there."""
        if isinstance(self._sink, TransactionalSink):
            self._sink.abort()
        self._reset_due = False
        owned = list(self._owned)
        self._source.pause(owned)
        self._forget(owned)
        for number, position in self.on_assigned(self._source.assignments()).items():
            self._source.resume_from(number, position)

    # Partitions come and go (called by the source, from within `poll`).

    def on_assigned(self, assignments: Sequence[Assignment]) -> Mapping[int, int]:
        """Return the committed positions, or those at which a new group starts."""
        starts = {each.partition: self._start(each) for each in assignments}
        self._owned.update(starts)
        for partition, position in starts.items():
            self._positions.begin(partition, position)
        return starts

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """Commit while this member still owns the partitions, if that is done in time."""
        if not self._reset_due:
            try:
                self._commit(self._settings.revoke_timeout_s)
            except (TransactionAborted, DeliveryError) as error:
                log.warning("revoked partitions %s were not committed (%s); they are read again", partitions, error)
                self._reset_due = self._transactional  # the records of the partitions that stay are gone as well
        self._forget(partitions)

    def on_lost(self, partitions: Sequence[int]) -> None:
        """Drop partitions without a commit: another member may already own them."""
        self._reset_due |= self._transactional  # the open transaction has records of the lost partitions
        self._forget(partitions)
        log.warning("lost partitions %s without a chance to commit; they are read again", sorted(partitions))

    def _start(self, assignment: Assignment) -> int:
        partition, committed, beginning, end, added = assignment
        if committed is None:
            return end if self._start_at == "latest" and not added else beginning
        if committed < beginning:
            log.error(
                "%s partition %d: %d records from offset %d on were deleted before they were copied; going on at %d. "
                "Let the topic retain more, or run more workers",
                self._source.name, partition, beginning - committed, committed, beginning,
            )  # fmt: skip
        return max(committed, beginning)

    def _forget(self, partitions: Sequence[int]) -> None:
        self._owned.difference_update(partitions)
        self._positions.forget(partitions)

    def _summary(self) -> str:
        dead = ", ".join(f"{count:,} {reason}" for reason, count in self._dead.most_common())
        return f"{self._source.name}: copied {self._copied:,} records; {dead or 'no'} dead letters"


def _keys(events: EventBatch) -> dict[int, list[str]]:
    """Return the keys of each record that has events: of each stream the id without the member of the observation."""
    found: dict[int, list[str]] = {}
    ids = events.unique_ids if events.keys is None else events.keys
    for row, key in zip(events.rows.tolist(), ids, strict=True):
        if key not in (keys := found.setdefault(row, [])):
            keys.append(key)
    return found


def _copies(polled: Polled, keys: Mapping[int, Sequence[str]]) -> Records:
    """Return the copies of these records, each with its only key."""
    headers = [polled.headers(row) for row in keys]
    return Records(
        [key.encode() for (key,) in keys.values()],
        [polled.values[row] for row in keys],
        headers if any(headers) else None,
        np.asarray(polled.timestamps_ms)[list(keys)].tolist(),
    )


def _several(row: int, keys: Sequence[str]) -> Rejection:
    detail = (
        f"it has observations of {len(keys)} entities ({keys[0]!r}, {keys[1]!r}, ...), which one key cannot keep "
        f"together; let the producer send a record for each (Telegraf: use_batch_format = false)"
    )
    return Rejection(row, Reason.BAD_ID, detail)


def _too_large(row: int, size: int, limit: int) -> Rejection:
    detail = f"its copy takes {size} bytes, and the topic at most {limit} (max.message.bytes, kafka.max_message_bytes)"
    return Rejection(row, Reason.TOO_LARGE, detail)
