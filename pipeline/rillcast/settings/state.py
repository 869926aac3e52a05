"""Settings of the stored state."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from rillcast.settings.section import Positive, Section


class StateSettings(Section):
    """Where the streams' state is kept, so that it survives this process."""

    store: Literal["auto", "kafka", "local", "none"] = "auto"
    """`kafka` keeps it in the compacted topic `state.topic`, `local` in the directory `state.path`, `none` not at all:
    then a restart replays the whole input. `auto` is `kafka` where input and output are topics, else `none`."""
    topic: str | None = None
    """Compacted topic with as many partitions as the input, made if it is not there; by default
    `<kafka.group_id>-state`. Each group needs its own."""
    path: Path = Path("rillcast-state")
    """Directory of the local store."""
    snapshot_interval_s: Positive = 30.0
    """Changed pages are written at most this often, and on revoke and shutdown."""
    snapshot_events_per_stream: Annotated[float, Field(ge=0)] = 16.0
    """A partition whose stored streams would have had fewer events than this since they were last written, on average,
    waits: to replay so few is quicker than to write and load them. 0 = write at every interval."""
    snapshot_max_interval_s: Positive = 3600.0
    """It waits no longer than this, so that no restart replays more than so much of the input."""
    pages_per_commit: Annotated[int, Field(gt=0)] = 4
    """A commit writes at most so many pages of state (of 256 streams each), but for a partition's last one: the loop
    does nothing else meanwhile. With very many streams a snapshot takes many commits; raise it if that is too long."""
    idle_ttl_s: Annotated[float, Field(ge=0)] = 0.0
    """A stream whose newest event lies further behind its partition's newest event, in event time, is evicted; it
    starts anew when it comes back. 0 = never."""
    max_streams_per_partition: Annotated[int, Field(ge=0)] = 0
    """New streams beyond it become dead letters (reason `too_many_streams`); 0 = no limit."""
    max_new_streams_per_s: Annotated[int, Field(ge=0)] = 0
    """New streams of a partition beyond so many in one second of the records' timestamps become dead letters (reason
    `too_many_new_streams`) until the next second, so that a producer of ever new ids cannot fill the memory at once.
    0 = no limit."""
    superseded_ttl_s: Annotated[float, Field(ge=0)] = 604_800.0
    """The state of a model that serves a partition no more is kept for a [roll-back](rollout.md) for so long, by the
    wall clock since another took over, and then removed; 0 = for ever. It is of use while the input retains the
    events since then: Kafka's default is a week too."""
    rows: Literal["exact", "float16"] = "exact"
    """How float32 rows are stored; `float16` halves them and makes a restored state differ by its rounding."""
    compression: Literal["none", "zlib"] = "zlib"
    """Compression of stored pages."""
