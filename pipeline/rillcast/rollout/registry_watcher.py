"""Watches a model registry, and prepares the models that its aliases name in a thread of its own.

Every `poll_interval_s` the thread asks the registry which models the aliases name. It pulls, checks and loads those
that the loop asks for. The loop itself opens them, because a store and a publisher belong to its thread. While the
registry does not answer, its last answer stays.

Owns: the thread, and the prepared models. Does not know: who serves, or when a model takes over. The worker's thread
calls `names`, `open`, `open_now` and `close`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from rillcast import threads
from rillcast.bundle.bundle import Bundle
from rillcast.bundle.compatibility import require_compatible
from rillcast.bundle.metadata import BundleMetadata
from rillcast.bundle.registry.model_registry import ModelRegistry
from rillcast.bundle.registry.reference import Reference
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import OtherRecordsError, RillcastError, RolloutRefusedError, ServedByAnotherKindError
from rillcast.observability.route_metrics import RouteMetrics
from rillcast.rollout.models import Names
from rillcast.serving.factory import ServedModelFactory
from rillcast.serving.served_model import ServedModel

log = logging.getLogger(__name__)

_JOIN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Aliases:
    """The aliases that are watched.

    Attributes:
        wanted: The alias of the model that should serve; None = the model that serves stays.
        shadow: The alias of the model that is compared with it; None = none.
        poll_interval_s: Seconds between two questions to the registry.
        claims_decide: Whether a member that starts goes on with a model of another kind that it finds serving a
            partition, instead of taking over from it.
    """

    wanted: Reference | None
    shadow: Reference | None
    poll_interval_s: float
    claims_decide: bool = False


class RegistryWatcher:
    """See `rillcast.rollout.models.Models`. The first call of `names` starts the thread."""

    def __init__(
        self,
        aliases: Aliases,
        factory: ServedModelFactory,
        serving: BundleMetadata,
        metrics: RouteMetrics,
        *,
        registry_at: Callable[[str], ModelRegistry] = ModelRegistry.at,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask nothing yet.

        Args:
            aliases: The aliases that are watched.
            factory: Makes served models.
            serving: The model that the service began with; its successors publish records of the same kind.
            metrics: Counts questions that were not answered.
            registry_at: Opens the registry at an address.
            clock: Monotonic seconds.
        """
        self._aliases = aliases
        self._factory = factory
        self._serving = serving
        self._metrics = metrics
        self._registry_at = registry_at
        self._clock = clock
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        # Under the lock.
        self._names = Names()
        self._where: Mapping[str, str] = {}
        self._look_at = clock()
        self._to_prepare: set[str] = set()
        self._prepared: dict[str, StepEngine | RillcastError] = {}

    def names(self) -> Names:
        """Return the registry's last answer; no models before the first one."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="rillcast-models", daemon=True)
            threads.start(self._thread)
        with self._lock:
            return self._names

    def open(self, model_id: str) -> ServedModel | None:
        """Return a model that is prepared; otherwise have it prepared and return None.

        Raises:
            RolloutRefusedError: The model can never take over.
            RillcastError: The model could not be prepared this time.
        """
        with self._lock:
            found = self._prepared.pop(model_id, None)
            if found is None:
                self._to_prepare.add(model_id)
        if found is None:
            self._wake.set()
            return None
        if isinstance(found, RillcastError):
            raise found
        return self._factory.assemble(found)

    def open_now(self, model_id: str) -> ServedModel | None:
        """Return a model that served before; it is pulled now.

        Another member may have taken over first, and the alias may have moved since this one last looked. So this
        member counts the wanted model as unknown until it has looked again; otherwise it would go back, and then forth
        again.

        Raises:
            ServedByAnotherKindError: Its records differ from those of the model that this service began with, and such
                claims decide.
            RillcastError: As for `open`.
        """
        wanted = self._aliases.wanted
        if wanted is None:
            return None
        with self._lock:
            self._names = Names(None, self._names.shadow)
            self._look_at = self._clock()
        self._wake.set()
        try:
            return self._factory.assemble(self._prepare(model_id, wanted.registry))
        except OtherRecordsError as error:
            if not self._aliases.claims_decide:
                raise
            raise ServedByAnotherKindError(
                model_id, f"model {model_id}, which serves a partition, is of another kind: {error}"
            ) from error

    def close(self) -> None:
        """End the thread; wait at most 5 s for a pull that is under way."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while not self._stopping:
            with self._lock:
                due = self._clock() >= self._look_at
                if due:
                    self._look_at = self._clock() + self._aliases.poll_interval_s
            if due:
                self._look()
            self._prepare_requested()
            with self._lock:
                left_s = self._look_at - self._clock()
            self._wake.wait(max(0.0, left_s))
            self._wake.clear()

    def _look(self) -> None:
        wanted, shadow = self._aliases.wanted, self._aliases.shadow
        wanted_id, shadow_id = self._resolve(wanted), self._resolve(shadow)
        with self._lock:
            names = Names(wanted_id or self._names.wanted, shadow_id or self._names.shadow)
            changed, self._names = names != self._names, names
            of_shadow = {} if shadow is None or names.shadow is None else {names.shadow: shadow.registry}
            of_wanted = {} if wanted is None or names.wanted is None else {names.wanted: wanted.registry}
            self._where = of_shadow | of_wanted
            for model_id in [each for each in self._prepared if each not in names]:
                del self._prepared[model_id]  # no alias names it any more, and it may be large
            self._to_prepare &= set(filter(None, names))
        if changed:
            for role, alias, found in (("wanted model", wanted, names.wanted), ("shadow", shadow, names.shadow)):
                if alias is not None:
                    log.info("registry: the %s, %s@%s, is %s", role, *alias, found or "not known yet")

    def _resolve(self, reference: Reference | None) -> str | None:
        """Return the id of the model that a reference names now; None if that is unknown."""
        if reference is None:
            return None
        try:
            return self._registry_at(reference.registry).resolve(reference.name)
        except RillcastError as error:
            self._metrics.registry_error()
            log.warning("%s; the models that run go on, and the registry is asked again", error)
            return None

    def _prepare_requested(self) -> None:
        while True:
            with self._lock:
                if not self._to_prepare or self._stopping:
                    return
                model_id = min(self._to_prepare)
                where = self._where.get(model_id)
            if where is not None:
                try:
                    found: StepEngine | RillcastError = self._prepare(model_id, where)
                except RillcastError as error:
                    found = error.with_traceback(None)  # its frames hold a model
                except Exception as error:  # any fault of a bundle or a device
                    log.exception("model %s could not be prepared", model_id)
                    found = RillcastError(f"it could not be prepared: {type(error).__name__}: {error}")
            with self._lock:
                self._to_prepare.discard(model_id)
                if where is not None and model_id in self._names:
                    self._prepared[model_id] = found

    def _prepare(self, model_id: str, where: str) -> StepEngine:
        """Pull a model, check it and load it onto the device.

        Raises:
            RolloutRefusedError: The model can never be used.
            RillcastError: The model cannot be used now.
        """
        started = self._clock()
        try:
            bundle = Bundle.from_bytes(self._registry_at(where).pull(model_id).data)
            require_compatible(self._serving, bundle.metadata)
            engine = self._factory.prepare(bundle)
        except RillcastError as error:
            if error.retriable or isinstance(error, RolloutRefusedError):
                raise
            raise RolloutRefusedError(str(error)) from error
        log.info("model %s@%s is prepared after %.2f s", bundle.metadata.name, model_id, self._clock() - started)
        return engine
