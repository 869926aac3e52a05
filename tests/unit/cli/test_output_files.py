"""Every file that a command writes: refused before any work if it is an input or cannot be written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from rillcast import cli
from rillcast.cli import flags
from tests.support.commands import leaves
from tests.support.forecasters import write_network


class Output(NamedTuple):
    """A file that a command writes.

    Attributes:
        command: The arguments of the command, but for this file.
        flag: The flag of the file; empty for a positional argument.
        ending: An ending that fits.
        inputs: The inputs among the arguments.
        others: The other outputs among the arguments.
        wrong: Endings that do not fit.
    """

    command: str
    flag: str
    ending: str
    inputs: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()

    def argv(self, path: str | Path) -> list[str]:
        return [*self.command.split(), *([self.flag] if self.flag else []), str(path)]


TRAIN = "train data.csv --init start.onnx"
RUN = "run --input.path in.jsonl --input.streams-path streams.csv --http.enabled false"
NOT_LINES = (".jsonl.gz", ".csv", ".txt", ".xlsx")
# No input has content that could be read: a command that begins to work fails otherwise than by a refusal.
OUTPUTS = [
    Output(TRAIN, "--out", ".onnx", ("data.csv", "start.onnx")),
    Output(f"{TRAIN} --out m.onnx", "--checkpoint", ".ckpt", ("data.csv", "start.onnx"), ("m.onnx",)),
    Output("train --from-topic --out m.onnx --freq 1h --horizon 2", "--table", ".parquet", (), ("m.onnx",)),
    Output("tune data.csv --freq 1h --horizon 2 --budget 1s", "--study", ".study", ("data.csv",)),
    Output("data export data.csv", "", ".parquet", ("data.csv",), (), (".csv.gz", ".xlsx", "")),
    Output("init --force --input.path data.csv", "--out", ".toml", ("data.csv",)),
    Output("data synthesize --freq 1h", "", ".csv", (), (), (".csv.gz", ".xlsx", "")),
    Output(
        "backtest m.onnx data.csv --train before.csv --report r.html", "--forecasts", ".parquet",
        ("m.onnx", "data.csv", "before.csv"), ("r.html",), (".csv", ".jsonl"),
    ),
    Output(
        "backtest m.onnx data.csv --train before.csv --forecasts f.parquet", "--report", ".html",
        ("m.onnx", "data.csv", "before.csv"), ("f.parquet",), (".pdf", ""),
    ),
    Output(
        "explain forecast m.onnx data.csv --stream a", "--out", ".png", ("m.onnx", "data.csv"), (), (".txt", ".xlsx")
    ),
    Output("explain gradients m.onnx n.onnx --data data.csv", "--out", ".png", ("m.onnx", "n.onnx", "data.csv")),
    Output("model pull registry live", "--out", ".onnx"),
    Output("universal export --freq 1h", "--out", ".onnx"),
    Output(RUN, "--output.path", ".jsonl", ("in.jsonl", "streams.csv"), ("dead-letters.jsonl",), NOT_LINES),
    Output(
        f"{RUN} --output.path out.jsonl", "--dead-letters.path", ".jsonl", ("in.jsonl", "streams.csv"),
        ("out.jsonl", "out.jsonl.partial"), (*NOT_LINES, ".parquet"),
    ),
    Output(
        f"{RUN} --output.path out.parquet", "--anomalies.path", ".jsonl", ("in.jsonl", "streams.csv"),
        ("out.parquet", "out.parquet.pending.jsonl", "dead-letters.jsonl"), (*NOT_LINES, ".parquet"),
    ),
]  # fmt: skip
IDS = [f"{' '.join(one.command.split()[:2])} {one.flag}" for one in OUTPUTS]
READ = {"--config", "--covariates-of", "--data", "--file", "--init", "--score", "--train", "data", "model", "models"}
ELSEWHERE = {"directory", "--workdir", "--scratch"}  # directories, with tests of their own


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_network(tmp_path_factory.mktemp("network") / "start.onnx")


@pytest.fixture(autouse=True)
def folder(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with every input and output that the commands name."""
    monkeypatch.chdir(tmp_path)
    for one in OUTPUTS:
        for name in (*one.inputs, *one.others):
            Path(name).write_text("kept\n")
    Path("in.jsonl").write_text("")
    Path("folder").mkdir()
    # `train --init` reads the metadata of its bundle before it knows its options.
    shutil.copy(network, "start.onnx")
    return tmp_path


def refused(argv: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The last line of the message; nothing was written."""
    before = files_of(folder)
    try:
        code = cli.main(argv)
    except SystemExit as ended:
        code = int(str(ended.code))
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2, message
    assert files_of(folder) == before
    return message


def test_the_list_of_outputs_is_complete() -> None:
    """Every argument that is a path is known to be read or written."""
    found = {
        (parser.prog.removeprefix("rillcast "), (action.option_strings or [action.dest])[0])
        for parser in leaves(cli.parser())
        if " bench " not in parser.prog  # reads a model and writes to temporary folders
        for action in parser._actions
        if action.type is flags.path
    }
    written = {
        ("data export", "out"),
        ("data synthesize", "out"),
        *((command, one.flag) for one in OUTPUTS for command, _ in found if one.command.startswith(command)),
    }
    unknown = {(command, name) for command, name in found - written if name not in READ | ELSEWHERE}
    assert not unknown


@pytest.mark.parametrize("output", OUTPUTS, ids=IDS)
def test_an_output_that_is_an_input_or_another_output_is_refused(
    output: Output, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (*output.inputs, *output.others):
        alias = Path(f"alias{output.ending}")
        for make in (alias.symlink_to, alias.hardlink_to):
            make(name)
            message = refused(output.argv(alias), folder, capsys)
            assert "is the same file as" in message
            assert str(alias) in message
            assert name in message
            alias.unlink()
        assert name in refused(output.argv(f"folder/../{name}"), folder, capsys)  # of the wrong ending, some of them


@pytest.mark.parametrize("output", OUTPUTS, ids=IDS)
def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    output: Output, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(f"taken{output.ending}").mkdir()
    for path, expected in (
        (f"no/file{output.ending}", "the directory no does not exist"),
        (f"taken{output.ending}", "is a directory; name a file"),
        ("x" * 300 + output.ending, "File name too long"),
    ):
        message = refused(output.argv(path), folder, capsys)
        assert expected in message
        assert path in message


@pytest.mark.parametrize("output", [one for one in OUTPUTS if one.wrong], ids=lambda one: one.command[:20] + one.flag)
def test_an_ending_of_another_format_is_refused(
    output: Output, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for ending in output.wrong:
        message = refused(output.argv(f"new{ending}"), folder, capsys)
        assert "as its ending" in message
        assert output.ending in message


def test_a_backup_of_the_state_needs_a_directory(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    local = ["--state.store", "local", "--model", "m.onnx"]
    assert "is a file; name a directory" in refused(["state", "export", "data.csv", *local], folder, capsys)


def test_the_demo_checks_its_files_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "demo" / "forecasts.jsonl").mkdir(parents=True)
    message = refused(["demo", "--workdir", "demo", "--headless"], folder, capsys)
    assert "forecasts.jsonl is a directory" in message


@pytest.mark.parametrize("command", [["data", "list"], ["config", "--config", "none.toml"]])
def test_a_full_device_as_standard_output_is_one_line(command: list[str], folder: Path) -> None:
    (folder / "none.toml").write_text("")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "rillcast", *command], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 5
    assert done.stderr == "rillcast: error: standard output: No space left on device\n"
