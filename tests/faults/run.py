"""One run: feed, inject the planned faults, wait until everything is committed, judge.

Owns: how each fault is injected, and the deadlines. Does not know: how faults are chosen (`plan`), what is right
(`load`, `verdict`). Every wait has a condition and a deadline. Meanwhile the feeder's limit is raised, but never so far
that a later fault would find no work, and ended processes are started again, as a supervisor does.
"""

from __future__ import annotations

import logging
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from tests.faults.feeder import Feeder
from tests.faults.fleet import GUEST, Finding, Fleet, Member, tail
from tests.faults.load import PARTITIONS, Load
from tests.faults.plan import Fault, Plan, Step
from tests.faults.verdict import Verdict, judge
from tests.faults.watch import ClusterWatch, surely
from tests.support.kafka_cluster import KafkaCluster, unique

log = logging.getLogger(__name__)

_POLL_S: Final = 0.02
_PROGRESS_S: Final = 240.0  # ends a broken run; a busy machine may take two minutes to restart all processes
_AIM_S: Final = 3.0  # after this time the fault strikes without the moment that it aims at
_SESSION_S: Final = 6.0
_TRANSACTION_S: Final = 10.0
_HANGING_S: Final = 4 * _TRANSACTION_S
_LOOK_S: Final = 1.0
_MAX_AHEAD: Final = 30_000
_STATE_TOPIC: Final[dict[str, object]] = {
    # Everything but the newest records is old after a second, and what was deleted is forgotten soon after.
    "cleanup_policy": "compact",
    "segment_ms": 1_000,
    "min_cleanable_dirty_ratio": 0.01,
    "max_compaction_lag_ms": 1_000,
    "delete_retention_ms": 500,
}


@dataclass(frozen=True, slots=True)
class Combination:
    """The combination that is run."""

    client: str
    store: str
    delivery: str

    def __str__(self) -> str:
        return f"{self.client} {self.store} {self.delivery}"


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
    restarts: int = 0
    state_offsets: int = 0
    state_records: int = 0
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
        lines.append(f"{self.restarts} restarts after exit code 5; {self.verdict.repeats:,} identical repeats")
        if self.state_offsets:
            lines.append(f"state topic: {self.state_records:,} records left of {self.state_offsets:,} offsets")
        lines.append(f"{self.seconds:.0f} s")
        return "\n".join(f"    {line}" for line in lines + self.verdict.cases)


