from __future__ import annotations

import numpy as np
import pytest

from rillcast.arrays import IntArray
from rillcast.bundle.frequency import parse
from rillcast.engine.alarm_intervals import AlarmIntervals
from rillcast.errors import SettingsError
from rillcast.settings import Settings

NAMES = {1: "db-1", 2: "db-2", 3: "web", 900: "test-web"}
PATTERNS = {"db-2": "2/day", "db-*": "1/day", "test-*": "off"}


def intervals(budget: str | dict[str, str], asked: list[int] | None = None) -> AlarmIntervals:
    def ids(slots: IntArray) -> list[str]:
        if asked is not None:
            asked.extend(slots.tolist())
        return [NAMES[slot] for slot in slots.tolist()]

    return AlarmIntervals(budget, parse("1min"), ids)


def test_one_budget_is_that_of_all_streams() -> None:
    asked: list[int] = []
    assert intervals("1/day", asked).of(np.array([1, 900])).tolist() == [1_440, 1_440]
    assert intervals({"*": "off", "db-*": "1/day"}, asked).of(np.array([1, 900])).tolist() == [0, 0]
    assert asked == []


def test_the_first_pattern_that_fits_counts_and_one_a_week_without() -> None:
    asked: list[int] = []
    found = intervals(PATTERNS, asked)
    assert found.of(np.array([3, 1, 2])).tolist() == [7 * 1_440, 1_440, 720]
    assert found.of(np.array([900, 1])).tolist() == [0, 1_440]
    assert asked == [3, 1, 2, 900]
    assert intervals({**PATTERNS, "*": "0"}).of(np.array([3])).tolist() == [0]


def test_a_slot_that_gets_another_stream_is_looked_up_again() -> None:
    found = intervals(PATTERNS)
    found.of(np.array([1]))
    found.clear(np.array([1, 5_000]))
    NAMES[1] = "test-1"
    try:
        assert found.of(np.array([1])).tolist() == [0]
    finally:
        NAMES[1] = "db-1"


def test_budgets_are_checked_with_the_settings() -> None:
    assert Settings(alarms={"per_stream": PATTERNS}).alarms.per_stream == PATTERNS
    with pytest.raises((SettingsError, ValueError), match="no rate"):
        Settings(alarms={"per_stream": {"db-*": "often"}})
