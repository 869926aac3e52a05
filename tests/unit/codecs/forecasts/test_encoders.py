"""All codecs write the same facts, and the reader reads each of them."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import msgspec
import numpy as np
import pytest

from rillcast.bundle.bundle import BundleMetadata
from rillcast.codecs.forecasts import avro
from rillcast.codecs.forecasts.columns import CODECS, STATUS_NAMES, Codec, ForecastColumns
from rillcast.codecs.forecasts.encoders import make_encoder
from rillcast.codecs.forecasts.float32 import HEADER
from rillcast.codecs.forecasts.reader import decode_forecast
from rillcast.errors import DataError
from tests.support.formats import SCHEMAS
from tests.support.toy import ToyGraph

IDS = ["plain", 'quote"', 'a","b', "back\\slash", "%d %s", "\u20ac\n\x00", "], [", "x" * 300]


def metadata(**changes: Any) -> BundleMetadata:
    return ToyGraph().metadata().model_copy(update={"model_id": "0123456789abcdef"} | changes)


def columns(ids: list[str], horizon: int = 2, levels: int = 3, *, revised: bool = False) -> ForecastColumns:
    n, numbers = len(ids), np.random.default_rng(3)
    return ForecastColumns(
        unique_ids=ids,
        ds=np.arange(n) * 3_600_123 + 1_714_564_800_000,
        status=np.array([number % 4 for number in range(n)], np.int8),
        forecast=numbers.normal(scale=1e6, size=(n, horizon, levels)).astype(np.float32),
        anomaly=np.where(np.arange(n) % 3 == 0, np.nan, numbers.random(n)).astype(np.float32),
        partitions=np.arange(n) % 5,
        offsets=np.arange(n) + 2**40,
        revision=(np.arange(n) * 70_000).astype(np.int32) if revised else None,
    )


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("revised", [False, True])
@pytest.mark.parametrize(("horizon", "levels"), [(2, 3), (1, 1), (24, 9), (20, 20)])
def test_reader_reads_what_a_codec_wrote(codec: Codec, horizon: int, levels: int, revised: bool) -> None:
    quantiles = tuple(round((i + 1) / (levels + 1), 3) for i in range(levels))
    given = columns(IDS, horizon, levels, revised=revised)
    about = metadata(horizon=horizon, quantiles=quantiles)
    keys, values = make_encoder(codec, about, schema_id=lambda: 7).encode(given)
    for row, (key, value) in enumerate(zip(keys, values, strict=True)):
        read = decode_forecast(value, key)
        assert (read.unique_id, read.ds, read.freq) == (IDS[row], given.ds[row], "1h")
        assert read.status == STATUS_NAMES[given.status[row]]
        assert read.model.endswith("0123456789abcdef")
        assert (read.partition, read.offset) == (given.partitions[row], given.offsets[row])
        assert read.quantiles == quantiles
        assert read.revision == (0 if given.revision is None else given.revision[row])
        np.testing.assert_array_equal(read.values, given.forecast[row])
        assert given.anomaly is not None
        np.testing.assert_array_equal(np.float32(read.anomaly), given.anomaly[row])


@pytest.mark.parametrize("codec", CODECS)
def test_a_reader_knows_when_the_periods_ahead_begin(codec: Codec) -> None:
    given = columns(["a"], horizon=3)
    given.ds[:] = np.datetime64("2023-12-31T12:00", "ms").astype(np.int64)
    about = metadata(horizon=3).model_copy(update={"freq": "1mo"})
    (key,), (value,) = make_encoder(codec, about, schema_id=lambda: 7).encode(given)
    times = decode_forecast(value, key).times.astype("M8[ms]").astype("M8[h]").astype(str)
    assert times.tolist() == ["2024-01-01T00", "2024-02-01T00", "2024-03-01T00"]


@pytest.mark.parametrize("codec", CODECS)
def test_nothing_encodes_to_nothing(codec: Codec) -> None:
    assert make_encoder(codec, metadata(), schema_id=lambda: 7).encode(columns([])) == ([], [])


@pytest.mark.parametrize("codec", CODECS)
def test_a_bundle_without_anomaly_leaves_it_unknown(codec: Codec) -> None:
    given = columns(["a"])
    without = ForecastColumns(
        given.unique_ids, given.ds, given.status, given.forecast, None, given.partitions, given.offsets
    )
    (key,), (value,) = make_encoder(codec, metadata(), schema_id=lambda: 7).encode(without)
    assert np.isnan(decode_forecast(value, key).anomaly)


@pytest.mark.parametrize("revised", [False, True])
def test_msgpack_has_the_members_of_json(revised: bool) -> None:
    given = columns(IDS, revised=revised)
    _, texts = make_encoder("json", metadata()).encode(given)
    _, packed = make_encoder("msgpack", metadata()).encode(given)
    for row, (text, value) in enumerate(zip(texts, packed, strict=True)):
        json_members, members = json.loads(text), msgspec.msgpack.decode(value)
        assert members["ds"] == given.ds[row]
        assert json_members.keys() == members.keys()
        assert json_members["quantiles"].keys() == members["quantiles"].keys()
        assert (json_members["anomaly"] is None) == (members["anomaly"] is None)


def test_float32_record_has_the_documented_size() -> None:
    _, (value,) = make_encoder("float32", metadata(horizon=24)).encode(columns(["a"], horizon=24))
    assert HEADER.itemsize == 64
    assert len(value) == 64 + 4 * 3 + 4 * 24 * 3
    _, (value,) = make_encoder("float32", metadata(horizon=24)).encode(columns(["a"], horizon=24, revised=True))
    assert len(value) == 64 + 4 * 3 + 4 + 4 * 24 * 3


def test_decimals_bound_the_digits_of_a_json_forecast() -> None:
    given = columns(["a"])
    _, (value,) = make_encoder("json", metadata(), decimals=1).encode(given)
    read = decode_forecast(value)
    np.testing.assert_allclose(read.values, given.forecast[0], atol=0.1)
    for level in json.loads(value, parse_float=str)["quantiles"].values():
        assert all(len(number.split(".")[1]) == 1 for number in level)


@pytest.mark.parametrize("value", [b"", b"[]", b"{}", b'{"unique_id": 1}', b"\x81\xa1a", b"RCF1", b"RCF1" + bytes(60)])
def test_other_records_are_refused(value: bytes) -> None:
    with pytest.raises(DataError):
        decode_forecast(value, b"key") if len(value) < 60 else decode_forecast(value)


def test_float32_record_needs_its_key() -> None:
    _, (value,) = make_encoder("float32", metadata()).encode(columns(["a"]))
    with pytest.raises(DataError, match="key"):
        decode_forecast(value)


def test_avro_numbers_are_as_the_specification_has_them() -> None:
    longs = [0, -1, 1, -2, 2, -64, 64, 8_191, -8_193, 2**31, 1_714_564_800_000, -(2**63), 2**63 - 1]
    for value, found in zip(longs, avro.numbers(np.array(longs, np.int64)), strict=True):
        written = io.BytesIO()
        fastavro.schemaless_writer(written, {"type": "long"}, value)
        assert found == written.getvalue(), value


def test_the_schema_is_asked_for_once_and_only_when_there_is_something_to_write() -> None:
    asked: list[int] = []

    def ask() -> int:
        asked.append(1)
        return 258

    encoder = make_encoder("avro", metadata(), schema_id=ask)
    encoder.encode(columns([]))
    assert asked == []
    frames = {value[:5] for _ in range(3) for value in encoder.encode(columns(["a", "b"]))[1]}
    assert (frames, len(asked)) == ({b"\0\0\0\1\2"}, 1)


def test_the_published_avro_schema_is_the_one_that_is_registered() -> None:
    assert json.loads((SCHEMAS / "forecast.avsc").read_text()) == avro.SCHEMA
