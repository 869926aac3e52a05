"""Which model's state is stored of each partition, and for how long after another model took over.

A claim says in the store which model serves a partition, and which did before. The state of a superseded model stays
stored for a roll-back. A commit removes it `superseded_ttl_s` after the model was superseded, by the wall clock and the
time that the claim names. Removing it changes no stream's state, so a wall clock may decide; a wrong clock costs a
roll-back its kept state at worst.

Owns: the claims, and when a superseded model's state ends. Does not know: pages, positions, the order of a commit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rillcast.serving.router import Router
from rillcast.serving.served_model import ServedModel
from rillcast.settings import StateSettings
from rillcast.stores.base import Claim, Restored, Superseded

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Retirement:
    """The end of stored state of a partition, and the claim that no longer names it.

    Attributes:
        ended: By model id, the models whose state is removed.
        claim: The partition's claim after that.
    """

    ended: Mapping[str, Superseded]
    claim: Claim


@dataclass(slots=True)
class _Claimed:
    """What the store says of a partition."""

    claim: Claim | None = None
    others: Mapping[str, int] = field(default_factory=dict)  # see `Restored`


class ModelRetention:
    """Used from one thread."""

    def __init__(
        self,
        router: Router,
        settings: StateSettings,
        clock: Callable[[], float],
        wall_clock_ms: Callable[[], int],
    ) -> None:
        """Begin without claims.

        Args:
            router: Knows which model serves a partition, and which models are in use.
            settings: How long the state of a superseded model stays, and how often to look.
            clock: Monotonic seconds.
            wall_clock_ms: Milliseconds since the epoch.
        """
        self._router = router
        self._settings = settings
        self._clock = clock
        self._wall_clock_ms = wall_clock_ms
        self._started_ms = wall_clock_ms() - round(clock() * 1000)
        self._claimed: dict[int, _Claimed] = {}
        self._look_at = clock() + settings.snapshot_interval_s

    @property
    def due(self) -> bool:
        """Whether it is time to look, and the state of some model has been kept for long enough."""
        return self._clock() >= self._look_at and any(self._expired(partition) for partition in self._claimed)

    def begin(self, partition: int, found: Restored | None) -> None:
        """Note what the store says of a partition; None = it was not asked."""
        self._claimed[partition] = _Claimed() if found is None else _Claimed(found.claim, found.others)

    def forget(self, partitions: Iterable[int]) -> None:
        """Drop partitions that are no longer ours."""
        for partition in partitions:
            self._claimed.pop(partition, None)

    def claims(self, partition: int, model: ServedModel) -> bool:
        """Return whether the store already says that a model serves a partition."""
        claim = self._claimed[partition].claim
        return claim is not None and claim.model_id == model.model_id

    def claim_for(self, partition: int, model: ServedModel) -> Claim:
        """Return the claim of a model that takes over a partition, possibly from a model that has not claimed it."""
        # A clock that was stepped gives two times. Where something began takes the later one, and its end (`_expired`)
        # the earlier one: a step may keep state for longer, and never removes it too early.
        claimed, now_ms = self._claimed[partition], max(self._wall_clock_ms(), self._steady_ms())
        serving = self._router.model_of(partition)
        pages = {**claimed.others, serving.model_id: serving.residents.num_pages(partition)}
        claim = claimed.claim or Claim(serving.model_id, now_ms)
        for model_id in (serving.model_id, model.model_id):
            if claim.model_id != model_id:
                claim = claim.passed_on(model_id, now_ms, pages.get(claim.model_id, 0))
        return claim

    def retire(self, partitions: Iterable[int]) -> dict[int, Retirement]:
        """Return the stored state that ends with this commit, by partition.

        Args:
            partitions: The live partitions whose model stays the same with this commit; others wait.
        """
        self._look_at = self._clock() + self._settings.snapshot_interval_s
        in_use = self._router.in_use
        found: dict[int, Retirement] = {}
        for partition in sorted(partitions):
            claim = self._claimed[partition].claim
            ended = [model_id for model_id in self._expired(partition) if model_id not in in_use]
            # Only the model that a claim names writes a new one.
            if ended and claim is not None and self.claims(partition, self._router.model_of(partition)):
                found[partition] = Retirement({each: claim.before[each] for each in ended}, claim.without(ended))
        return found

    def committed(self, claims: Mapping[int, Claim], ended: Mapping[tuple[int, str], Superseded]) -> None:
        """Note the claims and the ended state that a successful commit carried."""
        for (partition, model_id), before in ended.items():
            until = datetime.fromtimestamp(before.at_ms / 1000, UTC).isoformat(timespec="seconds")
            log.info(
                "partition %d: the state of model %s, which served until %s, is removed", partition, model_id, until
            )
        for partition, claim in claims.items():
            self._claimed[partition].claim = claim

    def _expired(self, partition: int) -> Collection[str]:
        """Return the models that served a partition and were superseded `superseded_ttl_s` ago or earlier."""
        claim = self._claimed[partition].claim
        if not self._settings.superseded_ttl_s or claim is None:
            return ()
        expired_ms = min(self._wall_clock_ms(), self._steady_ms()) - self._settings.superseded_ttl_s * 1000
        return [model_id for model_id, each in claim.before.items() if each.at_ms <= expired_ms]

    def _steady_ms(self) -> int:
        """Return the time since the epoch by the clock's state at the start, whatever steps it made since."""
        return self._started_ms + round(self._clock() * 1000)
