"""The tables of `docs/data.md`: what each input leads to, and the test that shows it."""

from __future__ import annotations

import re

from rillcast.bundle.bundle import Status
from rillcast.settings import Settings
from tests.support.paths import ROOT


def rows(section: str = "") -> list[list[str]]:
    """Return the table of a section (by its heading's first word; "": above all) without its header."""
    text, *sections = (ROOT / "docs" / "data.md").read_text().split("\n## ")
    if section:
        (text,) = (part for part in sections if part.startswith(section))
    lines = [line for line in text.splitlines() if line.startswith("| ")][2:]  # behind the header
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


def codes(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


def statuses(text: str) -> set[str]:
    """Return the statuses of a forecast that a cell names."""
    return codes(text) & {status.name.lower() for status in Status}


def assert_settings_exist(names: set[str]) -> None:
    for name in names:
        section, _, member = name.split(" ")[0].partition(".")
        assert member in type(getattr(Settings(), section)).model_fields, name
