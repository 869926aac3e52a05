"""`python -m tests.faults.measured`: the table of docs/chaos.md, from the results that are kept in `measured.jsonl`.

    python -m tests.faults.measured                     write the table
    python -m tests.faults.measured --add FILE...       first keep the results of `chaos --results FILE`
    python -m tests.faults.measured --commands          print the command of each kept run

Owns: what is kept, and the table's form. Does not know: how anything is run. A run is kept whether it ended clean or
with a finding; what failed for the harness's own reasons says nothing, and is left out.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from msgspec import structs

from tests.faults.results import Result, ResultsFile, Task
from tests.support.paths import ROOT

KEPT: Final = ROOT / "tests" / "faults" / "measured.jsonl"
PAGE: Final = ROOT / "docs" / "chaos.md"
BEGIN: Final = "<!-- measured by tests.faults.measured: begin -->"
END: Final = "<!-- measured by tests.faults.measured: end -->"
_FAULTS: Final = {"one": "one broker", "three": "three brokers", "proxied": "the network"}
_HEAD: Final = (
    "| faults | load | state | delivery | client | kills | events | lost | doubled | wrong | longest stall | seeds | "
    "commit |\n| --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |"
)


def command(task: Task) -> str:
    """Return the command of a run."""
    words = ["python", "-m", "tests.faults.chaos", "--client", task.client, "--store", task.store]
    words += ["--delivery", task.delivery, "--load", task.load, "--brokers", task.brokers]
    words += ["--kills", str(task.kills), "--events", str(task.events), "--seed", str(task.seed)]
    if task.upgrade_from:
        words += ["--upgrade-from", task.upgrade_from]
    return shlex.join(words)


def table(results: Sequence[Result]) -> str:
    """Return a row for each line and commit, the sums of its clean runs; below it what was found."""
    order = [*_FAULTS]

    def place(result: Result) -> tuple[object, ...]:
        task = result.task
        return (
            order.index(task.brokers), bool(task.upgrade_from), task.load != "toy", task.load, task.store,
            task.delivery != "exactly_once", task.client != "librdkafka",
        )  # fmt: skip

    rows: dict[tuple[str, str], list[Result]] = {}
    for result in sorted(results, key=place):
        if result.outcome == "clean":
            rows.setdefault((result.task.line, result.commit), []).append(result)
    lines = [_HEAD, *map(_row, rows.values())]
    if rows:
        every = [result for runs in rows.values() for result in runs]
        kills, events, lost, doubled, wrong = _sums(every)
        lines.append(f"| all | | | | | {kills:,} | {events:,} | {lost:,} | {doubled:,} | {wrong:,} | | | |")
    found = [result for result in results if result.outcome == "finding"]
    if found:
        lines += ["", "Runs that ended with a finding, which the text below explains:", ""]
        lines += [f"- {each.task}, on {each.commit}: {each.said}" for each in found]
    return "\n".join(lines)


def _row(runs: Sequence[Result]) -> str:
    task, commit = runs[0].task, runs[0].commit
    faults = _FAULTS[task.brokers] + (f", upgrade from {task.upgrade_from}" if task.upgrade_from else "")
    kills, events, *zeros = _sums(runs)
    stalls = [run.longest_stall_s for run in runs]
    cells = [
        faults, task.load, task.store, f"`{task.delivery}`", task.client, f"{kills:,}", f"{events:,}",
        *(f"{count:,}" for count in zeros), f"{max(stalls):.1f} s" if all(stalls) else "-",
        ", ".join(str(run.task.seed) for run in runs), commit,
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _sums(runs: Sequence[Result]) -> tuple[int, ...]:
    names = ("kills", "events", "lost", "doubled", "wrong")
    return tuple(sum(getattr(run, name) for run in runs) for name in names)


def in_place(page: str, text: str) -> str:
    """Return the page with the text between its markers.

    Raises:
        ValueError: The page lacks a marker.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"expected {BEGIN} and {END}, in this order")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def add(kept: ResultsFile, files: Iterable[Path]) -> None:
    """Keep the results of files; a run that is kept already stays as it is.

    Raises:
        ValueError: A file has something else.
    """
    known = {(result.task, result.commit) for result in kept.read()}
    for path in files:
        for result in ResultsFile(path).read():
            if result.outcome != "harness failed" and (result.task, result.commit) not in known:
                known.add((result.task, result.commit))
                kept.append(structs.replace(result, logs=""))  # a folder of the machine that ran it


def main(argv: Sequence[str] | None = None) -> int:
    """Do what is asked and return the exit code."""
    parser = argparse.ArgumentParser(prog="measured", description="Write the table of docs/chaos.md.")
    parser.add_argument("--add", type=Path, nargs="+", default=[], metavar="FILE", help="keep the results of files")
    parser.add_argument("--commands", action="store_true", help="print the command of each run, and write nothing")
    args = parser.parse_args(argv)
    kept = ResultsFile(KEPT)
    try:
        add(kept, args.add)
    except ValueError as error:
        parser.error(str(error))
    if args.commands:
        for result in kept.read():
            print(f"{command(result.task)}  # {result.outcome} on {result.commit}")
        return 0
    PAGE.write_text(in_place(PAGE.read_text(), table(kept.read())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
