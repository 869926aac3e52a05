"""Builds the proxy of the network faults from a pinned Go module: `python -m tests.faults.build`.

Toxiproxy delays, drops and resets TCP connections on demand. Takes half a minute once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from tests.support.go_programs import GoPrograms

PROGRAMS: Final = GoPrograms(
    "faults", Path(__file__).parent / "tools", {"toxiproxy-server": "github.com/Shopify/toxiproxy/v2/cmd/server"}
)

if __name__ == "__main__":
    sys.exit(PROGRAMS.build())
