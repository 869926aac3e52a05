"""Chooses the state store that the settings name, and makes what it needs.

Owns: the choice, and the errors for one that cannot be made. Does not know: how a store works. A client library is
imported only when it is chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Final, Literal

from rillcast.bundle.bundle import BundleMetadata
from rillcast.engine.late import page_columns
from rillcast.errors import SettingsError
from rillcast.settings import Settings
from rillcast.stores.base import StateStore
from rillcast.stores.format.pages import PageCodec
from rillcast.stores.kafka import KafkaStore, TopicReader
from rillcast.stores.local import LocalStore
from rillcast.stores.state_topic import TopicAdmin, ensure_topic
from rillcast.transports.base import Sink
from rillcast.transports.connect import chosen_client
from rillcast.transports.kafka.common import failures

Kind = Literal["kafka", "local", "none"]
_RECORD_OVERHEAD_BYTES: Final = 1_024  # key, record and batch headers


def kind_of(settings: Settings) -> Kind:
    """Return the kind of store that `state.store` names; `auto` is `kafka` where input and output are topics."""
    if settings.state.store != "auto":
        return settings.state.store
    return "kafka" if settings.input.path is None and settings.output.path is None else "none"


def prepare_store(settings: Settings, metadata: BundleMetadata) -> None:
    """Make the state topic if it is missing, and check that it and the settings can hold the bundle's pages.

    To be called before the sink is opened, which asks for its topics to be there. Does nothing for other stores.

    Raises:
        SettingsError: the topic or a setting has to be changed first; the error says which.
        TransportError: no broker answers, or the cluster refuses.
    """
    if kind_of(settings) != "kafka":
        return
    require_room(settings, metadata)
    with closing(open_admin(settings)) as admin:
        partitions = _input_partitions(settings, admin)
        ensure_topic(admin, settings.state_topic, partitions, settings.kafka.max_message_bytes)


def require_room(settings: Settings, metadata: BundleMetadata) -> None:
    """Check that the settings can hold a bundle's pages.

    Raises:
        SettingsError: a page may be larger than a record may be.
    """
    if kind_of(settings) != "kafka":
        return
    limit = settings.kafka.max_message_bytes
    needed = codec_of(settings, metadata).max_page_bytes(settings.input.max_id_bytes) + _RECORD_OVERHEAD_BYTES
    if needed > limit:
        smaller = "" if settings.state.rows == "float16" else ", or set state.rows=float16"
        raise SettingsError(
            f"a page of state may take {needed} bytes ({metadata.row_bytes} a stream, and ids of up to "
            f"{settings.input.max_id_bytes}), but kafka.max_message_bytes is {limit}; raise it to at least {needed} "
            f"(and max.message.bytes of the topic {settings.state_topic}), lower input.max_id_bytes{smaller}"
        )


def open_store(settings: Settings, metadata: BundleMetadata, sink: Sink) -> StateStore | None:
    """Return the store that `state.store` names; None where state is not kept.

    Args:
        settings: of the service.
        metadata: of the bundle whose state it keeps.
        sink: of the worker; a Kafka store writes through it.

    Raises:
        SettingsError: the client that was asked for is not installed.
        TransportError: the directory is in use or cannot be made.
    """
    kind = kind_of(settings)
    if kind == "none":
        return None
    codec = codec_of(settings, metadata)
    if kind == "local":
        return LocalStore(settings.state.path, codec)
    return KafkaStore(settings.state_topic, codec, sink, reader_of(settings))


def codec_of(settings: Settings, metadata: BundleMetadata) -> PageCodec:
    """Return the codec of the bundle's pages, in the form that the settings ask for."""
    beside = page_columns(metadata, settings.input.allowed_lateness_periods)
    return PageCodec(metadata.model_id, metadata.states, settings.state.rows, settings.state.compression, beside)


def reader_of(settings: Settings) -> Callable[[], TopicReader]:
    """Return what connects a reader of the state topic with the chosen client."""
    if chosen_client(settings.kafka) == "librdkafka":
        from rillcast.stores.librdkafka import LibrdkafkaTopicReader

        return lambda: LibrdkafkaTopicReader(settings.kafka, settings.state_topic)
    from rillcast.stores.kafka_python import KafkaPythonTopicReader

    return lambda: KafkaPythonTopicReader(settings.kafka, settings.state_topic)


def open_admin(settings: Settings) -> TopicAdmin:
    """Return the admin client of the chosen client library."""
    if chosen_client(settings.kafka) == "librdkafka":
        from rillcast.stores.librdkafka import LibrdkafkaTopicAdmin

        return LibrdkafkaTopicAdmin(settings.kafka)
    from rillcast.stores.kafka_python import KafkaPythonTopicAdmin

    return KafkaPythonTopicAdmin(settings.kafka)


def _input_partitions(settings: Settings, admin: TopicAdmin) -> int:
    if settings.input.path is not None:
        return 1
    partitions = admin.partitions(settings.input.topic)
    if partitions is None:
        raise failures.missing_topics(settings.kafka.bootstrap_servers, [settings.input.topic])
    return partitions
