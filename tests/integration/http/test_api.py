"""The read API, asked over a loopback socket; every answer is held against the description that is served with it."""

from __future__ import annotations

import http.client
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import jsonschema
import numpy as np
import openapi_spec_validator
import pytest
from prometheus_client import CollectorRegistry

from rillcast.bundle.mixture import Mixture
from rillcast.codecs.forecasts.columns import Codec
from rillcast.engine.step_engine import SilentStream, SilentStreams
from rillcast.events import EventBatch
from rillcast.observability.expert_weights import ExpertWeights, Sample
from rillcast.observability.forecast_cache import ForecastCache
from rillcast.observability.health import Health
from rillcast.observability.live_view import LiveView
from rillcast.observability.openapi import openapi
from rillcast.observability.server import HttpServer
from rillcast.observability.stream_alarms import StreamAlarms
from rillcast.settings import HttpSettings
from tests.support.live_views import HOUR_MS, START_MS, metadata, publish, put, stepped
from tests.support.live_views import published as observed
from tests.support.paths import ROOT


@dataclass
class Running:
    port: int
    forecast_cache: ForecastCache
    live_view: LiveView
    alarms: StreamAlarms = field(default_factory=StreamAlarms)
    weights: ExpertWeights = field(default_factory=lambda: ExpertWeights(list))

    def alarm(self, unique_ids: list[str], rows: list[tuple[float, ...]], hour: int = 0) -> None:
        """Let the alarms of these streams be what a graph says of them."""
        events = EventBatch.of(unique_ids, [START_MS + HOUR_MS * hour] * len(rows), [1.0] * len(rows))
        self.alarms.observe(observed(events, stepped(len(rows), alarm=rows)))

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def described(self, route: str, path: str) -> tuple[int, Any]:
        """Ask, and hold the answer against what the description says of `route` and this status."""
        description = json.loads(self.ask("/api/v1/openapi.json")[1])
        status, body = self.ask(f"/api/v1{path}")
        document = json.loads(body)
        answer = description["paths"][route]["get"]["responses"][str(status)]
        schema = answer["content"]["application/json"]["schema"] | {"components": description["components"]}
        kind = jsonschema.Draft202012Validator
        kind(schema, format_checker=kind.FORMAT_CHECKER).validate(document)
        return status, document


@pytest.fixture
def running() -> Iterator[Running]:
    forecast_cache, live_view, alarms = ForecastCache(1_000), LiveView(metadata()), StreamAlarms()
    settings, weights = HttpSettings(port=0), ExpertWeights(live_view.charted)
    server = HttpServer(settings, CollectorRegistry(), Health(), live_view, forecast_cache, alarms, weights)
    server.start()
    try:
        yield Running(server.port, forecast_cache, live_view, alarms, weights)
    finally:
        server.stop()


def test_the_description_is_openapi_and_the_published_one() -> None:
    description = openapi()
    openapi_spec_validator.validate(description)
    assert json.loads((ROOT / "docs/schemas/openapi.json").read_text()) == description


def test_the_newest_forecast_of_a_stream_is_the_record_that_was_publish(running: Running) -> None:
    publish(running.forecast_cache, ["a", "web-17/cpu ☂"], first=0)
    records = publish(running.forecast_cache, ["a", "web-17/cpu ☂"], first=2)
    status, document = running.described("/streams/{unique_id}", f"/streams/{quote('web-17/cpu ☂', safe='')}")
    assert status == 200
    assert document == json.loads(records[1])
    assert document["source"] == {"partition": 0, "offset": 3}


@pytest.mark.parametrize("codec", ["msgpack", "float32", "avro"])
def test_a_forecast_of_another_codec_is_the_same_to_a_reader(running: Running, codec: Codec) -> None:
    in_json = json.loads(publish(running.forecast_cache, ["a", "b"])[1])
    publish(running.forecast_cache, ["a", "b"], codec=codec)
    status, document = running.described("/streams/{unique_id}", "/streams/b")
    assert status == 200
    if codec == "float32":  # it has the id of the bundle alone
        in_json["model"] = in_json["model"].split("@")[1]
    assert document == in_json


