"""How good are the first forecasts? A bundle on the newest few periods of each series alone.

    python -m rillcast_training.research.cold_start MODEL TRAIN TEST --last 6,12,24 --season 24

Owns: the cut of the history, the seasonal naive of the same history, and the table. Does not know: how a bundle is run
or scored (`rillcast_training.evaluate.backtest`).

One origin per series: the end of TRAIN. Scored are the horizon's periods that TEST has. The seasonal naive repeats the
last season, or the last value where less than a season is known, with the quantiles of a normal distribution as wide as
the root mean square of the seasonal differences, times the root of the seasons ahead (Hyndman & Athanasopoulos,
Forecasting: Principles and Practice, section 5.5). A history of one season has no difference, and so no width.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from rillcast.arrays import AnyArray
from rillcast.bundle.bundle import Bundle
from rillcast.engine.batcher import Batching
from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import RillcastError
from rillcast_training.data.series import Series, load
from rillcast_training.evaluate.backtest import backtest

_MAX_BATCH: Final = 1_024


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Figures of one length of history.

    Attributes:
        last: Periods of history.
        wql: Weighted quantile loss over that of the seasonal naive.
        error: Absolute error of the medians over that of the seasonal naive.
        coverage: Share of targets within the outermost quantiles.
    """

    last: int
    wql: float
    error: float
    coverage: float


def measure(bundle: Bundle, train: Sequence[Series], test: Sequence[Series], last: int, season: int) -> ColdStart:
    """Return the figures of a bundle that sees the `last` periods of each training series alone.

    Raises:
        DataError: nothing of `test` continues `train`.
    """
    horizon, levels = bundle.metadata.horizon, bundle.metadata.quantiles
    cut = [_between(one, int(one.periods[-1]) - last, int(one.periods[-1])) for one in train]
    ends = {one.unique_id: int(one.periods[-1]) for one in train}
    ahead = [_between(s, ends[s.unique_id], ends[s.unique_id] + horizon) for s in test if s.unique_id in ends]
    engine = StepEngine(bundle, Device("cpu"), batching=Batching(_MAX_BATCH))
    found = backtest(engine, ahead, train=cut, stride=horizon)
    naive = np.stack([seasonal_naive(past[-last:], season, horizon, levels) for past in found.history])
    own, other = (found.score(forecast).accuracy(levels) for forecast in (found.forecast.astype(np.float64), naive))
    middle = min(range(len(levels)), key=lambda i: abs(levels[i] - 0.5))
    missed, naively = (np.nansum(np.abs(found.actual - f[:, :, middle])) for f in (found.forecast, naive))
    return ColdStart(last, float(own.wql) / float(other.wql), float(missed / naively), own.coverage)


def seasonal_naive(past: AnyArray, season: int, horizon: int, levels: Sequence[float]) -> AnyArray:
    """Return the quantiles `[H, Q]` of the periods after `past`, `[n]` with NaN for missing values."""
    at = np.maximum.accumulate(np.where(np.isfinite(past), np.arange(past.size), -1))
    first = int(np.argmax(at >= 0))
    y = past[np.where(at < 0, at[first], at)]
    season = season if y.size >= season else 1
    steps = np.arange(horizon)
    change = y[season:] - y[:-season]
    sigma = float(np.sqrt(np.mean(change**2))) if change.size else 0.0
    normal = np.array([NormalDist().inv_cdf(level) for level in levels])
    width = sigma * np.sqrt(steps // season + 1)
    quantiles: AnyArray = y[y.size - season + steps % season][:, None] + width[:, None] * normal
    return quantiles


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m rillcast_training.research.cold_start", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("model", help="bundle, or universal:FREQ")
    parser.add_argument("train", help="history of the series: unique_id, ds, y")
    parser.add_argument("test", help="what followed")
    parser.add_argument("--last", required=True, metavar="N,...", help="periods of history, one table row each")
    parser.add_argument("--season", type=int, required=True, help="periods in the seasonal naive's season")
    args = parser.parse_args(argv)
    try:
        bundle = Bundle.load(args.model)
        train, test = (load(source, bundle.metadata.freq) for source in (args.train, args.test))
        print(f"{'periods':>7s} {'WQL / naive':>12s} {'error / naive':>14s} {'coverage':>9s}")
        for last in (int(part) for part in args.last.split(",")):
            one = measure(bundle, train, test, last, args.season)
            print(f"{one.last:7d} {one.wql:12.3f} {one.error:14.3f} {one.coverage:9.3f}", flush=True)
    except RillcastError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _between(series: Series, after: int, until: int) -> Series:
    """Return the events of the periods in (after, until]."""
    inside = (series.periods > after) & (series.periods <= until)
    return Series(series.unique_id, series.periods[inside], series.y[inside])


if __name__ == "__main__":
    sys.exit(main())
