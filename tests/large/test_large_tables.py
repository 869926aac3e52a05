"""A training on 20 million rows of Parquet, whose series lie on the disk: what memory it takes. `make test-large`."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import pytest

from tests.support.long_tests import runs_with

FILES, STREAMS, PERIODS = 20, 2_000, 10_000
LIMIT_BYTES: Final = 1_200_000_000
_START: Final = 1_577_836_800_000
_POLL_S: Final = 0.05


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs_with("test-large")
    folder = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    each = PERIODS // FILES
    for number in range(FILES):
        hours = np.repeat(np.arange(number * each, (number + 1) * each), STREAMS)
        streams = np.tile(np.arange(STREAMS), each)
        y = 50 + streams % 7 + 10 * np.sin(hours * np.pi / 12) + rng.normal(size=len(hours))
        names = pl.Series([f"sensor-{n:05}" for n in range(STREAMS)]).gather(streams)
        frame = pl.DataFrame({"unique_id": names, "ds": _START + hours * 3_600_000, "y": y})
        frame.write_parquet(folder / f"part-{number:02}.parquet")
    return folder


def private_bytes(process: int) -> int:
    """Return the memory that the kernel cannot give to others; pages of files it can, and reads them again."""
    found = re.search(r"^RssAnon:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    return 0 if found is None else int(found[1]) * 1024


def test_a_training_on_twenty_million_rows_takes_little_memory(table: Path, tmp_path: Path) -> None:
    flags = "--freq 1h --horizon 24 --hidden 16 --epochs 2 --batches 40 --validation 0.02 --json"
    command = [sys.executable, "-m", "rillcast", "train", str(table), *flags.split()]
    command += ["--scratch", str(tmp_path), "--out", str(tmp_path / "model.onnx")]
    started, most = time.monotonic(), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            try:
                most = max(most, private_bytes(process.pid))
            except FileNotFoundError:  # it ended between the two looks
                break
            time.sleep(_POLL_S)  # between two samples
        assert process.stdout is not None
        report = process.stdout.read()
    assert process.returncode == 0
    print(f"{PERIODS * STREAMS:,} rows: {most / 1e6:,.0f} MB, {time.monotonic() - started:,.0f} s")
    assert f'"observations": {PERIODS * STREAMS}' in report
    assert most < LIMIT_BYTES, f"{most:,} bytes"
