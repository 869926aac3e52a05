"""Serves raw topics by what `rillcast init` writes: `python -m tests.benchmarks.any_topic --data FOLDER`.

Three sources, each in a topic of a broker of its own:

- NAB's metrics of servers (`nab_aws_cloudwatch.csv.gz` of the folder), readings about every five minutes;
- trips of New York's taxis (`nab_known_cause.csv.gz`): each count of half an hour is spread into events, one for every
  4,000 trips;
- clicks on 10,000 pages, each a Poisson process of its own rate.

For each, `rillcast init` looks at the topic, and `rillcast run` serves with the file that it wrote, unedited. Its
forecasts are compared with those of an engine that steps the periods of polars' `group_by_dynamic`, number by number.
Then `rillcast backtest --aggregate` of the raw events is compared with a back-test of those periods.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from rillcast import cli, settings
from rillcast.bundle.bundle import Bundle
from rillcast.bundle.registry import reference
from rillcast.codecs.forecasts.reader import decode_forecast
from rillcast.engine.device import Device
from rillcast.engine.periods import value_of_empty
from rillcast.engine.step_engine import StepEngine
from rillcast.events import EventBatch
from rillcast.settings import Settings
from rillcast.transports.kafka.kafka_python.partitioner import partition_of
from tests.support.aggregation import POLARS
from tests.support.kafka_cluster import KafkaCluster, restartable_cluster, unique
from tests.support.service_process import ServiceProcess

PARTITIONS: Final = 2
_EVENTS_A_STEP: Final = 4_096
_WAIT_S: Final = 1_800.0
_TRIPS_PER_EVENT: Final = 4_000
_MINUTE_MS: Final = 60_000
_START_MS: Final = 1_764_547_200_000


@dataclass(frozen=True)
class Source:
    """Raw events, and the records that carry them.

    Attributes:
        name: Of the source.
        events: `unique_id`, `ds` (ms), `y` (null where events have no value), in the order of time.
        record: Makes the value of a record of one event.
    """

    name: str
    events: pl.DataFrame
    record: Callable[[str, int, float | None], dict[str, Any]]


@dataclass(frozen=True)
class Report:
    """What was found of a source.

    Attributes:
        source: Its name.
        events: Raw events.
        streams: Streams.
        model: What `rillcast init` chose, as are `aggregate` and `close`.
        forecasts: Published forecasts.
        missing: Closed periods of polars without a forecast.
        unexpected: Forecasts of other periods, and repeats.
        different: Forecasts of which a number differs.
        backtest: Figures of the raw events; empty where the source was not aggregated.
        backtest_is_equal: Whether the periods of polars have the same figures.
        seconds: From the start of the service to its last commit.
    """

    source: str
    events: int
    streams: int
    model: str
    aggregate: str
    close: str
    forecasts: int
    missing: int
    unexpected: int
    different: int
    backtest: dict[str, float]
    backtest_is_equal: bool
    seconds: float

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.missing or self.unexpected or self.different) and self.backtest_is_equal and self.forecasts > 0

    def line(self) -> str:
        """Return all in one line."""
        figures = ", ".join(f"{name.upper()} {value:.4g}" for name, value in self.backtest.items() if value is not None)
        equal = "equal to that of polars" if self.backtest_is_equal else "ANOTHER than that of polars"
        return (
            f"{self.source}: {self.events:,} events of {self.streams:,} streams, {self.model}, aggregate "
            f"{self.aggregate}, close {self.close}: forecasts / missing / unexpected / different = "
            f"{self.forecasts:,} / {self.missing} / {self.unexpected} / {self.different} in {self.seconds} s; "
            + (f"back-test {figures}, {equal}" if figures else "no aggregate to compare")
        )


def metrics(folder: Path) -> Source:
    """Return NAB's metrics of servers."""
    events = _nab(folder / "nab_aws_cloudwatch.csv.gz")
    return Source("metrics", events, lambda host, at, y: {"host": host, "time": at // 1_000, "value": y})


def trips(folder: Path) -> Source:
    """Return trips of taxis, spread over the half hours in which they were counted."""
    counts = _nab(folder / "nab_known_cause.csv.gz").filter(pl.col("unique_id").str.ends_with("nyc_taxi"))
    number = np.round(counts["y"].to_numpy() / _TRIPS_PER_EVENT).astype(np.int64)
    within = np.random.default_rng(7).integers(0, 30 * _MINUTE_MS, int(number.sum()))
    ds = np.sort(np.repeat(counts["ds"].to_numpy(), number) + within)
    events = pl.DataFrame({"ds": ds}).with_columns(unique_id=pl.lit("yellow"), y=pl.lit(None, pl.Float64))
    return Source("trips", events, lambda cab, at, _: {"cab": cab, "picked_up": at, "passenger": "somebody"})


def clicks(streams: int = 10_000, minutes: int = 12, seed: int = 7) -> Source:
    """Return clicks on pages, 3 to 12 a minute on each."""
    rng = np.random.default_rng(seed)
    number = rng.poisson(rng.uniform(3, 12, streams) * minutes)
    page = np.repeat(np.arange(streams), number)
    ds = _START_MS + rng.integers(0, minutes * _MINUTE_MS, page.size)
    order = np.argsort(ds, kind="stable")
    events = pl.DataFrame({"page": page[order], "ds": ds[order]}).select(
        pl.format("/page/{}", "page").alias("unique_id"), "ds", pl.lit(None, pl.Float64).alias("y")
    )
    return Source("clicks", events, lambda url, at, _: {"url": url, "user": f"u{at % 9973}", "eventTime": at})


def _nab(path: Path) -> pl.DataFrame:
    with gzip.open(path, "rt") as file:
        found = pl.read_csv(file.read().encode(), try_parse_dates=True)
    return found.with_columns(pl.col("ds").dt.epoch("ms"), pl.col("y").cast(pl.Float64)).sort("ds", maintain_order=True)


def accept(kafka: KafkaCluster, source: Source, folder: Path) -> Report:
    """Look, serve, compare."""
    topic, group = kafka.create_topic(source.name, PARTITIONS, retention_ms=-1), unique("any-topic")
    output, letters = kafka.create_topic("forecasts", PARTITIONS), kafka.create_topic("dead-letters")
    partition = {name: partition_of(name, PARTITIONS) for name in source.events["unique_id"].unique().to_list()}
    values = [json.dumps(source.record(*row)).encode() for row in source.events.select("unique_id", "ds", "y").rows()]
    kafka.produce(topic, values, [name.encode() for name in source.events["unique_id"].to_list()])
    written = folder / f"{source.name}.toml"
    given = {
        "input.topic": topic,
        "output.topic": output,
        "dead-letters.topic": letters,
        "kafka.bootstrap-servers": kafka.bootstrap_servers,
        "kafka.group-id": group,
    }
    flags = [part for name, value in given.items() for part in (f"--{name}", value)]
    _quietly(["init", "--out", str(written), *flags])
    chosen = settings.load(written)
    started = time.monotonic()
    command = (sys.executable, "-m", "rillcast", "run", "--config", str(written), "--http.port", "0")
    process = ServiceProcess({}, folder, command=command)
    try:
        process.wait_until(
            lambda: sum(kafka.committed(group, topic).values()) == len(values), "the end of the topic", within_s=_WAIT_S
        )
        seconds = time.monotonic() - started
        assert process.stop() == 0
    finally:
        process.kill()
    observations = _by_polars(source.events, chosen, partition)
    found = _compare(kafka, output, chosen, observations)
    figures, equal = _backtests(source.events, observations, chosen, folder / source.name)
    return Report(
        source.name, len(values), len(partition), str(chosen.model), chosen.input.aggregate, chosen.input.close,
        *found, figures, equal, round(seconds, 1),
    )  # fmt: skip


def _every(chosen: Settings) -> tuple[str, int]:
    """Return a period of the model as polars names it, and its milliseconds."""
    frequency = Bundle.load(reference.locate(chosen.model, chosen.model_cache)).metadata.frequency
    assert not frequency.in_months
    return f"{frequency.step}ms", frequency.step


def _by_polars(events: pl.DataFrame, chosen: Settings, partition: dict[str, int]) -> pl.DataFrame:
    """Return `unique_id, ds, y` of the observations, and whether their period is `closed`."""
    every, step = _every(chosen)
    given = chosen.input
    if given.aggregate == "none":  # the first event of a period is its observation
        first = events.with_columns(period=pl.col("ds") // step).unique(["unique_id", "period"], keep="first")
        return first.select("unique_id", "ds", "y", closed=pl.lit(value=True)).sort("ds", maintain_order=True)
    # Values are those of float32, as in service.
    events = events.with_columns(pl.from_epoch("ds", "ms"), pl.col("y").cast(pl.Float32).cast(pl.Float64))
    grouped = events.group_by_dynamic("ds", every=every, group_by="unique_id").agg(POLARS[given.aggregate])
    where = pl.DataFrame({"unique_id": list(partition), "partition": list(partition.values())})
    newest = events.join(where, "unique_id").with_columns(
        newest=pl.col("ds").max().over("unique_id" if given.close == "stream" else "partition")
    )
    ends = newest.group_by("unique_id").agg(
        pl.col("newest").first(),
        end=(pl.col("newest").first() - pl.duration(milliseconds=round(given.grace_s * 1_000))).dt.truncate(every),
    )
    ends = ends.with_columns(newest=pl.col("newest").dt.truncate(every))
    after = pl.col("ds").shift(-1).over("unique_id").fill_null(pl.col("newest") + pl.duration(milliseconds=step))
    number = ((after - pl.col("ds")).dt.total_milliseconds() // step).clip(1, given.silent_after + 1)
    filled = (
        grouped.sort("unique_id", "ds")
        .join(ends, "unique_id")
        .with_columns(nth=pl.int_ranges(0, number))
        .explode("nth")
        .with_columns(ds=pl.col("ds") + pl.duration(milliseconds=pl.col("nth") * step))
    )
    empty = 0.0 if value_of_empty(given.aggregate, given.empty) == "zero" else None
    return filled.select(
        "unique_id",
        pl.col("ds").dt.epoch("ms"),
        pl.when(pl.col("nth") == 0).then("y").otherwise(empty).fill_null(empty).alias("y"),
        closed=pl.col("ds") < pl.col("end"),
    ).sort("ds", "unique_id")


def _compare(
    kafka: KafkaCluster, output: str, chosen: Settings, observations: pl.DataFrame
) -> tuple[int, int, int, int]:
    """Return the forecasts, and how many are missing, unexpected and different."""
    _, step = _every(chosen)
    published: dict[tuple[str, int], npt.NDArray[np.float32]] = {}
    repeats, records = 0, kafka.read_all(output)
    for record in records:
        forecast = decode_forecast(record.value or b"", record.key)
        where = forecast.unique_id, forecast.ds // step
        repeats += where in published
        published[where] = forecast.values
    expected = observations.filter("closed")
    engine = StepEngine(Bundle.load(reference.locate(chosen.model, chosen.model_cache)), Device("cpu"))
    missing = different = 0
    for rows in expected.iter_slices(_EVENTS_A_STEP):
        ids, ds = rows["unique_id"].to_list(), rows["ds"].to_numpy()
        y = rows["y"].fill_null(float("nan")).to_numpy().astype(np.float32)
        result = engine.step(EventBatch.of(ids, ds, y))
        for row, (unique_id, at) in enumerate(zip(ids, ds.tolist(), strict=True)):
            found = published.pop((unique_id, at // step), None)
            missing += found is None
            different += found is not None and not np.array_equal(found, result.forecast[row])
    return len(records), missing, repeats + len(published), different


def _backtests(
    events: pl.DataFrame, observations: pl.DataFrame, chosen: Settings, stem: Path
) -> tuple[dict[str, float], bool]:
    """Return the figures of the raw events, and whether those of the periods are the same."""
    given = chosen.input
    if given.aggregate == "none":
        return {}, True
    raw, whole = stem.with_suffix(".raw.parquet"), stem.with_suffix(".parquet")
    events.write_parquet(raw)
    every = observations.select("unique_id", "ds", "y")
    if given.close == "partition":  # the table is one partition
        every = _by_polars(events, chosen, dict.fromkeys(events["unique_id"].unique().to_list(), 0)).drop("closed")
    every.write_parquet(whole)
    model = str(reference.locate(chosen.model, chosen.model_cache))
    flags = ["--aggregate", given.aggregate, "--close", given.close, "--silent-after", str(given.silent_after)]
    own = json.loads(_quietly(["backtest", model, str(raw), "--json", *flags]))
    offline = json.loads(_quietly(["backtest", model, str(whole), "--json"]))
    figures = {name: own[name] for name in ("mase", "smape", "wql", "coverage")}
    for each in (own, offline):
        del each["engine_seconds"]
    return figures, own == offline


def _quietly(command: Sequence[str]) -> str:
    """Run a command, and return what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = cli.main(list(command))
    assert code == 0, f"rillcast {' '.join(command)} ended with {code}"
    return out.getvalue()


def main(argv: Sequence[str] | None = None) -> int:
    """Run, and print a line for each source; 1 = something is wrong."""
    parser = argparse.ArgumentParser(prog="any_topic", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with NAB's series; without it only the clicks")
    parser.add_argument("--streams", type=int, default=10_000, help="pages that are clicked on (default: 10000)")
    parser.add_argument("--minutes", type=int, default=12, help="minutes of clicks (default: 12)")
    parser.add_argument("--only", choices=["metrics", "trips", "clicks"], action="append", help="repeatable")
    args = parser.parse_args(argv)
    makers: dict[str, Callable[[], Source]] = {"clicks": lambda: clicks(args.streams, args.minutes)}
    if args.data is not None:
        makers = {"metrics": lambda: metrics(args.data), "trips": lambda: trips(args.data)} | makers
    clean = True
    for name in args.only or makers:
        with restartable_cluster() as kafka, tempfile.TemporaryDirectory() as folder:
            report = accept(kafka, makers[name](), Path(folder))
        clean &= report.clean
        print(report.line(), flush=True)
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
