"""Puts a bound on calls of client libraries that may never return.

`send_offsets_to_transaction` of librdkafka hangs for ever when the group's coordinator is decommissioned, whatever
time-out it was given (librdkafka issue 5511), and kafka-python's transactional calls take no time-out at all.

Owns: the bound. Does not know: what is called. Invariant: the caller goes on after `timeout_s`; the call itself
cannot be stopped, and goes on in a daemon thread, so its object must not be used again, nor even be closed: librdkafka
frees the memory that the call still uses. Whoever gives up a call therefore says what is to be done when it ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class TimedOut(Exception):  # noqa: N818  it names an outcome
    """A call had not ended when its time was up. It goes on."""


def call_within(timeout_s: float, call: Callable[[], T], at_late_end: Callable[[], None]) -> T:
    """Return what `call` returns, or raise what it raises.

    Args:
        timeout_s: how long to wait for it.
        call: runs in a thread of its own.
        at_late_end: runs in that thread when the call ends after it was given up.

    Raises:
        TimedOut: it did not end in time.
    """
    outcome: Future[T] = Future()
    lock = threading.Lock()
    given_up = False

    def run() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001  the caller's thread raises it
            with lock:
                outcome.set_exception(error)
        else:
            with lock:
                outcome.set_result(result)
        if given_up:
            at_late_end()

    threading.Thread(target=run, name="watched call", daemon=True).start()
    try:
        return outcome.result(timeout_s)
    except TimeoutError as error:
        with lock:
            given_up = not outcome.done()
        if given_up:
            raise TimedOut(f"no answer within {timeout_s:g} s") from error
        return outcome.result()
