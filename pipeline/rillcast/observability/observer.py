"""The protocol of those who watch the results of a service, and what they get to see.

Owns: `Observer` and `Published`. Does not know: who observes, or why a forecast was kept back.

Invariant: no forecast depends on an observer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from rillcast.arrays import IntArray
from rillcast.bundle.alarms import CHANGES
from rillcast.bundle.bundle import BundleMetadata
from rillcast.codecs.forecasts.columns import ForecastColumns
from rillcast.codecs.observations.rejections import Rejection
from rillcast.engine.late import AlarmChange
from rillcast.engine.overdue import OverdueChange
from rillcast.engine.periods import RawOutcome, Taken
from rillcast.engine.step_engine import SilentStreams, StepEngine, StepResult
from rillcast.events import EventBatch
from rillcast.transports.base import Polled


@dataclass(frozen=True, slots=True)
class Published:
    """The events of a poll that one model stepped, their results, and the forecasts that were published of them.

    Attributes:
        engine: The model and its streams.
        polled: The poll that the events were decoded from.
        events: The `n` events.
        result: Row `i` belongs to event `i`.
        live: `(n,)` bool; False for events that a recovery steps again, whose results are not published.
        stepped: `(n,)` bool, the live events that were stepped.
        forecasts: The `m` forecasts that were handed to the sink.
        causes: `(m,)` int64, the event that caused each forecast.
        values: The `m` encoded forecasts.
        route: Name of the table of models that the model serves; empty for the only one.
        taken: The raw events that the events were aggregated from; None where events are not aggregated.
        live_records: `(len(polled),)` bool, like `live` for each record of the poll.
        rejections: Observers add the records of which they could not publish something.
    """

    engine: StepEngine
    polled: Polled
    events: EventBatch
    result: StepResult
    live: npt.NDArray[np.bool_]
    stepped: npt.NDArray[np.bool_]
    forecasts: ForecastColumns
    causes: IntArray
    values: Sequence[bytes]
    route: str = ""
    taken: Taken | None = None
    live_records: npt.NDArray[np.bool_] | None = None
    rejections: list[Rejection] = field(default_factory=list)

    def raw(self, outcome: RawOutcome) -> IntArray:
        """Return the rows of the live raw events with an outcome."""
        if self.taken is None or self.live_records is None:
            return np.empty(0, np.int64)
        found = (self.taken.outcome == outcome) & self.live_records[self.taken.events.rows]
        return np.flatnonzero(found)

    def causes_of(self, rows: IntArray) -> list[tuple[int, str]]:
        """Return the record of the poll and the stream of some events."""
        unique_ids = self.events.unique_ids
        return list(zip(self.events.rows[rows].tolist(), [unique_ids[row] for row in rows.tolist()], strict=True))

    @property
    def alarm_changes(self) -> list[AlarmChange]:
        """The alarms that open or close by live events, or in the past that one of these corrects, in their order."""
        events, alarm = self.events, self.result.alarm
        found = [each for each in self.result.corrected_alarms if self.stepped[each.row]]
        if alarm is not None:
            rows = np.flatnonzero(self.stepped & np.isin(alarm[:, 0], list(CHANGES)))
            found += [AlarmChange(row, int(events.ds[row]), alarm[row]) for row in rows.tolist()]
        return sorted(found, key=attrgetter("row"))  # an event brings changes of one of these kinds

    @property
    def overdue(self) -> list[OverdueChange]:
        """The streams that fell silent or woke by live records."""
        live = self.live_records
        return [each for each in self.result.overdue if live is None or live[each.row]]

    @property
    def metadata(self) -> BundleMetadata:
        """The model's description."""
        return self.engine.bundle.metadata


class Observer:
    """Watches the results of all models of a service. Called from the thread of the loop."""

    def observe(self, published: Published) -> None:
        """Take in the results of some events."""
        raise NotImplementedError

    def forget(self, partition: int) -> None:
        """Forget a partition that leaves, or is read again from its committed position."""

    def silent_streams(self, silent: SilentStreams, route: str = "") -> None:
        """Note which streams of a route are overdue in their partitions, and which aggregated ones sleep."""

    def look(self, engine: StepEngine, partitions: Collection[int]) -> None:
        """Read what is of interest in the states of a model's live partitions; called now and then, between steps."""

    def serve(self, metadata: BundleMetadata, route: str = "") -> None:
        """Note the model that serves a route from now on."""


def chosen(mask: npt.NDArray[np.bool_]) -> slice | IntArray:
    """Return the rows where `mask` holds; where it holds for all of them, a slice, so that columns are not copied."""
    return slice(None) if mask.all() else np.flatnonzero(mask)


def chosen_ids(rows: slice | IntArray, unique_ids: Sequence[str]) -> Sequence[str]:
    """Return the ids of the rows that `chosen` returned."""
    return unique_ids if isinstance(rows, slice) else [unique_ids[row] for row in rows.tolist()]
