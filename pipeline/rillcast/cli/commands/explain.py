"""`rillcast explain`: the influences on a forecast, and how far back gradients reach."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rillcast import outputs
from rillcast.cli import flags
from rillcast.errors import SettingsError
from rillcast.figures import shown, to_json

if TYPE_CHECKING:
    from rillcast.bundle.bundle import Bundle
    from rillcast_training.explain.compare import GradientFigures
    from rillcast_training.explain.forecast import Explanation

EXAMPLES: Final = """\
examples:
  rillcast explain forecast model.onnx data.csv --stream web-17/cpu --at 2024-05-01T12:00:00Z
  rillcast explain forecast model.onnx data.csv --stream web-17/cpu --quantile 0.9 --step 24 --json
  rillcast explain gradients gru.onnx lstm.onnx lru.onnx --data data.csv --out gradients.png

`forecast` attributes one forecast to past observations and to features (integrated gradients), and checks the result by
occlusion through the exported file. `gradients` compares how cells pass gradients back in time, on the same data.
Both need a bundle of `rillcast train`. Of a bundle of experts, as those that ship, `forecast` lists the weights of its
experts in words. See docs/explain.md.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    forecast = kinds.add_parser("forecast", help="attribute a forecast to past periods and features")
    forecast.add_argument("model", type=flags.path, help="bundle (.onnx)")
    flags.add_data(forecast)
    forecast.add_argument("--stream", required=True, help="unique_id of the stream")
    forecast.add_argument(
        "--at", metavar="TIME", help="explain the forecast of the last event until then (default: the last)"
    )
    forecast.add_argument("--quantile", type=float, help="level to explain (default: the middle one)")
    forecast.add_argument("--step", type=int, help="period ahead to explain, from 1 (default: the mean of all)")
    forecast.add_argument("--history", type=int, default=2_048, help="most past events to use (default: 2048)")
    forecast.add_argument("--occlude", type=int, help="newest observations to occlude (default: two contexts)")
    forecast.add_argument("--out", type=flags.path, help="picture (default: MODEL.forecast.png)")
    gradients = kinds.add_parser("gradients", help="compare norms of gradients through time, by cell")
    gradients.add_argument("models", type=flags.path, nargs="+", metavar="MODEL", help="bundles (.onnx)")
    gradients.add_argument(
        "--data", type=flags.path, required=True, help="table of unique_id, ds, y (.csv, .jsonl, .parquet)"
    )
    gradients.add_argument("--lags", type=int, default=168, help="steps back (default: 168)")
    gradients.add_argument("--streams", type=int, default=32, help="streams to use (default: 32)")
    gradients.add_argument(
        "--batches", type=int, default=8, help="training batches for the clipping; 0 = none (default: 8)"
    )
    gradients.add_argument("--seed", type=int, default=0, help="seed of the probes and batches (default: 0)")
    gradients.add_argument("--out", type=flags.path, help="picture (default: MODEL.gradients.png of the first)")
    flags.add_columns(gradients)
    for kind in (forecast, gradients):
        kind.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Explain and print."""
    return _forecast(args) if args.kind == "forecast" else _gradients(args)


def _forecast(args: argparse.Namespace) -> int:
    from rillcast.bundle.bundle import Bundle
    from rillcast.engine import device
    from rillcast_training.data.series import load
    from rillcast_training.explain.forecast import Target, explain
    from rillcast_training.explain.history import find, history_of, iso, period_of
    from rillcast_training.explain.pictures import draw_forecast
    from rillcast_training.export.restore import restore

    picture = None if args.out is None else _picture(args, "forecast", args.model)
    bundle = Bundle.load(args.model)
    if "experts" in bundle.metadata.training:  # which have no picture
        return _experts(args, bundle)
    picture = picture or _picture(args, "forecast", args.model)
    metadata, forecaster = bundle.metadata, restore(bundle)
    series = find(load(args.data, metadata.freq, flags.columns(args), metadata.covariates), args.stream)
    at = period_of(args.at, metadata.freq) if args.at is not None else None
    history = history_of(series, forecaster.config, at=at, limit=args.history)
    target = Target(_level(args.quantile, metadata.quantiles), _step(args.step, metadata.horizon))
    found = explain(
        forecaster,
        bundle,
        device.Device("cpu"),
        history,
        target,
        occlude=2 * metadata.context if args.occlude is None else args.occlude,
    )
    level = metadata.quantiles[target.quantile]
    origin = iso(history.periods[-1], metadata.freq)
    what = f"quantile {level:g}, " + (
        "mean of all periods ahead" if target.step is None else f"period {target.step} ahead"
    )
    document = {
        "model": f"{metadata.name}@{metadata.model_id}",
        "stream": history.unique_id,
        "at": origin,
        "events": len(history.periods),
        "events_left_out": history.longer,
        "quantile": level,
        "step": target.step,
        **_document(found),
        "picture": str(picture),
    }
    if args.json:
        print(to_json(document))
    else:
        _print_forecast(document, what)
    sys.stdout.flush()  # the figures, which a full disk must not cost
    draw_forecast(picture, found, title=f"{history.unique_id} at {origin}: {what}")
    return 0


def _experts(args: argparse.Namespace, bundle: Bundle) -> int:
    """Print the weights of a mixture; there is nothing to attribute, and no picture."""
    from rillcast_training.data.series import load
    from rillcast_training.explain.experts import explain_experts
    from rillcast_training.explain.history import find, iso, period_of

    given = {"--quantile": args.quantile, "--step": args.step, "--occlude": args.occlude, "--out": args.out}
    if lone := [flag for flag, value in given.items() if value is not None]:
        raise SettingsError(f"{', '.join(lone)}: not with a bundle of experts, whose weights are listed")
    metadata = bundle.metadata
    series = find(load(args.data, metadata.freq, flags.columns(args), metadata.covariates), args.stream)
    at = period_of(args.at, metadata.freq) if args.at is not None else None
    found = explain_experts(bundle, series, at=at, limit=args.history)
    document = {
        "model": f"{metadata.name}@{metadata.model_id}",
        "stream": series.unique_id,
        "at": iso(found.periods[-1], metadata.freq),
        "events": len(found.periods),
        "weights": [{"step": one.step, "shares": one.shares} for one in found.by_step],
        "network": [
            {"step": one.step, "share": one.share, "weights": moved, "median": one.median, "width": one.width}
            for one, moved in found.network
        ],
    }
    if args.json:
        print(to_json(document))
        return 0
    print(f"{document['stream']} at {document['at']}, {document['model']}, after {document['events']:,} events")
    network = [f"; {said.sentence()}, moves {100 * moved:.0f} % of the weights" for said, moved in found.network]
    for one, said in zip(found.by_step, network or [""] * len(found.by_step), strict=True):
        print(f"  {one.step:>4} ahead: {found.forecast[one.step - 1]:.6g} = {one.sentence()}{said}")
    return 0


def _document(found: Explanation) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "forecast": found.value,
        "forecast_of_the_file": found.served,
        "baseline": {"y": found.baseline_y, "forecast": found.baseline},
        "scale": found.scale,
        "slots": [asdict(period) for period in found.periods],
        "parts": found.parts,
        "features": found.features,
        "completeness": {
            name: {
                "explained": one.value - one.baseline,
                "sum": sum(float(part.double().sum()) for part in one.parts),
                "gap": one.gap,
                "points": one.points,
                "complete": one.complete,
            }
            for name, one in (("slots", found.by_period), ("features", found.by_feature))
        },
        "occlusion": {
            "slots": sum(period.occlusion is not None for period in found.periods),
            "correlation": found.correlation,
            "strongest_in_common": found.common,
        },
    }


def _print_forecast(document: dict[str, Any], what: str) -> None:
    baseline = document["baseline"]
    print(f"{document['stream']} at {document['at']}, {document['model']}: {what}")
    print(f"  forecast   {document['forecast']:.6g}; {baseline['forecast']:.6g} for a stream constant at its mean")
    for name, title in (("parts", "by path into the forecast"), ("features", "features, by group")):
        print(f"  {title}")
        for part, value in sorted(document[name].items(), key=lambda item: -abs(item[1])):
            print(f"    {part:<40} {value:>+12.5g}")
    print("  strongest periods                               added    occlusion")
    strongest = sorted(document["slots"], key=lambda one: -abs(one["attribution"]))[:10]
    for one in strongest:
        tested = "" if one["occlusion"] is None else f"{one['occlusion']:>+12.5g}"
        print(f"    {one['ds']}  lag {one['lag']:>5}  {one['attribution']:>+12.5g} {tested}")
    for name, one in document["completeness"].items():
        verdict = "complete" if one["complete"] else "NOT COMPLETE: read with care"
        print(f"  {name:<10} sum to {one['sum']:.6g} of {one['explained']:.6g} (gap {one['gap']:.2%}): {verdict}")
    occlusion = document["occlusion"]
    if occlusion["correlation"] is not None:
        print(
            f"  occlusion  of {occlusion['slots']} periods through the exported file: correlation "
            f"{shown(occlusion['correlation'], '.3f')}, "
            f"{occlusion['strongest_in_common']} of the 10 strongest in common"
        )
    if document["events_left_out"]:
        print(f"  {document['events_left_out']} earlier events were left out (--history)")
    print(f"  picture    {document['picture']}")


def _gradients(args: argparse.Namespace) -> int:
    from rillcast_training.explain.compare import compare
    from rillcast_training.explain.pictures import draw_gradients

    for name, least in (("lags", 1), ("streams", 1), ("batches", 0)):
        if getattr(args, name) < least:
            raise SettingsError(f"--{name} {getattr(args, name)}: expected at least {least}")
    picture = _picture(args, "gradients", *args.models)
    found = compare(
        args.models,
        args.data,
        flags.columns(args),
        lags=args.lags,
        streams=args.streams,
        batches=args.batches,
        seed=args.seed,
    )
    if args.json:
        print(to_json({"models": [one.to_dict() for one in found], "lags": args.lags, "picture": str(picture)}))
    else:
        _print_gradients(found, args.lags)
        print(f"picture: {picture}")
    sys.stdout.flush()  # the figures, which a full disk must not cost
    draw_gradients(
        picture,
        {one.name: (one.to_state, one.to_input) for one in found},
        {one.name: one.clipping for one in found if one.clipping is not None},
    )
    return 0


def _print_gradients(found: Sequence[GradientFigures], longest: int) -> None:
    print(f"norm of d output(T) / d input(T - k), relative to its largest; median of {found[0].streams} streams")
    lags = [k for k in (1, 2, 4, 8, 24, 48, 96, 168, 336, 672) if k <= longest]
    print(f"{'':<16} {'cell':<8}" + "".join(f"{f'k={k}':>9}" for k in lags) + "   below 1 %")
    for one in found:
        largest = max(one.to_input.median)
        norms = "".join(f"{one.to_input.median[k] / largest:>9.1e}" for k in lags)
        reach = one.to_input.reach
        print(f"{one.name:<16} {one.cell:<8}{norms}   {f'from k={reach}' if reach is not None else 'nowhere'}")
    clipped = [one for one in found if one.clipping is not None]
    if clipped:
        print("norm of the loss's gradient over training batches, and its clipping")
    for one in clipped:
        figures = one.clipping.to_dict() if one.clipping is not None else {}
        print(
            f"{one.name:<16} {one.cell:<8} median {figures['median']:.3g}, largest {figures['largest']:.3g}; "
            f"{figures['clipped_share']:.0%} above the bound of {figures['bound']:g}, "
            f"the median one keeps {figures['kept']:.0%} of its length"
        )


def _picture(args: argparse.Namespace, kind: str, *models: Path) -> Path:
    """Return the picture to write, once it is known that it can be."""
    picture: Path = args.out or models[0].with_name(f"{models[0].name}.{kind}.png")
    outputs.require_ending("--out", picture, "a picture", outputs.PICTURES, [".jpeg"])
    outputs.check({**{f"MODEL {n}": model for n, model in enumerate(models, 1)}, "DATA": args.data}, {"--out": picture})
    return picture


def _level(level: float | None, levels: tuple[float, ...]) -> int:
    if level is None:
        return min(range(len(levels)), key=lambda number: abs(levels[number] - 0.5))
    if level not in levels:
        raise SettingsError(f"--quantile {level:g}: the bundle has {', '.join(f'{one:g}' for one in levels)}")
    return levels.index(level)


def _step(step: int | None, horizon: int) -> int | None:
    if step is not None and not 1 <= step <= horizon:
        raise SettingsError(f"--step {step}: the bundle forecasts 1 to {horizon} periods ahead")
    return step
