"""`make bench`: the whole instrument in one run, on a broker of its own; the last line is one JSON object.

    python -m tests.benchmarks.suite [--folder .bench] [--quick]

Owns: which parts make up the suite, with which options, and how the figures of acceptance come out of their results.
Does not know: how anything is measured (`rillcast bench`). Every part is a process of its own. A part that fails leaves
its figures null and the suite goes on, ends with 1, and says which.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.pictures import draw
from tests.support.checkout import running_commit
from tests.support.kafka_broker import running_broker

Figures = dict[str, Any]
_DEADLINE_S: Final = 3_600.0


@dataclass(frozen=True, slots=True)
class Part:
    """One call of `rillcast bench`, or of another module that measures.

    Attributes:
        name: Name of the result.
        arguments: Arguments of the command; `MODEL` and `DEFAULT` stand for the bundles.
        on_kafka: Whether it takes the settings of a service.
        figures: Function from its result to the figures of acceptance.
        quick: Options of a short run, which override.
        module: Module to run, with its first arguments.
        model: The bundle that a service serves.
    """

    name: str
    arguments: tuple[str, ...]
    on_kafka: bool
    figures: Callable[[Figures], Figures]
    quick: tuple[str, ...] = ()
    module: tuple[str, ...] = ("rillcast", "bench")
    model: str = "MODEL"


def _of_kafka(result: Figures) -> Figures:
    cases = {(case["client"], case["codec"]): case for case in result["cases"]}
    return {
        "ratio_to_echo_json": cases["librdkafka", "json"]["ratio_to_echo"],
        "ratio_to_echo_float32": cases["librdkafka", "float32"]["ratio_to_echo"],
        "hot_streams_ratio": cases["librdkafka", "json"]["busy_ratio"],
        "file_to_topic_ratio": cases["librdkafka", "json"]["file_to_topic_ratio"],
    }


def _of_peers(result: Figures) -> Figures:
    names = "quix", "kafka_streams", "flink", "kafka_streams_batched"
    return {f"ratio_to_{name}": result["runs"][name]["rillcast_is_faster_by"] for name in names}


_ON_KAFKA: Final = ("kafka", "--clients", "librdkafka")
_TWICE: Final = ("--repeat", "2")  # of what takes long, so that all of it takes less than half an hour
PARTS: Final = (
    Part("step", ("step", "MODEL"), on_kafka=False, figures=lambda _: {}, quick=("--seconds", "0.2")),
    Part(
        "flatness",
        ("flatness", "MODEL", "--age", "200000", "--young", "10", "--batch", "16"),
        on_kafka=False,
        figures=lambda result: {"flatness_steps": result["old_to_young_ratio"]},
        quick=("--age", "2000", "--blocks", "4"),
    ),
    Part(
        "residents",
        ("residents", "MODEL"),
        on_kafka=False,
        figures=lambda result: {"flatness_streams": result["many_to_few_ratio"]},
        quick=("--many", "20000", "--blocks", "4"),
    ),
    Part(
        "raw",
        ("raw", "MODEL"),
        on_kafka=False,
        figures=lambda result: {"raw_joining_to_decoding_ratio": result["joining_to_decoding_ratio"]},
        quick=("--streams", "500", "--periods", "1"),
    ),
    Part(
        "peak",
        ("MODEL",),
        on_kafka=False,
        figures=lambda result: {"peak_share_h64_whole_step": result["peak_share"]},
        quick=("--rounds", "1"),
        module=("tests.benchmarks.kernels",),
    ),
    Part(
        "catch_up",
        ("catch-up", "MODEL"),
        on_kafka=False,
        figures=lambda result: {"catch_up_ratio": min(row["ratio_to_single"] for row in result["catch_up"])},
        quick=("--rounds", "1", "--events", "2000"),
    ),
    Part(
        "peak_h128",
        ("--hidden", "128"),
        on_kafka=False,
        figures=lambda result: {"peak_share_h128": result["peak_share"]},
        quick=("--rounds", "1"),
        module=("tests.benchmarks.cells_and_head",),
    ),
    Part("step_default", ("step", "DEFAULT"), on_kafka=False, figures=lambda _: {}, quick=("--seconds", "0.2")),
    Part(
        "file",
        ("file", "MODEL"),
        on_kafka=False,
        figures=lambda result: {"file_sorted_ratio": result["file_sorted_ratio"]},
        quick=("--events", "20000", "--repeat", "1"),
    ),
    Part(
        "file_default",
        ("file", "DEFAULT", *_TWICE),
        on_kafka=False,
        figures=lambda result: {"file_sorted_ratio_default": result["file_sorted_ratio"]},
        quick=("--events", "20000", "--repeat", "1"),
    ),
    Part(
        "memory",
        ("memory", "MODEL"),
        on_kafka=False,
        figures=lambda result: {"rss_bytes_per_stream_1m": result["rss_bytes"] / result["streams"]},
        quick=("--streams", "50000"),
    ),
    Part(
        "memory_default",
        ("memory", "DEFAULT", "--streams", "200000"),
        on_kafka=False,
        figures=lambda _: {},
        quick=("--streams", "20000"),
    ),
    Part(
        "kafka",
        (*_ON_KAFKA, "--codecs", "json,msgpack,float32", "--busy", "8", "--file", "--events", "600000"),
        on_kafka=True,
        figures=_of_kafka,
        quick=("--events", "40000", "--repeat", "1"),
    ),
    Part(
        "kafka_default",
        (*_ON_KAFKA, "--codecs", "json,float32", "--busy", "8", "--file", "--events", "100000", *_TWICE),
        on_kafka=True,
        figures=lambda result: {"ratio_to_echo_json_default": result["cases"][0]["ratio_to_echo"]},
        quick=("--events", "20000", "--repeat", "1"),
        model="DEFAULT",
    ),
    Part(
        "kafka_default_selected",
        (
            *(*_ON_KAFKA, "--codecs", "json,float32", "--events", "100000", *_TWICE),
            *("--publish.levels", "0.1,0.5,0.9", "--publish.horizons", "1-24"),
        ),
        on_kafka=True,
        figures=lambda _: {},
        quick=("--events", "20000", "--repeat", "1"),
        model="DEFAULT",
    ),
    Part(
        "kafka_python",
        ("kafka", "--clients", "kafka-python", "--codecs", "json", "--events", "1000000", *_TWICE),
        on_kafka=True,
        figures=lambda result: {"kafka_python_ratio_to_echo": result["cases"][0]["ratio_to_echo"]},
        quick=("--events", "100000", "--repeat", "1"),
    ),
    Part(
        "workers",
        ("workers", *_TWICE),
        on_kafka=True,
        figures=lambda _: {},
        quick=("--events", "40000", "--repeat", "1"),
    ),
    Part(
        "workers_default",
        ("workers", "--events", "100000", *_TWICE),
        on_kafka=True,
        figures=lambda _: {},
        quick=("--events", "20000", "--repeat", "1"),
        model="DEFAULT",
    ),
    Part(
        "latency",
        ("latency",),
        on_kafka=True,
        figures=lambda result: {"latency_p50_ms": result["p50_ms"], "latency_p99_ms": result["p99_ms"]},
        quick=("--seconds", "4", "--events", "40000", "--repeat", "1"),
    ),
    Part(
        "latency_default",
        ("latency", "--events", "100000"),
        on_kafka=True,
        figures=lambda result: {"latency_p50_ms_default": result["p50_ms"]},
        quick=("--seconds", "4", "--events", "20000", "--repeat", "1"),
        model="DEFAULT",
    ),
    Part(
        "peers",
        _TWICE,
        on_kafka=True,
        figures=_of_peers,
        quick=("--events", "20000", "--repeat", "1"),
        module=("tests.benchmarks.peers.compare",),
    ),
    Part(
        "peers_default",
        ("--peers", "kafka_streams,kafka_streams_batched,flink,quix,plain", "--events", "50000", *_TWICE),
        on_kafka=True,
        figures=lambda _: {},
        quick=("--events", "10000", "--repeat", "1"),
        module=("tests.benchmarks.peers.compare",),
        model="DEFAULT",
    ),
)
# Every figure of acceptance stands in the last line; what no part gives is null.
FIGURES: Final = (
    *("ratio_to_echo_json", "ratio_to_echo_float32", "ratio_to_quix", "kafka_python_ratio_to_echo"),
    *("hot_streams_ratio", "peak_share_h128", "peak_share_h64_whole_step", "flatness_steps", "flatness_streams"),
    *("latency_p50_ms", "latency_p99_ms", "rss_bytes_per_stream_1m", "catch_up_ratio"),
    *("raw_joining_to_decoding_ratio", "file_sorted_ratio", "file_sorted_ratio_default", "file_to_topic_ratio"),
    *("ratio_to_echo_json_default", "latency_p50_ms_default"),
    *("ratio_to_kafka_streams", "ratio_to_flink", "ratio_to_kafka_streams_batched"),
)


def main() -> int:
    """Run every part, write results and pictures, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="where results and pictures go")
    parser.add_argument(
        "--quick", action="store_true", help="some minutes instead of half an hour; the figures mean little"
    )
    parser.add_argument("--only", help="parts to run, separated by commas; results of others in the folder are kept")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    models = {"MODEL": str(_untrained(args.folder, 64)), "DEFAULT": "universal:1h"}
    chosen = [part for part in PARTS if args.only is None or part.name in args.only.split(",")]
    written = args.folder / "results.json"
    results: dict[str, Figures] = json.loads(written.read_text()) if args.only and written.exists() else {}
    failed = []
    with running_broker() as broker:
        for part in chosen:
            print(f"== {part.name}", flush=True)
            result = _run(part, models, broker.bootstrap_servers, quick=args.quick)
            if result is None:
                failed.append(part.name)
            else:
                results[part.name] = result
                written.write_text(json.dumps(results, indent=1))
    draw(results, args.folder)
    print(json.dumps(figures(results)))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def figures(results: Mapping[str, Figures]) -> Figures:
    """Return the figures of acceptance, null where nothing measured them."""
    found: Figures = dict.fromkeys(FIGURES)
    for part in PARTS:
        if part.name in results:
            found |= part.figures(results[part.name])
    return found


