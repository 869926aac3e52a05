"""The batch runner: it fills the rows that a batch names, and its counts start again when they are taken."""

from __future__ import annotations

import numpy as np

from rillcast.engine.batcher import Batching, Runs
from rillcast.engine.device import Device
from rillcast.engine.inputs import Inputs, SlotBatch
from rillcast.engine.runner import BatchRunner
from rillcast.engine.slab import Slab
from rillcast.engine.slot_state import SlotState
from rillcast.engine.slots import PAGE_SLOTS
from tests.support.toy import HOUR_MS, toy_bundle, unroll

BUNDLE = toy_bundle(sequence=True)


def runner(batching: Batching) -> BatchRunner:
    device = Device("cpu")
    state = SlotState(Slab(BUNDLE.metadata.states, device, 512), PAGE_SLOTS)
    return BatchRunner(BUNDLE, state, device, batching, calibrate=True)


def batch(rows: list[int], slots: list[int], y: list[int]) -> SlotBatch:
    """Return events in consecutive hours."""
    hours = np.arange(len(y), dtype=np.int64) * HOUR_MS
    return SlotBatch(np.array(rows), np.array(slots), Inputs(hours, np.array(y, np.float32)))


def test_only_the_rows_that_a_batch_names_are_filled() -> None:
    runs = runner(Batching(2, runs=Runs()))
    outputs = runs.empty_outputs(5)
    outputs["forecast"][:] = -1
    runs.run(batch([4, 0, 2], [300, 301, 300], [5, 6, 8]), outputs)
    assert outputs["forecast"][:, 0, 0].tolist() == [6, -1, unroll([5, 8])[1], -1, 5]
    assert outputs["healthy"].all()


def test_counts_start_again_when_they_are_taken() -> None:
    runs = runner(Batching(runs=Runs((4,), 64)))
    outputs = runs.empty_outputs(9)
    runs.run(batch(list(range(9)), [300] * 9, [1] * 9), outputs)
    assert outputs["forecast"][:, 0, 0].tolist() == unroll([1] * 9)
    assert runs.take_calls() == (3, 8)
    assert runs.take_calls() == (0, 0)


def test_an_empty_batch_calls_no_model() -> None:
    runs = runner(Batching())
    runs.run(batch([], [], []), runs.empty_outputs(0))
    assert runs.take_calls() == (0, 0)
