"""A test whose tools are not installed is skipped with the reason; with `CI` set it fails.

A CI that silently tests nothing is worse than none.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def in_ci() -> bool:
    """Return whether this is a CI run."""
    return os.environ.get("CI", "").lower() in {"true", "1"}


def cannot_run(reason: str) -> NoReturn:
    """Skip the test, or fail it in CI."""
    if in_ci():
        pytest.fail(f"in CI: {reason}", pytrace=False)
    pytest.skip(reason)
