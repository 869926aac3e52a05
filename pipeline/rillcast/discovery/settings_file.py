"""A settings file with a comment above each setting.

Owns: how values are written in TOML. Does not know: which settings are chosen.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

_WIDTH: Final = 100
_DELETE: Final = "\x7f"


def write(values: Mapping[str, Any], why: Mapping[str, str], head: Sequence[str]) -> str:
    """Return the text of a settings file.

    Args:
        values: Values by the path of their setting; a list of tables, each with a `name`, is written as tables.
        why: By path, and by `path.name` of a table, a comment.
        head: Lines of a comment at the beginning.
    """
    parts = ["".join(f"# {line}\n" if line else "#\n" for line in head)]
    sections: dict[str, list[str]] = {"": []}
    tables: list[str] = []
    for path, value in values.items():
        if isinstance(value, list):
            tables += [_table(path, table, why.get(f"{path}.{table['name']}", "")) for table in value]
            continue
        section, _, name = path.rpartition(".")
        sections.setdefault(section, []).append(_comment(why.get(path, "")) + f"{name} = {_value(value)}\n")
    for section, lines in sections.items():
        if lines:
            parts.append((f"[{section}]\n" if section else "") + "".join(lines))
        if not section:
            parts += tables
    return "\n".join(parts)


def _table(path: str, table: Mapping[str, Any], why: str) -> str:
    """Return one of several tables, with a comment above it."""
    return _comment(why) + f"[[{path}]]\n" + "".join(f"{name} = {_value(value)}\n" for name, value in table.items())


def _comment(text: str) -> str:
    text = "".join(sign if sign >= " " and sign != _DELETE else " " for sign in text)  # TOML has no others in comments
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, _WIDTH)) if text else ""


def _value(value: Any) -> str:
    # Text, numbers, truth values and lists of them are written alike in JSON and TOML, but for escaped surrogates, and
    # one character that TOML escapes.
    return msgspec.json.encode(value).decode().replace(_DELETE, "\\u007f")
