"""Skill against another forecast, and its uncertainty over the given series.

Owns: the relative figures and their bootstrap. Does not know: how either forecast was made.

Skill is 1 - figure / figure of the other: 0 = no better, 1 = perfect. Its interval is the percentile bootstrap over
series (Efron & Tibshirani 1993, chapter 13). Series are drawn with replacement, the same ones for both forecasts,
because errors within a series depend on each other and those of different series less so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from rillcast.figures import Undefined, reason_of
from rillcast_training.evaluate.accuracy import Floats, SeriesScores

SAMPLES: Final = 2_000
CONFIDENCE: Final = 0.95

_Sums = Callable[[SeriesScores], tuple[Floats, Floats]]


@dataclass(frozen=True, slots=True)
class Skill:
    """A skill and the ends of its interval. One without a value is `Undefined`; the ends are, of a single series."""

    skill: float
    low: float
    high: float

    def shown(self) -> str:
        """Return the skill with its interval, or the reason why there is none."""
        if not math.isfinite(self.skill):
            return f"- ({reason_of(self.skill)})"
        if not math.isfinite(self.low):
            return f"{self.skill:+.1%} [-: {reason_of(self.low)}]"
        return f"{self.skill:+.1%} [{self.low:+.1%}, {self.high:+.1%}]"


def _means(name: str) -> _Sums:
    def parts(scores: SeriesScores) -> tuple[Floats, Floats]:
        values: Floats = getattr(scores, name)
        return np.nan_to_num(values), (~np.isnan(values)).astype(np.float64)

    return parts


# Every figure is a ratio of two sums over series.
_FIGURES: Final[dict[str, _Sums]] = {
    "mase": _means("mase"),
    "rmsse": _means("rmsse"),
    "smape": _means("smape"),
    "wql": lambda scores: (scores.loss, scores.volume),
    "crps": _means("crps"),
}


def skills(model: SeriesScores, other: SeriesScores, *, samples: int = SAMPLES, seed: int = 0) -> dict[str, Skill]:
    """Return the skill of `model` against `other` for each figure that is lower when better.

    Args:
        model: Scores of the forecast in question.
        other: Scores of the one to compare with, of the same series in the same order.
        samples: Bootstrap samples.
        seed: Seed of the draws.
    """
    count = model.targets.size
    # How often each sample holds each series: the sums of a sample are products with it.
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=samples).astype(np.float64)
    return {name: _skill(parts(model), parts(other), draws) for name, parts in _FIGURES.items()}


def _skill(model: tuple[Floats, Floats], other: tuple[Floats, Floats], draws: Floats) -> Skill:
    def of(weights: Floats) -> npt.NDArray[np.float64]:
        with np.errstate(invalid="ignore", divide="ignore"):
            ours, theirs = (weights @ over / (weights @ under) for over, under in (model, other))
            return np.asarray(1 - ours / theirs, np.float64)

    whole = float(of(np.ones((1, model[0].size)))[0])
    if not np.isfinite(whole):
        missing = Undefined(_why(model, other))
        return Skill(missing, missing, missing)
    if model[0].size < 2:
        single = Undefined("an interval takes two series")
        return Skill(whole, single, single)
    found = of(draws)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(found[np.isfinite(found)], [tail, 1 - tail])
    return Skill(whole, float(low), float(high))


def _why(model: tuple[Floats, Floats], other: tuple[Floats, Floats]) -> str:
    """Return why there is no skill."""
    if not model[1].sum() or not other[1].sum():
        return "no forecast has this figure"
    return "the other forecast has no error" + (", and this one has" if model[0].sum() else "; nor has this one")
