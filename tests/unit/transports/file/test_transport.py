"""Files as source and sink: formats, hostile rows, pipes, pacing, and what is on the disk afterwards."""

from __future__ import annotations

import gzip
import json
import os
import select
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rillcast.errors import DataError, SettingsError, TransportError
from rillcast.settings import KafkaSettings, Settings
from rillcast.transports import connect
from rillcast.transports.base import Channel, Records
from rillcast.transports.file.readers import PipeReader, open_reader
from rillcast.transports.file.transport import FileSink, FileSource, Pacer
from tests.support.transports import Listener, read, rows

HEADER = "unique_id,ds,y\n"


def values(path: Path, file_format: str = "auto") -> list[bytes]:
    """Return every record of a file as its reader hands it over."""
    with closing(open_reader(str(path), file_format)) as reader:
        records: list[bytes] = []
        while not reader.ended:
            records += reader.read(3, 0.0)
    return records


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# JSON Lines


def test_lines_are_handed_over_as_they_stand_with_empty_ones_and_without_their_ends(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", b'{"a": 1}\r\n\nnot json\n\xff\xfe\n{"last": 1}')
    assert values(path) == [b'{"a": 1}', b"", b"not json", b"\xff\xfe", b'{"last": 1}']


@pytest.mark.parametrize("name", ["in.jsonl.gz", "in.csv.gz"])
def test_gzip_is_read_through(tmp_path: Path, name: str) -> None:
    plain = b'{"unique_id":"a","ds":1,"y":2.0}\n' if "json" in name else HEADER.encode() + b"a,1,2\n"
    path = write(tmp_path / name, gzip.compress(plain))
    assert [json.loads(value) for value in values(path)] == [{"unique_id": "a", "ds": 1, "y": 2.0}]


def test_a_cut_gzip_stream_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    whole = gzip.compress(os.urandom(200_000).hex().encode())
    path = write(tmp_path / "cut.jsonl.gz", whole[: len(whole) // 2])
    with pytest.raises(TransportError, match=r"cut\.jsonl\.gz.*reading failed"):
        values(path)


# CSV


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("a,1714564800000,0.5", {"unique_id": "a", "ds": 1714564800000, "y": 0.5}),
        ("a,2024-05-01T12:00:00Z,-1e3", {"unique_id": "a", "ds": "2024-05-01T12:00:00Z", "y": -1000.0}),
        ("007,1,+.5", {"unique_id": "007", "ds": 1, "y": 0.5}),
        ("a,1,", {"unique_id": "a", "ds": 1, "y": None}),
        ("a,1,NaN", {"unique_id": "a", "ds": 1, "y": None}),
        ("a,1,inf", {"unique_id": "a", "ds": 1, "y": "inf"}),
        ("a,1,1e999", {"unique_id": "a", "ds": 1, "y": "1e999"}),
        ("a,1,1_000", {"unique_id": "a", "ds": 1, "y": "1_000"}),
        ("a,1,twelve", {"unique_id": "a", "ds": 1, "y": "twelve"}),
        ("a,99999999999999999999999,1", {"unique_id": "a", "ds": "99999999999999999999999", "y": 1.0}),
        ('"a,""b""",1,2', {"unique_id": 'a,"b"', "ds": 1, "y": 2.0}),
        ('"two\nlines",1,2', {"unique_id": "two\nlines", "ds": 1, "y": 2.0}),
        ("a,1", ["a", "1"]),
        ("a,1,2,3", ["a", "1", "2", "3"]),
        ("", []),
    ],
)
def test_a_csv_row_becomes_the_record_that_it_stands_for(tmp_path: Path, row: str, expected: object) -> None:
    path = write(tmp_path / "in.csv", f"{HEADER}{row}\nnext,2,3\n")
    first, second = values(path)
    assert json.loads(first) == expected
    assert json.loads(second) == {"unique_id": "next", "ds": 2, "y": 3.0}


def test_a_csv_row_that_is_not_utf8_is_handed_over_as_its_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "in.csv", HEADER.encode() + b"caf\xe9,1,2\nb,1,2\n")
    assert values(path)[0] == b"caf\xe9,1,2"
    assert json.loads(values(path)[1])["unique_id"] == "b"


