"""Ablations: named changes of the training options, compared without the test data.

    python -m rillcast_training.research.ablations --data FOLDER [--only etth1|m4_hourly] [--ablation NAME ...]
        [--seeds N] [--document PAGE]

Owns: the ablations, the part of the training data that they are compared on, and the table in the docs. Does not know:
how a forecaster is trained, or the test data, which it never reads. A finished run is kept in the work folder, one JSON
object each, and not repeated.

Every run trains as `rillcast train` does, with the cell of `rillcast_training.research.public_benchmarks` and the
ablation's own options. It trains on the benchmarks' training data without their newest periods, and is scored on those:
on M4 Hourly the last 48, from one origin per series; on ETTh1 the last fifth, 117 days, at daily origins. The scores
are of the network's own quantiles, without the online correction.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, Final

import numpy as np
import torch

from rillcast.errors import DataError, RillcastError
from rillcast_training.data.series import Series, seasonal_scale, segments
from rillcast_training.data.split import split
from rillcast_training.data.windows import Batch, Window, collate
from rillcast_training.fit.allocator import keep_freed_memory
from rillcast_training.fit.losses import ValidationFigures
from rillcast_training.fit.options import TrainOptions
from rillcast_training.fit.shape import forecaster_shape
from rillcast_training.fit.training import fitted, threads
from rillcast_training.model.forecaster import Forecaster, ForecasterConfig
from rillcast_training.research.ablation_shapes import Arcsinh, Attention, Dilated, Ensemble, JointEnsemble
from rillcast_training.research.public_benchmarks import FREQ, PROTOCOLS, RECIPE, Protocol, data_folder, write_into

BEGIN: Final = "<!-- measured by rillcast_training.research.ablations: begin -->"
END: Final = "<!-- measured by rillcast_training.research.ablations: end -->"
BASE: Final[dict[str, Any]] = {"cell": RECIPE["cell"]}
"""Differences from the defaults of `rillcast train` in every ablation."""
HELD_OUT: Final = {"m4_hourly": 48, "etth1": 117 * 24}
"""Newest periods of each series that are held out of the benchmark's training data."""
_RUN_UP: Final = 704  # events before the first origin; 168 give the same figures
_SERIES_AT_ONCE: Final = 128


@dataclass(frozen=True, slots=True)
class Ablation:
    """A change to compare.

    Attributes:
        what: Description for the table.
        changes: Changes of the training options.
        make: Builds the forecaster.
    """

    what: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    make: Callable[[ForecasterConfig], Forecaster] = Forecaster


ABLATIONS: Final[dict[str, Ablation]] = {
    "defaults": Ablation("the options' defaults"),
    "refit": Ablation("`--refit`", {"refit": True}),
    "dropout-0.2": Ablation("`--dropout 0.2`", {"dropout": 0.2}),
    "decay-0.01": Ablation("weight decay of 0.01 in place of 0.0001", {"weight_decay": 0.01}),
    "decay-0.1": Ablation("weight decay of 0.1", {"weight_decay": 0.1}),
    "lr-0.0015": Ablation("`--lr 0.0015`", {"lr": 1.5e-3}),
    "averaging-0.997": Ablation("weights averaged over three times as many steps", {"averaging": 0.997}),
    "hidden-32": Ablation("`--hidden 32`", {"hidden": 32}),
    "hidden-48": Ablation("`--hidden 48`", {"hidden": 48}),
    "context-336": Ablation("`--context 336`", {"context": 336}),
    "window-336": Ablation("`--window 336`", {"window": 336}),
    "layers-2": Ablation("`--layers 2`", {"layers": 2}),
    "ensemble": Ablation("the mean of two cells with a head each, each trained on its own loss", make=Ensemble),
    "ensemble-joint": Ablation(
        "the mean of two cells with a head each, trained on the loss of the mean", make=JointEnsemble
    ),
    "attention": Ablation("attention over the days of the lag window", make=Attention),
    "dilated": Ablation("a second layer that goes on from its state of a day ago", make=Dilated),
    "arcsinh": Ablation("arcsinh of the features in place of a soft limit", make=Arcsinh),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; it prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m rillcast_training.research.ablations", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--data", help="folder with the public series, as for rillcast_training.research.public_benchmarks"
    )
    parser.add_argument("--work", type=Path, default=Path(".ablations"), help="folder for results")
    parser.add_argument("--only", choices=list(HELD_OUT), action="append", help="data set (default: all)")
    parser.add_argument("--ablation", choices=list(ABLATIONS), action="append", help="default: all")
    parser.add_argument("--seeds", type=int, default=1, help="training runs each")
    parser.add_argument("--finished", action="store_true", help="tabulate finished runs only; start none")
    parser.add_argument("--document", type=Path, help="page whose measured part is replaced")
    args = parser.parse_args(argv)
    keep_freed_memory()
    args.work.mkdir(parents=True, exist_ok=True)
    asked = {name: ABLATIONS[name] for name in args.ablation or ABLATIONS}
    protocols = [protocol for protocol in PROTOCOLS if protocol.name in (args.only or HELD_OUT)]
    try:
        for protocol in () if args.finished else protocols:
            train_part, _ = protocol.split(data_folder(args.data))
            for name, ablation in asked.items():
                for seed in range(args.seeds):
                    _run_once(args.work, protocol, name, ablation, seed, train_part)
        text = table(asked, protocols, args.work)
        if args.document:
            write_into(args.document, text, BEGIN, END)
    except RillcastError as error:
        print(f"ablations: error: {error}", file=sys.stderr)
        return error.exit_code
    print(text)
    return 0


