"""The bundles that ship with the package: how they are pretrained, and how they are exported again.

    python -m rillcast_training.research.universal pretrain [FREQ ...]    # from nothing, into pipeline/rillcast
    python -m rillcast_training.research.universal export [FREQ ...]      # the same weights through today's exporter

Owns: which frequencies have one, and their shape and budget. Does not know: the generator, the loop, the exporter.

There is one bundle per frequency, because seasons and lag window are the shape of a graph: weights for an hour's day of
24 periods mean nothing for a week of 7. They train on synthetic series alone, so they have never seen the real data
that judge them. The calendar is no input: a synthetic series has no reason to be high at noon.

An export takes seconds. It is repeated whenever the step's graph, its state or its outputs change.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rillcast.bundle.bundle import Bundle
from rillcast.bundle.shipped import FOLDER
from rillcast.errors import RillcastError
from rillcast_training.export.bundle import export
from rillcast_training.export.restore import restore
from rillcast_training.fit.allocator import keep_freed_memory
from rillcast_training.fit.options import TrainOptions
from rillcast_training.fit.training import TrainReport, train

MAX_BYTES: Final = 2_000_000
"""No shipped bundle is larger."""


@dataclass(frozen=True, slots=True)
class Pretraining:
    """Shape and budget of one shipped bundle.

    Attributes:
        freq: Frequency.
        horizon: Periods that it forecasts.
        context: Periods in the lag window; None = by frequency. The tables in the graph grow with its square.
        max_gap: Longest gap, in periods, that keeps the state of a stream; the shift table in the graph grows with it.
        rounds: Trainings in sequence, each on its own synthetic series, from the weights of the previous one.
        epochs: Passes of `batches` batches in each round.
        batches: Batches per epoch.
        series: Synthetic series in each round.
    """

    freq: str
    horizon: int
    context: int | None = None
    max_gap: int | None = None
    rounds: int = 1
    epochs: int = 4
    batches: int = 60
    series: int = 800

    def options(self, out: Path, number: int = 0, *, threads: int = 1, checkpoint: Path | None = None) -> TrainOptions:
        """Return the training run of a round; later rounds continue from the bundle at `out`."""
        return TrainOptions(
            init=out if number else None,
            seed=number,
            synthetic=self.series,
            freq=self.freq,
            horizon=self.horizon,
            context=self.context,
            max_gap=self.max_gap,
            out=out,
            name=f"universal-{self.freq}",
            calendar=False,
            dropout=0.0,
            epochs=self.epochs,
            batches=self.batches,
            batch=48,
            origins=48,
            patience=self.epochs,
            threads=threads,
            checkpoint=checkpoint,
        )


SHIPPED: Final = {
    one.freq: one
    for one in (
        Pretraining("1min", 60),
        Pretraining("5min", 36, context=300, max_gap=96),
        Pretraining("15min", 96, rounds=2, max_gap=96),
        Pretraining("30min", 48, rounds=2, max_gap=96),
        Pretraining("1h", 48, rounds=2, epochs=5, batches=70, series=1_200),
        Pretraining("1d", 28),
        Pretraining("1w", 13),
        Pretraining("1mo", 12),
    )
}
"""Every shipped bundle by frequency."""


def pretrain(freq: str, *, folder: Path = FOLDER, threads: int = 1, checkpoint: Path | None = None) -> TrainReport:
    """Train the bundle of a frequency, round by round, and write it to `folder`.

    Args:
        freq: A key of `SHIPPED`.
        folder: Folder of the bundle, `<freq>.onnx`.
        threads: CPU threads.
        checkpoint: State of the current round, as `<checkpoint>.<round>`; resumed from if it exists.
    """
    plan, path = SHIPPED[freq], folder / f"{freq}.onnx"
    reports = []
    for number in range(plan.rounds):
        own = checkpoint.with_name(f"{checkpoint.name}.{number}") if checkpoint is not None else None
        reports.append(train(plan.options(path, number, threads=threads, checkpoint=own)))
    return reports[-1]


def export_again(path: Path) -> str:
    """Export the module of a bundle again, replace the bundle, and return the new model id.

    Raises:
        DataError: it has no module.
        ParityError: today's exported graph differs from the module; the file is unchanged.
    """
    old = Bundle.load(path).metadata
    export(restore(path), path, name=old.name, training=old.training, backtest=old.backtest)
    return Bundle.load(path).metadata.model_id


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m rillcast_training.research.universal", description="Make the shipped bundles."
    )
    parser.add_argument("what", choices=("pretrain", "export"))
    parser.add_argument("freq", nargs="*", metavar="FREQ", help=f"of {', '.join(SHIPPED)} (default: all)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder of the bundles (default: in the package)")
    parser.add_argument("--checkpoints", type=Path, help="folder with the state of interrupted runs")
    args = parser.parse_args(argv)
    if unknown := sorted(set(args.freq) - set(SHIPPED)):
        parser.error(f"no bundle is shipped for {', '.join(unknown)}; choose from {', '.join(SHIPPED)}")
    keep_freed_memory()
    try:
        for freq in args.freq or SHIPPED:
            path = args.folder / f"{freq}.onnx"
            if args.what == "pretrain":
                checkpoint = args.checkpoints / f"{freq}.ckpt" if args.checkpoints else None
                report = pretrain(freq, folder=args.folder, checkpoint=checkpoint)
                print(f"{path}: {report.model_id}, validation MASE {report.figures['mase']:.3f} "
                      f"(seasonal naive {report.figures['seasonal_naive_mase']:.3f})")  # fmt: skip
            else:
                print(f"{path}: {export_again(path)}")
            print(f"  {path.stat().st_size:,} bytes", flush=True)
    except RillcastError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
