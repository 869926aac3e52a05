"""The C library's allocator, told to keep the memory that training frees.

Owns: that one setting of the process. Does not know: PyTorch. For a command to call at its start, never for a library:
it holds for the whole process and cannot be taken back.

By default glibc maps every large block anew from the kernel and gives it back when it is freed. A training step frees
and wants the same blocks of some ten megabytes again and again, and each of their pages is zeroed by the kernel every
time: some 30,000 page faults a step, a fifth to a third of its CPU time (docs/accuracy.md has the measurement).
"""

from __future__ import annotations

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3
_LARGEST_KEPT: Final = 32 << 20  # bytes of one block; the most that glibc takes
_KEPT_FREE: Final = 1 << 30  # bytes


def keep_freed_memory() -> bool:
    """Keep freed blocks of up to 32 MiB, and 1 GiB of them, for the next to ask; say whether the C library has that.

    Only glibc does. Elsewhere (musl, macOS) nothing changes, and `False` is returned: it is only about speed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    kept = [mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT), mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE)]
    return all(kept)
