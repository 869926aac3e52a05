"""Which model to take when errors and costs both count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillcast_training.fit.pareto import Candidate, knee, pareto_front

figures = st.floats(0.01, 100)
candidates = st.lists(st.tuples(figures, figures), min_size=1, max_size=30).map(
    lambda pairs: [Candidate(number, loss, cost) for number, (loss, cost) in enumerate(pairs)]
)


@given(candidates)
def test_nothing_beats_a_point_of_the_front_and_something_beats_or_equals_every_other(found: list[Candidate]) -> None:
    front = pareto_front(found)
    for one in found:
        beaten = any(f.loss <= one.loss and f.cost <= one.cost for f in front if f != one)
        strictly = any(
            o.loss <= one.loss and o.cost <= one.cost and (o.loss, o.cost) != (one.loss, one.cost) for o in found
        )
        assert not (one in front and strictly)
        assert one in front or beaten


@given(candidates)
def test_the_front_gets_dearer_and_better(found: list[Candidate]) -> None:
    front = pareto_front(found)
    assert [one.cost for one in front] == sorted({one.cost for one in front})
    assert [one.loss for one in front] == sorted({one.loss for one in front}, reverse=True)
    assert knee(front) in front


def test_the_knee_is_where_cost_stops_to_pay() -> None:
    front = [Candidate(0, 1.0, 1), Candidate(1, 0.6, 2), Candidate(2, 0.58, 8), Candidate(3, 0.57, 100)]
    assert knee(front).number == 1


@pytest.mark.parametrize(
    "front",
    [
        [Candidate(0, 1.0, 1)],
        [Candidate(0, 1.0, 1), Candidate(1, 0.5, 2)],
        [Candidate(0, 1.0, 1), Candidate(1, 0.99, 10), Candidate(2, 0.5, 100)],  # bends the other way
    ],
)
def test_without_a_knee_the_most_accurate_is_taken(front: list[Candidate]) -> None:
    assert knee(front) == front[-1]
