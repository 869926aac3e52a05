"""The configuration of librdkafka's producers."""

from __future__ import annotations

from rillcast.settings import KafkaSettings
from rillcast.transports.kafka.librdkafka.config import producer_config


def _ignore(*_report: object) -> None: ...


def test_librdkafka_is_idempotent_only_in_transactions() -> None:
    plain = producer_config(KafkaSettings(), _ignore, _ignore, {})
    in_transactions = producer_config(KafkaSettings(), _ignore, _ignore, {}, "member-1")
    assert plain["enable.idempotence"] is False
    assert in_transactions["enable.idempotence"] is True
    # Without idempotence, one request in flight keeps the order of records through retries, and acks=all keeps them.
    assert plain["max.in.flight.requests.per.connection"] == 1
    assert plain["acks"] == "all"
