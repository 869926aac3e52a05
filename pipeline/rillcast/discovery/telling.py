"""Rules by which streams of one kind are told from the others: patterns of their ids, or texts of a member.

Owns: the search for rules. Does not know: what the kinds are, how records are read.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

_SEPARATOR: Final = re.compile(r"[/._:|@#=~\s-]")
_NUMBERED: Final = re.compile(r"[^0-9]+(?=[0-9])")
_MOST_PATTERNS: Final = 4
_FEW_STREAMS: Final = 3
"""Streams of a kind up to which a rule may name single ones."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a table takes; nothing given = every event.

    Attributes:
        match: Pattern of the ids.
        only: Conditions on members.
    """

    match: str | None = None
    only: str | None = None

    @property
    def settings(self) -> dict[str, str]:
        """The settings of the table."""
        given = {"match": self.match, "only": self.only}
        return {name: text for name, text in given.items() if text is not None}


def by_id(kinds: Sequence[Set[str]]) -> tuple[int, dict[int, list[Taken]]] | None:
    """Return the kind that takes the rest, and patterns for each other one; None = there are none.

    A pattern is a beginning or an end of ids up to a separator or a number. It takes no stream of another kind.

    Args:
        kinds: Ids of the streams of each kind, the largest kind first.
    """
    found = {number: _patterns(mine, kinds, number) for number, mine in enumerate(kinds)}
    for rest in range(len(kinds)):
        others = {number: texts for number, texts in found.items() if number != rest}
        if all(others.values()):
            return rest, {number: [Taken(match=text) for text in texts] for number, texts in others.items()}
    return None


def by_member(
    source: str, texts_of: Mapping[str, Set[str | None]], kinds: Sequence[Set[str]]
) -> tuple[int, dict[int, list[Taken]]] | None:
    """Return the kind that takes the rest, and the texts of a member for each other one; None = it does not tell them.

    Args:
        source: The member, in the notation of `input.only`.
        texts_of: By stream, the texts that the member has in its records; None = one of many others.
        kinds: Ids of the streams of each kind, the largest kind first.
    """
    texts = [frozenset[str | None]().union(*(texts_of.get(stream, frozenset()) for stream in mine)) for mine in kinds]
    for number, mine in enumerate(texts):
        if not mine or any(mine & other for at, other in enumerate(texts) if at != number):
            return None
    found: dict[int, list[Taken]] = {}
    for number in range(1, len(kinds)):
        listed = [text for text in texts[number] if text is not None]
        if len(listed) < len(texts[number]):
            return None
        found[number] = [Taken(only=f"{source}={'|'.join(sorted(listed))}")]
    return 0, found


def _patterns(mine: Set[str], kinds: Sequence[Set[str]], number: int) -> list[str]:
    """Return few patterns that take all streams of one kind, and none of the others; empty = there are none."""
    taken: dict[str, set[str]] = {}
    for unique_id in mine:
        for pattern in _candidates(unique_id, alone=len(mine) <= _FEW_STREAMS):
            taken.setdefault(pattern, set()).add(unique_id)
    for at, others in enumerate(kinds):
        if at != number:
            for unique_id in others:
                for pattern in _candidates(unique_id, alone=True):
                    taken.pop(pattern, None)
    least = 1 if len(mine) <= _FEW_STREAMS else 2
    left, found = set(mine), list[str]()
    while left and len(found) < _MOST_PATTERNS:
        best = min(taken, key=lambda text: (-len(taken[text] & left), "*" not in text, len(text), text), default=None)
        if best is None or len(taken[best] & left) < least:
            return []
        found.append(best)
        left -= taken[best]
    return [] if left else found


def _candidates(unique_id: str, *, alone: bool) -> Iterator[str]:
    """Yield the patterns that take an id. Each pattern is a candidate of every id that it takes."""
    for separator in _SEPARATOR.finditer(unique_id):
        yield glob.escape(unique_id[: separator.end()]) + "*"
        yield "*" + glob.escape(unique_id[separator.start() :])
    if begin := _NUMBERED.match(unique_id):
        yield glob.escape(begin[0]) + "[0-9]*"
    if alone:
        yield glob.escape(unique_id)
