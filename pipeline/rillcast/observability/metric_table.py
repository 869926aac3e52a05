"""The table of the series that Prometheus scrapes: names, types, labels and help texts.

Owns: the table, which `docs/metrics.md` repeats and a test compares. Does not know: who counts.
Invariant: a stream id is a label of `rillcast_stream_alarm` only, whose number of series a setting bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LONG_SECONDS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_ROWS: Final = (1, 4, 16, 64, 256, 1024, 4096)


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table of metrics.

    Attributes:
        name: Name of the series.
        kind: Its type.
        help: Its help text.
        labels: Its labels.
        buckets: Upper ends of a histogram's buckets.
        by_model: Whether a service with several models has the series for each, with the label `model`.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    by_model: bool = False


COLLECTED: Final = (
    Metric("rillcast_open_alarms", "gauge", "Streams that have an open alarm, by severity.", ("severity",)),
    Metric(
        "rillcast_stream_alarm",
        "gauge",
        "1 for each open alarm, of those that opened first; at most `alarms.labelled_streams`.",
        ("unique_id", "kind", "direction", "severity"),
    ),
)
"""Series of which the values are made when Prometheus asks (`rillcast.observability.stream_alarms`)."""
TABLE: Final = (
    Metric("rillcast_build", "info", "Version of Rillcast; the value is always 1.", ("version",)),
    Metric(
        "rillcast_model",
        "info",
        "The bundle being served; the value is always 1.",
        ("name", "model_id", "cell", "freq", "device"),
        by_model=True,
    ),
    Metric("rillcast_events_total", "counter", "Events stepped, by status.", ("status",), by_model=True),
    Metric(
        "rillcast_raw_events_total",
        "counter",
        "Raw events that were aggregated (`input.aggregate`), by what became of them; a stepped event is a period.",
        ("outcome",),
        by_model=True,
    ),
    Metric("rillcast_replayed_events_total", "counter", "Events stepped again during recovery, output suppressed."),
    Metric("rillcast_skipped_events_total", "counter", "Events read again that the restored state contained already."),
    Metric("rillcast_forecasts_total", "counter", "Forecasts handed to the sink.", by_model=True),
    Metric(
        "rillcast_revised_forecasts_total",
        "counter",
        "Of those, forecasts from earlier periods that late events changed.",
    ),
    Metric("rillcast_put_events_total", "counter", "Late or corrected events that were applied."),
    Metric("rillcast_steps_again_total", "counter", "Steps of earlier events that this took."),
    Metric("rillcast_dead_letters_total", "counter", "Records handed to the dead-letter channel.", ("reason",)),
    Metric(
        "rillcast_left_out_records_total",
        "counter",
        "Records, elements of arrays and rows of tables that `input.only` leaves out, replayed ones included.",
    ),
    Metric(
        "rillcast_unmatched_events_total",
        "counter",
        "Events that no table of `models` takes and that are left out, replayed ones included.",
    ),
    Metric(
        "rillcast_covariates_masked_total",
        "counter",
        "Values of the model's covariates that it does not see, replayed events included.",
        ("reason",),
    ),
    Metric("rillcast_polls_total", "counter", "Polls that brought at least one record."),
    Metric("rillcast_poll_records", "histogram", "Records per poll that brought any.", buckets=_ROWS),
    Metric(
        "rillcast_model_calls_total", "counter", "Calls of the model; events / calls is the mean batch.", by_model=True
    ),
    Metric("rillcast_step_duration_seconds", "histogram", "Time in the engine per poll.", buckets=_SECONDS),
    Metric("rillcast_poll_duration_seconds", "histogram", "Time from decode to publish per poll.", buckets=_SECONDS),
    Metric(
        "rillcast_stage_seconds",
        "histogram",
        "Time in a stage of the loop per poll, of every 17th poll.",
        ("stage",),
        _SECONDS,
    ),
    Metric(
        "rillcast_event_latency_seconds",
        "histogram",
        "Age of an event, by the record's timestamp, when its forecast was handed to the sink.",
        buckets=_SECONDS,
    ),
    Metric("rillcast_commits_total", "counter", "Commits that succeeded."),
    Metric("rillcast_commit_failures_total", "counter", "Commits that failed; nothing after the last one counts."),
    Metric("rillcast_commit_duration_seconds", "histogram", "Time of a flush and commit.", buckets=_SECONDS),
    Metric("rillcast_rewinds_total", "counter", "Resets to the committed positions after a transaction failed."),
    Metric("rillcast_state_pages_written_total", "counter", "Pages of up to 256 streams handed to the state store."),
    Metric("rillcast_state_marks_written_total", "counter", "Partition snapshots handed to the state store."),
    Metric(
        "rillcast_state_retired_total",
        "counter",
        "Removals of stored state of models that served a partition before, one per partition.",
    ),
    Metric("rillcast_state_written_bytes_total", "counter", "Bytes handed to the state store."),
    Metric(
        "rillcast_restore_duration_seconds",
        "histogram",
        "Time from a partition's assignment to its first live event.",
        buckets=_LONG_SECONDS,
    ),
    Metric(
        "rillcast_restore_load_duration_seconds",
        "histogram",
        "Of that, the time until its stored state was loaded.",
        buckets=_LONG_SECONDS,
    ),
    Metric("rillcast_evicted_streams_total", "counter", "Idle streams whose state was dropped.", by_model=True),
    Metric("rillcast_partitions", "gauge", "Partitions that this member owns."),
    Metric("rillcast_partitions_restoring", "gauge", "Owned partitions whose state is still being replayed."),
    Metric("rillcast_source_lag_records", "gauge", "Records between position and end.", ("partition",)),
    Metric(
        "rillcast_brokers_away_seconds",
        "gauge",
        "Seconds for which no broker has answered this member, which waits for them; 0 = it does not.",
    ),
    Metric("rillcast_streams", "gauge", "Streams that have state.", by_model=True),
    Metric(
        "rillcast_overdue_streams",
        "gauge",
        "Of those, streams whose newest event lies more than `input.overdue_periods` behind their partition's newest.",
        by_model=True,
    ),
    Metric(
        "rillcast_sleeping_streams",
        "gauge",
        "Aggregated streams that had no event for more than `input.silent_after` periods.",
        by_model=True,
    ),
    Metric(
        "rillcast_split_streams",
        "gauge",
        "Streams that have state in more than one partition of this member.",
        by_model=True,
    ),
    Metric(
        "rillcast_state_bytes",
        "gauge",
        "Bytes of state on the device, spare rows of pages in use included.",
        by_model=True,
    ),
    Metric(
        "rillcast_scored_forecasts_total",
        "counter",
        "Forecasts met by their observation, by how many periods ahead they were made.",
        ("model_id", "horizon"),
    ),
    Metric(
        "rillcast_covered_forecasts_total",
        "counter",
        "Of those, forecasts whose outer interval held it.",
        ("model_id", "horizon"),
    ),
    Metric(
        "rillcast_nominal_coverage_ratio", "gauge", "Share that the outer interval is meant to hold.", by_model=True
    ),
    Metric(
        "rillcast_pinball_loss_total",
        "counter",
        "Sum of quantile losses, each in units of its stream's scale; divide by the scored forecasts.",
        ("model_id", "horizon"),
    ),
    Metric(
        "rillcast_forecast_error_total",
        "counter",
        "Sum of distances between middle quantile and observation, in units of the scale, by which was the larger.",
        ("model_id", "horizon", "side"),
    ),
    Metric(
        "rillcast_naive_error_total",
        "counter",
        "The same sum, both sides, for the seasonal-naive forecast, which is scored at the next period only.",
        ("model_id", "horizon"),
    ),
    Metric("rillcast_rated_events_total", "counter", "Events that have an anomaly.", ("model_id",)),
    Metric(
        "rillcast_anomalous_events_total",
        "counter",
        "Of those, events whose anomaly exceeds 0.99: one in a hundred where forecasts are calibrated.",
        ("model_id",),
    ),
    Metric(
        "rillcast_rare_events_total",
        "counter",
        "Of those, events whose anomaly exceeds 0.999: one in a thousand where tails are right.",
        ("model_id",),
    ),
    Metric(
        "rillcast_expert_weight_ratio",
        "gauge",
        "Mean weight of a base of the experts in the newest forecasts, over horizons and up to 500 streams.",
        ("base",),
    ),
    Metric(
        "rillcast_network_share_ratio",
        "gauge",
        "Mean share of what a network on top of experts says that counts, over horizons and up to 500 streams.",
        ("model_id",),
    ),
    Metric("rillcast_unchanged_forecasts_total", "counter", "Forecasts kept back because they had not moved."),
    Metric("rillcast_anomalies_published_total", "counter", "Anomalous observations handed to the sink."),
    Metric(
        "rillcast_alarms_total",
        "counter",
        "Alarms of streams handed to the sink, by change: opened, closed.",
        ("change",),
    ),
    *COLLECTED,
    Metric(
        "rillcast_model_swaps_total",
        "counter",
        "Roll-outs of another model: started, completed, failed (tried again), refused (it cannot take over).",
        ("outcome",),
        by_model=True,
    ),
    Metric(
        "rillcast_model_swap_pending_seconds",
        "gauge",
        "Seconds for which the wanted model has not served all partitions of this member; 0 = it does.",
        by_model=True,
    ),
    Metric(
        "rillcast_model_refused",
        "gauge",
        "1 while the wanted model can never take over in this member, so that its alias has to move; else 0.",
        by_model=True,
    ),
    Metric(
        "rillcast_model_warm_up_lag_records",
        "gauge",
        "Records between a model that follows and the positions at which its partitions are served.",
        ("model_id",),
        by_model=True,
    ),
    Metric(
        "rillcast_model_warm_up_partitions",
        "gauge",
        "Partitions in which a model follows the serving one.",
        ("model_id",),
        by_model=True,
    ),
    Metric(
        "rillcast_shadow_drops_total",
        "counter",
        "Times that the shadow failed and was unloaded; it is tried again after `rollout.retry_s`.",
        by_model=True,
    ),
    Metric(
        "rillcast_model_registry_errors_total",
        "counter",
        "Failed look-ups of an alias in the registry; the model that serves goes on.",
        by_model=True,
    ),
    Metric(
        "rillcast_compared_scored_forecasts_total",
        "counter",
        "Forecasts met by their observation while a shadow is compared, by role.",
        ("role", "model_id", "horizon"),
    ),
    Metric(
        "rillcast_compared_covered_forecasts_total",
        "counter",
        "Of those, forecasts whose outer interval held it.",
        ("role", "model_id", "horizon"),
    ),
    Metric(
        "rillcast_compared_pinball_loss_total",
        "counter",
        "Sum of their quantile losses, each in units of its stream's scale.",
        ("role", "model_id", "horizon"),
    ),
    Metric(
        "rillcast_compared_forecast_error_total",
        "counter",
        "Sum of their distances between middle quantile and observation, by which was the larger.",
        ("role", "model_id", "horizon", "side"),
    ),
    Metric(
        "rillcast_compared_naive_error_total",
        "counter",
        "The same sum, both sides, for the seasonal-naive forecast, at the next period; compare error / naive error.",
        ("role", "model_id", "horizon"),
    ),
)
