"""Records of several observations through crashes: every event once, in order, however many share a position."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.codecs.observations.expansion import Expansion
from rillcast.transports.base import Channel
from tests.property.test_oracle import cycle, sizes
from tests.support.crashes import Delivery, crash_points, run_once
from tests.support.memory import Log
from tests.support.small_pages import small_pages
from tests.support.stores import Shelf
from tests.support.toy import HOUR_MS, unroll
from tests.support.workers import repeats

# A record: partition, host, and for each element of its array the values of some members.
records = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(0, 3),
        st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(1, 1_000), max_size=3), max_size=3),
    ),
    max_size=40,
)


@pytest.fixture(scope="module", autouse=True)
def _pages_of_two() -> Iterator[None]:
    with small_pages(2):
        yield


def decoder() -> ObservationDecoder:
    return ObservationDecoder(expansion=Expansion("host", "r[].t", "r[].v.*"))


def fill(drawn: list[tuple[int, int, list[dict[str, int]]]]) -> tuple[Log, dict[str, list[int]], int]:
    """Return the log, the values of each stream in their order, and how many records have an element of nothing."""
    log, values, empty, hour = Log({0: [], 1: []}), defaultdict[str, list[int]](list), 0, 0
    for partition, host, elements in drawn:
        array = []
        for members in elements:
            hour += 1
            array.append({"t": hour * HOUR_MS, "v": members})
            for name, y in members.items():
                values[f"{partition}-{host}/{name}"].append(y)
        empty += any(not members for members in elements)
        log.append(partition, json.dumps({"host": f"{partition}-{host}", "r": array}).encode())
    return log, values, empty


def published(log: Log) -> dict[str, list[int]]:
    """Return the toy's forecasts of each stream in the order of its events, repeats dropped by what identifies them."""
    seen: dict[tuple[str, int, int], Any] = {}
    for _, value, _ in log.published[Channel.FORECASTS]:
        record = json.loads(value or b"")
        time = record["ds"]
        name = record["unique_id"], record["source"]["offset"], time
        state = int(record["quantiles"]["0.5"][0])
        assert seen.setdefault(name, state) == state, "two forecasts of one event differ"
    found = defaultdict[str, list[int]](list)
    for unique_id, offset, time in sorted(seen, key=lambda name: (name[1], name[2])):
        found[unique_id].append(seen[unique_id, offset, time])
    return found


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
@given(drawn=records, polls=sizes, crashes=crash_points, visible=st.booleans())
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_every_event_of_a_record_is_forecast_once_through_crashes(
    delivery: Delivery,
    drawn: list[tuple[int, int, list[dict[str, int]]]],
    polls: list[int],
    crashes: list[tuple[str, int]],
    visible: bool,
) -> None:
    log, values, empty = fill(drawn)
    shelf, per_poll = Shelf(), cycle(polls).__next__
    visible = visible and delivery == "at_least_once"
    for crash in crashes:
        run_once(log, shelf, delivery, visible=visible, per_poll=per_poll, crash=crash, decoder=decoder())
    harness = run_once(log, shelf, delivery, visible=visible, per_poll=per_poll, decoder=decoder())
    assert published(log) == {unique_id: unroll(ys) for unique_id, ys in values.items()}
    dead = log.published[Channel.DEAD_LETTERS]
    if delivery == "exactly_once":
        assert repeats(log) == 0
        assert len(dead) == empty, "a record is one dead letter, however many of its elements are bad"
    if not crashes:
        counted = sum(
            harness.metric("rillcast_events_total", status=status) for status in ("ok", "warming_up", "gap", "missing")
        )
        assert counted == sum(map(len, values.values()))
        left_out = harness.metric("rillcast_left_out_records_total")
        assert left_out == sum(not elements for _, _, elements in drawn)
