"""A forecaster that takes every kind of covariate, and events for it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from rillcast.arrays import FloatArray
from rillcast.bundle.covariates import Covariate, ahead
from rillcast_training.model.forecaster import ForecasterConfig
from tests.support.forecasters import small_config

EVERY_KIND: Final = (
    Covariate("temp", "past", 10.0, 5.0),
    Covariate("promo", "known", 0.2, 0.4),
    Covariate("shop", "category", categories=("corner", "mall", "web")),
    Covariate("price", "known", 100.0, 5.0),
    Covariate("size", "static", 3.0, 2.0),
)


def config_with(covariates: tuple[Covariate, ...] = EVERY_KIND, **changes: Any) -> ForecasterConfig:
    """Return a small configuration with covariates."""
    return small_config(covariates=covariates, **changes)


def some_covariates(
    rng: np.random.Generator, events: int, horizon: int, covariates: tuple[Covariate, ...] = EVERY_KIND
) -> tuple[FloatArray, FloatArray]:
    """Return `x` and `future` of `count` events, some of it missing, some categories unknown."""
    columns = [
        rng.integers(0, len(one.categories) + 1, events) if one.kind == "category" else rng.normal(one.loc, one.scale,
        events) for one in covariates
    ]  # fmt: skip
    x = np.stack(columns, axis=1)
    future = np.stack([rng.normal(one.loc, one.scale, (events, horizon)) for one in ahead(covariates)], axis=1)
    for part in (x, future):
        part[rng.random(part.shape) < 0.1] = np.nan
    return x.astype(np.float32), future.astype(np.float32)
