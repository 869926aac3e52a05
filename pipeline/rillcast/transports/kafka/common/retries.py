"""Repeats a request until it succeeds, or its answer is the one that is waited for.

Owns: the loops and their pause. Does not know: which failures pass; the caller says.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

PAUSE_S: Final = 0.05


def _pause() -> None:
    time.sleep(PAUSE_S)


def retry_until(
    deadline: float,
    call: Callable[[], T],
    passes: Callable[[Exception], bool],
    pause: Callable[[], None] = _pause,
) -> T:
    """Return what `call` returns, repeating it while it fails for a reason that passes.

    Args:
        deadline: Monotonic time in seconds after which a failure is not repeated.
        call: The request; it runs at least once.
        passes: Whether a failure may pass by itself.
        pause: Runs between two calls; by default it sleeps for 50 ms, since no event says when to ask again.

    Raises:
        Exception: The failure of the last call.
    """
    while True:
        try:
            return call()
        except Exception as error:
            if not passes(error) or time.monotonic() > deadline:
                raise
        pause()


def wait_until(deadline: float, holds: Callable[[], bool]) -> bool:
    """Ask until a condition holds, at least once; return whether it did by `deadline`, in monotonic seconds."""
    while not (held := holds()) and time.monotonic() < deadline:
        _pause()
    return held
