"""What a network on top of experts does to the newest forecasts, read from the states of streams.

Owns: how far the network is believed, and what its correction comes to. Does not know: how the network is trained
(`rillcast_training.model.experts.network`, with whose step a test compares), who asks.

A share of the network's correction counts: a half where its misses on the stream are a tenth larger than those of the
mixture alone, next to nothing where they are half as large again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rillcast.arrays import AnyArray, FloatArray
from rillcast.bundle.mixture import STATE, Mixture

STATES: Final = ("clock", STATE)
"""The states that have it."""
_KNOWN: Final = 1  # column of the clock: periods known plus one
_MISSES: Final = np.array([5.0, 6.5])  # sums that mixture and network start from, in widths
_HALF_AT: Final = 1.1  # ratio of the misses at which half of the correction counts
_DISTRUST: Final = 16  # power of that ratio


@dataclass(frozen=True, slots=True)
class NetworkShare:
    """What the network does at one horizon, as it is published.

    Attributes:
        step: Periods ahead.
        share: Share of its correction that counts, 0 to 1.
        median: By how much it moves the median, in widths of the forecast (about standard deviations). Of several
            streams the mean distance, never negative. None = it is not known.
        width: Factor by which it changes the width. Of several streams the geometric mean. None = it is not known.
    """

    step: int
    share: float
    median: float | None
    width: float | None

    def sentence(self) -> str:
        """Return it in words, as in `network: counts 92 %, median +0.31 widths, width x 0.87`."""
        said = f"network: counts {self.share:.0%}".replace("%", " %")
        if self.median is None or self.width is None:
            return said
        return f"{said}, median {self.median:+.2f} widths, width x {self.width:.2f}"


def network_figures(mixture: Mixture, rows: Mapping[str, AnyArray]) -> FloatArray | None:
    """Return what the network does to the newest forecasts made from a value.

    Args:
        mixture: The experts of the bundle.
        rows: `[n, ...]` of each of `STATES`.

    Returns:
        `[n, A, 3]`: the share that counts, by how much the median moves, in widths, and the logarithm of the factor of
        the width; the last two are NaN where they are not known. None = there is no network, or another version
        exported the bundle.
    """
    missed = mixture.missed(rows[STATE])
    if missed is None:
        return None
    own, network = (missed.astype(np.float64) + _MISSES).transpose(2, 0, 1)
    share = 1 / (1 + (network / (_HALF_AT * own)) ** _DISTRUST)
    said = mixture.newest_correction(rows[STATE]).astype(np.float64)
    said[rows["clock"][:, _KNOWN] <= 1] = np.nan
    return np.concatenate([share[:, :, None], share[:, :, None] * said], axis=2)


def network_shares(mixture: Mixture, figures: npt.NDArray[np.floating[Any]]) -> list[NetworkShare]:
    """Return figures of a stream, `[A, 3]` of `network_figures`, by horizon."""
    return [
        NetworkShare(anchor, share, *((None, None) if math.isnan(median) else (median, math.exp(factor))))
        for anchor, (share, median, factor) in zip(mixture.anchors, figures.tolist(), strict=True)
    ]


def mean_figures(figures: FloatArray) -> FloatArray:
    """Return the mean of figures of streams, `[n, A, 3]`, as `[A, 3]`: of the median the mean distance."""
    shifts = figures.copy()
    shifts[:, :, 1] = np.abs(shifts[:, :, 1])
    known = ~np.isnan(shifts)
    mean: FloatArray = np.where(known, shifts, 0.0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)
    return mean
