"""Anomalous observations: which are published, as what, and how they are listed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from rillcast import cli
from rillcast.codecs.forecasts.columns import CODECS, Codec, ForecastColumns
from rillcast.codecs.forecasts.encoders import make_encoder
from rillcast.codecs.observations.rejections import Reason
from rillcast.errors import DataError, SettingsError
from rillcast.events import EventBatch
from rillcast.publishing.anomalies import Anomaly, AnomalyPublisher, anomalous
from rillcast.service.build import build
from rillcast.settings import Settings
from rillcast.transports.base import Channel
from tests.support.formats import SCHEMAS
from tests.support.live_views import HOUR_MS, START_MS, metadata, published, silences, stepped
from tests.support.memory import Log, MemorySink
from tests.support.toy import write_toy

ANOMALIES = [np.nan, 0.5, 0.995, 1.0, 0.9901, 0.98]


def anomalies(sizes: Sequence[float], live: Sequence[bool] | None = None) -> list[bytes]:
    """Return the records that anomalies of these sizes become, of one event each."""
    n = len(sizes)
    log, counts = Log({0: []}), list[int]()
    sink = MemorySink(log)
    ids, ds = [f"s{i}" for i in range(n)], START_MS + np.arange(n) * HOUR_MS
    events = EventBatch.of(ids, ds, np.full(n, 0.1), partition=3, first_offset=40)
    observer = AnomalyPublisher(sink, 0.01, count=counts.append)
    observer.observe(published(events, stepped(n, anomaly=sizes), live=live))
    sink.flush(1.0)
    records = log.published[Channel.ANOMALIES]
    assert counts == ([len(records)] if records else [])
    return [value for _, value, _ in records if value is not None]


def test_observations_below_the_tail_probability_are_published() -> None:
    records = [json.loads(value) for value in anomalies(ANOMALIES)]
    assert [record["unique_id"] for record in records] == ["s2", "s3", "s4"]
    assert records[0] == {
        "unique_id": "s2",
        "ds": "2024-05-01T02:00:00.000Z",
        "y": 0.1,
        "anomaly": 0.995,
        "tail_probability": 0.005,
        "status": "ok",
        "freq": "1h",
        "model": "toy@0123456789abcdef",
        "source": {"partition": 3, "offset": 42},
    }


def test_records_keep_their_schema_and_are_read_back() -> None:
    schema = json.loads((SCHEMAS / "anomaly.schema.json").read_text())
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    for value in anomalies(ANOMALIES):
        kind(schema, format_checker=kind.FORMAT_CHECKER).validate(json.loads(value))
    first = Anomaly.read(anomalies(ANOMALIES)[0])
    assert first == Anomaly("s2", START_MS + 2 * HOUR_MS, 0.1, 0.995, "toy@0123456789abcdef", 3, 42, "ok")
    assert first.tail_probability == pytest.approx(0.005)


def test_an_anomaly_that_its_topic_does_not_take_is_left_out_and_named() -> None:
    log, counts = Log({0: []}), list[int]()
    sink = MemorySink(log)
    sink.largest[Channel.ANOMALIES] = 500
    events = EventBatch.of(["a", "b" * 300, "c"], [START_MS] * 3, [0.1] * 3)
    results = published(events, stepped(3, anomaly=[1.0] * 3))
    AnomalyPublisher(sink, 0.01, count=counts.append).observe(results)
    sink.flush(1.0)
    assert [key for key, _, _ in log.published[Channel.ANOMALIES]] == [b"a", b"c"]
    assert counts == [2]
    (rejection,) = results.rejections
    assert (rejection.row, rejection.reason) == (1, Reason.ANOMALY_TOO_LARGE)
    assert "topic of anomalies at most 500 (max.message.bytes" in rejection.detail


def test_a_silence_has_one_record_of_the_period_that_failed_to_come(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (value,) = silences(Channel.ANOMALIES)
    schema = json.loads((SCHEMAS / "anomaly.schema.json").read_text())
    jsonschema.validate(json.loads(value), schema)
    read = Anomaly.read(value)
    assert (read.unique_id, read.ds, read.status, read.offset) == ("quiet", START_MS + HOUR_MS, "silence", 41)
    assert np.isnan([read.y, read.anomaly]).all()
    path = tmp_path / "anomalies.jsonl"
    path.write_bytes(value + b"\n" + anomalies(ANOMALIES)[0] + b"\n")
    assert cli.main(["anomalies", "--file", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "2024-05-01T01:00:00.000Z  silence     quiet"
    assert cli.main(["anomalies", "--file", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (document["status"], document["tail_probability"]) == ("silence", None)


def test_only_live_events_are_published() -> None:
    live = [True, True, False, True, True, True]
    assert [json.loads(value)["unique_id"] for value in anomalies(ANOMALIES, live)] == ["s3", "s4"]


def test_the_unknown_is_not_anomalous_and_the_limit_itself_neither() -> None:
    found = anomalous(np.array([np.nan, 0.99, 0.9900001, 0.0], np.float32), 0.01)
    assert found.tolist() == [False, False, True, False]


def forecasts(codec: Codec) -> tuple[list[bytes], list[bytes]]:
    n = len(ANOMALIES)
    columns = ForecastColumns(
        unique_ids=[f"s{i % 4}" for i in range(n)],
        ds=START_MS + np.arange(n) * HOUR_MS,
        status=np.zeros(n, np.int8),
        forecast=np.ones((n, 3, 3), np.float32),
        anomaly=np.array(ANOMALIES, np.float32),
        partitions=np.zeros(n, np.int64),
        offsets=np.arange(n),
    )
    return make_encoder(codec, metadata(), schema_id=lambda: 7).encode(columns)


@pytest.mark.parametrize("codec", CODECS)
def test_forecasts_of_any_codec_have_the_anomaly_too(codec: Codec) -> None:
    keys, values = forecasts(codec)
    found = [Anomaly.read(value, key) for key, value in zip(keys, values, strict=True)]
    assert [one.anomaly for one in found] == pytest.approx(ANOMALIES, abs=1e-6, nan_ok=True)
    assert [one.offset for one in found] == list(range(len(ANOMALIES)))
    assert np.isnan([one.y for one in found]).all()


@pytest.mark.parametrize("value", [b"", b"{}", b"[1]", b'{"unique_id": "a"}', b"\xff\x00", b'{"ds": 1, "anomaly": []}'])
def test_what_is_neither_an_anomaly_nor_a_forecast_is_refused(value: bytes) -> None:
    with pytest.raises(DataError):
        Anomaly.read(value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "forecasts.jsonl"
    path.write_bytes(b"\n".join([*forecasts("json")[1], *anomalies([0.999]), b'{"no": "such thing"}']) + b"\n")
    return path


def listed(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    assert cli.main(["anomalies", *map(str, arguments)]) == 0
    return capsys.readouterr().out.splitlines()


def test_the_command_lists_what_is_below_the_setting(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = listed(capsys, "--file", file)
    assert [line.split()[3] for line in lines] == ["s2", "s3", "s0", "s0"]
    assert lines[-1] == "2024-05-01T00:00:00.000Z  p 0.001     s0  y 0.1"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--tail-probability", "0.03"], [2, 3, 4, 5, 40]),
        (["--tail-probability", "0.003"], [3, 40]),
        (["--stream", "s0"], [4, 40]),
        (["--stream", "s0", "--stream", "s2", "--limit", "2"], [2, 4]),
        (["--since", "2024-05-01T03:00:00Z"], [3, 4]),
        (["--until", "2024-05-01T03:00:00Z"], [2, 40]),
    ],
)
def test_the_command_chooses(
    file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: list[int]
) -> None:
    lines = listed(capsys, "--file", file, "--json", *arguments)
    assert [json.loads(line)["source"]["offset"] for line in lines] == expected


def test_the_command_counts_by_stream_and_reports_records_that_it_cannot_read(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["anomalies", "--file", str(file), "--count", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"s0": 2, "s2": 1, "s3": 1}
    assert "1 records are neither" in captured.err


@pytest.mark.parametrize("flags", [["--tail-probability", "0"], ["--follow"], ["--tail-probability", "1.5"]])
def test_flags_that_make_no_sense_are_refused(file: Path, flags: list[str]) -> None:
    assert cli.main(["anomalies", "--file", str(file), *flags]) == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"anomalies": {"topic": "forecasts"}}, "which is one of"),
        ({"anomalies": {"path": "a.jsonl"}}, "use anomalies.topic"),
        ({"anomalies": {"topic": "a"}, "output": {"path": "f.jsonl"}}, "use anomalies.path"),
        ({"anomalies": {"path": "f.jsonl"}, "output": {"path": "f.jsonl"}}, "path of another output"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings.model_validate(values)


def test_a_model_that_does_not_rate_observations_is_refused(tmp_path: Path) -> None:
    settings = {
        "model": write_toy(tmp_path / "toy.onnx"),
        "input": {"path": str(tmp_path / "in.jsonl")},
        "output": {"path": str(tmp_path / "out.jsonl")},
        "dead_letters": {"path": str(tmp_path / "dead.jsonl")},
        "anomalies": {"path": str(tmp_path / "anomalies.jsonl")},
    }
    (tmp_path / "in.jsonl").write_text("")
    with pytest.raises(SettingsError, match="has no output 'anomaly'"):
        build(Settings.model_validate(settings))
