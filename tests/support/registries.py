"""Toy models for tests of the model registry, and its command."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from rillcast import cli
from rillcast.bundle.bundle import seal
from rillcast.bundle.registry.model_registry import ModelRegistry
from tests.support.toy import ToyGraph

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def toy(multiplier: int = 31, name: str = "toy") -> bytes:
    """Return a bundle whose graph, and so whose id, depends on `multiplier` and nothing else."""
    graph = ToyGraph()
    graph.initializers[0] = numpy_helper.from_array(np.array(multiplier, np.int64), "multiplier")
    return seal(graph.model(), graph.metadata().model_copy(update={"name": name}))


def of_another_kind() -> bytes:
    graph = ToyGraph(multiplier=37)
    return seal(graph.model(), graph.metadata().model_copy(update={"freq": "30min"}))


def pushed(registry: ModelRegistry, *multipliers: int) -> list[str]:
    """Push some models and return their ids."""
    return [registry.push(toy(multiplier), NOW)[0].model_id for multiplier in multipliers]


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert cli.main(["model", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)
