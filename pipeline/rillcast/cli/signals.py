"""Signals that ask a process to end, from its start to its very end.

Owns: the handlers. Does not know: what a command does when it is asked to stop.

Python restores the default action of a signal while it shuts the interpreter down, which takes up to a second where
large libraries are loaded. A SIGTERM in that time would replace the exit code that the command has reached: a
supervisor would see -15 (143 in a shell) instead of the 5 that says why.
"""

from __future__ import annotations

import atexit
import logging
import signal
from collections.abc import Callable
from types import FrameType

log = logging.getLogger(__name__)


def on_request_to_stop(stop: Callable[[], None]) -> None:
    """Call `stop` at SIGINT and SIGTERM; a SIGINT after the first of them raises `KeyboardInterrupt`."""

    def handle(number: int, _frame: FrameType | None) -> None:
        log.info("%s: finishing", signal.Signals(number).name)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)


def end_at_once() -> None:
    """Let SIGINT and SIGTERM end the process again, as before `on_request_to_stop`: there is nothing to finish."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def keep_exit_code() -> None:
    """Let nothing but SIGKILL change the exit code of this process, whose work is done.

    SIGINT still interrupts the wait for threads that do not end, which does not change the exit code.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # after threads have ended
