"""Signals that ask a process to end, from its start to its very end.

Owns: the handlers. Does not know: what a command does when it is asked to stop.

Python restores the default action of a signal while it shuts the interpreter down, which takes up to a second where
large libraries are loaded. A SIGTERM in that time would replace the exit code that the command has reached: a
supervisor would see -15 (143 in a shell) instead of the 5 that says why.

An exception that a handler raises may be lost: it is raised in whatever Python code runs at that moment, and in a
callback of a client library, a `__del__` or a garbage collection it is printed or dropped. So the handler also notes
the signal, and every loop that waits for records calls `raise_if_interrupted` between two polls.
"""

from __future__ import annotations

import atexit
import logging
import signal
from collections.abc import Callable
from types import FrameType

log = logging.getLogger(__name__)


class Interrupted(KeyboardInterrupt):
    """A signal interrupts the command.

    Attributes:
        exit_code: 128 and the number of the signal, as in shells.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


_received: int | None = None  # of the process, as its handlers are


def interruptible() -> None:
    """Let SIGINT and SIGTERM raise `Interrupted`, at once or else at the next `raise_if_interrupted`."""
    global _received
    _received = None

    def handle(number: int, _frame: FrameType | None) -> None:
        global _received
        _received = number
        raise Interrupted(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)


def received() -> Interrupted | None:
    """Return the interruption by a signal that has come since `interruptible`, whatever became of it then."""
    return None if _received is None else Interrupted(_received)


def raise_if_interrupted() -> None:
    """Raise `Interrupted` if a signal has come since `interruptible`, whatever became of the exception then."""
    if (interrupt := received()) is not None:
        raise interrupt


def on_request_to_stop(stop: Callable[[], None]) -> None:
    """Call `stop` at SIGINT and SIGTERM; a SIGINT after the first of them raises `KeyboardInterrupt`.

    Raises:
        Interrupted: A signal came before, and something dropped the exception: there is nothing to finish yet.
    """

    def handle(number: int, _frame: FrameType | None) -> None:
        log.info("%s: finishing", signal.Signals(number).name)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    raise_if_interrupted()


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
