"""Files under `deploy/` that are made from others are what their sources make today."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deploy.generate import ALERTS, HERE, files, linked_to


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(HERE.parent)))
def test_a_made_file_is_up_to_date(path: Path) -> None:
    assert path.read_text() == files()[path], "run `python -m deploy.generate`"


def test_the_alerts_can_link_to_another_documentation_site() -> None:
    for path in ALERTS:
        links = re.findall(r"runbook_url: (\S+)", linked_to(path.read_text(), "https://docs.example.com/x/"))
        assert links
        assert all(re.fullmatch(r"https://docs\.example\.com/x/runbooks/Rillcast\w+\.html", link) for link in links)
