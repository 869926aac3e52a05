"""The targets of fuzzing, and what has to hold for any bytes.

A target takes any bytes and returns, or fails. An exception that the code does not promise is a crash, and so is a
broken promise: a record neither used nor refused, a neighbour harmed, an answer that depends on other records of the
poll.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, Final

import msgspec
import numpy as np
import onnx
from google.protobuf.message import DecodeError

from rillcast.bundle import onnx_safety
from rillcast.bundle.bundle import METADATA_KEY, Bundle, model_id
from rillcast.bundle.covariates import Covariate
from rillcast.codecs.observations.covariates import CovariateColumns, CovariateRules
from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.codecs.observations.expansion import Expansion
from rillcast.codecs.observations.fields import Fields
from rillcast.codecs.observations.format import Format
from rillcast.codecs.observations.influx import InfluxFormat
from rillcast.codecs.observations.telegraf import TelegrafFormat
from rillcast.engine import quarantine
from rillcast.errors import BundleError, DataError
from rillcast.publishing.dead_letters import DeadLetter
from rillcast.transports.base import Headers
from rillcast.transports.file import dead_letter_lines
from rillcast.transports.file.readers import CsvReader
from tests.fuzz import doors, stored
from tests.fuzz.polls import MOMENT, check_poll
from tests.fuzz.target import Target
from tests.support.formats import format_of, mock_registry, writer_of
from tests.support.hostile import HOSTILE, NOON_MS, polled, record
from tests.support.toy import ToyGraph

_MODEL_ID: Final = re.compile('"model_id":"[^"]*"')
_LONGEST_SEED: Final = 2_000


def _decoding(decoder: ObservationDecoder, good: bytes, seeds: Sequence[bytes], share: float) -> Target:
    def run(data: bytes) -> None:
        _check(decoder, good, (), data, ())

    return Target(run, seeds, share, poll=partial(check_poll, decoder, good))


def _check(decoder: ObservationDecoder, good: bytes, good_headers: Headers, data: bytes, headers: Headers) -> None:
    events, rejections = decoder.decode(polled([good, data, good], headers=[good_headers, headers, good_headers]))
    rows = events.rows.tolist()
    assert sorted(rows + [rejection.row for rejection in rejections]) == [0, 1, 2]
    assert {0, 2} <= set(rows), "a neighbour was harmed"
    alone, refused_alone = decoder.decode(polled([data], headers=[headers]))
    assert [r.reason for r in rejections] == [r.reason for r in refused_alone], "it depends on the neighbours"
    if 1 in rows:
        at = rows.index(1)
        unique_id, ds, y = events.unique_ids[at], int(events.ds[at]), float(events.y[at])
        assert (unique_id, ds) == (alone.unique_ids[0], int(alone.ds[0]))
        assert y == float(alone.y[0]) or (math.isnan(y) and np.isnan(alone.y[0]))
        assert unique_id
        assert len(unique_id.encode()) <= 512
        assert MOMENT[0] <= ds <= MOMENT[1]
        assert not abs(y) > 1e15
    for rejection in rejections:
        assert rejection.detail
        assert len(rejection.detail) <= 200


def _expanded(decoder: ObservationDecoder, good: bytes) -> Target:
    """Records that are any number of events: each is an event, a dead letter, or left out, and harms no neighbour."""
    expected = decoder.decode(polled([good]))[0].unique_ids

    def run(data: bytes) -> None:
        events, rejections = decoder.decode(polled([good, data, good]))
        ids, rows = list(events.unique_ids), events.rows.tolist()
        assert [unique_id for unique_id, row in zip(ids, rows, strict=True) if row != 1] == [*expected, *expected]
        assert rows == sorted(rows)
        assert len({rejection.row for rejection in rejections}) == len(rejections) <= 1
        assert 1 in rows or rejections or events.left_out, "a record is lost without a word"
        assert all(unique_id and len(unique_id.encode()) <= 512 for unique_id in ids)
        assert all(MOMENT[0] <= ds <= MOMENT[1] for ds in events.ds.tolist())
        assert not (np.abs(events.y) > 1.001e15).any()
        assert all(0 < len(rejection.detail) <= 300 for rejection in rejections)

    return Target(run, [good], 0.1, poll=partial(check_poll, decoder, good, expands=True))


def _wide() -> Target:
    good = json.dumps(
        {"tags": {"host": "a", "dc": 1}, "m": [{"t": NOON_MS, "v": {"a": 1, "b": None}, "w": 2.5}]}
    ).encode()
    expansion = Expansion("tags.*,m[].t", "m[].t", "m[].v.*,m[].w", only="tags.dc=1|2")
    return _expanded(ObservationDecoder(expansion=expansion), good)


def _metrics(name: str) -> Target:
    good = b'cpu,host=a\\ b,dc=x v=1.5,w=2i,s="t,\\"u" %d' % NOON_MS
    form: Format = InfluxFormat()
    if name == "telegraf":
        metric = {"name": "cpu", "tags": {"host": "a"}, "fields": {"v": 1, "s": "x"}, "timestamp": NOON_MS}
        good, form = json.dumps({"metrics": [metric, metric]}).encode(), TelegrafFormat()
    expansion = Expansion("name,tags.*", "timestamp", "fields.*", in_array=True)
    return _expanded(ObservationDecoder(form=form, expansion=expansion), good)


def _json_seeds() -> list[bytes]:
    seeds = [record(), record(ds="2024-05-01T12:00:00.123+02:00", y=None), record(x={"a": [1, {"b": None}]})]
    return seeds + [value for value, _ in HOSTILE if value and len(value) < _LONGEST_SEED]


def _with_covariates() -> Target:
    declared = (
        Covariate("temp", "past"),
        Covariate("promo", "known"),
        Covariate("shop", "category", categories=("mall", "web")),
    )
    decoder = ObservationDecoder(
        fields=Fields(covariates=declared),
        columns=CovariateColumns(declared, 2, CovariateRules(out_of_range="dead_letter")),
    )
    good = record(x={"temp": 1.5, "promo": 0, "shop": "mall"}, future={"promo": [0, 1]})

    def run(data: bytes) -> None:
        _check(decoder, good, (), data, ())
        events, _ = decoder.decode(polled([data]))
        for column in (events.x, events.future):
            assert column is not None
            assert len(column) == len(events)
            assert not np.any(np.abs(column) > 1e15), "neither a number in range nor missing"

    odd = record(x={"temp": None, "shop": 7, "new": []}, future={"promo": [None, 1e16, 3]})
    seeds = [good, odd, record(x=None, future=None), record(x=[], future=7)]
    return Target(run, seeds, 0.1, poll=partial(check_poll, decoder, good))


def _framed(name: str) -> Target:
    registry = mock_registry()
    write = writer_of(name, registry)
    seeds = [write({"unique_id": "a", "ds": NOON_MS, "y": 1.5}), write({"unique_id": "€" * 9, "ds": 0})]
    decoder = ObservationDecoder(form=format_of(name, registry))
    frame, good = seeds[0][:5], seeds[0]

    def run(data: bytes) -> None:
        _check(decoder, good, (), data, ())
        _check(decoder, good, (), frame + data, ())  # past the frame, into the payload

    def poll(values: Sequence[bytes]) -> None:
        check_poll(decoder, good, [each for value in values for each in (value, frame + value)])

    return Target(run, [*seeds, *(seed[5:] for seed in seeds)], 0.1, poll=poll)


def _cloudevent() -> Target:
    binary = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"s"), ("ce_type", b"t")]
    structured = [("content-type", b"application/cloudevents+json")]
    decoder = ObservationDecoder(fields=Fields("$ce.subject", "$ce.time", "a.y"), cloudevents=True)
    members = {
        "specversion": "1.0",
        "id": "1",
        "source": "s",
        "type": "t",
        "subject": "a",
        "time": "2024-05-01T12:00:00Z",
    }
    good = json.dumps(members | {"data": {"a": {"y": 1}}}).encode()

    def forms(data: bytes) -> list[tuple[bytes, Headers]]:
        head, _, rest = data.partition(b"}")
        return [
            (data, structured), (data, binary), (rest, [*binary, ("ce_subject", head), ("ce_time", rest[:30])])
        ]  # fmt: skip

    def run(data: bytes) -> None:
        for value, headers in forms(data):
            _check(decoder, good, structured, value, headers)

    def poll(datas: Sequence[bytes]) -> None:
        values, headers = zip(*(form for data in datas for form in forms(data)), strict=True)
        check_poll(decoder, good, values, good_headers=structured, headers=headers)

    seeds = [good, json.dumps(members | {"data_base64": "eyJhIjp7InkiOjF9fQ=="}).encode(), b'{"a": {"y": 1}}']
    return Target(run, seeds, 0.1, poll=poll)


def _line(data: bytes) -> None:
    try:
        line = dead_letter_lines.read(data)
    except ValueError:
        return
    DeadLetter.read(line.key, line.value, line.headers)
    again = dead_letter_lines.read(dead_letter_lines.write(*line))
    headers, read_again = (sorted(each.headers, key=repr) for each in (line, again))  # one without a value is None
    assert (again.key, again.value, read_again) == (line.key, line.value, headers)


def _csv(data: bytes) -> None:
    try:
        reader = CsvReader(io.BytesIO(data), "fuzz")
    except DataError:
        return
    decoder = ObservationDecoder()
    while not reader.ended:
        try:
            batch = reader.read(100, 0)
        except DataError:  # UTF-16 that is cut short
            return
        events, rejections = decoder.decode(replace(polled(batch.values), faults=batch.faults))
        assert len(events) + len(rejections) == len(batch.values)
        assert {rejection.row for rejection in rejections} >= batch.faults.keys()


def _bundle(data: bytes) -> None:
    _load(data)
    try:
        onnx_safety.check_bytes(data)
        model = onnx.load_model_from_string(data)
    except (BundleError, DecodeError):
        return
    # An attacker who knows how the id is made does the same; otherwise no input would pass that check.
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY and isinstance(entry.value, str):  # bytes where it is not UTF-8
            with contextlib.suppress(BundleError):
                entry.value = _MODEL_ID.sub(f'"model_id":"{model_id(model)}"', entry.value)
    _load(model.SerializeToString())


def _load(data: bytes) -> None:
    """The quarantine can rewrite every accepted file, which is the next step of loading."""
    try:
        bundle = Bundle.from_bytes(data)
    except BundleError as refused:
        if not refused.clause:
            raise
    else:
        quarantine.add(bundle.step.served, bundle.metadata.states, branches=True)


def _bundle_seeds() -> list[bytes]:
    """Return the toy, and pieces of it with parts exchanged, so that mutants get past the parser."""
    whole = ToyGraph().build()
    seeds = [whole]
    for index in range(len(ToyGraph().nodes)):
        model = onnx.load_model_from_string(whole)
        node = model.graph.node[index]
        node.op_type = "Identity"
        seeds.append(model.SerializeToString())
        model = onnx.load_model_from_string(whole)
        del model.graph.node[index]
        seeds.append(model.SerializeToString())
    return seeds


@cache
def targets() -> dict[str, Target]:
    """Return every target by name."""
    good = record()
    packed = msgspec.msgpack.encode({"unique_id": "a", "ds": NOON_MS, "y": 1.5})
    mapped = json.dumps({"tags": {"host": "a"}, "at": NOON_MS // 1000, "f": {"v": 1.5}}).encode()
    line = dead_letter_lines.write(b"k", b"\xff", [("a", b"1"), ("a", b"\xff"), ("rillcast-reason", b"not_json")])
    message: dict[str, Any] = {"unique_id": "a", "ds": NOON_MS, "y": None, "more": [{}, b"x", 1.5]}
    return {
        "json": _decoding(ObservationDecoder(), good, _json_seeds(), 0.15),
        "covariates": _with_covariates(),
        "mapped": _decoding(
            ObservationDecoder(fields=Fields("tags.host", "at", "f.v", ds_unit="s")), mapped, [mapped], 0.1
        ),
        "wide": _wide(),
        "telegraf": _metrics("telegraf"),
        "influx": _metrics("influx"),
        "msgpack": _decoding(
            ObservationDecoder(form=format_of("msgpack", mock_registry())),
            packed,
            [packed, msgspec.msgpack.encode(message)],
            0.15,
        ),
        "avro": _framed("avro"),
        "protobuf": _framed("protobuf"),
        "json_schema": _framed("json_schema"),
        "cloudevents": _cloudevent(),
        "dead_letters": Target(
            _line,
            [
                line,
                *(b'{"key": null, "value": "", "headers": {"a": [%s, "2"]}}' % first for first in (b'"1"', b"null")),
            ],
            0.05,
        ),
        "csv": Target(_csv, [b"unique_id,ds,y\na,2024-05-01,1.5\nb,0,\n", b'unique_id,ds,y\n"a\n""b",1,nan\n'], 0.03),
        "bundle": Target(_bundle, _bundle_seeds(), 0.02, 150),
        **stored.targets(),
        **doors.targets(),
    }
