"""What was tried for accuracy: named changes of the training options, compared without the test.

    python -m rillcast_training.research.ablations --data FOLDER [--only etth1|m4_hourly] [--trial NAME ...] [--seeds
    N] [--document PAGE]

Owns: the trials, the part of the training data that they are compared on, and the table in the docs. Does not know: how
a forecaster is trained, or the test, which it never reads into anything. A finished run is kept in the work folder, one
JSON object each, and not done again.

Every run trains as `rillcast train` does, with the cell of `rillcast_training.research.public_benchmarks` and the
trial's own options, on the
data that the headline trains on without their newest periods, and is scored on those: on M4 Hourly the last 48, from one
origin per series; on ETTh1 the last fifth, 117 days, at daily origins. Scored are the network's own quantiles, without
the online correction.
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
from rillcast_training.data.windows import Batch, Window, collate, split
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
"""What differs from the defaults of `rillcast train` in every trial."""
HELD_OUT: Final = {"m4_hourly": 48, "etth1": 117 * 24}
"""Newest periods of each series that the headline trains on."""
_RUN_UP: Final = 704  # events before the first origin; the states that 168 leave behind give the same figures
_SERIES_AT_ONCE: Final = 128


@dataclass(frozen=True, slots=True)
class Trial:
    """What is compared.

    Attributes:
        what: in a few words, for the table.
        changes: of the training options.
        make: builds the forecaster.
    """

    what: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    make: Callable[[ForecasterConfig], Forecaster] = Forecaster


TRIALS: Final[dict[str, Trial]] = {
    "defaults": Trial("the options' defaults"),
    "refit": Trial("`--refit`", {"refit": True}),
    "dropout-0.2": Trial("`--dropout 0.2`", {"dropout": 0.2}),
    "decay-0.01": Trial("weight decay of 0.01 in place of 0.0001", {"weight_decay": 0.01}),
    "decay-0.1": Trial("weight decay of 0.1", {"weight_decay": 0.1}),
    "lr-0.0015": Trial("`--lr 0.0015`", {"lr": 1.5e-3}),
    "averaging-0.997": Trial("weights averaged over three times as many steps", {"averaging": 0.997}),
    "hidden-32": Trial("`--hidden 32`", {"hidden": 32}),
    "hidden-48": Trial("`--hidden 48`", {"hidden": 48}),
    "context-336": Trial("`--context 336`", {"context": 336}),
    "window-336": Trial("`--window 336`", {"window": 336}),
    "layers-2": Trial("`--layers 2`", {"layers": 2}),
    "ensemble": Trial("the mean of two cells with a head each, each trained on its own loss", make=Ensemble),
    "ensemble-joint": Trial(
        "the mean of two cells with a head each, trained on the loss of the mean", make=JointEnsemble
    ),
    "attention": Trial("attention over the days of the lag window", make=Attention),
    "dilated": Trial("a second layer that goes on from its state of a day ago", make=Dilated),
    "arcsinh": Trial("arcsinh of the features in place of a soft limit", make=Arcsinh),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; it prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m rillcast_training.research.ablations", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--data", help="folder with the public series, as for rillcast_training.research.public_benchmarks"
    )
    parser.add_argument("--work", type=Path, default=Path(".trials"), help="where results go")
    parser.add_argument("--only", choices=list(HELD_OUT), action="append", help="data set (default: all)")
    parser.add_argument("--trial", choices=list(TRIALS), action="append", help="default: all")
    parser.add_argument("--seeds", type=int, default=1, help="training runs each")
    parser.add_argument("--finished", action="store_true", help="only tabulate the runs that are done; start none")
    parser.add_argument("--document", type=Path, help="page whose measured part is to be written anew")
    args = parser.parse_args(argv)
    keep_freed_memory()
    args.work.mkdir(parents=True, exist_ok=True)
    asked = {name: TRIALS[name] for name in args.trial or TRIALS}
    protocols = [protocol for protocol in PROTOCOLS if protocol.name in (args.only or HELD_OUT)]
    try:
        for protocol in () if args.finished else protocols:
            train_part, _ = protocol.split(data_folder(args.data))
            for name, trial in asked.items():
                for seed in range(args.seeds):
                    _run_once(args.work, protocol, name, trial, seed, train_part)
        text = table(asked, protocols, args.work)
        if args.document:
            write_into(args.document, text, BEGIN, END)
    except RillcastError as error:
        print(f"trials: {error}", file=sys.stderr)
        return error.exit_code
    print(text)
    return 0


def run(protocol: Protocol, trial: Trial, seed: int, series: list[Series]) -> dict[str, Any]:
    """Train once and score.

    Args:
        protocol: the data set's.
        trial: what is changed.
        seed: of the training.
        series: what the headline trains on, of which the newest periods are held out here.

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
        **(BASE | dict(trial.changes)),
    )
    early, first = without_newest(series, HELD_OUT[protocol.name])
    config = forecaster_shape(options)
    started = time.process_time()
    with threads(options.threads):
        parts = split(early, config, options.validation, options.balance)
        trainer, progress = fitted(options, config, parts, trial.make)
        seconds = time.process_time() - started
        figures = score(trainer.forecaster, series, first)
    return {"figures": figures, "best_epoch": progress.best_epoch, "cpu_seconds": seconds}


