"""Builds the object store of these tests from a pinned Go module: `python -m tests.s3.build`.

versitygw speaks S3 over a folder, with the conditional writes on which the registry depends. Takes a few minutes once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from tests.support.go_programs import GoPrograms

PROGRAMS: Final = GoPrograms(
    "s3", Path(__file__).parent / "tools", {"versitygw": "github.com/versity/versitygw/cmd/versitygw"}
)

if __name__ == "__main__":
    sys.exit(PROGRAMS.build())
