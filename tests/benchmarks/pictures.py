"""Draws a picture for each part of the suite that has one. Knows the form of the results only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

mpl.use("Agg")
Result = dict[str, Any]


def draw(results: Mapping[str, Result], folder: Path) -> None:
    """Write `<folder>/<part>.png` for each part."""
    for name, result in results.items():
        if name in _PICTURES:
            figure = Figure(figsize=(7, 3.5), layout="constrained")
            _PICTURES[name](figure.subplots(), result)
            figure.savefig(folder / f"{name}.png", dpi=110)


def _step(axes: Axes, result: Result) -> None:
    rows = result["steps"]
    axes.plot([row["batch"] for row in rows], [row["steps_per_second"] for row in rows], marker="o")
    axes.set(xscale="log", xlabel="streams per call", ylabel="steps per second", title="engine alone", ylim=(0, None))


def _kafka(axes: Axes, result: Result) -> None:
    """Stack the stages of the service next to those of its limit."""
    bars = [(case["codec"], name, run) for case in result["cases"] for name, run in case["runs"].items()]
    stages = [stage for stage in bars[0][2]["stages_us_per_event"] if stage != "step"]
    base = np.zeros(len(bars))
    for stage in stages:
        heights = np.array([run["stages_us_per_event"].get(stage, 0.0) for *_, run in bars])
        axes.bar(range(len(bars)), heights, bottom=base, label=stage)
        base += heights
    axes.set_xticks(range(len(bars)), [f"{codec}\n{name}" for codec, name, _ in bars], fontsize=7)
    axes.set(ylabel="us of the loop's processor time", title="where the time goes, per event")
    axes.legend(fontsize=7)


def _latency(axes: Axes, result: Result) -> None:
    counts = np.array(result["histogram_ms"], float)
    axes.step(np.arange(counts.size), 1 - counts.cumsum() / counts.sum(), where="post")
    axes.set(yscale="log", ylim=(1e-4, 1), xlabel="ms from append to append", ylabel="share of events that took longer")
    axes.set_title(f"latency at {result['rate']:,.0f} events/s, half of the most")


def _peers(axes: Axes, result: Result) -> None:
    runs = sorted(result["runs"].items(), key=lambda item: item[1]["events_per_second"])
    axes.barh([name for name, _ in runs], [run["events_per_second"] for _, run in runs])
    axes.set(xscale="log", xlabel="events per second", title="the same events and model, one process")


_PICTURES: Final[Mapping[str, Callable[[Axes, Result], None]]] = {
    "step": _step,
    "kafka": _kafka,
    "kafka_python": _kafka,
    "latency": _latency,
    "peers": _peers,
}
