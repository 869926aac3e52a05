"""Completes the documentation site: its menu, its logo, the page of commands, and links that leave `docs/`.

MkDocs calls it (see `hooks` in mkdocs.yml). In the menu, the name of a folder stands for all pages of that folder, and
`more` for all pages that the menu does not name, so a new page is never missing. The page of commands is made from the
parser, so it is never out of date. A link to a file of the repository becomes its name: the site has no such file.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rillcast import cli, observability

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

COMMANDS_PAGE: Final = "cli.md"
LOGO: Final = Path(observability.__file__).parent / "static" / "icon.svg"
MORE: Final = "more"


def commands() -> str:
    """Return the page of all commands, made from their help."""
    parser = cli.parser()
    parts = ["# Commands\n\nAs `rillcast COMMAND --help` prints them.\n"]
    for name, sub in _subparsers(parser).items():
        parts.append(f"## rillcast {name}\n\n```text\n{sub.format_help().rstrip()}\n```\n")
        for action, inner in _subparsers(sub).items():
            parts.append(f"### rillcast {name} {action}\n\n```text\n{inner.format_help().rstrip()}\n```\n")
    return "\n".join(parts)


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    actions = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]  # argparse has no other way
    return {listed.dest: actions[0].choices[listed.dest] for listed in actions[0]._choices_actions} if actions else {}


def menu(nav: list[Any], folder: Path) -> list[Any]:
    """Return the menu of mkdocs.yml with the folders that it names replaced by their pages."""
    named = {path for path in _pages(nav) if path.endswith(".md")}
    folders = {path for path in _pages(nav) if (folder / path).is_dir()}
    everything = {str(path.relative_to(folder)) for path in folder.rglob("*.md")}
    listed = {path for path in everything if path.split("/")[0] in folders}
    filled: list[Any] = []
    for entry in nav:
        ((title, value),) = entry.items()
        if isinstance(value, list):
            filled.append({title: menu_section(value, folder)})
        elif value == MORE:
            left = sorted(everything - named - listed)
            filled += [{title: left}] if left else []
        else:
            filled += menu_section([entry], folder)
    return filled


def menu_section(entries: list[Any], folder: Path) -> list[Any]:
    """Return a section with its folders replaced by their pages, the folder's `index.md` first."""
    filled: list[Any] = []
    for entry in entries:
        ((title, value),) = entry.items()
        if (folder / value).is_dir():
            pages = sorted((folder / value).glob("*.md"), key=lambda path: (path.name != "index.md", path.name))
            filled.append({title: [str(path.relative_to(folder)) for path in pages]})
        else:
            filled.append(entry)
    return filled


def _pages(nav: list[Any]) -> Iterator[str]:
    for entry in nav:
        for value in entry.values():
            if isinstance(value, list):
                yield from _pages(value)
            else:
                yield value


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the menu."""
    config.nav = menu(config.nav or [], Path(config.docs_dir))
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the page of commands, and the icon of the live page as the logo."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, COMMANDS_PAGE, content=commands()))
    files.append(File.generated(config, LOGO.name, abs_src_path=str(LOGO)))
    return files


# mkdocs calls it with these names.
def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Turn links to files outside of the documentation into their names."""
    depth = page.file.src_uri.count("/")
    up = "../" * (depth + 1)
    return re.sub(rf"\[([^\]]+)\]\({re.escape(up)}([^)#]+)[^)]*\)", r"\1 (`\2`)", markdown)
