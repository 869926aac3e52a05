"""The loop: poll, decode, step, publish, commit; and its life cycle.

    starting -> (restoring <-> running) -> draining -> closed

A partition that is assigned goes through three phases of its own, while the others keep flowing:

    loading     its stored pages are being read; the source hands out nothing of it
    replaying   events from the pages' offset to the committed one are stepped again, their results suppressed:
                a hidden state is not idempotent, so an event is applied exactly once to the state that has it not
    live        results are published and positions committed

Without a store there is nothing to load and the replay begins at the first retained event. After a transaction that
failed, every partition goes through the phases again, from the committed positions ("rewind").

Knows: transports, stores, records, engine, checkpoint. Does not know: which transport, store or client, what the model
computes. Runs in one thread, and a large poll's step in another beside it (`pipeline.stepper`): while the model
computes, the loop publishes the poll before and reads the next. Positions are noted when results are published, so a
commit covers what was published and nothing else; whatever touches the states themselves waits for the step in flight
first (`_settle`). `stop` may be called from any thread, or from a signal handler.
"""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from pipeline.checkpoint import AtLeastOnce, Checkpoint, Delivery, ExactlyOnce
from pipeline.codecs.observations import ObservationDecoder, Observations
from pipeline.codecs.rejections import Rejection
from pipeline.deadletters import DeadLetters
from pipeline.engine import StepEngine, StepResult
from pipeline.errors import DeliveryError, TransactionAborted, TransportError
from pipeline.health import Health
from pipeline.metrics import Metrics
from pipeline.publisher import Publisher
from pipeline.recovery import Policy, decide, is_ahead
from pipeline.settings import StateSettings, WorkerSettings
from pipeline.stages import StageClock
from pipeline.stepper import Events, Stepper
from pipeline.stores.base import Mark, Restored, StateStore
from pipeline.transports.base import Assignment, Polled, Sink, Source, TransactionalSink

log = logging.getLogger(__name__)

LAG_INTERVAL_S: Final = 5.0
SUMMARY_INTERVAL_S: Final = 30.0
_RESTORE_SLICE_S: Final = 0.05  # other partitions wait no longer than this for one that is loading


@dataclass(frozen=True, slots=True)
class _Poll:
    """A poll on its way through the pipeline."""

    polled: Polled
    events: Observations
    rejections: list[Rejection]
    live: npt.NDArray[np.bool_]
    started: float


class Phase(enum.Enum):
    """Where a partition stands; see the module's docstring."""

    LOADING = "loading"
    REPLAYING = "replaying"
    LIVE = "live"


@dataclass(slots=True)
class _Partition:
    assignment: Assignment
    phase: Phase
    since: float
    live_from: int = 0


@dataclass(frozen=True, slots=True)
class Parts:
    """What a worker is made of.

    Attributes:
        source: where events come from.
        sink: where forecasts and dead letters go; a `TransactionalSink` under `exactly_once`.
        store: where state is kept; None = nowhere.
        engine: the states and the model.
        decoder: bytes to columns.
        publisher: what is told of results.
        dead_letters: what becomes of records that cannot be used.
        metrics: counts, once per poll.
        health: what the probes say.
        stages: where the time goes.
    """

    source: Source
    sink: Sink
    store: StateStore | None
    engine: StepEngine
    decoder: ObservationDecoder
    publisher: Publisher
    dead_letters: DeadLetters
    metrics: Metrics
    health: Health = field(default_factory=Health)
    stages: StageClock = field(default_factory=StageClock)


