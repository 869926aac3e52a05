"""A state store in a directory, for embedded use or a volume of its own.

    <path>/<model id>/lock                      held by the process that uses it
    <path>/<model id>/<partition>/manifest      names the current pages, and the mark
    <path>/<model id>/<partition>/<page>.<generation>
    <path>/serving/<partition>                  names the model that serves it: one file for all models
    <path>/models.<table>/...                   the same, of a table of `[[models]]`

Owns: these files and the order in which they are written. Does not know: the content of a page, or the transport whose
commits it follows.

Invariants: a file is complete and on the disk before a manifest names it, and is never changed afterwards. The manifest
is replaced in one step, so a crash at any point leaves a partition's whole old snapshot or its whole new one. Files
that the manifest does not name come from a crash; they are never read, and are removed.

The transport commits first and the manifest is replaced afterwards. A crash between the two leaves the previous
snapshot, whose mark is older: the replay is longer and ends in the same state. So a page is never visible before its
commit, and a crash costs at most time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rillcast.engine.pages import Page
from rillcast.errors import InUseError, TransportError
from rillcast.outputs import acquire
from rillcast.stores.base import Claim, Mark, Restored, Superseded
from rillcast.stores.format.framing import damaged
from rillcast.stores.format.pages import PageCodec, decode_claim
from rillcast.stores.manifest import MANIFEST, Manifest, page_file

log = logging.getLogger(__name__)

LOCK: Final = "lock"
SERVING: Final = "serving"
ROUTE: Final = "models."  # before the name of a table of models, whose state is in a directory of its own
_TEMPORARY: Final = "manifest.new"


@dataclass(slots=True)
class _Staged:
    """The changes of the next commit in one partition; `pages` maps numbers to new generations, None = tombstone."""

    pages: dict[int, int | None] = field(default_factory=dict)
    mark: Mark | None = None
    erased: bool = False


class LocalStore:
    """One model's state in a directory. See `rillcast.stores.base.StateStore` for the contract.

    `poll_restore` reads a page at a time until its time is up, and at least one page. A partition is not written while
    it is being restored.

    Raises:
        TransportError: Another process uses the directory, or it cannot be created.
    """

    def __init__(self, path: Path, codec: PageCodec) -> None:
        self._root = path / codec.model_id
        self._path = path
        self._claims = path / SERVING
        self._claimed: dict[int, Claim] = {}
        self._retired: dict[tuple[int, str], Superseded] = {}
        self._codec = codec
        self._manifests: dict[int, Manifest] = {}
        self._staged: dict[int, _Staged] = {}
        self._loading: dict[int, Iterator[Restored | None]] = {}
        self._bytes = 0
        self._lock: int | None = _locked(self._root)

    def begin_restore(self, partition: int) -> None:
        """Start loading a partition; it is loaded as it is stored at the first poll."""
        self._live()
        self._loading[partition] = self._load(partition)

    def poll_restore(self, timeout_s: float) -> Sequence[Restored]:
        """Read pages for about `timeout_s` and return the partitions that became complete.

        Raises:
            StateError: A file is damaged, missing or foreign.
            TransportError: The directory cannot be read.
        """
        self._live()
        deadline = time.monotonic() + timeout_s
        done: list[Restored] = []
        while self._loading:
            partition, steps = self._loading.popitem()  # a step that fails ends the restore
            if (restored := next(steps)) is None:
                self._loading[partition] = steps
            else:
                done.append(restored)
            if time.monotonic() >= deadline:
                break
        return done

    def cancel_restore(self, partition: int) -> None:
        """Stop loading a partition."""
        self._loading.pop(partition, None)

    def stage(self, pages: Sequence[Page], marks: Sequence[Mark]) -> None:
        """Write the pages to new files, durable but not current yet.

        Raises:
            TransportError: The directory cannot be written.
            StateError: The partition's manifest is damaged.
        """
        self._live()
        for page in pages:
            generation = self._write(page)
            self._staged.setdefault(page.partition, _Staged()).pages[page.number] = generation
        for mark in marks:
            self._staged.setdefault(mark.partition, _Staged()).mark = mark

    def claim(self, claims: Mapping[int, Claim]) -> None:
        """Write with the next commit that this model serves these partitions; the claims follow the manifests."""
        self._live()
        self._claimed |= claims

    def retire(self, partition: int, model_id: str, before: Superseded) -> None:
        """Remove with the next commit another model's state of a partition, unless a process has that model open."""
        self._live()
        self._retired[partition, model_id] = before

    def erase(self, partition: int) -> None:
        """Remove a partition with the next commit; its stored state need not be readable."""
        self._live()
        self._staged[partition] = _Staged(erased=True)

    def commit(self) -> None:
        """Make the staged changes current, partition by partition.

        Raises:
            TransportError: The directory cannot be written; each partition has its old snapshot or its new one.
        """
        self._live()
        while self._staged:
            partition, staged = next(iter(self._staged.items()))
            if staged.erased:
                self._remove_manifest(partition)
                del self._staged[partition]
                self._sweep(partition)
                continue
            following = self._manifest(partition).following(staged.pages, staged.mark)
            # Removed from memory first: if anything fails from here on, only the disk knows which one is current.
            del self._manifests[partition]
            self._replace_manifest(partition, following)
            self._manifests[partition] = following
            del self._staged[partition]
            self._sweep(partition)
        while self._retired:
            (partition, model_id), before = next(iter(self._retired.items()))
            if not self._remove_other(partition, model_id) and (claim := self._claimed.get(partition)) is not None:
                stays = {**claim.before, model_id: before}  # the next restore of the partition tries it again
                self._claimed[partition] = dataclasses.replace(claim, before=stays)
            del self._retired[partition, model_id]
        while self._claimed:
            partition, claim = next(iter(self._claimed.items()))
            self._write_claim(partition, claim)
            del self._claimed[partition]

    def discard(self) -> None:
        """Drop the staged changes."""
        self._claimed.clear()
        self._retired.clear()
        staged, self._staged = self._staged, {}
        for partition in (number for number, each in staged.items() if not each.erased):
            self._manifest(partition)
            self._sweep(partition)

    @property
    def bytes_staged(self) -> int:
        """Bytes of pages written to files since the store was opened."""
        return self._bytes

    def close(self) -> None:
        """Release the directory."""
        lock, self._lock = self._lock, None
        self._loading.clear()
        self._staged.clear()
        self._claimed.clear()
        self._retired.clear()
        if lock is not None:
            os.close(lock)

    def _live(self) -> None:
        if self._lock is None:
            raise TransportError(f"state store {self._root} is closed")

    def _folder(self, partition: int) -> Path:
        return self._root / str(partition)

    def _manifest(self, partition: int) -> Manifest:
        """Return the current manifest; the first time, read it and remove files that a crash left next to it."""
        if (known := self._manifests.get(partition)) is not None:
            return known
        manifest = Manifest.read(self._folder(partition), self._codec.model_id, partition)
        self._manifests[partition] = manifest
        self._sweep(partition)
        return manifest

    def _load(self, partition: int) -> Iterator[Restored | None]:
        """Yield None after each page, then the whole partition."""
        manifest = self._manifest(partition)
        pages: list[Page] = []
        for number, generation in sorted(manifest.pages.items()):
            pages.append(read_page(self._folder(partition), self._codec, partition, number, generation))
            yield None
        yield Restored(partition, manifest.mark, pages if manifest.mark is not None else [], self._claim_of(partition))

    def _claim_of(self, partition: int) -> Claim | None:
        path = self._claims / str(partition)
        with _errors_at(self._claims):
            try:
                return decode_claim(path.read_bytes(), partition, str(path))
            except FileNotFoundError:
                return None

    def _write_claim(self, partition: int, claim: Claim) -> None:
        path = self._claims / str(partition)
        temporary = path.with_name(f"{partition}.new")
        with _errors_at(self._claims):
            _make_folder(self._claims)
            _write_durably(temporary, self._codec.encode_claim(partition, claim))
            temporary.replace(path)
            _sync_folder(self._claims)

    def _remove_other(self, partition: int, model_id: str) -> bool:
        """Remove another model's state of a partition, its manifest first; return whether that was possible."""
        root = self._path / model_id
        folder = root / str(partition)
        if not folder.is_dir():
            return True
        try:
            lock = _locked(root)
        except InUseError as error:
            log.warning("partition %d: the state of model %s is kept for now: %s", partition, model_id, error)
            return False
        try:
            with _errors_at(folder):
                (folder / MANIFEST).unlink(missing_ok=True)
                _sync_folder(folder)
                for path in folder.iterdir():
                    path.unlink()
                folder.rmdir()
        finally:
            os.close(lock)
        return True

    def _write(self, page: Page) -> int | None:
        """Write a page to a file of the next generation, which is returned; None for a tombstone, which has no file."""
        generation = self._manifest(page.partition).generation + 1
        data = self._codec.encode(page)
        if data is None:
            return None
        folder = self._folder(page.partition)
        with _errors_at(folder):
            _make_folder(folder)
            _write_durably(folder / page_file(page.number, generation), data)
        self._bytes += len(data)
        return generation

    def _replace_manifest(self, partition: int, manifest: Manifest) -> None:
        folder = self._folder(partition)
        with _errors_at(folder):
            _make_folder(folder)
            _sync_folder(folder)  # the pages' names, before a manifest has them
            _write_durably(folder / _TEMPORARY, manifest.encode(self._codec.model_id, partition))
            (folder / _TEMPORARY).replace(folder / MANIFEST)
            _sync_folder(folder)

    def _remove_manifest(self, partition: int) -> None:
        """Leave no snapshot: pages without a manifest count as left by a crash."""
        folder = self._folder(partition)
        self._manifests.pop(partition, None)
        with _errors_at(folder):
            if folder.is_dir():
                (folder / MANIFEST).unlink(missing_ok=True)
                _sync_folder(folder)
        self._manifests[partition] = Manifest()

    def _sweep(self, partition: int) -> None:
        """Remove the files that neither the manifest nor the next commit names."""
        manifest = self._manifests[partition]
        kept = {page_file(number, generation) for number, generation in manifest.pages.items()} | {MANIFEST}
        staged = self._staged[partition].pages if partition in self._staged else {}
        kept |= {page_file(number, generation) for number, generation in staged.items() if generation is not None}
        folder = self._folder(partition)
        with _errors_at(folder), contextlib.suppress(FileNotFoundError):
            for path in folder.iterdir():
                if path.name not in kept and path.is_file():
                    path.unlink()


