"""`rillcast evaluate`: decide whether a candidate may replace the live model.

Owns: the arguments, the printed result, and the exit code. Does not know: how the two are compared
(`rillcast_training.evaluate.comparison`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from rillcast.cli import flags
from rillcast.cli.commands.backtest import comparison
from rillcast.errors import SettingsError
from rillcast.figures import to_json

if TYPE_CHECKING:
    from rillcast.bundle.bundle import Bundle
    from rillcast_training.data.series import Series
    from rillcast_training.evaluate.comparison import Comparison

EXAMPLES: Final = """\
examples:
  rillcast evaluate candidate.onnx --against s3://bucket/models@live data.parquet --hold-out 168
  rillcast evaluate candidate.onnx --against live.onnx recent.csv --tolerance 0.01 --json

Both bundles run through the serving engine, event by event, and are scored on the newest --hold-out periods of
DATA. Neither should have been trained on these (`rillcast train --hold-out`). Earlier events are stepped first.

Exit codes: 0 the candidate may be promoted, 7 it may not, 2 settings or data, 3 a model or the registry, 5 the registry
does not answer.
"""
REFUSED: Final = 7


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("candidate", type=flags.path_text, metavar="CANDIDATE", help="bundle (.onnx), or REGISTRY@NAME")
    parser.add_argument(
        "--against", type=flags.path_text, required=True, metavar="LIVE", help="bundle that serves, or REGISTRY@live"
    )
    flags.add_data(parser)
    scored = parser.add_mutually_exclusive_group()
    scored.add_argument("--hold-out", type=int, metavar="PERIODS", help="newest periods of the data to score")
    scored.add_argument(
        "--test-fraction",
        type=float,
        default=0.2,
        help="share of each series to score, without --hold-out (default: 0.2)",
    )
    parser.add_argument("--stride", type=int, help="periods between origins (default: the number of scored steps)")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="allowed increase of WQL; 0.01 = 1 %% (default: 0)",
    )
    parser.add_argument(
        "--coverage-tolerance",
        type=float,
        default=0.05,
        metavar="X",
        help="allowed difference between coverage and nominal coverage (default: 0.05)",
    )
    parser.add_argument(
        "--calibration", choices=["on", "off"], default="on", help="setting `calibration` (default: on)"
    )
    parser.add_argument(
        "--bounds", choices=["auto", "none"], default="auto", help="setting `publish.bounds` (default: auto)"
    )
    flags.add_device(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Compare, print, and return the verdict."""
    if args.tolerance < 0 or args.coverage_tolerance < 0:
        raise SettingsError(
            f"--tolerance {args.tolerance}, --coverage-tolerance {args.coverage_tolerance}: expected at least 0"
        )
    from rillcast import settings
    from rillcast.bundle.bundle import Bundle
    from rillcast.bundle.registry import reference
    from rillcast.engine import device
    from rillcast_training.evaluate.comparison import Tolerances, backtest_both, compare

    cache = settings.load().model_cache
    candidate, live = (Bundle.load(reference.locate(model, cache)) for model in (args.candidate, args.against))
    results = backtest_both(
        candidate,
        live,
        device.choose(args.device),
        partial(_data, args),
        test_fraction=args.test_fraction,
        stride=args.stride,
        calibrate=args.calibration == "on",
        bounds=args.bounds == "auto",
    )
    found = compare(*results, Tolerances(args.tolerance, args.coverage_tolerance))
    if args.json:
        print(to_json(_document(candidate, live, found)))
    else:
        _print(candidate, live, found)
    return 0 if found.may_be_promoted else REFUSED


def _data(args: argparse.Namespace, bundle: Bundle) -> tuple[Sequence[Series], Sequence[Series]]:
    """Return the series to step first, and the series to score."""
    from rillcast_training.data.series import load, newest

    metadata = bundle.metadata
    series = load(args.data, metadata.freq, flags.columns(args), metadata.covariates)
    if args.hold_out is None:
        return (), series
    seen, scored = newest(series, args.hold_out)
    longest = max(int(one.periods[-1] - one.periods[0]) + 1 for one in seen)
    if longest < metadata.context:
        print(
            f"--hold-out {args.hold_out} leaves at most {longest} periods before those that are scored; "
            f"{_identity(bundle)} needs {metadata.context} to be warm",
            file=sys.stderr,
        )
    return seen, scored


def _identity(bundle: Bundle) -> str:
    return f"{bundle.metadata.name}@{bundle.metadata.model_id}"


def _document(candidate: Bundle, live: Bundle, found: Comparison) -> dict[str, Any]:
    return {
        "may_be_promoted": found.may_be_promoted,
        "reasons": list(found.reasons),
        "candidate": {"model": _identity(candidate), **found.candidate.as_dict()},
        "live": {"model": _identity(live), **found.live.as_dict()},
        "skill": {figure: asdict(one) for figure, one in found.skill.items()},
        "steps": found.steps,
        "levels": list(found.levels),
        "origins": found.origins,
    }


def _print(candidate: Bundle, live: Bundle, found: Comparison) -> None:
    print(f"candidate {_identity(candidate)} against {_identity(live)}")
    print(f"{found.origins} origins, {found.steps} steps, {found.candidate.targets:,} targets")
    print(comparison({"candidate": found.candidate.as_dict(), "live": found.live.as_dict()}))
    print(f"skill of the candidate by WQL, with a 95 % interval over series: {found.skill['wql'].shown()}")
    if found.may_be_promoted:
        print("the candidate may be promoted")
    for reason in found.reasons:
        print(f"the candidate may not be promoted: {reason}")
