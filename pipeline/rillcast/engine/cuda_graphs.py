"""CUDA graphs of one session: the buffers of each graph, the threads that captured it, and the capturing run.

A captured graph repeats the kernels of one run, at the addresses of that run, in one launch. So each set of buffers has
its own number, the run option `gpu_graph_id` of ONNX Runtime, and moved buffers get a new one.

ONNX Runtime keeps captured graphs by thread. Its first run under a number that the thread has not captured *executes
more than once*: to allocate, and as the first replay. A step that updates state in place would advance the streams
twice. Hence the first run touches no stream.

Owns: the numbers, and which thread has captured which graph.
Does not know: what a session computes, what its buffers contain.
Source: "Using CUDA Graphs" in the documentation of ONNX Runtime's CUDA provider, and `InferenceSession::Run`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import onnxruntime as ort

from rillcast.engine.capture_lock import CAPTURES

RUN_OPTION: Final = "gpu_graph_id"
FIRST_NUMBER: Final = 1
"""ONNX Runtime uses 0 itself, and -1 for a run without capture."""


class CudaGraph:
    """One session over one set of buffers at fixed addresses, captured once by each thread that runs it."""

    def __init__(self, number: int, session: ort.InferenceSession, binding: ort.IOBinding) -> None:
        """Record the buffers; nothing runs yet.

        Args:
            number: At least `FIRST_NUMBER`, and used by no other graph of the session, including former ones.
            session: Session with the provider option `enable_cuda_graph`.
            binding: Binding of every input and output, at fixed addresses.
        """
        self.number = number
        self._options = ort.RunOptions()
        self._options.add_run_config_entry(RUN_OPTION, str(number))
        self._session = session
        self._binding = binding
        self._of_thread = threading.local()

    def capture(self, idle: Callable[[], None]) -> None:
        """Capture the session, unless this thread already has; no other thread works on the GPU meanwhile.

        Args:
            idle: Fills the inputs so that any number of executions changes no stream.
        """
        if getattr(self._of_thread, "captured", False):
            return
        with CAPTURES.capture():
            idle()
            self._session.run_with_iobinding(self._binding, self._options)
        self._of_thread.captured = True

    def replay(self) -> None:
        """Execute the session once on the filled inputs, after `capture` in the same thread."""
        self._session.run_with_iobinding(self._binding, self._options)
