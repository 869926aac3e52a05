"""The chaos suite's supervision: a member that does not end is a finding."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.faults.fleet import Finding, Fleet, Member


class Deaf:
    """A process that does not heed SIGTERM."""

    log = ""
    log_path = Path("service.log")
    exit_code = None
    killed = False

    def stop(self, number: int) -> int:
        raise subprocess.TimeoutExpired(["rillcast", "run"], 120.0, str(number).encode())

    def kill(self) -> None:
        self.killed = True


def test_a_member_that_does_not_end_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = Deaf()
    monkeypatch.setattr(Member, "_start", lambda _: deaf)
    fleet = Fleet({}, tmp_path)
    with pytest.raises(Finding, match="member 0 did not end"), fleet.running(1):
        fleet.scale(0)
    assert deaf.killed
