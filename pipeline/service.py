"""Puts one worker together from the settings: transports, engine, metrics, probes, page.

Owns the choice of parts and nothing else; every part is tested on its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from pipeline import device
from pipeline.anomalies import AnomalyPublisher
from pipeline.board import ForecastBoard
from pipeline.bundle import Bundle, BundleMetadata
from pipeline.changes import Changes
from pipeline.codecs.connect import open_decoder, open_encoder
from pipeline.codecs.forecasts import model_name
from pipeline.collector import sparing
from pipeline.deadletters import DeadLetters
from pipeline.engine import StepEngine
from pipeline.errors import SettingsError
from pipeline.health import Health
from pipeline.history import Rewind
from pipeline.lanes import Lane
from pipeline.latest import LatestForecasts
from pipeline.metrics import Metrics
from pipeline.publisher import Policy, Publisher
from pipeline.residents import Limits
from pipeline.server import HttpServer
from pipeline.settings import Settings
from pipeline.stages import StageClock
from pipeline.stores.connect import open_store, prepare_store
from pipeline.transports.base import Sink, Source
from pipeline.transports.connect import open_sink, open_source
from pipeline.worker import Parts, Worker

if TYPE_CHECKING:
    from pipeline.spans import Spans  # needs an extra

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """A worker and what watches it."""

    worker: Worker
    board: ForecastBoard
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
) -> Service:
    """Return the service that the settings describe; nothing is connected yet.

    Args:
        settings: all of them.
        around_source: what to put around the source, for a measurement.
        stages: the stop-watch of the loop, for a measurement; else a sample goes to the metrics.

    Raises:
        BundleError: the model breaks the bundle contract.
        DeviceError: the device is not there or cannot run the model.
        SettingsError: the settings contradict each other or what is installed.
    """
    bundle = Bundle.load(settings.model)
    metadata = bundle.metadata
    on = device.choose(settings.device, settings.threads, cuda_graphs=settings.cuda_graphs)
    engine = StepEngine(
        bundle,
        on,
        batch_rows=settings.worker.batch_rows,
        row_buckets=on.row_buckets(settings.worker.batch_rows),
        limits=Limits(
            round(settings.state.idle_ttl_s * 1000),
            settings.state.max_streams_per_partition,
            settings.state.max_new_streams_per_s,
        ),
        calibrate=settings.calibration == "on",
        rewind=rewind_of(settings, metadata.step_ms),
    )
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
    health, board = Health(), ForecastBoard(metadata)
    keeps = settings.http.latest_streams if settings.http.enabled else 0
    latest = LatestForecasts(keeps) if keeps else None
    prepare_store(settings, metadata)
    source, sink = open_source(settings, metadata.covariates), open_sink(settings)
    if around_source is not None:
        source = around_source(source)
    metrics = Metrics(registry, metadata, on.name)
    stages = stages or StageClock(metrics.stage)
    encoder = open_encoder(settings, metadata)
    spans = _spans(settings, metadata)
    publisher = Publisher(
        sink,
        encoder,
        engine.residents,
        metrics,
        policy=Policy(settings.publish.warming_up, settings.input.late, settings.publish.every, metadata.step_ms),
        trace_context=settings.publish.trace_context,
        board=board,
        latest=latest,
        anomalies=_anomalies(settings, bundle, sink),
        spans=spans,
        changes=Changes(metadata, settings.publish.on_change) if settings.publish.on_change else None,
        stages=stages,
    )
    parts = Parts(
        source=source,
        sink=sink,
        lane=Lane(engine, publisher, open_store(settings, metadata, sink)),
        decoder=open_decoder(settings, metadata),
        dead_letters=DeadLetters(source.name, f"{metadata.name}@{metadata.model_id}", settings.dead_letters.max_bytes),
        metrics=metrics,
        health=health,
        stages=stages,
    )
    worker = Worker(parts, settings.worker, settings.state, start_at=settings.kafka.auto_offset_reset)
    server = HttpServer(settings.http, registry, health, board, latest) if settings.http.enabled else None
    return Service(worker, board, health, registry, server, spans)


def rewind_of(settings: Settings, step_ms: int) -> Rewind | None:
    """Return how far streams go back; None = late events are not put into place."""
    given = settings.input
    return Rewind(given.rewind_slots, step_ms, given.duplicates == "last_wins") if given.rewind_slots else None


def _anomalies(settings: Settings, bundle: Bundle, sink: Sink) -> AnomalyPublisher | None:
    """Return what anomalous observations are told to; None = nobody asked for them.

    Raises:
        SettingsError: the model does not rate observations.
    """
    if settings.anomalies.topic is None and settings.anomalies.path is None:
        return None
    if not bundle.has_anomaly:
        raise SettingsError(
            f"{bundle.metadata.name}: the model has no output 'anomaly'; leave anomalies.topic and .path"
        )
    return AnomalyPublisher(sink, bundle.metadata, settings.anomalies.tail_probability)


def _spans(settings: Settings, metadata: BundleMetadata) -> Spans | None:
    """Return what makes spans; None = nobody asked for them.

    Raises:
        SettingsError: OpenTelemetry is not installed.
    """
    if settings.publish.otlp_endpoint is None:
        return None
    try:
        from pipeline.spans import Spans
    except ModuleNotFoundError as error:
        raise SettingsError(f"publish.otlp_endpoint needs the extra rillcast[otel]: {error.name} is missing") from error
    return Spans(settings.publish.otlp_endpoint, model_name(metadata))
