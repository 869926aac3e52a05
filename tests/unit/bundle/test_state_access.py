"""Which graphs are served as they are; the others are rewritten to one gather and one scatter for each state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import helper

from rillcast.bundle.bundle import Bundle
from rillcast.errors import BundleError
from tests.support.forecasters import write_network
from tests.support.state_access import (
    TORCH_WAYS,
    at_places,
    control_flow,
    gathered_twice,
    next_state_read_again,
    replace_node,
    scatter_adds,
    state_read_otherwise,
)
from tests.support.toy import ToyGraph, toy_bundle


def plain(toy: ToyGraph) -> None:
    """The toy as it is."""


@pytest.mark.parametrize("change", [plain, at_places])
def test_one_gather_and_one_scatter_are_served_as_they_are(change: Callable[[ToyGraph], None]) -> None:
    toy = ToyGraph()
    change(toy)
    bundle = Bundle.from_bytes(toy.build())
    assert bundle.step.served is bundle.step.model is bundle.model


def test_own_bundles_are_served_as_they_are_and_were_compared(tmp_path: Path) -> None:
    bundle = Bundle.load(write_network(tmp_path / "network.onnx"))
    assert bundle.sequence is not None
    for graph in (bundle.step, bundle.sequence):
        assert graph.served is graph.model
        assert graph.compared
    assert not toy_bundle().step.compared


@pytest.mark.parametrize(
    "change",
    [*TORCH_WAYS, gathered_twice, state_read_otherwise, scatter_adds, next_state_read_again, control_flow],
)
def test_other_graphs_are_served_over_rows(change: Callable[[ToyGraph], None]) -> None:
    toy = ToyGraph()
    change(toy)
    bundle = Bundle.from_bytes(toy.build())
    served = onnx.load_model_from_string(bundle.step.served)
    assert [node.op_type for node in served.graph.node if "state.sum" in node.input] == ["Gather", "ScatterND"]
    onnx.checker.check_model(served)


def no_way_from_the_state(toy: ToyGraph) -> None:
    replace_node(toy, "scatter", helper.make_node("Identity", ["next_row"], ["state.sum.next"]))
    replace_node(toy, "gather", helper.make_node("Unsqueeze", ["slots", "last_axis"], ["row"]))


def all_rows(toy: ToyGraph) -> None:
    replace_node(toy, "scatter", helper.make_node("Add", ["state.sum", "multiplier"], ["state.sum.next"]))


@pytest.mark.parametrize("change", [no_way_from_the_state, all_rows])
def test_a_state_that_cannot_be_updated_in_place_is_refused(change: Callable[[ToyGraph], None]) -> None:
    toy = ToyGraph()
    change(toy)
    with pytest.raises(BundleError) as refused:
        toy.build()
    assert refused.value.clause == "in-place"
