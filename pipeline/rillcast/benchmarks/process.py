"""A service under measurement: `rillcast run` as a separate process, on topics made for it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from rillcast.errors import TransportError
from rillcast.settings import Settings
from rillcast.transports.base import Assignment, Channel, Records, Source
from rillcast.transports.connect import open_sink, open_source, open_topic_admin

_DEADLINE_S = 900.0


class Topics:
    """Topics of one measurement, with unique names."""

    def __init__(self, settings: Settings, partitions: int, config: Mapping[str, str] | None = None) -> None:
        suffix = uuid.uuid4().hex[:8]
        self.settings = settings.model_copy(
            update={
                "input": settings.input.model_copy(update={"topic": f"bench-in-{suffix}", "path": None}),
                "output": settings.output.model_copy(update={"topic": f"bench-out-{suffix}", "path": None}),
                "dead_letters": settings.dead_letters.model_copy(update={"topic": f"bench-dead-{suffix}"}),
                "kafka": settings.kafka.model_copy(update={"group_id": f"bench-{suffix}"}),
            }
        )
        with closing(open_topic_admin(settings.kafka)) as admin:
            for topic in (self.settings.input.topic, self.settings.output.topic, self.settings.dead_letters.topic):
                admin.create(topic, partitions, config or {})

    def fill(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Write observations and wait until the broker has them."""
        with closing(open_sink(self.to_input())) as sink:
            sink.publish(Channel.FORECASTS, Records(keys, values))
            sink.flush(_DEADLINE_S)

    def to_input(self) -> Settings:
        """Return settings under which a sink writes observations to the input."""
        target = self.settings.output.model_copy(update={"topic": self.settings.input.topic})
        plain = self.settings.worker.model_copy(update={"delivery": "at_least_once"})
        return self.settings.model_copy(update={"output": target, "worker": plain})

    @contextmanager
    def service(self, **changes: object) -> Iterator[ServiceProcess]:
        """Run the service and kill it at the end.

        Args:
            changes: Further settings by path, with two underscores for a dot: `worker__delivery=...`.
        """
        process = ServiceProcess(self.settings, changes)
        try:
            yield process
        finally:
            process.kill()

    @contextmanager
    def reader(self) -> Iterator[Source]:
        """Read the forecasts that are published from now on."""
        kafka = self.settings.kafka.model_copy(update={"group_id": f"bench-reader-{uuid.uuid4().hex[:8]}"})
        forecasts = self.settings.input.model_copy(update={"topic": self.settings.output.topic})
        source = open_source(self.settings.model_copy(update={"kafka": kafka, "input": forecasts}))
        started: list[int] = []
        source.open(_FromTheEnd(started))
        try:
            wait(lambda: not len(source.poll(1, 0.1)) and bool(started), "the reader has its partitions")
            yield source
        finally:
            source.close()


class _FromTheEnd:
    """Reads every partition from its end."""

    def __init__(self, started: list[int]) -> None:
        self._started = started

    def on_assigned(self, assignments: Sequence[Assignment]) -> Mapping[int, int | None]:
        self._started.extend(assignment.partition for assignment in assignments)
        return {assignment.partition: assignment.end for assignment in assignments}

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """The only member of its group keeps its partitions."""

    def on_lost(self, partitions: Sequence[int]) -> None:
        """The only member of its group keeps its partitions."""


class ServiceProcess:
    """A running service."""

    def __init__(self, settings: Settings, changes: Mapping[str, object]) -> None:
        values = {
            "model": settings.model,
            "input.topic": settings.input.topic,
            "output.topic": settings.output.topic,
            "dead_letters.topic": settings.dead_letters.topic,
            "kafka.group_id": settings.kafka.group_id,
            "kafka.bootstrap_servers": settings.kafka.bootstrap_servers,
            "kafka.client": settings.kafka.client,
            "kafka.session_timeout_s": 6,
            "http.port": 0,
            **{name.replace("__", "."): value for name, value in changes.items()},
        }
        flags = [part for name, value in values.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        handle, name = tempfile.mkstemp(prefix="rillcast-bench-", suffix=".log")
        self._log = Path(name)
        self.started = time.perf_counter()
        with os.fdopen(handle, "wb") as log:
            command = [sys.executable, "-m", "rillcast", "run", *flags]
            self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)  # noqa: S603  our own

    def metric(self, name: str) -> float:
        """Return the sum of a metric's series; 0 while the server does not answer."""
        found = re.search(r"http://127\.0\.0\.1:\d+", self._log.read_text(errors="replace"))
        if found is None:
            return 0.0
        try:
            with urllib.request.urlopen(f"{found[0]}/metrics", timeout=5) as response:  # noqa: S310  our own server
                text = response.read().decode()
        except OSError:
            return 0.0
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return sum(float(value) for series, value in lines if series.split("{")[0] == name)

    def mean(self, histogram: str) -> float:
        """Return the mean of what a histogram has taken in; NaN while it has nothing."""
        count = self.metric(f"{histogram}_count")
        return self.metric(f"{histogram}_sum") / count if count else float("nan")

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition.

        Raises:
            TransportError: The process ended, or the wait was too long; the message has the end of its log.
        """

        def met() -> bool:
            if self._process.poll() is not None:
                raise TransportError(
                    f"the service ended, expected that {what}; its log:\n{self._log.read_text()[-2000:]}"
                )
            return condition()

        wait(met, what)

    def wait_for_metric(self, name: str, at_least: float) -> None:
        """Wait until a metric has reached a value; see `wait_for`."""
        self.wait_for(lambda: self.metric(name) >= at_least, f"{name} >= {at_least:g}")

    def kill(self) -> None:
        """Send SIGKILL, and remove the log."""
        self._process.kill()
        self._process.wait()
        self._log.unlink(missing_ok=True)


def wait(condition: Callable[[], bool], what: str, pause_s: float = 0.02) -> None:
    """Wait until a condition holds.

    Raises:
        TransportError: The wait was too long.
    """
    deadline = time.monotonic() + _DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TransportError(f"after {_DEADLINE_S:g} s it is still not true that {what}")
        time.sleep(pause_s)
