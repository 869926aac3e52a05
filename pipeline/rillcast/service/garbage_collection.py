"""How often Python's cyclic garbage collector runs while a service serves.

Owns: its thresholds, while the service runs. Does not know: who allocates.

A record of librdkafka is an object that the collector tracks, so a poll of 2,000 makes it run three times in vain:
records are freed with the last reference to them. With Python's thresholds that costs 0.8 of some 28 us of processor
time per event (`gc.callbacks` around `rillcast bench kafka`), and each full collection visits everything that was
imported.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

YOUNG_OBJECTS: Final = 20_000  # allocated and not freed, by about ten polls: cycles are found within seconds
_OLDER: Final = (10, 10)  # Python's own


@contextmanager
def sparing() -> Iterator[None]:
    """Collect seldom, and leave existing objects alone; on exit, restore Python's state."""
    before = gc.get_threshold()
    gc.collect()  # garbage that is frozen would stay until the end
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *_OLDER)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
