"""A setting of the C library's allocator: keep the memory that training frees.

Owns: that one setting of the process. Does not know: PyTorch. A command calls it at its start; a library must not,
because it holds for the whole process and cannot be undone.

By default glibc maps every large block from the kernel and returns it when it is freed. A training step frees and
allocates the same blocks of some ten megabytes again and again, and the kernel zeroes each of their pages every time:
some 30,000 page faults a step, a fifth to a third of its CPU time (docs/accuracy.md has the measurement).
"""

from __future__ import annotations

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3
_LARGEST_KEPT: Final = 32 << 20  # bytes of one block; glibc's maximum
_KEPT_FREE: Final = 1 << 30  # bytes


def keep_freed_memory() -> bool:
    """Keep freed blocks of up to 32 MiB, and 1 GiB of them, for reuse; return whether the C library supports it.

    Only glibc does. Elsewhere (musl, macOS) nothing changes, and `False` is returned: only speed is affected.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    kept = [mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT), mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE)]
    return all(kept)
