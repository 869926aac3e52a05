"""`rillcast train`: from a data file to a bundle."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Final

from rillcast.bundle.bundle import Bundle, BundleMetadata
from rillcast.bundle.covariates import KINDS, Kind
from rillcast.cli import compute_flags, data_flags
from rillcast.errors import SettingsError

HELP: Final = "train a forecaster on a data set and export it as a bundle"
EXAMPLES: Final = """\
examples:
  rillcast train sales.parquet --freq 1d --horizon 14 --out sales.onnx
  rillcast train load.csv.gz --freq 1h --horizon 48 --cell gru --hidden 64 --checkpoint load.ckpt --out load.onnx
  rillcast train cpu.jsonl --freq 5min --horizon 36 --season 288 --quantiles 0.05,0.5,0.95 --out cpu.onnx --json
  rillcast train shops.csv --id-column shop --time-column day --value-column sold --freq 1d --horizon 7 --out s.onnx
  rillcast train sales.csv --freq 1d --horizon 14 --covariate promo:known --covariate shop:category --out sales.onnx
  rillcast train load.csv --init universal:1h --horizon 24 --out load.onnx
  rillcast train --from-topic --config rillcast.toml --freq 5min --horizon 36 --hold-out 288 --out candidate.onnx
  rillcast train --from-topic --freq 1d --horizon 14 --covariate promo:known --covariate shop:category --out s.onnx
  rillcast train --synthetic --freq 15min --horizon 96 --out pretrained.onnx

