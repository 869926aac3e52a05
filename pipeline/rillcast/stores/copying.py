"""Copies state from one store to another, partition by partition.

Owns: which page replaces which, and that a partition arrives whole. Does not know: which stores they are.

Offsets are those of the input: a copy is useful only with the same input and the same offsets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np

from rillcast.engine.pages import Page
from rillcast.errors import StateError
from rillcast.stores.base import Restored, StateStore

_POLL_S: Final = 0.5


class Copied(NamedTuple):
    """The copied state of one partition; `offset` is that of its mark."""

    partition: int
    offset: int
    pages: int
    streams: int


def copy_state(
    read: Callable[[int], Restored],
    target: StateStore,
    partitions: Iterable[int],
    commit: Callable[[], None],
    *,
    replace: bool,
) -> Iterator[Copied]:
    """Copy partitions that have a complete snapshot, each in one commit, and yield each when it is durable.

    Args:
        read: Returns the stored state of a partition, such as `load` of a store.
        target: Store to write; of the same model.
        partitions: Partitions to copy; one without a snapshot is skipped.
        commit: Commits the target's transport, between the target's `stage` and `commit`.
        replace: Whether existing state of the target may be replaced.

    Raises:
        StateError: The target has state and `replace` is not set, or stored state is damaged.
        TransportError: A store cannot be read or written.
    """
    for partition in partitions:
        found, present = read(partition), load(target, partition)
        if found.mark is None:
            continue
        if present.mark is not None and not replace:
            raise StateError(
                f"partition {partition} of the target already has state as of offset {present.mark.offset}, the copy "
                f"is as of {found.mark.offset}; the partition was not written: use --replace to replace it"
            )
        obsolete = {page.number for page in present.pages} - {page.number for page in found.pages}
        tombstones = [_without_streams(page) for page in present.pages if page.number in obsolete]
        target.stage([*found.pages, *tombstones], [found.mark])
        commit()
        target.commit()
        streams = sum(sum(map(bool, page.unique_ids)) for page in found.pages)
        yield Copied(partition, found.mark.offset, len(found.pages), streams)


def load(store: StateStore, partition: int) -> Restored:
    """Return the stored state of a partition.

    Raises:
        StateError: It is damaged.
        TransportError: It cannot be read.
    """
    store.begin_restore(partition)
    while True:
        for restored in store.poll_restore(_POLL_S):
            return restored


def _without_streams(page: Page) -> Page:
    rows = {name: values[:0] for name, values in page.rows.items()}
    return dataclasses.replace(page, unique_ids=(), last_ds=np.empty(0, np.int64), rows=rows)
