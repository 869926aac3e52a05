"""The choice among models by error and cost: the Pareto front and its knee.

Owns: the choice among figures. Does not know: what was trained, how a cost was measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model with its figures; smaller is better for both.

    Attributes:
        number: Number of the model.
        loss: Its error.
        cost: Cost of an event with it, > 0.
    """

    number: int
    loss: float
    cost: float


def pareto_front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates that no other one dominates, cheapest first.

    A candidate dominates another if it is better in one respect and not worse in the other. Of candidates equal in
    both, the first stays.
    """
    front: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda one: (one.cost, one.loss, one.number)):
        if not front or candidate.loss < front[-1].loss:
            front.append(candidate)
    return front


def knee(front: Sequence[Candidate]) -> Candidate:
    """Return the point of a front after which more cost buys little: the one furthest below the line between its ends.

    Cost is taken as its logarithm, and both axes are scaled to the front's extent (Satopaa et al. 2011, Finding a
    "Kneedle" in a haystack, on two axes of different units). A front without a point below the line has no knee; then
    its most accurate point is returned.

    Args:
        front: At least one candidate, as `pareto_front` returns them.
    """
    first, last = front[0], front[-1]
    width, height = math.log(last.cost / first.cost), first.loss - last.loss
    if len(front) < 3 or width <= 0 or height <= 0:
        return last

    def below(one: Candidate) -> float:
        return 1 - math.log(one.cost / first.cost) / width - (one.loss - last.loss) / height

    best = max(front[1:-1], key=below)
    return best if below(best) > 0 else last
