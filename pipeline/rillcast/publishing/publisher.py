"""What the world is told of a poll's results: forecasts to the sink, figures to the metrics, the board its view.

Owns: which results are published (live events that advanced their stream, but for what the policy keeps back), and
which become dead letters although they could be read. Does not know: transports' names, commits, recovery.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt

from rillcast.arrays import IntArray, StatusArray
from rillcast.bundle.bundle import Status
from rillcast.bundle.frequency import Frequency
from rillcast.codecs.forecasts.columns import ForecastColumns, ForecastEncoder
from rillcast.codecs.observations.rejections import Reason, Rejection
from rillcast.engine.residents import Residents
from rillcast.engine.step_engine import Outcome, StepResult
from rillcast.events import EventBatch
from rillcast.observability.counted import Counted
from rillcast.observability.forecast_cache import ForecastCache
from rillcast.observability.live_view import LiveView
from rillcast.observability.metrics import Metrics, latency_sample
from rillcast.observability.stages import StageClock
from rillcast.publishing.anomalies import AnomalyPublisher
from rillcast.publishing.changes import Changes
from rillcast.publishing.revisions import with_revisions
from rillcast.publishing.trace_context import carried
from rillcast.transports.base import Channel, Polled, Records, Sink

if TYPE_CHECKING:
    from rillcast.publishing.spans import Spans  # needs an extra

# So many rows are encoded and handed over at once: longer turns of the encoder, which does not let go of the
# interpreter, would keep the engine waiting for it (`rillcast.service.stepper`), and the brokers for the first record.
_PART_ROWS: Final = 256
_MILLISECONDS: Final = Frequency(1)
_ADVANCED: Final = np.array([status.advanced for status in Status])


@dataclass(frozen=True, slots=True)
class Policy:
    """What is not published although it could be; whatever is chosen, states and counts are the same.

    Attributes:
        warming_up: whether forecasts of streams that know fewer slots than the model's context are published.
        late: whether a late event becomes a dead letter, or is only counted.
        every: only forecasts from slots whose number since the epoch is a multiple of it are published: a function of
            the event alone, so that a replay publishes the same ones.
        frequency: of the slots.
    """

    warming_up: bool = True
    late: Literal["dead_letter", "drop"] = "dead_letter"
    every: int = 1
    frequency: Frequency = _MILLISECONDS


class Publisher:
    """Used from one thread."""

    def __init__(
        self,
        sink: Sink,
        encoder: ForecastEncoder,
        residents: Residents,
        metrics: Metrics,
        *,
        policy: Policy | None = None,
        trace_context: bool = False,
        board: LiveView | None = None,
        scores: Sequence[str] | None = None,
        latest: ForecastCache | None = None,
        anomalies: AnomalyPublisher | None = None,
        changes: Changes | None = None,
        spans: Spans | None = None,
        stages: StageClock | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Begin with nothing published.

        Args:
            sink: where forecasts go.
            encoder: of forecasts.
            residents: whose number and size are reported.
            metrics: counts.
            policy: what is not published; None = the defaults.
            trace_context: whether a forecast gets the trace headers of its observation.
            board: the view for people, if there is one.
            scores: names of the model's scores, if they are not those of the board's.
            latest: the newest forecasts for programs, if they are kept.
            anomalies: what anomalous observations are told to, if they are published.
            spans: what makes spans of traced observations, if they are asked for.
            changes: what decides whether a forecast has moved, if only those that have are published.
            stages: where the time goes.
            wall_clock: seconds since the epoch, for the age of events; never for anything that changes state.
        """
        self._sink = sink
        self._encoder = encoder
        self._policy = policy or Policy()
        self._trace_context = trace_context
        self._published = _ADVANCED.copy()
        self._published[Status.WARMING_UP] = self._policy.warming_up
        self._residents = residents
        self._metrics = metrics
        self._board = board
        self._scores = scores
        self._latest = latest
        self._anomalies = anomalies
        self._changes = changes
        self._spans = spans
        self._stages = stages or StageClock()
        self._wall_clock = wall_clock
        self._counted = Counted()

    def publish(
        self, polled: Polled, events: EventBatch, result: StepResult, live_records: npt.NDArray[np.bool_]
    ) -> list[Rejection]:
        """Publish the forecasts of live events and return the events that become dead letters.

        Args:
            polled: the poll.
            events: what was decoded of it.
            result: what the engine made of the events.
            live_records: `(len(polled),)`, whether a record's results are to be published.
        """
        stepped = result.outcome == Outcome.STEPPED
        live = live_records[events.rows]
        self._metrics.replayed(int(np.count_nonzero(~live)))
        self._metrics.skipped(int(np.count_nonzero(result.outcome == Outcome.ALREADY_APPLIED)))
        wanted = live & stepped & self._wanted(events.ds, result.status)
        rows, unique_ids = _chosen(wanted, events.unique_ids)
        columns = ForecastColumns(
            unique_ids=unique_ids,
            ds=events.ds[rows],
            status=result.status[rows],
            forecast=result.forecast[rows],
            anomaly=None if result.anomaly is None else result.anomaly[rows],
            partitions=events.partitions[rows],
            offsets=events.offsets[rows],
            revision=None if result.revision is None else result.revision[rows],
        )
        causes = events.rows[rows]
        if (revised := result.revised) is not None:
            kept = live[revised.rows] & self._wanted(revised.ds, revised.status)
            columns, causes = with_revisions(columns, np.arange(len(events))[rows], revised, kept, events)
            self._metrics.revised(int(np.count_nonzero(kept)))
        if self._changes is not None:
            columns, causes = self._moved(self._changes, columns, causes)
        headers = carried(polled, causes.tolist()) if self._trace_context else None
        if self._spans is not None and headers is not None:
            headers = self._spans.of_forecasts(columns, headers, result.stats.seconds)
        for number, part in enumerate(columns.parts(_PART_ROWS)):
            keys, values = self._encoder.encode(part)
            self._stages.lap("encode")
            if self._latest is not None:
                self._latest.update(part.partitions, part.unique_ids, values)
            first = number * _PART_ROWS
            of_part = None if headers is None else headers[first : first + len(part)]
            self._sink.publish(Channel.FORECASTS, Records(keys, values, of_part))
            self._stages.lap("produce")
        self._metrics.published(len(columns))
        if self._anomalies is not None:
            self._tell(self._anomalies, polled, events, result, live & stepped & self._published[result.status])
        self._show(polled, events, result, live & stepped, live_records)
        return _rejections(events, result, stepped, late_are_dead=self._policy.late == "dead_letter")

    def _moved(self, changes: Changes, columns: ForecastColumns, causes: IntArray) -> tuple[ForecastColumns, IntArray]:
        """Return the forecasts that have moved, and the record of the poll that caused each."""
        moved = changes.moved(columns)
        self._metrics.unchanged(int(np.count_nonzero(~moved)))
        if moved.all():
            return columns, causes
        rows = np.flatnonzero(moved).astype(np.int64)
        return columns.take(rows), causes[rows]

    def _tell(
        self,
        anomalies: AnomalyPublisher,
        polled: Polled,
        events: EventBatch,
        result: StepResult,
        eligible: npt.NDArray[np.bool_],
    ) -> None:
        rows = anomalies.choose(result, eligible)
        if rows.size:
            headers = carried(polled, events.rows[rows].tolist()) if self._trace_context else None
            anomalies.publish(events, result, rows, headers)
            self._metrics.anomalies_published(rows.size)

    def forget(self, partition: int) -> None:
        """Forget what was published of a partition that goes, or is read again from its committed position."""
        if self._latest is not None:
            self._latest.forget(partition)
        if self._changes is not None:
            self._changes.forget(partition)

    def hand_over(self, partition: int) -> None:
        """Forget what forecasts are compared with: another model's are published from now on."""
        if self._changes is not None:
            self._changes.forget(partition)

    def _wanted(self, ds: IntArray, status: StatusArray) -> npt.NDArray[np.bool_]:
        """Return for each forecast whether the policy lets it out."""
        wanted: npt.NDArray[np.bool_] = self._published[status]
        if self._policy.every > 1:
            wanted &= self._policy.frequency.period_of(ds) % self._policy.every == 0
        return wanted

    def _show(
        self,
        polled: Polled,
        events: EventBatch,
        result: StepResult,
        to_show: npt.NDArray[np.bool_],
        live_records: npt.NDArray[np.bool_],
    ) -> None:
        seen, unique_ids = _chosen(to_show, events.unique_ids)
        score = None if result.score is None else result.score[seen]
        anomaly = None if result.anomaly is None else result.anomaly[seen]
        new = self._counted.new(events.partitions[seen], events.offsets[seen])
        count = slice(None) if new.all() else new
        self._metrics.stepped(
            result.stats,
            result.status[seen][count],
            None if score is None else score[count],
            None if anomaly is None else anomaly[count],
        )
        self._metrics.residents(self._residents.num_streams, self._residents.size_bytes)
        ages = latency_sample(polled.timestamps_ms[live_records], self._wall_clock())
        self._metrics.latency(ages)
        if self._board is not None:
            if result.late is not None and result.late.any():
                # The board shows events as they come, the newest last: those of the past are left out.
                seen = np.flatnonzero(to_show & ~result.late)
                unique_ids = [events.unique_ids[row] for row in seen.tolist()]
                score = None if result.score is None else result.score[seen]
                anomaly = None if result.anomaly is None else result.anomaly[seen]
            self._board.update(
                unique_ids,
                events.ds[seen],
                events.y[seen],
                result.status[seen],
                result.forecast[seen],
                score,
                anomaly,
                self._residents.num_streams,
                self._scores,
            )
            self._board.record_latency(ages)


