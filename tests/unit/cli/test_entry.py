from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from rillcast import cli
from rillcast.cli import signals
from rillcast.cli.entry import COMMANDS
from rillcast.cli.signals import Interrupted
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


def test_what_the_terminal_cannot_print_is_escaped(tmp_path: Path) -> None:
    unique_id = "stra\u00dfe\u6e29\x1b[31m"
    anomaly = {"unique_id": unique_id, "ds": "2024-05-01T00:00:00Z", "y": 1.0, "anomaly": 0.9999,
               "tail_probability": 0.0001, "status": "ok", "freq": "1h", "model": "m@1",
               "source": {"partition": 0, "offset": 0}}  # fmt: skip
    (tmp_path / "anomalies.jsonl").write_text(json.dumps(anomaly) + "\n", encoding="utf-8")
    data = tmp_path / f"{unique_id}.csv"
    data.write_text("unique_id,ds,y\n" + "".join(f"{unique_id},{hour * 3_600_000},1\n" for hour in range(3)), "utf-8")
    for arguments in (
        ("anomalies", "--file", str(tmp_path / "anomalies.jsonl")),
        ("anomalies", "--count", "--file", str(tmp_path / "anomalies.jsonl")),
        ("data", "show", str(data)),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "rillcast", *arguments],
            env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "stra\\xdfe\\u6e29\\x1b[31m" in done.stdout


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


def test_the_help_names_every_command_and_imports_no_library_of_models() -> None:
    code = (
        "import sys, rillcast.cli\n"
        "try: rillcast.cli.main(['--help'])\n"
        "except SystemExit: print(sorted({m.split('.')[0] for m in sys.modules} & "
        "{'torch', 'numpy', 'onnxruntime', 'pydantic', 'polars', 'rillcast_training'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for name in COMMANDS:
        assert f"\n    {name}" in done.stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_a_command_is_loaded_ends_in_one_line(
    number: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_name: str) -> ModuleType:
        raise Interrupted(number)

    monkeypatch.setattr("importlib.import_module", interrupted)
    assert cli.main(["run"]) == code
    assert capsys.readouterr().err == "rillcast: interrupted\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_that_a_library_takes_for_a_failed_import_ends_in_one_line(
    number: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As numpy and ONNX Runtime do where it comes while their C code imports something."""

    def failed(name: str) -> ModuleType:
        assert name == "rillcast.cli.commands.run"
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error
        raise AssertionError("nothing hears the signal")

    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    signals.interruptible()
    try:
        with monkeypatch.context() as patch:
            patch.setattr("importlib.import_module", failed)
            assert cli.main(["run"]) == code
        assert capsys.readouterr().err == "rillcast: interrupted\n"
    finally:
        signals.interruptible()  # forgets the signal
        for each, handler in handlers.items():
            signal.signal(each, handler)


def test_without_descriptors_a_command_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exhausted(_name: str) -> ModuleType:
        raise OSError(errno.EMFILE, "Too many open files", "numpy/ma/extras.py")

    with monkeypatch.context() as patch:
        patch.setattr("importlib.import_module", exhausted)
        code = cli.main(["run"])
    assert code == 5
    message = "rillcast: error: numpy/ma/extras.py: Too many open files; raise the limit of descriptors (ulimit -n)\n"
    assert capsys.readouterr().err == message


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("can't start new thread"),
        RuntimeError("[ONNXRuntimeError] : 6 : BFCArena::AllocateRawInternal Failed to allocate memory\nat 0x1"),
    ],
)
def test_without_memory_a_command_ends_in_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exhausted(_argv: object) -> None:
        raise error

    monkeypatch.setattr("argparse.ArgumentParser.parse_args", lambda _self, argv: exhausted(argv))
    assert cli.main(["config"]) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"rillcast: error: out of memory: {str(error).splitlines()[0] if str(error) else 'no memory'}"
    )
    assert "ulimit -v" in line


def test_another_fault_of_a_library_is_none_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_argv: object) -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr("argparse.ArgumentParser.parse_args", lambda _self, argv: broken(argv))
    with pytest.raises(RuntimeError, match="no such thing"):
        cli.main(["config"])
