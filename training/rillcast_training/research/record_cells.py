"""One run per cell on the same data, and the table of docs/recurrence.md.

Owns: the comparison's protocol and the table's form. Does not know: how a model is trained or scored.

A cell whose result is in the working directory is not trained again. So an interrupted comparison continues where it
stopped, and one more cell costs one more run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from rillcast.bundle.bundle import Bundle
from rillcast.bundle.frequency import parse
from rillcast.engine import device
from rillcast.engine.batcher import Batching
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import RillcastError
from rillcast_training.data.series import load
from rillcast_training.evaluate.backtest import backtest
from rillcast_training.fit.allocator import keep_freed_memory
from rillcast_training.fit.options import TrainOptions
from rillcast_training.fit.training import train
from rillcast_training.model.cells import CELLS

_BEGIN: Final = "<!-- cells: begin -->"
_END: Final = "<!-- cells: end -->"
_STEP_BATCH: Final = 1_024
_TEST_SHARE: Final = 0.2


def main(argv: Sequence[str] | None = None) -> int:
    """Train, score and tabulate."""
    args = _parser().parse_args(argv)
    args.workdir.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    try:
        train_file, test_file = (args.data, args.test) if args.test is not None else _split(args)
        results = [_result(name, train_file, test_file, args) for name in args.cells.split(",")]
    except RillcastError as error:
        print(f"record_cells: error: {error}", file=sys.stderr)
        return error.exit_code
    shown = table(results)
    if args.page is not None:
        text = args.page.read_text()
        before, rest = text.split(_BEGIN)
        args.page.write_text(f"{before}{_BEGIN}\n{shown}\n{_END}{rest.split(_END)[1]}")
    print(shown)
    return 0


def table(results: Sequence[dict[str, Any]]) -> str:
    """Return the results as a Markdown table, the seasonal-naive forecast last."""
    rows = [
        "| cell | parameters | state bytes | training, s | MASE | sMAPE | WQL | coverage of 80 % |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows += [
        f"| `{one['cell']}` | {one['parameters']:,} | {one['state_bytes']:,} | {one['seconds']:.0f} | "
        f"{_figures(one['model'])} |"
        for one in results
    ]
    rows.append(f"| seasonal naive | | | | {_figures(results[0]['seasonal_naive'])} |")
    return "\n".join(rows)


def _figures(figures: dict[str, float]) -> str:
    return f"{figures['mase']:.3f} | {figures['smape']:.2f} | {figures['wql']:.4f} | {figures['coverage']:.3f}"


def _split(args: argparse.Namespace) -> tuple[Path, Path]:
    """Write the data up to their last fifth, and that fifth, as separate files: the scored part is not trained on."""
    paths = args.workdir / "train.parquet", args.workdir / "test.parquet"
    series, start_of = load(args.data, args.freq), parse(args.freq).start_of
    cut = np.quantile(np.concatenate([one.periods for one in series]), 1 - _TEST_SHARE)
    for path, early in zip(paths, (True, False), strict=True):
        frames = []
        for one in series:
            rows = (one.periods <= cut) == early
            frames.append(pl.DataFrame({"ds": start_of(one.periods[rows]), "y": one.y[rows].astype(np.float64)}))
            frames[-1] = frames[-1].with_columns(pl.lit(one.unique_id).alias("unique_id"))
        pl.concat(frames).write_parquet(path)
    return paths


def _result(name: str, train_file: Path, test_file: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return one cell's figures, from the working directory if it has them."""
    kept = args.workdir / f"{name}.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    model = args.workdir / f"{name}.onnx"
    started = time.perf_counter()
    report = train(
        TrainOptions(
            data=train_file,
            freq=args.freq,
            horizon=args.horizon,
            out=model,
            experts=False,
            cell=name,
            hidden=args.hidden,
            layers=args.layers,
            epochs=args.epochs,
            batches=args.batches,
            batch=args.batch,
            window=args.window,
            seed=args.seed,
            checkpoint=args.workdir / f"{name}.ckpt",
            quiet=True,
        )
    )
    print(f"{name}: trained and exported in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    bundle = Bundle.load(model)
    scored = backtest(
        StepEngine(bundle, device.Device("cpu"), batching=Batching(_STEP_BATCH)),
        load(test_file, args.freq),
        train=load(train_file, args.freq),
    )
    result = {
        "cell": name,
        "parameters": report.training["parameters"],
        "state_bytes": bundle.metadata.row_bytes,
        "seconds": report.training["seconds"],
        "model": scored.model.as_dict(),
        "seasonal_naive": scored.seasonal_naive.as_dict(),
    }
    kept.write_text(json.dumps(result))
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rillcast_training.research.record_cells", description="Compare cells on one data set."
    )
    parser.add_argument("data", type=Path, help="training data: a file, or the name of a built-in data set")
    parser.add_argument("--test", type=Path, help="the data after DATA (default: the last fifth of DATA is held out)")
    parser.add_argument("--freq", required=True, help="length of a period")
    parser.add_argument("--horizon", type=int, required=True, help="periods to forecast")
    parser.add_argument("--cells", default=",".join(CELLS), help=f"default: {','.join(CELLS)}")
    parser.add_argument("--workdir", type=Path, required=True, help="folder for bundles and results")
    parser.add_argument("--page", type=Path, help="page whose table is replaced")
    for name, default in (
        ("hidden", 64),
        ("layers", 1),
        ("epochs", 30),
        ("batches", 40),
        ("batch", 32),
        ("window", 128),
        ("seed", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default: {default}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
