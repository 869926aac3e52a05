"""What a transport is: a source of events and a sink for forecasts and dead letters.

The contract that every transport keeps, in the order in which the worker calls it:

Source
  1. `open(listener)` once. Partitions may arrive from then on, but only while `poll` runs.
  2. `poll(max_records, timeout_s)` returns what is there, in offset order within each partition, and waits at
     most `timeout_s` for a first record. It never waits to fill a batch. During `poll`, and only then, the
     listener is told of partitions that come, go or are lost; an error that the listener raises comes out of
     `poll`. Of a partition that the listener answered with None, nothing is handed out until `resume_from`.
  3. `commit(positions)` is synchronous: when it returns, the positions are durable. A position is the offset of
     the next record to read, so the last processed offset plus one. (The classic off-by-one.)
  4. `pause(partitions)` stops handing out their records; `resume_from(partition, position)` begins again, at any
     position. Records that a client had fetched of a paused partition are not handed out.
  5. `close()` leaves without committing. It may be called twice.

Sink
  1. `publish` hands records over and may return before they are durable; records of one key keep their order.
  2. `flush(timeout_s)` returns when every record handed over so far is durable, or raises `DeliveryError`; the
     caller must then not commit.
  3. `close()` does not wait for what was not flushed. It may be called twice.

TransactionalSink (a Sink whose records become visible to read_committed readers together, or never)
  1. `publish` opens a transaction when none is open.
  2. `commit(positions, group)` puts the positions into the transaction, with the group's live metadata (KIP-447), and
     ends it: when it returns, records and positions are durable together, and are seen together as soon as the brokers
     have written the transaction's markers. With no open transaction and no positions it does nothing.
  3. If it raises `TransactionAborted`, the sink is ready for the next transaction and its caller goes back to the
     committed positions. Either nothing of the transaction is visible, or its end was ambiguous (time-out,
     disconnect): then the sink has dropped the producer and initialised another under the same transactional id,
     which fences the old one and settles its transaction one way or the other, and the committed positions tell which.
  4. A member that another one has replaced gets `FencedError` and must end.

A transport knows nothing of models, state or metrics. It is used from one thread.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np

from rillcast.arrays import IntArray

Headers: TypeAlias = Sequence[tuple[str, bytes]]


def no_headers(_index: int) -> Headers:
    """Headers of a transport that has none."""
    return ()


@dataclass(frozen=True, slots=True)
class Polled:
    """Raw records as columns; row `i` of each belongs to one record.

    Attributes:
        partitions: `(n,)` int64.
        offsets: `(n,)` int64; increasing within a partition.
        timestamps_ms: `(n,)` int64, when the record was appended or created, milliseconds since the epoch;
            -1 = unknown.
        keys: raw keys, None where there is none.
        values: raw values, None for a tombstone.
        headers: the headers of record `i`; a function because only dead letters ask for them.
    """

    partitions: IntArray
    offsets: IntArray
    timestamps_ms: IntArray
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Callable[[int], Headers] = no_headers

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: IntArray) -> Polled:
        """Return some of the records, in the order of `rows`."""
        chosen = rows.tolist()
        return Polled(
            self.partitions[rows],
            self.offsets[rows],
            self.timestamps_ms[rows],
            [self.keys[row] for row in chosen],
            [self.values[row] for row in chosen],
            lambda index: self.headers(chosen[index]),
        )

    @classmethod
    def empty(cls) -> Polled:
        """Nothing arrived."""
        none: IntArray = np.empty(0, dtype=np.int64)
        return cls(none, none, none, (), ())


@dataclass(frozen=True, slots=True)
class Records:
    """What is published, as columns; row `i` of each belongs to one record.

    Attributes:
        keys: keys, None where a record has none.
        values: values, None for a tombstone.
        headers: the headers of each record; None = no record has any.
    """

    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Headers] | None = None

    def __len__(self) -> int:
        return len(self.values)


class Assignment(NamedTuple):
    """A partition that this member now owns.

    Attributes:
        partition: its number.
        committed: the group's committed position; None if it never committed here.
        beginning: the earliest offset that the source still has.
        end: the position after the last record at the time of the assignment.
    """

    partition: int
    committed: int | None
    beginning: int
    end: int


class AssignmentListener(Protocol):
    """Who is told when partitions come and go."""

    def on_assigned(self, assignments: Sequence[Assignment]) -> Mapping[int, int | None]:
        """Return the position from which to read each of the new partitions; None = not before `Source.resume_from`.

        An empty list says that this member has joined and that nothing came to it.
        """
        ...

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """Partitions are about to go and are still owned: flush and commit them now."""
        ...

    def on_lost(self, partitions: Sequence[int]) -> None:
        """Partitions are gone, perhaps owned by another already: drop them, do not commit."""
        ...


class Source(Protocol):
    """Where events come from. See the module's docstring for the contract."""

    @property
    def name(self) -> str:
        """Topic or path, for messages."""
        ...

    @property
    def exhausted(self) -> bool:
        """Whether the source has ended for good (a file read to its end). A topic never is."""
        ...

    def open(self, listener: AssignmentListener) -> None:
        """Start consuming; partitions are announced to `listener` during `poll`."""
        ...

    def poll(self, max_records: int, timeout_s: float) -> Polled:
        """Return at most `max_records` records, waiting at most `timeout_s` for the first."""
        ...

    def pause(self, partitions: Sequence[int]) -> None:
        """Hand out nothing of these owned partitions until `resume_from`."""
        ...

    def resume_from(self, partition: int, position: int) -> None:
        """Hand out an owned partition's records from `position` on; a partition that is no longer owned is ignored."""
        ...

    def assignments(self) -> Sequence[Assignment]:
        """Ask anew for committed position, beginning and end of every owned partition.

        Raises:
            TransportError: the broker does not answer.
        """
        ...

    def group(self) -> object:
        """Return this member's live group metadata, in the form that the sink of the same client takes."""
        ...

    def commit(self, positions: Mapping[int, int], timeout_s: float | None = None) -> None:
        """Make `positions` (partition to next offset) durable.

        Args:
            positions: of owned partitions.
            timeout_s: longest wait; None = as long as a rebalance may take.

        Raises:
            TransportError: they are not; the member may have been fenced or the broker is away.
        """
        ...

    def positions(self) -> Mapping[int, int]:
        """Return the offset that each owned partition is read from next, past gaps in the offsets."""
        ...

    def lag(self) -> Mapping[int, int]:
        """Return the records between position and end, by owned partition, as last heard from the broker."""
        ...

    def close(self) -> None:
        """Leave without committing."""
        ...


