"""What bounds are worth on counts and other streams that never are negative: synthetic series, with and without.

    python -m rillcast_training.research.counts [MODEL]      # universal:1h; half a minute

Owns: the series and the table. Does not know: how bounds are learnt (`rillcast_training.model.experts.bounds`).

Of each kind there are 40 hourly series. Scored is every 20th origin after 100 hours, on all steps that follow. WQL is
the mean over the levels of twice the quantile losses, over the sum of the values.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

import numpy as np

from rillcast.arrays import AnyArray
from rillcast.bundle.bundle import Bundle
from rillcast.engine.batcher import Batching
from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine
from rillcast.events import EventBatch

STREAMS: Final = 40
EVENTS: Final = 500
_FIRST, _STRIDE = 100, 20
_DAY: Final = 24
_EPOCH: Final = 480_000  # hours


def series(length: int, streams: int, seed: int = 0) -> dict[str, AnyArray]:
    """Return values `[length, streams]` of each kind."""
    rng, hour = np.random.default_rng(seed), np.arange(length)[:, None]
    shape = (length, streams)
    daylight = np.maximum(0, np.sin(2 * np.pi * hour / _DAY))
    weekday = (hour // _DAY) % 7 < 5
    kinds = {
        "one sale in 10 hours, of 4": (rng.random(shape) < 0.1) * (1 + rng.poisson(3, shape)),
        "one in 3 hours": (rng.random(shape) < 0.3) * (1 + rng.poisson(3, shape)),
        "seven in 10 hours, of 20": (rng.random(shape) < 0.7) * (1 + rng.poisson(19, shape)),
        "rain, one hour in 3": (rng.random(shape) < 0.3) * rng.gamma(2, 2, shape),
        "Poisson, mean 0.3": rng.poisson(0.3, shape),
        "Poisson, mean 3": rng.poisson(3, shape),
        "counts by day, none at night": rng.poisson(8 * daylight + np.zeros(shape)),
        "solar power": 300 * daylight * (1 + 0.3 * rng.normal(size=shape)).clip(0),
        "counts on workdays": weekday * rng.poisson(5, shape),
        "noise around zero": rng.normal(size=shape),
    }
    return {name: values.astype(np.float32) for name, values in kinds.items()}


def wql(bundle: Bundle, y: AnyArray, *, bounds: bool) -> AnyArray:
    """Return the WQL of each stream, `[streams]`, of values `[length, streams]`."""
    levels, horizon = np.array(bundle.metadata.quantiles), bundle.metadata.horizon
    engine = StepEngine(bundle, Device("cpu"), batching=Batching(1_024), bounds=bounds)
    ids, loss, size = [str(number) for number in range(y.shape[1])], np.zeros(y.shape[1]), np.zeros(y.shape[1])
    for number in range(len(y) - horizon):
        ds = np.full(len(ids), bundle.metadata.frequency.start_of(_EPOCH + number), np.int64)
        result = engine.step(EventBatch.of(ids, ds, y[number], first_offset=number * len(ids)))
        if number < _FIRST or number % _STRIDE:
            continue
        actual = y[number + 1 : number + 1 + horizon].T.astype(np.float64)
        error = actual[:, :, None] - result.forecast
        loss += 2 * np.maximum(levels * error, (levels - 1) * error).mean(axis=2).sum(axis=1)
        size += np.abs(actual).sum(axis=1)
    figures: AnyArray = loss / size
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m rillcast_training.research.counts", description=__doc__)
    parser.add_argument("model", nargs="?", default="universal:1h", help="bundle (default: universal:1h)")
    bundle = Bundle.load(parser.parse_args(argv).model)
    kinds = series(EVENTS + bundle.metadata.horizon, STREAMS)
    y = np.concatenate(list(kinds.values()), axis=1)
    without, kept = (wql(bundle, y, bounds=bounds).reshape(len(kinds), -1).mean(axis=1) for bounds in (False, True))
    print("| series | WQL without bounds | with |\n| --- | --- | --- |")
    for name, one, other in zip(kinds, without, kept, strict=True):
        print(f"| {name} | {one:.3f} | {other:.3f} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
