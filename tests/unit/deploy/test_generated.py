"""Files under `deploy/` that are made from others are what their sources make today."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.generate import HERE, files


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(HERE.parent)))
def test_a_made_file_is_up_to_date(path: Path) -> None:
    assert path.read_text() == files()[path], "run `python -m deploy.generate`"
