"""The files that commands write: the checks before any work, and replacement as a whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rillcast import outputs
from rillcast.errors import OutputError, SettingsError


def refusal(inputs: outputs.Paths, written: outputs.Paths) -> str:
    with pytest.raises(SettingsError) as refused:
        outputs.check(inputs, written)
    return str(refused.value)


@pytest.mark.parametrize("exists", [True, False], ids=["exists", "is-new"])
def test_two_names_of_one_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("link").symlink_to("one")
    if exists:
        Path("one").write_text("kept")
        Path("hard").hardlink_to("one")
    for other in ("one", "./one", "folder/../one", str(tmp_path / "one"), "link", *(["hard"] if exists else [])):
        assert refusal({"DATA": "one"}, {"--out": other}) == (
            f"--out {other} is the same file as DATA one; name another file"
        )
        assert "is the same file as --report one" in refusal({}, {"--report": "one", "--out": other})
    outputs.check({"DATA": "one", "--train": None}, {"--out": "two", "--report": None})
    assert not Path("two").exists()
    assert Path("one").exists() == exists


def test_one_device_may_take_several_outputs() -> None:
    outputs.check({"input.path": "/dev/null"}, {"a": "/dev/null", "b": "/dev/null", "c": "-"})


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path, expected in (
        (tmp_path / "no" / "m.onnx", f"the directory {tmp_path / 'no'} does not exist"),
        (tmp_path / "file" / "m.onnx", f"the directory {tmp_path / 'file'} does not exist"),
        (tmp_path / "folder", "is a directory; name a file"),
        (tmp_path / ("x" * 300), "cannot be written: File name too long"),
    ):
        found = refusal({}, {"--out": path})
        assert found.startswith(f"--out {path}")
        assert expected in found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o444)
    assert "Permission denied" in refusal({}, {"--out": tmp_path / "file"})
    (tmp_path / "folder").mkdir(0o555)
    assert "Permission denied" in refusal({}, {"--out": tmp_path / "folder" / "m.onnx"})


def test_an_ending_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "a.csv", "a"):
        with pytest.raises(SettingsError, match=r"hold JSON Lines; expected \.jsonl or \.json as its ending"):
            outputs.require_ending("--out", tmp_path / name, "JSON Lines", [".jsonl", ".json"])
    for path in (tmp_path / "a.JSONL", tmp_path / "a.ndjson", Path("/dev/null"), Path("-")):
        outputs.require_ending("--out", path, "JSON Lines", [".jsonl", ".json"], [".ndjson"])


def test_a_folder_to_write_to_is_checked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    outputs.check_folder("DIRECTORY", tmp_path)
    outputs.check_folder("DIRECTORY", tmp_path / "new" / "one")
    assert not (tmp_path / "new").exists()
    for path in (tmp_path / "file", tmp_path / "file" / "new"):
        with pytest.raises(SettingsError, match="DIRECTORY"):
            outputs.check_folder("DIRECTORY", path)


def test_a_file_is_replaced_by_a_whole_one_or_not_at_all(tmp_path: Path) -> None:
    path, link = tmp_path / "m.onnx", tmp_path / "link.onnx"
    outputs.replace(path, b"first")
    path.chmod(0o600)
    link.symlink_to(path)

    def write_half() -> None:
        with outputs.replacing(link) as partial:
            partial.write_bytes(b"half")
            assert (partial.parent, partial.suffix) == (tmp_path, ".onnx")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        write_half()
    assert path.read_bytes() == b"first"
    outputs.replace(link, b"second")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"second", 0o600)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.onnx", "m.onnx"]


def test_a_device_is_written_and_never_replaced() -> None:
    outputs.replace(Path("/dev/null"), b"data")
    with pytest.raises(OutputError, match="/dev/full: No space left on device"):
        outputs.replace(Path("/dev/full"), b"data")
    assert Path("/dev/full").is_char_device()


def test_a_device_is_written_by_a_run() -> None:
    growing = outputs.GrowingFile("/dev/null")
    growing.file.write(b"line\n")
    growing.flush()  # a device refuses to be made durable
    growing.finish()
    growing.close()


@pytest.mark.parametrize(
    "write",
    [
        "partial.write_bytes(bytes(10_000))",
        "import polars as pl; pl.DataFrame({'a': map(str, range(10_000))}).write_parquet(partial)",
        "import polars as pl; pl.DataFrame({'a': range(10_000)}).write_csv(partial)",
        "import polars as pl; pl.DataFrame({'a': range(10_000)}).write_ndjson(partial)",
        "import torch; torch.save(torch.zeros(10_000), partial)",
        "partial.write_bytes(bytes(2_000)); raise RuntimeError('a library hides the reason')",
    ],
)
def test_a_full_disk_is_one_line_and_costs_no_earlier_file(tmp_path: Path, write: str) -> None:
    path = tmp_path / "out.parquet"
    path.write_bytes(b"before")
    code = f"""
import pathlib, resource
from rillcast import outputs
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
try:
    with outputs.replacing(pathlib.Path({str(path)!r})) as partial:
        {write}
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"OutputError {path}: File too large\n"
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
