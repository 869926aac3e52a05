"""Makes the lanes of one service: a model's engine, its publisher and its store, from the settings.

Owns: what of a lane is the model's own and what all lanes share (the sink, the metrics, the page). Does not know: where
bundles come from, or which of them serves. `prepare` may be called from any thread, `assemble` from the worker's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rillcast.bundle.bundle import Bundle
from rillcast.bundle.frequency import Frequency
from rillcast.codecs.connect import open_encoder
from rillcast.engine.batcher import Batching
from rillcast.engine.device import Device
from rillcast.engine.late import AllowedLateness
from rillcast.engine.residents import Limits
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import SettingsError
from rillcast.observability.forecast_cache import ForecastCache
from rillcast.observability.live_view import LiveView
from rillcast.observability.metrics import Metrics
from rillcast.observability.stages import StageClock
from rillcast.publishing.anomalies import AnomalyPublisher
from rillcast.publishing.changes import Changes
from rillcast.publishing.publisher import Policy, Publisher
from rillcast.serving.served_model import ServedModel
from rillcast.settings import Settings
from rillcast.stores.connect import open_store, require_room
from rillcast.transports.base import Sink

if TYPE_CHECKING:
    from rillcast.publishing.spans import Spans  # needs an extra


@dataclass(frozen=True, slots=True)
class Watchers:
    """What all lanes tell of their results.

    Attributes:
        board: the view for people.
        latest: the newest forecasts for programs; None = they are not kept.
        spans: what makes spans; None = nobody asked for them.
        stages: where the time goes.
    """

    board: LiveView
    latest: ForecastCache | None
    spans: Spans | None
    stages: StageClock


class ServedModelFactory:
    """See the module's docstring."""

    def __init__(self, settings: Settings, on: Device, sink: Sink, metrics: Metrics, watchers: Watchers) -> None:
        """Make nothing yet.

        Args:
            settings: of the service.
            on: where models live.
            sink: of the worker.
            metrics: of the worker.
            watchers: see there.
        """
        self._settings = settings
        self._on = on
        self._sink = sink
        self._metrics = metrics
        self._watchers = watchers

    def prepare(self, bundle: Bundle) -> StepEngine:
        """Return a model on its device, with no streams, as the settings want it.

        Raises:
            DeviceError: the device cannot run it.
            SettingsError: it lacks what the settings ask for, or its state is too large for them.
        """
        require_what_is_asked(self._settings, bundle)
        return make_engine(self._settings, bundle, self._on)

    def assemble(self, engine: StepEngine) -> ServedModel:
        """Return the lane of a prepared model.

        Raises:
            SettingsError, TransportError: see `open_encoder` and `open_store`.
        """
        settings, metadata, watchers = self._settings, engine.bundle.metadata, self._watchers
        tells = settings.anomalies.topic is not None or settings.anomalies.path is not None
        publisher = Publisher(
            self._sink,
            open_encoder(settings, metadata),
            engine.residents,
            self._metrics.of_model(metadata),
            policy=Policy(settings.publish.warming_up, settings.input.late, settings.publish.every, metadata.frequency),
            trace_context=settings.publish.trace_context,
            board=watchers.board,
            scores=metadata.scores,
            latest=watchers.latest,
            anomalies=AnomalyPublisher(self._sink, metadata, settings.anomalies.tail_probability) if tells else None,
            spans=watchers.spans,
            changes=Changes(metadata, settings.publish.on_change) if settings.publish.on_change else None,
            stages=watchers.stages,
        )
        return ServedModel(engine, publisher, open_store(settings, metadata, self._sink))


def make_engine(settings: Settings, bundle: Bundle, on: Device) -> StepEngine:
    """Return a model on its device, with no streams.

    Raises:
        DeviceError: the device cannot run it.
    """
    return StepEngine(
        bundle,
        on,
        batching=Batching(settings.worker.batch_rows, on.row_buckets(settings.worker.batch_rows)),
        limits=Limits(
            round(settings.state.idle_ttl_s * 1000),
            settings.state.max_streams_per_partition,
            settings.state.max_new_streams_per_s,
        ),
        calibrate=settings.calibration == "on",
        lateness=allowed_lateness(settings, bundle.metadata.frequency),
    )


def allowed_lateness(settings: Settings, frequency: Frequency) -> AllowedLateness | None:
    """Return how far streams go back; None = late events are not put into place."""
    given = settings.input
    return (
        AllowedLateness(given.allowed_lateness_periods, frequency, given.duplicates == "last_wins")
        if given.allowed_lateness_periods
        else None
    )


def require_what_is_asked(settings: Settings, bundle: Bundle) -> None:
    """Check a bundle against the settings.

    Raises:
        SettingsError: it does not rate observations, or its state is too large.
    """
    asked = settings.anomalies.topic is not None or settings.anomalies.path is not None
    if asked and not bundle.has_anomaly:
        raise SettingsError(
            f"{bundle.metadata.name}: the model has no output 'anomaly'; leave anomalies.topic and .path"
        )
    require_room(settings, bundle.metadata)
