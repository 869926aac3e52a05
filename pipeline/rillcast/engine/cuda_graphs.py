"""CUDA graphs of one session: which buffers a graph was captured over, by which thread, and the run that captures it.

A captured graph repeats the kernels of one run, at the addresses of that run, launched as one. So each set of buffers
has a number of its own, the run option `gpu_graph_id` of ONNX Runtime, and buffers that moved get a new one.

ONNX Runtime keeps captured graphs by thread, and its first run under a number that the thread has not captured
*executes more than once*: to allocate, and again as the first replay. A step that updates its state in place would
advance the streams twice. Hence the first run is one that touches no stream.

Owns: numbers, and what each thread has captured. Does not know: what a session computes, or what fills its buffers.
Source: "Using CUDA Graphs" in the documentation of ONNX Runtime's CUDA provider, and `InferenceSession::Run`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import onnxruntime as ort

RUN_OPTION: Final = "gpu_graph_id"
FIRST_NUMBER: Final = 1
"""0 is ONNX Runtime's own, and -1 means a run without capture."""


class CudaGraph:
    """One session over one set of buffers that stay where they are; captured once by each thread that runs it."""

    def __init__(self, number: int, session: ort.InferenceSession, binding: ort.IOBinding) -> None:
        """Take note of the buffers; nothing is run yet.

        Args:
            number: at least `FIRST_NUMBER`, of no other graph of the session, past ones included.
            session: made with the provider option `enable_cuda_graph`.
            binding: every input and output, at addresses that stay.
        """
        self.number = number
        self._options = ort.RunOptions()
        self._options.add_run_config_entry(RUN_OPTION, str(number))
        self._session = session
        self._binding = binding
        self._of_thread = threading.local()

    def run(self, idle: Callable[[], None], fill: Callable[[], None]) -> None:
        """Execute the session once on filled buffers.

        Args:
            idle: fills the inputs such that executing them, any number of times, changes no stream.
            fill: fills the inputs with what is to be executed once.
        """
        if not getattr(self._of_thread, "captured", False):
            idle()
            self._session.run_with_iobinding(self._binding, self._options)
            self._of_thread.captured = True
        fill()
        self._session.run_with_iobinding(self._binding, self._options)
