"""While a service runs, cycles are collected more seldom, but they are; afterwards all is as it was."""

from __future__ import annotations

import gc
import weakref

from rillcast.service.garbage_collection import YOUNG_OBJECTS, sparing


class Cycle:
    def __init__(self) -> None:
        self.me = self


def test_cycles_are_still_collected() -> None:
    with sparing():
        gone = weakref.ref(Cycle())
        assert gone() is not None
        kept = [[number] for number in range(2 * YOUNG_OBJECTS)]
        assert gone() is None
    assert len(kept) == 2 * YOUNG_OBJECTS


def test_everything_is_put_back() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    with sparing():
        assert gc.get_threshold() != before
        assert gc.get_freeze_count() > frozen
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() <= frozen
