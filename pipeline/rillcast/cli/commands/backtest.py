"""`rillcast backtest`: score an exported bundle in the serving engine."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from rillcast import outputs
from rillcast.bundle import trained_aggregate
from rillcast.cli import flags
from rillcast.errors import SettingsError
from rillcast.figures import reasons_of, shown, to_json

if TYPE_CHECKING:
    from rillcast.bundle.bundle import BundleMetadata
    from rillcast_training.data.columns import Aggregate
    from rillcast_training.evaluate.accuracy import Floats
    from rillcast_training.evaluate.backtest import Backtest
    from rillcast_training.evaluate.skill import Skill

EXAMPLES: Final = """\
examples:
  rillcast backtest model.onnx data.csv                     # origins over the last fifth of each series
  rillcast backtest model.onnx test.csv --train train.csv   # origins from the end of the training data on
  rillcast backtest model.onnx data.parquet --stride 24 --json --forecasts forecasts.parquet
  rillcast backtest model.onnx data.csv --steps 24          # only the first 24 steps of its horizon
  rillcast backtest model.onnx data.csv --baseline AutoETS --baseline MSTL --report report.html
  rillcast backtest model.onnx data.csv --baseline WindowAverage:window_size=24
  rillcast backtest model.onnx clicks.csv --aggregate count --close partition

The bundle runs through the serving engine, event by event; PyTorch is not used. docs/accuracy.md defines the figures.
"""
_NAIVE: Final = "seasonal naive"
_LAST: Final = "last value"
_COLUMNS: Final = {
    "mase": ("MASE", "8.3f"),
    "smape": ("sMAPE", "8.2f"),
    "wql": ("WQL", "8.4f"),
    "coverage": ("coverage", "9.3f"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", type=flags.path, help="bundle (.onnx)")
    flags.add_data(parser)
    parser.add_argument(
        "--train", type=flags.path, help="table of earlier data, of the same form: stepped first, not scored"
    )
    parser.add_argument(
        "--test-fraction", type=float, default=0.2, help="share of each series to score, without --train (default: 0.2)"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="steps ahead that are scored (default: the horizon)")
    parser.add_argument("--stride", type=int, help="periods between origins (default: the steps that are scored)")
    parser.add_argument(
        "--calibration", choices=["on", "off"], default="on", help="setting `calibration` (default: on)"
    )
    parser.add_argument(
        "--bounds", choices=["auto", "none"], default="auto", help="setting `publish.bounds` (default: auto)"
    )
    parser.add_argument(
        "--baseline",
        action="append",
        default=[],
        metavar="NAME[:ARGUMENT=VALUE,...]",
        help="model of statsforecast to compare with; repeatable",
    )
    parser.add_argument(
        "--forecasts", type=flags.path, help="Parquet file to write, with unique_id, origin, step, q, value"
    )
    parser.add_argument("--report", type=flags.path, help="HTML file to write, with figures and plots")
    flags.add_device(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Score and print, with the seasonal-naive forecast and the baselines to compare."""
    from rillcast.bundle.bundle import Bundle
    from rillcast.engine import device
    from rillcast.engine.batcher import Batching
    from rillcast.engine.step_engine import StepEngine
    from rillcast_training.data.series import load
    from rillcast_training.evaluate import baselines
    from rillcast_training.evaluate.backtest import backtest, check_trained_for
    from rillcast_training.evaluate.scored_part import learnt_from
    from rillcast_training.evaluate.skill import skills

    if args.forecasts:
        outputs.require_ending("--forecasts", args.forecasts, "Parquet", [".parquet"])
    if args.report:
        outputs.require_ending("--report", args.report, "HTML", [".html"], [".htm"])
    outputs.check(
        {"MODEL": args.model, "DATA": args.data, "--train": args.train},
        {"--forecasts": args.forecasts, "--report": args.report},
    )
    bundle, columns = Bundle.load(args.model), flags.columns(args)
    check_trained_for(bundle)
    metadata, given = bundle.metadata, flags.aggregate(args)
    if given is not None and (why := trained_aggregate.contradiction(metadata, given.kind)) is not None:
        raise SettingsError(f"--aggregate {given.kind}: {why}")
    for name in args.baseline:
        baselines.check(name)
    engine = StepEngine(
        bundle,
        device.choose(args.device),
        batching=Batching(1_024),
        calibrate=args.calibration == "on",
        bounds=args.bounds == "auto",
    )
    result = backtest(
        engine,
        load(args.data, metadata.freq, columns, metadata.covariates),
        train=load(args.train, metadata.freq, columns, metadata.covariates) if args.train else (),
        test_fraction=args.test_fraction,
        stride=args.stride,
        steps=args.steps,
    )
    learnt = learnt_from(metadata, result.origins_ms)
    if learnt is not None:
        print(f"rillcast: warning: {learnt.warning()}", file=sys.stderr)
    if (doubt := aggregate_doubt(metadata, given)) is not None:
        print(f"rillcast: warning: {doubt}", file=sys.stderr)
    others: dict[str, Floats] = {_NAIVE: result.naive, _LAST: result.last_value}
    for name in args.baseline:
        others[name] = baselines.forecast(
            name, result.history, horizon=result.actual.shape[1], levels=result.levels, season=metadata.season
        )
    own = result.score(result.forecast.astype("float64"))
    against = {name: skills(own, result.score(forecast)) for name, forecast in others.items()}
    if args.json:
        document = _document(metadata, result, others, against)
        print(to_json(document | {"learnt_from": None if learnt is None else asdict(learnt)}), flush=True)
    else:
        _print(metadata, result, others, against)
    if args.forecasts:  # after the figures, which a full disk must not cost
        result.write_forecasts(args.forecasts)
    if args.report:
        _write_report(args, metadata, result, others, against)
        if not args.json:
            print(f"report: {args.report}")
    return 0


