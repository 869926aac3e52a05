"""How often Python's cyclic garbage collector runs while a service serves.

Owns: its thresholds, for as long as the service runs. Does not know: who allocates. A record of librdkafka is an object
that the collector watches, so a poll of 2,000 makes it run three times for nothing: records go as soon as the last
reference to them does. With Python's thresholds that is 0.8 of some 28 us of processor time per event (`gc.callbacks`
around `rillcast bench kafka`), and each full collection goes through everything that was imported.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

YOUNG_OBJECTS: Final = 20_000  # allocated and not freed, ten polls' worth: enough to find cycles within seconds
_OLDER: Final = (10, 10)  # Python's own


@contextmanager
def sparing() -> Iterator[None]:
    """Collect seldom, and leave alone what was there before; on the way out all is as it was."""
    before = gc.get_threshold()
    gc.collect()  # or what is garbage already would stay for good
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *_OLDER)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
