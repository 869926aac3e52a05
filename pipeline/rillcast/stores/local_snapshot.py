"""The stored state of a directory, read without its lock: another process may be writing it.

Owns: the order in which files are read, so that a partition comes back whole. Does not know: who writes.

A manifest is replaced as a whole, and a page's file is never changed. A writer removes a file only after a manifest
that does not name it is in place. So where a file is gone the manifest has changed: it is read again, and pages that it
still names are not.
"""

from __future__ import annotations

from pathlib import Path

from rillcast.engine.pages import Page
from rillcast.errors import StateError
from rillcast.stores.base import Restored
from rillcast.stores.format.pages import PageCodec
from rillcast.stores.local import read_page
from rillcast.stores.manifest import Manifest


def read_snapshot(path: Path, codec: PageCodec, partition: int) -> Restored:
    """Return the stored state of one partition, without its claim.

    Args:
        path: Directory of a local store.
        codec: Codec of the model's pages.
        partition: Partition of the input.

    Raises:
        StateError: A file is damaged, missing or foreign.
        TransportError: The directory cannot be read.
    """
    folder = path / codec.model_id / str(partition)
    read: dict[tuple[int, int], Page] = {}
    while True:
        manifest = Manifest.read(folder, codec.model_id, partition)
        wanted = sorted(manifest.pages.items())
        read = {key: page for key, page in read.items() if key in wanted}
        try:
            for key in wanted:
                if key not in read:
                    read[key] = read_page(folder, codec, partition, *key)
        except StateError:
            if Manifest.read(folder, codec.model_id, partition) == manifest:
                raise
        else:
            pages = [read[key] for key in wanted]
            return Restored(partition, manifest.mark, pages if manifest.mark is not None else [])
