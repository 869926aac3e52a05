"""Bundles that would read files, run without end, or fill the memory are refused before they run."""

from __future__ import annotations

import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rillcast.bundle import onnx_safety
from rillcast.bundle.bundle import Bundle, BundleMetadata, StateSpec, seal
from rillcast.errors import BundleError
from tests.support.toy import ToyGraph

INFO = helper.make_tensor_value_info


def refused(data: bytes) -> str:
    with pytest.raises(BundleError) as error:
        Bundle.from_bytes(data)
    return error.value.clause


def sealed(attack: Callable[[onnx.ModelProto], None]) -> bytes:
    """Return the toy with something added, and the id of the unchanged toy."""
    toy = ToyGraph()
    model = onnx.load_model_from_string(seal(toy.model(), toy.metadata()))
    attack(model)
    return bytes(model.SerializeToString())


def external(name: str = "weights", location: str = "/etc/passwd") -> TensorProto:
    """Return a tensor that names a file but is complete without it, so that no other check refuses it."""
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), name)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def in_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(external())


def in_attribute(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["stolen"], value=external()))


def in_attribute_list(model: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["stolen"])
    node.attribute.add(name="values", type=onnx.AttributeProto.TENSORS).tensors.append(external())
    model.graph.node.append(node)


def in_body(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [INFO("weights", TensorProto.FLOAT, [2])], [external()])
    model.graph.node.append(helper.make_node("If", ["yes"], ["stolen"], then_branch=body, else_branch=body))


def in_sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add(values=external(), dims=[2])


def without_flag(model: onnx.ModelProto) -> None:
    tensor = external()
    tensor.data_location = TensorProto.DEFAULT
    model.graph.initializer.append(tensor)


def without_location(model: onnx.ModelProto) -> None:
    tensor = external()
    del tensor.external_data[:]
    model.graph.initializer.append(tensor)


@pytest.mark.parametrize(
    ("hide", "clause"),
    [
        (in_initializer, "external-data"),
        (in_attribute, "external-data"),
        (in_attribute_list, "external-data"),
        (in_body, "external-data"),
        (without_flag, "external-data"),
        (without_location, "external-data"),
        (in_sparse, "size"),  # sparse tensors are always refused
    ],
)
def test_no_file_is_read_wherever_the_tensor_hides(
    hide: Callable[[onnx.ModelProto], None], clause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = sealed(hide)
    monkeypatch.setattr(
        "rillcast.bundle.bundle.checker.check_model", lambda _: pytest.fail("it would look for the file")
    )
    assert refused(data) == clause


def node(kind: str, domain: str = "", **attributes: Any) -> Callable[[onnx.ModelProto], None]:
    def add(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node(kind, ["y"], ["out"], domain=domain, **attributes))

    return add


def in_a_function(model: onnx.ModelProto) -> None:
    model.functions.append(helper.make_function("evil", "f", ["x"], ["y"], [], [helper.make_opsetid("", 18)]))


def in_training(model: onnx.ModelProto) -> None:
    model.training_info.add().algorithm.node.append(helper.make_node("Neg", ["y"], ["z"]))


def nested_in_bodies(model: onnx.ModelProto) -> None:
    body = helper.make_graph([helper.make_node("EPContext", ["y"], ["z"], domain="com.microsoft")], "inner", [], [])
    for _ in range(5):
        body = helper.make_graph(
            [helper.make_node("If", ["yes"], ["z"], then_branch=body, else_branch=body)], "b", [], []
        )
    model.graph.node.extend(body.node)


@pytest.mark.parametrize(
    "attack",
    [
        node("RunShell", "evil.example"),
        node("EPContext", "com.microsoft", embed_mode=0, ep_cache_context="/etc/passwd"),
        node("PyOp", "com.microsoft"),
        node("Loop"),
        node("RandomNormal", shape=[1]),
        node("Bernoulli"),
        in_a_function,
        in_training,
        nested_in_bodies,
    ],
)
def test_operators_that_could_run_something_else_are_refused(attack: Callable[[onnx.ModelProto], None]) -> None:
    assert refused(sealed(attack)) == "operators"


def shaped(kind: str, shape: list[int]) -> Callable[[onnx.ModelProto], None]:
    def add(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), "shape"))
        inputs = ["shape"] if kind == "ConstantOfShape" else ["y", "shape"]
        model.graph.node.append(helper.make_node(kind, inputs, ["huge"]))

    return add


