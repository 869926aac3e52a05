"""The roll-out of a model: from the one that serves to the one that is wanted, without a lost or doubled event.

While the old model serves, the new one follows (`rillcast.rollout.follower`). Where it has come close to the
position at which
a partition is served, the loop stands still for as long as the last events take, and a commit hands the partition over:
in it are the last pages of the old model, all pages of the new one, and its claim, all as of the offset that the commit
says. From that offset on the new model's forecasts are published; whatever happens before the commit leaves the old
model and its state, whatever happens after it the new one and its own. The old state stays stored, so a roll-back is
the same again: it follows from where it stopped.

A model in the shadow follows as well, for as long as it is named, and never takes over; its scores are counted beside
those of the serving model, for the same events.

Whatever goes wrong with a model that does not serve is counted and logged, the model is let go of, and tried again
later: the published path does not depend on it. What it costs is time: it gets at most half of the loop's, in slices
of a twentieth of a second at most, whatever a step of it takes. A shadow that cannot keep up with that is let go of.

Owns: who follows what, and when partitions change hands. Does not know: where models come from (`Models`), what is in a
commit.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.durability.assignment import Partitions
from rillcast.durability.checkpoint import Checkpoint
from rillcast.engine.residents import NO_WATERMARK
from rillcast.errors import RillcastError, RolloutRefusedError
from rillcast.observability.metrics import Metrics
from rillcast.rollout.comparison import Comparison
from rillcast.rollout.follower import Follower
from rillcast.serving.router import Router, ServedModel
from rillcast.settings import RolloutSettings
from rillcast.transports.kafka.common.partition_reader import PartitionReader

log = logging.getLogger(__name__)

_CONTEXTS: Final = 2  # of history, where a model has no kept state: gaps, and statistics that settle
_CLOSE_SLICES: Final = 4  # a model so many slices of events behind, or fewer, is brought to the position at once
_CLOSING_S: Final = 0.25  # so long the loop may stand still for it
_CLOSING_TURNS: Final = 40


class Names(NamedTuple):
    """Ids of models.

    Attributes:
        wanted: is to serve; None = whichever does, because none is asked for, or it is not known yet which.
        shadow: is to be compared with it; None = none.
    """

    wanted: str | None = None
    shadow: str | None = None


class Models(Protocol):
    """Where models come from."""

    def names(self) -> Names:
        """Return which models are asked for, as far as is known; never waits."""
        ...

    def open(self, model_id: str) -> ServedModel | None:
        """Return a new lane of a model, without any streams; None where it is not ready yet: it is made so meanwhile.

        Raises:
            RillcastError: it cannot be opened; if that is not `retriable`, it never will be.
        """
        ...

    def open_now(self, model_id: str) -> ServedModel | None:
        """Return a new lane of a model that served before, however long that takes; None where it is not to be had.

        Raises:
            RillcastError: it cannot be opened.
        """
        ...

    def close(self) -> None:
        """Let go of whatever is held; may be called twice."""
        ...


class NoModels:
    """Nothing but the model that serves already."""

    def names(self) -> Names:
        """Return that none is asked for."""
        return Names()

    def open(self, model_id: str) -> ServedModel | None:  # noqa: ARG002  the protocol names it
        """Return that it is not to be had."""
        return None

    def open_now(self, model_id: str) -> ServedModel | None:  # noqa: ARG002  likewise
        """Return that it is not to be had."""
        return None

    def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class RolloutParts:
    """What a roll-out is made of, beside what the worker has.

    Attributes:
        models: where models come from.
        open_history: opens a second reader of the source's topic; None where there is none (a file).
        settings: how much at once, and how far back.
        on_home: is told of the lane that serves all of this member's partitions from now on.
        wall_clock_ms: milliseconds since the epoch, for where a warm-up begins.
    """

    models: Models
    open_history: Callable[[], PartitionReader] | None = None
    settings: RolloutSettings = field(default_factory=RolloutSettings)
    on_home: Callable[[ServedModel], None] = lambda _lane: None
    wall_clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000


class Rollout:
    """Used from one thread."""

    def __init__(
        self,
        parts: RolloutParts,
        lanes: Router,
        partitions: Partitions,
        checkpoint: Checkpoint,
        decoder: ObservationDecoder,
        metrics: Metrics,
        *,
        commit_interval_s: float,
        pages_per_commit: int,
        clock: Callable[[], float],
    ) -> None:
        """Follow nothing yet.

        Args:
            parts: see there.
            lanes: who serves what.
            partitions: of this member.
            checkpoint: knows where each is served.
            decoder: of the serving path.
            metrics: counts and gauges.
            commit_interval_s: shortest time between two attempts to take over.
            pages_per_commit: so many pages are handed over in a commit, or one partition's.
            clock: monotonic seconds.
        """
        self._parts = parts
        self._lanes = lanes
        self._partitions = partitions
        self._checkpoint = checkpoint
        self._decoder = decoder
        self._metrics = metrics
        self._commit_interval_s = commit_interval_s
        self._pages_per_commit = pages_per_commit
        self._clock = clock
        self._followers: dict[str, Follower] = {}
        self._histories: dict[str, PartitionReader] = {}
        self._retry_at: dict[str, float] = {}
        self._attempt_at = clock()
        self._names = Names()
        self._pending_since: float | None = None
        self._handed_any = False  # since then
        self._rests_until: dict[str, float] = {}
        self._shadow_current_at: float | None = None
        self.comparison = Comparison(metrics)

    @property
    def busy(self) -> bool:
        """Whether a model has events to catch up with, so that the loop should not wait for new ones."""
        return any(
            lag != 0
            for model_id, each in self._followers.items()
            if self._clock() >= self._rests_until.get(model_id, 0.0)
            for lag in self._lags(each).values()
        )

    @property
    def in_use(self) -> set[str]:
        """The ids of the models that serve, warm up or are to do so: whose state is not to be touched."""
        return {*self._followers, *filter(None, self._names), *(lane.model_id for lane in self._lanes.all)}

    @property
    def due(self) -> bool:
        """Whether a partition may be about to change hands."""
        return self._clock() >= self._attempt_at and bool(self._close_by())

    def turn(self, settle: Callable[[], object]) -> None:
        """Look at what is asked for, and let each model that follows catch up by a slice.

        Args:
            settle: waits for the step in flight, so that states stand still.
        """
        self._names = self._parts.models.names()
        for model_id, numbers in self._targets().items():
            if self._clock() < max(self._retry_at.get(model_id, 0.0), self._rests_until.get(model_id, 0.0)):
                continue
            try:
                self._follow(model_id, numbers, settle)
            except Exception as error:  # noqa: BLE001  whatever it is, the path that serves has to go on
                self._give_up(model_id, error)
        self._note_done()

    def handovers(self) -> dict[int, ServedModel]:
        """Bring models that are close to it to the position at which partitions are served; return who takes over.

        The states stand still meanwhile. Empty where it did not come to it in time; the next commit tries again.
        """
        started = self._clock()
        self._attempt_at = started + self._commit_interval_s
        close_by, model_id = self._close_by(), self._names.wanted
        if not close_by or model_id is None:
            return {}
        follower = self._followers[model_id]
        limits = self._limits(follower)
        try:
            for _ in range(_CLOSING_TURNS):
                lags = follower.lags(limits)
                if not any(lags[number] for number in close_by) or self._clock() >= started + _CLOSING_S:
                    break
                follower.turn(limits)
        except Exception as error:  # noqa: BLE001  here too: the path that serves has to go on
            self._give_up(model_id, error)
            return {}
        # Where it did not come to it, the loop goes on for at least as long as it stood still.
        self._attempt_at = max(self._attempt_at, 2 * self._clock() - started)
        chosen: dict[int, ServedModel] = {}
        lags, pages = follower.lags(limits), 0
        for number in close_by:
            if lags[number] == 0 and (not chosen or pages < self._pages_per_commit):
                chosen[number] = follower.lane
                pages += len(follower.lane.residents.changed(number))
        return chosen

    def handed_over(self, handovers: Mapping[int, ServedModel]) -> None:
        """The commit has succeeded: let the new lanes serve, and forget the states of the old, which are stored."""
        for number, lane in handovers.items():
            old = self._lanes.of(number)
            log.info(
                "partition %d: model %s takes over from %s at offset %d",
                number,
                lane.model_id,
                old.model_id,
                self._checkpoint.position(number),
            )
            self._followers[lane.model_id].leave(number, keep=True)
            old.residents.release(number)
            old.publisher.hand_over(number)
            self._lanes.give(number, lane)
        if handovers:
            self._handed_any = True
            self._attempt_at = self._clock()  # the next partitions' turn
            self._note_done()

    def lane(self, model_id: str) -> ServedModel | None:
        """Return a lane of a model that a partition was served by, None where the model is not to be had."""
        follower = self._followers.get(model_id)
        if follower is not None:
            return follower.lane
        try:
            return self._parts.models.open_now(model_id)
        except RillcastError as error:
            log.warning("model %s, which served before, cannot be opened: %s", model_id, error)
            return None

    def forget(self, partitions: Iterable[int]) -> None:
        """Partitions are gone, or begin anew: whatever was warmed of them is of no more use."""
        gone = set(partitions)
        for follower in self._followers.values():
            follower.close(gone & follower.partitions)
        self.comparison.forget(gone)

    def close(self) -> None:
        """Let go of all that does not serve."""
        for model_id in list(self._followers):
            self._drop(model_id)
        self._parts.models.close()

    def _targets(self) -> dict[str, set[int]]:
        """Return which models have to follow which partitions; drop those that have nothing to follow any more."""
        targets: dict[str, set[int]] = {}
        if self._parts.open_history is not None:
            live = self._partitions.live
            for model_id in filter(None, self._names):
                behind = {number for number in live if self._lanes.of(number).model_id != model_id}
                if behind:
                    targets[model_id] = behind
        for model_id in [each for each in self._followers if each not in targets]:
            self._drop(model_id)
        for model_id in [each for each in self._retry_at if each not in self._names]:
            del self._retry_at[model_id]
        return targets

    def _follow(self, model_id: str, numbers: set[int], settle: Callable[[], object]) -> None:
        follower = self._followers.get(model_id) or self._open(model_id)
        if follower is None:
            return
        for number in follower.partitions - numbers:
            follower.leave(number)
        for number in numbers - follower.partitions:
            follower.follow(number)
        if follower.lane in self._lanes.all:
            settle()  # it serves other partitions: one thread at a time
        limits, started = self._limits(follower), self._clock()
        stepped = follower.turn(limits)
        ended = self._clock()
        follower.pace(stepped, ended - started)
        self._rests_until[model_id] = 2 * ended - started
        lags = follower.lags(limits)
        if model_id == self._names.shadow and model_id != self._names.wanted:
            self._compare(model_id, limits, lags)
        self._metrics.following(model_id, sum(lag or 0 for lag in lags.values()), len(numbers))

    def _compare(self, model_id: str, limits: Mapping[int, int], lags: Mapping[int, int | None]) -> None:
        """Compare the shadow where it has caught up.

        Raises:
            RillcastError: it had once, everywhere, and has not for too long since.
        """
        self.comparison.current(model_id, {number: limits[number] for number, lag in lags.items() if lag == 0})
        now, patience_s = self._clock(), self._parts.settings.retry_s
        if all(lag == 0 for lag in lags.values()):
            self._shadow_current_at = now
        elif self._shadow_current_at is not None and now - self._shadow_current_at > patience_s:
            behind = sum(lag or 0 for lag in lags.values())
            raise RillcastError(f"it cannot keep up: for {patience_s:g} s it has been behind, by {behind} records now")

    def _open(self, model_id: str) -> Follower | None:
        assert self._parts.open_history is not None  # else there are no targets
        lane = next((each for each in self._lanes.all if each.model_id == model_id), None)
        lane = lane or self._parts.models.open(model_id)
        if lane is None:
            return None
        self._lanes.hold(lane)
        history = self._parts.open_history()
        self._histories[model_id] = history
        self._followers[model_id] = Follower(
            lane,
            history,
            self._decoder,
            self._begin_at,
            most_events=self._parts.settings.events_per_iteration,
            on_result=self.comparison.shadow_stepped,
        )
        role = "to take over" if model_id == self._names.wanted else "in the shadow"
        log.info("model %s follows, %s", model_id, role)
        if model_id == self._names.wanted:
            self._metrics.swap("started")
        return self._followers[model_id]

    def _begin_at(self, lane: ServedModel, history: PartitionReader, number: int) -> int:
        """Return where a partition's history begins that a model without kept state is warmed with."""
        beginning = history.beginning(number)
        if self._parts.settings.warm_up == "retained":
            return beginning
        metadata, newest = lane.engine.bundle.metadata, self._parts.wall_clock_ms()
        if (watermark := self._lanes.of(number).residents.watermark(number)) != NO_WATERMARK:
            newest = min(newest, watermark)  # of data from long ago, whether the records say so or their events
        found = history.offset_at(number, newest - _CONTEXTS * metadata.context * metadata.frequency.nominal_ms)
        return beginning if found is None else max(beginning, found)

    def _limits(self, follower: Follower) -> dict[int, int]:
        return {number: self._checkpoint.position(number) for number in follower.partitions}

    def _lags(self, follower: Follower) -> dict[int, int | None]:
        return follower.lags(self._limits(follower))

    def _close_by(self) -> list[int]:
        """Return the partitions whose coming model is nearly where they are served."""
        follower = self._followers.get(self._names.wanted or "")
        if follower is None:
            return []
        enough = _CLOSE_SLICES * follower.slice_events
        live = self._partitions.live
        lags = sorted(self._lags(follower).items())
        return [number for number, lag in lags if lag is not None and lag <= enough and number in live]

    def _note_done(self) -> None:
        """When the wanted model serves all that this member has, it is where new partitions begin."""
        wanted = self._names.wanted
        lanes = {self._lanes.of(number) for number in self._partitions.owned}
        if wanted is None or not lanes:
            self._pending_since = None  # there is nothing to hand over
        elif any(lane.model_id != wanted for lane in lanes):
            if self._pending_since is None:
                self._pending_since = self._clock()
        elif self._pending_since is not None or wanted != self._lanes.home.model_id:
            self._done(lanes.pop())
        self._metrics.swap_pending(0.0 if self._pending_since is None else self._clock() - self._pending_since)

    def _done(self, lane: ServedModel) -> None:
        self._pending_since, handed_any, self._handed_any = None, self._handed_any, False
        self._drop(lane.model_id)
        if lane is not self._lanes.home:
            self._lanes.move_home(lane)
            self._parts.on_home(lane)
        if handed_any:
            log.info("model %s serves all partitions of this member", lane.model_id)
            self._metrics.swap("completed")

    def _give_up(self, model_id: str, error: Exception) -> None:
        """Let go of a model that does not serve; try it again later, or where that is of no use only under a new id."""
        refused = isinstance(error, RolloutRefusedError)
        retry_s = math.inf if refused else self._parts.settings.retry_s
        wanted = model_id == self._names.wanted
        log.warning(
            "model %s, %s, %s: %s%s. The model that serves goes on. %s",
            model_id,
            "which is to take over" if wanted else "the shadow",
            "was refused" if refused else "failed",
            "" if isinstance(error, RillcastError) else f"{type(error).__name__}: ",
            error,
            "Promote another one, or roll the alias back" if refused else f"It is tried again in {retry_s:g} s",
            exc_info=None if isinstance(error, RillcastError) else error,
        )
        if wanted:
            self._metrics.swap("refused" if refused else "failed")
        else:
            self._metrics.shadow_dropped()
        self._retry_at[model_id] = self._clock() + retry_s
        self._drop(model_id)

    def _drop(self, model_id: str) -> None:
        """Let go of a model's following; of the model too, unless it serves."""
        follower, history = self._followers.pop(model_id, None), self._histories.pop(model_id, None)
        if follower is not None:
            follower.close()
            self._lanes.let_go(follower.lane)
        if history is not None:
            history.close()
        self._rests_until.pop(model_id, None)
        self._metrics.not_following(model_id)
        self.comparison.drop(model_id)
        if model_id == self._names.shadow:
            self._shadow_current_at = None
