"""The mixture of experts as a graph on ONNX Runtime, for traces: what a network on top would see at each event.

Owns: the graph and its session. Does not know: series, files, what a trace is for (`rillcast_training.data.traces`).

PyTorch calls some thousand small operators for each event, and takes several times as long for few streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from rillcast.arrays import AnyArray, IntArray
from rillcast_training.export.tracing import ROW, trace
from rillcast_training.model.experts.config import ExpertsConfig
from rillcast_training.model.experts.forecaster import ExpertForecaster, ExpertRows
from rillcast_training.model.experts.network import Traces
from rillcast_training.model.layout import batch_last

_EXAMPLE: Final = 3  # streams; not 1, which the tracer would squeeze
_GRAPHS: Final = 4  # that are kept: a search and its trainings take the same one


class TraceGraph:
    """A mixture without a network, event by event.

    Args:
        config: Shape of the mixture, without a network.
    """

    def __init__(self, config: ExpertsConfig) -> None:
        self._forecaster = ExpertForecaster(config).eval()
        self._states = [spec.name for spec in self._forecaster.state_specs()]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3  # errors alone, as where a bundle is served
        self._session = onnxruntime.InferenceSession(_graph(config), options, providers=["CPUExecutionProvider"])

    def initial_rows(self, streams: int) -> list[AnyArray]:
        """Return the state of streams never seen, an array of each kind, `[streams, ...]`."""
        return [part.numpy() for part in self._forecaster.initial_rows(streams).flat()]

    def step(self, ds: IntArray, y: AnyArray, rows: Sequence[AnyArray]) -> tuple[list[AnyArray], list[AnyArray]]:
        """Advance each stream by one event.

        Args:
            ds: `[B]` milliseconds since the epoch.
            y: `[B]` float32, NaN where there is no value.
            rows: State of the streams.

        Returns:
            The columns of `rillcast_training.model.experts.network.Traces`, `[B, ...]` each, and the next state.
        """
        given = {ROW: np.arange(len(ds)), "ds": ds, "y": y, **dict(zip(self._states, rows, strict=True))}
        found = self._session.run(None, given)
        return found[: len(Traces._fields)], found[len(Traces._fields) :]


@lru_cache(_GRAPHS)
def _graph(config: ExpertsConfig) -> bytes:
    forecaster = ExpertForecaster(config)
    states = [spec.name for spec in forecaster.state_specs()]
    inputs, outputs = [ROW, "ds", "y", *states], [*Traces._fields, *(f"{name}.next" for name in states)]
    axes = {name: {0: "B"} for name in (*inputs, *outputs)}

    def arguments(size: int) -> tuple[Tensor, ...]:
        events = (torch.arange(size), torch.zeros(size, dtype=torch.int64), torch.zeros(size))
        return (*events, *forecaster.initial_rows(size).flat())

    def of_batch(size: int) -> dict[str, AnyArray]:
        return {name: value.numpy() for name, value in zip(inputs, arguments(size), strict=True)}

    traced = trace(_TraceOverRows(forecaster), arguments(_EXAMPLE), inputs, outputs, axes)
    model: bytes = batch_last(traced, of_batch).SerializeToString()
    return model


class _TraceOverRows(nn.Module):
    """`ExpertForecaster.trace` with flat arguments, as the tracer needs it."""

    def __init__(self, forecaster: ExpertForecaster) -> None:
        super().__init__()
        self.forecaster = forecaster

    def forward(self, row: Tensor, ds: Tensor, y: Tensor, *rows: Tensor) -> tuple[Tensor, ...]:
        traces, following = self.forecaster.trace(ds, y, ExpertRows.from_flat(rows), row)
        return (*traces, *following.flat())
