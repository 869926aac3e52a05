"""The table of docs/chaos.md is that of the kept results, and each of its runs has a command that runs it again."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from msgspec import structs

from tests.faults import chaos, measured
from tests.faults.results import Result, ResultsFile, Task

KEPT = ResultsFile(measured.KEPT).read()
TASK = Task(client="librdkafka", store="kafka", delivery="exactly_once", load="toy", seed=7, kills=50, events=10_000)
RESULT = Result(task=TASK, outcome="clean", seconds=9.0, kills=55, events=10_000, longest_stall_s=8.0, commit="abc")


def test_the_page_has_the_table_of_the_kept_results() -> None:
    page = measured.PAGE.read_text()
    assert measured.in_place(page, measured.table(KEPT)) == page, "run python -m tests.faults.measured"


@pytest.mark.parametrize("task", [result.task for result in KEPT], ids=str)
def test_the_command_of_a_run_runs_it_again(task: Task) -> None:
    *begin, module = shlex.split(measured.command(task))[:3]
    assert (begin, module) == (["python", "-m"], "tests.faults.chaos")
    args = chaos.parser().parse_args(shlex.split(measured.command(task))[3:])
    assert chaos.tasks(args, args.seed) == [task]


def test_a_row_has_the_sums_of_its_runs_and_the_longest_stall() -> None:
    other = structs.replace(RESULT, task=structs.replace(TASK, seed=8), kills=6, lost=1, longest_stall_s=12.5)
    elsewhere = structs.replace(RESULT, commit="def")
    lines = measured.table([RESULT, other, elsewhere]).splitlines()[2:]
    begin = "| one broker | toy | kafka | `exactly_once` | librdkafka |"
    assert lines == [
        f"{begin} 61 | 20,000 | 1 | 0 | 0 | 12.5 s | 7, 8 | abc |",
        f"{begin} 55 | 10,000 | 0 | 0 | 0 | 8.0 s | 7 | def |",
        "| all | | | | | 116 | 30,000 | 1 | 0 | 0 | | | |",
    ]


def test_a_finding_is_named_and_counts_for_no_row() -> None:
    found = structs.replace(RESULT, outcome="finding", said="no progress", commit="def")
    text = measured.table([RESULT, found])
    assert text.endswith(f"\n- {TASK}, on def: no progress")
    assert "| 55 | 10,000 | 0 | 0 | 0 | 8.0 s | 7 | abc |" in text


def test_a_stall_that_is_not_known_of_each_run_is_not_known() -> None:
    assert "| - | 7, 7 | abc |" in measured.table([RESULT, structs.replace(RESULT, longest_stall_s=0.0)])


def test_results_are_kept_once_without_the_folder_of_their_logs(tmp_path: Path) -> None:
    ran, kept = ResultsFile(tmp_path / "ran"), ResultsFile(tmp_path / "kept")
    ran.append(structs.replace(RESULT, outcome="finding", logs="folder"))
    ran.append(structs.replace(RESULT, outcome="harness failed", commit="def"))
    for _ in range(2):
        measured.add(kept, [tmp_path / "ran"])
    assert kept.read() == [structs.replace(RESULT, outcome="finding")]


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="expected <!-- measured by"):
        measured.in_place("text", "table")
