"""Makes the served models of one service from the settings: engine, publisher and store.

Owns: which parts belong to one model and which are shared by all (the sink and the observers). Does not know: where
bundles come from, or which model serves. Any thread may call `prepare`; only the worker's may call `assemble`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rillcast.bundle import trained_aggregate
from rillcast.bundle.bundle import Bundle, BundleMetadata
from rillcast.bundle.frequency import Frequency
from rillcast.codecs.connect import open_encoder, published_part
from rillcast.codecs.forecasts.columns import model_name
from rillcast.engine.device import Device
from rillcast.engine.late import AllowedLateness
from rillcast.engine.periods import value_of_empty
from rillcast.engine.residents import Limits
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import SettingsError
from rillcast.observability.metrics import Metrics
from rillcast.observability.observer import Observer
from rillcast.observability.stages import StageClock
from rillcast.publishing.changes import Changes
from rillcast.publishing.filters import Filter, Policy
from rillcast.publishing.publisher import ForecastOutput, Publisher
from rillcast.publishing.trace_context import TraceContext
from rillcast.serving.served_model import ServedModel
from rillcast.settings import InputSettings, Settings
from rillcast.stores.connect import aggregation_of, codec_of, open_store, require_room, watched_overdue
from rillcast.transports.base import Sink

if TYPE_CHECKING:
    from rillcast.publishing.spans import Spans  # needs an extra


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Observers:
    """The observers that all served models of a worker share.

    Attributes:
        metrics: The series of the worker.
        others: Further observers of results, in their order.
        stages: The stop-watch of the loop.
        spans: Makes spans of traced observations; None = none are made.
    """

    metrics: Metrics
    others: Sequence[Observer] = ()
    stages: StageClock | None = None
    spans: Spans | None = None


class ServedModelFactory:
    """See the module's docstring."""

    def __init__(self, settings: Settings, on: Device, sink: Sink, observers: Observers, route: str = "") -> None:
        """Make nothing yet.

        Args:
            settings: The settings of a service with the models of one route alone.
            on: The device of the models.
            sink: The sink of the worker.
            observers: Observe the results of every model.
            route: Name of the table of models; empty for the only one.
        """
        self._settings = settings
        self._on = on
        self._sink = sink
        self._observers = observers
        self._route = route

    def prepare(self, bundle: Bundle) -> StepEngine:
        """Return a model on its device, without streams, checked against the settings.

        Raises:
            DeviceError: The device cannot run it.
            SettingsError: See `require_supported`.
        """
        require_supported(self._settings, bundle)
        if (why := _aggregate_doubt(self._settings.input, bundle.metadata)) is not None:
            log.warning("%s", why)
        return make_engine(self._settings, bundle, self._on)

    def assemble(self, engine: StepEngine) -> ServedModel:
        """Return a prepared model with its publisher and its store.

        Raises:
            SettingsError, TransportError: See `open_encoder` and `open_store`.
        """
        settings, metadata, observers = self._settings, engine.bundle.metadata, self._observers
        observers.metrics.expect(metadata)
        publisher = Publisher(
            engine,
            ForecastOutput(self._sink, open_encoder(settings, metadata), self._trace(metadata), observers.stages),
            self._filters(metadata),
            [observers.metrics, *observers.others],
            settings.input.late,
            self._route,
        )
        return ServedModel(engine, publisher, open_store(settings, metadata, self._sink, self._route))

    def _filters(self, metadata: BundleMetadata) -> list[Filter]:
        publish = self._settings.publish
        policy = Policy(warming_up=publish.warming_up, every=publish.every, frequency=metadata.frequency)
        if not publish.on_change:
            return [policy]
        last = int(published_part(self._settings, metadata).steps[-1])  # readers have no later step to compare
        seen = metadata.model_copy(update={"horizon": last})
        return [policy, Changes(seen, publish.on_change, self._observers.metrics.unchanged)]

    def _trace(self, metadata: BundleMetadata) -> TraceContext | None:
        if not self._settings.publish.trace_context:
            return None
        return TraceContext(model_name(metadata), self._observers.spans)


def make_engine(settings: Settings, bundle: Bundle, on: Device) -> StepEngine:
    """Return a model on its device, without streams.

    Raises:
        DeviceError: The device cannot run it.
    """
    return StepEngine(
        bundle,
        on,
        batching=on.batching(settings.worker.batch_rows),
        limits=Limits(
            round(settings.state.idle_ttl_s * 1000),
            settings.state.max_streams_per_partition,
            settings.state.max_new_streams_per_s,
            settings.state.initial_streams,
            codec_of(settings, bundle.metadata).page_slots,
        ),
        calibrate=settings.calibration == "on",
        bounds=settings.publish.bounds == "auto",
        alarms=settings.alarms.per_stream,
        overdue_periods=watched_overdue(settings),
        lateness=allowed_lateness(settings, bundle.metadata.frequency),
        aggregation=aggregation_of(settings.input, bundle.metadata),
    )


def allowed_lateness(settings: Settings, frequency: Frequency) -> AllowedLateness | None:
    """Return which late events are applied; None = none are."""
    given = settings.input
    if not given.allowed_lateness_periods:
        return None
    last_wins = given.duplicates == "last_wins" or given.aggregate != "none"  # a corrected aggregate replaces the first
    return AllowedLateness(given.allowed_lateness_periods, frequency, last_wins)


def require_supported(settings: Settings, bundle: Bundle) -> None:
    """Check that a bundle has the outputs that the settings need, and that its state fits.

    Raises:
        SettingsError: It lacks an output, a level or a step that is to be published, observations cannot be
            aggregated, or its state is too large.
    """
    metadata = bundle.metadata
    published_part(settings, metadata)
    _require_aggregate(settings, metadata)
    needed = settings.anomalies.topic is not None or settings.anomalies.path is not None
    if needed and not bundle.has_anomaly:
        raise SettingsError(
            f"{metadata.name}: the model has no output 'anomaly'; unset "
            f"anomalies.topic and anomalies.path, or serve a model that was exported with it"
        )
    if (settings.alarms.topic is not None or settings.alarms.path is not None) and not bundle.has_alarm:
        lacking = f"{metadata.name}: the model has no output 'alarm'"
        serve = "a bundle of experts (rillcast universal export) or a network of `rillcast train --alarms`"
        if not watched_overdue(settings):
            raise SettingsError(f"{lacking}; unset alarms.topic and alarms.path, or serve {serve}")
        log.warning("%s, so the only alarms are silences of streams; serve %s for the others", lacking, serve)
    require_room(settings, metadata)


def _require_aggregate(settings: Settings, metadata: BundleMetadata) -> None:
    given = settings.input
    aggregation_of(given, metadata)
    if (why := trained_aggregate.contradiction(metadata, given.aggregate)) is not None:
        raise SettingsError(f"input.aggregate is {given.aggregate!r}: {why}; set it as the model was trained")


def _aggregate_doubt(given: InputSettings, metadata: BundleMetadata) -> str | None:
    empty = "missing" if given.aggregate == "none" else value_of_empty(given.aggregate, given.empty)
    return trained_aggregate.doubt(metadata, given.aggregate, empty)
