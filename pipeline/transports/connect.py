"""Chooses the transport and the Kafka client that the settings name.

Owns: the choice, and the errors for one that cannot be made. Does not know: how a transport works. A client
library is imported only when it is chosen.
"""

from __future__ import annotations

import importlib.util
import logging
from typing import Literal

from pipeline.errors import SettingsError
from pipeline.settings import KafkaSettings, Settings
from pipeline.transports.base import Channel, Sink, Source

log = logging.getLogger(__name__)

_Client = Literal["librdkafka", "kafka-python"]


def open_source(settings: Settings) -> Source:
    """Return the source that `input.path`, or else `input.topic` and `kafka.client`, name, not yet joined to its group.

    Raises:
        SettingsError: the client that was asked for is not installed.
    """
    if settings.input.path is not None:
        from pipeline.transports.file import FileSource

        return FileSource(settings.input.path, settings.input.format, settings.input.rate)
    if _client(settings.kafka) == "librdkafka":
        from pipeline.transports.librdkafka import LibrdkafkaSource

        return LibrdkafkaSource(settings.kafka, settings.input.topic)
    from pipeline.transports.kafka_python import KafkaPythonSource

    return KafkaPythonSource(settings.kafka, settings.input.topic)


def open_sink(settings: Settings) -> Sink:
    """Return the sink that `output.path`, or else `output.topic` and `kafka.client`, name, connected.

    Raises:
        SettingsError: the client that was asked for is not installed, or a file cannot be written.
        TransportError: no broker answers, or a topic does not exist.
    """
    if settings.output.path is not None:
        from pipeline.transports.file import FileSink

        resumes = settings.input.path is None
        if resumes and settings.output.path.lower().endswith(".parquet"):
            raise SettingsError(
                f"output.path {settings.output.path}: Parquet is written once, when a run ends, but a run over a topic "
                f"goes on where the last one stopped; use .jsonl"
            )
        paths = {Channel.FORECASTS: settings.output.path, Channel.DEAD_LETTERS: settings.dead_letters.path}
        return FileSink(paths, append=resumes)
    topics = {Channel.FORECASTS: settings.output.topic, Channel.DEAD_LETTERS: settings.dead_letters.topic}
    if _client(settings.kafka) == "librdkafka":
        from pipeline.transports.librdkafka import LibrdkafkaSink

        return LibrdkafkaSink(settings.kafka, topics)
    from pipeline.transports.kafka_python import KafkaPythonSink

    return KafkaPythonSink(settings.kafka, topics)


def _client(settings: KafkaSettings) -> _Client:
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