def test_a_stream_that_is_not_kept_is_not_found(running: Running) -> None:
    status, document = running.described("/streams/{unique_id}", "/streams/nobody")
    assert status == 404
    assert "'nobody'" in document["error"]


def test_pages_put_together_are_all_streams_in_order(running: Running) -> None:
    ids = [f"s{number}" for number in range(250)]
    publish(running.forecast_cache, ids)
    found: list[str] = []
    query = {"limit": "60"}
    while True:
        status, page = running.described("/streams", f"/streams?{urlencode(query)}")
        assert (status, page["total"]) == (200, 250)
        found += [entry["unique_id"] for entry in page["streams"]]
        if page["next"] is None:
            break
        assert len(page["streams"]) == 60
        query["after"] = page["next"]
    assert found == sorted(ids)


def test_a_stream_that_goes_between_two_pages_hides_no_other(running: Running) -> None:
    publish(running.forecast_cache, ["a", "b", "c", "d"])
    publish(running.forecast_cache, ["b"], partition=1)
    first = running.described("/streams", "/streams?limit=2")[1]
    running.forecast_cache.forget(1)
    second = running.described("/streams", f"/streams?limit=2&after={first['next']}")[1]
    assert [entry["unique_id"] for page in (first, second) for entry in page["streams"]] == ["a", "b", "c", "d"]
    assert second["total"] == 3


def test_a_prefix_chooses_streams(running: Running) -> None:
    publish(running.forecast_cache, ["db-1", "web-1", "web-2", "www"])
    page = running.described("/streams", "/streams?prefix=web-")[1]
    assert ([entry["unique_id"] for entry in page["streams"]], page["total"]) == (["web-1", "web-2"], 2)


def test_alarms_are_listed_open_ones_first_and_a_stream_shows_its_own(running: Running) -> None:
    publish(running.forecast_cache, ["a", "b", "c"])
    running.alarm(["a"], [(3, -1, 5_000, 5, 3, 10.5, 0.25, 168)])
    running.alarm(["b"], [(1, 4, 200, 0, 0, 1, 2, 168)])
    running.alarm(["c"], [(1, 6, 200, 0, 0, 1, math.nan, 168)], hour=1)
    every = running.described("/alarms", "/alarms")[1]
    assert ([alarm["unique_id"] for alarm in every["alarms"]], every["open"]) == (["c", "b", "a"], 2)
    assert every["alarms"][2] == {
        "unique_id": "a",
        "kind": "spike",
        "direction": "down",
        "severity": "critical",
        "strength": 5000.0,
        "first": "2024-04-30T19:00:00.000Z",
        "last": "2024-04-30T21:00:00.000Z",
        "closed": "2024-05-01T00:00:00.000Z",
        "expected": 10.5,
        "observed": 0.25,
        "model": "toy@0123456789abcdef",
    }
    assert (every["alarms"][0]["kind"], every["alarms"][0]["observed"]) == ("silence", None)
    for query, ids in (("state=open&limit=1", ["c"]), ("state=closed", ["a"]), ("limit=3", ["c", "b", "a"])):
        page = running.described("/alarms", f"/alarms?{query}")[1]
        assert [alarm["unique_id"] for alarm in page["alarms"]] == ids
    listed = running.described("/streams", "/streams")[1]["streams"]
    assert {entry["unique_id"]: entry["alarm"] for entry in listed} == {"a": None, "b": "variance", "c": "silence"}
    assert running.described("/status", "/status")[1]["open_alarms"] == 2
    status, document = running.described("/alarms", "/alarms?state=sleeping")
    assert (status, "open, closed, all" in document["error"]) == (400, True)


