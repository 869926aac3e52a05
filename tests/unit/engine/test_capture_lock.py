"""A capture of a CUDA graph and other work on the GPU never happen at once, and work happens at once with work."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from rillcast.engine.capture_lock import CaptureLock

SHORT_S, LONG_S = 0.05, 30.0


def test_work_waits_for_a_capture_and_a_capture_for_work() -> None:
    for first, second in (("capture", "work"), ("work", "capture"), ("capture", "capture")):
        lock, entered = CaptureLock(), threading.Event()

        def enter(name: str = second, lock: CaptureLock = lock, entered: threading.Event = entered) -> None:
            with getattr(lock, name)():
                entered.set()

        with ThreadPoolExecutor(1) as threads:
            with getattr(lock, first)():
                other = threads.submit(enter)
                assert not entered.wait(SHORT_S), f"{second} during a {first}"
            other.result(LONG_S)


def test_work_goes_on_at_once_and_may_be_nested() -> None:
    lock = CaptureLock()
    both = threading.Barrier(2)

    def work() -> None:
        with lock.work(), lock.work():
            both.wait(LONG_S)

    with ThreadPoolExecutor(2) as threads:
        for each in [threads.submit(work), threads.submit(work)]:
            each.result(LONG_S)


def test_no_cycle_is_collected_during_a_capture() -> None:
    """Cycles hold the sessions of former models, and releasing their memory would spoil the capture."""
    lock = CaptureLock()
    assert gc.isenabled()
    with lock.capture():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with lock.capture():
            assert not gc.isenabled()
        assert not gc.isenabled(), "as it was before"
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ["capture", "work"])
def test_a_failure_ends_it(name: str) -> None:
    lock = CaptureLock()
    context: Callable[[], object] = getattr(lock, name)
    with pytest.raises(ZeroDivisionError), context():  # type: ignore[attr-defined]
        raise ZeroDivisionError
    with lock.capture():
        pass