def without_newest(series: Sequence[Series], periods: int) -> tuple[list[Series], dict[str, int]]:
    """Return each series without its newest periods, and the first one that is held out, by series."""
    first = {one.unique_id: int(one.periods[-1]) + 1 - periods for one in series}
    early = [(one, one.periods < first[one.unique_id]) for one in series]
    return [Series(one.unique_id, one.periods[kept], one.y[kept]) for one, kept in early], first


def score(forecaster: Forecaster, series: Sequence[Series], first: Mapping[str, int]) -> dict[str, float]:
    """Return the figures of the network's own forecasts of the periods from `first` on, which tells them by series."""
    figures = ValidationFigures(forecaster.config.quantiles)
    forecaster.eval()
    with torch.no_grad():
        for batch in batches(forecaster.config, series, first):
            figures.add(forecaster(batch.sequences, batch.origins), batch.target, batch.scale)
    return figures.figures()


def batches(config: ForecasterConfig, series: Sequence[Series], first: Mapping[str, int]) -> Iterator[Batch]:
    """Yield the windows that are scored: every horizon an origin, from the period before the first one on."""
    windows, origins = [], []
    for one in series:
        segment = segments(one.periods, one.y, season=config.seasons[0], max_gap=config.max_gap)[-1]
        begin = int(np.searchsorted(segment.periods, first[one.unique_id])) - 1
        start, end = max(0, begin - _RUN_UP), len(segment.periods)
        total, pairs = seasonal_scale(segment, config.seasons[0], first[one.unique_id])
        windows.append(Window(segment, start, end - start, None, total / pairs, fresh=False))
        origins.append(np.arange(begin, end - 1, config.horizon) - start)
    for at in range(0, len(windows), _SERIES_AT_ONCE):
        chosen = slice(at, at + _SERIES_AT_ONCE)
        yield collate(windows[chosen], config, origins[chosen])


def table(trials: Mapping[str, Trial], protocols: Sequence[Protocol], work: Path) -> str:
    """Return the finished runs as a Markdown table, a row for each trial and data set."""
    lines = [
        "| data | trial | seeds | WQL: mean (lowest to highest) | MASE | coverage of 80 % | epoch | CPU time |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for protocol in protocols:
        for name, trial in trials.items():
            files = sorted(work.glob(f"{protocol.name}.{name}.*.json"))
            if not files:
                continue
            runs = [_read(file, trial) for file in files]
            epochs = ", ".join(str(one["best_epoch"]) for one in runs)
            cells = [_cell(runs, "wql", 4), _cell(runs, "mase", 3), _cell(runs, "coverage", 3), epochs]
            seconds = mean(one["cpu_seconds"] for one in runs)
            lines.append(f"| {protocol.name} | {trial.what} | {len(runs)} | {' | '.join(cells)} | {seconds:.0f} s |")
    return "\n".join(lines)


def _cell(runs: Sequence[dict[str, Any]], name: str, digits: int) -> str:
    values = [one["figures"][name] for one in runs]
    spread = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


def _run_once(work: Path, protocol: Protocol, name: str, trial: Trial, seed: int, series: list[Series]) -> None:
    file = work / f"{protocol.name}.{name}.{seed}.json"
    if file.exists():
        _read(file, trial)
        return
    found = run(protocol, trial, seed, series) | {"changes": dict(trial.changes)}
    unfinished = file.with_suffix(".partial")
    unfinished.write_text(json.dumps(found))
    unfinished.replace(file)
    print(f"{file.stem}: {_cell([found], 'wql', 4)}, MASE {_cell([found], 'mase', 3)}", file=sys.stderr, flush=True)


def _read(file: Path, trial: Trial) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    if found["changes"] != json.loads(json.dumps(dict(trial.changes))):
        raise DataError(f"{file}: made with {found['changes']}, the trial is {dict(trial.changes)}; remove it")
    return found


if __name__ == "__main__":
    sys.exit(main())
