"""A rebalance listener that asks the thread that polls, instead of answering on the client's IO thread.

kafka-python runs its rebalance listener on its own IO thread, where no blocking call is allowed, so a worker could not
commit from `on_revoked`. Here the listener is a coroutine. It hands its question to the thread that called `poll` and
stays suspended until that thread has answered; heartbeats continue meanwhile.

Owns: the questions. Does not know: who answers them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from kafka import AsyncConsumerRebalanceListener, TopicPartition
from kafka.future import Future as KafkaFuture

Kind = Literal["assigned", "revoked", "lost"]


@dataclass(frozen=True, slots=True)
class Question:
    """A rebalance step that waits, on the IO thread, for the worker's answer."""

    kind: Kind
    partitions: tuple[int, ...]
    answered: KafkaFuture


class Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # the package has no type information
    """Turns the client's callbacks into questions and waits for the answers without blocking the IO thread."""

    def __init__(self, ask: Callable[[Question], None]) -> None:
        self._ask = ask

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Ask about partitions that were assigned."""
        await self._put("assigned", assigned)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Ask about partitions that were revoked."""
        await self._put("revoked", revoked)

    async def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """Ask about partitions that were lost."""
        await self._put("lost", lost)

    async def _put(self, kind: Kind, partitions: Iterable[TopicPartition]) -> None:
        question = Question(kind, tuple(sorted(p.partition for p in partitions)), KafkaFuture())
        self._ask(question)
        await question.answered
