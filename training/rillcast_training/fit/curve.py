"""The picture of a training run: losses by epoch. Owns its look. Does not know training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # works without a display

from matplotlib import pyplot as plt

from rillcast.outputs import replacing


def draw(path: Path, records: Sequence[tuple[int, float, float]], *, best_epoch: int, title: str) -> None:
    """Write a PNG.

    Args:
        path: File to write.
        records: Epoch, training loss and validation loss, one row each.
        best_epoch: Epoch whose weights were kept.
        title: Title of the picture.
    """
    epochs, training, validation = zip(*records, strict=True) if records else ((), (), ())
    figure, axes = plt.subplots(figsize=(7, 4), dpi=120, layout="constrained")
    axes.plot(epochs, training, color="#7a8ba3", label="training")
    axes.plot(epochs, validation, color="#0b6e99", linewidth=2, label="validation (averaged weights)")
    axes.axvline(best_epoch, color="#c77b30", linestyle=":", label=f"kept: epoch {best_epoch}")
    axes.set(xlabel="epoch", ylabel="quantile loss / seasonal-naive error", title=title)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with replacing(path) as partial:
        figure.savefig(partial)
    plt.close(figure)
