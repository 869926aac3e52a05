"""The live views of several models as one: each table of `[[models]]` has a view of its own.

Owns: which view has a stream, and how the figures of several views add up. Does not know: HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from rillcast.arrays import FloatArray
from rillcast.bundle.bundle import BundleMetadata
from rillcast.engine.step_engine import SilentStreams
from rillcast.observability.live_view import LiveView
from rillcast.observability.observer import Observer, Published

_ADDED: Final = ("events", "events_per_second", "streams", "overdue_streams", "sleeping_streams", "followed")


class View(Protocol):
    """What readers ask of one live view or several; see `LiveView`."""

    @property
    def nominal_coverage(self) -> float:
        """Share of observations that the outer interval is meant to hold."""
        ...

    @property
    def silent(self) -> SilentStreams | None:
        """Streams without events; None = not counted yet."""
        ...

    def follow(self, unique_id: str) -> None:
        """Follow a stream because somebody asked for it, from its next event on."""
        ...

    def stream(self, unique_id: str) -> dict[str, Any]:
        """Return everything that is kept of a stream."""
        ...

    def heard(self) -> dict[str, tuple[int, int]]:
        """Return the followed streams that have had an event."""
        ...

    def streams(self, unique_ids: Iterable[str] | None = None) -> list[dict[str, Any]]:
        """Return a short form of followed streams."""
        ...

    def summary(self) -> dict[str, Any]:
        """Return the figures over all streams."""
        ...


class LiveViews(Observer):
    """As `LiveView`: one thread writes once per poll, any number read."""

    def __init__(
        self,
        models: Mapping[str, BundleMetadata],
        *,
        max_streams: int = 24,
        shadows: Mapping[str, str] | None = None,
    ) -> None:
        """Allocate the views.

        Args:
            models: The models that serve, by the name of their table; the only one has the empty name.
            max_streams: How many streams of each model are followed because they appeared first.
            shadows: Aliases of the models that step the events of a table too, by its name.
        """
        self._shadows = shadows or {}
        self._views = {name: LiveView(metadata, max_streams=max_streams) for name, metadata in models.items()}
        self._first = next(iter(self._views.values()))

    def serve(self, metadata: BundleMetadata, route: str = "") -> None:
        """See `Observer.serve`."""
        self._views[route].serve(metadata)

    def observe(self, published: Published) -> None:
        """See `Observer.observe`."""
        self._views[published.route].observe(published)

    def silent_streams(self, silent: SilentStreams, route: str = "") -> None:
        """See `Observer.silent_streams`."""
        self._views[route].silent_streams(silent)

    def record_latency(self, seconds: FloatArray) -> None:
        """Take in the ages of some events in seconds, of all models."""
        self._first.record_latency(seconds)

    @property
    def nominal_coverage(self) -> float:
        """See `View`; of several models that of the first table."""
        return self._first.nominal_coverage

    @property
    def silent(self) -> SilentStreams | None:
        """See `View`."""
        known = [view.silent for view in self._views.values() if view.silent is not None]
        if not known:
            return None
        named = [one for each in known for one in each.named]
        return SilentStreams(sum(each.overdue for each in known), sum(each.sleeping for each in known), named)

    def follow(self, unique_id: str) -> None:
        """Follow a stream; which model serves it is known with its next event."""
        for view in self._views.values():
            view.follow(unique_id)

    def stream(self, unique_id: str) -> dict[str, Any]:
        """See `View`; of several models, a stream says which one serves it.

        Raises:
            KeyError: The stream is not followed, or has had no event.
        """
        for name, view in self._views.items():
            if unique_id in view.heard():
                return view.stream(unique_id) | self._named(name)
        raise KeyError(unique_id)

    def charted(self) -> list[str]:
        """Return the streams that are followed."""
        return [unique_id for view in self._views.values() for unique_id in view.charted()]

    def heard(self) -> dict[str, tuple[int, int]]:
        """See `View`."""
        return {name: found for view in self._views.values() for name, found in view.heard().items()}

    def streams(self, unique_ids: Iterable[str] | None = None) -> list[dict[str, Any]]:
        """See `View`; of several models, each stream says which one serves it."""
        wanted = None if unique_ids is None else list(unique_ids)
        found = {
            each["unique_id"]: each | self._named(name)
            for name, view in self._views.items()
            for each in view.streams(wanted)
        }
        return list(found.values()) if wanted is None else [found[one] for one in wanted if one in found]

    def summary(self) -> dict[str, Any]:
        """Return the figures over all streams; of several models also those of each, by the name of its table.

        The figures that cannot be added up (`model`, `coverage`) are those of the first table in the whole.
        """
        of = {name: view.summary() for name, view in self._views.items()}
        whole = next(iter(of.values()))
        if len(of) == 1:
            return whole
        for name in _ADDED:
            whole = whole | {name: _sum([each[name] for each in of.values()])}
        tables = {name: each | {"shadow": self._shadows.get(name)} for name, each in of.items()}
        newest = [each["newest_ds"] for each in of.values() if each["newest_ds"] is not None]
        return whole | {"newest_ds": max(newest, default=None), "models": tables}

    def _named(self, name: str) -> dict[str, str]:
        return {"model": name} if len(self._views) > 1 else {}


def _sum(values: list[Any]) -> Any:
    """Return the sum of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
