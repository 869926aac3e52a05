"""The chaos suite's own bookkeeping: all lines are run, results accumulate, a failure of the harness is no finding."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from tests.faults import chaos, older
from tests.faults.fleet import Finding
from tests.faults.plan import Fault
from tests.faults.results import Outcome, Result, ResultsFile, Task, exit_code, table

LINES = 22
TASK = Task(client="librdkafka", store="kafka", delivery="exactly_once", load="toy", seed=7, kills=5, events=100_000)


def result(task: Task, outcome: Outcome = "clean", lost: int = 0) -> Result:
    return Result(task=task, outcome=outcome, seconds=1.0, kills=task.kills, events=task.events, lost=lost, said="why")


class Suite:
    """Runs the suite's command line with made-up outcomes, and remembers which runs it did."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[Task] = []
        self.outcome: Callable[[Task], Outcome] = lambda _: "clean"
        monkeypatch.setattr(chaos, "run_one", self._run_one)

    def _run_one(self, task: Task, *, quiet: bool, limit_s: float) -> Result:
        assert quiet
        self.ran.append(task)
        return result(task, self.outcome(task))

    def __call__(self, *flags: str) -> int:
        self.ran.clear()
        return chaos.main(["--quiet", *flags])


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> Suite:
    return Suite(monkeypatch)


def third_fails(outcome: Outcome) -> Callable[[Task], Outcome]:
    return lambda task: outcome if task.line == "librdkafka local exactly_once toy" else "clean"


def test_all_lines_are_run_after_a_finding(suite: Suite, capsys: pytest.CaptureFixture[str]) -> None:
    suite.outcome = third_fails("finding")
    assert suite("--all", "--kills", "5", "--seed", "11") == 1
    assert len(suite.ran) == LINES
    assert "FINDING: librdkafka local exactly_once toy seed=11 kills=5: why" in capsys.readouterr().out
    assert suite("--kills", "5", "--seed", "11") == 1
    assert len(suite.ran) == 3


def test_a_failure_of_the_harness_has_another_exit_code(suite: Suite, capsys: pytest.CaptureFixture[str]) -> None:
    suite.outcome = third_fails("harness failed")
    assert suite("--all", "--kills", "5") == 3
    assert len(suite.ran) == LINES
    assert "HARNESS FAILED: librdkafka local" in capsys.readouterr().out


def test_a_finding_outweighs_a_failure_of_the_harness() -> None:
    assert exit_code([]) == exit_code([result(TASK)]) == 0
    assert exit_code([result(TASK, "harness failed"), result(TASK, "finding"), result(TASK)]) == 1


def test_many_kills_are_split_into_runs_with_seeds_of_their_own(suite: Suite) -> None:
    assert suite("--kills", "120", "--seed", "7", "--load", "gru") == 0
    assert [(task.client, task.seed, task.kills, task.events) for task in suite.ran] == [
        (client, seed, kills, 2_000 * kills)
        for seed, kills in ((7, 50), (8, 50), (9, 20))
        for client in ("librdkafka", "kafka-python")
    ]


def test_a_suite_continues_where_it_stopped(suite: Suite, tmp_path: Path) -> None:
    flags = ("--all", "--kills", "60", "--results", str(tmp_path / "results.jsonl"))
    suite.outcome = third_fails("harness failed")
    assert suite(*flags, "--seed", "3") == 3
    assert len(suite.ran) == 2 * LINES
    failed = [task for task in suite.ran if task.line == "librdkafka local exactly_once toy"]
    suite.outcome = lambda _: "clean"
    assert suite(*flags) == 0  # with the seed of the file
    assert suite.ran == failed
    assert suite(*flags) == 0
    assert suite.ran == []


def test_a_finding_stays_a_finding_when_the_suite_continues(suite: Suite, tmp_path: Path) -> None:
    flags = ("--all", "--kills", "5", "--results", str(tmp_path / "results.jsonl"), "--seed", "3")
    suite.outcome = third_fails("finding")
    assert suite(*flags) == 1
    suite.outcome = lambda _: "clean"
    assert suite(*flags) == 1
    assert suite.ran == []


def test_half_a_last_result_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    file = ResultsFile(path)
    assert file.read() == []
    file.append(result(TASK))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    assert file.read() == [result(TASK)]
    file.append(result(TASK, "finding"))
    assert file.read() == [result(TASK), result(TASK, "finding")]
    path.write_text("{}\n")
    with pytest.raises(ValueError, match=r"results\.jsonl, line 1"):
        file.read()


def test_another_file_is_no_file_of_results(suite: Suite, tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text("{}\n")
    with pytest.raises(SystemExit, match="2"):
        suite("--results", str(tmp_path / "other.jsonl"))
    assert suite.ran == []


def test_a_result_names_the_commit_that_ran(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--all", "--client", "librdkafka", "--load", "gru", "--results", str(tmp_path / "f"), "--seed", "3")
    for commit, kills in (("aaaaaaa", "50"), ("bbbbbbb+", "100")):
        monkeypatch.setattr(chaos, "running_commit", lambda commit=commit: commit)
        assert suite(*flags, "--kills", kills) == 0
    assert [each.commit for each in ResultsFile(tmp_path / "f").read()] == ["aaaaaaa", "bbbbbbb+"]
    assert "ran on aaaaaaa, bbbbbbb+" in capsys.readouterr().out


def test_a_run_from_another_release_is_a_line_of_its_own(suite: Suite) -> None:
    assert suite("--client", "librdkafka", "--load", "gru", "--seed", "3", "--upgrade-from", "abc1234") == 0
    (task,) = suite.ran
    assert task.line == "librdkafka kafka exactly_once gru from abc1234"
    assert chaos.full_plan(task).others[Fault.SWAP] == task.kills
    assert Fault.SWAP not in chaos.full_plan(structs.replace(task, upgrade_from="")).others


def test_members_of_an_older_release_import_its_code(tmp_path: Path) -> None:
    (tmp_path / "rillcast").mkdir()
    (tmp_path / "rillcast" / "__init__.py").write_text("")
    where = [sys.executable, "-c", "import rillcast; print(rillcast.__file__)"]
    done = subprocess.run(where, env=dict(older.environment(tmp_path)), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "rillcast" / "__init__.py")
    with pytest.raises(RuntimeError, match="no code of 0000000000"):
        older.extract("0000000000", tmp_path / "older")


def test_the_table_sums_the_runs_of_a_line() -> None:
    other = Task(client="kafka-python", store="kafka", delivery="exactly_once", load="gru", seed=8, kills=5, events=10)
    lines = table([result(TASK), result(TASK, "finding", lost=3), result(other)]).splitlines()
    assert lines[1].split() == [*TASK.line.split(), "2", "10", "200,000", "3", "0", "0", "0.0", "s", "1", "0"]
    assert lines[2].split() == [*other.line.split(), "1", "5", "10", "0", "0", "0", "0.0", "s", "0", "0"]
    assert lines[3].startswith(f"FINDING: {TASK}: why")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(Finding("member 3 ended"), "finding"), (TimeoutError("create_topic"), "harness failed")],
)
def test_what_ends_a_run_is_told_apart(
    error: Exception, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(chaos, "_report_of", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = chaos.run_one(TASK, quiet=True)
    assert (found.outcome, found.said) == (outcome, f"{type(error).__name__}: {error}")
    assert outcome.upper() in capsys.readouterr().out