The data are in long format, columns unique_id, ds, y unless options say otherwise, or a built-in data set by name
(`rillcast data list`); .csv and .jsonl may be gzipped. Ctrl-C ends with exit code 130;
with --checkpoint, the same command then goes on after the last whole epoch.
With --from-topic they are what the input topic retains when the reading begins, as the settings name and describe it
(--config, rillcast.toml, RILLCAST_KAFKA__BOOTSTRAP_SERVERS, ...); the table is kept for `rillcast evaluate`.
"""
_SYNTHETIC: Final = 2_000
_SHAPE: Final = ("covariate", "cell", "hidden", "layers", "season", "context", "max_gap", "no_calendar")
_CELLS: Final = ("elman", "gru", "lstm", "mingru", "slstm", "lru")  # docs/recurrence.md compares them


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    data_flags.add(parser, optional=True)
    topic = parser.add_argument_group("data from the input topic")
    topic.add_argument("--from-topic", action="store_true", help="train on the input topic in place of DATA")
    topic.add_argument("--config", type=Path, metavar="FILE", help="settings file (default: rillcast.toml, if there)")
    topic.add_argument("--events", type=int, metavar="N", help="only the last N records of each partition")
    topic.add_argument("--table", type=Path, metavar="FILE", help="where the table is kept (default: OUT.parquet)")
    parser.add_argument(
        "--hold-out", type=int, default=0, metavar="SLOTS", help="leave the newest SLOTS slots for `rillcast evaluate`"
    )
    parser.add_argument(
        "--synthetic",
        type=int,
        nargs="?",
        const=_SYNTHETIC,
        default=0,
        metavar="SERIES",
        help=f"pretrain on so many synthetic series, beside DATA if there is any (default: {_SYNTHETIC})",
    )
    parser.add_argument(
        "--init", type=Path, metavar="MODEL", help="train a bundle further, or a shipped one: universal:1h"
    )
    parser.add_argument("--out", type=Path, required=True, help="bundle to write")
    parser.add_argument("--freq", help="length of a slot: 1h, 30min, 1d, 1mo, ... (with --init: its own)")
    parser.add_argument("--horizon", type=int, help="slots to forecast (with --init: its own)")
    parser.add_argument(
        "--covariate",
        type=_covariate,
        action="append",
        default=[],
        metavar="NAME:KIND",
        help="a column that is an input too: past, known (also in the rows ahead), static or category; repeatable",
    )
    model = parser.add_argument_group("model")
    model.add_argument("--cell", choices=_CELLS, help="recurrent cell (default: gru)")
    model.add_argument("--hidden", type=int, help="width of a layer (default: 64)")
    model.add_argument("--layers", type=int, help="recurrent layers (default: 1)")
    model.add_argument("--quantiles", type=_levels, help="levels, comma-separated (default: 0.1,0.2,...,0.9)")
    model.add_argument("--season", type=_slots, metavar="SLOTS[,SLOTS]", help="seasons (default: by frequency)")
    model.add_argument("--context", type=int, help="slots in the lag window (default: by season)")
    model.add_argument("--max-gap", type=int, help="a longer gap starts a stream anew (default: the context)")
    model.add_argument("--no-calendar", action="store_true", help="positions in day, week and year are no inputs")
    model.add_argument("--name", help="name in the bundle (default: that of the file)")
    fitting = parser.add_argument_group("training")
    fitting.add_argument("--epochs", type=int, default=30, help="at most (default: 30)")
    fitting.add_argument("--batches", type=int, default=40, help="batches per epoch (default: 40)")
    fitting.add_argument("--batch", type=int, default=32, help="windows per batch (default: 32)")
    fitting.add_argument("--window", type=int, default=128, help="events in a window (default: 128)")
    fitting.add_argument("--lr", type=float, default=3e-3, help="peak learning rate (default: 0.003)")
    fitting.add_argument("--dropout", type=float, default=0.1, help="share of inputs left out (default: 0.1)")
    fitting.add_argument("--patience", type=int, default=10, help="epochs without a gain to stop after (default: 10)")
    fitting.add_argument("--validation", type=float, default=0.1, help="share at each series' end (default: 0.1)")
    fitting.add_argument("--balance", type=float, default=0.0, help="0: series count alike; 1: by size (default: 0)")
    refit = fitting.add_mutually_exclusive_group()
    refit.add_argument("--refit", action="store_true", help="then train on all data, for the epochs that were best")
    refit.add_argument(
        "--refit-if-stopped", action="store_true", help="the same, only where the patience ended the run"
    )
    fitting.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    compute_flags.add(fitting)
    fitting.add_argument("--checkpoint", type=Path, help="written every epoch, resumed from if it exists")
    parser.add_argument("--json", action="store_true", help="one JSON object with the figures")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Train and print the figures."""
    from rillcast_training.fit.allocator import keep_freed_memory
    from rillcast_training.fit.options import DEFAULT_QUANTILES, TrainOptions
    from rillcast_training.fit.training import train

    keep_freed_memory()
    start = _start(args)
    if args.hold_out < 0:
        raise SettingsError(f"--hold-out {args.hold_out}: takes a number of slots")
    options = TrainOptions(
        data=_data(args, start),
        hold_out=args.hold_out,
        columns=data_flags.columns(args),
        covariates=tuple(args.covariate),
        synthetic=args.synthetic,
        init=args.init,
        freq=args.freq if args.freq is not None or start is None else start.freq,
        horizon=args.horizon if args.horizon is not None or start is None else start.horizon,
        out=args.out,
        cell=args.cell or "gru",
        hidden=64 if args.hidden is None else args.hidden,
        layers=1 if args.layers is None else args.layers,
        quantiles=args.quantiles or (start.quantiles if start else DEFAULT_QUANTILES),
        seasons=args.season,
        context=args.context,
        max_gap=args.max_gap,
        calendar=not args.no_calendar,
        epochs=args.epochs,
        batches=args.batches,
        batch=args.batch,
        window=args.window,
        lr=args.lr,
        dropout=args.dropout,
        patience=args.patience,
        validation=args.validation,
        balance=args.balance,
        refit=args.refit,
        refit_if_stopped=args.refit_if_stopped,
        seed=args.seed,
        threads=args.threads,
        device=args.device,
        precision=args.precision,
        name=args.name,
        checkpoint=args.checkpoint,
        quiet=args.quiet,
    )
    try:
        report = train(options)
    except KeyboardInterrupt:
        if args.checkpoint is not None and args.checkpoint.exists():
            print(f"the best so far is in {args.checkpoint}; the same command goes on from there", file=sys.stderr)
        raise
    if args.json:
        print(json.dumps(report.to_dict()))
        return 0
    figures, training = report.figures, report.training
    again = f", then {training['best_epoch']} on all data" if training["refit"] else ""
    print(f"{report.model}: {report.model_id}, epoch {training['best_epoch']} of {training['epochs']}{again}")
    print(f"  trained       {training['observations']:,} observations, {training['seconds']:.0f} s, "
          f"{training['device']}, {training['precision']}")  # fmt: skip
    print(f"  validation    MASE {figures['mase']:.3f} (seasonal naive {figures['seasonal_naive_mase']:.3f})")
    print(f"                WQL {figures['wql']:.4f} (seasonal naive {figures['seasonal_naive_wql']:.4f})")
    print(f"                coverage {figures['coverage']:.3f} (nominal {figures['nominal_coverage']:.3f})")
    print(f"  parity        {report.parity:.1e} at worst, between the file and the trained module")
    print(f"  curve         {report.curve}")
    return 0


