"""A name server on the loopback that writes down what it is asked: who looks up what, in a container or a process.

Owns: the questions. It knows one name, which is 127.0.0.1, and denies every other. Does not know: who asks.
"""

from __future__ import annotations

import socketserver
import struct
import threading
from types import TracebackType
from typing import Final

ADDRESS: Final = "127.0.0.53"
BROKER: Final = "broker.test"
_A: Final = 1
_ANSWER, _NO_SUCH_NAME = 0x8180, 0x8183


class Lookups:
    """A context in which the name server answers at port 53 of `ADDRESS`.

    Raises:
        OSError: The port cannot be had: not root, or taken.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()
        names = self.names

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                data, socket = self.request
                name, kind, end = _question(data)
                names.add(name)
                known = name == BROKER
                answers = int(known and kind == _A)
                head = data[:2] + struct.pack(">HHHHH", _ANSWER if known else _NO_SUCH_NAME, 1, answers, 0, 0)
                record = b"\xc0\x0c" + struct.pack(">HHIH", _A, 1, 60, 4) + bytes((127, 0, 0, 1))
                socket.sendto(head + data[12:end] + record * answers, self.client_address)

        self._server = socketserver.UDPServer((ADDRESS, 53), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Lookups:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _question(data: bytes) -> tuple[str, int, int]:
    """Return name and type of the first question of a DNS message, and where it ends (RFC 1035, 4.1.2)."""
    labels, at = [], 12
    while data[at]:
        labels.append(data[at + 1 : at + 1 + data[at]].decode())
        at += 1 + data[at]
    (kind,) = struct.unpack_from(">H", data, at + 1)
    return ".".join(labels).lower(), kind, at + 5
