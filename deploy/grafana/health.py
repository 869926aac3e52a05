"""The dashboard for the operator: is the service healthy?"""

from __future__ import annotations

from typing import Final

from deploy.grafana.model import Dashboard, Panel, Query, Row
from deploy.grafana.queries import ALARMS, RESTARTS, ROLL_OUTS, quantile, quantiles, rate, spread

HEALTH: Final = Dashboard(
    uid="rillcast-health",
    annotations=(ALARMS, ROLL_OUTS, RESTARTS),
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
                    (Query(quantile(0.99, "rillcast_event_latency_seconds"), "p99"),),
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
                        Query(rate("rillcast_events_total"), "events"),
                        Query(rate("rillcast_forecasts_total"), "forecasts"),
                        Query(rate("rillcast_dead_letters_total"), "dead letters"),
                        Query(rate("rillcast_replayed_events_total"), "replayed"),
                    ),
                ),
                Panel(
                    "Lag by partition",
                    "The three with the most. One curve that climbs alone is one hot key or one slow member.",
                    "short",
                    spread('sum by (partition) (rillcast_source_lag_records{job="$job"})', "partition"),
                ),
                Panel(
                    "Age of an event when its forecast was published",
                    "By the record's timestamp; high while a backlog is read.",
                    "s",
                    quantiles("rillcast_event_latency_seconds"),
                    log=True,
                ),
            ),
        ),
        Row(
            "Members",
            (
                Panel(
                    "Partitions by member",
                    "The three with the most. An uneven share is normal for a moment, after a rebalance.",
                    "short",
                    spread('rillcast_partitions{job="$job"}'),
                ),
                Panel(
                    "Restoring by member",
                    "Partitions whose state is not yet as of the committed offset: the three with the most.",
                    "short",
                    spread('rillcast_partitions_restoring{job="$job"}'),
                ),
                Panel(
                    "Age of the process",
                    "The three that were youngest. A sawtooth is a loop of restarts.",
                    "s",
                    spread('time() - process_start_time_seconds{job="$job"}', lowest=True),
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
                        Query(rate("rillcast_commits_total"), "commits"),
                        Query(rate("rillcast_commit_failures_total"), "failures"),
                        Query(rate("rillcast_rewinds_total"), "resets"),
                    ),
                ),
                Panel(
                    "State written",
                    "Bytes per second that members hand to the state store: the three that write most.",
                    "Bps",
                    spread(rate("rillcast_state_written_bytes_total", "instance")),
                ),
                Panel(
                    "Time to restore a partition",
                    "From assignment to the first live event; mean since a member's start. The three slowest.",
                    "s",
                    spread(
                        'rillcast_restore_duration_seconds_sum{job="$job"}'
                        ' / (rillcast_restore_duration_seconds_count{job="$job"} > 0)'
                    ),
                ),
            ),
        ),
        Row(
            "Roll-out",
            (
                Panel(
                    "Swap pending",
                    "Longest time for which a promoted model has not taken over in a member, by table of models. "
                    "Above an hour: see RillcastModelSwapStuck.",
                    "s",
                    (Query('max by (model) (rillcast_model_swap_pending_seconds{job="$job"})', "pending {{model}}"),),
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
                    (Query(rate("rillcast_dead_letters_total", "reason"), "{{reason}}"),),
                    stack=True,
                ),
                Panel(
                    "Streams",
                    "Streams that have state, and those that have it in two partitions, over all members.",
                    "short",
                    (
                        Query('sum by (job) (rillcast_streams{job="$job"})', "streams"),
                        Query('sum by (job) (rillcast_split_streams{job="$job"})', "split"),
                    ),
                ),
                Panel(
                    "Memory",
                    "Memory of the three largest processes, and of the most states that a member has on its device.",
                    "bytes",
                    (
                        *spread('process_resident_memory_bytes{job="$job"}'),
                        Query('max(sum by (instance) (rillcast_state_bytes{job="$job"}))', "states, most"),
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
                    (Query(rate("rillcast_events_total", "model"), "events {{model}}"),),
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
                    (Query(rate("rillcast_unmatched_events_total"), "unmatched"),),
                ),
            ),
        ),
    ),
)
