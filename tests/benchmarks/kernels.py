"""Share of the processor's peak that the step of a bundle reaches, and the product that the peak is measured with.

    python -m tests.benchmarks.kernels MODEL [--batch 1000] [--rounds 5] [--json]

Owns: the product, the count of a graph's operations, and their ratio, measured in turns. Does not know: the service.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from rillcast.benchmarks.load import START_MS, name_of
from rillcast.benchmarks.machine import machine
from rillcast.benchmarks.output import show
from rillcast.bundle.bundle import Bundle
from rillcast.engine import device
from rillcast.engine.batcher import Batching, Runs
from rillcast.engine.step_engine import StepEngine
from rillcast.events import EventBatch

_PEAK_SHAPE: Final = (1024, 512, 512)  # rows, depth and columns of the product that the peak is measured with


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="bundle (.onnx)")
    parser.add_argument("--batch", type=int, default=1_000, help="streams per call (default: 1000)")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds per round, of each of the two (default: 1)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the medians are reported (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    figures = peak_share(args)
    if args.json:
        print(json.dumps(figures | {"machine": machine()}))
    else:
        show(figures)
    return 0


def peak_share(args: argparse.Namespace) -> dict[str, Any]:
    """Return the share of the processor's matrix products per second that the whole step reaches, in turns."""
    bundle, on = Bundle.load(args.model), device.choose("cpu", 1)
    flops = product_flops(onnx.load_model_from_string(bundle.model))
    streams = args.batch
    engine = StepEngine(bundle, on, batching=Batching(streams, runs=Runs()))
    ids = [f"stream-{number}" for number in range(streams)]
    y = np.full(streams, 100, np.float32)
    product = LargeProduct()
    shares, rates, peaks = [], [], []
    period = 0
    for _ in range(args.rounds):
        peak = product.flops_per_second(args.seconds)
        done, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < args.seconds:
            period += 1
            ds = np.full(streams, bundle.metadata.frequency.ahead(START_MS, period), np.int64)
            engine.step(EventBatch.of(ids, ds, y + period % 24, first_offset=period * streams))
            done += streams
        rates.append(done / elapsed)
        peaks.append(peak)
        shares.append(done / elapsed * flops / peak)
    return {
        "model": name_of(bundle),
        "batch": streams,
        "product_flops_per_event": flops,
        "steps_per_second": statistics.median(rates),
        "peak_gflops": statistics.median(peaks) / 1e9,
        "peak_share": statistics.median(shares),
    }


def product_flops(model: onnx.ModelProto) -> int:
    """Return the multiplications and additions of an event in the layers of the network: 2 K N for each `[K, N]`.

    These are the Gemms. MatMuls with constants only add features up, and are not counted.
    """
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer if len(tensor.dims) == 2}
    layers = [node for node in model.graph.node if node.op_type == "Gemm"]
    return sum(2 * sizes[name] for node in layers for name in node.input[:2] if name in sizes)


class LargeProduct:
    """One large float32 product in ONNX Runtime: the same kernels as the model's, at their best."""

    def __init__(self) -> None:
        rows, depth, columns = _PEAK_SHAPE
        rng = np.random.default_rng(0)
        weights = numpy_helper.from_array(rng.random((depth, columns), dtype=np.float32), "weights")
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "weights"], ["product"])],
            "peak",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, depth])],
            [helper.make_tensor_value_info("product", TensorProto.FLOAT, [rows, columns])],
            [weights],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", device.OPSET)], ir_version=device.IR_VERSION
        )
        self._session = device.Device("cpu").session(model.SerializeToString())
        self._binding: onnxruntime.IOBinding = self._session.io_binding()
        self._binding.bind_cpu_input("x", rng.random((rows, depth), dtype=np.float32))
        self._binding.bind_output("product", "cpu")
        self._session.run_with_iobinding(self._binding)

    def flops_per_second(self, seconds: float) -> float:
        """Return the floating-point operations per second of `seconds` of such products."""
        done, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            self._session.run_with_iobinding(self._binding)
            done += 1
        rows, depth, columns = _PEAK_SHAPE
        return 2.0 * rows * depth * columns * done / elapsed


if __name__ == "__main__":
    sys.exit(main())