def lying_tensor(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(
        TensorProto(name="lie", data_type=TensorProto.FLOAT, dims=[2**20, 2**20], raw_data=b"\0" * 4)
    )


def negative_tensor(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(TensorProto(name="lie", data_type=TensorProto.FLOAT, dims=[-1], raw_data=b"\0" * 4))


def sparse_tensor(model: onnx.ModelProto) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "one")
    model.graph.sparse_initializer.add(
        values=values, indices=numpy_helper.from_array(np.zeros(1, np.int64)), dims=[2**40]
    )


@pytest.mark.parametrize(
    "attack",
    [
        shaped("ConstantOfShape", [2**20, 2**20]),
        shaped("Expand", [2**40]),
        shaped("Tile", [2**62]),
        lying_tensor,
        negative_tensor,
        sparse_tensor,
    ],
)
def test_small_files_that_make_huge_tensors_are_refused(attack: Callable[[onnx.ModelProto], None]) -> None:
    assert refused(sealed(attack)) == "size"


def field(number: int, content: bytes) -> bytes:
    """Return a length-delimited protobuf field."""
    length, size = len(content), bytearray()
    while length > 0x7F:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([number << 3 | 2, *size, length]) + content


BOMBS = {
    "empty nodes": field(7, field(1, b"") * 600_000),
    "empty names": field(7, field(1, field(1, b"") * 600_000)),
    "empty metadata": field(14, b"") * 600_000,
    "packed numbers": field(7, field(1, field(5, field(8, b"\0" * 9_000_000)))),
    "flags": b"\x08\x01" * 600_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_of_millions_of_tiny_parts_is_refused_unparsed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "load_model_from_string", lambda _: pytest.fail("it would become gigabytes"))
    assert refused(BOMBS[name]) == "size"


@pytest.mark.parametrize(
    "data", [b"\x07" * 100, b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0b\x0b", b"\x80" * 30]
)
def test_broken_wire_format_is_left_to_the_parser(data: bytes) -> None:
    onnx_safety.check_bytes(data)
    assert refused(data) == "onnx"


def test_an_honest_file_of_many_weights_is_within_the_limits() -> None:
    model = ToyGraph().model()
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((2048, 2048), np.float32), "weights"))
    onnx_safety.check_bytes(model.SerializeToString())
    onnx_safety.check_model(model)


@pytest.mark.parametrize(
    "states",
    [
        [StateSpec(name="a", dtype="float32", row_shape=(2**22, 2))],
        [StateSpec(name=f"s{i}", dtype="float32", row_shape=(2**20,)) for i in range(5)],
    ],
)
def test_states_that_no_device_holds_are_refused(states: list[StateSpec]) -> None:
    with pytest.raises(ValueError, match="the state of one stream takes"):
        BundleMetadata(name="x", cell="x", freq="1h", horizon=1, quantiles=(0.5,), states=tuple(states))


def test_a_row_so_long_that_its_size_overflows_is_refused() -> None:
    with pytest.raises(ValueError, match="row_shape"):
        StateSpec(name="a", dtype="float32", row_shape=(2**62, 4))


def test_loading_takes_memory_in_proportion_to_the_file(tmp_path: Path) -> None:
    """Under a memory limit of the operating system, each bomb is refused and the process survives."""
    with zipfile.ZipFile(tmp_path / "bombs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in BOMBS.items():
            archive.writestr(name, data)
    code = (
        "import resource, sys, zipfile\n"
        "from rillcast.bundle.bundle import Bundle\n"
        "from rillcast.errors import BundleError\n"
        "now = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (now + 2**28,) * 2)\n"
        "archive = zipfile.ZipFile(sys.argv[1])\n"
        "for name in archive.namelist():\n"
        "    try:\n"
        "        Bundle.from_bytes(archive.read(name))\n"
        "    except BundleError as error:\n"
        "        print(error.clause)\n"
    )
    if not Path("/proc/self/statm").exists():
        pytest.skip("the limit is set by Linux's account of memory")
    assert resource.getpagesize() > 0
    command = [sys.executable, "-c", code, str(tmp_path / "bombs.zip")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["size"] * len(BOMBS)
