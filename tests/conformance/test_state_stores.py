"""Every state store keeps the contract of `rillcast.stores.base`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, Protocol

import pytest

from rillcast.engine.pages import Arrivals, Page, Silence
from rillcast.engine.slots import PAGE_SLOTS
from rillcast.errors import StateError
from rillcast.stores.base import Claim, Mark, Restored, StateStore, Superseded
from rillcast.stores.format.pages import PageCodec
from rillcast.stores.kafka import KafkaStore
from rillcast.stores.local import LocalStore
from rillcast.transports.base import Channel, Sink
from tests.support import stores
from tests.support.kafka_cluster import KafkaCluster
from tests.support.stores import (
    SPECS,
    MemoryStore,
    Shelf,
    assert_same_pages,
    finish,
    make_page,
    marks_over,
    restore,
    tombstone,
    topic_reader,
)
from tests.support.transports import CLIENTS, kafka_sink

MODEL: Final = "0123456789abcdef"
OTHER_MODEL: Final = "fedcba9876543210"


class Backend(Protocol):
    """A kind of store under test, with the storage that outlives its processes."""

    def open(self, model_id: str = MODEL) -> StateStore:
        """Return the store of one more process."""
        ...

    def commit(self, store: StateStore) -> None:
        """Commit the transport, between `stage` and the store's `commit`."""
        ...


class SpoilableBackend(Backend, Protocol):
    """A backend whose stored bytes can be damaged."""

    def damage(self, partition: int, number: int) -> str:
        """Spoil a stored page, and return how an error has to name it."""
        ...


class MemoryBackend:
    def __init__(self) -> None:
        self._shelf = Shelf()

    def open(self, model_id: str = MODEL) -> StateStore:
        return MemoryStore(self._shelf, model_id, polls_per_restore=2)

    def commit(self, store: StateStore) -> None:
        """Do nothing."""


class LocalBackend:
    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self, model_id: str = MODEL) -> StateStore:
        return LocalStore(self._path, PageCodec(model_id, SPECS))

    def commit(self, store: StateStore) -> None:
        """Do nothing."""

    def damage(self, partition: int, number: int) -> str:
        [file] = (self._path / MODEL / str(partition)).glob(f"{number}.*")
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 0x10
        file.write_bytes(data)
        return str(file)


class KafkaBackend:
    """One topic, written and read by one client, at least once."""

    def __init__(self, cluster: KafkaCluster, client: str) -> None:
        self._cluster = cluster
        self._client = client
        self._topic = cluster.create_topic("state", 4, cleanup_policy="compact")
        self._settings = cluster.settings()
        self._sinks: dict[int, Sink] = {}

    def open(self, model_id: str = MODEL) -> StateStore:
        sink = kafka_sink(self._client, self._settings, {Channel.STATE: self._topic})
        store = KafkaStore(
            self._topic,
            PageCodec(model_id, SPECS),
            sink,
            lambda: topic_reader(self._client, self._settings, self._topic),
        )
        self._sinks[id(store)] = sink
        return store

    def commit(self, store: StateStore) -> None:
        self._sinks[id(store)].flush(stores.DEADLINE_S)

    def damage(self, partition: int, number: int) -> str:
        key = f"{MODEL}/page/{number}"
        self._cluster.produce(self._topic, [b"rubbish"], [key.encode()], partition)
        [last] = [r for r in self._cluster.read_all(self._topic) if r.value == b"rubbish"]
        return f"{self._topic}[{partition}]@{last.offset}, key {key}"

    def close(self) -> None:
        for sink in self._sinks.values():
            sink.close()


_KAFKA: Final = [pytest.param(client, marks=pytest.mark.kafka) for client in CLIENTS]


@pytest.fixture(params=["memory", "local", *_KAFKA])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """Every store."""
    if request.param in CLIENTS:
        with closing(KafkaBackend(request.getfixturevalue("kafka"), request.param)) as kafka:
            yield kafka
    else:
        yield MemoryBackend() if request.param == "memory" else LocalBackend(tmp_path / "state")


