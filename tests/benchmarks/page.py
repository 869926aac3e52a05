"""`docs/performance.md` from the results of a run of the suite.

    python -m tests.benchmarks.page .bench/results.json > docs/performance.md

Owns: the words around the figures. Every number on the page comes out of the results; a part that was not run leaves a
line that says so. One sentence a line.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rillcast.benchmarks.latency import QUANTILES
from tests.benchmarks.suite import FIGURES, figures

Result = dict[str, Any]
# The targets of this project, and the goals beyond them.
TARGETS: Mapping[str, str] = {
    "ratio_to_echo_json": "at least 0.70 (goal 0.75)",
    "ratio_to_echo_float32": "at least 0.45 (goal 0.50)",
    "ratio_to_quix": "at least 20",
    "kafka_python_ratio_to_echo": "at least 0.85",
    "hot_streams_ratio": "at least 0.50",
    "peak_share_h128": "at least 0.50",
    "peak_share_h64_whole_step": "at least 0.25 (goal 0.35)",
    "flatness_steps": "within 5 % of 1",
    "flatness_streams": "within 5 % of 1",
    "latency_p50_ms": "under 5",
    "latency_p99_ms": "under 25",
    "rss_bytes_per_stream_1m": "under 4,294 (4 GiB in all)",
    "catch_up_ratio": "at least 5",
    "raw_joining_to_decoding_ratio": "at most 2.5",
    "file_sorted_ratio": "at least 0.8",
    "file_sorted_ratio_default": "at least 0.8",
    "file_to_topic_ratio": "at least 0.7",
    "ratio_to_echo_json_default": "none",
    "latency_p50_ms_default": "none",
    "ratio_to_kafka_streams": "none (goal 20)",
    "ratio_to_flink": "none (goal 20)",
    "ratio_to_kafka_streams_batched": "none (goal 3)",
}


# Results of a part with another model or another part of its forecasts, by the end of their name.
_OTHERS: Mapping[str, str] = {
    "_default": "the default bundle",
    "_default_selected": "the default bundle, 3 levels and 24 steps published",
}


def page(results: Mapping[str, Result]) -> str:
    """Return the page."""
    parts = [_head(results), _summary(results)]
    for name, title, body in (
        ("step", "Engine alone", _step),
        ("file", "From a file to a file", _file),
        ("kafka", "Whole service over Kafka", _kafka),
        ("kafka_python", "The same with kafka-python", _kafka),
        ("workers", "Several workers against one", _workers),
        ("latency", "Latency", _latency),
        ("memory", "Memory", _memory),
        ("peers", "Neighbours", _peers),
    ):
        parts.append(f"## {title}\n\n" + (body(results[name]) if name in results else "Not measured in this run."))
        for suffix, of in _OTHERS.items():
            if name + suffix in results:
                parts.append(f"### {title}: {of}\n\n" + body(results[name + suffix]))
    gpu = """
        Not measured: no GPU was at hand. So nothing is known of the speed of a GPU, or of the gain from `cuda_graphs`.
        `rillcast bench gpu MODEL` measures both, and compares the forecasts with those of the CPU
        ([how](how-to/gpu-sizing.md))."""
    parts.append(f"## GPU\n\n{_prose(gpu)}")
    parts.append(f"## Where each part was measured\n\n{_measured(results)}")
    return "\n\n".join(parts) + "\n"


def _head(results: Mapping[str, Result]) -> str:
    machine = next(iter(results.values()))["machine"]
    generated = """
        `python -m tests.benchmarks.page .bench/results.json` makes this page from the results of `make bench`; do not
        edit it. Only ratios carry over to other machines, and each is taken in turns within one part."""
    where = f"""
        Machine: {machine["cores"]} cores of an {machine["cpu"]} (KVM), no GPU, the broker on the same machine; Python
        {machine["python"]}, ONNX Runtime {machine["onnxruntime"]}, numpy {machine["numpy"]}. Model: GRU of 64, 168
        lags, calendar, scores; 24 horizons, 3 levels; random weights. The default bundle is `universal:1h`, experts and
        a network, with 48 horizons and 9 levels."""
    why = """
        [Where the time goes](hot-path.md) explains the figures, [Scaling](scaling.md) has the arithmetic for many
        machines."""
    head = "# Performance\n\n*For operators and developers.*"
    return "\n\n".join((head, _prose(generated), _prose(where), _prose(why)))


def _summary(results: Mapping[str, Result]) -> str:
    found = figures(results)
    rows = [(f"`{name}`", _shown(found[name]), TARGETS[name]) for name in FIGURES]
    return _table(("figure", "this run", "target of this project"), rows)


def _measured(results: Mapping[str, Result]) -> str:
    about = """
        All parts ran on the machine above. The load is that of the minute before a part began; each part of a whole run
        leaves some to the next one."""
    rows = []
    for name, result in results.items():
        measured = result.get("measured", {})
        load = f"{measured['load']:.1f}" if "load" in measured else "not noted"
        rows.append((name, measured.get("commit", "not noted"), load))
    return _prose(about) + "\n\n" + _table(("part", "commit", "load"), rows)


def _step(result: Result) -> str:
    rows = []
    for row in result["steps"]:
        spread = f"{row['min']:,.0f} to {row['max']:,.0f}"
        rows.append((row["batch"], f"{row['steps_per_second']:,.0f}", f"{row['us_per_step']:.2f}", spread))
    return _table(("streams per call", "steps/s", "us per step", "range"), rows)


def _file(result: Result) -> str:
    about = f"""
        {result["streams"]:,} streams, {result["events"]:,} events, {result["format"]} in, JSON Lines out,
        {result["bytes_per_forecast"]:,.0f} bytes a forecast; `rillcast run` in one process. `interleaved` is sorted by
        time, `sorted` by stream. Its rate is {result["file_sorted_ratio"]:.2f} of the other one's."""
    rows = [
        (order, f"{run['events_per_second']:,.0f}", f"{run['cpu_us_per_event']:.1f}", _stages(run))
        for order, run in result["runs"].items()
    ]
    return _prose(about) + "\n\n" + _table(("order", "events/s", "processor us", "stages"), rows)


