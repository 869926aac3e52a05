"""The states of a partition: every legal transition is taken, every other one is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rillcast.durability.partition import LEGAL, Partition, PartitionState
from rillcast.errors import IllegalTransitionError
from rillcast.transports.base import Assignment

S = PartitionState

# A way to each state, and the call that asks for each.
WAYS: dict[PartitionState, list[PartitionState]] = {
    S.LOADING: [],
    S.REPLAYING: [S.REPLAYING],
    S.LIVE: [S.REPLAYING, S.LIVE],
    S.LEAVING: [S.LEAVING],
}
CALLS: dict[PartitionState, Callable[[Partition], None]] = {
    S.REPLAYING: lambda partition: partition.replay(50),
    S.LIVE: Partition.go_live,
    S.LEAVING: Partition.leave,
}


def partition_in(state: PartitionState) -> Partition:
    partition = Partition(Assignment(3, 50, 0, 100), 0.0)
    for each in WAYS[state]:
        CALLS[each](partition)
    assert partition.state is state
    return partition


@pytest.mark.parametrize(
    ("before", "after"), [(before, after) for before in LEGAL for after in sorted(LEGAL[before], key=str)]
)
def test_every_legal_transition_is_taken(before: PartitionState, after: PartitionState) -> None:
    partition = partition_in(before)
    CALLS[after](partition)
    assert partition.state is after


@pytest.mark.parametrize(
    ("before", "after"), [(before, after) for before in S for after in CALLS if after not in LEGAL[before]]
)
def test_every_other_transition_is_refused(before: PartitionState, after: PartitionState) -> None:
    partition = partition_in(before)
    with pytest.raises(IllegalTransitionError, match=f"partition 3: .* from {before.value} to {after.value}"):
        CALLS[after](partition)
    assert partition.state is before
    assert partition.live_from == (50 if before in (S.REPLAYING, S.LIVE) else 0)


def test_every_state_has_its_transitions_and_only_leaving_is_terminal() -> None:
    assert set(LEGAL) == set(S)
    assert [state for state, after in LEGAL.items() if not after] == [S.LEAVING]
