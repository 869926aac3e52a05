"""`rillcast demo`: real data to live forecasts on one machine, with no broker and no set-up.

Owns: the order of the demo and its messages. The parts are real: the model is trained and exported as by
`rillcast train`, and served by the service of `rillcast run`, from a file at a visible pace.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rillcast import outputs
from rillcast.bundle.bundle import Bundle
from rillcast.cli import flags
from rillcast.cli.commands.backtest import comparison
from rillcast.cli.signals import raise_if_interrupted
from rillcast.errors import SettingsError
from rillcast.figures import to_json
from rillcast.observability import logs
from rillcast.settings import DeadLetterSettings, HttpSettings, InputSettings, OutputSettings, Settings

if TYPE_CHECKING:
    from rillcast.service.service import Service
    from rillcast_training.data.weather import Row

EXAMPLES: Final = """\
examples:
  rillcast demo                         # about three minutes, then the page stays until Ctrl-C
  rillcast demo --speed 1000 --port 0   # faster, on any free port
  rillcast demo --headless --json       # no page and no waiting, for scripts

The data are hourly observations at New York's airports in 2013: 18 streams, with their gaps.
"""
_HORIZON: Final = 48
_LEVELS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# About a minute of training on one core; `rillcast train` takes longer and does somewhat better.
_EPOCHS: Final = 10
_BATCH: Final = 32
_SPEED: Final = 300.0


@dataclass(frozen=True, slots=True)
class _Files:
    """The files of the demo, in one directory."""

    directory: Path

    @property
    def train(self) -> Path:
        return self.directory / "train.csv"

    @property
    def replay(self) -> Path:
        return self.directory / "replay.csv"

    @property
    def whole(self) -> Path:
        return self.directory / "weather.csv"

    @property
    def model(self) -> Path:
        return self.directory / "model.onnx"

    @property
    def forecasts(self) -> Path:
        return self.directory / "forecasts.jsonl"

    @property
    def dead_letters(self) -> Path:
        return self.directory / "dead-letters.jsonl"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--headless", action="store_true", help="run without page and waiting, at full speed")
    parser.add_argument(
        "--port", type=int, default=HttpSettings().port, help="port of the page; 0 = a free one (default: %(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=_EPOCHS, help="training epochs (default: %(default)s)")
    parser.add_argument(
        "--workdir", type=flags.path, default=Path(".demo"), help="directory of the files (default: %(default)s)"
    )
    parser.add_argument(
        "--speed", type=float, help=f"events per second (default: {_SPEED:.0f}, with --headless no limit)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")


def run(args: argparse.Namespace) -> int:
    """Make the data, train, serve the unseen weeks, and compare with the seasonal-naive forecast."""
    from rillcast_training.data import weather

    speed = args.speed if args.speed is not None else 0.0 if args.headless else _SPEED
    if speed < 0 or not 0 <= args.port <= 65_535:
        raise SettingsError(f"--speed {speed}, --port {args.port}: expected at least 0, and 0 to 65535")
    logs.configure("warning", "console")
    files = _make_directory(args.workdir)
    started = time.perf_counter()

    rows = weather.read()
    known = [row for row in rows if row.ds < weather.SPLIT]
    streams = len({row.unique_id for row in rows})
    _say(f"1/4  Weather at New York's airports, 2013: {streams} hourly streams, {len(rows):,} observations, with gaps")
    weather.write(files.train, known)

    _say(f"2/4  Training on the {len(known):,} before {weather.SPLIT:%d %B}")
    _train(files, args.epochs)
    trained = time.perf_counter()

    bundle = Bundle.load(files.model)
    # A stream forecasts best when its lag window is full; the events that fill it are not scored.
    warm_up = dt.timedelta(milliseconds=bundle.metadata.context * bundle.metadata.frequency.nominal_ms)
    replayed = weather.write(files.replay, [row for row in rows if row.ds >= weather.SPLIT - warm_up])
    pace = f"{speed:,.0f} events/s" if speed else "full speed"
    _say(f"3/4  Replaying the weeks that the model has not seen: {replayed:,} events at {pace}")
    with _page(_build(files, speed, None if args.headless else args.port)) as service:
        replay_started = time.perf_counter()
        service.work()
        served = time.perf_counter()

        _say("4/4  Accuracy of the published forecasts, against the observations")
        figures = {
            "model": f"{bundle.metadata.name}@{bundle.metadata.model_id}",
            "streams": streams,
            "events": replayed,
            **_score(files, bundle, rows),
            "training_seconds": trained - started,
            "replay_seconds": served - replay_started,
            "seconds": time.perf_counter() - started,
        }
        _report(figures, as_json=args.json)
        if service.views.server is not None:
            _say(f"\nThe page stays at {service.views.server.url} until Ctrl-C.")
            _wait_for_interrupt()
    return 0


def _make_directory(directory: Path) -> _Files:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--workdir {directory}: {error.strerror or error}") from error
    files = _Files(directory)
    paths = (files.train, files.replay, files.whole, files.model, files.forecasts, files.dead_letters)
    outputs.check({}, {f"--workdir {directory}, {path.name}": path for path in paths})
    return files


def _train(files: _Files, epochs: int) -> None:
    from rillcast_training.data import weather
    from rillcast_training.fit.options import TrainOptions
    from rillcast_training.fit.training import train

    train(
        TrainOptions(
            data=files.train,
            freq=weather.FREQ,
            horizon=_HORIZON,
            quantiles=_LEVELS,
            out=files.model,
            name="weather",
            # On experts, which is the default of `rillcast train`, it was no better here (MASE 1.22 for 1.17, one
            # training each), and the replay on a processor takes many times longer.
            experts=False,
            epochs=epochs,
            batch=_BATCH,
            # Layers this narrow gain little from a second thread, and lose much where a core is busy.
            threads=1,
        )
    )


def _build(files: _Files, speed: float, port: int | None) -> Service:
    """Return the service over the replay file; without a port it has no page."""
    from rillcast.service import build

    return build.build(
        Settings(
            model=files.model,
            input=InputSettings(path=str(files.replay), rate=speed),
            output=OutputSettings(path=str(files.forecasts)),
            dead_letters=DeadLetterSettings(path=str(files.dead_letters)),
            http=HttpSettings(enabled=port is not None, port=port or 0),
        )
    )


@contextlib.contextmanager
def _page(service: Service) -> Iterator[Service]:
    """Serve the page for longer than the worker runs."""
    with service.answering():
        if service.views.server is not None:
            _say(f"     Watch them at {service.views.server.url}")
        yield service


def _score(files: _Files, bundle: Bundle, rows: Sequence[Row]) -> dict[str, Any]:
    from rillcast_training.data import series, weather
    from rillcast_training.evaluate.record_accuracy import score_records

    weather.write(files.whole, rows)
    published = score_records(
        files.forecasts, bundle.metadata, series.load(files.whole, bundle.metadata.freq), weather.SPLIT
    )
    return {
        "origins": published.origins,
        "accuracy": asdict(published.model),
        "seasonal_naive": asdict(published.seasonal_naive),
    }


def _report(figures: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(to_json(figures), flush=True)
        return
    print()
    print(comparison({figures["model"]: figures["accuracy"], "seasonal naive": figures["seasonal_naive"]}))
    rate = figures["events"] / figures["replay_seconds"]
    print(
        f"{figures['origins']:,} origins, {figures['accuracy']['targets']:,} targets; {rate:,.0f} events/s; "
        f"trained in {figures['training_seconds']:.0f} s, {figures['seconds']:.0f} s in all",
        flush=True,
    )


def _wait_for_interrupt() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)
            raise_if_interrupted()


def _say(text: str) -> None:
    """Print a message; standard output is for the figures."""
    print(text, file=sys.stderr, flush=True)