def _chosen(mask: npt.NDArray[np.bool_], unique_ids: Sequence[str]) -> tuple[slice | IntArray, Sequence[str]]:
    """Return the rows that are chosen, and their ids; mostly all of them are, and then nothing is copied."""
    if mask.all():
        return slice(None), unique_ids
    rows = np.flatnonzero(mask)
    return rows, [unique_ids[row] for row in rows.tolist()]


def _rejections(
    events: EventBatch, result: StepResult, stepped: npt.NDArray[np.bool_], *, late_are_dead: bool
) -> list[Rejection]:
    """Return the events that could be read but not used."""
    late = stepped & (result.status == Status.LATE) & late_are_dead
    quarantined = result.outcome == Outcome.QUARANTINED
    refused = result.outcome == Outcome.TOO_MANY_STREAMS
    at_once = result.outcome == Outcome.TOO_MANY_NEW_STREAMS
    rejections = []
    for row in np.flatnonzero(late | quarantined | refused | at_once).tolist():
        unique_id = events.unique_ids[row]
        if late[row]:
            reason, detail = Reason.LATE, f"ds {events.ds[row]} lies before the last event of stream {unique_id!r}"
        elif quarantined[row]:
            reason = Reason.QUARANTINED
            detail = f"y {events.y[row]:g} would have left stream {unique_id!r} without a usable state or forecast"
        elif at_once[row]:
            reason = Reason.TOO_MANY_NEW_STREAMS
            detail = f"stream {unique_id!r} is new, and this second brought state.max_new_streams_per_s already"
        else:
            reason = Reason.TOO_MANY_STREAMS
            detail = f"stream {unique_id!r} is new, and its partition has state.max_streams_per_partition already"
        rejections.append(Rejection(int(events.rows[row]), reason, detail))
    return rejections
