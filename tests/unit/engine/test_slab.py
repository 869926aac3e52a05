from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from rillcast.bundle.bundle import StateSpec
from rillcast.engine.device import Device
from rillcast.engine.slab import Slab, room
from rillcast.errors import SlotError

SPECS = (
    StateSpec(name="h", dtype="float32", row_shape=(2, 3)),
    StateSpec(name="clock", dtype="int64", row_shape=(1,)),
    StateSpec(name="half", dtype="float16", row_shape=(4,)),
)


def some_rows(n: int, seed: int = 0) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    rng = np.random.default_rng(seed)
    return {spec.name: (rng.normal(size=(n, *spec.row_shape)) * 100).astype(spec.numpy_dtype) for spec in SPECS}


def test_rows_come_back_as_they_were_scattered() -> None:
    slab = Slab(SPECS, Device("cpu"), 512)
    slots = np.array([5, 300, 17], np.int64)
    rows = some_rows(3)
    slab.scatter(slots, rows)
    for name, gathered in slab.gather(slots).items():
        np.testing.assert_array_equal(gathered, rows[name])
    untouched = slab.gather(np.setdiff1d(np.arange(512), slots))
    assert all(not value.any() for value in untouched.values())


def test_gathered_rows_are_copies() -> None:
    slab = Slab(SPECS, Device("cpu"), 256)
    slots = np.array([1], np.int64)
    before = slab.gather(slots)
    slab.scatter(slots, some_rows(1))
    assert not before["h"].any()


def test_rows_survive_growth_and_new_rows_are_zero() -> None:
    slab = Slab(SPECS, Device("cpu"), 256)
    slots = np.arange(256, dtype=np.int64)
    rows = some_rows(256)
    slab.scatter(slots, rows)
    assert slab.ensure(257)
    assert slab.num_slots == 512
    np.testing.assert_array_equal(slab.gather(slots)["h"], rows["h"])
    assert not slab.gather(np.arange(256, 512))["h"].any()
    assert not slab.ensure(512)


def test_cleared_rows_are_zero_and_their_neighbours_are_not() -> None:
    slab = Slab(SPECS, Device("cpu"), 256)
    slots = np.arange(256, dtype=np.int64)
    rows = some_rows(256)
    slab.scatter(slots, rows)
    slab.clear(np.arange(10, 20, dtype=np.int64))
    kept = np.setdiff1d(slots, np.arange(10, 20))
    np.testing.assert_array_equal(slab.gather(kept)["h"], rows["h"][kept])
    assert all(not value.any() for value in slab.gather(np.arange(10, 20)).values())


@pytest.mark.parametrize("slots", [[256], [-1], [3, 3]])
def test_bad_slots_are_refused_and_nothing_is_written(slots: list[int]) -> None:
    slab = Slab(SPECS, Device("cpu"), 256)
    with pytest.raises(SlotError):
        slab.scatter(np.array(slots, np.int64), some_rows(len(slots)))
    assert not slab.gather(np.arange(256))["h"].any()


def test_rows_of_another_shape_or_type_are_refused() -> None:
    slab = Slab(SPECS, Device("cpu"), 256)
    wrong = some_rows(1) | {"half": np.zeros((1, 4), np.float32)}
    with pytest.raises(SlotError, match="half"):
        slab.scatter(np.array([1], np.int64), wrong)
    assert not slab.gather(np.array([1]))["h"].any()


def test_scatter_does_not_allocate_a_second_slab() -> None:
    """The update is in place: the value bound before and after is the same memory."""
    slab = Slab(SPECS, Device("cpu"), 256)
    session = ort.InferenceSession(  # a graph that only needs something to bind to
        _identity(), providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    slab.bind(binding)
    slab.scatter(np.array([7], np.int64), some_rows(1))
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(slab.gather(np.array([7]))["h"], some_rows(1)["h"])


def _identity() -> bytes:
    from onnx import helper

    nodes, inputs, outputs = [], [], []
    for spec in SPECS:
        element = helper.np_dtype_to_tensor_dtype(spec.numpy_dtype)
        name = f"state.{spec.name}"
        nodes.append(helper.make_node("Identity", [name], [name + ".next"]))
        inputs.append(helper.make_tensor_value_info(name, element, ["N", *spec.row_shape]))
        outputs.append(helper.make_tensor_value_info(name + ".next", element, ["N", *spec.row_shape]))
    graph = helper.make_graph(nodes, "identity", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def test_room_on_a_cpu_fills_memory_only_when_it_is_used() -> None:
    specs = (StateSpec(name="h", dtype="float32", row_shape=(4_096,)),)
    rows = room(specs, Device("cpu"), host_bytes=16, least=256)
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert physical // 2 < rows * (4 * 4_096 + 16) <= physical
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    slab = Slab(specs, Device("cpu"), rows)
    slab.clear(np.arange(256, dtype=np.int64))
    assert not slab.ensure(rows)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < physical // 1024 // 10


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of address space is that of Linux")
def test_room_is_half_of_what_a_limit_of_address_space_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (taken + 2**30, resource.RLIM_INFINITY))
    rows = room(SPECS, Device("cpu"), host_bytes=16, least=1)
    row_bytes = sum(spec.row_bytes for spec in SPECS) + 16
    assert 0.8 * 2**29 < rows * row_bytes <= 2**29


def test_room_on_another_device_is_the_need() -> None:
    assert room(SPECS, Device("cuda"), host_bytes=16, least=512) == 512


def test_room_is_never_less_than_is_needed() -> None:
    assert room(SPECS, Device("cpu"), host_bytes=2**60, least=512) == 512


def test_rows_are_copied_from_another_slab_and_their_neighbours_stay() -> None:
    one, other = Slab(SPECS, Device("cpu"), 512), Slab(SPECS, Device("cpu"), 256)
    slots = np.array([7, 200, 3], np.int64)
    rows = some_rows(256, seed=1)
    other.scatter(np.arange(256), rows)
    one.copy_from(other, slots)
    for name, gathered in one.gather(slots).items():
        np.testing.assert_array_equal(gathered, rows[name][slots])
    assert not any(value.any() for value in one.gather(np.setdiff1d(np.arange(512), slots)).values())
    for name, unchanged in other.gather(np.arange(256)).items():
        np.testing.assert_array_equal(unchanged, rows[name])


def test_rows_that_either_slab_lacks_are_not_copied() -> None:
    one, other = Slab(SPECS, Device("cpu"), 512), Slab(SPECS, Device("cpu"), 256)
    for to, source in ((one, other), (other, one)):
        with pytest.raises(SlotError):
            to.copy_from(source, np.array([1, 300]))
