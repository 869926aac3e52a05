"""What several dashboards ask: rates, quantiles and ratios of a service's metrics, and its annotations."""

from __future__ import annotations

from typing import Final

from deploy.grafana.model import Annotation, Query

OUTSTANDING: Final = 3  # members with a name and a curve of their own


def quantile(level: float, histogram: str, by: str = "") -> str:
    """Return the query of a quantile of a histogram."""
    inner = f'sum by (le{", " + by if by else ""}) (rate({histogram}_bucket{{job="$job"}}[$__rate_interval]))'
    return f"histogram_quantile({level}, {inner})"


def quantiles(histogram: str) -> tuple[Query, ...]:
    """Return the queries of the median and two high quantiles of a histogram."""
    return tuple(Query(quantile(level, histogram), f"p{100 * level:g}") for level in (0.5, 0.9, 0.99))


def rate(counter: str, by: str = "job", over: str = "$__rate_interval", horizon: str = "") -> str:
    """Return the query of a counter's rate, at one horizon or over all."""
    chosen = f', horizon="{horizon}"' if horizon else ""
    return f'sum by ({by}) (rate({counter}{{job="$job"{chosen}}}[{over}]))'


def spread(expr: str, by: str = "instance", *, lowest: bool = False) -> tuple[Query, ...]:
    """Return five curves in place of one for each member: three that stand out, the median and the other end.

    Args:
        expr: One value for each member.
        by: Label that names a member, or a partition.
        lowest: Whether low values stand out; high ones by default.
    """
    pick, extreme, far, name = ("bottomk", "min", "max", "highest") if lowest else ("topk", "max", "min", "lowest")
    # Chosen once, over all that is shown: `topk` by itself chooses at every point, and curves would be in pieces.
    chosen = f"{pick}({OUTSTANDING}, {extreme}_over_time(({expr})[$__range:] @ end()))"
    return (
        Query(f"{expr} and on ({by}) {chosen}", f"{{{{{by}}}}}"),
        Query(f"quantile(0.5, {expr})", "median"),
        Query(f"{far}({expr})", name),
    )


def ratio(part: str, whole: str, by: str, horizon: str = "") -> str:
    """Return the query of the ratio of two counters over an hour, where the second moves."""
    return f"{rate(part, by, '1h', horizon)} / ({rate(whole, by, '1h', horizon)} > 0)"


def by_horizon(expr: str, legend: str = "{{horizon}} ahead") -> Query:
    """Return a query whose series stand in the order of their horizons: 2 before 12.

    Prometheus orders series by their labels as texts, and `ahead`, the horizon with zeros before it, is the first one.
    """
    padded = f'label_replace({expr}, "ahead", "000$1", "horizon", "(.+)")'
    return Query(f'label_replace({padded}, "ahead", "$1", "ahead", ".*(.{{4}})")', legend)


ALARMS: Final = Annotation(
    "Alarms of streams",
    "While a stream has an open alarm; at most `alarms.labelled_streams` of each member.",
    Query('max by (unique_id, kind, direction, severity) (rillcast_stream_alarm{job=~"$job"}) > 0', "{{unique_id}}"),
    "{{kind}} {{direction}}",
    "red",
)
ROLL_OUTS: Final = Annotation(
    "Roll-outs",
    "When another model has taken over.",
    Query('sum by (job) (increase(rillcast_model_swaps_total{job=~"$job", outcome="completed"}[1m])) > 0', "Roll-out"),
    "{{job}}",
    "blue",
)
RESTARTS: Final = Annotation(
    "Starts",
    "When members have started: a roll-out of the deployment, more members, or a crash.",
    Query('count by (job) (time() - process_start_time_seconds{job=~"$job"} < 60)', "Start"),
    "{{job}}",
    "purple",
)
