"""The dashboard for the engineer: where does the time go?"""

from __future__ import annotations

from typing import Final

from deploy.grafana.model import Dashboard, Panel, Query, Row
from deploy.grafana.queries import RESTARTS, ROLL_OUTS, quantiles, rate, spread


def _by_member(part: str, whole: str) -> str:
    """Return the query of the ratio of two counters of each member, where the second moves."""
    return f"{rate(part, 'instance')} / on (instance) ({rate(whole, 'instance')} > 0)"


PERFORMANCE: Final = Dashboard(
    uid="rillcast-performance",
    annotations=(ROLL_OUTS, RESTARTS),
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
                            rate("rillcast_stage_seconds_sum", "stage")
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
                            rate("rillcast_stage_seconds_sum", "stage")
                            + " / "
                            + rate("rillcast_stage_seconds_count", "stage"),
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
                    "All threads of the process; a member can use about one core. The three that use most.",
                    "s",
                    spread(_by_member("process_cpu_seconds_total", "rillcast_events_total")),
                ),
                Panel(
                    "Engine time per event",
                    "The model, with gather and scatter of its rows. The three slowest members.",
                    "s",
                    spread(_by_member("rillcast_step_duration_seconds_sum", "rillcast_events_total")),
                ),
                Panel(
                    "Events per call of the model",
                    "Small batches at low load, large ones at high load. The three members with the most.",
                    "short",
                    spread(_by_member("rillcast_events_total", "rillcast_model_calls_total")),
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
                    quantiles("rillcast_poll_records"),
                    log=True,
                ),
                Panel(
                    "Time per poll",
                    "From decode to publish.",
                    "s",
                    quantiles("rillcast_poll_duration_seconds"),
                    log=True,
                ),
                Panel(
                    "Engine time per poll",
                    "Time of the step of a poll.",
                    "s",
                    quantiles("rillcast_step_duration_seconds"),
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
                    quantiles("rillcast_commit_duration_seconds"),
                    log=True,
                ),
                Panel(
                    "CPU",
                    "Cores in use by the three members that use most.",
                    "short",
                    spread(rate("process_cpu_seconds_total", "instance")),
                ),
                Panel(
                    "State per stream",
                    "On the device, spare rows included. The three members with the most.",
                    "bytes",
                    spread(
                        'sum by (instance) (rillcast_state_bytes{job="$job"})'
                        ' / (sum by (instance) (rillcast_streams{job="$job"}) > 0)'
                    ),
                ),
            ),
        ),
    ),
)