def run(protocol: Protocol, ablation: Ablation, seed: int, series: list[Series]) -> dict[str, Any]:
    """Train once and score.

    Args:
        protocol: Protocol of the data set.
        ablation: The change.
        seed: Seed of the training.
        series: Training data of the benchmark; their newest periods are held out here.

    Returns:
        `figures` as of `rillcast_training.fit.losses`, the epoch that validation chose, and the CPU time of the
        training in seconds.
    """
    options = TrainOptions(
        data=Path(protocol.files[0]),
        freq=FREQ,
        horizon=protocol.horizon,
        out=Path("unused.onnx"),
        seed=seed,
        quiet=True,
        **(BASE | dict(ablation.changes)),
    )
    early, first = without_newest(series, HELD_OUT[protocol.name])
    config = forecaster_shape(options)
    started = time.process_time()
    with threads(options.threads):
        parts = split(early, config, options.validation, options.balance)
        trainer, progress = fitted(options, config, parts, ablation.make)
        seconds = time.process_time() - started
        figures = score(trainer.forecaster, series, first)
    return {"figures": figures, "best_epoch": progress.best_epoch, "cpu_seconds": seconds}


def without_newest(series: Sequence[Series], periods: int) -> tuple[list[Series], dict[str, int]]:
    """Return each series without its newest periods, and the first held-out period by series."""
    first = {one.unique_id: int(one.periods[-1]) + 1 - periods for one in series}
    early = [(one, one.periods < first[one.unique_id]) for one in series]
    return [Series(one.unique_id, one.periods[kept], one.y[kept]) for one, kept in early], first


def score(forecaster: Forecaster, series: Sequence[Series], first: Mapping[str, int]) -> dict[str, float]:
    """Return the figures of the network's own forecasts of the periods from `first` on, given by series."""
    figures = ValidationFigures(forecaster.config.quantiles)
    forecaster.eval()
    with torch.no_grad():
        for batch in batches(forecaster.config, series, first):
            figures.add(forecaster(batch.sequences, batch.origins), batch.target, batch.scale)
    return figures.figures()


def batches(config: ForecasterConfig, series: Sequence[Series], first: Mapping[str, int]) -> Iterator[Batch]:
    """Yield the windows to score: an origin every horizon, from the period before the first one on."""
    windows, origins = [], []
    for one in series:
        season, max_gap = config.seasons[0], config.max_gap
        segment = segments(one.periods, one.y, season=season, max_gap=max_gap, rule=config.fill)[-1]
        begin = int(np.searchsorted(segment.periods, first[one.unique_id])) - 1
        start, end = max(0, begin - _RUN_UP), len(segment.periods)
        total, pairs = seasonal_scale(segment, config.seasons[0], first[one.unique_id])
        windows.append(Window(segment, start, end - start, None, total / pairs, fresh=False))
        origins.append(np.arange(begin, end - 1, config.horizon) - start)
    for at in range(0, len(windows), _SERIES_AT_ONCE):
        chosen = slice(at, at + _SERIES_AT_ONCE)
        yield collate(windows[chosen], config, origins[chosen])


def table(ablations: Mapping[str, Ablation], protocols: Sequence[Protocol], work: Path) -> str:
    """Return the finished runs as a Markdown table, a row for each ablation and data set."""
    lines = [
        "| data | ablation | seeds | WQL: mean (lowest to highest) | MASE | coverage of 80 % | epoch | CPU time |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for protocol in protocols:
        for name, ablation in ablations.items():
            files = sorted(work.glob(f"{protocol.name}.{name}.*.json"))
            if not files:
                continue
            runs = [_read(file, ablation) for file in files]
            epochs = ", ".join(str(one["best_epoch"]) for one in runs)
            cells = [_cell(runs, "wql", 4), _cell(runs, "mase", 3), _cell(runs, "coverage", 3), epochs]
            seconds = mean(one["cpu_seconds"] for one in runs)
            lines.append(f"| {protocol.name} | {ablation.what} | {len(runs)} | {' | '.join(cells)} | {seconds:.0f} s |")
    return "\n".join(lines)


def _cell(runs: Sequence[dict[str, Any]], name: str, digits: int) -> str:
    values = [one["figures"][name] for one in runs]
    spread = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


def _run_once(work: Path, protocol: Protocol, name: str, ablation: Ablation, seed: int, series: list[Series]) -> None:
    file = work / f"{protocol.name}.{name}.{seed}.json"
    if file.exists():
        _read(file, ablation)
        return
    found = run(protocol, ablation, seed, series) | {"changes": dict(ablation.changes)}
    unfinished = file.with_suffix(".partial")
    unfinished.write_text(json.dumps(found))
    unfinished.replace(file)
    print(f"{file.stem}: {_cell([found], 'wql', 4)}, MASE {_cell([found], 'mase', 3)}", file=sys.stderr, flush=True)


def _read(file: Path, ablation: Ablation) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    if found["changes"] != json.loads(json.dumps(dict(ablation.changes))):
        raise DataError(f"{file}: made with {found['changes']}, expected {dict(ablation.changes)}; remove it")
    return found


if __name__ == "__main__":
    sys.exit(main())
