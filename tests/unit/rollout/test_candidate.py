"""The states of a roll-out: every legal transition is taken, every other one is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rillcast.errors import IllegalTransitionError
from rillcast.rollout.candidate import LEGAL, Candidate, CandidateState
from rillcast.rollout.pacing import Pacing

S = CandidateState


class Following:
    """As much of a follower as a candidate calls."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def follow(candidate: Candidate) -> None:
    """Open the model, or go on after a commit: the two ways to FOLLOWING."""
    if candidate.state is S.HANDING_OVER:
        candidate.go_on()
    else:
        anything: Any = Following()
        candidate.follow(anything)


WAYS: dict[CandidateState, list[CandidateState]] = {
    S.PREPARING: [],
    S.FOLLOWING: [S.FOLLOWING],
    S.HANDING_OVER: [S.FOLLOWING, S.HANDING_OVER],
    S.FAILED: [S.FAILED],
    S.REFUSED: [S.REFUSED],
    S.ENDED: [S.ENDED],
}
CALLS: dict[CandidateState, Callable[[Candidate], None]] = {
    S.PREPARING: Candidate.retry,
    S.FOLLOWING: follow,
    S.HANDING_OVER: Candidate.hand_over,
    S.FAILED: lambda candidate: candidate.fail(30.0),
    S.REFUSED: Candidate.refuse,
    S.ENDED: Candidate.end,
}


def candidate_in(state: CandidateState) -> Candidate:
    candidate = Candidate("0123", Pacing(10, lambda: 0.0))
    for each in WAYS[state]:
        CALLS[each](candidate)
    assert candidate.state is state
    return candidate


@pytest.mark.parametrize(
    ("before", "after"), [(before, after) for before in LEGAL for after in sorted(LEGAL[before], key=str)]
)
def test_every_legal_transition_is_taken(before: CandidateState, after: CandidateState) -> None:
    candidate = candidate_in(before)
    follower: Any = candidate.follower
    CALLS[after](candidate)
    assert candidate.state is after
    if after in (S.FOLLOWING, S.HANDING_OVER):
        assert candidate.follower is not None
    else:
        assert candidate.follower is None, "only a model that follows is open"
        assert follower is None or follower.closed == 1


@pytest.mark.parametrize(
    ("before", "after"), [(before, after) for before in S for after in S if after not in LEGAL[before]]
)
def test_every_other_transition_is_refused(before: CandidateState, after: CandidateState) -> None:
    candidate = candidate_in(before)
    follower = candidate.follower
    with pytest.raises(IllegalTransitionError, match=f"model 0123: .* from {before.value} to {after.value}"):
        CALLS[after](candidate)
    assert candidate.state is before
    assert candidate.follower is follower


def test_every_state_has_its_transitions_and_only_ended_is_terminal() -> None:
    assert set(LEGAL) == set(S)
    assert [state for state, after in LEGAL.items() if not after] == [S.ENDED]
    reached = {S.PREPARING}
    while more := {after for before in reached for after in LEGAL[before]} - reached:
        reached |= more
    assert reached == set(S)