@pytest.fixture(params=["memory", "local"])
def atomic(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """A store whose commits are its own; `tests/integration/kafka/test_state_topic.py` has those of transactions."""
    return MemoryBackend() if request.param == "memory" else LocalBackend(tmp_path / "state")


@pytest.fixture(params=["local", *_KAFKA])
def spoilable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SpoilableBackend]:
    """A store whose bytes can be damaged."""
    if request.param in CLIENTS:
        with closing(KafkaBackend(request.getfixturevalue("kafka"), request.param)) as kafka:
            yield kafka
    else:
        yield LocalBackend(tmp_path / "state")


def save(backend: Backend, store: StateStore, pages: Sequence[Page], marks: Sequence[Mark] | None = None) -> None:
    stores.save(store, pages, marks, lambda: backend.commit(store))


def saved(backend: Backend, *snapshots: Sequence[Page]) -> None:
    """Store snapshots from a process of their own, one commit each."""
    with closing(backend.open()) as store:
        for pages in snapshots:
            save(backend, store, pages)


# Stored state comes back


def test_pages_and_mark_come_back_as_they_were(backend: Backend) -> None:
    pages = [make_page(number=0), make_page(number=1, unique_ids=("", "d", "")), make_page(number=2, offset=90)]
    saved(backend, pages)
    with closing(backend.open()) as store:
        found = restore(store, 0)[0]
    assert found.mark == Mark(0, 90, 1_700_000_000_000, 3)
    assert_same_pages(found.pages, pages)


def test_a_mark_comes_back_with_its_arrivals_and_silences(backend: Backend) -> None:
    silences = (Silence(90, 1_700_000_000_500), Silence(95, 1_700_000_001_000))
    mark = Mark(0, 90, 1_700_000_000_000, 1, Arrivals(1_700_000_000, 3), silences)
    with closing(backend.open()) as store:
        save(backend, store, [make_page()], [mark])
    with closing(backend.open()) as store:
        assert restore(store, 0)[0].mark == mark


def test_a_process_reads_its_own_commits(backend: Backend) -> None:
    with closing(backend.open()) as store:
        save(backend, store, [make_page()])
        assert_same_pages(restore(store, 0)[0].pages, [make_page()])


def test_a_later_page_and_mark_replace_the_earlier_and_leave_the_rest(backend: Backend) -> None:
    first = [make_page(number=number) for number in range(3)]
    later = make_page(number=1, offset=200, unique_ids=("x", "y"))
    saved(backend, first, [later])
    with closing(backend.open()) as store:
        found = restore(store, 0)[0]
    assert found.mark == marks_over([later])[0]
    assert_same_pages(found.pages, [first[0], later, first[2]])


def test_the_last_of_several_pages_of_one_number_in_a_commit_wins(backend: Backend) -> None:
    with closing(backend.open()) as store:
        store.stage([make_page(offset=1)], [])
        save(backend, store, [make_page(offset=2), make_page(offset=3)])
    with closing(backend.open()) as store:
        assert_same_pages(restore(store, 0)[0].pages, [make_page(offset=3)])


def test_a_page_without_streams_removes_the_stored_one(backend: Backend) -> None:
    first = [make_page(number=0), make_page(number=1)]
    saved(backend, first, [tombstone(number=0, offset=200)])
    with closing(backend.open()) as store:
        found = restore(store, 0)[0]
        assert found.mark is not None
        assert found.mark.offset == 200
        assert_same_pages(found.pages, [first[1]])
        save(backend, store, [make_page(number=0, offset=300)])
    with closing(backend.open()) as store:
        assert_same_pages(restore(store, 0)[0].pages, [make_page(number=0, offset=300), first[1]])


def test_a_tombstone_of_a_page_that_never_was_is_no_error(backend: Backend) -> None:
    saved(backend, [tombstone(number=4)])
    with closing(backend.open()) as store:
        found = restore(store, 0)[0]
    assert found.mark == Mark(0, 100, 1_700_000_000_000, 5)
    assert list(found.pages) == []


