"""The contract of a transport: a source of events and a sink for forecasts and dead letters.

Every transport keeps this contract; the order is that of the worker's calls.

Source
  1. `open(listener)` is called once. From then on partitions may arrive, but only while `poll` runs.
  2. `poll(max_records, timeout_s)` returns the records that are there, in offset order within each partition, and waits
     at most `timeout_s` for a first record. It never waits to fill a batch. During `poll`, and only then, the listener
     hears of partitions that are assigned, revoked or lost; `poll` raises the errors of the listener. A partition that
     the listener answered with None hands out nothing until `resume_from`.
  3. `commit(positions)` is synchronous: when it returns, the positions are durable. A position is the offset of the
     next record to read, so the last processed offset plus one. (The classic off-by-one.)
  4. `pause(partitions)` stops handing out their records; `resume_from(partition, position)` begins again, at any
     position. Records that a client had fetched of a paused partition are not handed out.
  5. `close()` leaves without committing. It may be called twice.

Sink
  1. `publish` hands records over and may return before they are durable; records of one key keep their order.
  2. `flush(timeout_s)` returns when every record handed over so far is durable. Otherwise it raises `DeliveryError`:
     the caller must not commit.
  3. `close()` does not wait for records that were not flushed. It may be called twice.
  4. `largest_record(channel)` returns the bytes of the largest record that the channel takes, as `record_bytes` counts
     them; None = there is no limit. A larger one that is published nevertheless fails like any record that is lost.

ReplacingSink (a Sink whose results replace those of an earlier run)
  1. `finish` is called once, after the last `flush` of a run that ends well, and before `close`. The earlier results
     of the channels that it does not name stay; without the call, all of them.

TransactionalSink (a Sink whose records become visible to read_committed readers together, or never)
  1. `publish` opens a transaction when none is open.
  2. `commit(positions, group)` puts the positions into the transaction, with the group's live metadata (KIP-447), and
     ends it. When it returns, records and positions are durable together, and become visible together as soon as the
     brokers have written the transaction's markers. With no open transaction and no positions it does nothing.
  3. If it raises `TransactionAborted`, the sink is ready for the next transaction, and its caller resets to the
     committed positions. Either nothing of the transaction is visible, or its end was ambiguous (time-out, disconnect).
     In that case the sink has dropped the producer and initialised another under the same transactional id. That fences
     the old producer and ends its transaction one way or the other; the committed positions tell which.
  4. A member that another one has replaced gets `FencedError` and must end.

A transport knows nothing of models, state or metrics. It is used from one thread.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np

from rillcast.arrays import IntArray
from rillcast.reading.refusals import RefusedValueError

T = TypeVar("T")
Headers: TypeAlias = Sequence[tuple[str, bytes | None]]
"""Names and values in their order; a value may be null, which is not the same as empty."""


def no_headers(_index: int) -> Headers:
    """Headers of a transport that has none."""
    return ()


_BATCH_BYTES: Final = 61
_RECORD_BYTES: Final = 21  # its length, attributes, deltas of time and offset, count of headers; at most
_FIELD_BYTES: Final = 5  # the length of a key, a value, or a header's name or value; at most


def no_place(_index: int) -> str:
    """Place of a record of a transport whose offsets say it all."""
    return ""


NO_FAULTS: Final[Mapping[int, RefusedValueError]] = {}


@dataclass(frozen=True, slots=True)
class Polled:
    """Raw records as columns; row `i` of every column belongs to one record.

    Attributes:
        partitions: `(n,)` int64.
        offsets: `(n,)` int64; increasing within a partition.
        timestamps_ms: `(n,)` int64; time at which the record was appended or created, in milliseconds since the epoch;
            -1 = unknown.
        keys: Raw keys, None for a record without one.
        values: Raw values, None for a tombstone.
        headers: Returns the headers of record `i`; a function because only dead letters and traces need them.
        place: Returns where record `i` stands in a file (`row 6 (line 7)`), or an empty text.
        faults: By record, why a file's reader could not read it. Such a record is a dead letter.
        left_out: Rows of a table that the settings leave out, which are no records.
    """

    partitions: IntArray
    offsets: IntArray
    timestamps_ms: IntArray
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Callable[[int], Headers] = no_headers
    place: Callable[[int], str] = no_place
    faults: Mapping[int, RefusedValueError] = field(default_factory=lambda: NO_FAULTS)
    left_out: int = 0

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
            lambda index: self.place(chosen[index]),
            {at: self.faults[row] for at, row in enumerate(chosen) if row in self.faults} if self.faults else NO_FAULTS,
        )

    @classmethod
    def nothing_at(cls, partition: int, offset: int) -> Polled:
        """Return a record without key, value and timestamp, for what happens after a record without any record."""
        at = np.array([partition], np.int64)
        return cls(at, np.array([offset], np.int64), np.array([-1], np.int64), [None], [None])

    @classmethod
    def empty(cls) -> Polled:
        """Return a poll without records."""
        none: IntArray = np.empty(0, dtype=np.int64)
        return cls(none, none, none, (), ())


@dataclass(frozen=True, slots=True)
class Records:
    """Records to publish, as columns; row `i` of every column belongs to one record.

    Attributes:
        keys: Keys, None for a record without one.
        values: Values, None for a tombstone.
        headers: Headers of each record; None = no record has any.
        timestamps_ms: Timestamp of each record in milliseconds since the epoch, -1 = the time at which it is written;
            None = that time for all. A topic with `message.timestamp.type=LogAppendTime` replaces it.
        sources: `(n,)` int64, the partition of the source that each record comes from: a sink may write those of
            different ones side by side. The records of a key come from one. None = all are written one by one.
    """

    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Headers] | None = None
    timestamps_ms: Sequence[int] | None = None
    sources: IntArray | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def most_bytes(self) -> int:
        """An upper bound of the bytes of each record, quick to say; see `record_bytes`."""
        most_headers = max((record_bytes(None, None, each) for each in self.headers or ()), default=0)
        return record_bytes(None, None) + _longest(self.keys) + _longest(self.values) + most_headers

    def within(self, limit: int) -> tuple[Records, dict[int, int]]:
        """Return the records that take at most `limit` bytes, and the bytes of the others by their row."""
        if self.most_bytes <= limit:
            return self, {}
        headers = self.headers if self.headers is not None else [()] * len(self)
        rows = enumerate(zip(self.keys, self.values, headers, strict=True))
        too_large = {row: size for row, record in rows if (size := record_bytes(*record)) > limit}
        if not too_large:
            return self, too_large
        return self.take([row for row in range(len(self)) if row not in too_large]), too_large

    def take(self, rows: Sequence[int] | IntArray | slice) -> Records:
        """Return some of the records, in the order of `rows`."""
        sources = None if self.sources is None else self.sources[rows]
        return Records(
            _some(self.keys, rows),
            _some(self.values, rows),
            None if self.headers is None else _some(self.headers, rows),
            None if self.timestamps_ms is None else _some(self.timestamps_ms, rows),
            sources,
        )


def _some(column: Sequence[T], rows: Sequence[int] | IntArray | slice) -> Sequence[T]:
    return column[rows] if isinstance(rows, slice) else [column[row] for row in rows]


def record_bytes(key: bytes | None, value: bytes | None, headers: Headers = ()) -> int:
    """Return the most bytes that a record takes in a topic: alone in its batch, and without compression.

    So a topic takes what its limit allows, however the record compresses. Source of the layout: the Kafka protocol
    guide, "Record Batch" (magic 2).
    """
    size = _BATCH_BYTES + _RECORD_BYTES + 2 * _FIELD_BYTES + len(key or b"") + len(value or b"")
    for name, data in headers:
        size += 2 * _FIELD_BYTES + len(name.encode()) + len(data or b"")
    return size


def _longest(column: Sequence[bytes | None]) -> int:
    if None in column:
        return max(len(each or b"") for each in column)
    return max(map(len, column), default=0)  # type: ignore[arg-type]  # none is null


class Assignment(NamedTuple):
    """A partition that this member now owns.

    Attributes:
        partition: Number of the partition.
        committed: The group's committed position; None if it never committed here.
        beginning: Earliest offset that the source still has.
        end: Position after the last record at the time of the assignment.
        added: Whether the topic did not have the partition yet when the source was opened.
    """

    partition: int
    committed: int | None
    beginning: int
    end: int
    added: bool = False


class AssignmentListener(Protocol):
    """Hears of partitions that are assigned, revoked or lost."""

    def on_assigned(self, assignments: Sequence[Assignment]) -> Mapping[int, int | None]:
        """Return the position from which to read each of the new partitions; None = not before `Source.resume_from`.

        An empty list says that this member has joined the group and got no partition.
        """
        ...

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """Flush and commit partitions that are about to be revoked and are still owned."""
        ...

    def on_lost(self, partitions: Sequence[int]) -> None:
        """Drop partitions that another member may own already; do not commit them."""
        ...


class Source(Protocol):
    """Returns events. See the module's docstring for the contract."""

    @property
    def name(self) -> str:
        """Name of the topic or path of the file, for messages."""
        ...

    @property
    def exhausted(self) -> bool:
        """Whether the source has ended for good (a file read to its end); a topic never ends."""
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
        """Hand out an owned partition's records from `position` on; other partitions are ignored."""
        ...

    def assignments(self) -> Sequence[Assignment]:
        """Ask again for committed position, beginning and end of every owned partition.

        Raises:
            TransportError: The broker does not answer.
        """
        ...

    def group(self) -> object:
        """Return this member's live group metadata, in the form that the sink of the same client accepts."""
        ...

    def commit(self, positions: Mapping[int, int], timeout_s: float | None = None) -> None:
        """Make `positions` (partition to next offset) durable.

        Args:
            positions: Positions of owned partitions.
            timeout_s: Longest wait in seconds; None = as long as a rebalance may take.

        Raises:
            TransportError: They are not durable; the member was fenced, or the broker is away.
        """
        ...

    def positions(self) -> Mapping[int, int]:
        """Return the offset that each owned partition is read from next, past gaps in the offsets."""
        ...

    def lag(self) -> Mapping[int, int]:
        """Return the records between position and end by owned partition, as of the last answer of the broker."""
        ...

    def close(self) -> None:
        """Leave without committing."""
        ...


