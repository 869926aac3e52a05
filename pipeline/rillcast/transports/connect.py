"""Opens the transport and the Kafka client that the settings name.

Owns: the choice, and the errors for an impossible one. Does not know: how a transport works. A client library is
imported only when it is chosen.
"""

from __future__ import annotations

import importlib.util
import logging
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Final, Literal

from rillcast.bundle.covariates import Covariate
from rillcast.errors import SettingsError, TransportError, UnreachableError
from rillcast.settings import KafkaSettings, Settings
from rillcast.transports.base import Channel, Polled, Sink, Source, TransactionalSink
from rillcast.transports.kafka.common import failures
from rillcast.transports.kafka.common.client import KafkaClient
from rillcast.transports.kafka.common.groups import GroupView
from rillcast.transports.kafka.common.partition_reader import PartitionReader
from rillcast.transports.kafka.common.record_size import Limits, limits_of
from rillcast.transports.kafka.common.topic_admin import Brokers, TopicAdmin
from rillcast.transports.kafka.common.transactions import KafkaTransactionalSink, TransactionalProducer

log = logging.getLogger(__name__)

_Client = Literal["librdkafka", "kafka-python"]
_PROBE_S: Final = 5.0
_INTERNAL_TOPICS: Final = ("__consumer_offsets", "__transaction_state")
_FOLLOWING_FETCH_WAIT_MS: Final = 500  # the clients' default


def open_source(
    settings: Settings,
    covariates: Sequence[Covariate] = (),
    streams: Callable[[Polled], Sequence[str | None]] | None = None,
) -> Source:
    """Return the source that `input.path`, or else `input.topic` and `kafka.client`, name; it has not joined its group.

    Args:
        settings: The settings.
        covariates: Covariates of the model, which a file has as columns.
        streams: Returns the streams of records of a file, to take them in turns; None = as they stand.

    Raises:
        SettingsError: The client that was asked for is not installed.
    """
    if settings.input.path is not None:
        from rillcast.transports.file.columns import FileColumns
        from rillcast.transports.file.source import FileSource

        given = settings.input
        stream = given.stream_of_file
        columns = None
        if given.is_table:
            columns = FileColumns.of(given.fields, covariates, stream, given.only, counted=settings.counts)
            asked = [column for table in settings.models for column in table.columns]
            columns = replace(columns, matched=tuple(dict.fromkeys(asked)))
        return FileSource(settings.input.path, given.format, given.rate, columns, given.form, streams)
    return client_of(settings.kafka).source(settings.kafka, settings.input.topic)


def open_input_reader(settings: Settings) -> PartitionReader:
    """Return a reader of `input.topic`, outside of the group, for models that follow it.

    Raises:
        SettingsError: The client that was asked for is not installed.
        TransportError: No broker answers, or the topic does not exist.
    """
    partitions_of(settings.kafka, settings.input.topic)
    return open_partition_reader(settings.kafka, settings.input.topic, _FOLLOWING_FETCH_WAIT_MS)


def open_partition_reader(settings: KafkaSettings, topic: str, fetch_wait_ms: int) -> PartitionReader:
    """Return a reader of a topic, outside of any group.

    Args:
        settings: Where to connect.
        topic: Topic to read.
        fetch_wait_ms: Longest time that a broker may hold a fetch at the end of a partition, in milliseconds.

    Raises:
        SettingsError: The client that was asked for is not installed.
        TransportError: No broker answers.
    """
    return client_of(settings).partition_reader(settings, topic, fetch_wait_ms)


def check_output_files(settings: Settings) -> None:
    """Refuse output files that are inputs or cannot be written, before anything is opened.

    Raises:
        SettingsError: A file is refused.
    """
    if settings.output.path is None:
        return
    from rillcast.transports.file.sink import check

    check(
        {
            "input.path": settings.input.path,
            "input.streams_path": settings.input.streams_path,
            **{f"models.{table.name}.model" if table.name else "model": table.model for table in settings.served},
        },
        {
            "output.path": settings.output.path,
            "dead_letters.path": settings.dead_letters.path,
            "anomalies.path": settings.anomalies.path,
            "alarms.path": settings.alarms.path,
        },
    )


def open_sink(settings: Settings) -> Sink:
    """Return the sink that `output.path`, or else `output.topic` and `kafka.client`, name, connected.

    It is a `TransactionalSink` if `worker.delivery` is `exactly_once`.

    Raises:
        SettingsError: The client that was asked for is not installed, a file cannot be written, or the settings name a
            file where only a topic works.
        TransportError: No broker answers, a topic does not exist, or another process writes a file.
    """
    _require_topics_where_needed(settings)
    if settings.output.path is not None:
        from rillcast.transports.file.sink import FileSink

        resumes = settings.input.path is None
        if resumes and settings.output.path.lower().endswith(".parquet"):
            raise SettingsError(
                f"output.path {settings.output.path}: Parquet is written once, when a run ends, but a run over a topic "
                f"continues where the last one stopped; use .jsonl"
            )
        paths = {Channel.FORECASTS: settings.output.path, Channel.DEAD_LETTERS: settings.dead_letters.path}
        if settings.anomalies.path is not None:
            paths[Channel.ANOMALIES] = settings.anomalies.path
        if settings.alarms.path is not None:
            paths[Channel.ALARMS] = settings.alarms.path
        return FileSink(paths, append=resumes)
    topics = {Channel.FORECASTS: settings.output.topic, Channel.DEAD_LETTERS: settings.dead_letters.topic}
    if settings.anomalies.topic is not None:
        topics[Channel.ANOMALIES] = settings.anomalies.topic
    if settings.alarms.topic is not None:
        topics[Channel.ALARMS] = settings.alarms.topic
    if settings.state.store == "kafka" or (settings.state.store == "auto" and settings.input.path is None):
        topics[Channel.STATE] = settings.state_topic
    if settings.worker.delivery == "exactly_once":
        return open_transactional_sink(settings.kafka, topics, settings.input.topic)
    return client_of(settings.kafka).sink(settings.kafka, topics, _limits(settings.kafka, topics))


