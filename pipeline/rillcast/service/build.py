"""Puts one worker together from the settings: transports, engine, metrics, probes, page.

Owns the choice of parts and nothing else; every part is tested on its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from rillcast.bundle.bundle import Bundle, BundleMetadata
from rillcast.bundle.registry import reference
from rillcast.bundle.registry.reference import Reference
from rillcast.codecs.connect import open_decoder
from rillcast.codecs.forecasts.columns import model_name
from rillcast.engine import device
from rillcast.errors import SettingsError
from rillcast.observability.forecast_cache import ForecastCache
from rillcast.observability.health import Health
from rillcast.observability.live_view import LiveView
from rillcast.observability.metrics import Metrics
from rillcast.observability.server import HttpServer
from rillcast.observability.stages import StageClock
from rillcast.publishing.dead_letters import DeadLetters
from rillcast.rollout.registry_watcher import Asked, RegistryWatcher
from rillcast.rollout.rollout import RolloutParts
from rillcast.service.garbage_collection import sparing
from rillcast.service.worker import Parts, Worker
from rillcast.serving.factory import ServedModelFactory, Watchers, make_engine, require_what_is_asked
from rillcast.serving.served_model import ServedModel
from rillcast.settings import Settings, WorkerSettings
from rillcast.stores.connect import prepare_store
from rillcast.transports.base import Source
from rillcast.transports.connect import chosen_client, open_history, open_sink, open_source

if TYPE_CHECKING:
    from rillcast.publishing.spans import Spans  # needs an extra

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """A worker and what watches it."""

    worker: Worker
    board: LiveView
    health: Health
    registry: CollectorRegistry
    server: HttpServer | None
    spans: Spans | None = None

    def run(self) -> None:
        """Serve HTTP, if that is on, and run the worker to its end.

        Raises:
            RillcastError: see `Worker.run` and `HttpServer.start`.
        """
        if self.server is not None:
            self.server.start()
        try:
            with sparing():
                self.worker.run()
        finally:
            if self.server is not None:
                self.server.stop()
            if self.spans is not None:
                self.spans.close()


def build(
    settings: Settings,
    *,
    around_source: Callable[[Source], Source] | None = None,
    stages: StageClock | None = None,
    follows: Reference | None = None,
) -> Service:
    """Return the service that the settings describe; nothing is connected yet.

    Args:
        settings: all of them.
        around_source: what to put around the source, for a measurement.
        stages: the stop-watch of the loop, for a measurement; else a sample goes to the metrics.
        follows: what `settings.model` was looked up by in a registry; what that comes to mean is served from then on.

    Raises:
        BundleError: the model breaks the bundle contract.
        DeviceError: the device is not there or cannot run the model.
        SettingsError: the settings contradict each other or what is installed.
    """
    bundle = Bundle.load(settings.model)
    metadata = bundle.metadata
    on = device.choose(settings.device, settings.threads, cuda_graphs=settings.cuda_graphs)
    require_what_is_asked(settings, bundle)
    engine = make_engine(settings, bundle, on)
    log.info(
        "model %s@%s (%s, %s, %d horizons, %d quantiles) on %s; %d bytes of state per stream",
        metadata.name,
        metadata.model_id,
        metadata.cell,
        metadata.freq,
        metadata.horizon,
        len(metadata.quantiles),
        on.name,
        metadata.row_bytes,
    )
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    health, board = Health(), LiveView(metadata)
    keeps = settings.http.cached_streams if settings.http.enabled else 0
    latest = ForecastCache(keeps) if keeps else None
    prepare_store(settings, metadata)
    source, sink = open_source(settings, metadata.covariates), open_sink(settings)
    if around_source is not None:
        source = around_source(source)
    metrics = Metrics(registry, metadata, on.name)
    stages = stages or StageClock(metrics.stage)
    spans = _spans(settings, metadata)
    dead_letters = DeadLetters(source.name, model_name(metadata), settings.dead_letters.max_bytes)
    factory = ServedModelFactory(settings, on, sink, metrics, Watchers(board, latest, spans, stages))

    def serve(model: ServedModel) -> None:
        """Let what tells of the model that serves tell of another."""
        served = model.engine.bundle.metadata
        board.serve(served)
        metrics.serve(served)
        dead_letters.serve(model_name(served))
        if spans is not None:
            spans.serve(model_name(served))

    parts = Parts(
        source=source,
        sink=sink,
        model=factory.assemble(engine),
        decoder=open_decoder(settings, metadata),
        dead_letters=dead_letters,
        metrics=metrics,
        health=health,
        stages=stages,
        rollout=_rollout(settings, follows, factory, metadata, metrics, serve),
    )
    worker = Worker(parts, worker_settings(settings), settings.state, start_at=settings.kafka.auto_offset_reset)
    server = HttpServer(settings.http, registry, health, board, latest) if settings.http.enabled else None
    return Service(worker, board, health, registry, server, spans)


def worker_settings(settings: Settings) -> WorkerSettings:
    """Return the worker's settings, with what the client decides.

    kafka-python has a thread that wants the interpreter all the time. A third one, which steps, gains nothing then, and
    each takes turns from the others.
    """
    crowded = settings.input.path is None and chosen_client(settings.kafka) == "kafka-python"
    if settings.worker.step_thread_min_events is not None or not crowded:
        return settings.worker
    return settings.worker.model_copy(update={"step_thread_min_events": 0})


def _rollout(
    settings: Settings,
    follows: Reference | None,
    factory: ServedModelFactory,
    serving: BundleMetadata,
    metrics: Metrics,
    on_default: Callable[[ServedModel], None],
) -> RolloutParts | None:
    """Return how other models come to serve; None where none can.

    Raises:
        SettingsError: a shadow is asked for where there is no registry to look it up in, or no topic to follow.
    """
    shadow = None if settings.rollout.shadow is None else reference.parse(settings.rollout.shadow)
    if settings.rollout.shadow is not None and shadow is None:
        raise SettingsError(f"rollout.shadow {settings.rollout.shadow}: expected REGISTRY@ALIAS")
    if settings.input.path is not None:
        if shadow is not None:
            raise SettingsError("rollout.shadow: a model follows a topic, but input.path is a file")
        return None
    if follows is None and shadow is None:
        return None
    asked = Asked(follows, shadow, settings.rollout.poll_interval_s)
    return RolloutParts(
        RegistryWatcher(asked, factory, serving, metrics), partial(open_history, settings), settings.rollout, on_default
    )


def _spans(settings: Settings, metadata: BundleMetadata) -> Spans | None:
    """Return what makes spans; None = nobody asked for them.

    Raises:
        SettingsError: OpenTelemetry is not installed.
    """
    if settings.publish.otlp_endpoint is None:
        return None
    try:
        from rillcast.publishing.spans import Spans
    except ModuleNotFoundError as error:
        raise SettingsError(f"publish.otlp_endpoint needs the extra rillcast[otel]: {error.name} is missing") from error
    return Spans(settings.publish.otlp_endpoint, model_name(metadata))
