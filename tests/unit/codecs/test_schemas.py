"""The published schemas describe what the codecs read and write."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import numpy as np
import pytest

from rillcast.bundle.bundle import Status
from rillcast.codecs.forecasts.columns import ForecastColumns
from rillcast.codecs.forecasts.encoders import make_encoder
from rillcast.codecs.forecasts.selection import Selection
from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.codecs.observations.protobuf import OBSERVATION, observation_message
from rillcast.codecs.observations.rejections import Reason
from rillcast.reading.times import MAX_DS, MIN_DS
from tests.support.formats import SCHEMAS
from tests.support.hostile import HOSTILE, NOON_MS, polled, record
from tests.support.toy import ToyGraph, toy_bundle


def validator(name: str) -> Any:
    schema = json.loads((SCHEMAS / name).read_text())
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    return kind(schema, format_checker=kind.FORMAT_CHECKER)


@pytest.mark.parametrize("value", [record(), record(y=None), record(ds="2024-05-01T12:00:00Z"), record(x={"a": 1})])
def test_the_schema_of_observations_takes_what_the_decoder_takes(value: bytes) -> None:
    assert ObservationDecoder().decode(polled([value]))[1] == []
    validator("observation.schema.json").validate(json.loads(value))


def no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


# What a schema cannot say: limits that are settings, and dates that do not exist (their check is optional).
BEYOND_A_SCHEMA = (Reason.TOO_LARGE, Reason.Y_OUT_OF_RANGE)


@pytest.mark.parametrize(("value", "reason"), HOSTILE)
def test_the_schema_of_observations_refuses_what_the_decoder_refuses(value: bytes | None, reason: Reason) -> None:
    try:
        document = json.loads(value or b"", parse_constant=no_constant)
    except (ValueError, RecursionError):
        assert reason in (Reason.EMPTY, Reason.NOT_JSON, Reason.NOT_UTF8, Reason.Y_OUT_OF_RANGE)
        return
    too_long = reason is Reason.BAD_ID and len(document["unique_id"]) > 100
    not_a_date = reason is Reason.DS_OUT_OF_RANGE and isinstance(document["ds"], str)
    lone_surrogate = reason is Reason.NOT_JSON
    refused = not validator("observation.schema.json").is_valid(document)
    assert refused or reason in BEYOND_A_SCHEMA or too_long or not_a_date or lone_surrogate


def test_the_bounds_of_time_are_the_decoders() -> None:
    schema = json.loads((SCHEMAS / "observation.schema.json").read_text())
    number = schema["properties"]["ds"]["oneOf"][0]
    assert number["minimum"] == MIN_DS.timestamp() * 1000
    assert number["maximum"] == MAX_DS.timestamp() * 1000


@pytest.mark.parametrize("status", [status for status in Status if status.advanced])
@pytest.mark.parametrize("anomaly", [None, np.array([np.nan], np.float32), np.array([0.5], np.float32)])
@pytest.mark.parametrize("revised", [False, True])
@pytest.mark.parametrize("steps", [(1, 2), (2, 4)])
def test_every_forecast_keeps_its_schema(status: Status, anomaly: Any, revised: bool, steps: tuple[int, ...]) -> None:
    columns = ForecastColumns(
        unique_ids=["€"],
        ds=np.array([NOON_MS]),
        status=np.array([status], np.int8),
        forecast=np.ones((1, 4, 3), np.float32),
        anomaly=anomaly,
        partitions=np.array([3]),
        offsets=np.array([2**40]),
        revision=np.array([2], np.int32) if revised else None,
    )
    metadata = toy_bundle().metadata.model_copy(update={"horizon": 4})
    part = Selection.of(metadata, (), steps)
    _, (value,) = make_encoder("json", metadata, selection=part).encode(columns)
    document = json.loads(value)
    validator("forecast.schema.json").validate(document)
    members = set(json.loads((SCHEMAS / "forecast.schema.json").read_text())["properties"])
    assert set(document) == members - (set() if revised else {"revision"}) - ({"steps"} if steps == (1, 2) else set())


def test_the_schema_of_forecasts_lists_the_statuses_that_are_published() -> None:
    schema = json.loads((SCHEMAS / "forecast.schema.json").read_text())
    published = [status.name.lower() for status in Status if status.advanced]
    assert schema["properties"]["status"]["enum"] == published
    assert ToyGraph().metadata().freq == "1h"
    assert all(re.match(schema["properties"]["freq"]["pattern"], freq) for freq in ("1h", "3mo"))


def test_the_proto_file_and_the_built_in_message_are_one() -> None:
    text = (SCHEMAS / "observation.proto").read_text()
    assert "package rillcast.v1;" in text
    written = re.findall(r"^  (optional )?([\w.]+) (\w+) = (\d+);", text, re.MULTILINE)
    message: Any = observation_message().DESCRIPTOR
    assert message.full_name == OBSERVATION
    scalars = [field for field in message.fields if field.name in ("unique_id", "ds", "y")]
    maps = re.findall(r"^  map<string, (\w+)> (\w+) = (\d+);", text, re.MULTILINE)
    assert [(name, int(number), kind) for kind, name, number in maps] == [
        (field.name, field.number, field.message_type.fields_by_name["value"].message_type.name)
        for field in message.fields[len(scalars) :]
    ]
    written = [one for one in written if one[2] in message.fields_by_name]
    inner = {"Value": ["number", "text"], "Numbers": ["values"]}
    for name, members in inner.items():
        assert [field.name for field in message.file.message_types_by_name[name].fields] == members
        assert all(re.search(rf"^ +(repeated )?\w+ {member} = \d+;", text, re.MULTILINE) for member in members)
    kinds = {"string": 9, "google.protobuf.Timestamp": 11, "double": 1}
    assert [(name, int(number), kinds[kind]) for _, kind, name, number in written] == [
        (field.name, field.number, field.type) for field in scalars
    ]
    # A message always has presence; a scalar only where the file says `optional`.
    assert [bool(optional) or kind not in ("string", "double") for optional, kind, *_ in written] == [
        field.has_presence for field in scalars
    ]
