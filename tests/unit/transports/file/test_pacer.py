"""A pacer lets pass as many records as are due."""

from __future__ import annotations

from rillcast.transports.file.pacer import Pacer


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_pacer_lets_pass_what_is_due_and_no_more() -> None:
    clock = Clock()
    pacer = Pacer(4.0, clock)
    assert pacer.due(10) == 1
    pacer.passed(1)
    assert (pacer.due(10), pacer.wait_s()) == (0, 0.25)
    clock.now += 1.0
    assert (pacer.due(10), pacer.due(2), pacer.wait_s()) == (4, 2, 0.0)
    pacer.passed(4)
    assert pacer.due(10) == 0


def test_without_a_rate_everything_is_due_at_once() -> None:
    assert Pacer(0.0).due(7) == 7
