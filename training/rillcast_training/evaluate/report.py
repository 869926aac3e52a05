"""A backtest as one HTML file: figures, skill, calibration and examples, with plots as inline SVG.

Owns: the content of the page and its look. Does not know: how anything was measured. The file refers to nothing outside
itself, so it can be mailed, archived and opened offline.
"""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from rillcast.figures import reasons_of, shown
from rillcast.outputs import replace
from rillcast_training.evaluate.accuracy import Accuracy, Floats
from rillcast_training.evaluate.diagnostics import Diagnostics
from rillcast_training.evaluate.skill import Skill

_FIGURES: Final = {
    "mase": ("MASE", ".3f"),
    "rmsse": ("RMSSE", ".3f"),
    "smape": ("sMAPE", ".2f"),
    "wql": ("WQL", ".4f"),
    "crps": ("CRPS", ".3f"),
    "coverage": ("coverage", ".3f"),
}
_COLOURS: Final = ("#1f6f8b", "#b4552d", "#6b7a3a", "#7a4b8c", "#8a6d1f")
_EXAMPLES: Final = 6
_SHOWN_HORIZONS: Final = 4  # horizons of history before an example
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2326; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem } p { margin: .3rem 0 }
table { border-collapse: collapse } th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #d8dfe2 }
th:first-child, td:first-child { text-align: left } svg { max-width: 100%; height: auto }
.plots { display: flex; flex-wrap: wrap; gap: 1rem } .note { color: #5a686e }
"""


@dataclass(frozen=True, slots=True)
class Compared:
    """One forecaster's forecasts at the origins, and their figures."""

    name: str
    accuracy: Accuracy
    diagnostics: Diagnostics
    forecast: Floats


@dataclass(frozen=True, slots=True)
class Page:
    """Content of a report.

    Attributes:
        title: Title of the page.
        facts: Names and values that describe the measurement, in the order to show.
        forecasters: The bundle first, then those it is compared with.
        skill: Skill of the bundle, by the other's name and by figure.
        unique_ids: `n` stream ids, one per origin.
        history: Per origin, the observations by period up to it.
        actual: `[n, H]`.
        levels: Quantile levels.
    """

    title: str
    facts: Mapping[str, str]
    forecasters: Sequence[Compared]
    skill: Mapping[str, Mapping[str, Skill]]
    unique_ids: Sequence[str]
    history: Sequence[Floats]
    actual: Floats
    levels: Sequence[float]


def write(page: Page, path: Path) -> None:
    """Write the report; replaces `path` if it exists.

    Raises:
        OutputError: It cannot be written.
    """
    title = html.escape(page.title)
    facts = "<br>".join(f"{html.escape(name)}: {html.escape(value)}" for name, value in page.facts.items())
    plots = (_calibration(page), _by_step(page, "coverage"), _by_step(page, "mase"), _by_step(page, "width"))
    body = [
        f"<h1>{title}</h1><p class=note>{facts}</p>",
        "<h2>Figures</h2>" + _table_of_figures(page.forecasters),
        *(f"<h2>Skill against {html.escape(name)}</h2>" + _table_of_skill(found) for name, found in page.skill.items()),
        "<h2>Intervals</h2>" + _table_of_intervals(page.forecasters),
        f"<h2>Calibration, and by steps ahead</h2><div class=plots>{''.join(plots)}</div>",
        f"<h2>Examples</h2><div class=plots>{''.join(_example(page, row) for row in _examples(page))}</div>",
    ]
    text = (
        f'<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style><body>{''.join(body)}</body></html>\n"
    )
    replace(path, text.encode())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{lines}</table>"


def _table_of_figures(forecasters: Sequence[Compared]) -> str:
    nominal = forecasters[0].accuracy.nominal_coverage
    rows = [
        [one.name, *(shown(getattr(one.accuracy, name), form) for name, (_, form) in _FIGURES.items())]
        for one in forecasters
    ]
    head = ["", *(label for label, _ in _FIGURES.values())]
    note = f"Coverage should be near {nominal:.2f}; lower is better for the rest."
    lacking = {
        f"{_FIGURES[name][0]} -: {reason}."
        for one in forecasters
        for name, reason in reasons_of(one.accuracy.as_dict())
        if name in _FIGURES
    }
    return _table(head, rows) + "".join(f"<p class=note>{html.escape(text)}</p>" for text in (note, *sorted(lacking)))


def _table_of_skill(skill: Mapping[str, Skill]) -> str:
    rows = [[_FIGURES[name][0], one.shown()] for name, one in skill.items()]
    note = "<p class=note>1 - figure / figure of the other; 95 % percentile bootstrap over series.</p>"
    return _table(["", "skill [95 % interval]"], rows) + note


def _table_of_intervals(forecasters: Sequence[Compared]) -> str:
    rows = [
        [one.name, f"{i.low:g} to {i.high:g}", f"{i.nominal:.2f}", f"{i.coverage:.3f}", shown(i.width, ".3f")]
        for one in forecasters
        for i in one.diagnostics.intervals
    ]
    return _table(["", "levels", "nominal", "coverage", "width (scales)"], rows)


def _calibration(page: Page) -> str:
    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color="#9aa7ad", linewidth=1)
        for one, colour in zip(page.forecasters, _COLOURS, strict=False):
            points = one.diagnostics.levels
            axes.plot([p.level for p in points], [p.share for p in points], "o-", color=colour, label=one.name, ms=4)
        axes.set(xlabel="quantile level", ylabel="share of observations below", xlim=(0, 1), ylim=(0, 1))
        axes.legend(frameon=False)

    return _svg(draw)