class Run:
    """See the module's docstring."""

    def __init__(
        self, cluster: KafkaCluster, combination: Combination, plan: Plan, load: Load, model: Path, folder: Path
    ) -> None:
        self._cluster = cluster
        self._combination = combination
        self._plan = plan
        self._load = load
        group = unique("chaos")
        self._input = cluster.create_topic("observations", PARTITIONS)
        self._output = cluster.create_topic("forecasts", PARTITIONS)
        self._letters = cluster.create_topic("dead-letters")
        self._state = cluster.create_topic("state", PARTITIONS, **_STATE_TOPIC)
        self._state_folder = folder
        self._alarms = cluster.create_topic("alarms", PARTITIONS) if load.alarms is not None else None
        settings: dict[str, object] = {
            **({} if "models" in load.settings else {"model": model}),
            "kafka.client": combination.client,
            "kafka.bootstrap_servers": cluster.bootstrap_servers,
            "kafka.group_id": group,
            "kafka.session_timeout_s": _SESSION_S,
            "kafka.request_timeout_s": 10,
            "kafka.transaction_timeout_s": _TRANSACTION_S,
            "input.topic": self._input,
            "output.topic": self._output,
            "dead_letters.topic": self._letters,
            "worker.delivery": combination.delivery,
            "worker.commit_interval_s": 0.1,
            "state.store": combination.store,
            "state.topic": self._state,
            "state.snapshot_interval_s": 0.3,
            "state.snapshot_max_interval_s": 0.3,
            "state.pages_per_commit": 1,  # so that a snapshot of the crowd's partition takes several commits
            "state.idle_ttl_s": load.idle_ttl_s,
            **load.settings,
        }
        if self._alarms is not None:
            settings["alarms.topic"] = self._alarms
        self._watch = ClusterWatch(cluster.bootstrap_servers, group)
        self._fleet = Fleet(settings, folder)
        self._feeder = Feeder(cluster.bootstrap_servers, self._input, load)
        self._counts = {p: self._load.of_partition(p).size for p in range(PARTITIONS)}
        self._committed = 0
        self._struck_at = 0
        self._ahead = min(_MAX_AHEAD, len(load) // 6)  # enough to keep members busy, not enough to finish early
        self._held: dict[tuple[int, int], float] = {}
        self._next_look = 0.0
        self._report = Report(combination, load.name, plan.seed, Verdict(len(load)))

    def run(self) -> Report:
        """Run it.

        Raises:
            Finding: a member ended as it should not, or there was no progress.
            Exception: The harness itself failed; nothing is known about the service.
        """
        try:
            return self._run()
        finally:
            self._watch.close()

    def _run(self) -> Report:
        started = time.monotonic()
        with self._fleet.running(self._plan.members[0]), self._feeder.running():
            for step in self._plan.steps():
                # Something has been committed since the last fault: the members are at work when the next one strikes.
                self._struck_at = min(len(self._load), max(step.at, self._committed + 1))
                self._until(lambda: self._committed >= self._struck_at, f"{self._struck_at} events committed")
                self._do(step)
            self._struck_at = len(self._load)
            self._until(lambda: self._all_committed, "everything committed")
            self._fleet.scale(0)
        return self._judged(started)

    def _judged(self, started: float) -> Report:
        ends = surely(lambda: self._watch.ends(self._input, PARTITIONS), "the ends of the input")
        assert ends == self._counts, f"the input is not what was to be fed: {ends}, expected {self._counts}"
        report = self._report
        report.verdict = judge(
            self._load,
            self._combination.delivery,
            self._watch.records(self._output, PARTITIONS),
            self._watch.records(self._letters, 1),
            None if self._alarms is None else self._watch.records(self._alarms, PARTITIONS),
        )
        report.restarts = sum(self._fleet.exits.values())
        if self._combination.store == "kafka":
            ends = surely(lambda: self._watch.ends(self._state, PARTITIONS), "the ends of the state topic")
            report.state_offsets = sum(ends.values())
            report.state_records = sum(1 for _ in self._watch.records(self._state, PARTITIONS))
        report.seconds = time.monotonic() - started
        return report

    # Waiting.

    @property
    def _all_committed(self) -> bool:
        return self._committed == len(self._load)

    def _until(self, condition: Callable[[], bool], what: str, deadline_s: float = _PROGRESS_S) -> None:
        """Wait; the deadline starts again whenever something is committed.

        Raises:
            Finding: Nothing was committed within the deadline.
        """
        moved = time.monotonic()
        while not condition():
            before = self._committed
            self._turn()
            now = time.monotonic()
            if self._committed > before:
                moved = now
            if now - moved > deadline_s:
                logs = "\n".join(tail(member) for member in self._fleet.members.values())
                raise Finding(
                    f"no progress for {deadline_s:g} s at {self._committed:,} events, waiting for: {what}; "
                    f"{self._feeder}; committed {self._watch.committed(self._input, PARTITIONS)} of "
                    f"{self._watch.ends(self._input, PARTITIONS)}\n{logs}"
                )
            time.sleep(_POLL_S)

    def _turn(self) -> None:
        self._fleet.supervise()
        if (committed := self._watch.committed(self._input, PARTITIONS)) is not None:
            beyond = {p: n for p, n in committed.items() if n > self._counts[p]}
            if beyond:
                raise Finding(f"positions beyond the end of what was fed were committed: {beyond}")
            self._committed = max(self._committed, sum(committed.values()))
        self._feeder.allow(self._struck_at + self._ahead)
        if self._combination.delivery == "exactly_once":
            self._look_for_hanging_transactions()

    def _look_for_hanging_transactions(self) -> None:
        """Raise if a transaction holds readers of the output back for much longer than any may last."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_S
        held = self._watch.held_back(self._output, PARTITIONS)
        if held is None:
            self._held = {}  # nobody answers, and nobody ends a transaction
            return
        self._held = {at: self._held.get(at, now) for at in held.items()}
        for (partition, offset), since in self._held.items():
            if now - since > _HANGING_S:
                raise Finding(
                    f"a transaction hangs: readers of committed records do not get beyond offset {offset} of "
                    f"{self._output}[{partition}] since {now - since:.0f} s; kafka.transaction_timeout_s is "
                    f"{_TRANSACTION_S:g}"
                )

    def _aim(self, fault: Fault, moment: Callable[[], bool]) -> None:
        """Wait for a moment as closely as it can be watched, for a while."""
        deadline = time.monotonic() + _AIM_S
        while not moment():
            if time.monotonic() > deadline:
                self._report.missed[fault] += 1
                return

    # Faults.

    def _do(self, step: Step) -> None:
        if step.fault is Fault.KILL_BEFORE_END and self._combination.delivery == "at_least_once":
            step = replace(step, fault=Fault.KILL_AT_COMMIT)  # there is no transaction
        self._report.faults[step.fault] += 1
        log.info("at %s of %s events: %s", f"{self._committed:,}", f"{len(self._load):,}", step)
        match step.fault:
            case Fault.MEMBERS:
                self._fleet.scale(step.members)
            case Fault.BROKER_HARD | Fault.BROKER_CLEAN:
                self._restart_broker(hard=step.fault is Fault.BROKER_HARD)
            case Fault.STOP:
                self._stop_and_wake(step)
            case Fault.KILL_IN_RESTORE:
                self._kill(self._fleet.choose(step.draw), count=False)
                self._kill_in_restore(step)
            case Fault.KILL_IN_REBALANCE:
                self._kill_in_rebalance(step)
            case _:
                self._kill_aimed(step)

    def _kill(self, member: Member, *, count: bool = True) -> None:
        member.process.kill()
        self._report.kills += 1
        # Before its successor ends it.
        self._report.with_positions += self._watch.unsettled()
        self._report.open_transactions += bool(self._watch.held_back(self._output, PARTITIONS))
        member.restart()

    def _kill_aimed(self, step: Step) -> None:
        member = self._fleet.choose(step.draw)
        if step.fault is Fault.KILL_AT_COMMIT:
            before = self._watch.committed(self._input, PARTITIONS)
            self._aim(step.fault, lambda: self._watch.committed(self._input, PARTITIONS) != before)
        elif step.fault is Fault.KILL_BEFORE_END:
            self._aim(step.fault, self._watch.unsettled)
        elif step.fault is Fault.KILL_IN_SNAPSHOT:
            before_state = self._state_written()
            self._aim(step.fault, lambda: self._state_written() != before_state)
        time.sleep(step.delay_s)
        self._kill(member)

    def _state_written(self) -> object:
        """Return a value that changes as soon as any page of state is written."""
        if self._combination.store == "kafka":
            return self._watch.ends(self._state, PARTITIONS)
        return {path.name for path in self._state_folder.glob("member-*/state/**/*")}

    def _kill_in_restore(self, step: Step) -> None:
        member = self._fleet.choose(step.draw)
        self._until(lambda: member.restoring or member.live, "the successor of a killed member to restore")
        if not member.restoring:
            self._report.missed[step.fault] += 1
        time.sleep(step.delay_s)
        self._kill(member)

    def _kill_in_rebalance(self, step: Step) -> None:
        """A guest joins; a member, perhaps the guest, is killed while the group rebalances; the guest leaves."""
        guest = self._fleet.join(GUEST)
        self._until(lambda: guest.listened, "a guest to start")
        self._aim(step.fault, self._watch.rebalancing)
        time.sleep(step.delay_s)
        self._kill(guest if step.draw < 0.3 else self._fleet.choose(step.draw))
        self._until(lambda: self._watch.members() is not None, "the group at rest")
        self._fleet.leave(GUEST)

    def _stop_and_wake(self, step: Step) -> None:
        """Stop a member until the group continues without it, perhaps until its transaction has ended too."""
        member = self._fleet.choose(step.draw)
        count = len(self._fleet.members)
        self._until(lambda: self._watch.members() == count, f"{count} members at rest")
        member.process.send(signal.SIGSTOP)
        try:
            self._until(lambda: self._watch.members() == count - 1, "the group without the stopped member")
            self._struck_at = taken_over = self._committed
            self._until(lambda: self._committed > taken_over or self._all_committed, "the others to go on")
            until = time.monotonic() + step.delay_s
            self._until(lambda: time.monotonic() >= until, "the transaction of the stopped member to time out")
        finally:
            member.process.send(signal.SIGCONT)
        self._until(lambda: self._watch.members() == count, "the woken member to be back")

    def _restart_broker(self, *, hard: bool) -> None:
        broker = self._cluster.broker
        assert broker is not None, "this broker is not ours to restart"
        if hard:
            broker.kill()
        else:
            broker.stop()
        broker.start()
        self._held = {}  # it ended no transaction while it was away
