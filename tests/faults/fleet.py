"""The members: `rillcast run` processes, supervised as in production.

Owns: the wanted members, their processes, and the meaning of an ended process. A process that ends with code 5 is
started again, because that may help; every other end that nobody asked for is a finding. Does not know: faults,
schedules, what the members compute.

Members 0, 1 and 3 have a `group.instance.id` and are back at once after a crash; 2, 4 and guests are new members each
time, whose partitions wait for the session of the dead one to end.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from rillcast.errors import TransportError
from tests.faults.older import environment
from tests.support import stepped_clock
from tests.support.service_process import ServiceProcess

_DYNAMIC: Final = frozenset({2, 4})
GUEST: Final = 9
_STOPPED: Final = (0, TransportError.exit_code)  # asked to end; a successor reads again what it could not commit


class Finding(AssertionError):  # noqa: N818  it is what a run is after
    """The service did something that it must never do."""


class Member:
    """One place in the fleet, and the process that fills it."""

    def __init__(self, number: int, settings: Mapping[str, object], folder: Path, older: Path | None = None) -> None:
        self.number = number
        self._older = older
        self.is_older = older is not None
        self._folder = folder / f"member-{number}"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._settings = dict(settings) | {"state.path": self._folder / "state"}
        if number not in _DYNAMIC and number != GUEST:
            self._settings["kafka.group_instance_id"] = f"member-{number}"
        self._clock = self._folder / "clock"
        self.step_clock(0)
        self.process = self._start()

    def _start(self) -> ServiceProcess:
        code = environment(self._older if self.is_older else None)
        return ServiceProcess(
            self._settings, self._folder, command=stepped_clock.command(self._clock), environment=code
        )

    def step_clock(self, seconds: int) -> None:
        """Let the wall clock of its processes be off by some seconds from now on."""
        stepped_clock.step(self._clock, seconds)

    def restart(self) -> None:
        """Start a process in the place of one that has ended."""
        self.process = self._start()

    @property
    def listened(self) -> bool:
        """Whether it was built and has begun to run."""
        return "listening on" in self.process.log

    @property
    def restoring(self) -> bool:
        """Whether it has partitions whose state is not restored yet."""
        return self.process.metric("rillcast_partitions_restoring") > 0

    @property
    def live(self) -> bool:
        """Whether it has partitions, all of them live."""
        return self.process.metric("rillcast_partitions") > 0 and not self.restoring


class Fleet:
    """All members; leaves no process behind."""

    def __init__(
        self,
        settings: Mapping[str, object],
        folder: Path,
        of_member: Callable[[int], Mapping[str, object]] = lambda _number: {},
        older: Path | None = None,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._of_member = of_member  # settings of a member alone, by its number
        self._older = older  # code of an earlier release, with which members begin
        self.members: dict[int, Member] = {}
        self.exits: Counter[str] = Counter()  # the last line of each member that ended with code 5

    @contextlib.contextmanager
    def running(self, count: int) -> Iterator[Fleet]:
        """Run with `count` members at first; at the end of the block none is left."""
        try:
            self.scale(count)
            yield self
        finally:
            for member in self.members.values():
                member.process.kill()

    def scale(self, count: int) -> None:
        """Start missing members, and ask surplus ones to end."""
        for number in range(count):
            if number not in self.members:
                self.join(number)
        for number in sorted(self.members, reverse=True):
            if number >= count:
                self.leave(number)

    def join(self, number: int) -> Member:
        """Start a member."""
        settings = {**self._settings, **self._of_member(number)}
        self.members[number] = Member(number, settings, self._folder, self._older)
        return self.members[number]

    def leave(self, number: int) -> None:
        """Ask a member to end, and wait for it.

        Raises:
            Finding: it did not end, or with another code than a clean end has, or one that lost its broker.
        """
        member = self.members.pop(number)
        try:
            code = member.process.stop(signal.SIGTERM)
        except subprocess.TimeoutExpired as error:
            raise Finding(f"member {number} did not end {error.timeout:g} s after SIGTERM:\n{tail(member)}") from error
        finally:
            member.process.kill()
        # It did not serve yet: it handled no signals, or had only begun with its command.
        unheeded = code in (-signal.SIGTERM, 128 + signal.SIGTERM) and not member.listened
        if code not in _STOPPED and not unheeded:
            raise Finding(f"member {number} ended with {code} after SIGTERM:\n{tail(member)}")

    def supervise(self) -> None:
        """Start again what has ended and may be started again.

        Raises:
            Finding: A process ended with a code that needs operator action.
        """
        for member in self.members.values():
            code = member.process.exit_code
            if code is None:
                continue
            if code != TransportError.exit_code:
                raise Finding(f"member {member.number} ended by itself with {code}:\n{tail(member)}")
            self.exits[(member.process.log.splitlines() or [""])[-1]] += 1
            member.restart()

    def choose(self, draw: float) -> Member:
        """Return the member that `draw` in [0, 1) stands for; guests are left alone."""
        regular = [member for number, member in sorted(self.members.items()) if number != GUEST]
        return regular[int(draw * len(regular))]


def tail(member: Member) -> str:
    """Return the end of a member's log, and where it is."""
    return f"{member.process.log_path}:\n{member.process.log[-3000:]}"
