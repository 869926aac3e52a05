"""Unit tests use no network: a socket that would connect or listen fails the test.

Tests that need sockets stand in tests/integration/http or tests/integration/kafka. Subprocesses are not watched.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

_INTERNET = (socket.AF_INET, socket.AF_INET6)


def _refusing(method: str) -> Any:
    original = getattr(socket.socket, method)

    def refuse(self: socket.socket, address: Any, *rest: Any) -> Any:
        if self.family in _INTERNET:
            pytest.fail(f"a unit test called socket.{method}({address!r}); move it to tests/integration")
        return original(self, address, *rest)

    return refuse


@pytest.fixture(autouse=True, scope="module")  # by session it would stay for the tests of other folders
def _no_sockets() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for method in ("bind", "connect", "connect_ex"):
            patch.setattr(socket.socket, method, _refusing(method))
        yield
