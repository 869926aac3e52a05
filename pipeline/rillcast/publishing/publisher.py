"""Publishes the results of one model: forecasts to the sink, what there is to see to the observers.

Owns: which results may be published at all (of live events that advanced their streams), the size of the parts in which
forecasts are encoded and handed over, and which events become dead letters although they could be decoded. Does not
know: transports' names, codecs' bytes, commits, recovery, what filters and observers look at.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from rillcast.arrays import IntArray
from rillcast.bundle.bundle import Status
from rillcast.codecs.forecasts.columns import ForecastColumns, ForecastEncoder
from rillcast.codecs.observations.rejections import Reason, Rejection
from rillcast.engine.periods import RawOutcome, Taken
from rillcast.engine.step_engine import Outcome, SilentStreams, StepEngine, StepResult
from rillcast.events import EventBatch
from rillcast.observability.observer import Observer, Published, chosen, chosen_ids
from rillcast.observability.stages import StageClock
from rillcast.publishing.filters import Filter
from rillcast.publishing.revisions import with_revisions
from rillcast.publishing.trace_context import TraceContext
from rillcast.transports.base import Channel, Headers, Polled, Records, Sink

_ADVANCED: Final = np.array([status.advanced for status in Status])
# The encoder holds the interpreter. Larger parts keep the engine, which steps in another thread, waiting for it
# (`rillcast.service.stepper`), and the brokers for the first record.
_PART_ROWS: Final = 256


class Publisher:
    """Used from one thread."""

    def __init__(
        self,
        engine: StepEngine,
        output: ForecastOutput,
        filters: Sequence[Filter] = (),
        observers: Sequence[Observer] = (),
        late: Literal["dead_letter", "drop"] = "dead_letter",
        route: str = "",
    ) -> None:
        """Begin with nothing published.

        Args:
            engine: The model whose results are published.
            output: Takes the forecasts that pass.
            filters: Keep forecasts back; each sees what those before it let pass.
            observers: Get to see every batch, in this order.
            late: Whether a late event becomes a dead letter or is only counted.
            route: Name of the table of models that the model serves; empty for the only one.
        """
        self._engine = engine
        self._output = output
        self._filters = filters
        self._observers = observers
        self._late = late
        self._route = route

    def publish(
        self,
        polled: Polled,
        events: EventBatch,
        result: StepResult,
        live_records: npt.NDArray[np.bool_],
        taken: Taken | None = None,
    ) -> list[Rejection]:
        """Publish the forecasts of live events and return the events that become dead letters.

        Args:
            polled: The poll.
            events: The events of the poll that the model stepped.
            result: Their results.
            live_records: `(len(polled),)`, whether a record's results are published.
            taken: The raw events that `events` were aggregated from; None = they are the events of the poll.

        Raises:
            TransportError: The sink is broken.
        """
        live = live_records[events.rows]
        stepped = live & (result.outcome == Outcome.STEPPED)
        forecasts, causes = _forecasts(events, result, live, stepped)
        for each in self._filters:
            kept = each.keep(forecasts)
            if not kept.all():
                rows = np.flatnonzero(kept)
                forecasts, causes = forecasts.take(rows), causes[rows]
        written = self._output.write(polled, events.rows[causes], forecasts, result.stats.seconds)
        rejections = _rejections(events, result, late_are_dead=self._late == "dead_letter")
        if taken is not None:
            rejections += _raw_rejections(taken, late_are_dead=self._late == "dead_letter")
        if written.too_large:
            rejections += self._too_large(events, causes, written)
            kept = np.array([row not in written.too_large for row in range(len(causes))])
            forecasts, causes = forecasts.take(np.flatnonzero(kept)), causes[kept]
        published = Published(
            self._engine,
            polled,
            events,
            result,
            live,
            stepped,
            forecasts,
            causes,
            written.values,
            route=self._route,
            taken=taken,
            live_records=live_records,
        )
        for observer in self._observers:
            observer.observe(published)
        return rejections + published.rejections

    def _too_large(self, events: EventBatch, causes: IntArray, written: Written) -> list[Rejection]:
        """Return the events whose forecasts the sink does not take, each once."""
        found: dict[int, Rejection] = {}
        for row, size in written.too_large.items():
            event = int(causes[row])
            detail = (
                f"its forecast takes {size} bytes, and the topic of forecasts at most {written.limit} "
                f"(max.message.bytes, kafka.max_message_bytes); the state of stream {events.unique_ids[event]!r} has "
                f"the event"
            )
            found[event] = Rejection(int(events.rows[event]), Reason.FORECAST_TOO_LARGE, detail)
        return list(found.values())

    def serve(self) -> None:
        """Tell the observers that this model serves from now on."""
        for observer in self._observers:
            observer.serve(self._engine.bundle.metadata, self._route)

    def silent_streams(self, silent: SilentStreams) -> None:
        """Tell the observers which streams of this member are overdue, and which sleep."""
        for observer in self._observers:
            observer.silent_streams(silent, self._route)

    def look(self, partitions: Collection[int]) -> None:
        """Let the observers read the states of the live partitions of this model; no step may be in flight."""
        for observer in self._observers:
            observer.look(self._engine, partitions)

    def forget(self, partition: int) -> None:
        """Forget what was published of a partition that leaves, or is read again from its committed position."""
        for observer in self._observers:
            observer.forget(partition)
        self.hand_over(partition)

    def hand_over(self, partition: int) -> None:
        """Forget what filters keep of a partition: another model's forecasts are published from now on."""
        for each in self._filters:
            each.forget(partition)


class Written(NamedTuple):
    """What became of some forecasts.

    Attributes:
        values: The encoded forecasts that the sink has, in their order.
        too_large: Of the others, the row among all forecasts, and the bytes of the record.
        limit: Bytes of the largest record that the sink takes; None = it takes any.
    """

    values: list[bytes]
    too_large: dict[int, int]
    limit: int | None


