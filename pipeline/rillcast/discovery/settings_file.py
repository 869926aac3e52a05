"""A settings file with a comment above each setting.

Owns: how values are written in TOML. Does not know: which settings are chosen.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

_WIDTH: Final = 100


def write(values: Mapping[str, Any], why: Mapping[str, str], head: Sequence[str]) -> str:
    """Return the text of a settings file.

    Args:
        values: Values by the path of their setting.
        why: By path, a comment.
        head: Lines of a comment at the beginning.
    """
    parts = ["".join(f"# {line}\n" if line else "#\n" for line in head)]
    sections: dict[str, list[str]] = {"": []}
    for path, value in values.items():
        section, _, name = path.rpartition(".")
        sections.setdefault(section, []).append(_comment(why.get(path, "")) + f"{name} = {_value(value)}\n")
    for section, lines in sections.items():
        if lines:
            parts.append((f"[{section}]\n" if section else "") + "".join(lines))
    return "\n".join(parts)


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, _WIDTH)) if text else ""


def _value(value: Any) -> str:
    # Text, numbers, truth values and lists of them are written alike in JSON and TOML, but for escaped surrogates.
    return msgspec.json.encode(value).decode()
