"""What is counted of one table of models (`rillcast.serving.routes`): its results, and its roll-outs.

Owns: the series of a table, and which of its events were counted. Does not know: the registry of the series.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias, get_args

from rillcast.arrays import FloatArray
from rillcast.bundle.bundle import BundleMetadata, Status
from rillcast.engine.periods import RawOutcome
from rillcast.observability.score_counters import ScoreCounters

Role: TypeAlias = Literal["live", "shadow"]
Swap: TypeAlias = Literal["started", "completed", "failed", "refused"]
_FOLLOWING: Final = ("rillcast_model_warm_up_lag_records", "rillcast_model_warm_up_partitions")


class RouteMetrics:
    """Used from the thread of the loop, but for `registry_error`.

    Attributes:
        events: Counts events, in the order of `Status`.
        raw: Counts raw events by their outcome.
        forecasts: Counts forecasts.
        evicted: Counts evicted streams.
        calls: Counts calls of the model.
        streams: Number of streams that have state.
        split_streams: Number of streams that have state in more than one partition.
        state_bytes: Bytes of state on the device.
        counted_to: By partition, the offset up to which events are counted; kept for good, since it may come back.
        raw_counted_to: The same of raw events.
    """

    def __init__(self, of: Callable[..., Any], series: Mapping[str, Any], route: str) -> None:
        """Show the series from 0, so that `rate()` sees their first increase.

        Args:
            of: Returns a series by its name, route and labels.
            series: All series by name.
            route: Name of the table; empty for the only model.
        """
        self._of = of
        self._series = series
        self._route = route
        self.events = [of("rillcast_events_total", route, status.name.lower()) for status in Status]
        self.raw = {each: of("rillcast_raw_events_total", route, each.name.lower()) for each in RawOutcome}
        self.forecasts = of("rillcast_forecasts_total", route)
        self.evicted = of("rillcast_evicted_streams_total", route)
        self.calls = of("rillcast_model_calls_total", route)
        self.streams = of("rillcast_streams", route)
        self.split_streams = of("rillcast_split_streams", route)
        self.state_bytes = of("rillcast_state_bytes", route)
        self.counted_to: dict[int, int] = {}
        self.raw_counted_to: dict[int, int] = {}
        for outcome in get_args(Swap):
            of("rillcast_model_swaps_total", route, outcome)
        for name in ("rillcast_shadow_drops_total", "rillcast_model_registry_errors_total"):
            of(name, route)
        self._compared: dict[tuple[Role, str], ScoreCounters] = {}

    def swap(self, outcome: Swap) -> None:
        """Count an event of a roll-out."""
        self._of("rillcast_model_swaps_total", self._route, outcome).inc()

    def shadow_dropped(self) -> None:
        """Count that the shadow failed and was unloaded."""
        self._of("rillcast_shadow_drops_total", self._route).inc()

    def registry_error(self) -> None:
        """Count a look-up in the registry that failed; may be called from any thread."""
        self._of("rillcast_model_registry_errors_total", self._route).inc()

    def swap_pending(self, seconds: float, *, refused: bool) -> None:
        """Set for how many seconds the wanted model has not served all partitions yet, and whether it was refused."""
        self._of("rillcast_model_swap_pending_seconds", self._route).set(seconds)
        self._of("rillcast_model_refused", self._route).set(int(refused))

    def following(self, model_id: str, lag: int, partitions: int) -> None:
        """Set the lag of a model that follows the serving one, in records, and the partitions that it follows."""
        for name, value in zip(_FOLLOWING, (lag, partitions), strict=True):
            self._of(name, self._route, model_id).set(value)

    def not_following(self, model_id: str) -> None:
        """Drop the series of a model that no longer follows."""
        labels = (model_id, self._route) if self._route else (model_id,)  # another table may follow the same model
        for name in _FOLLOWING:
            with contextlib.suppress(KeyError):  # it has not followed yet
                self._series[name].remove(*labels)

    def compared(self, role: Role, metadata: BundleMetadata, score: FloatArray) -> None:
        """Add the scores of a model for events by which two models are compared."""
        key = role, metadata.model_id
        if key not in self._compared:
            self._compared[key] = ScoreCounters(self._series, metadata.scores, "rillcast_compared_", key)
        self._compared[key].add(score)
