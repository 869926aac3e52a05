"""The three dashboards, one for each kind of reader: is it healthy, are the forecasts good, where does the time go.

Owns: which queries each panel makes. `python -m deploy.generate` writes them as JSON;
`tests/integration/http/test_prometheus_live.py` asks every query of a running service.
"""

from __future__ import annotations

from typing import Final

from deploy.grafana.model import Annotation, Dashboard, Panel, Query, Row


def _quantile(level: float, histogram: str, by: str = "") -> str:
    inner = f'sum by (le{", " + by if by else ""}) (rate({histogram}_bucket{{job="$job"}}[$__rate_interval]))'
    return f"histogram_quantile({level}, {inner})"


def _quantiles(histogram: str) -> tuple[Query, ...]:
    return tuple(Query(_quantile(level, histogram), f"p{100 * level:g}") for level in (0.5, 0.9, 0.99))


def _rate(counter: str, by: str = "job", over: str = "$__rate_interval") -> str:
    return f'sum by ({by}) (rate({counter}{{job="$job"}}[{over}]))'


def _ratio(part: str, whole: str, by: str) -> str:
    return f"{_rate(part, by, '1h')} / ({_rate(whole, by, '1h')} > 0)"


def _to_naive(prefix: str, by: str) -> str:
    """Return mean error by horizon over mean seasonal-naive error, which is scored at the next period only."""
    scored = f'sum by ({by}) (rate({prefix}scored_forecasts_total{{job="$job", horizon="1"}}[1h]))'
    naive = f"{_rate(f'{prefix}naive_error_total', by, '1h')} / ({scored} > 0)"
    error = _ratio(f"{prefix}forecast_error_total", f"{prefix}scored_forecasts_total", f"{by}, horizon")
    return f"{error} / on ({by}) group_left () ({naive})"


def _scores(prefix: str, by: str, whose: str, help_: str) -> tuple[Panel, ...]:
    legend, each = f"{whose}, {{{{horizon}}}} ahead", f"{by}, horizon"
    scored = f"{prefix}scored_forecasts_total"
    label = by.partition(",")[0].removesuffix("_id")
    return (
        Panel(
            f"Error against seasonal naive by {label}",
            f"Below 1: better than the value of a season ago. {help_}",
            "short",
            (Query(_to_naive(prefix, by), legend),),
        ),
        Panel(
            f"Coverage by {label}",
            f"Share of observations inside the outer interval. {help_}",
            "percentunit",
            (
                Query(_ratio(f"{prefix}covered_forecasts_total", scored, each), legend),
                Query('job:rillcast_nominal_coverage:ratio{job="$job"}', "nominal"),
            ),
            bounds=(0, 1),
        ),
        Panel(
            f"Quantile loss by {label}",
            f"In units of each model's own scale. {help_}",
            "short",
            (Query(_ratio(f"{prefix}pinball_loss_total", scored, each), legend),),
        ),
    )


