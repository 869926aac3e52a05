"""Which kind of network is trained where neither was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rillcast.errors import SettingsError
from rillcast_training.data.series import Series
from rillcast_training.data.traces import LONGEST, taken
from rillcast_training.fit.kind import kind_of
from rillcast_training.fit.options import TrainOptions

HOURS = [Series("a", np.arange(1_000, 1_100), np.ones(100, np.float32))]


def options(**changes: Any) -> TrainOptions:
    usual: dict[str, Any] = {"freq": "1h", "horizon": 6, "out": Path("model.onnx"), "data": Path("d.csv")}
    return TrainOptions(**(usual | changes))


def test_a_network_is_on_top_of_experts_unless_asked_otherwise() -> None:
    kind = kind_of(options(), HOURS)
    assert (kind.options.experts, kind.options.hidden, kind.reason) == (True, 32, "")
    assert str(kind) == "a network on top of experts"
    alone = kind_of(options(experts=False), HOURS)
    assert (alone.options.experts, alone.options.hidden, str(alone)) == (False, 64, "a network alone")
    assert kind_of(options(hidden=8), HOURS).options.hidden == 8


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"covariates": (("promo", "known"),)}, "experts take no covariates"),
        ({"context": 48}, "a context or a longest gap was given, and experts have neither"),
        ({"max_gap": 12}, "a context or a longest gap was given, and experts have neither"),
        ({"seasons": (12, 6)}, "no mixture of experts has this shape (seasons [12, 6]: expected one or two lengths"),
    ],
)
def test_an_option_that_experts_cannot_have_is_the_reason_for_a_network_alone(
    changes: dict[str, Any], reason: str
) -> None:
    kind = kind_of(options(**changes), HOURS)
    assert (kind.options.experts, kind.options.hidden) == (False, 64)
    assert kind.reason.startswith(reason)
    assert str(kind).startswith(f"a network alone: {reason}")


@pytest.mark.parametrize(
    "changes", [{"calendar": False}, {"synthetic": 5}, {"alarms": True}, {"cell": "lru"}, {"freq": "1mo"}]
)
def test_other_options_are_no_reason(changes: dict[str, Any]) -> None:
    assert kind_of(options(**changes), HOURS).options.experts


def test_data_of_which_training_would_see_less_than_half_are_a_reason() -> None:
    def series(length: int, count: int = 1) -> list[Series]:
        return [Series("a", np.arange(length), np.empty(length, np.float32))] * count

    assert kind_of(options(), series(2 * LONGEST)).options.experts
    kind = kind_of(options(), series(2 * LONGEST + 2))
    assert kind.reason == f"on top of experts {LONGEST:,} of {2 * LONGEST + 2:,} events could be trained on"
    assert kind_of(options(), series(2_000, 400)).options.experts
    assert not kind_of(options(), series(2_000, 800)).options.experts


def test_events_are_counted_as_they_are_kept() -> None:
    assert taken([3, 5]) == 8
    assert taken([LONGEST + 5, 7]) == LONGEST + 7
    assert taken([10, 4, 10], most=18) == 18
    assert taken([10, 4, 10], most=9) == 9


def test_a_run_that_is_resumed_keeps_its_kind(tmp_path: Path) -> None:
    checkpoint = tmp_path / "kept.ckpt"
    for run, experts in (({"experts": True}, True), ({"experts": False}, False), ({}, False)):
        torch.save({"version": 1, "run": run}, checkpoint)
        assert kind_of(options(checkpoint=checkpoint), HOURS).options.experts == experts
    checkpoint.write_bytes(b"no checkpoint")
    with pytest.raises(SettingsError, match="not readable"):
        kind_of(options(checkpoint=checkpoint), HOURS)


def test_weights_that_are_trained_further_decide() -> None:
    start = Path("universal:1h")  # which has a network on top of its experts
    assert kind_of(options(init=start), HOURS).options.experts
    with pytest.raises(SettingsError, match="is a network on top of experts, and a network alone cannot start from it"):
        kind_of(options(init=start, experts=False), HOURS)
