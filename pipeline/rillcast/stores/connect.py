"""Opens the state store that the settings name, and creates its topic.

Owns: the choice, and the errors for an impossible one. Does not know: how a store works.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final, Literal

from rillcast.bundle.bundle import BundleMetadata
from rillcast.engine import overdue, periods
from rillcast.engine.late import page_columns
from rillcast.engine.periods import Aggregation, value_of_empty
from rillcast.errors import SettingsError
from rillcast.settings import InputSettings, Settings
from rillcast.stores.base import StateStore
from rillcast.stores.format.pages import PageCodec
from rillcast.stores.kafka import KafkaStore
from rillcast.stores.local import LocalStore, folder_of
from rillcast.stores.state_topic import ensure_topic, grow
from rillcast.transports.base import Sink
from rillcast.transports.connect import open_partition_reader, open_topic_admin, partitions_of
from rillcast.transports.kafka.common.partition_reader import PartitionReader

Kind = Literal["kafka", "local", "none"]
_MOST_OPEN_PERIODS: Final = 64
_RECORD_OVERHEAD_BYTES: Final = 1_024  # key, record and batch headers
# A broker holds a fetch at the end of a partition this long before it reports the end; the default is 500 ms.
_FETCH_WAIT_MS: Final = 20


def kind_of(settings: Settings) -> Kind:
    """Return the kind of store that `state.store` names; `auto` is `kafka` where input and output are topics."""
    if settings.state.store != "auto":
        return settings.state.store
    return "kafka" if settings.input.path is None and settings.output.path is None else "none"


def prepare_store(settings: Settings, metadata: BundleMetadata) -> None:
    """Create the state topic if it is missing, and check that it and the settings can hold the bundle's pages.

    Call it before the sink is opened: the sink requires its topics. Does nothing for other stores.

    Raises:
        SettingsError: The topic or a setting has to be changed first; the error says which.
        TransportError: No broker answers, or the cluster refuses.
    """
    if kind_of(settings) != "kafka":
        return
    require_room(settings, metadata)
    partitions = 1 if settings.input.path is not None else partitions_of(settings.kafka, settings.input.topic)
    with closing(open_topic_admin(settings.kafka)) as admin:
        limit, needed = settings.kafka.max_message_bytes, page_bytes(settings, metadata)
        ensure_topic(admin, settings.state_topic, partitions, limit, needed)


def page_bytes(settings: Settings, metadata: BundleMetadata) -> int:
    """Return the size of the largest record of a bundle's pages."""
    return codec_of(settings, metadata).max_page_bytes(settings.input.max_id_bytes) + _RECORD_OVERHEAD_BYTES


def require_room(settings: Settings, metadata: BundleMetadata) -> None:
    """Check that the settings can hold a bundle's pages.

    Raises:
        SettingsError: A page may be larger than `kafka.max_message_bytes`.
    """
    if kind_of(settings) != "kafka":
        return
    limit = settings.kafka.max_message_bytes
    needed = page_bytes(settings, metadata)
    if needed > limit:
        smaller = "" if settings.state.rows == "float16" else ", or set state.rows=float16"
        raise SettingsError(
            f"a page of state may take {needed} bytes ({metadata.row_bytes} per stream, ids of up to "
            f"{settings.input.max_id_bytes}), but kafka.max_message_bytes is {limit}; raise it to at least {needed} "
            f"(and max.message.bytes of the topic {settings.state_topic}), lower input.max_id_bytes{smaller}"
        )


def open_store(settings: Settings, metadata: BundleMetadata, sink: Sink, route: str = "") -> StateStore | None:
    """Return the store that `state.store` names; None if it keeps no state.

    Args:
        settings: Settings of the service.
        metadata: Metadata of the bundle whose state it keeps.
        sink: The worker's sink; a Kafka store writes through it.
        route: Name of the table of models; empty for the only one.

    Raises:
        SettingsError: The client that was asked for is not installed.
        TransportError: The directory is in use or cannot be created.
    """
    kind = kind_of(settings)
    if kind == "none":
        return None
    codec = codec_of(settings, metadata)
    if kind == "local":
        return LocalStore(directory_of(settings, route), codec)
    return KafkaStore(
        settings.state_topic, codec, sink, reader_of(settings), require_partition=_Partitions(settings), route=route
    )


def directory_of(settings: Settings, route: str) -> Path:
    """Return the directory of the local store; each table of models has its own below it."""
    return folder_of(settings.state.path, route)


class _Partitions:
    """Makes sure that the state topic has a partition: the input may have grown since the start."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known = 0

    def __call__(self, partition: int) -> None:
        """Grow the topic if it lacks the partition.

        Raises:
            SettingsError: It cannot be grown; the message has the command.
            TransportError: No broker answers.
        """
        if partition < self._known:
            return
        topic = self._settings.state_topic
        with closing(open_topic_admin(self._settings.kafka)) as admin:
            self._known = admin.partitions(topic) or 0
            if partition >= self._known:
                wanted = max(partition + 1, admin.partitions(self._settings.input.topic) or 0)
                grow(admin, topic, wanted, self._known)
                self._known = wanted


def aggregation_of(given: InputSettings, metadata: BundleMetadata) -> Aggregation | None:
    """Return how raw events become observations of a model; None = every event is one.

    Raises:
        SettingsError: The model has covariates, or the grace is too long for its frequency.
    """
    if given.aggregate == "none":
        return None
    if metadata.covariates:
        raise SettingsError(
            f"input.aggregate is {given.aggregate!r}, but model {metadata.name} has covariates "
            f"({', '.join(each.name for each in metadata.covariates)}), which are not aggregated; aggregate in front "
            f"of Rillcast, or serve a model without covariates"
        )
    aggregation = Aggregation(
        given.aggregate,
        metadata.frequency,
        given.close,
        round(given.grace_s * 1000),
        0.0 if value_of_empty(given.aggregate, given.empty) == "zero" else math.nan,
        given.silent_after,
        given.allowed_lateness_periods,
    )
    if aggregation.open_periods > _MOST_OPEN_PERIODS:
        raise SettingsError(
            f"input.grace_s is {given.grace_s:g}, which keeps {aggregation.open_periods} periods of {metadata.freq} "
            f"open for each stream; the limit is {_MOST_OPEN_PERIODS}. Lower it, or serve a model of a longer period"
        )
    return aggregation


def watched_overdue(settings: Settings) -> int:
    """Return the fewest periods after which the silence of a stream is told; 0 = nobody is told."""
    told = (settings.alarms.topic, settings.alarms.path, settings.anomalies.topic, settings.anomalies.path)
    return settings.input.overdue_periods if any(each is not None for each in told) else 0


def codec_of(settings: Settings, metadata: BundleMetadata) -> PageCodec:
    """Return the codec of the bundle's pages, in the form that the settings name."""
    extra = (
        *page_columns(metadata, settings.input.allowed_lateness_periods),
        *periods.page_columns(aggregation_of(settings.input, metadata)),
        *overdue.page_columns(watched=watched_overdue(settings) > 0),
    )
    state = settings.state
    codec = PageCodec(metadata.model_id, metadata.states, state.rows, state.compression, extra)
    if kind_of(settings) == "kafka":  # a page is one record
        room = settings.kafka.max_message_bytes - _RECORD_OVERHEAD_BYTES
        codec.keep_within(room, settings.input.max_id_bytes)
    return codec


def reader_of(settings: Settings) -> Callable[[], PartitionReader]:
    """Return a function that connects a reader of the state topic."""
    return partial(open_partition_reader, settings.kafka, settings.state_topic, _FETCH_WAIT_MS)
