"""`rillcast backtest`: an exported bundle through the serving engine, scored."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Final

HELP: Final = "score an exported bundle on a data set, run as in production"
EXAMPLES: Final = """\
examples:
  rillcast backtest model.onnx data.csv                     # origins over the last fifth of each series
  rillcast backtest model.onnx test.csv --train train.csv   # origins from the end of the training data on
  rillcast backtest model.onnx data.parquet --stride 24 --json --forecasts forecasts.parquet

The bundle runs through the serving engine, event by event; PyTorch is not used. docs/accuracy.md defines the figures.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", type=Path, help="bundle (.onnx)")
    parser.add_argument("data", type=Path, help="unique_id, ds, y as .csv, .jsonl or .parquet")
    parser.add_argument("--train", type=Path, help="what came before DATA: stepped first, not scored")
    parser.add_argument("--test-fraction", type=float, default=0.2, help="scored share without --train (default: 0.2)")
    parser.add_argument("--stride", type=int, help="slots between origins (default: the horizon)")
    parser.add_argument("--forecasts", type=Path, help="write unique_id, origin, step, q, value as Parquet")
    parser.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto", help="where to run")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Score and print, beside the seasonal-naive forecast."""
    from pipeline import device
    from pipeline.bundle import Bundle
    from pipeline.engine import StepEngine
    from training.backtest import backtest, check_trained_for
    from training.data import load

    bundle = Bundle.load(args.model)
    check_trained_for(bundle)
    metadata = bundle.metadata
    result = backtest(
        StepEngine(bundle, device.choose(args.device), batch_rows=1_024),
        load(args.data, metadata.freq),
        train=load(args.train, metadata.freq) if args.train else (),
        test_fraction=args.test_fraction,
        stride=args.stride,
    )
    if args.forecasts:
        result.write_forecasts(args.forecasts)
    figures = result.model.as_dict()
    if args.json:
        document = {"model": f"{metadata.name}@{metadata.model_id}", **figures, "origins": len(result.unique_ids)}
        document["seasonal_naive"] = result.seasonal_naive.as_dict()
        document |= {"events": result.events, "engine_seconds": result.seconds}
        print(json.dumps(document))
        return 0
    print(f"{metadata.name}@{metadata.model_id}: {len(result.unique_ids)} origins, {result.model.targets:,} targets")
    print(comparison({"model": figures, "seasonal naive": result.seasonal_naive.as_dict()}))
    print(f"{result.events:,} events in {result.seconds:.1f} s of engine time")
    return 0


def comparison(rows: dict[str, dict[str, float]]) -> str:
    """Return a table of figures, one row per forecaster."""
    width = max(map(len, rows))
    lines = [f"{'':<{width}}  {'MASE':>8} {'sMAPE':>8} {'WQL':>8} {'coverage':>9}"]
    for name, figures in rows.items():
        lines.append(
            f"{name:<{width}}  {figures['mase']:>8.3f} {figures['smape']:>8.2f} {figures['wql']:>8.4f} "
            f"{figures['coverage']:>9.3f}"
        )
    nominal = next(iter(rows.values()))["nominal_coverage"]
    lines.append(f"(coverage of the outer interval, nominal {nominal:.3f}; lower is better for the rest)")
    return "\n".join(lines)