def test_a_csv_field_beyond_the_limit_of_the_csv_module_spoils_one_row_only(tmp_path: Path) -> None:
    path = write(tmp_path / "in.csv", f"{HEADER}{'x' * 200_000},1,2\nb,1,2\n")
    first, second = values(path)
    assert "field larger than field limit" in json.loads(first)[0]
    assert json.loads(second)["unique_id"] == "b"


def test_csv_columns_may_stand_in_any_order_after_a_byte_order_mark(tmp_path: Path) -> None:
    path = write(tmp_path / "in.csv", b"\xef\xbb\xbfy,other,unique_id, ds\n2,x,a,1\n")
    assert [json.loads(value) for value in values(path)] == [{"unique_id": "a", "ds": 1, "y": 2.0}]


@pytest.mark.parametrize("content", ["", "unique_id,ds\na,1\n", "a,1,2\n"])
def test_a_csv_header_without_the_needed_columns_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match=r"columns .* are missing"):
        values(write(tmp_path / "in.csv", content))


# Parquet


def test_parquet_times_become_milliseconds_and_nan_becomes_null(tmp_path: Path) -> None:
    noon = datetime(2024, 5, 1, 12, tzinfo=UTC)
    frame = pl.DataFrame(
        {"unique_id": [1, 2, 3], "ds": [noon, noon, noon], "y": [0.5, float("nan"), float("inf")], "other": [0, 0, 0]}
    )
    frame.write_parquet(tmp_path / "in.parquet")
    assert [json.loads(value) for value in values(tmp_path / "in.parquet")] == [
        {"unique_id": "1", "ds": 1714564800000, "y": 0.5},
        {"unique_id": "2", "ds": 1714564800000, "y": None},
        {"unique_id": "3", "ds": 1714564800000, "y": "inf"},
    ]


def test_a_naive_parquet_time_counts_as_utc(tmp_path: Path) -> None:
    naive = datetime(2024, 5, 1, 12)  # noqa: DTZ001  the case at hand
    pl.DataFrame({"unique_id": ["a"], "ds": [naive], "y": [1]}).write_parquet(tmp_path / "in.parquet")
    assert json.loads(values(tmp_path / "in.parquet")[0]) == {"unique_id": "a", "ds": 1714564800000, "y": 1}


def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a Parquet file"):
        values(write(tmp_path / "in.parquet", b"PAR1 no"))


# Names


def test_the_format_setting_overrules_the_name(tmp_path: Path) -> None:
    path = write(tmp_path / "data.txt", HEADER + "a,1,2\n")
    assert json.loads(values(path, "csv")[0])["unique_id"] == "a"
    with pytest.raises(SettingsError, match=r"input\.format"):
        values(path)


@pytest.mark.parametrize("name", ["none.jsonl", "none.csv", "none.parquet"])
def test_a_missing_file_is_a_data_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=name):
        FileSource(str(tmp_path / name)).open(Listener())


def test_standard_input_is_json_lines_only() -> None:
    with pytest.raises(SettingsError, match="standard input"):
        open_reader("-", "csv")


# Pipes


@pytest.fixture
def pipe() -> Iterator[tuple[PipeReader, int]]:
    receiving, sending = os.pipe()
    yield PipeReader(receiving), sending
    os.close(receiving)