def test_a_mark_alone_moves_on_and_leaves_the_pages(backend: Backend) -> None:
    with closing(backend.open()) as store:
        save(backend, store, [make_page()])
        save(backend, store, [], [Mark(0, 500, 9, 1)])
    with closing(backend.open()) as store:
        found = restore(store, 0)[0]
    assert found.mark == Mark(0, 500, 9, 1)
    assert_same_pages(found.pages, [make_page()])


def test_pages_newer_than_the_mark_come_back_with_the_older_mark(backend: Backend) -> None:
    first = [make_page(number=0), make_page(number=1)]
    newer = [make_page(number=1, offset=300), make_page(number=2, offset=300)]
    with closing(backend.open()) as store:
        save(backend, store, first)
        save(backend, store, newer, [])
    with closing(backend.open()) as store:
        found = restore(store, 0)[0]
    assert found.mark == marks_over(first)[0]
    assert_same_pages(found.pages, [first[0], *newer])


def test_pages_before_the_first_mark_are_no_snapshot(backend: Backend) -> None:
    with closing(backend.open()) as store:
        save(backend, store, [make_page()], [])
    with closing(backend.open()) as store:
        found = restore(store, 0)[0]
    assert (found.mark, list(found.pages)) == (None, [])


def test_the_arrays_may_be_reused_once_staged(backend: Backend) -> None:
    page = make_page()
    with closing(backend.open()) as store:
        store.stage([page], marks_over([page]))
        page.last_ds[:] = 0
        for rows in page.rows.values():
            rows[:] = 0
        backend.commit(store)
        store.commit()
    with closing(backend.open()) as store:
        assert_same_pages(restore(store, 0)[0].pages, [make_page()])


# State that was not committed


def test_nothing_is_visible_before_its_commit(atomic: Backend) -> None:
    saved(atomic, [make_page()])
    with closing(atomic.open()) as store:
        store.stage([make_page(offset=200), make_page(number=1, offset=200)], [Mark(0, 200, 0, 2)])
        found = restore(store, 0)[0]
        assert_same_pages(found.pages, [make_page()])
    with closing(atomic.open()) as store:  # the process died before its commit
        found = restore(store, 0)[0]
        assert found.mark == marks_over([make_page()])[0]
        assert_same_pages(found.pages, [make_page()])


def test_what_is_discarded_is_never_seen_and_does_not_come_with_the_next_commit(atomic: Backend) -> None:
    with closing(atomic.open()) as store:
        save(atomic, store, [make_page()])
        store.stage([make_page(offset=200), make_page(number=1)], [Mark(0, 200, 0, 2)])
        store.discard()
        save(atomic, store, [make_page(number=2)], [])
        store.discard()
    with closing(atomic.open()) as store:
        found = restore(store, 0)[0]
    assert found.mark == marks_over([make_page()])[0]
    assert_same_pages(found.pages, [make_page(), make_page(number=2)])


def test_commit_and_discard_with_nothing_staged_do_nothing(backend: Backend) -> None:
    saved(backend, [make_page()])
    with closing(backend.open()) as store:
        store.commit()
        store.discard()
        assert_same_pages(restore(store, 0)[0].pages, [make_page()])


# Partitions and models


def test_a_partition_that_was_never_stored_restores_to_nothing(backend: Backend) -> None:
    saved(backend, [make_page(partition=1)])
    with closing(backend.open()) as store:
        found = restore(store, 0)[0]
    assert (found.partition, found.mark, list(found.pages)) == (0, None, [])


def test_several_partitions_restore_side_by_side_each_its_own(backend: Backend) -> None:
    pages = {
        partition: [make_page(partition, number, offset=10 * partition + number) for number in range(partition + 1)]
        for partition in range(4)
    }
    saved(backend, [page for number in range(4) for group in pages.values() for page in group[number : number + 1]])
    with closing(backend.open()) as store:
        store.begin_restore(2)
        store.begin_restore(0)
        first = finish(store, 2, 0)
        rest = restore(store, 3, 1)
    for partition, found in (first | rest).items():
        assert found.mark == marks_over(pages[partition])[0]
        assert_same_pages(found.pages, pages[partition])


