"""How figures are printed for a person, where a benchmark has no form of its own."""

from __future__ import annotations

from typing import Any


def show(figures: dict[str, Any]) -> None:
    """Print one figure a line; a histogram is for machines only."""
    for name, value in figures.items():
        if name != "histogram_ms":
            print(f"{name:<28} {value:,.4g}" if isinstance(value, float) else f"{name:<28} {value}")
