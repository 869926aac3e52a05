"""Which streams a model cannot forecast finely, by their values alone."""

from __future__ import annotations

import numpy as np
import pytest

from rillcast.bundle.precision import unresolved

WAVE = 10 + 3 * np.sin(np.arange(48) / 4)


@pytest.mark.parametrize(
    "y",
    [
        1e9 + np.arange(48),
        -1e9 - np.arange(48),
        np.repeat(1e9 + np.arange(12), 4),
        1e12 + WAVE,
        1 + 1e-8 * WAVE,
        np.where(np.arange(48) % 5, 1e9 + np.arange(48), np.nan),
    ],
)
def test_changes_below_a_millionth_of_the_level_are_lost(y: np.ndarray) -> None:
    assert "less than a millionth" in (unresolved(y) or "")


@pytest.mark.parametrize("y", [1e-30 * WAVE, -1e-25 * WAVE, np.where(np.arange(48) % 2, 1e-30, 0)])
def test_tiny_values_are_lost(y: np.ndarray) -> None:
    assert "smaller unit" in (unresolved(y) or "")


@pytest.mark.parametrize(
    "y",
    [
        WAVE,
        WAVE * 1e12,
        WAVE * 1e-15,
        1e5 + WAVE,
        1e9 + np.cumsum(np.full(48, 1e5)),  # a large counter that grows fast
        np.zeros(48),
        np.full(48, 1e9),
        np.full(48, 0.3) + 1e-16 * WAVE,  # a constant with the rounding of float64
        np.array([]),
        np.full(48, np.nan),
        1e9 + np.arange(5),  # too few to judge
    ],
)
def test_other_values_are_not_warned_about(y: np.ndarray) -> None:
    assert unresolved(y) is None
