"""A worker and the views of it. The views outlive the worker when brokers that were away are back.

An outage ends a worker: what it published since its last commit is in doubt, and its clients may be of no use any more.
The process stays: it answers probes and scrapes, waits until a broker answers, and then begins again with a new worker,
which restores its state. So an outage is not a crash loop, whose pauses would outlast it. While some brokers are away
the others answer, and may still refuse to write: a worker that fails meanwhile is replaced too.

Owns: the life of the worker within the process. Does not know: how a worker is put together (`build`).
"""

from __future__ import annotations

import gc
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry

from rillcast.errors import FencedError, InUseError, OutputError, TransportError, UnreachableError
from rillcast.observability.health import Health
from rillcast.observability.metrics import Metrics
from rillcast.observability.server import HttpServer
from rillcast.service.garbage_collection import sparing
from rillcast.service.worker import Worker
from rillcast.transports.kafka.common.topic_admin import Brokers

if TYPE_CHECKING:
    from rillcast.publishing.spans import Spans  # needs an extra

log = logging.getLogger(__name__)

_PAUSE_S: Final = 1.0
# Another process has what this one needs, or a file cannot be written: no broker can help.
_NO_OUTAGE: Final = (FencedError, InUseError, OutputError)


@dataclass(frozen=True, slots=True)
class Views:
    """What outlives a worker.

    Attributes:
        health: The conditions of the probes.
        metrics: Counts and gauges.
        registry: The series of `/metrics`.
        server: Serves probes, metrics and the live page; None = HTTP is off.
        spans: Sends traces; None = there are none.
    """

    health: Health
    metrics: Metrics
    registry: CollectorRegistry
    server: HttpServer | None = None
    spans: Spans | None = None


@dataclass(frozen=True, slots=True)
class Outages:
    """How a service survives brokers that are away.

    Attributes:
        look: Asks which brokers answer, within seconds.
        longest_s: Seconds after which the service ends all the same.
    """

    look: Callable[[], Brokers]
    longest_s: float = math.inf


class Service:
    """One worker at a time. `stop` may be called from a signal handler or another thread, `run` once."""

    def __init__(
        self,
        make_worker: Callable[[], Worker],
        views: Views,
        outages: Outages | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connect to nothing yet.

        Args:
            make_worker: Puts a worker together; it may connect.
            views: What outlives the worker.
            outages: What to do while brokers are away; None = there are no brokers.
            clock: Monotonic seconds.
        """
        self._make_worker = make_worker
        self.views = views
        self._outages = outages
        self._clock = clock
        self._worker: Worker | None = None
        self._has_served = False
        self._fails_since: float | None = None  # monotonic: the first failure after the last commit
        self._commits = 0  # when a worker last failed
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Ask the worker to finish, commit and close."""
        self._stopping.set()
        if self._worker is not None:
            self._worker.stop()

    def run(self) -> None:
        """Serve HTTP, if that is on, and work to the end of the input, or until `stop`.

        Raises:
            RillcastError: See `Worker.run` and `HttpServer.start`.
        """
        with self.answering():
            self.work()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Serve HTTP meanwhile, if that is on."""
        if self.views.server is not None:
            self.views.server.start()
        try:
            yield
        finally:
            if self.views.server is not None:
                self.views.server.stop()
            if self.views.spans is not None:
                self.views.spans.close()

    def work(self) -> None:
        """Work to the end of the input, or until `stop`; begin again after an outage of the brokers.

        Raises:
            RillcastError: See `Worker.run`.
        """
        failure = self._work_once()
        while failure is not None:
            self._await_brokers(failure)
            gc.collect()  # the worker before has cycles, and may have held most of the memory
            failure = self._work_once()

    def _work_once(self) -> TransportError | None:
        """Work until the end, or until a failure that an outage may have caused; return that failure.

        At the first start a broker that does not answer is a mistake in the settings until one has answered once.
        """
        health = self.views.health
        health.assigned = health.restored = False
        try:
            self._worker = self._make_worker()
            if self._stopping.is_set():
                self._worker.stop()
            with sparing():
                self._worker.run()
        except _NO_OUTAGE:
            raise
        except TransportError as error:
            self._has_served |= health.assigned
            if self._outages is None or self._stopping.is_set() or not self._has_served:
                raise
            return error.with_traceback(None)  # its frames would keep the worker
        finally:
            self._worker = None
        return None

    def _await_brokers(self, failure: TransportError) -> None:
        """Wait until a broker answers; where some do and others are away, let another worker try, after a pause.

        A failure that says that no broker answered was an outage, even if they all answer by now.

        Raises:
            TransportError: `failure`: no broker is or was away, so that it has another cause; they have been away for
                too long; or the service is to stop.
        """
        assert self._outages is not None
        now = self._clock()
        if self._fails_since is None or self.views.metrics.commits > self._commits:
            self._fails_since = now  # since the last commit this is the first failure
        self._commits = self.views.metrics.commits
        brokers = self._outages.look()
        if brokers is Brokers.COMPLETE and not isinstance(failure, UnreachableError):
            raise failure
        log.error("%s", failure)
        if brokers is Brokers.COMPLETE:
            self._pause(failure)
        while brokers is Brokers.AWAY:
            away_s = self._pause(failure)
            self.views.metrics.brokers_away(away_s)
            log.warning("no broker answers for %.0f s; waiting", away_s)
            brokers = self._outages.look()
        self.views.metrics.brokers_away(0.0)
        if brokers is Brokers.SOME:
            self._pause(failure)
            log.warning("some brokers are away; a new worker tries to restore its state and to go on")
        else:
            log.warning("a broker answers again; a new worker restores its state and goes on from the last commit")

    def _pause(self, failure: TransportError) -> float:
        """Wait for a moment and return for how many seconds brokers have been away.

        Raises:
            TransportError: `failure`, after the longest wait or when the service is to stop.
        """
        assert self._outages is not None
        assert self._fails_since is not None
        away_s = self._clock() - self._fails_since
        self.views.health.beat()
        if away_s >= self._outages.longest_s or self._stopping.wait(_PAUSE_S):
            raise failure
        return away_s
