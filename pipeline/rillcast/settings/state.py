"""Settings of the stored state."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from rillcast.settings.section import FilePath, Positive, Section


class StateSettings(Section):
    """The state of the streams outside of the process, and its limits."""

    store: Literal["auto", "kafka", "local", "none"] = "auto"
    """Place of the stored state: `kafka` = the compacted topic `state.topic`, `local` = the directory `state.path`,
    `none` = nowhere, so that a restart replays the whole input. `auto` is `kafka` where input and output are topics,
    else `none`."""
    topic: str | None = None
    """Compacted topic of the state, with as many partitions as the input; it is created if absent. Default:
    `<kafka.group_id>-state`. Each group needs its own."""
    path: FilePath = Path("rillcast-state")
    """Directory of the local store."""
    snapshot_interval_s: Positive = 30.0
    """Minimum time between snapshots of changed pages, in seconds. Revocation and shutdown write them too."""
    snapshot_events_per_stream: Annotated[float, Field(ge=0)] = 16.0
    """Delays the snapshot of a partition until its stored streams have had this many events on average; 0 = no delay.
    A replay of fewer events is quicker than writing and loading them."""
    snapshot_max_interval_s: Positive = 3600.0
    """Limits that delay, in seconds, and so the part of the input that a restart replays."""
    pages_per_commit: Annotated[int, Field(gt=0)] = 4
    """Limits the pages of state (256 streams each) that one commit writes; the last commit of a partition writes all.
    The loop waits meanwhile. Raise it if a snapshot of very many streams takes too many commits."""
    idle_ttl_s: Annotated[float, Field(ge=0)] = 0.0
    """Evicts a stream this long after its newest event, in seconds of event time of its partition; 0 = never. An
    evicted stream that comes back starts without state."""
    max_streams_per_partition: Annotated[int, Field(ge=0)] = 0
    """Limits the streams of a partition; 0 = no limit. Events of further streams become dead letters (reason
    `too_many_streams`)."""
    max_new_streams_per_s: Annotated[int, Field(ge=0)] = 0
    """Limits the new streams of a partition per second of the records' timestamps; 0 = no limit. Events of further
    streams become dead letters (reason `too_many_new_streams`) until the next second. Set it if a faulty producer could
    fill the memory with new ids."""
    initial_streams: Annotated[int, Field(ge=0)] = 0
    """Streams of a member for which a GPU has memory from the start. Beyond them the memory doubles: the state is
    copied through the host, and CUDA graphs are captured again. The CPU ignores it."""
    superseded_ttl_s: Annotated[float, Field(ge=0)] = 604_800.0
    """Keeps the state of a superseded model for a [roll-back](rollout.md), in seconds of wall-clock time; 0 = for ever.
    It helps only while the input retains the events since then; Kafka's default is a week too."""
    rows: Literal["exact", "float16"] = "exact"
    """Precision of stored float32 rows. `float16` halves their size, and a restored state differs by its rounding."""
    compression: Literal["none", "zlib"] = "zlib"
    """Compression of stored pages."""
