"""Tests that take minutes or need what most machines lack: each set has a make target, and runs with no other."""

from __future__ import annotations

import os

import pytest

_VARIABLE = "RILLCAST_TEST_LONG"


def runs_with(target: str) -> None:
    """Skip unless `make TARGET` runs; the target sets the variable."""
    if os.environ.get(_VARIABLE) != target:
        pytest.skip(f"`make {target}` runs it ({_VARIABLE}={target})")
