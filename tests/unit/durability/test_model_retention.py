"""The state of models that served before: kept for a rollback as long as the setting says, then removed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rillcast.engine.slots import PAGE_SLOTS
from rillcast.settings import RolloutSettings, StateSettings, WorkerSettings
from rillcast.stores.base import Claim, Superseded
from rillcast.stores.format.pages import PageCodec
from rillcast.stores.local import LocalStore
from tests.support import workers
from tests.support.memory import Clock, Log, MemorySource
from tests.support.stores import SPECS, MemoryStore, Shelf, make_page, restore, save
from tests.support.toy import toy_bundle
from tests.support.workers import observation

BUNDLES = {name: toy_bundle(multiplier=m) for name, m in (("old", 31), ("new", 37), ("newest", 41))}
IDS = {name: bundle.metadata.model_id for name, bundle in BUNDLES.items()}
TTL_S = 100.0


@dataclass
class Service:
    """One partition of a service with three models, whose polls are a second apart; processes come and go."""

    shelf: Shelf = field(default_factory=Shelf)
    clock: Clock = field(default_factory=Clock)
    log: Log = field(default_factory=Log)
    live: str = "old"
    shadow: str | None = None
    ttl_s: float = TTL_S

    def run(self, until: float, at: dict[int, Callable[[], None]] | None = None, *, events: bool = True) -> Harness:
        """Run a process until the clock says `until`.

        Args:
            until: seconds.
            at: what happens when the clock says so.
            events: whether there is one at each second.
        """
        models = workers.MemoryModels({model_id: BUNDLES[name] for name, model_id in IDS.items()})
        models.store = lambda model_id: MemoryStore(self.shelf, model_id)
        if not self.log.partitions:
            self.log.append(0, observation("0/0", 1))
        harness = workers.build(
            self.log,
            bundle=BUNDLES[self.live],
            settings=WorkerSettings(commit_interval_s=0.5, delivery="exactly_once"),
            snapshots=StateSettings(snapshot_interval_s=2, snapshot_max_interval_s=2, superseded_ttl_s=self.ttl_s),
            store=lambda _sink: MemoryStore(self.shelf, IDS[self.live]),
            models=models,
            rollout=RolloutSettings(warm_up="retained"),
            clock=self.clock,
        )

        def second(source: MemorySource) -> None:
            self.clock.now += 1
            (at or {}).get(int(self.clock.now), lambda: None)()
            models.wanted, models.shadow = IDS[self.live], IDS.get(self.shadow or "")
            if events:
                self.log.append(0, observation("0/0", 1))
            if self.clock.now >= until:
                source.before_poll.clear()

        harness.source.before_poll.extend([second] * 10_000)
        harness.worker.run()
        return harness

    def promote(self, name: str) -> Callable[[], None]:
        """Return a function that makes a model the requested one."""

        def act() -> None:
            self.live = name

        return act

    @property
    def stored(self) -> set[str]:
        """The models that have state."""
        return {name for name, model_id in IDS.items() if self.shelf.marks.get((model_id, 0))}


Harness = workers.Harness


def superseded_at(service: Service, name: str) -> float:
    return service.shelf.claims[0].before[IDS[name]].at_ms / 1000


def test_it_is_removed_when_it_was_superseded_for_that_long_and_not_before(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    service = Service()
    service.run(40, {20: service.promote("new")})
    ended = superseded_at(service, "old")
    assert 20 <= ended <= 25
    harness = service.run(ended + TTL_S - 1)
    assert service.stored == {"old", "new"}
    assert harness.metric("rillcast_state_retired_total") == 0
    harness = service.run(ended + TTL_S + 3)
    assert service.stored == {"new"}
    assert not service.shelf.pages.get((IDS["old"], 0))
    assert harness.metric("rillcast_state_retired_total") == 1
    assert f"partition 0: the state of model {IDS['old']}, which served until 1970-01-01T00:00:2" in caplog.text
    assert service.shelf.claims[0].before == {}


@pytest.mark.parametrize("stepped_s", [86_400.0, -86_400.0])
@pytest.mark.parametrize("at", [10, 30])  # before another model took over, and after it
def test_a_step_of_the_clock_never_removes_it_early(at: int, stepped_s: float) -> None:
    service = Service()

    def step() -> None:
        service.clock.stepped_s = stepped_s

    service.run(TTL_S + 15, {at: step, 20: service.promote("new")})
    assert service.stored == {"old", "new"}


def test_it_is_removed_although_no_event_comes() -> None:
    service = Service()
    service.run(40, {20: service.promote("new")})
    service.run(200, events=False)
    assert service.stored == {"new"}


def test_each_of_several_goes_in_its_own_time() -> None:
    service = Service()
    service.run(80, {20: service.promote("new"), 60: service.promote("newest")})
    service.run(superseded_at(service, "old") + TTL_S + 3)
    assert service.stored == {"new", "newest"}
    service.run(superseded_at(service, "new") + TTL_S + 3)
    assert service.stored == {"newest"}


def test_a_model_that_serves_again_is_kept_for_the_full_time_again() -> None:
    service = Service()
    service.run(130, {20: service.promote("new"), 110: service.promote("old")})
    service.run(150)
    assert service.stored == {"old", "new"}
    assert service.shelf.claims[0].before.keys() == {IDS["new"]}
    service.run(180, {160: service.promote("new")})
    assert superseded_at(service, "old") >= 160
    service.run(240)
    assert service.stored == {"old", "new"}


def test_that_of_the_shadow_is_kept_for_as_long_as_it_is_one() -> None:
    service = Service(shadow="old")
    service.run(300, {20: service.promote("new"), 280: lambda: setattr(service, "shadow", None)})
    assert service.stored == {"new"}
    service = Service(shadow="old")
    service.run(300, {20: service.promote("new")})
    assert service.stored == {"old", "new"}


def test_a_roll_back_after_it_is_a_warm_up_like_that_of_a_new_model(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    service = Service()
    service.run(240, {20: service.promote("new"), 200: service.promote("old")})
    assert f"model {IDS['old']}, partition 0: following from offset 0 (no kept state)" in caplog.text
    assert service.shelf.serving == {0: IDS["old"]}


def test_a_model_that_was_replaced_by_a_restart_is_superseded_too() -> None:
    service = Service()
    service.run(20)
    service.promote("new")()
    service.run(30)
    service.run(superseded_at(service, "old") + TTL_S + 3)
    assert service.stored == {"new"}


def test_zero_keeps_it_forever() -> None:
    service = Service(ttl_s=0)
    service.run(2_000, {20: service.promote("new")})
    assert service.stored == {"old", "new"}


def test_a_clock_that_was_set_back_when_a_model_took_over_does_not_end_its_keeping_early() -> None:
    claim = Claim("old", 1_700_000_000_000).passed_on("new", 0, pages=3)
    assert claim == Claim("new", 1_700_000_000_000, {"old": Superseded(1_700_000_000_000, 3)})


def test_the_directory_of_a_model_that_a_process_has_open_stays_and_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = Superseded(5, 1)
    with (
        closing(LocalStore(tmp_path, PageCodec("old", SPECS))) as old,
        closing(LocalStore(tmp_path, PageCodec("new", SPECS))) as new,
    ):
        save(old, [make_page()])
        new.retire(0, "old", before)
        new.claim({0: Claim("new", 9)})
        new.commit()
        assert restore(new, 0)[0].claim == Claim("new", 9, {"old": before}), "as if it had not been tried"
        assert restore(old, 0)[0].mark is not None
    assert "the state of model old is kept for now" in caplog.text


def test_a_crash_in_the_middle_of_a_removal_leaves_it_to_the_next_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = make_page(unique_ids=tuple(f"{n}" for n in range(PAGE_SLOTS)))
    with closing(LocalStore(tmp_path, PageCodec("old", SPECS))) as old:
        save(old, [page])
    with closing(LocalStore(tmp_path, PageCodec("new", SPECS))) as new:
        new.retire(0, "old", Superseded(5, 1))
        with monkeypatch.context() as patched:
            patched.setattr(Path, "iterdir", _die)
            with pytest.raises(KeyboardInterrupt):
                new.commit()
    with closing(LocalStore(tmp_path, PageCodec("old", SPECS))) as old:
        assert restore(old, 0)[0].mark is None, "a page without a manifest is nobody's"
    with closing(LocalStore(tmp_path, PageCodec("new", SPECS))) as new:
        new.retire(0, "old", Superseded(5, 1))
        new.commit()
    assert not (tmp_path / "old" / "0").exists()


def _die(_path: Path) -> None:
    raise KeyboardInterrupt