def test_a_store_for_another_model_neither_sees_nor_touches(backend: Backend) -> None:
    saved(backend, [make_page()])
    with closing(backend.open(OTHER_MODEL)) as other:
        assert restore(other, 0)[0].mark is None
        save(backend, other, [make_page(seed=1), make_page(number=1, seed=1)])
        save(backend, other, [tombstone(number=1)], [])
        assert_same_pages(restore(other, 0)[0].pages, [make_page(seed=1)])
    with closing(backend.open()) as store:
        found = restore(store, 0)[0]
    assert found.mark == marks_over([make_page()])[0]
    assert_same_pages(found.pages, [make_page()])


# Who serves a partition


def claim(backend: Backend, model_id: str, *partitions: int) -> None:
    """Take over partitions for a model, in a process of its own, with a page and a mark."""
    with closing(backend.open(model_id)) as store:
        pages = [make_page(partition) for partition in partitions]
        store.stage(pages, marks_over(pages))
        store.claim(dict.fromkeys(partitions, Claim(model_id)))
        backend.commit(store)
        store.commit()


def test_the_last_claim_is_seen_by_every_models_store(backend: Backend) -> None:
    claim(backend, MODEL, 0, 1)
    claim(backend, OTHER_MODEL, 1)
    for model_id in (MODEL, OTHER_MODEL):
        with closing(backend.open(model_id)) as store:
            found = restore(store, 0, 1, 2)
        assert {number: found[number].claim for number in found} == {0: Claim(MODEL), 1: Claim(OTHER_MODEL), 2: None}


def test_a_claim_says_since_when_and_who_served_before(backend: Backend) -> None:
    said = Claim(MODEL, 1_700_000_000_000, {OTHER_MODEL: Superseded(1_690_000_000_000, 12)})
    with closing(backend.open()) as store:
        store.claim({0: said})
        backend.commit(store)
        store.commit()
    with closing(backend.open(OTHER_MODEL)) as other:
        assert restore(other, 0)[0].claim == said


def test_a_claim_survives_an_erasure(backend: Backend) -> None:
    claim(backend, MODEL, 0)
    with closing(backend.open()) as store:
        store.erase(0)
        backend.commit(store)
        store.commit()
        assert restore(store, 0)[0] == Restored(0, None, [], Claim(MODEL))


def test_a_claim_that_is_discarded_is_never_seen(atomic: Backend) -> None:
    with closing(atomic.open()) as store:
        store.claim({0: Claim(MODEL)})
        store.discard()
        store.commit()
        assert restore(store, 0)[0].claim is None


# Retiring a model that served before


def retire(backend: Backend, model_id: str, before: Superseded, *partitions: int) -> None:
    """Remove the state of `model_id` from a process that serves with `MODEL`, which claims the partitions."""
    with closing(backend.open()) as store:
        for partition in partitions:
            store.retire(partition, model_id, before)
        store.claim(dict.fromkeys(partitions, Claim(MODEL)))
        backend.commit(store)
        store.commit()


def test_a_retired_model_has_nothing_left_of_the_partition_and_the_rest_is_untouched(backend: Backend) -> None:
    own = [make_page(partition, number) for partition in range(2) for number in range(2)]
    with closing(backend.open(OTHER_MODEL)) as other:
        save(backend, other, [make_page(partition, number, seed=1) for partition in range(2) for number in range(3)])
    saved(backend, own)
    retire(backend, OTHER_MODEL, Superseded(0, pages_of(backend)), 0)
    with closing(backend.open(OTHER_MODEL)) as other:
        found = restore(other, 0, 1)
        assert (found[0].mark, list(found[0].pages), found[0].claim) == (None, [], Claim(MODEL))
        assert_same_pages(found[1].pages, [make_page(1, number, seed=1) for number in range(3)])
        save(backend, other, [make_page(offset=7, seed=1)])  # it serves again, like a model without stored state
        assert_same_pages(restore(other, 0)[0].pages, [make_page(offset=7, seed=1)])
    with closing(backend.open()) as store:
        found = restore(store, 0, 1)
        assert_same_pages(found[0].pages, own[:2])
        assert_same_pages(found[1].pages, own[2:])


