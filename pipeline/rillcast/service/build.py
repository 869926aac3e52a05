"""Puts one worker together from the settings: transports, engine, metrics, probes, page.

Owns: the choice of parts, and nothing else; every part is tested on its own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from rillcast.bundle.bundle import Bundle
from rillcast.bundle.compatibility import require_same_covariates
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
from rillcast.observability.live_views import LiveViews
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
from rillcast.service.parts import Parts, RouteParts
from rillcast.service.service import Outages, Service, Views
from rillcast.service.worker import Worker
from rillcast.serving.factory import Observers, ServedModelFactory, make_engine, require_supported
from rillcast.settings import ModelTable, Settings, WorkerSettings
from rillcast.stores.connect import directory_of, kind_of, prepare_store
from rillcast.stores.local import stored_partitions
from rillcast.transports.base import Sink, Source
from rillcast.transports.connect import (
    check_output_files,
    chosen_client,
    look_at_brokers,
    open_input_reader,
    open_sink,
    open_source,
)

if TYPE_CHECKING:
    from rillcast.publishing.spans import Spans  # needs an extra

log = logging.getLogger(__name__)

NOTHING_FOLLOWED: Final[Mapping[str, Reference]] = {}


def build(
    settings: Settings,
    *,
    around_source: Callable[[Source], Source] | None = None,
    stages: StageClock | None = None,
    follows: Mapping[str, Reference] = NOTHING_FOLLOWED,
    claims_decide: Collection[str] = (),
) -> Service:
    """Return the service that the settings describe; nothing is connected yet.

    Args:
        settings: All settings.
        around_source: Wraps the source, for a measurement or to watch it.
        stages: The stop-watch of the loop, for a measurement; None = a sample goes to the metrics.
        follows: By the name of a table of models, the reference by which its model was looked up in a registry. When it
            comes to mean another model, that one is rolled out. The only model has the empty name.
        claims_decide: The tables for which claims decide; see `Aliases`.

    Raises:
        BundleError: The model breaks the bundle contract.
        DeviceError: The device is missing or cannot run the model.
        SettingsError: The settings contradict each other, or need something that is not installed.
    """
    check_output_files(settings)
    on = device.choose(settings.device, settings.threads, cuda_graphs=settings.cuda_graphs, tf32=settings.tf32)
    tables = [_Table.of(settings, table, follows, claims_decide) for table in settings.served]
    require_same_covariates({table.name: table.bundle.metadata for table in tables})
    for table in tables:
        _log_model(table, on)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    served = {table.name: table.bundle.metadata for table in tables}
    health, metrics = Health(), Metrics(registry, served, on.name)
    shadows = {table.name: table.shadow.name for table in tables if table.shadow is not None}
    live_view = LiveViews(served, max_streams=settings.http.charted_streams, shadows=shadows)
    alarms = StreamAlarms()
    weights = ExpertWeights(live_view.charted, metrics.expert_weights, metrics.network_share)
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
        tables=tables,
        on=on,
        observers=observers,
        stages=stages,
        summary=summary,
        health=health,
        around_source=around_source,
    )
    return Service(assembly.worker, views, _outages(settings))


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of models, or the only model: what its route is made of.

    Attributes:
        name: Name of the table; empty for the only model.
        settings: The settings as they are for a service with this model alone.
        bundle: The model that it begins with.
        follows: The reference that names the model; None = it stays.
        shadow: The reference of the model that is compared; None = none is.
        claims_decide: See `Aliases`.
    """

    name: str
    settings: Settings
    bundle: Bundle
    follows: Reference | None
    shadow: Reference | None
    claims_decide: bool

    @classmethod
    def of(
        cls, settings: Settings, table: ModelTable, follows: Mapping[str, Reference], claims_decide: Collection[str]
    ) -> _Table:
        """Load the model of a table, and check it against the settings.

        Raises:
            BundleError: The model breaks the bundle contract.
            SettingsError: It lacks what the settings need, or the shadow is no alias of a registry.
        """
        where = f"models.{table.name}.shadow" if table.name else "rollout.shadow"
        shadow = None if table.shadow is None else reference.parse(table.shadow)
        if table.shadow is not None and shadow is None:
            raise SettingsError(f"{where} {table.shadow}: expected REGISTRY@ALIAS")
        if shadow is not None and settings.input.path is not None:
            raise SettingsError(f"{where}: a model follows a topic, but input.path is a file")
        own = settings.of_table(table)
        bundle = Bundle.load(own.model)
        require_supported(own, bundle)
        return cls(table.name, own, bundle, follows.get(table.name), shadow, table.name in claims_decide)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Assembly:
    """What every worker of a service is made of; see `build`."""

    settings: Settings
    tables: Sequence[_Table]
    on: Device
    observers: Observers
    stages: StageClock
    summary: RunSummary
    health: Health
    around_source: Callable[[Source], Source] | None

    def worker(self) -> Worker:
        """Connect, and return a worker.

        Raises:
            RillcastError: A part cannot be made; what was opened before is closed.
        """
        settings, metrics, metadata = self.settings, self.observers.metrics, self.tables[0].bundle.metadata
        for table in self.tables:
            prepare_store(table.settings, table.bundle.metadata)
            _say_what_is_replaced(table)
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
            routes = [self._route(table, sink, observers) for table in self.tables]
            for route in routes:
                route.model.publisher.serve()  # another one may have served before an outage
            parts = Parts(
                source=source,
                sink=sink,
                routes=routes,
                decoder=decoder,
                dead_letters=DeadLetters(source.name, settings.dead_letters.max_bytes),
                metrics=metrics,
                summary=self.summary,
                health=self.health,
                stages=self.stages,
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

    def _route(self, table: _Table, sink: Sink, observers: Observers) -> RouteParts:
        """Return a table's model, on its device, and how another comes to serve."""
        factory = ServedModelFactory(table.settings, self.on, sink, observers, table.name)
        rollout = _rollout(table, factory, observers.metrics)
        return RouteParts(factory.assemble(make_engine(table.settings, table.bundle, self.on)), rollout, table.name)


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
    topics = [settings.input.topic, settings.output.topic]
    if settings.state.store == "kafka":
        topics.append(settings.state_topic)
    look = partial(look_at_brokers, settings.kafka, topics)
    return Outages(look, math.inf if longest_s is None else longest_s)


def _log_model(table: _Table, on: Device) -> None:
    metadata = table.bundle.metadata
    log.info(
        "%smodel %s@%s (%s, %s, %d horizons, %d quantiles) on %s; %d bytes of state per stream",
        f"models.{table.name}: " if table.name else "",
        metadata.name,
        metadata.model_id,
        metadata.cell,
        metadata.freq,
        metadata.horizon,
        len(metadata.quantiles),
        on.name,
        metadata.row_bytes,
    )


def _say_what_is_replaced(table: _Table) -> None:
    """Log that a run over a file replaces the state of an earlier one; see `worker_settings`."""
    if table.settings.input.path is None or kind_of(table.settings) != "local":
        return
    path = directory_of(table.settings, table.name)
    if stored := stored_partitions(path, table.bundle.metadata.model_id):
        log.warning(
            "state store %s has state of an earlier run (%d partitions); a run over a file starts at its beginning "
            "without it, and replaces it at the first commit",
            path,
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


def _rollout(table: _Table, factory: ServedModelFactory, metrics: Metrics) -> RolloutParts | None:
    """Return how other models come to serve; None where none can."""
    settings = table.settings
    if settings.input.path is not None or (table.follows is None and table.shadow is None):
        return None
    interval_s = settings.rollout.poll_interval_s
    aliases = Aliases(table.follows, table.shadow, interval_s, claims_decide=table.claims_decide)
    return RolloutParts(
        RegistryWatcher(aliases, factory, table.bundle.metadata, metrics.of_route(table.name)),
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