def _stages(run: Result) -> str:
    return ", ".join(f"{stage} {us:.2f}" for stage, us in run["stages_us_per_event"].items())


def _kafka(result: Result) -> str:
    about = f"""
        {result["streams"]:,} streams, `{result["delivery"]}`. The limit (`echo`) is a loop that reads the same events
        through the same client, decodes them, encodes forecasts of the same size with the same codec and writes them.
        Stages are microseconds of processor time of the loop's thread per event; `step` is wall time in the engine,
        which may run in a second thread. `busy` is the service with 8 streams, `file` the same events from a file."""
    rows = []
    for case in result["cases"]:
        for name, run in case["runs"].items():
            ratio = f"{case['ratio_to_echo']:.2f}" if name == "service" else ""
            rows.append(
                (
                    case["codec"],
                    f"{case['bytes_per_forecast']:,.0f}",
                    name,
                    f"{run['events_per_second']:,.0f}",
                    ratio,
                    f"{run['cpu_us_per_event']:.1f}",
                    _stages(run),
                )
            )
    head = "codec", "bytes a forecast", "run", "events/s", "of the limit", "processor us", "stages"
    return _prose(about) + "\n\n" + _table(head, rows)


def _workers(result: Result) -> str:
    rows = [
        (
            run["workers"],
            "a core each" if run["pinned"] else "free",
            f"{run['events_per_second']:,.0f}",
            f"{run['rate_ratio']:.2f}",
            f"{run['cpu_us_per_event']:.1f}",
            f"{run['cpu_per_event_ratio']:.2f}",
            f"{run['rest_us_per_event']:.1f}",
            f"{run['workers_cores']:.2f} of {run['cores']:.0f}",
        )
        for run in result["runs"]
    ]
    head = "workers", "threads", "events/s", "ratio", "processor us", "ratio", "us of the rest", "cores of the workers"
    about = """
        Each worker has its share of streams and partitions. Ratios are to one worker whose threads are placed alike.
        `us of the rest` is the processor time that everything else on the machine took per event, above all the broker,
        from the start of the workers to their end."""
    return _prose(about) + "\n\n" + _table(head, rows)


