"""Operators of a traced graph are replaced by fewer ones that do the same."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from rillcast_training.model.simplify import simplified


def node(kind: str, inputs: str, output: str, **attributes: int) -> onnx.NodeProto:
    made = helper.make_node(kind, inputs.split(), [output])
    made.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    return made


def test_the_only_entry_of_an_axis_is_another_shape() -> None:
    constants = {"zero": np.array(0), "rows": np.array([0])}
    shapes = {"x": (1, "rows"), "z": (3, "rows")}
    nodes = [
        node("Gather", "x zero", "a", axis=0),
        node("Gather", "z zero", "b", axis=0),  # one of three
        node("Gather", "x rows", "c", axis=0),  # keeps the axis
        node("Gather", "unknown zero", "d", axis=0),
    ]
    found = simplified(nodes, constants, shapes, ["a", "b", "c", "d"])
    assert [one.op_type for one in found] == ["Squeeze", "Gather", "Gather", "Gather"]
    assert constants[found[0].input[1]].tolist() == [0]


def test_parts_that_are_joined_again_are_joined_once() -> None:
    nodes = [
        node("Concat", "a b", "ab", axis=1),
        node("Concat", "ab c", "abc", axis=1),
        node("Concat", "abc d", "abcd", axis=1),
        node("Concat", "abcd e", "other", axis=0),  # along another axis
    ]
    found = simplified(nodes, {}, {}, ["other"])
    assert [(list(one.input), one.output[0]) for one in found] == [
        (["a", "b", "c", "d"], "abcd"),
        (["abcd", "e"], "other"),
    ]


def test_the_largest_of_many_is_taken_once_and_not_mixed_with_the_smallest() -> None:
    nodes = [
        node("Max", "a b", "ab"),
        node("Max", "ab c", "abc"),
        node("Min", "abc d", "abcd"),
    ]
    found = simplified(nodes, {}, {}, ["abcd"])
    assert [(one.op_type, list(one.input)) for one in found] == [("Max", ["a", "b", "c"]), ("Min", ["abc", "d"])]


def test_parts_that_something_else_reads_stay() -> None:
    nodes = [
        node("Concat", "a b", "ab", axis=0),
        node("Concat", "ab c", "abc", axis=0),
        node("Abs", "ab", "read"),
        node("Concat", "d e", "de", axis=0),
        node("Concat", "de f", "def", axis=0),
    ]
    found = simplified(nodes, {}, {}, ["abc", "read", "de", "def"])
    assert [one.output[0] for one in found] == ["ab", "abc", "read", "de", "def"]
