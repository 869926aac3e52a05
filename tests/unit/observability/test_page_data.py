"""The live page gets streams in trouble first, finds streams by a part of their id, and turns pages."""

from __future__ import annotations

import numpy as np
import pytest

from rillcast.engine.step_engine import SilentStream, SilentStreams
from rillcast.events import EventBatch
from rillcast.observability.expert_weights import ExpertWeights
from rillcast.observability.forecast_cache import ForecastCache
from rillcast.observability.live_view import LiveView
from rillcast.observability.page_data import PAGE, PageData
from rillcast.observability.stream_alarms import StreamAlarms
from tests.support.live_views import START_MS, metadata, published, put, stepped

WARNING = (1, 3, 200, 0, 0, 10.5, 20, 168)
CRITICAL = (1, 1, 5_000, 0, 0, 10.5, 20, 168)


def page(ids: list[str], max_streams: int = 96) -> tuple[PageData, LiveView, StreamAlarms, ForecastCache]:
    view, alarms, cache = LiveView(metadata(), max_streams=max_streams), StreamAlarms(), ForecastCache(100)
    put(view, ids, [0] * len(ids), [1.0] * len(ids))
    cache.update(np.zeros(len(ids), np.int64), ids, [b""] * len(ids))
    return PageData(view, alarms, ExpertWeights(view.charted), cache), view, alarms, cache


def shown(data: PageData, query: str = "") -> list[str]:
    return [stream["unique_id"] for stream in data.streams(query)["streams"]]


def test_trouble_comes_first_and_then_the_number_in_an_id() -> None:
    data, view, alarms, _ = page(["s10", "s9", "quiet", "off", "ill"])
    put(view, ["off"] * 30, list(range(1, 31)), [1.0] * 30, covered=[0.0] * 15 + [1.0] * 15)
    put(view, ["s9"] * 30, list(range(1, 31)), [1.0] * 30, covered=[0.0] * 8 + [1.0] * 22)
    alarms.observe(published(EventBatch.of(["ill"], [START_MS], [1.0]), stepped(1, alarm=[WARNING])))
    view.silent_streams(SilentStreams(1, 0, [SilentStream("quiet", START_MS, asleep=False)]))

    document = data.streams()

    assert [stream["unique_id"] for stream in document["streams"]] == ["ill", "quiet", "off", "s9", "s10"]
    assert document["counts"] == {"all": 5, "alarm": 1, "silence": 1, "uncovered": 1}
    assert [shown(data, f"show={name}") for name in ("alarm", "silence", "uncovered")] == [["ill"], ["quiet"], ["off"]]
    ill, quiet, *_ = document["streams"]
    assert ([alarm["kind"] for alarm in ill["alarms"]], ill["silence"]) == (["drift"], None)
    assert quiet["silence"] == {"since": START_MS, "asleep": False}
    assert data.stream("quiet")["silence"] == quiet["silence"]


def test_a_part_of_an_id_finds_charted_streams_and_others() -> None:
    data, *_ = page(["web-1", "WEB-2", "db-1", "web-3"], max_streams=2)
    document = data.streams("find=Eb-")
    assert [stream["unique_id"] for stream in document["streams"]] == ["web-1", "WEB-2"]
    assert document["uncharted"] == ["web-3"]
    assert data.streams("find=nobody")["uncharted"] == []
    assert (data.is_forecast("db-1"), data.is_forecast("nobody")) == (True, False)


def test_pages_put_together_are_all_charted_streams() -> None:
    ids = [f"s{number}" for number in range(2 * PAGE + 5)]
    data, *_ = page(ids)
    first = data.streams()
    assert (first["total"], first["from"], len(first["streams"])) == (len(ids), 0, PAGE)
    assert [one for start in range(0, len(ids), PAGE) for one in shown(data, f"from={start}")] == ids


@pytest.mark.parametrize("query", ["from=99", "from=x", "from=-1", "show=everything", "find="])
def test_parameters_that_make_no_sense_show_the_first_page(query: str) -> None:
    data, *_ = page(["a", "b"])
    assert shown(data, query) == ["a", "b"]


def test_critical_alarms_are_counted_apart() -> None:
    data, _, alarms, _ = page(["a", "b"])
    events = EventBatch.of(["a", "b"], [START_MS] * 2, [1.0] * 2)
    alarms.observe(published(events, stepped(2, alarm=[WARNING, CRITICAL])))
    assert data.summary()["open_alarms"] == {"critical": 1, "warning": 1}
    assert [alarm["unique_id"] for alarm in data.streams()["open_alarms"]] == ["b", "a"], "the newest first"
