"""The programs that build and run images, with the base of all images."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.image import base
from tests.image.engine import Engine
from tests.image.images import BASE, OUT
from tests.support.debian import DebianError
from tests.support.long_tests import runs_with


@pytest.fixture(scope="package")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    runs_with("test-image")
    if os.geteuid() != 0:
        pytest.skip("buildah and runc of these tests run as root; sudo make test-image")
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    try:
        engine = Engine(tmp_path_factory.mktemp("engine"), OUT / "build.log")
        context = base.context(tmp_path_factory.mktemp("base"))
    except DebianError as error:
        pytest.skip(f"{error}; make test-image needs buildah, runc and Debian's packages")
    try:
        engine.build(BASE, context)
        yield engine
    finally:
        engine.close()
