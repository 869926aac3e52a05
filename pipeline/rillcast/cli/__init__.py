"""The command line: commands, flags, exit codes.

Rule: a command parses, calls and prints; what it does lives below. Loading the parser imports nothing heavy: a command
imports torch, polars or `rillcast_training` inside its `run`.
Does not know: how anything is computed, stored or transported.
"""

from rillcast.cli.entry import main, parser

__all__ = ["main", "parser"]
