"""`rillcast bench`: the table of benchmarks, with the arguments that they share and their output."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Final, Literal, NamedTuple, NoReturn

from rillcast.cli import flags
from rillcast.cli.lazy import LazyParser
from rillcast.figures import to_json

EXAMPLES: Final = """\
examples:
  rillcast bench step model.onnx
  rillcast bench step model.onnx --batches 1,64,256 --json
  rillcast bench step model.onnx --device cuda --cuda-graphs
  rillcast bench flatness model.onnx --age 100000
  rillcast bench residents model.onnx --many 1000000
  rillcast bench catch-up model.onnx
  rillcast bench late-events model.onnx --periods 6
  rillcast bench raw model.onnx --aggregate mean
  rillcast bench memory model.onnx --streams 1000000
  rillcast bench file model.onnx
  rillcast bench gpu model.onnx > gpu.md
  rillcast bench sizing model.onnx --streams 50000 --rates 2000
  rillcast bench kafka --model model.onnx --kafka.bootstrap-servers localhost:9092 --codecs json,float32
  rillcast bench latency --model model.onnx --kafka.bootstrap-servers localhost:9092
  rillcast bench recovery --model model.onnx --kafka.bootstrap-servers localhost:9092 --streams 100000 --json
  rillcast bench delivery --model model.onnx --kafka.bootstrap-servers localhost:9092

The cases of a benchmark are measured in turns, so that a drift of the machine's speed cancels out of the ratios.
`kafka` compares the whole service with an echo loop of the same client and codec, which does all but forecasting.
`latency` sends at a fixed rate, also while forecasts are outstanding. `recovery` kills a service and times the next
one to its first new forecast. Those on Kafka need a broker and make their own topics.
"""


class Benchmark(NamedTuple):
    """A benchmark: a module of `rillcast.benchmarks` (`-` in its name is `_` there).

    Attributes:
        help: Its line in `rillcast bench --help`.
        runs: `engine` takes a model and a device, `model` a model only, `kafka` the settings of a service.
    """

    help: str
    runs: Literal["engine", "model", "kafka"]


BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    "step": Benchmark("engine steps per second, by batch size", "engine"),
    "flatness": Benchmark("cost of an event early and late in the life of a stream", "engine"),
    "residents": Benchmark("cost of an event among few and many resident streams", "engine"),
    "catch-up": Benchmark("events per second of a backlog, through the sequence graph and event by event", "engine"),
    "late-events": Benchmark("cost of late events, against the same events in order", "engine"),
    "raw": Benchmark("cost of a raw event that joins an open period, against decoding it", "engine"),
    "memory": Benchmark("bytes per resident stream, and the effect of growth on the step", "model"),
    "sizing": Benchmark(
        "members, memory, partitions and bytes of a deployment, by streams and events per second", "model"
    ),
    "gpu": Benchmark("whether a GPU works, computes right, and is worth having: a page, in under 5 minutes", "model"),
    "file": Benchmark("events per second of the service from a file to a file", "model"),
    "kafka": Benchmark("events per second of the service on Kafka, against the limit of client and codec", "kafka"),
    "latency": Benchmark("time from the append of an observation to the append of its forecast", "kafka"),
    "workers": Benchmark("several processes against one, free and on a core each", "kafka"),
    "recovery": Benchmark("time from kill -9 to the first new forecast", "kafka"),
    "delivery": Benchmark("events per second of exactly_once, against at_least_once", "kafka"),
}
RENAMED: Final[Mapping[str, str]] = {"rewind": "late-events"}
MOVED: Final[Mapping[str, str]] = {"peak": "tests.benchmarks.kernels", "peers": "tests.benchmarks.peers.compare"}
"""Benchmarks of the project's own, which are not installed: name -> module in a checkout."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the benchmarks, each with its arguments."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND", parser_class=LazyParser)
    for kind, benchmark in BENCHMARKS.items():
        kinds.add_parser(kind, help=benchmark.help, configure=lambda one, kind=kind: _add_arguments(one, kind))
    for old, kind in RENAMED.items():  # without help they are absent from `--help`
        kinds.add_parser(old, configure=lambda one, kind=kind: _add_old_arguments(one, kind))
    for kind in MOVED:
        kinds.add_parser(kind, configure=_end_with_new_place)


def _add_arguments(parser: argparse.ArgumentParser, kind: str) -> None:
    runs = BENCHMARKS[kind].runs
    if runs != "kafka":
        parser.add_argument("model", type=flags.path, help="bundle (.onnx)")
    if runs == "engine":
        flags.add_device(parser, threads=True)
    _module(kind).add_arguments(parser)
    if runs == "kafka":
        parser.add_argument("--partitions", type=int, default=4, help="partitions of the topics (default: 4)")
        flags.add_settings(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_old_arguments(parser: argparse.ArgumentParser, kind: str) -> None:
    _add_arguments(parser, kind)
    parser.add_argument("--slots", type=int, dest="periods", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def _end_with_new_place(parser: argparse.ArgumentParser) -> NoReturn:
    kind = parser.prog.split()[-1]
    parser.exit(2, f"rillcast: error: bench {kind} is not installed any more; "
                   f"in a checkout, run python -m {MOVED[kind]}\n")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from rillcast.benchmarks.machine import machine

    kind = RENAMED.get(args.kind, args.kind)
    if kind != args.kind:
        print(f"rillcast: warning: bench {args.kind} is now called bench {kind}; use the new name", file=sys.stderr)
    module = _module(kind)
    given = (args, flags.load_settings(args)) if BENCHMARKS[kind].runs == "kafka" else (args,)
    figures, on = module.measure(*given), machine()
    if args.json:
        print(to_json(figures | {"machine": on}))
        return 0
    module.show(figures)
    print(f"{on['cpu']}, {on['cores']} cores; ONNX Runtime {on['onnxruntime']}")
    return 0


def _module(kind: str) -> ModuleType:
    return importlib.import_module(f"rillcast.benchmarks.{kind.replace('-', '_')}")
