"""Calls that do not end in time are left behind, and cleaned up when they end at last."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from rillcast.transports.kafka.common.watchdog import TimedOut, call_within


def never() -> None:
    raise AssertionError("the call ended in time")


def test_a_call_that_ends_in_time_gives_its_result() -> None:
    assert call_within(5.0, lambda: 3, never) == 3


@pytest.mark.parametrize("kind", [ValueError, TimeoutError, KeyboardInterrupt])
def test_what_a_call_raises_comes_out_of_it(kind: type[BaseException]) -> None:
    def fail() -> None:
        raise kind("its own")

    with pytest.raises(kind, match="its own"):
        call_within(5.0, fail, never)


@pytest.mark.parametrize("fails", [True, False])
def test_a_call_that_is_left_behind_is_cleaned_up_when_it_ends_and_not_before(fails: bool) -> None:
    end, cleaned = threading.Event(), threading.Event()

    def slow() -> None:
        end.wait()
        if fails:
            raise ValueError

    with pytest.raises(TimedOut, match=r"0\.05 s"):
        call_within(0.05, slow, cleaned.set)
    assert not cleaned.is_set()
    end.set()
    assert cleaned.wait(5.0)


class Held:
    """What a caller has at hand when a call fails."""


@pytest.mark.parametrize("late", [False, True])
def test_an_error_leaves_with_all_that_its_callers_had_at_hand_without_the_garbage_collector(late: bool) -> None:
    end, ended = threading.Event(), threading.Event()

    def fail() -> None:
        if late:
            end.wait()
        raise ValueError

    def caller() -> weakref.ref[Held]:
        held = Held()
        found.append(weakref.ref(held))
        call_within(0.05 if late else 5.0, fail, ended.set)
        return found[0]

    found: list[weakref.ref[Held]] = []
    gc.disable()
    try:
        with pytest.raises(TimedOut if late else ValueError) as raised:
            caller()
        assert found[0]() is not None, "the error holds the frames that it has passed"
        del raised
        end.set()
        assert not late or ended.wait(5.0)
        assert found[0]() is None
    finally:
        gc.enable()
