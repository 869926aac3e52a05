"""How a model that follows sees records.

Owns: the protocol. Does not know: who decodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rillcast.codecs.observations.fields import PolledRecords
from rillcast.codecs.observations.rejections import Rejection
from rillcast.events import EventBatch


class Decoder(Protocol):
    """Decodes the events that a model steps."""

    def decode(self, records: PolledRecords) -> tuple[EventBatch, Sequence[Rejection]]:
        """Return the events of records, and why others have none."""
        ...
