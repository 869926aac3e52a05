"""The configuration of librdkafka's producers and consumers."""

from __future__ import annotations

from rillcast.settings import KafkaSettings
from rillcast.transports.kafka.librdkafka.config import consumer_config, producer_config


def _ignore(*_report: object) -> None: ...


def test_librdkafka_is_idempotent_only_in_transactions() -> None:
    plain = producer_config(KafkaSettings(), _ignore, _ignore, {})
    in_transactions = producer_config(KafkaSettings(), _ignore, _ignore, {}, "member-1")
    assert plain["enable.idempotence"] is False
    assert in_transactions["enable.idempotence"] is True
    # Without idempotence, one request in flight keeps the order of records through retries, and acks=all keeps them.
    assert plain["max.in.flight.requests.per.connection"] == 1
    assert plain["acks"] == "all"


def test_a_fetch_takes_little_of_a_partition_so_that_polls_mix_partitions() -> None:
    of_service = consumer_config(KafkaSettings(), _ignore)
    assert of_service["max.partition.fetch.bytes"] * 4 <= 1_048_576, "the client's default"
    assert of_service["fetch.max.bytes"] == KafkaSettings().max_fetch_bytes
    small = consumer_config(KafkaSettings(max_fetch_bytes=1_000), _ignore)
    assert small["max.partition.fetch.bytes"] == small["fetch.max.bytes"] == 1_000, "not more than a whole fetch"
