"""`python -m tests.support.stepped_clock FILE run ...`: the command line, whose wall clock is off by FILE's seconds.

The file is read whenever the clock is, so a test steps the clock of a running process by writing it. The monotonic
clock goes on, as it does where an operator or NTP steps a machine's clock. Does not reach native code.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

DAY_S: Final = 86_400


def command(file: Path) -> tuple[str, ...]:
    """Return the command of a service whose clock is off by what a file says."""
    return (sys.executable, "-m", "tests.support.stepped_clock", str(file), "run", "--http.port", "0")


def step(file: Path, seconds: int) -> None:
    """Let a clock be off by some seconds; a reader sees the old number or the new one."""
    written = file.with_suffix(".written")
    written.write_text(str(seconds))
    written.replace(file)


def _patch(file: Path) -> None:
    wall_ns = time.time_ns

    def stepped_ns() -> int:
        return wall_ns() + int(file.read_text()) * 1_000_000_000

    time.time_ns = stepped_ns
    time.time = lambda: stepped_ns() / 1e9


if __name__ == "__main__":
    _patch(Path(sys.argv.pop(1)))
    from rillcast.cli import console_script

    sys.exit(console_script())
