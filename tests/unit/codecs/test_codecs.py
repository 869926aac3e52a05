from __future__ import annotations

import json

import numpy as np
import pytest

from rillcast.bundle.bundle import Status
from rillcast.codecs.forecasts.columns import ForecastColumns
from rillcast.codecs.forecasts.encoders import make_encoder
from rillcast.codecs.observations.decoder import DecodeLimits, ObservationDecoder
from rillcast.codecs.observations.rejections import Reason
from tests.support.hostile import HOSTILE, NOON_MS, polled, record
from tests.support.toy import ToyGraph


@pytest.mark.parametrize(
    ("ds", "expected"),
    [
        (NOON_MS, NOON_MS),
        ("2024-05-01T12:00:00Z", NOON_MS),
        ("2024-05-01T12:00:00", NOON_MS),
        ("2024-05-01 12:00:00", NOON_MS),
        ("2024-05-01T14:00:00+02:00", NOON_MS),
        ("2024-05-01T12:00:00.123Z", NOON_MS + 123),
        ("2024-05-01T12:00:00.123999Z", NOON_MS + 123),
        ("1969-12-31T23:59:59.999Z", -1),
        (-1, -1),
    ],
)
def test_event_times_become_milliseconds(ds: object, expected: int) -> None:
    events, rejections = ObservationDecoder().decode(polled([record(ds=ds)]))
    assert rejections == []
    assert events.ds.tolist() == [expected]


@pytest.mark.parametrize("value", [record(y=None), b'{"unique_id": "a", "ds": 0}'])
def test_null_and_absent_y_are_missing(value: bytes) -> None:
    events, _ = ObservationDecoder().decode(polled([value]))
    assert np.isnan(events.y).tolist() == [True]


def test_whole_numbers_and_further_members_are_taken() -> None:
    events, rejections = ObservationDecoder().decode(polled([record(y=3, x={"temp": [1, 2]}, note="hello")]))
    assert events.y.tolist() == [3.0]
    assert rejections == []


@pytest.mark.parametrize(("value", "reason"), HOSTILE)
def test_bad_record_is_rejected_with_its_reason_and_good_neighbours_are_kept(
    value: bytes | None, reason: Reason
) -> None:
    events, rejections = ObservationDecoder().decode(
        polled([record(unique_id="before"), value, record(unique_id="after")])
    )
    assert events.unique_ids == ["before", "after"]
    assert events.rows.tolist() == [0, 2]
    assert [(r.row, r.reason) for r in rejections] == [(1, reason)]
    assert rejections[0].detail


def test_ids_at_the_limit_are_taken() -> None:
    events, rejections = ObservationDecoder(DecodeLimits(max_id_bytes=6)).decode(
        polled([record(unique_id="\u20ac\u20ac"), record(unique_id="abcdef")])
    )
    assert events.unique_ids == ["\u20ac\u20ac", "abcdef"]
    assert rejections == []


def test_an_empty_poll_decodes_to_nothing() -> None:
    events, rejections = ObservationDecoder().decode(polled([]))
    assert len(events) == 0
    assert rejections == []


def columns(n: int, **changes: object) -> ForecastColumns:
    values: dict[str, object] = {
        "unique_ids": [f"s{i}" for i in range(n)],
        "ds": NOON_MS + np.arange(n),
        "status": np.full(n, Status.OK, np.int8),
        "forecast": np.arange(n * 6, dtype=np.float32).reshape(n, 2, 3) / 7,
        "anomaly": np.linspace(0, 1, n, dtype=np.float32),
        "partitions": np.zeros(n, np.int64),
        "offsets": np.arange(n) + 40,
    }
    return ForecastColumns(**(values | changes))  # type: ignore[arg-type]


def encode(given: ForecastColumns) -> tuple[list[bytes], list[dict[str, object]]]:
    metadata = ToyGraph().metadata().model_copy(update={"model_id": "abc"})
    keys, values = make_encoder("json", metadata).encode(given)
    return keys, [json.loads(value) for value in values]


def test_forecast_record_has_the_documented_form() -> None:
    keys, (record_,) = encode(columns(1, status=np.array([Status.WARMING_UP], np.int8)))
    assert keys == [b"s0"]
    assert record_ == {
        "unique_id": "s0",
        "ds": "2024-05-01T12:00:00.000Z",
        "freq": "1h",
        "model": "toy@abc",
        "status": "warming_up",
        "quantiles": {
            "0.1": [0.0, pytest.approx(3 / 7)],
            "0.5": [pytest.approx(1 / 7), pytest.approx(4 / 7)],
            "0.9": [pytest.approx(2 / 7), pytest.approx(5 / 7)],
        },
        "anomaly": 0.0,
        "source": {"partition": 0, "offset": 40},
    }


def test_numbers_read_back_to_the_same_float32() -> None:
    given = columns(50, forecast=np.random.default_rng(1).normal(scale=1e6, size=(50, 2, 3)).astype(np.float32))
    _, records = encode(given)
    for row, record_ in enumerate(records):
        quantiles = record_["quantiles"]
        assert isinstance(quantiles, dict)
        read = np.array([quantiles[level] for level in ("0.1", "0.5", "0.9")], np.float32).T
        np.testing.assert_array_equal(read, given.forecast[row])


@pytest.mark.parametrize("unique_id", ['quote"', "back\\slash", "%d %s %b", "\u20ac\n\t\x00", "], [", "]],[["])
def test_any_stream_id_is_written_as_valid_json(unique_id: str) -> None:
    keys, records = encode(columns(2, unique_ids=[unique_id, "plain"]))
    assert [r["unique_id"] for r in records] == [unique_id, "plain"]
    assert keys[0].decode() == unique_id


def test_unknown_anomaly_is_null() -> None:
    _, records = encode(columns(2, anomaly=np.array([np.nan, 0.5], np.float32)))
    assert [r["anomaly"] for r in records] == [None, 0.5]
    _, records = encode(columns(2, anomaly=None))
    assert [r["anomaly"] for r in records] == [None, None]


def test_nothing_encodes_to_nothing() -> None:
    assert encode(columns(0)) == ([], [])
