"""Dead letters come back as they were, from a topic's record and from a file's line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillcast import cli
from rillcast.codecs.observations.rejections import Reason, Rejection
from rillcast.publishing.dead_letters import DeadLetter, DeadLetters
from rillcast.transports.base import Channel, Headers, record_bytes
from rillcast.transports.file import dead_letter_lines
from rillcast.transports.file.sink import FileSink
from rillcast.transports.kafka.common.record_size import LEAST_BYTES
from tests.support.hostile import NOON_MS, polled
from tests.support.memory import Log, MemorySink

NAMES = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(["a_base64", "rillcast-reason", "value"])
NULLABLE = st.none() | st.binary(max_size=9)


def dead_lettered(
    value: bytes | None, headers: Headers = (), key: bytes | None = b"k", max_bytes: int = 100
) -> tuple[bytes | None, bytes | None, Headers]:
    log = Log(partitions={0: []})
    sink = MemorySink(log)
    poll = polled([value], keys=[key], headers=[headers], timestamp_ms=NOON_MS)
    rejection = Rejection(0, Reason.NOT_JSON, "a\nb")
    DeadLetters("observations", max_bytes).publish(sink, poll, [rejection], "toy@1")
    sink.flush(0)
    (record,) = log.published[Channel.DEAD_LETTERS]
    return record


@given(
    value=NULLABLE | st.binary(min_size=100, max_size=200),
    key=NULLABLE,
    headers=st.lists(st.tuples(NAMES, NULLABLE)),
)
def test_a_dead_letter_is_read_as_it_was_written(
    value: bytes | None, key: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    letter = DeadLetter.read(*dead_lettered(value, headers, key))
    assert (letter.key, letter.value, letter.headers) == (key, value and value[:100], headers)
    assert (letter.reason, letter.detail, letter.source) == ("not_json", "a\nb", "observations")
    assert (letter.partition, letter.offset, letter.timestamp_ms, letter.model) == (0, 0, NOON_MS, "toy@1")
    cut = value is not None and len(value) > 100
    assert letter.original_bytes == (len(value or b"") if cut else None)
    assert letter.is_whole == (not cut)


LARGE = st.none() | st.binary(max_size=2_000) | st.integers(0, 5_000).map(bytes)


@given(
    key=LARGE,
    value=LARGE,
    headers=st.lists(st.tuples(st.sampled_from(["a", "b" * 300]), LARGE), max_size=5),
    detail=st.text(max_size=3_000),
    limit=st.integers(LEAST_BYTES, 10_000),
)
def test_a_dead_letter_fits_and_says_what_is_not_whole(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]], detail: str, limit: int
) -> None:
    log = Log(partitions={0: []})
    sink = MemorySink(log)
    sink.largest[Channel.DEAD_LETTERS] = limit
    poll = polled([value], keys=[key], headers=[headers], timestamp_ms=NOON_MS)
    rejection = Rejection(0, Reason.COVARIATE_OUT_OF_RANGE, detail)
    DeadLetters("t" * 249, 4_000).publish(sink, poll, [rejection], "m" * 40 + "@0123456789abcdef")
    sink.flush(0)
    (record,) = log.published[Channel.DEAD_LETTERS]
    assert record_bytes(*record) <= limit
    letter = DeadLetter.read(*record)
    assert (letter.reason, letter.source, letter.offset) == ("covariate_out_of_range", "t" * 249, 0)
    assert ("key" in letter.cut, "headers" in letter.cut) == (letter.key != key, letter.headers != headers)
    assert ("value" in letter.cut) == (letter.value != value)
    assert letter.original_bytes == (len(value or b"") if "value" in letter.cut else None)
    assert (letter.key is None, letter.value is None) == (key is None, value is None)
    for part, whole in ((letter.key, key), (letter.value, value)):
        assert whole is None or whole.startswith(part or b"")
    if record_bytes(key, (value or b"")[:4_000], headers) + len(detail.encode()) + 1_000 < limit:
        assert letter.cut == (["value"] if len(value or b"") > 4_000 else []), "nothing is cut without need"


@given(
    key=NULLABLE,
    value=NULLABLE | st.binary(max_size=200),
    headers=st.lists(st.tuples(NAMES, NULLABLE)),
)
def test_a_line_of_a_file_is_read_as_it_was_written(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    line = dead_letter_lines.write(key, value, headers)
    assert b"\n" not in line
    read = dead_letter_lines.read(line)
    assert (read.key, read.value) == (key, value)
    assert Counter(read.headers) == Counter(headers)


@pytest.mark.parametrize(
    "line", [b"", b"[]", b"{}", b'{"key": 1, "value": 2, "headers": {}}', b'{"key": null, "value": "", "headers": 3}',
             b'{"key_base64": "!", "value": "", "headers": {}}', b'{"key": null, "value": "", "headers": {"a": 1}}']
)  # fmt: skip
def test_another_line_is_no_dead_letter(line: bytes) -> None:
    with pytest.raises(ValueError, match="not a dead letter"):
        dead_letter_lines.read(line)


def test_a_record_of_another_hand_is_read_without_a_reason() -> None:
    letter = DeadLetter.read(None, None, [("rillcast-offset", b"many"), ("a", b"\xff")])
    assert (letter.reason, letter.offset, letter.value, letter.headers) == ("", -1, None, [("a", b"\xff")])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Three dead letters: two of one reason, one of them cut; and one with bytes that a terminal must not get."""
    path = tmp_path / "dead.jsonl"
    sink = FileSink({Channel.DEAD_LETTERS: str(path)})
    poll = polled(
        [b"{", b"x" * 50, b"\x1b[2J\xff"],
        keys=[b"a", b"b", None],
        headers=[[("h", b"1")], [], []],
        timestamp_ms=NOON_MS,
    )
    rejections = [
        Rejection(0, Reason.NOT_JSON, "no end"),
        Rejection(1, Reason.TOO_LARGE, "50 bytes"),
        Rejection(2, Reason.NOT_JSON, "bytes"),
    ]
    DeadLetters("observations", 40).publish(sink, poll, rejections, "toy@1")
    sink.finish()
    sink.close()
    return path


