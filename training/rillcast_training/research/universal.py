"""The bundles that ship with the package: `universal:<frequency>`, experts, and for some a network on top.

    python -m rillcast_training.research.universal [FREQ ...]    # into pipeline/rillcast, some 10 s each

Owns: which frequencies have one. Does not know: seasons, horizons and constants, which are the usual ones of
`rillcast universal export`, the exporter, or how a network is trained (`rillcast_training.research.pretraining`).

The files are a function of the code, of the weights of the network in the file of before, and of the versions of torch
and onnx: the same command writes the same bytes. It is repeated whenever the experts, their constants or the exporter
change; a test says when that is due.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rillcast.bundle.bundle import Bundle
from rillcast.bundle.shipped import FOLDER
from rillcast.errors import RillcastError
from rillcast_training.export.experts import write_experts
from rillcast_training.export.pretrained import pretrained
from rillcast_training.model.experts.config import ExpertsConfig
from rillcast_training.model.experts.defaults import default_horizon, default_seasons
from rillcast_training.model.experts.forecaster import ExpertForecaster

SHIPPED: Final = ("10s", "1min", "5min", "10min", "15min", "30min", "1h", "1d", "1w", "1mo", "3mo", "12mo")
"""Frequencies with a bundle in the package."""
MAX_BYTES: Final = 1_000_000
"""No shipped bundle is larger."""


def write(freq: str, folder: Path = FOLDER) -> Path:
    """Write the bundle of a frequency to `<folder>/<freq>.onnx`, and return its path.

    Raises:
        ParityError: the exported graph differs from the module; the file is unchanged.
        OutputError: the file cannot be written.
    """
    path = folder / f"{freq}.onnx"
    config = ExpertsConfig(freq=freq, horizon=default_horizon(freq), seasons=default_seasons(freq))
    name, network = f"universal-{freq}", pretrained(freq)
    if network is None:
        write_experts(ExpertForecaster(config), path, name=name)
    else:
        write_experts(network.on(config), path, name=name, training=network.training, backtest=network.figures)
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m rillcast_training.research.universal", description="Write the shipped bundles."
    )
    parser.add_argument("freq", nargs="*", metavar="FREQ", help=f"of {', '.join(SHIPPED)} (default: all)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder of the bundles (default: in the package)")
    args = parser.parse_args(argv)
    if unknown := sorted(set(args.freq) - set(SHIPPED)):
        parser.error(f"no bundle is shipped for {', '.join(unknown)}; choose from {', '.join(SHIPPED)}")
    try:
        for freq in args.freq or SHIPPED:
            path = write(freq, args.folder)
            metadata = Bundle.load(path).metadata
            print(
                f"{path}: {metadata.model_id}, {path.stat().st_size:,} bytes, {metadata.row_bytes:,} bytes of state",
                flush=True,
            )
    except RillcastError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
