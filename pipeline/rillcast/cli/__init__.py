"""The command line: commands, flags, exit codes.

Rule: a command parses, calls and prints; the work is done by the packages below. A command imports heavy libraries and
`rillcast_training` in its functions only, and is itself imported when it is called.
Does not know: how anything is computed, stored or transported.
"""

from rillcast.cli.entry import console_script, main, parser

__all__ = ["console_script", "main", "parser"]
