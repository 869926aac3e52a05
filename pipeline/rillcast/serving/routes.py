"""The routes of a worker: the tables of `[[models]]`, each with the models that serve its streams.

The decoder says for each event which route it takes (`EventBatch.routes`). A service with one model has one route
without a name, which every event takes. Routes share partitions, positions and commits; states, claims and roll-outs
are each route's own.

Owns: how the events of a poll are divided among the routes, and what concerns all routes alike. Does not know: which
model of a route serves a partition (`rillcast.serving.router`), or which event takes which route.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from rillcast.events import EventBatch
from rillcast.serving.router import ModelResult, Router
from rillcast.serving.served_model import ServedModel


class Routes:
    """Used from one thread, except `step`, as `Router` is."""

    def __init__(self, routers: Sequence[Router]) -> None:
        """Take the routers of the routes, in the order of the settings; at least one."""
        self._routers = tuple(routers)

    def __iter__(self) -> Iterator[Router]:
        return iter(self._routers)

    def __len__(self) -> int:
        return len(self._routers)

    @property
    def models(self) -> Collection[ServedModel]:
        """Every model that serves."""
        return [model for router in self._routers for model in router.all]

    @property
    def stores_state(self) -> bool:
        """Whether the states are stored; the settings decide it for all models alike."""
        return self._routers[0].stores_state

    @property
    def bytes_staged(self) -> int:
        """Bytes handed to the stores so far."""
        return sum(router.bytes_staged for router in self._routers)

    def step(self, events: EventBatch) -> list[ModelResult]:
        """Let each event advance its stream, with the model of its route and partition."""
        if events.routes is None:
            return self._routers[0].step(events)
        results: list[ModelResult] = []
        for number, router in enumerate(self._routers):
            rows = np.flatnonzero(events.routes == number)
            if rows.size:
                results += router.step(events if rows.size == len(events) else events.take(rows))
        return results

    def finish(self, partition: int, offset: int) -> list[ModelResult]:
        """Step the open periods of a partition that has ended with a record."""
        return [result for router in self._routers for result in router.finish(partition, offset)]

    def drop(self, partition: int) -> None:
        """Forget a partition and its states."""
        for router in self._routers:
            router.drop(partition)

    def discard(self) -> None:
        """Discard everything that was staged for a commit that failed."""
        for router in self._routers:
            router.discard()

    def close(self) -> None:
        """Close the store of every model."""
        for router in self._routers:
            router.close()
