"""`python -m tests.faults.soak --minutes 120`: does anything grow in a service that works for long?

A member takes events at a steady rate. Some come late, so that streams are rewound; ids change, so that others are
evicted. In turns, each interval another model takes over, or a guest joins the group or leaves it. What the member and
the state topic use is sampled, and the last quarter of the time is compared with the second. Ends with 1 if anything
grew.
"""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from rillcast.bundle.registry.model_registry import ModelRegistry
from tests.faults.flatness import TOLERANCE, Sample, Samples, report
from tests.support.kafka_cluster import KafkaCluster, restartable_cluster, unique
from tests.support.service_process import ServiceProcess
from tests.support.toy import toy_bundle, write_toy
from tests.support.workers import observation

_PARTITIONS: Final = 4
_STREAMS: Final = 400
_CHURN: Final = 0.05  # of the streams leave with each round, and as many new ones come
_LATE: Final = 0.02  # of the events
_HOUR_MS: Final = 3_600_000
_IDLE_HOURS: Final = 6
_RETAINED: Final = 500  # events of a partition behind what is committed
_MODELS: Final = (31, 37)
_TICK_S: Final = 0.25
_LEAST_INTERVAL_S: Final = 15.0
_MIB: Final = 2**20


class Soak:
    """One run."""

    def __init__(self, cluster: KafkaCluster, folder: Path, rate: float) -> None:
        assert cluster.broker is not None, "its folder has the size of the state topic"
        self._cluster, self._folder, self._rate = cluster, folder, rate
        self._logs = cluster.broker.folder
        self._registry = ModelRegistry.at(str(folder / "registry"))
        for multiplier in _MODELS:
            self._registry.push(write_toy(folder / f"{multiplier}.onnx", multiplier).read_bytes(), _now())
        self._ids = [toy_bundle(multiplier=each).metadata.model_id for each in _MODELS]
        self._registry.promote(self._ids[0], _now())
        self._topic = cluster.create_topic("observations", _PARTITIONS)
        self._state = cluster.create_topic(
            "state", _PARTITIONS, cleanup_policy="compact", segment_ms=10_000, min_cleanable_dirty_ratio=0.1,
            max_compaction_lag_ms=10_000, delete_retention_ms=5_000,
        )  # fmt: skip
        self._group = unique("soak")
        self._settings: dict[str, object] = {
            "model": f"{folder / 'registry'}@live",
            "model_cache": folder / "cache",
            "kafka.bootstrap_servers": cluster.bootstrap_servers,
            "kafka.group_id": self._group,
            "kafka.session_timeout_s": 6,
            "input.topic": self._topic,
            "input.allowed_lateness_periods": 3,
            "output.topic": cluster.create_topic("forecasts", _PARTITIONS, retention_ms=60_000),
            "dead_letters.topic": cluster.create_topic("dead-letters"),
            "worker.delivery": "exactly_once",
            "worker.commit_interval_s": 0.5,
            "state.topic": self._state,
            "state.snapshot_interval_s": 2,
            "state.snapshot_max_interval_s": 2,
            "state.idle_ttl_s": _IDLE_HOURS * 3_600,
            "state.superseded_ttl_s": 5,
            "rollout.poll_interval_s": 1,
        }
        self._fed = 0
        self._processes: list[ServiceProcess] = []
        self._guest: ServiceProcess | None = None
        self._actions = itertools.cycle([self._swap, self._join, self._leave])
        self._wanted = itertools.cycle([self._ids[1], self._ids[0]])

    def run(self, seconds: float, interval_s: float, sample_s: float, note: Callable[[Sample], None]) -> None:
        """Run it; `note` is called with each sample as it is taken."""
        member = self._member("member")
        try:
            member.wait_until(lambda: member.get("/readyz")[0] == 200, "the start")
            began = time.monotonic()
            next_sample, next_action = sample_s, interval_s
            while (passed := time.monotonic() - began) < seconds:
                self._feed(round(passed * self._rate))
                if passed >= next_sample:
                    next_sample += sample_s
                    note(self._sample(member, passed))
                if passed >= next_action:
                    next_action += interval_s
                    next(self._actions)()
                time.sleep(_TICK_S)  # between two looks at the clock; the run lasts as long as it was asked to
            self._leave()
            assert member.stop() == 0, member.log[-3000:]
        finally:
            for process in self._processes:
                process.kill()

    def _member(self, name: str) -> ServiceProcess:
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        self._processes.append(ServiceProcess({**self._settings, "kafka.group_instance_id": name}, folder))
        return self._processes[-1]

    def _feed(self, until: int) -> None:
        """Append events; a round has one of each stream, an hour after the round before."""
        keys: list[bytes] = []
        values: list[bytes | None] = []
        for number in range(self._fed, until):
            hour, place = divmod(number, _STREAMS)
            # With each round the next twentieth of the places gets new streams.
            age = (hour + place * round(1 / _CHURN) // _STREAMS) // round(1 / _CHURN)
            late = 2 if number % round(1 / _LATE) == 0 else 0
            name = f"{age}-{place}"
            values.append(observation(name, float(number % 997), ds=(hour - late) * _HOUR_MS))
            keys.append(name.encode())
        if values:
            self._cluster.produce(self._topic, values, keys)
            self._fed = until

    def _sample(self, member: ServiceProcess, seconds: float) -> Sample:
        assert member.exit_code is None, f"the member ended after {seconds:.0f} s:\n{member.log[-3000:]}"
        proc = Path(f"/proc/{member.pid}")
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        lines = member.get("/metrics")[1].splitlines()
        committed = self._cluster.committed(self._group, self._topic)
        for partition, position in committed.items():  # another model warms up over what is retained
            self._cluster.delete_records(self._topic, partition, max(0, position - _RETAINED))
        state = sum(file.stat().st_size for file in self._logs.glob(f"**/{self._state}-*/*.log"))
        return Sample(
            seconds=seconds,
            committed=sum(committed.values()),
            resident_mib=int(status["VmRSS"].split()[0]) / 1024,
            descriptors=len(list((proc / "fd").iterdir())),
            threads=int(status["Threads"]),
            series=sum(not line.startswith("#") for line in lines),
            state_mib=state / _MIB,
        )

    def _swap(self) -> None:
        self._registry.promote(next(self._wanted), _now())

    def _join(self) -> None:
        self._guest = self._member("guest")

    def _leave(self) -> None:
        if (guest := self._guest) is not None:
            self._guest = None
            guest.wait_until(lambda: guest.port > 0, "the start of a guest")  # before that it has no clean end
            assert guest.stop() == 0, guest.log[-3000:]


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


def main(argv: Sequence[str] | None = None) -> int:
    """Run it, print the table and return the exit code."""
    parser = argparse.ArgumentParser(prog="soak", description="Run a service for long, and see what grows.")
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--rate", type=float, default=500.0, help="events per second")
    parser.add_argument("--interval", type=float, help="seconds between swaps, joins and leaves (a 40th of all)")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="share by which a quantity may grow")
    parser.add_argument("--out", type=Path, help="file of the samples, JSON Lines; each as it is taken")
    args = parser.parse_args(argv)
    seconds = 60 * args.minutes
    interval_s = args.interval or max(_LEAST_INTERVAL_S, seconds / 40)
    folder = Path(tempfile.mkdtemp(prefix="rillcast-soak-"))
    with restartable_cluster() as cluster, Samples(args.out) as samples:
        Soak(cluster, folder, args.rate).run(seconds, interval_s, seconds / 80, samples.note)
    text, flat = report(samples.taken, args.tolerance)
    print(text)
    if flat:
        shutil.rmtree(folder)
    else:
        print(f"the members' logs are in {folder}")
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
