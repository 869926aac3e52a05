"""Steps that users write in PyTorch, by both of its exporters: all are served with the results of the module."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from rillcast import Bundle, BundleMetadata, Device, EventBatch, Outcome, StateSpec, StepEngine, seal
from tests.support.toy import HOUR_MS

Read = Callable[[Tensor, Tensor], Tensor]
Write = Callable[[Tensor, Tensor, Tensor], Tensor]


def over_row(slots: Tensor, table: Tensor) -> Tensor:
    return slots.reshape(-1, *[1] * (table.dim() - 1)).expand(-1, *table.shape[1:])


def index(table: Tensor, slots: Tensor) -> Tensor:
    return table[slots]


def index_put(table: Tensor, slots: Tensor, rows: Tensor) -> Tensor:
    return table.index_put((slots,), rows)


def assign(table: Tensor, slots: Tensor, rows: Tensor) -> Tensor:
    changed = table.clone()
    changed[slots] = rows
    return changed


READS: dict[str, Read] = {
    "index": index,
    "index_select": lambda table, slots: torch.index_select(table, 0, slots),
    "gather": lambda table, slots: torch.gather(table, 0, over_row(slots, table)),
    "embedding": lambda table, slots: nn.functional.embedding(slots, table),
    "flat": lambda table, slots: table.reshape(table.shape[0], -1)[slots].reshape(-1, *table.shape[1:]),
    "unsqueezed": lambda table, slots: table.unsqueeze(1)[slots].squeeze(1),
}
WRITES: dict[str, Write] = {
    "scatter": lambda table, slots, rows: table.scatter(0, over_row(slots, table), rows),
    "index_copy": lambda table, slots, rows: table.index_copy(0, slots, rows),
    "assign": assign,
    "index_add": lambda table, slots, rows: table.index_add(0, slots, rows - table[slots]),
}
CELLS = {"gru": (1, (8,)), "lstm": (2, (8,)), "two layers": (1, (2, 8))}  # number and row shape of the states


class Step(nn.Module):
    def __init__(self, cell: str, read: Read, write: Write) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.read, self.write = cell, read, write
        self.gru, self.lstm = nn.GRUCell(1, 8), nn.LSTMCell(1, 8)
        self.deep = nn.GRU(1, 8, num_layers=2, batch_first=True)
        self.head = nn.Linear(8, 9)

    def forward(self, slots: Tensor, ds: Tensor, y: Tensor, *tables: Tensor) -> tuple[Tensor, ...]:
        missing = torch.isnan(y)
        value = torch.where(missing, torch.zeros_like(y), y)[:, None]
        rows = [self.read(table, slots).to(torch.float32) for table in tables]
        if self.kind == "lstm":
            following = list(self.lstm(value, (rows[0], rows[1])))
            seen = following[0]
        elif self.kind == "gru":
            following = [self.gru(value, rows[0])]
            seen = following[0]
        else:
            outputs, hidden = self.deep(value[:, None], rows[0].transpose(0, 1).contiguous())
            following, seen = [hidden.transpose(0, 1)], outputs[:, 0]
        forecast = self.head(seen).reshape(-1, 3, 3).sort(dim=-1).values
        status = torch.where(missing, 2, 0).to(torch.int8) + (0 * ds).to(torch.int8)
        written = [
            self.write(table, slots, rows.to(table.dtype)) for table, rows in zip(tables, following, strict=True)
        ]
        return forecast, status, *written


def export(step: Step, states: list[str], tables: list[Tensor], *, dynamo: bool) -> onnx.ModelProto:
    example: tuple[Any, ...] = (torch.tensor([1, 2, 3]), torch.zeros(3, dtype=torch.int64), torch.ones(3), *tables)
    inputs = ["slots", "ds", "y", *(f"state.{name}" for name in states)]
    outputs = ["forecast", "status", *(f"state.{name}.next" for name in states)]
    if dynamo:
        streams, rows = torch.export.Dim("B", min=1, max=100_000), torch.export.Dim("N", min=1, max=2**30)
        dims: Any = (*({0: streams},) * 3, ({0: rows},) * len(states))
        program: Any = torch.onnx.export(
            step.eval(), example, dynamo=True, dynamic_shapes=dims, input_names=inputs, output_names=outputs,
            verbose=False,
        )  # fmt: skip
        model: onnx.ModelProto = program.model_proto
        return model
    buffer: Any = io.BytesIO()
    axes = {name: {0: "N" if name.startswith("state.") else "B"} for name in (*inputs, *outputs)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            step.eval(), example, buffer, dynamo=False, input_names=inputs, output_names=outputs, dynamic_axes=axes
        )
    return onnx.load_model_from_string(buffer.getvalue())


def check(cell: str, read: Read, write: Write, *, dynamo: bool, dtype: torch.dtype = torch.float32) -> None:
    number, shape = CELLS[cell]
    step, states = Step(cell, read, write), ["h", "c"][:number]
    tables = [torch.zeros(7, *shape, dtype=dtype) for _ in states]
    specs = tuple(StateSpec(name=name, dtype=str(dtype).removeprefix("torch."), row_shape=shape) for name in states)
    metadata = BundleMetadata(name="mine", cell=cell, freq="1h", horizon=3, quantiles=(0.1, 0.5, 0.9), states=specs)
    bundle = Bundle.from_bytes(seal(export(step, states, tables, dynamo=dynamo), metadata))
    engine, rng = StepEngine(bundle, Device("cpu")), np.random.default_rng(0)
    engine.step(EventBatch.of([f"s{i}" for i in range(5)], np.zeros(5, np.int64), np.zeros(5, np.float32)))
    with torch.no_grad():
        _, _, *tables = step(torch.arange(1, 6), torch.zeros(5, dtype=torch.int64), torch.zeros(5), *tables)
        for number in range(1, 5):
            streams = rng.permutation(5)[: rng.integers(1, 6)]
            y = rng.normal(0, 1, streams.size).astype(np.float32)
            y[0] = np.nan if number == 2 else y[0]
            ds = np.full(streams.size, number * HOUR_MS)
            result = engine.step(EventBatch.of([f"s{i}" for i in streams], ds, y, first_offset=10 * number))
            forecast, status, *tables = step(
                torch.from_numpy(streams + 1), torch.from_numpy(ds), torch.from_numpy(y), *tables
            )
            assert (result.outcome == Outcome.STEPPED).all()
            assert result.status.tolist() == status.tolist()
            tolerance = 1e-5 if dtype == torch.float32 else 1e-2
            np.testing.assert_allclose(result.forecast, forecast.numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("read", READS)
def test_every_way_to_read_rows(read: str) -> None:
    check("gru", READS[read], index_put, dynamo=False)


@pytest.mark.parametrize("write", WRITES)
def test_every_way_to_write_rows(write: str) -> None:
    check("lstm", index, WRITES[write], dynamo=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_two_layers_in_one_state(dtype: torch.dtype) -> None:
    check("two layers", index, index_put, dynamo=False, dtype=dtype)


def test_the_newer_exporter() -> None:
    """The page about one's own model has `table[slots]` and `index_put`."""
    pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it; `make test` installs it")
    check("gru", READS["index_select"], WRITES["index_copy"], dynamo=True)
