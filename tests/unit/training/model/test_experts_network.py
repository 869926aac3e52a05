"""A network on top of the experts sees what the mixture knows, and is believed as far as its own misses allow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from rillcast.bundle.mixture import Mixture
from rillcast.bundle.network_share import STATES, mean_figures, network_figures, network_shares
from rillcast_training.data.series import segments
from rillcast_training.data.split import SplitSeries
from rillcast_training.data.traces import TraceSampler, trace
from rillcast_training.export.experts import describe_experts
from rillcast_training.export.trace_graph import TraceGraph
from rillcast_training.model.experts.config import ExpertsConfig, NetworkShape
from rillcast_training.model.experts.forecaster import ExpertForecaster, ExpertRows
from rillcast_training.model.experts.network import Advice, Correction, Network, Traces, Trust, trained_horizons
from rillcast_training.model.lags import MEDIAN

HOUR_MS = 3_600_000
START = 400_000
STREAMS = 3
ALONE = ExpertsConfig("1h", 6, (4, 12))


def with_network(cell: str = "gru", *, seed: int = 0, spread: float = 0.05) -> ExpertForecaster:
    """A forecaster whose network says something, or with a spread of 0 nothing."""
    torch.manual_seed(seed)
    forecaster = ExpertForecaster(replace(ALONE, network=NetworkShape(cell, 5)))
    assert forecaster.network is not None
    torch.nn.init.normal_(forecaster.network.head.weight, std=spread)
    return forecaster.eval()


def values(steps: int, *, missing: float = 0.0, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    waves = np.sin(2 * np.pi * np.arange(steps)[:, None] / 4) + 0.3 * rng.normal(size=(steps, STREAMS))
    y = np.array([0.0, 100.0, -5.0]) + np.array([1.0, 10.0, 0.1]) * waves
    return torch.from_numpy(np.where(rng.random(y.shape) < missing, np.nan, y).astype(np.float32))


def ds(step: int) -> Tensor:
    return torch.full((STREAMS,), (START + step) * HOUR_MS)


def played(forecaster: ExpertForecaster, y: Tensor) -> tuple[list[Tensor], ExpertRows]:
    """Forecasts after each event, and the last state."""
    rows, forecasts = forecaster.initial_rows(STREAMS), []
    with torch.no_grad():
        for step, now in enumerate(y):
            outputs, rows = forecaster.step(ds(step), now, rows)
            forecasts.append(outputs.forecast)
    return forecasts, rows


def traced(y: Tensor) -> Traces:
    """Traces of all events, `[S, T, F]`."""
    forecaster = ExpertForecaster(ALONE).eval()
    rows, found = forecaster.initial_rows(STREAMS), []
    with torch.no_grad():
        for step, now in enumerate(y):
            one, rows = forecaster.trace(ds(step), now, rows)
            found.append(one)
    return Traces(*(torch.stack(parts, dim=1) for parts in zip(*found, strict=True)))


def test_a_network_that_says_nothing_leaves_the_mixture_as_it_is() -> None:
    y = values(40, missing=0.1)
    expected, _ = played(ExpertForecaster(ALONE).eval(), y)
    found, _ = played(with_network(spread=0.0), y)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("cell", ["elman", "gru", "lstm", "mingru", "slstm", "lru"])
def test_a_repeated_event_brings_the_same_forecast_and_state(cell: str) -> None:
    forecaster, y = with_network(cell), values(30)
    forecasts, rows = played(forecaster, y)
    with torch.no_grad():
        again, following = forecaster.step(ds(29), y[-1] + 7, rows)
        late, _ = forecaster.step(ds(20), y[-1] + 7, rows)
    torch.testing.assert_close(again.forecast, forecasts[-1], rtol=0, atol=0)
    torch.testing.assert_close(late.forecast, forecasts[-1], rtol=0, atol=0)
    for one, other in zip(following.flat(), rows.flat(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_the_step_runs_the_cell_as_training_does() -> None:
    """Training sees traces of the mixture alone; what the network says must change nothing that it sees."""
    forecaster, y = with_network(), values(50)
    _, rows = played(forecaster, y)
    network, traces = forecaster.network, traced(y)
    assert network is not None
    with torch.no_grad():
        hidden = network.cell.sequence(
            torch.cat([torch.relu(network.seen(traces.seen.clamp(-6, 6))), traces.missed.clamp(-8, 8)], dim=-1)
        )
    torch.testing.assert_close(
        forecaster.layout.core.unpack(rows.core)["network_hidden"].t(), hidden[:, -1], rtol=1e-4, atol=1e-5
    )


def test_a_correction_in_training_is_the_one_of_the_step() -> None:
    """At the first event nothing has been missed yet, so the share that is believed is known."""
    forecaster, y = with_network(), values(1)
    network = forecaster.network
    assert network is not None
    with torch.no_grad():
        found = network(traced(y), torch.zeros(STREAMS, 1, dtype=torch.int64)).quantiles()[:, 0]
        alone = network.mixture(traced(y), torch.zeros(STREAMS, 1, dtype=torch.int64)).quantiles()[:, 0]
    share = float(Trust()(torch.zeros(1, 2, 1)))
    anchors = torch.tensor(trained_horizons(ALONE.anchors)) - 1
    unbounded, _ = forecaster.step(ds(0), y[0], forecaster.initial_rows(STREAMS), bounds=0.0)
    middle = 4
    expected = alone + share * (found - alone)
    scale = (found - alone).abs().amax()
    torch.testing.assert_close(
        unbounded.forecast[:, anchors, middle], expected[..., middle], rtol=0, atol=1e-3 * float(scale)
    )


def test_the_mixture_in_training_is_the_mixture_that_is_served() -> None:
    y = values(40)
    served, _ = played(ExpertForecaster(ALONE).eval(), y)
    network = with_network().network
    assert network is not None
    with torch.no_grad():
        found = network.mixture(traced(y), torch.full((STREAMS, 1), 39)).quantiles()[:, 0]
    anchors = torch.tensor(trained_horizons(ALONE.anchors)) - 1
    negative = 2  # the stream that bounds do not touch
    torch.testing.assert_close(found[negative], served[-1][negative, anchors], rtol=1e-4, atol=1e-4)


def test_a_network_is_believed_by_what_it_misses() -> None:
    trust = Trust()

    def share(network: float, mixture: float = 500.0) -> float:
        return float(trust(torch.tensor([mixture, network]).reshape(1, 2, 1)))

    assert share(400) > 0.95
    assert share(500) > 0.5
    assert share(550) == pytest.approx(0.5, abs=0.05)
    assert share(750) < 0.01


def test_a_network_that_is_wrong_on_a_stream_leaves_its_forecasts_to_the_mixture() -> None:
    forecaster, y = with_network(spread=0.3), values(150)
    found, rows = played(forecaster, y)
    expected, _ = played(ExpertForecaster(ALONE).eval(), y)
    told = forecaster.layout.at_anchors(rows.core)["network"]
    assert float((told[:, 1] / told[:, 0]).min()) > 1.1  # it was wrong everywhere
    forecaster.learning.trust.forward = lambda missed: torch.ones_like(missed[:, :1])  # type: ignore[method-assign]  # as if believed
    believed, _ = played(forecaster, y)

    def far(forecasts: list[Tensor]) -> float:
        spreads = [one[..., -1] - one[..., 0] for one in expected[-50:]]
        pairs = zip(forecasts[-50:], expected[-50:], spreads, strict=True)
        return float(
            torch.stack([((one - other)[..., 4].abs() / spread).mean() for one, other, spread in pairs]).mean()
        )

    assert far(found) < far(believed) / 5


def test_weights_of_the_experts_are_found_in_the_state_beside_a_network() -> None:
    forecaster = with_network()
    _, rows = played(forecaster, values(30))
    mixture = Mixture.of(describe_experts(forecaster, name="one"))
    assert mixture is not None
    found = mixture.weights(rows.core.numpy())
    assert found is not None
    expected = forecaster.layout.at_anchors(rows.core)["weight"].permute(2, 0, 1).numpy()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_what_a_service_reads_of_a_network_is_what_it_does(missing: float) -> None:
    """From the states alone: the share that counts, and what it makes of the correction of the newest value's event."""
    forecaster, y = with_network(spread=0.2), values(40, missing=missing)
    network, said = forecaster.network, list[Advice]()
    assert network is not None
    network.telling.register_forward_hook(lambda _module, _arguments, advice: said.append(advice))
    _, rows = played(forecaster, y)
    mixture = Mixture.of(describe_experts(forecaster, name="one"))
    assert mixture is not None
    states = {spec.name: part.numpy() for spec, part in zip(forecaster.state_specs(), rows.flat(), strict=True)}
    found = network_figures(mixture, {name: states[name] for name in STATES})
    assert found is not None
    told = forecaster.layout.at_anchors(rows.core)["network"][:, :2]
    share = Trust()(told)
    np.testing.assert_allclose(found[:, :, 0], share[:, 0].t().numpy(), rtol=1e-5)
    for stream, newest in enumerate(y.isfinite().numpy().cumsum(axis=0).argmax(axis=0)):
        for column, part in enumerate(said[newest].correction, start=1):
            expected = (share * part)[:, 0, stream].numpy()
            np.testing.assert_allclose(found[stream, :, column], expected, rtol=1e-4, atol=1e-7)
    assert np.abs(found[:, :, 1]).max() > 0.01
    (one, *_), mean = network_shares(mixture, found[0]), mean_figures(found)
    assert one.step == 1
    assert one.width == pytest.approx(np.exp(found[0, 0, 2]))
    np.testing.assert_allclose(mean[:, 1], np.abs(found[:, :, 1]).mean(axis=0))


