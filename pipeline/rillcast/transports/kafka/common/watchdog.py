"""Bounds calls of client libraries that may never return.

`send_offsets_to_transaction` of librdkafka ignores its time-out and hangs when the group's coordinator is
decommissioned (librdkafka issue 5511), and kafka-python's transactional calls take no time-out.

Owns: the bound. Does not know: what is called. Invariant: the caller continues after `timeout_s`. The call itself
cannot be stopped and continues in a daemon thread. So its object must not be used again, and not even closed:
librdkafka would free memory that the call still uses. The caller says what to do when the call ends at last.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from rillcast import threads

T = TypeVar("T")


class TimedOut(Exception):  # noqa: N818  it names an outcome
    """A call has not ended in time. It continues."""


def call_within(timeout_s: float, call: Callable[[], T], at_late_end: Callable[[], None]) -> T:
    """Return what `call` returns, or raise what it raises.

    Args:
        timeout_s: Longest wait in seconds.
        call: Runs in a thread of its own.
        at_late_end: Runs in that thread if the call ends after `timeout_s`.

    Raises:
        TimedOut: The call has not ended in time.
        MemoryError: There is no room for the thread; the call has not begun.
    """
    outcome: Future[T] = Future()
    lock = threading.Lock()
    given_up = False

    def run(future: Future[T]) -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001  the caller's thread raises it
            with lock:
                future.set_exception(error)
        else:
            with lock:
                future.set_result(result)
        if given_up:
            at_late_end()
        del future  # see below; this frame is in the error's traceback as well

    threads.start(threading.Thread(target=run, args=(outcome,), name="watched call", daemon=True))
    try:
        return outcome.result(timeout_s)
    except TimeoutError as error:
        with lock:
            given_up = not outcome.done()
        if given_up:
            raise TimedOut(f"no answer within {timeout_s:g} s") from error
        return outcome.result()
    finally:
        # An error holds the frames that it passes, and the future holds the error. With the future in this frame they
        # would keep each other, and whatever callers have at hand, until Python's next full collection of garbage.
        del outcome