def stored_partitions(path: Path, model_id: str) -> list[int]:
    """Return the partitions for which a directory has state of a model; none if there is no such directory."""
    manifests = (path / model_id).glob(f"*/{MANIFEST}")
    return sorted(int(each.parent.name) for each in manifests if each.parent.name.isdigit())


def folder_of(path: Path, route: str) -> Path:
    """Return the directory of a route in one of several models: each table of models has its own below it."""
    return path / f"{ROUTE}{route}" if route else path


def read_page(folder: Path, codec: PageCodec, partition: int, number: int, generation: int) -> Page:
    """Read one page.

    Raises:
        StateError: The file is damaged, missing or foreign.
        TransportError: It cannot be read.
    """
    path = folder / page_file(number, generation)
    with _errors_at(folder):
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise damaged(str(path), "the manifest names this file, which does not exist") from error
    return codec.decode(data, partition, number, str(path))


def _locked(root: Path) -> int:
    """Create `root` if it is missing, and return the descriptor that holds its lock until it is closed."""
    with _errors_at(root):
        _make_folder(root)
        return acquire(
            root / LOCK,
            f"state store {root}",
            "and a directory serves one process at a time; stop that one, give each its own state.path, or keep the "
            "state in Kafka (state.store=kafka)",
        )


def _make_folder(folder: Path) -> None:
    """Create `folder` and its parents, durably."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _errors_at(folder: Path) -> Iterator[None]:
    """Raise errors of the operating system about files below `folder` as `TransportError`."""
    try:
        yield
    except OSError as error:
        raise TransportError(f"state store {folder}: {error.strerror or error} ({error.filename or folder})") from error
