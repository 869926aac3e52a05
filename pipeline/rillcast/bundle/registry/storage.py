"""Where a registry's objects lie: a folder, or an object store through fsspec.

Owns: reading an object whole, listing a prefix, and *creating* an object: it appears with all of its bytes or not at
all, and never in place of another. Does not know: what the objects are (`rillcast.bundle.registry.model_registry`).

Invariant: there is no way to change or delete an object. Keys are relative, in `/`-separated parts of
`[A-Za-z0-9._-]`, none of which begins with a dot.
"""

from __future__ import annotations

import errno
import os
import re
import uuid
from pathlib import Path
from typing import Any, Final, Protocol

from rillcast.errors import RegistryError, RegistryUnreachableError, SettingsError

_KEY: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_FILE_SCHEME: Final = "file://"
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


class Storage(Protocol):
    """Objects by key. `where` is the address as it was given, for messages."""

    where: str

    def read(self, key: str, max_bytes: int) -> bytes | None:
        """Return an object; None = there is none.

        Raises:
            RegistryError: it is larger than `max_bytes`; nothing was read.
            RegistryUnreachableError: the storage does not answer.
        """

    def create(self, key: str, data: bytes) -> bool:
        """Make an object; False = there is one already, which stays as it is.

        Raises:
            RegistryUnreachableError: the storage does not answer, or does not allow it.
        """

    def names(self, prefix: str) -> list[str]:
        """Return what comes behind `prefix/` in the keys, up to the next `/`, sorted.

        Raises:
            RegistryUnreachableError: the storage does not answer.
        """


def open_storage(where: str) -> Storage:
    """Return the storage at an address: a folder, `file:///folder`, or `scheme://...` of any fsspec file system.

    Raises:
        SettingsError: the address cannot be used, or fsspec or the package behind the scheme is not installed.
    """
    if where.startswith(_FILE_SCHEME):
        return Folder(Path(where.removeprefix(_FILE_SCHEME)), where)
    if "://" not in where:
        return Folder(Path(where), where)
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError as error:
        raise SettingsError(f"{where}: needs fsspec: pip install 'rillcast[object-store]', or name a folder") from error
    try:
        file_system, root = url_to_fs(where)
    except (ImportError, ValueError) as error:  # its messages name the package, or the schemes that there are
        raise SettingsError(f"registry {where}: {error}") from error
    return ObjectStore(file_system, str(root), where)


class Folder:
    """A folder of this machine or of a mounted volume; made by the first object."""

    def __init__(self, root: Path, where: str) -> None:
        self.where = where
        self._root = root

    def read(self, key: str, max_bytes: int) -> bytes | None:
        """See `Storage.read`."""
        path = self._path(key)
        try:
            _require_size(self.where, key, path.stat().st_size, max_bytes)
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unreachable(error) from error

    def create(self, key: str, data: bytes) -> bool:
        """See `Storage.create`. A hard link is what makes it whole and exclusive at once."""
        path = self._path(key)
        written = path.with_name(f".{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with written.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                path.hardlink_to(written)
            finally:
                written.unlink(missing_ok=True)
            _sync_directory(path.parent)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in _NO_LINKS:
                raise RegistryError(
                    f"registry {self.where}: the file system cannot make hard links ({error.strerror}), without which "
                    f"two promotions at once could overwrite each other; use another volume or an object store"
                ) from error
            raise self._unreachable(error) from error
        return True

    def names(self, prefix: str) -> list[str]:
        """See `Storage.names`."""
        try:
            return sorted(one.name for one in self._path(prefix).iterdir() if not one.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._unreachable(error) from error

    def _path(self, key: str) -> Path:
        assert _KEY.fullmatch(key), key
        return self._root / key

    def _unreachable(self, error: OSError) -> RegistryUnreachableError:
        return RegistryUnreachableError(f"registry {self.where}: {error.strerror or error} ({error.filename})")


class ObjectStore:
    """A store behind fsspec. Creating is as exclusive as its `mode="create"`, which S3 and GCS do by a condition."""

    def __init__(self, file_system: Any, root: str, where: str) -> None:
        self.where = where
        self._fs, self._root = file_system, root.rstrip("/")

    def read(self, key: str, max_bytes: int) -> bytes | None:
        """See `Storage.read`."""
        path = self._path(key)
        try:
            size = self._fs.info(path)["size"]
            _require_size(self.where, key, size, max_bytes)
            return bytes(self._fs.cat_file(path))
        except FileNotFoundError:
            return None
        except RegistryError:
            raise
        except Exception as error:  # each store raises types of its own
            raise self._unreachable(error) from error

    def create(self, key: str, data: bytes) -> bool:
        """See `Storage.create`."""
        path = self._path(key)
        try:
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except Exception as error:  # each store raises types of its own
            raise self._unreachable(error) from error
        return True

    def names(self, prefix: str) -> list[str]:
        """See `Storage.names`."""
        try:
            self._fs.invalidate_cache()  # others write too
            found = self._fs.ls(self._path(prefix), detail=False)
        except FileNotFoundError:
            return []
        except Exception as error:  # each store raises types of its own
            raise self._unreachable(error) from error
        return sorted(name for one in found if (name := str(one).rstrip("/").rpartition("/")[2]))

    def _path(self, key: str) -> str:
        assert _KEY.fullmatch(key), key
        return f"{self._root}/{key}"

    def _unreachable(self, error: Exception) -> RegistryUnreachableError:
        return RegistryUnreachableError(
            f"registry {self.where}: {type(error).__name__}: {error}; is the address right, and do the store's own "
            f"variables (for S3: AWS_ACCESS_KEY_ID and the like, FSSPEC_S3_ENDPOINT_URL) name who asks?"
        )


def _require_size(where: str, key: str, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise RegistryError(f"registry {where}: {key} has {size} bytes, the limit is {max_bytes}; it was not read")


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
