"""The roll-out of a model: from the one that serves to the one that is wanted, without a lost or doubled event.

While the old model serves, the new one follows (`rillcast.rollout.follower`). When it is close to the position at which
a partition is served, the loop stands still for at most 250 ms while it steps the last events. A commit then hands the
partition over. It carries the last pages of the old model, all pages of the new one, and its claim, all as of the
offset that it commits; from that offset on the new model's forecasts are published. A crash before the commit leaves
the old model with its state, a crash after it the new model with its own. The old state stays stored: a roll-back is
the same again, and the old model follows from where it stopped.

A shadow follows as well, for as long as an alias names it, and never takes over. Its scores are counted next to those
of the serving model, for the same events.

Every failure of a model that does not serve is counted and logged. The model is closed and tried again later
(`rillcast.rollout.candidate`); the published path does not depend on it. It costs time: at most half of the loop's
(`rillcast.rollout.pacing`). A shadow that cannot keep up with that is closed.

Owns: who follows which partitions, and when partitions change their model. Does not know: where models come from
(`Models`), or what a commit carries.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from rillcast.errors import OtherRecordsError, RillcastError, RolloutRefusedError
from rillcast.observability.route_metrics import RouteMetrics
from rillcast.rollout.candidate import Candidate, CandidateState
from rillcast.rollout.comparison import Comparison
from rillcast.rollout.follower import Follower
from rillcast.rollout.handover import Handover, HandoverLimits
from rillcast.rollout.member import Member
from rillcast.rollout.models import Models, Names
from rillcast.rollout.pacing import Pacing
from rillcast.rollout.warm_up import WarmUp
from rillcast.serving.served_model import ServedModel
from rillcast.settings import RolloutSettings
from rillcast.transports.kafka.common.partition_reader import PartitionReader

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RolloutParts:
    """What the service gives to a roll-out.

    Attributes:
        models: Where models come from.
        open_reader: Opens a second reader of the source's topic; None if there is none (a file).
        settings: How much at once, and how far back.
        wall_clock_ms: Milliseconds since the epoch, for where a warm-up begins.
    """

    models: Models
    open_reader: Callable[[], PartitionReader] | None = None
    settings: RolloutSettings = field(default_factory=RolloutSettings)
    wall_clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000


class Rollout:
    """Used from one thread."""

    def __init__(
        self,
        parts: RolloutParts,
        member: Member,
        limits: HandoverLimits,
        metrics: RouteMetrics,
        clock: Callable[[], float],
    ) -> None:
        """Follow nothing yet.

        Args:
            parts: Models, readers and settings.
            member: What this member serves.
            limits: How often partitions change their model, and how much at once.
            metrics: Counts and gauges.
            clock: Monotonic seconds.
        """
        self._parts = parts
        self._member = member
        self._router = member.router
        self._handover = Handover(member, limits, clock)
        self._metrics = metrics
        self._clock = clock
        self._warm_up = WarmUp(parts.settings.warm_up, member.router, parts.wall_clock_ms)
        self._names = Names()
        self._candidates: dict[str, Candidate] = {}
        self._pending_since: float | None = None
        self._handed_any = False  # since then
        self.comparison = Comparison(metrics)

    @property
    def busy(self) -> bool:
        """Whether a model has events to catch up with, so that the loop should not wait for new ones."""
        return any(
            lag != 0
            for each in self._candidates.values()
            if each.follower is not None and not each.pacing.resting
            for lag in each.follower.lags(self._member.positions(each.follower.partitions)).values()
        )

    @property
    def due(self) -> bool:
        """Whether a partition may be about to change its model."""
        return self._handover.due(self._wanted)

    def advance(self, finish_step: Callable[[], object]) -> None:
        """Look which models are asked for, and let each that follows catch up by a slice.

        Args:
            finish_step: Waits for the step in flight, so that states stand still.
        """
        self._names = self._parts.models.names()
        self._router.expect(filter(None, self._names))
        for model_id, numbers in self._targets().items():
            candidate = self._candidates.get(model_id) or self._add(model_id)
            if self._waits(candidate):
                continue
            try:
                self._follow(candidate, numbers, finish_step)
            except Exception as error:  # noqa: BLE001  the path that serves goes on after any error
                self._fail(candidate, error)
        self._note_done()

    def handovers(self) -> dict[int, ServedModel]:
        """Return the model that takes over each of some partitions, if one has come to where they are served."""
        if (candidate := self._wanted) is None:
            return {}
        try:
            chosen = self._handover.choose(candidate)
        except Exception as error:  # noqa: BLE001  the path that serves goes on after any error
            self._fail(candidate, error)
            return {}
        if chosen:
            candidate.hand_over()
        return chosen

    def handed_over(self, handovers: Mapping[int, ServedModel]) -> None:
        """The commit has succeeded: let the new model serve, and forget the states of the old one, which are stored."""
        for number, model in handovers.items():
            old = self._router.model_of(number)
            log.info(
                "partition %d: model %s takes over from %s at offset %d",
                number,
                model.model_id,
                old.model_id,
                self._member.checkpoint.position(number),
            )
            follower = self._candidates[model.model_id].follower
            assert follower is not None  # it hands over
            follower.leave(number, keep=True)
            old.residents.release(number)
            old.publisher.hand_over(number)
            self._router.assign(number, model)
        if handovers:
            self._go_on()
            self._handed_any = True
            self._handover.try_next()
            self._note_done()

    def forget(self, partitions: Iterable[int]) -> None:
        """Forget the states of partitions that leave or are reset to their committed positions."""
        partitions = set(partitions)
        self._go_on()
        for candidate in self._candidates.values():
            if candidate.follower is not None:
                candidate.follower.restrict(candidate.follower.partitions - partitions)
        self.comparison.forget(partitions)

    def close(self) -> None:
        """Close every model that does not serve."""
        for model_id in list(self._candidates):
            self._end(model_id)
        self._parts.models.close()

    @property
    def _wanted(self) -> Candidate | None:
        return self._candidates.get(self._names.wanted or "")

    def _targets(self) -> dict[str, set[int]]:
        """Return which models have to follow which partitions; end the candidates that are not needed any more."""
        targets: dict[str, set[int]] = {}
        if self._parts.open_reader is not None:
            live = self._member.partitions.live
            for model_id in filter(None, self._names):
                behind = {number for number in live if self._router.model_of(number).model_id != model_id}
                if behind:
                    targets[model_id] = behind
        for model_id, candidate in list(self._candidates.items()):
            if model_id not in (self._names if candidate.stopped else targets):
                self._end(model_id)
        return targets

    def _waits(self, candidate: Candidate) -> bool:
        """Return whether a candidate does nothing now; a failed one whose time has come is prepared again."""
        if candidate.state is CandidateState.FAILED and self._clock() >= candidate.retry_at:
            candidate.retry()
        return candidate.stopped or candidate.pacing.resting

    def _add(self, model_id: str) -> Candidate:
        pacing = Pacing(self._parts.settings.events_per_iteration, self._clock)
        candidate = self._candidates[model_id] = Candidate(model_id, pacing)
        return candidate

    def _follow(self, candidate: Candidate, numbers: set[int], finish_step: Callable[[], object]) -> None:
        if candidate.state is CandidateState.PREPARING:
            self._open(candidate)
        follower, model_id = candidate.follower, candidate.model_id
        if follower is None:
            return
        follower.restrict(numbers)
        for number in numbers - follower.partitions:
            follower.follow(number)
        if follower.model in self._router.all:
            finish_step()  # it serves other partitions: one thread at a time
        positions, started = self._member.positions(follower.partitions), self._clock()
        stepped = follower.advance(positions, candidate.pacing.slice_events)
        candidate.pacing.took(stepped, started)
        lags = follower.lags(positions)
        if model_id == self._names.shadow and model_id != self._names.wanted:
            self._compare(candidate, positions, lags)
        self._metrics.following(model_id, sum(lag or 0 for lag in lags.values()), len(numbers))

    def _compare(self, shadow: Candidate, positions: Mapping[int, int], lags: Mapping[int, int | None]) -> None:
        """Compare the shadow where it has caught up.

        Raises:
            RillcastError: It had caught up everywhere once, and has not for too long since.
        """
        self.comparison.caught_up(
            shadow.model_id, {number: positions[number] for number, lag in lags.items() if lag == 0}
        )
        now, patience_s = self._clock(), self._parts.settings.retry_s
        if all(lag == 0 for lag in lags.values()):
            shadow.caught_up_at = now
        elif shadow.caught_up_at is not None and now - shadow.caught_up_at > patience_s:
            behind = sum(lag or 0 for lag in lags.values())
            raise RillcastError(f"it cannot keep up: for {patience_s:g} s it has been behind, by {behind} records now")

    def _open(self, candidate: Candidate) -> None:
        """Begin to follow with a candidate, if its model is ready."""
        assert self._parts.open_reader is not None  # else there are no targets
        model_id = candidate.model_id
        model = self._router.find(model_id) or self._parts.models.open(model_id)
        if model is None:
            return
        self._router.retain(model)
        try:
            reader = self._parts.open_reader()
        except Exception:
            self._router.release(model)
            raise
        follower = Follower(
            model,
            reader,
            self._member.decoder,
            self._member.restorer,
            begin_at=self._warm_up.begin_at,
            on_result=self.comparison.shadow_stepped,
            silences=lambda number: self._router.model_of(number).residents.silences.known(number),
        )
        candidate.follow(follower)
        wanted = model_id == self._names.wanted
        log.info("model %s follows, %s", model_id, "to take over" if wanted else "as a shadow")
        if wanted:
            self._metrics.swap("started")

    def _note_done(self) -> None:
        """Let new partitions begin with the wanted model once it serves all that this member has."""
        wanted = self._names.wanted
        models = {self._router.model_of(number) for number in self._member.partitions.owned}
        if wanted is None or not models:
            self._pending_since = None  # there is nothing to hand over
        elif any(model.model_id != wanted for model in models):
            if self._pending_since is None:
                self._pending_since = self._clock()
        elif self._pending_since is not None or wanted != self._router.default.model_id:
            self._done(models.pop())
        pending_s = 0.0 if self._pending_since is None else self._clock() - self._pending_since
        refused = self._wanted is not None and self._wanted.state is CandidateState.REFUSED
        self._metrics.swap_pending(pending_s, refused=refused)

    def _done(self, model: ServedModel) -> None:
        self._pending_since, handed_any, self._handed_any = None, self._handed_any, False
        self._end(model.model_id)
        if model is not self._router.default:
            self._router.set_default(model)
            model.publisher.serve()
        if handed_any:
            log.info("model %s serves all partitions of this member", model.model_id)
            self._metrics.swap("completed")

    def _go_on(self) -> None:
        """Let the model that hands over follow on, if there is one."""
        for candidate in self._candidates.values():
            if candidate.state is CandidateState.HANDING_OVER:
                candidate.go_on()

    def _fail(self, candidate: Candidate, error: Exception) -> None:
        """Close a model that does not serve; try it again later, or if it was refused only under a new id."""
        model_id, refused = candidate.model_id, isinstance(error, RolloutRefusedError)
        retry_s = self._parts.settings.retry_s
        wanted = model_id == self._names.wanted
        log.warning(
            "model %s, %s, %s: %s%s. The model that serves goes on. %s",
            model_id,
            "which is to take over" if wanted else "the shadow",
            "was refused" if refused else "failed",
            "" if isinstance(error, RillcastError) else f"{type(error).__name__}: ",
            error,
            _remedy(error) if refused else f"It is tried again in {retry_s:g} s",
            exc_info=None if isinstance(error, RillcastError) else error,
        )
        if wanted:
            self._metrics.swap("refused" if refused else "failed")
        else:
            self._metrics.shadow_dropped()
        follower = candidate.follower
        if refused:
            candidate.refuse()
        else:
            candidate.fail(self._clock() + retry_s)
        self._closed(model_id, follower)

    def _end(self, model_id: str) -> None:
        """Stop following with a model; close it unless it serves."""
        candidate = self._candidates.pop(model_id, None)
        if candidate is not None:
            follower = candidate.follower
            candidate.end()
            self._closed(model_id, follower)

    def _closed(self, model_id: str, follower: Follower | None) -> None:
        """Tidy up after a candidate that does not follow any more."""
        if follower is not None:
            self._router.release(follower.model)
        self._metrics.not_following(model_id)
        self.comparison.end(model_id)


def _remedy(refused: Exception) -> str:
    if isinstance(refused, OtherRecordsError):
        return "Promote another one, roll the alias back, or start the service with --model REGISTRY@MODEL_ID"
    return "Promote another one, or roll the alias back"
