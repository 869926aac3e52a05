"""The longest time without a forecast, from the times at which the broker appended them."""

from __future__ import annotations


class Stalls:
    """Looks at the records of each partition in their order.

    Attributes:
        longest_s: Longest time in seconds between two records of one partition; 0 before there are two.
    """

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._newest_ms: dict[int, int] = {}

    def note(self, partition: int, at_ms: int) -> None:
        """Note the next record of a partition, appended at `at_ms` in milliseconds."""
        before = self._newest_ms.get(partition, at_ms)
        self.longest_s = max(self.longest_s, (at_ms - before) / 1000)
        self._newest_ms[partition] = at_ms
