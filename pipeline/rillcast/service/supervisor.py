"""Several workers of one consumer group on one machine: a process each, because Python runs one thread at a time.

Owns: the processes, and the reaction when one ends. Does not know: what a member does. The brokers share the partitions
out; every member runs as it would alone, with a port and a static name of its own.

A member that dies (killed, or with an exit code after which a restart may help) is restarted under the same name, after
a pause that doubles while it keeps dying. Within the group's session time-out it keeps its partitions, and the others
do not notice. A member that ends with a code that needs operator action ends all of them, with that code: half a
service that looks whole is worse than none. Members whose supervisor has died stop as if asked to.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from typing import Final, Generic, TypeVar

from rillcast.errors import SettingsError
from rillcast.settings import Settings

log = logging.getLogger(__name__)

NEEDS_OPERATOR: Final = frozenset({2, 3, 4, 6})  # exit codes, see `rillcast.errors`: settings, model, device, recovery
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
_STEADY_S: Final = 60.0  # a member that lived this long begins with the first pause again
_TICK_S: Final = 0.5
T = TypeVar("T")


def members(settings: Settings, count: int, host: str) -> list[Settings]:
    """Return the settings of each of `count` members.

    Raises:
        SettingsError: Input, output or state is a file, which several workers cannot share.
    """
    if settings.input.path is not None or settings.output.path is not None:
        raise SettingsError(
            f"--workers {count} share the partitions of topics, but input.path or output.path is a file; use topics"
        )
    if settings.state.store == "local":
        raise SettingsError(
            f"--workers {count}: state.store is 'local', a directory of one process, but a partition that moves to "
            f"another worker has to find its state; use 'kafka'"
        )
    name = settings.kafka.group_instance_id or host
    made = []
    for number in range(count):
        kafka = settings.kafka.model_copy(update={"group_instance_id": f"{name}-{number}"})
        if kafka.transactional_id is not None:
            kafka = kafka.model_copy(update={"transactional_id": f"{kafka.transactional_id}-{number}"})
        port = settings.http.port and settings.http.port + number
        http = settings.http.model_copy(update={"port": port})
        made.append(settings.model_copy(update={"kafka": kafka, "http": http}))
    return made


class _Member(Generic[T]):
    """One process, and when to restart it."""

    def __init__(self, number: int, task: Callable[[T], None], argument: T) -> None:
        self.number = number
        self._task = task
        self._argument = argument
        self._pause_s = FIRST_PAUSE_S
        self._started = 0.0
        self.process: SpawnProcess | None = None
        self.start_at: float | None = 0.0

    def start(self, now: float) -> None:
        self.start_at, self._started = None, now
        self.process = multiprocessing.get_context("spawn").Process(
            target=_run, args=(self._task, self._argument), name=f"worker-{self.number}"
        )
        self.process.start()

    def ended(self, now: float, first_pause_s: float) -> int:
        """Note the end of the process, and return its exit code."""
        assert self.process is not None
        self.process.join()
        code = self.process.exitcode or 0
        self.process = None
        if now - self._started >= _STEADY_S:
            self._pause_s = first_pause_s
        return code

    def schedule_restart(self, now: float) -> float:
        pause = self._pause_s
        self.start_at, self._pause_s = now + pause, min(2 * pause, LONGEST_PAUSE_S)
        return pause


class Supervisor(Generic[T]):
    """Runs `task(argument)` in a process for each of several arguments. The main thread calls `run` and `stop`."""

    def __init__(
        self,
        task: Callable[[T], None],
        arguments: Sequence[T],
        *,
        first_pause_s: float = FIRST_PAUSE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start nothing yet.

        Args:
            task: A function of a module, which every process imports; ends by returning or by `SystemExit`.
            arguments: One for each member.
            first_pause_s: Seconds before a member that died is restarted.
            clock: Monotonic seconds.
        """
        self._members = [_Member(number, task, argument) for number, argument in enumerate(arguments)]
        for member in self._members:
            member._pause_s = first_pause_s
        self._first_pause_s = first_pause_s
        self._clock = clock
        self._stopping = False
        self._code = 0

    def stop(self) -> None:
        """Ask every member to finish; `run` returns when they have."""
        self._stopping = True
        for member in self._members:
            member.start_at = None
            if member.process is not None:
                member.process.terminate()

    def run(self) -> int:
        """Keep the members running until they are done or stopped; return the exit code."""
        try:
            while self._start_due() or any(member.process is not None for member in self._members):
                self._watch()
        finally:
            self.stop()
            for member in self._members:
                if member.process is not None:
                    member.process.join()
        return self._code

    def _start_due(self) -> bool:
        """Start the members that are due; return whether one is still to be started."""
        now = self._clock()
        for member in self._members:
            if member.start_at is not None and now >= member.start_at:
                member.start(now)
                log.info("worker %d: process %d", member.number, member.process.pid if member.process else 0)
        return any(member.start_at is not None for member in self._members)

    def _watch(self) -> None:
        """Wait for members to end, for a short time."""
        running = {member.process.sentinel: member for member in self._members if member.process is not None}
        for sentinel in connection.wait(list(running), _TICK_S) if running else ():
            assert isinstance(sentinel, int)
            self._note_end(running[sentinel])
        if not running:
            time.sleep(min(_TICK_S, self._first_pause_s))

    def _note_end(self, member: _Member[T]) -> None:
        code = member.ended(self._clock(), self._first_pause_s)
        if self._stopping:
            if code != -signal.SIGTERM:  # else it had begun nothing: it was asked to end before it heeds signals
                self._code = self._code or code
        elif code in NEEDS_OPERATOR:
            log.error(
                "worker %d ended with exit code %d, which needs operator action; stopping all workers",
                member.number,
                code,
            )
            self._code = code
            self.stop()
        elif code == 0:
            log.info("worker %d finished", member.number)
        else:
            pause = member.schedule_restart(self._clock())
            log.warning("worker %d ended with exit code %d; restarting in %.3g s", member.number, code, pause)


def _run(task: Callable[[T], None], argument: T) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def stop_with_parent() -> None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_with_parent, name="parent-watch", daemon=True).start()
    task(argument)
