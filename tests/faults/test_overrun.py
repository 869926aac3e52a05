"""A run of the chaos suite that does not end is ended, and says what it was doing."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest

from tests.faults.overrun import Overrun, within


def wait_for_ever() -> None:
    threading.Event().wait(60)


def test_a_block_that_takes_too_long_ends_with_the_stacks_of_all_threads(tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(Overrun, match=r"not done within 0\.2 s"), within(0.2, tmp_path):
        wait_for_ever()
    assert time.monotonic() - begun < 30, "it waited for its end"
    assert "wait_for_ever" in (tmp_path / "stacks.txt").read_text()


def test_a_block_that_ends_in_time_leaves_no_alarm_behind(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGALRM)
    with within(0.2, tmp_path):
        pass
    time.sleep(0.4)  # the alarm would have come
    assert signal.getsignal(signal.SIGALRM) == before
    assert not (tmp_path / "stacks.txt").exists()