def pages_of(backend: Backend) -> int:
    """Return how many pages the other model has of partition 0, if a restore has to say it."""
    with closing(backend.open()) as store:
        found = restore(store, 0)[0]
    assert found.others == ({OTHER_MODEL: 3} if isinstance(backend, KafkaBackend) else {})
    return found.others.get(OTHER_MODEL, 0)


def test_to_retire_a_model_that_stored_nothing_is_no_error(backend: Backend) -> None:
    saved(backend, [make_page()])
    retire(backend, OTHER_MODEL, Superseded(0, 2), 0)
    with closing(backend.open()) as store:
        assert_same_pages(restore(store, 0)[0].pages, [make_page()])


def test_a_retirement_that_is_discarded_removes_nothing(atomic: Backend) -> None:
    with closing(atomic.open(OTHER_MODEL)) as other:
        save(atomic, other, [make_page(seed=1)])
    with closing(atomic.open()) as store:
        store.retire(0, OTHER_MODEL, Superseded(0, 1))
        store.discard()
        store.commit()
    with closing(atomic.open(OTHER_MODEL)) as other:
        assert_same_pages(restore(other, 0)[0].pages, [make_page(seed=1)])


def test_damaged_state_of_a_model_that_served_before_can_be_retired(spoilable: SpoilableBackend) -> None:
    saved(spoilable, [make_page(number=number) for number in range(3)])
    spoilable.damage(0, 1)
    with closing(spoilable.open(OTHER_MODEL)) as other:
        other.retire(0, MODEL, Superseded(0, 3))
        spoilable.commit(other)
        other.commit()
    with closing(spoilable.open()) as store:
        assert restore(store, 0)[0] == Restored(0, None, [])


# Erasing


def test_an_erased_partition_restores_to_nothing_and_the_others_are_left(backend: Backend) -> None:
    saved(backend, [make_page(partition, number) for partition in range(2) for number in range(3)])
    with closing(backend.open(OTHER_MODEL)) as other:
        save(backend, other, [make_page(seed=1)])
    with closing(backend.open()) as store:
        store.erase(0)
        backend.commit(store)
        store.commit()
    with closing(backend.open()) as store:
        found = restore(store, 0)[0]
        assert (found.mark, list(found.pages), found.claim) == (None, [], None)
        assert_same_pages(restore(store, 1)[1].pages, [make_page(1, number) for number in range(3)])
        save(backend, store, [make_page(offset=7)])
        assert_same_pages(restore(store, 0)[0].pages, [make_page(offset=7)])
    with closing(backend.open(OTHER_MODEL)) as other:
        assert_same_pages(restore(other, 0)[0].pages, [make_page(seed=1)])


def test_an_erasure_that_is_discarded_erases_nothing(atomic: Backend) -> None:
    saved(atomic, [make_page()])
    with closing(atomic.open()) as store:
        store.erase(0)
        store.discard()
        store.commit()
        assert_same_pages(restore(store, 0)[0].pages, [make_page()])


def test_damaged_state_can_be_erased(spoilable: SpoilableBackend) -> None:
    saved(spoilable, [make_page(number=number) for number in range(3)])
    spoilable.damage(0, 1)
    with closing(spoilable.open()) as store:
        store.erase(0)
        spoilable.commit(store)
        store.commit()
        assert restore(store, 0)[0] == Restored(0, None, [])


def test_to_erase_what_was_never_stored_is_no_error(backend: Backend) -> None:
    with closing(backend.open()) as store:
        store.erase(0)
        backend.commit(store)
        store.commit()
        assert restore(store, 0)[0] == Restored(0, None, [])


# The life of a restore


def test_a_restore_that_was_cancelled_never_comes_and_the_others_do(backend: Backend) -> None:
    saved(backend, [make_page(partition) for partition in range(3)])
    with closing(backend.open()) as store:
        for partition in range(3):
            store.begin_restore(partition)
        store.cancel_restore(1)
        store.cancel_restore(1)
        assert sorted(finish(store, 0, 2)) == [0, 2]
        assert list(store.poll_restore(0.2)) == []
        assert_same_pages(restore(store, 1)[1].pages, [make_page(1)])


