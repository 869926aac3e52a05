"""`rillcast bench`: the instrument of the project. Ratios are taken within one run, on a machine that is named."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

from rillcast.cli import flags

EXAMPLES: Final = """\
examples:
  rillcast bench step model.onnx
  rillcast bench step model.onnx --batches 1,64,256 --json
  rillcast bench step model.onnx --device cuda --cuda-graphs
  rillcast bench flatness model.onnx --age 100000
  rillcast bench catch-up model.onnx
  rillcast bench peak model.onnx
  rillcast bench rewind model.onnx --slots 6
  rillcast bench recovery --model model.onnx --kafka.bootstrap-servers localhost:9092 --streams 100000 --json
  rillcast bench delivery --model model.onnx --kafka.bootstrap-servers localhost:9092
  rillcast bench memory model.onnx --streams 1000000
  rillcast bench latency --model model.onnx --kafka.bootstrap-servers localhost:9092
  rillcast bench peers --model model.onnx --kafka.bootstrap-servers localhost:9092
  rillcast bench kafka --model model.onnx --kafka.bootstrap-servers localhost:9092 --codecs json,float32

`step` gives whole steps per second by batch size. `flatness` compares the cost of an event early in a stream's life
with that of an event late in it, the two measured in turns, so that a drift of the machine's speed cancels out.
`rewind` shuffles the events of streams and compares them with the same in order, in turns.
`residents` compares few resident streams with many.
`catch-up` works a backlog off through the sequence graph, against the step. `peak` gives the share of the processor's
matrix products per second that the step makes use of.
`recovery` kills a service and times the next one to its first new forecast; `delivery` compares exactly_once with
at_least_once. `kafka` is the whole service against an echo loop of the same client and codec, which does everything but
forecasting: the limit. `latency` sends at a fixed rate, whatever comes back. These four need a broker and make topics
of their own. `memory` keeps many streams in one process.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    _engine(kinds.add_parser("step", help="engine steps per second by batch size"), aged=False)
    _engine(kinds.add_parser("flatness", help="cost of an event by its step"), aged=True)
    catch_up = kinds.add_parser("catch-up", help="a backlog through the sequence graph, against event by event")
    catch_up.add_argument("--streams", default="1,8,64", help="numbers of busy streams")
    catch_up.add_argument("--backlog", type=int, default=1_000, help="events of each stream that wait")
    catch_up.add_argument("--events", type=int, default=32_000, help="at most so many events in all")
    peak = kinds.add_parser("peak", help="share of the processor's matrix products that the step makes use of")
    peak.add_argument("--batch", type=int, default=1_000, help="streams per call")
    peak.add_argument("--seconds", type=float, default=1.0, help="time per round, for each of the two")
    for kind in (catch_up, peak):
        kind.add_argument("model", type=Path, help="bundle (.onnx)")
        kind.add_argument("--rounds", type=int, default=5, help="rounds; the medians are reported")
        kind.add_argument("--json", action="store_true", help="one JSON object")
    catch_up.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto", help="where to run it")
    catch_up.add_argument("--threads", type=int, default=1, help="threads of ONNX Runtime inside one call")
    late = kinds.add_parser("rewind", help="cost of late events that are put into place, against events in order")
    late.add_argument("model", type=Path, help="bundle (.onnx)")
    late.add_argument("--slots", type=int, default=6, help="input.allowed_lateness_periods")
    late.add_argument("--within", type=float, default=6, help="how many slots events are shuffled within")
    late.add_argument("--streams", type=int, default=500, help="streams")
    late.add_argument("--length", type=int, default=48, help="slots of a block")
    late.add_argument("--blocks", type=int, default=9, help="measurements of each, in turns; the medians are reported")
    late.add_argument("--batch", type=int, default=1_000, help="events per call")
    late.add_argument("--seed", type=int, default=0, help="of the order")
    late.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto", help="where to run it")
    late.add_argument("--threads", type=int, default=1, help="threads of ONNX Runtime inside one call")
    late.add_argument("--json", action="store_true", help="one JSON object")
    crowd = kinds.add_parser("residents", help="cost of an event by the number of resident streams")
    crowd.add_argument("model", type=Path, help="bundle (.onnx)")
    crowd.add_argument("--few", type=int, default=1_000, help="resident streams")
    crowd.add_argument("--many", type=int, default=1_000_000, help="resident streams, against these")
    crowd.add_argument("--batch", type=int, default=256, help="streams per call")
    crowd.add_argument("--calls", type=int, default=50, help="calls in a block")
    crowd.add_argument("--blocks", type=int, default=40, help="pairs of measurements")
    crowd.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto", help="where to run it")
    crowd.add_argument("--threads", type=int, default=1, help="threads of ONNX Runtime inside one call")
    crowd.add_argument("--json", action="store_true", help="one JSON object")
    recovery = kinds.add_parser("recovery", help="time from kill -9 to the first new forecast")
    recovery.add_argument("--streams", type=int, default=100_000, help="resident streams")
    recovery.add_argument("--rounds", type=int, default=20, help="events of each stream before the kill")
    recovery.add_argument("--snapshot-interval", type=float, default=30.0, help="seconds (default: 30)")
    delivery = kinds.add_parser("delivery", help="rate of exactly_once against at_least_once")
    delivery.add_argument("--streams", type=int, default=10_000, help="streams")
    delivery.add_argument("--events", type=int, default=200_000, help="events of each run")
    delivery.add_argument("--repeat", type=int, default=3, help="pairs of runs")
    kafka = kinds.add_parser("kafka", help="the service end to end, against the limit of its client and codec")
    kafka.add_argument("--clients", default="librdkafka,kafka-python", help="client libraries")
    kafka.add_argument("--codecs", default="json,float32", help="of the forecasts: json, msgpack, float32")
    kafka.add_argument("--streams", type=int, default=10_000, help="streams")
    kafka.add_argument("--busy", type=int, default=0, help="also measure so few busy streams; 0 = not")
    kafka.add_argument("--events", type=int, default=200_000, help="events of each run (a tenth with kafka-python)")
    kafka.add_argument("--repeat", type=int, default=3, help="rounds")
    latency = kinds.add_parser("latency", help="from the append of an observation to that of its forecast")
    latency.add_argument("--rate", type=float, default=0.0, help="events per second (default: half of the most)")
    latency.add_argument("--seconds", type=float, default=20.0, help="how long")
    latency.add_argument("--streams", type=int, default=10_000, help="streams")
    latency.add_argument("--events", type=int, default=200_000, help="of the run that finds out the most")
    peers = kinds.add_parser("peers", help="the service beside Quix Streams, Bytewax, Faust, river, plain loops")
    peers.add_argument("--peers", default="quix,bytewax,faust,river,plain,window", help="which")
    peers.add_argument("--venvs", type=Path, default=Path(".bench/venvs"), help="where they are installed, once")
    peers.add_argument("--streams", type=int, default=1_000, help="streams")
    peers.add_argument("--events", type=int, default=200_000, help="events of the service; a peer gets a part of them")
    peers.add_argument("--repeat", type=int, default=3, help="rounds")
    workers = kinds.add_parser("workers", help="two processes against one")
    workers.add_argument("--streams", type=int, default=10_000, help="streams")
    workers.add_argument("--events", type=int, default=200_000, help="events of each run")
    workers.add_argument("--repeat", type=int, default=3, help="rounds")
    file = kinds.add_parser("file", help="the service from a file to a file")
    file.add_argument("model", type=Path, help="bundle (.onnx)")
    file.add_argument("--streams", type=int, default=10_000, help="streams")
    file.add_argument("--events", type=int, default=200_000, help="events of each run")
    file.add_argument("--repeat", type=int, default=3, help="runs; the median is reported")
    file.add_argument("--json", action="store_true", help="one JSON object")
    memory = kinds.add_parser("memory", help="bytes per resident stream, and what growth does to the step")
    memory.add_argument("model", type=Path, help="bundle (.onnx)")
    memory.add_argument("--streams", type=int, default=1_000_000, help="streams")
    memory.add_argument("--rounds", type=int, default=1, help="rounds of all streams after the first")
    memory.add_argument("--pages", type=int, default=64, help="pages of a commit that takes part in a snapshot")
    memory.add_argument("--json", action="store_true", help="one JSON object")
    for kind in (recovery, delivery, kafka, latency, peers, workers):
        kind.add_argument("--partitions", type=int, default=4, help="of the topics that are made")
        kind.add_argument("--json", action="store_true", help="one JSON object")
        flags.add_settings(kind)


