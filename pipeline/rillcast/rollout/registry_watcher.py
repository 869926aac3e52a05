"""The models that a registry asks for, looked up, pulled, checked and loaded beside the worker's loop.

A thread of its own asks the registry every `poll_interval_s` which models the aliases mean, and makes ready what the
loop wants to open. What only the loop may do (its store, its publisher) is done when it is opened. While the registry
does not answer, what it last said stays.

Owns: the thread, and what is ready. Does not know: who serves, when a model takes over. `names`, `open`, `open_now` and
`close` are called by the worker's thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from rillcast.bundle.bundle import Bundle
from rillcast.bundle.compatibility import require_compatible
from rillcast.bundle.metadata import BundleMetadata
from rillcast.bundle.registry.model_registry import ModelRegistry
from rillcast.bundle.registry.reference import Reference
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import RillcastError, RolloutRefusedError
from rillcast.observability.metrics import Metrics
from rillcast.rollout.models import Names
from rillcast.serving.factory import ServedModelFactory
from rillcast.serving.served_model import ServedModel

log = logging.getLogger(__name__)

_JOIN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Asked:
    """Where to look which model is meant.

    Attributes:
        wanted: the model that is to serve; None = the one that does.
        shadow: the one to compare with it; None = none.
        poll_interval_s: how often to look.
    """

    wanted: Reference | None
    shadow: Reference | None
    poll_interval_s: float


class RegistryWatcher:
    """See `rillcast.rollout.models.Models`. The thread starts with the first question."""

    def __init__(
        self,
        asked: Asked,
        factory: ServedModelFactory,
        serving: BundleMetadata,
        metrics: Metrics,
        *,
        registry_at: Callable[[str], ModelRegistry] = ModelRegistry.at,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask nothing yet.

        Args:
            asked: which models.
            factory: makes lanes.
            serving: the model that the service began with; whatever takes over publishes records of its kind.
            metrics: counts questions that were not answered.
            registry_at: opens the registry at an address.
            clock: monotonic seconds.
        """
        self._asked = asked
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
        """Return what the registry said last; nothing before it has answered once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="rillcast-models", daemon=True)
            self._thread.start()
        with self._lock:
            return self._names

    def open(self, model_id: str) -> ServedModel | None:
        """Return a lane of a model that is ready, else have it made ready.

        Raises:
            RolloutRefusedError: it cannot take over, whenever it is tried.
            RillcastError: it could not be made ready this time.
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
        """Return a lane of a model that served before, pulled now.

        The alias may have moved since it was last looked up: another member was quicker. So what is asked for is not
        known until it has been looked up again; otherwise this member would go back, and forth again.

        Raises:
            RillcastError: as `open`.
        """
        if self._asked.wanted is None:
            return None
        with self._lock:
            self._names = Names(None, self._names.shadow)
            self._look_at = self._clock()
        self._wake.set()
        return self._factory.assemble(self._prepare(model_id, self._asked.wanted.registry))

    def close(self) -> None:
        """End the thread; a pull that is under way is left to its end."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while not self._stopping:
            with self._lock:
                due = self._clock() >= self._look_at
                if due:
                    self._look_at = self._clock() + self._asked.poll_interval_s
            if due:
                self._look()
            self._prepare_what_is_asked_for()
            with self._lock:
                left_s = self._look_at - self._clock()
            self._wake.wait(max(0.0, left_s))
            self._wake.clear()

    def _look(self) -> None:
        wanted, shadow = self._asked.wanted, self._asked.shadow
        wanted_id, shadow_id = self._resolve(wanted), self._resolve(shadow)
        with self._lock:
            names = Names(wanted_id or self._names.wanted, shadow_id or self._names.shadow)
            changed, self._names = names != self._names, names
            of_shadow = {} if shadow is None or names.shadow is None else {names.shadow: shadow.registry}
            of_wanted = {} if wanted is None or names.wanted is None else {names.wanted: wanted.registry}
            self._where = of_shadow | of_wanted
            for model_id in [each for each in self._prepared if each not in names]:
                del self._prepared[model_id]  # asked for no more; it may be large
            self._to_prepare &= set(filter(None, names))
        if changed:
            for role, asked, found in (("wanted", wanted, names.wanted), ("the shadow", shadow, names.shadow)):
                if asked is not None:
                    log.info("registry: the model %s, %s@%s, is %s", role, *asked, found or "not known yet")

    def _resolve(self, reference: Reference | None) -> str | None:
        """Return the id that a reference means now; None where that cannot be said."""
        if reference is None:
            return None
        try:
            return self._registry_at(reference.registry).resolve(reference.name)
        except RillcastError as error:
            self._metrics.registry_error()
            log.warning("%s; the models that run go on, and it is asked again", error)
            return None

    def _prepare_what_is_asked_for(self) -> None:
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
                    found = error
                except Exception as error:  # whatever a bundle or a device may come up with
                    log.exception("model %s could not be made ready", model_id)
                    found = RillcastError(f"it could not be made ready: {type(error).__name__}: {error}")
            with self._lock:
                self._to_prepare.discard(model_id)
                if where is not None and model_id in self._names:
                    self._prepared[model_id] = found

    def _prepare(self, model_id: str, where: str) -> StepEngine:
        """Pull a model, check it and put it on the device.

        Raises:
            RolloutRefusedError: it cannot be used, whenever it is tried.
            RillcastError: it cannot be used now.
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
        log.info("model %s@%s is ready after %.2f s", bundle.metadata.name, model_id, self._clock() - started)
        return engine
