"""The file sink: the files on the disk afterwards."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rillcast.errors import SettingsError, TransportError
from rillcast.transports.base import Channel, Records
from rillcast.transports.file.sink import FileSink


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
def test_a_run_replaces_its_output_unless_it_appends(tmp_path: Path, append: bool, expected: bytes) -> None:
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
