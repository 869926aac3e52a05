from __future__ import annotations

import os
from pathlib import Path

import pytest

from rillcast.settings import deprecated


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, an environment without our variables, and no warning that was given before."""
    for name in list(os.environ):
        if name.startswith("RILLCAST_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    deprecated._warn.cache_clear()
    return tmp_path