def test_a_network_without_a_known_correction_says_how_far_it_is_believed() -> None:
    forecaster = with_network()
    mixture = Mixture.of(describe_experts(forecaster, name="one"))
    assert mixture is not None
    rows = dict(zip([spec.name for spec in forecaster.state_specs()], forecaster.initial_rows(2).flat(), strict=True))
    found = network_figures(mixture, {name: rows[name].numpy() for name in STATES})
    assert found is not None
    (one, *_) = network_shares(mixture, found[0])
    assert one.share == pytest.approx(float(Trust()(torch.zeros(1, 2, 1))))
    assert (one.median, one.width) == (None, None)
    assert one.sentence() == "network: counts 6 %"
    assert np.isnan(mean_figures(found)[:, 1:]).all()
    alone = Mixture.of(describe_experts(ExpertForecaster(ALONE), name="alone"))
    assert alone is not None
    assert network_figures(alone, {name: rows[name].numpy() for name in STATES}) is None


def split_at(y: np.ndarray, cut: int) -> SplitSeries:
    periods = START + np.arange(len(y))
    return SplitSeries(
        tuple(segments(periods, y.astype(np.float32), season=4, max_gap=12, rule=MEDIAN)), START + cut, 1.0
    )


def test_the_graph_of_traces_shows_what_the_module_does() -> None:
    y, graph = values(40, missing=0.1), TraceGraph(ALONE)
    expected, rows, found = traced(y), graph.initial_rows(STREAMS), []
    for step, now in enumerate(y):
        seen, rows = graph.step(ds(step).numpy(), now.numpy(), rows)
        found.append(seen)
    _, fewer = graph.step(ds(40).numpy()[:1], y[0].numpy()[:1], [part[:1] for part in rows])
    assert {len(part) for part in fewer} == {1}
    for name, columns, column in zip(Traces._fields, zip(*found, strict=True), expected, strict=True):
        np.testing.assert_allclose(np.stack(columns, axis=1), column.numpy(), rtol=1e-4, atol=2e-4, err_msg=name)


