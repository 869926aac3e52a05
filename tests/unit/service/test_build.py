"""Settings of the worker that depend on the Kafka client."""

from __future__ import annotations

from typing import Any

import pytest

from rillcast.service.build import worker_settings
from rillcast.settings import Settings


def _settings(client: str, **worker: Any) -> Settings:
    return Settings.model_validate({"kafka": {"client": client}, "worker": worker})


@pytest.mark.parametrize(("client", "min_events"), [("librdkafka", None), ("kafka-python", 0)])
def test_steps_run_in_a_thread_unless_the_client_has_one(client: str, min_events: int | None) -> None:
    assert worker_settings(_settings(client)).step_thread_min_events == min_events


def test_a_setting_is_kept() -> None:
    assert worker_settings(_settings("kafka-python", step_thread_min_events=100)).step_thread_min_events == 100


def test_a_file_needs_no_client() -> None:
    settings = Settings.model_validate({"kafka": {"client": "kafka-python"}, "input": {"path": "a.csv"}})
    assert worker_settings(settings).step_thread_min_events is None


@pytest.mark.parametrize(("recovery", "then"), [("restore", "rebuild"), ("rebuild", "rebuild"), ("cold", "cold")])
def test_a_file_has_no_position_to_restore_to(recovery: str, then: str) -> None:
    settings = Settings.model_validate({"input": {"path": "a.csv"}, "worker": {"recovery": recovery}})
    assert worker_settings(settings).recovery == then
