"""What an error means to a person and to a supervisor: one line, and an exit code.

Owns: which errors of Python and of native code are expected, and their words. Does not know: who raises them.
"""

from __future__ import annotations

import errno
import sys
import threading
import traceback
from typing import Final

from rillcast.errors import OutOfMemoryError, OutputError, RillcastError, TransportError
from rillcast.observability import logs

UNEXPECTED: Final = 1  # Python's own exit code after a traceback
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_DESCRIPTORS: Final = (errno.EMFILE, errno.ENFILE)
# What ONNX Runtime says, on a GPU too, and Python of a thread that gets no stack.
_NO_MEMORY: Final = (
    "Failed to allocate memory",
    "bad allocation",
    "std::bad_alloc",
    "out of memory",
    "start new thread",
)


def known(error: BaseException) -> RillcastError | None:
    """Return the error of ours that says what an error means; None = it is a fault of the program."""
    match error:
        case RillcastError():
            return error
        case MemoryError():
            return _out_of_memory(error)
        case RuntimeError() if any(words in str(error) for words in _NO_MEMORY):  # of native code and of threads
            return _out_of_memory(error)
        case OSError() if error.errno in _NO_DESCRIPTORS:
            return TransportError(f"{error.filename}: {error.strerror}; raise the limit of descriptors (ulimit -n)")
        case OSError() if error.errno in _FULL:
            return OutputError(f"{error.filename or 'standard output'}: {error.strerror}")
    return None


def report(error: RillcastError) -> int:
    """Say why a command ends, and return its exit code."""
    logs.report(error)
    return error.exit_code


def tell(error: BaseException) -> int:
    """Say why a thread has ended, with a traceback where that is a fault of the program; return the exit code."""
    if (found := known(error)) is not None:
        return report(found)
    traceback.print_exception(error)
    name = threading.current_thread().name
    print(f"rillcast: error: the thread {name} ended with {type(error).__name__}: {error}", file=sys.stderr)
    return UNEXPECTED


def _out_of_memory(error: BaseException) -> OutOfMemoryError:
    why = (str(error).splitlines() or ["no memory is left"])[0]
    return OutOfMemoryError(
        f"out of memory: {why}; raise the limit (of the container, ulimit -v), add members, or bound the streams "
        f"(state.max_streams_per_partition, state.idle_ttl_s)"
    )
