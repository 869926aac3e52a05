from __future__ import annotations

import pytest

from rillcast.durability.recovery import Policy, Start, StartRules, decide
from rillcast.errors import RecoveryError
from rillcast.stores.base import Mark
from rillcast.transports.base import Assignment


def start(
    committed: int | None, mark: int | None, policy: Policy = "restore", beginning: int = 0, end: int = 100
) -> Start:
    stored = None if mark is None else Mark(0, mark, 0, 1)
    return decide("events[0]", Assignment(0, committed, beginning, end), stored, StartRules(policy, "earliest"))


def test_stored_state_is_followed_by_a_suppressed_replay() -> None:
    assert start(committed=50, mark=40) == Start(40, 50, new_life=False)


def test_stored_state_as_of_the_committed_offset_needs_no_replay() -> None:
    assert start(committed=50, mark=50) == Start(50, 50, new_life=False)


def test_without_stored_state_all_retained_events_are_replayed() -> None:
    assert start(committed=50, mark=None, beginning=10) == Start(10, 50, new_life=False)


def test_never_committed_starts_where_it_is_told() -> None:
    assert start(committed=None, mark=None, beginning=10) == Start(10, 10, new_life=False)
    latest = decide("events[0]", Assignment(0, None, 10, 100), None, StartRules("restore", "latest"))
    assert latest == Start(100, 100, new_life=False)
    added = decide("events[0]", Assignment(0, None, 0, 7, added=True), None, StartRules("restore", "latest"))
    assert added == Start(0, 0, new_life=False), "nobody has read what a new partition has already"


def test_rebuild_and_cold_pass_over_what_is_stored() -> None:
    assert start(committed=50, mark=None, policy="rebuild", beginning=10) == Start(10, 50, new_life=True)
    assert start(committed=50, mark=None, policy="cold") == Start(50, 50, new_life=True)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ({"committed": 5, "mark": 5, "beginning": 10}, "committed offset 5 is outside .*deleted before they were read"),
        ({"committed": 101, "mark": 50}, "committed offset 101 is outside .*unclean leader election"),
        ({"committed": 50, "mark": 5, "beginning": 10}, "retention took"),
        ({"committed": 50, "mark": 60}, "offsets were reset"),
        ({"committed": 50, "mark": 160}, "unclean leader election.*, or the topic was recreated"),
        ({"committed": None, "mark": 40}, "no committed offset"),
    ],
)
def test_state_and_offsets_that_do_not_belong_together_are_refused(case: dict[str, int], words: str) -> None:
    with pytest.raises(RecoveryError, match=words) as refused:
        start(**case)  # type: ignore[arg-type]
    assert "events[0]" in str(refused.value)
    assert "rebuild" in str(refused.value), "the way out is named"
