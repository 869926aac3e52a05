"""Figures without a value: null and a reason in JSON, `-` in tables."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pytest

from rillcast.figures import Undefined, reasons_of, shown, to_json
from tests.support.paths import ROOT


def strictly(text: str) -> Any:
    """Read JSON as strict readers do."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


def test_a_figure_without_a_value_is_null_and_has_a_reason() -> None:
    document = {"a": {"b": [1.5, Undefined("no scale")]}, "c": -math.inf, "d": np.float64("nan"), "e": 2}
    assert strictly(to_json(document)) == {
        "a": {"b": [1.5, None]},
        "c": None,
        "d": None,
        "e": 2,
        "undefined": {"a.b[1]": "no scale", "c": "infinite, below zero", "d": "not a number"},
    }
    assert strictly(to_json({"a": 1, "b": None})) == {"a": 1, "b": None}
    assert strictly(to_json([math.nan, "text"])) == [None, "text"]


def test_a_reason_survives_copies() -> None:
    @dataclass
    class Figures:
        figure: float

    assert copy.deepcopy(Undefined("why")).reason == "why"
    assert list(reasons_of(asdict(Figures(Undefined("why"))))) == [("figure", "why")]
    assert math.isnan(Undefined("why"))


def test_a_table_shows_no_nan() -> None:
    assert shown(1.25, "8.3f") == "   1.250"
    assert shown(Undefined("why"), "8.3f") == "       -"
    assert shown(math.inf, ".3f") == "-"


# Files that write JSON otherwise: of values that are finite by their types, or on their own terms.
OTHERWISE = {
    "pipeline/rillcast/figures.py",
    "pipeline/rillcast/observability/logs.py",  # texts alone
    "pipeline/rillcast/codecs/forecasts/avro.py",  # a schema
    "pipeline/rillcast/codecs/forecasts/avro_rows.py",  # two schemas
    "pipeline/rillcast/cli/commands/config.py",  # the TOML form of a setting
    "training/rillcast_training/export/restore.py",  # the shape of a module
    "training/rillcast_training/research/public_benchmarks.py",
    "training/rillcast_training/research/ablations.py",
    "training/rillcast_training/research/expert_priors.py",
    "training/rillcast_training/research/record_cells.py",
}


@pytest.mark.parametrize("folder", ["pipeline", "training"])
def test_everything_that_prints_json_prints_finite_numbers(folder: str) -> None:
    """`json.dumps` writes NaN and Infinity; msgspec, orjson and pydantic write null."""
    found = {
        str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*.py") if "json.dumps(" in
        path.read_text().replace("orjson.dumps(", "")
    }  # fmt: skip
    assert found <= OTHERWISE