def test_streams_are_chosen_by_a_part_of_their_id_and_by_trouble(running: Running) -> None:
    publish(running.forecast_cache, ["db-1", "web-1", "WEB-2", "www"])
    running.alarm(["web-1", "gone"], [(1, 4, 200, 0, 0, 1, 2, 168)] * 2)
    silent = [SilentStream("www", START_MS, asleep=False), SilentStream("db-1", START_MS - HOUR_MS, asleep=True)]
    assert running.described("/silent", "/silent")[1] == {"streams": [], "overdue": None, "sleeping": None, "away": []}
    running.live_view.silent_streams(SilentStreams(2, 1, silent))
    for query, ids in (
        ("contains=eb-", ["WEB-2", "web-1"]),
        ("contains=1&prefix=w", ["web-1"]),
        ("trouble=alarm", ["web-1"]),
        ("trouble=silence", ["db-1", "www"]),
        ("trouble=any&limit=2", ["db-1", "web-1"]),
    ):
        page = running.described("/streams", f"/streams?{query}")[1]
        assert [entry["unique_id"] for entry in page["streams"]] == ids, query
    listed = {entry["unique_id"]: entry for entry in running.described("/streams", "/streams")[1]["streams"]}
    assert (listed["www"]["silence"], listed["www"]["silent_since"]) == ("overdue", "2024-05-01T00:00:00.000Z")
    assert (listed["db-1"]["silence"], listed["web-1"]["silence"]) == ("asleep", None)
    document = running.described("/silent", "/silent?limit=1")[1]
    one = {"unique_id": "www", "silence": "overdue", "since": "2024-05-01T00:00:00.000Z"}
    assert document == {"streams": [one], "overdue": 2, "sleeping": 1, "away": []}


def test_what_forecasts_are_made_of_is_told_of_a_stream_and_of_some(running: Running) -> None:
    assert running.described("/mixture", "/mixture")[0] == 404
    config = {"freq": "1h", "seasons": [24], "quantiles": [0.5], "anchors": [1, 24], "horizon": 24}
    mixture = Mixture(config | {"experts": [["level", 1.0], ["naive0", 0.0], ["naive0", 1.0]]})
    mean, own = np.array([[0.5, 0.25, 0.25], [0, 0, 1]]), np.array([[1, 0, 0], [0.02, 0.98, 0]], np.float32)
    fleet, of_one = np.array([[0.9, 0.3, 0.0], [0.5, np.nan, np.nan]]), np.array([[0.96, -0.2, 0.1], [0.5, 0.0, 0.0]])
    running.weights.show(Sample("toy@0123456789abcdef", mixture, 7, mean, {"a b": own}))
    assert running.described("/mixture", "/mixture")[1]["horizons"][0]["network"] is None
    running.weights.show(Sample("toy@0123456789abcdef", mixture, 7, mean, {"a b": own}, fleet, {"a b": of_one}))
    status, document = running.described("/mixture", "/mixture")
    assert (status, document["unique_id"], document["streams"]) == (200, None, 7)
    assert [one["step"] for one in document["horizons"]] == [1, 24]
    assert document["horizons"][0]["shares"] == [
        {"expert": "level, and the last value", "share": 0.5},
        {"expert": "value a day ago", "share": 0.5},
    ]
    assert document["horizons"][0]["network"] == {"share": 0.9, "median": 0.3, "width": 1.0}
    assert document["horizons"][1]["network"] == {"share": 0.5, "median": None, "width": None}
    document = running.described("/mixture", "/mixture?unique_id=a+b")[1]
    assert (document["unique_id"], document["streams"]) == ("a b", 1)
    assert document["horizons"][0]["words"] == (
        "100 % level, and the last value; network: counts 96 %, median -0.20 widths, width x 1.11"
    )
    assert document["horizons"][1]["words"].startswith("98 % value a day ago, 2 % others; network: counts 50 %")
    status, document = running.described("/mixture", "/mixture?unique_id=c")
    assert (status, "'c' is not charted" in document["error"]) == (404, True)
    assert running.described("/mixture", "/mixture?stream=a")[0] == 400


