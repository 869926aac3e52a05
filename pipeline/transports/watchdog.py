"""Puts a bound on calls of client libraries that may never return.

`send_offsets_to_transaction` of librdkafka hangs for ever when the group's coordinator is decommissioned, whatever
time-out it was given (librdkafka issue 5511), and kafka-python's transactional calls take no time-out at all.

Owns: the bound. Does not know: what is called. Invariant: the caller goes on after `timeout_s`; the call itself
cannot be stopped, and goes on in a daemon thread, so its object must not be used again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def call_within(timeout_s: float, call: Callable[[], T]) -> T:
    """Return what `call` returns, or raise what it raises.

    Raises:
        TimeoutError: it has done neither after `timeout_s`.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001  the caller's thread raises it
            outcome.set_exception(error)

    threading.Thread(target=run, name="watched call", daemon=True).start()
    try:
        return outcome.result(timeout_s)
    except TimeoutError as error:
        if outcome.done():  # the call's own TimeoutError
            raise
        raise TimeoutError(f"no answer within {timeout_s:g} s") from error
