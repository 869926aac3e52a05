"""What is MLflow's own in a registry there: aliases that people move, versions of other things, credentials, faults."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from rillcast.bundle.registry.mlflow_client import MlflowClient
from rillcast.bundle.registry.model_registry import ModelRegistry
from rillcast.errors import RegistryError, RegistryUnreachableError, SettingsError
from tests.support.mlflow_stand_in import MlflowStandIn, running_stand_in
from tests.support.registries import NOW, pushed, toy


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, MlflowStandIn]]:
    with running_stand_in() as found:
        yield found


@pytest.fixture
def data(server: tuple[str, MlflowStandIn]) -> MlflowStandIn:
    found = server[1]
    MlflowStandIn.__init__(found)
    return found


@pytest.fixture
def address(server: tuple[str, MlflowStandIn], data: MlflowStandIn) -> str:
    return f"mlflow://{server[0]}/load"


def test_an_alias_that_was_moved_in_mlflow_is_followed_and_can_be_rolled_back(
    address: str, data: MlflowStandIn
) -> None:
    registry = ModelRegistry.at(address)
    a, b, c = pushed(registry, 31, 37, 41)
    registry.promote(a, NOW)
    data.models["load"]["aliases"]["live"] = "2"
    assert registry.target("live") == b
    assert [(each.number, each.model_id, each.note) for each in registry.history("live")] == [
        (1, a, ""),
        (2, b, "in MLflow"),
    ]
    registry.promote(c, NOW)
    assert [each.model_id for each in registry.history("live")] == [a, b, c]
    assert [registry.rollback(NOW).model_id for _ in range(2)] == [b, a]
    assert data.models["load"]["aliases"]["live"] == "1"


def test_an_alias_that_was_deleted_in_mlflow_begins_anew(address: str, data: MlflowStandIn) -> None:
    registry = ModelRegistry.at(address)
    a, b = pushed(registry, 31, 37)
    for model_id in (a, b):
        registry.promote(model_id, NOW)
    del data.models["load"]["aliases"]["live"]
    assert registry.aliases() == {}
    registry.promote(a, NOW)
    assert [(each.number, each.model_id) for each in registry.history("live")] == [(1, a)]


def test_a_version_that_is_no_bundle_is_left_alone_and_named_where_an_alias_names_it(
    address: str, data: MlflowStandIn
) -> None:
    registry = ModelRegistry.at(address)
    (a,) = pushed(registry, 31)
    data.models["load"]["versions"].append({"version": "2", "tags": [], "source": "models:/m-1"})
    assert [each.model_id for each in registry.models()] == [a]
    data.models["load"]["aliases"]["live"] = "2"
    with pytest.raises(RegistryError, match="live names version 2, which is no bundle of Rillcast; move it to"):
        registry.resolve("live")


@pytest.mark.parametrize("damage", [b"", None])
def test_a_bundle_that_was_changed_or_removed_is_refused(
    address: str, data: MlflowStandIn, damage: bytes | None
) -> None:
    registry = ModelRegistry.at(address)
    (a,) = pushed(registry, 31)
    (file,) = data.artefacts
    if damage is None:
        del data.artefacts[file]
    else:
        data.artefacts[file] = damage
    with pytest.raises(RegistryError, match=r"SHA-256|No such artifact"):
        registry.pull(a)


def test_tags_that_were_changed_are_refused(address: str, data: MlflowStandIn) -> None:
    registry = ModelRegistry.at(address)
    (a,) = pushed(registry, 31)
    registry.promote(a, NOW)
    data.models["load"]["tags"]["rillcast.live.00000001"] = "{}"
    with pytest.raises(RegistryError, match=r"rillcast\.live\.00000001 was changed or damaged: number"):
        registry.history("live")
    (tag,) = (each for each in data.models["load"]["versions"][0]["tags"] if each["key"] == "rillcast.manifest")
    tag["value"] = "{}"
    with pytest.raises(RegistryError, match="version 1 was changed or damaged: its tag rillcast"):
        registry.models()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"MLFLOW_TRACKING_TOKEN": "abc"}, "Bearer abc"),
        (
            {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "p:w"},
            f"Basic {base64.b64encode(b'me:p:w').decode()}",
        ),
    ],
)
def test_credentials_are_those_of_mlflows_own_variables(
    address: str, data: MlflowStandIn, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    data.authorization = expected
    with pytest.raises(RegistryUnreachableError, match=r"denies access \(401\); set MLFLOW_TRACKING_USERNAME"):
        ModelRegistry.at(address).models()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ModelRegistry.at(address).push(toy(), NOW)[1]


def test_a_server_that_fails_or_is_away_may_be_asked_again(address: str, data: MlflowStandIn) -> None:
    data.fails = 503
    with pytest.raises(RegistryUnreachableError, match=r"MLflow fails \(503\): the database is away") as caught:
        ModelRegistry.at(address).resolve("live")
    assert caught.value.retriable
    with pytest.raises(RegistryUnreachableError, match="does not answer"):
        ModelRegistry.at("mlflow://127.0.0.1:1/load").resolve("live")


def test_a_server_that_does_not_pass_artefacts_on_is_named(address: str, data: MlflowStandIn) -> None:
    data.root = "s3://bucket"
    with pytest.raises(RegistryError, match="keeps artefacts in s3: and does not pass them on; start it"):
        ModelRegistry.at(address).push(toy(), NOW)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("mlflow://host:5000", "expected mlflow://HOST:PORT/NAME"),
        ("mlflow:///load", "expected mlflow://HOST:PORT/NAME"),
        ("mlflow://host/a'b", "of letters, digits"),
        ("mlflow+https://me:secret@host/load", "MLFLOW_TRACKING_USERNAME"),
    ],
)
def test_an_address_that_cannot_be_is_refused(given: str, found: str) -> None:
    with pytest.raises(SettingsError, match=found) as caught:
        MlflowClient(given)
    assert "secret" not in str(caught.value)