class Channel(enum.Enum):
    """The destination of a published record; the settings map it to a topic or a file."""

    FORECASTS = "forecasts"
    DEAD_LETTERS = "dead_letters"
    ANOMALIES = "anomalies"
    ALARMS = "alarms"
    STATE = "state"


def required_topics(topics: Mapping[Channel, str]) -> list[str]:
    """Return the topics that have to exist when a sink is made; the state store creates its own."""
    return [topic for channel, topic in topics.items() if channel is not Channel.STATE]


class Sink(Protocol):
    """Takes results. See the module's docstring for the contract."""

    def publish(self, channel: Channel, records: Records, partition: int | None = None) -> None:
        """Hand over `records`, to `partition` of the channel's topic or, if that is None, by their keys.

        Raises:
            TransportError: The sink is broken; nothing may be committed any more.
        """
        ...

    def largest_record(self, channel: Channel) -> int | None:
        """Return the bytes of the largest record that the channel takes; None = there is no limit."""
        ...

    def flush(self, timeout_s: float) -> None:
        """Wait until everything handed over is durable.

        Raises:
            DeliveryError: At least one record is not.
        """
        ...

    def close(self) -> None:
        """Release resources."""
        ...


@runtime_checkable
class ReplacingSink(Sink, Protocol):
    """A sink whose results replace those of an earlier run, if this one ends well."""

    def finish(self, channels: Iterable[Channel]) -> None:
        """Let the results of these channels replace the earlier ones.

        Raises:
            TransportError: They could not; the earlier ones are unchanged.
        """
        ...


@runtime_checkable
class TransactionalSink(Sink, Protocol):
    """A sink with transactions. See the module's docstring for the contract."""

    def commit(self, positions: Mapping[int, int], group: object, timeout_s: float | None = None) -> None:
        """End the transaction with `positions` (partition to next offset) of the group in it.

        Args:
            positions: Positions in the source's topic.
            group: The current result of `Source.group` of the same client.
            timeout_s: Longest wait in seconds, apart from leaving a client behind that hangs; None = as long as a
                transaction may last, and the time to end one that failed.

        Raises:
            TransactionAborted: Nothing of the transaction is visible; reset to the committed positions.
            FencedError: Another member has taken over; end.
            TransportError: The brokers do not answer any more.
        """
        ...

    def abort(self) -> None:
        """Drop the records published since the last commit; without an open transaction, do nothing."""
        ...
