"""The models that a registry's aliases name: prepared in a thread, refused if they cannot take over."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from rillcast.bundle.bundle import Bundle, seal
from rillcast.bundle.compatibility import require_compatible
from rillcast.bundle.registry.model_registry import ModelRegistry
from rillcast.bundle.registry.reference import Reference
from rillcast.engine.device import Device
from rillcast.errors import (
    OtherRecordsError,
    RegistryUnreachableError,
    RillcastError,
    RolloutRefusedError,
    ServedByAnotherKindError,
)
from rillcast.observability.metrics import Metrics
from rillcast.rollout.models import Names
from rillcast.rollout.registry_watcher import Aliases, RegistryWatcher
from rillcast.serving.factory import Observers, ServedModelFactory
from rillcast.serving.served_model import ServedModel
from rillcast.settings import Settings
from tests.support.memory import Clock, Log, MemorySink
from tests.support.toy import ToyGraph, toy_bundle

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
SERVING = toy_bundle()
DEADLINE_S = 30.0


class Desk:
    """A registry in a folder, and a service's models in it."""

    def __init__(self, folder: Path, *, claims_decide: bool = False, **settings: Any) -> None:
        self.folder = folder
        self.registry = ModelRegistry.at(str(folder))
        self.away = False
        self.clock = Clock()
        self.series = CollectorRegistry()
        metrics = Metrics(self.series, {"": SERVING.metadata}, "cpu")
        given = Settings.model_validate({"state": {"store": "none"}, **settings})
        factory = ServedModelFactory(given, Device("cpu"), MemorySink(Log()), Observers(metrics))
        aliases = Aliases(
            Reference(str(folder), "live"), Reference(str(folder), "shadow"), 10.0, claims_decide=claims_decide
        )
        self.models = RegistryWatcher(
            aliases, factory, SERVING.metadata, metrics.of_route(""), registry_at=self._registry_at, clock=self.clock
        )

    def promote(self, data: bytes, alias: str = "live") -> str:
        manifest, _ = self.registry.push(data, NOW)
        self.registry.promote(manifest.model_id, NOW, alias=alias)
        return manifest.model_id

    def look_again(self) -> None:
        """Let the time come to ask the registry."""
        self.clock.now += 11
        self.models._wake.set()

    def _registry_at(self, _where: str) -> ModelRegistry:
        if self.away:
            raise RegistryUnreachableError("the volume is away")
        return self.registry


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "registry")
    yield desk
    desk.models.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def opened(desk: Desk, model_id: str) -> ServedModel:
    models: list[ServedModel] = []

    def is_there() -> bool:
        model = desk.models.open(model_id)
        models.extend([] if model is None else [model])
        return model is not None

    until(is_there)
    return models[0]


def refusal(desk: Desk, model_id: str) -> RillcastError:
    found: list[RillcastError] = []

    def is_refused() -> bool:
        try:
            assert desk.models.open(model_id) is None
        except RillcastError as error:
            found.append(error)
        return bool(found)

    until(is_refused)
    return found[0]


def test_the_models_that_the_aliases_name_are_known_soon_and_never_waited_for(desk: Desk) -> None:
    live, shadow = desk.promote(toy(31)), desk.promote(toy(37), "shadow")
    assert desk.models.names() in (Names(), Names(live, shadow))
    until(lambda: desk.models.names() == Names(live, shadow))
    moved = desk.promote(toy(41))
    desk.look_again()
    until(lambda: desk.models.names() == Names(moved, shadow))


def test_a_model_is_prepared_in_the_thread_and_opened_once(desk: Desk) -> None:
    live = desk.promote(toy(37))
    until(lambda: desk.models.names().wanted == live)
    model = opened(desk, live)
    assert (model.model_id, model.residents.num_streams, model.store) == (live, 0, None)
    assert opened(desk, live).engine is not model.engine, "each has states of its own"


def test_while_the_registry_is_unavailable_its_last_answer_stays(desk: Desk) -> None:
    live = desk.promote(toy(37))
    until(lambda: desk.models.names().wanted == live)
    before = desk.series.get_sample_value("rillcast_model_registry_errors_total") or 0.0
    desk.away = True
    desk.look_again()
    until(lambda: (desk.series.get_sample_value("rillcast_model_registry_errors_total") or 0.0) > before)
    assert desk.models.names().wanted == live
    error = refusal(desk, live)
    assert isinstance(error, RegistryUnreachableError), "it is tried again"
    desk.away = False
    assert opened(desk, live).model_id == live


