"""The client's `poll` in a thread of its own, while the calling thread answers the questions of rebalances.

Owns: the helper thread, its inbox, the call in flight and the unanswered questions. Does not know: partitions,
positions or records.

The rebalance listener is suspended until the thread that polls has answered (see `rebalance`). That thread must not be
stuck in `poll` then. So `poll` runs in a helper thread, one call at a time, and the thread that waits for it answers
questions meanwhile. A call that takes longer than its caller waits is not lost: it stays in flight, and the next wait
gets its result.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from kafka.structs import MemberState

from rillcast import threads
from rillcast.transports.kafka.kafka_python.rebalance import Question
from rillcast.transports.kafka.kafka_python.workarounds import REBALANCE_POLL_S, answer_from_another_thread

_INBOX_WAIT_S: Final = 1.0
_MOMENT_S: Final = 0.01

Answer = Callable[[Question], None]


class Poller:
    """Polls one consumer. Used from one thread, except for `ask`."""

    def __init__(self) -> None:
        self._consumer: Any = None
        self._helper = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kafka-python-poll")
        threads.require_room()
        self._helper.submit(int).result()  # so that it runs before memory is short
        self._inbox: queue.SimpleQueue[Question | Future[Any]] = queue.SimpleQueue()
        self._in_flight: Future[Any] | None = None
        self._unanswered: deque[Question] = deque()
        self._closing = False

    def attach(self, consumer: Any) -> None:
        """Name the consumer to poll, a `KafkaConsumer` whose listener asks with `ask`."""
        self._consumer = consumer

    @property
    def busy(self) -> bool:
        """Whether a call is in flight; its records are those of the moment when it began."""
        return self._in_flight is not None

    def ask(self, question: Question) -> None:
        """Take a question from the IO thread. While closing nobody answers, and the worker must not be asked."""
        if self._closing:
            question.answered.success(None)
        else:
            self._inbox.put(question)

    def release(self, question: Question) -> None:
        """Let the suspended listener continue."""
        answer_from_another_thread(self._consumer, question.answered)

    def start(self, max_records: int, timeout_s: float, prepare: Callable[[], None]) -> Future[Any]:
        """Return the call in flight, or begin one after `prepare`, which may touch the consumer."""
        if self._in_flight is None:
            prepare()
            if self._consumer.group_metadata().state != MemberState.STABLE:
                timeout_s = max(timeout_s, REBALANCE_POLL_S)
            call = self._consumer.poll
            self._in_flight = self._helper.submit(call, timeout_ms=timeout_s * 1_000, max_records=max_records)
            self._in_flight.add_done_callback(self._inbox.put)
        return self._in_flight

    def answer_waiting(self, answer: Answer) -> None:
        """Answer the questions that came during a commit."""
        while self._unanswered:
            answer(self._unanswered.popleft())

    def wait_for(self, fetch: Future[Any], answer: Answer, deadline: float | None = None) -> bool:
        """Answer questions until `fetch` has ended; return False if it has not ended 10 ms after the deadline."""
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
            # Otherwise it is the late notice of an earlier fetch. If it were taken for this one's, the next wait would
            # answer no questions of this fetch, and the fetch would wait for the answers.
        self._in_flight = None
        return True

    def advance_rebalance(self, fetch: Callable[[], Future[Any]], pause_s: float) -> Future[Any] | None:
        """Drive the client until a rebalance step asks something or the current fetch ends; answer nothing.

        The client commits only between rebalances and takes part in one only while it is polled. As soon as it asks, it
        has joined the new generation. A commit is valid again then, also for partitions that it has to give up.

        Returns:
            The fetch if it has ended; its records are to be taken.
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
