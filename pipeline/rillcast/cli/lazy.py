"""Parsers that get their arguments when they are first used.

Owns: the moment at which a command's module is imported, so that no command waits for the imports of another. Does not
know: the commands.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


class LazyParser(argparse.ArgumentParser):
    """A parser that calls `configure` with itself before it parses or shows its help."""

    def __init__(
        self, *args: Any, configure: Callable[[argparse.ArgumentParser], None] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._configure = configure

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, with the arguments that `configure` adds."""
        self._ensure_configured()
        return super().parse_known_args(args, namespace)

    def format_help(self) -> str:
        """Return the help, with the arguments that `configure` adds."""
        self._ensure_configured()
        return super().format_help()

    def _ensure_configured(self) -> None:
        configure, self._configure = self._configure, None
        if configure is not None:
            configure(self)