_ALARMS: Final = Annotation(
    "Alarms of streams",
    "While a stream has an open alarm; at most `alarms.labelled_streams` of each member.",
    Query('max by (unique_id, kind, direction, severity) (rillcast_stream_alarm{job="$job"}) > 0', "{{unique_id}}"),
    "{{kind}} {{direction}}",
    "red",
)
_ROLL_OUTS: Final = Annotation(
    "Roll-outs",
    "When another model has taken over.",
    Query('sum by (job) (increase(rillcast_model_swaps_total{job="$job", outcome="completed"}[1m])) > 0', "Roll-out"),
    "{{job}}",
    "blue",
)
HEALTH: Final = Dashboard(
    uid="rillcast-health",
    annotations=(_ALARMS, _ROLL_OUTS),
    title="Rillcast: is it healthy?",
    description="For the operator: members, lag, commits, restores, dead letters.",
    rows=(
        Row(
            "Now",
            (
                Panel(
                    "Members",
                    "Members that answer Prometheus.",
                    "short",
                    (Query('sum by (job) (up{job="$job"})', "members"),),
                    "stat",
                    4,
                ),
                Panel(
                    "Partitions restoring",
                    "Their forecasts are not published yet. Above 0 for long: see RillcastRestoreStuck.",
                    "short",
                    (Query('sum by (job) (rillcast_partitions_restoring{job="$job"})', "restoring"),),
                    "stat",
                    4,
                    red_above=1,
                ),
                Panel(
                    "Lag",
                    "Observations that wait to be read.",
                    "short",
                    (Query('sum by (job) (rillcast_source_lag_records{job="$job"})', "records"),),
                    "stat",
                    4,
                ),
                Panel(
                    "Age when published, p99",
                    "By the record's timestamp.",
                    "s",
                    (Query(_quantile(0.99, "rillcast_event_latency_seconds"), "p99"),),
                    "stat",
                    4,
                ),
                Panel(
                    "Commit failures and resets, 1 h",
                    "Above 0: see RillcastCommitFailures.",
                    "short",
                    (
                        Query(
                            'sum by (job) (increase(rillcast_commit_failures_total{job="$job"}[1h]))'
                            ' + sum by (job) (increase(rillcast_rewinds_total{job="$job"}[1h]))',
                            "failures",
                        ),
                    ),
                    "stat",
                    4,
                    red_above=1,
                ),
                Panel(
                    "Dead letters, share",
                    "Share of the records read, over 5 minutes. Above 1 %: see RillcastDeadLetters.",
                    "percentunit",
                    (Query('job:rillcast_dead_letters:ratio_rate5m{job="$job"}', "share"),),
                    "stat",
                    4,
                    red_above=0.01,
                ),
            ),
            height=4,
        ),
        Row(
            "Work",
            (
                Panel(
                    "Events and forecasts",
                    "Read events and published forecasts, per second.",
                    "ops",
                    (
                        Query(_rate("rillcast_events_total"), "events"),
                        Query(_rate("rillcast_forecasts_total"), "forecasts"),
                        Query(_rate("rillcast_dead_letters_total"), "dead letters"),
                        Query(_rate("rillcast_replayed_events_total"), "replayed"),
                    ),
                ),
                Panel(
                    "Lag by partition",
                    "One curve that climbs alone is one hot key or one slow member.",
                    "short",
                    (Query('sum by (partition) (rillcast_source_lag_records{job="$job"})', "{{partition}}"),),
                ),
                Panel(
                    "Age of an event when its forecast was published",
                    "By the record's timestamp; high while a backlog is read.",
                    "s",
                    _quantiles("rillcast_event_latency_seconds"),
                    log=True,
                ),
            ),
        ),
        Row(
            "Members",
            (
                Panel(
                    "Partitions by member",
                    "An uneven share is normal for a moment, after a rebalance.",
                    "short",
                    (Query('rillcast_partitions{job="$job"}', "{{instance}}"),),
                    stack=True,
                ),
                Panel(
                    "Restoring by member",
                    "Partitions whose state is not yet as of the committed offset.",
                    "short",
                    (Query('rillcast_partitions_restoring{job="$job"}', "{{instance}}"),),
                    stack=True,
                ),
                Panel(
                    "Age of the process",
                    "A sawtooth is a loop of restarts.",
                    "s",
                    (Query('time() - process_start_time_seconds{job="$job"}', "{{instance}}"),),
                ),
            ),
        ),
        Row(
            "Durability",
            (
                Panel(
                    "Commits",
                    "Per second. A failure ends the member; a reset returns to the committed positions.",
                    "ops",
                    (
                        Query(_rate("rillcast_commits_total"), "commits"),
                        Query(_rate("rillcast_commit_failures_total"), "failures"),
                        Query(_rate("rillcast_rewinds_total"), "resets"),
                    ),
                ),
                Panel(
                    "State written",
                    "Bytes per second handed to the state store.",
                    "Bps",
                    (Query(_rate("rillcast_state_written_bytes_total", "instance"), "{{instance}}"),),
                ),
                Panel(
                    "Time to restore a partition",
                    "From assignment to the first live event; mean since each member's start.",
                    "s",
                    (
                        Query(
                            'rillcast_restore_duration_seconds_sum{job="$job"}'
                            ' / (rillcast_restore_duration_seconds_count{job="$job"} > 0)',
                            "{{instance}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Roll-out",
            (
                Panel(
                    "Swap pending",
                    "Time for which a promoted model has not taken over. Above an hour: see RillcastModelSwapStuck.",
                    "s",
                    (Query('rillcast_model_swap_pending_seconds{job="$job"}', "{{instance}} {{model}}"),),
                    width=6,
                ),
                Panel(
                    "Warm-up lag",
                    "Records between a follower and the serving model. A shadow stays near 0.",
                    "short",
                    (Query('sum by (model_id) (rillcast_model_warm_up_lag_records{job="$job"})', "{{model_id}}"),),
                    width=6,
                ),
                Panel(
                    "Swaps by outcome, 1 h",
                    "Over all members. Failed ones are tried again, refused ones are not: see RillcastModelSwapFailed.",
                    "short",
                    (Query('sum by (outcome) (increase(rillcast_model_swaps_total{job="$job"}[1h]))', "{{outcome}}"),),
                    width=6,
                ),
                Panel(
                    "Registry errors, shadow drops, states removed, 1 h",
                    "Lookups without an answer; shadows that failed or fell behind, and are tried again; "
                    "stored states removed because their model no longer serves.",
                    "short",
                    (
                        Query(
                            'sum by (job) (increase(rillcast_model_registry_errors_total{job="$job"}[1h]))',
                            "registry errors",
                        ),
                        Query('sum by (job) (increase(rillcast_shadow_drops_total{job="$job"}[1h]))', "shadow drops"),
                        Query(
                            'sum by (job) (increase(rillcast_state_retired_total{job="$job"}[1h]))', "states removed"
                        ),
                    ),
                    width=6,
                ),
            ),
        ),
        Row(
            "Trouble and size",
            (
                Panel(
                    "Dead letters by reason",
                    "Per second.",
                    "ops",
                    (Query(_rate("rillcast_dead_letters_total", "reason"), "{{reason}}"),),
                    stack=True,
                ),
                Panel(
                    "Streams",
                    "Streams that have state, and those that have it in two partitions.",
                    "short",
                    (
                        Query('rillcast_streams{job="$job"}', "{{instance}} {{model}}"),
                        Query('rillcast_split_streams{job="$job"}', "{{instance}} {{model}} split"),
                    ),
                ),
                Panel(
                    "Memory",
                    "Memory of the process, and of the states on the device.",
                    "bytes",
                    (
                        Query('process_resident_memory_bytes{job="$job"}', "{{instance}} process"),
                        Query('rillcast_state_bytes{job="$job"}', "{{instance}} {{model}} states"),
                    ),
                ),
            ),
        ),
        Row(
            "Tables of models",
            (
                Panel(
                    "Events by model",
                    "Per second, by the table of models that took them; one curve for a service with one model.",
                    "ops",
                    (Query(_rate("rillcast_events_total", "model"), "events {{model}}"),),
                    stack=True,
                ),
                Panel(
                    "Streams by model",
                    "Streams that have state, over all members.",
                    "short",
                    (Query('sum by (model) (rillcast_streams{job="$job"})', "streams {{model}}"),),
                    stack=True,
                ),
                Panel(
                    "Unmatched events",
                    "Events that no table takes and that are left out, per second: a pattern may lack streams.",
                    "ops",
                    (Query(_rate("rillcast_unmatched_events_total"), "unmatched"),),
                ),
            ),
        ),
    ),
)

QUALITY: Final = Dashboard(
    uid="rillcast-quality",
    annotations=(_ALARMS, _ROLL_OUTS),
    title="Rillcast: are the forecasts good?",
    description="For the data scientist: coverage, loss, error against the seasonal-naive forecast, bias, by horizon.",
    since="now-2d",
    rows=(
        Row(
            "Now",
            (
                Panel(
                    "Coverage, next period",
                    "Share of observations inside the outer interval, last hour.",
                    "percentunit",
                    (
                        Query('job_horizon:rillcast_coverage:ratio_rate1h{job="$job", horizon="1"}', "observed"),
                        Query('job:rillcast_nominal_coverage:ratio{job="$job"}', "nominal"),
                    ),
                    "stat",
                    8,
                ),
                Panel(
                    "Error against seasonal naive, next period",
                    "Below 1: better than the value of a season ago.",
                    "short",
                    (Query('job_horizon:rillcast_error_to_naive:ratio_rate1h{job="$job", horizon="1"}', "ratio"),),
                    "stat",
                    4,
                    red_above=1,
                ),
                Panel(
                    "Anomalous",
                    "Events beyond the 99 % mark; 1 % is expected.",
                    "percentunit",
                    (Query('job:rillcast_anomalous_events:ratio_rate1h{job="$job"}', "share"),),
                    "stat",
                    4,
                    red_above=0.05,
                ),
                Panel(
                    "Model",
                    "Members by the bundle that they serve. Two of one table of models for long: a roll-out is stuck.",
                    "short",
                    (
                        Query(
                            'count by (model, name, model_id) (rillcast_model_info{job="$job"})',
                            "{{name}}@{{model_id}} {{model}}",
                        ),
                    ),
                    "stat",
                    8,
                ),
            ),
            height=4,
        ),
        Row(
            "Intervals",
            (
                Panel(
                    "Coverage by horizon",
                    "Share of observations inside the outer interval, over an hour.",
                    "percentunit",
                    (
                        Query('job_horizon:rillcast_coverage:ratio_rate1h{job="$job"}', "{{horizon}} ahead"),
                        Query('job:rillcast_nominal_coverage:ratio{job="$job"}', "nominal"),
                    ),
                    width=12,
                    bounds=(0, 1),
                ),
                Panel(
                    "Quantile loss by horizon",
                    "Mean over an hour, in units of each stream's scale: comparable over streams; lower is better.",
                    "short",
                    (Query('job_horizon:rillcast_pinball_loss:mean1h{job="$job"}', "{{horizon}} ahead"),),
                    width=12,
                ),
            ),
        ),
        Row(
            "Middle",
            (
                Panel(
                    "Error against seasonal naive",
                    "Absolute error of the middle quantile over that of the value of a "
                    "season ago. Above 1 the model adds nothing.",
                    "short",
                    (Query('job_horizon:rillcast_error_to_naive:ratio_rate1h{job="$job"}', "{{horizon}} ahead"),),
                ),
                Panel(
                    "Absolute error",
                    "Error of the middle quantile, in units of the scale, mean over an hour.",
                    "short",
                    (Query('job_horizon:rillcast_absolute_error:mean1h{job="$job"}', "{{horizon}} ahead"),),
                ),
                Panel(
                    "Bias",
                    "Middle quantile minus observation, in units of the scale; 0 is right, above 0 is too high.",
                    "short",
                    (Query('job_horizon:rillcast_bias:mean1h{job="$job"}', "{{horizon}} ahead"),),
                    bounds=(None, None),
                ),
            ),
        ),
        Row(
            "By model",
            _scores(
                "rillcast_",
                "model_id",
                "{{model_id}}",
                "Over an hour, by the model that made the forecast: shows the effect of a roll-out.",
            ),
        ),
        Row(
            "The shadow",
            _scores(
                "rillcast_compared_",
                "role, model_id",
                "{{role}} {{model_id}}",
                "Over an hour, of both models for the same events; empty without a shadow.",
            ),
        ),
        Row(
            "Inputs",
            (
                Panel(
                    "Events by status",
                    "Gaps and missing values make forecasts worse; late events are dead letters.",
                    "ops",
                    (Query(_rate("rillcast_events_total", "status"), "{{status}}"),),
                    width=5,
                    stack=True,
                ),
                Panel(
                    "Open alarms",
                    "Streams that have an open alarm, by severity. `/api/v1/alarms` and the live page name them.",
                    "short",
                    (Query('sum by (severity) (rillcast_open_alarms{job="$job"})', "{{severity}}"),),
                    width=4,
                    stack=True,
                ),
                Panel(
                    "Anomalous events",
                    "Share beyond the 99 % mark of the forecast made one period before.",
                    "percentunit",
                    (Query('job:rillcast_anomalous_events:ratio_rate1h{job="$job"}', "share"),),
                    width=5,
                ),
                Panel(
                    "Drift of the inputs",
                    "Mean distance of an observation from the one a season before, in units of its stream's scale, "
                    "over an hour. It does not depend on the model: if it moves, the inputs have changed.",
                    "short",
                    (Query('job:rillcast_naive_error:mean1h{job="$job"}', "distance"),),
                    width=5,
                ),
                Panel(
                    "Forecasts scored",
                    "Within the last hour, by horizon: the sample size of the other panels.",
                    "short",
                    (Query('job_horizon:rillcast_scored_forecasts:increase1h{job="$job"}', "{{horizon}} ahead"),),
                    width=5,
                ),
            ),
        ),
    ),
)

PERFORMANCE: Final = Dashboard(
    uid="rillcast-performance",
    title="Rillcast: where does the time go?",
    description="For performance work: stages of the loop, batches, engine, commits, CPU per event.",
    since="now-1h",
    refresh="10s",
    rows=(
        Row(
            "The loop",
            (
                Panel(
                    "Share of the loop by stage",
                    "Share of the timed polls; `poll` is the wait for events.",
                    "percentunit",
                    (
                        Query(
                            _rate("rillcast_stage_seconds_sum", "stage")
                            + " / ignoring (stage) group_left () "
                            + 'sum (rate(rillcast_stage_seconds_sum{job="$job"}[$__rate_interval]))',
                            "{{stage}}",
                        ),
                    ),
                    width=12,
                    stack=True,
                    bounds=(0, 1),
                ),
                Panel(
                    "Time per timed poll by stage",
                    "Mean time of a stage in a timed poll.",
                    "s",
                    (
                        Query(
                            _rate("rillcast_stage_seconds_sum", "stage")
                            + " / "
                            + _rate("rillcast_stage_seconds_count", "stage"),
                            "{{stage}}",
                        ),
                    ),
                    width=12,
                    log=True,
                ),
            ),
        ),
        Row(
            "Events",
            (
                Panel(
                    "CPU per event",
                    "All threads of the process; a member can use about one core.",
                    "s",
                    (
                        Query(
                            _rate("process_cpu_seconds_total", "instance")
                            + " / on (instance) "
                            + _rate("rillcast_events_total", "instance"),
                            "{{instance}}",
                        ),
                    ),
                ),
                Panel(
                    "Engine time per event",
                    "The model, with gather and scatter of its rows.",
                    "s",
                    (
                        Query(
                            _rate("rillcast_step_duration_seconds_sum", "instance")
                            + " / on (instance) "
                            + _rate("rillcast_events_total", "instance"),
                            "{{instance}}",
                        ),
                    ),
                ),
                Panel(
                    "Events per call of the model",
                    "Small batches at low load, large ones at high load.",
                    "short",
                    (
                        Query(
                            _rate("rillcast_events_total", "instance")
                            + " / on (instance) "
                            + _rate("rillcast_model_calls_total", "instance"),
                            "{{instance}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Polls",
            (
                Panel(
                    "Records per poll",
                    "At `worker.max_poll_records` the service is behind its topic.",
                    "short",
                    _quantiles("rillcast_poll_records"),
                    log=True,
                ),
                Panel(
                    "Time per poll",
                    "From decode to publish.",
                    "s",
                    _quantiles("rillcast_poll_duration_seconds"),
                    log=True,
                ),
                Panel(
                    "Engine time per poll",
                    "Time of the step of a poll.",
                    "s",
                    _quantiles("rillcast_step_duration_seconds"),
                    log=True,
                ),
            ),
        ),
        Row(
            "Commits and machine",
            (
                Panel(
                    "Time per commit",
                    "Flush, commit, and the part of a snapshot in it.",
                    "s",
                    _quantiles("rillcast_commit_duration_seconds"),
                    log=True,
                ),
                Panel(
                    "CPU",
                    "Cores in use.",
                    "short",
                    (Query(_rate("process_cpu_seconds_total", "instance"), "{{instance}}"),),
                ),
                Panel(
                    "State per stream",
                    "On the device, spare rows included.",
                    "bytes",
                    (
                        Query(
                            'sum by (instance) (rillcast_state_bytes{job="$job"})'
                            ' / (sum by (instance) (rillcast_streams{job="$job"}) > 0)',
                            "{{instance}}",
                        ),
                    ),
                ),
            ),
        ),
    ),
)

DASHBOARDS: Final = (HEALTH, QUALITY, PERFORMANCE)
