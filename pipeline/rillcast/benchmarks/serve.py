"""The service over a backlog, measured: the worker of `rillcast run`, in this process, for a number of events.

Owns: start and stop of such a run. Does not know: the run that it is compared with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from rillcast.benchmarks.timing import Measured, Stopwatch
from rillcast.observability.stages import StageClock
from rillcast.service import build
from rillcast.settings import Settings
from rillcast.transports.base import Assignment, AssignmentListener, Polled, Source


def serve(settings: Settings, events: int) -> Measured:
    """Serve `events` events that the input already has, as a service does, and commit."""
    watch, stages = Stopwatch(), StageClock(every=1, clock=time.thread_time)
    sources: list[_Backlog] = []

    def until_done(source: Source) -> Source:
        sources.append(_Backlog(source, events, watch, lambda: service.stop()))
        return sources[0]

    service = build.build(settings, around_source=until_done, stages=stages)
    service.run()
    return watch.measured(sources[0].taken, stages.totals())


class _Backlog:
    """A source that starts the stopwatch with its first record, and stops the worker after the last one that counts."""

    def __init__(self, source: Source, events: int, watch: Stopwatch, on_done: Callable[[], None]) -> None:
        self._source = source
        self._events = events
        self._watch = watch
        self.taken = 0
        self._on_done = on_done

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def exhausted(self) -> bool:
        return self._source.exhausted

    def open(self, listener: AssignmentListener) -> None:
        self._source.open(listener)

    def poll(self, max_records: int, timeout_s: float) -> Polled:
        polled = self._source.poll(max_records, timeout_s)
        if len(polled):
            self._watch.start()
            self.taken += len(polled)
            if self.taken >= self._events:
                self._on_done()
        return polled

    def pause(self, partitions: Sequence[int]) -> None:
        self._source.pause(partitions)

    def resume_from(self, partition: int, position: int) -> None:
        self._source.resume_from(partition, position)

    def assignments(self) -> Sequence[Assignment]:
        return self._source.assignments()

    def group(self) -> object:
        return self._source.group()

    def commit(self, positions: Mapping[int, int], timeout_s: float | None = None) -> None:
        self._source.commit(positions, timeout_s)

    def positions(self) -> Mapping[int, int]:
        return self._source.positions()

    def lag(self) -> Mapping[int, int]:
        return self._source.lag()

    def close(self) -> None:
        self._watch.stop()  # the worker closes its source right after the last commit
        self._source.close()
