"""Settings of the worker: how much it takes at once, how often it commits, how it recovers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rillcast.settings.section import Positive, Section


class WorkerSettings(Section):
    """The worker's loop."""

    max_poll_records: Annotated[int, Field(gt=0)] = 4_000
    """Limits the events of one poll."""
    batch_rows: Annotated[int, Field(gt=0)] = 1_000
    """Limits the streams that one call of the model steps. A CPU computes no faster from 256 on, but longer calls wait
    for Python's interpreter less often. Avoid powers of two from 512 on: their columns share cache lines."""
    step_thread_min_events: Annotated[int, Field(ge=0)] | None = None
    """Polls of at least this many events are stepped in a second thread, while the loop publishes the poll before and
    reads the next one. Smaller polls are published at once; 0 = no second thread. Default: half of
    `worker.max_poll_records`, because a full poll means that events wait; with kafka-python 0, because its own thread
    needs the interpreter."""
    poll_timeout_s: Positive = 0.1
    """Limits the wait for the first event of a poll, in seconds. An idle worker reacts to a stop within this time."""
    delivery: Literal["at_least_once", "exactly_once"] = "at_least_once"
    """Guarantee of delivery. `exactly_once` puts forecasts, dead letters, state and offsets into one Kafka transaction.
    Readers must then read committed records only, and see a forecast after at most a commit interval."""
    commit_interval_s: Positive = 0.2
    """Time between commits, in seconds: forecasts are flushed, then offsets are committed."""
    flush_timeout_s: Positive = 30.0
    """Limits the wait for the acknowledgement of published records, in seconds. After that the worker stops with an
    error."""
    revoke_timeout_s: Positive = 30.0
    """Limits the time to flush, commit and store partitions that move to another member, in seconds. After that they
    are released, and the new owner reads uncommitted events again. At most half of `kafka.max_poll_interval_s`."""
    recovery: Literal["restore", "rebuild", "cold"] = "restore"
    """How the state of a partition is recovered. `restore` loads stored pages and replays the events since then without
    output. `rebuild` ignores stored pages and replays all retained events. `cold` starts every stream without state at
    the committed offset (its forecasts say `warming_up`)."""
