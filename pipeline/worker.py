"""The loop: poll, decode, step, publish, commit; and its life cycle.

    starting -> (restoring <-> running) -> draining -> closed

`restoring` while the state of at least one owned partition is not yet as of its committed offset; partitions that
are restored keep flowing meanwhile. Recovery replays a partition's retained events with the output suppressed:
a hidden state is not idempotent, so an event is stepped exactly once per life of the state, and what it yields is
published only from the committed offset on.

Knows: transports, records, engine, checkpoint. Does not know: which transport or client, what the model computes.
Runs in one thread; `stop` may be called from any, or from a signal handler.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.arrays import FloatArray, IntArray, StatusArray
from pipeline.bundle import Status
from pipeline.checkpoint import Checkpoint
from pipeline.deadletters import DeadLetters
from pipeline.engine import StepEngine, StepResult
from pipeline.errors import RecoveryError, TransportError
from pipeline.health import Health
from pipeline.metrics import Metrics, latency_sample
from pipeline.records import (
    ForecastColumns,
    ForecastEncoder,
    ObservationDecoder,
    Observations,
    Reason,
    Rejection,
)
from pipeline.settings import WorkerSettings
from pipeline.transports.base import Assignment, Channel, Polled, Sink, Source

log = logging.getLogger(__name__)

LAG_INTERVAL_S: Final = 5.0
SUMMARY_INTERVAL_S: Final = 30.0
_ADVANCED: Final = np.array([status.advanced for status in Status])


class Board(Protocol):
    """Who shows the newest forecasts to people; see `pipeline.board.ForecastBoard`."""

    def update(
        self,
        unique_ids: Sequence[str],
        ds: IntArray,
        y: FloatArray,
        status: StatusArray,
        forecast: FloatArray,
        score: FloatArray | None,
        anomaly: FloatArray | None,
        num_streams: int | None = None,
    ) -> None:
        """Take in what one poll brought."""
        ...

    def record_latency(self, seconds: FloatArray) -> None:
        """Take in how long some events took."""
        ...


@dataclass(slots=True)
class _Partition:
    """An owned partition: results are published from `live_from` on; before it, state is being rebuilt."""

    live_from: int
    restored: bool


class Worker:
    """One member of the consumer group, from its first poll to its last commit."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        engine: StepEngine,
        settings: WorkerSettings,
        *,
        decoder: ObservationDecoder,
        dead_letters: DeadLetters,
        metrics: Metrics,
        health: Health,
        board: Board | None = None,
        start_at: Literal["earliest", "latest"] = "earliest",
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Put the parts together; nothing is opened yet.

        Args:
            source: where events come from.
            sink: where forecasts and dead letters go.
            engine: the states and the model.
            settings: sizes and intervals.
            decoder: bytes to columns.
            dead_letters: what becomes of records that cannot be used.
            metrics: counts, once per poll.
            health: what the probes say.
            board: the view for people, if there is one.
            start_at: where a partition starts that the group has never committed.
            clock: monotonic seconds, for intervals.
            wall_clock: seconds since the epoch, for the age of events; never for anything that changes state.
        """
        self._source = source
        self._sink = sink
        self._engine = engine
        self._settings = settings
        self._decoder = decoder
        self._encoder = ForecastEncoder(engine.bundle.metadata)
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._health = health
        self._board = board
        self._start_at = start_at
        self._clock = clock
        self._wall_clock = wall_clock
        self._checkpoint = Checkpoint(
            source,
            sink,
            interval_s=settings.commit_interval_s,
            flush_timeout_s=settings.flush_timeout_s,
            clock=clock,
        )
        self._partitions: dict[int, _Partition] = {}
        self._stop = threading.Event()
        self._events = 0
        self._next_lag = self._next_summary = clock()

    def stop(self) -> None:
        """Ask the loop to finish its poll, commit and close."""
        self._stop.set()

    def run(self) -> None:
        """Run until `stop` or the source's end; always closes source and sink.

        Raises:
            TransportError: source or sink failed. Nothing after the last commit counts; start again.
            RecoveryError: the state cannot be brought to the committed offset.
        """
        try:
            self._source.open(self)
            self._health.started = True
            while not self._stop.is_set() and not self._source.exhausted:
                self._turn()
            log.info("draining: committing what was published")
            self._commit()
        finally:
            self._health.restored = False
            self._source.close()
            self._sink.close()
        log.info("closed after %d events of %d streams", self._events, self._engine.num_streams)

    def _turn(self) -> None:
        """Take one poll through the pipeline."""
        polled = self._source.poll(self._settings.max_poll_records, self._settings.poll_timeout_s)
        self._health.beat()
        if len(polled):
            self._process(polled)
        self._note_restored()
        if self._checkpoint.due:
            self._commit()
        now = self._clock()
        if now >= self._next_lag:
            self._next_lag = now + LAG_INTERVAL_S
            self._metrics.lag(self._source.lag())
        if now >= self._next_summary:
            self._next_summary = now + SUMMARY_INTERVAL_S
            log.info(
                "%d events, %d streams, %d partitions", self._events, self._engine.num_streams, len(self._partitions)
            )

    def _process(self, polled: Polled) -> None:
        started = self._clock()
        events, rejections = self._decoder.decode(polled.values)
        live = self._live(polled.partitions, polled.offsets)
        if len(events):
            rejections.extend(self._step(polled, events, live))
        rejections = [rejection for rejection in rejections if live[rejection.row]]
        if rejections:
            self._dead_letters.publish(self._sink, polled, rejections)
            for rejection in rejections:
                self._metrics.dead_lettered(rejection.reason)
        self._checkpoint.processed(polled.partitions[live], polled.offsets[live])
        self._metrics.polled(len(polled), self._clock() - started)

    def _step(self, polled: Polled, events: Observations, live_records: npt.NDArray[np.bool_]) -> list[Rejection]:
        """Step decoded events and publish the forecasts of live ones; return the late ones."""
        partitions, offsets = polled.partitions[events.rows], polled.offsets[events.rows]
        result = self._engine.step(partitions, events.unique_ids, events.ds, events.y)
        self._events += len(events)
        live = live_records[events.rows]
        self._publish(events, result, partitions, offsets, np.flatnonzero(live & _ADVANCED[result.status]))

        seen = np.flatnonzero(live)
        if replayed := len(events) - seen.size:
            self._metrics.replayed(replayed)
        score = None if result.score is None else result.score[seen]
        self._metrics.stepped(result.stats, result.status[seen], score)
        self._metrics.residents(self._engine.num_streams, self._engine.state_bytes)
        if self._board is not None:
            self._board.update(
                [events.unique_ids[row] for row in seen.tolist()],
                events.ds[seen],
                events.y[seen],
                result.status[seen],
                result.forecast[seen],
                score,
                None if result.anomaly is None else result.anomaly[seen],
                self._engine.num_streams,
            )
        ages = latency_sample(polled.timestamps_ms[live_records], self._wall_clock())
        self._metrics.latency(ages)
        if self._board is not None:
            self._board.record_latency(ages)
        return [
            Rejection(
                int(events.rows[row]),
                Reason.LATE,
                f"ds {events.ds[row]} lies before the last event of stream {events.unique_ids[row]!r}",
            )
            for row in np.flatnonzero(result.status == Status.LATE).tolist()
        ]

    def _publish(
        self, events: Observations, result: StepResult, partitions: IntArray, offsets: IntArray, rows: IntArray
    ) -> None:
        """Hand the forecasts of `rows` to the sink."""
        columns = ForecastColumns(
            unique_ids=[events.unique_ids[row] for row in rows.tolist()],
            ds=events.ds[rows],
            status=result.status[rows],
            forecast=result.forecast[rows],
            anomaly=None if result.anomaly is None else result.anomaly[rows],
            partitions=partitions[rows],
            offsets=offsets[rows],
        )
        keys, values = self._encoder.encode(columns)
        self._sink.publish(Channel.FORECASTS, keys, values)
        self._metrics.published(len(values))

    def _live(self, partitions: IntArray, offsets: IntArray) -> npt.NDArray[np.bool_]:
        """Return for each record whether its results are to be published."""
        live = np.ones(offsets.size, dtype=bool)
        for number, partition in self._partitions.items():
            if not partition.restored:
                live[(partitions == number) & (offsets < partition.live_from)] = False
        return live

    def _commit(self) -> None:
        if not self._checkpoint.pending:
            return
        started = self._clock()
        try:
            self._checkpoint.commit()
        except TransportError:
            self._metrics.commit_failed()
            raise
        self._metrics.committed(self._clock() - started)

    # Partitions come and go (called by the source, from within `poll`).

    def on_assigned(self, assignments: Sequence[Assignment]) -> Mapping[int, int]:
        """Decide where to start reading; see `settings.worker.recovery`.

        Raises:
            RecoveryError: the committed offset lies outside what the source still has.
        """
        starts: dict[int, int] = {}
        for assignment in assignments:
            starts[assignment.partition] = self._start(assignment)
        self._health.assigned = True
        self._report_assignment()
        return starts

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """Commit while the partitions are still ours, then let go of their state."""
        self._commit()
        self._drop(partitions)
        log.info("revoked partitions %s; %d left", sorted(partitions), len(self._partitions))

    def on_lost(self, partitions: Sequence[int]) -> None:
        """Let go without a commit: another member may already own them."""
        self._drop(partitions)
        log.warning("lost partitions %s without a chance to commit; their events are read again", sorted(partitions))

    def _start(self, assignment: Assignment) -> int:
        number, committed, beginning, end = assignment
        where = f"{self._source.name}[{number}]"
        if committed is None:
            position = beginning if self._start_at == "earliest" else end
            self._partitions[number] = _Partition(live_from=position, restored=True)
            log.info("%s: never committed; starting at %d (%s)", where, position, self._start_at)
            return position
        if not beginning <= committed <= end:
            raise RecoveryError(
                f"{where}: the committed offset {committed} is outside what the topic still has, [{beginning}, {end}]: "
                "events were deleted before they were read, or the topic was made anew. "
                "Reset the group's offsets, or start under another kafka.group_id"
            )
        if self._settings.recovery == "cold":
            self._partitions[number] = _Partition(live_from=committed, restored=True)
            log.warning("%s: recovery=cold; every stream starts anew at offset %d", where, committed)
            return committed
        self._partitions[number] = _Partition(live_from=committed, restored=beginning == committed)
        if beginning > 0:
            log.warning(
                "%s: events before offset %d are gone; state is rebuilt from there, as if the streams began there",
                where,
                beginning,
            )
        log.info("%s: rebuilding state from offset %d to %d, output suppressed", where, beginning, committed)
        return beginning

    def _note_restored(self) -> None:
        """Notice partitions whose replay has reached the committed offset.

        The position decides, not the last record seen: a compacted record or a transaction marker may stand
        right before the committed offset, and then no record with the offset before it ever comes.
        """
        waiting = [number for number, partition in self._partitions.items() if not partition.restored]
        if waiting:
            positions = self._source.positions()
            for number in waiting:
                if positions.get(number, -1) >= self._partitions[number].live_from:
                    self._partitions[number].restored = True
                    log.info("%s[%d]: state restored", self._source.name, number)
            self._report_assignment()

    def _drop(self, partitions: Sequence[int]) -> None:
        self._checkpoint.forget(partitions)
        for number in partitions:
            self._partitions.pop(number, None)
            self._engine.release(number)
        self._report_assignment()

    def _report_assignment(self) -> None:
        restoring = sum(not partition.restored for partition in self._partitions.values())
        self._health.restored = restoring == 0
        self._metrics.assignment(len(self._partitions), restoring)
