"""The series that Prometheus scrapes. The loop hands over counts once per poll; this module turns them into series.

Owns: the series, on an injected registry, and how results become counts. Does not know: where the counts come from, or
how the series are described (`rillcast.observability.metric_table`).

Invariant: an event is counted once by this process, also when a reset to the committed positions brings it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from rillcast.arrays import FloatArray, IntArray, rows_of_each
from rillcast.bundle.bundle import BundleMetadata
from rillcast.codecs.observations.rejections import Reason
from rillcast.engine.periods import Taken
from rillcast.engine.step_engine import Outcome, SilentStreams, StepResult
from rillcast.events import Masked
from rillcast.observability.metric_table import COLLECTED, TABLE
from rillcast.observability.observer import Observer, Published, chosen
from rillcast.observability.route_metrics import RouteMetrics
from rillcast.observability.score_counters import ScoreCounters
from rillcast.observability.stages import STAGES

ANOMALOUS: Final = 0.99
RARE: Final = 0.999
BY_NAME: Final = {row.name: row for row in TABLE}


class _ModelCounters(NamedTuple):
    """The counters of one model's quality."""

    scores: ScoreCounters
    rated: Counter
    anomalous: Counter
    rare: Counter


class Metrics(Observer):
    """All series of one worker."""

    def __init__(self, registry: CollectorRegistry, models: Mapping[str, BundleMetadata], device: str) -> None:
        """Show the series.

        Args:
            registry: Takes the series.
            models: The models that serve, by the name of their table; the only one has the empty name.
            device: Device of the models.
        """
        self.commits = 0
        self._named = "" not in models
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        self._infos: dict[str, Info] = {}
        self._device = device
        for row in (row for row in TABLE if row not in COLLECTED):
            labels = (*row.labels, "model") if row.by_model and self._named and row.kind != "info" else row.labels
            if row.kind == "counter":
                self._counters[row.name] = Counter(row.name, row.help, labels, registry=registry)
            elif row.kind == "gauge":
                self._gauges[row.name] = Gauge(row.name, row.help, labels, registry=registry)
            elif row.kind == "histogram":
                self._histograms[row.name] = Histogram(
                    row.name, row.help, labels, buckets=row.buckets, registry=registry
                )
            elif row.by_model and self._named:
                self._infos[row.name] = Info(row.name, row.help, ("model",), registry=registry)
            else:
                self._infos[row.name] = Info(row.name, row.help, registry=registry)
        self._infos["rillcast_build"].info({"version": version("rillcast")})
        # A series that exists from the start with 0 lets `rate()` see its first increase.
        series = {**self._counters, **self._gauges}
        self._routes = {name: RouteMetrics(self.of, series, name) for name in models}
        self._letters = {r: self._counters["rillcast_dead_letters_total"].labels(r.value) for r in Reason}
        masked = self._counters["rillcast_covariates_masked_total"]
        self._masked = [masked.labels(reason) for reason in Masked._fields]
        self._stages = {s: self._histograms["rillcast_stage_seconds"].labels(s) for s in STAGES}
        self._lag_partitions: set[int] = set()
        self._bases: set[str] = set()
        self._networks: set[str] = set()
        self._of_models: dict[str, _ModelCounters] = {}
        for name, metadata in models.items():
            self.serve(metadata, name)

    def of(self, name: str, route: str, *labels: str) -> Any:
        """Return the series of a route, with the label `model` where the tables of models have names."""
        metric = self._counters.get(name) or self._gauges.get(name) or self._infos[name]
        row = BY_NAME[name]
        values = (*labels, route) if row.by_model and self._named else labels
        return metric.labels(*values) if values else metric

    def of_route(self, route: str) -> RouteMetrics:
        """Return what the roll-outs of a route count."""
        return self._routes[route]

    # Results, as an observer.

    def observe(self, published: Published) -> None:
        """Count the events of a batch and their forecasts."""
        events, result, stepped = published.events, published.result, published.stepped
        counters, stats, route = self._counters, result.stats, self._routes[published.route]
        replayed = published.live.size - int(np.count_nonzero(published.live))
        _add(counters["rillcast_replayed_events_total"], replayed)
        already_applied = int(np.count_nonzero(result.outcome == Outcome.ALREADY_APPLIED))
        _add(counters["rillcast_skipped_events_total"], already_applied)
        _add(route.forecasts, len(published.forecasts))
        if result.revised is not None:
            # A revision is of an earlier event than the one that caused it.
            revised = published.forecasts.ds != events.ds[published.causes]
            counters["rillcast_revised_forecasts_total"].inc(int(np.count_nonzero(revised)))
        _add(route.evicted, stats.evicted)
        _add(route.calls, stats.calls)
        _add(counters["rillcast_put_events_total"], stats.late_events)
        _add(counters["rillcast_steps_again_total"], stats.replayed_steps)
        self._histograms["rillcast_step_duration_seconds"].observe(stats.seconds)
        if published.taken is not None:
            self._count_raw(published, published.taken, route)
        rows = chosen(stepped)
        new = self._not_counted_before(events.partitions[rows], events.offsets[rows], route.counted_to)
        if published.taken is not None and not len(published.taken.events):
            new[:] = True  # periods that closed without an event are counted under the offset before
        if not new.all():
            rows = np.flatnonzero(stepped)[new]
        self._count_results(published.metadata, result, rows, route)
        residents = published.engine.residents
        route.streams.set(residents.num_streams)
        route.split_streams.set(residents.num_split)
        route.state_bytes.set(residents.size_bytes)

    def _count_raw(self, published: Published, taken: Taken, route: RouteMetrics) -> None:
        """Count the raw events of a batch by their outcome."""
        events = taken.events
        new = self._not_counted_before(events.partitions, events.offsets, route.raw_counted_to)
        for outcome, counter in route.raw.items():
            rows = published.raw(outcome)
            counter.inc(int(np.count_nonzero(new[rows])))

    def _count_results(
        self, metadata: BundleMetadata, result: StepResult, rows: slice | IntArray, route: RouteMetrics
    ) -> None:
        status = result.status[rows]
        for counter, count in zip(route.events, np.bincount(status, minlength=len(route.events)), strict=True):
            _add(counter, int(count))
        of_model = self._of_model(metadata)
        if result.score is not None:
            of_model.scores.add(result.score[rows])
        if result.anomaly is not None:
            anomaly = result.anomaly[rows]
            _add(of_model.rated, anomaly.size - int(np.count_nonzero(np.isnan(anomaly))))
            _add(of_model.anomalous, int(np.count_nonzero(anomaly > ANOMALOUS)))
            _add(of_model.rare, int(np.count_nonzero(anomaly > RARE)))

    @staticmethod
    def _not_counted_before(
        partitions: IntArray, offsets: IntArray, counted_to: dict[int, int]
    ) -> npt.NDArray[np.bool_]:
        """Return `(n,)` whether each event was not counted before; all of them count as counted from now on."""
        new = np.ones(offsets.size, np.bool_)
        for partition, rows in rows_of_each(partitions):
            known, of_partition = counted_to.get(partition, 0), offsets[rows]
            if of_partition[0] < known:
                new[rows] = of_partition >= known
            counted_to[partition] = max(known, int(of_partition[-1]) + 1)
        return new

    def _of_model(self, metadata: BundleMetadata) -> _ModelCounters:
        model_id = metadata.model_id
        if model_id not in self._of_models:
            self._of_models[model_id] = _ModelCounters(
                ScoreCounters(self._counters, metadata.scores, labels=(model_id,)),
                self._counters["rillcast_rated_events_total"].labels(model_id),
                self._counters["rillcast_anomalous_events_total"].labels(model_id),
                self._counters["rillcast_rare_events_total"].labels(model_id),
            )
        return self._of_models[model_id]

    def unchanged(self, forecasts: int) -> None:
        """Count forecasts that were kept back because they had not moved."""
        self._counters["rillcast_unchanged_forecasts_total"].inc(forecasts)

    def anomalies_published(self, anomalies: int) -> None:
        """Count anomalous observations that were handed to the sink."""
        self._counters["rillcast_anomalies_published_total"].inc(anomalies)

    def alarms_published(self, change: str, alarms: int) -> None:
        """Count alarms that were handed to the sink where they opened or closed."""
        self._counters["rillcast_alarms_total"].labels(change).inc(alarms)

    def latency(self, seconds: FloatArray) -> None:
        """Take in the ages of some events."""
        observe = self._histograms["rillcast_event_latency_seconds"].observe
        for value in seconds.tolist():
            observe(value)

    def expert_weights(self, by_base: Mapping[str, float]) -> None:
        """Set the mean weight of each base of the experts, and drop the series of other bases."""
        gauge = self._gauges["rillcast_expert_weight_ratio"]
        for base in self._bases - set(by_base):
            gauge.remove(base)
        for base, weight in by_base.items():
            gauge.labels(base).set(weight)
        self._bases = set(by_base)

    def network_share(self, by_model: Mapping[str, float]) -> None:
        """Set the mean share of a network on top of experts by id of the model, and drop the series of others."""
        gauge = self._gauges["rillcast_network_share_ratio"]
        for model_id in self._networks - set(by_model):
            gauge.remove(model_id)
        for model_id, share in by_model.items():
            gauge.labels(model_id).set(share)
        self._networks = set(by_model)

    # Models come and go.

    def expect(self, metadata: BundleMetadata) -> None:
        """Show the series of a model that may come to serve: from 0, so that `rate()` sees their first increase."""
        self._of_model(metadata)

    def serve(self, metadata: BundleMetadata, route: str = "") -> None:
        """Show the bundle that serves a route from now on."""
        self.expect(metadata)
        self.of("rillcast_model", route).info(
            {
                "name": metadata.name,
                "model_id": metadata.model_id,
                "cell": metadata.cell,
                "freq": metadata.freq,
                "device": self._device,
            }
        )
        self.of("rillcast_nominal_coverage_ratio", route).set(metadata.quantiles[-1] - metadata.quantiles[0])

    # The loop.

    def polled(self, records: int, seconds: float) -> None:
        """Count a poll that brought records."""
        self._counters["rillcast_polls_total"].inc()
        self._histograms["rillcast_poll_records"].observe(records)
        self._histograms["rillcast_poll_duration_seconds"].observe(seconds)

    def stage(self, stage: str, seconds: float) -> None:
        """Take in the seconds that one poll spent in one stage."""
        self._stages[stage].observe(seconds)

    def dead_lettered(self, reason: Reason) -> None:
        """Count a dead letter."""
        self._letters[reason].inc()

    def covariates_masked(self, masked: Masked) -> None:
        """Count values of covariates that the model does not see."""
        if any(masked):
            for counter, count in zip(self._masked, masked, strict=True):
                counter.inc(count)

    def left_out(self, records: int) -> None:
        """Count records that the settings leave out."""
        self._counters["rillcast_left_out_records_total"].inc(records)

    def unmatched(self, events: int) -> None:
        """Count events that no table of models takes."""
        self._counters["rillcast_unmatched_events_total"].inc(events)

    def committed(self, seconds: float, pages: int, marks: int, retired: int) -> None:
        """Count a commit, its seconds, and the pages and marks of a snapshot in it."""
        self._counters["rillcast_state_pages_written_total"].inc(pages)
        self._counters["rillcast_state_marks_written_total"].inc(marks)
        self._counters["rillcast_state_retired_total"].inc(retired)
        self.commits += 1
        self._counters["rillcast_commits_total"].inc()
        self._histograms["rillcast_commit_duration_seconds"].observe(seconds)

    def commit_failed(self) -> None:
        """Count a commit that failed."""
        self._counters["rillcast_commit_failures_total"].inc()

    def reset_to_committed(self) -> None:
        """Count a reset to the committed positions."""
        self._counters["rillcast_rewinds_total"].inc()

    def state_written(self, more_bytes: int) -> None:
        """Count bytes handed to the state store."""
        self._counters["rillcast_state_written_bytes_total"].inc(more_bytes)

    def restored(self, seconds: float) -> None:
        """Take in the seconds from a partition's assignment until it went live."""
        self._histograms["rillcast_restore_duration_seconds"].observe(seconds)

    def loaded(self, seconds: float) -> None:
        """Take in the seconds until a partition's stored state was loaded."""
        self._histograms["rillcast_restore_load_duration_seconds"].observe(seconds)

    def assignment(self, owned: int, restoring: int) -> None:
        """Set how many partitions this member owns, and how many of them are restoring."""
        self._gauges["rillcast_partitions"].set(owned)
        self._gauges["rillcast_partitions_restoring"].set(restoring)

    def silent_streams(self, silent: SilentStreams, route: str = "") -> None:
        """Set how many streams of a route are overdue, and how many sleep."""
        self.of("rillcast_overdue_streams", route).set(silent.overdue)
        self.of("rillcast_sleeping_streams", route).set(silent.sleeping)

    def brokers_away(self, seconds: float) -> None:
        """Set for how many seconds no broker has answered."""
        self._gauges["rillcast_brokers_away_seconds"].set(seconds)

    def lag(self, by_partition: Mapping[int, int]) -> None:
        """Set the lag of the owned partitions and drop the series of partitions that left."""
        gauge = self._gauges["rillcast_source_lag_records"]
        for partition in self._lag_partitions - set(by_partition):
            gauge.remove(str(partition))
        for partition, records in by_partition.items():
            gauge.labels(str(partition)).set(records)
        self._lag_partitions = set(by_partition)


def _add(counter: Counter, count: int) -> None:
    """Add to a counter; most counts of a poll are 0, and to add one takes a lock."""
    if count:
        counter.inc(count)
