"""The live views of several models: figures add up, each table has its own, and each stream names its table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rillcast.engine.step_engine import SilentStream, SilentStreams
from rillcast.events import EventBatch
from rillcast.observability.api import ReadApi
from rillcast.observability.expert_weights import ExpertWeights
from rillcast.observability.forecast_cache import ForecastCache
from rillcast.observability.health import Health
from rillcast.observability.live_views import LiveViews
from rillcast.observability.page_data import PageData
from rillcast.observability.stream_alarms import StreamAlarms
from tests.support.live_views import HOUR_MS, START_MS, metadata, published, stepped

DAY = 24


def views() -> LiveViews:
    """Return the views of two tables, of which the first has a shadow."""
    models = {"hours": metadata(), "days": metadata(freq="1d")}
    return LiveViews(models, shadows={"hours": "candidate"})


def put(view: LiveViews, route: str, unique_ids: Sequence[str], hour: int, covered: Sequence[float]) -> None:
    """Give one table a poll of events of one hour."""
    n = len(unique_ids)
    score = np.stack([np.zeros(n), covered], axis=1).astype(np.float32)
    events = EventBatch.of(unique_ids, [START_MS + hour * HOUR_MS] * n, [1.0] * n)
    view.observe(replace(published(events, stepped(n, score=score), num_streams=n), route=route))


def filled() -> LiveViews:
    view = views()
    put(view, "hours", ["room/1", "room/2"], 1, [1.0, 0.0])
    put(view, "days", ["shop/1"], DAY, [1.0])
    view.silent_streams(SilentStreams(1, 0, [SilentStream("room/2", START_MS, asleep=False)]), "hours")
    return view


def test_the_status_of_the_read_api_has_each_table() -> None:
    view = filled()
    api = ReadApi(ForecastCache(10), view, Health(), StreamAlarms(), ExpertWeights(view.charted))
    reply = api.answer("/status", "")
    assert reply is not None
    status = json.loads(reply.body)
    assert (status["events"], status["streams"], status["overdue_streams"]) == (3, 3, 1)
    assert status["newest_ds"] == "2024-05-02T00:00:00.000Z"
    hours, days = status["models"]
    assert [(each["name"], each["model"]["freq"], each["shadow"]) for each in (hours, days)] == [
        ("hours", "1h", "candidate"),
        ("days", "1d", None),
    ]
    assert (hours["events"], hours["streams"], hours["overdue_streams"]) == (2, 2, 1)
    assert (days["events"], days["streams"], days["overdue_streams"]) == (1, 1, None)
    assert (hours["coverage"]["observed"], days["coverage"]["observed"]) == (0.5, 1.0)
    assert hours["newest_ds"] == "2024-05-01T01:00:00.000Z"


def test_the_status_of_one_model_has_no_tables() -> None:
    view = LiveViews({"": metadata()})
    reply = ReadApi(ForecastCache(10), view, Health(), StreamAlarms(), ExpertWeights(view.charted)).answer(
        "/status", ""
    )
    assert reply is not None
    assert json.loads(reply.body)["models"] == []


def test_a_stream_on_the_live_page_names_its_table_and_the_summary_has_its_model() -> None:
    view = filled()
    data = PageData(view, StreamAlarms(), ExpertWeights(view.charted))
    document = data.streams()
    tables = {stream["unique_id"]: stream["model"] for stream in document["streams"]}
    assert tables == {"room/1": "hours", "room/2": "hours", "shop/1": "days"}
    models = document["summary"]["models"]
    assert models["days"]["model"]["step_ms"] == DAY * HOUR_MS
    assert data.stream("shop/1")["model"] == "days"
    alone = LiveViews({"": metadata()})
    put(alone, "", ["a"], 0, [1.0])
    assert "model" not in PageData(alone, StreamAlarms(), ExpertWeights(alone.charted)).stream("a")
