"""Every `--json` output is JSON by the standard, also of data whose figures have no value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rillcast import cli
from tests.support.commands import leaves
from tests.support.forecasters import write_network

# In this order: a command may read what one before it wrote. The second member is the exit code.
COMMANDS = [
    ("config", 0),
    ("data list", 0),
    ("data show constant.csv", 0),
    ("data export constant.csv out.csv", 0),
    ("data synthesize --freq 1h --series 2 --length 200 made.csv", 0),
    ("inspect universal:1h", 0),
    ("backtest universal:1h constant.csv", 0),
    ("backtest universal:1h zero.csv", 0),
    ("backtest universal:1h short.csv", 0),
    ("evaluate universal:1h --against universal:1h constant.csv", 7),
    ("evaluate universal:1h --against universal:1h zero.csv", 7),
    ("explain forecast network.onnx constant.csv --stream a --out p.png", 0),
    ("explain gradients network.onnx --data constant.csv --lags 20 --batches 1 --out g.png", 0),
    ("model push registry universal:1h --promote", 0),
    ("model list registry", 0),
    ("model promote registry live --alias next", 0),
    ("model pull registry live --out pulled.onnx", 0),
    ("universal export --freq 1d --season 7 --horizon 3 --out experts.onnx", 0),
    ("run", 0),
    ("init --input.path late.csv --out found.toml", 0),
    ("init --check --input.path late.csv --output.path found.jsonl", 0),
    ("anomalies --file forecasts.jsonl --tail-probability 1", 0),
    ("anomalies --file forecasts.jsonl --tail-probability 1 --count", 0),
    ("dlq list --file dead-letters.jsonl", 0),
    ("dlq list --file dead-letters.jsonl --count", 0),
    ("dlq show 0/0 --file dead-letters.jsonl", 0),
]
# They print counts, and figures through the same function; their tests have a broker, or measure for long.
ELSEWHERE = ("bench", "demo", "dlq replay", "model rollback", "replay", "state", "train", "tune", "warm")
START = 1_714_521_600_000
RUN = "run --model universal:1h --input.path late.csv --output.path forecasts.jsonl --http.enabled false"


def test_the_list_of_commands_is_complete() -> None:
    given = {
        parser.prog.removeprefix("rillcast ")
        for parser in leaves(cli.parser())
        if "--json" in parser._option_string_actions
    }
    walked = tuple(command for command, _ in COMMANDS)
    assert not {
        name
        for name in given
        if not name.startswith(ELSEWHERE) and not any(f"{command} ".startswith(f"{name} ") for command in walked)
    }


def strictly(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON: {text}")

    return json.loads(text, parse_constant=refuse)


def write(path: Path, value: str, hours: int) -> None:
    rows = [f"{stream},{START + hour * 3_600_000},{value}" for stream in "ab" for hour in range(hours)]
    path.write_text("unique_id,ds,y\n" + "\n".join(rows) + "\n")


def test_every_command_prints_finite_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value, hours in (("constant", "7", 400), ("zero", "0", 400), ("short", "7", 40)):
        write(Path(f"{name}.csv"), value, hours)
    write(Path("late.csv"), "7", 200)
    write_network(Path("network.onnx"))
    with Path("late.csv").open("a") as file:
        file.write(f"a,{START},7\n")
    for command, code in COMMANDS:
        argv = RUN.split() if command == "run" else [*command.split(), "--json"]
        assert cli.main(argv) == code, capsys.readouterr().err
        printed = capsys.readouterr().out
        found = [strictly(line) for line in printed.splitlines()]
        if command == "backtest universal:1h zero.csv":
            assert found[0]["smape"] == 0.0  # of forecasts of some 1e-22
            assert found[0]["wql"] is None
            assert found[0]["undefined"]["wql"] == "every observation that is scored is 0"
        assert found or command == "run" or command.startswith(("anomalies", "dlq"))
