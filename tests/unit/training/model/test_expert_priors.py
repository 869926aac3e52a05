"""A stream's prior is the table's nearest, and the table is what the experts did on synthetic series."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rillcast_training.model.experts import priors
from rillcast_training.model.experts.config import ExpertsConfig, default_experts
from rillcast_training.model.experts.defaults import default_horizon, default_seasons
from rillcast_training.model.experts.priors import usual_prior
from rillcast_training.research.expert_priors import ENTRIES, Entry, measure

TABLE = [
    {
        "seasons": [24],
        "anchors": [1, 4, 16],
        "growth": [1.0, 2.0, 3.0],
        "experts": [
            {"base": "level", "decay": 0.0, "relative": [1.0, 1.1, 1.2]},
            {"base": "naive0", "decay": 0.9, "relative": [2.0, 1.0, 0.5]},
            {"base": "naive0", "decay": 1.0, "relative": [3.0, 3.0, 3.0]},
        ],
    },
    {"seasons": [4], "anchors": [1], "growth": [1.0], "experts": []},
    {"seasons": [24, 168], "anchors": [1], "growth": [1.0], "experts": []},
]


def test_the_nearest_entry_expert_and_horizon_are_taken() -> None:
    prior = usual_prior((20,), [("level", 0.0), ("naive0", 0.92), ("holt", 0.0)], [1, 2, 16, 48], TABLE)
    assert prior.growth == (1.0, 1.5, 3.0, 3.0)  # 2 lies half-way between 1 and 4 by ratio
    assert [row[0] for row in prior.relative] == [1.0, 1.05, 1.2, 1.2]
    assert [row[1] for row in prior.relative] == [2.0, 1.5, 0.5, 0.5]
    assert [row[2] for row in prior.relative] == [1.5] * 4  # not in the table


@pytest.mark.parametrize(
    "freq", ["10s", "1min", "5min", "7min", "10min", "15min", "30min", "1h", "1d", "1w", "1mo", "3mo", "12mo"]
)
def test_the_shipped_table_knows_every_usual_expert(freq: str) -> None:
    config = ExpertsConfig(freq, default_horizon(freq), default_seasons(freq))
    relative, growth = np.array(config.prior.relative), np.array(config.prior.growth)
    assert relative.shape == (len(config.anchors), len(config.experts))
    assert ((relative >= 0.15) & (relative <= 4)).all()
    assert growth[0] == 1
    assert (np.diff(growth) >= 0).all()


def test_a_day_is_expected_of_hours_and_no_year_of_weeks() -> None:
    """What the generator and its series without a season say: the day's shape pays, a year seldom does."""

    def of(freq: str, base: str) -> float:
        config = ExpertsConfig(freq, default_horizon(freq), default_seasons(freq))
        return config.prior.relative[0][config.experts.index((base, 1.0))]

    assert of("1h", "naive0") < of("1w", "naive0")


def test_an_entry_is_measured_as_the_table_has_it() -> None:
    entry = Entry("1h", (24,), (30, 60), 24)
    found = measure(entry)
    assert found == measure(entry)
    assert found["seasons"] == [24]
    assert [(one["base"], one["decay"]) for one in found["experts"]] == list(default_experts((24,)))
    relative = np.array([one["relative"] for one in found["experts"]])
    assert relative.shape == (len(found["experts"]), len(found["anchors"]))
    assert ((relative >= 0.15) & (relative <= 4)).all()
    assert relative[:2].mean() == pytest.approx(1, abs=0.1)  # the level's experts are what the others are compared with


def test_the_shipped_table_has_every_entry() -> None:
    table = json.loads(Path(priors.__file__).with_name(priors.FILE).read_text())
    assert {(one["freq"], *one["seasons"]) for one in table} == {(one.freq, *one.seasons) for one in ENTRIES}
