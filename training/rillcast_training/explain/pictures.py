"""The pictures of `rillcast explain`. Owns their look. Does not know how the figures were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # works without a display

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from rillcast.outputs import replacing
from rillcast_training.explain.forecast import Explanation
from rillcast_training.explain.gradients import Clipping, Profile

_COLOURS = ("#0b6e99", "#c77b30", "#4b8b3b", "#8d5ba6", "#b0413e", "#7a8ba3", "#2f4858", "#d4a017")
_UP, _DOWN = "#0b6e99", "#b0413e"


def draw_gradients(
    path: Path, profiles: Mapping[str, tuple[Profile, Profile]], clippings: Mapping[str, Clipping]
) -> None:
    """Write a PNG: norms by lag with respect to state and input, and the gradients that training clips.

    Args:
        path: File to write.
        profiles: Profiles by model, with respect to state and input.
        clippings: Norms by model; an empty mapping leaves the panel out.
    """
    panels = 3 if clippings else 2
    figure, axes = plt.subplots(1, panels, figsize=(5.2 * panels, 4.2), dpi=120, layout="constrained")
    for number, (name, pair) in enumerate(profiles.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        for panel, profile in zip(axes[:2], pair, strict=True):
            peak = max(profile.median)
            lags = range(len(profile.median))
            panel.plot(lags, [value / peak for value in profile.median], color=colour, label=name)
            panel.fill_between(
                lags, [v / peak for v in profile.low], [v / peak for v in profile.high], color=colour, alpha=0.12
            )
    for panel, what in zip(axes[:2], ("state", "input"), strict=True):
        panel.set(yscale="log", xlabel="steps back, k", ylabel="norm / its largest", ylim=(1e-7, 3))
        panel.set_title(f"d output(T) / d {what}(T - k)")
        panel.axhline(0.01, color="#7a8ba3", linestyle=":", linewidth=1)
        _plain(panel)
    axes[1].legend(frameon=False)
    if clippings:
        panel = axes[2]
        for number, (name, one) in enumerate(clippings.items()):
            panel.plot(sorted(one.norms), color=_COLOURS[number % len(_COLOURS)], marker=".", label=name)
        panel.axhline(next(iter(clippings.values())).bound, color="#7a8ba3", linestyle=":", linewidth=1)
        panel.set(yscale="log", xlabel="batch, by size", ylabel="norm of the loss's gradient")
        panel.set_title("before clipping (dotted: the bound)")
        _plain(panel)
    with replacing(path) as partial:
        figure.savefig(partial)
    plt.close(figure)


def draw_forecast(path: Path, explanation: Explanation, *, title: str) -> None:
    """Write a PNG: the past, each period's part of the forecast, and the parts by way and feature."""
    periods = explanation.periods
    lags = [-period.lag for period in periods]
    figure = plt.figure(figsize=(11, 7.5), dpi=120, layout="constrained")
    grid = figure.add_gridspec(3, 2, height_ratios=(2, 2, 3))
    past, added = figure.add_subplot(grid[0, :]), figure.add_subplot(grid[1, :])
    past.plot(lags, [period.y for period in periods], color="#2f4858", linewidth=1, label="observed")
    past.axhline(explanation.baseline_y, color="#7a8ba3", linestyle=":", linewidth=1, label="baseline")
    past.plot([1], [explanation.value], marker="o", color=_COLOURS[1], linestyle="", label="explained forecast")
    past.legend(frameon=False, loc="upper left", ncols=3)
    past.set(title=title, ylabel="value")
    added.bar(lags, [s.attribution for s in periods], width=0.9, color=_signs([s.attribution for s in periods]))
    tested = [period for period in periods if period.occlusion is not None]
    added.plot(
        [-period.lag for period in tested],
        [period.occlusion or 0.0 for period in tested],
        color=_COLOURS[1],
        marker=".",
        markersize=3,
        linestyle="",
        label="occlusion, exported file",
    )
    if tested:
        added.legend(frameon=False, loc="upper left")
    added.set(xlabel="periods before the origin", ylabel="added to the forecast")
    _bars(figure.add_subplot(grid[2, 0]), explanation.parts, "by way into the forecast")
    _bars(figure.add_subplot(grid[2, 1]), explanation.features, "features, by group")
    for panel in figure.axes:
        _plain(panel)
    with replacing(path) as partial:
        figure.savefig(partial)
    plt.close(figure)


def _bars(panel: Axes, values: Mapping[str, float], title: str) -> None:
    names = sorted(values, key=lambda name: abs(values[name]))
    panel.barh(names, [values[name] for name in names], color=_signs([values[name] for name in names]))
    panel.axvline(0, color="#2f4858", linewidth=0.8)
    panel.set_title(title)


def _signs(values: Sequence[float]) -> list[str]:
    return [_UP if value >= 0 else _DOWN for value in values]


def _plain(panel: Axes) -> None:
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
