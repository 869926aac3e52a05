"""The loop of a member: poll, decode, step, publish, commit; and its life cycle.

    starting -> (restoring <-> running) -> draining -> closed

A partition that is assigned has phases of its own (`rillcast.durability.assignment`), while the others keep flowing.
After a transaction that failed, every partition goes through them again: it is reset to the committed positions.

Knows: transports, served models, checkpoint. Does not know: which transport, store or client is in use, or what a model
computes.

The loop runs in one thread. A large poll is stepped in another (`rillcast.service.stepper`): while the model computes,
the loop publishes the poll before and reads the next. Positions are noted when results are published, so a commit
covers what was published and nothing else. Code that touches states waits for the step in flight first
(`_finish_step`). `stop` may be called from any thread, or from a signal handler.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from rillcast.codecs.forecasts.columns import model_name
from rillcast.codecs.observations.rejections import Rejection, one_a_record
from rillcast.durability.assignment import Partitions, Reporting
from rillcast.durability.checkpoint import Checkpoint, Handovers
from rillcast.durability.recovery import StartRules
from rillcast.durability.restorer import Restorer
from rillcast.errors import DeliveryError, NoForecastError, TransactionAborted, TransportError
from rillcast.rollout.handover import HandoverLimits
from rillcast.rollout.member import Member
from rillcast.rollout.models import NoModels
from rillcast.rollout.rollout import Rollout, RolloutParts
from rillcast.rollout.rollouts import Rollouts, RouteDecoder
from rillcast.service.parts import Parts
from rillcast.service.silence import Loop, SilentPartitions
from rillcast.service.stepper import Stepper
from rillcast.service.upkeep import Upkeep
from rillcast.serving.router import ModelResult, Router
from rillcast.serving.routes import Routes
from rillcast.settings import StateSettings, WorkerSettings
from rillcast.transports.base import Assignment, Channel, Polled, ReplacingSink, TransactionalSink

log = logging.getLogger(__name__)

_RESTORE_SLICE_S: Final = 0.05  # other partitions wait at most this long for one that is loading


class Worker:
    """One member of the consumer group, from its first poll to its last commit."""

    def __init__(
        self,
        parts: Parts,
        settings: WorkerSettings,
        snapshots: StateSettings,
        *,
        start_at: Literal["earliest", "latest"] = "earliest",
        idle_s: float = 0.0,
        overdue_periods: int = 0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """Put the parts together; nothing is opened yet.

        Args:
            parts: The parts.
            settings: Sizes, intervals, delivery and recovery.
            snapshots: When state is stored.
            start_at: Where a partition starts that the group has never committed.
            overdue_periods: Periods without an event after which a stream is overdue; 0 = none is.
            idle_s: Seconds after which a partition without records is silent; 0 = never.
            clock: Monotonic seconds, for intervals; never for anything that changes state, but for the decision that a
                partition is silent, which is written down.
            wall_clock_ms: Milliseconds since the epoch, for how long the state of earlier models is kept.
        """
        self._parts = replace(parts, routes=())  # a model that another replaced must not stay in memory
        self._source = parts.source
        self._metrics = parts.metrics
        self._stages = parts.stages
        self._settings = settings
        self._clock = clock
        rollouts = [each.rollout or RolloutParts(NoModels()) for each in parts.routes]
        self._routes = Routes(
            [
                Router(each.model, rollout.models.open_now, each.name)
                for each, rollout in zip(parts.routes, rollouts, strict=True)
            ]
        )
        self._checkpoint = Checkpoint(
            parts.delivery(settings),
            self._routes,
            snapshots,
            interval_s=settings.commit_interval_s,
            clock=clock,
            wall_clock_ms=wall_clock_ms,
        )
        restorer = Restorer()
        self._partitions = Partitions(
            parts.source,
            self._routes,
            self._checkpoint,
            restorer,
            StartRules(settings.recovery, start_at),
            Reporting(parts.metrics, parts.health, clock),
        )
        limits = HandoverLimits(settings.commit_interval_s, snapshots.pages_per_commit)
        self._rollouts = Rollouts(
            {
                router.name: Rollout(
                    rollout,
                    Member(router, self._partitions, self._checkpoint, restorer, RouteDecoder(parts.decoder, number)),
                    limits,
                    parts.metrics.of_route(router.name),
                    clock,
                )
                for number, (router, rollout) in enumerate(zip(self._routes, rollouts, strict=True))
            }
        )
        thread_min_events = settings.step_thread_min_events
        if thread_min_events is None:  # a poll that is half full says that more events wait
            thread_min_events = max(1, settings.max_poll_records // 2)
        self._stepper = Stepper[Sequence[ModelResult]](self._routes.step, thread_min_events=thread_min_events)
        self._upkeep = Upkeep(self._parts, self._routes, self._partitions, overdue_periods, clock)
        self._silent = SilentPartitions(
            Loop(lambda: self._stepper.busy, self._finish_step, self._publish_behind, self._commit, self._source.lag),
            self._routes,
            self._partitions,
            self._checkpoint,
            idle_s,
            clock,
            repeats=settings.delivery == "at_least_once",
        )
        self._stop = threading.Event()
        self._reset_due = False
        self._events = self._state_bytes = 0

    def stop(self) -> None:
        """Ask the loop to finish its iteration, commit and close."""
        self._stop.set()

    def run(self) -> None:
        """Run until `stop` or the source's end; always closes source, sink and store.

        Raises:
            TransportError: Source, sink or store failed. Nothing after the last commit counts; start again.
            RecoveryError: The state cannot be brought to the committed offset.
            StateError: Stored state is damaged.
            NoForecastError: The source ended, and there is no forecast although one is needed. The forecasts of an
                earlier run are unchanged.
        """
        parts = self._parts
        try:
            self._source.open(self)
            parts.health.started = True
            while not self._stop.is_set() and not self._source.exhausted:
                self._iterate()
            if self._parts.ends and self._source.exhausted:
                self._close_open_periods()
            self._drain()
            self._finish()
        finally:
            parts.health.restored = False
            self._stepper.close()
            self._source.close()
            parts.sink.close()
            self._rollouts.close()
            self._routes.close()
        log.info("closed after %d events of %d streams", self._events, self._upkeep.num_streams)

    def _finish(self) -> None:
        """Let the results replace those of an earlier run; a run without a forecast replaces no forecasts."""
        sink, summary = self._parts.sink, self._parts.summary
        if isinstance(sink, ReplacingSink):
            sink.finish(Channel if summary.forecasts else (Channel.DEAD_LETTERS,))
        if self._parts.needs_forecast and not summary.forecasts and self._source.exhausted:
            raise NoForecastError(f"{self._source.name}: no forecast; {summary.why_no_forecast()}")
        for line in summary.report(always=True):
            log.warning("%s", line)

    # One iteration.

    def _iterate(self) -> None:
        """Take one poll through the pipeline, and do what is due."""
        self._stages.begin()
        loading = self._partitions.loading
        wait_s = 0.0 if loading or self._stepper.busy or self._rollouts.busy else self._settings.poll_timeout_s
        polled = self._source.poll(self._settings.max_poll_records, wait_s)
        self._stages.lap("poll")
        self._parts.health.beat()
        try:
            if self._reset_due:
                self._reset_to_committed()
                return  # the records of this poll are read again
            self._leave_out(polled.left_out)
            if worked := len(polled) > 0:
                for part in self._silent.cut(polled):
                    self._process(part)
            else:
                worked = self._finish_step()
            self._advance_partitions(loading=loading)
            self._silent.advance()
            self._commit_if_due()
            if worked:
                self._stages.end()
        except TransactionAborted as error:
            log.warning("%s; resetting to the committed positions", error)
            self._reset_due = True
        self._upkeep.do_what_is_due(self._events, busy=self._stepper.busy)

    def _publish_behind(self, partition: int, results: Sequence[ModelResult], live: bool) -> None:
        """Publish results that no record of a poll has caused; they name the partition's last record."""
        if results:
            last = Polled.nothing_at(partition, self._checkpoint.position(partition) - 1)
            self._publish_results(last, (), np.full(1, live), results, {partition} if live else ())

    def _process(self, polled: Polled) -> None:
        """Decode a poll, step its events or begin to, and publish the results that there are."""
        started = self._clock()
        events, rejections = self._parts.decoder.decode(polled)
        publish = partial(self._publish, polled, rejections, self._partitions.are_live(polled), started)
        self._stages.lap("decode")
        self._leave_out(events.left_out)
        self._metrics.unmatched(events.unmatched)
        self._parts.summary.unmatched += events.unmatched
        self._silent.saw(polled, events)
        if len(events):
            self._metrics.covariates_masked(events.masked)
            self._stepper.step(events, publish)
        else:
            self._finish_step()
            publish(())

    def _leave_out(self, records: int) -> None:
        """Count records that the settings leave out."""
        if records:
            self._metrics.left_out(records)
            self._parts.summary.left_out += records

    def _finish_step(self) -> bool:
        """Wait for the step in flight and publish its results; return whether there was one."""
        return self._stepper.finish()

    def _publish(
        self,
        polled: Polled,
        rejections: Sequence[Rejection],
        live: npt.NDArray[np.bool_],
        started: float,
        results: Sequence[ModelResult],
    ) -> None:
        """Publish the results of a poll, and note its positions; only then is it part of a commit."""
        self._stages.lap("wait")
        self._publish_results(polled, rejections, live, results, self._partitions.reached(polled))
        self._parts.summary.polled(int(np.count_nonzero(live)))
        self._metrics.polled(len(polled), self._clock() - started)
        self._stages.lap("account")

    def _publish_results(
        self,
        polled: Polled,
        rejections: Sequence[Rejection],
        live: npt.NDArray[np.bool_],
        results: Sequence[ModelResult],
        reached: Collection[int],
    ) -> None:
        rejections = list(rejections)
        for model, events, result, route, taken in results:
            self._events += len(events)
            self._stages.add("step", result.stats.seconds)
            rejections += model.publisher.publish(polled, events, result, live, taken)
            self._rollouts.live_stepped(route, model, events, result)
        self._dead_letter(polled, [rejection for rejection in rejections if live[rejection.row]])
        self._checkpoint.processed(polled.partitions, polled.offsets, reached)

    def _close_open_periods(self) -> None:
        """Step and publish the periods that are open at the end of the input; nothing more can join them."""
        self._finish_step()
        for partition in self._partitions.owned:
            if (position := self._checkpoint.position(partition)) > 0:
                self._publish_behind(partition, self._routes.finish(partition, position - 1), True)

    def _dead_letter(self, polled: Polled, rejections: Sequence[Rejection]) -> None:
        rejections = one_a_record(rejections)
        if rejections:
            models = ",".join(model_name(router.default.engine.bundle.metadata) for router in self._routes)
            self._parts.dead_letters.publish(self._parts.sink, polled, rejections, models)
            self._parts.summary.dead_lettered(polled, rejections)
            for rejection in rejections:
                self._metrics.dead_lettered(rejection.reason)

    def _advance_partitions(self, *, loading: bool) -> None:
        """Go on loading stored state and following with other models, and notice partitions that went live."""
        if loading:
            self._finish_step()
            self._partitions.load(self._settings.poll_timeout_s if self._partitions.idle else _RESTORE_SLICE_S)
        self._partitions.note_live()
        self._rollouts.advance(self._finish_step)

    # Commits.

    def _commit_if_due(self) -> None:
        if self._rollouts.due:
            self._hand_over()
        elif self._checkpoint.due:
            if self._checkpoint.has_pages:
                self._finish_step()
            self._commit()
            self._stages.lap("commit")

    def _hand_over(self) -> None:
        """Commit, and let another model serve from the committed positions on where one has reached them."""
        self._finish_step()
        handovers = self._rollouts.handovers()
        if not any(handovers.values()) and not self._checkpoint.due:
            return
        self._commit(handovers=handovers)
        self._rollouts.handed_over(handovers)
        self._stages.lap("commit")

    def _commit(
        self,
        final: Sequence[int] = (),
        within_s: float | None = None,
        handovers: Handovers | None = None,
    ) -> None:
        started = self._clock()
        try:
            done = self._checkpoint.commit(
                self._partitions.live, final, within_s, pages=not self._stepper.busy, handovers=handovers
            )
        except TransportError:
            self._metrics.commit_failed()
            raise
        self._metrics.committed(self._clock() - started, done.pages, done.marks, done.retired)
        written = self._routes.bytes_staged
        self._metrics.state_written(written - self._state_bytes)
        self._state_bytes = written

    def _drain(self) -> None:
        """Commit everything that was published, at the end."""
        if self._reset_due:
            return  # a successor reads again what is not committed
        log.info("draining: committing what was published")
        try:
            self._finish_step()
            self._partitions.note_live()
            self._commit(final=self._partitions.owned)
        except TransactionAborted as error:
            log.warning("the last transaction aborted (%s); a successor reads its events again", error)

    def _reset_to_committed(self) -> None:
        """Go back to the committed positions and bring the state of every partition there."""
        self._reset_due = False
        self._stepper.discard()  # the events in flight are read again
        self._metrics.reset_to_committed()
        owned = self._partitions.owned
        if isinstance(self._parts.sink, TransactionalSink):
            self._parts.sink.abort()
        self._routes.discard()
        self._source.pause(owned)
        self._drop(owned)
        for number, position in self.on_assigned(self._source.assignments()).items():
            if position is not None:
                self._source.resume_from(number, position)

    # Partitions come and go (called by the source, from within `poll`).

    def on_assigned(self, assignments: Sequence[Assignment]) -> Mapping[int, int | None]:
        """Decide where to start reading, or begin to load the state first; see `settings.worker.recovery`.

        Raises:
            RecoveryError: The committed offset lies outside what the source still has.
        """
        return self._partitions.assign(assignments)

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """Commit while this member still owns the partitions, if that is done in time; then drop their state."""
        if not self._reset_due:
            try:
                self._finish_step()
                self._partitions.note_live()
                self._commit(final=partitions, within_s=self._settings.revoke_timeout_s)
            except (TransactionAborted, DeliveryError) as error:
                log.warning("revoked partitions %s were not committed (%s); they are read again", partitions, error)
                # An open transaction aborts as a whole, with the records of the partitions that stay.
                self._reset_due = isinstance(self._parts.sink, TransactionalSink)
        self._drop(partitions)
        log.info("revoked partitions %s; %d left", sorted(partitions), len(self._partitions.owned))

    def on_lost(self, partitions: Sequence[int]) -> None:
        """Drop partitions without a commit: another member may already own them."""
        if isinstance(self._parts.sink, TransactionalSink):
            # The open transaction has records of the lost partitions; the others are read again.
            self._reset_due = True
        else:
            self._finish_step()
        self._drop(partitions)
        log.warning("lost partitions %s without a chance to commit; their events are read again", sorted(partitions))

    def _drop(self, partitions: Sequence[int]) -> None:
        self._stepper.discard()  # events that are still in flight are read again
        self._rollouts.forget(partitions)
        self._checkpoint.forget(partitions)
        self._partitions.drop(partitions)
