"""The allocator of a training process: freed memory is used again, without the kernel."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

_FAULTS = """
import ctypes, resource, sys
from rillcast_training.fit.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
libc, size = ctypes.CDLL(None), 8 << 20
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    blocks = [libc.malloc(size) for _ in range(4)]
    for block in blocks:
        libc.memset(block, 1, size)
    for block in blocks:
        libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", _FAULTS, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_freed_blocks_are_used_again_without_new_pages() -> None:
    assert page_faults("kept") < page_faults("default") / 4