def test_cancelling_what_is_not_being_restored_is_no_error(backend: Backend) -> None:
    with closing(backend.open()) as store:
        store.cancel_restore(7)


def test_a_restore_that_is_begun_twice_comes_once_with_the_newest_state(backend: Backend) -> None:
    pages = [make_page(number=number) for number in range(20)]
    saved(backend, pages)
    with closing(backend.open()) as store:
        store.begin_restore(0)
        early = store.poll_restore(0.0)
        store.begin_restore(0)
        found = finish(store, 0)[0]
        assert list(store.poll_restore(0.2)) == []
    for each in [*early, found]:
        assert_same_pages(each.pages, pages)


def test_a_process_that_ends_in_the_middle_of_a_restore_leaves_all_to_the_next(backend: Backend) -> None:
    pages = [make_page(number=number) for number in range(20)]
    saved(backend, pages)
    with closing(backend.open()) as store:
        store.begin_restore(0)
        store.poll_restore(0.0)
    with closing(backend.open()) as store:
        assert_same_pages(restore(store, 0)[0].pages, pages)


def test_a_partition_can_be_restored_again_after_it_was_written(backend: Backend) -> None:
    saved(backend, [make_page(number=number) for number in range(3)])
    with closing(backend.open()) as store:
        restore(store, 0)
        save(backend, store, [make_page(number=1, offset=400)])
        pages = restore(store, 0)[0].pages
    assert_same_pages(pages, [make_page(number=0), make_page(number=1, offset=400), make_page(number=2)])


def test_with_nothing_to_restore_a_poll_returns_at_once(backend: Backend) -> None:
    with closing(backend.open()) as store:
        started, patience_s = time.monotonic(), 120.0
        assert list(store.poll_restore(patience_s)) == []
        assert time.monotonic() - started < patience_s


def test_a_poll_keeps_to_its_time_and_the_restore_goes_on_with_the_next(backend: Backend) -> None:
    pages = [make_page(number=number, unique_ids=tuple(f"{i}" for i in range(PAGE_SLOTS))) for number in range(60)]
    saved(backend, pages)
    with closing(backend.open()) as store:
        store.begin_restore(0)
        found = list(store.poll_restore(0.0))
        assert found == [], "60 pages are more than one poll reads in no time"
        assert_same_pages(finish(store, 0)[0].pages, pages)


def test_fifty_thousand_streams_come_back(backend: Backend) -> None:
    streams = 50_000
    numbers = range(-(-streams // PAGE_SLOTS))
    ids = [
        tuple(f"building-{i}/meter" for i in range(n * PAGE_SLOTS, min(streams, (n + 1) * PAGE_SLOTS))) for n in numbers
    ]
    pages = [make_page(0, number, unique_ids=ids[number]) for number in numbers]
    with closing(backend.open()) as store:
        save(backend, store, pages)
        assert store.bytes_staged > streams * 20
    with closing(backend.open()) as store:
        found = restore(store, 0)[0]
    assert sum(len(page.unique_ids) for page in found.pages) == streams
    assert_same_pages(found.pages, pages)


# Damage and life cycle


def test_a_damaged_page_is_refused_by_name_and_the_other_partitions_come(spoilable: SpoilableBackend) -> None:
    saved(spoilable, [make_page(partition, number) for partition in range(2) for number in range(3)])
    name = spoilable.damage(1, 2)
    with closing(spoilable.open()) as store:
        with pytest.raises(StateError) as refused:
            restore(store, 1)
        assert name in str(refused.value)
        assert_same_pages(restore(store, 0)[0].pages, [make_page(0, number) for number in range(3)])


def test_what_is_staged_is_counted(backend: Backend) -> None:
    with closing(backend.open()) as store:
        assert store.bytes_staged == 0
        save(backend, store, [make_page()])
        once = store.bytes_staged
        save(backend, store, [make_page()])
        assert 0 < once < store.bytes_staged


def test_a_store_may_be_closed_twice(backend: Backend) -> None:
    store = backend.open()
    save(backend, store, [make_page()])
    store.begin_restore(0)
    store.close()
    store.close()
