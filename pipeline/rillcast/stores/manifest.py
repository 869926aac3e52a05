"""The manifest of one partition in the local store: its current pages, and the mark.

Owns: its contents, its stored form and its place. Does not know: when it is replaced (`rillcast.stores.local`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from rillcast.engine.pages import Arrivals, Silence
from rillcast.errors import TransportError
from rillcast.stores.base import Mark
from rillcast.stores.format.framing import foreign, seal, unseal

MANIFEST: Final = "manifest"


class _Header(msgspec.Struct, frozen=True, tag="manifest"):
    model_id: str
    partition: int
    generation: int
    pages: dict[int, int]
    mark: tuple[int, int, int] | None  # offset, watermark_ms, pages
    arrivals: tuple[int, int] = Arrivals()  # of the mark
    silences: tuple[tuple[int, int], ...] = ()  # of the mark


@dataclass(frozen=True, slots=True)
class Manifest:
    """The current snapshot of a partition.

    Attributes:
        generation: Number of times that the manifest was replaced.
        pages: By page number, the generation of the page's file; a tombstone has none.
        mark: The mark; None until the first snapshot is complete.
    """

    generation: int = 0
    pages: Mapping[int, int] = field(default_factory=dict)
    mark: Mark | None = None

    @classmethod
    def read(cls, folder: Path, model_id: str, partition: int) -> Manifest:
        """Read the manifest in `folder`; a missing one is empty.

        Raises:
            StateError: It is damaged, or belongs to another model or partition.
            TransportError: It cannot be read.
        """
        path = folder / MANIFEST
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise TransportError(f"state store {path}: {error.strerror or error}") from error
        header, _ = unseal(data, _Header, str(path))
        for what, found, expected in [
            ("model", header.model_id, model_id), ("partition", header.partition, partition)
        ]:  # fmt: skip
            if found != expected:
                raise foreign(str(path), what, found, expected)
        silences = tuple(Silence(*each) for each in header.silences)
        mark = None if header.mark is None else Mark(partition, *header.mark, Arrivals(*header.arrivals), silences)
        return cls(header.generation, header.pages, mark)

    def encode(self, model_id: str, partition: int) -> bytes:
        """Return its stored form."""
        mark = None if self.mark is None else (self.mark.offset, self.mark.watermark_ms, self.mark.pages)
        arrivals = Arrivals() if self.mark is None else self.mark.arrivals
        silences = () if self.mark is None else self.mark.silences
        return seal(_Header(model_id, partition, self.generation, dict(self.pages), mark, arrivals, silences))

    def following(self, pages: Mapping[int, int | None], mark: Mark | None) -> Manifest:
        """Return the manifest after a commit of `pages` (number to generation, None = tombstone) and `mark`."""
        merged = {**self.pages, **pages}
        current = {number: generation for number, generation in merged.items() if generation is not None}
        return Manifest(self.generation + 1, current, mark or self.mark)


def page_file(number: int, generation: int) -> str:
    """Return the name of the file of a page."""
    return f"{number}.{generation}"
