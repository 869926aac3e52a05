r"""Names of members and columns in settings: lists of names, paths of members, arrays, and all members of an object.

    tags.host,tags.cpu      two members, each within the object `tags`
    fields.*                every member of the object `fields`
    readings[].value        the member `value` of each element of the array `readings`
    a\.b, a\,b, \*, a\[\]   a name that has such a character in it

Owns: this notation. Does not know: records, tables, what a member means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_COMMA: Final = re.compile(r"(?<!\\),")
_DOT: Final = re.compile(r"(?<!\\)\.")
_BAR: Final = re.compile(r"(?<!\\)\|")
_EQUALS: Final = re.compile(r"(?<!\\)=")
_ESCAPED: Final = re.compile(r"\\([.,*\[\]=|])")
_TO_ESCAPE: Final = re.compile(r"([.,*\[\]])")
_ARRAY: Final = "[]"

HEADER: Final = "$header."
"""Before the name of a header, where a condition asks for one in place of a member."""
MATCHED: Final = "matched"
"""The member of a file's record that holds the columns that tables of `[[models]]` ask for."""
ABSENT: Final[Any] = object()
"""What a path leads to in a record that does not have it."""


@dataclass(frozen=True, slots=True)
class MemberPath:
    """A path to a member.

    Attributes:
        text: The path as it was written, for messages.
        steps: Names of the members on the way; within an array, from an element on.
        array: Names of the members on the way to the array that it leads through; None = through none.
        every: Whether every member of the object at its end is meant.
    """

    text: str
    steps: tuple[str, ...]
    array: tuple[str, ...] | None = None
    every: bool = False

    def find(self, record: Any, element: Any = None) -> Any:
        """Return the value at the end of the path, `ABSENT` if there is none; `element` is that of the array."""
        return walk(record if self.array is None else element, self.steps)


def walk(at: Any, steps: tuple[str, ...]) -> Any:
    """Return what is at the end of a way of members, `ABSENT` where it ends early."""
    for step in steps:
        if not isinstance(at, Mapping):
            return ABSENT
        at = at.get(step, ABSENT)
    return at


def names(text: str) -> list[str]:
    """Return the names of a list, still escaped, without blanks around them."""
    return [name.strip() for name in _COMMA.split(text)]


def escaped(name: str) -> str:
    """Return a name as settings have it."""
    return _TO_ESCAPE.sub(r"\\\1", name)


def unescaped(name: str) -> str:
    """Return a name as it is in the record."""
    return _ESCAPED.sub(r"\1", name)


def parse(text: str) -> MemberPath:
    """Read one path.

    Raises:
        ValueError: A name in it is empty, it leads through two arrays, or `*` is not at its end.
    """
    array: tuple[str, ...] | None = None
    steps: list[str] = []
    parts = _DOT.split(text)
    every = parts[-1] == "*"
    for part in parts[:-1] if every else parts:
        through = part.endswith(_ARRAY) and not part.endswith("\\" + _ARRAY)
        name = part.removesuffix(_ARRAY) if through else part
        if part == "*" or (not name and not (through and not steps and array is None)):
            problem = "'*' stands before its end" if part == "*" else "a name in it is empty"
            raise ValueError(f"{text!r}: {problem}")
        if name:
            steps.append(unescaped(name))
        if through:
            if array is not None:
                raise ValueError(f"{text!r} leads through two arrays; one is possible")
            array, steps = tuple(steps), []
    if every and not steps and array is None:
        raise ValueError(f"{text!r}: expected the name of an object before '*'")
    return MemberPath(text, tuple(steps), array, every)


def is_plain(text: str) -> bool:
    """Return whether a text names one member outside of any array."""
    if len(names(text)) > 1:
        return False
    try:
        path = parse(text)
    except ValueError:
        return True  # whoever reads it as one name says what is wrong
    return path.array is None and not path.every


@dataclass(frozen=True, slots=True)
class Condition:
    """A member, and the texts of which it has to have one.

    Attributes:
        path: The member.
        texts: The texts; a member that is absent or null has the empty one.
    """

    path: MemberPath
    texts: frozenset[str]

    def holds(self, value: Any) -> bool:
        """Return whether a value has one of the texts."""
        return text_of(value) in self.texts


def conditions(text: str | None) -> list[Condition]:
    """Read `member=text,member=text|text`.

    Raises:
        ValueError: A part has no `=`, or its path cannot be read.
    """
    found = []
    for part in names(text) if text else ():
        path, *rest = _EQUALS.split(part, maxsplit=1)
        if not rest:
            raise ValueError(f"{part!r}: expected MEMBER=TEXT")
        if (where := parse(path.strip())).every:
            raise ValueError(f"{part!r}: '*' names no single member")
        found.append(Condition(where, frozenset(unescaped(each.strip()) for each in _BAR.split(rest[0]))))
    return found


def text_of(value: Any) -> str | None:
    """Return a value as the text that a condition compares; None = it has none (an object, an array)."""
    if value is ABSENT or value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return None
