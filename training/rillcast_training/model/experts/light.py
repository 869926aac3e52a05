"""The light form: a mixture whose state takes at most 2,560 bytes per stream.

Owns: what it leaves out, and which of its forms fits. Does not know: what a bundle or a command is.

It has fewer experts, none of them the sum of two seasons, so that no season's part is kept; fewer anchors; fewer
forecasts that are judged; fewer bins of a long season. The first form that fits is taken: short seasons leave room
for more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Final

from rillcast_training.model.experts.config import MAX_BINS, ExpertsConfig, default_experts
from rillcast_training.model.experts.forecaster import ExpertForecaster
from rillcast_training.model.experts.priors import Prior

MAX_BYTES: Final = 2_560
_BINS: Final = (MAX_BINS, 84, 68, 56, 42, 34, 28, 24)


def light(config: ExpertsConfig) -> ExpertsConfig:
    """Return the light form of a mixture: its frequency, horizon, seasons, quantiles and constants stay.

    Raises:
        ValueError: no form fits, because the horizon, the seasons or the quantiles are too many.
    """
    least = 0
    for form in _forms(config):
        least = sum(spec.row_bytes for spec in ExpertForecaster(form).state_specs())
        if least <= MAX_BYTES:
            return form
    raise ValueError(f"the light form would take {least:,} bytes of state per stream, and {MAX_BYTES:,} are the most")


def _forms(config: ExpertsConfig) -> Iterator[ExpertsConfig]:
    """Return the forms, from the one that loses least on."""
    yield config
    horizon = config.horizon
    # No half of the horizon: two days ahead that is one day, where yesterday's value and the last one are the same.
    quarter, most = max(1, round(horizon / 4)), max(1, round(3 * horizon / 4))
    experts, stride = _experts(config.seasons), _stride(quarter, config.seasons)
    for anchors in ((1, quarter, most, horizon), (1, quarter, horizon)):
        few = tuple(sorted(set(anchors)))
        for bins in _BINS:
            yield replace(config, experts=experts, anchors=few, stride=stride, bins=bins, prior=Prior())


def _experts(seasons: tuple[int, ...]) -> tuple[tuple[str, float], ...]:
    """Return the experts that are kept of the usual ones."""
    slow = [round(math.exp(-1 / season), 4) for season in seasons]
    kept = {"naive0": {0.9, slow[0], 1.0}, "phase0": {0.0, 0.9}, f"phase{len(seasons) - 1}": {0.0, 0.9, slow[-1]}}
    left_out = {"double", "naive1"}
    return tuple(
        (base, decay)
        for base, decay in default_experts(seasons)
        if base not in left_out and decay in kept.get(base, {decay})
    )


def _stride(least: int, seasons: tuple[int, ...]) -> int:
    """Return the next stride that meets all phases of each season in turn.

    Forecasts from one or two hours of the day alone would be judged otherwise.
    """
    return next(stride for stride in count(least) if all(math.gcd(stride, season) == 1 for season in seasons))
