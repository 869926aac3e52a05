"""A candidate compared with the live model: the same events, the same origins, one verdict.

Owns: the comparison, and when the candidate may take over. Does not know: registries, files, how a forecast is scored
(`rillcast_training.evaluate.accuracy`) or the choice of origins (`rillcast_training.evaluate.backtest`).

Both go through the serving engine. They are scored on the steps and quantile levels that both forecast, and with one
scale per series, so that figures differ only by the forecasts. The scored data must not have been trained on:
`rillcast_training.data.series.newest` splits a data set where `rillcast train --hold-out` did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from rillcast.bundle.bundle import Bundle
from rillcast.engine.batcher import Batching
from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import DataError
from rillcast_training.data.series import Series
from rillcast_training.evaluate.accuracy import Accuracy, SeriesScores, score_series
from rillcast_training.evaluate.backtest import Backtest, backtest, check_trained_for
from rillcast_training.evaluate.skill import Skill, skills

_BATCH_ROWS: Final = 1_024


@dataclass(frozen=True, slots=True)
class Tolerances:
    """Limits within which a candidate may be worse.

    Attributes:
        wql: Share by which its WQL may exceed the live model's; 0.01 = 1 %.
        coverage: Difference that is allowed between the coverage of its outer interval and the nominal one.
    """

    wql: float = 0.0
    coverage: float = 0.05


@dataclass(frozen=True, slots=True)
class Comparison:
    """Result of a comparison; `reasons` is empty exactly if the candidate may be promoted."""

    candidate: Accuracy
    live: Accuracy
    skill: dict[str, Skill]
    levels: tuple[float, ...]
    steps: int
    origins: int
    reasons: tuple[str, ...]

    @property
    def may_be_promoted(self) -> bool:
        """Whether the candidate is good enough."""
        return not self.reasons


def compare(candidate: Backtest, live: Backtest, tolerances: Tolerances) -> Comparison:
    """Compare two backtests of the same data and origins.

    Raises:
        DataError: they are not of the same origins, or share no median.
    """
    same = candidate.unique_ids == live.unique_ids and np.array_equal(candidate.origins_ms, live.origins_ms)
    if not same or not np.array_equal(candidate.actual, live.actual, equal_nan=True):
        raise DataError("the two backtests are not of the same origins and observations; give both the same data")
    levels = tuple(level for level in candidate.levels if level in live.levels)
    ours, theirs = (_scores(one, levels, live) for one in (candidate, live))
    candidate_figures, live_figures = ours.accuracy(levels), theirs.accuracy(levels)
    return Comparison(
        candidate=candidate_figures,
        live=live_figures,
        skill=skills(ours, theirs),
        levels=levels,
        steps=candidate.actual.shape[1],
        origins=len(candidate.unique_ids),
        reasons=tuple(_reasons(candidate_figures, live_figures, tolerances)),
    )


def backtest_both(
    candidate: Bundle,
    live: Bundle,
    on: Device,
    load: Callable[[Bundle], tuple[Sequence[Series], Sequence[Series]]],
    *,
    test_fraction: float = 0.2,
    stride: int | None = None,
    calibrate: bool = True,
    bounds: bool = True,
) -> tuple[Backtest, Backtest]:
    """Run both through the serving engine.

    Args:
        candidate: Bundle in question.
        live: Bundle that serves now.
        on: Device to run on.
        load: Returns the series that a bundle sees before it is scored, and those it is scored on, with its covariates.
        test_fraction: Share of each series that is scored if no data come before.
        stride: Periods between origins; None = the steps that are scored.
        calibrate: Whether forecasts are published with the online correction, as in the settings.
        bounds: Whether they keep to the values that a stream can have, as in the settings.

    Raises:
        DataError: the two have different frequencies, or there is nothing to score.
    """
    ours, theirs = candidate.metadata, live.metadata
    if ours.frequency != theirs.frequency:
        raise DataError(
            f"candidate {ours.name} has frequency {ours.freq}, live model {theirs.name} has {theirs.freq}; "
            f"compare models of one frequency"
        )
    steps = min(ours.horizon, theirs.horizon)
    results = []
    for bundle in (candidate, live):
        check_trained_for(bundle)
        seen, scored = load(bundle)
        engine = StepEngine(bundle, on, batching=Batching(_BATCH_ROWS), calibrate=calibrate, bounds=bounds)
        results.append(backtest(engine, scored, train=seen, test_fraction=test_fraction, stride=stride, steps=steps))
    return results[0], results[1]


def _scores(result: Backtest, levels: Sequence[float], live: Backtest) -> SeriesScores:
    chosen = [result.levels.index(level) for level in levels]
    forecast = result.forecast[..., chosen].astype(np.float64)
    return score_series(live.actual, forecast, levels, live.series, live.scale, live.squared_scale)


def _reasons(candidate: Accuracy, live: Accuracy, tolerances: Tolerances) -> Iterator[str]:
    """Yield the reasons against promotion; a NaN is never good enough."""
    limit = live.wql * (1 + tolerances.wql)
    if not candidate.wql <= limit:
        yield (
            f"WQL {candidate.wql:.5g} is above {limit:.5g}: the live model has {live.wql:.5g}, and "
            f"{tolerances.wql:.1%} more is tolerated"
        )
    off = abs(candidate.coverage - candidate.nominal_coverage)
    if not off <= tolerances.coverage:
        yield (
            f"coverage {candidate.coverage:.3f} is off nominal {candidate.nominal_coverage:.3f} by {off:.3f}, "
            f"tolerated are {tolerances.coverage:.3f}"
        )
