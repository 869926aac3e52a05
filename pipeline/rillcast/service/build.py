"""Puts one worker together from the settings: transports, engine, metrics, probes, page.

Owns: the choice of parts, and nothing else; every part is tested on its own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from rillcast.bundle.bundle import Bundle, BundleMetadata
from rillcast.bundle.registry import reference
from rillcast.bundle.registry.reference import Reference
from rillcast.codecs.connect import open_decoder
from rillcast.engine import device
from rillcast.engine.device import Device
from rillcast.errors import SettingsError
from rillcast.observability.expert_weights import ExpertWeights
from rillcast.observability.forecast_cache import ForecastCache
from rillcast.observability.health import Health
from rillcast.observability.latency import Latency
from rillcast.observability.live_view import LiveView
from rillcast.observability.metrics import Metrics
from rillcast.observability.run_summary import RunSummary
from rillcast.observability.server import HttpServer
from rillcast.observability.stages import StageClock
from rillcast.observability.stream_alarms import AlarmCollector, StreamAlarms
from rillcast.publishing.alarms import AlarmPublisher
from rillcast.publishing.anomalies import AnomalyPublisher
from rillcast.publishing.dead_letters import DeadLetters
from rillcast.rollout.registry_watcher import Aliases, RegistryWatcher
from rillcast.rollout.rollout import RolloutParts
from rillcast.service.service import Outages, Service, Views
from rillcast.service.worker import Parts, Worker
from rillcast.serving.factory import Observers, ServedModelFactory, make_engine, require_supported
from rillcast.settings import Settings, WorkerSettings
from rillcast.stores.connect import kind_of, prepare_store
from rillcast.stores.local import stored_partitions
from rillcast.transports.base import Sink, Source
from rillcast.transports.connect import (
    brokers_answer,
    check_output_files,
    chosen_client,
    open_input_reader,
    open_sink,
    open_source,
)

if TYPE_CHECKING:
    from rillcast.publishing.spans import Spans  # needs an extra

log = logging.getLogger(__name__)


def build(
    settings: Settings,
    *,
    around_source: Callable[[Source], Source] | None = None,
    stages: StageClock | None = None,
    follows: Reference | None = None,
    claims_decide: bool = False,
) -> Service:
    """Return the service that the settings describe; nothing is connected yet.

    Args:
        settings: All settings.
        around_source: Wraps the source, for a measurement.
        stages: The stop-watch of the loop, for a measurement; None = a sample goes to the metrics.
        follows: The reference by which `settings.model` was looked up in a registry. When it comes to mean another
            model, that one is rolled out.
        claims_decide: See `Aliases`.

    Raises:
        BundleError: The model breaks the bundle contract.
        DeviceError: The device is missing or cannot run the model.
        SettingsError: The settings contradict each other, or need something that is not installed.
    """
    check_output_files(settings)
    bundle = Bundle.load(settings.model)
    metadata = bundle.metadata
    on = device.choose(settings.device, settings.threads, cuda_graphs=settings.cuda_graphs, tf32=settings.tf32)
    require_supported(settings, bundle)
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
    health, metrics = Health(), Metrics(registry, metadata, on.name)
    live_view = LiveView(metadata, max_streams=settings.http.charted_streams)
    alarms, weights = StreamAlarms(), ExpertWeights(live_view.charted, metrics.expert_weights)
    AlarmCollector(alarms, settings.alarms.labelled_streams, registry)
    keeps = settings.http.cached_streams if settings.http.enabled else 0
    forecast_cache = ForecastCache(keeps) if keeps else None
    server = None
    if settings.http.enabled:
        server = HttpServer(settings.http, registry, health, live_view, forecast_cache, alarms, weights)
    stages = stages or StageClock(metrics.stage)
    views = Views(health, metrics, registry, server, _spans(settings))
    summary = RunSummary(settings.input.path or settings.input.topic, _place_of_dead_letters(settings))
    watching = [live_view, forecast_cache, alarms, weights, summary]
    observers = Observers(
        metrics,
        [Latency(metrics.latency, live_view.record_latency), *(each for each in watching if each is not None)],
        stages,
        views.spans,
    )
    assembly = _Assembly(
        settings=settings,
        bundle=bundle,
        on=on,
        observers=observers,
        stages=stages,
        summary=summary,
        health=health,
        around_source=around_source,
        follows=follows,
        claims_decide=claims_decide,
    )
    return Service(assembly.worker, views, _outages(settings))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Assembly:
    """What every worker of a service is made of; see `build`."""

    settings: Settings
    bundle: Bundle
    on: Device
    observers: Observers
    stages: StageClock
    summary: RunSummary
    health: Health
    around_source: Callable[[Source], Source] | None
    follows: Reference | None
    claims_decide: bool

    def worker(self) -> Worker:
        """Connect, and return a worker.

        Raises:
            RillcastError: A part cannot be made; what was opened before is closed.
        """
        settings, metadata, metrics = self.settings, self.bundle.metadata, self.observers.metrics
        prepare_store(settings, metadata)
        _say_what_is_replaced(settings, metadata)
        decoder = open_decoder(settings, metadata)
        source = open_source(settings, metadata.covariates, decoder.streams if _takes_turns(settings) else None)
        if self.around_source is not None:
            source = self.around_source(source)
        with ExitStack() as opened:
            sink = opened.enter_context(closing(open_sink(settings)))
            observers = self.observers
            if (anomalies := _anomalies(settings, sink, metrics)) is not None:
                observers = replace(observers, others=[*observers.others, anomalies])
            if (alarms := _alarms(settings, sink, metrics)) is not None:
                observers = replace(observers, others=[*observers.others, alarms])
            factory = ServedModelFactory(settings, self.on, sink, observers)
            rollout = _rollout(settings, self.follows, factory, metadata, metrics, claims_decide=self.claims_decide)
            model = factory.assemble(make_engine(settings, self.bundle, self.on))
            model.publisher.serve()  # another one may have served before an outage
            parts = Parts(
                source=source,
                sink=sink,
                model=model,
                decoder=decoder,
                dead_letters=DeadLetters(source.name, settings.dead_letters.max_bytes),
                metrics=metrics,
                summary=self.summary,
                health=self.health,
                stages=self.stages,
                rollout=rollout,
                ends=settings.input.path is not None,
                needs_forecast=settings.input.path is not None,
            )
            opened.pop_all()
        return Worker(
            parts,
            worker_settings(settings),
            settings.state,
            start_at=settings.kafka.auto_offset_reset,
            idle_s=settings.input.idle_s,
            overdue_periods=settings.input.overdue_periods,
        )


def _takes_turns(settings: Settings) -> bool:
    """Return whether the streams of a file may be taken in turns; with limits, their order says which are refused."""
    limits = settings.state
    limited = limits.max_streams_per_partition or limits.max_new_streams_per_s or limits.idle_ttl_s
    return settings.input.order == "auto" and not limited


def _outages(settings: Settings) -> Outages | None:
    """Return how the service survives an outage; None where it reads or writes a file."""
    if settings.input.path is not None or settings.output.path is not None:
        return None
    longest_s = settings.kafka.outage_timeout_s
    return Outages(partial(brokers_answer, settings.kafka), math.inf if longest_s is None else longest_s)


def _say_what_is_replaced(settings: Settings, metadata: BundleMetadata) -> None:
    """Log that a run over a file replaces the state of an earlier one; see `worker_settings`."""
    if settings.input.path is None or kind_of(settings) != "local":
        return
    if stored := stored_partitions(settings.state.path, metadata.model_id):
        log.warning(
            "state store %s has state of an earlier run (%d partitions); a run over a file starts at its beginning "
            "without it, and replaces it at the first commit",
            settings.state.path,
            len(stored),
        )


def _place_of_dead_letters(settings: Settings) -> str:
    """Return where the dead letters are, for a person."""
    if settings.output.path is None:
        return f"topic {settings.dead_letters.topic} (`rillcast dlq list`)"
    path = settings.dead_letters.path
    return f"{path} (`rillcast dlq list --file {path}`)"


def worker_settings(settings: Settings) -> WorkerSettings:
    """Return the worker's settings, with those that depend on the source.

    kafka-python has a thread that always competes for the interpreter. A third thread, for the steps, gains nothing
    then. A file keeps no position that stored state could belong to, so a run over it begins without the state of an
    earlier run, and replaces that.
    """
    if settings.input.path is not None and settings.worker.recovery == "restore":
        return settings.worker.model_copy(update={"recovery": "rebuild"})
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
    *,
    claims_decide: bool,
) -> RolloutParts | None:
    """Return how other models come to serve; None where none can.

    Raises:
        SettingsError: `rollout.shadow` names no alias of a registry, or the input is a file.
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
    aliases = Aliases(follows, shadow, settings.rollout.poll_interval_s, claims_decide=claims_decide)
    return RolloutParts(
        RegistryWatcher(aliases, factory, serving, metrics),
        partial(open_input_reader, settings),
        settings.rollout,
    )


