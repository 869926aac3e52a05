"""A state store in memory, pages to store, and restoring with a deadline, for tests of stores.

A `Shelf` outlives a process; a `MemoryStore` is one process's access to it. It keeps the contract of
`rillcast.stores.base`, with hooks that fail where a test says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from rillcast.arrays import AnyArray
from rillcast.bundle.bundle import StateSpec
from rillcast.engine.pages import Page
from rillcast.settings import KafkaSettings
from rillcast.stores.base import Claim, Mark, Restored, StateStore, Superseded
from rillcast.transports.kafka.common.partition_reader import PartitionReader
from tests.support.toy import toy_bundle
from tests.support.transports import client_named

DEADLINE_S: Final = 30.0
TOY_ID: Final = toy_bundle().metadata.model_id
SPECS: Final = (
    StateSpec(name="h", dtype="float32", row_shape=(2, 4)),
    StateSpec(name="count", dtype="int64", row_shape=(1,)),
)


@dataclass
class Shelf:
    """Stored pages that are not tombstones and marks, by model id and partition; and which model serves a partition."""

    pages: dict[tuple[str, int], dict[int, Page]] = field(default_factory=dict)
    marks: dict[tuple[str, int], Mark] = field(default_factory=dict)
    claims: dict[int, Claim] = field(default_factory=dict)  # by partition, for all models

    @property
    def serving(self) -> dict[int, str]:
        return {partition: claim.model_id for partition, claim in self.claims.items()}


class MemoryStore:
    """Keeps state on a `Shelf`. A restore takes `polls_per_restore` calls of `poll_restore`."""

    def __init__(self, shelf: Shelf, model_id: str = TOY_ID, *, polls_per_restore: int = 1) -> None:
        self._shelf = shelf
        self._model_id = model_id
        self._polls = polls_per_restore
        self._loading: dict[int, tuple[int, Restored]] = {}  # partition -> polls to go, what it will return
        self._staged: list[Page | Mark | int] = []  # an int: erase this partition
        self._claimed: dict[int, Claim] = {}
        self._retired: list[tuple[str, int]] = []
        self._bytes = 0
        self.fail_stage: Callable[[], None] = lambda: None
        self.fail_restore: Callable[[int], None] = lambda _partition: None
        self.restores: list[int] = []  # partitions, in the order in which restores began
        self.closed = 0

    def begin_restore(self, partition: int) -> None:
        self.restores.append(partition)
        where = self._model_id, partition
        mark = self._shelf.marks.get(where)
        pages = self._shelf.pages.get(where, {}) if mark is not None else {}
        found = Restored(
            partition, mark, [copied(page) for _, page in sorted(pages.items())], self._shelf.claims.get(partition)
        )
        self._loading[partition] = self._polls, found

    def poll_restore(self, timeout_s: float) -> Sequence[Restored]:
        done: list[Restored] = []
        for partition, (polls, found) in list(self._loading.items()):
            self.fail_restore(partition)
            if polls > 1:
                self._loading[partition] = polls - 1, found
            else:
                del self._loading[partition]
                done.append(found)
        return done

    def cancel_restore(self, partition: int) -> None:
        self._loading.pop(partition, None)

    def stage(self, pages: Sequence[Page], marks: Sequence[Mark]) -> None:
        self.fail_stage()
        self._staged += [copied(page) for page in pages]
        self._staged += marks
        self._bytes += sum(row.nbytes for page in pages for row in page.rows.values())

    def claim(self, claims: Mapping[int, Claim]) -> None:
        self._claimed |= claims

    def retire(self, partition: int, model_id: str, before: Superseded) -> None:
        self._retired.append((model_id, partition))

    def erase(self, partition: int) -> None:
        self._staged.append(partition)

    def commit(self) -> None:
        staged, self._staged = self._staged, []
        for item in staged:
            if isinstance(item, int):
                self._shelf.marks.pop((self._model_id, item), None)
                self._shelf.pages.pop((self._model_id, item), None)
                continue
            where = self._model_id, item.partition
            if isinstance(item, Mark):
                self._shelf.marks[where] = item
            elif any(item.unique_ids):
                self._shelf.pages.setdefault(where, {})[item.number] = item
            else:
                self._shelf.pages.setdefault(where, {}).pop(item.number, None)
        for where in self._retired:
            self._shelf.marks.pop(where, None)
            self._shelf.pages.pop(where, None)
        self._retired.clear()
        self._shelf.claims |= self._claimed
        self._claimed.clear()

    def discard(self) -> None:
        self._staged.clear()
        self._claimed.clear()
        self._retired.clear()

    @property
    def bytes_staged(self) -> int:
        return self._bytes

    def close(self) -> None:
        self._staged.clear()
        self._loading.clear()
        self.closed += 1


def copied(page: Page) -> Page:
    """Return a page with its own arrays, its free slots zeroed as every store returns them."""
    taken = np.array([bool(unique_id) for unique_id in page.unique_ids], dtype=bool)

    def masked(rows: AnyArray) -> AnyArray:
        rows = rows.copy()
        rows[~taken] = 0
        return rows

    return replace(
        page,
        last_ds=masked(page.last_ds),
        rows={name: masked(rows) for name, rows in page.rows.items()},
    )


def make_page(
    partition: int = 0,
    number: int = 0,
    offset: int = 100,
    unique_ids: Sequence[str] = ("a", "b", "c"),
    seed: int = 0,
    specs: Sequence[StateSpec] = SPECS,
) -> Page:
    """Return a page with rows that depend on all of the arguments; free slots are zero."""
    rng = np.random.default_rng([seed, partition, number, offset])
    count = len(unique_ids)
    rows = {spec.name: (100 * rng.standard_normal((count, *spec.row_shape))).astype(spec.numpy_dtype) for spec in specs}
    last_ds = rng.integers(1_600_000_000_000, 1_700_000_000_000, count, dtype=np.int64)
    return copied(Page(partition, number, offset, tuple(unique_ids), last_ds, rows))


def tombstone(partition: int = 0, number: int = 0, offset: int = 100, specs: Sequence[StateSpec] = SPECS) -> Page:
    """Return a page without streams."""
    return make_page(partition, number, offset, (), specs=specs)


def restore(store: StateStore, *partitions: int, timeout_s: float = 0.05) -> dict[int, Restored]:
    """Restore `partitions` from the beginning and return all of it."""
    for partition in partitions:
        store.begin_restore(partition)
    return finish(store, *partitions, timeout_s=timeout_s)


def finish(store: StateStore, *partitions: int, timeout_s: float = 0.05) -> dict[int, Restored]:
    """Poll until the restores of `partitions`, begun before, are complete; no other may become complete."""
    done: dict[int, Restored] = {}
    deadline = time.monotonic() + DEADLINE_S
    while set(partitions) - set(done):
        assert time.monotonic() < deadline, f"restored {sorted(done)} of {partitions} after {DEADLINE_S:g} s"
        for restored in store.poll_restore(timeout_s):
            assert restored.partition in partitions
            assert restored.partition not in done
            done[restored.partition] = restored
    return done


def save(
    store: StateStore,
    pages: Sequence[Page],
    marks: Sequence[Mark] | None = None,
    commit: Callable[[], None] = lambda: None,
) -> None:
    """Stage, commit as the transport does, and tell the store.

    Args:
        store: where to.
        pages: what.
        marks: by default one per partition over all of its `pages`.
        commit: the transport's commit.
    """
    store.stage(pages, marks_over(pages) if marks is None else marks)
    commit()
    store.commit()


def marks_over(pages: Sequence[Page]) -> list[Mark]:
    """Return one mark per partition, at its lowest page offset and over its highest page number."""
    by_partition: dict[int, list[Page]] = {}
    for page in pages:
        by_partition.setdefault(page.partition, []).append(page)
    return [
        Mark(partition, min(p.offset for p in group), 1_700_000_000_000, max(p.number for p in group) + 1)
        for partition, group in by_partition.items()
    ]


def assert_same_pages(actual: Sequence[Page], expected: Sequence[Page]) -> None:
    """Compare bit by bit, in any order."""
    by_number: Mapping[int, Page] = {page.number: page for page in actual}
    assert len(by_number) == len(actual), "a page number came twice"
    assert sorted(by_number) == sorted(page.number for page in expected)
    for want in expected:
        have = by_number[want.number]
        assert (have.partition, have.offset, have.unique_ids) == (want.partition, want.offset, want.unique_ids)
        assert have.last_ds.dtype == np.int64
        np.testing.assert_array_equal(have.last_ds, want.last_ds)
        assert list(have.rows) == list(want.rows)
        for name, rows in want.rows.items():
            assert (have.rows[name].dtype, have.rows[name].shape) == (rows.dtype, rows.shape)
            assert have.rows[name].tobytes() == rows.tobytes(), f"rows {name} of page {want.number}"


def topic_reader(client: str, settings: KafkaSettings, topic: str) -> PartitionReader:
    """Return a reader of a state topic with the named client."""
    return client_named(client).partition_reader(settings, topic, 20)
