"""Threads that cannot fail unnoticed: one that cannot begin, or that an error ends, ends the process.

A service whose step, commit or watch is gone would go on half, or wait for ever. Its end is one more crash: nothing
after the last commit counts, and the next start goes on from there.

Owns: the start of a thread, and what follows from its death. Does not know: what threads do, or how an error is told.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_ROOM: Final = 24 * 2**20  # a stack is 8 MiB, and Python's own part of a thread far less


def start(thread: threading.Thread) -> None:
    """Start a thread, if there is room for it.

    `Thread.start` waits until the thread has begun. Where memory lasts for its stack and not for Python's part of it,
    the thread ends before that, and the wait never does.

    Raises:
        MemoryError: There is no room.
    """
    require_room()
    thread.start()


def require_room() -> None:
    """Check that there is room for another thread; see `start`.

    Raises:
        MemoryError: There is none.
    """
    try:
        mmap.mmap(-1, _ROOM).close()
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        raise MemoryError("there is no room for another thread") from error


@contextmanager
def ending_process(tell: Callable[[BaseException], int], leave: Callable[[int], object] = os._exit) -> Iterator[None]:
    """Let an error that ends a thread end the process.

    The threads that still run may wait for the dead one, so nothing is closed: the process leaves at once.

    Args:
        tell: Says why, for a person, and returns the exit code.
        leave: Ends the process.
    """

    def end(error: BaseException) -> None:
        try:
            code = tell(error)
            sys.stderr.flush()
        except BaseException:  # noqa: BLE001  without memory nothing more can be said
            code = 1
        leave(code)

    def thread_died(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            end(args.exc_value)

    def lost(args: sys.UnraisableHookArgs) -> None:
        # Of a callback of a client library, or of a thread that had not begun: somebody waits for its work.
        if isinstance(args.exc_value, MemoryError):
            end(args.exc_value)
        else:
            unraisable(args)

    class PoolDied(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info is not None and record.exc_info[1] is not None:
                end(record.exc_info[1])

    excepthook, unraisable, pools = threading.excepthook, sys.unraisablehook, logging.getLogger("concurrent.futures")
    pool_died = PoolDied(logging.CRITICAL)  # a pool tells the death of its thread in its log, and nowhere else
    threading.excepthook, sys.unraisablehook = thread_died, lost
    pools.addHandler(pool_died)
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = excepthook, unraisable
        pools.removeHandler(pool_died)