def test_a_trace_shows_nothing_that_comes_later_and_targets_end_at_the_cut() -> None:
    y = values(60)[:, 0].numpy()
    changed = np.where(np.arange(60) < 40, y, y + 1000)
    (one,), (other,) = (
        trace([split_at(values_, 40)], ALONE, TraceGraph(ALONE), quiet=True) for values_ in (y, changed)
    )
    for column, again in zip(one.events, other.events, strict=True):
        np.testing.assert_array_equal(column[:40], again[:40])
    assert not np.array_equal(one.events[0][40:], other.events[0][40:])
    batches = list(TraceSampler([other], window=16, origins=8, batch=4).epoch(0, 0, 20))
    targets = torch.stack([batch.target for batch in batches])
    assert float(targets.nan_to_num().abs().max()) < 100
    assert float(targets.isfinite().float().mean()) > 0.5


def test_a_series_with_gaps_is_traced_event_by_event() -> None:
    y = values(40)[:, 0].numpy().astype(np.float32)
    periods = START + np.delete(np.arange(60), np.arange(20, 40))
    part = SplitSeries(tuple(segments(periods, y, season=4, max_gap=12, rule=MEDIAN)), START + 50, 1.0)
    (one,) = trace([part], ALONE, TraceGraph(ALONE), quiet=True)
    assert len(one.target) == 40
    np.testing.assert_array_equal(one.due[:, 0], periods + 1)
    np.testing.assert_array_equal(one.target[:19, 0], y[1:20])
    assert np.isnan(one.target[19]).all()  # what follows within the horizon is missing


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        NetworkShape("gru", 0)
    with pytest.raises(ValueError, match="dropout"):
        NetworkShape("gru", 4, dropout=1.0)
    with pytest.raises(ValueError, match="without a network"):
        with_network().trace(ds(0), torch.zeros(STREAMS), with_network().initial_rows(STREAMS))
    assert isinstance(with_network().network, Network)


