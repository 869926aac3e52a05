"""A partition that is written meanwhile is read whole, as of one commit; damage is found."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from rillcast.engine.pages import Page
from rillcast.errors import StateError
from rillcast.stores import local_snapshot
from rillcast.stores.base import Mark
from rillcast.stores.format.pages import PageCodec
from rillcast.stores.local import LocalStore, read_page
from rillcast.stores.local_snapshot import read_snapshot
from tests.support.stores import SPECS, assert_same_pages, make_page

CODEC = PageCodec("model", SPECS)


def save(store: LocalStore, offset: int, *numbers: int) -> None:
    """Commit pages and a mark, all as of one offset."""
    store.stage([make_page(0, number, offset) for number in numbers], [Mark(0, offset, 0, 3)])
    store.commit()


def test_pages_that_are_replaced_meanwhile_are_read_as_of_one_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, int]] = []
    with closing(LocalStore(tmp_path, CODEC)) as service:
        save(service, 100, 0, 1, 2)

        def reading(folder: Path, codec: PageCodec, partition: int, number: int, generation: int) -> Page:
            if len(read) == 2:  # page 2 is about to be read when the service replaces 1 and 2
                save(service, 200, 1, 2)
            read.append((number, generation))
            return read_page(folder, codec, partition, number, generation)

        monkeypatch.setattr(local_snapshot, "read_page", reading)
        found = read_snapshot(tmp_path, CODEC, 0)
    assert found.mark is not None
    assert found.mark.offset == 200
    assert_same_pages(list(found.pages), [make_page(0, 0, 100), make_page(0, 1, 200), make_page(0, 2, 200)])
    assert read == [(0, 1), (1, 1), (2, 1), (1, 2), (2, 2)], "page 0 is read once"


def test_a_file_that_is_missing_for_good_is_damage(tmp_path: Path) -> None:
    with closing(LocalStore(tmp_path, CODEC)) as service:
        save(service, 100, 0, 1, 2)
        (tmp_path / "model" / "0" / "1.1").unlink()
        with pytest.raises(StateError, match="does not exist"):
            read_snapshot(tmp_path, CODEC, 0)


def test_a_partition_without_a_snapshot_is_empty(tmp_path: Path) -> None:
    assert read_snapshot(tmp_path, CODEC, 3).mark is None
