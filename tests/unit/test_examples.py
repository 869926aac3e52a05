"""The notebook runs as it stands and prints plausible forecasts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT

NOTEBOOK = ROOT / "examples" / "notebook.py"


def test_the_notebook_prints_a_forecast_for_each_stream(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, NOTEBOOK], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [re.fullmatch(r"(\w+) in 6 hours: (\S+) \((\S+) to (\S+)\)", line) for line in done.stdout.splitlines()]
    found = {line[1]: [float(number) for number in line.groups()[1:]] for line in lines if line}
    assert found.keys() == {"shop", "depot"}
    for median, low, high in found.values():
        assert low < median < high
    # At 05:00, six hours after the last event, the sine stands near its peak.
    assert 20 < found["shop"][0] < 26
    assert 140 < found["depot"][0] < 200


def test_the_notebook_needs_about_ten_lines() -> None:
    code = [line for line in NOTEBOOK.read_text().splitlines() if line and not line.startswith(("#", "import", "from"))]
    assert len(code) <= 11
