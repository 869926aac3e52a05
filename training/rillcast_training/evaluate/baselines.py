"""Models of statsforecast at a backtest's origins, for comparison.

Owns: how a history becomes their input, and how their intervals become quantiles. Does not know: bundles or scores.
Every origin is a separate fit, on the newest 28 seasons before it: these models carry no state.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rillcast.errors import DataError, SettingsError
from rillcast_training.evaluate.accuracy import Floats

_MAX_SEASONS: Final = 28
_MEDIAN: Final = 0.5


def forecast(name: str, history: Sequence[Floats], *, horizon: int, levels: Sequence[float], season: int) -> Floats:
    """Return `[n, horizon, Q]` forecasts after each history.

    Args:
        name: A class of `statsforecast.models`, such as `AutoETS`, made with `season_length`. The median is its point
            forecast, the other quantiles are the ends of its intervals.
        history: `n` series by period, newest last, NaN = no observation (takes the value a season before).
        horizon: Periods ahead.
        levels: Quantile levels.
        season: Periods in a season.

    Raises:
        SettingsError: statsforecast is not installed or has no such model.
        DataError: the model failed.
    """
    model = _kind(name)(season_length=season)
    kept = _MAX_SEASONS * season
    frame = _frame([_filled(values, season)[-kept:] for values in history])
    from statsforecast import StatsForecast

    intervals = sorted({round(abs(2 * q - 1) * 100, 6) for q in levels if q != _MEDIAN})
    try:
        table: Any = StatsForecast(models=[model], freq=1, n_jobs=1).forecast(
            df=frame, h=horizon, level=intervals or None
        )
    except Exception as error:  # the models raise any error of their numerics
        raise DataError(f"baseline {name}: {type(error).__name__}: {error}") from error
    table = table.sort_values(["unique_id", "ds"])
    alias = str(model)
    columns = []
    for q in levels:
        percent = round(abs(2 * q - 1) * 100, 6)
        column = alias if q == _MEDIAN else f"{alias}-{'lo' if q < _MEDIAN else 'hi'}-{percent}"
        columns.append(table[column].to_numpy(dtype=np.float64).reshape(len(history), horizon))
    result: Floats = np.stack(columns, axis=2)
    return result


def check(name: str) -> None:
    """Check that there is such a model, before any run.

    Raises:
        SettingsError: statsforecast is not installed or has no such model.
    """
    _kind(name)


def _kind(name: str) -> Any:
    try:
        from statsforecast import models
    except ImportError as error:
        raise SettingsError(
            f"--baseline {name}: statsforecast is not installed; install rillcast[baselines]"
        ) from error
    seasonal = {n for n in models.__all__ if "season_length" in inspect.signature(getattr(models, n)).parameters}
    if name not in seasonal:
        listed = ", ".join(sorted(seasonal))
        raise SettingsError(f"--baseline {name}: statsforecast has no such model with a season; there are {listed}")
    return getattr(models, name)


def _frame(series: Sequence[Floats]) -> Any:
    import pandas as pd

    lengths = [values.size for values in series]
    return pd.DataFrame(
        {
            "unique_id": np.repeat(np.arange(len(series)), lengths),
            "ds": np.concatenate([np.arange(n) for n in lengths]),
            "y": np.concatenate(series),
        }
    )


def _filled(values: npt.NDArray[np.float64], season: int) -> Floats:
    """Return the history from its first observation on, holes filled with the season before, else the period before."""
    observed = np.flatnonzero(~np.isnan(values))
    if not observed.size:
        raise DataError("baseline: nothing was observed before an origin")
    filled = values[observed[0] :].copy()
    for period in np.flatnonzero(np.isnan(filled)):
        filled[period] = filled[period - season] if period >= season else filled[period - 1]
    return filled
