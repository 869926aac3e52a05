"""The picture of a search: accuracy against cost. Owns its look. Does not know the search."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # works without a display

from matplotlib import pyplot as plt

from rillcast.outputs import replacing
from rillcast_training.fit.tune import TuneReport

_COLOURS = ("#0b6e99", "#c77b30", "#5b8c5a", "#8b5a8c", "#7a8ba3", "#b04a4a")


def draw(path: Path, report: TuneReport, *, title: str) -> None:
    """Write a PNG: one point per trial, the front as a line, the recommendation ringed; labels are hidden sizes."""
    figure, axes = plt.subplots(figsize=(8, 5), dpi=120, layout="constrained")
    cells = sorted({str(trial.options["cell"]) for trial in report.trials})
    for number, cell in enumerate(cells):
        own = [trial for trial in report.trials if trial.options["cell"] == cell]
        axes.scatter(
            [trial.microseconds for trial in own],
            [trial.loss for trial in own],
            s=[18 + 30 * int(trial.options["layers"]) for trial in own],
            color=_COLOURS[number % len(_COLOURS)],
            alpha=0.75,
            label=cell,
        )
    front = [report.of(number) for number in report.front]
    axes.step([t.microseconds for t in front], [t.loss for t in front], where="post", color="#444444", linewidth=1)
    for trial in front:
        axes.annotate(
            str(trial.options["hidden"]), (trial.microseconds, trial.loss), xytext=(4, 4), textcoords="offset points"
        )
    best = report.of(report.recommended)
    axes.scatter([best.microseconds], [best.loss], s=260, facecolors="none", edgecolors="#b04a4a", linewidths=2)
    axes.set_xscale("log")
    axes.set(xlabel="engine time per event, us", ylabel="quantile loss / seasonal-naive error", title=title)
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with replacing(path) as partial:
        figure.savefig(partial)
    plt.close(figure)
