from __future__ import annotations

import json

import numpy as np
import pytest

from rillcast.bundle.bundle import Status
from rillcast.codecs.forecasts.columns import ForecastColumns
from rillcast.codecs.forecasts.encoders import make_encoder
from tests.support.hostile import NOON_MS
from tests.support.toy import ToyGraph


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


def test_forecast_recordhas_the_documented_form() -> None:
    keys, (record,) = encode(columns(1, status=np.array([Status.WARMING_UP], np.int8)))
    assert keys == [b"s0"]
    assert record == {
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
    for row, record in enumerate(records):
        quantiles = record["quantiles"]
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
