"""`rillcast train`: from a data file to a bundle."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rillcast.bundle.bundle import Bundle, BundleMetadata
from rillcast.cli import flags
from rillcast.errors import SettingsError
from rillcast.figures import to_json

if TYPE_CHECKING:
    from rillcast.settings import InputSettings
    from rillcast_training.data.columns import Aggregate, Columns
    from rillcast_training.fit.kind import Kind
    from rillcast_training.fit.options import TrainOptions
    from rillcast_training.fit.training import TrainReport

EXAMPLES: Final = """\
examples:
  rillcast train sales.parquet --freq 1d --horizon 14 --out sales.onnx
  rillcast train load.csv.gz --freq 1h --horizon 48 --cell gru --hidden 64 --checkpoint load.ckpt --out load.onnx
  rillcast train cpu.jsonl --freq 5min --horizon 36 --season 288 --quantiles 0.05,0.5,0.95 --out cpu.onnx --json
  rillcast train shops.csv --id-column shop --time-column day --value-column sold --freq 1d --horizon 7 --out s.onnx
  rillcast train sales.csv --freq 1d --horizon 14 --covariate promo:known --covariate shop:category --out sales.onnx
  rillcast train load.csv --init last-month.onnx --horizon 24 --out load.onnx
  rillcast train --from-topic --config rillcast.toml --freq 5min --horizon 36 --hold-out 288 --out candidate.onnx
  rillcast train clicks.csv --aggregate count --freq 15min --horizon 96 --out clicks.onnx
  rillcast train --from-topic --freq 1d --horizon 14 --covariate promo:known --covariate shop:category --out s.onnx
  rillcast train --synthetic --freq 15min --horizon 96 --out pretrained.onnx

DATA is a table in long format, with the columns unique_id, ds, y unless flags name others, or the name of a built-in
data set (`rillcast data list`); .csv and .jsonl may be gzipped. --freq and --horizon are required without --init.
With --from-topic, the data are the events that the input topic retains at the start, as the settings describe it
(--config, rillcast.toml, RILLCAST_KAFKA__BOOTSTRAP_SERVERS, ...); the table is kept for `rillcast evaluate`.
--aggregate makes one observation of the events of each period, as input.aggregate does in the service; with
--from-topic the settings' input.aggregate is the default. The bundle remembers it.
Ctrl-C ends with exit code 130; with --checkpoint, the same command then continues after the last complete epoch.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    from rillcast_training.fit.options import TrainOptions

    flags.add_data(parser, optional=True)
    topic = parser.add_argument_group("data from the input topic")
    topic.add_argument("--from-topic", action="store_true", help="train on the input topic in place of DATA")
    topic.add_argument(
        "--config", type=flags.path, metavar="FILE", help="settings file (default: rillcast.toml if it exists)"
    )
    topic.add_argument("--events", type=int, metavar="N", help="only the last N records of each partition")
    topic.add_argument("--table", type=flags.path, metavar="FILE", help="file of the table (default: OUT.parquet)")
    flags.add_options(parser, TrainOptions, "train")
    parser.add_argument("--json", action="store_true", help="print one JSON object with the figures")


def run(args: argparse.Namespace) -> int:
    """Train and print the figures."""
    from rillcast_training.fit import parallel
    from rillcast_training.fit.allocator import keep_freed_memory
    from rillcast_training.fit.options import TrainOptions
    from rillcast_training.fit.training import train

    keep_freed_memory()
    given = flags.given(args, TrainOptions, "train")
    init = _init(given)
    if given.get("hold_out", 0) < 0:
        raise SettingsError(f"--hold-out {given['hold_out']}: expected a number of periods, at least 0")
    if init is not None:
        given = {"freq": init.freq, "horizon": init.horizon, "quantiles": init.quantiles} | given
    data, columns = _data(args, given, init)
    options = TrainOptions(data=data, columns=columns, **given)
    try:
        report = train(options, on_kind=say)
    except KeyboardInterrupt:
        if options.checkpoint is not None and options.checkpoint.exists() and parallel.is_first():
            print(
                f"the best epoch so far is in {options.checkpoint}; run the same command to continue", file=sys.stderr
            )
        raise
    if not parallel.is_first():
        return 0
    if args.json:
        print(to_json(report.to_dict()))
    else:
        _print(report)
        if (advice := _without_training(report.figures, options)) is not None:
            print(advice)
    return 0


def say(kind: Kind) -> None:
    """Say which kind of network is trained, where nobody asked for one alone and it is."""
    from rillcast_training.fit import parallel

    if kind.reason and parallel.is_first():
        print(f"rillcast: {kind}", file=sys.stderr)


def _without_training(figures: Mapping[str, float], options: TrainOptions) -> str | None:
    """Return the command that does without the network on experts, where it is no better in validation; else None."""
    if "experts_mase" not in figures or min(figures[name] / figures[f"experts_{name}"] for name in ("mase", "wql")) < 1:
        return None
    seasons = "" if options.seasons is None else f" --season {','.join(map(str, options.seasons))}"
    return (
        "  advice        the network is no better than the experts alone, which need no training: `rillcast universal "
        f"export --freq {options.freq} --horizon {options.horizon}{seasons} --out experts.onnx`"
    )


