"""Rows say what whole forecasts say, one step each, and what is not published is in none of them."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import numpy as np
import pytest

from rillcast.codecs.forecasts import avro, avro_rows
from rillcast.codecs.forecasts.columns import CODECS, STATUS_NAMES, Codec, ForecastColumns
from rillcast.codecs.forecasts.encoders import make_encoder, make_row_encoder
from rillcast.codecs.forecasts.reader import decode_forecast
from rillcast.codecs.forecasts.rows import MEMBERS, RowKey, column_name, quantile_of
from rillcast.codecs.forecasts.selection import Selection
from rillcast.errors import DataError
from rillcast.publishing.anomalies import Anomaly
from tests.unit.codecs.forecasts.test_encoders import IDS, columns, metadata

LEVELS = (0.025, 0.1, 0.5, 0.9)
STEPS = (1, 2, 4)


def selection() -> Selection:
    """The levels 0.1 and 0.5 and the steps 1, 2 and 4 of a model with four of both."""
    return Selection.of(metadata(horizon=4, quantiles=LEVELS), (0.1, 0.5), STEPS)


def given(*, revised: bool = False) -> ForecastColumns:
    return columns(IDS, 4, 4, revised=revised)


def expected(forecasts: ForecastColumns) -> list[dict[str, Any]]:
    """The rows, written a second time and plainly; times are milliseconds."""
    rows = []
    for row, unique_id in enumerate(forecasts.unique_ids):
        for index, step in enumerate(STEPS):
            assert forecasts.anomaly is not None
            rated = forecasts.anomaly[row]
            rows.append({
                "unique_id": unique_id,
                "ds": (int(forecasts.ds[row]) // 3_600_000 + step) * 3_600_000,
                "origin": int(forecasts.ds[row]),
                "step": step,
                "q10": forecasts.forecast[row, step - 1, 1],
                "q50": forecasts.forecast[row, step - 1, 2],
                "model": "toy@0123456789abcdef",
                "freq": "1h",
                "status": STATUS_NAMES[forecasts.status[row]],
                "anomaly": None if index or np.isnan(rated) else rated,
                "revision": 0 if forecasts.revision is None else int(forecasts.revision[row]),
                "source_partition": int(forecasts.partitions[row]),
                "source_offset": int(forecasts.offsets[row]),
            })  # fmt: skip
    return rows


def as_float32(members: dict[str, Any]) -> dict[str, Any]:
    names = ("q10", "q50", "anomaly")
    return {n: np.float32(v) if n in names and v is not None else v for n, v in members.items()}


def milliseconds(text: str) -> int:
    assert text.endswith("Z")
    return int(np.datetime64(text[:-1], "ms").astype(np.int64))


@pytest.mark.parametrize("revised", [False, True])
def test_a_row_of_json_is_one_step_of_its_forecast(revised: bool) -> None:
    forecasts = given(revised=revised)
    encoder = make_row_encoder(selection())
    assert encoder.records_per_forecast == 3
    keys, values = encoder.encode(forecasts)
    found = [json.loads(value) for value in values]
    for row in found:
        row["ds"], row["origin"] = milliseconds(row["ds"]), milliseconds(row["origin"])
    assert [as_float32(row) for row in found] == [as_float32(row) for row in expected(forecasts)]
    assert list(found[0]) == [*list(MEMBERS)[:4], "q10", "q50", *list(MEMBERS)[4:]]
    assert [json.loads(key) for key in keys] == [
        {name: json.loads(value)[name] for name in ("unique_id", "origin", "step")} for value in values
    ]


@pytest.mark.parametrize("key", ["origin", "ds"])
def test_the_envelope_of_connect_has_a_schema_for_every_member(key: RowKey) -> None:
    keys, values = make_row_encoder(selection(), connect=True, key=key).encode(given())
    rows = [json.loads(value)["payload"] for value in values]
    assert [as_float32(row) for row in rows] == [as_float32(row) for row in expected(given())]
    schema = json.loads(values[0])["schema"]
    assert [field["field"] for field in schema["fields"]] == list(rows[0])
    types = {field["field"]: (field["type"], field.get("name"), field["optional"]) for field in schema["fields"]}
    assert types["ds"] == types["origin"] == ("int64", "org.apache.kafka.connect.data.Timestamp", False)
    assert types["q10"] == types["anomaly"] == ("float", None, True)
    assert (types["step"], types["source_offset"]) == (("int32", None, False), ("int64", None, False))
    names = ["unique_id", "origin", "step"] if key == "origin" else ["unique_id", "ds"]
    first = json.loads(keys[0])
    assert [field["field"] for field in first["schema"]["fields"]] == list(first["payload"]) == names
    assert first["payload"] == {name: rows[0][name] for name in names}


@pytest.mark.parametrize("revised", [False, True])
def test_a_row_of_avro_has_the_members_of_json(revised: bool) -> None:
    forecasts = given(revised=revised)
    asked: list[tuple[str, str]] = []

    def ask(key: str, value: str) -> tuple[int, int]:
        asked.append((key, value))
        return 3, 258

    encoder = make_row_encoder(selection(), schema_ids=ask)
    assert encoder.encode(columns([], 4, 4)) == ([], [])
    keys, values = encoder.encode(forecasts)
    encoder.encode(forecasts)
    ((key_schema, value_schema),) = asked
    rows = [_avro(value, json.loads(value_schema), 258) for value in values]
    assert [as_float32(row) for row in rows] == [as_float32(row) for row in expected(forecasts)]
    assert [_avro(key, json.loads(key_schema), 3) for key in keys] == [
        {name: row[name] for name in ("unique_id", "origin", "step")} for row in rows
    ]
    with pytest.raises(DataError, match="deserialiser"):
        decode_forecast(values[0])


def _avro(record: bytes, schema: dict[str, Any], number: int) -> dict[str, Any]:
    assert record[:5] == b"\0" + number.to_bytes(4, "big")
    stream = io.BytesIO(record[5:])
    members: Any = fastavro.schemaless_reader(stream, schema, None)
    assert not stream.read()
    found: dict[str, Any] = {
        name: int(value.timestamp() * 1000 + 0.5) if name in ("ds", "origin") else value
        for name, value in members.items()
    }
    return found


def test_models_with_other_levels_have_compatible_schemas() -> None:
    assert all(
        field["default"] is None and field["type"][0] == "null"
        for field in avro_rows.value_schema(metadata())["fields"]
        if field["name"].startswith("q")
    )


@pytest.mark.parametrize("connect", [False, True])
def test_the_reader_takes_a_row_for_a_forecast_of_one_step(connect: bool) -> None:
    forecasts = given()
    _, values = make_row_encoder(selection(), connect=connect).encode(forecasts)
    for index, (value, row) in enumerate(zip(values, expected(forecasts), strict=True)):
        read = decode_forecast(value)
        assert (read.unique_id, read.ds, read.steps, read.quantiles) == (
            row["unique_id"], row["origin"], (row["step"],), (0.1, 0.5),
        )  # fmt: skip
        assert read.times.tolist() == [row["ds"]]
        np.testing.assert_array_equal(read.values, forecasts.forecast[index // 3, [row["step"] - 1]][:, [1, 2]])


def test_an_anomaly_is_read_once_from_the_rows_of_a_forecast() -> None:
    forecasts = given()
    ask = lambda _key, _value: (1, 2)  # noqa: E731
    for encoder in (
        make_row_encoder(selection()), make_row_encoder(selection(), connect=True),
        make_row_encoder(selection(), schema_ids=ask),
    ):  # fmt: skip
        read = [Anomaly.read(value) for value in encoder.encode(forecasts)[1]]
        assert forecasts.anomaly is not None
        rated = [each for each in read if not np.isnan(each.anomaly)]
        at = np.flatnonzero(~np.isnan(forecasts.anomaly))
        assert [each.unique_id for each in rated] == [IDS[row] for row in at]
        assert [each.ds for each in rated] == forecasts.ds[at].tolist()
        np.testing.assert_array_equal(np.array([each.anomaly for each in rated], np.float32), forecasts.anomaly[at])
        assert [each.offset for each in read] == np.repeat(forecasts.offsets, 3).tolist()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("revised", [False, True])
@pytest.mark.parametrize("steps", [STEPS, (1, 2), (3,)])
def test_a_selection_is_what_the_reader_finds(codec: Codec, revised: bool, steps: tuple[int, ...]) -> None:
    about = metadata(horizon=4, quantiles=LEVELS)
    part = Selection.of(about, (0.1, 0.9), steps)
    forecasts = given(revised=revised)
    keys, values = make_encoder(codec, about, schema_id=lambda: 7, selection=part).encode(forecasts)
    for row, (key, value) in enumerate(zip(keys, values, strict=True)):
        read = decode_forecast(value, key)
        assert (read.quantiles, read.steps) == ((0.1, 0.9), steps)
        assert read.revision == (0 if forecasts.revision is None else forecasts.revision[row])
        at = np.array(steps) - 1
        np.testing.assert_array_equal(read.values, forecasts.forecast[row][at][:, [1, 3]])
        assert (read.times // 3_600_000 - read.ds // 3_600_000).tolist() == list(steps)
        assert (b"steps" in value) == (codec in ("json", "msgpack") and steps != (1, 2))
    if codec == "avro":
        schema = json.loads(avro.schema(part.named_steps))
        (document,) = [fastavro.schemaless_reader(io.BytesIO(values[0][5:]), schema, None)]
        assert document.get("steps", [1, 2]) == list(steps)  # type: ignore[union-attr]


def test_what_a_model_does_not_have_cannot_be_published() -> None:
    with pytest.raises(ValueError, match=r"publish.levels has 0.25, but toy has 0.1, 0.5, 0.9"):
        Selection.of(metadata(), (0.25, 0.5))
    with pytest.raises(ValueError, match=r"publish.horizons has step 3, but toy has steps 1 to 2"):
        Selection.of(metadata(), (), (1, 3))


@pytest.mark.parametrize("level", [0.1, 0.5, 0.025, 0.0001, 0.975, 0.995, 1 / 3])
def test_the_name_of_a_level_is_read_back(level: float) -> None:
    assert column_name(level).replace("_", "").isalnum()
    assert quantile_of(column_name(level)) == pytest.approx(level, rel=1e-9)
