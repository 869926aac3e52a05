"""`python -m tests.faults.soak_picture samples.jsonl docs/soak.png`: the picture of a soak, from its samples."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib
import msgspec
from matplotlib.figure import Figure

from tests.faults.flatness import Sample

_TITLES: Final = {
    "resident_mib": "resident memory (MiB)",
    "descriptors": "open descriptors",
    "threads": "threads",
    "series": "series of /metrics",
    "state_mib": "state topic on the disk (MiB)",
}


def draw(samples: Sequence[Sample], path: Path) -> None:
    """Draw each quantity over the hours, from zero, with the compared quarters shaded."""
    hours = [sample.seconds / 3600 for sample in samples]
    quarter = len(samples) // 4
    with matplotlib.rc_context({"font.size": 8}):
        figure = Figure(figsize=(7, 6), layout="constrained")
        axes = figure.subplots(len(_TITLES), 1, sharex=True)
        for axis, (name, title) in zip(axes, _TITLES.items(), strict=True):
            values = [getattr(sample, name) for sample in samples]
            axis.plot(hours, values, linewidth=1)
            axis.set_title(title, loc="left", fontsize=8)
            axis.set_ylim(0, 1.2 * max(values) or 1)
            axis.axvspan(hours[quarter], hours[2 * quarter], alpha=0.1)
            axis.axvspan(hours[-quarter], hours[-1], alpha=0.1)
        axes[-1].set_xlabel("hours")
        figure.savefig(path, dpi=80)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw what is asked for and return the exit code."""
    parser = argparse.ArgumentParser(prog="soak_picture", description="Draw the samples of a soak.")
    parser.add_argument("samples", type=Path, help="file that `soak --out` wrote")
    parser.add_argument("picture", type=Path, help="PNG to write")
    args = parser.parse_args(argv)
    lines = args.samples.read_bytes().splitlines()
    draw([msgspec.json.decode(line, type=Sample) for line in lines], args.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
