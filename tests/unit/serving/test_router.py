"""Which model serves a partition, which models are in use, and when a model is closed."""

from __future__ import annotations

from typing import Any

import pytest

from rillcast.errors import RegistryUnreachableError
from rillcast.serving.router import Router
from rillcast.serving.served_model import ServedModel
from tests.support.stores import MemoryStore, Shelf


def model_of(model_id: str) -> ServedModel:
    """Return as much of a served model as a router calls."""
    bundle = type("Bundle", (), {"metadata": type("Metadata", (), {"model_id": model_id})})
    residents = type("Residents", (), {"release": lambda _self, _partition: None})()
    engine: Any = type("Engine", (), {"bundle": bundle, "residents": residents})
    publisher: Any = type("Publisher", (), {"forget": lambda _self, _partition: None})()
    return ServedModel(engine, publisher, MemoryStore(Shelf(), model_id))


def closed(model: ServedModel) -> int:
    assert isinstance(model.store, MemoryStore)
    return model.store.closed


def test_partitions_begin_with_the_default_and_stay_where_they_are_assigned() -> None:
    old, new = model_of("old"), model_of("new")
    router = Router(old)
    router.assign(0, old)
    router.assign(1, new)
    router.set_default(new)
    assert [router.model_of(partition) for partition in (0, 1, 2)] == [old, new, new]
    assert set(router.all) == {old, new}
    assert closed(old) == 0


def test_a_model_is_closed_when_it_neither_serves_nor_is_retained() -> None:
    old, new = model_of("old"), model_of("new")
    router = Router(old)
    router.retain(new)
    router.assign(0, new)
    router.release(new)
    assert closed(new) == 0, "it serves"
    router.drop(0)
    assert (closed(old), closed(new)) == (0, 1)


def test_models_that_serve_follow_or_are_expected_are_in_use() -> None:
    router = Router(model_of("default"))
    router.assign(0, model_of("serves"))
    router.retain(model_of("follows"))
    router.expect(["wanted"])
    assert router.in_use == {"default", "serves", "follows", "wanted"}
    router.expect(["other"])
    assert router.in_use == {"default", "serves", "follows", "other"}


def test_an_open_model_is_found_before_another_is_opened() -> None:
    follows, opened = model_of("follows"), list[str]()

    def open_model(model_id: str) -> ServedModel:
        opened.append(model_id)
        return model_of(model_id)

    router = Router(model_of("default"), open_model)
    router.retain(follows)
    assert router.open("follows") is follows
    assert router.open("default") is router.default
    assert opened == []
    found = router.open("before")
    assert found is not None
    assert found.model_id == "before"
    assert router.find("before") is None, "it is in use once a partition is assigned to it"


def test_a_model_that_cannot_be_opened_is_unavailable(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_model_id: str) -> ServedModel:
        raise RegistryUnreachableError("the volume is away")

    assert Router(model_of("default"), fail).open("before") is None
    assert "model before, which served before, cannot be opened: the volume is away" in caplog.text
    assert Router(model_of("default")).open("before") is None
