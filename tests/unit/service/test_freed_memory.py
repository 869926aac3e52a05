"""What was freed between blocks that stay goes back to the system, now and then while a service runs."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from rillcast.service import freed_memory
from tests.support import workers
from tests.support.memory import Log, MemorySource
from tests.support.workers import observation

PROGRAM = """
from pathlib import Path
from rillcast.service import freed_memory

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

blocks = [bytes(2_000) for _ in range(30_000)]
blocks = blocks[::10]  # each keeps the end of a heap from being given back
before = resident_mib()
freed_memory.give_back()
print(before - resident_mib())
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not Path("/proc/self/statm").exists(),
    reason="only glibc keeps freed memory, and only Linux says in /proc what a process has",
)
def test_pages_between_blocks_that_stay_go_back() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert float(run.stdout) > 30, "of 54 MiB that were freed"


def test_a_service_gives_back_every_half_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log({0: [(None, observation("a", y)) for y in range(1, 7)]})
    harness = workers.build(log, per_poll=lambda: 1)
    given: list[float] = []
    monkeypatch.setattr(freed_memory, "give_back", lambda: given.append(harness.clock.now))
    began = harness.clock.now

    def pass_time(_source: MemorySource) -> None:
        harness.clock.now += 16

    harness.source.before_poll.extend([pass_time] * 5)
    harness.worker.run()
    assert [at - began for at in given] == [0, 32, 64]