def _print(report: TrainReport) -> None:
    figures, training = report.figures, report.training
    again = f", then {training['best_epoch']} on all data" if training["refit"] else ""
    print(f"{report.model}: {report.model_id}, epoch {training['best_epoch']} of {training['epochs']}{again}")
    print(f"  network       {training['network']}")
    print(f"  trained       {training['observations']:,} observations, {training['seconds']:.0f} s, "
          f"{training['device']}, {training['precision']}")  # fmt: skip
    other, words = ("experts", "experts alone") if "experts_mase" in figures else ("seasonal_naive", "seasonal naive")
    print(f"  validation    MASE {figures['mase']:.3f} ({words} {figures[f'{other}_mase']:.3f})")
    print(f"                WQL {figures['wql']:.4f} ({words} {figures[f'{other}_wql']:.4f})")
    print(f"                coverage {figures['coverage']:.3f} (nominal {figures['nominal_coverage']:.3f})")
    print(f"  parity        {report.parity:.1e} at most, between the file and the trained module")
    print(f"  curve         {report.curve or 'not written'}")


def _data(
    args: argparse.Namespace, given: Mapping[str, Any], init: BundleMetadata | None
) -> tuple[Path | None, Columns | None]:
    """Return the file or data set to train on, and its columns; the table of the input topic is written now.

    Events of a topic are aggregated as the flags say, or else as the settings do.

    Raises:
        SettingsError: Flags contradict each other, or the settings name no topic.
    """
    if not args.from_topic:
        if lone := [f"--{name}" for name in ("config", "events", "table") if getattr(args, name) is not None]:
            raise SettingsError(f"{', '.join(lone)}: only with --from-topic")
        return args.data, flags.columns(args)
    from rillcast_training.fit import parallel

    if parallel.are_several():
        raise SettingsError("--from-topic: one process writes the table of a topic; use torchrun with a table as DATA")
    if args.data is not None:
        raise SettingsError(f"{args.data}: --from-topic replaces DATA; remove one of them")
    columns = flags.columns(args)
    if columns is not None and not columns.are_usual:
        raise SettingsError("--from-topic: the settings input.fields name the members of stream, time and observation")
    if args.events is not None and args.events < 1:
        raise SettingsError(f"--events {args.events}: expected at least 1")
    from rillcast import settings
    from rillcast.cli import topic_table
    from rillcast_training.data.columns import Columns
    from rillcast_training.fit.options import TrainOptions
    from rillcast_training.fit.training import check_outputs

    out: Path = given["out"]
    path: Path = args.table or out.with_name(f"{out.name}.parquet")
    if path.suffix != ".parquet":
        raise SettingsError(f"--table {path}: expected a name that ends with .parquet")
    check_outputs(TrainOptions(data=path, **given), table=path)
    covariates = given.get("covariates", ()) if init is None else [(one.name, one.kind) for one in init.covariates]
    described = settings.load(args.config)
    if args.aggregate is not None:  # the decoder goes by it: events that are counted need no observation
        wanted = described.input.model_copy(update={"aggregate": args.aggregate})
        described = described.model_copy(update={"input": wanted})
    elif described.input.aggregate != "none":
        columns = Columns(aggregate=_as_in_service(described.input))
    taken = topic_table.write(described, path, args.events, covariates, given["horizon"])
    print(taken.summary(path), file=sys.stderr)
    if columns is not None and columns.aggregate is not None:
        print(
            f"the table has the events as they came: give --aggregate {columns.aggregate.kind} with it", file=sys.stderr
        )
    return path, columns


def _as_in_service(given: InputSettings) -> Aggregate:
    from rillcast_training.data.columns import Aggregate

    assert given.aggregate != "none"
    return Aggregate(given.aggregate, given.close, given.empty, given.silent_after)


def _init(given: Mapping[str, Any]) -> BundleMetadata | None:
    """Return the metadata of the bundle to train further, if one is named.

    Raises:
        SettingsError: A flag is missing without it, or contradicts it.
        DataError: The bundle has no weights to go on from.
    """
    from rillcast_training.fit.options import TrainOptions

    if given.get("init") is None:
        lacking = [flag for field, flag in flags.flag_names(TrainOptions, init="default").items() if field not in given]
        if lacking := [flag for flag in lacking if flag != "--quantiles"]:
            raise SettingsError(f"{' and '.join(lacking)} must be given (only --init has defaults for them)")
        return None
    fixed = [flag for field, flag in flags.flag_names(TrainOptions, init="fixed").items() if field in given]
    if fixed:
        raise SettingsError(f"{', '.join(fixed)} cannot be changed with --init: the weights have that shape already")
    from rillcast_training.export.restore import is_on_experts, require_module

    bundle = Bundle.load(given["init"])
    if not is_on_experts(bundle):
        require_module(bundle)
    return bundle.metadata
