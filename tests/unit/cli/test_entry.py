from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rillcast import cli
from tests.support.toy import ToyGraph, write_toy
from tests.support.workers import observation


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "rillcast", *arguments], input=stdin, capture_output=True, timeout=60)


def test_inspect_describes_a_good_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(write_toy(tmp_path / "toy.onnx")), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["metadata"]["name"] == "toy"
    assert described["state_bytes_per_stream"] == 8
    assert described["nodes"]["ScatterND"] == 1


def test_inspect_names_the_broken_clause_and_ends_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(ToyGraph().model().SerializeToString())
    assert cli.main(["inspect", str(path)]) == 3
    assert "bundle refused [metadata]" in capsys.readouterr().err


def test_run_without_a_model_ends_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--model", str(tmp_path / "no.onnx"), "--input.path", "-", "--output.path", "-"]
    assert cli.main(["run", *flags, "--dead-letters.path", str(tmp_path / "dead"), "--http.enabled", "false"]) == 3
    assert "no.onnx" in capsys.readouterr().err


def test_cuda_asked_for_and_absent_ends_with_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rillcast.engine import device

    if device.choose("auto").name == "cuda":
        pytest.skip("this machine has a GPU")
    flags = ["--input.path", "-", "--output.path", "-", "--dead-letters.path", str(tmp_path / "dead")]
    assert cli.main(["run", "--model", str(write_toy(tmp_path / "toy.onnx")), "--device", "cuda", *flags]) == 4
    assert "device=cuda" in capsys.readouterr().err


def test_standard_input_to_standard_output_carries_only_forecasts(tmp_path: Path) -> None:
    model = write_toy(tmp_path / "toy.onnx")
    dead = tmp_path / "dead.jsonl"
    lines = b"\n".join([observation("a", 5), b"rubbish", observation("a", 6)]) + b"\n"
    done = run(
        "run", "--model", str(model), "--input.path", "-", "--output.path", "-", "--dead-letters.path", str(dead),
        "--http.enabled", "false", stdin=lines,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    forecasts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [f["quantiles"]["0.5"][0] for f in forecasts] == [5, 31 * 5 + 6]
    letter = json.loads(dead.read_text())
    assert (letter["value"], letter["headers"]["rillcast-reason"]) == ("rubbish", "not_json")


def test_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for module in [name for name in sys.modules if name.split(".")[0] == "rillcast_training"]:
        monkeypatch.delitem(sys.modules, module)
    assert cli.main(["train", "data.csv", "--freq", "1h", "--horizon", "2", "--out", "m.onnx"]) == 2
    assert "rillcast[training]" in capsys.readouterr().err


def test_unknown_command_ends_with_2() -> None:
    assert run("forecast").returncode == 2


def test_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert run("--version").stdout.decode().strip() == f"rillcast {version('rillcast')}"


def test_bench_step_measures_every_batch_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(write_toy(tmp_path / "toy.onnx"))
    flags = ["--batches", "1,8", "--streams", "16", "--seconds", "0.01", "--json"]
    assert cli.main(["bench", "step", model, *flags]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert [row["batch"] for row in figures["steps"]] == [1, 8]
    assert all(row["min"] <= row["steps_per_second"] <= row["max"] for row in figures["steps"])
    assert figures["machine"]["cores"] >= 1


def test_bench_flatness_reports_a_ratio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(write_toy(tmp_path / "toy.onnx"))
    flags = ["--age", "50", "--young", "5", "--batch", "2", "--blocks", "4", "--json"]
    assert cli.main(["bench", "flatness", model, *flags]) == 0
    assert json.loads(capsys.readouterr().out)["old_to_young_ratio"] > 0


def test_bench_refuses_nonsense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(write_toy(tmp_path / "toy.onnx"))
    assert cli.main(["bench", "step", model, "--batches", "1,x"]) == 2
    assert "--batches" in capsys.readouterr().err
