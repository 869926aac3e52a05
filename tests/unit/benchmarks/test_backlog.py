"""Files of a benchmark have the same events in another order."""

from __future__ import annotations

from pathlib import Path

import pytest

from rillcast.benchmarks.backlog import ORDERS, observations, write_file
from rillcast.bundle.frequency import parse


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_both_orders_of_a_file_have_the_events_and_one_is_by_stream(tmp_path: Path, suffix: str) -> None:
    values = observations(parse("1h"), 3, 0, 4)[1]
    for order in ORDERS:
        write_file(tmp_path / f"{order}.{suffix}", values, 3, order)
    read = {}
    for order in ORDERS:
        lines = (tmp_path / f"{order}.{suffix}").read_text().splitlines()[suffix == "csv" :]
        read[order] = [line for line in lines if line]
    assert sorted(read["interleaved"]) == sorted(read["sorted"])
    assert read["sorted"] == [line for number in range(3) for line in read["interleaved"][number::3]]
