"""Processor time and bytes of a forecast by codec and digits, in turns.

    python -m tests.benchmarks.encoders MODEL [--rounds 50] [--json]

Owns: the cases and their order. Does not know: the service. Besides the encoders it times orjson on the same numbers
alone: as they are, rounded, and as whole numbers, which is the least that any text of them can cost.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
import orjson

from rillcast.benchmarks.load import START_MS, name_of
from rillcast.benchmarks.machine import machine
from rillcast.bundle.bundle import Bundle
from rillcast.codecs.forecasts.columns import ForecastColumns
from rillcast.codecs.forecasts.encoders import make_encoder
from rillcast.codecs.forecasts.rounding import Decimals

_ROWS: Final = 256  # as the publisher hands them over
_CASES: Final[tuple[tuple[Any, Decimals], ...]] = (
    ("json", "full"), ("json", "auto"), ("json", 2), ("msgpack", "full"), ("float32", "full")
)  # fmt: skip


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="bundle (.onnx, or universal:1h)")
    parser.add_argument("--rounds", type=int, default=50, help="calls of each case (default: 50)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    bundle = Bundle.load(args.model)
    figures: dict[str, Any] = {"model": name_of(bundle), "cases": measure(bundle, args.rounds), "machine": machine()}
    if args.json:
        print(json.dumps(figures))
        return 0
    print(figures["model"])
    for name, case in figures["cases"].items():
        size = f"{case['bytes']:>8,.0f} bytes" if case["bytes"] else ""
        print(f"{name:<28} {case['us_per_forecast']:>6.2f} us  {case['ratio_to_json']:>5.2f} of json {size}")
    return 0


def measure(bundle: Bundle, rounds: int) -> dict[str, dict[str, float]]:
    """Return processor time and bytes of a forecast by case, and the median ratio of its time to that of JSON."""
    columns = _columns(bundle)
    numbers = np.ascontiguousarray(columns.forecast.transpose(0, 2, 1)).reshape(-1, columns.forecast.shape[1])
    encoders = {f"{codec}, {digits}": make_encoder(codec, bundle.metadata, digits) for codec, digits in _CASES}
    calls: dict[str, Callable[[], object]] = {
        name: partial(encoder.encode, columns) for name, encoder in encoders.items()
    }
    for name, given in {
        "orjson alone": numbers,
        "orjson alone, rounded": np.round(numbers, 2),
        "orjson alone, whole numbers": np.rint(100 * numbers).astype(np.int64),
    }.items():
        calls[name] = partial(orjson.dumps, given, option=orjson.OPT_SERIALIZE_NUMPY)
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in calls if number % 2 else reversed(calls):
            started = time.thread_time()
            calls[name]()
            taken[name].append(time.thread_time() - started)
    sizes = {name: sum(map(len, encoder.encode(columns)[1])) / _ROWS for name, encoder in encoders.items()}
    return {
        name: {
            "us_per_forecast": statistics.median(times) / _ROWS * 1e6,
            "ratio_to_json": statistics.median(
                one / other for one, other in zip(times, taken["json, full"], strict=True)
            ),
            "bytes": sizes.get(name, 0),
        }
        for name, times in taken.items()
    }


def _columns(bundle: Bundle) -> ForecastColumns:
    random, rows = np.random.default_rng(0), np.arange(_ROWS)
    shape = _ROWS, bundle.metadata.horizon, len(bundle.metadata.quantiles)
    return ForecastColumns(
        [f"stream-{row}" for row in rows.tolist()],
        np.full_like(rows, START_MS),
        np.zeros(_ROWS, np.int8),
        np.sort(100 + 10 * random.normal(size=shape), axis=2).astype(np.float32),
        random.random(_ROWS).astype(np.float32),
        rows,
        rows,
    )


if __name__ == "__main__":
    sys.exit(main())
