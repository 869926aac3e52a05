"""What was run, and what came of it, in words.

Owns: the line of a run and the lines below it. Does not know: how anything is run or judged.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.faults.plan import Fault
from tests.faults.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Combination:
    """The combination that is run."""

    client: str
    store: str
    delivery: str
    brokers: str = "one"
    upgrade_from: str = ""

    def __str__(self) -> str:
        more = "" if self.brokers == "one" else f" {self.brokers} brokers"
        more += f" from {self.upgrade_from}" if self.upgrade_from else ""
        return f"{self.client} {self.store} {self.delivery}{more}"


@dataclass
class Report:
    """The events of a run, and the verdict."""

    combination: Combination
    load: str
    seed: int
    verdict: Verdict
    faults: Counter[Fault] = field(default_factory=Counter)
    missed: Counter[Fault] = field(default_factory=Counter)  # aimed, but the moment did not come
    kills: int = 0
    open_transactions: int = 0  # kills that left one
    with_positions: int = 0  # of those, with positions in it
    exits: Counter[str] = field(default_factory=Counter)  # what members said that ended with code 5
    state_offsets: int = 0
    state_records: int = 0
    longest_stall_s: float = 0.0
    seconds: float = 0.0

    def __str__(self) -> str:
        v = self.verdict
        counts = " / ".join(f"{n:,}" for n in (self.kills, v.events, v.lost, v.doubled, v.wrong))
        name = "" if self.load == "toy" else f" {self.load}"
        return f"{self.combination}{name} seed={self.seed}: kills / events / lost / doubled / wrong = {counts}"

    def details(self) -> str:
        """Return the lines below the line."""
        lines = [f"{count} x {fault.value}" for fault, count in self.faults.items()]
        lines += [f"{count} x aimed and missed, so at random: {fault.value}" for fault, count in self.missed.items()]
        if self.combination.delivery == "exactly_once":
            lines.append(
                f"{self.open_transactions} kills left a transaction open, {self.with_positions} with positions in it"
            )
        lines.append(f"{self.exits.total()} restarts after exit code 5; {self.verdict.repeats:,} identical repeats")
        lines += [f"    {count} x {said}" for said, count in self.exits.items()]
        if self.state_offsets:
            lines.append(f"state topic: {self.state_records:,} records left of {self.state_offsets:,} offsets")
        lines.append(f"longest time without a forecast in a partition: {self.longest_stall_s:.1f} s")
        lines.append(f"{self.seconds:.0f} s")
        return "\n".join(f"    {line}" for line in lines + self.verdict.cases)
