"""Compares cells and head alone with the processor's matrix products, as if the features cost nothing.

    python -m tests.benchmarks.cells_and_head [--cell gru] [--hidden 128] [--batch 1024] [--json]

Owns: the graph of a forecaster's cells and head over given features, and its share of the peak. Does not know: the
whole step, which `tests.benchmarks.kernels` measures against the same product.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from rillcast.engine import device
from rillcast_training.export.tracing import trace
from rillcast_training.model.forecaster import Forecaster
from tests.benchmarks.kernels import LargeProduct, product_flops
from tests.support.forecasters import random_forecaster, small_config

_TRACE_BATCH = 3


class CellsAndHead(nn.Module):
    """`(features, *directions, *state) -> (middle, distances, *state)`."""

    def __init__(self, forecaster: Forecaster) -> None:
        super().__init__()
        self.cell, self.head = forecaster.cell, forecaster.head

    def forward(self, inputs: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        directions, state = tensors[: self.head.directions], tensors[self.head.directions :]
        following = self.cell.step(inputs, state)
        seen = torch.cat([self.cell.output(following), inputs[:, : -self.unseen]], dim=-1)
        return (*self.head(seen, directions), *following)

    @property
    def unseen(self) -> int:
        """Inputs of the cells that the head does not get: what the event was."""
        return self.cell.input_size + self.cell.hidden_size - self.head.trunk.in_features


def main() -> int:
    """Measure alternately with the product, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", default="gru")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    args = parser.parse_args()
    config = small_config(cell=args.cell, hidden=args.hidden, horizon=24, seasons=(24, 168), context=168, max_gap=168)
    model = _exported(random_forecaster(config))
    flops = product_flops(model)
    session = device.Device("cpu").session(model.SerializeToString())
    binding = session.io_binding()
    rng = np.random.default_rng(0)
    for given in session.get_inputs():
        binding.bind_cpu_input(given.name, rng.normal(size=(args.batch, given.shape[1])).astype(np.float32))
    for made in session.get_outputs():
        binding.bind_output(made.name, "cpu")
    product, shares, peaks = LargeProduct(), [], []
    for _ in range(args.rounds):
        peak = product.flops_per_second(args.seconds)
        calls, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < args.seconds:
            session.run_with_iobinding(binding)
            calls += 1
        peaks.append(peak)
        shares.append(calls * args.batch * flops / elapsed / peak)
    result = {
        "cell": args.cell,
        "hidden": args.hidden,
        "batch": args.batch,
        "product_flops_per_event": flops,
        "peak_gflops": statistics.median(peaks) / 1e9,
        "peak_share": statistics.median(shares),
    }
    print(json.dumps(result) if args.json else "\n".join(f"{name}: {value}" for name, value in result.items()))
    return 0


def _exported(forecaster: Forecaster) -> onnx.ModelProto:
    module = CellsAndHead(forecaster.eval())
    horizon = forecaster.config.horizon
    directions = tuple(torch.zeros(_TRACE_BATCH, horizon) for _ in range(module.head.directions))
    state = module.cell.initial_state(_TRACE_BATCH)
    example = (torch.zeros(_TRACE_BATCH, module.cell.input_size), *directions, *state)
    inputs = [f"in.{number}" for number in range(len(example))]
    outputs = [f"out.{number}" for number in range(2 + len(state))]
    return trace(module, example, inputs, outputs, {name: {0: "B"} for name in (*inputs, *outputs)})


if __name__ == "__main__":
    sys.exit(main())
