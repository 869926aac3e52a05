"""Text from records as it may be shown: an id can hold anything. Owns the escapes. Does not know who shows it."""

from __future__ import annotations


def printable(text: bytes | str) -> str:
    """Return text without effect on a terminal: control characters and what is no text are escaped.

    Args:
        text: Text, or bytes that should be UTF-8.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
