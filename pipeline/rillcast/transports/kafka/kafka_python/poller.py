"""The client's `poll`, in a thread of its own, while the calling thread answers what rebalances ask.

Owns: the helper thread, its inbox, the call in flight and the questions not answered yet. Does not know: partitions,
positions or records.

kafka-python runs its rebalance listener on its IO thread and suspends it
(`rillcast.transports.kafka.kafka_python.rebalance`)
until the thread that polls has answered. That thread must not be stuck in `poll` then: so `poll` runs in a helper, one
call at a time, and whoever waits for it takes questions meanwhile. A call that outlives its caller's patience is not
lost: it stays in flight, and the next wait gets its result.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from kafka.structs import MemberState

from rillcast.transports.kafka.kafka_python.rebalance import Question

_INBOX_WAIT_S: Final = 1.0
_MOMENT_S: Final = 0.01
# A join that ends while the client is not polled is begun anew by the client's next poll, and makes every member of the
# group join again: members whose polls do not overlap kept each other from ever getting on.
_REBALANCE_POLL_S: Final = 1.0

Answer = Callable[[Question], None]


class Poller:
    """Polls one consumer. Used from one thread, except for `ask`."""

    def __init__(self) -> None:
        self._consumer: Any = None
        self._helper = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kafka-python-poll")
        self._inbox: queue.SimpleQueue[Question | Future[Any]] = queue.SimpleQueue()
        self._in_flight: Future[Any] | None = None
        self._unanswered: deque[Question] = deque()
        self._closing = False

    def attach(self, consumer: Any) -> None:
        """Name the consumer to poll, a `KafkaConsumer` whose listener asks with `ask`."""
        self._consumer = consumer

    @property
    def busy(self) -> bool:
        """Whether a call is in flight, whose records are of the time when it began."""
        return self._in_flight is not None

    def ask(self, question: Question) -> None:
        """Run on the IO thread. While closing nobody is there to answer, and the worker must not be asked."""
        if self._closing:
            question.answered.success(None)
        else:
            self._inbox.put(question)

    def release(self, question: Question) -> None:
        """Let the suspended listener go on."""

        async def resume() -> None:
            question.answered.success(None)

        # A future that is completed from another thread does not wake the client's loop; only this call does.
        self._consumer._net.call_soon_threadsafe(resume)

    def start(self, max_records: int, timeout_s: float, prepare: Callable[[], None]) -> Future[Any]:
        """Return the call in flight, or begin one after `prepare`, which may touch the consumer."""
        if self._in_flight is None:
            prepare()
            if self._consumer.group_metadata().state != MemberState.STABLE:
                timeout_s = max(timeout_s, _REBALANCE_POLL_S)
            call = self._consumer.poll
            self._in_flight = self._helper.submit(call, timeout_ms=timeout_s * 1_000, max_records=max_records)
            self._in_flight.add_done_callback(self._inbox.put)
        return self._in_flight

    def answer_waiting(self, answer: Answer) -> None:
        """Answer the questions that came during a commit."""
        while self._unanswered:
            answer(self._unanswered.popleft())

    def wait_for(self, fetch: Future[Any], answer: Answer, deadline: float | None = None) -> bool:
        """Answer questions until `fetch` has ended; return False if it outlives the deadline by more than a moment."""
        while True:
            patience_s = _INBOX_WAIT_S
            if deadline is not None:
                patience_s = min(patience_s, max(0.0, deadline - time.monotonic()) + _MOMENT_S)
            try:
                item = self._inbox.get(timeout=patience_s)
            except queue.Empty:
                if fetch.done():  # its notice was taken by a wait that Ctrl-C cut short
                    break
                if deadline is not None and time.monotonic() > deadline:
                    return False
                continue
            if isinstance(item, Question):
                answer(item)
            elif item is fetch:
                break
            # Else it is the late notice of an earlier fetch. To take it for this one's would be to wait for this one
            # without answering its questions, and it would wait for the answers.
        self._in_flight = None
        return True

    def advance_rebalance(self, fetch: Callable[[], Future[Any]], pause_s: float) -> Future[Any] | None:
        """Drive the client until a rebalance step asks something or the current fetch ends; answer nothing.

        The client commits only between rebalances and takes part in one only while it is polled. As soon as it
        asks, it has joined the new generation, in which a commit is valid again, also for what it has to give up.

        Returns:
            The fetch if it ended, so that its records are to be taken.
        """
        if self._unanswered:
            time.sleep(pause_s)
            return None
        current = fetch()
        while True:
            item = self._inbox.get()
            if isinstance(item, Question):
                self._unanswered.append(item)
                return None
            if item is current:  # see wait_for
                self._in_flight = None
                return current

    def close(self) -> None:
        """Release every question and end the thread; the consumer is the caller's to close."""
        self._closing = True
        while self._unanswered:
            self.release(self._unanswered.popleft())
        if self._in_flight is not None:
            self.wait_for(self._in_flight, self.release)
        self._helper.shutdown(wait=True)