def test_widths_of_each_anchor_are_widened_alone() -> None:
    network, traces = with_network().network, traced(values(30))
    assert network is not None
    origins = torch.full((STREAMS, 1), 29)
    with torch.no_grad():
        before = network(traces, origins)
        factors = torch.zeros(len(ALONE.anchors))
        factors[1] = 0.5
        network.widen(factors)
        after = network(traces, origins)
    ratio = (after.spread / before.spread)[..., [0, -1], :]
    torch.testing.assert_close(ratio[..., 1], torch.full_like(ratio[..., 1], float(np.exp(0.5))), rtol=1e-4, atol=0)
    torch.testing.assert_close(ratio[..., 0], torch.ones_like(ratio[..., 0]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_network_is_judged_by_what_it_said_and_not_too_often(stride: int) -> None:
    """At each horizon three corrections are pending at most."""
    torch.manual_seed(0)
    config = ExpertsConfig("1h", 24, (4, 12), stride=stride, network=NetworkShape("gru", 5))
    forecaster, said = ExpertForecaster(config).eval(), list[Advice]()
    assert forecaster.network is not None
    torch.nn.init.normal_(forecaster.network.head.weight, std=0.05)
    forecaster.network.telling.register_forward_hook(lambda _module, _arguments, advice: said.append(advice))
    misses = list[tuple[Tensor, Tensor]]()
    keep = forecaster.learning.trust.misses

    def listened(relative: Tensor, correction: Correction) -> Tensor:
        misses.append((correction.middle, correction.factor))
        return keep(relative, correction)

    forecaster.learning.trust.misses = listened  # type: ignore[method-assign]  # listens only
    y, sums = values(90), list[Tensor]()
    rows = forecaster.initial_rows(STREAMS)
    with torch.no_grad():
        for step, now in enumerate(y):
            _, rows = forecaster.step(ds(step), now, rows)
            sums.append(forecaster.layout.at_anchors(rows.core)["network"][:, :2])
    for number, (anchor, every) in enumerate(zip(config.anchors, config.network_strides, strict=True)):
        assert 3 * every >= anchor
        assert every % (1 if anchor <= 8 else stride) == 0
        judged = [step for step in range(60, 90) if not torch.equal(sums[step][number], sums[step - 1][number])]
        assert judged == [step for step in range(60, 90) if (START + step - anchor) % every == 0]
        for step in judged:
            torch.testing.assert_close(misses[step][0][number], said[step - anchor].correction.middle[number])
            torch.testing.assert_close(misses[step][1][number], said[step - anchor].correction.factor[number])
