"""Pages of dashboards from the samples that their queries returned, drawn without Grafana."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from deploy.grafana.model import COLUMNS, Dashboard, Panel, Place

_UNIT_IN: Final = 0.65  # inches per grid unit
_MAX_LEGEND: Final = 12


def render(dashboard: Dashboard, found: Mapping[str, Sequence[tuple[str, list[dict[str, Any]]]]], path: Path) -> None:
    """Draw a dashboard.

    Args:
        dashboard: The dashboard.
        found: Legend and series of each query by panel title, as Prometheus' range query gives them.
        path: The picture to write.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    places = list(dashboard.places())
    rows = max(place.y + place.height for place in places)
    figure = plt.figure(figsize=(COLUMNS * _UNIT_IN, rows * _UNIT_IN))
    figure.suptitle(f"{dashboard.title}   ({dashboard.description})", fontsize=12)
    for place in places:
        axes = figure.add_axes(_rectangle(place, rows))
        _draw(axes, place.panel, found[place.panel.title])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=70)
    plt.close(figure)


def write_page(dashboard: Dashboard, picture: Path) -> Path:
    """Write the page of a dashboard next to its picture, with the text and query of each panel; return its path."""
    rows = "\n".join(
        f"<tr><td>{html.escape(place.panel.title)}<td>{html.escape(place.panel.help)}<td>"
        + "<br>".join(f"<code>{html.escape(query.expr)}</code>" for query in place.panel.queries)
        for place in dashboard.places()
    )
    page = picture.with_suffix(".html")
    page.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(dashboard.title)}</title>'
        "<style>body {font-family: sans-serif; margin: 2em} img {max-width: 100%} td {vertical-align: top}</style>"
        f"<h1>{html.escape(dashboard.title)}</h1><p>{html.escape(dashboard.description)}</p>"
        f'<img src="{picture.name}" alt="The dashboard, drawn from the answers to the queries below.">'
        f"<table><tr><th>panel<th>what it says<th>queries\n{rows}</table></html>\n"
    )
    return page


def _rectangle(place: Place, rows: int) -> tuple[float, float, float, float]:
    margin_x, margin_y = 0.9, 1.1
    return (
        (place.x + margin_x) / COLUMNS,
        1 - (place.y + place.height - 0.6) / rows * 0.97 - 0.02,
        (place.width - margin_x - 0.3) / COLUMNS,
        (place.height - margin_y - 0.4) / rows * 0.97,
    )


def _draw(axes: Any, panel: Panel, found: Sequence[tuple[str, list[dict[str, Any]]]]) -> None:
    curves = [(_name(legend, series["metric"]), series["values"]) for legend, all_of in found for series in all_of]
    axes.set_title(f"{panel.title}  [{panel.unit}]", fontsize=8, loc="left")
    axes.tick_params(labelsize=6)
    if panel.kind == "stat" or not curves:
        text = "\n".join(f"{float(values[-1][1]):.4g}  {name}" for name, values in curves)
        axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=11, transform=axes.transAxes)
        axes.set_axis_off()
        return
    start = min(float(values[0][0]) for _, values in curves)
    for name, values in curves:
        axes.plot([float(t) - start for t, _ in values], [float(v) for _, v in values], label=name, linewidth=1)
    if panel.log:
        axes.set_yscale("symlog", linthresh=1e-6) if _has_zero(curves) else axes.set_yscale("log")
    elif panel.bounds[0] is not None:
        axes.set_ylim(bottom=panel.bounds[0], top=panel.bounds[1])
    if len(curves) <= _MAX_LEGEND:
        axes.legend(fontsize=6, loc="upper left", frameon=False)
    axes.grid(visible=True, alpha=0.3)


def _has_zero(curves: Sequence[tuple[str, list[Any]]]) -> bool:
    return any(float(value) == 0 for _, values in curves for _, value in values)


def _name(legend: str, labels: Mapping[str, str]) -> str:
    for label, value in labels.items():
        legend = legend.replace("{{" + label + "}}", value)
    return re.sub(r" *\{\{\w+\}\}", "", legend)  # as Grafana shows a label that a series lacks
