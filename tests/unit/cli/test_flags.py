"""Flags that come from options: every field that a command takes is one, and only given flags reach the options."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from rillcast import cli
from rillcast.cli import flags
from rillcast_training.fit.options import TrainOptions, TuneOptions


def parsed(*arguments: str) -> argparse.Namespace:
    return cli.parser().parse_args(arguments)


def trained(*arguments: str) -> dict[str, Any]:
    return flags.given(parsed("train", "data.csv", "--out", "m.onnx", *arguments), TrainOptions, "train")


def tuned(*arguments: str) -> argparse.Namespace:
    required = ("--freq", "1h", "--horizon", "2", "--budget", "2m", "--study", "s")
    return parsed("tune", "data.csv", *required, *arguments)


def test_a_flag_that_is_not_given_leaves_the_default_to_the_options() -> None:
    assert trained() == {"out": Path("m.onnx")}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--freq", "1h", "--horizon", "24"], {"freq": "1h", "horizon": 24}),
        (["--season", "24,168", "--quantiles", "0.1,0.9"], {"seasons": (24, 168), "quantiles": (0.1, 0.9)}),
        (["--covariate", "a:past", "--covariate", "b:known"], {"covariates": (("a", "past"), ("b", "known"))}),
        (["--synthetic"], {"synthetic": 2000}),
        (["--synthetic", "7"], {"synthetic": 7}),
        (["--no-calendar", "--refit", "--quiet"], {"calendar": False, "refit": True, "quiet": True}),
        (["--lr", "0.01", "--max-gap", "5", "--checkpoint", "c"], {"lr": 0.01, "max_gap": 5, "checkpoint": Path("c")}),
        (["--experts"], {"experts": True}),
        (["--no-experts"], {"experts": False}),
        (["--init", "last.onnx", "--device", "cpu"], {"init": Path("last.onnx"), "device": "cpu"}),
    ],
)
def test_flags_have_the_values_of_their_fields(arguments: list[str], expected: dict[str, Any]) -> None:
    assert trained(*arguments) == {"out": Path("m.onnx"), **expected}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--refit", "--refit-if-stopped"], "not allowed with"),
        (["--covariate", "price"], "'price': expected NAME:KIND"),
        (["--season", "24,x"], "'24,x': expected whole numbers"),
        (["--cell", "transformer"], "invalid choice"),
        (["--layers", "two"], "invalid int"),
    ],
)
def test_a_wrong_value_is_an_error_of_its_flag(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        trained(*arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_search_takes_its_own_flags_and_those_that_its_trials_share() -> None:
    args = tuned("--hidden", "8,16", "--epochs", "3")
    assert flags.given(args, TuneOptions, "tune") == {"study": Path("s"), "budget_s": 120.0, "hidden": (8, 16)}
    shared = flags.given(args, TrainOptions, "tune")
    assert shared == {"freq": "1h", "horizon": 2, "epochs": 3, "patience": 4}, "its own `hidden` is not the trials'"


def test_help_has_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    for command, defaults in {"train": ("30", "0.003", "1", "gru"), "tune": ("10",)}.items():
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        printed = " ".join(capsys.readouterr().out.split())
        for default in defaults:
            assert f"(default: {default})" in printed
    assert "(default: 16,24,32,48; of networks alone 16,32,64,96,128)" in printed
