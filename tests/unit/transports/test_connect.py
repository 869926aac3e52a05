"""The transport and client that settings name, and the settings that are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rillcast.errors import SettingsError
from rillcast.settings import KafkaSettings, Settings
from rillcast.transports import connect
from rillcast.transports.file.sink import FileSink


def settings(**sections: Mapping[str, object]) -> Settings:
    return Settings.model_validate(sections)


def test_the_settings_choose_the_file_transport(tmp_path: Path) -> None:
    paths: Sequence[str] = [str(tmp_path / name) for name in ("out.jsonl", "dead.jsonl")]
    chosen = settings(
        input={"path": "in.csv"},
        output={"path": paths[0]},
        dead_letters={"path": paths[1]},
    )
    assert connect.open_source(chosen).name == "in.csv"
    with closing(connect.open_sink(chosen)) as sink:
        assert isinstance(sink, FileSink)


@pytest.mark.parametrize(
    ("client", "installed", "module"),
    [
        ("auto", True, "librdkafka"),
        ("auto", False, "kafka_python"),
        ("librdkafka", True, "librdkafka"),
        ("kafka-python", True, "kafka_python"),
    ],
)
def test_the_settings_choose_the_kafka_client(monkeypatch: Any, client: str, installed: bool, module: str) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object() if installed else None)
    source = connect.open_source(settings(kafka={"client": client}))
    assert type(source).__module__ == f"rillcast.transports.kafka.{module}.source"


def test_a_client_that_is_not_installed_is_refused_by_the_name_of_its_extra(monkeypatch: Any) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(SettingsError, match=r"rillcast\[librdkafka\]"):
        connect.open_source(settings(kafka={"client": "librdkafka"}))


@pytest.mark.parametrize("side", ["input", "output"])
def test_exactly_once_is_refused_with_a_file_on_either_side(tmp_path: Path, side: str) -> None:
    path = str(tmp_path / "records.jsonl")
    chosen = settings(worker={"delivery": "exactly_once"}, **{side: {"path": path}})
    with pytest.raises(SettingsError, match=rf"exactly_once.*{side}\.path"):
        connect.open_sink(chosen)


def test_a_state_topic_is_refused_with_an_output_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"state\.store.*output\.path"):
        connect.open_sink(settings(state={"store": "kafka"}, output={"path": str(tmp_path / "out.jsonl")}))


def test_a_transactional_id_survives_a_restart_if_the_member_has_a_name() -> None:
    named = KafkaSettings(group_id="g", group_instance_id="pod-0")
    assert connect.transactional_id(named) == "g-pod-0"
    assert connect.transactional_id(named.model_copy(update={"transactional_id": "mine"})) == "mine"
    nameless = KafkaSettings(group_id="g")
    assert connect.transactional_id(nameless).startswith("g-")
    assert connect.transactional_id(nameless) != connect.transactional_id(nameless)


def test_parquet_output_of_a_topic_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Parquet"):
        connect.open_sink(settings(output={"path": str(tmp_path / "out.parquet")}))
