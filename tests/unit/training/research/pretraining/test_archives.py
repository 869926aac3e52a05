"""Tables out of wheels and source distributions."""

from __future__ import annotations

import io
import lzma
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest

from rillcast.errors import DataError
from rillcast_training.research.pretraining.archives import Archives

TABLE = b"ds,y\n2024-01-01,1.5\n2024-01-02,NA\n"


@pytest.fixture
def archives(tmp_path: Path) -> Archives:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("inner.csv", TABLE)
    with zipfile.ZipFile(tmp_path / "Some_pack-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("some/table.csv", TABLE)
        archive.writestr("some/table.zip", inner.getvalue())
    with tarfile.open(tmp_path / "other-2.0.tar.gz", "w:gz") as source:
        info = tarfile.TarInfo("other-2.0/data/table.csv")
        info.size = len(TABLE)
        source.addfile(info, io.BytesIO(TABLE))
    return Archives(tmp_path)


@pytest.mark.parametrize(
    ("package", "member"),
    [("some-pack", "some/table.csv"), ("some-pack", "some/table.zip/inner.csv"), ("other", "data/table.csv")],
)
def test_a_table_is_found_in_any_archive(archives: Archives, package: str, member: str) -> None:
    table = archives.csv(package, member)
    assert table.columns == ["ds", "y"]
    assert table["y"].to_list() == [1.5, None]


@pytest.mark.parametrize(
    ("package", "member", "message"),
    [
        ("absent", "table.csv", r"no archive of absent; docs/universal.md has the command"),
        ("some-pack", "some/other.csv", r"Some_pack-1.0-.*: has no some/other.csv"),
        ("other", "data/other.csv", r"other-2.0.tar.gz: has no data/other.csv"),
    ],
)
def test_what_is_not_there_is_named(archives: Archives, package: str, member: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        archives.csv(package, member)


def test_a_pickle_that_names_anything_but_a_table_is_not_run(tmp_path: Path) -> None:
    called = tmp_path / "called"
    with zipfile.ZipFile(tmp_path / "evil-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("table.xz", lzma.compress(pickle.dumps(Touches(str(called)))))
    with pytest.raises(pickle.UnpicklingError, match="is no part of a table"):
        Archives(tmp_path).frame("evil", "table.xz")
    assert not called.exists()


class Touches:
    """Writes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")
