"""A thread that cannot begin, or that an error ends, does not leave a service waiting for it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.thread import _WorkItem  # the only way to its death

import pytest

from rillcast import threads
from rillcast.cli import failures
from rillcast.transports.kafka.common.watchdog import call_within


class Left:
    """Stands for the end of the process."""

    def __init__(self) -> None:
        self.codes: list[int] = []

    def __call__(self, code: int) -> None:
        self.codes.append(code)


def no_memory() -> None:
    raise MemoryError


def faulty() -> None:
    raise ValueError("a fault of ours")


@pytest.mark.parametrize(
    ("dies", "code", "said"),
    [(no_memory, 5, "out of memory: no memory is left; "), (faulty, 1, "the thread watch ended with ValueError: a f")],
)
def test_a_thread_that_an_error_ends_ends_the_process(
    dies: Callable[[], None], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    left = Left()
    with threads.ending_process(failures.tell, left):
        thread = threading.Thread(target=dies, name="watch")
        threads.start(thread)
        thread.join()
    assert left.codes == [code]
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(f"rillcast: error: {said}")
    assert (lines[0] == "Traceback (most recent call last):") == (code == 1)


def test_so_does_one_whose_end_cannot_be_told() -> None:
    def speechless(_error: BaseException) -> int:
        raise MemoryError

    left = Left()
    with threads.ending_process(speechless, left):
        thread = threading.Thread(target=no_memory)
        thread.start()
        thread.join()
    assert left.codes == [1]


def test_a_thread_that_asks_to_end_itself_ends_nothing_else() -> None:
    left = Left()
    with threads.ending_process(failures.tell, left):
        thread = threading.Thread(target=sys.exit, args=(3,))
        thread.start()
        thread.join()
    assert left.codes == []


def test_a_pool_whose_thread_dies_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its result would never come."""
    left, monkeyed = Left(), threading.Event()

    def die(_item: object) -> None:
        monkeyed.set()
        raise MemoryError

    monkeypatch.setattr(_WorkItem, "run", die)
    with threads.ending_process(failures.tell, left), ThreadPoolExecutor(1) as pool:
        pool.submit(int)
        monkeyed.wait()
        pool.shutdown(wait=True)
    assert left.codes == [5]


class Unfreed:
    def __del__(self) -> None:
        raise MemoryError


def test_an_exception_for_want_of_memory_that_nobody_can_catch_ends_the_process(
    capsys: pytest.CaptureFixture[str],
) -> None:
    left = Left()
    with threads.ending_process(failures.tell, left):
        Unfreed()
    assert left.codes == [5]
    assert "out of memory" in capsys.readouterr().err


LIMITED = """
import resource, threading
from pathlib import Path
from rillcast import threads
from rillcast.transports.kafka.common.watchdog import call_within

call_within(10, int, at_late_end=int)
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
for spare in range(0, 12 * 2**20, 2**18):
    resource.setrlimit(resource.RLIMIT_AS, (taken + spare, resource.RLIM_INFINITY))
    try:
        call_within(10, int, at_late_end=int)
    except MemoryError:
        print("refused")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of address space is that of Linux")
def test_a_thread_without_room_is_refused_whatever_is_missing() -> None:
    """`Thread.start` waits for ever where there is room for the stack alone."""
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["refused"] * 48, done.stderr[-2000:]


def test_a_watched_call_that_has_no_memory_fails_where_it_was_made() -> None:
    with pytest.raises(MemoryError):
        call_within(10, no_memory, at_late_end=lambda: None)
