"""kafka-python asks for the members of a group until a coordinator answers."""

from __future__ import annotations

from typing import Any

import pytest
from kafka.errors import CoordinatorNotAvailableError, GroupAuthorizationFailedError, GroupIdNotFoundError, KafkaError

from rillcast.errors import TransportError
from rillcast.settings import KafkaSettings
from rillcast.transports.kafka.kafka_python import group
from rillcast.transports.kafka.kafka_python.group import KafkaPythonGroup


class Admin:
    """Returns the given answers, one after the other."""

    def __init__(self, answers: list[KafkaError | int]) -> None:
        self.answers = answers

    def describe_groups(self, groups: list[str]) -> dict[str, dict[str, Any]]:
        answer = self.answers.pop(0)
        if isinstance(answer, KafkaError):
            raise answer
        return {groups[0]: {"members": [object()] * answer}}


def members(monkeypatch: pytest.MonkeyPatch, *answers: KafkaError | int) -> int:
    admin = Admin(list(answers))
    monkeypatch.setattr(group, "create", lambda _settings, what, _make: admin if what == "admin client" else None)
    found = KafkaPythonGroup(KafkaSettings(request_timeout_s=20), "t").members()
    assert not admin.answers, "it was asked often enough"
    return found


def test_a_coordinator_that_is_not_there_yet_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert members(monkeypatch, CoordinatorNotAvailableError(), CoordinatorNotAvailableError(), 2) == 2


def test_an_unknown_group_has_no_members(monkeypatch: pytest.MonkeyPatch) -> None:
    assert members(monkeypatch, GroupIdNotFoundError()) == 0


def test_a_refusal_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TransportError, match="asking for the members"):
        members(monkeypatch, GroupAuthorizationFailedError(), 2)
