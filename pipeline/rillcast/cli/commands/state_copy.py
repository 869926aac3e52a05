"""`rillcast state export` and `import`: copy the state of tables of models between the store and a directory.

Owns: which table stands where in the directory: as in a local store, below `models.<table>` where tables have names.
Does not know: how a store is copied (`rillcast.stores.copying`), or how the result is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from rillcast.cli.stored_tables import StoredTable, is_local, nothing, open_stores, topic_partitions
from rillcast.errors import SettingsError
from rillcast.stores.base import Restored
from rillcast.stores.connect import codec_of, directory_of
from rillcast.stores.copying import Copied, copy_state, load
from rillcast.stores.local import LocalStore, folder_of, stored_partitions
from rillcast.stores.local_snapshot import read_snapshot


def _require_stored(directory: Path, tables: Sequence[StoredTable]) -> None:
    """Refuse to import a directory that lacks a table, or has no state at all.

    Raises:
        SettingsError: It says which table, and what to do.
    """
    stored = [stored_partitions(folder_of(directory, each.name), each.metadata.model_id) for each in tables]
    for table in tables:
        known = (folder_of(directory, table.name) / table.metadata.model_id).is_dir()  # exported, perhaps without state
        if not known or not any(stored):
            others = " or import the others one by one with --table" if table.name and len(tables) > 1 else ""
            raise SettingsError(
                f"{directory} has no state of {table}, {table.settings.model}; use the settings of the export{others}"
            )


def import_state(directory: Path, tables: Sequence[StoredTable], *, replace: bool) -> list[list[Copied]]:
    """Copy the state of each table from the directory to the store, and return the partitions of each.

    Raises:
        SettingsError: The directory lacks a table, or has no state at all.
        StateError, TransportError: See `copy_state`.
    """
    _require_stored(directory, tables)
    copied = []
    with ExitStack() as stack:
        stores, commit = open_stores(tables, stack, writing=True)
        for table, store in zip(tables, stores, strict=True):
            folder = folder_of(directory, table.name)
            backup = stack.enter_context(closing(LocalStore(folder, codec_of(table.settings, table.metadata))))
            partitions = stored_partitions(folder, table.metadata.model_id)
            copied.append(list(copy_state(partial(load, backup), store, partitions, commit, replace=replace)))
    return copied


def export_state(directory: Path, tables: Sequence[StoredTable], *, replace: bool) -> list[list[Copied]]:
    """Copy the state of each table from the store, which a service may be using, to the directory.

    Returns:
        The partitions of each table.

    Raises:
        StateError, TransportError: See `copy_state`.
    """
    copied: list[list[Copied]] = []
    read: Callable[[int], Restored]
    with ExitStack() as stack:
        settings = tables[0].settings  # where state is kept is common to all
        stores = [] if is_local(settings) else open_stores(tables, stack, writing=False)[0]
        for number, table in enumerate(tables):
            codec = codec_of(table.settings, table.metadata)
            if stores:
                read, partitions = partial(load, stores[number]), topic_partitions(settings)
            else:  # without its lock
                kept = directory_of(settings, table.name)
                read, partitions = partial(read_snapshot, kept, codec), stored_partitions(kept, table.metadata.model_id)
            backup = stack.enter_context(closing(LocalStore(folder_of(directory, table.name), codec)))
            copied.append(list(copy_state(read, backup, partitions, nothing, replace=replace)))
    return copied
