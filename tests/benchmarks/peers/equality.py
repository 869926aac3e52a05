"""Whether a peer's forecasts are the service's: one that computes something else is no peer.

Owns: reading a peer's output topic, the engine's forecasts of the same events, and the comparison. ONNX Runtime has
other versions in other packages, and scripts print four places, so the numbers may differ by as much.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
from confluent_kafka import Consumer

from rillcast.arrays import FloatArray
from rillcast.bundle.bundle import Bundle
from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import RillcastError
from rillcast.events import EventBatch
from rillcast.settings import Settings

_RELATIVE: Final = 1e-4
_ABSOLUTE: Final = 2e-4
_DEADLINE_S: Final = 60.0
Forecasts = dict[tuple[str, int], FloatArray]
"""`(H, Q)` by stream and time of the event."""


def require_same(name: str, expected: Forecasts, found: Forecasts) -> None:
    """Refuse a peer whose forecasts are others.

    Raises:
        RillcastError: A forecast is missing or differs; the message names the first.
    """
    if missing := sorted(expected.keys() - found.keys()):
        there = f"{len(expected) - len(missing)} of {len(expected)} forecasts"
        raise RillcastError(f"{name} wrote {there}; the first missing is {missing[0]}")
    for event, forecast in expected.items():
        if not np.allclose(found[event], forecast, rtol=_RELATIVE, atol=_ABSOLUTE):
            furthest = float(np.abs(found[event] - forecast).max())
            raise RillcastError(f"{name} computes something else: its forecast of {event} differs by {furthest:.3g}")


def of_engine(bundle: Bundle, observations: Sequence[bytes]) -> Forecasts:
    """Return the forecasts of the service's engine."""
    events = [msgspec.json.decode(one) for one in observations]
    ids, ds = [event["unique_id"] for event in events], [event["ds"] for event in events]
    result = StepEngine(bundle, Device("cpu")).step(EventBatch.of(ids, ds, [event["y"] for event in events]))
    return {(one, at): forecast for one, at, forecast in zip(ids, ds, result.forecast, strict=True)}


def of_topic(settings: Settings, count: int) -> Forecasts:
    """Return the forecasts that a peer wrote, the last of each event."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            "group.id": f"bench-{uuid.uuid4().hex[:8]}",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )
    consumer.subscribe([settings.output.topic])
    found: Forecasts = {}
    deadline = time.monotonic() + _DEADLINE_S
    while len(found) < count and time.monotonic() < deadline:
        for message in consumer.consume(count, 0.5):
            if message.error() is None:
                record: dict[str, Any] = json.loads(message.value() or b"{}")
                values = np.array(list(record["quantiles"].values()), np.float32).T
                found[record["unique_id"], record["ds"]] = values
    consumer.close()
    return found