def _latency(result: Result) -> str:
    runs = result["runs"]
    rows = [
        (
            name,
            f"{result[name]:,.0f}",
            f"{min(run[name] for run in runs):,.0f} to {max(run[name] for run in runs):,.0f}",
        )
        for name in QUANTILES
    ]
    about = f"""
        Runs: {len(runs)}; shown is the one whose p99 is in the middle, with the lowest and the highest of all. Open
        loop at {result["rate"]:,.0f} events/s, half of the service's rate on a backlog; {result["events"]:,} events,
        each measured from the broker's append of the observation to its append of the forecast (`LogAppendTime` of both
        topics, whole milliseconds), whether or not the service kept up."""
    parts = f"""
        Where the mean of {result["mean_ms"]:.1f} ms is spent: events were {result["handed_over_mean_ms"]:.1f} ms old
        when their forecasts were handed to the client (of some events of each poll), of which a poll took
        {result["poll_mean_ms"]:.1f} ms from decoding to hand-over, with {result["poll_mean_events"]:,.0f} events on
        average. The rest is before it the fetch and the poll before, and after it the client and the broker's append.
        A commit took {result["commit_mean_ms"]:.1f} ms, in which no poll is taken."""
    return _prose(about) + "\n\n" + _table(("", "ms", "all runs"), rows) + "\n\n" + _prose(parts)


def _memory(result: Result) -> str:
    rows = [(name.replace("_", " "), _shown(value)) for name, value in result.items() if isinstance(value, int | float)]
    return _table(("", ""), rows)


def _peers(result: Result) -> str:
    rows = [
        (
            name,
            f"{run['events']:,}",
            f"{run['events_per_second']:,.0f}",
            f"{run['cpu_us_per_event']:,.0f}",
            f"{run['peak_rss_mib']:,.0f}",
            f"{run['rillcast_is_faster_by']:,.1f}",
        )
        for name, run in result["runs"].items()
    ]
    about = """
        The same events, model and broker, one process each, in turns. A neighbour steps the same bundle one event at a
        time, as its per-key callback has to; the programs are in `tests/benchmarks/peers/`, and their forecasts are
        compared with the engine's before they are timed. `plain` is a loop with librdkafka and a dictionary of states,
        `window` steps through the last 96 events again for each one. `river` has no recurrent model: it runs a seasonal
        autoregression of its own per stream, online, and gives points without quantiles. Kafka Streams and Flink have
        ONNX Runtime's Java package and two threads that step. Kafka Streams keeps state in RocksDB and a changelog
        topic, Flink on its heap with a checkpoint every second. Their clock starts after a fifth of the events, when
        their code is compiled. `batched` collects up to 256 events by hand before it steps them, and loses those in a
        crash. Names with `exactly_once` are compared with the service under `exactly_once`. Of these only Rillcast,
        Kafka Streams, Flink, Quix Streams and Faust keep state that survives a crash."""
    head = ("", "events", "events/s", "processor us per event", "peak MiB", "Rillcast is faster by")
    return _prose(about) + "\n\n" + _table(head, rows)


def _prose(text: str) -> str:
    """Return one line per sentence."""
    return re.sub(r"(?<=\.) (?=[A-Z`\[])", "\n", " ".join(text.split()))


def _shown(value: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 100 else f"{value:.3g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description="print docs/performance.md")
    parser.add_argument("results", type=Path, help="results.json of a run of the suite")
    print(page(json.loads(parser.parse_args().results.read_text())), end="")


if __name__ == "__main__":
    main()
