"""What the docs say of settings, clauses, reasons and commands is what the code has."""

from __future__ import annotations

import re

import pytest

from rillcast import cli
from rillcast.bundle.bundle import BundleMetadata, Status
from rillcast.cli.entry import COMMANDS
from rillcast.codecs.observations.rejections import Reason
from rillcast.settings import Settings, setting_paths
from tests.support.paths import ROOT

DOCS = ROOT / "docs"


def test_settings_page_has_every_setting() -> None:
    text = (DOCS / "settings.md").read_text()  # tests/unit/deploy/test_generated.py holds its text
    for path in setting_paths(Settings):
        assert f"| `{path}` |" in text, path


def test_every_clause_that_the_loader_raises_is_documented() -> None:
    sources = [f"bundle/{name}.py" for name in ("bundle", "contract", "sequence", "onnx_safety", "state_access")]
    loader = "".join((ROOT / "pipeline" / "rillcast" / name).read_text() for name in [*sources, "engine/dry_run.py"])
    raised = set(re.findall(r'BundleError\(\s*"([a-z0-9-]+)"', loader))
    raised |= {"inputs", "outputs"}  # built from the kind of tensor
    table = (DOCS / "bundle.md").read_text().split("## Clauses")[1].split("## How the state")[0]
    documented = {
        c
        for line in table.splitlines()
        if line.startswith("| `")
        for c in re.findall(r"`([a-z-]+)`", line.split("|")[1])
    }
    assert documented == raised


def test_metadata_status_and_reasons_are_documented() -> None:
    bundle, records = (DOCS / "bundle.md").read_text(), (DOCS / "records.md").read_text()
    for name in BundleMetadata.model_fields:
        assert f"`{name}`" in bundle, name
    for status in Status:
        assert f"| `{status.name.lower()}` |" in records
        assert f"{int(status)} {status.name.lower().replace('_', ' ')}" in bundle
    for reason in Reason:
        assert f"`{reason.value}`" in records, reason


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert f"rillcast {command}" in capsys.readouterr().out.split("example")[1]


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_files_that_the_docs_name_exist() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]:
        for name in re.findall(r"`((?:pipeline|training|tests|docs|deploy)/[\w./-]+?\.\w+)`", page.read_text()):
            assert (ROOT / name).exists(), f"{page.relative_to(ROOT)} names {name}"


def test_every_page_says_for_whom_it_is() -> None:
    """Except the home page, decisions, and the runbooks, which have a head of their own."""
    for page in DOCS.rglob("*.md"):
        if page == DOCS / "index.md" or page.parent.name in ("adr", "runbooks"):
            continue
        head = page.read_text().split("\n")[2]
        assert re.match(r"\*For .+\.\*$|This page is for ", head), f"{page.relative_to(ROOT)}: {head!r}"


def test_the_picture_of_the_live_page_is_small_and_shown() -> None:
    picture = DOCS / "live-page.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 200_000  # `make picture` keeps it so
    assert "](docs/live-page.png)" in (ROOT / "README.md").read_text()
    assert "](live-page.png)" in (DOCS / "index.md").read_text()
