"""What came of each run, the file in which results accumulate, and the table at the end.

Owns: the results' form, and the exit code that they amount to. Does not know: how anything is run.

A result tells a finding (the service did what it must never do) from a failure of the harness itself (its broker did
not start, a topic could not be created), after which nothing is known about the service.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

Outcome = Literal["clean", "finding", "harness failed"]
CLEAN, FINDING, HARNESS_FAILED = 0, 1, 3  # exit codes; 2 is that of a wrong option
_HEAD: Final = (
    "line",
    "runs",
    "kills",
    "events",
    "lost",
    "doubled",
    "wrong",
    "longest stall",
    "findings",
    "harness failed",
)


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One run: a line of the table, a seed, and how much.

    Attributes:
        client: `librdkafka` or `kafka-python`.
        store: `kafka` or `local`.
        delivery: `exactly_once` or `at_least_once`.
        load: The bundle and its events, by their name in `chaos.LOADS`.
        seed: Of the schedule and the events.
        kills: Members to kill.
        events: Events to feed.
        brokers: `one`; `three` with every topic on all of them; `proxied`, three behind proxies.
        upgrade_from: Commit of the release with which members begin; empty = all run the working tree's.
    """

    client: str
    store: str
    delivery: str
    load: str
    seed: int
    kills: int
    events: int
    brokers: str = "one"
    upgrade_from: str = ""

    @property
    def line(self) -> str:
        """The line of the table that it counts for."""
        more = "" if self.brokers == "one" else f" {self.brokers} brokers"
        more += f" from {self.upgrade_from}" if self.upgrade_from else ""
        return f"{self.client} {self.store} {self.delivery} {self.load}{more}"

    def __str__(self) -> str:
        return f"{self.line} seed={self.seed} kills={self.kills}"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run.

    Attributes:
        task: The run.
        outcome: `clean`; `finding`; or `harness failed`, and nothing is known about the service.
        seconds: How long it took; 0 = not kept.
        kills: Members that were killed; 0 if the run was not judged.
        events: Events that were judged.
        lost: Events without a forecast.
        doubled: See `verdict`.
        wrong: See `verdict`.
        longest_stall_s: Longest time without a forecast in a partition, in seconds; 0 = not kept.
        said: First line of what was found, or of what failed.
        logs: Folder of the members' logs; empty if it was removed.
        commit: What ran, with `+` where the working tree differed from it; empty = unknown.
    """

    task: Task
    outcome: Outcome
    seconds: float
    kills: int = 0
    events: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    longest_stall_s: float = 0.0
    said: str = ""
    logs: str = ""
    commit: str = ""


def exit_code(results: Iterable[Result]) -> int:
    """Return 0 if all are clean, 1 if there is a finding, else 3."""
    outcomes = {result.outcome for result in results}
    return FINDING if "finding" in outcomes else HARNESS_FAILED if "harness failed" in outcomes else CLEAN


def table(results: Sequence[Result]) -> str:
    """Return a row for each line with the sums of its runs, and below it what was found and what failed."""
    rows: list[Sequence[str]] = [_HEAD]
    for line in dict.fromkeys(result.task.line for result in results):
        of_line = [result for result in results if result.task.line == line]
        counts = [sum(getattr(each, name) for each in of_line) for name in _HEAD[2:7]]
        outcomes = [sum(each.outcome == outcome for each in of_line) for outcome in ("finding", "harness failed")]
        stall = max(result.longest_stall_s for result in of_line)
        numbers = [f"{count:,}" for count in (len(of_line), *counts)]
        rows.append((line, *numbers, f"{stall:.1f} s", *map(str, outcomes)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    if commits := dict.fromkeys(result.commit for result in results if result.commit):
        lines.append(f"ran on {', '.join(commits)}")
    for result in results:
        if result.outcome != "clean":
            lines.append(f"{result.outcome.upper()}: {result.task}: {result.said}")
            lines.append(f"    logs: {result.logs}")
    return "\n".join(lines)


class ResultsFile:
    """Results as JSON Lines, one appended after each run, so that a long suite continues where it stopped."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Result]:
        """Return the results so far; none if there is no file. Half a last line, of a crash, is not among them.

        Raises:
            ValueError: A line is none of these results.
        """
        if not self._path.exists():
            return []
        decoder = msgspec.json.Decoder(Result)
        whole, _, _ = self._path.read_bytes().rpartition(b"\n")
        results = []
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                results.append(decoder.decode(line))
            except msgspec.MsgspecError as error:
                raise ValueError(f"{self._path}, line {number}: no result of the chaos suite: {error}") from error
        return results

    def append(self, result: Result) -> None:
        """Add a result; half a last line makes room for it."""
        data = self._path.read_bytes() if self._path.exists() else b""
        with self._path.open("r+b" if data else "wb") as file:
            file.seek(data.rfind(b"\n") + 1)
            file.truncate()
            file.write(msgspec.json.encode(result) + b"\n")
