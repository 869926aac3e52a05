"""Chooses the transport and the Kafka client that the settings name.

Owns: the choice, and the errors for one that cannot be made. Does not know: how a transport works. A client
library is imported only when it is chosen.
"""

from __future__ import annotations

import importlib.util
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

from rillcast.bundle.covariates import Covariate
from rillcast.errors import SettingsError
from rillcast.settings import KafkaSettings, Settings
from rillcast.transports.base import Channel, Sink, Source, TransactionalSink
from rillcast.transports.kafka.common.groups import GroupView
from rillcast.transports.kafka.common.partition_reader import PartitionReader

log = logging.getLogger(__name__)

_Client = Literal["librdkafka", "kafka-python"]


def open_source(settings: Settings, covariates: Sequence[Covariate] = ()) -> Source:
    """Return the source that `input.path`, or else `input.topic` and `kafka.client`, name, not yet joined to its group.

    Raises:
        SettingsError: the client that was asked for is not installed.
    """
    if settings.input.path is not None:
        from rillcast.transports.file.columns import FileColumns
        from rillcast.transports.file.transport import FileSource

        given = settings.input
        columns = FileColumns.of(given.fields, covariates) if given.is_table else None
        return FileSource(settings.input.path, given.format, given.rate, columns)
    if chosen_client(settings.kafka) == "librdkafka":
        from rillcast.transports.kafka.librdkafka import LibrdkafkaSource

        return LibrdkafkaSource(settings.kafka, settings.input.topic)
    from rillcast.transports.kafka.kafka_python import KafkaPythonSource

    return KafkaPythonSource(settings.kafka, settings.input.topic)


def open_history(settings: Settings) -> PartitionReader:
    """Return a second reader of `input.topic`, outside of the group.

    Raises:
        SettingsError: the client that was asked for is not installed.
        TransportError: no broker answers, or the topic does not exist.
    """
    if chosen_client(settings.kafka) == "librdkafka":
        from rillcast.transports.kafka.librdkafka.partition_reader import LibrdkafkaPartitionReader

        return LibrdkafkaPartitionReader(settings.kafka, settings.input.topic)
    from rillcast.transports.kafka.kafka_python.partition_reader import KafkaPythonPartitionReader

    return KafkaPythonPartitionReader(settings.kafka, settings.input.topic)


def open_sink(settings: Settings) -> Sink:
    """Return the sink that `output.path`, or else `output.topic` and `kafka.client`, name, connected.

    It is a `TransactionalSink` if `worker.delivery` is `exactly_once`.

    Raises:
        SettingsError: the client that was asked for is not installed, a file cannot be written, or a file was asked
            for what only topics can do.
        TransportError: no broker answers, or a topic does not exist.
    """
    _require_topics_for(settings)
    if settings.output.path is not None:
        from rillcast.transports.file.transport import FileSink

        resumes = settings.input.path is None
        if resumes and settings.output.path.lower().endswith(".parquet"):
            raise SettingsError(
                f"output.path {settings.output.path}: Parquet is written once, when a run ends, but a run over a topic "
                f"goes on where the last one stopped; use .jsonl"
            )
        paths = {Channel.FORECASTS: settings.output.path, Channel.DEAD_LETTERS: settings.dead_letters.path}
        if settings.anomalies.path is not None:
            paths[Channel.ANOMALIES] = settings.anomalies.path
        return FileSink(paths, append=resumes)
    topics = {Channel.FORECASTS: settings.output.topic, Channel.DEAD_LETTERS: settings.dead_letters.topic}
    if settings.anomalies.topic is not None:
        topics[Channel.ANOMALIES] = settings.anomalies.topic
    if settings.state.store == "kafka" or (settings.state.store == "auto" and settings.input.path is None):
        topics[Channel.STATE] = settings.state_topic
    if settings.worker.delivery == "exactly_once":
        return open_transactional_sink(settings.kafka, topics, settings.input.topic)
    if chosen_client(settings.kafka) == "librdkafka":
        from rillcast.transports.kafka.librdkafka import LibrdkafkaSink

        return LibrdkafkaSink(settings.kafka, topics)
    from rillcast.transports.kafka.kafka_python import KafkaPythonSink

    return KafkaPythonSink(settings.kafka, topics)


