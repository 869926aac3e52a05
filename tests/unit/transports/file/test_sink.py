"""The file sink: the files on the disk afterwards."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rillcast.errors import DeliveryError, InUseError, SettingsError, TransportError
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


def test_parquet_is_written_when_the_run_ends_well(tmp_path: Path) -> None:
    sink = sink_for(tmp_path, "out.parquet")
    documents: list[dict[str, Any]] = [
        {"unique_id": f"s{n}", "anomaly": None if n < 200 else 0.5, "quantiles": {"0.5": [n, n + 0.5]}}
        for n in range(300)
    ]
    sink.publish(Channel.FORECASTS, Records([None] * 300, [json.dumps(document).encode() for document in documents]))
    sink.flush(1.0)
    assert not (tmp_path / "out.parquet").exists()
    sink.finish()
    sink.close()
    sink.close()
    assert pl.read_parquet(tmp_path / "out.parquet").to_dicts() == documents
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dead.jsonl", "out.parquet"]


def test_lines_that_cannot_become_parquet_are_kept_and_named(tmp_path: Path) -> None:
    sink = sink_for(tmp_path, "out.parquet")
    sink.publish(Channel.FORECASTS, Records([None], [b"not json"]))
    with pytest.raises(TransportError, match=r"the records are in .*out\.parquet\.pending\.jsonl"):
        sink.finish()
    sink.close()
    assert (tmp_path / "out.parquet.pending.jsonl").read_bytes() == b"not json\n"


@pytest.mark.parametrize(("append", "expected"), [(False, b"two\n"), (True, b"one\ntwo\n")])
def test_a_run_replaces_its_output_unless_it_appends(tmp_path: Path, append: bool, expected: bytes) -> None:
    for value in (b"one", b"two"):
        with closing(sink_for(tmp_path, append=append)) as sink:
            sink.publish(Channel.FORECASTS, Records([None], [value]))
            sink.flush(1.0)
            sink.finish()
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


def publish(sink: FileSink, *values: bytes) -> None:
    sink.publish(Channel.FORECASTS, Records([None] * len(values), values))


def test_the_first_flush_shows_the_lines_of_a_new_file(tmp_path: Path) -> None:
    with closing(sink_for(tmp_path)) as sink:
        publish(sink, b"1")
        assert not (tmp_path / "out.jsonl").exists()
        sink.flush(1.0)
        publish(sink, b"2")
        sink.flush(1.0)
        assert (tmp_path / "out.jsonl").read_bytes() == b"1\n2\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"], "an empty file gets its name at the end"


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_a_run_that_fails_leaves_the_earlier_results_and_names_its_own(tmp_path: Path, name: str, caplog: Any) -> None:
    (tmp_path / name).write_bytes(b"yesterday")
    with closing(sink_for(tmp_path, name)) as sink:
        publish(sink, b"1")
        sink.flush(1.0)
    assert (tmp_path / name).read_bytes() == b"yesterday"
    (kept,) = tmp_path.glob(f"{name}.p*")
    assert kept.read_bytes() == b"1\n"
    assert str(kept) in caplog.text
    with closing(sink_for(tmp_path, name)):
        pass  # a run that wrote nothing
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_replaced_file_keeps_its_rights_and_the_link_to_it(tmp_path: Path) -> None:
    (tmp_path / "real.jsonl").write_bytes(b"yesterday\n")
    (tmp_path / "real.jsonl").chmod(0o640)
    (tmp_path / "out.jsonl").symlink_to("real.jsonl")
    with closing(sink_for(tmp_path)) as sink:
        publish(sink, b"1")
        sink.finish()
    assert (tmp_path / "out.jsonl").is_symlink()
    assert (tmp_path / "real.jsonl").read_bytes() == b"1\n"
    assert (tmp_path / "real.jsonl").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize("channel", list(Channel)[:3])
def test_a_second_sink_on_a_file_is_refused_with_the_process_that_has_it(
    tmp_path: Path, channel: Channel, append: bool
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "shared.jsonl")
    with closing(FileSink({channel: str(tmp_path / "shared.jsonl")}, append=append)):
        with pytest.raises(InUseError, match=f"in use by process {os.getpid()}, ") as refused:
            FileSink({channel: str(tmp_path / "link")}, append=append)
        assert refused.value.exit_code == 5
    FileSink({channel: str(tmp_path / "link")}, append=append).close()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("channel", list(Channel)[:3])
@pytest.mark.parametrize(
    ("found", "left"),
    [
        (b'{"a": 1}\n{"a": 2, "b', b'{"a": 1}\n'),
        (b'{"a": 1}\n{"a": 2}', b'{"a": 1}\n{"a": 2}\n'),
        (b'{"a', b""),
        (b'{"a": 1}\n' + b'{"a": "' + b"x" * 200_000, b'{"a": 1}\n'),
        (b'{"a": 1}\n\0\0\0', b'{"a": 1}\n'),
        (b"no record of ours", b"no record of ours\n"),
        (b'{"a": 1}\n', b'{"a": 1}\n'),
    ],
)
def test_an_append_never_continues_a_half_line(
    tmp_path: Path, channel: Channel, found: bytes, left: bytes, caplog: Any
) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(found)
    FileSink({channel: str(path)}, append=True).close()
    assert path.read_bytes() == left
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert bool(warned) == (found != left)


def test_a_device_is_written_as_it_is() -> None:
    with closing(FileSink({Channel.FORECASTS: "/dev/full", Channel.DEAD_LETTERS: "/dev/null"})) as sink:
        publish(sink, b"x")
        with pytest.raises(DeliveryError, match="forecasts file /dev/full: No space left on device"):
            sink.flush(1.0)
        with contextlib.suppress(TransportError):
            sink.close()


def test_a_full_disk_is_one_line_for_parquet_too(tmp_path: Path) -> None:
    code = f"""
import json, pathlib, resource
from rillcast.transports.base import Channel, Records
from rillcast.transports.file.sink import FileSink
sink = FileSink({{Channel.FORECASTS: {str(tmp_path / "out.parquet")!r}}})
line = json.dumps({{str(n): n for n in range(3000)}}).encode()
sink.publish(Channel.FORECASTS, Records([None], [line]))
sink.flush(1.0)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    sink.finish()
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        f"TransportError forecasts file {tmp_path / 'out.parquet'}: File too large; "
        f"the records are in {tmp_path / 'out.parquet.pending.jsonl'}\n"
    )
    assert [path.name for path in tmp_path.iterdir() if path.name != ".out.parquet.lock"] == [
        "out.parquet.pending.jsonl"
    ]
