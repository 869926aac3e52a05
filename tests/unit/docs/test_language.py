"""Texts for users are plain: help, settings, errors and log lines have no dropped word. See CONTRIBUTING.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from rillcast import cli
from rillcast.cli.entry import COMMANDS
from rillcast.settings import Settings
from tests.support.commands import subparsers
from tests.support.paths import ROOT

# The one list of words and phrases that no text for users has. Each is replaced by the plain word.
DROPPED = (
    *("beside", "anew", "told", "so many", "so few", "so-manieth", "gone", "likewise", "whatever", "of use", "purse"),
    *("what becomes of", "is not to be had", "not to be had", "came to nothing", "come to nothing", "let go of"),
    *("has to mend", "rewind", "settle"),
)
# Turns of a sentence that are dropped with them: a clause with 'what' or 'that' at its beginning, 'for' as 'because'.
DROPPED_TURNS = (r"(?:^|[.!?] +)(?:what|that which|whoever)\b", r", for (?:it|they|there|its|their)\b")
PATTERN = re.compile("|".join((*(rf"\b{re.escape(word)}\b" for word in DROPPED), *DROPPED_TURNS)), re.IGNORECASE)
PRINTS = {"print", "_say"}
LOG_LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
MODULES = sorted(
    [*(ROOT / "pipeline" / "rillcast").rglob("*.py"), *(ROOT / "training" / "rillcast_training").rglob("*.py")]
)


def dropped(text: str) -> list[str]:
    """Return the dropped words of a text."""
    return sorted({found[0].strip(" .,").lower() for found in PATTERN.finditer(" ".join(text.split()))})


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_no_dropped_word(command: str) -> None:
    (parser,) = [one for one in subparsers(cli.parser()) if one.prog.endswith(f" {command}")]
    texts = {parser.prog: parser.format_help()}
    texts |= {one.prog: one.format_help() for one in subparsers(parser)}
    assert not {name: found for name, text in texts.items() if (found := dropped(text))}


def test_the_list_of_commands_has_no_dropped_word() -> None:
    assert not dropped(cli.parser().format_help())


def docstrings(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, str]]:
    """Every section and setting with its text."""
    yield path or "settings", model.__doc__ or ""
    for name, field in model.model_fields.items():
        yield path + name, field.description or ""
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from docstrings(field.annotation, f"{path}{name}.")


def test_settings_have_no_dropped_word() -> None:
    assert not {path: found for path, text in docstrings(Settings) if (found := dropped(text))}


def literals(node: ast.AST) -> Iterator[str]:
    """The text of a message: its constants, with the values of an f-string left out."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from literals(child)


def is_message(call: ast.Call) -> bool:
    """Whether a call makes an error, or writes to the log or to the terminal."""
    called = call.func
    if isinstance(called, ast.Attribute):
        name, of = called.attr, ast.unparse(called.value)
        return name.endswith(("Error", "Aborted")) or (name in LOG_LEVELS and of.split(".")[-1] in ("log", "logger"))
    return isinstance(called, ast.Name) and (called.id.endswith(("Error", "Aborted")) or called.id in PRINTS)


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """Every message of a module, with its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and is_message(node):
            for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                yield from ((node.lineno, text) for text in literals(argument))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_messages_have_no_dropped_word(path: Path) -> None:
    assert not {line: (found, text) for line, text in messages(path) if (found := dropped(text))}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a message that says what failed, and what to do next", []),
        ("the leader is gone. What came before it stays, for it is stored", ["for it", "gone", "what"]),
        ("takes so many events anew", ["anew", "so many"]),
        ("gonein togetherness foretold", []),
    ],
)
def test_dropped_words_are_found(text: str, found: list[str]) -> None:
    assert dropped(text) == found