def _anomalies(settings: Settings, sink: Sink, metrics: Metrics) -> AnomalyPublisher | None:
    """Return the observer that publishes anomalous observations; None = they are not published."""
    if settings.anomalies.topic is None and settings.anomalies.path is None:
        return None
    return AnomalyPublisher(
        sink,
        settings.anomalies.tail_probability,
        warming_up=settings.publish.warming_up,
        trace_context=settings.publish.trace_context,
        count=metrics.anomalies_published,
    )


def _alarms(settings: Settings, sink: Sink, metrics: Metrics) -> AlarmPublisher | None:
    """Return the observer that publishes alarms; None = they are not published."""
    if settings.alarms.topic is None and settings.alarms.path is None:
        return None
    return AlarmPublisher(sink, trace_context=settings.publish.trace_context, count=metrics.alarms_published)


def _spans(settings: Settings) -> Spans | None:
    """Return the maker of spans; None = none are made.

    Raises:
        SettingsError: OpenTelemetry is not installed.
    """
    if settings.publish.otlp_endpoint is None:
        return None
    try:
        from rillcast.publishing.spans import Spans
    except ModuleNotFoundError as error:
        raise SettingsError(f"publish.otlp_endpoint needs the extra rillcast[otel]: {error.name} is missing") from error
    return Spans(settings.publish.otlp_endpoint)
