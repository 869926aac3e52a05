"""From a trained forecaster to a bundle file.

Owns: the step's graph, the metadata, and the rule that a file appears only after `rillcast_training.export.parity`
found it equal to the module. Does not know: how the forecaster was trained, or how a module is traced
(`rillcast_training.export.tracing`).
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from torch import Tensor, nn

from rillcast.bundle.bundle import BundleMetadata, seal
from rillcast.outputs import replacing
from rillcast_training.export.parity import ParityReport, check_parity
from rillcast_training.export.restore import attach
from rillcast_training.export.sequence_export import (
    Given,
    event_example,
    event_inputs,
    results,
    sequence_to_onnx,
)
from rillcast_training.export.sequence_parity import check_sequence
from rillcast_training.export.step_export import step_to_onnx, versions
from rillcast_training.model.forecaster import Forecaster

log = logging.getLogger(__name__)


def export(
    forecaster: Forecaster,
    path: str | Path,
    *,
    name: str,
    training: Mapping[str, Any] | None = None,
    backtest: Mapping[str, float] | None = None,
) -> ParityReport:
    """Write `forecaster` to `path` as a bundle, once the file is proven equal to the module.

    Args:
        forecaster: Trained module.
        path: Bundle file; replaced if it exists, untouched if anything fails.
        name: Name of the model in the metadata.
        training: Summary of the training data and run, for the metadata.
        backtest: Figures of a backtest or of the validation part.

    Raises:
        ParityError: the exported graph and the module disagree, or the sequence graph and the step.
        BundleError: the graph breaks the bundle contract.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    forecaster = forecaster.eval()
    metadata = describe(forecaster, name=name, training=training or {}, backtest=backtest or {})
    model = to_onnx(forecaster)
    attach(model, dataclasses.asdict(forecaster.config), forecaster)
    sealed = seal(model, metadata, sequence_to_onnx(forecaster))
    with replacing(path) as partial:
        partial.write_bytes(sealed)
        report = check_parity(forecaster, partial)
        if not check_sequence(forecaster, partial):
            log.warning(
                "%s: sequence graph and step differ in their last bits on this processor; a replay may differ too",
                path,
            )
    return report


def describe(
    forecaster: Forecaster, *, name: str, training: Mapping[str, Any], backtest: Mapping[str, float]
) -> BundleMetadata:
    """Return the metadata of a forecaster, without figures that have no value; sealing sets the model id."""
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
        covariates=config.covariates,
        scores=forecaster.scores,
        training=dict(training),
        backtest={name: value for name, value in backtest.items() if math.isfinite(value)},
        versions=versions(),
    )


def to_onnx(forecaster: Forecaster) -> onnx.ModelProto:
    """Return the step over whole states: `(slots, ds, y, ..., calibrate, state.*) -> (forecast, ..., state.*.next)`."""

    def example(size: int) -> tuple[Tensor, ...]:
        return (*event_example(forecaster, (size,)), *forecaster.initial_rows(size).flat())

    step, events = _StepOverRows(forecaster), event_inputs(forecaster)
    return step_to_onnx(step, forecaster.state_specs(), events, example, results(forecaster, ["B"]))


class _StepOverRows(nn.Module):
    """`Forecaster.step` with flat arguments, as the tracer needs it."""

    def __init__(self, forecaster: Forecaster) -> None:
        super().__init__()
        self.forecaster = forecaster

    def forward(self, row: Tensor, ds: Tensor, y: Tensor, calibrate: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        given = Given.of(self.forecaster, others)
        x, future, interval = given.x, given.future, given.alarm_interval
        outputs, following = self.forecaster.step(ds, y, given.rows, calibrate, x, future, row, interval)
        return (*outputs.flat(), *following.flat())
