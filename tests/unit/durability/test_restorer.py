"""Stored state is loaded for the one that asked, although a store hands it to whoever polls."""

from __future__ import annotations

from typing import Any

import pytest

from rillcast.durability.restorer import Purpose, Restorer
from rillcast.errors import StateError
from rillcast.serving.served_model import ServedModel
from tests.support.stores import MemoryStore, Shelf


def model_with(store: MemoryStore | None) -> ServedModel:
    anything: Any = None
    return ServedModel(anything, anything, store)


def loaded(restorer: Restorer, model: ServedModel, purpose: Purpose) -> list[int]:
    return [restored.partition for restored in restorer.poll(model, purpose, 0.0)]


def test_each_purpose_gets_its_partitions_whoever_polls() -> None:
    model, restorer = model_with(MemoryStore(Shelf())), Restorer()
    restorer.begin(model, 0, Purpose.SERVE)
    restorer.begin(model, 1, Purpose.FOLLOW)
    assert loaded(restorer, model, Purpose.SERVE) == [0]
    assert loaded(restorer, model, Purpose.FOLLOW) == [1]
    assert loaded(restorer, model, Purpose.FOLLOW) == []


def test_a_partition_may_be_loaded_of_two_models_at_a_time() -> None:
    shelf, restorer = Shelf(), Restorer()
    one, other = model_with(MemoryStore(shelf)), model_with(MemoryStore(shelf, polls_per_restore=2))
    restorer.begin(one, 0, Purpose.SERVE)
    restorer.begin(other, 0, Purpose.FOLLOW)
    assert loaded(restorer, one, Purpose.SERVE) == [0]
    assert loaded(restorer, other, Purpose.FOLLOW) == []
    assert loaded(restorer, other, Purpose.FOLLOW) == [0]


def test_a_load_that_begins_again_belongs_to_the_last_purpose() -> None:
    model, restorer = model_with(store := MemoryStore(Shelf())), Restorer()
    restorer.begin(model, 0, Purpose.FOLLOW)
    restorer.begin(model, 0, Purpose.SERVE)
    assert store.restores == [0, 0]
    assert loaded(restorer, model, Purpose.FOLLOW) == []
    assert loaded(restorer, model, Purpose.SERVE) == [0]


def test_a_cancelled_load_is_never_complete_not_even_when_the_store_has_handed_it_over() -> None:
    model, restorer = model_with(MemoryStore(Shelf())), Restorer()
    restorer.begin(model, 0, Purpose.SERVE)
    restorer.begin(model, 1, Purpose.FOLLOW)
    assert loaded(restorer, model, Purpose.SERVE) == [0], "partition 1 is complete now"
    restorer.cancel(model, 1)
    restorer.cancel(model, 7)
    assert loaded(restorer, model, Purpose.FOLLOW) == []


def test_a_model_without_a_store_has_nothing_and_is_complete_at_once() -> None:
    model, restorer = model_with(None), Restorer()
    restorer.begin(model, 2, Purpose.FOLLOW)
    [restored] = restorer.poll(model, Purpose.FOLLOW, 0.0)
    assert (restored.partition, restored.mark, list(restored.pages)) == (2, None, [])


def test_a_failure_reaches_whoever_polls() -> None:
    model, restorer = model_with(store := MemoryStore(Shelf())), Restorer()

    def fail(_partition: int) -> None:
        raise StateError("page 3 is damaged")

    store.fail_restore = fail
    restorer.begin(model, 0, Purpose.SERVE)
    assert loaded(restorer, model, Purpose.FOLLOW) == [], "it loads nothing, so the store is not polled"
    with pytest.raises(StateError):
        restorer.poll(model, Purpose.SERVE, 0.0)
