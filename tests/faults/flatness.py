"""What a soak measured, and whether it stays flat.

Owns: the samples, their file, and the comparison of quarters. Does not know: how anything is run or measured.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import msgspec

TOLERANCE: Final = 0.02
_LEAST: Final = 8  # samples: two in each quarter


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What a member and the broker use at one moment.

    Attributes:
        seconds: Since the first event.
        committed: Events whose positions are committed.
        resident_mib: Resident memory of the member.
        descriptors: Its open descriptors.
        threads: Its threads.
        series: Series of its `/metrics`.
        state_mib: Size of the state topic on the broker's disk.
    """

    seconds: float
    committed: int
    resident_mib: float
    descriptors: int
    threads: int
    series: int
    state_mib: float


class Samples:
    """What has been sampled so far, also as JSON Lines in a file: a soak that dies leaves what it has measured.

    Attributes:
        taken: In their order.
    """

    def __init__(self, path: Path | None) -> None:
        """Begin the file; None = there is none."""
        self.taken: list[Sample] = []
        self._file = None if path is None else path.open("wb", buffering=0)

    def note(self, sample: Sample) -> None:
        """Add a sample, and write it at once."""
        self.taken.append(sample)
        if self._file is not None:
            self._file.write(msgspec.json.encode(sample) + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One quantity: its medians in the second and in the last quarter, and by which share it grew."""

    name: str
    second: float
    last: float
    growth: float

    def is_flat(self, tolerance: float) -> bool:
        """Return whether it grew by at most a share. What shrinks leaks nothing."""
        return self.growth <= tolerance


def figures(samples: Sequence[Sample]) -> list[Figure]:
    """Compare the quarters of a soak.

    Raises:
        ValueError: There are too few samples.
    """
    if len(samples) < _LEAST:
        raise ValueError(f"{len(samples)} samples, expected at least {_LEAST}; run for longer")
    quarter = len(samples) // 4
    parts = samples[quarter : 2 * quarter], samples[-quarter:]
    found = []
    for name in Sample.__struct_fields__[2:]:
        second, last = (statistics.median(float(getattr(each, name)) for each in part) for part in parts)
        growth = last / second - 1 if second else math.inf if last else 0.0
        found.append(Figure(name=name, second=second, last=last, growth=growth))
    return found


def report(samples: Sequence[Sample], tolerance: float = TOLERANCE) -> tuple[str, bool]:
    """Return the table of a soak, and whether everything stayed flat and events were committed to the end."""
    rows = figures(samples)
    quarter = len(samples) // 4
    goes_on = samples[-1].committed > samples[-quarter].committed if quarter > 1 else True
    lines = [f"{'':<14}{'second quarter':>16}{'last quarter':>16}{'growth':>10}"]
    for row in rows:
        verdict = "" if row.is_flat(tolerance) else "  NOT FLAT"
        lines.append(f"{row.name:<14}{row.second:>16,.1f}{row.last:>16,.1f}{row.growth:>10.1%}{verdict}")
    last = samples[-1]
    lines.append(f"{last.committed:,} events in {last.seconds:,.0f} s" + ("" if goes_on else "  NOT GOING ON"))
    return "\n".join(lines), goes_on and all(row.is_flat(tolerance) for row in rows)
