"""The documentation site builds without a warning, and every page and command is in it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.docs_site import LOGO, menu
from rillcast.cli.entry import COMMANDS
from tests.support.paths import ROOT

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_becomes_one_of_the_site(site: Path) -> None:
    for page in DOCS.rglob("*.md"):
        assert (site / page.relative_to(DOCS)).with_suffix(".html").is_file(), page


def test_every_command_explains_itself(site: Path) -> None:
    text = (site / "cli.html").read_text()
    for command in COMMANDS:
        assert f"rillcast {command}" in text


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    page = (site / "index.html").read_text()
    assert "fonts.googleapis" not in page


def test_the_site_has_the_logo_and_the_colours_of_the_live_page(site: Path) -> None:
    page = (site / "index.html").read_text()
    assert 'src="icon.svg" alt="logo"' in page
    assert 'rel="icon" href="icon.svg"' in page
    assert (site / "icon.svg").read_bytes() == LOGO.read_bytes()
    colours = set(re.findall(r"#[0-9a-f]{6}\b", (site / "brand.css").read_text())) - {"#081f26"}  # a darker ground
    ours = "".join(path.read_text() for path in (LOGO, LOGO.with_name("page.css")))
    assert colours <= set(re.findall(r"#[0-9a-f]{6}\b", ours))
    assert "brand.css" in page


def test_a_page_that_the_menu_does_not_name_is_in_it_all_the_same(tmp_path: Path) -> None:
    for name in ("index.md", "new.md", "folder/b.md", "folder/index.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    nav = [{"Home": "index.md"}, {"Section": [{"Folder": "folder"}]}, {"More": "more"}]
    assert menu(nav, tmp_path) == [
        {"Home": "index.md"},
        {"Section": [{"Folder": ["folder/index.md", "folder/b.md"]}]},
        {"More": ["new.md"]},
    ]
