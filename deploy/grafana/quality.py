"""The dashboard for the data scientist: are the forecasts good?"""

from __future__ import annotations

from typing import Final

from deploy.grafana.model import Dashboard, Panel, Query, Row
from deploy.grafana.queries import ALARMS, RESTARTS, ROLL_OUTS, by_horizon, rate, ratio


def _to_naive(prefix: str, by: str, horizon: str) -> str:
    """Return mean error over mean seasonal-naive error, which is scored at the next period only."""
    naive = ratio(f"{prefix}naive_error_total", f"{prefix}scored_forecasts_total", by, "1")
    each = by if horizon else f"{by}, horizon"
    error = ratio(f"{prefix}forecast_error_total", f"{prefix}scored_forecasts_total", each, horizon)
    return f"{error} / on ({by}) group_left () ({naive})"


def _scores(prefix: str, by: str, whose: str, help_: str, horizon: str = "") -> tuple[Panel, ...]:
    """Return the panels of the scores by a label, at one horizon or with a curve for each."""
    scored = f"{prefix}scored_forecasts_total"
    label = by.partition(",")[0].removesuffix("_id")
    title = f"by {label}, next period" if horizon else f"by {label}"

    def curves(expr: str) -> Query:
        return Query(expr, whose) if horizon else by_horizon(expr, f"{whose}, {{{{horizon}}}} ahead")

    each = by if horizon else f"{by}, horizon"
    return (
        Panel(
            f"Error against seasonal naive {title}",
            f"Below 1: better than the value of a season ago. {help_}",
            "short",
            (curves(_to_naive(prefix, by, horizon)),),
        ),
        Panel(
            f"Coverage {title}",
            f"Share of observations inside the outer interval. {help_}",
            "percentunit",
            (
                curves(ratio(f"{prefix}covered_forecasts_total", scored, each, horizon)),
                Query('job:rillcast_nominal_coverage:ratio{job="$job"}', "nominal"),
            ),
            bounds=(0, 1),
        ),
        Panel(
            f"Quantile loss {title}",
            f"In units of each model's own scale. {help_}",
            "short",
            (curves(ratio(f"{prefix}pinball_loss_total", scored, each, horizon)),),
        ),
    )


QUALITY: Final = Dashboard(
    uid="rillcast-quality",
    annotations=(ALARMS, ROLL_OUTS, RESTARTS),
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
                        by_horizon('job_horizon:rillcast_coverage:ratio_rate1h{job="$job"}'),
                        Query('job:rillcast_nominal_coverage:ratio{job="$job"}', "nominal"),
                    ),
                    width=12,
                    bounds=(0, 1),
                ),
                Panel(
                    "Quantile loss by horizon",
                    "Mean over an hour, in units of each stream's scale: comparable over streams; lower is better.",
                    "short",
                    (by_horizon('job_horizon:rillcast_pinball_loss:mean1h{job="$job"}'),),
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
                    (by_horizon('job_horizon:rillcast_error_to_naive:ratio_rate1h{job="$job"}'),),
                ),
                Panel(
                    "Absolute error",
                    "Error of the middle quantile, in units of the scale, mean over an hour.",
                    "short",
                    (by_horizon('job_horizon:rillcast_absolute_error:mean1h{job="$job"}'),),
                ),
                Panel(
                    "Bias",
                    "Middle quantile minus observation, in units of the scale; 0 is right, above 0 is too high.",
                    "short",
                    (by_horizon('job_horizon:rillcast_bias:mean1h{job="$job"}'),),
                    bounds=(None, None),
                ),
            ),
        ),
        Row(
            "Experts",
            (
                Panel(
                    "Network on experts",
                    "Share of what the network says that counts, mean of the members. Equal misses give 82 %; falling: "
                    "it has lost to the experts, train again.",
                    "percentunit",
                    (Query('avg by (model_id) (rillcast_network_share_ratio{job="$job"})', "{{model_id}}"),),
                    width=12,
                    bounds=(0, 1),
                ),
                Panel(
                    "Weights of the experts",
                    "By base, mean over streams and horizons. A base that gains says how the streams have changed.",
                    "percentunit",
                    (Query('avg by (base) (rillcast_expert_weight_ratio{job="$job"})', "{{base}}"),),
                    width=12,
                    stack=True,
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
                horizon="1",
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
                    (Query(rate("rillcast_events_total", "status"), "{{status}}"),),
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
                    (by_horizon('job_horizon:rillcast_scored_forecasts:increase1h{job="$job"}'),),
                    width=5,
                ),
            ),
        ),
    ),
)
