"""The parts that a worker is put together from.

Owns: what belongs to a worker. Does not know: how it is made (`rillcast.service.build`), or what the loop does with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.durability.delivery import AtLeastOnce, Delivery, ExactlyOnce
from rillcast.observability.health import Health
from rillcast.observability.metrics import Metrics
from rillcast.observability.run_summary import RunSummary
from rillcast.observability.stages import StageClock
from rillcast.publishing.dead_letters import DeadLetters
from rillcast.rollout.rollout import RolloutParts
from rillcast.serving.served_model import ServedModel
from rillcast.settings import WorkerSettings
from rillcast.transports.base import Sink, Source, TransactionalSink


@dataclass(frozen=True, slots=True)
class RouteParts:
    """A table of `[[models]]`, or the only model.

    Attributes:
        model: The model that partitions begin with.
        rollout: How another model comes to serve; None = none does.
        name: Name of the table; empty where there is one model.
    """

    model: ServedModel
    rollout: RolloutParts | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a worker.

    Attributes:
        source: Where events come from.
        sink: Takes forecasts and dead letters; a `TransactionalSink` under `exactly_once`.
        routes: The models, in the order in which the decoder numbers them.
        decoder: Turns records into events, and says which route each takes.
        dead_letters: Makes dead letters of records that cannot be used.
        metrics: Counts, once per poll.
        summary: Counts for the log what became of the records.
        health: The conditions of the probes.
        stages: The stop-watch of the loop.
        ends: Whether the input ends for good (a file), so that its open periods close then.
        needs_forecast: Whether a source that ends without a forecast is an error.
    """

    source: Source
    sink: Sink
    routes: Sequence[RouteParts]
    decoder: ObservationDecoder
    dead_letters: DeadLetters
    metrics: Metrics
    summary: RunSummary
    health: Health = field(default_factory=Health)
    stages: StageClock = field(default_factory=StageClock)
    ends: bool = False
    needs_forecast: bool = False

    def delivery(self, settings: WorkerSettings) -> Delivery:
        """Return how commits are made with the source and the sink."""
        if settings.delivery == "exactly_once":
            assert isinstance(self.sink, TransactionalSink)  # the choice of transports ensures it
            return ExactlyOnce(self.source, self.sink)
        return AtLeastOnce(self.source, self.sink, settings.flush_timeout_s)