def dlq(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["dlq", *arguments]) == 0
    return capsys.readouterr().out


def test_list_shows_a_line_for_each(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = dlq(capsys, "list", "--file", str(file)).splitlines()
    assert lines[0] == "0/0  2024-05-01T12:00:00.000Z  not_json  observations[0]@0  no end"
    assert len(lines) == 3


def test_list_chooses_by_reason_time_and_number(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def places(*arguments: str) -> list[str]:
        out = dlq(capsys, "list", "--file", str(file), "--json", *arguments)
        return [json.loads(line)["place"] for line in out.splitlines()]

    assert places("--reason", "not_json") == ["0/0", "0/2"]
    assert places("--reason", "not_json", "--limit", "1") == ["0/0"]
    assert places("--reason", "not_json", "--reason", "too_large") == ["0/0", "0/1", "0/2"]
    assert places("--since", "2024-05-01T12:00:00.001Z") == []
    assert places("--until", "2024-05-01T12:00:00Z") == []
    assert len(places("--since", "2024-05-01T12:00:00", "--until", "2024-05-01T14:00:01+02:00")) == 3


def test_list_counts_by_reason(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = dlq(capsys, "list", "--file", str(file), "--count", "--json")
    assert json.loads(out) == {"not_json": 2, "too_large": 1}
    assert "        2  not_json" in dlq(capsys, "list", "--file", str(file), "--count")


def test_show_says_all_of_one_and_obeys_none_of_its_bytes(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = dlq(capsys, "show", "0/2", "--file", str(file))
    assert "not_json" in shown
    assert "\\x1b[2J\\xff" in shown
    assert "\x1b" not in shown
    document = json.loads(dlq(capsys, "show", "0/0", "--file", str(file), "--json"))
    assert (document["key"], document["value"], document["headers"]) == ("a", "{", [["h", "1"]])


def test_null_is_shown_as_null_and_not_as_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "dead.jsonl"
    sink = FileSink({Channel.DEAD_LETTERS: str(path)})
    poll = polled([None], keys=[None], headers=[[("note", None)]], timestamp_ms=NOON_MS)
    DeadLetters("observations", 40).publish(sink, poll, [Rejection(0, Reason.EMPTY, "")], "toy@1")
    sink.finish()
    sink.close()
    document = json.loads(dlq(capsys, "show", "0/0", "--file", str(path), "--json"))
    assert (document["key"], document["value"], document["headers"]) == (None, None, [["note", None]])
    shown = dlq(capsys, "show", "0/0", "--file", str(path))
    assert "note: null" in shown
    assert "null (a tombstone)" in shown


def test_show_of_a_place_without_a_letter_is_an_error(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["dlq", "show", "0/9", "--file", str(file)]) == 2
    assert "no dead letter at 0/9" in capsys.readouterr().err


def test_a_dry_replay_says_what_would_be_sent(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = json.loads(dlq(capsys, "replay", "--file", str(file), "--dry-run", "--json"))
    assert out == {"sent": 0, "would_send": 2, "left_out": {"cut": 1}, "topic": "observations"}


def test_a_file_of_something_else_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "forecasts.jsonl"
    path.write_text('{"unique_id": "a"}\n')
    assert cli.main(["dlq", "list", "--file", str(path)]) == 2
    assert "line 0 of the file is not a dead letter" in capsys.readouterr().err
