"""A schedule of faults, drawn from a seed.

Owns: the kinds of fault, how many of each make a run, and at which point of the input each strikes. Does not know:
processes, brokers, clocks. A fault strikes when a number of events has been committed, never at a time of day, so that
the same seed means the same faults at the same points on a fast machine and on a slow one.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

_WHERE: Final = (0.04, 0.96)  # of the input: the first fault meets state, the last one leaves work


class Fault(enum.Enum):
    """A kind of fault of the service or its broker."""

    KILL = "kill at random"
    KILL_AT_COMMIT = "kill within milliseconds of a commit"
    KILL_BEFORE_END = "kill between the positions and the end of a transaction"
    KILL_IN_SNAPSHOT = "kill during a snapshot"
    KILL_IN_RESTORE = "kill, and again during the restore that follows"
    KILL_IN_REBALANCE = "kill during a rebalance"
    STOP = "SIGSTOP past the session time-out, then SIGCONT"
    STOP_ALL = "SIGSTOP of all members past the session time-out, then SIGCONT"
    CLOCK = "the wall clock of a member stepped by a day"
    SWAP = "a member replaced by one of the other release, after a kill or a clean end"
    BROKER_HARD = "broker killed and started on its data"
    BROKER_CLEAN = "broker stopped and started"
    MEMBERS = "another number of members"
    LEADER_KILLED = "leader of a partition killed and started on its data"
    GROUP_COORDINATOR = "coordinator of the group killed and started on its data"
    TRANSACTION_COORDINATOR = "coordinator of the transactions killed and started on its data"
    TWO_BROKERS = "two of three brokers killed: nothing may be acknowledged until one is back"
    ROLLED = "every broker stopped and started, one after the other"
    REASSIGNED = "every partition reassigned, and given back with another leader"
    LEADER_IN_RESTORE = "kill, and the leaders of the state moved during the restore that follows"
    NETWORK_SLOW = "every connection delayed, by 150 ms give or take 100 ms in each direction"
    NETWORK_RESETS = "every connection of members reset as soon as it is used"
    NETWORK_HALF_OPEN = "a broker accepts members' connections and nothing passes"
    NETWORK_NO_ANSWERS = "the requests of every other member arrive, and no answer comes back"
    NETWORK_COORDINATOR = "members cut off from the coordinator, not from the leaders"
    NETWORK_LEADERS = "members cut off from the leaders, not from the coordinator"
    NETWORK_SPLIT = "the other brokers cannot copy from one broker"


KILLS: Final = (
    Fault.KILL,
    Fault.KILL_AT_COMMIT,
    Fault.KILL_BEFORE_END,
    Fault.KILL_IN_SNAPSHOT,
    Fault.KILL_IN_RESTORE,
    Fault.KILL_IN_REBALANCE,
)
# Of three brokers; `LEADER_IN_RESTORE` kills a member too.
REPLICA_FAULTS: Final = (
    Fault.LEADER_KILLED,
    Fault.GROUP_COORDINATOR,
    Fault.TRANSACTION_COORDINATOR,
    Fault.TWO_BROKERS,
    Fault.ROLLED,
    Fault.REASSIGNED,
    Fault.LEADER_IN_RESTORE,
)
NETWORK_FAULTS: Final = (
    Fault.NETWORK_SLOW,
    Fault.NETWORK_RESETS,
    Fault.NETWORK_HALF_OPEN,
    Fault.NETWORK_NO_ANSWERS,
    Fault.NETWORK_COORDINATOR,
    Fault.NETWORK_LEADERS,
    Fault.NETWORK_SPLIT,
)
_WEIGHTS: Final = (14, 6, 8, 8, 8, 6)


@dataclass(frozen=True, slots=True)
class Step:
    """One fault.

    Attributes:
        at: Number of committed events at which it strikes.
        fault: its kind.
        draw: in [0, 1), chooses the member.
        delay_s: Seconds between the moment that is aimed at and the fault.
        members: how many there are to be, for `MEMBERS`; else 0.
    """

    at: int
    fault: Fault
    draw: float
    delay_s: float
    members: int = 0

    def __str__(self) -> str:
        return f"{self.fault.value}: {self.members}" if self.members else self.fault.value


@dataclass(frozen=True, slots=True)
class Plan:
    """The faults of one run.

    Attributes:
        seed: of everything that is drawn.
        kills: how often a member is killed.
        events: in the input.
        members: how many members there are, one number per equal part of the input.
        others: how often each other fault strikes; `STOP` takes at least two members.
    """

    seed: int
    kills: int
    events: int
    members: Sequence[int] = (1, 3, 5, 2, 1)
    others: Mapping[Fault, int] = field(default_factory=dict)

    def steps(self) -> list[Step]:
        """Return the faults in their order."""
        rng = random.Random(self.seed)  # noqa: S311  reproducible on purpose
        steps = [self._step(rng, fault) for fault in self._kinds(rng)]
        for part, count in enumerate(self.members[1:], start=1):
            at = part * self.events // len(self.members)
            steps.append(Step(at, Fault.MEMBERS, rng.random(), 0.0, count))
        return sorted(steps, key=lambda step: step.at)

    def _kinds(self, rng: random.Random) -> list[Fault]:
        kills = list(KILLS[: self.kills])  # each kind once, if there are enough
        rng.shuffle(kills)
        kills += rng.choices(KILLS, _WEIGHTS, k=max(0, self.kills - len(kills)))
        return kills + [fault for fault, count in self.others.items() for _ in range(count)]

    def _step(self, rng: random.Random, fault: Fault) -> Step:
        first, last = (round(share * self.events) for share in _WHERE)
        while True:
            at = rng.randint(first, last)
            if fault is not Fault.STOP or self.members_at(at) > 1:
                break
        delay_s = {
            Fault.KILL: rng.uniform(0.0, 0.5),
            Fault.KILL_AT_COMMIT: rng.uniform(0.0, 0.005),
            Fault.KILL_IN_RESTORE: rng.uniform(0.0, 0.1),
            Fault.KILL_IN_REBALANCE: rng.uniform(0.0, 0.3),
            Fault.STOP: rng.choice((0.0, 6.0)),  # 6 s more: past the transaction's time-out as well
            Fault.TWO_BROKERS: rng.choice((6.0, 14.0)),
        }.get(Fault.STOP if fault is Fault.STOP_ALL else fault, 0.0)
        return Step(at, fault, rng.random(), delay_s)

    def members_at(self, at: int) -> int:
        """Return how many members there are when `at` events have been committed."""
        return self.members[min(len(self.members) - 1, at * len(self.members) // self.events)]
