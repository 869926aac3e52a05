"""What the newest forecasts of experts are made of: the weights in the states of some streams, for people.

Owns: a sample of the weights, and of what a network on top of the experts does, read now and then between steps, and
their mean. Does not know: how weights are learnt, words (`rillcast.bundle.mixture`, `rillcast.bundle.network_share`),
HTTP.

Invariants: at most `SAMPLED` streams are read for the mean, and those that are charted beside them; a bundle that keeps
its weights elsewhere shows none, and the log says so once. Any thread may read; one writes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rillcast.arrays import FloatArray
from rillcast.bundle.bundle import BundleMetadata
from rillcast.bundle.mixture import STATE, Mixture, Shares
from rillcast.bundle.network_share import STATES, NetworkShare, mean_figures, network_figures, network_shares
from rillcast.codecs.forecasts.columns import model_name
from rillcast.engine.step_engine import StepEngine
from rillcast.observability.observer import Observer, Published

log = logging.getLogger(__name__)
SAMPLED: Final = 500


@dataclass(frozen=True, slots=True)
class Sample:
    """Weights of one model.

    Attributes:
        model: Name and id of the bundle.
        mixture: Its experts.
        streams: Number of streams that the mean is of.
        mean: `[A, K]`, mean weights of these by horizon and expert.
        by_stream: `[A, K]` of each charted stream.
        network: `[A, 3]`, mean figures of the network on top; None = there is none.
        network_by_stream: `[A, 3]` of each charted stream.
    """

    model: str
    mixture: Mixture
    streams: int
    mean: npt.NDArray[np.floating[Any]]
    by_stream: Mapping[str, FloatArray]
    network: FloatArray | None = None
    network_by_stream: Mapping[str, FloatArray] = field(default_factory=dict)

    def shares(self, unique_id: str | None = None) -> list[Shares]:
        """Return the weights by horizon in words: of a stream, or the mean.

        Raises:
            KeyError: The stream is not charted, or has had no event.
        """
        return self.mixture.shares(self.mean if unique_id is None else self.by_stream[unique_id])

    def network_shares(self, unique_id: str | None = None) -> list[NetworkShare | None]:
        """Return what the network on top does, by horizon as `shares`: of a stream, or the mean; None = there is none.

        Raises:
            KeyError: The stream is not charted, or has had no event.
        """
        if self.network is None:
            return [None] * len(self.mixture.anchors)
        figures = self.network if unique_id is None else self.network_by_stream[unique_id]
        return [*network_shares(self.mixture, figures)]


class ExpertWeights(Observer):
    """Reads the weights when it may look at the states."""

    def __init__(
        self,
        charted: Callable[[], Collection[str]],
        report: Callable[[Mapping[str, float]], None] = lambda _: None,
        report_network: Callable[[Mapping[str, float]], None] = lambda _: None,
    ) -> None:
        """Begin without weights.

        Args:
            charted: Returns the streams that are shown to people.
            report: Is called with the mean weight of each base.
            report_network: Is called with the mean share of the network's correction that counts, by id of the model;
                without any where there is no network.
        """
        self._charted = charted
        self._report, self._report_network = report, report_network
        self._sample: Sample | None = None
        self._unreadable: set[str] = set()

    @property
    def sample(self) -> Sample | None:
        """The weights that were read last; None = the model has no experts, or no stream has had an event."""
        return self._sample

    def observe(self, published: Published) -> None:
        """Take nothing from results: the weights are in the states."""

    def serve(self, metadata: BundleMetadata, route: str = "") -> None:  # noqa: ARG002  the first route is looked at
        """Forget the weights of the model before."""
        if self._sample is not None and self._sample.model != model_name(metadata):
            self._sample = None
            self._report({})
            self._report_network({})

    def look(self, engine: StepEngine, partitions: Collection[int]) -> None:
        """Read the weights of some streams of a model; see `Observer.look`."""
        metadata, residents = engine.bundle.metadata, engine.residents
        mixture = Mixture.of(metadata)
        if mixture is None or not partitions or metadata.model_id in self._unreadable:
            return
        slots = np.concatenate([residents.newest(partition)[0] for partition in partitions])
        sampled = slots[:: -(-slots.size // SAMPLED)] if slots.size else slots
        charted = {
            unique_id: slot
            for partition in partitions
            for unique_id, slot in residents.find(partition, self._charted()).items()
        }
        every = np.concatenate([sampled, np.array(list(charted.values()), np.int64)])
        if not every.size:
            return
        rows = residents.state.slab.gather(every, STATES if mixture.has_network else [STATE])
        weights = mixture.weights(rows[STATE])
        if weights is None:
            self._unreadable.add(metadata.model_id)
            log.warning("the weights of %s cannot be read: another version exported it", model_name(metadata))
            return
        of_sample = weights[: sampled.size]
        known = of_sample.any(axis=(1, 2))
        if not known.any():
            return
        mean = of_sample[known].mean(axis=0, dtype=np.float64)
        by_stream = dict(zip(charted, weights[sampled.size :], strict=True))
        sample = Sample(model_name(metadata), mixture, int(known.sum()), mean, by_stream)
        if (figures := network_figures(mixture, rows)) is not None:
            of_streams = dict(zip(charted, figures[sampled.size :], strict=True))
            sample = replace(sample, network=mean_figures(figures[: sampled.size][known]), network_by_stream=of_streams)
        self.show(sample)

    def show(self, sample: Sample) -> None:
        """Show weights from now on."""
        self._sample = sample
        self._report(sample.mixture.by_base(sample.mean))
        model_id = sample.model.rpartition("@")[2]
        self._report_network({} if sample.network is None else {model_id: float(sample.network[:, 0].mean())})