def _engine(kind: argparse.ArgumentParser, *, aged: bool) -> None:
    kind.add_argument("model", type=Path, help="bundle (.onnx)")
    kind.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto", help="where to run it")
    kind.add_argument("--threads", type=int, default=1, help="threads of ONNX Runtime inside one call")
    kind.add_argument("--json", action="store_true", help="one JSON object")
    if aged:
        kind.add_argument("--age", type=int, default=100_000, help="steps of the old streams")
        kind.add_argument("--young", type=int, default=100, help="steps of the young streams")
        kind.add_argument("--batch", type=int, default=32, help="streams per call")
        kind.add_argument("--blocks", type=int, default=40, help="pairs of measurements")
    else:
        kind.add_argument("--batches", default="1,16,64,256,1000", help="batch sizes")
        kind.add_argument("--cuda-graphs", action="store_true", help="each batch size with CUDA graphs too, in turns")
        kind.add_argument("--streams", type=int, default=10_000, help="resident streams")
        kind.add_argument("--seconds", type=float, default=1.0, help="time per batch size and round")
        kind.add_argument("--rounds", type=int, default=3, help="rounds; the median is reported")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from rillcast.benchmarks import durability, engine, file, kafka, late_events, latency, memory, workers
    from rillcast.benchmarks.machine import machine
    from tests.benchmarks import kernels
    from tests.benchmarks.peers import compare

    if args.kind == "step":
        figures = engine.step(args)
    elif args.kind == "flatness":
        figures = engine.flatness(args)
    elif args.kind == "catch-up":
        figures = kernels.catch_up(args)
    elif args.kind == "residents":
        figures = kernels.residents(args)
    elif args.kind == "peak":
        figures = kernels.peak_share(args)
    elif args.kind == "rewind":
        figures = late_events.rewind(args)
    elif args.kind == "file":
        figures = file.file(args)
    elif args.kind == "memory":
        figures = memory.memory(args)
    else:
        on_kafka = {
            "recovery": durability.recovery,
            "delivery": durability.delivery,
            "kafka": kafka.kafka,
            "latency": latency.latency,
            "peers": compare.compare,
            "workers": workers.workers,
        }
        figures = on_kafka[args.kind](args, flags.load_settings(args))
    figures["machine"] = machine()
    if args.json:
        print(json.dumps(figures))
    else:
        _print(args.kind, figures)
    return 0


