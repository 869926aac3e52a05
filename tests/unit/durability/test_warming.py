"""History in any order warms the streams as history in the order of time does."""

from __future__ import annotations

import json

import numpy as np

from rillcast.bundle.bundle import Bundle
from rillcast.bundle.shipped import locate
from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.durability.warming import Warming
from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine
from rillcast.events import EventBatch
from rillcast.transports.base import Polled
from tests.support.hostile import polled

HOUR = 3_600_000
START = 1_714_521_600_000


def history(order: int) -> list[Polled]:
    records = [
        json.dumps({"unique_id": stream, "ds": START + hour * HOUR, "y": hour % 24}).encode()
        for stream in ("a", "b")
        for hour in range(200)
    ][::order]
    return [polled(records[:150]), polled([*records[150:], records[0], b"garbage"])]


def warming() -> Warming:
    engine = StepEngine(Bundle.load(locate("universal:1h")), Device("cpu"))
    return Warming({0: engine}, ObservationDecoder(), lambda _id: 0)


def test_history_of_any_order_is_stepped_in_that_of_time() -> None:
    forecasts = []
    for order in (1, -1):
        warm = warming()
        warm.take_sorted(history(order))
        assert (warm.taken.events, warm.taken.stepped) == (401, 400)
        assert warm.taken.outcomes["duplicate"] == 1
        assert warm.taken.refused == {"not_json": 1}
        assert warm.streams(0) == (2, 0)
        now = EventBatch.of(["a", "b"], [START + 200 * HOUR] * 2, [8.0, 9.0], first_offset=401)
        forecasts.append(warm._engines[0].step(now).forecast)
    in_order, reversed_ = forecasts
    np.testing.assert_array_equal(in_order, reversed_)


def test_events_that_change_nothing_are_not_stepped() -> None:
    warm = warming()
    for part in history(-1):
        warm.take(part)  # as they come: newest first
    assert (warm.taken.events, warm.taken.stepped) == (401, 2)
    assert warm.taken.outcomes["late"] == 398
