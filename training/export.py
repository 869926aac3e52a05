"""From a trained forecaster to a bundle file.

Owns: tracing `Forecaster.step` to ONNX, grafting the rows' gather and scatter around it, the metadata, and the rule
that a file appears only after `training.parity` found it equal to the module. Does not know: how the forecaster was
trained. The exporter is the TorchScript one, on purpose: docs/adr/0001-torchscript-exporter.md.
"""

from __future__ import annotations

import io
import os
import platform
import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata as distributions
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from pipeline.bundle import CALIBRATE, NEXT_SUFFIX, STATE_PREFIX, BundleMetadata, StateSpec, seal
from training.forecaster import Forecaster, Rows
from training.parity import ParityReport, check_parity
from training.restore import attach

OPSET: Final = 18
_EVENT: Final = ("ds", "y", CALIBRATE)
_OUTPUTS: Final = ("forecast", "status", "score", "anomaly")
_ROWS_SUFFIX: Final = ".rows"
_NEXT_ROWS_SUFFIX: Final = ".rows.next"
_TRACE_BATCH: Final = 3  # not 1, which the tracer would take for a dimension to squeeze


def export(
    forecaster: Forecaster,
    path: str | Path,
    *,
    name: str,
    training: Mapping[str, Any] | None = None,
    backtest: Mapping[str, float] | None = None,
) -> ParityReport:
    """Write `forecaster` to `path` as a bundle, after the file proved equal to the module.

    Args:
        forecaster: the trained module.
        path: the bundle file; replaced if it exists, untouched if anything fails.
        name: the model's name in the metadata.
        training: what is to be known of the training data and run.
        backtest: figures of a backtest or of the validation split.

    Raises:
        ParityError: the exported graph and the module disagree.
        BundleError: the graph breaks the bundle contract.
    """
    path = Path(path)
    forecaster = forecaster.eval()
    metadata = describe(forecaster, name=name, training=training or {}, backtest=backtest or {})
    model = to_onnx(forecaster)
    attach(model, forecaster)
    sealed = seal(model, metadata)
    neighbour = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with neighbour.open("xb") as file:
            file.write(sealed)
            file.flush()
            os.fsync(file.fileno())
        report = check_parity(forecaster, neighbour)
        neighbour.replace(path)
    finally:
        neighbour.unlink(missing_ok=True)
    return report


def describe(
    forecaster: Forecaster, *, name: str, training: Mapping[str, Any], backtest: Mapping[str, float]
) -> BundleMetadata:
    """Return the metadata of a forecaster; the model id is set when the bundle is sealed."""
    config = forecaster.config
    return BundleMetadata(
        name=name,
        cell=config.cell,
        freq=config.freq,
        horizon=config.horizon,
        quantiles=config.quantiles,
        context=config.context,
        season=config.seasons[0],
        states=forecaster.state_specs(),
        scores=forecaster.scores,
        training=dict(training),
        backtest=dict(backtest),
        versions={
            "rillcast": _distribution_version("rillcast"),
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "numpy": distributions.version("numpy"),
        },
    )


def to_onnx(forecaster: Forecaster) -> onnx.ModelProto:
    """Return the step over whole states: `(slots, ds, y, calibrate, state.*) -> (forecast, ..., state.*.next)`."""
    config = forecaster.config
    results = [
        _value("forecast", TensorProto.FLOAT, ["B", config.horizon, len(config.quantiles)]),
        _value("status", TensorProto.INT8, ["B"]),
        _value("score", TensorProto.FLOAT, ["B", len(forecaster.scores)]),
        _value("anomaly", TensorProto.FLOAT, ["B"]),
    ]
    return _graft_state(_trace(forecaster), forecaster.state_specs(), results)


class _StepOverRows(nn.Module):
    """`Forecaster.step` with flat arguments, as the tracer wants it."""

    def __init__(self, forecaster: Forecaster) -> None:
        super().__init__()
        self.forecaster = forecaster

    def forward(self, ds: Tensor, y: Tensor, calibrate: Tensor, *rows: Tensor) -> tuple[Tensor, ...]:
        outputs, following = self.forecaster.step(ds, y, Rows.from_flat(rows), calibrate)
        return (*outputs, *following.flat())


def _trace(forecaster: Forecaster) -> onnx.ModelProto:
    """Export the step over rows: inputs ds, y, calibrate, state.*.rows; outputs of the step, state.*.rows.next."""
    specs = forecaster.state_specs()
    inputs = [*_EVENT, *(STATE_PREFIX + spec.name + _ROWS_SUFFIX for spec in specs)]
    outputs = [*_OUTPUTS, *(STATE_PREFIX + spec.name + _NEXT_ROWS_SUFFIX for spec in specs)]
    example = (
        torch.zeros(_TRACE_BATCH, dtype=torch.int64),
        torch.zeros(_TRACE_BATCH),
        torch.tensor(1.0),
        *forecaster.initial_rows(_TRACE_BATCH).flat(),
    )
    buffer: Any = io.BytesIO()  # which this exporter takes, though its annotation knows paths only
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # of the exporter itself: see the ADR
        torch.onnx.export(
            _StepOverRows(forecaster).eval(),  # else the exporter would put the forecaster back into training
            example,
            buffer,
            dynamo=False,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={name: {0: "B"} for name in (*inputs, *outputs) if name != CALIBRATE},
            opset_version=OPSET,
            do_constant_folding=True,
        )
    return onnx.load_model_from_string(buffer.getvalue())


def _graft_state(
    step: onnx.ModelProto, specs: tuple[StateSpec, ...], results: Sequence[onnx.ValueInfoProto]
) -> onnx.ModelProto:
    """Gather the rows before the step and scatter them after it, once per state, as the in-place contract asks.

    `results` are the step's own outputs: the shapes that the tracer infers depend on how it lowers the last operator.
    """
    graph = step.graph
    column = numpy_helper.from_array(np.array([1], dtype=np.int64), "slots.axes")
    gathers = [helper.make_node("Unsqueeze", ["slots", "slots.axes"], ["slots.column"], name="slots.column")]
    scatters, inputs, outputs = [], [_value("slots", TensorProto.INT64, ["B"])], []
    for spec in specs:
        name = STATE_PREFIX + spec.name
        dtype = helper.np_dtype_to_tensor_dtype(spec.numpy_dtype)
        gathers.append(
            helper.make_node("Gather", [name, "slots"], [name + _ROWS_SUFFIX], name=f"{name}.gather", axis=0)
        )
        scatters.append(
            helper.make_node(
                "ScatterND",
                [name, "slots.column", name + _NEXT_ROWS_SUFFIX],
                [name + NEXT_SUFFIX],
                name=f"{name}.scatter",
            )
        )
        inputs.append(_value(name, dtype, ["N", *spec.row_shape]))
        outputs.append(_value(name + NEXT_SUFFIX, dtype, ["N", *spec.row_shape]))
    events = [value for value in graph.input if value.name in _EVENT]
    grafted = helper.make_graph(
        [*gathers, *graph.node, *scatters],
        "rillcast.step",
        [inputs[0], *events, *inputs[1:]],
        [*results, *outputs],
        initializer=[*graph.initializer, column],
    )
    return helper.make_model(
        grafted, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=step.ir_version, producer_name="rillcast"
    )


def _value(name: str, dtype: int, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    value: onnx.ValueInfoProto = helper.make_tensor_value_info(name, dtype, shape)
    return value


def _distribution_version(name: str) -> str:
    try:
        return distributions.version(name)
    except distributions.PackageNotFoundError:
        return "not installed"  # run from a source tree
