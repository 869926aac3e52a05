"""What the long form of the fuzz tests ran, in a file in which runs accumulate.

Owns: the form of a result, and the sums. Does not know: how anything is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec


class Ran(msgspec.Struct, frozen=True):
    """The inputs of one target.

    Attributes:
        target: Its name.
        seed: Of the mutants.
        asked: Inputs that were to be run.
        inputs: Inputs that ran; where one crashed, those before it.
        crashed: Whether the next one crashed.
        commit: What ran, with `+` where the working tree differed from it.
    """

    target: str
    seed: int
    asked: int
    inputs: int
    crashed: bool
    commit: str

    def repeat(self) -> str:
        """Return the command that repeats the crash."""
        return f"python -m tests.fuzz.run --seed {self.seed} --target {self.target} --only {self.inputs}"


def read(path: Path | None) -> list[Ran]:
    """Return the results of a file, none if it is not there.

    Raises:
        msgspec.DecodeError: A line is none of these results.
    """
    if path is None or not path.exists():
        return []
    return [msgspec.json.decode(line, type=Ran) for line in path.read_bytes().splitlines()]


def append(path: Path, ran: Ran) -> None:
    """Add a result."""
    with path.open("ab") as file:
        file.write(msgspec.json.encode(ran) + b"\n")


def table(found: Sequence[Ran]) -> str:
    """Return the inputs of each target and of all, and the command of each crash."""
    sums: dict[str, int] = {}
    for ran in found:
        sums[ran.target] = sums.get(ran.target, 0) + ran.inputs
    lines = [f"{name:<14} {inputs:>11,}" for name, inputs in {**sums, "all": sum(sums.values())}.items()]
    lines += [f"CRASHED on {ran.commit}: {ran.repeat()}" for ran in found if ran.crashed]
    return "\n".join(lines)