class ForecastOutput:
    """The way of one model's forecasts to the sink. Used from one thread."""

    def __init__(
        self,
        sink: Sink,
        encoder: ForecastEncoder,
        trace: TraceContext | None = None,
        stages: StageClock | None = None,
    ) -> None:
        """Begin with nothing published.

        Args:
            sink: Takes the records, as `Channel.FORECASTS`.
            encoder: Turns forecasts into keys and values.
            trace: Gives each forecast the trace headers of its observation; None = forecasts have no headers.
            stages: The stop-watch of the loop, for the stages `encode` and `produce`.
        """
        self._sink = sink
        self._encoder = encoder
        self._trace = trace
        self._stages = stages or StageClock()

    def write(self, polled: Polled, records: IntArray, forecasts: ForecastColumns, seconds: float) -> Written:
        """Encode forecasts and hand those to the sink that it takes.

        Args:
            polled: The poll of their events.
            records: `(m,)` int64, the record of the poll that caused each forecast.
            forecasts: The `m` forecasts.
            seconds: Seconds that their step took, up to now.

        Raises:
            TransportError: The sink is broken.
        """
        headers = None if self._trace is None else self._trace.headers(polled, records, forecasts, seconds)
        limit, first = self._sink.largest_record(Channel.FORECASTS), 0
        written = Written([], {}, limit)
        per = self._encoder.records_per_forecast
        for part in forecasts.parts(_PART_ROWS):
            keys, values = self._encoder.encode(part)
            whole = self._encoder.whole(part, values)
            self._stages.lap("encode")
            part_headers = None if headers is None else _each(headers[first : first + len(part)], per)
            sources = part.partitions if per == 1 else np.repeat(part.partitions, per)
            encoded = Records(keys, values, part_headers, sources=sources)
            if limit is not None:
                _, sizes = encoded.within(limit)
                too_large: dict[int, int] = {}
                for record, size in sizes.items():
                    too_large.setdefault(record // per, size)
                if too_large:
                    kept = [row for row in range(len(part)) if row not in too_large]
                    encoded = _of_forecasts(encoded, kept, per)
                    whole = [whole[row] for row in kept]
                    written.too_large.update({first + row: size for row, size in too_large.items()})
            first += len(part)
            written.values.extend(whole)
            self._sink.publish(Channel.FORECASTS, encoded)
            self._stages.lap("produce")
        return written


def _each(headers: list[Headers], per: int) -> list[Headers]:
    """Return the headers of each forecast once for each of its records."""
    return headers if per == 1 else [each for each in headers for _ in range(per)]


def _of_forecasts(records: Records, kept: Sequence[int], per: int) -> Records:
    """Return the records of some forecasts, each of which has `per`."""
    return records.take([row * per + record for row in kept for record in range(per)])


def _forecasts(
    events: EventBatch, result: StepResult, live: npt.NDArray[np.bool_], stepped: npt.NDArray[np.bool_]
) -> tuple[ForecastColumns, IntArray]:
    """Return the forecasts that may be published, and the event that caused each."""
    rows = chosen(stepped & _ADVANCED[result.status])
    forecasts = ForecastColumns(
        unique_ids=chosen_ids(rows, events.unique_ids),
        ds=events.ds[rows],
        status=result.status[rows],
        forecast=result.forecast[rows],
        anomaly=None if result.anomaly is None else result.anomaly[rows],
        partitions=events.partitions[rows],
        offsets=events.offsets[rows],
        revision=None if result.revision is None else result.revision[rows],
    )
    causes = np.arange(len(events), dtype=np.int64)[rows]
    if result.revised is None:
        return forecasts, causes
    return with_revisions(forecasts, causes, result.revised, live[result.revised.rows], events)


def _rejections(events: EventBatch, result: StepResult, *, late_are_dead: bool) -> list[Rejection]:
    """Return the events that could be decoded but not used."""
    late = (result.status == Status.LATE) & late_are_dead
    if not late.any() and not result.outcome.any():
        return []
    late &= result.outcome == Outcome.STEPPED
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
        else:
            reason, detail = _too_many(unique_id, at_once=bool(at_once[row]))
        rejections.append(Rejection(int(events.rows[row]), reason, detail))
    return rejections


def _raw_rejections(taken: Taken, *, late_are_dead: bool) -> list[Rejection]:
    """Return the raw events that could be decoded but joined no period."""
    events, outcome = taken.events, taken.outcome
    refused = (outcome == RawOutcome.TOO_MANY_STREAMS) | (outcome == RawOutcome.TOO_MANY_NEW_STREAMS)
    if late_are_dead:
        refused |= outcome == RawOutcome.LATE
    rejections = []
    for row in np.flatnonzero(refused).tolist():
        unique_id = events.unique_ids[row]
        if outcome[row] == RawOutcome.LATE:
            reason, detail = Reason.LATE, f"ds {events.ds[row]} lies in a period of stream {unique_id!r} that is closed"
        else:
            reason, detail = _too_many(unique_id, at_once=bool(outcome[row] == RawOutcome.TOO_MANY_NEW_STREAMS))
        rejections.append(Rejection(int(events.rows[row]), reason, detail))
    return rejections


def _too_many(unique_id: str, *, at_once: bool) -> tuple[Reason, str]:
    if at_once:
        detail = f"stream {unique_id!r} is new, and this second brought state.max_new_streams_per_s already"
        return Reason.TOO_MANY_NEW_STREAMS, detail
    detail = f"stream {unique_id!r} is new, and its partition has state.max_streams_per_partition already"
    return Reason.TOO_MANY_STREAMS, detail