def aggregate_doubt(metadata: BundleMetadata, given: Aggregate | None) -> str | None:
    """Return why events that are aggregated as the flags say may not fit the model; None = no doubt."""
    if given is None:
        return trained_aggregate.doubt(metadata, "none", "missing")
    return trained_aggregate.doubt(metadata, given.kind, given.resolved_empty)


def _print(
    metadata: BundleMetadata, result: Backtest, others: dict[str, Floats], against: dict[str, dict[str, Skill]]
) -> None:
    figures = {"model": result.model.as_dict()}
    figures |= {name: result.score(forecast).accuracy(result.levels).as_dict() for name, forecast in others.items()}
    steps = result.actual.shape[1]
    print(f"{metadata.name}@{metadata.model_id}: {len(result.unique_ids)} origins, {result.model.targets:,} targets")
    print("\n".join([*result.part.lines(), comparison(figures), scale_of(metadata, result, steps)]))
    for name, found in against.items():
        listed = ", ".join(f"{figure.upper()} {skill.shown()}" for figure, skill in found.items())
        print(f"skill against {name}, with 95 % intervals over series: {listed}")
    if result.tails is not None:
        print(result.tails.table())
    print(f"{result.events:,} events in {result.seconds:.1f} s of engine time", flush=True)


def comparison(rows: dict[str, dict[str, float]]) -> str:
    """Return a table of figures, one row per forecaster, and the reasons of figures without a value below it."""
    width = max(map(len, rows))
    lines = [f"{'':<{width}}  " + " ".join(f"{label:>{form[0]}}" for label, form in _COLUMNS.values())]
    lacking: dict[str, None] = {}
    for name, figures in rows.items():
        lines.append(f"{name:<{width}}  " + " ".join(shown(figures[key], form) for key, (_, form) in _COLUMNS.items()))
        lacking |= {f"({_COLUMNS[key][0]} -: {reason})": None for key, reason in reasons_of(figures) if key in _COLUMNS}
    nominal = next(iter(rows.values()))["nominal_coverage"]
    lines.append(f"(coverage of the outer interval, nominal {nominal:.3f}; lower is better for the rest)")
    return "\n".join([*lines, *lacking])


def scale_of(metadata: BundleMetadata, result: Backtest, steps: int) -> str:
    """Return what a MASE of 1 means, and how far ahead was scored."""
    season, without = metadata.season, result.model.series_without_scale
    unit = "a period" if season == 1 else f"a season of {season} periods"
    lacking = f"; {without:,} series have none and are left out of it" if without else ""
    return f"(MASE: errors over {steps} steps in units of the mean change over {unit} before the first origin{lacking})"


def _document(
    metadata: BundleMetadata, result: Backtest, others: dict[str, Floats], against: dict[str, dict[str, Skill]]
) -> dict[str, Any]:
    """Return everything as values for `to_json`."""
    own = result.diagnose(result.forecast.astype("float64")).as_dict()
    document: dict[str, Any] = {"model": f"{metadata.name}@{metadata.model_id}", **result.model.as_dict()}
    document |= {"origins": len(result.unique_ids), "horizon": result.actual.shape[1], "season": result.season}
    document |= {"part": result.part.as_dict(), "seasonal_naive": result.seasonal_naive.as_dict()}
    document["last_value"] = result.score(result.last_value).accuracy(result.levels).as_dict()
    document["baselines"] = {
        name: result.score(forecast).accuracy(result.levels).as_dict()
        for name, forecast in others.items()
        if name not in (_NAIVE, _LAST)
    }
    document["skill"] = {
        name.replace(" ", "_"): {
            figure: {"skill": one.skill, "low": one.low, "high": one.high} for figure, one in found.items()
        }
        for name, found in against.items()
    }
    document |= {"calibration": own["levels"], "intervals": own["intervals"], "steps": own["steps"]}
    if result.tails is not None:
        document["beyond_anomaly"] = {"events": result.tails.events, "shares": result.tails.shares()}
    return document | {"events": result.events, "engine_seconds": result.seconds}


def _write_report(
    args: argparse.Namespace,
    metadata: BundleMetadata,
    result: Backtest,
    others: dict[str, Floats],
    against: dict[str, dict[str, Skill]],
) -> None:
    from rillcast_training.evaluate.report import Compared, Page, write

    forecasts = {metadata.name: result.forecast.astype("float64"), **others}
    forecasters = [
        Compared(name, result.score(forecast).accuracy(result.levels), result.diagnose(forecast), forecast)
        for name, forecast in forecasts.items()
    ]
    facts = {
        "model": f"{metadata.name}@{metadata.model_id} ({metadata.cell}, {metadata.freq}, {metadata.horizon} steps)",
        "data": f"{args.data.name}" + (f", after {args.train.name}" if args.train else ""),
        "origins": f"{len(result.unique_ids):,}, {result.model.targets:,} targets, {result.model.series:,} series",
        "calibration": args.calibration,
        "engine": f"{result.events:,} events in {result.seconds:.1f} s",
    }
    write(
        Page(
            f"Backtest of {metadata.name}",
            facts,
            forecasters,
            against,
            result.unique_ids,
            result.history,
            result.actual,
            result.levels,
        ),
        args.report,
    )