@pytest.mark.parametrize(
    ("query", "reason"),
    [("trouble=noise", "alarm, silence, any"),
     ("limit=0", "1 to 1000"), ("limit=x", "limit is 'x'"), ("limit=1001", "1001"), ("page=2", "'page'"),
     ("after=a&after=b", "twice"), ("limit=٣", "limit is")],
)  # fmt: skip
def test_parameters_that_make_no_sense_are_refused_with_the_reason(running: Running, query: str, reason: str) -> None:
    status, document = running.described("/streams", f"/streams?{quote(query, safe='=&')}")
    assert status == 400
    assert reason in document["error"]


def test_the_status_is_described_before_and_after_the_first_event(running: Running) -> None:
    status, empty = running.described("/status", "/status")
    assert (status, empty["events"], empty["newest_ds"], empty["latency_s"]["p50"]) == (200, 0, None, None)
    put(running.live_view, ["a", "b"], [0, 1], [1.0, 2.0], covered=[1.0, 0.0], num_streams=2)
    publish(running.forecast_cache, ["a", "b"])
    assert empty["overdue_streams"] is None
    running.live_view.silent_streams(SilentStreams(1, 0, [SilentStream("a", START_MS, asleep=False)]))
    document = running.described("/status", "/status")[1]
    assert document["overdue_streams"] == 1
    assert (document["events"], document["streams"], document["listed"]) == (2, 2, 2)
    assert document["newest_ds"] == "2024-05-01T01:00:00.000Z"
    assert document["coverage"] == {"nominal": 0.8, "observed": 0.5, "forecasts": 2}
    assert document["conditions"] == {"started": False, "assigned": False, "restored": False, "live": True}


def test_nothing_can_be_changed(running: Running) -> None:
    publish(running.forecast_cache, ["a"])
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert running.ask("/api/v1/streams/a", method)[0] == 405
    assert running.ask("/api/v1/streams/a")[0] == 200


def test_where_there_is_a_token_it_is_asked_for() -> None:
    settings = HttpSettings.model_validate({"port": 0, "token": "open-sesame"})
    server = HttpServer(settings, CollectorRegistry(), Health(), LiveView(metadata()), ForecastCache(10))
    server.start()
    try:
        running = Running(server.port, ForecastCache(1), LiveView(metadata()))
        assert running.ask("/api/v1/streams")[0] == 401
        assert running.ask("/api/v1/streams", Authorization="Bearer open-sesame")[0] == 200
    finally:
        server.stop()


def test_without_kept_streams_the_api_says_that_it_is_off() -> None:
    server = HttpServer(HttpSettings(port=0), CollectorRegistry(), Health(), LiveView(metadata()))
    server.start()
    try:
        status, body = Running(server.port, ForecastCache(1), LiveView(metadata())).ask("/api/v1/streams")
    finally:
        server.stop()
    assert status == 404
    assert b"http.cached_streams" in body


def test_the_last_streams_that_were_published_are_kept_and_about_twice_as_many_at_most() -> None:
    forecast_cache, published_last = ForecastCache(5), list[str]()
    numbers = np.random.default_rng(0).integers(0, 40, 400).tolist()
    while numbers:
        size = 1 + len(numbers) % 7
        ids, numbers = [f"s{number}" for number in numbers[:size]], numbers[size:]
        records = publish(forecast_cache, ids, first=len(numbers))
        for unique_id in ids:
            published_last = [*(one for one in published_last if one != unique_id), unique_id]
        assert all(forecast_cache.get(unique_id) is not None for unique_id in published_last[-5:])
        assert forecast_cache.get(ids[-1]) == records[-1]
        assert len(forecast_cache) <= 2 * (5 + 6), "twice as many, and those of two batches"
        assert {unique_id for unique_id, _ in forecast_cache.page(100).records} >= set(published_last[-5:])


def test_the_last_of_several_records_of_a_stream_stays() -> None:
    forecast_cache = ForecastCache(3)
    records = publish(forecast_cache, ["a", "b", "a"])
    assert (forecast_cache.get("a"), len(forecast_cache)) == (records[2], 2)
    (newer,) = publish(forecast_cache, ["c"]) and publish(forecast_cache, ["a"])
    assert forecast_cache.get("a") == newer, "the younger table is asked first"
