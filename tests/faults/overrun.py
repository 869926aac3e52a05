"""A run that takes longer than any run should: what each thread is doing is written down, and the run ends.

Owns: the alarm clock of the process. Does not know: what a run is.
"""

from __future__ import annotations

import faulthandler
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class Overrun(Exception):  # noqa: N818  the run did; and no TimeoutError, which those who ask brokers again would drop
    """The run took too long; nothing is known about the service."""


@contextmanager
def within(limit_s: float, folder: Path) -> Iterator[None]:
    """Raise in the main thread, which has to call this, if the block takes longer.

    Args:
        limit_s: Seconds.
        folder: Where the stacks of all threads are written, as `stacks.txt`.

    Raises:
        Overrun: It did.
    """

    def ring(_number: int, _frame: FrameType | None) -> None:
        where = folder / "stacks.txt"
        with where.open("w") as file:
            faulthandler.dump_traceback(file)
        raise Overrun(f"not done within {limit_s:g} s; what each thread was doing is in {where}")

    before = signal.signal(signal.SIGALRM, ring)
    others = signal.setitimer(signal.ITIMER_REAL, limit_s)  # of a test's time-out, which begins again afterwards
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *others)
        signal.signal(signal.SIGALRM, before)
