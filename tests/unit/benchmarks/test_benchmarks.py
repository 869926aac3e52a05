"""The instrument measures what it says, on a small scale; no figure is judged here."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import pytest

from rillcast.benchmarks.late_events import rewind
from rillcast.benchmarks.memory import memory
from rillcast.benchmarks.timing import Measured, Stopwatch, in_process
from rillcast.errors import RillcastError, SettingsError
from rillcast.settings import Settings
from tests.benchmarks.peers import compare
from tests.support.toy import write_toy


def test_memory_counts_streams_and_their_rows(tmp_path: Path) -> None:
    args = argparse.Namespace(model=write_toy(tmp_path / "toy.onnx"), streams=40_000, rounds=1, pages=4)
    figures = memory(args)
    assert figures["row_bytes"] == 8
    assert 8 < figures["rss_bytes_per_stream"] < 1_000
    assert figures["export_of_4_pages_s"] > 0


def late(model: Path, **changes: object) -> argparse.Namespace:
    options = {"slots": 3, "within": 3.0, "streams": 20, "length": 12, "blocks": 2, "batch": 64, "seed": 0}
    return argparse.Namespace(model=model, device="cpu", threads=1, **(options | changes))


def test_rewind_puts_late_events_into_place_and_counts_the_steps_that_this_takes(tmp_path: Path) -> None:
    figures = rewind(late(write_toy(tmp_path / "toy.onnx")))
    assert 0 < figures["put_share"] < 1
    assert 1 <= figures["steps_again_per_put"] <= 2 * 3 + 1
    assert figures["us_per_event_disordered"] > 0


def test_rewind_refuses_events_that_come_later_than_it_reaches(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--within 4"):
        rewind(late(write_toy(tmp_path / "toy.onnx"), within=4))


def test_stopwatch_takes_the_first_start_and_the_first_stop() -> None:
    watch = Stopwatch()
    states = [watch.running]
    watch.start()
    watch.start()
    states.append(watch.running)
    watch.stop()
    assert [*states, watch.running] == [False, True, False]
    first = watch.measured(10)
    watch.stop()
    assert watch.measured(10).seconds == first.seconds
    assert first.rate == 10 / first.seconds


def _busy(seconds: float) -> Measured:
    watch = Stopwatch()
    watch.start()
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
    watch.stop()
    return watch.measured(1)


def test_a_run_in_a_process_of_its_own_comes_back_with_its_processor_time() -> None:
    assert in_process(_busy, 0.05).cpu_seconds >= 0.05


def _fail() -> Measured:
    raise ValueError("this is why")


def test_a_run_that_fails_says_why() -> None:
    with pytest.raises(RillcastError, match="this is why"):
        in_process(_fail)


def run_of_peer(folder: Path, script: str) -> Measured:
    path = folder / "peer.py"
    path.write_text(script)
    return compare._run(Path(sys.executable), str(path), Settings(), events=10, partitions=4)


def test_a_peer_is_given_its_task_and_its_last_line_is_the_result(tmp_path: Path) -> None:
    measured = run_of_peer(
        tmp_path,
        "import json, sys\n"
        "bootstrap, source, target, group, events, partitions, model = sys.argv[1:]\n"
        "assert (int(partitions), source, target) == (4, 'observations', 'forecasts')\n"
        "print('a word of its own')\n"
        "print(json.dumps({'events': int(events), 'seconds': 2.0, 'cpu_seconds': 1.0, 'peak_rss_mib': 3.0}))\n",
    )
    assert (measured.events, measured.rate) == (10, 5.0)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("print('stopped early')", "ended without a result.*stopped early"),
        ("", "ended without a result"),
        ("raise SystemExit('no broker')", "failed with 1.*no broker"),
    ],
)
def test_a_peer_that_gives_no_result_is_an_error_with_its_output(tmp_path: Path, script: str, expected: str) -> None:
    with pytest.raises(RillcastError, match=f"(?s){expected}"):
        run_of_peer(tmp_path, script)
