"""The wall clock of a broker, which a test steps while the broker runs, as an operator or NTP does.

Owns: the library that is preloaded (`kafka/stepped_clock.c`), and the file that it reads. Does not know: brokers; who
starts one gives it `environment`. `tests.support.stepped_clock` does the same to a member.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.kafka_node import HERE


class BrokerClock:
    """A clock that is off by some seconds: none at first.

    Args:
        folder: Of the library and the file, where neither is yet.

    Raises:
        CalledProcessError: The library could not be compiled.
    """

    def __init__(self, folder: Path) -> None:
        library, self._file = folder / "stepped_clock.so", folder / "broker-clock"
        source = HERE / "stepped_clock.c"
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True
        )
        self._file.write_bytes(struct.pack("=q", 0))
        self.environment: Mapping[str, str] = {"LD_PRELOAD": str(library), "STEPPED_CLOCK": str(self._file)}

    @staticmethod
    def missing_tool() -> str | None:
        """Return why no clock can be made here, else None."""
        return "gcc not installed" if shutil.which("gcc") is None else None

    def step(self, seconds: int) -> None:
        """Let the clock be off by this, at once; the file keeps its place, because processes have it mapped."""
        with self._file.open("r+b", buffering=0) as file:
            file.write(struct.pack("=q", seconds))
