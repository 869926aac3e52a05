"""Builds workers over an in-memory log, for tests that need no broker."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from prometheus_client import CollectorRegistry

from rillcast.bundle.bundle import Bundle
from rillcast.codecs.forecasts.encoders import make_encoder
from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.codecs.observations.matching import Matching
from rillcast.engine.batcher import Batching
from rillcast.engine.device import Device
from rillcast.engine.late import AllowedLateness
from rillcast.engine.periods import Aggregation
from rillcast.engine.residents import Limits
from rillcast.engine.step_engine import StepEngine
from rillcast.observability.health import Health
from rillcast.observability.latency import Latency
from rillcast.observability.metrics import Metrics
from rillcast.observability.observer import Observer
from rillcast.observability.run_summary import RunSummary
from rillcast.publishing.alarms import AlarmPublisher
from rillcast.publishing.anomalies import AnomalyPublisher
from rillcast.publishing.dead_letters import DeadLetters
from rillcast.publishing.filters import Policy
from rillcast.publishing.publisher import ForecastOutput, Publisher
from rillcast.rollout.models import Names
from rillcast.rollout.rollout import RolloutParts
from rillcast.service.parts import Parts, RouteParts
from rillcast.service.worker import Worker
from rillcast.serving.served_model import ServedModel
from rillcast.settings import RolloutSettings, StateSettings, WorkerSettings
from rillcast.stores.base import StateStore
from rillcast.transports.base import Channel
from tests.support.memory import Clock, Log, MemoryPartitionReader, MemorySink, MemorySource, MemoryTransactionalSink
from tests.support.toy import toy_bundle


@dataclass
class MemoryModels:
    """A registry in memory: its models, and which of them its aliases name. It outlives a worker.

    Attributes:
        bundles: Bundles by model id.
        wanted: The model that the alias `live` names.
        shadow: The model that the alias `shadow` names.
        store: Returns the store of a model.
        fail_open: Called with a model's id when it is opened; may raise.
        fail_reader: Called at every poll of a second reader; may raise.
        records_per_read: Most records of such a poll.
    """

    bundles: dict[str, Bundle]
    wanted: str | None = None
    shadow: str | None = None
    store: Callable[[str], StateStore | None] = lambda _model_id: None
    fail_open: Callable[[str], None] = lambda _model_id: None
    fail_reader: Callable[[], None] = lambda: None
    records_per_read: int = 10**9
    opened: list[str] = field(default_factory=list)
    make: Callable[[Bundle, StateStore | None], ServedModel] | None = None

    def names(self) -> Names:
        return Names(self.wanted, self.shadow)

    def open(self, model_id: str) -> ServedModel | None:
        self.fail_open(model_id)
        self.opened.append(model_id)
        assert self.make is not None
        return self.make(self.bundles[model_id], self.store(model_id)) if model_id in self.bundles else None

    def open_now(self, model_id: str) -> ServedModel | None:
        return self.open(model_id)

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class Table:
    """A table of models: the model that serves it first, its store, its roll-outs, and its aggregation."""

    bundle: Bundle
    store: Callable[[MemorySink], StateStore] | None = None
    models: MemoryModels | None = None
    lateness: AllowedLateness | None = None
    aggregation: Aggregation | None = None


@dataclass
class Harness:
    """A worker and its parts."""

    worker: Worker
    source: MemorySource
    sink: MemorySink
    registry: CollectorRegistry
    health: Health
    clock: Clock
    store: StateStore | None = None
    parts: Parts | None = None

    def metric(self, name: str, **labels: str) -> float:
        value = self.registry.get_sample_value(name, labels)
        assert value is not None, f"{name}{labels} is not exposed"
        return value


def build(
    log: Log,
    *,
    bundle: Bundle | None = None,
    owned: Sequence[int] | None = None,
    per_poll: Callable[[], int] = lambda: 10**9,
    batch_rows: int = 256,
    row_buckets: Sequence[int] = (),
    settings: WorkerSettings | None = None,
    store: Callable[[MemorySink], StateStore] | None = None,
    snapshots: StateSettings | None = None,
    limits: Limits | None = None,
    lateness: AllowedLateness | None = None,
    aggregation: Aggregation | None = None,
    ends: bool = False,
    idle_s: float = 0.0,
    overdue_periods: int = 0,
    told_overdue: int = 0,
    start_at: Literal["earliest", "latest"] = "earliest",
    decoder: ObservationDecoder | None = None,
    matching: Matching | None = None,
    policy: Policy | None = None,
    late: Literal["dead_letter", "drop"] = "dead_letter",
    models: MemoryModels | None = None,
    tables: Mapping[str, Table] | None = None,
    rollout: RolloutSettings | None = None,
    clock: Clock | None = None,
    needs_forecast: bool = False,
    keep_parts: bool = False,
) -> Harness:
    """Return a worker that reads `log` to its end when run; `clock` starts at zero unless given.

    With `told_overdue`, records of alarms and of anomalies tell the silences of streams. With `keep_parts` the harness
    has what another worker can be made of, and so keeps the first model in memory.
    """
    # Polls of three events and more are stepped in the step thread, smaller ones in the loop: tests cover both.
    clock, settings = clock or Clock(), (settings or WorkerSettings()).model_copy(update={"step_thread_min_events": 3})
    source = MemorySource(log, owned=owned, per_poll=per_poll)
    sink = MemoryTransactionalSink(log) if settings.delivery == "exactly_once" else MemorySink(log)
    bundle = bundle or toy_bundle()
    registry, health = CollectorRegistry(), Health(clock=clock)
    tables = tables or {"": Table(bundle, store, models, lateness, aggregation)}
    metrics = Metrics(registry, {name: table.bundle.metadata for name, table in tables.items()}, "cpu")
    summary = RunSummary(source.name, "dead letters")

    def make_model(bundle: Bundle, store: StateStore | None, route: str) -> ServedModel:
        engine = StepEngine(
            bundle,
            Device("cpu"),
            batching=Batching(batch_rows, row_buckets),
            limits=limits or Limits(),
            lateness=tables[route].lateness,
            aggregation=tables[route].aggregation,
            alarms="1/hour",
            overdue_periods=told_overdue,
            timer=clock,
        )
        output = ForecastOutput(sink, make_encoder("json", bundle.metadata))
        observers: list[Observer] = [Latency(metrics.latency, wall_clock=clock), metrics, summary]
        if told_overdue:
            observers += [AlarmPublisher(sink), AnomalyPublisher(sink, 0.01)]
        return ServedModel(engine, Publisher(engine, output, [policy or Policy()], observers, late, route), store)

    def rollout_of(models: MemoryModels, route: str) -> RolloutParts:
        models.make = partial(make_model, route=route)

        def open_reader() -> MemoryPartitionReader:
            reader = MemoryPartitionReader(log, lambda: models.records_per_read)
            reader.fail = lambda: models.fail_reader()
            return reader

        return RolloutParts(
            models, open_reader, rollout or RolloutSettings(warm_up="retained"), wall_clock_ms=lambda: 0
        )

    stores = {name: table.store(sink) if table.store else None for name, table in tables.items()}
    routes = [
        RouteParts(
            make_model(table.bundle, stores[name], name),
            None if table.models is None else rollout_of(table.models, name),
            name,
        )
        for name, table in tables.items()
    ]
    parts = Parts(
        source=source,
        sink=sink,
        routes=routes,
        decoder=decoder or ObservationDecoder(matching=matching),
        dead_letters=DeadLetters(source.name, 1000),
        metrics=metrics,
        summary=summary,
        health=health,
        ends=ends,
        needs_forecast=needs_forecast,
    )
    worker = Worker(
        parts,
        settings,
        snapshots or StateSettings(),
        start_at=start_at,
        idle_s=idle_s,
        overdue_periods=overdue_periods,
        clock=clock,
        wall_clock_ms=lambda: round((clock.now + clock.stepped_s) * 1000),
    )
    kept = parts if keep_parts else None
    return Harness(worker, source, sink, registry, health, clock, next(iter(stores.values())), kept)


def observation(unique_id: str, y: float | None, ds: int = 0) -> bytes:
    """Return an observation record."""
    return json.dumps({"unique_id": unique_id, "ds": ds, "y": y}).encode()


def repeats(log: Log) -> int:
    """Return how many forecasts were published more than once."""
    values = Counter(value for _, value, _ in log.published[Channel.FORECASTS])
    return sum(values.values()) - len(values)


def forecasts_by_stream(log: Log) -> dict[str, list[int]]:
    """Return the toy's forecasts of each stream by the offset of their event, repeats dropped by `source`.

    Two different forecasts for one event fail.
    """
    seen: dict[tuple[int, int], tuple[str, int]] = {}
    for key, value, _ in log.published[Channel.FORECASTS]:
        record = json.loads(value)
        assert key == record["unique_id"].encode()
        source = record["source"]["partition"], record["source"]["offset"]
        forecast = record["unique_id"], int(record["quantiles"]["0.5"][0])
        assert seen.setdefault(source, forecast) == forecast, f"{source} was forecast as {seen[source]} and {forecast}"
    streams: dict[str, list[int]] = defaultdict(list)
    for _, (unique_id, state) in sorted(seen.items()):
        streams[unique_id].append(state)
    return dict(streams)