def open_topic_sink(settings: KafkaSettings, topic: str) -> Sink:
    """Return a sink that writes to one topic alone, as `Channel.FORECASTS` and without transactions, connected.

    Raises:
        SettingsError: The client that was asked for is not installed.
        TransportError: No broker answers, or the topic does not exist.
    """
    topics = {Channel.FORECASTS: topic}
    return client_of(settings).sink(settings, topics, _limits(settings, topics))


def open_transactional_sink(
    settings: KafkaSettings, topics: Mapping[Channel, str], source_topic: str
) -> TransactionalSink:
    """Return a sink whose transactions include positions of `source_topic`, initialised.

    Raises:
        SettingsError: The client that was asked for is not installed.
        TransportError: No broker answers, or a topic does not exist.
    """
    name = transactional_id(settings)
    client = client_of(settings)
    limits = _limits(settings, topics)

    def make() -> TransactionalProducer:
        return client.transactions(settings, topics, limits, source_topic, name)

    return KafkaTransactionalSink(settings, name, make, limits)


def _limits(settings: KafkaSettings, topics: Mapping[Channel, str]) -> Limits:
    with closing(open_topic_admin(settings)) as admin:
        return limits_of(admin, topics, settings)


def open_group(settings: Settings) -> GroupView:
    """Return a view of the settings' group from outside.

    Raises:
        SettingsError: The client that was asked for is not installed.
        TransportError: No broker answers.
    """
    return client_of(settings.kafka).group(settings.kafka, settings.input.topic)


def open_topic_admin(settings: KafkaSettings) -> TopicAdmin:
    """Return an administrator of topics.

    Raises:
        SettingsError: The client that was asked for is not installed.
        TransportError: No broker answers.
    """
    return client_of(settings).topic_admin(settings)


def partitions_of(settings: KafkaSettings, topic: str) -> int:
    """Return the number of partitions of a topic.

    Raises:
        SettingsError: The client that was asked for is not installed.
        TransportError: No broker answers, or the topic does not exist.
    """
    with closing(open_topic_admin(settings)) as admin:
        partitions = admin.partitions(topic)
    if partitions is None:
        raise failures.missing_topics(settings.bootstrap_servers, [topic])
    return partitions


def look_at_brokers(settings: KafkaSettings, topics: Collection[str]) -> Brokers:
    """Return whether brokers answer, within a few seconds, and whether these topics have all their copies.

    The topics in which Kafka keeps positions and transactions are looked at too, if this client may see them.
    """
    asking = settings.model_copy(update={"request_timeout_s": min(_PROBE_S, settings.request_timeout_s)})
    try:
        with closing(open_topic_admin(asking)) as admin:
            lacking = admin.lacking([*topics, *_INTERNAL_TOPICS])
    except UnreachableError:
        return Brokers.AWAY
    except TransportError as error:
        log.debug("a broker answers: %s", error)  # if only to refuse
        return Brokers.COMPLETE
    return Brokers.SOME if lacking else Brokers.COMPLETE


def transactional_id(settings: KafkaSettings) -> str:
    """Return the name under which this member's transactions survive its restart, or a random one if it has no name.

    A random name doubles nothing either: the group fences the positions of a member that lost its partitions. But only
    the time-out ends a transaction that a crash left open.
    """
    if settings.transactional_id is not None:
        return settings.transactional_id
    return f"{settings.group_id}-{settings.group_instance_id or uuid.uuid4()}"


def _require_topics_where_needed(settings: Settings) -> None:
    """Refuse settings that name a file where only a topic works."""
    paths = {"input.path": settings.input.path, "output.path": settings.output.path}
    files = " and ".join(f"{name} {path}" for name, path in paths.items() if path is not None)
    if settings.worker.delivery == "exactly_once" and files:
        raise SettingsError(
            f"worker.delivery is 'exactly_once', a Kafka transaction from topic to topic, but the settings name a file "
            f"({files}); use topics on both sides, or worker.delivery = 'at_least_once'"
        )
    if settings.state.store == "kafka" and settings.output.path is not None:
        raise SettingsError(
            f"state.store is 'kafka', which the sink of the forecasts writes, but output.path is the file "
            f"{settings.output.path}; use state.store = 'local'"
        )


def client_of(settings: KafkaSettings) -> KafkaClient:
    """Return the parts of the client library that `kafka.client` names, and import it.

    Raises:
        SettingsError: It is not installed.
    """
    if chosen_client(settings) == "librdkafka":
        from rillcast.transports.kafka import librdkafka

        return librdkafka.CLIENT
    from rillcast.transports.kafka import kafka_python

    return kafka_python.CLIENT


def chosen_client(settings: KafkaSettings) -> _Client:
    """Return the client library that `kafka.client` names; `auto` takes librdkafka where it is installed.

    Raises:
        SettingsError: It is not installed.
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
    log.info("kafka.client=auto chooses %s", chosen)
    return chosen