def _by_step(page: Page, figure: str) -> str:
    labels = {"coverage": "coverage of the outer interval", "mase": "MASE", "width": "width of the interval (scales)"}

    def draw(axes: Any) -> None:
        for one, colour in zip(page.forecasters, _COLOURS, strict=False):
            steps = one.diagnostics.steps
            axes.plot([s.step for s in steps], [getattr(s, figure) for s in steps], color=colour, label=one.name)
        if figure == "coverage":
            axes.axhline(page.forecasters[0].accuracy.nominal_coverage, color="#9aa7ad", linewidth=1)
        axes.set(xlabel="steps ahead", ylabel=labels[figure])
        axes.legend(frameon=False)

    return _svg(draw)


def _examples(page: Page) -> list[int]:
    """Return origins of different series, spread over all of them."""
    first = list({unique_id: row for row, unique_id in reversed(list(enumerate(page.unique_ids)))}.values())
    first.sort()
    picked = np.unique(np.linspace(0, len(first) - 1, min(_EXAMPLES, len(first))).round().astype(int))
    return [first[i] for i in picked]


def _example(page: Page, row: int) -> str:
    horizon = page.actual.shape[1]
    seen = page.history[row][-_SHOWN_HORIZONS * horizon :]
    ahead = np.arange(1, horizon + 1)
    own = page.forecasters[0].forecast[row]
    median = list(page.levels).index(0.5)

    def draw(axes: Any) -> None:
        for inward in range(median):
            outer = len(page.levels) - 1 - inward
            if outer > median:
                axes.fill_between(ahead, own[:, inward], own[:, outer], color=_COLOURS[0], alpha=0.15, linewidth=0)
        axes.plot(np.arange(1 - seen.size, 1), seen, color="#1c2326", linewidth=1)
        axes.plot(ahead, page.actual[row], color="#1c2326", linewidth=1)
        for one, colour in zip(page.forecasters[:2], _COLOURS, strict=False):
            axes.plot(ahead, one.forecast[row][:, median], color=colour, linewidth=1.2, label=one.name)
        axes.axvline(0.5, color="#9aa7ad", linewidth=1)
        axes.set_title(page.unique_ids[row], fontsize=9)
        axes.set(xlabel="steps from the origin")
        axes.legend(frameon=False, fontsize=7)

    return _svg(draw)


def _svg(draw: Callable[[Any], None]) -> str:
    """Return a plot as an SVG element."""
    # Text stays text; a fixed salt makes the same backtest give the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rillcast", "font.family": "sans-serif"}):
        figure = Figure(figsize=(4.8, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