def test_a_silent_pipe_is_waited_for_once_until_the_timeout_and_is_not_ended(
    pipe: tuple[PipeReader, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, sending = pipe
    waits: list[float] = []
    wait = select.select

    def watched(readable: list[int], writable: list[int], failed: list[int], timeout: float) -> object:
        waits.append(timeout)
        return wait(readable, writable, failed, timeout)

    monkeypatch.setattr(select, "select", watched)
    assert reader.read(10, 0.05) == []
    assert len(waits) == 1, "it waits in the system, and does not ask again and again"
    assert 0 < waits[0] <= 0.05
    assert not reader.ended
    os.close(sending)


def test_lines_of_a_pipe_come_whole_however_they_were_written(pipe: tuple[PipeReader, int]) -> None:
    reader, sending = pipe
    os.write(sending, b"one\ntw")
    assert reader.read(10, 1.0) == [b"one"]
    assert reader.read(10, 0.01) == []
    os.write(sending, b"o\r\n\nthree\nfo")
    assert reader.read(2, 1.0) == [b"two", b""]
    os.write(sending, b"ur")
    os.close(sending)
    assert reader.read(10, 1.0) == [b"three"]
    assert not reader.ended
    assert reader.read(10, 1.0) == [b"four"]
    assert reader.ended or reader.read(10, 1.0) == []
    assert reader.ended


# Pacing


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_pacer_lets_pass_what_is_due_and_no_more() -> None:
    clock = Clock()
    pacer = Pacer(4.0, clock)
    assert pacer.due(10) == 1
    pacer.passed(1)
    assert (pacer.due(10), pacer.wait_s()) == (0, 0.25)
    clock.now += 1.0
    assert (pacer.due(10), pacer.due(2), pacer.wait_s()) == (4, 2, 0.0)
    pacer.passed(4)
    assert pacer.due(10) == 0


def test_without_a_rate_everything_is_due_at_once() -> None:
    assert Pacer(0.0).due(7) == 7


class SleepingTime:
    """Time that passes only in `sleep`."""

    time_ns = staticmethod(time.time_ns)

    def __init__(self) -> None:
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return sum(self.slept)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def test_a_paced_source_sleeps_from_record_to_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, passing = write(tmp_path / "in.jsonl", b"{}\n" * 11), SleepingTime()
    with closing(FileSource(str(path), rate=50.0)) as source:
        monkeypatch.setattr(source, "_pacer", Pacer(50.0, passing.monotonic))
        monkeypatch.setattr("rillcast.transports.file.transport.time", passing)
        source.open(Listener())
        taken = [len(source.poll(100, 1.0)) for _ in range(11)]
    assert taken == [1] * 11
    assert passing.slept == pytest.approx([0.02] * 10)


def test_commit_remembers_for_this_run_only(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", b"{}\n" * 3)
    for _ in range(2):
        listener = Listener()
        with closing(FileSource(str(path))) as source:
            source.open(listener)
            read(source, 3)
            source.commit({0: 3})
            assert source.committed == {0: 3}
        assert [assignment.committed for assignment in listener.assigned] == [None]


# Sinks


def sink_for(folder: Path, name: str = "out.jsonl", *, append: bool = False) -> FileSink:
    paths = {Channel.FORECASTS: str(folder / name), Channel.DEAD_LETTERS: str(folder / "dead.jsonl")}
    return FileSink(paths, append=append)


def test_dead_letters_keep_text_as_text_and_other_bytes_as_base64(tmp_path: Path) -> None:
    with closing(sink_for(tmp_path)) as sink:
        sink.publish(
            Channel.DEAD_LETTERS,
            Records(
                [b"key", None, b"\xff"],
                ["gr\u00fc\u00df\nGott".encode(), b"\xff\x00", None],
                [[("reason", b"not_json"), ("raw", b"\xfe")], [], []],
            ),
        )
        sink.flush(1.0)
    assert [json.loads(line) for line in (tmp_path / "dead.jsonl").read_bytes().splitlines()] == [
        {"key": "key", "value": "gr\u00fc\u00df\nGott", "headers": {"reason": "not_json", "raw_base64": "/g=="}},
        {"key": None, "value_base64": "/wA=", "headers": {}},
        {"key_base64": "/w==", "value": None, "headers": {}},
    ]


def test_parquet_is_written_when_the_sink_closes(tmp_path: Path) -> None:
    sink = sink_for(tmp_path, "out.parquet")
    documents: list[dict[str, Any]] = [
        {"unique_id": f"s{n}", "anomaly": None if n < 200 else 0.5, "quantiles": {"0.5": [n, n + 0.5]}}
        for n in range(300)
    ]
    sink.publish(Channel.FORECASTS, Records([None] * 300, [json.dumps(document).encode() for document in documents]))
    sink.flush(1.0)
    assert not (tmp_path / "out.parquet").exists()
    sink.close()
    sink.close()
    assert pl.read_parquet(tmp_path / "out.parquet").to_dicts() == documents
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dead.jsonl", "out.parquet"]


def test_lines_that_cannot_become_parquet_are_kept_and_named(tmp_path: Path) -> None:
    sink = sink_for(tmp_path, "out.parquet")
    sink.publish(Channel.FORECASTS, Records([None], [b"not json"]))
    with pytest.raises(TransportError, match=r"the records are in .*out\.parquet\.pending\.jsonl"):
        sink.close()
    assert (tmp_path / "out.parquet.pending.jsonl").read_bytes() == b"not json\n"


@pytest.mark.parametrize(("append", "expected"), [(False, b"two\n"), (True, b"one\ntwo\n")])
def test_a_run_writes_its_output_anew_unless_it_goes_on_with_an_earlier_one(
    tmp_path: Path, append: bool, expected: bytes
) -> None:
    for value in (b"one", b"two"):
        with closing(sink_for(tmp_path, append=append)) as sink:
            sink.publish(Channel.FORECASTS, Records([None], [value]))
    assert (tmp_path / "out.jsonl").read_bytes() == expected


def test_an_output_that_cannot_be_opened_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"forecasts file .*no-folder"):
        sink_for(tmp_path, "no-folder/out.jsonl")


def test_a_closed_pipe_on_standard_output_is_a_transport_error(tmp_path: Path, monkeypatch: Any) -> None:
    receiving, sending = os.pipe()
    os.close(receiving)

    class Stdout:
        def fileno(self) -> int:
            return sending

    monkeypatch.setattr("sys.stdout", Stdout())
    sink = FileSink({Channel.FORECASTS: "-", Channel.DEAD_LETTERS: str(tmp_path / "dead.jsonl")})
    os.close(sending)
    with pytest.raises(TransportError, match="forecasts file -"):
        sink.publish(Channel.FORECASTS, Records([None], [b"x" * 100_000]))
    sink.close()


# Choosing a transport


def settings(**sections: Mapping[str, object]) -> Settings:
    return Settings.model_validate(sections)


def test_the_settings_choose_the_file_transport(tmp_path: Path) -> None:
    paths: Sequence[str] = [str(tmp_path / name) for name in ("out.jsonl", "dead.jsonl")]
    chosen = settings(
        input={"path": "in.csv"},
        output={"path": paths[0]},
        dead_letters={"path": paths[1]},
    )
    assert connect.open_source(chosen).name == "in.csv"
    with closing(connect.open_sink(chosen)) as sink:
        assert isinstance(sink, FileSink)


@pytest.mark.parametrize(
    ("client", "installed", "module"),
    [
        ("auto", True, "librdkafka"),
        ("auto", False, "kafka_python"),
        ("librdkafka", True, "librdkafka"),
        ("kafka-python", True, "kafka_python"),
    ],
)
def test_the_settings_choose_the_kafka_client(monkeypatch: Any, client: str, installed: bool, module: str) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object() if installed else None)
    source = connect.open_source(settings(kafka={"client": client}))
    assert type(source).__module__ == f"rillcast.transports.kafka.{module}.source"


def test_a_client_that_is_not_installed_is_refused_by_the_name_of_its_extra(monkeypatch: Any) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(SettingsError, match=r"rillcast\[librdkafka\]"):
        connect.open_source(settings(kafka={"client": "librdkafka"}))


@pytest.mark.parametrize("side", ["input", "output"])
def test_exactly_once_is_refused_with_a_file_on_either_side(tmp_path: Path, side: str) -> None:
    path = str(tmp_path / "records.jsonl")
    chosen = settings(worker={"delivery": "exactly_once"}, **{side: {"path": path}})
    with pytest.raises(SettingsError, match=rf"exactly_once.*{side}\.path"):
        connect.open_sink(chosen)


def test_a_state_topic_is_refused_beside_an_output_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"state\.store.*output\.path"):
        connect.open_sink(settings(state={"store": "kafka"}, output={"path": str(tmp_path / "out.jsonl")}))


def test_a_transactional_id_survives_a_restart_where_the_member_has_a_name() -> None:
    named = KafkaSettings(group_id="g", group_instance_id="pod-0")
    assert connect.transactional_id(named) == "g-pod-0"
    assert connect.transactional_id(named.model_copy(update={"transactional_id": "mine"})) == "mine"
    nameless = KafkaSettings(group_id="g")
    assert connect.transactional_id(nameless).startswith("g-")
    assert connect.transactional_id(nameless) != connect.transactional_id(nameless)


def test_parquet_output_of_a_topic_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Parquet"):
        connect.open_sink(settings(output={"path": str(tmp_path / "out.parquet")}))


def test_a_long_file_is_read_in_order_through_the_source(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pl.DataFrame(rows(70_000), schema=["unique_id", "ds", "y"], orient="row").write_parquet(path)
    with closing(FileSource(str(path))) as source:
        source.open(Listener(start=lambda _assignment: 66_000))
        records = read(source, 4_000)
        assert [record.offset for record in records] == list(range(66_000, 70_000))
        assert json.loads(records[0].value or b"")["ds"] == rows(66_001)[-1].ds
