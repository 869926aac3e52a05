"""Settings of the worker's loop."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rillcast.settings.section import Positive, Section


class WorkerSettings(Section):
    """The loop: how much at once, how often it commits, how it recovers."""

    max_poll_records: Annotated[int, Field(gt=0)] = 4_000
    """Most events taken by one poll."""
    batch_rows: Annotated[int, Field(gt=0)] = 1_000
    """Most streams stepped by one call of the model. From 256 on a CPU computes no faster, but longer calls wait for
    Python's interpreter less often. Powers of two from 512 on are slow: columns so far apart share lines of a cache."""
    step_thread_min_events: Annotated[int, Field(ge=0)] | None = None
    """Polls of at least so many events are stepped beside the loop, which meanwhile publishes the poll before and reads
    the next one; smaller ones are published at once. 0 = never beside; by default half of `max_poll_records`, for a
    poll that comes so full says that events wait, and never with kafka-python, whose own thread wants the interpreter
    all the time."""
    poll_timeout_s: Positive = 0.1
    """Longest wait for a first event; also how soon an idle worker notices that it should stop."""
    delivery: Literal["at_least_once", "exactly_once"] = "at_least_once"
    """`exactly_once` puts forecasts, dead letters, state and offsets into one Kafka transaction; readers have to read
    committed records only, and see a forecast after at most a commit interval."""
    commit_interval_s: Positive = 0.2
    """Forecasts are flushed and offsets committed this often."""
    flush_timeout_s: Positive = 30.0
    """Longest wait for the acknowledgement of what was published, before the worker gives up."""
    revoke_timeout_s: Positive = 30.0
    """Longest time that partitions which go to another member are flushed, committed and stored; then they are given up
    as they are, and their new owner reads again what was not committed. At most half of `kafka.max_poll_interval_s`."""
    recovery: Literal["restore", "rebuild", "cold"] = "restore"
    """How a partition's state comes back: `restore` loads its stored pages and steps the events since then again with
    the output suppressed; `rebuild` ignores stored pages and steps all retained events; `cold` starts every stream anew
    at the committed offset (its forecasts say `warming_up`)."""
