"""`rillcast universal`: a bundle for any frequency, without training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rillcast import outputs
from rillcast.errors import SettingsError
from rillcast.figures import to_json

if TYPE_CHECKING:
    from rillcast_training.model.experts.config import Constants, ExpertsConfig

EXAMPLES: Final = """\
examples:
  rillcast universal export --freq 7min --out mine.onnx
  rillcast universal export --freq 1h --season 24,168 --horizon 72 --out mine.onnx
  rillcast universal export --freq 1d --season 7 --horizon 14 --quantiles 0.05,0.5,0.95 --out mine.onnx
  rillcast universal export --freq 1h --light --out mine.onnx
  rillcast universal export --freq 1h --set power=8 --set forget=0.995 --out mine.onnx

The bundle learns on each stream by itself, within the step; it needs no training and no history of other streams.
Where the package has a network for this frequency with these seasons, horizon, quantiles and constants, it is on top.
--light has a third of the state, for more streams, at a small loss of accuracy; it has no network.
--season takes one or two lengths in periods. Without it they are the hour, the day, the week or the year, as the
frequency has it. See docs/experts.md.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parsers = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    export = parsers.add_parser("export", help="write a bundle of experts, in seconds")
    export.add_argument("--freq", required=True, help="length of a period: 7min, 1h, 1d, 1mo, ...")
    export.add_argument("--season", metavar="N[,N]", help="one or two seasons in periods (default: by frequency)")
    export.add_argument("--horizon", type=int, metavar="H", help="periods ahead (default: by frequency)")
    export.add_argument("--quantiles", metavar="Q,...", help="levels in (0, 1) (default: 0.1 to 0.9)")
    export.add_argument("--name", help="name of the model (default: experts-FREQ)")
    export.add_argument("--experts-alone", action="store_true", help="leave out the pretrained network")
    export.add_argument(
        "--light", action="store_true", help="at most 2,560 bytes of state per stream: fewer experts, no network"
    )
    export.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a constant of the experts; may be repeated"
    )
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="bundle to write")
    export.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Write the bundle and describe it.

    Raises:
        SettingsError: A value cannot be used, or the file cannot be written.
        ParityError: The file differs from the module.
    """
    outputs.check({}, {"--out": args.out})
    from rillcast.bundle.bundle import Bundle
    from rillcast_training.export.experts import write_experts
    from rillcast_training.export.pretrained import pretrained
    from rillcast_training.model.experts.forecaster import ExpertForecaster

    config = _config(args)
    name = args.name or f"experts-{'light-' if args.light else ''}{config.freq}"
    network = None if args.experts_alone or args.light else pretrained(config.freq)
    if network is None or not network.fits(config):
        report = write_experts(ExpertForecaster(config), args.out, name=name)
        on_top = None
    else:
        report = write_experts(network.on(config), args.out, name=name, training=network.training)
        on_top = f"{network.shape.cell} of {network.shape.hidden}"
    metadata = Bundle.load(args.out).metadata
    document = {
        "model": str(args.out),
        "model_id": metadata.model_id,
        "freq": metadata.freq,
        "horizon": metadata.horizon,
        "seasons": list(config.seasons),
        "network": on_top,
        "state_bytes": metadata.row_bytes,
        "parity": report.worst,
    }
    if args.json:
        print(to_json(document))
        return 0
    print(f"{args.out}: {metadata.model_id}")
    print(
        f"  forecasts     {metadata.horizon} periods of {metadata.freq}; seasons of {_listed(config.seasons)} periods"
    )
    print(f"  network       {on_top or 'none: experts alone'}")
    print(f"  state         {metadata.row_bytes:,} bytes per stream")
    print(f"  parity        {report.worst:.1e} at most, between the file and the module")
    return 0


def _config(args: argparse.Namespace) -> ExpertsConfig:
    from rillcast.bundle.frequency import canonical
    from rillcast_training.model.experts.config import LEVELS, ExpertsConfig
    from rillcast_training.model.experts.defaults import default_horizon, default_seasons
    from rillcast_training.model.experts.light import light

    try:
        freq = canonical(args.freq)
        usual = ExpertsConfig(
            freq=freq,
            horizon=default_horizon(freq) if args.horizon is None else args.horizon,
            seasons=default_seasons(freq) if args.season is None else _numbers(args.season, "--season", int),
            quantiles=LEVELS if args.quantiles is None else _numbers(args.quantiles, "--quantiles", float),
            constants=_constants(args.set),
        )
        return light(usual) if args.light else usual
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _numbers(text: str, flag: str, kind: type) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        raise SettingsError(f"{flag} {text!r}: expected numbers between commas, as in '24,168'") from error


def _constants(given: list[str]) -> Constants:
    from rillcast_training.model.experts.config import Constants

    known = Constants()
    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not hasattr(known, name):
            names = ", ".join(Constants.__dataclass_fields__)
            raise SettingsError(f"--set {text!r}: expected NAME=VALUE with a name of {names}")
        kind = type(getattr(known, name))
        values[name] = _numbers(value, f"--set {name}", float) if kind is tuple else _numbers(value, name, kind)[0]
    return Constants(**values)


def _listed(seasons: tuple[int, ...]) -> str:
    return " and ".join(str(season) for season in seasons)
