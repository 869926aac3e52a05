"""Arrays on a disk in place of memory, for tables that do not fit.

Owns: files without a name in one folder, and read-only views of what is in them. Does not know: what the arrays are.

The views are of memory maps: the kernel reads a page when somebody looks at it, and forgets it when memory is short.
The files have no name, so nothing stays behind however the process ends.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from rillcast.errors import OutputError

_FILE_BYTES: Final = 1 << 30  # of addresses and of a sparse file; what is not written takes no space
_ALIGNED: Final = 8
_Value = TypeVar("_Value", bound=np.generic)


class Scratch:
    """Keeps arrays in a folder until the process ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[IO[bytes]] = []
        self._map: mmap.mmap | None = None
        self._used = 0

    def keep(self, values: npt.NDArray[_Value]) -> npt.NDArray[_Value]:
        """Write an array, and return a read-only one with the same values that is read from the disk.

        Raises:
            OutputError: the folder does not exist, or cannot be written, or its disk is full.
        """
        data = np.ascontiguousarray(values)
        if not data.nbytes:
            return data
        at = -(-self._used // _ALIGNED) * _ALIGNED
        try:
            if self._map is None or at + data.nbytes > len(self._map):
                at = 0
                self._map = self._begun(max(_FILE_BYTES, data.nbytes))
            _write(self._files[-1].fileno(), data, at)
        except OSError as error:
            raise _refused(self._folder, error) from error
        self._used = at + data.nbytes
        kept: npt.NDArray[_Value] = np.ndarray(data.shape, data.dtype, self._map, at)
        return kept

    def file(self) -> IO[bytes]:
        """Return a new file without a name in the folder.

        Raises:
            OutputError: as `keep`.
        """
        try:
            return tempfile.TemporaryFile(dir=self._folder, buffering=0)
        except OSError as error:
            raise _refused(self._folder, error) from error

    def append(self, file: IO[bytes], data: npt.NDArray[Any]) -> None:
        """Write an array at the end of a file.

        Raises:
            OutputError: as `keep`.
        """
        try:
            _write(file.fileno(), np.ascontiguousarray(data), os.fstat(file.fileno()).st_size)
        except OSError as error:
            raise _refused(self._folder, error) from error

    def _begun(self, size: int) -> mmap.mmap:
        file = self.file()
        file.truncate(size)
        self._files.append(file)
        return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)


def _write(descriptor: int, data: npt.NDArray[Any], at: int) -> None:
    left = data.reshape(-1).view(np.uint8).data
    while left:
        written = os.pwrite(descriptor, left, at)
        left, at = left[written:], at + written


def _refused(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"--scratch {folder}: {error.strerror or error}; name a folder on a disk with more space")