def test_a_model_that_served_before_is_opened_at_once_and_the_registry_asked_again(desk: Desk) -> None:
    """Another member was quicker: without asking again this one would go back to the older model first."""
    old = desk.promote(toy(31))
    until(lambda: desk.models.names().wanted == old)
    new = desk.promote(toy(37))
    model = desk.models.open_now(new)
    assert model is not None
    assert model.model_id == new
    assert desk.models.names().wanted in (None, new)
    until(lambda: desk.models.names().wanted == new)


def test_a_bundle_that_was_tampered_with_is_refused(desk: Desk) -> None:
    live = desk.promote(toy(37))
    [blob] = (desk.folder / "blobs").iterdir()
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    until(lambda: desk.models.names().wanted == live)
    error = refusal(desk, live)
    assert isinstance(error, RolloutRefusedError)
    assert "changed or damaged" in str(error)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"freq": "30min"}, "its freq is 30min, that of {serving} 1h"),
        ({"horizon": 3}, "its horizon is 3"),
        ({"quantiles": (0.1, 0.5, 0.8)}, "its quantiles is [0.1, 0.5, 0.8]"),
        ({"scores": ("pinball",)}, "its scores is [pinball]"),
    ],
)
def test_a_model_with_forecasts_of_another_kind_is_refused(changes: dict[str, object], what: str) -> None:
    candidate = SERVING.metadata.model_copy(update={"model_id": "0" * 16, **changes})
    with pytest.raises(OtherRecordsError) as caught:
        require_compatible(SERVING.metadata, candidate)
    assert what.format(serving=SERVING.metadata.model_id) in str(caught.value)


def test_a_model_of_the_same_kind_may_follow() -> None:
    require_compatible(SERVING.metadata, toy_bundle(multiplier=37, sequence=True).metadata)


def test_the_order_of_its_scores_says_nothing_of_a_model() -> None:
    serving = SERVING.metadata.model_copy(update={"scores": ("pinball", "covered")})
    require_compatible(serving, serving.model_copy(update={"scores": ("covered", "pinball")}))


def test_a_pulled_model_of_another_kind_is_refused(desk: Desk) -> None:
    live = desk.promote(of_another_kind())
    until(lambda: desk.models.names().wanted == live)
    assert isinstance(refusal(desk, live), OtherRecordsError)


def test_a_start_goes_on_with_the_model_of_another_kind_that_serves_a_partition(tmp_path: Path) -> None:
    desk = Desk(tmp_path, claims_decide=True)
    served = desk.registry.push(of_another_kind(), NOW)[0].model_id
    with pytest.raises(ServedByAnotherKindError, match="its freq is 30min") as caught:
        desk.models.open_now(served)
    assert caught.value.model_id == served
    desk.models.close()


def test_a_service_whose_operator_named_the_model_takes_over_from_one_of_another_kind(desk: Desk) -> None:
    with pytest.raises(RolloutRefusedError, match="its freq is 30min"):
        desk.models.open_now(desk.registry.push(of_another_kind(), NOW)[0].model_id)


def test_a_model_without_an_output_that_the_settings_need_is_refused(tmp_path: Path) -> None:
    desk = Desk(tmp_path, anomalies={"topic": "anomalies"})
    live = desk.promote(toy(37))
    until(lambda: desk.models.names().wanted == live)
    error = refusal(desk, live)
    assert isinstance(error, RolloutRefusedError)
    assert "no output 'anomaly'" in str(error)
    desk.models.close()


def test_closing_ends_the_thread(desk: Desk) -> None:
    desk.models.names()
    thread = desk.models._thread
    assert thread is not None
    desk.models.close()
    desk.models.close()
    assert not thread.is_alive()


def of_another_kind() -> bytes:
    other = ToyGraph(multiplier=37)
    return seal(other.model(), other.metadata().model_copy(update={"freq": "30min"}))


def toy(multiplier: int) -> bytes:
    data = ToyGraph(multiplier=multiplier).build()
    assert Bundle.from_bytes(data).metadata.freq == SERVING.metadata.freq
    return data
