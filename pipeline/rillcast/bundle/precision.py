"""Which values a model can tell apart: it computes in float32, and scales a stream by its changes.

Owns: the limits, and the text that names the one that a stream exceeds.
Does not know: where values come from, who reads the text.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

LEVEL_SHARE: Final = 1e-6
"""Smallest change, as a share of the level, that a model resolves: some sixteen spacings of float32."""
SMALLEST: Final = 1e-20
"""Smallest scale of a stream that a model of Rillcast resolves."""
_MIN_VALUES: Final = 8
_ROUNDING: Final = 1e-14  # share of the level: smaller changes are rounding of whoever computed a constant in float64


def unresolved(y: npt.NDArray[np.float64]) -> str | None:
    """Return why a model cannot forecast a stream finely; None where it can, or where there are too few values.

    Args:
        y: `(n,)` values of one stream in their order, before they become float32; NaN = missing.
    """
    y = y[np.isfinite(y)]
    sizes = np.abs(y[y != 0])
    if sizes.size >= _MIN_VALUES and sizes.max() < SMALLEST:
        return (
            f"its values are at most {sizes.max():.3g}, and below {SMALLEST:g} a model tells no values apart; "
            "send them in a smaller unit (docs/data.md, section Numbers)"
        )
    changes = np.abs(np.diff(y))
    level = float(np.median(sizes)) if sizes.size else 0.0
    changes = changes[changes > _ROUNDING * level]
    if changes.size < _MIN_VALUES or (change := float(np.median(changes))) >= LEVEL_SHARE * level:
        return None
    return (
        f"its values lie near {level:.3g} and change by {change:.3g}, less than a millionth of that, and a model "
        f"computes in float32: forecasts are no finer than {LEVEL_SHARE * level:.3g}; "
        "send changes or subtract a constant (docs/data.md, section Numbers)"
    )
