from __future__ import annotations

import math

import numpy as np
import pytest

from rillcast.arrays import AnyArray
from rillcast_training.evaluate.alarm_scores import PROFILES, WEEK_MS, Labelled, nab_score, score_alarms

HOUR = 3_600_000


def series(opened: list[int], windows: list[tuple[int, int]], strengths: list[float] | None = None) -> Labelled:
    """Two weeks of hours, of which the first 50 are probation."""
    times: AnyArray = np.arange(336, dtype=np.int64) * HOUR
    spans = [(first * HOUR, last * HOUR) for first, last in windows]
    strong = np.ones(len(opened)) if strengths is None else np.array(strengths)
    return Labelled(times, spans, np.array(opened, np.int64) * HOUR, strong)


def test_every_window_at_its_start_and_nothing_else_is_100() -> None:
    one = series([100, 200], [(100, 119), (200, 219)])
    for profile in PROFILES.values():
        assert nab_score({"a": one}, profile)[0] == pytest.approx(100)


def test_silence_and_alarms_in_the_probation_are_0() -> None:
    for opened in ([], [3, 49]):
        assert nab_score({"a": series(opened, [(100, 119)])}, PROFILES["standard"])[0] == 0


def test_a_detection_is_worth_less_towards_the_end_and_only_the_first_counts() -> None:
    half = (2 / (1 + math.exp(-5 * 0.5)) - 1) / (2 / (1 + math.exp(-5)) - 1)
    found, _ = nab_score({"a": series([110, 112, 119], [(100, 119)])}, PROFILES["standard"])
    assert found == pytest.approx(100 * (half + 1) / 2)


@pytest.mark.parametrize(("name", "weight"), [("standard", 0.11), ("low_fp", 0.22)])
def test_a_false_detection_far_from_a_window_costs_its_weight(name: str, weight: float) -> None:
    found, _ = nab_score({"a": series([60, 100], [(100, 119)])}, PROFILES[name], threshold=1)
    assert found == pytest.approx(100 * (2 - weight) / 2)


def test_a_threshold_may_be_chosen_for_all_series_or_be_given() -> None:
    both = {
        "a": series([60, 100], [(100, 119)], [1.0, 5.0]),
        "b": series([70, 80, 200], [(200, 219)], [1.0, 2.0, 5.0]),
    }
    score, threshold = nab_score(both, PROFILES["standard"])
    assert score == pytest.approx(100)
    assert threshold == 5.0
    assert nab_score(both, PROFILES["standard"], threshold=1.0)[0] == pytest.approx(100 * (4 - 3 * 0.11) / 4)


def test_the_other_figures_count_all_alarms() -> None:
    one = series([10, 60, 105, 110], [(100, 119), (200, 219)])
    scores = score_alarms({"a": one})
    assert (scores.windows, scores.alarms) == (2, 3)
    assert scores.precision == pytest.approx(2 / 3)
    assert scores.recall == 0.5
    assert scores.delay == pytest.approx(5 / 19)
    assert scores.per_week == pytest.approx(4 / (335 * HOUR / WEEK_MS))
    assert "NAB standard" in scores.table()


def test_figures_without_a_value_say_why() -> None:
    scores = score_alarms({"a": series([], [])})
    assert math.isnan(scores.precision)
    assert "no alarm opened" in scores.table()
    assert "no window is labelled" in scores.table()
