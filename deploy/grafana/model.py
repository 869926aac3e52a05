"""Dashboards as Python: panels on Grafana's grid of 24 columns, and the JSON that Grafana imports.

Owns: the JSON of a panel, and its place. Does not know: which panels there are (`dashboards.py`).
Invariants: panels of a row share its height and are laid out from left to right; every query has the variables
`$job` (the service), `$__rate_interval` (at least four scrapes) and `$__range` (what is shown) only. Rows are repeated
for every chosen service, so `$job` is one service in a panel, and a regular expression of all of them in an annotation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

COLUMNS: Final = 24
_SCHEMA_VERSION: Final = 39  # of Grafana 10 and 11; newer ones migrate it
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression and the name of its series, which may hold `{{label}}`."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture.

    Attributes:
        title: A question or a noun.
        help: Tooltip that says which values are good and which are bad.
        unit: One of Grafana's units: `short`, `s`, `percentunit`, `ops`, `bytes`, ...
        queries: The series that it shows.
        kind: A curve over time, or one number.
        width: Width in columns.
        stack: Whether curves are stacked.
        bounds: Lower and upper end of the axis; None = from the data.
        red_above: Value above which a `stat` turns red.
        log: Whether the axis is logarithmic.
    """

    title: str
    help: str
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["timeseries", "stat"] = "timeseries"
    width: int = 8
    stack: bool = False
    bounds: tuple[float | None, float | None] = (0, None)
    red_above: float | None = None
    log: bool = False


@dataclass(frozen=True, slots=True)
class Annotation:
    """Spans over all curves of a dashboard, while a query has a value.

    Attributes:
        name: Its switch at the top of the dashboard.
        help: What a span means.
        query: The series that make spans, and their titles.
        text: More words of a span, which may hold `{{label}}`.
        colour: One of Grafana's colours.
        shown: Whether it is shown until somebody switches it off.
    """

    name: str
    help: str
    query: Query
    text: str
    colour: str
    shown: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """Panels side by side under a heading."""

    title: str
    panels: tuple[Panel, ...]
    height: int = 8


class Place(NamedTuple):
    """Where a panel stands, in grid units."""

    panel: Panel
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A page for one kind of reader."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    refresh: str = "30s"
    since: str = "now-6h"
    annotations: tuple[Annotation, ...] = ()

    def places(self) -> Iterator[Place]:
        """Yield every panel with its place."""
        y = 0
        for row in self.rows:
            y += 1  # the heading
            x = 0
            for panel in row.panels:
                yield Place(panel, x, y, panel.width, row.height)
                x += panel.width
            if x > COLUMNS:
                raise ValueError(f"{self.title}, row {row.title!r}: {x} columns, there are {COLUMNS}")
            y += row.height

    def as_json(self) -> dict[str, Any]:
        """Return the document that Grafana imports."""
        panels: list[dict[str, Any]] = []
        places = {id(place.panel): place for place in self.places()}
        for row in self.rows:
            top = min(places[id(panel)].y for panel in row.panels) - 1
            panels.append(
                {
                    "id": len(panels) + 1,
                    "type": "row",
                    "title": f"{row.title} · $job",
                    "repeat": "job",  # with several services chosen, each has its own; `$job` in it is that one
                    "collapsed": False,
                    "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
                    "panels": [],
                }
            )
            panels += [_panel(places[id(panel)], len(panels) + 1 + n) for n, panel in enumerate(row.panels)]
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["rillcast"],
            "editable": True,
            "graphTooltip": 1,
            "refresh": self.refresh,
            "time": {"from": self.since, "to": "now"},
            "timezone": "utc",
            "schemaVersion": _SCHEMA_VERSION,
            "templating": {"list": _VARIABLES},
            "annotations": {"list": [_SHOWN_BY_GRAFANA, *map(_annotation, self.annotations)]},
            "links": [_OTHER_DASHBOARDS],
            "panels": panels,
        }


_VARIABLES: Final = [
    {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
    {
        "name": "job",
        "label": "Service",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": "label_values(rillcast_build_info, job)", "refId": "job"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
    },
]


_OTHER_DASHBOARDS: Final[Mapping[str, Any]] = {
    "type": "dashboards",
    "title": "Rillcast",
    "tooltip": "",
    "tags": ["rillcast"],
    "icon": "external link",
    "asDropdown": False,
    "targetBlank": False,
    "keepTime": True,
    "includeVars": True,
}
_SHOWN_BY_GRAFANA: Final[Mapping[str, Any]] = {
    "builtIn": 1,
    "datasource": {"type": "grafana", "uid": "-- Grafana --"},
    "enable": True,
    "hide": True,
    "iconColor": "rgba(0, 211, 255, 1)",
    "name": "Annotations & Alerts",
    "type": "dashboard",
}


def _annotation(annotation: Annotation) -> dict[str, Any]:
    return {
        "name": annotation.name,
        "datasource": _SOURCE,
        "enable": annotation.shown,
        "iconColor": annotation.colour,
        "expr": annotation.query.expr,
        "step": "60s",
        "titleFormat": annotation.query.legend,
        "textFormat": annotation.text,
        "tagKeys": "severity",
    }


def _panel(place: Place, number: int) -> dict[str, Any]:
    panel = place.panel
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": _SOURCE,
        "gridPos": {"x": place.x, "y": place.y, "w": place.width, "h": place.height},
        "targets": [
            {
                "refId": chr(ord("A") + n),
                "datasource": _SOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                "instant": panel.kind == "stat",
                "range": panel.kind != "stat",
            }
            for n, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _STAT if panel.kind == "stat" else _CURVES,
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red_above is not None:
        steps.append({"color": "red", "value": panel.red_above})
    defaults: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    low, high = panel.bounds
    defaults |= ({} if low is None or panel.log else {"min": low}) | ({} if high is None else {"max": high})
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 60 if panel.stack else 8,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stack else "none", "group": "A"},
            "scaleDistribution": {"type": "log", "log": 10} if panel.log else {"type": "linear"},
        }
    return defaults


_CURVES: Final[Mapping[str, Any]] = {
    "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
    "tooltip": {"mode": "multi", "sort": "desc"},
}
_STAT: Final[Mapping[str, Any]] = {
    "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    "colorMode": "value",
    "graphMode": "none",
    "justifyMode": "auto",
    "orientation": "auto",
    "percentChangeColorMode": "standard",
    "showPercentChange": False,
    "textMode": "auto",
    "wideLayout": True,
}