class Channel(enum.Enum):
    """Where a published record goes; the settings map it to a topic or a file."""

    FORECASTS = "forecasts"
    DEAD_LETTERS = "dead_letters"
    ANOMALIES = "anomalies"
    STATE = "state"


def required_topics(topics: Mapping[Channel, str]) -> list[str]:
    """Return the topics that have to exist when a sink is made; the state store sees to its own."""
    return [topic for channel, topic in topics.items() if channel is not Channel.STATE]


class Sink(Protocol):
    """Where results go. See the module's docstring for the contract."""

    def publish(self, channel: Channel, records: Records, partition: int | None = None) -> None:
        """Hand over `records`; to `partition` of the channel's topic, or else by the key.

        Raises:
            TransportError: the sink is broken; nothing may be committed any more.
        """
        ...

    def flush(self, timeout_s: float) -> None:
        """Wait until everything handed over is durable.

        Raises:
            DeliveryError: at least one record is not.
        """
        ...

    def close(self) -> None:
        """Release resources."""
        ...


@runtime_checkable
class TransactionalSink(Sink, Protocol):
    """A sink with transactions. See the module's docstring for the contract."""

    def commit(self, positions: Mapping[int, int], group: object, timeout_s: float | None = None) -> None:
        """End the transaction with `positions` (partition to next offset) of the group in it.

        Args:
            positions: of the source's topic.
            group: what `Source.group` of the same client returned, just now.
            timeout_s: longest wait, but for letting go of a client that hangs; None = as long as a transaction may
                last, and what it takes to settle one that failed.

        Raises:
            TransactionAborted: nothing of the transaction is visible; go back to the committed positions.
            FencedError: another member has taken over; end.
            TransportError: the brokers are away for good.
        """
        ...

    def abort(self) -> None:
        """Drop what was published since the last commit; with no open transaction, do nothing."""
        ...
