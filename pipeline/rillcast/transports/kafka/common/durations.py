"""Durations as Kafka's clients take them."""

from __future__ import annotations


def milliseconds(seconds: float) -> int:
    """Return whole milliseconds, at least one."""
    return max(1, round(seconds * 1_000))