def _run(part: Part, models: Mapping[str, str], bootstrap: str, *, quick: bool) -> Figures | None:
    arguments = [models.get(argument, argument) for argument in part.arguments]
    if part.on_kafka:
        arguments += ["--model", models[part.model], "--kafka.bootstrap-servers", bootstrap]
    arguments += part.quick if quick else ()
    command: Sequence[str] = [sys.executable, "-m", *part.module, *arguments, "--json"]
    load = os.getloadavg()[0]  # of the minute before: 0 on an idle machine, and that of the part before in a whole run
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=_DEADLINE_S, check=False)
    if done.returncode:
        return None
    print(done.stdout, flush=True)
    result: Figures = json.loads(done.stdout.splitlines()[-1])
    return result | {"measured": {"commit": running_commit(), "load": load}}


def _untrained(folder: Path, hidden: int) -> Path:
    """Return a bundle like that of the figures asked for: GRU, 168 lags, 24 horizons, 3 levels; weights are random."""
    path = folder / f"gru{hidden}.onnx"
    if not path.exists():
        from rillcast_training.export.bundle import export
        from tests.support.forecasters import random_forecaster, small_config

        week = {"horizon": 24, "seasons": (24, 168), "context": 168, "max_gap": 168, "hidden": hidden}
        export(random_forecaster(small_config(**week)), path, name=f"gru{hidden}")
    return path


if __name__ == "__main__":
    sys.exit(main())
