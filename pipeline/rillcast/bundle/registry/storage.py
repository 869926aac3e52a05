"""Storage of a registry's objects: a folder, or an object store through fsspec.

Owns: how an object is read, created and listed. A created object appears with all its bytes or not at all, and never
replaces another.
Does not know: the meaning of the objects (`rillcast.bundle.registry.model_registry`).
Invariant: no method changes or deletes an object. Keys are relative, in `/`-separated parts of `[A-Za-z0-9._-]`, none
of which begins with a dot.
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
# Stores of buckets and keys. Making a "directory" there makes a bucket, which is an operator's decision.
_WITHOUT_DIRECTORIES: Final = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


class Storage(Protocol):
    """Objects by key. `address` is the address as given, for messages."""

    address: str

    def read(self, key: str, max_bytes: int) -> bytes | None:
        """Return an object; None = there is none.

        Raises:
            RegistryError: The object is larger than `max_bytes`; nothing was read.
            RegistryUnreachableError: The storage does not answer.
        """

    def create(self, key: str, data: bytes) -> bool:
        """Create an object; False = the key is taken, and its object stays unchanged.

        Raises:
            RegistryError: The bucket or container of the address does not exist.
            RegistryUnreachableError: The storage does not answer, or denies the write.
        """

    def names(self, prefix: str) -> list[str]:
        """Return the next part of all keys that begin with `prefix/`, sorted.

        Raises:
            RegistryUnreachableError: The storage does not answer.
        """


def open_storage(address: str) -> Storage:
    """Return the storage at an address: a folder, `file:///folder`, or `scheme://...` of any fsspec file system.

    Raises:
        SettingsError: The address cannot be used, or fsspec or the package for the scheme is not installed.
    """
    if address.startswith(_FILE_SCHEME):
        return Folder(Path(address.removeprefix(_FILE_SCHEME)), address)
    if "://" not in address:
        return Folder(Path(address), address)
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"registry {address} needs fsspec: pip install 'rillcast[object-store]', or name a folder"
        ) from error
    try:
        file_system, root = url_to_fs(address)
    except (ImportError, ValueError) as error:  # its messages name the package, or the known schemes
        raise SettingsError(f"registry {address}: {error}") from error
    return ObjectStore(file_system, str(root), address)


class Folder:
    """A folder of this machine or of a mounted volume; the first object creates it."""

    def __init__(self, root: Path, address: str) -> None:
        self.address = address
        self._root = root

    def read(self, key: str, max_bytes: int) -> bytes | None:
        """See `Storage.read`."""
        path = self._path(key)
        try:
            _require_size(self.address, key, path.stat().st_size, max_bytes)
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unreachable(error) from error

    def create(self, key: str, data: bytes) -> bool:
        """See `Storage.create`. A hard link makes the write atomic and exclusive."""
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
                    f"registry {self.address}: the file system cannot make hard links ({error.strerror}), which keep "
                    f"concurrent promotions apart; use another volume or an object store"
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
        return RegistryUnreachableError(f"registry {self.address}: {error.strerror or error} ({error.filename})")


class ObjectStore:
    """A store behind fsspec. Its `mode="create"` must be exclusive, as S3 and GCS make it with a conditional write."""

    def __init__(self, file_system: Any, root: str, address: str) -> None:
        self.address = address
        self._fs, self._root = file_system, root.rstrip("/")
        self._scheme = address.partition("://")[0]

    def read(self, key: str, max_bytes: int) -> bytes | None:
        """See `Storage.read`."""
        path = self._path(key)
        try:
            size = self._fs.info(path)["size"]
            _require_size(self.address, key, size, max_bytes)
            return bytes(self._fs.cat_file(path))
        except FileNotFoundError:
            return None
        except RegistryError:
            raise
        except Exception as error:  # stores raise unrelated types
            raise self._unreachable(error) from error

    def create(self, key: str, data: bytes) -> bool:
        """See `Storage.create`."""
        path = self._path(key)
        try:
            if self._scheme not in _WITHOUT_DIRECTORIES:
                self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except FileNotFoundError as error:
            raise RegistryError(
                f"registry {self.address}: there is no {path.split('/')[0]} ({error}); create the bucket or container "
                f"with the store's own tools, or correct the address"
            ) from error
        except Exception as error:  # stores raise unrelated types
            raise self._unreachable(error) from error
        return True

    def names(self, prefix: str) -> list[str]:
        """See `Storage.names`."""
        try:
            self._fs.invalidate_cache()  # other processes write too
            found = self._fs.ls(self._path(prefix), detail=False)
        except FileNotFoundError:
            return []
        except Exception as error:  # stores raise unrelated types
            raise self._unreachable(error) from error
        return sorted(name for one in found if (name := str(one).rstrip("/").rpartition("/")[2]))

    def _path(self, key: str) -> str:
        assert _KEY.fullmatch(key), key
        return f"{self._root}/{key}"

    def _unreachable(self, error: Exception) -> RegistryUnreachableError:
        return RegistryUnreachableError(
            f"registry {self.address}: {type(error).__name__}: {error}; check the address, and the store's credentials "
            f"in its own variables (for S3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, FSSPEC_S3_ENDPOINT_URL)"
        )


def _require_size(address: str, key: str, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise RegistryError(f"registry {address}: {key} has {size} bytes, the limit is {max_bytes}; it was not read")


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
