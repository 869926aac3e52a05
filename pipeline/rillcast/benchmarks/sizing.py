"""Members, cores, memory, partitions and bytes of a deployment, from constants that are measured here.

Owns: the arithmetic and its constants. Does not know: how they are measured (`file`, `memory`). The processor time is
that of the service from a file to a file: a client of Kafka adds its own, which `bench kafka` measures.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from rillcast.benchmarks import file, memory
from rillcast.benchmarks.backlog import observations
from rillcast.benchmarks.load import START_MS, daily, name_of, whole_numbers
from rillcast.bundle.bundle import Bundle
from rillcast.codecs.forecasts.columns import CODECS, ForecastColumns
from rillcast.codecs.forecasts.encoders import make_encoder
from rillcast.engine import device
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import SettingsError
from rillcast.events import EventBatch

_LOAD: Final = 0.6
"""Share of a core that a member uses at the planned rate; the rest is for catching up and for restores."""
_PARTITIONS_PER_MEMBER: Final = 4
_SAMPLE: Final = 256  # streams whose records are measured


@dataclass(frozen=True, slots=True)
class Constants:
    """What one event and one stream cost.

    Attributes:
        cpu_us_per_event: Processor time of an event, in microseconds.
        process_bytes: Memory of a member without streams.
        bytes_per_stream: Memory of a resident stream.
        row_bytes: State of a stream, as it is stored, before compression.
        observation_bytes: Size of an observation in JSON.
        forecast_bytes: Size of a forecast, by codec.
    """

    cpu_us_per_event: float
    process_bytes: float
    bytes_per_stream: float
    row_bytes: int
    observation_bytes: float
    forecast_bytes: dict[str, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's arguments."""
    parser.add_argument("--streams", default="10000,100000,1000000", help="streams (default: 10000,100000,1000000)")
    parser.add_argument("--rates", default="100,1000,10000,100000", help="events per second (default: 100 to 100000)")
    parser.add_argument(
        "--cpu-us", type=float, help="processor time per event that `bench kafka` measured, in place of a file's"
    )
    parser.add_argument("--events", type=int, default=200_000, help="events that are measured (default: 200000)")
    parser.add_argument("--residents", type=int, default=100_000, help="streams that are measured (default: 100000)")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return the constants, and a deployment for each number of streams and rate.

    Raises:
        SettingsError: A number of streams or a rate is not positive, or this system does not show a process's memory.
    """
    streams, rates = whole_numbers("--streams", args.streams), whole_numbers("--rates", args.rates)
    if min(*streams, *rates) < 1:
        raise SettingsError("--streams and --rates: expected whole numbers of at least 1")
    bundle = Bundle.load(args.model)
    constants = _constants(args, bundle)
    return {
        "model": name_of(bundle),
        "cpu_us_per_event": constants.cpu_us_per_event,
        "cpu_of": "a file" if args.cpu_us is None else "--cpu-us",
        "bytes_per_stream": constants.bytes_per_stream,
        "process_bytes": constants.process_bytes,
        "row_bytes": constants.row_bytes,
        "observation_bytes": constants.observation_bytes,
        "forecast_bytes": constants.forecast_bytes,
        "deployments": [deployment(constants, many, rate) for many in streams for rate in rates if rate <= many],
    }


def deployment(constants: Constants, streams: int, rate: int) -> dict[str, Any]:
    """Return what `streams` streams with `rate` events per second of them all take.

    Members are planned at 60 % of a core. Memory is that of all members together, and disk that of the state topic
    without replicas and compression.
    """
    cores = rate * constants.cpu_us_per_event * 1e-6
    members = max(1, math.ceil(cores / _LOAD))
    return {
        "streams": streams,
        "events_per_second": rate,
        "cores": cores,
        "members": members,
        "partitions": members * _PARTITIONS_PER_MEMBER,
        "memory_bytes": members * constants.process_bytes + streams * constants.bytes_per_stream,
        "state_bytes": streams * constants.row_bytes,
        "input_bytes_per_second": rate * constants.observation_bytes,
        "output_bytes_per_second": {codec: rate * size for codec, size in constants.forecast_bytes.items()},
    }


def show(figures: dict[str, Any]) -> None:
    """Print the constants and a table of deployments."""
    print(figures["model"])
    print(f"an event takes {figures['cpu_us_per_event']:.1f} us of a core (measured with {figures['cpu_of']})")
    print(f"a stream takes {figures['bytes_per_stream']:,.0f} bytes, its stored state {figures['row_bytes']:,} of them")
    print(f"a member without streams takes {figures['process_bytes'] / 1e6:,.0f} MB")
    sizes = ", ".join(f"{codec} {size:,.0f}" for codec, size in figures["forecast_bytes"].items())
    print(f"bytes of a record: observation {figures['observation_bytes']:,.0f}; forecast as {sizes}")
    print()
    columns = ("streams", "events/s", "cores", "members", "partitions", "memory", "state topic", "in", "out (json)")
    print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns))
    for row in figures["deployments"]:
        cells = (
            f"{row['streams']:,}",
            f"{row['events_per_second']:,}",
            f"{row['cores']:.2g}",
            f"{row['members']:,}",
            f"{row['partitions']:,}",
            _bytes(row["memory_bytes"]),
            _bytes(row["state_bytes"]),
            f"{_bytes(row['input_bytes_per_second'])}/s",
            f"{_bytes(row['output_bytes_per_second']['json'])}/s",
        )
        print("| " + " | ".join(cells) + " |")
    print("\nmembers at 60 % of a core; memory of all members; state topic and output before replicas and compression")


def _constants(args: argparse.Namespace, bundle: Bundle) -> Constants:
    residents = memory.measure(argparse.Namespace(model=args.model, streams=args.residents, rounds=1, pages=1))
    if args.cpu_us is None:
        runs, _ = file.serve_files(bundle, args.model, 10_000, args.events, "jsonl", ("interleaved",), 1)
        cpu = float(runs["interleaved"][0].summary()["cpu_us_per_event"])
    else:
        cpu = args.cpu_us
    _, lines = observations(bundle.metadata.frequency, _SAMPLE, 0, 1)
    return Constants(
        cpu_us_per_event=cpu,
        process_bytes=residents["rss_bytes"] - args.residents * residents["rss_bytes_per_stream"],
        bytes_per_stream=residents["rss_bytes_per_stream"],
        row_bytes=residents["row_bytes"],
        observation_bytes=sum(map(len, lines)) / len(lines),
        forecast_bytes=_forecast_bytes(bundle),
    )


def _forecast_bytes(bundle: Bundle) -> dict[str, float]:
    """Return the size of a record by codec, of streams that have seen two days of events."""
    engine = StepEngine(bundle, device.choose("cpu"))
    unique_ids = [f"stream-{number:07d}" for number in range(_SAMPLE)]
    for period in range(48):
        ds = np.full(_SAMPLE, bundle.metadata.frequency.ahead(START_MS, period))
        y = daily(np.arange(_SAMPLE), np.full(_SAMPLE, period))
        events = EventBatch.of(unique_ids, ds, y, partition=0, first_offset=period * _SAMPLE)
        result = engine.step(events)
    columns = ForecastColumns(
        unique_ids, ds, result.status, result.forecast, result.anomaly, events.partitions, events.offsets
    )
    sizes: dict[str, float] = {}
    for codec in CODECS:
        encoder = make_encoder(codec, bundle.metadata, schema_id=lambda: 1)
        sizes[codec] = sum(map(len, encoder.encode(columns)[1])) / _SAMPLE
    return sizes


def _bytes(size: float) -> str:
    for unit, divisor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= divisor:
            return f"{size / divisor:.3g} {unit}"
    return f"{size:.0f} B"
