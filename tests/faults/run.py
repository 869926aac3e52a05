"""One run: feed, inject the planned faults, wait until everything is committed, judge.

Owns: how each fault is injected, and the deadlines. Does not know: how faults are chosen (`plan`), what is right
(`load`, `verdict`). Every wait has a condition and a deadline. Meanwhile the feeder's limit is raised, but never so far
that a later fault would find no work, and ended processes are started again, as a supervisor does.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.faults.feeder import Feeder
from tests.faults.fleet import GUEST, Finding, Fleet, Member, tail
from tests.faults.load import PARTITIONS, Load
from tests.faults.network import NetworkFaults, listener_of
from tests.faults.plan import NETWORK_FAULTS, REPLICA_FAULTS, Fault, Plan, Step
from tests.faults.replicas import ReplicaFaults
from tests.faults.report import Combination, Report
from tests.faults.stalls import Stalls
from tests.faults.verdict import Verdict, judge
from tests.faults.watch import ClusterWatch, surely
from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.kafka_leaders import Leaders
from tests.support.kafka_replicas import KafkaReplicas
from tests.support.stepped_clock import DAY_S

log = logging.getLogger(__name__)

_POLL_S: Final = 0.02
_PROGRESS_S: Final = 240.0  # ends a broken run; a busy machine may take two minutes to restart all processes
_AIM_S: Final = 3.0  # after this time the fault strikes without the moment that it aims at
_SESSION_S: Final = 6.0
_TRANSACTION_S: Final = 10.0
_HANGING_S: Final = 4 * _TRANSACTION_S
_LOOK_S: Final = 1.0
_MAX_AHEAD: Final = 30_000  # enough to keep members busy
# A broker refuses records of members whose clock is more than an hour ahead where they bring their own time.
_BROKERS_TIME: Final[dict[str, object]] = {"message_timestamp_type": "LogAppendTime"}
_STATE_TOPIC: Final[dict[str, object]] = {
    **_BROKERS_TIME,
    # Everything but the newest records is old after a second, and what was deleted is forgotten soon after.
    "cleanup_policy": "compact",
    "segment_ms": 1_000,
    "min_cleanable_dirty_ratio": 0.01,
    "max_compaction_lag_ms": 1_000,
    "delete_retention_ms": 500,
}


class Run:
    """See the module's docstring."""

    def __init__(
        self,
        cluster: KafkaCluster,
        combination: Combination,
        plan: Plan,
        load: Load,
        model: Path,
        folder: Path,
        older: Path | None = None,
    ) -> None:
        self._cluster = cluster
        self._combination = combination
        self._plan = plan
        self._load = load
        group = unique("chaos")
        self._input = cluster.create_topic("observations", PARTITIONS)
        self._output = cluster.create_topic("forecasts", PARTITIONS, **_BROKERS_TIME)
        self._letters = cluster.create_topic("dead-letters", 1, **_BROKERS_TIME)
        self._state = cluster.create_topic("state", PARTITIONS, **_STATE_TOPIC)
        self._state_folder = folder
        self._alarms = cluster.create_topic("alarms", PARTITIONS, **_BROKERS_TIME) if load.alarms is not None else None
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
        self._replicas: ReplicaFaults | None = None
        self._network: NetworkFaults | None = None
        self._fleet = Fleet(settings, folder, self._addresses, older)
        self._feeder = Feeder(cluster.bootstrap_servers, self._input, load)
        self._counts = {p: self._load.of_partition(p).size for p in range(PARTITIONS)}
        self.committed = 0
        self._struck_at = 0
        self._steps = plan.steps()
        self._ahead = min(_MAX_AHEAD, len(load) // (len(self._steps) + 2))  # the last fault needs work too
        self._held: dict[tuple[int, int], float] = {}
        self._next_look = 0.0
        self._report = Report(combination, load.name, plan.seed, Verdict(len(load)))

    def run(self) -> Report:
        """Run it.

        Raises:
            Finding: a member ended as it should not, or there was no progress.
            Exception: The harness itself failed; nothing is known about the service.
        """
        with ExitStack() as stack:
            stack.callback(self._watch.close)
            if (replicas := self._cluster.replicas) is not None:
                self._lead(replicas, stack.enter_context(Leaders(replicas.bootstrap_servers)))
            return self._run()

    def _lead(self, replicas: KafkaReplicas, leaders: Leaders) -> None:
        """Make the faults of several brokers, and those of the network between them, possible."""
        topics = [self._input, self._output, self._letters, self._state, *filter(None, [self._alarms])]
        transactions = self._combination.delivery == "exactly_once"
        self._replicas = ReplicaFaults(replicas, leaders, self, topics, transactions=transactions)
        if (proxies := self._cluster.proxies) is not None:
            self._network = NetworkFaults(proxies, leaders, self._replicas, self, topics, transactions=transactions)

    def _addresses(self, member: int) -> dict[str, object]:
        """Return the settings of a member that has a way to the brokers of its own."""
        if self._cluster.proxies is None or self._cluster.replicas is None:
            return {}
        return {"kafka.bootstrap_servers": self._cluster.replicas.addresses(listener_of(member))}

    def _run(self) -> Report:
        started = time.monotonic()
        with self._fleet.running(self._plan.members[0]), self._feeder.running():
            for step in self._steps:
                # Something has been committed since the last fault: the members are at work when the next one strikes.
                self._struck_at = min(len(self._load), max(step.at, self.committed + 1))
                self.until(lambda: self.committed >= self._struck_at, f"{self._struck_at} events committed")
                self._do(step)
            self._struck_at = len(self._load)
            self.until(lambda: self.all_committed, "everything committed")
            self._fleet.scale(0)
        return self._judged(started)

    def _judged(self, started: float) -> Report:
        ends = surely(lambda: self._watch.ends(self._input, PARTITIONS), "the ends of the input")
        assert ends == self._counts, f"the input is not what was to be fed: {ends}, expected {self._counts}"
        report, stalls = self._report, Stalls()
        report.verdict = judge(
            self._load,
            self._combination.delivery,
            self._watch.records(self._output, PARTITIONS, stalls.note),
            self._watch.records(self._letters, 1),
            None if self._alarms is None else self._watch.records(self._alarms, PARTITIONS),
        )
        report.longest_stall_s = stalls.longest_s
        report.exits = self._fleet.exits
        if self._combination.store == "kafka":
            ends = surely(lambda: self._watch.ends(self._state, PARTITIONS), "the ends of the state topic")
            report.state_offsets = sum(ends.values())
            report.state_records = sum(1 for _ in self._watch.records(self._state, PARTITIONS))
        report.seconds = time.monotonic() - started
        return report

    # Waiting.

    @property
    def all_committed(self) -> bool:
        return self.committed == len(self._load)

    def until(self, condition: Callable[[], bool], what: str, deadline_s: float = _PROGRESS_S) -> None:
        """Wait; the deadline starts again whenever something is committed.

        Raises:
            Finding: Nothing was committed within the deadline.
        """
        moved = time.monotonic()
        while not condition():
            before = self.committed
            self._turn()
            now = time.monotonic()
            if self.committed > before:
                moved = now
            if now - moved > deadline_s:
                logs = "\n".join(tail(member) for member in self._fleet.members.values())
                raise Finding(
                    f"no progress for {deadline_s:g} s at {self.committed:,} events, waiting for: {what}; "
                    f"{self._feeder}; committed {self._watch.committed(self._input, PARTITIONS)} of "
                    f"{self._watch.ends(self._input, PARTITIONS)}\n{logs}"
                )
            time.sleep(_POLL_S)

    def feed_on(self) -> None:
        """Give the members more to do, though the next fault has not come yet."""
        self._struck_at = self.committed

    def _turn(self) -> None:
        self._fleet.supervise()
        if (committed := self._watch.committed(self._input, PARTITIONS)) is not None:
            beyond = {p: n for p, n in committed.items() if n > self._counts[p]}
            if beyond:
                raise Finding(f"positions beyond the end of what was fed were committed: {beyond}")
            self.committed = max(self.committed, sum(committed.values()))
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
        if held is None or (self._replicas is not None and self._replicas.away):
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
        log.info("at %s of %s events: %s", f"{self.committed:,}", f"{len(self._load):,}", step)
        match step.fault:
            case Fault.MEMBERS:
                self._fleet.scale(step.members)
            case Fault.BROKER_HARD | Fault.BROKER_CLEAN:
                self._restart_broker(hard=step.fault is Fault.BROKER_HARD)
            case Fault.STOP:
                self._stop_and_wake(step)
            case Fault.STOP_ALL:
                self._stop_all(step)
            case Fault.CLOCK | Fault.SWAP:
                self._change(step)
            case Fault.LEADER_IN_RESTORE:
                self._move_leaders_in_restore(step)
            case fault if fault in REPLICA_FAULTS:
                assert self._replicas is not None, "there are no three brokers"
                self._replicas.strike(step)
            case fault if fault in NETWORK_FAULTS:
                assert self._network is not None, "there are no proxies"
                self._network.strike(step)
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

    def _change(self, step: Step) -> None:
        """Step the clock of a member forward or back, or replace it by one of the other release."""
        member, coin = self._fleet.choose(step.draw), step.draw * 1_000 % 1 < 0.5
        if step.fault is Fault.CLOCK:
            member.step_clock(DAY_S if coin else -DAY_S)
            return
        member.is_older = not member.is_older
        if coin:
            self._kill(member)
        else:
            member.process.stop()
            member.restart()

    def _state_written(self) -> object:
        """Return a value that changes as soon as any page of state is written."""
        if self._combination.store == "kafka":
            return self._watch.ends(self._state, PARTITIONS)
        return {path.name for path in self._state_folder.glob("member-*/state/**/*")}

    def _kill_in_restore(self, step: Step) -> None:
        member = self._fleet.choose(step.draw)
        self.until(lambda: member.restoring or member.live, "the successor of a killed member to restore")
        if not member.restoring:
            self._report.missed[step.fault] += 1
        time.sleep(step.delay_s)
        self._kill(member)

    def _move_leaders_in_restore(self, step: Step) -> None:
        """While a killed member's successor reads its state, the state's topic gets other leaders."""
        assert self._replicas is not None, "there are no three brokers"
        elect = self._replicas.prepare_move(self._state if self._combination.store == "kafka" else self._input)
        member = self._fleet.choose(step.draw)
        self._kill(member)
        self.until(lambda: member.restoring or member.live, "the successor of a killed member to restore")
        if not member.restoring:
            self._report.missed[step.fault] += 1
        elect()

    def _kill_in_rebalance(self, step: Step) -> None:
        """A guest joins; a member, perhaps the guest, is killed while the group rebalances; the guest leaves."""
        guest = self._fleet.join(GUEST)
        self.until(lambda: guest.listened, "a guest to start")
        self._aim(step.fault, self._watch.rebalancing)
        time.sleep(step.delay_s)
        self._kill(guest if step.draw < 0.3 else self._fleet.choose(step.draw))
        self.until(lambda: self._watch.members() is not None, "the group at rest")
        self._fleet.leave(GUEST)

    def _stop_and_wake(self, step: Step) -> None:
        """Stop a member until the group continues without it, perhaps until its transaction has ended too."""
        member = self._fleet.choose(step.draw)
        count = len(self._fleet.members)
        self.until(lambda: self._watch.members() == count, f"{count} members at rest")
        member.process.send(signal.SIGSTOP)
        try:
            self.until(lambda: self._watch.members() == count - 1, "the group without the stopped member")
            self.feed_on()
            taken_over = self.committed
            self.until(lambda: self.committed > taken_over or self.all_committed, "the others to go on")
            until = time.monotonic() + step.delay_s
            self.until(lambda: time.monotonic() >= until, "the transaction of the stopped member to time out")
        finally:
            member.process.send(signal.SIGCONT)
        self.until(lambda: self._watch.members() == count, "the woken member to be back")

    def _stop_all(self, step: Step) -> None:
        """Stop every member until the group has none, perhaps until their transactions have ended too."""
        members = list(self._fleet.members.values())
        self.until(lambda: self._watch.members() == len(members), f"{len(members)} members at rest")
        for member in members:
            member.process.send(signal.SIGSTOP)
        try:
            self.until(lambda: self._watch.members() == 0, "the group without members")
            until = time.monotonic() + step.delay_s
            self.until(lambda: time.monotonic() >= until, "the transactions of the stopped members to time out")
        finally:
            for member in members:
                member.process.send(signal.SIGCONT)
        before = self.committed
        self.feed_on()
        self.until(lambda: self.committed > before or self.all_committed, "the woken members to go on")
        self.until(lambda: self._watch.members() == len(members), "the woken members to be back")

    def _restart_broker(self, *, hard: bool) -> None:
        broker = self._cluster.broker
        assert broker is not None, "this broker is not ours to restart"
        if hard:
            broker.kill()
        else:
            broker.stop()
        broker.start()
        self._held = {}  # it ended no transaction while it was away
