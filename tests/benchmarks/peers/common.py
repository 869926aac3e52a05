"""Shared by the neighbours' scripts: the arguments, the step of the model for one event, and the result.

The model is the unchanged bundle with a state of one row: the same arithmetic as in the service, one event at a time,
as a per-key callback has to call it. Runs without Rillcast.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort


class Task:
    """`SCRIPT bootstrap input output group events partitions model`, and the clock of the run."""

    def __init__(self) -> None:
        self.bootstrap, self.input, self.output, self.group, events, partitions, self.model = sys.argv[1:8]
        self.events, self.partitions = int(events), int(partitions)
        self._started: tuple[float, float] | None = None

    def start(self) -> None:
        """Begin, if it has not begun: at the first event in hand."""
        if self._started is None:
            self._started = time.perf_counter(), time.process_time()

    def finish(self) -> None:
        """Print what the run took, as the one line of output."""
        assert self._started is not None, "no event came"
        wall, cpu = time.perf_counter() - self._started[0], time.process_time() - self._started[1]
        figures = {"events": self.events, "seconds": wall, "cpu_seconds": cpu, "peak_rss_mib": peak_rss_mib()}
        print(json.dumps(figures), flush=True)


def peak_rss_mib() -> float:
    """Return the peak memory of this program."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not `ru_maxrss`: on Linux a new program inherits that of the process that started it, which is large here.
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS: in bytes


class Step:
    """The model, one event at a time; a state is one piece of bytes."""

    def __init__(self, model: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        outputs = [output.name for output in self._session.get_outputs()]
        self._states = []
        self._constant: dict[str, Any] = {"slots": np.zeros(1, np.int64)}
        first = 0
        for given in self._session.get_inputs():
            dtype = np.dtype(
                given.type[len("tensor(") : -1].replace("float", "float32").replace("float3216", "float16")
            )
            if given.name.startswith("state."):
                shape = (1, *given.shape[1:])
                size = int(np.prod(shape)) * dtype.itemsize
                self._states.append((given.name, dtype, shape, slice(first, first + size)))
                first += size
            elif given.name not in ("slots", "ds", "y"):
                shape = tuple(1 if isinstance(size, str) else size for size in given.shape)
                self._constant[given.name] = np.full(shape, given.name in ("calibrate", "bounds"), dtype)
        self._size = first
        self._names = ["forecast", *(name + ".next" for name, *_ in self._states)]
        assert set(self._names) <= set(outputs), f"{model} is no bundle of one step"

    def __call__(self, state: bytes | None, ds: int, y: float | None) -> tuple[Any, bytes]:
        """Return the `(H, Q)` forecast and the next state; None is the state of a new stream."""
        state = state or bytes(self._size)
        feed = self._constant | {
            "ds": np.array([ds], np.int64),
            "y": np.array([np.nan if y is None else y], np.float32),
        }
        for name, dtype, shape, at in self._states:
            feed[name] = np.frombuffer(state[at], dtype).reshape(shape)
        forecast, *rows = self._session.run(self._names, feed)
        return forecast[0], b"".join(row.tobytes() for row in rows)


def about(model: str) -> dict[str, Any]:
    """Return the metadata of a bundle."""
    described = ort.InferenceSession(model, providers=["CPUExecutionProvider"]).get_modelmeta()
    metadata: dict[str, Any] = json.loads(described.custom_metadata_map["rillcast"])
    return metadata


def reply(unique_id: str, ds: int, forecast: Any) -> dict[str, Any]:
    """Return a forecast record of the same content as the service's."""
    return {
        "unique_id": unique_id,
        "ds": ds,
        "quantiles": {str(level): column for level, column in enumerate(np.round(forecast.T, 4).tolist())},
    }
