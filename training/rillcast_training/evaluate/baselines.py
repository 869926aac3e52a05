"""Models of statsforecast at a backtest's origins, for comparison.

Owns: the spelling of a model, how a history becomes its input, and how its intervals become quantiles. Does not know:
bundles or scores. Every origin is a separate fit, on the newest 28 seasons before it: these models carry no state.

A model without intervals of its own gets conformal ones of statsforecast, from its errors in up to ten windows of the
horizon's length (Vovk, Gammerman & Shafer 2005, Algorithmic learning in a random world).
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rillcast.errors import DataError, SettingsError
from rillcast_training.evaluate.accuracy import Floats

_MAX_SEASONS: Final = 28
_MAX_WINDOWS: Final = 10
_MEDIAN: Final = 0.5
_SEASON: Final = "season_length"
_INTERVALS: Final = "prediction_intervals"


def forecast(text: str, history: Sequence[Floats], *, horizon: int, levels: Sequence[float], season: int) -> Floats:
    """Return `[n, horizon, Q]` forecasts after each history.

    Args:
        text: A class of `statsforecast.models` with its arguments, see `check`. The median is its point forecast, the
            other quantiles are the ends of its intervals.
        history: `n` series by period, newest last, NaN = no observation (takes the value a season before).
        horizon: Periods ahead.
        levels: Quantile levels.
        season: Periods in a season, for models that take one.

    Raises:
        SettingsError: statsforecast is not installed, or has no such model, or one with other arguments.
        DataError: the model failed.
    """
    kind, arguments = _parsed(text)
    if _SEASON in inspect.signature(kind).parameters:
        arguments = {_SEASON: season} | arguments
    series = [_filled(values, season)[-_MAX_SEASONS * season :] for values in history]
    intervals = sorted({round(abs(2 * q - 1) * 100, 6) for q in levels if q != _MEDIAN})
    try:
        alias, table = _fitted(kind, arguments, series, horizon, intervals)
    except DataError:
        raise
    except Exception as error:  # the models raise any error of their numerics
        raise DataError(f"baseline {text}: {type(error).__name__}: {_first_line(error)}") from error
    table = table.sort_values(["unique_id", "ds"])
    columns = []
    for q in levels:
        percent = round(abs(2 * q - 1) * 100, 6)
        column = alias if q == _MEDIAN else f"{alias}-{'lo' if q < _MEDIAN else 'hi'}-{percent}"
        columns.append(table[column].to_numpy(dtype=np.float64).reshape(len(history), horizon))
    result: Floats = np.stack(columns, axis=2)
    if not np.isfinite(result).all():
        raise DataError(f"baseline {text}: forecasts values that are not finite")
    return result


def check(text: str) -> None:
    """Check that there is such a model, before any run.

    Args:
        text: Name of a class of `statsforecast.models`, and arguments after a colon: `AutoETS`,
            `WindowAverage:window_size=24`, `SimpleExponentialSmoothing:alpha=0.3`.

    Raises:
        SettingsError: statsforecast is not installed, or has no such model, or one with other arguments.
    """
    _parsed(text)


def _parsed(text: str) -> tuple[Any, dict[str, Any]]:
    """Return the class and its arguments."""
    try:
        from statsforecast import models
    except ImportError as error:
        raise SettingsError(
            f"--baseline {text}: statsforecast is not installed; install rillcast[baselines]"
        ) from error
    name, _, listed = text.partition(":")
    if name not in models.__all__:
        raise SettingsError(
            f"--baseline {text}: statsforecast has no such model; there are {', '.join(sorted(models.__all__))}"
        )
    kind = getattr(models, name)
    arguments: dict[str, Any] = {}
    for part in listed.split(",") if listed else ():
        key, equals, value = part.partition("=")
        try:
            arguments[key.strip()] = ast.literal_eval(value) if equals else inspect.Parameter.empty
        except (ValueError, SyntaxError):
            arguments[key.strip()] = value
    parameters = inspect.signature(kind).parameters
    wrong = [key for key, value in arguments.items() if key not in parameters or value is inspect.Parameter.empty]
    needed = [key for key, one in parameters.items() if one.default is one.empty and key != _SEASON]
    if wrong or not set(needed) <= set(arguments):
        takes = f"it needs {', '.join(f'{key}=...' for key in needed)}" if needed else "it needs no arguments"
        raise SettingsError(
            f"--baseline {text}: expected {name} or {name}:ARGUMENT=VALUE,... with arguments of "
            f"{', '.join(parameters)}; {takes}"
        )
    return kind, arguments


def _fitted(
    kind: Any, arguments: dict[str, Any], series: Sequence[Floats], horizon: int, intervals: list[float]
) -> tuple[str, Any]:
    """Return the model's name in the table, and the table of its forecasts."""
    from statsforecast import StatsForecast
    from statsforecast.utils import ConformalIntervals

    def run(given: dict[str, Any]) -> tuple[str, Any]:
        model = kind(**given)
        fitter = StatsForecast(models=[model], freq=1, n_jobs=1)
        return str(model), fitter.forecast(df=_frame(series), h=horizon, level=intervals or None)

    try:
        return run(arguments)
    except Exception as error:
        if _INTERVALS not in str(error):  # it has no intervals of its own
            raise
    shortest = min(values.size for values in series)
    windows = min(_MAX_WINDOWS, (shortest - 1) // horizon)
    if windows < 2:
        raise DataError(
            f"baseline {kind.__name__}: takes its intervals from errors in at least 2 windows of {horizon} periods, "
            f"and an origin has {shortest} periods before it; score fewer steps (--steps), or later origins"
        )
    return run(arguments | {_INTERVALS: ConformalIntervals(h=horizon, n_windows=windows)})


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "no reason given")


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
