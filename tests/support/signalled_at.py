"""`python -m tests.support.signalled_at FILE:FUNCTION run ...`: the command line, which gets a SIGTERM there.

The place is a function by the end of its file's path and its qualified name, `<module>` while the module is imported.
The signal comes as the function is entered for the first time, in whatever thread; the log says so. With `--loaded`
before the place the modules of the service are imported first and not watched, which takes a quarter of the time.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, Final

_LOADED: Final = "--loaded"


def command(place: str, *, loaded: bool = False) -> tuple[str, ...]:
    """Return the command of a service that gets the signal at a place, perhaps only once its modules are loaded."""
    options = (_LOADED,) if loaded else ()
    return (sys.executable, "-m", "tests.support.signalled_at", *options, place, "run", "--http.port", "0")


def said(place: str) -> str:
    """Return what the log says where the place was reached."""
    return f"SIGTERM at {place}\n"


def _watch(place: str) -> None:
    file, name = place.rsplit(":", 1)
    once = threading.Lock()

    def trace(frame: FrameType, _event: str, _argument: Any) -> None:
        """Look at each call; of what a function does within it nothing is asked."""
        code = frame.f_code
        if code.co_qualname != name or not code.co_filename.endswith(file):
            return
        sys.settrace(None)
        if once.acquire(blocking=False):
            os.write(2, said(place).encode())
            os.kill(os.getpid(), signal.SIGTERM)

    threading.settrace(trace)
    sys.settrace(trace)


if __name__ == "__main__":
    if sys.argv[1] == _LOADED:
        importlib.import_module("rillcast.service.build")
        del sys.argv[1]
    _watch(sys.argv.pop(1))
    from rillcast.cli import console_script

    sys.exit(console_script())
