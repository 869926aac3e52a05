"""The synthetic generator: seeded, as varied as it says, and never degenerate."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from rillcast.errors import SettingsError
from rillcast_training.data.synthetic import components, kernels
from rillcast_training.data.synthetic.cycles import cycles
from rillcast_training.data.synthetic.families import FAMILIES, Rhythm
from rillcast_training.data.synthetic.generator import Recipe, synthesize
from rillcast_training.model.features import default_seasons

HOURLY = Rhythm(24, (24, 168), days=True)
FREQUENCIES = ("1s", "1min", "5min", "30min", "1h", "1d", "1w", "1mo", "3mo")


def test_a_recipe_gives_the_same_series_again_and_a_larger_one_begins_with_them() -> None:
    few, many = (synthesize(Recipe(freq="1h", series=count, length=100, seed=3)) for count in (3, 6))
    for a, b in zip(few, many, strict=False):
        assert a.unique_id == b.unique_id
        np.testing.assert_array_equal(a.periods, b.periods)
        np.testing.assert_array_equal(a.y, b.y)


def test_another_seed_gives_other_series() -> None:
    a, b = (synthesize(Recipe(freq="1h", series=1, length=100, seed=seed))[0] for seed in (0, 1))
    assert not np.array_equal(a.y, b.y)


@pytest.mark.parametrize("freq", FREQUENCIES)
def test_every_series_of_every_frequency_lives(freq: str) -> None:
    season = default_seasons(freq)[0]
    for series in synthesize(Recipe(freq=freq, series=40, missing=0)):
        assert len(series.y) == Recipe(freq=freq).periods
        assert np.isfinite(series.y).all()
        assert (np.diff(series.periods) == 1).all()
        assert (series.y[season:] != series.y[:-season]).mean() > 0.01


def test_holes_are_missing_values_or_missing_periods() -> None:
    found = synthesize(Recipe(freq="1h", series=60, length=400, missing=1))
    assert any(np.isnan(series.y).any() for series in found)
    assert any((np.diff(series.periods) > 1).any() for series in found)
    assert all(np.isfinite(series.y[0]) and (np.diff(series.periods) >= 1).all() for series in found)


def test_families_come_as_often_as_they_say() -> None:
    assert sum(share for _, share in FAMILIES.values()) == pytest.approx(1)
    kinds = Counter(s.unique_id.split("/")[-1] for s in synthesize(Recipe(freq="1h", series=300, length=100)))
    assert set(kinds) == {*FAMILIES, "mixture"}
    assert 40 < kinds["mixture"] < 120
    assert kinds["seasonal"] > kinds["intermittent"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rhythm", [HOURLY, Rhythm(7, (7, 365), days=False), Rhythm(1, (), days=False)])
def test_a_family_is_finite_for_every_rhythm(family: str, rhythm: Rhythm) -> None:
    make, _ = FAMILIES[family]
    for seed in range(20):
        values = make(np.random.default_rng(seed), 300, rhythm)
        assert values.shape == (300,)
        assert np.isfinite(values).all()


def test_counts_are_whole_and_many_are_zero() -> None:
    drawn = [FAMILIES["intermittent"][0](np.random.default_rng(seed), 300, HOURLY) for seed in range(20)]
    assert all((values == np.round(values)).all() and (values >= 0).all() for values in drawn)
    assert np.mean(np.concatenate(drawn) == 0) > 0.1


def test_cycles_are_those_of_the_calendar() -> None:
    assert cycles("1h") == (24, 168)
    assert cycles("5min") == (12, 288, 2016)
    assert cycles("1d") == (7, 365)
    assert cycles("1w") == (52,)


def test_samples_of_a_process_have_its_covariance() -> None:
    size, width, draws = 128, 6.0, 4_000
    lags = np.minimum(np.arange(size), size - np.arange(size))
    rng = np.random.default_rng(5)
    samples = np.stack([kernels.draw(rng, np.exp(-lags / width), 40) for _ in range(draws)])
    found = samples.T @ samples / draws
    expected = np.exp(-np.abs(np.subtract.outer(np.arange(40), np.arange(40))) / width)
    assert np.abs(found - expected).max() < 5 / np.sqrt(draws)


def test_a_periodic_kernel_repeats_itself_exactly() -> None:
    size = 96
    lags = np.minimum(np.arange(size), size - np.arange(size))
    covariance = np.exp(-2 * np.sin(np.pi * lags / 24) ** 2)
    values = kernels.draw(np.random.default_rng(0), covariance, 48)
    np.testing.assert_allclose(values[:24], values[24:], atol=1e-6)


@pytest.mark.parametrize("memory", [0.3, 0.9, 0.999])
def test_an_autoregression_has_unit_size_and_its_memory(memory: float) -> None:
    values = components.autoregression(np.random.default_rng(1), 200_000, memory)
    assert values.std() == pytest.approx(1, abs=0.2)
    assert np.corrcoef(values[1:], values[:-1])[0, 1] == pytest.approx(memory, abs=0.01)


def test_a_smooth_curve_has_unit_size() -> None:
    assert components.smooth(np.random.default_rng(2), 300_000, 30.0).std() == pytest.approx(1, abs=0.1)


def test_series_without_a_season_repeat_nothing_a_day_later() -> None:
    """Among hours, the value a day ago is nearer than that of half a day ago only where there is a day."""

    def daily(seasonless: float) -> float:
        made = synthesize(Recipe(freq="1h", series=60, length=400, missing=0, seasonless=seasonless))
        near = [np.abs(s.y[24:] - s.y[:-24]).mean() < 0.7 * np.abs(s.y[12:] - s.y[:-12]).mean() for s in made]
        return float(np.mean(near))

    assert daily(0.0) > 0.3
    assert daily(1.0) < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freq": "1 fortnight"}, "fortnight"),
        ({"series": 0}, "0 series"),
        ({"length": 3}, "of 3 periods"),
        ({"missing": 1.5}, "missing is 1.5"),
        ({"seasonless": -0.1}, "seasonless is -0.1"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Recipe(**({"freq": "1h"} | options))  # type: ignore[arg-type]