def open_transactional_sink(
    settings: KafkaSettings, topics: Mapping[Channel, str], source_topic: str
) -> TransactionalSink:
    """Return a sink whose transactions include positions of `source_topic`, initialised.

    Raises:
        SettingsError: the client that was asked for is not installed.
        TransportError: no broker answers, or a topic does not exist.
    """
    from rillcast.transports.kafka.common.transactions import KafkaTransactionalSink, TransactionalProducer

    name = transactional_id(settings)
    make: Callable[[], TransactionalProducer]
    if chosen_client(settings) == "librdkafka":
        from rillcast.transports.kafka.librdkafka import LibrdkafkaTransactions

        make = partial(LibrdkafkaTransactions, settings, topics, source_topic, name)
    else:
        from rillcast.transports.kafka.kafka_python import KafkaPythonTransactions

        make = partial(KafkaPythonTransactions, settings, topics, source_topic, name)
    return KafkaTransactionalSink(settings, name, make)


def open_group(settings: Settings) -> GroupView:
    """Return a view of the settings' group from outside.

    Raises:
        SettingsError: the client that was asked for is not installed.
        TransportError: no broker answers.
    """
    if chosen_client(settings.kafka) == "librdkafka":
        from rillcast.transports.kafka.librdkafka.group import LibrdkafkaGroup

        return LibrdkafkaGroup(settings.kafka, settings.input.topic)
    from rillcast.transports.kafka.kafka_python.group import KafkaPythonGroup

    return KafkaPythonGroup(settings.kafka, settings.input.topic)


def transactional_id(settings: KafkaSettings) -> str:
    """Return the name under which this member's transactions survive its restart, or a random one if it has no name.

    With a random one nothing is doubled either, for the group fences the positions of a member that lost its
    partitions; but what a crash leaves open is only ended by its time-out.
    """
    if settings.transactional_id is not None:
        return settings.transactional_id
    return f"{settings.group_id}-{settings.group_instance_id or uuid.uuid4()}"


def _require_topics_for(settings: Settings) -> None:
    """Refuse settings that ask for a file where only a topic can do."""
    paths = {"input.path": settings.input.path, "output.path": settings.output.path}
    files = " and ".join(f"{name} {path}" for name, path in paths.items() if path is not None)
    if settings.worker.delivery == "exactly_once" and files:
        raise SettingsError(
            f"worker.delivery is 'exactly_once', a Kafka transaction from topic to topic, but a file is asked for "
            f"({files}); use topics on both sides, or worker.delivery = 'at_least_once'"
        )
    if settings.state.store == "kafka" and settings.output.path is not None:
        raise SettingsError(
            f"state.store is 'kafka', which is written by the sink of the forecasts, but output.path "
            f"{settings.output.path} is a file; use state.store = 'local'"
        )


def chosen_client(settings: KafkaSettings) -> _Client:
    """Return the client library that `kafka.client` names; `auto` takes librdkafka where it is installed.

    Raises:
        SettingsError: it is not installed.
    """
    installed = importlib.util.find_spec("confluent_kafka") is not None
    if settings.client == "librdkafka" and not installed:
        raise SettingsError(
            "kafka.client is 'librdkafka', but confluent-kafka is not installed; install the extra "
            "rillcast[librdkafka], or set kafka.client to 'kafka-python' (about ten times slower)"
        )
    if settings.client != "auto":
        return settings.client
    chosen: _Client = "librdkafka" if installed else "kafka-python"
    log.info("kafka.client=auto takes %s", chosen)
    return chosen
