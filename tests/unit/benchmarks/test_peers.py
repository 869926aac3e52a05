"""A peer is called as its script expects, and its failures are errors with its output."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from rillcast.benchmarks.timing import Measured
from rillcast.errors import RillcastError
from rillcast.settings import Settings
from tests.benchmarks.peers import compare, equality
from tests.benchmarks.peers.programs import Peer


def run_of_peer(folder: Path, script: str) -> Measured:
    path = folder / "peer.py"
    path.write_text(script)
    return compare.run([sys.executable, str(path)], Peer("peer.py", 1.0), Settings(), events=10, partitions=4)


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


def test_a_peer_that_computes_something_else_is_refused() -> None:
    expected = {("a", 0): np.ones((2, 3), np.float32), ("a", 1): np.full((2, 3), 2, np.float32)}
    close = {event: forecast + np.float32(4e-5) for event, forecast in expected.items()}  # four places
    equality.require_same("peer", expected, close)
    with pytest.raises(RillcastError, match=r"peer wrote 1 of 2 forecasts; the first missing is \('a', 1\)"):
        equality.require_same("peer", expected, {("a", 0): expected["a", 0]})
    with pytest.raises(RillcastError, match=r"its forecast of \('a', 1\) differs by 1"):
        equality.require_same("peer", expected, expected | {("a", 1): np.full((2, 3), 3, np.float32)})