def _data(args: argparse.Namespace, start: BundleMetadata | None) -> Path | None:
    """Return the file or data set to train on; that of the input topic is written now.

    Raises:
        SettingsError: flags contradict each other, or the settings name no topic.
    """
    if not args.from_topic:
        if lone := [f"--{name}" for name in ("config", "events", "table") if getattr(args, name) is not None]:
            raise SettingsError(f"{', '.join(lone)}: only with --from-topic")
        data: Path | None = args.data
        return data
    if args.data is not None:
        raise SettingsError(f"{args.data}: --from-topic takes the place of DATA; leave one of them")
    if data_flags.columns(args) is not None:
        raise SettingsError("--from-topic: the settings input.fields name what holds stream, time and observation")
    if args.events is not None and args.events < 1:
        raise SettingsError(f"--events {args.events}: takes at least 1")
    from rillcast import settings
    from rillcast.cli import topic_table

    path: Path = args.table or args.out.with_name(f"{args.out.name}.parquet")
    if path.suffix != ".parquet":
        raise SettingsError(f"--table {path}: expected a name that ends with .parquet")
    covariates = [(one.name, one.kind) for one in start.covariates] if start is not None else args.covariate
    horizon = args.horizon if args.horizon is not None or start is None else start.horizon
    taken = topic_table.write(settings.load(args.config), path, args.events, covariates, horizon)
    print(taken.told(path), file=sys.stderr)
    return path


def _start(args: argparse.Namespace) -> BundleMetadata | None:
    """Return what the bundle to train further says of itself, if one is named.

    Raises:
        SettingsError: a flag is missing without it, or contradicts it.
    """
    if args.init is None:
        if lacking := [f"--{name}" for name in ("freq", "horizon") if getattr(args, name) is None]:
            raise SettingsError(f"{' and '.join(lacking)} must be given (only --init brings its own)")
        return None
    given = [f"--{name.replace('_', '-')}" for name in _SHAPE if getattr(args, name) not in (None, False, [])]
    if given:
        raise SettingsError(f"{', '.join(given)} cannot be changed with --init: the weights have that shape already")
    return Bundle.load(args.init).metadata


def _covariate(text: str) -> tuple[str, Kind]:
    name, _, kind = text.rpartition(":")
    if not name or kind not in KINDS:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME:KIND, KIND one of {', '.join(KINDS)}")
    return name, kind


def _levels(text: str) -> tuple[float, ...]:
    return tuple(float(level) for level in text.split(","))


def _slots(text: str) -> tuple[int, ...]:
    return tuple(int(slots) for slots in text.split(","))
