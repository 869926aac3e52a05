"""Chooses the partitions that change their model with the next commit.

A model that is close to the position at which a partition is served is brought there while the loop stands still, for
at most 250 ms. If that was too short, the loop goes on for at least as long, and a later commit tries again.

Owns: when it is tried, and which partitions come together. Does not know: what a commit carries, or what follows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rillcast.rollout.candidate import Candidate
from rillcast.rollout.member import Member
from rillcast.serving.served_model import ServedModel

_CLOSE_SLICES: Final = 4  # a model this many slices of events behind, or fewer, is brought to the position at once
_CLOSING_S: Final = 0.25
_CLOSING_ROUNDS: Final = 40


@dataclass(frozen=True, slots=True)
class HandoverLimits:
    """How often, and how much at once.

    Attributes:
        interval_s: Shortest time in seconds between two attempts.
        pages: Most pages that a commit hands over; it always hands over at least one partition.
    """

    interval_s: float
    pages: int


class Handover:
    """Used from one thread, while the states of served models stand still."""

    def __init__(self, member: Member, limits: HandoverLimits, clock: Callable[[], float]) -> None:
        """Let the first attempt be due at once.

        Args:
            member: What this member serves.
            limits: How often, and how much at once.
            clock: Monotonic seconds.
        """
        self._member = member
        self._limits = limits
        self._clock = clock
        self._attempt_at = clock()

    def due(self, candidate: Candidate | None) -> bool:
        """Return whether a partition may be about to change its model."""
        return self._clock() >= self._attempt_at and candidate is not None and bool(self._close_by(candidate))

    def choose(self, candidate: Candidate) -> dict[int, ServedModel]:
        """Step a candidate to where partitions are served, and return those where it arrived, with its model.

        Raises:
            RillcastError: The reader or the model failed.
        """
        started = self._clock()
        self._attempt_at = started + self._limits.interval_s
        close_by, follower = self._close_by(candidate), candidate.follower
        if not close_by or follower is None:
            return {}
        positions = self._member.positions(follower.partitions)
        for _ in range(_CLOSING_ROUNDS):
            lags = follower.lags(positions)
            if not any(lags[number] for number in close_by) or self._clock() >= started + _CLOSING_S:
                break
            follower.advance(positions, candidate.pacing.slice_events)
        self._attempt_at = max(self._attempt_at, 2 * self._clock() - started)
        chosen: dict[int, ServedModel] = {}
        lags, pages = follower.lags(positions), 0
        for number in close_by:
            if lags[number] == 0 and (not chosen or pages < self._limits.pages):
                chosen[number] = follower.model
                pages += len(follower.model.residents.changed(number))
        return chosen

    def try_next(self) -> None:
        """Let the next attempt be due at once: the last one succeeded."""
        self._attempt_at = self._clock()

    def _close_by(self, candidate: Candidate) -> list[int]:
        """Return the partitions whose coming model is nearly where they are served."""
        follower = candidate.follower
        if follower is None:
            return []
        enough = _CLOSE_SLICES * candidate.pacing.slice_events
        live = self._member.partitions.live
        lags = sorted(follower.lags(self._member.positions(follower.partitions)).items())
        return [number for number, lag in lags if lag is not None and lag <= enough and number in live]