class Worker:
    """One member of the consumer group, from its first poll to its last commit."""

    def __init__(
        self,
        parts: Parts,
        settings: WorkerSettings,
        snapshots: StateSettings,
        *,
        start_at: Literal["earliest", "latest"] = "earliest",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Put the parts together; nothing is opened yet.

        Args:
            parts: see there.
            settings: sizes, intervals, delivery and recovery.
            snapshots: when state is stored.
            start_at: where a partition starts that the group has never committed.
            clock: monotonic seconds, for intervals; never for anything that changes state.
        """
        self._parts = parts
        self._source = parts.source
        self._engine = parts.engine
        self._metrics = parts.metrics
        self._stages = parts.stages
        self._settings = settings
        self._start_at = start_at
        self._clock = clock
        self._checkpoint = Checkpoint(
            _delivery(parts, settings),
            parts.engine.residents,
            snapshots=snapshots if parts.store is not None else None,
            interval_s=settings.commit_interval_s,
            clock=clock,
        )
        self._stepper = Stepper[_Poll](parts.engine, beside_from=settings.step_beside_from)
        self._partitions: dict[int, _Partition] = {}
        self._recovered: set[int] = set()
        self._stop = threading.Event()
        self._rewind_due = False
        self._events = self._state_bytes = 0
        self._next_lag = self._next_summary = clock()

    def stop(self) -> None:
        """Ask the loop to finish its poll, commit and close."""
        self._stop.set()

    def run(self) -> None:
        """Run until `stop` or the source's end; always closes source, sink and store.

        Raises:
            TransportError: source, sink or store failed. Nothing after the last commit counts; start again.
            RecoveryError: the state cannot be brought to the committed offset.
            StateError: stored state is damaged.
        """
        parts = self._parts
        try:
            self._source.open(self)
            parts.health.started = True
            while not self._stop.is_set() and not self._source.exhausted:
                self._turn()
            self._drain()
        finally:
            parts.health.restored = False
            self._stepper.close()
            self._source.close()
            parts.sink.close()
            if parts.store is not None:
                parts.store.close()
        log.info("closed after %d events of %d streams", self._events, self._engine.residents.num_streams)

    def _turn(self) -> None:
        """Take one poll through the pipeline."""
        loading = any(partition.phase is Phase.LOADING for partition in self._partitions.values())
        self._stages.begin()
        wait_s = 0.0 if loading or self._stepper.busy else self._settings.poll_timeout_s
        polled = self._source.poll(self._settings.max_poll_records, wait_s)
        self._stages.lap("poll")
        self._parts.health.beat()
        try:
            if self._rewind_due:
                self._rewind()
                return  # what was polled is read again
            if len(polled):
                self._process(polled)
            else:
                self._settle()
            if loading:
                self._settle()
                self._load()
            self._note_live()
            if self._checkpoint.due:
                if self._checkpoint.has_pages:
                    self._settle()
                self._commit()
                self._stages.lap("commit")
            if len(polled):
                self._stages.end()
        except TransactionAborted as error:
            log.warning("%s; going back to the committed positions", error)
            self._rewind_due = True
        self._report()

    def _process(self, polled: Polled) -> None:
        started = self._clock()
        events, rejections = self._parts.decoder.decode(polled)
        poll = _Poll(polled, events, rejections, self._live(polled), started)
        self._stages.lap("decode")
        if not len(events):
            self._settle()
            self._publish(poll, None)
            return
        where = polled.partitions[events.rows], polled.offsets[events.rows]
        done = self._stepper.step(poll, Events(*where, events.unique_ids, events.ds, events.y))
        self._stages.lap("wait")
        for earlier, result in done:
            self._publish(earlier, result)

    def _settle(self) -> None:
        """Wait for the step in flight, if there is one, and publish its results: then the states stand still."""
        for poll, result in self._stepper.finish():
            self._stages.lap("wait")
            self._publish(poll, result)

    def _publish(self, poll: _Poll, result: StepResult | None) -> None:
        """Hand over what came of a poll, and note its positions; only then is it part of a commit."""
        polled, rejections = poll.polled, poll.rejections
        if result is not None:
            self._events += len(poll.events)
            self._stages.add("step", result.stats.seconds)
            rejections = rejections + self._parts.publisher.publish(polled, poll.events, result, poll.live)
        self._bury(polled, [rejection for rejection in rejections if poll.live[rejection.row]])
        self._checkpoint.processed(polled.partitions, polled.offsets, self._reached(polled))
        self._metrics.polled(len(polled), self._clock() - poll.started)
        self._stages.lap("account")

    def _bury(self, polled: Polled, rejections: Sequence[Rejection]) -> None:
        if rejections:
            self._parts.dead_letters.publish(self._parts.sink, polled, rejections)
            for rejection in rejections:
                self._metrics.dead_lettered(rejection.reason)

    def _live(self, polled: Polled) -> npt.NDArray[np.bool_]:
        """Return for each record whether its results are to be published."""
        live = np.ones(len(polled), dtype=bool)
        for number, partition in self._partitions.items():
            if partition.phase is not Phase.LIVE:
                live[(polled.partitions == number) & (polled.offsets < partition.live_from)] = False
        return live

    def _reached(self, polled: Polled) -> set[int]:
        """Return the partitions of which something in the poll was published, so that it has to be committed."""
        reached = set()
        for number in np.unique(polled.partitions).tolist():
            last = int(polled.offsets[polled.partitions == number][-1])
            if last >= self._partitions[number].live_from:
                reached.add(number)
        return reached

    # Commits.

    def _commit(self, final: Sequence[int] = (), within_s: float | None = None) -> None:
        started = self._clock()
        live = {number for number, partition in self._partitions.items() if partition.phase is Phase.LIVE}
        try:
            done = self._checkpoint.commit(live, final, within_s, pages=not self._stepper.busy)
        except TransportError:
            self._metrics.commit_failed()
            raise
        self._metrics.committed(self._clock() - started, done.pages, done.marks)
        if self._parts.store is not None:
            written = self._parts.store.bytes_staged
            self._metrics.state_written(written - self._state_bytes)
            self._state_bytes = written

    def _drain(self) -> None:
        if self._rewind_due:
            return  # nothing is pending but what a successor reads again
        log.info("draining: committing what was published")
        try:
            self._settle()
            self._note_live()
            self._commit(final=list(self._partitions))
        except TransactionAborted as error:
            log.warning("the last transaction came to nothing (%s); a successor reads its events again", error)

    def _rewind(self) -> None:
        """Go back to the committed positions and bring the state of every partition there."""
        self._rewind_due = False
        self._stepper.finish()  # its results are those of events that are read again
        self._metrics.rewound()
        owned = list(self._partitions)
        if isinstance(self._parts.sink, TransactionalSink):
            self._parts.sink.abort()
        if self._parts.store is not None:
            self._parts.store.discard()
        self._source.hold(owned)
        self._drop(owned)
        for number, position in self.on_assigned(self._source.assignments()).items():
            if position is not None:
                self._source.start(number, position)

    # Partitions come and go (called by the source, from within `poll`).

    def on_assigned(self, assignments: Sequence[Assignment]) -> Mapping[int, int | None]:
        """Decide where to start reading, or begin to load the state first; see `settings.worker.recovery`.

        Raises:
            RecoveryError: the committed offset lies outside what the source still has.
        """
        store, starts = self._parts.store, dict[int, int | None]()
        for assignment in assignments:
            number = assignment.partition
            self._partitions[number] = _Partition(assignment, Phase.LOADING, self._clock())
            if store is not None and self._policy(number) == "restore":
                store.begin_restore(number)
                starts[number] = None
            else:
                starts[number] = self._begin(assignment, None)
        self._parts.health.assigned = True
        self._report_assignment()
        return starts

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """Commit while the partitions are still ours, then let go of their state; in time, or without the commit."""
        if not self._rewind_due:
            try:
                self._settle()
                self._note_live()
                self._commit(final=partitions, within_s=self._settings.revoke_timeout_s)
            except (TransactionAborted, DeliveryError) as error:
                log.warning("revoked partitions %s were not committed (%s); they are read again", partitions, error)
                # What was published to an open transaction goes with it, also that of the partitions that stay.
                self._rewind_due = isinstance(self._parts.sink, TransactionalSink)
        self._drop(partitions)
        log.info("revoked partitions %s; %d left", sorted(partitions), len(self._partitions))

    def on_lost(self, partitions: Sequence[int]) -> None:
        """Let go without a commit: another member may already own them."""
        if isinstance(self._parts.sink, TransactionalSink):
            # The open transaction has records of the lost partitions in it; the others are read again.
            self._rewind_due = True
        else:
            self._settle()
        self._drop(partitions)
        log.warning("lost partitions %s without a chance to commit; their events are read again", sorted(partitions))

    def _load(self) -> None:
        """Go on loading stored state, and start the partitions that have all of theirs."""
        assert self._parts.store is not None  # only a store leaves a partition loading
        alone = all(partition.phase is Phase.LOADING for partition in self._partitions.values())
        for restored in self._parts.store.poll_restore(self._settings.poll_timeout_s if alone else _RESTORE_SLICE_S):
            partition = self._partitions[restored.partition]
            position = self._begin(partition.assignment, restored)
            self._metrics.loaded(self._clock() - partition.since)
            self._source.start(restored.partition, position)
        self._report_assignment()

    def _begin(self, assignment: Assignment, restored: Restored | None) -> int:
        """Take in what was stored, if anything, and return the position to read from."""
        number = assignment.partition
        mark: Mark | None = restored.mark if restored is not None else None
        where = f"{self._source.name}[{number}]"
        if mark is not None and is_ahead(mark, assignment):
            assignment = self._ask_again(assignment)
        start = decide(where, assignment, mark, self._policy(number), self._start_at)
        self._recovered.add(number)
        if restored is not None and mark is not None:
            # A page that came after the mark belongs to streams that the replay brings back by itself.
            pages = [page for page in restored.pages if page.number < mark.pages]
            self._engine.residents.load(number, pages, mark.watermark_ms)
        self._checkpoint.begin(number, start.position, new_life=start.new_life)
        partition = self._partitions[number]
        partition.live_from = start.live_from
        partition.phase = Phase.REPLAYING
        if start.position >= start.live_from:
            self._go_live(number)
        return start.position

    def _ask_again(self, assignment: Assignment) -> Assignment:
        """Return what the brokers say now of a partition whose state was found ahead of its committed position.

        State is never stored ahead of it, but the position was asked for before the state was read. A member that lost
        its partitions without knowing it yet sees its successor's state; its commits will be refused.
        """
        asked = {each.partition: each for each in self._source.assignments()}
        return asked.get(assignment.partition, assignment)

    def _policy(self, number: int) -> Policy:
        """Return how a partition recovers: another way than `restore` is asked for once, not at every rebalance."""
        if self._parts.store is not None and number in self._recovered:
            return "restore"
        return self._settings.recovery

    def _note_live(self) -> None:
        """Notice partitions whose replay has reached the committed offset.

        The position decides, not the last record seen: a compacted record or a transaction marker may stand
        right before the committed offset, and then no record with the offset before it ever comes.
        """
        waiting = [number for number, partition in self._partitions.items() if partition.phase is Phase.REPLAYING]
        if waiting:
            positions = self._source.positions()
            for number in waiting:
                if positions.get(number, -1) >= self._partitions[number].live_from:
                    self._go_live(number)
            self._report_assignment()

    def _go_live(self, number: int) -> None:
        partition = self._partitions[number]
        partition.phase = Phase.LIVE
        seconds = self._clock() - partition.since
        self._metrics.restored(seconds)
        log.info("%s[%d]: live after %.2f s", self._source.name, number, seconds)

    def _drop(self, partitions: Sequence[int]) -> None:
        self._stepper.finish()  # only something that is read again can still be in flight
        self._checkpoint.forget(partitions)
        for number in partitions:
            self._partitions.pop(number, None)
            self._engine.residents.release(number)
            if self._parts.store is not None:
                self._parts.store.cancel_restore(number)
        self._report_assignment()

    # What is seen from outside.

    def _report_assignment(self) -> None:
        restoring = sum(partition.phase is not Phase.LIVE for partition in self._partitions.values())
        self._parts.health.restored = restoring == 0
        self._metrics.assignment(len(self._partitions), restoring)

    def _report(self) -> None:
        now = self._clock()
        if now >= self._next_lag:
            self._next_lag = now + LAG_INTERVAL_S
            self._metrics.lag(self._source.lag())
        if now >= self._next_summary:
            self._next_summary = now + SUMMARY_INTERVAL_S
            streams = self._engine.residents.num_streams
            log.info("%d events, %d streams, %d partitions", self._events, streams, len(self._partitions))


def _delivery(parts: Parts, settings: WorkerSettings) -> Delivery:
    if settings.delivery == "exactly_once":
        assert isinstance(parts.sink, TransactionalSink)  # the choice of transports sees to it
        return ExactlyOnce(parts.source, parts.sink, parts.store)
    return AtLeastOnce(parts.source, parts.sink, parts.store, settings.flush_timeout_s)