def _print(kind: str, figures: dict[str, Any]) -> None:
    machine = figures.pop("machine")
    if kind == "step":
        print(f"{figures['model']} on {figures['device']}")
        print(f"{figures['streams']:,} streams, {figures['threads']} thread(s)")
        print(f"{'batch':>7} {'steps/s':>12} {'us/step':>9}   min .. max steps/s")
        for row in figures["steps"]:
            print(
                f"{row['batch']:>7} {row['steps_per_second']:>12,.0f} {row['us_per_step']:>9.2f}"
                f"   {row['min']:,.0f} .. {row['max']:,.0f}{'   CUDA graph' if row['cuda_graphs'] else ''}"
            )
    elif kind == "flatness":
        low, middle, high = figures["ratio_quartiles"]
        print(f"{figures['model']} on {figures['device']}")
        print(f"step {figures['young_step']:>9,}: {figures['young_us_per_event']:.2f} us per event")
        print(f"step {figures['old_step']:>9,}: {figures['old_us_per_event']:.2f} us per event")
        print(f"ratio {figures['old_to_young_ratio']:.3f} (quartiles {low:.3f}, {middle:.3f}, {high:.3f})")
    elif kind == "catch-up":
        print(f"{figures['model']} on {figures['device']}")
        print(f"{'streams':>8} {'backlog':>8} {'events/s in runs':>17} {'in waves':>10} {'single':>9}   ratio to both")
        for row in figures["catch_up"]:
            print(
                f"{row['streams']:>8} {row['backlog']:>8} {row['runs_events_per_second']:>17,.0f} "
                f"{row['waves_events_per_second']:>10,.0f} {row['single_events_per_second']:>9,.0f}"
                f"   {row['ratio_to_waves']:.2f}, {row['ratio_to_single']:.2f}"
            )
    elif kind == "kafka":
        _print_kafka(figures)
    else:
        figures.pop("histogram_ms", None)
        for name, value in figures.items():
            print(f"{name:<28} {value:,.4g}" if isinstance(value, float) else f"{name:<28} {value}")
    print(f"{machine['cpu']}, {machine['cores']} cores; ONNX Runtime {machine['onnxruntime']}")


def _print_kafka(figures: dict[str, Any]) -> None:
    print(f"{figures['model']}, {figures['streams']:,} streams, {figures['delivery']}")
    for case in figures["cases"]:
        print(f"{case['client']}, {case['codec']}: {case['ratio_to_echo']:.2f} of the limit")
        for name, run in case["runs"].items():
            stages = ", ".join(f"{stage} {us:.2f}" for stage, us in run["stages_us_per_event"].items())
            print(
                f"  {name:<8} {run['events_per_second']:>9,.0f} events/s  {run['cpu_us_per_event']:.1f} us of processor"
                f" per event, {run['peak_rss_mib']:.0f} MiB\n{'':>11}us per event: {stages}"
            )
