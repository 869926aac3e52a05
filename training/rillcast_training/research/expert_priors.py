"""The table of what is known of the experts before a stream begins, measured on synthetic series.

    python -m rillcast_training.research.expert_priors                  # writes it into the package, in minutes
    python -m rillcast_training.research.expert_priors 1h 1d --out table.json

Owns: which pairs of seasons have an entry, the series, and the mean over them. Does not know: how the table is read
(`rillcast_training.model.experts.priors`), or what it is used for.

An expert's relative error on a stream is that of its sums of errors: absolute errors over the plain experts' ones on
the same periods. The table has its arithmetic mean over streams and ages: it is the mean loss that a season costs where
there is none, and many streams have none. So 40 % of the series are drawn without any cycle. No series that judges a
forecast is read.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from rillcast.arrays import AnyArray
from rillcast.bundle.frequency import parse
from rillcast_training.data.synthetic.generator import Recipe, synthesize
from rillcast_training.model.experts import priors
from rillcast_training.model.experts.config import ExpertsConfig, default_anchors, default_experts
from rillcast_training.model.experts.defaults import default_horizon
from rillcast_training.model.experts.forecaster import ExpertForecaster

SEASONLESS: Final = 0.4
_LEAST, _MOST = 0.15, 4.0  # bounds of a relative error, so that no stream decides
_FEW: Final = 20  # figures, below which an expert is taken as worse than the plain ones
_WORSE: Final = 1.5


@dataclass(frozen=True, slots=True)
class Entry:
    """A pair of seasons.

    Attributes:
        freq: Frequency of the synthetic series.
        seasons: One or two lengths in periods.
        ages: Periods after which the errors are read: cycles begun, completed, repeated.
        series: Number of series.
    """

    freq: str
    seasons: tuple[int, ...]
    ages: tuple[int, ...]
    series: int = 600


ENTRIES: Final = (
    Entry("10s", (360,), (60, 180, 400, 800, 1600), 200),
    Entry("1min", (60, 1440), (30, 60, 100, 200, 600, 1600, 3200), 200),
    Entry("5min", (288, 2016), (60, 150, 320, 650, 1300, 2400, 4200), 200),
    Entry("15min", (96, 672), (24, 60, 110, 220, 450, 800, 1500), 300),
    Entry("1h", (24, 168), (24, 30, 50, 72, 100, 168, 336, 600)),
    Entry("1h", (24,), (24, 30, 50, 72, 100, 168, 336, 600)),
    Entry("1d", (7, 365), (8, 20, 60, 180, 400, 500, 800, 1200), 300),
    Entry("1d", (7,), (8, 14, 20, 60, 180, 400)),
    Entry("1w", (52,), (6, 10, 20, 40, 60, 80, 110, 160, 260)),
    Entry("1mo", (12,), (6, 10, 15, 20, 30, 48, 84, 120)),
    Entry("3mo", (4,), (5, 8, 12, 20, 40)),
    Entry("12mo", (1,), (5, 8, 12, 20, 40)),
)


def measure(entry: Entry, *, seed: int = 7) -> dict[str, Any]:
    """Return the table's entry."""
    horizon = default_horizon(entry.freq)
    anchors, experts = default_anchors(horizon), default_experts(entry.seasons)
    even = priors.Prior(((1.0,) * len(experts),) * len(anchors), (1.0,) * len(anchors))
    config = ExpertsConfig(entry.freq, horizon, entry.seasons, prior=even)
    relative, growth = zip(*_errors(config, entry, seed), strict=True)
    ratio = np.concatenate(relative)  # [series x ages, A, K]
    known = np.isfinite(ratio)
    total = np.where(known, ratio, 0).sum(axis=0)
    mean = np.where(known.sum(axis=0) > _FEW, total / np.maximum(known.sum(axis=0), 1), _WORSE)
    grown = np.maximum.accumulate(np.nanmedian(np.concatenate(growth), axis=0))
    return {
        "freq": entry.freq,
        "seasons": list(entry.seasons),
        "anchors": list(anchors),
        "growth": [round(float(value), 3) for value in grown],
        "experts": [
            {"base": base, "decay": decay, "relative": [round(float(value), 3) for value in column]}
            for (base, decay), column in zip(experts, mean.T, strict=True)
        ],
    }


def _errors(config: ExpertsConfig, entry: Entry, seed: int) -> list[tuple[AnyArray, AnyArray]]:
    """Return relative errors `[series, A, K]` and growths `[series, A]` at each age; NaN = nothing is known."""
    recipe = Recipe(
        freq=entry.freq, series=entry.series, length=max(*entry.ages, 16), seed=seed, missing=0, seasonless=SEASONLESS
    )
    values = torch.from_numpy(np.stack([series.y for series in synthesize(recipe)]))
    forecaster, frequency = ExpertForecaster(config).eval(), parse(entry.freq)
    rows, found = forecaster.initial_rows(len(values)), []
    start = frequency.period_of(1_704_067_200_000)
    own = list(forecaster.weights.own)
    with torch.no_grad():
        for age in range(1, max(entry.ages) + 1):
            ds = torch.full((len(values),), int(frequency.start_of(np.array([start + age]))[0]))
            _, rows = forecaster.step(ds, values[:, age - 1], rows)
            if age not in entry.ages:
                continue
            f = forecaster.layout.at_anchors(rows.core)
            reference = f["reference"][:, own]
            ratio = torch.where(reference > 0, f["error"] / reference, torch.nan).clamp(_LEAST, _MOST)
            plain = torch.where(f["judged"] > 0, f["plain"] / f["judged"], torch.nan)[:, 0]
            growth = plain / plain[0].clamp(min=1e-30)
            found.append((ratio.permute(2, 0, 1).numpy(), growth.t().numpy()))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m rillcast_training.research.expert_priors", description="Measure the experts' prior."
    )
    parser.add_argument("freq", nargs="*", metavar="FREQ", help="frequencies to measure again (default: all)")
    default = Path(priors.__file__).with_name(priors.FILE)
    parser.add_argument("--out", type=Path, default=default, help="table to write (default: in the package)")
    args = parser.parse_args(argv)
    old = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else []
    kept = {(one["freq"], *one["seasons"]): one for one in old}
    for entry in ENTRIES:
        if not args.freq or entry.freq in args.freq:
            kept[entry.freq, *entry.seasons] = measure(entry)
            print(f"{entry.freq} {entry.seasons}", flush=True)
            args.out.write_text(_text(list(kept.values())), encoding="utf-8")
    return 0


def _text(table: list[dict[str, Any]]) -> str:
    """Return the table as JSON, one expert a line."""
    lines = ["["]
    for last, entry in zip(itertools.chain([False] * (len(table) - 1), [True]), table, strict=True):
        head = json.dumps({name: value for name, value in entry.items() if name != "experts"})
        experts = ",\n   ".join(json.dumps(one) for one in entry["experts"])
        lines.append(f'{head[:-1]}, "experts": [\n   {experts}]}}{"" if last else ","}')
    return "\n".join([*lines, "]", ""])


if __name__ == "__main__":
    sys.exit(main())
