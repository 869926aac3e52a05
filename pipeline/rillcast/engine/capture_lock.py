"""The lock between captures of CUDA graphs and all other work on the GPU in this process.

ONNX Runtime captures in CUDA's global mode. While one thread captures, an allocation, a release or a blocking copy in
any other thread fails, and spoils the capture. A service has such threads: one loads models while others step.

Capturing every batch size at the start would not do. ONNX Runtime keeps graphs by thread, and state that grows is
captured again.

Owns: who may work, and who captures. Does not know: sessions, devices.
Invariant: a capture runs while no other thread works; other work runs at once.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final


class CaptureLock:
    """Many threads work at once, or one captures. Used from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._working = 0
        self._capturing = False

    @contextmanager
    def work(self) -> Iterator[None]:
        """Return a context in which no other thread captures. It may be nested, but not in a capture."""
        with self._changed:
            self._changed.wait_for(lambda: not self._capturing)
            self._working += 1
        try:
            yield
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    @contextmanager
    def capture(self) -> Iterator[None]:
        """Return a context in which no other thread works, and in which no cycle is collected.

        The sessions of a model that is no longer used are in cycles, so any thread may happen to release their memory.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._working and not self._capturing)
            self._capturing = True
        collecting = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if collecting:
                gc.enable()
            with self._changed:
                self._capturing = False
                self._changed.notify_all()


CAPTURES: Final = CaptureLock()
"""The only one: the rule is CUDA's, for the whole process."""
