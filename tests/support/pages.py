"""Blocks of pages: Python that is run, with the output in `text` blocks; files with a title; shell commands."""

from __future__ import annotations

import contextlib
import io
import re
import textwrap
from pathlib import Path
from typing import NamedTuple

NUMBER = re.compile(r"[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")
_TITLED = re.compile(r'```\w+ title="([^"]+)"\n(.*?)```\n', re.DOTALL)
_INDENTED = re.compile(r"(?:(?<=\n\n)(?: {4}.*\n)+)")
_BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", re.DOTALL)


class Block(NamedTuple):
    """One Python block, its first line in the page, and the text below it (None = no text)."""

    line: int
    code: str
    shown: str | None


def blocks(page: Path) -> list[Block]:
    """Return the Python blocks of a page in order."""
    text = page.read_text()
    return [Block(text[: m.start()].count("\n") + 2, m[1], m[2]) for m in _BLOCK.finditer(text)]


def run(page: Path) -> list[tuple[Block, str]]:
    """Run the blocks in order in one namespace; return each with its output."""
    namespace: dict[str, object] = {"__name__": "page"}
    found = []
    for block in blocks(page):
        printed = io.StringIO()
        padded = "\n" * (block.line - 1) + block.code  # so that a traceback names the page's line
        with contextlib.redirect_stdout(printed):
            exec(compile(padded, str(page), "exec"), namespace)  # noqa: S102 - our own page
        found.append((block, printed.getvalue()))
    return found


def words(text: str) -> list[str]:
    """Return the text's words with every number replaced, line by line."""
    return [" ".join(NUMBER.sub("#", line).split()) for line in text.splitlines()]


def numbers(text: str) -> list[float]:
    """Return the text's numbers in order."""
    return [float(number.replace(",", "")) for number in NUMBER.findall(text)]


def titled(page: Path) -> dict[str, str]:
    """Return the files that a page shows, by their titles."""
    return {found[1]: found[2] for found in _TITLED.finditer(page.read_text())}


def commands(page: Path) -> list[str]:
    """Return the indented blocks of a page, which are shell commands."""
    return [textwrap.dedent(found[0]) for found in _INDENTED.finditer(page.read_text())]


def section(page: Path, heading: str) -> list[str]:
    """Return the shell commands of one section of a page, by its heading."""
    (text,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page.read_text(), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(found[0]) for found in _INDENTED.finditer(text)]
