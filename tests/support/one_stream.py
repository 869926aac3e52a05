"""One stream of a topic on a real broker, the group that serves it, and what is right."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.service_process import ServiceProcess, service
from tests.support.toy import unroll, write_toy
from tests.support.workers import observation

EVENTS = 200


@dataclass
class Stream:
    """One stream of a topic, the group that serves it, and what is right.

    Attributes:
        kafka: Where its topics are.
        folder: Of the model and of logs.
        topics: Settings of all topics.
    """

    kafka: KafkaCluster
    folder: Path
    topics: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        def create(prefix: str, **config: object) -> str:
            return self.kafka.create_topic(prefix, 1, **self.topics, **config)

        self.topic, self.output = create("observations"), create("forecasts")
        self.group = unique("group")
        self.fed = 0
        self.settings: dict[str, object] = {
            "model": write_toy(self.folder / "model.onnx"),
            "kafka.bootstrap_servers": self.kafka.bootstrap_servers,
            "kafka.group_id": self.group,
            "kafka.group_instance_id": "member",
            "kafka.session_timeout_s": 6,
            "kafka.request_timeout_s": 5,
            "input.topic": self.topic,
            "output.topic": self.output,
            "dead_letters.topic": create("dead-letters"),
            "state.topic": create("state", cleanup_policy="compact"),
            "worker.delivery": "exactly_once",
            "worker.commit_interval_s": 0.1,
            "state.snapshot_interval_s": 0.1,
            "state.snapshot_max_interval_s": 0.1,
        }

    def feed(self) -> None:
        """Append the next observations."""
        numbers = range(self.fed, self.fed + EVENTS)
        self.kafka.produce(self.topic, [observation("s", n + 1, ds=n) for n in numbers], [b"s"] * EVENTS)
        self.fed += EVENTS

    def serve(self) -> contextlib.AbstractContextManager[ServiceProcess]:
        return service(self.settings, self.folder)

    def wait(self, process: ServiceProcess) -> None:
        """Wait until everything that was fed is committed."""
        committed = self.kafka.committed
        process.wait_until(lambda: sum(committed(self.group, self.topic).values()) == self.fed, "every event")

    def finish(self) -> None:
        """Serve more observations, to a clean end."""
        with self.serve() as process:
            self.feed()
            self.wait(process)
            assert process.stop() == 0

    def check(self, lines: Iterable[bytes | None] | None = None) -> None:
        """Hold the published records against what is right: none is lost, doubled or wrong."""
        if lines is None:
            lines = [record.value for record in self.kafka.read_all(self.output)]
        published = [json.loads(line or b"") for line in lines]
        forecasts = [(each["source"]["offset"], int(each["quantiles"]["0.5"][0])) for each in published]
        assert sorted(forecasts) == list(enumerate(unroll(range(1, self.fed + 1))))
