"""What the exports of all forecasters share: the graph of the step over whole states, and the versions in the metadata.

Owns: the names and the order of the step's inputs and outputs. Does not know: forecasters, files.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from importlib import metadata as distributions
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from rillcast.bundle.bundle import BOUNDS, CALIBRATE, StateSpec
from rillcast_training.export.tracing import ROW, graft_state, row_inputs, row_outputs, trace
from rillcast_training.model.layout import batch_last

_TRACE_BATCH: Final = 3  # not 1, which the tracer would squeeze


def step_to_onnx(
    step: nn.Module,
    specs: Sequence[StateSpec],
    events: Sequence[str],
    example: Callable[[int], tuple[Tensor, ...]],
    results: Sequence[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    """Return the step over whole states: `(slots, ds, y, ..., calibrate, state.*) -> (forecast, ..., state.*.next)`.

    Args:
        step: Takes the rows of the tables, the events and the state rows, and returns the outputs and the next rows.
        specs: Kinds of state.
        events: Names of the inputs that are no state.
        example: Returns the arguments after the rows of the tables, for a batch of some size.
        results: Descriptions of the outputs that are no state.
    """
    inputs, outputs = [ROW, *events, *row_inputs(specs)], [*(one.name for one in results), *row_outputs(specs)]
    axes = {name: {0: "B"} for name in (*inputs, *outputs) if name not in (CALIBRATE, BOUNDS)}

    def arguments(size: int) -> tuple[Tensor, ...]:
        return (torch.arange(size), *example(size))

    def of_batch(size: int) -> dict[str, np.ndarray[Any, Any]]:
        return {name: value.numpy() for name, value in zip(inputs, arguments(size), strict=True)}

    traced = trace(step, arguments(_TRACE_BATCH), inputs, outputs, axes)
    return graft_state(batch_last(traced, of_batch), "rillcast.step", specs, events, results)


def versions() -> dict[str, str]:
    """Return the versions of Rillcast, Python and the packages that make a bundle."""
    return {
        "rillcast": _of_distribution("rillcast"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": distributions.version("numpy"),
    }


def _of_distribution(name: str) -> str:
    try:
        return distributions.version(name)
    except distributions.PackageNotFoundError:
        return "not installed"  # run from a source tree
