"""What the choice of Kafka client and delivery decides for clients and worker."""

from __future__ import annotations

from typing import Any

import pytest

from rillcast.service.build import worker_settings
from rillcast.settings import KafkaSettings, Settings
from rillcast.transports.kafka.librdkafka.config import producer_config


def _ignore(*_report: object) -> None: ...


def _settings(client: str, **worker: Any) -> Settings:
    return Settings.model_validate({"kafka": {"client": client}, "worker": worker})


def test_librdkafka_is_idempotent_only_where_transactions_need_it() -> None:
    plain = producer_config(KafkaSettings(), _ignore, _ignore)
    in_transactions = producer_config(KafkaSettings(), _ignore, _ignore, "member-1")
    assert plain["enable.idempotence"] is False
    assert in_transactions["enable.idempotence"] is True
    # Without idempotence this is what keeps the order of records through retries, and acks=all what keeps them.
    assert plain["max.in.flight.requests.per.connection"] == 1
    assert plain["acks"] == "all"


@pytest.mark.parametrize(("client", "beside_from"), [("librdkafka", None), ("kafka-python", 0)])
def test_steps_run_beside_the_loop_unless_the_client_has_a_thread_of_its_own(
    client: str, beside_from: int | None
) -> None:
    assert worker_settings(_settings(client)).step_thread_min_events == beside_from


def test_what_was_set_stands() -> None:
    assert worker_settings(_settings("kafka-python", step_thread_min_events=100)).step_thread_min_events == 100


def test_a_file_needs_no_client() -> None:
    settings = Settings.model_validate({"kafka": {"client": "kafka-python"}, "input": {"path": "a.csv"}})
    assert worker_settings(settings).step_thread_min_events is None
