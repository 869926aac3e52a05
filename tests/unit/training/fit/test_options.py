"""The options of training and search: cheap to import, all documented."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from typing import Any, get_args, get_type_hints

import pytest

from rillcast.errors import SettingsError
from rillcast_training.fit import options
from rillcast_training.fit.options import CELL_NAMES, Flag, TrainOptions, TuneOptions
from rillcast_training.model.cells import CELLS


def flags(owner: type) -> dict[str, Flag]:
    hints = get_type_hints(owner, include_extras=True)
    return {name: part for name, hint in hints.items() for part in get_args(hint)[1:] if isinstance(part, Flag)}


def test_importing_the_options_loads_no_heavy_library() -> None:
    heavy = {"torch", "polars", "pandas", "numpy", "optuna", "matplotlib"}
    code = f"import sys, rillcast_training.fit.options; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("owner", [TrainOptions, TuneOptions])
def test_every_option_has_a_docstring(owner: type) -> None:
    (body,) = [node.body for node in ast.parse(inspect.getsource(owner)).body if isinstance(node, ast.ClassDef)]
    undocumented = [
        field.target.id
        for field, after in zip(body, [*body[1:], None], strict=True)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant))
    ]
    assert not undocumented


def test_the_cells_on_the_command_line_are_those_there_are() -> None:
    assert set(CELL_NAMES) == set(CELLS)
    assert flags(TrainOptions)["cell"].choices == CELL_NAMES


def test_the_search_takes_the_options_that_its_trials_share() -> None:
    shared = {name for name, flag in flags(TrainOptions).items() if flag.tune is not None}
    assert shared == {"freq", "horizon", "epochs", "batches", "batch", "patience", "validation", "seed", "threads",
                      "device", "precision", "experts"}  # fmt: skip


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (options.words, "gru,,lstm", ("gru", "lstm")),
        (options.numbers, "16,32", (16, 32)),
        (options.levels, "0.1,0.9", (0.1, 0.9)),
        (options.covariate, "a:b:known", ("a:b", "known")),
        (options.seconds, "1.5m", 90.0),
    ],
)
def test_texts_are_parsed(parse: Any, text: str, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (options.numbers, "16,x", "expected whole numbers separated by commas"),
        (options.levels, "", "expected numbers separated by commas"),
        (options.covariate, "promo", "expected NAME:KIND"),
        (options.seconds, "20", "expected a number and s, m or h"),
    ],
)
def test_other_texts_are_refused(parse: Any, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_contradicting_options_are_refused() -> None:
    common: dict[str, Any] = {"freq": "1h", "horizon": 6, "out": "model.onnx", "synthetic": 1}
    with pytest.raises(SettingsError, match="exclude each other"):
        TrainOptions(**common, refit=True, refit_if_stopped=True)
    with pytest.raises(SettingsError, match="epochs is 0, expected at least 1"):
        TrainOptions(**common, epochs=0)
