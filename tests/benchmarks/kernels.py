"""The graphs of a bundle: what the sequence graph is worth, and how near the step comes to the processor's peak."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from rillcast.arrays import FloatArray, IntArray
from rillcast.bundle.bundle import Bundle
from rillcast.engine import device
from rillcast.engine.batcher import DEFAULT_RUNS, Batching, Runs
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import SettingsError
from rillcast.events import EventBatch

_START_MS: Final = 1_704_067_200_000  # 2024-01-01T00:00:00Z
_POLL_EVENTS: Final = 4_096
_PEAK_SHAPE: Final = (1024, 512, 512)  # rows, depth and columns of the product that the peak is measured with


class _Backlog:
    """A fresh engine and the events of `streams` streams that wait for it, hour by hour, `events` of each."""

    def __init__(self, bundle: Bundle, on: device.Device, runs: Runs, streams: int, events: int) -> None:
        self._engine = StepEngine(bundle, on, batching=Batching(runs=runs))
        self._ids = [f"stream-{number}" for number in range(streams)] * events
        slot = np.repeat(np.arange(events, dtype=np.int64), streams)
        self._ds: IntArray = bundle.metadata.frequency.ahead(_START_MS, slot)
        wave = np.sin(slot * (2 * np.pi / bundle.metadata.season) + np.tile(np.arange(streams), events))
        self._y: FloatArray = (100 + 10 * wave).astype(np.float32)

    def work_off(self, poll_events: int) -> tuple[float, float]:
        """Return events per second, and the share of them that went in runs."""
        in_runs, count = 0, len(self._ids)
        started = time.perf_counter()
        for first in range(0, count, poll_events):
            part = slice(first, first + poll_events)
            events = EventBatch.of(self._ids[part], self._ds[part], self._y[part], first_offset=first)
            result = self._engine.step(events)
            in_runs += result.stats.in_runs
        return count / (time.perf_counter() - started), in_runs / count


def catch_up(args: argparse.Namespace) -> dict[str, Any]:
    """Compare working a backlog off in runs, in waves and event by event, in turns."""
    try:
        numbers = [int(text) for text in args.streams.split(",")]
    except ValueError as error:
        raise SettingsError(f"--streams {args.streams!r}: expected whole numbers separated by commas") from error
    bundle, on = Bundle.load(args.model), device.choose(args.device, args.threads)
    if bundle.sequence is None:
        raise SettingsError(f"{args.model} has no sequence graph; train or export it again")
    rows = []
    for streams in numbers:
        events = min(args.backlog, max(1, args.events // streams))
        ways = {"runs": (DEFAULT_RUNS, _POLL_EVENTS), "waves": (Runs(), _POLL_EVENTS), "single": (Runs(), 1)}
        rates: dict[str, list[float]] = {way: [] for way in ways}
        share = 0.0
        for _ in range(args.rounds):
            for way, (runs, poll_events) in ways.items():
                shorter = events if way == "runs" else max(1, events // 8)
                rate, in_runs = _Backlog(bundle, on, runs, streams, shorter).work_off(poll_events)
                rates[way].append(rate)
                share = max(share, in_runs)
        rows.append(
            {
                "streams": streams,
                "backlog": events,
                "share_in_runs": share,
                **{f"{way}_events_per_second": statistics.median(measured) for way, measured in rates.items()},
                "ratio_to_waves": _ratio(rates["runs"], rates["waves"]),
                "ratio_to_single": _ratio(rates["runs"], rates["single"]),
            }
        )
    return {"model": f"{bundle.metadata.name}@{bundle.metadata.model_id}", "device": on.name, "catch_up": rows}


def peak_share(args: argparse.Namespace) -> dict[str, Any]:
    """Return what share of the processor's matrix products per second the whole step makes use of, in turns."""
    bundle, on = Bundle.load(args.model), device.choose("cpu", 1)
    flops = product_flops(onnx.load_model_from_string(bundle.model))
    streams = args.batch
    engine = StepEngine(bundle, on, batching=Batching(streams, runs=Runs()))
    ids = [f"stream-{number}" for number in range(streams)]
    y = np.full(streams, 100, np.float32)
    product = LargeProduct()
    shares, rates, peaks = [], [], []
    slot = 0
    for _ in range(args.rounds):
        peak = product.flops_per_second(args.seconds)
        done, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < args.seconds:
            slot += 1
            ds = np.full(streams, bundle.metadata.frequency.ahead(_START_MS, slot), np.int64)
            engine.step(EventBatch.of(ids, ds, y + slot % 24, first_offset=slot * streams))
            done += streams
        rates.append(done / elapsed)
        peaks.append(peak)
        shares.append(done / elapsed * flops / peak)
    return {
        "model": f"{bundle.metadata.name}@{bundle.metadata.model_id}",
        "batch": streams,
        "product_flops_per_event": flops,
        "steps_per_second": statistics.median(rates),
        "peak_gflops": statistics.median(peaks) / 1e9,
        "peak_share": statistics.median(shares),
    }


def product_flops(model: onnx.ModelProto) -> int:
    """Return the multiplications and additions of an event in the layers of the network: 2 K N for each `[K, N]`.

    These are the Gemms. Products that only add features up (MatMuls with constants) are not work that a user asked for.
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


def residents(args: argparse.Namespace) -> dict[str, Any]:
    """Compare the cost of an event among few resident streams with that among many, in turns."""
    bundle, on = Bundle.load(args.model), device.choose(args.device, args.threads)
    crowds = {number: _Crowd(bundle, on, number, args.batch) for number in (args.few, args.many)}
    times: dict[int, list[float]] = {number: [] for number in crowds}
    for block in range(args.blocks):
        for number, crowd in sorted(crowds.items(), reverse=bool(block % 2)):
            times[number].append(crowd.seconds_per_event(args.calls))
    ratios = [many / few for few, many in zip(times[args.few], times[args.many], strict=True)]
    return {
        "model": f"{bundle.metadata.name}@{bundle.metadata.model_id}",
        "batch": args.batch,
        **{f"us_per_event_among_{number}": statistics.median(measured) * 1e6 for number, measured in times.items()},
        "many_to_few_ratio": statistics.median(ratios),
        "ratio_quartiles": statistics.quantiles(ratios, n=4),
    }


class _Crowd:
    """An engine with so many resident streams, of which random ones have events."""

    def __init__(self, bundle: Bundle, on: device.Device, streams: int, batch: int) -> None:
        self._engine = StepEngine(bundle, on, batching=Batching(batch, runs=Runs()))
        self._ids = [f"stream-{number}" for number in range(streams)]
        self._frequency, self._batch, self._slot = bundle.metadata.frequency, batch, 0
        self._rng = np.random.default_rng(0)
        for first in range(0, streams, 8192):
            self._step(self._ids[first : first + 8192])

    def seconds_per_event(self, calls: int) -> float:
        """Step `calls` batches of random streams."""
        picked = [
            [self._ids[n] for n in self._rng.choice(len(self._ids), self._batch, replace=False)] for _ in range(calls)
        ]
        started = time.perf_counter()
        for ids in picked:
            self._slot += 1
            self._step(ids)
        return (time.perf_counter() - started) / (calls * self._batch)

    def _step(self, ids: list[str]) -> None:
        n = len(ids)
        ds = np.full(n, self._frequency.ahead(_START_MS, self._slot), np.int64)
        y = np.full(n, 100 + self._slot % 24, np.float32)
        self._engine.step(EventBatch.of(ids, ds, y))


def _ratio(above: list[float], below: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))
